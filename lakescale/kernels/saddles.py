"""Saddles between basins, and the lowest ways across them, by Boruvka's contraction: no heap, no hash, no sort.

In each round every group of nodes without a terminal takes its lowest saddle and joins the group beyond it. All other
saddles of a group are as high or higher: wherever water crosses a group, the way inside it is no higher than the saddle
by which it comes or goes. So it does not matter which nodes a saddle joins, only which groups; the level of a node is
the highest saddle that its groups took; and saddles within a group are dropped, so that rounds shrink quickly. The
first round looks at the cells themselves, and only what it leaves is listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from lakescale.kernels.basins import OUTLET, WALL
from lakescale.kernels.unions import find_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_STRIDE = 32
_NONE = np.int64(-1)


class Saddles(NamedTuple):
    """Places where nodes of a graph meet, in no order; two nodes may meet more than once."""

    a: NDArray[np.int32]
    b: NDArray[np.int32]
    elevation: NDArray[np.float32]
    """From which elevation on water passes: the higher one of the two cells that meet."""


_NO_SADDLES = Saddles(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))


class Drainage(NamedTuple):
    """The lowest way from each node to a terminal."""

    terminal: NDArray[np.int32]
    """A terminal that it leads to: the node itself if it is one; any node where there is no way."""
    level: NDArray[np.float32]
    """The highest saddle on the way: `OUTLET` for terminals, `WALL` where there is no way."""
    left: Saddles
    """Where terminals meet, each with all that drains into it."""


def drain(saddles: Saddles, is_terminal: NDArray[np.bool_]) -> Drainage:
    """Find the lowest ways over a list of saddles, which is overwritten.

    Parameters
    ----------
    saddles
        The graph.
    is_terminal
        For each node whether water stays there.
    """
    lowest, which = _choose(*saddles, len(is_terminal))
    beyond = _across(saddles.a, saddles.b, which)
    return _drain_from(lowest, beyond, is_terminal, lambda group: _regroup(*saddles, group))


def drain_basins(elevation: NDArray[np.float32], label: NDArray[np.int32], is_terminal: NDArray[np.bool_]) -> Drainage:
    """Find the lowest ways over the saddles between the basins of a block (8 neighbours), other than across walls.

    Parameters
    ----------
    elevation, label
        Framed, as `lakescale.kernels.basins.find_basins` takes and gives them.
    is_terminal
        For each basin whether water stays there.
    """
    lowest, beyond = _choose_in_block(elevation, label, len(is_terminal))
    return _drain_from(lowest, beyond, is_terminal, lambda group: _list_in_block(elevation, label, group))


def span(saddles: Saddles, count: int) -> Saddles:
    """Keep the fewest saddles that leave the lowest way between each two of ``count`` nodes as it is."""
    a, b, elevation = saddles
    group_a, group_b, groups = a, b, count
    nobody = np.zeros(count, bool)
    kept = []
    while True:
        lowest, which = _choose(group_a, group_b, elevation, groups)
        beyond = _across(group_a, group_b, which)
        group, first, joins = _join(lowest, beyond, nobody[:groups])
        if len(first) == groups:
            break
        taken = which[joins]
        kept.append(Saddles(a[taken], b[taken], elevation[taken]))
        group_a, group_b = group[group_a], group[group_b]
        outside = group_a != group_b
        a, b, elevation, group_a, group_b = (x[outside] for x in (a, b, elevation, group_a, group_b))
        groups = len(first)
    return concatenate(*kept)


def concatenate(*lists: Saddles) -> Saddles:
    """Put lists of saddles one behind the other."""
    return Saddles(*(np.concatenate(columns) for columns in zip(_NO_SADDLES, *lists, strict=True)))


def _drain_from(
    lowest: NDArray[np.float32],
    beyond: NDArray[np.int32],
    is_terminal: NDArray[np.bool_],
    list_between: Callable[[NDArray[np.int32]], Any],
) -> Drainage:
    """Join each node to the one beyond its lowest saddle, and go on with the groups that this makes."""
    group, first, _ = _join(lowest, beyond, is_terminal)
    stays = is_terminal[first]
    still, set_aside = (Saddles(*part) for part in _part(*list_between(group), stays))
    if len(first) == len(group):
        on = Drainage(group, np.where(stays, OUTLET, WALL), _NO_SADDLES)
    else:
        on = drain(still, stays)
    left = concatenate(set_aside, on.left)
    left = Saddles(first[left.a], first[left.b], left.elevation)
    return Drainage(first[on.terminal][group], np.maximum(lowest, on.level[group]), left)


# -- rounds


@njit(nogil=True, cache=True)
def _choose(a, b, elevation, count):
    """Find the lowest saddle of each node, and which one it is."""
    lowest, which = np.full(count, WALL), np.full(count, _NONE)
    for k in range(a.size):
        z = elevation[k]
        if z < lowest[a[k]]:
            lowest[a[k]], which[a[k]] = z, k
        if z < lowest[b[k]]:
            lowest[b[k]], which[b[k]] = z, k
    return lowest, which


@njit(nogil=True, cache=True)
def _across(a, b, which):
    """Name the nodes beyond the saddles that nodes chose."""
    beyond = np.zeros(which.size, np.int32)
    for x in range(which.size):
        if which[x] != _NONE:
            beyond[x] = b[which[x]] if a[which[x]] == x else a[which[x]]
    return beyond


@njit(nogil=True, cache=True)
def _join(lowest, beyond, is_terminal):
    """Enumerate the groups, list their roots (terminals where they hold one), and tell which nodes joined another.

    The saddles that nodes take can close a circle only if all of them are equally high: then one is left out.
    Terminals take none, and ``lowest`` says so afterwards.
    """
    parent = np.arange(lowest.size, dtype=np.int32)
    joins = np.zeros(lowest.size, np.bool_)
    for x in range(lowest.size):
        if is_terminal[x]:
            lowest[x] = OUTLET
        elif lowest[x] < WALL:
            root, other = find_root(parent, x), find_root(parent, beyond[x])
            if root != other:
                parent[root], joins[x] = other, True
    group, first = np.empty(lowest.size, np.int32), np.empty(lowest.size, np.int32)
    count = 0
    for x in range(lowest.size):
        if parent[x] == x:
            group[x], first[count] = count, x
            count += 1
    for x in range(lowest.size):
        group[x] = group[find_root(parent, x)]
    return group, first[:count].copy(), joins


@njit(nogil=True, cache=True)
def _regroup(a, b, elevation, group):
    """Name groups in place of nodes, and drop what lies within one; in place."""
    n = 0
    for k in range(a.size):
        x, y = group[a[k]], group[b[k]]
        a[n], b[n], elevation[n] = x, y, elevation[k]
        n += x != y
    return a[:n], b[:n], elevation[:n]


@njit(nogil=True, cache=True)
def _part(a, b, elevation, is_terminal):
    """Set aside what lies between terminals, and so for good; the others in place."""
    n_left = 0
    for k in range(a.size):
        n_left += is_terminal[a[k]] and is_terminal[b[k]]
    left_a, left_b, left = np.empty(n_left, np.int32), np.empty(n_left, np.int32), np.empty(n_left, np.float32)
    n = n_left = 0
    for k in range(a.size):
        if is_terminal[a[k]] and is_terminal[b[k]]:
            left_a[n_left], left_b[n_left], left[n_left] = a[k], b[k], elevation[k]
            n_left += 1
        else:
            a[n], b[n], elevation[n] = a[k], b[k], elevation[k]
            n += 1
    return (a[:n], b[:n], elevation[:n]), (left_a, left_b, left)


# -- the first round, on cells


@njit(nogil=True, cache=True)
def _lower_beyond(lowest, elevation, differs):
    return elevation if differs and elevation < lowest else lowest


@njit(nogil=True, cache=True)
def _choose_in_block(elevation, label, count):
    """As `_choose`, for the basins of a block."""
    height, width = label.shape
    lowest, cell = np.full(count, WALL), np.zeros(count, np.int64)
    saddle = np.empty(width, np.float32)
    for i in range(1, height - 1):
        _lowest_in_row(elevation, label, i, saddle)
        for j in range(1, width - 1):
            if saddle[j] < lowest[~label[i, j]]:
                lowest[~label[i, j]], cell[~label[i, j]] = saddle[j], i * width + j
    beyond = np.zeros(count, np.int32)
    for x in range(count):
        if lowest[x] < WALL:
            beyond[x] = _beyond(elevation, label, cell[x] // width, cell[x] % width, lowest[x])
    return lowest, beyond


@njit(nogil=True, cache=True)
def _lowest_in_row(elevation, label, i, saddle):
    """Give each cell of a row its lowest saddle to another basin; `WALL` for none."""
    z_above, z, z_below = elevation[i - 1], elevation[i], elevation[i + 1]
    above, own, below = label[i - 1], label[i], label[i + 1]
    for j in range(1, own.size - 1):
        here = own[j]
        low = _lower_beyond(WALL, z_above[j - 1], above[j - 1] != here)
        low = _lower_beyond(low, z_above[j], above[j] != here)
        low = _lower_beyond(low, z_above[j + 1], above[j + 1] != here)
        low = _lower_beyond(low, z[j - 1], own[j - 1] != here)
        low = _lower_beyond(low, z[j + 1], own[j + 1] != here)
        low = _lower_beyond(low, z_below[j - 1], below[j - 1] != here)
        low = _lower_beyond(low, z_below[j], below[j] != here)
        low = _lower_beyond(low, z_below[j + 1], below[j + 1] != here)
        saddle[j] = z[j] if z[j] > low else low  # noqa: FURB136  (max() looks for NaN and is no vector instruction)


@njit(nogil=True, cache=True)
def _beyond(elevation, label, i, j, saddle):
    """Find the basin on the other side of a cell's saddle."""
    for r in range(i - 1, i + 2):
        for c in range(j - 1, j + 2):
            if label[r, c] != label[i, j] and max(elevation[r, c], elevation[i, j]) == saddle:
                return ~label[r, c]
    return np.int32(0)


