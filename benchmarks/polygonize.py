"""`polygonize` beside one call of `rasterio.features.shapes` over the whole array."""

from __future__ import annotations

import math
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.features import shapes
from shapely.geometry import shape

import lakescale as ls
from benchmarks import scenes
from benchmarks.races import TIMEOUT_S, Race, race
from lakescale.cluster import compute, open_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

KINDS = {"threads": "threads", "processes": "local"}
"""Two workers: what they are, and what `open_cluster` calls it."""


class Polygonize:
    """Two workers that read a mask from Zarr and make a GeoDataFrame, against one process that has it in memory."""

    params = (list(KINDS), ["geometries", "generator"])
    param_names = ("workers", "peer_makes")
    timeout = TIMEOUT_S

    def setup(self, workers: str, peer_makes: str) -> None:
        """Write the mask, start the workers."""
        with ExitStack() as opened:
            self.path = Path(opened.enter_context(tempfile.TemporaryDirectory())) / "mask.zarr"
            self.mask = scenes.write_mask(self.path, scenes.SIZE)
            opened.enter_context(open_cluster(KINDS[workers], workers=2, dashboard="none"))
            self.peer = {"geometries": outline_geometries, "generator": outline_records}[peer_makes]
            self.opened = opened.pop_all()

    def teardown(self, *_: str) -> None:
        self.opened.close()

    def race(self, *_: str) -> Race:
        """Time both."""
        found: dict[str, Any] = {}

        def ours() -> int:
            (found["ours"],) = compute(ls.polygonize(scenes.open_mask(self.path)))
            return len(found["ours"])

        def peer() -> int:
            found["peer"] = self.peer(self.mask)
            return len(found["peer"])

        times = race(ours, peer)
        _compare_areas(found["ours"].area.sum(), found["peer"], np.count_nonzero(self.mask))
        return times

    def track_ratio(self, *_: str) -> float:
        """Return how many times as fast ours is; the target is 1.3."""
        return self.race().ratio

    track_ratio.unit = "x"


def outline_records(mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Use up the generator of rasterio: GeoJSON-like records, not yet geometries."""
    return list(_records(mask))


def outline_geometries(mask: NDArray[np.bool_]) -> list[Any]:
    """Make what can be measured or written: shapely geometries, without index, label or CRS."""
    return [shape(record) for record in _records(mask)]


def _records(mask: NDArray[np.bool_]) -> Iterator[dict[str, Any]]:
    found = shapes(mask.view(np.uint8), mask=mask, connectivity=8, transform=scenes.TRANSFORM)
    return (geometry for geometry, _ in found)


def _compare_areas(ours_m2: float, outlines: list[Any], pixels: int) -> None:
    pixel_m2 = abs(scenes.TRANSFORM.determinant)
    peer_m2 = sum(shape(outline).area for outline in outlines)
    if not (math.isclose(ours_m2, pixels * pixel_m2) and math.isclose(peer_m2, pixels * pixel_m2)):
        raise RuntimeError(f"ours cover {ours_m2} m2, the peer's {peer_m2}, {pixels} pixels of {pixel_m2} m2")
