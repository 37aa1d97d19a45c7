"""The exact tiled fill beside RichDEM and whitebox-workflows; its kernel on one block; its tasks a chunk."""

from __future__ import annotations

import importlib
import tempfile
from contextlib import ExitStack
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import rasterio
import xarray as xr

from benchmarks import scenes
from benchmarks.races import TIMEOUT_S, Race, race
from lakescale.depressions import fill_tiled
from lakescale.kernels.flood import fill_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NOISE_M = {"1 %": 0.39, "2.6 %": 0.5, "4 %": 0.62, "6 %": 0.83, "white noise": np.inf}
"""Surfaces by the share of cells that are lower than their 8 neighbours, and the noise that makes them so."""

_SLOPE, _TOP_M, _ROUND_PX = 0.2, 3000.0, 500.0
_WAVES_PX, _STEEPNESS = (4, 16, 64), 0.02
_STRIP_ROWS = 256
_STRIDE = 7
_NODATA = -9999


def draw_ice(row: int, col: int, height: int, width: int, noise_m: float, *, seed: int = 0) -> NDArray[np.float32]:
    """Draw one block of an ice dome: float32 ``(height, width)`` m, each cell from its place alone.

    Waves of 4 to 64 cells and white noise lie on a dome whose top is the cell (size / 2, size / 2); with infinite noise
    there is nothing but noise of 0 to 1 m.
    """
    out = np.empty((height, width), np.float32)
    for r in range(0, height, _STRIP_ROWS):
        strip = row + r, col, min(_STRIP_ROWS, height - r), width
        out[r : r + _STRIP_ROWS] = _draw_strip(*strip, noise_m, seed)
    return out


def write_ice(size: int, noise_m: float) -> NDArray[np.float32]:
    """Draw a whole square."""
    return draw_ice(0, 0, size, size, noise_m)


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


