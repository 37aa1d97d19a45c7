"""`lake_probability` with DeepLabv3+ on CPU, beside the bare torch loop over the same windows."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import lakescale as ls
from benchmarks import scenes
from benchmarks.races import TIMEOUT_S, Race, race
from benchmarks.worker_memory import peak_rss_mb
from lakescale.chunks import WindowPlan
from lakescale.cluster import compute, open_cluster

if TYPE_CHECKING:
    import xarray as xr

SIZE = int(os.environ.get("LAKESCALE_BENCH_SIZE", "4096"))
"""Side of the scene, in pixels."""
CHUNK = WINDOW = min(1024, SIZE // 4)
STRIDE = WINDOW // 2
BATCH = 4
WORKERS = 2
"""Processes of ours, of one thread each; and torch's threads in the loop."""


class ModelThroughput:
    """Random weights, in a checkpoint; ours reads a GeoTIFF and blends, the loop has the pixels in memory and does not.

    Both end with the probabilities of the four corners, which one window each has seen.
    """

    timeout = TIMEOUT_S

    def setup(self) -> None:
        """Write the scene and the checkpoint, start the workers."""
        import torch

        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            self.scene, self.checkpoint = folder / "scene.tif", folder / "deeplab.safetensors"
            self.pixels = scenes.write_rgb(self.scene, SIZE).transpose(2, 0, 1)
            write_checkpoint(self.checkpoint)
            self.model = ls.load_model(self.checkpoint)
            opened.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(WORKERS)
            opened.enter_context(open_cluster("local", workers=WORKERS, dashboard="none"))
            self.opened = opened.pop_all()

    def teardown(self) -> None:
        self.opened.close()

    def race(self) -> Race:
        """Time both."""
        return race(self.ours, self.peer)

    def track_ratio(self) -> float:
        """Return how many times as fast ours is; the target is 0.95."""
        return self.race().ratio

    track_ratio.unit = "x"

    def ours(self) -> list[float]:
        """Probabilities of the whole scene."""
        probability = blend(ls.open_scene(self.scene, chunks=CHUNK), self.checkpoint)
        corners = probability[:: SIZE - 1, :: SIZE - 1]
        _, found = compute(probability.sum(), corners)
        return found.values.round(2).ravel().tolist()

    def peer(self) -> list[float]:
        """Call the network on batch after batch, in the order of the windows."""
        import torch

        network, corners = self.model.network, {}
        starts = list(product(WindowPlan(WINDOW, STRIDE).starts(SIZE), repeat=2))
        with torch.inference_mode():
            for first in range(0, len(starts), BATCH):
                part = starts[first : first + BATCH]
                windows = np.stack([self.pixels[:, r : r + WINDOW, c : c + WINDOW] for r, c in part])
                answers = network.forward(self.model.normalise(windows.astype(np.float32))).numpy()
                corners |= dict(zip(part, answers[:, :: WINDOW - 1, :: WINDOW - 1], strict=True))
        last = SIZE - WINDOW
        seen = [corners[last * i, last * j][i, j] for i, j in product((0, 1), repeat=2)]
        return np.round(seen, 2).tolist()


class ModelMemory:
    """The larger peak of two fresh workers that run DeepLabv3+ over a scene, torch and the model included."""

    params = (SIZE, 2 * SIZE)
    param_names = ("size",)
    timeout = TIMEOUT_S

    def track_peak_mb(self, size: int) -> float:
        """Return the peak of resident memory."""
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder, "deeplab.safetensors")
            write_checkpoint(checkpoint)
            with open_cluster("local", workers=WORKERS, dashboard="none") as client:
                compute(blend(scenes.lazy_rgb(size, chunk=CHUNK), checkpoint).sum())
                return max(client.run(peak_rss_mb).values())

    track_peak_mb.unit = "MB"


def blend(scene: xr.DataArray, checkpoint: Path) -> xr.DataArray:
    """Probabilities of a scene by `lake_probability`."""
    return ls.lake_probability(scene, checkpoint, window=WINDOW, stride=STRIDE, batch=BATCH)


def write_checkpoint(path: Path) -> None:
    """Write DeepLabv3+ on a ResNet-34 with random weights, whose answers vary from pixel to pixel."""
    import torch

    from lakescale.models import ModelSpec, build_network, save_checkpoint

    torch.manual_seed(0)
    spec = ModelSpec("deeplabv3plus", "resnet34")
    save_checkpoint(path, build_network(spec).module.state_dict(), spec)
