"""What lies round the sinks of one block: rim cells over which water leaves them, and voids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAW = np.uint8(16)
"""Flag of a pour code: no water runs on from that rim cell at once."""


def find_pours(filled: NDArray[np.float32], dem: NDArray[np.float32], *, void_is_outlet: bool) -> NDArray[np.uint8]:
    """Find for each cell of a sink the first rim cell beside it at the level of the sink.

    One over which water runs on at once goes first: it lies at the edge of the array, or beside a lower filled cell
    or a void that is an outlet.

    Returns
    -------
    uint8 ``(y, x)``
        0 for none, else ``1 + 3 * (down + 1) + (right + 1)`` of the step to the rim cell, plus `DRAW` if no water runs
        on from it. Right where all within two cells is in the array, or ends where the mosaic ends.
    """
    out = np.zeros(dem.shape, np.uint8)
    _find_pours(filled, dem, void_is_outlet, out)
    return out


def find_touching(number: NDArray[np.int32]) -> NDArray[np.int32]:
    """List the pairs of positive and negative numbers that lie side by side (8) in an image.

    Returns
    -------
    int32 ``(2, pairs)``
        Positive and negative number, each pair once, sorted.
    """
    pairs = _find_touching(number)
    return np.unique(pairs, axis=0).T if len(pairs) else np.empty((2, 0), np.int32)


@njit(nogil=True, cache=True)
def _find_pours(filled, dem, void_is_outlet, out):
    height, width = dem.shape
    for i in range(height):
        for j in range(width):
            level = filled[i, j]
            if not level > dem[i, j]:
                continue
            for r in range(max(i - 1, 0), min(i + 2, height)):
                for c in range(max(j - 1, 0), min(j + 2, width)):
                    if dem[r, c] == level and (out[i, j] == 0 or out[i, j] > DRAW):
                        code = np.uint8(1 + 3 * (r - i + 1) + (c - j + 1))
                        if _runs_on(filled, r, c, void_is_outlet):
                            out[i, j] = code
                        elif out[i, j] == 0:
                            out[i, j] = code | DRAW


@njit(nogil=True, cache=True)
def _runs_on(filled, r, c, void_is_outlet):
    height, width = filled.shape
    if r == 0 or c == 0 or r == height - 1 or c == width - 1:
        return True
    for y in range(r - 1, r + 2):
        for x in range(c - 1, c + 2):
            if filled[y, x] < filled[r, c] or (void_is_outlet and np.isnan(filled[y, x])):
                return True
    return False


@njit(nogil=True, cache=True)
def _find_touching(number):
    height, width = number.shape
    pairs = np.empty((64, 2), np.int32)
    n = 0
    for i in range(height):
        for j in range(width):
            if number[i, j] >= 0:
                continue
            for r in range(max(i - 1, 0), min(i + 2, height)):
                for c in range(max(j - 1, 0), min(j + 2, width)):
                    if number[r, c] <= 0:
                        continue
                    if n and pairs[n - 1, 0] == number[r, c] and pairs[n - 1, 1] == number[i, j]:
                        continue
                    if n == pairs.shape[0]:
                        grown = np.empty((2 * n, 2), np.int32)
                        grown[:n] = pairs
                        pairs = grown
                    pairs[n] = number[r, c], number[i, j]
                    n += 1
    return pairs[:n].copy()
