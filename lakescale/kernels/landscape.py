"""What a sheet of ice looks like from above: reflectance and class of each pixel, from fields that are given."""

from __future__ import annotations

from math import exp, floor

import numpy as np
from numba import njit

from lakescale.kernels.noise import fractal_at, hash_ints, noise_at, smooth_step

NOT_SEEN, ICE, SNOW, SLUSH, STREAM, WATER, LID, ROCK, TUNDRA_WATER, SHADOW, CLOUD = range(11)
"""Classes of pixels."""
DRY, OPEN_WATER, GREY_LID, BRIGHT_LID, SNOWED_LID, FLOOR, SHORE = range(7)
"""What a basin's water makes of a pixel: nothing; water; ice on it, grey or bright; ice and snow all over it; the floor
that it left; wet snow at its shore."""
BLUE, GREEN, RED, NIR, SWIR, CIRRUS = range(6)
"""Planes of reflectance."""

ATTENUATION_PER_M = (0.065, 0.1413, 0.8304, 4.5, 60.0)
"""By plane: red Williamson et al. (2018), green Pope et al. (2016)."""
DEEP_WATER = (0.060, 0.035, 0.030, 0.020, 0.004)
"""Reflectance of optically deep water, by plane."""
_LAKE_FLOOR = (0.54, 0.46, 0.42, 0.30, 0.03)

_STREAKS, _CRACKS, _LID_SHAPE, _FLOES, _GRAIN, _TUNDRA, _THREADS, _STONES = (20_000 + 1000 * k for k in range(8))
_MOST, _DAMP, _CRACKED, OPAQUE, THICK_CIRRUS = 0.5, 0.1, 0.42, 0.4, 0.3
"""Share of a pixel that gives it its class; where fields begin to show; opacity that hides what is below."""
_FOOT_M, _SHORE_M, _HOLLOW, _PATCH = -60.0, -300.0, 0.62, 0.6
"""Off the ice: distance (below 0) within which there is bare rock, no water; where water and snow lie."""
_LEAD, _LEAD_EDGE, _RIM, _PALE = 0.010, 0.03, 0.018, 0.42


@njit(cache=True, nogil=True)
def paint(corner, step, seed, ground, weather):
    """Paint a block.

    Parameters
    ----------
    corner, step, seed
        As in `lakescale.kernels.noise.fractal`.
    ground
        float32 ``(y, x)`` each: slope towards the sun; distance inside the ice margin, m; brightness, dust, snow,
        slush, crevasses and two bends as fractal fields; depth of water, m; share covered by streams; then what basins
        make of pixels (uint8).
    weather
        float32 ``(y, x)`` each: opacity of cloud, of its shadow, of cirrus; then bool: seen.

    Returns
    -------
    reflectance, classes
        float32 ``(6, y, x)``, NaN where not seen; uint8 ``(y, x)``.
    """
    sunward, off, bright, dust, snow, slush, broken, bend_u, bend_v, depth, stream, basin = ground
    cloud, shadow, cirrus, seen = weather
    height, width = off.shape
    planes = np.empty((6, height, width), np.float32)
    classes = np.empty((height, width), np.uint8)
    c = np.empty(6)
    for i in range(height):
        v = (corner[0] + i + 0.5) * step
        for j in range(width):
            if not seen[i, j]:
                planes[:, i, j] = np.nan
                classes[i, j] = NOT_SEEN
                continue
            u = (corner[1] + j + 0.5) * step
            if off[i, j] < 0:
                kind = _paint_land(c, u, v, off[i, j], sunward[i, j], bright[i, j], snow[i, j], seed)
            else:
                streaks = _streaks(u, v, bend_u[i, j], bend_v[i, j], seed)
                threads = 0.0
                if slush[i, j] > _DAMP:
                    threads = noise_at((u + 220.0 * bend_v[i, j]) / 190.0, v / 100.0, seed + _THREADS)
                wet = slush[i, j]
                kind = _paint_ice(c, streaks, sunward[i, j], bright[i, j], dust[i, j], snow[i, j], wet, threads)
                kind = _paint_cracks(c, kind, u, v, broken[i, j], bend_u[i, j], seed)
                kind = _paint_stream(c, kind, stream[i, j])
                kind = _paint_lake(c, kind, basin[i, j], depth[i, j], bright[i, j], streaks)
            classes[i, j] = _paint_sky(c, kind, cloud[i, j], shadow[i, j], cirrus[i, j], bright[i, j])
            _add_grain(c, corner[0] + i, corner[1] + j, seed)
            for k in range(6):
                planes[k, i, j] = max(0.001, c[k])
    return planes, classes


