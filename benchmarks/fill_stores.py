"""The exact fill from store to store beside the whole WhiteboxTools command; its workers' memory, its cost's growth."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import rasterio

import lakescale as ls
from benchmarks import ice, scenes
from benchmarks.ice import NOISE_M
from benchmarks.races import REPEATS, TIMEOUT_S, PeerDiedError, Race, race
from benchmarks.worker_memory import peak_rss_mb
from benchmarks.worker_peaks import Peaks, read_peaks
from lakescale.cluster import compute, open_cluster
from lakescale.store import open_layer, write_layer
from lakescale.whitebox import find_binary

if TYPE_CHECKING:
    from distributed import Client

_NODATA = -9999
_LAST = 300
_STRIDE = 7


class FillStores:
    """`fill_depressions` from Zarr to Zarr with two worker processes, against the WhiteboxTools command.

    Ours reads a store of elevations and writes one with checksums and markers. The peer reads and writes an
    uncompressed GeoTIFF, with as many threads as it likes, scheduled so that it does not die of its own threads.
    """

    params = ("1 %", "2.6 %")
    param_names = ("minima",)
    timeout = TIMEOUT_S

    def setup(self, minima: str) -> None:
        """Write the ice twice, start the workers."""
        try:
            self.binary = find_binary()
        except ls.InputError as error:
            raise NotImplementedError("weppcloud-wbt is not installed") from error  # which asv takes for: skip
        with ExitStack() as opened:
            self.folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            self.client = opened.enter_context(open_cluster("local", workers=2, dashboard="none"))
            dem = ice.lazy_ice(NOISE_M[minima], dome=ice.Dome())
            write_layer(dem, self.folder / "dem.zarr", "dem", chunks=scenes.CHUNK, client=self.client)
            profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": scenes.SIZE, "width": scenes.SIZE}
            profile |= {"crs": scenes.CRS, "transform": scenes.TRANSFORM, "nodata": _NODATA}
            with rasterio.open(self.folder / "dem.tif", "w", **profile) as file:
                file.write(ice.write_ice(scenes.SIZE, NOISE_M[minima]), 1)
            self.opened = opened.pop_all()

    def teardown(self, *_: str) -> None:
        self.opened.close()

    def race(self, *_: str) -> Race:
        """Time both, and see that no cell of the peer is lower."""
        times = race(self._ours, self._peer)
        self._compare()
        return times

    def track_ratio(self, *chosen: str) -> float:
        """Return how many times as fast ours is; the target is 1.5."""
        return self.race(*chosen).ratio

    track_ratio.unit = "x"

    def _ours(self) -> int:
        store = self.folder / "filled.zarr"
        shutil.rmtree(store, ignore_errors=True)
        filled = ls.fill_depressions(open_layer(self.folder / "dem.zarr", "dem"))
        write_layer(filled, store, "filled", chunks=scenes.CHUNK, client=self.client)
        return scenes.SIZE

    def _peer(self) -> int:
        target = self.folder / "filled.tif"
        libraries = [str(folder) for up in self.binary.parents[:3] for folder in up.glob("*.libs")]
        environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}
        command = [self.binary, "--run=FillDepressions", f"--dem={self.folder / 'dem.tif'}", f"--output={target}"]
        target.unlink(missing_ok=True)
        done = subprocess.run(command, env=environment, check=False, capture_output=True, preexec_fn=_schedule_in_batch)
        if not target.exists():
            raise PeerDiedError(f"WhiteboxTools died: {done.stdout[-_LAST:]!r} {done.stderr[-_LAST:]!r}")
        with rasterio.open(target) as file:
            return int(file.width)

    def _compare(self) -> None:
        """Compare rows some way apart."""
        ours = open_layer(self.folder / "filled.zarr", "filled")
        with rasterio.open(self.folder / "filled.tif") as file:
            for row in range(0, scenes.SIZE, scenes.SIZE // _STRIDE):
                window = rasterio.windows.Window(0, row, scenes.SIZE, 1)
                if (file.read(1, window=window)[0] < ours[row].values).any():
                    raise RuntimeError(f"row {row} of the peer is lower than ours")


class FillMemory:
    """The larger peak of two fresh worker processes that fill ice, drawn as it is read; the solving task apart."""

    params = (scenes.SIZE, 2 * scenes.SIZE)
    param_names = ("size",)
    timeout = TIMEOUT_S

    def track_peak_mb(self, size: int) -> float:
        """Return the peak above the empty worker; the target is 400."""
        with open_cluster("local", workers=2, dashboard="none") as client:
            client.run(ice.draw_ice, 0, 0, 64, 64, ice.SHEET_NOISE_M)
            client.register_plugin(Peaks())
            empty = max(client.run(peak_rss_mb).values())
            _fill_lazily(size, scenes.CHUNK, client)
            return max(peaks["other"] for peaks in read_peaks(client)) - empty

    track_peak_mb.unit = "MB"


class FillGrowth:
    """Seconds a cell at sixteen times the chunks, over those at 64 chunks of the same size."""

    timeout = TIMEOUT_S

    def track_growth(self) -> float:
        """Return the ratio; 1 is linear, the target is 1.15."""
        return median(self.measure(REPEATS))

    track_growth.unit = "x"

    def measure(self, repeats: int) -> list[float]:
        """Measure both in turns, after one untimed round."""
        chunk = max(scenes.SIZE // 16, 32)
        with open_cluster("local", workers=2, dashboard="none") as client:
            rounds = []
            for _ in range(repeats + 1):
                small, large = (_timed_fill(side * chunk, chunk, client) for side in (8, 32))
                rounds.append(large / small / 16)
        return rounds[1:]


def _schedule_in_batch() -> None:
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # see `lakescale.whitebox`


def _timed_fill(size: int, chunk: int, client: Client) -> float:
    start = time.perf_counter()
    _fill_lazily(size, chunk, client)
    return time.perf_counter() - start


def _fill_lazily(size: int, chunk: int, client: Client) -> None:
    """Fill ice chunk by chunk, and keep nothing but how high the highest cell lies."""
    dem = ice.lazy_ice(ice.SHEET_NOISE_M, dome=ice.sheet(size), chunk=chunk)
    (highest,) = compute(ls.fill_depressions(dem).max(), client=client)
    if not float(highest) > 0:
        raise RuntimeError("nothing was filled")
