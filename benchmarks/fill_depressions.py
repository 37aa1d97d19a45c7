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
from benchmarks.ice import NOISE_M, write_ice
from benchmarks.races import TIMEOUT_S, Race, race
from lakescale.depressions import fill_tiled
from lakescale.kernels.flood import fill_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_STRIDE = 7
_NODATA = -9999


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
            found.pop("ours", None)  # two answers at once may be more than memory holds
            found["ours"] = self._fill()
            return _told(found["ours"]) if peer == "richdem" else 0.0

        def theirs() -> float:
            found.pop("peer", None)
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
        out = np.empty_like(self.dem)
        with dask.config.set(scheduler="threads", num_workers=2):
            da.store(fill_tiled(dem).data, out, lock=False)
        return out


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
