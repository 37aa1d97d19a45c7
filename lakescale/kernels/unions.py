"""Union-find over arrays of parents, for kernels that join what meets: a root is its own parent."""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True)
def find_root(parent, i):
    """Find what ``i`` was joined to in the end; ways are halved as they are walked."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
