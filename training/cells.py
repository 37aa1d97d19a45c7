"""Sums over windows that overlap, each pixel added once: chunk by chunk to cells between the windows' edges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lakescale.chunks import Stitch, WindowPlan, gather, to_frame, zip_blocks
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from lakescale.chunks import Place

PARTS = 8
"""Each window is cut into 8 x 8 parts: its thumbnail."""


@dataclass(frozen=True)
class Layout:
    """Windows of an image, each first row with each first column, and the lines that cut them into parts."""

    shape: tuple[int, int]
    window: int
    starts: tuple[tuple[int, ...], tuple[int, ...]]
    """First rows and first columns, ascending."""

    @classmethod
    def of(cls, shape: tuple[int, int], window: int, stride: int) -> Layout:
        """Lay out windows as `lakescale.lake_probability` does; raise `InputError` for a stride beyond the window."""
        for name, value in (("window", window), ("stride", stride)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1, got {value!r}", name)
        if stride > window:
            what = f"a stride of {stride} px leaves pixels between windows of {window} px"
            raise InputError(what, "stride", "give a stride of at most the window")
        plan = WindowPlan(int(window), int(stride))
        return cls(shape, plan.window, (tuple(plan.starts(shape[0])), tuple(plan.starts(shape[1]))))

    @cached_property
    def corners(self) -> NDArray[np.int64]:
        """First row and column of each window, ``(n, 2)``, in raster order."""
        return np.array([*product(*self.starts)], np.int64)

    @cached_property
    def edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the parts of windows begin and end, by row and by column of windows: ``(n, 9)`` each."""
        steps = np.arange(PARTS + 1) * self.window // PARTS
        firsts = (np.array(along, np.int64)[:, None] for along in self.starts)
        rows, cols = (np.minimum(first + steps, size) for first, size in zip(firsts, self.shape, strict=True))
        return rows, cols

    @cached_property
    def lines(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All edges, and those of the image: cell ``k`` of an axis lies between lines ``k`` and ``k + 1``."""
        rows, cols = (np.unique([0, size, *edges.ravel()]) for size, edges in zip(self.shape, self.edges, strict=True))
        return rows, cols


class _Cells(NamedTuple):
    """Sums over those parts of cells that lie in one block."""

    row: int
    col: int
    """Of the first cell."""
    sums: NDArray[np.int64]
    """``(plane, rows of cells, columns of cells)``."""


def sum_windows(
    planes: Callable[..., Sequence[NDArray[Any]]],
    *arrays: da.Array,
    layout: Layout,
    columns: Sequence[str],
    name: str,
) -> Any:
    """Sum planes of whole numbers over the parts of windows. Lazy.

    Whole numbers do not depend on the order in which they are added, so neither does the answer on the chunks. One
    task holds the sums of all cells: 8 bytes each and for each plane, 70 MB for ten planes of 87040 x 160000 pixels in
    windows of 1024 every 512.

    Parameters
    ----------
    planes
        ``planes(*blocks) -> planes``: bool or integer ``(y, x)``, one for each column.
    arrays
        ``(y, x)``, of the same chunks.
    layout
        The windows.
    columns
        Names of the planes.
    name
        Prefix of the tasks' names.

    Returns
    -------
    dask.dataframe.DataFrame
        int64, one row for each part of each window, windows in raster order, its 64 parts in raster order.
    """
    counted = zip_blocks(f"{name}-count", partial(_sum_block, planes=planes, lines=layout.lines), *arrays)
    finish = partial(_to_parts, layout=layout, columns=tuple(columns))
    how = Stitch(name, _as_it_is, partial(_join, lines=layout.lines), finish)
    graph, keys = gather(counted, how, 1)
    return to_frame(graph, keys, pd.DataFrame({column: np.empty(0, np.int64) for column in columns}), name)


def _sum_block(*blocks_and_place: Any, planes: Any, lines: tuple[NDArray[np.int64], NDArray[np.int64]]) -> _Cells:
    *blocks, place = blocks_and_place
    (row, rows), (col, cols) = (
        _cuts(along, first, size)
        for along, first, size in zip(lines, (place.row, place.col), (place.height, place.width), strict=True)
    )
    sums = [
        np.add.reduceat(np.add.reduceat(plane, rows, axis=0, dtype=np.int64), cols, axis=1) for plane in planes(*blocks)
    ]
    return _Cells(row, col, np.stack(sums))


def _cuts(lines: NDArray[np.int64], first: int, size: int) -> tuple[int, NDArray[np.int64]]:
    """Give the first cell that a span of pixels meets, and where its cells begin within the span."""
    start = int(np.searchsorted(lines, first, "right")) - 1
    inside = lines[start + 1 : int(np.searchsorted(lines, first + size, "left"))]
    return start, np.concatenate([[0], inside - first])


def _as_it_is(cells: _Cells) -> _Cells:
    return cells


def _join(
    rows: list[list[_Cells]], _: list[list[Place]], *, lines: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> list[NDArray[np.int64]]:
    """Add the cells of all blocks, and sum them up from the first pixel on."""
    total = np.zeros((len(rows[0][0].sums), *(len(along) for along in lines)), np.int64)
    for cells in (cells for row in rows for cells in row):
        height, width = cells.sums.shape[1:]
        total[:, cells.row + 1 :, cells.col + 1 :][:, :height, :width] += cells.sums
    return [total.cumsum(axis=1).cumsum(axis=2)]


def _to_parts(total: NDArray[np.int64], *, layout: Layout, columns: tuple[str, ...]) -> pd.DataFrame:
    rows, cols = (np.searchsorted(*pair) for pair in zip(layout.lines, layout.edges, strict=True))
    strips = []
    for row in rows:
        corners = total[:, row][:, :, cols]  # (plane, 9, windows, 9)
        parts = np.diff(np.diff(corners, axis=1), axis=3).transpose(2, 1, 3, 0)
        strips.append(parts.reshape(-1, len(total)))
    return pd.DataFrame(np.concatenate(strips), columns=list(columns))
