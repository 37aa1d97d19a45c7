"""Results that show themselves: a table in a terminal that knows rich, HTML in a notebook, one line else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence


class Sheet(NamedTuple):
    """What is shown: a title, the names of columns, rows of text; the first column is left-aligned."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Shown:
    """Base of results that show themselves; they tell what by `sheet`."""

    def sheet(self) -> Sheet:
        """Give what is shown."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.sheet().title})"

    def __rich__(self) -> Group:
        title, head, rows = self.sheet()
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=any(head))
        for number, name in enumerate(head):
            table.add_column(name, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        return Group(Text(title, style="bold"), table)

    def _repr_html_(self) -> str:
        title, head, rows = self.sheet()
        cells = "".join(f"<th>{escape(name)}</th>" for name in head)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        top = f"<thead><tr>{cells}</tr></thead>" if any(head) else ""
        return f"<table><caption>{escape(title)}</caption>{top}<tbody>{body}</tbody></table>"
