"""Connected parts of one block, by runs: maximal row segments of equal nonzero value, joined by union-find.

Runs make the cost follow the outlines instead of the pixels: an empty row of 2048 pixels is one comparison a pixel
and nothing more. Parts come out numbered in raster order of their first pixel, as `scipy.ndimage.label` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from lakescale.kernels.unions import find_root

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Parts(NamedTuple):
    """The connected parts of a block, as runs."""

    row_start: NDArray[np.int64]
    """Index of the first run of each row, and the number of runs at the end: ``(rows + 1,)``."""
    start: NDArray[np.int32]
    """First column of each run."""
    stop: NDArray[np.int32]
    """Column after the last of each run."""
    part: NDArray[np.int32]
    """Part of each run, dense from 0 in raster order of the parts' first pixels."""
    first_run: NDArray[np.int64]
    """Index of the first run of each part: its root."""
    shape: tuple[int, int]
    """Rows and columns of the block."""

    @property
    def n_parts(self) -> int:
        """Return the number of parts."""
        return len(self.first_run)

    @property
    def first_row(self) -> NDArray[np.int64]:
        """Row of each part's first pixel in raster order."""
        return np.searchsorted(self.row_start, self.first_run, side="right") - 1

    @property
    def first_col(self) -> NDArray[np.int32]:
        """Column of each part's first pixel in raster order."""
        return self.start[self.first_run]


def find_parts(image: NDArray[Any], *, connectivity: int) -> Parts:
    """Find the parts of equal nonzero value.

    Parameters
    ----------
    image
        Bool or integer ``(y, x)``; 0 is background.
    connectivity
        4 or 8 neighbours.
    """
    image = np.ascontiguousarray(image)
    pixels = image.view(np.uint8) if image.dtype == bool else image
    row_start, start, stop = _find_runs(pixels)
    part, first_run = _join_runs(pixels, row_start, start, stop, 1 if connectivity == 8 else 0)  # noqa: PLR2004
    return Parts(row_start, start, stop, part, first_run, pixels.shape)


def paint(parts: Parts, values: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
    """Write ``values[part]`` over the pixels of each part of ``out``, in place; parts of value 0 are left alone."""
    _paint(parts.row_start, parts.start, parts.stop, parts.part, values, out)
    return out


def border_parts(
    parts: Parts,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """List the part under each border pixel: top, bottom, left, right; part + 1, 0 for background."""
    height, width = parts.shape
    lines = tuple(np.zeros(n, np.int32) for n in (width, width, height, height))
    if height and width:
        _border(parts.row_start, parts.start, parts.stop, parts.part, *lines)
    return lines  # type: ignore[return-value]


@njit(nogil=True, cache=True)
def _find_runs(image):
    height, width = image.shape
    row_start = np.zeros(height + 1, np.int64)
    for i in range(height):
        n = 0
        last = image.dtype.type(0)
        for j in range(width):
            v = image[i, j]
            n += (v != last) & (v != 0)
            last = v
        row_start[i + 1] = row_start[i] + n
    start = np.empty(row_start[height], np.int32)
    stop = np.empty(row_start[height], np.int32)
    for i in range(height):
        k = row_start[i]
        if k == row_start[i + 1]:
            continue
        last = image.dtype.type(0)
        for j in range(width):
            v = image[i, j]
            if v == last:
                continue
            if last != 0:
                stop[k] = j
                k += 1
            if v != 0:
                start[k] = j
            last = v
        if last != 0:
            stop[k] = width
    return row_start, start, stop


@njit(nogil=True, cache=True)
def _join_runs(image, row_start, start, stop, reach):
    n = start.size
    parent = np.arange(n)
    for i in range(1, row_start.size - 1):
        a, b = row_start[i - 1], row_start[i]
        while a < row_start[i] and b < row_start[i + 1]:
            if start[a] < stop[b] + reach and start[b] < stop[a] + reach:
                _join_if_equal(image, parent, i, a, b, start)
            if stop[a] < stop[b]:
                a += 1
            elif stop[a] > stop[b]:
                b += 1
            else:  # with 8 neighbours each may still touch the other's successor at a corner
                if reach and a + 1 < row_start[i] and start[a + 1] == stop[b]:
                    _join_if_equal(image, parent, i, a + 1, b, start)
                if reach and b + 1 < row_start[i + 1] and start[b + 1] == stop[a]:
                    _join_if_equal(image, parent, i, a, b + 1, start)
                a += 1
                b += 1
    part = np.empty(n, np.int32)
    first_run = np.empty(n, np.int64)
    count = 0
    for k in range(n):
        r = find_root(parent, k)
        if r == k:
            first_run[count] = k
            part[k] = count
            count += 1
        else:
            part[k] = part[r]
    return part, first_run[:count].copy()


@njit(nogil=True, cache=True)
def _join_if_equal(image, parent, i, a, b, start):
    if image[i - 1, start[a]] == image[i, start[b]]:
        ra, rb = find_root(parent, a), find_root(parent, b)
        # the smaller index is the earlier pixel, so a root is its part's first pixel
        if ra < rb:
            parent[rb] = ra
        else:
            parent[ra] = rb


@njit(nogil=True, cache=True)
def _paint(row_start, start, stop, part, values, out):
    for i in range(row_start.size - 1):
        for k in range(row_start[i], row_start[i + 1]):
            v = values[part[k]]
            if v != 0:
                for j in range(start[k], stop[k]):
                    out[i, j] = v


@njit(nogil=True, cache=True)
def _border(row_start, start, stop, part, top, bottom, left, right):
    height, width = left.size, top.size
    for k in range(row_start[0], row_start[1]):
        top[start[k] : stop[k]] = part[k] + 1
    for k in range(row_start[height - 1], row_start[height]):
        bottom[start[k] : stop[k]] = part[k] + 1
    for i in range(height):
        first, last = row_start[i], row_start[i + 1] - 1
        if first <= last:
            if start[first] == 0:
                left[i] = part[first] + 1
            if stop[last] == width:
                right[i] = part[last] + 1
