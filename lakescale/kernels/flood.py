"""Fill the depressions of one block exactly, alone or as a part of a mosaic, without a heap.

The level of a basin is the highest saddle on its lowest way out, and a filled cell is the higher one of its elevation
and its basin's level. That equals a priority-flood (Barnes, Lehman and Mulla 2014) bit for bit, since all that is done
is to choose among the elevations.

A mosaic is filled as by Barnes (2016), "Parallel priority-flood depression filling for trillion cell digital elevation
models on desktops or clusters": `survey` reduces a block to what its neighbours must know, and once the mosaic has told
what that makes of the block's ring, `fill` fills the block alone. New are the voids: whether one is an outlet or a wall
may not be known before all blocks are, so voids on the ring are nodes of their own, which pass no water on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from lakescale.kernels.basins import OUTLET, WALL, find_basins, frame
from lakescale.kernels.components import border_parts, find_parts, paint
from lakescale.kernels.saddles import Drainage, Saddles, concatenate, doubled, drain_basins, span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.kernels.components import Parts

_EIGHT = 8
_LOOK_BACK = 5


class Ring(NamedTuple):
    """One value for each cell of a block's border; corners stand in two lines."""

    top: NDArray[Any]
    bottom: NDArray[Any]
    left: NDArray[Any]
    right: NDArray[Any]

    @classmethod
    def of(cls, block: NDArray[Any]) -> Ring:
        """Copy the border of a block."""
        return cls(block[0].copy(), block[-1].copy(), block[:, 0].copy(), block[:, -1].copy())


class Survey(NamedTuple):
    """What the neighbours of a block must know of it: nodes, and the saddles between them.

    Node 0 is the outlet, then come the basins that touch the ring, then the voids that do.
    """

    n_basins: int
    """The outlet included: voids are numbered from here."""
    n_voids: int
    saddles: Saddles
    """Between nodes: the tree of the basins, and for each void the basins that would drain into it."""
    node: Ring
    """int32: node behind each border cell."""
    elevation: Ring
    """float32; `OUTLET` in voids."""


class Final(NamedTuple):
    """What the mosaic makes of a block's ring."""

    elevation: Ring
    """float32: filled; `WALL` in land that reaches no outlet. In voids it means nothing."""
    is_outlet: NDArray[np.bool_]
    """For each void on the ring."""


class Facing(NamedTuple):
    """A line of border cells along a seam or along the mosaic's edge."""

    node: NDArray[np.int32]
    elevation: NDArray[np.float32]


def survey(block: NDArray[np.float32], *, void_is_outlet: bool) -> Survey:
    """Reduce a block to its ring: who borders it, and the saddles between them.

    Parameters
    ----------
    block
        float32 ``(y, x)`` of at least one cell, NaN = void.
    void_is_outlet
        Whether water leaves through all voids. Else those within the block are walls, and those on its ring are nodes.
    """
    elevation = frame(block, OUTLET if void_is_outlet else WALL)
    label, count = find_basins(elevation)
    voids = None if void_is_outlet else _Voids.of(block)
    n_voids = 0 if voids is None else voids.total
    if voids is not None:  # only now, so that no basin drains into what may be a wall
        voids.paint(~np.arange(count, count + n_voids, dtype=np.int32), label)
    basin, node = _ring_nodes(label[1:-1, 1:-1], count)
    is_terminal = np.zeros(count + n_voids, bool)
    is_terminal[basin] = True
    drainage = drain_basins(elevation, label, is_terminal)
    number = np.zeros(count + n_voids, np.int32)
    number[basin] = np.arange(len(basin))
    left = Saddles(number[drainage.left.a], number[drainage.left.b], drainage.left.elevation)
    saddles = [span(left, len(basin))]
    if n_voids:
        shores = Saddles(*_shores(elevation, label, count))
        saddles.append(_drained(shores, drainage, number, is_terminal, len(basin) - count))
    heights = (np.where(np.isinf(line), OUTLET, line) for line in Ring.of(elevation[1:-1, 1:-1]))
    return Survey(len(basin), n_voids, concatenate(*saddles), node, Ring(*heights))