@njit(cache=True, nogil=True)
def _mix(c, share, blue, green, red, nir, swir):
    c[BLUE] += share * (blue - c[BLUE])
    c[GREEN] += share * (green - c[GREEN])
    c[RED] += share * (red - c[RED])
    c[NIR] += share * (nir - c[NIR])
    c[SWIR] += share * (swir - c[SWIR])


@njit(cache=True, nogil=True)
def _streaks(u, v, bend_u, bend_v, seed):
    """Layers that the flow has drawn out, about -1..1."""
    along, across = (u + 900.0 * bend_u) / 420.0, (v + 0.25 * u + 1100.0 * bend_v) / 30.0
    return 0.6 * noise_at(along, across, seed + _STREAKS) + 0.5 * noise_at(
        0.6 * along, 0.37 * across, seed + _STREAKS + 1
    )


@njit(cache=True, nogil=True)
def _paint_ice(c, streaks, sunward, bright, dust, snow, slush, threads):
    dark = smooth_step(-0.05, 0.55, dust)
    red = 0.55 + 0.07 * bright + 0.05 * streaks - dark * (0.20 - 0.045 * streaks - 0.09 * bright)
    red = min(0.74, max(0.20, red)) * (1.0 + min(0.3, max(-0.3, 2.6 * sunward)))
    c[RED], c[GREEN], c[BLUE] = red, 0.96 * red + 0.046 - 0.018 * dark, 0.93 * red + 0.078 - 0.04 * dark
    c[NIR], c[SWIR], c[CIRRUS] = 0.78 * red, 0.022 + 0.03 * red, 0.0012
    kind = ICE
    wet = smooth_step(0.40, 0.75, slush + 0.2 * streaks + 0.12 * threads)
    if wet > 0:
        core = smooth_step(0.7, 1.05, slush + 0.2 * threads)
        pale = 0.50 - 0.12 * core + 0.06 * bright + 0.03 * streaks
        _mix(c, 0.9 * wet, pale + 0.10 + 0.06 * core, pale + 0.065 + 0.025 * core, pale, 0.6 * pale, 0.012)
        pool = wet * (1.0 - smooth_step(0.03, 0.2, abs(threads)))
        _mix(c, min(1.0, 0.55 + 0.5 * streaks) * pool, 0.50, 0.42, 0.29, 0.12, 0.010)
        kind = SLUSH if wet > _MOST else kind
    cover = smooth_step(0.56, 0.70, snow + 0.12 * streaks)
    if cover > 0:
        red = (0.80 + 0.07 * bright + 0.03 * streaks) * (1.0 + min(0.15, max(-0.15, 1.2 * sunward)))
        _mix(c, 0.95 * cover, red + 0.02, red + 0.012, red, 0.86 * red, 0.05 + 0.02 * bright)
        kind = SNOW if cover > _MOST else kind
    return kind


@njit(cache=True, nogil=True)
def _paint_cracks(c, kind, u, v, broken, bend, seed):
    if broken < _CRACKED:
        return kind
    share = smooth_step(_CRACKED, 0.62, broken)
    across, along = (u + 0.45 * v + 350.0 * bend) / 75.0, (v - 0.45 * u) / 520.0
    line = noise_at(across, along, seed + _CRACKS)
    dark = share * (1.0 - smooth_step(0.05, 0.14, abs(line)))
    light = share * smooth_step(0.3, 0.6, line)
    _mix(c, 0.42 * dark, 0.33, 0.27, 0.22, 0.15, 0.012)
    _mix(c, 0.30 * light, 0.83, 0.82, 0.80, 0.66, 0.05)
    return kind


