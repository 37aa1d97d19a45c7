"""Color thresholds and the filters that clean them, on one block of bool or uint8.

The filters equal `scipy.ndimage.gaussian_filter` on uint8 and OpenCV's morphology bit for bit, at the block's edges
too; they are fast because they look closely only at pixels near an outline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TRUNCATE = 4.0  # scipy's default: the kernel reaches 4 sigma


def in_any_range(
    red: NDArray[np.uint8], green: NDArray[np.uint8], blue: NDArray[np.uint8], tables: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Tell which pixels lie in at least one color range.

    Parameters
    ----------
    red, green, blue
        uint8 ``(y, x)``.
    tables
        From `range_tables`.
    """
    return _in_any_range(*(np.ascontiguousarray(band) for band in (red, green, blue)), tables)


def range_tables(ranges: NDArray[np.integer[Any]]) -> NDArray[np.uint64]:
    """Turn inclusive ranges ``(n, 3, 2)`` (channel, low and high) into ``(3, 256)`` lookups: bit k is range k."""
    value = np.arange(256)
    tables = np.zeros((3, 256), np.uint64)
    for k, channels in enumerate(ranges):
        for c, (low, high) in enumerate(channels):
            tables[c, (value >= low) & (value <= high)] |= np.uint64(1) << np.uint64(k)
    return tables


def gaussian_reach_px(sigma_px: float) -> int:
    """How far the Gaussian of `grow` reaches: 20 px for sigma 5, 28 px for sigma 7."""
    return int(_TRUNCATE * sigma_px + 0.5)


def grow(mask: NDArray[np.bool_], sigma_px: float) -> NDArray[np.bool_]:
    """Grow a mask to wherever a Gaussian of it, cut to integers 0..255 after each axis, stays above zero.

    Equal to ``scipy.ndimage.gaussian_filter(np.uint8(255) * mask, sigma_px) > 0``, sums in the same order.
    """
    if not mask.any():
        return np.zeros(mask.shape, bool)
    reach = gaussian_reach_px(sigma_px)
    weights = np.exp(-0.5 / (sigma_px * sigma_px) * np.arange(-reach, reach + 1) ** 2)
    half = (weights / weights.sum())[reach:].copy()
    return _blur_rows(_blur_columns(np.ascontiguousarray(mask), half), half)