def fill(block: NDArray[np.float32], final: Final, *, void_is_outlet: bool) -> NDArray[np.float32]:
    """Fill a block whose ring is final.

    Parameters
    ----------
    block
        float32 ``(y, x)``, NaN = void.
    final
        The mosaic's answer to the block's `survey`.
    void_is_outlet
        As in the survey.

    Returns
    -------
    NDArray[np.float32]
        The same shape; voids stay NaN.
    """
    elevation = frame(block, OUTLET if void_is_outlet else WALL)
    voids = None if void_is_outlet else _Voids.of(block)
    if voids is not None:
        voids.paint(np.where(final.is_outlet, OUTLET, np.float32(0)), elevation)
    _put_ring(final.elevation, elevation)
    label, count = find_basins(elevation)
    is_terminal = np.zeros(count, bool)
    is_terminal[0] = True
    out = np.empty_like(block)
    _raise_cells(elevation, label, drain_basins(elevation, label, is_terminal).level, out)
    return out


def fill_array(array: NDArray[np.float32], *, void_is_outlet: bool) -> NDArray[np.float32]:
    """Fill one array that is the whole mosaic: water leaves at its edge and through the voids there."""
    elevation = Ring.of(array + np.float32(0))
    voids = None if void_is_outlet else _Voids.of(array)
    return fill(array, Final(elevation, np.ones(voids.total if voids else 0, bool)), void_is_outlet=void_is_outlet)


def meet(one: Facing, other: Facing) -> Saddles:
    """List the saddles across a seam, between two facing lines of cells (8 neighbours); pairs may come twice."""
    return Saddles(*_meet(*one, *other))


def _ring_nodes(label: NDArray[np.int32], count: int) -> tuple[NDArray[np.int64], Ring]:
    """Enumerate the basins on the ring, after the outlet, and then its voids; gives these basins, and the ring."""
    lines = [~line for line in Ring.of(label)]
    found = np.unique(np.concatenate([[0], *lines]))
    basin = found[found < count]
    return basin, Ring(*(_number(line, basin, count) for line in lines))


def _number(line: NDArray[np.int32], basin: NDArray[np.int64], count: int) -> NDArray[np.int32]:
    in_void = line >= count
    return np.where(in_void, line - count + len(basin), np.searchsorted(basin, line)).astype(np.int32)


def _drained(
    shores: Saddles, drainage: Drainage, number: NDArray[np.int32], is_terminal: NDArray[np.bool_], shift: int
) -> Saddles:
    """Tell which land would drain into voids if they were outlets, and from which elevation on, by the ring's nodes."""
    terminal, void = drainage.terminal[shores.a], shores.b + np.int32(shift)
    elevation = np.maximum(shores.elevation, drainage.level[shores.a])
    asked = is_terminal[terminal]
    return lowest_of_pairs(Saddles(number[terminal[asked]], void[asked], elevation[asked]))


def lowest_of_pairs(saddles: Saddles) -> Saddles:
    """Keep the lowest saddle of each two nodes."""
    order = np.lexsort(saddles[::-1])
    a, b, elevation = saddles.a[order], saddles.b[order], saddles.elevation[order]
    lowest = np.ones(len(order), bool)
    lowest[1:] = (np.diff(a) != 0) | (np.diff(b) != 0)
    return Saddles(a[lowest], b[lowest], elevation[lowest])


