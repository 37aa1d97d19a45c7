"""Ice surfaces for the benchmarks of sinks, drawn cell by cell: the same for any chunks, as large as one likes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numba import njit

from benchmarks import scenes

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOISE_M = {"1 %": 0.39, "2.6 %": 0.5, "4 %": 0.62, "6 %": 0.83, "white noise": np.inf}
"""Surfaces by the share of cells that are lower than their 8 neighbours, and the noise that makes them so."""


class Dome(NamedTuple):
    """A dome of ice, with waves and white noise on it."""

    size: int = scenes.SIZE
    """Cells a side; the top is in the middle."""
    fall_m: float = 0.2
    """How far it falls a cell."""
    waves: tuple[tuple[int, float], ...] = ((4, 0.08), (16, 0.32), (64, 1.28))
    """Length in cells and height in m."""


SHEET_NOISE_M = 0.1
"""With this 1.5 % of a `sheet` are minima, 5 % lie in sinks, and 3 % in those of 0.5 m and 1 ha at least."""

_TOP_M, _ROUND_PX = 3000.0, 500.0
_SECONDS: list[float] = []


def draw_ice(
    row: int, col: int, height: int, width: int, noise_m: float, *, dome: Dome | None = None, seed: int = 0
) -> NDArray[np.float32]:
    """Draw one block of an ice dome: float32 ``(height, width)`` m, each cell from its place alone.

    With infinite noise there is nothing but noise of 0 to 1 m.
    """
    dome = dome or Dome()
    out = np.empty((height, width), np.float32)
    _draw(out, row, col, noise_m, dome.fall_m, dome.size / 2, np.array(dome.waves), seed)
    return out


def sheet(size: int) -> Dome:
    """Shape ice with the slope of an ice sheet at 10 m a cell, and basins of up to 2.5 km."""
    return Dome(size, 0.037, ((4, 0.02), (16, 0.1), (64, 3.0), (256, 24.0)))


def write_ice(size: int, noise_m: float) -> NDArray[np.float32]:
    """Draw a whole square."""
    return draw_ice(0, 0, size, size, noise_m)


def lazy_ice(noise_m: float, *, dome: Dome, chunk: int = scenes.CHUNK) -> xr.DataArray:
    """Make a DEM whose chunks are drawn where they are needed: float32 ``(y, x)``, 10 m in EPSG:3413."""
    axis = da.core.normalize_chunks((chunk,), shape=(dome.size,))[0]
    meta = np.empty((0, 0), np.float32)
    data = da.map_blocks(_block, chunks=(axis, axis), noise_m=noise_m, dome=dome, dtype=np.float32, meta=meta)
    return xr.DataArray(data, dims=("y", "x"), coords=scenes.grid_of(dome.size).coords(), name="dem")


def share_of_minima(dem: NDArray[np.float32]) -> float:
    """Count the inner cells that are lower than all of their 8 neighbours, as a share."""
    centre = dem[1:-1, 1:-1]
    is_lowest = np.ones(centre.shape, bool)
    rows, cols = dem.shape
    for down in range(3):
        for right in range(3):
            if (down, right) != (1, 1):
                is_lowest &= centre < dem[down : rows - 2 + down, right : cols - 2 + right]
    return float(is_lowest.mean())


def drawing_seconds() -> float:
    """Tell how many seconds of a CPU this process has drawn chunks of `lazy_ice`."""
    return sum(_SECONDS)


def forget_seconds() -> None:
    """Begin to count anew."""
    _SECONDS.clear()


def _block(*, noise_m: float, dome: Dome, block_info: Any = None) -> NDArray[np.float32]:
    start = time.thread_time()
    (top, bottom), (left, right) = block_info[None]["array-location"]
    drawn = draw_ice(top, left, bottom - top, right - left, noise_m, dome=dome)
    _SECONDS.append(time.thread_time() - start)
    return drawn


@njit(nogil=True, cache=True)
def _uniform(row, col, seed):
    """Hash a place into a number from 0 to 1."""
    bits = np.uint32(np.uint32(row) * np.uint32(0x9E3779B1) + np.uint32(seed))
    bits ^= np.uint32(np.uint32(col) * np.uint32(0x85EBCA77))
    bits = np.uint32((bits ^ (bits >> np.uint32(15))) * np.uint32(0x2C1B3C6D))
    bits = np.uint32((bits ^ (bits >> np.uint32(12))) * np.uint32(0x297A2D39))
    return np.uint32(bits ^ (bits >> np.uint32(15))) / 4294967296.0


@njit(nogil=True, cache=True)
def _draw(out, row, col, noise_m, fall_m, middle, waves, seed):
    height, width = out.shape
    line = np.empty(width)
    nodes = np.empty(width + 2)
    for i in range(height):
        for j in range(width):
            line[j] = _uniform(row + i, col + j, seed)
        if noise_m == np.inf:
            out[i] = line
            continue
        down = (row + i - middle) ** 2 + _ROUND_PX**2
        for j in range(width):
            right = col + j - middle
            line[j] = _TOP_M - fall_m * np.sqrt(down + right * right) + noise_m * line[j]
        for k in range(len(waves)):
            _add_wave(line, nodes, row + i, col, int(waves[k, 0]), waves[k, 1], seed + 1 + k)
        out[i] = line


@njit(nogil=True, cache=True)
def _add_wave(line, nodes, row, col, length_px, height_m, seed):
    """Interpolate between random heights at every so many cells, smoothly, and add them to a row."""
    upper, first = row // length_px, col // length_px
    y = _smooth((row % length_px) / length_px)
    last = (col + line.size - 1) // length_px
    for n in range(last - first + 2):
        above, below = _uniform(upper, first + n, seed), _uniform(upper + 1, first + n, seed)
        nodes[n] = height_m * (above + (below - above) * y)
    for n in range(last - first + 1):
        start, left, step = (first + n) * length_px, nodes[n], nodes[n + 1] - nodes[n]
        for j in range(max(start - col, 0), min(start + length_px - col, line.size)):
            line[j] += left + step * _smooth((col + j - start) / length_px)


@njit(nogil=True, cache=True)
def _smooth(t):
    return t * t * (3.0 - 2.0 * t)
