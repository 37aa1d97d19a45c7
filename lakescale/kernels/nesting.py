"""Sinks within sinks: the merge tree of the cells of sinks, and the cells over which inner ones pour.

Cells come as a list in raster order, so that memory follows the cells of a sink and not its bounding box; cells of
several sinks may lie in one list, since sinks do not touch. A node of the tree is a part of a sink that keeps its own
water: the cells below its merge level that are joined over 8 neighbours below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from lakescale.kernels.unions import find_root

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NO_NODE = np.int32(-1)
_UNSEEN = np.int32(-1)


class Links(NamedTuple):
    """Where the neighbours of a cell stand in the list."""

    row: NDArray[np.int32]
    col: NDArray[np.int32]
    up: NDArray[np.int32]
    """Index of the first cell that is not before the one above to the left."""
    down: NDArray[np.int32]
    """Index of the first cell that is not before the one below to the left."""


class Tree(NamedTuple):
    """Nodes numbered so that every node comes before the one that encloses it."""

    node: NDArray[np.int32]
    """Innermost node of each cell."""
    parent: NDArray[np.int32]
    """Enclosing node of each node; -1 for a whole sink."""
    merge: NDArray[np.float32]
    """Level at which each node joins others; NaN for a whole sink."""


class Kept(NamedTuple):
    """The nodes of a tree that are sinks, each with all that lies in it."""

    stands_in: NDArray[np.int32]
    """For each node the kept one to which its cells count: itself if it is kept."""
    level: NDArray[np.int32]
    """Of that one; 0 for whole sinks."""
    parent: NDArray[np.int32]
    """The kept node round a kept one; -1 for whole sinks."""


def link(row: NDArray[np.int32], col: NDArray[np.int32]) -> Links:
    """Find the neighbours of cells that are listed in raster order."""
    return Links(row, col, *_link(row, col))


def grow_tree(links: Links, elevation: NDArray[np.float32]) -> Tree:
    """Build the merge tree of sinks.

    Nodes that meet at one level, over one flat or in turn, are children of one node.

    Parameters
    ----------
    links
        The cells of one or several whole sinks.
    elevation
        float32, of each cell.
    """
    order = np.argsort(elevation, kind="stable")
    return Tree(*_grow(links, elevation, order))


def add_up(tree: Tree, pit: NDArray[np.float32], area: NDArray[np.int64]) -> None:
    """Add the inner nodes to those that enclose them, in place: lowest elevation and area of each node's own cells."""
    _add_up(tree.parent, pit, area)


def prune(tree: Tree, is_large: NDArray[np.bool_], levels: int) -> Kept:
    """Leave out small nodes, the only large one within another, and those that are nested too deeply.

    Parameters
    ----------
    tree
        As grown.
    is_large
        For each node; none in a small node is large.
    levels
        How many levels to keep, the whole sinks included.
    """
    return Kept(*_prune(tree.parent, is_large, levels))


def hold(kept: Kept, level: int) -> NDArray[np.int32]:
    """Find for each node the kept one of a level that holds it; -1 for none."""
    return _hold(*kept, level)