@njit(nogil=True, cache=True)
def _list_in_block(elevation, label, group):
    """List the saddles between groups of basins; along a border mostly once, though that is not promised."""
    height, width = label.shape
    a, b, saddle = np.empty(4 * width, np.int32), np.empty(4 * width, np.int32), np.empty(4 * width, np.float32)
    a[0] = -1  # what no pair equals, for those who look at it first
    own, below, cols = np.zeros(width, np.int32), np.zeros(width, np.int32), np.empty(width, np.int32)
    recent = np.zeros(width, np.int64)
    n = 0
    for i in range(1 if group.max() > 0 else height, height):
        own, below = below, own
        for j in range(width):
            below[j] = group[~label[i, j]]
        n_cols = _find_borders(own, below, cols) if i > 1 else 0
        while n + 4 * n_cols > a.size:
            a, b, saddle = doubled(a), doubled(b), doubled(saddle)
        z, z_below = elevation[i - 1], elevation[i]
        for j in cols[:n_cols]:
            if own[j] != own[j + 1]:
                n = _note(a, b, saddle, n, own[j], own[j + 1], max(z[j], z[j + 1]), recent, j)
            for k in range(j - 1, j + 2):
                if own[j] != below[k]:
                    n = _note(a, b, saddle, n, own[j], below[k], max(z[j], z_below[k]), recent, j)
    return a[:n], b[:n], saddle[:n]


