"""What of a cube is written, finished or not; no pixels are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakescale.cube.layout import KIND, Layout
from lakescale.storage import locate
from lakescale.store import describe, open_store

if TYPE_CHECKING:
    from lakescale.storage import Location


@dataclass(frozen=True)
class DateState:
    """One date of a cube."""

    attrs: dict[str, Any]
    """Of its scene."""
    chunks_left: int
    """Along y and x, that are not written yet."""
    last_written_ns: int
    """When the youngest chunk was finished, in nanoseconds since 1970; 0 where none is."""


def layout_of(store: str | Location) -> Layout:
    """Read the grid, bands, type and chunks of a cube; raise `InputError` where there is none."""
    return Layout.read(open_store(locate(store), KIND))


def read_dates(store: str | Location) -> dict[str, DateState]:
    """Read the state of each date (``2019-07-23``) of a cube; raise `InputError` where there is none."""
    root = locate(store)
    group = open_store(root, KIND)
    commits = Layout.read(group).commits(root)
    return {
        entry["date"]: DateState(entry["attrs"], len(commits.unfinished(slot)), commits.last_written_ns(slot))
        for slot, entry in enumerate(describe(group)["dates"])
    }
