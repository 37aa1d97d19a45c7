"""`write_cube` beside rioxarray's ``to_zarr``: a GeoTIFF to Zarr."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rasterio
import rioxarray
import zarr
from rasterio.windows import Window

import lakescale as ls
from benchmarks import scenes
from benchmarks.races import TIMEOUT_S, Race, race
from benchmarks.worker_memory import peak_rss_mb
from lakescale.cluster import open_cluster
from lakescale.cube import write_cube

SIZE = int(os.environ.get("LAKESCALE_BENCH_SIZE", "16384"))
"""Side of the scene, in pixels."""
CHUNK = min(2048, max(64, SIZE // 4))
_DAY = "2019-07-23"


class Ingest:
    """Two worker processes of one thread each for both, the same chunks, and all bands of a chunk read at once.

    Ours writes what was seen, checksums and markers on top. Both end with the sum of one band as Zarr reads it.
    """

    timeout = TIMEOUT_S

    def setup(self) -> None:
        """Write the scene, start the workers."""
        with ExitStack() as opened:
            self.folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            self.path = self.folder / "scene.tif"
            write_deflated(self.path, SIZE)
            opened.enter_context(open_cluster("local", workers=2, dashboard="none"))
            self.opened = opened.pop_all()

    def teardown(self) -> None:
        self.opened.close()

    def race(self) -> Race:
        """Time both."""
        return race(self._ours, self._peer)

    def track_ratio(self) -> float:
        """Return how many times as fast ours is; the target is 1."""
        return self.race().ratio

    track_ratio.unit = "x"

    def _ours(self) -> int:
        store = self.folder / "ours.zarr"
        shutil.rmtree(store, ignore_errors=True)
        write_cube(ls.open_scene(self.path, date=_DAY, chunks=CHUNK), store, chunks=CHUNK)
        return first_chunk_sum(store / "scene")

    def _peer(self) -> int:
        store = self.folder / "peer.zarr"
        shutil.rmtree(store, ignore_errors=True)
        chunks = {"band": -1, "x": CHUNK, "y": CHUNK}
        scene = rioxarray.open_rasterio(self.path, chunks=chunks, lock=False)
        scene.drop_attrs().to_dataset(name="scene").to_zarr(store, mode="w", consolidated=False)
        return first_chunk_sum(store / "scene")


class IngestMemory:
    """The larger peak of two fresh workers that write a cube."""

    timeout = TIMEOUT_S

    def track_peak_mb(self) -> float:
        """Return the peak of resident memory."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "scene.tif")
            write_deflated(path, SIZE)
            with open_cluster("local", workers=2, dashboard="none") as client:
                scene = ls.open_scene(path, date=_DAY, chunks=CHUNK)
                write_cube(scene, Path(folder, "cube.zarr"), chunks=CHUNK, client=client)
                return max(client.run(peak_rss_mb).values())

    track_peak_mb.unit = "MB"


def write_deflated(path: Path, size: int) -> None:
    """Write a scene as a tiled GeoTIFF of three bands, deflated."""
    tile = min(512, size // 16 * 16)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": size, "width": size, "photometric": "RGB"}
    layout = {"tiled": True, "blockxsize": tile, "blockysize": tile, "interleave": "pixel", "compress": "deflate"}
    with rasterio.open(path, "w", crs=scenes.CRS, transform=scenes.TRANSFORM, **profile, **layout) as file:
        for row in range(0, size, CHUNK):
            for col in range(0, size, CHUNK):
                height, width = (min(CHUNK, size - start) for start in (row, col))
                rgb = scenes.paint_rgb(scenes.draw_lakes(row, col, height, width), row, col)
                file.write(rgb, window=Window(col, row, width, height))


def first_chunk_sum(store: Path) -> int:
    """Add up one chunk of the first band, as a reader of Zarr sees it."""
    array = zarr.open_array(store, mode="r")
    first = (0,) * (array.ndim - 2)
    return int(np.asarray(array[(*first, slice(-CHUNK, None), slice(-CHUNK, None))]).sum(dtype=np.int64))