@njit(nogil=True, cache=True)
def _note(a, b, saddle, n, x, y, z, recent, j):
    """Put a saddle on the list, unless its pair is the one that was met last at its column or the one before it."""
    if z == WALL:
        return n
    x, y = min(x, y), max(x, y)
    at = recent[j]
    if a[at] != x or b[at] != y:
        at = recent[j - 1]
        if a[at] != x or b[at] != y:
            at = n
            a[at], b[at], saddle[at] = x, y, z
            n += 1
        recent[j] = at
    saddle[at] = min(saddle[at], z)
    return n


@njit(nogil=True, cache=True)
def _find_borders(own, below, cols):
    """List the columns where a row's group meets another one, to the right or below; returns their number."""
    n = 0
    for start in range(1, own.size - 1, _STRIDE):
        stop = min(start + _STRIDE, own.size - 1)
        differs = np.int32(0)
        for j in range(start, stop):
            here = own[j]
            differs |= (here ^ own[j + 1]) | (here ^ below[j - 1]) | (here ^ below[j]) | (here ^ below[j + 1])
        if differs != 0:
            for j in range(start, stop):
                here = own[j]
                cols[n] = j
                n += ((here ^ own[j + 1]) | (here ^ below[j - 1]) | (here ^ below[j]) | (here ^ below[j + 1])) != 0
    return n


@njit(nogil=True, cache=True)
def doubled(array):
    """Give an array twice the room."""
    out = np.empty(2 * array.size, array.dtype)
    out[: array.size] = array
    return out
