"""An ice sheet's surface made from absolute coordinates: dome, margin, roughness, basins, and where water collects.

Coordinates ``u`` (right) and ``v`` (down) are metres from the anchor of all synthetic land. `lay_basins` finds the
basins of a box; their domains (discs) are disjoint, so a point lies in at most one.
"""

from __future__ import annotations

import heapq
from math import cos, exp, floor, hypot, log, pi, sin, sqrt
from typing import NamedTuple

import numpy as np
from numba import njit

from lakescale.kernels.noise import draw, fractal, fractal_at, hash_ints, noise_at, smooth_step


class Land(NamedTuple):
    """What the land is made from."""

    seed: int
    inland_m: float
    """How far the ice margin is moved west of where it runs by default."""
    lake_density: float
    """Factor on the share of cells that hold a basin."""
    nunataks: float
    """Factor on the share of cells near the margin that hold a nunatak."""


ID, U, V, RADIUS, LONG, SHORT, COSINE, SINE, DEPTH, HEIGHT, REACH, LUCK, LEVEL, LOBE = range(14)
"""Columns of a basin: id; centre, m; radius and half axes, m; direction; depth of the bowl, m; height of the land round
it, m; radius of its domain, m; hash of 32 bits; level of size (0 is a nunatak); then, along and
across its direction, m, the centre and size of two lobes and an island (size 0: none)."""
_LOBES = 2
ISLAND = LOBE + 3 * _LOBES
COLUMNS = ISLAND + 3

_CELL = (8000.0, 5120.0, 2560.0, 1280.0, 640.0)
_SMALLEST = (250.0, 330.0, 150.0, 70.0, 32.0)
_LARGEST = (800.0, 800.0, 330.0, 150.0, 70.0)
_SHARE = (0.35, 0.75, 0.7, 0.38, 0.12)
_STRETCH = 2.3
_MARGIN, _WARP_P, _WARP_Q, _LONG_WAVES, _SHORT_WAVES, _RELIEF, _CELLS, _MEANDER = (1000 * k for k in range(1, 9))
_LONG_OCTAVES, _SHORT_OCTAVES, _GAIN, _SHORT_GAIN = 4, 6, 0.62, 0.75
_LONGEST, _AMPLITUDE = 5120.0, 10.0
_GAP_M = 30.0
_MOST_LEVELS, _ID_BITS, _ID_HALF = 5, 14, 8192
_MARGIN_OCTAVES = 4
_ISLAND_SHARE = 0.2


@njit(cache=True, nogil=True)
def _edge(u, v, land):
    return u + land.inland_m + 500.0 - 7500.0 * sin(2 * pi * (v - 9000.0) / 64000.0)


@njit(cache=True, nogil=True)
def inland_at(u, v, land):
    """How far a point lies inside the ice margin, m; rock where negative."""
    return _edge(u, v, land) + 1500.0 * fractal_at(u, v, 6000.0, _MARGIN_OCTAVES, 0.5, land.seed + _MARGIN)


@njit(cache=True, nogil=True)
def inland(corner, shape, step, land):
    """`inland_at` over a block, float32."""
    out = fractal(corner, shape, step, 6000.0, _MARGIN_OCTAVES, 0.5, land.seed + _MARGIN)
    for i in range(shape[0]):
        v = (corner[0] + i + 0.5) * step
        for j in range(shape[1]):
            out[i, j] = _edge((corner[1] + j + 0.5) * step, v, land) + 1500.0 * out[i, j]
    return out


@njit(cache=True, nogil=True)
def _dome(distance):
    distance = distance / (1.0 + max(0.0, distance) / 160_000.0)  # the land has no end: below 2300 m lakes still form
    return 500.0 + 4.4 * (sqrt(max(0.0, distance) + 2500.0) - 50.0)


@njit(cache=True, nogil=True)
def base_at(u, v, land):
    """Height of the ice without basins and fine roughness, m."""
    waves = fractal_at(u, v, _LONGEST, _LONG_OCTAVES, _GAIN, land.seed + _LONG_WAVES)
    return _dome(inland_at(u, v, land)) + _AMPLITUDE * waves


