"""Source coordinates of the pixels of a target grid, interpolated on a lattice.

Pixel coordinates are those of `affine` transforms: pixel ``(row, col)`` covers ``col..col + 1`` by ``row..row + 1``.

The lattice divides the target grid, from its origin, into cells of `STEP` x `STEP` pixels. Source coordinates are known
at the corners, edge midpoints and centre of each cell (nodes) and interpolated between them by the biquadratic through
these nine; four probes a cell, where its error peaks, tell whether it may be. Coordinates are rounded to
2**-20 pixel, so that the rounding errors of a transform move no pixel of aligned grids.

Every coordinate follows from its own cell, so blocks do not matter. Nothing is accumulated from pixel to pixel, and
numba contracts no products and sums: the same operations in the same order everywhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEP = 64
"""Side of a lattice cell in target pixels; a power of two, so that positions in a cell are exact."""
OUTSIDE, INSIDE, EDGE, TORN = range(4)
"""A cell: misses the source; lies in it; meets its outer edge; is not smooth, and not interpolated at all."""
TOLERANCE_PX = 0.002
"""A cell whose probes miss by more is torn; between the probes the error of a smooth cell is at most 5 % larger."""
EDGE_PX = 0.01
"""Pixels whose interpolated centre lies nearer to the source's outer edge are placed exactly."""

_SNAP = 1.5 * 2.0**32  # adding and subtracting it rounds a double below 2**31 to a multiple of 2**-20


class Lattice(NamedTuple):
    """Source coordinates over ``(rows, cols)`` cells; half steps apart, the first at the first cell's corner."""

    node_x: NDArray[np.float64]
    """Source column at the nodes, ``(2 * rows + 1, 2 * cols + 1)``."""
    node_y: NDArray[np.float64]
    """Source row."""
    probe_x: NDArray[np.float64]
    """Source column at the quarter points of the cells, ``(2 * rows, 2 * cols)``."""
    probe_y: NDArray[np.float64]


class Aim(NamedTuple):
    """Where the pixels of one block lie in the source."""

    node_x: NDArray[np.float64]
    node_y: NDArray[np.float64]
    """Nodes, see `Lattice`, of the cells that the block touches."""
    row: int
    col: int
    """First pixel of the block, in the first of these cells."""
    exact_start: NDArray[np.int64]
    """Index of each row's first exact pixel, and their number at the end: ``(height + 1,)``."""
    exact_col: NDArray[np.int64]
    """Columns in the block of pixels whose coordinates are not interpolated."""
    exact_x: NDArray[np.float64]
    exact_y: NDArray[np.float64]
    """Their source coordinates, ``(points, n)``."""


