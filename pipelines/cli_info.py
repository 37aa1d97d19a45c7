"""The command ``info``. What is heavy is imported where it is used."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.cli_options import Debug


def info_command(
    path: Annotated[str, typer.Argument(help="A run, a season, a demo, a cube or other store, or what sinks wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, all of it.")] = False,
    debug: Debug = False,
) -> None:
    """Say what lies there: state, dates, layers, grid, size on the disk, and what each stage took."""
    from pipelines.info import describe_path

    told = describe_path(path)
    if as_json:
        typer.echo(json.dumps(told, indent=2, default=str))
        return
    from rich.console import Console

    from pipelines.info_tables import lay_out

    console = Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console = Console(width=160, highlight=False)
    console.print(lay_out(told))
