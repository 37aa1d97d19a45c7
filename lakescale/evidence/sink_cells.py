"""Cells of sinks, put together from pieces; and which sinks become rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lakescale.grid import Grid

SINK = np.dtype(
    [
        ("id", np.int64),
        ("spill", np.float32),
        ("pour_draw", np.bool_),  # no water runs on at once from the pour point
        ("pour_row", np.int64),
        ("pour_col", np.int64),
        ("voids", np.int64),  # cells of the voids beside it
        ("pieces", np.int64),  # how many pieces are here
        ("of_pieces", np.int64),  # and how many there are
    ]
)


class SinkCells(NamedTuple):
    """Cells of sinks in raster order, and a table of the sinks."""

    row: NDArray[np.int32]
    col: NDArray[np.int32]
    elevation: NDArray[np.float32]
    sink: NDArray[np.int32]
    """Index in the table."""
    table: NDArray[Any]
    """Of dtype `SINK`, sorted by id."""

    @classmethod
    def empty(cls) -> SinkCells:
        """Give no cell of no sink."""
        return cls(*(np.empty(0, t) for t in (np.int32, np.int32, np.float32, np.int32, SINK)))

    def where(self, chosen: NDArray[np.bool_]) -> SinkCells:
        """Keep some sinks, with all their cells."""
        number = np.cumsum(chosen, dtype=np.int32) - 1
        cells = chosen[self.sink]
        return SinkCells(
            self.row[cells], self.col[cells], self.elevation[cells], number[self.sink[cells]], self.table[chosen]
        )

    @classmethod
    def join(cls, many: Iterable[SinkCells]) -> SinkCells:
        """Put pieces together; what has one id becomes one sink."""
        pieces = [cls.empty(), *many]
        row, col, elevation = (np.concatenate([getattr(p, name) for p in pieces]) for name in cls._fields[:3])
        before = np.cumsum([0, *(len(p.table) for p in pieces)])
        sink = np.concatenate([p.sink + shift for p, shift in zip(pieces, before[:-1], strict=True)])
        table = np.concatenate([p.table for p in pieces])
        order = np.lexsort((table["pour_col"], table["pour_row"], table["pour_draw"], table["id"]))
        _, first, number = np.unique(table["id"][order], return_index=True, return_inverse=True)
        united = table[order][first]  # the best pour point comes first
        united["pieces"] = 0
        np.add.at(united["pieces"], number, table["pieces"][order])
        place = np.empty(len(table), np.int32)
        place[order] = number
        raster = np.lexsort((col, row))
        return cls(row[raster], col[raster], elevation[raster], place[sink][raster], united)


class Rules(NamedTuple):
    """Which sinks are rows."""

    grid: Grid
    min_depth_m: np.float32
    min_area: int
    """In units of `lakescale.evidence.sink_areas.AREA_UNIT_M2`."""
    levels: int

    def are_large(self, depth: NDArray[np.float32], area: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which are deep and large enough."""
        return (depth >= self.min_depth_m) & (area >= self.min_area)


class Split(NamedTuple):
    """Sinks whose cells are all here, and the pieces of others."""

    complete: SinkCells
    crossing: SinkCells

    @classmethod
    def of(cls, cells: SinkCells) -> Split:
        """Tell them apart."""
        is_complete = cells.table["pieces"] == cells.table["of_pieces"]
        return cls(cells.where(is_complete), cells.where(~is_complete))


def join(rests: list[SinkCells]) -> Split:
    """Put the pieces of a square of blocks together."""
    return Split.of(SinkCells.join(rests))


def deal(rest: SinkCells, number: int, count: int) -> SinkCells:
    """Take the sinks whose id leaves that remainder."""
    return rest.where(rest.table["id"] % count == number)


def crossing(split: Split) -> SinkCells:
    """Hand on what reaches beyond a block or a square of blocks."""
    return split.crossing