class _Voids(NamedTuple):
    """The voids of a block that touch its ring."""

    parts: Parts
    number: NDArray[np.int64]
    """Of each part among those on the ring, -1 for the others."""
    total: int
    """How many touch the ring."""

    @classmethod
    def of(cls, block: NDArray[np.float32]) -> _Voids | None:
        is_void = np.isnan(block)
        if not is_void.any():
            return None
        parts = find_parts(is_void, connectivity=_EIGHT)
        number = np.full(parts.n_parts, -1)
        touching = np.unique(np.concatenate([[0], *border_parts(parts)]))[1:] - 1
        number[touching] = np.arange(len(touching))
        return cls(parts, number, len(touching))

    def paint(self, values: NDArray[Any], framed: NDArray[Any]) -> None:
        """Write a value into each void on the ring, unless it is 0."""
        nothing = np.zeros(1, values.dtype)  # what number -1 finds
        paint(self.parts, np.concatenate([values, nothing])[self.number], framed[1:-1, 1:-1])


@njit(nogil=True, cache=True)
def _meet(node, elevation, other_node, other_elevation):
    n = node.size
    a, b, saddle = np.empty(3 * n, np.int32), np.empty(3 * n, np.int32), np.empty(3 * n, np.float32)
    found = 0
    for i in range(n):
        for j in range(max(i - 1, 0), min(i + 2, n)):
            if node[i] == other_node[j]:
                continue
            lowest = max(elevation[i], other_elevation[j])
            for k in range(found - 1, max(found - _LOOK_BACK, 0) - 1, -1):  # cells in a row mostly repeat their pair
                if a[k] == node[i] and b[k] == other_node[j]:
                    saddle[k] = min(saddle[k], lowest)
                    break
            else:
                a[found], b[found], saddle[found] = node[i], other_node[j], lowest
                found += 1
    return a[:found].copy(), b[:found].copy(), saddle[:found].copy()


@njit(nogil=True, cache=True)
def _put_ring_cell(framed, i, j, outside_i, outside_j, elevation):
    if framed[i, j] == OUTLET or framed[i, j] == WALL or elevation == WALL:
        return
    framed[i, j] = elevation
    framed[outside_i, outside_j] = OUTLET


@njit(nogil=True, cache=True)
def _put_ring(ring, framed):
    """Set the border of a framed block, and open the frame beside land that reaches an outlet."""
    height, width = framed.shape
    for j in range(1, width - 1):
        _put_ring_cell(framed, 1, j, 0, j, ring.top[j - 1])
        _put_ring_cell(framed, height - 2, j, height - 1, j, ring.bottom[j - 1])
    for i in range(1, height - 1):
        _put_ring_cell(framed, i, 1, i, 0, ring.left[i - 1])
        _put_ring_cell(framed, i, width - 2, i, width - 1, ring.right[i - 1])


@njit(nogil=True, cache=True)
def _raise_cells(elevation, label, level, out):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            z, at = elevation[i + 1, j + 1], level[~label[i + 1, j + 1]]
            if OUTLET < z < WALL:
                out[i, j] = at if z < at < WALL else z
            else:
                out[i, j] = np.nan


@njit(nogil=True, cache=True)
def _shores(elevation, label, count):
    """List where land meets voids on the ring (8 neighbours): basin, label of the void, elevation of the land."""
    height, width = label.shape
    a, b, z = np.empty(1024, np.int32), np.empty(1024, np.int32), np.empty(1024, np.float32)
    lowest = np.empty(width, np.float32)  # of three cells in a column: most voids lie far from land
    n = 0
    for i in range(1, height - 1):
        for j in range(width):
            lowest[j] = min(elevation[i - 1, j], elevation[i, j], elevation[i + 1, j])
        for j in range(1, width - 1):
            void = ~label[i, j]
            if void < count or min(lowest[j - 1], lowest[j], lowest[j + 1]) == WALL:
                continue
            for r in range(i - 1, i + 2):
                for c in range(j - 1, j + 2):
                    if elevation[r, c] == WALL:
                        continue
                    if n == a.size:
                        a, b, z = doubled(a), doubled(b), doubled(z)
                    a[n], b[n], z[n] = ~label[r, c], void, elevation[r, c]
                    n += 1
    return a[:n], b[:n], z[:n]
