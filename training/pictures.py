"""What windows look like, in whole numbers: 8-bit levels, colorfulness, thumbnails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

COLOR_SUMS = ("red_green", "red_green_2", "yellow_blue", "yellow_blue_2")
"""Planes of `color_planes`: R - G, its square, R + G - 2 B, its square."""


def to_levels(band: NDArray[Any]) -> NDArray[np.int32]:
    """Give levels 0..255: 8-bit numbers as they are, reflectance times 255, rounded and clipped; NaN is 0."""
    if band.dtype == np.uint8:
        return band.astype(np.int32)
    return np.rint(255 * np.clip(np.nan_to_num(band, nan=0.0), 0, 1)).astype(np.int32)


def color_planes(red: NDArray[np.int32], green: NDArray[np.int32], blue: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    """Make the planes whose sums give the colorfulness."""
    red_green, yellow_blue = red - green, red + green - 2 * blue
    return [red_green, red_green**2, yellow_blue, yellow_blue**2]


def colorfulness(sums: pd.DataFrame, count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the colorfulness of Hasler and Suesstrunk (2003) from sums over seen pixels.

    sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2), where rg = R - G and yb = (R + G) / 2 - B.

    Parameters
    ----------
    sums
        Columns `COLOR_SUMS`, one row a window.
    count
        Seen pixels of each.

    Returns
    -------
    numpy.ndarray
        float64, in 8-bit levels; NaN without a seen pixel.
    """
    rg, rg2, yb, yb2 = (sums[name].to_numpy() / np.where(count > 0, count, np.nan) for name in COLOR_SUMS)
    variance = rg2 - rg**2 + (yb2 - yb**2) / 4
    return np.sqrt(np.maximum(variance, 0)) + 0.3 * np.sqrt(rg**2 + yb**2 / 4)


def thin_alike(
    corners: NDArray[np.int64], thumbnails: NDArray[np.float64], *, window: int, least_difference: float
) -> NDArray[np.bool_]:
    """Tell which windows are no near-duplicates: the first in order is kept, one too like it and overlapping is not.

    Parameters
    ----------
    corners
        First row and column of each window, ``(n, 2)``.
    thumbnails
        ``(n, k)``.
    window
        Their side: windows overlap where they start less than this apart.
    least_difference
        What the mean difference to each kept window that overlaps must reach.

    Returns
    -------
    numpy.ndarray
        Bool ``(n,)``, True = kept.
    """
    kept: dict[tuple[int, int], int] = {}
    rows, cols = (np.unique(corners[:, axis]) for axis in (0, 1))
    keeps = np.zeros(len(corners), bool)
    for k, (row, col) in enumerate(corners.tolist()):
        near = [kept[r, c] for r in _within(rows, row, window) for c in _within(cols, col, window) if (r, c) in kept]
        differences = np.abs(thumbnails[near] - thumbnails[k]).mean(axis=1)
        keeps[k] = not (differences < least_difference).any()
        if keeps[k]:
            kept[row, col] = k
    return keeps


def _within(starts: NDArray[np.int64], start: int, window: int) -> list[int]:
    first, last = np.searchsorted(starts, [start - window + 1, start + window])
    return starts[first:last].tolist()
