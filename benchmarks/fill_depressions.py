"""The exact tiled fill beside RichDEM and whitebox-workflows; its kernel on one block; its tasks a chunk."""

from __future__ import annotations

import importlib
import tempfile
from contextlib import ExitStack
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import dask
import dask.array as da
import numpy as np
import rasterio
import xarray as xr

from benchmarks import scenes
from benchmarks.ice import NOISE_M, write_ice
from benchmarks.races import TIMEOUT_S, Race, race
from benchmarks.whitebox_child import WhiteboxChild
from lakescale.depressions import fill_tiled
from lakescale.kernels.flood import fill_array

if TYPE_CHECKING:
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
        self.dem = write_ice(scenes.SIZE, NOISE_M[minima])
        with ExitStack() as opened:
            if peer == "whitebox-workflows":
                _peer("whitebox_workflows", peer)
                self.peer: _Peer = opened.enter_context(_Whitebox(self.dem))
            else:
                self.peer = _RichDem(self.dem)
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

        times = race(ours, self.peer.fill, prepare=self.peer.prepare)
        _compare(found["ours"], self.peer.answer(), is_exact=peer == "richdem")
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
        self.peer = _RichDem(self.dem)

    def race(self, *_: str) -> Race:
        """Time both."""
        return race(lambda: _told(fill_array(self.dem, void_is_outlet=False)), self.peer.fill)

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


class _Peer(Protocol):
    def prepare(self) -> None: ...
    def fill(self) -> float: ...
    def answer(self) -> Any: ...


class _RichDem:
    def __init__(self, dem: NDArray[np.float32]) -> None:
        richdem = _peer("richdem", "richdem2")
        array = richdem.rdarray(dem, no_data=_NODATA, geotransform=scenes.TRANSFORM.to_gdal())
        self._fill = lambda: richdem.FillDepressions(array)

    def prepare(self) -> None:
        self._filled: Any = None  # two answers at once may be more than memory holds

    def fill(self) -> float:
        self._filled = np.asarray(self._fill())
        return _told(self._filled)

    def answer(self) -> NDArray[np.float32]:
        return self._filled


class _Whitebox:
    """A fresh process for each call, which has read the DEM before it is timed."""

    def __init__(self, dem: NDArray[np.float32]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "ice.tif"
        profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": len(dem), "width": len(dem)}
        place = {"crs": scenes.CRS, "transform": scenes.TRANSFORM, "nodata": _NODATA}
        with rasterio.open(self._path, "w", **place, **profile) as file:
            file.write(dem, 1)
        self._child: WhiteboxChild | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._folder.cleanup()

    def prepare(self) -> None:
        self._end()
        self._child = WhiteboxChild(self._path)

    def fill(self) -> float:
        assert self._child is not None
        self._child.fill()
        return 0.0  # told apart from ours by `answer`, once

    def answer(self) -> NDArray[np.float32]:
        assert self._child is not None
        return self._child.answer(self._path.parent)

    def _end(self) -> None:
        if self._child is not None:
            self._child.close()
        self._child = None


def _peer(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotImplementedError(f"{package} is not installed") from error  # which asv takes for: skip


def _told(filled: NDArray[Any]) -> float:
    """Tell an answer by some of its cells: all of them are compared once, and not in the time."""
    return float(filled[::_STRIDE, ::_STRIDE].sum(dtype=np.float64))


def _compare(ours: NDArray[np.float32], theirs: NDArray[np.float32], *, is_exact: bool) -> None:
    wrong = np.count_nonzero(theirs != ours if is_exact else theirs < ours)
    if wrong:
        raise RuntimeError(f"{wrong} cells of the peer are {'other' if is_exact else 'lower'} than ours")