@njit(cache=True, nogil=True)
def make_heights(corner, shape, step, land, basins):
    """Heights of the dry bed over a block, float32 m, and the distance inside the ice margin, float32 m."""
    off = inland(corner, shape, step, land)
    waves = fractal(corner, shape, step, _LONGEST, _LONG_OCTAVES, _GAIN, land.seed + _LONG_WAVES)
    shortest = _LONGEST / 2.0**_LONG_OCTAVES
    fine = fractal(corner, shape, step, shortest, _SHORT_OCTAVES, _SHORT_GAIN, land.seed + _SHORT_WAVES)
    size = _AMPLITUDE * _GAIN**_LONG_OCTAVES
    out = np.empty(shape, np.float32)
    for i in range(shape[0]):
        v = (corner[0] + i + 0.5) * step
        for j in range(shape[1]):
            out[i, j] = _dome(off[i, j]) + _AMPLITUDE * waves[i, j] + size * fine[i, j]
            if off[i, j] < 0:
                u = (corner[1] + j + 0.5) * step
                out[i, j] += _hills(u, v, off[i, j], land)
    for k in range(len(basins)):
        basin = basins[k]
        top, bottom, left, right = block_span(basin, corner, shape, step)
        for i in range(top, bottom):
            v = (corner[0] + i + 0.5) * step
            for j in range(left, right):
                u = (corner[1] + j + 0.5) * step
                base = _dome(off[i, j]) + _AMPLITUDE * waves[i, j]
                out[i, j] = carve(u, v, base, size * fine[i, j], basin)
                if basin[LEVEL] == 0 and out[i, j] > base + 12.0:
                    off[i, j] = base + 12.0 - out[i, j]
    return out, off


@njit(cache=True, nogil=True)
def _hills(u, v, off, land):
    rise = smooth_step(0.0, 2500.0, -off)
    shape = 0.35 - abs(fractal_at(u, v, 3000.0, 5, 0.5, land.seed + _RELIEF))
    return 420.0 * rise * shape


@njit(cache=True, nogil=True)
def block_span(basin, corner, shape, step):
    """Rows and columns of a block that a basin's domain can reach: top, bottom, left, right."""
    top = floor((basin[V] - basin[REACH]) / step - corner[0])
    bottom = floor((basin[V] + basin[REACH]) / step - corner[0]) + 1
    left = floor((basin[U] - basin[REACH]) / step - corner[1])
    right = floor((basin[U] + basin[REACH]) / step - corner[1]) + 1
    return max(0, top), min(shape[0], bottom), max(0, left), min(shape[1], right)


@njit(cache=True, nogil=True)
def _around(u, v, basin):
    """Distance from a basin's centre in units of its (warped, lobed) outline."""
    luck, radius = int(basin[LUCK]), basin[RADIUS]
    du, dv = u - basin[U], v - basin[V]
    wave = 1.3 * radius
    p = du + 0.34 * radius * noise_at(u / wave, v / wave, luck + _WARP_P)
    q = dv + 0.34 * radius * noise_at(u / wave, v / wave, luck + _WARP_Q)
    wave = 0.4 * radius
    p += 0.12 * radius * noise_at(u / wave, v / wave, luck + _WARP_P + 1)
    q += 0.12 * radius * noise_at(u / wave, v / wave, luck + _WARP_Q + 1)
    along = p * basin[COSINE] + q * basin[SINE]
    across = q * basin[COSINE] - p * basin[SINE]
    nearest = hypot(along / basin[LONG], across / basin[SHORT])
    for lobe in range(_LOBES):
        size = basin[LOBE + 3 * lobe + 2]
        if size > 0:
            far = hypot(along - basin[LOBE + 3 * lobe], across - basin[LOBE + 3 * lobe + 1])
            nearest = min(nearest, far / size)
    if basin[ISLAND + 2] > 0:
        far = hypot(along - basin[ISLAND], across - basin[ISLAND + 1])
        nearest += 0.7 * (1.0 - smooth_step(0.0, 1.0, far / basin[ISLAND + 2]))
    return nearest


@njit(cache=True, nogil=True)
def carve(u, v, base, fine, basin):
    """Height of a point in a basin's domain: the land made level, a bowl sunk into it; or a nunatak raised."""
    far = hypot(u - basin[U], v - basin[V]) / basin[REACH]
    if far >= 1.0:
        return base + fine
    around = _around(u, v, basin)
    inside = 1.0 - smooth_step(0.75, 1.0, far)
    if basin[LEVEL] == 0:
        hill = max(0.0, 1.0 - around)
        return base + fine + inside * basin[DEPTH] * hill * (1.0 + 0.1 * fine)
    flat = inside * (1.0 - smooth_step(1.0, 1.7, around))
    bowl = inside * smooth_step(0.0, 0.75, 1.05 - around)
    return base + fine * (1.0 - 0.72 * flat) + 0.96 * flat * (basin[HEIGHT] - base) - basin[DEPTH] * bowl


# -- where basins lie


