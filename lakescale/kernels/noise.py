"""Gradient noise hashed from absolute coordinates: a value depends on where it is asked, never on what else is.

Perlin's noise (1985) with gradients of unit length. `fractal` adds octaves over a whole block, one lattice cell at a
time; `noise_at` gives single points. Both draw the same functions, up to rounding.
"""

from __future__ import annotations

from math import floor

import numpy as np
from numba import njit

_TURNS = np.arange(256) * (2 * np.pi / 256)
_GRAD_U, _GRAD_V = np.cos(_TURNS).astype(np.float32), np.sin(_TURNS).astype(np.float32)
_SCALE = np.float32(1.6)
"""Takes gradient noise, which rarely leaves -0.6..0.6, to about -1..1."""
_LAYER = 7919


@njit(cache=True, nogil=True)
def hash_ints(i, j, seed):
    """Mix two integers of any sign and a seed into 64 bits."""
    h = np.uint64(i) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed) * np.uint64(0xD6E8FEB86659FD93)
    h = (h ^ (h >> np.uint64(29))) + np.uint64(j) * np.uint64(0xC2B2AE3D27D4EB4F)
    h = (h ^ (h >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def draw(i, j, seed):
    """Draw a number in 0..1 (1 excluded) for a pair of integers."""
    return float(hash_ints(i, j, seed) >> np.uint64(40)) / 16777216.0


@njit(cache=True, nogil=True)
def _shift(seed):
    """Where a lattice starts, so that those of octaves do not share their nodes, where noise is 0."""
    h = hash_ints(0, 0, seed)
    return float(h >> np.uint64(40)) / 16777216.0, float(h & np.uint64(16777215)) / 16777216.0


@njit(cache=True, nogil=True)
def noise_at(x, y, seed):
    """Gradient noise with a lattice of 1 at one point, about -1..1."""
    shift_u, shift_v = _shift(seed)
    x += shift_u
    y += shift_v
    i, j = floor(x), floor(y)
    fx, fy = np.float32(x - i), np.float32(y - j)
    one = np.float32(1)
    wx, wy = _fade(fx), _fade(fy)
    a = int(hash_ints(i, j, seed) & np.uint64(255))
    b = int(hash_ints(i + 1, j, seed) & np.uint64(255))
    c = int(hash_ints(i, j + 1, seed) & np.uint64(255))
    d = int(hash_ints(i + 1, j + 1, seed) & np.uint64(255))
    na = _GRAD_U[a] * fx + _GRAD_V[a] * fy
    nb = _GRAD_U[b] * (fx - one) + _GRAD_V[b] * fy
    nc = _GRAD_U[c] * fx + _GRAD_V[c] * (fy - one)
    nd = _GRAD_U[d] * (fx - one) + _GRAD_V[d] * (fy - one)
    top = na + wx * (nb - na)
    return _SCALE * (top + wy * (nc + wx * (nd - nc) - top))


@njit(cache=True, nogil=True)
def fractal_at(u, v, longest, octaves, gain, seed):
    """Sum octaves at one point: wavelengths halve from ``longest``, amplitudes shrink by ``gain`` from 1."""
    total, size, wavelength = 0.0, 1.0, longest
    for k in range(octaves):
        total += size * noise_at(u / wavelength, v / wavelength, seed + _LAYER * k)
        size *= gain
        wavelength *= 0.5
    return total


@njit(cache=True, nogil=True)
def fractal(corner, shape, step, longest, octaves, gain, seed, stretch=1.0):
    """Sum octaves over a block.

    Parameters
    ----------
    corner
        ``(row, col)`` of the block's first pixel, counted from the anchor of all coordinates.
    shape
        Rows and columns.
    step
        Metres a pixel.
    longest
        Longest wavelength along ``v``, metres; each octave halves it.
    octaves, gain
        How many, and the amplitude of each relative to the one before; the first has about 1.
    seed
        Integer.
    stretch
        How many times longer waves are along ``u``.
    """
    out = np.zeros(shape, np.float32)
    size, wavelength = 1.0, longest
    for k in range(octaves):
        _add_octave(out, corner, step, wavelength, wavelength * stretch, seed + _LAYER * k, np.float32(size))
        size *= gain
        wavelength *= 0.5
    return out


@njit(cache=True, nogil=True)
def _add_octave(out, corner, step, wave_v, wave_u, seed, size):
    height, width = out.shape
    one = np.float32(1)
    size *= _SCALE
    cells = np.empty(width, np.int64)
    fx, wx = np.empty(width, np.float32), np.empty(width, np.float32)
    shift_u, shift_v = _shift(seed)
    for j in range(width):
        x = (corner[1] + j + 0.5) * step / wave_u + shift_u
        cells[j] = floor(x)
        fx[j] = np.float32(x - floor(x))
        wx[j] = _fade(fx[j])
    nodes = cells[width - 1] - cells[0] + 2
    upper, lower = np.empty(nodes, np.uint8), np.empty(nodes, np.uint8)
    last = 0
    for i in range(height):
        y = (corner[0] + i + 0.5) * step / wave_v + shift_v
        line = floor(y)
        fy = np.float32(y - floor(y))
        wy = _fade(fy)
        if i == 0 or line != last:
            _gradients(upper, cells[0], line, seed)
            _gradients(lower, cells[0], line + 1, seed)
            last = line
        j = 0
        while j < width:
            cell = cells[j]
            stop = j + 1
            while stop < width and cells[stop] == cell:
                stop += 1
            n = cell - cells[0]
            a, b, c, d = upper[n], upper[n + 1], lower[n], lower[n + 1]
            ua, ub, uc, ud = _GRAD_U[a], _GRAD_U[b], _GRAD_U[c], _GRAD_U[d]
            ka, kb = _GRAD_V[a] * fy, _GRAD_V[b] * fy
            kc, kd = _GRAD_V[c] * (fy - one), _GRAD_V[d] * (fy - one)
            row, fu, wu = out[i, j:stop], fx[j:stop], wx[j:stop]  # slices, so that the compiler makes vectors of it
            for k in range(stop - j):
                x, w = fu[k], wu[k]
                na = ua * x + ka
                nb = ub * (x - one) + kb
                nc = uc * x + kc
                nd = ud * (x - one) + kd
                top = na + w * (nb - na)
                row[k] += size * (top + wy * (nc + w * (nd - nc) - top))
            j = stop


@njit(cache=True, nogil=True)
def _gradients(out, first, line, seed):
    for n in range(len(out)):
        out[n] = np.uint8(hash_ints(first + n, line, seed) & np.uint64(255))


@njit(cache=True, nogil=True)
def _fade(t):
    return t * t * t * (t * (t * np.float32(6) - np.float32(15)) + np.float32(10))


@njit(cache=True, nogil=True)
def smooth_step(low, high, value):
    """Rise from 0 at ``low`` to 1 at ``high`` without corners."""
    t = min(1.0, max(0.0, (value - low) / (high - low)))
    return t * t * (3.0 - 2.0 * t)