@njit(cache=True, nogil=True)
def _paint_stream(c, kind, share):
    if share <= 0:
        return kind
    _mix(c, 0.9 * share, 0.40, 0.30, 0.13, 0.05, 0.008)
    return STREAM if share > _MOST else kind


@njit(cache=True, nogil=True)
def _paint_lake(c, kind, code, depth, bright, streaks):
    if code == DRY:
        return kind
    if code == OPEN_WATER:
        for k in range(5):
            bottom = 0.5 * c[k] + 0.5 * _LAKE_FLOOR[k]
            c[k] = DEEP_WATER[k] + (bottom - DEEP_WATER[k]) * exp(-ATTENUATION_PER_M[k] * depth)
        return WATER
    if code == FLOOR:
        _mix(c, 0.45, 0.50, 0.47, 0.44, 0.32, 0.03)
        return kind
    if code == SHORE:
        _mix(c, 0.6, 0.60, 0.54, 0.45, 0.28, 0.015)
        return SLUSH
    if code == GREY_LID:
        red = 0.47 + 0.10 * bright + 0.05 * streaks
        _mix(c, 0.97, red + 0.06, red + 0.035, red, 0.75 * red, 0.03)
    elif code == BRIGHT_LID:
        red = 0.70 + 0.10 * bright
        _mix(c, 0.95, red + 0.03, red + 0.02, red, 0.82 * red, 0.04)
    else:
        red = 0.73 + 0.05 * bright + 0.02 * streaks
        _mix(c, 0.9, red + 0.05, red + 0.03, red, 0.8 * red, 0.04)
    return LID


@njit(cache=True, nogil=True)
def _paint_land(c, u, v, off, sunward, bright, snow, seed):
    light = min(1.9, max(0.35, 1.0 + 1.6 * sunward))
    stones = fractal_at(u, v, 260.0, 4, 0.7, seed + _STONES)
    tone = light * (0.115 + 0.035 * bright + 0.03 * stones)
    c[RED], c[GREEN], c[BLUE] = tone * 1.15, tone * 0.98, tone * 0.82
    c[NIR], c[SWIR], c[CIRRUS] = tone * 1.7, tone * 2.0, 0.0012
    if off > _FOOT_M:
        return ROCK
    if fractal_at(u, v, 1500.0, 4, 0.5, seed + _TUNDRA) > _HOLLOW and off < _SHORE_M:
        _mix(c, 0.97, 0.062, 0.045, 0.024, 0.012, 0.004)
        return TUNDRA_WATER
    if snow > _PATCH:
        _mix(c, smooth_step(_PATCH, 0.7, snow), 0.72, 0.71, 0.70, 0.6, 0.06)
    return ROCK


@njit(cache=True, nogil=True)
def _paint_sky(c, kind, cloud, shadow, cirrus, bright):
    if shadow > 0:
        c[BLUE] *= 1.0 - 0.40 * shadow
        c[GREEN] *= 1.0 - 0.47 * shadow
        c[RED] *= 1.0 - 0.53 * shadow
        c[NIR] *= 1.0 - 0.60 * shadow
        c[SWIR] *= 1.0 - 0.68 * shadow
        kind = SHADOW if shadow > OPAQUE else kind
    if cirrus > 0:
        _mix(c, cirrus, 0.82, 0.80, 0.79, 0.74, 0.20)
        c[CIRRUS] += 0.04 * cirrus
    if cloud > 0:
        tone = 0.84 + 0.07 * bright
        _mix(c, cloud, tone + 0.01, tone, tone, tone - 0.04, 0.27 + 0.06 * bright)
        c[CIRRUS] += 0.004 * cloud
    return CLOUD if cloud > OPAQUE or cirrus > THICK_CIRRUS else kind


@njit(cache=True, nogil=True)
def _add_grain(c, row, col, seed):
    """Noise of the sensor, and grain of the surface below a pixel: a few thousandths."""
    bits = hash_ints(int(row), int(col), seed + _GRAIN)
    common = ((bits & np.uint64(1023)) + ((bits >> np.uint64(10)) & np.uint64(1023))) / 1023.0 - 1.0
    for k in range(5):
        own = ((bits >> np.uint64(20 + 8 * k)) & np.uint64(255)) / 255.0 - 0.5
        c[k] = c[k] * (1.0 + 0.022 * common) + 0.006 * own * (1.0 if k < NIR else 0.4)