def find_saddles(
    links: Links, elevation: NDArray[np.float32], node: NDArray[np.int32], merge: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Find the cell over which each node pours: at its merge level, beside one of its cells.

    The first one with a lower neighbour outside the node goes before the others.

    Parameters
    ----------
    links, elevation
        The cells.
    node
        Node of each cell, of nodes that do not lie in each other; -1 for none.
    merge
        Of each node; NaN for nodes that pour over no cell in the list.

    Returns
    -------
    int64
        Index of a cell for each node, -1 for none.
    """
    return _find_saddles(links, elevation, node, merge)


# -- cells and their neighbours


@njit(nogil=True, cache=True)
def _link(row, col):
    n = row.size
    up, down = np.empty(n, np.int32), np.empty(n, np.int32)
    p = q = 0
    for k in range(n):
        while row[p] < row[k] - 1 or (row[p] == row[k] - 1 and col[p] < col[k] - 1):
            p += 1
        up[k] = p
        while q < n and (row[q] <= row[k] or (row[q] == row[k] + 1 and col[q] < col[k] - 1)):
            q += 1
        down[k] = q
    return up, down


@njit(nogil=True, cache=True)
def _neighbours(links, k, out):
    """Write the indices of the neighbours of a cell; returns how many there are."""
    row, col, up, down = links
    n = 0
    for p in range(up[k], min(up[k] + 3, row.size)):
        if row[p] == row[k] - 1 and col[p] <= col[k] + 1:
            out[n] = p
            n += 1
    if k > 0 and row[k - 1] == row[k] and col[k - 1] == col[k] - 1:
        out[n] = k - 1
        n += 1
    if k + 1 < row.size and row[k + 1] == row[k] and col[k + 1] == col[k] + 1:
        out[n] = k + 1
        n += 1
    for p in range(down[k], min(down[k] + 3, row.size)):
        if row[p] == row[k] + 1 and col[p] <= col[k] + 1:
            out[n] = p
            n += 1
    return n


# -- the tree


@njit(nogil=True, cache=True)
def _grow(links, elevation, order):
    """Let the water rise level by level: what has no lower neighbour is born, what meets is joined."""
    n = elevation.size
    group = np.full(n, _UNSEEN)  # union-find over cells that are under water
    held = np.full(n, _NO_NODE)  # node of each root
    node = np.empty(n, np.int32)
    parent, alias = np.full(n, _NO_NODE), np.empty(n, np.int32)
    born, merge = np.empty(n, np.float32), np.full(n, np.float32(np.nan))
    around = np.empty(8, np.int64)
    count = first = 0
    while first < n:
        level, last = elevation[order[first]], first
        while last < n and elevation[order[last]] == level:
            k = order[last]
            group[k] = k
            for m in range(_neighbours(links, k, around)):
                if group[around[m]] != _UNSEEN:
                    count = _join(group, held, parent, alias, born, merge, count, level, k, around[m])
            last += 1
        for i in range(first, last):
            root = find_root(group, order[i])
            if held[root] == _NO_NODE:
                alias[count], born[count], held[root] = count, level, count
                count += 1
            node[order[i]] = held[root]
        first = last
    return _renumber(node, parent[:count], alias[:count], merge[:count])


@njit(nogil=True, cache=True)
def _join(group, held, parent, alias, born, merge, count, level, k, other):
    """Join two cells at a level; where two nodes meet, a new one encloses them, or one born at this very level."""
    a, b = find_root(group, k), find_root(group, other)
    if a == b:
        return count
    x, y = held[a], held[b]
    group[b] = a
    if x == _NO_NODE:
        held[a] = y
    elif y != _NO_NODE:
        if born[x] == level and born[y] == level:
            alias[y] = x
        elif born[y] == level:
            parent[x], merge[x], held[a] = y, level, y
        else:
            if born[x] != level:
                alias[count], born[count] = count, level
                parent[x], merge[x], held[a] = count, level, count
                x = np.int32(count)
                count += 1
            parent[y], merge[y] = x, level
    return count


@njit(nogil=True, cache=True)
def _renumber(node, parent, alias, merge):
    """Drop the nodes that became one with another."""
    number = np.empty(parent.size, np.int32)
    count = 0
    for v in range(parent.size):
        number[v] = count
        count += alias[v] == v
    new_parent, new_merge = np.full(count, _NO_NODE), np.empty(count, np.float32)
    for v in range(parent.size):
        if alias[v] == v:
            new_merge[number[v]] = merge[v]
            if parent[v] != _NO_NODE:
                new_parent[number[v]] = number[find_root(alias, parent[v])]
    for k in range(node.size):
        node[k] = number[find_root(alias, node[k])]
    return node, new_parent, new_merge


@njit(nogil=True, cache=True)
def _add_up(parent, pit, area):
    for v in range(parent.size):
        if parent[v] != _NO_NODE:
            pit[parent[v]] = min(pit[parent[v]], pit[v])
            area[parent[v]] += area[v]


@njit(nogil=True, cache=True)
def _prune(parent, is_large, levels):
    stands_in, level = np.empty(parent.size, np.int32), np.zeros(parent.size, np.int32)
    outer, n_large = np.full(parent.size, _NO_NODE), np.zeros(parent.size, np.int32)
    for v in range(parent.size):
        if parent[v] != _NO_NODE and is_large[v]:
            n_large[parent[v]] += 1
    for v in range(parent.size - 1, -1, -1):
        stands_in[v] = v
        if parent[v] != _NO_NODE:
            over = stands_in[parent[v]]
            level[v] = level[over]
            if is_large[v] and n_large[parent[v]] > 1 and level[over] + 1 < levels:
                level[v], outer[v] = level[over] + 1, over
            else:
                stands_in[v] = over
    return stands_in, level, outer


@njit(nogil=True, cache=True)
def _hold(stands_in, level, parent, wanted):
    holder = np.empty(stands_in.size, np.int32)
    for v in range(stands_in.size - 1, -1, -1):
        if stands_in[v] != v:
            holder[v] = holder[stands_in[v]]
        elif level[v] > wanted:
            holder[v] = holder[parent[v]]
        else:
            holder[v] = v if level[v] == wanted else _NO_NODE
    return holder


# -- saddles


@njit(nogil=True, cache=True)
def _find_saddles(links, elevation, node, merge):
    best, is_first = np.full(merge.size, np.int64(-1)), np.zeros(merge.size, np.bool_)
    around = np.empty(8, np.int64)
    for k in range(elevation.size):
        n = _neighbours(links, k, around)
        for m in range(n):
            v = node[around[m]]
            if v == _NO_NODE or merge[v] != elevation[k] or is_first[v]:
                continue
            for other in around[:n]:
                is_first[v] |= elevation[other] < elevation[k] and node[other] != v
            if is_first[v] or best[v] == -1:
                best[v] = k
    return best
