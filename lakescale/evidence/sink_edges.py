"""Pour points of sinks at the edges of blocks, from what neighbours share of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lakescale.kernels.rims import find_pours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_REACH = 2
"""A pour point lies beside its sink, and what it is follows from its own neighbours."""
EDGE = 2 * _REACH
"""Lines of a block that its outermost `_REACH` lines depend on."""


class Edges(NamedTuple):
    """The outermost `EDGE` lines of a block, of its elevations and filled elevations."""

    shape: tuple[int, int]
    pieces: tuple[tuple[int, int, NDArray[np.float32], NDArray[np.float32]], ...]
    """First row and column in the block, elevation, filled elevation; corners stand in two."""

    @classmethod
    def of(cls, elevation: NDArray[np.float32], filled: NDArray[np.float32]) -> Edges:
        """Copy them from a block ``(y, x)``."""
        height, width = elevation.shape
        low, right = max(height - EDGE, 0), max(width - EDGE, 0)
        boxes = (0, 0, EDGE, width), (low, 0, height, width), (0, 0, height, EDGE), (0, right, height, width)
        pieces = ((i, j, *(a[i:k, j:m].copy() for a in (elevation, filled))) for i, j, k, m in boxes)
        return cls(elevation.shape, tuple(pieces))  # type: ignore[arg-type]


def pours_at_edges(
    cell: NDArray[np.int32],
    code: NDArray[np.uint8],
    own: Edges,
    beside: dict[tuple[int, int], Edges],
    *,
    void_is_outlet: bool,
) -> NDArray[np.uint8]:
    """Look again at the cells near the edges of a block, now with its neighbours.

    Parameters
    ----------
    cell
        Index in the block of each sink cell.
    code
        What `lakescale.kernels.rims.find_pours` found for each within the block alone.
    own, beside
        Edges of the block, and of the blocks ``(y, x)`` beside it.
    void_is_outlet
        As of `find_pours`.
    """
    row, col = np.divmod(cell, np.int32(own.shape[1]))
    out = code.copy()
    for rows, cols in _frame(own.shape):
        here = (row >= rows.start) & (row < rows.stop) & (col >= cols.start) & (col < cols.stop)
        if here.any():
            top, left, elevation, filled = _put_together(own, beside, rows, cols)
            found = find_pours(filled, elevation, void_is_outlet=void_is_outlet)
            out[here] = found[row[here] - top, col[here] - left]
    return out


def _frame(shape: tuple[int, int]) -> Iterator[tuple[range, range]]:
    """List the strips of a block that cells beyond it matter to."""
    rows, cols = (range(n) for n in shape)
    for part in {rows[:_REACH], rows[-_REACH:]}:
        yield part, cols
    for part in {cols[:_REACH], cols[-_REACH:]}:
        yield rows, part


def _put_together(
    own: Edges, beside: dict[tuple[int, int], Edges], rows: range, cols: range
) -> tuple[int, int, NDArray[np.float32], NDArray[np.float32]]:
    """Give a strip of a block with all in reach, as far as the mosaic goes: first row, column, elevation, filled."""
    height, width = own.shape
    top = max(rows.start - _REACH, -_REACH * ((-1, 0) in beside))
    left = max(cols.start - _REACH, -_REACH * ((0, -1) in beside))
    bottom = min(rows.stop + _REACH, height + _REACH * ((1, 0) in beside))
    right = min(cols.stop + _REACH, width + _REACH * ((0, 1) in beside))
    out = np.full((2, bottom - top, right - left), np.nan, np.float32)
    for (y, x), edges in {(0, 0): own, **beside}.items():
        for row, col, *values in edges.pieces:
            i = row + (height if y > 0 else y * edges.shape[0]) - top
            j = col + (width if x > 0 else x * edges.shape[1]) - left
            _paste(out, i, j, values)
    return top, left, out[0], out[1]


def _paste(out: NDArray[np.float32], i: int, j: int, values: list[NDArray[np.float32]]) -> None:
    """Write layers that begin at row ``i`` and column ``j`` into ``(layer, y, x)``, as far as they overlap."""
    height, width = values[0].shape
    top, bottom = max(i, 0), min(i + height, out.shape[1])
    left, right = max(j, 0), min(j + width, out.shape[2])
    if top < bottom and left < right:
        out[:, top:bottom, left:right] = [value[top - i : bottom - i, left - j : right - j] for value in values]