def judge_cells(lattice: Lattice, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Tell cells that may be interpolated from those that may not.

    Parameters
    ----------
    lattice
        Nodes and probes of ``(rows, cols)`` cells.
    size
        Rows and columns of the source.

    Returns
    -------
    state, bounds
        `OUTSIDE`, `INSIDE`, `EDGE` or `TORN`, ``(rows, cols)``; and source ``y_min, y_max, x_min, x_max`` over each
        cell, ``(rows, cols, 4)``, where it is not torn: certain bounds, by the control points of the biquadratic.
    """
    rows, cols = lattice.probe_x.shape[0] // 2, lattice.probe_x.shape[1] // 2
    state = np.empty((rows, cols), np.uint8)
    bounds = np.empty((rows, cols, 4))
    nodes_and_probes = lattice.node_y, lattice.node_x, lattice.probe_y, lattice.probe_x
    _judge(*nodes_and_probes, float(size[0]), float(size[1]), state, bounds)
    return state, bounds


def find_exact(
    lattice: Lattice, state: NDArray[np.uint8], first: tuple[int, int], shape: tuple[int, int], size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the pixels of a block that must not be interpolated, in raster order.

    These are the pixels of torn cells and, in cells that meet the source's outer edge, those within `EDGE_PX` of it.

    Parameters
    ----------
    lattice, state
        The cells that the block touches.
    first
        Row and column of the block's first pixel in the first cell.
    shape
        Of the block.
    size
        Rows and columns of the source.

    Returns
    -------
    start, col
        Index of each row's first pixel in ``col`` and their number at the end, ``(height + 1,)``; columns in the block.
    """
    start = np.zeros(shape[0] + 1, np.int64)
    if (state <= INSIDE).all():
        return start, np.empty(0, np.int64)
    spot = (*first, shape[1], float(size[0]), float(size[1]))
    _list_exact(lattice.node_y, lattice.node_x, state, *spot, start, np.empty(0, np.int64))
    col = np.empty(int(start[-1]), np.int64)
    _list_exact(lattice.node_y, lattice.node_x, state, *spot, start, col)
    return start, col


def locate_pixels(aim: Aim, shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Source column and row of the pixel centres of a block, ``(y, x)`` each."""
    x, y = np.empty(shape), np.empty(shape)
    _locate(aim, x, y)
    return x, y


def snap(coordinate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round source coordinates to 2**-20 pixel, as the interpolated ones are."""
    return (coordinate + _SNAP) - _SNAP


# -- loops


@njit(nogil=True, cache=True)
def _judge(node_y, node_x, probe_y, probe_x, height, width, state, bounds):
    for i in range(state.shape[0]):
        for j in range(state.shape[1]):
            smooth_y, y_min, y_max = _judge_one(node_y, probe_y, i, j)
            smooth_x, x_min, x_max = _judge_one(node_x, probe_x, i, j)
            bounds[i, j, 0], bounds[i, j, 1], bounds[i, j, 2], bounds[i, j, 3] = y_min, y_max, x_min, x_max
            if not (smooth_y and smooth_x):
                state[i, j] = TORN
            elif y_max < -EDGE_PX or x_max < -EDGE_PX or y_min > height + EDGE_PX or x_min > width + EDGE_PX:
                state[i, j] = OUTSIDE
            elif y_min > EDGE_PX and x_min > EDGE_PX and y_max < height - EDGE_PX and x_max < width - EDGE_PX:
                state[i, j] = INSIDE
            else:
                state[i, j] = EDGE


@njit(nogil=True, cache=True)
def _judge_one(node, probe, i, j):
    """Whether one coordinate is smooth over a cell, and its bounds: the control points of the Bernstein form."""
    control = np.empty((3, 3))
    for k in range(3):
        a, m, b = node[2 * i + k, 2 * j], node[2 * i + k, 2 * j + 1], node[2 * i + k, 2 * j + 2]
        control[k, 0], control[k, 1], control[k, 2] = a, 2 * m - 0.5 * (a + b), b
    low, high = np.inf, -np.inf
    for k in range(3):
        a, b = control[0, k], control[2, k]
        m = 2 * control[1, k] - 0.5 * (a + b)
        low, high = min(low, a, m, b), max(high, a, m, b)
    smooth = math.isfinite(low) and math.isfinite(high)
    for p in range(2):
        wa, wm, wb = _weights(0.25 + 0.5 * p)
        for q in range(2):
            a, b, c = _column_terms(node, i, j, wa, wm, wb)
            u = 0.25 + 0.5 * q
            miss = abs(a + u * (b + u * c) - probe[2 * i + p, 2 * j + q])
            smooth = smooth and miss <= TOLERANCE_PX  # False for NaN
    return smooth, low, high


@njit(nogil=True, cache=True)
def _weights(v):
    """Weights of three nodes half a cell apart in the quadratic through them."""
    return (2 * v - 1) * (v - 1), 4 * v * (1 - v), v * (2 * v - 1)


@njit(nogil=True, cache=True)
def _column_terms(node, i, j, wa, wm, wb):
    """Terms of ``a + u (b + u c)`` along a row of cell ``(i, j)``, given the weights of its rows of nodes."""
    a = wa * node[2 * i, 2 * j] + wm * node[2 * i + 1, 2 * j] + wb * node[2 * i + 2, 2 * j]
    m = wa * node[2 * i, 2 * j + 1] + wm * node[2 * i + 1, 2 * j + 1] + wb * node[2 * i + 2, 2 * j + 1]
    b = wa * node[2 * i, 2 * j + 2] + wm * node[2 * i + 1, 2 * j + 2] + wb * node[2 * i + 2, 2 * j + 2]
    return a, 4 * m - 3 * a - b, 2 * (a + b) - 4 * m


@njit(nogil=True, cache=True)
def _interpolate_row(node, row, first_col, row_part, col_part, out):
    """One source coordinate at the same point of all pixels of a row."""
    i = row // STEP
    wa, wm, wb = _weights((row - i * STEP + row_part) / STEP)
    k = 0
    while k < out.size:
        j = (first_col + k) // STEP
        a, b, c = _column_terms(node, i, j, wa, wm, wb)
        stop = min(out.size, (j + 1) * STEP - first_col)
        offset = first_col - j * STEP + col_part
        for m in range(k, stop):
            u = (m + offset) * (1.0 / STEP)
            out[m] = (a + u * (b + u * c) + _SNAP) - _SNAP
        k = stop


@njit(nogil=True, cache=True)
def aim_row(
    aim: Aim,
    r: int,
    point: int,
    row_part: float,
    col_part: float,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
) -> None:
    """Source coordinates of one point of the pixels of block row ``r``."""
    _interpolate_row(aim.node_x, aim.row + r, aim.col, row_part, col_part, x)
    _interpolate_row(aim.node_y, aim.row + r, aim.col, row_part, col_part, y)
    for k in range(aim.exact_start[r], aim.exact_start[r + 1]):
        x[aim.exact_col[k]], y[aim.exact_col[k]] = aim.exact_x[point, k], aim.exact_y[point, k]


@njit(nogil=True, cache=True)
def _locate(aim, x, y):
    for r in range(x.shape[0]):
        aim_row(aim, r, 0, 0.5, 0.5, x[r], y[r])


@njit(nogil=True, cache=True)
def _list_exact(node_y, node_x, state, row, col, width, source_height, source_width, start, out):
    x, y = np.empty(width), np.empty(width)
    n = 0
    for r in range(start.size - 1):
        start[r] = n
        i = (row + r) // STEP
        ready = False
        k = 0
        while k < width:
            j = (col + k) // STEP
            stop = min(width, (j + 1) * STEP - col)
            if state[i, j] == EDGE and not ready:
                _interpolate_row(node_x, row + r, col, 0.5, 0.5, x)
                _interpolate_row(node_y, row + r, col, 0.5, 0.5, y)
                ready = True
            if state[i, j] >= EDGE:
                for m in range(k, stop):
                    if (
                        state[i, j] == TORN
                        or min(abs(x[m]), abs(x[m] - source_width)) <= EDGE_PX
                        or min(abs(y[m]), abs(y[m] - source_height)) <= EDGE_PX
                    ):
                        if out.size:
                            out[n] = m
                        n += 1
            k = stop
    start[start.size - 1] = n