@njit(cache=True, nogil=True)
def shade(heights, step):
    """Slope towards the sun (south-south-east) of a block, from heights with one pixel more on every side."""
    height, width = heights.shape[0] - 2, heights.shape[1] - 2
    out = np.empty((height, width), np.float32)
    for i in range(height):
        for j in range(width):
            du = heights[i + 1, j + 2] - heights[i + 1, j]
            dv = heights[i + 2, j + 1] - heights[i, j + 1]
            out[i, j] = -(np.float32(0.34) * du + np.float32(0.94) * dv) / np.float32(2 * step)
    return out


@njit(cache=True, nogil=True)
def lid_field(depth, corner, step, centre, radius, seed):
    """Tell where ice on a lake stays longest: greatest over deep water to one side, ragged; float32, NaN on land."""
    out = np.full(depth.shape, np.float32(np.nan), np.float32)
    deepest = depth.max()
    turn_u, turn_v = noise_at(0.5, 0.5, seed) * 0.9, noise_at(7.5, 0.5, seed) * 0.9
    for i in range(depth.shape[0]):
        v = (corner[0] + i + 0.5) * step
        for j in range(depth.shape[1]):
            if depth[i, j] > 0:
                u = (corner[1] + j + 0.5) * step
                side = (turn_u * (u - centre[0]) + turn_v * (v - centre[1])) / radius
                ragged = fractal_at(u, v, 0.6 * radius, 4, 0.6, seed + _LID_SHAPE)
                out[i, j] = 0.5 * (depth[i, j] / deepest) ** 0.5 + 0.55 * side + 0.20 * ragged
    return out


@njit(cache=True, nogil=True)
def cover_lake(field, corner, step, threshold, radius, seed):
    """Tell water from grey and bright ice, uint8: floes part near the lid's edge, leads cross it."""
    out = np.zeros(field.shape, np.uint8)
    floe = max(70.0, 0.22 * radius)
    for i in range(field.shape[0]):
        v = (corner[0] + i + 0.5) * step
        for j in range(field.shape[1]):
            if np.isnan(field[i, j]):
                continue
            u = (corner[1] + j + 0.5) * step
            over = field[i, j] - threshold
            if over <= 0:
                out[i, j] = OPEN_WATER
                continue
            gap = abs(noise_at(u / floe, v / floe, seed + _FLOES))
            lead = abs(noise_at(u / (5.0 * floe), v / (5.0 * floe), seed + _FLOES + 1))
            pale = noise_at(u / (3.0 * floe), v / (3.0 * floe), seed + _FLOES + 2)
            if gap < 0.13 - 0.7 * over or lead < _LEAD:
                out[i, j] = OPEN_WATER
            else:
                out[i, j] = BRIGHT_LID if over < _RIM or lead < _LEAD_EDGE or pale > _PALE else GREY_LID
    return out


@njit(cache=True, nogil=True)
def make_opaque(field, low):
    """Make the part of a field above ``low`` opaque (0..1), with soft edges; in place."""
    span = np.float32(0.32)
    for i in range(field.shape[0]):
        row = field[i]
        for j in range(row.size):
            t = min(max((row[j] - low) / span, np.float32(0)), np.float32(1))
            row[j] = t * t * (np.float32(3) - np.float32(2) * t)
    return field


@njit(cache=True, nogil=True)
def add_gaps(seen, corner, step, slant, shift, stagger, period, gap):
    """Set to False what lies in strips ``gap`` wide every ``period`` metres, in place.

    ``slant`` is the strips' direction ``(u, v)``, ``shift`` where they start; every second 1500 m along ``v`` they are
    moved by ``stagger``.
    """
    for i in range(seen.shape[0]):
        v = (corner[0] + i + 0.5) * step
        start = slant[1] * v + shift + stagger * (floor(v / 1500.0) % 2)
        for j in range(seen.shape[1]):
            t = (slant[0] * ((corner[1] + j + 0.5) * step) + start) / period
            if (t - floor(t)) * period < gap:
                seen[i, j] = False
