"""Find the flats of one block, and count the steps from each of their cells to the nearest way out.

The gradient towards lower terrain of Barnes, Lehman and Mulla (2014), "An efficient assignment of drainage direction
over flat surfaces in raster digital elevation models". What makes it cheap to tile: of two neighbours without a lower
neighbour neither is the lower one, so cells that cannot leave by themselves hang together wherever they touch, and a
mask tells all that the steps depend on. No elevation is looked at after `find_flats`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from lakescale.kernels.components import border_parts, find_parts, paint
from lakescale.kernels.flood import Ring
from lakescale.kernels.saddles import doubled

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLAT, FIRST = 1, 2
"""Flags of a cell: it cannot leave by itself; and beside it lies a cell of its elevation that can."""
FAR = np.iinfo(np.uint32).max
"""Steps of a flat cell from which no way out was found yet; cells outside of flats have 0."""

_EIGHT = 8
_LOWEST, _HIGHEST = np.float32(-np.inf), np.float32(np.inf)
_FIRST_FRONT = 1024
_MAGNITUDE, _SIGN = 2**31 - 1, 2**31
_LARGEST = int(np.array(np.finfo(np.float32).max).view(np.int32))


def find_flats(elevation: NDArray[np.float32], is_outlet: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Flag the cells that have no lower neighbour, touch no outlet, and do not lie on the array's border.

    Parameters
    ----------
    elevation
        float32 ``(y, x)``, NaN = void.
    is_outlet
        Bool ``(y, x)``: voids through which water leaves; the other voids are walls.

    Returns
    -------
    NDArray[np.uint8]
        `FLAT` and `FIRST`, the same shape. A cell's flags depend on cells up to 2 away.
    """
    walled = np.where(np.isnan(elevation), np.where(is_outlet, _LOWEST, _HIGHEST), elevation)
    leaves = np.ones(elevation.shape, bool)
    flags = np.zeros(elevation.shape, np.uint8)
    _find_leaving(walled, leaves)
    _flag(walled, leaves, flags)
    return flags


def on_ring(is_flat: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the flats that touch a block's border: bool ``(y, x)``."""
    if not any(line.any() for line in Ring.of(is_flat)):
        return np.zeros_like(is_flat)
    parts = find_parts(is_flat, connectivity=_EIGHT)
    touching = np.zeros(parts.n_parts + 1, bool)
    touching[np.concatenate(border_parts(parts))] = True
    return paint(parts, touching[1:], np.zeros_like(is_flat))


def start_steps(is_flat: NDArray[np.bool_], is_first: NDArray[np.bool_] | None = None) -> NDArray[np.uint32]:
    """Frame a block by one cell: `FAR` in flats, 1 in their first cells, 0 elsewhere; ``(y + 2, x + 2)``."""
    framed = np.zeros((is_flat.shape[0] + 2, is_flat.shape[1] + 2), np.uint32)
    framed[1:-1, 1:-1][is_flat] = FAR
    if is_first is not None:
        framed[1:-1, 1:-1][is_first & is_flat] = 1
    return framed


def spread(framed: NDArray[np.uint32], starts: NDArray[np.int64]) -> None:
    """Lower the steps of flat cells to those by way of some cells, in place.

    Parameters
    ----------
    framed
        uint32 ``(y + 2, x + 2)``: 0 outside of flats and in the frame.
    starts
        int64 ``(n,)``: indices into the raveled frame of the cells to go out from. The steps of other cells count
        too: nothing goes on through a cell that is no farther already.
    """
    values = framed.ravel()[starts]
    order = np.argsort(values, kind="stable")
    _spread(framed.reshape(-1), framed.shape[1], starts[order], values[order])


def ring_indices(shape: tuple[int, int]) -> Ring:
    """Index the border cells of a framed block: int64 into the raveled frame of that shape."""
    height, width = shape
    rows, cols = np.arange(1, height - 1) * width, np.arange(1, width - 1)
    return Ring(width + cols, (height - 2) * width + cols, rows + 1, rows + width - 2)


def raise_cells(elevation: NDArray[np.float32], steps: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Raise each cell to the float32 that lies so many floats above; ``-0.0`` and ``0.0`` are one.

    Parameters
    ----------
    elevation
        float32 ``(y, x)``; cells of 0 steps stay as they are, NaN among them.
    steps
        uint32 ``(y, x)``.
    """
    bits = np.ascontiguousarray(elevation).view(np.int32)
    out = np.empty_like(bits)
    _raise_bits(bits, steps, out)
    return out.view(np.float32)


@njit(nogil=True, cache=True)
def _find_leaving(elevation, leaves):
    height, width = elevation.shape
    lowest = np.empty(width, np.float32)  # of three cells in a column
    for i in range(1, height - 1):
        for j in range(width):
            lowest[j] = min(elevation[i - 1, j], elevation[i, j], elevation[i + 1, j])
        for j in range(1, width - 1):
            leaves[i, j] = min(lowest[j - 1], lowest[j], lowest[j + 1]) < elevation[i, j]


@njit(nogil=True, cache=True)
def _flag(elevation, leaves, flags):
    height, width = elevation.shape
    for i in range(1, height - 1):
        for j in range(1, width - 1):
            z = elevation[i, j]
            if leaves[i, j] or not _LOWEST < z < _HIGHEST:
                continue
            flags[i, j] = FLAT
            for r in range(i - 1, i + 2):
                for c in range(j - 1, j + 2):
                    if leaves[r, c] and elevation[r, c] == z:
                        flags[i, j] = FLAT | FIRST


@njit(nogil=True, cache=True)
def _spread(steps, width, starts, values):
    around = np.array([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])
    front, beyond = np.empty(_FIRST_FRONT, np.int64), np.empty(_FIRST_FRONT, np.int64)
    n = at = 0
    level = np.int64(0)
    while n > 0 or at < starts.size:
        if n == 0:
            level = np.int64(values[at])
        while at < starts.size and values[at] == level:
            if steps[starts[at]] == level:  # else it was reached before, by a shorter way
                if n == front.size:
                    front = doubled(front)
                front[n] = starts[at]
                n += 1
            at += 1
        level += 1
        found = 0
        for k in range(n):
            for m in range(around.size):
                cell = front[k] + around[m]
                if steps[cell] > level:
                    steps[cell] = level
                    if found == beyond.size:
                        beyond = doubled(beyond)
                    beyond[found] = cell
                    found += 1
        front, beyond, n = beyond, front, found


@njit(nogil=True, cache=True)
def _raise_bits(bits, steps, out):
    """Count floats in their order: the bits of a positive one, and less the magnitude of a negative one."""
    for i in range(bits.shape[0]):
        for j in range(bits.shape[1]):
            k = np.int64(steps[i, j])
            b = np.int64(bits[i, j])
            if k == 0:
                out[i, j] = bits[i, j]
                continue
            order = (b if b >= 0 else -(b & _MAGNITUDE)) + k
            if order >= 0:
                out[i, j] = min(order, np.int64(_LARGEST))
            else:
                out[i, j] = -order - _SIGN
