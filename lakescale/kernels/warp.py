"""Sample one block of a target grid from source pixels, at the coordinates that `lakescale.kernels.lattice` gives.

Every pixel follows from its own coordinates and the source pixels round them, so blocks do not matter. Nothing is
accumulated from pixel to pixel, and numba contracts no products and sums: the same operations in the same order
everywhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from lakescale.kernels.lattice import aim_row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.kernels.lattice import Aim

CENTRE = ((0.5, 0.5),)
CENTRE_AND_CORNERS = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0))
"""Points of a pixel at which source coordinates are asked for, as ``(row, col)`` from its first corner."""
POINTS = {"nearest": CENTRE, "bilinear": CENTRE, "cubic": CENTRE, "average": CENTRE_AND_CORNERS}
REACH_PX = {"nearest": 0, "bilinear": 1, "cubic": 2, "average": 0}
"""How far beyond the points of a pixel source pixels are read."""

_NOTHING = 1e-12  # area in pixels below which a covered area is rounding noise
_TORN_SHARE = 0.125


def sample(
    pixels: NDArray[Any], corner: tuple[int, int], size: tuple[int, int], aim: Aim, resampling: str, out: NDArray[Any]
) -> None:
    """Fill a block; pixels whose centre lies outside the source's outer edge keep the value they have.

    - ``nearest``: the pixel under the centre; on a pixel edge the one to the right or below.
    - ``bilinear``: always 2 x 2 pixels.
    - ``cubic``: 4 x 4 pixels, Catmull-Rom (a = -0.5, as GDAL's; Keys 1981, eq. 4); next to a missing or infinite pixel
      it falls back to bilinear, since renormalised negative weights overshoot.
    - ``average``: the mean of the pixels under the quadrilateral of the target pixel's four transformed corners, each
      weighted by its exact area inside. Where that is torn (its middle misses the centre by more than an eighth of
      its extent, as where a pixel holds the pole or the antimeridian crosses it): nearest.

    Beyond the outer edge bilinear and cubic repeat the edge pixel; average has nothing there. NaN is missing: the
    result is NaN where the nearest pixel is (average: where less than half of the area that is covered is seen), else
    the weights of the others are brought to sum 1.

    Parameters
    ----------
    pixels
        ``(band, y, x)``, the part of the source that holds all pixels that are needed; float32 or float64, or of any
        dtype for ``nearest``.
    corner
        Row and column in the source of its first pixel.
    size
        Rows and columns of the source.
    aim
        Where the target pixels lie.
    resampling
        One of the four.
    out
        ``(band, height, width)``; of the pixels' dtype for ``nearest`` of classes, else float32.
    """
    place = (corner[0], corner[1], float(size[0]), float(size[1]))
    if resampling == "average":
        _sample_areas(pixels, place, aim, out)
    elif resampling == "nearest":  # apart, since classes are no floats
        _sample_nearest(pixels, place, aim, out)
    else:
        _sample_points(pixels, place, aim, resampling == "cubic", out)


# -- samplers


@njit(nogil=True, cache=True)
def _sample_nearest(pixels, place, aim, out):
    top, left, height, width = place
    x, y = np.empty(out.shape[2]), np.empty(out.shape[2])
    for r in range(out.shape[1]):
        aim_row(aim, r, 0, 0.5, 0.5, x, y)
        for band in range(out.shape[0]):
            image, line = pixels[band], out[band, r]
            for k in range(line.size):
                if 0 <= x[k] <= width and 0 <= y[k] <= height:
                    line[k] = image[_nearest(y[k] - top, image.shape[0]), _nearest(x[k] - left, image.shape[1])]


@njit(nogil=True, cache=True)
def _sample_points(pixels, place, aim, is_cubic, out):
    top, left, height, width = place
    x, y = np.empty(out.shape[2]), np.empty(out.shape[2])
    for r in range(out.shape[1]):
        aim_row(aim, r, 0, 0.5, 0.5, x, y)
        for band in range(out.shape[0]):
            image, line = pixels[band], out[band, r]
            if is_cubic:
                for k in range(line.size):
                    if 0 <= x[k] <= width and 0 <= y[k] <= height:
                        line[k] = _cubic(image, y[k] - top, x[k] - left)
            else:
                for k in range(line.size):
                    if 0 <= x[k] <= width and 0 <= y[k] <= height:
                        line[k] = _bilinear(image, y[k] - top, x[k] - left)


@njit(nogil=True, cache=True)
def _sample_areas(pixels, place, aim, out):
    top, left, height, width = place
    x, y = np.empty((5, out.shape[2])), np.empty((5, out.shape[2]))
    quad_x, quad_y, cover = np.empty(4), np.empty(4), np.zeros(64)
    for r in range(out.shape[1]):
        for p in range(5):
            aim_row(aim, r, p, CENTRE_AND_CORNERS[p][0], CENTRE_AND_CORNERS[p][1], x[p], y[p])
        for k in range(out.shape[2]):
            if not (0 <= x[0, k] <= width and 0 <= y[0, k] <= height):
                continue
            for p in range(4):
                quad_x[p], quad_y[p] = x[p + 1, k] - left, y[p + 1, k] - top
            torn = _is_torn(quad_x, x[0, k] - left) or _is_torn(quad_y, y[0, k] - top)
            if torn:
                i, j = _nearest(y[0, k] - top, pixels.shape[1]), _nearest(x[0, k] - left, pixels.shape[2])
            else:
                first = math.floor(quad_x.min())
                n = math.ceil(quad_x.max()) - first
                quad_x -= first
                if n + 2 > cover.size:
                    cover = np.zeros(2 * n + 4)
            for band in range(out.shape[0]):
                if torn:
                    out[band, r, k] = pixels[band, i, j]
                else:
                    out[band, r, k] = _average(pixels[band], quad_y, quad_x, first, n, cover)


@njit(nogil=True, cache=True)
def _nearest(at, size):
    return min(max(math.floor(at), 0), size - 1)


@njit(nogil=True, cache=True)
def _bilinear(image, y, x):
    i, j = math.floor(y - 0.5), math.floor(x - 0.5)
    part_y, part_x = y - 0.5 - i, x - 0.5 - j
    above, below = max(i, 0), min(i + 1, image.shape[0] - 1)
    left, right = max(j, 0), min(j + 1, image.shape[1] - 1)
    a, b = np.float64(image[above, left]), np.float64(image[above, right])
    c, d = np.float64(image[below, left]), np.float64(image[below, right])
    upper = a + part_x * (b - a)
    value = upper + part_y * (c + part_x * (d - c) - upper)
    if math.isnan(value):
        value = _bilinear_of_seen(a, b, c, d, part_y, part_x)
    return value


@njit(nogil=True, cache=True)
def _bilinear_of_seen(a, b, c, d, part_y, part_x):
    """Give the others the weights of missing pixels, unless the nearest one is missing."""
    upper, lower = (b, d) if part_x >= 0.5 else (a, c)  # noqa: PLR2004
    if math.isnan(lower if part_y >= 0.5 else upper):  # noqa: PLR2004
        return np.nan
    total = weight = 0.0
    for value, w in (
        (a, (1 - part_y) * (1 - part_x)),
        (b, (1 - part_y) * part_x),
        (c, part_y * (1 - part_x)),
        (d, part_y * part_x),
    ):
        if w > 0 and not math.isnan(value):
            total += w * value
            weight += w
    return total / weight


@njit(nogil=True, cache=True)
def _cubic(image, y, x):
    i, j = math.floor(y - 0.5), math.floor(x - 0.5)
    y0, y1, y2, y3 = _cubic_weights(y - 0.5 - i)
    x0, x1, x2, x3 = _cubic_weights(x - 0.5 - j)
    last = image.shape[1] - 1
    c0, c1, c2, c3 = max(j - 1, 0), max(j, 0), min(j + 1, last), min(j + 2, last)
    value = 0.0
    for k, w in ((i - 1, y0), (i, y1), (i + 1, y2), (i + 2, y3)):
        line = image[min(max(k, 0), image.shape[0] - 1)]
        value += w * (x0 * line[c0] + x1 * line[c1] + x2 * line[c2] + x3 * line[c3])
    if not math.isfinite(value):
        value = _bilinear(image, y, x)
    return value


@njit(nogil=True, cache=True)
def _cubic_weights(t):
    return (
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


@njit(nogil=True, cache=True)
def _is_torn(corner, centre):
    """Whether the middle of the four corners misses the centre by more than an eighth of their extent."""
    low, high = corner.min(), corner.max()
    miss = abs(0.25 * (corner[0] + corner[1] + corner[2] + corner[3]) - centre)
    return not miss < _TORN_SHARE * (high - low)  # True for NaN and inf


@njit(nogil=True, cache=True)
def _average(image, y, x, first, n, cover):
    """Mean of the pixels under a quadrilateral, row by row: covered areas as fonts are drawn, by signed edges.

    ``x`` counts from column ``first``, ``n`` columns are touched; ``cover`` has room for two more.
    """
    total = seen = covered = 0.0
    for i in range(max(math.floor(y.min()), 0), min(math.ceil(y.max()), image.shape[0])):
        cover[: n + 2] = 0
        for p in range(4):
            q = (p + 1) % 4
            _add_edge(y[p] - i, x[p], y[q] - i, x[q], float(n), cover)
        area = 0.0
        for j in range(n):
            area += cover[j]
            if 0 <= first + j < image.shape[1] and abs(area) > _NOTHING:
                covered += abs(area)
                value = image[i, first + j]
                if not math.isnan(value):
                    total += abs(area) * value
                    seen += abs(area)
    if covered == 0:  # a quadrilateral without area
        return np.float64(image[_nearest(y.mean(), image.shape[0]), _nearest(x.mean() + first, image.shape[1])])
    return total / seen if seen > 0 and 2 * seen >= covered else np.nan


@njit(nogil=True, cache=True)
def _add_edge(y0, x0, y1, x1, right, cover):
    """Add what an edge changes, from column to column, in the area to its right within the row 0..1."""
    sign = 1.0
    if y0 > y1:
        y0, x0, y1, x1, sign = y1, x1, y0, x0, -1.0
    if y1 <= 0 or y0 >= 1 or y0 == y1:
        return
    slope = (x1 - x0) / (y1 - y0)
    if y1 > 1:
        x1, y1 = x0 + (1 - y0) * slope, 1.0
    if y0 < 0:
        x0, y0 = x0 - y0 * slope, 0.0
    height = sign * (y1 - y0)
    low, high = max(min(x0, x1), 0.0), min(max(x0, x1), right)
    first, stop = math.floor(low), math.ceil(high)
    if stop <= first + 1:
        part = height * (0.5 * (low + high) - first)
        cover[first] += height - part
        cover[first + 1] += part
        return
    per_column = height / (high - low)
    before = 0.0
    for j in range(first, stop):
        a, b = max(low, float(j)), min(high, j + 1.0)
        area = per_column * ((a - low) + (b - a) * (j + 1 - 0.5 * (a + b)))
        cover[j] += area - before
        before = area
    cover[stop] += height - before