@njit(cache=True, nogil=True)
def _candidate(level, i, j, land, out):
    """Fill in the basin that a cell may hold; False where it holds none."""
    seed = land.seed + _CELLS + level
    factor = land.nunataks if level == 0 else land.lake_density
    if draw(i, j, seed) >= min(1.0, _SHARE[level] * factor):
        return False
    luck = hash_ints(i, j, seed + 50) & np.uint64(0xFFFFFFFF)
    out[LUCK], out[LEVEL] = float(luck), level
    n = int(luck)
    out[U], out[V] = (j + draw(n, 20, 1)) * _CELL[level], (i + draw(n, 21, 1)) * _CELL[level]
    span = log(_LARGEST[level] / _SMALLEST[level])
    out[RADIUS] = _SMALLEST[level] * exp(span * draw(n, 22, 1) ** 1.5)
    ratio = sqrt(1.0 + (_STRETCH - 1.0) * draw(n, 23, 1))
    out[LONG], out[SHORT] = out[RADIUS] * ratio, out[RADIUS] / ratio
    turn = pi * draw(n, 24, 1)
    out[COSINE], out[SINE] = cos(turn), sin(turn)
    out[REACH] = 1.4 * out[LONG] + 0.35 * out[RADIUS] + 40.0
    _add_lobes(out, n)
    off = inland_at(out[U], out[V], land)
    if level == 0:
        out[DEPTH] = 60.0 + 120.0 * draw(n, 25, 1)
        share = 0.0 if off < 1500.0 else exp(-(off - 1500.0) / 5000.0)  # noqa: PLR2004
        return draw(n, 26, 1) < share
    out[DEPTH] = 1.0 + 12.5 * (out[RADIUS] / 600.0) ** 0.6 * (0.45 + 0.75 * draw(n, 25, 1))
    if off < out[REACH] + 700.0:
        return False
    out[HEIGHT] = base_at(out[U], out[V], land)
    out[ID] = (((level - 1) << 2 * _ID_BITS) | ((i + _ID_HALF) << _ID_BITS) | (j + _ID_HALF)) + 1
    return True


@njit(cache=True, nogil=True)
def _add_lobes(out, luck):
    count = floor(draw(luck, 1, 0) * (_LOBES + 1))
    for lobe in range(_LOBES + 1):
        turn = 2 * pi * draw(luck, 5 + lobe, 0)
        far = 0.9 if lobe < _LOBES else 0.35
        size = 0.35 + 0.3 * draw(luck, 2 + lobe, 0) if lobe < _LOBES else 0.4
        there = lobe < count if lobe < _LOBES else draw(luck, 9, 0) < _ISLAND_SHARE
        out[LOBE + 3 * lobe], out[LOBE + 3 * lobe + 1] = far * out[LONG] * cos(turn), far * out[SHORT] * sin(turn)
        out[LOBE + 3 * lobe + 2] = size * out[SHORT] if there else 0.0


@njit(cache=True, nogil=True)
def _largest_reach(level):
    return _LARGEST[level] * (1.4 * sqrt(_STRETCH) + 0.35) + 40.0


@njit(cache=True, nogil=True)
def _yields(basin, i, j, land):
    """Whether a candidate gives way to a larger one (or, of its level, one with more luck) that it would touch."""
    level, other = int(basin[LEVEL]), np.empty(COLUMNS)
    for rival in range(level + 1):
        reach, cell = basin[REACH] + _largest_reach(rival) + _GAP_M, _CELL[rival]
        for m in range(floor((basin[V] - reach) / cell), floor((basin[V] + reach) / cell) + 1):
            for n in range(floor((basin[U] - reach) / cell), floor((basin[U] + reach) / cell) + 1):
                if (rival == level and m == i and n == j) or not _candidate(rival, m, n, land, other):
                    continue
                if hypot(other[U] - basin[U], other[V] - basin[V]) < basin[REACH] + other[REACH] + _GAP_M and (
                    rival < level or other[LUCK] >= basin[LUCK]
                ):
                    return True
    return False


@njit(cache=True, nogil=True)
def lay_basins(left, top, right, bottom, land):
    """Find the basins and nunataks whose domains touch a box, float64 ``(n, COLUMNS)``."""
    found = [np.empty(COLUMNS) for _ in range(0)]
    for level in range(_MOST_LEVELS):
        reach, cell = _largest_reach(level), _CELL[level]
        for i in range(floor((top - reach) / cell), floor((bottom + reach) / cell) + 1):
            for j in range(floor((left - reach) / cell), floor((right + reach) / cell) + 1):
                basin = np.empty(COLUMNS)
                if not _candidate(level, i, j, land, basin) or _yields(basin, i, j, land):
                    continue
                r = basin[REACH]
                if left - r < basin[U] < right + r and top - r < basin[V] < bottom + r:
                    found.append(basin)
    out = np.empty((len(found), COLUMNS))
    for k in range(len(found)):
        out[k] = found[k]
    return out


