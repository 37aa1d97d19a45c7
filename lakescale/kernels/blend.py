"""Windows that overlap, blended: integer weights, 16-bit probabilities, 64-bit sums, which no order of adding moves."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

HANN, FLAT = "hann", "flat"
WEIGHTS = HANN, FLAT

ONE = 65535
"""What a weight and a probability of 1 are in fixed point."""

_SHIFT = 23
_PACKED = 2 ** (_SHIFT - 16)
"""So many weights add up to less than 2**23: both sums of a pixel then share 64 bits, that of the weights the low ones.
Sums are most of what a task holds and hands on."""


def count_planes(windows: int) -> int:
    """How many int64 the sums of a pixel take that so many windows cover at most: 1, or 2 for more than 128."""
    return 1 if windows <= _PACKED else 2


@lru_cache(maxsize=4)
def window_weights(window: int, kind: str) -> NDArray[np.uint16]:
    """Weigh the pixels of a window: ``max(1, round(65535 w))``.

    Parameters
    ----------
    window
        Its side, in pixels.
    kind
        ``hann``: w = sin2(pi i / (window - 1)) sin2(pi j / (window - 1)) at row i and column j, which is 0 at the
        border, so that without the ``max`` a pixel at the mosaic's edge would have no weight at all. ``flat``: w = 1.

    Returns
    -------
    numpy.ndarray
        uint16 ``(y, x)``, read-only.
    """
    line = np.hanning(window) if kind == HANN else np.ones(window)
    weights = np.maximum(1, np.rint(ONE * np.outer(line, line))).astype(np.uint16)
    weights.flags.writeable = False
    return weights


def add_windows(
    sums: NDArray[np.int64], probabilities: NDArray[np.float32], corners: NDArray[np.int64], weights: NDArray[np.uint16]
) -> None:
    """Add a batch of windows to the sums, in place.

    Parameters
    ----------
    sums
        int64 ``(planes, y, x)``, zeros to begin with; for ``planes`` see `count_planes`. What is in them adds up, also
        with the sums of other windows, and is for `mean_probability` to read.
    probabilities
        float32 ``(n, y, x)``, 0..1: kept to 1/65535, the nearest.
    corners
        int64 ``(n, 2)``: row and column of each window's first pixel in the sums; the windows lie inside.
    weights
        From `window_weights`.
    """
    _add_windows(sums, np.ascontiguousarray(probabilities), corners, weights, *_fields(sums))


def mean_probability(sums: NDArray[Any]) -> NDArray[np.float32]:
    """Divide the sums of `add_windows`: float32 ``(y, x)``, 0..1; 0 where there was no window."""
    return _mean_probability(sums, *_fields(sums))


def _fields(sums: NDArray[Any]) -> tuple[int, int]:
    """Tell how far up the weighted probabilities lie in plane 0, and which bits of the last plane hold the weights."""
    return (_SHIFT, 2**_SHIFT - 1) if len(sums) == 1 else (0, 2**63 - 1)


@njit(nogil=True, cache=True)
def _add_windows(sums, probabilities, corners, weights, shift, _):
    count, height, width = probabilities.shape
    last = sums.shape[0] - 1
    for k in range(count):
        row, col = corners[k, 0], corners[k, 1]
        for i in range(height):
            for j in range(width):
                weight = np.int64(weights[i, j])
                fixed = np.int64(np.float64(probabilities[k, i, j]) * ONE + 0.5)
                sums[0, row + i, col + j] += (weight * fixed) << shift
                sums[last, row + i, col + j] += weight


@njit(nogil=True, cache=True)
def _mean_probability(sums, shift, mask):
    planes, height, width = sums.shape
    mean = np.zeros((height, width), np.float32)
    for i in range(height):
        for j in range(width):
            weight = sums[planes - 1, i, j] & mask
            if weight > 0:
                mean[i, j] = (sums[0, i, j] >> shift) / (ONE * np.float64(weight))
    return mean