class FillDepressions:
    """Two threads that fill chunks of a DEM in memory, against one call on the array in memory.

    RichDEM uses one thread, whitebox-workflows as many as it likes. RichDEM's cells must equal ours; Whitebox, which
    is not exact, may give none that is lower.
    """

    params = (list(NOISE_M), ["richdem", "whitebox-workflows"])
    param_names = ("minima", "peer")
    timeout = TIMEOUT_S

    def setup(self, minima: str, peer: str) -> None:
        """Draw the ice."""
        with ExitStack() as opened:
            self.dem = write_ice(scenes.SIZE, NOISE_M[minima])
            if peer == "richdem":
                self.peer = _richdem(self.dem)
            else:
                self.peer = _whitebox(self.dem, Path(opened.enter_context(tempfile.TemporaryDirectory())))
            self.opened = opened.pop_all()

    def teardown(self, *_: str) -> None:
        self.opened.close()

    def race(self, _minima: str, peer: str) -> Race:
        """Time both."""
        found: dict[str, Any] = {}

        def ours() -> float:
            found["ours"] = self._fill()
            return _told(found["ours"]) if peer == "richdem" else 0.0

        def theirs() -> float:
            found["peer"] = self.peer()
            return _told(np.asarray(found["peer"])) if peer == "richdem" else 0.0

        times = race(ours, theirs)
        _compare(found["ours"], found["peer"], is_exact=peer == "richdem")
        return times

    def track_ratio(self, *chosen: str) -> float:
        """Return how many times as fast ours is."""
        return self.race(*chosen).ratio

    track_ratio.unit = "x"

    def _fill(self) -> NDArray[np.float32]:
        dem = xr.DataArray(da.from_array(self.dem, chunks=scenes.CHUNK // 2, name=False), dims=("y", "x"))
        with dask.config.set(scheduler="threads", num_workers=2):
            return fill_tiled(dem).data.compute()


class FillBlock:
    """The kernel on one block of the chunk's size, and RichDEM on the same array; one thread each."""

    params = tuple(NOISE_M)
    param_names = ("minima",)
    timeout = TIMEOUT_S

    def setup(self, minima: str) -> None:
        """Draw the ice."""
        self.dem = write_ice(scenes.CHUNK, NOISE_M[minima])
        self.peer = _richdem(self.dem)

    def race(self, *_: str) -> Race:
        """Time both."""
        return race(lambda: _told(fill_array(self.dem, void_is_outlet=False)), lambda: _told(np.asarray(self.peer())))

    def track_ratio(self, *chosen: str) -> float:
        """Return how many times as fast ours is; the target is 2."""
        return self.race(*chosen).ratio

    track_ratio.unit = "x"


class FillTasks:
    """Tasks of the graph as built, the chunk's source among them, for each chunk."""

    params = (16, 64, 256, 1024)
    param_names = ("chunks",)

    def setup(self, chunks: int) -> None:
        """Make a DEM of that many chunks."""
        side = isqrt(chunks)
        self.chunks, self.dem = chunks, da.zeros((side * 8, side * 8), dtype=np.float32, chunks=8)

    def track_tasks_a_chunk(self, *_: int) -> float:
        """Return the tasks of ours: source, summary, source, pick, fill."""
        filled = fill_tiled(xr.DataArray(self.dem, dims=("y", "x")))
        return len(filled.__dask_graph__()) / self.chunks

    track_tasks_a_chunk.unit = "tasks"


# -- peers


def _richdem(dem: NDArray[np.float32]) -> Callable[[], Any]:
    richdem = _peer("richdem", "richdem2")
    array = richdem.rdarray(dem, no_data=_NODATA, geotransform=scenes.TRANSFORM.to_gdal())
    return lambda: richdem.FillDepressions(array)


def _whitebox(dem: NDArray[np.float32], folder: Path) -> Callable[[], Any]:
    environment = _peer("whitebox_workflows", "whitebox-workflows").WbEnvironment()
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": len(dem), "width": len(dem)}
    path = folder / "ice.tif"
    with rasterio.open(path, "w", crs=scenes.CRS, transform=scenes.TRANSFORM, nodata=_NODATA, **profile) as file:
        file.write(dem, 1)
    raster = environment.read_raster(str(path))
    raster.pin()  # reads it
    fill = environment.hydrology.depressions_storage.fill_depressions
    return lambda: fill(dem=raster, fix_flats=False)


def _peer(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotImplementedError(f"{package} is not installed") from error  # which asv takes for: skip


def _told(filled: NDArray[Any]) -> float:
    """Tell an answer by some of its cells: all of them are compared once, and not in the time."""
    return float(filled[::_STRIDE, ::_STRIDE].sum(dtype=np.float64))


def _compare(ours: NDArray[np.float32], peer: Any, *, is_exact: bool) -> None:
    theirs = np.asarray(peer) if is_exact else peer.to_numpy().reshape(ours.shape)
    wrong = np.count_nonzero(theirs != ours if is_exact else theirs < ours)
    if wrong:
        raise RuntimeError(f"{wrong} cells of the peer are {'other' if is_exact else 'lower'} than ours")


# -- ice


def _draw_strip(row: int, col: int, height: int, width: int, noise_m: float, seed: int) -> NDArray[np.float64]:
    noise = _uniform(row, col, height, width, seed)
    if np.isinf(noise_m):
        return noise
    down, right = (x - scenes.SIZE / 2 for x in np.ogrid[row : row + height, col : col + width])
    out = _TOP_M - _SLOPE * np.sqrt(down**2 + right**2 + _ROUND_PX**2) + noise_m * noise
    for k, length_px in enumerate(_WAVES_PX):
        out += _STEEPNESS * length_px * _waves(row, col, height, width, length_px, seed + 1 + k)
    return out


def _waves(row: int, col: int, height: int, width: int, length_px: int, seed: int) -> NDArray[np.float64]:
    """Interpolate between random values at every so many cells, smoothly."""
    (top, y), (left, x) = (
        np.divmod(np.arange(start, start + n), length_px) for start, n in ((row, height), (col, width))
    )
    nodes = _uniform(top[0], left[0], top[-1] - top[0] + 2, left[-1] - left[0] + 2, seed)
    y, x = ((t / length_px) ** 2 * (3 - 2 * t / length_px) for t in (y, x))
    i, j = top - top[0], left - left[0]
    rows = nodes[i] + (nodes[i + 1] - nodes[i]) * y[:, None]
    return rows[:, j] + (rows[:, j + 1] - rows[:, j]) * x


def _uniform(row: int, col: int, height: int, width: int, seed: int) -> NDArray[np.float64]:
    """Hash places into numbers from 0 to 1."""
    rows = np.arange(row, row + height, dtype=np.uint32)[:, None] * np.uint32(0x9E3779B1)
    bits = (rows + np.uint32(seed)) ^ (np.arange(col, col + width, dtype=np.uint32) * np.uint32(0x85EBCA77))
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        bits ^= bits >> np.uint32(shift)
        bits *= np.uint32(factor)
    return (bits ^ (bits >> np.uint32(15))) / 2.0**32
