"""Basins of one block and the lowest saddles between them: what `lakescale.kernels.flood` fills depressions with.

Every cell points to its lowest neighbour, in the total order of elevation and then of index, so that flats need no
case of their own; following the pointers parts the block into basins. Two elevations have a meaning: `OUTLET`, where
water leaves, and `WALL`, which no water crosses. A block lies in a frame of one such cell, which spares the bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTLET, WALL = np.float32(-np.inf), np.float32(np.inf)


def frame(block: NDArray[np.float32], void: np.float32) -> NDArray[np.float32]:
    """Put a wall round a block, ``(y, x)`` to ``(y + 2, x + 2)``; NaN becomes ``void``, and -0.0 becomes 0.0."""
    out = np.empty((block.shape[0] + 2, block.shape[1] + 2), np.float32)
    _frame(block, void, out)
    return out


def find_basins(elevation: NDArray[np.float32]) -> tuple[NDArray[np.int32], int]:
    """Give each cell its basin.

    Parameters
    ----------
    elevation
        Framed float32 ``(y, x)``, without NaN. Cells of the frame at `OUTLET` drain the cells beside them.

    Returns
    -------
    label, count
        int32 of the same shape, ``~basin`` (negative) in each cell, the frame included. Basin 0 drains into an outlet;
        the others are numbered densely from 1 in raster order of their pits. Cells of `WALL` lie in some basin, which
        means nothing. ``count`` includes basin 0.
    """
    label = np.empty(elevation.shape, np.int32)
    _descend(elevation, label)
    return label, _name_basins(elevation.ravel(), label)


@njit(nogil=True, cache=True)
def _frame(block, void, out):
    height, width = block.shape
    out[0] = out[height + 1] = WALL
    for i in range(height):
        out[i + 1, 0] = out[i + 1, width + 1] = WALL
        for j in range(width):
            v = block[i, j]
            out[i + 1, j + 1] = v + np.float32(0) if v == v else void  # noqa: PLR0124


# -- basins


@njit(nogil=True, cache=True)
def _lower(lowest, to, elevation, offset):
    """Keep the first of the lowest."""
    if elevation < lowest:
        return elevation, np.int32(offset)
    return lowest, to


@njit(nogil=True, cache=True)
def _descend(elevation, pointer):
    """Point every cell to the first lowest cell of the 3 x 3 round it, by its index in the raveled array."""
    height, width = elevation.shape
    pointer[0] = pointer[height - 1] = ~0
    for i in range(1, height - 1):
        above, here, below, out = elevation[i - 1], elevation[i], elevation[i + 1], pointer[i]
        out[0] = out[width - 1] = ~0
        for j in range(1, width - 1):
            lowest, to = above[j - 1], np.int32(-width - 1)
            lowest, to = _lower(lowest, to, above[j], -width)
            lowest, to = _lower(lowest, to, above[j + 1], 1 - width)
            lowest, to = _lower(lowest, to, here[j - 1], -1)
            lowest, to = _lower(lowest, to, here[j], 0)
            lowest, to = _lower(lowest, to, here[j + 1], 1)
            lowest, to = _lower(lowest, to, below[j - 1], width - 1)
            lowest, to = _lower(lowest, to, below[j], width)
            lowest, to = _lower(lowest, to, below[j + 1], width + 1)
            out[j] = np.int32(i * width + j) + to


@njit(nogil=True, cache=True)
def _walk(flat, start, p):
    """Follow pointers until they lead beyond ``p``, and shorten them: a furrow may be as long as the block is wide."""
    end = start
    while 0 <= end < p:
        end = flat[end]
    at = start
    while 0 <= at < p:
        flat[at], at = end, flat[at]
    return end


@njit(nogil=True, cache=True)
def _name_basins(elevation, pointer):
    """Write ``~basin`` over the pointers, in place; returns the number of basins.

    Two sweeps instead of a walk down from every cell: after the first all pointers that are left lead onward in the
    raveled array, so that the second, backwards, finds each one's answer where it leads.
    """
    height, width = pointer.shape
    first, last = width, (height - 1) * width
    flat = pointer.ravel()
    count = 1
    for p in range(first, last):
        to = flat[p]
        if 0 <= to < p:
            to = flat[to]
            if 0 <= to < p:
                to = _walk(flat, to, p)
        if to == p:  # a pit
            if elevation[p] == OUTLET:
                to = np.int32(~0)
            else:
                to = np.int32(~count)
                count += 1
        flat[p] = to
    for p in range(last - 1, first - 1, -1):
        to = flat[p]
        if to >= 0:
            flat[p] = flat[to]
    return count
