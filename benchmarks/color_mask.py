"""`color_mask` beside the seed's sequence on the whole array."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy import ndimage

import lakescale as ls
from benchmarks import scenes
from benchmarks.races import TIMEOUT_S, Race, race
from lakescale.cluster import compute, open_cluster
from lakescale.evidence.color import SEED_OPENINGS_YX, SEED_RANGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


class ColorMask:
    """Two worker processes that read a GeoTIFF, against one process that has the pixels in memory.

    Both end with the number of water pixels.
    """

    params = (["scipy", "flood fill"], ["all", "one"])
    param_names = ("holes_of_peer", "opencv_threads_of_peer")
    timeout = TIMEOUT_S

    def setup(self, holes: str, threads: str) -> None:
        """Write the scene, start the workers."""
        with ExitStack() as opened:
            self.path = Path(opened.enter_context(tempfile.TemporaryDirectory())) / "scene.tif"
            self.pixels = scenes.write_rgb(self.path, scenes.SIZE)
            opened.enter_context(open_cluster("local", workers=2, dashboard="none"))
            opened.callback(cv2.setNumThreads, cv2.getNumThreads())
            cv2.setNumThreads(1 if threads == "one" else os.cpu_count() or 1)
            self.fill = {"scipy": ndimage.binary_fill_holes, "flood fill": flood_fill_holes}[holes]
            self.opened = opened.pop_all()

    def teardown(self, *_: str) -> None:
        self.opened.close()

    def race(self, *_: str) -> Race:
        """Time both."""
        return race(self._ours, partial(seed_water_px, self.pixels, self.fill))

    def track_ratio(self, *_: str) -> float:
        """Return how many times as fast ours is; the target is 2."""
        return self.race().ratio

    track_ratio.unit = "x"

    def _ours(self) -> int:
        scene = ls.open_scene(self.path, chunks=scenes.CHUNK)
        return int(compute(ls.color_mask(scene).sum())[0])


def seed_water_px(pixels: NDArray[np.uint8], fill_holes: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]) -> int:
    """Run the seed's sequence on uint8 ``(y, x, 3)``, contiguous, as OpenCV likes it; count the water.

    The whole scene is seen and lies in the region, so the peer is spared both; ours looks at them.
    """
    water = np.zeros(pixels.shape[:2], bool)
    for channels in SEED_RANGES:
        low, high = (tuple(int(channel[k]) for channel in channels) for k in (0, 1))
        water |= cv2.inRange(pixels, low, high) > 0
    grown = ndimage.gaussian_filter(water.astype(np.uint8) * 255, 5) > 0
    holes = fill_holes(grown) & ~grown
    water |= ndimage.gaussian_filter(holes.astype(np.uint8) * 255, 7) > 0
    opened = fill_holes(water).astype(np.uint8)
    for height, width in SEED_OPENINGS_YX:
        kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (width, height))
        opened = cv2.morphologyEx(opened, cv2.MORPH_OPEN, kernel)
    return int(np.count_nonzero(fill_holes(opened > 0)))


def flood_fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes as the seed does, by OpenCV's flood fill, from a frame of background that it lacks."""
    framed = cv2.copyMakeBorder(mask.view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(framed, None, (0, 0), 2, flags=4)
    return framed[1:-1, 1:-1] != 2
