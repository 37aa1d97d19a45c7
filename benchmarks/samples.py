"""Patches for training from a cube beside the same patches as PNG files."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import geopandas as gpd
import numpy as np
import shapely
import torch
from torch.utils.data import DataLoader, Dataset

import lakescale as ls
from benchmarks import scenes
from benchmarks.races import TIMEOUT_S, Race, race
from lakescale.polygons import outline_parts, to_map
from training.annotations import Annotations
from training.dataset import LakePatches
from training.samples import SampleRules, find_samples

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

SIZE = int(os.environ.get("LAKESCALE_BENCH_SIZE", "8192"))
WINDOW = min(1024, SIZE // 4)
_DAY = "2019-07-23"
_BANDS = ("red", "green", "blue")


class TrainingPatches:
    """One process of one thread reads all patches in one random order, ours from a cube, the peer's from PNG files.

    Ours checks checksums and rasterizes the mask from polygons; the peer's mask is a PNG of its own. Both end with the
    sums of pixels and masks.
    """

    params = (512, 1024, 2048)
    param_names = ("chunks_of_cube",)
    timeout = TIMEOUT_S

    def setup(self, chunks: int) -> None:
        """Write the cube, find the samples, write them as files."""
        with ExitStack() as opened:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            opened.callback(torch.set_num_threads, torch.get_num_threads())
            opened.callback(cv2.setNumThreads, cv2.getNumThreads())
            torch.set_num_threads(1)
            cv2.setNumThreads(1)
            index, annotations = write_samples(folder, min(chunks, SIZE))
            patches = LakePatches(index, annotations, bands=_BANDS)
            files = PngPatches(write_files(patches, folder))
            order = np.random.default_rng(0).permutation(len(index)).tolist()
            load = partial(DataLoader, sampler=order, batch_size=None)
            self.loaders = load(patches), load(files)
            self.opened = opened.pop_all()

    def teardown(self, *_: int) -> None:
        self.opened.close()

    def race(self, *_: int) -> Race:
        """Time both."""
        ours, peer = self.loaders
        return race(partial(sum_patches, ours), partial(sum_patches, peer))

    def track_ratio(self, *_: int) -> float:
        """Return how many times as fast ours is; the target is 1."""
        return self.race().ratio

    track_ratio.unit = "x"


class PngPatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Patches as folders of PNG files hold them: RGB, and a mask of one band."""

    def __init__(self, files: list[tuple[str, str]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = self.files[k]
        pixels = cv2.cvtColor(cv2.imread(image), cv2.COLOR_BGR2RGB).transpose(2, 0, 1)
        return torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(cv2.imread(mask, cv2.IMREAD_UNCHANGED))


def write_samples(folder: Path, chunks: int) -> tuple[pd.DataFrame, Annotations]:
    """Write a scene as a cube, and find its samples; all windows, be they alike or not."""
    lakes = scenes.draw_lakes(0, 0, SIZE, SIZE) == scenes.WATER
    polygons, _ = outline_parts(lakes.astype(np.int32))
    wide = shapely.area(polygons) > 50
    frame = gpd.GeoDataFrame(geometry=to_map(polygons[wide], scenes.TRANSFORM), crs=scenes.CRS)
    scene = scenes.lazy_rgb(SIZE, chunk=chunks).assign_coords(time=np.datetime64(_DAY, "ns"))
    ls.write_cube(scene.assign_attrs(nodata_values=[0]), folder / "cube.zarr", chunks=chunks)
    annotations = Annotations(frame)
    rules = SampleRules(window=WINDOW, stride=WINDOW // 2, least_vertices=0, thin=None)
    return find_samples([folder / "cube.zarr"], annotations, folder / "samples", rules=rules), annotations


def write_files(patches: LakePatches, folder: Path) -> list[tuple[str, str]]:
    """Write patches as PNG files, with OpenCV's own compression."""
    files = []
    for k in range(len(patches)):
        pixels, mask = (part.numpy().astype(np.uint8) for part in patches[k])
        names = str(folder / f"{k}.png"), str(folder / f"{k}-mask.png")
        cv2.imwrite(names[0], np.ascontiguousarray(pixels.transpose(1, 2, 0)[..., ::-1]))
        cv2.imwrite(names[1], mask)
        files.append(names)
    return files


def sum_patches(loader: Any) -> tuple[int, int]:
    """Read all patches; add up their pixels and masks."""
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]] = iter(loader)
    sums = [(int(pixels.sum(dtype=torch.float64)), int(mask.sum(dtype=torch.int64))) for pixels, mask in batches]
    return sum(pixels for pixels, _ in sums), sum(mask for _, mask in sums)
