"""Outlines of the parts of one block: rings along pixel edges, in whole pixel coordinates.

A ring keeps its part on the right hand (on a raster whose rows run downwards). At a corner where two pixels of the
same part meet diagonally it turns left, round the background: since the part is 4-connected elsewhere, every ring
then is simple, a shell touches its holes in points only, and the polygon is valid as it stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.kernels.components import Parts


class Rings(NamedTuple):
    """Closed rings; the first ring of each part is its shell, the others are its holes."""

    xy: NDArray[np.float64]
    """Vertices ``(n, 2)``: column and row of pixel corners; no three in a row are collinear."""
    ring_start: NDArray[np.int64]
    """Index of each ring's first vertex, and the number of vertices at the end."""
    part: NDArray[np.int32]
    """Part that each ring bounds."""


def trace_rings(parts: Parts) -> Rings:
    """Trace shells and holes of 4-connected parts, sorted by part, shells first."""
    label = np.zeros((parts.shape[0] + 2, parts.shape[1] + 2), np.int32)  # a frame of background spares the bounds
    _paint_framed(parts.row_start, parts.start, parts.stop, parts.part, label)
    xy, ring_start, part = _trace(parts.row_start, parts.start, parts.stop, parts.part, label)
    order = np.argsort(part, kind="stable")  # a part's shell is met first: it holds its topmost edge
    lengths = np.diff(ring_start)[order]
    new_start = np.concatenate([[0], np.cumsum(lengths)])
    vertices = np.repeat(ring_start[:-1][order] - new_start[:-1], lengths) + np.arange(new_start[-1])
    return Rings(xy[vertices].astype(np.float64), new_start, part[order])


@njit(nogil=True, cache=True)
def _paint_framed(row_start, start, stop, part, label):
    for i in range(row_start.size - 1):
        for k in range(row_start[i], row_start[i + 1]):
            label[i + 1, start[k] + 1 : stop[k] + 1] = part[k] + 1


@njit(nogil=True, cache=True)
def _trace(row_start, start, stop, part, label):
    """Follow every ring from its first unvisited top edge; returns vertices, ring starts and parts."""
    # headings: 0 east, 1 south, 2 west, 3 north; the two pixels ahead of vertex (y, x), in the framed label raster
    left_dy, left_dx = (0, 1, 1, 0), (1, 1, 0, 0)
    right_dy, right_dx = (1, 1, 0, 0), (1, 0, 0, 1)
    step_y, step_x = (0, 1, 0, -1), (1, 0, -1, 0)
    visited = np.zeros(label.shape, np.bool_)
    xy = np.empty((1024, 2), np.int32)
    ring_start = np.zeros(128, np.int64)
    ring_part = np.empty(128, np.int32)
    n = rings = 0
    for i in range(row_start.size - 1):
        for k in range(row_start[i], row_start[i + 1]):
            own = part[k] + 1
            for j in range(start[k], stop[k]):
                if label[i, j + 1] == own or visited[i + 1, j + 1]:
                    continue
                if rings + 2 > ring_start.size:
                    ring_start = np.append(ring_start, np.zeros(rings, np.int64))
                    ring_part = np.append(ring_part, np.zeros(rings, np.int32))
                y, x, heading = i, j, 0
                # the edge before this one is no top edge (it would have been met first): a corner, so a vertex
                xy[n, 0], xy[n, 1] = x, y
                n += 1
                while True:
                    if heading == 0:
                        visited[y + 1, x + 1] = True
                    y += step_y[heading]
                    x += step_x[heading]
                    if label[y + left_dy[heading], x + left_dx[heading]] == own:
                        turn = 3
                    elif label[y + right_dy[heading], x + right_dx[heading]] == own:
                        turn = 0
                    else:
                        turn = 1
                    heading = (heading + turn) & 3
                    closed = y == i and x == j and heading == 0
                    if turn != 0 or closed:
                        if n == xy.shape[0]:
                            grown = np.empty((2 * n, 2), np.int32)
                            grown[:n] = xy
                            xy = grown
                        xy[n, 0], xy[n, 1] = x, y
                        n += 1
                    if closed:
                        break
                if n == xy.shape[0]:
                    grown = np.empty((2 * n, 2), np.int32)
                    grown[:n] = xy
                    xy = grown
                ring_part[rings] = part[k]
                rings += 1
                ring_start[rings] = n
    return xy[:n].copy(), ring_start[: rings + 1].copy(), ring_part[:rings].copy()
