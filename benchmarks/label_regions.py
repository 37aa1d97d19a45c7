"""`label_regions`: tasks a chunk, and its time beside scipy on the whole array and dask-image on the same chunks."""

from __future__ import annotations

import importlib
import tempfile
from contextlib import ExitStack
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from scipy import ndimage

import lakescale as ls
from benchmarks import scenes
from benchmarks.polygonize import KINDS
from benchmarks.races import TIMEOUT_S, Race, race
from lakescale.cluster import compute, open_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

EIGHT = np.ones((3, 3), int)
_MOST_CHUNKS_DASK_IMAGE = 64


class LabelTasks:
    """Tasks of the graph as built, the chunk's source among them, for each chunk."""

    params = (16, 64, 256, 1024)
    param_names = ("chunks",)

    def setup(self, chunks: int) -> None:
        """Make a mask of that many chunks."""
        side = isqrt(chunks)
        self.chunks, self.mask = chunks, da.zeros((side * 8, side * 8), dtype=bool, chunks=8)

    def track_tasks_a_chunk(self, *_: int) -> float:
        """Return the tasks of ours; the target is 12 at most."""
        labels = ls.label_regions(xr.DataArray(self.mask, dims=("y", "x")))
        return len(labels.__dask_graph__()) / self.chunks

    track_tasks_a_chunk.unit = "tasks"


class LabelTasksDaskImage:
    """The same of dask-image; skipped where it is not installed, or takes minutes to build its graph."""

    params = LabelTasks.params
    param_names = LabelTasks.param_names

    def setup(self, chunks: int) -> None:
        """Make a mask of that many chunks."""
        if chunks > _MOST_CHUNKS_DASK_IMAGE:
            raise NotImplementedError(f"dask-image needs minutes to build a graph of {chunks} chunks")
        self.label = _dask_image_label()
        side = isqrt(chunks)
        self.chunks, self.mask = chunks, da.zeros((side * 8, side * 8), dtype=bool, chunks=8)

    def track_tasks_a_chunk(self, *_: int) -> float:
        """Return the tasks of dask-image."""
        labels, _ = self.label(self.mask, structure=EIGHT)
        return len(labels.__dask_graph__()) / self.chunks

    track_tasks_a_chunk.unit = "tasks"


class LabelRegions:
    """Two workers that read a mask from Zarr; both end with the number of regions.

    scipy has the pixels in memory; dask-image reads the same file with the same workers.
    """

    params = (list(KINDS), ["scipy", "dask-image"])
    param_names = ("workers", "peer")
    timeout = TIMEOUT_S

    def setup(self, workers: str, peer: str) -> None:
        """Write the mask, start the workers."""
        label = _dask_image_label() if peer == "dask-image" else None
        with ExitStack() as opened:
            path = Path(opened.enter_context(tempfile.TemporaryDirectory())) / "mask.zarr"
            pixels = scenes.write_mask(path, scenes.SIZE)
            self.mask = scenes.open_mask(path)
            opened.enter_context(open_cluster(KINDS[workers], workers=2, dashboard="none"))
            self.peer = (lambda: ndimage.label(pixels, EIGHT)[1]) if label is None else (lambda: self._largest(label))
            self.opened = opened.pop_all()

    def teardown(self, *_: str) -> None:
        self.opened.close()

    def race(self, *_: str) -> Race:
        """Time both."""
        return race(lambda: int(compute(ls.label_regions(self.mask).max())[0]), self.peer)

    def track_ratio(self, *_: str) -> float:
        """Return how many times as fast ours is."""
        return self.race().ratio

    track_ratio.unit = "x"

    def _largest(self, label: Callable[..., Any]) -> int:
        labels, _ = label(self.mask.data, structure=EIGHT)
        return int(labels.max().compute())


def _dask_image_label() -> Callable[..., Any]:
    try:
        return importlib.import_module("dask_image.ndmeasure").label
    except ImportError as error:
        raise NotImplementedError("dask-image is not installed") from error  # which asv takes for: skip