# -- where water collects


@njit(cache=True, nogil=True)
def fill_from(bed, row, col, domain):
    """Let water rise from a cell until it runs out of a domain.

    Parameters
    ----------
    bed
        float32 ``(y, x)`` m; must be one cell larger than the domain on every side.
    row, col
        The cell.
    domain
        Bool ``(y, x)``.

    Returns
    -------
    joins, spill
        float32 ``(y, x)``: the level at which water that rises from the cell reaches each cell (8 neighbours; the
        greatest height on the lowest way there), infinite where it runs out first; and the level at which it runs out.
    """
    height, width = bed.shape
    joins = np.full((height, width), np.float32(np.inf), np.float32)
    waits = np.zeros((height, width), np.bool_)
    level = bed[row, col]
    heap = [(bed[row, col], row * width + col)]
    waits[row, col] = True
    while heap:
        z, k = heapq.heappop(heap)
        i, j = k // width, k % width
        level = max(level, z)
        if not domain[i, j]:
            return joins, level
        joins[i, j] = level
        for m in range(i - 1, i + 2):
            for n in range(j - 1, j + 2):
                if not waits[m, n]:
                    waits[m, n] = True
                    heapq.heappush(heap, (bed[m, n], m * width + n))
    return joins, level


@njit(cache=True, nogil=True)
def trace_stream(u, v, step, count, land, basins):
    """Follow water downhill from a point, float64 ``(n, 2)`` of ``u`` and ``v``, until it is caught or off the ice."""
    path = np.empty((count, 2))
    heading_u, heading_v, last = 0.0, 0.0, np.inf
    for k in range(count):
        path[k, 0], path[k, 1] = u, v
        here = _potential(u, v, land, basins)
        if here > last + 0.6 or inland_at(u, v, land) < 0.0:
            return path[: k + 1]
        last = min(last, here)
        fall_u = here - _potential(u + 8.0, v, land, basins)
        fall_v = here - _potential(u, v + 8.0, land, basins)
        size = hypot(fall_u, fall_v) + 1e-9
        heading_u, heading_v = 0.62 * heading_u + 0.38 * fall_u / size, 0.62 * heading_v + 0.38 * fall_v / size
        size = hypot(heading_u, heading_v) + 1e-9
        u, v = u + step * heading_u / size, v + step * heading_v / size
    return path


@njit(cache=True, nogil=True)
def _potential(u, v, land, basins):
    height = base_at(u, v, land)
    for k in range(len(basins)):
        if abs(u - basins[k, U]) < basins[k, REACH] and abs(v - basins[k, V]) < basins[k, REACH]:
            height = carve(u, v, height, 0.0, basins[k])
    return height + 1.6 * fractal_at(u, v, 340.0, 3, 0.5, land.seed + _MEANDER)


@njit(cache=True, nogil=True)
def draw_line(out, corner, step, path, first_m, growth):
    """Draw a line that widens along the way over a block: the share of each pixel that it covers, kept where larger.

    ``first_m`` is half its width at the start, ``growth`` what this gains along the whole path, m.
    """
    height, width = out.shape
    top, left = corner
    for k in range(len(path) - 1):  # in pixels from the anchor, so that rounding is the same in every block
        x0, y0, x1, y1 = path[k, 0] / step, path[k, 1] / step, path[k + 1, 0] / step, path[k + 1, 1] / step
        half = (first_m + growth * k / len(path)) / step
        reach = half + 1.0
        dx, dy = x1 - x0, y1 - y0
        length = dx * dx + dy * dy + 1e-12
        first_row, last_row = floor(min(y0, y1) - reach) - top, floor(max(y0, y1) + reach) - top
        first_col, last_col = floor(min(x0, x1) - reach) - left, floor(max(x0, x1) + reach) - left
        for i in range(max(0, int(first_row)), min(height, int(last_row) + 1)):
            y = top + i + 0.5
            for j in range(max(0, int(first_col)), min(width, int(last_col) + 1)):
                x = left + j + 0.5
                t = min(1.0, max(0.0, ((x - x0) * dx + (y - y0) * dy) / length))
                far = hypot(x - x0 - t * dx, y - y0 - t * dy)
                cover = np.float32(min(1.0, max(0.0, half + 0.5 - far)) * min(1.0, 2.0 * half))
                out[i, j] = max(out[i, j], cover)