def open_rectangle(mask: NDArray[np.bool_], size_yx: tuple[int, int], *, centred: bool) -> NDArray[np.bool_]:
    """Open a mask by a rectangle: what it covers without leaving the mask stays.

    Parameters
    ----------
    mask
        Bool ``(y, x)``; outside the block counts as mask for the erosion and as background for the dilation.
    size_yx
        Height and width of the rectangle, in pixels.
    centred
        False: as OpenCV, which keeps the anchor of an even rectangle for both steps, so that the result moves by one
        pixel right (or down). True: the mathematical opening, which stays inside the mask.
    """
    if not mask.any():
        return np.zeros(mask.shape, bool)
    out = np.ascontiguousarray(mask)
    spans = [(size // 2, size - 1 - size // 2) for size in size_yx]
    for erode in (True, False):
        for axis, (before, after) in enumerate(spans):
            window = (after, before) if centred and not erode else (before, after)
            if before + after and axis == 0:
                counter = np.uint8 if before + after < _MOST_IN_A_BYTE else np.int32
                out = _slide_columns(out, *window, erode, np.zeros(out.shape[1], counter))
            elif before + after:
                out = _slide_rows(out, *window, erode)
    return out


_MOST_IN_A_BYTE = 250


@njit(nogil=True, cache=True)
def _in_any_range(red, green, blue, tables):
    height, width = red.shape
    out = np.empty((height, width), np.bool_)
    for i in range(height):
        for j in range(width):
            out[i, j] = (tables[0, red[i, j]] & tables[1, green[i, j]] & tables[2, blue[i, j]]) != 0
    return out


@njit(nogil=True, cache=True)
def _mirrored(n, reach):
    """Index that scipy's mode "reflect" reads at -reach .. n - 1 + reach (d c b a | a b c d | d c b a)."""
    index = np.empty(n + 2 * reach, np.int64)
    for k in range(index.size):
        i = (k - reach) % (2 * n)
        index[k] = i if i < n else 2 * n - 1 - i
    return index


@njit(nogil=True, cache=True)
def _blur_columns(mask, half):
    height, width = mask.shape
    reach = half.size - 1
    row = _mirrored(height, reach)
    pair = np.empty((half.size, 3))  # what zero, one or two mask pixels at distance k add
    for k in range(half.size):
        pair[k, 0], pair[k, 1], pair[k, 2] = 0.0, 255.0 * half[k], 510.0 * half[k]
    full = pair[0, 1]
    for k in range(reach, 0, -1):
        full += pair[k, 2]
    out = np.zeros((height, width), np.uint8)
    within = np.zeros(width, np.int32)  # mask pixels under the kernel, column by column
    for k in range(2 * reach + 1):
        within += mask[row[k]]
    for i in range(height):
        for j in range(width):
            if within[j] == 0:
                continue
            if within[j] == 2 * reach + 1:
                out[i, j] = np.uint8(full)
                continue
            total = pair[0, np.uint8(mask[i, j])]
            for k in range(reach, 0, -1):
                total += pair[k, np.uint8(mask[row[i + reach - k], j]) + np.uint8(mask[row[i + reach + k], j])]
            out[i, j] = np.uint8(total)
        if i + 1 < height:
            within += mask[row[i + 1 + 2 * reach]]
            within -= mask[row[i]]
    return out


@njit(nogil=True, cache=True)
def _blur_rows(blurred, half):
    height, width = blurred.shape
    reach = half.size - 1
    col = _mirrored(width, reach)
    line = np.empty(col.size)
    out = np.zeros((height, width), np.bool_)
    for i in range(height):
        if not blurred[i].any():
            continue
        for k in range(col.size):
            line[k] = blurred[i, col[k]]
        within = 0
        for k in range(2 * reach):
            within += line[k] != 0
        for j in range(width):
            within += line[j + 2 * reach] != 0
            if within != 0:
                # terms are added in scipy's order and none is negative: once above 1 the sum stays there
                total = line[j + reach] * half[0]
                k = reach
                while total < 1.0 and k > 0:
                    total += (line[j + reach - k] + line[j + reach + k]) * half[k]
                    k -= 1
                out[i, j] = total >= 1.0
            within -= line[j] != 0
    return out


@njit(nogil=True, cache=True)
def _slide_columns(mask, before, after, erode, inside):
    """Erode or dilate along y by the window [y - before, y + after]; ``inside`` counts, one zero a column."""
    height, width = mask.shape
    out = np.empty((height, width), np.bool_)
    one = inside.dtype.type(1)
    for i in range(-after, height):
        if i + after < height:
            for j in range(width):
                inside[j] += mask[i + after, j]
        elif erode:
            for j in range(width):
                inside[j] += one
        if i >= 0:
            above = max(0, before - i) if erode else 0  # rows above the block count as mask
            least = before + after + 1 - above if erode else 1
            for j in range(width):
                out[i, j] = inside[j] >= least
            if i - before >= 0:
                for j in range(width):
                    inside[j] -= mask[i - before, j]
    return out


@njit(nogil=True, cache=True)
def _slide_rows(mask, before, after, erode):
    """Erode or dilate along x by the window [x - before, x + after], run by run."""
    height, width = mask.shape
    out = np.zeros((height, width), np.bool_)
    for i in range(height):
        stop = 0
        while stop < width:
            start = stop
            while start < width and not mask[i, start]:
                start += 1
            stop = start
            while stop < width and mask[i, stop]:
                stop += 1
            if start == stop:
                continue
            if erode:  # beyond the block counts as mask
                first = start + before if start > 0 else 0
                last = stop - after if stop < width else width
            else:
                first, last = max(0, start - after), min(width, stop + before)
            for j in range(first, last):
                out[i, j] = True
    return out
