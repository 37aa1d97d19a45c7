"""Of things that exclude each other, the better ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NOBODY = np.iinfo(np.int64).max


def settle(own: NDArray[np.int64], other: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose as one does who goes through all by rank, and takes each that no better one excludes.

    Each round takes all whose rivals left are worse, and drops the rivals of these. Chains are short, so rounds few.

    Parameters
    ----------
    own, other
        Pairs that exclude each other, each in one order or both.
    rank
        Of each, the best has 0; no two are equal.

    Returns
    -------
    NDArray
        For each the best rival that was taken, or -1 where it was taken itself.
    """
    a, b = np.concatenate([own, other]), np.concatenate([other, own])
    everyone = a, b
    is_open, taken = np.ones(len(rank), bool), np.zeros(len(rank), bool)
    while is_open.any():
        left = is_open[a] & is_open[b]
        a, b = a[left], b[left]
        wins = is_open & (rank < _best(a, rank[b], len(rank)))
        taken |= wins
        is_open &= ~wins
        is_open[b[wins[a]]] = False
    a, b = everyone
    best = _best(b[taken[a]], rank[a[taken[a]]], len(rank))
    lost = ~taken
    found = np.full(len(rank), -1)
    found[lost] = np.argsort(rank)[best[lost]]
    return found


def _best(of: NDArray[np.int64], rank: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    best = np.full(count, _NOBODY)
    np.minimum.at(best, of, rank)
    return best
