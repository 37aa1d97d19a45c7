"""`score` beside the work that it cannot avoid: one spatial join and one area a pair of overlapping polygons."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import shapely

import lakescale as ls
from benchmarks import scenes
from benchmarks.races import TIMEOUT_S, Race, race
from lakescale.scoring import CLASH

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAKES = 100_000 * scenes.SIZE // 8192
"""Polygons in each of both frames."""
LAKES_PER_KM2 = 0.003
"""As dense as the 2531 lakes of a competitor of the Cup in their regions; so are the sizes and the vertices."""
_MEDIAN_M2, _SPREAD = 0.5e6, 2.1
_MEDIAN_VERTICES, _SPREAD_WITH_AREA, _SPREAD_BESIDE = 12, 0.7, 0.7
_FOUND, _OFF_M = 0.8, 100.0
"""Share of the references that have a lake near them, and how far it lies off."""


class Score:
    """All lakes against all references, and in 24 groups of image and region."""

    params = (1, 24)
    param_names = ("groups",)
    timeout = TIMEOUT_S

    def setup(self, groups: int) -> None:
        """Draw the lakes."""
        self.lakes, self.reference = draw_frames(LAKES, groups)

    def race(self, *_: int) -> Race:
        """Time both."""
        return race(
            lambda: count_with_score(self.lakes, self.reference), lambda: count_bare(self.lakes, self.reference)
        )

    def track_ratio(self, *_: int) -> float:
        """Return how many times as fast ours is; the target is 0.5 at least: at most twice as long."""
        return self.race().ratio

    track_ratio.unit = "x"


class ScoreGrowth:
    """How the seconds of `score` grow with the number of lakes."""

    timeout = TIMEOUT_S

    def measure(self, repeats: int = 1) -> dict[int, float]:
        """Give the least seconds for three numbers of lakes."""
        sizes = [LAKES // 10, LAKES * 3 // 10, LAKES]
        frames = {n: draw_frames(n, 1) for n in sizes}
        return {n: min(_seconds(*frames[n]) for _ in range(repeats)) for n in sizes}

    def track_growth(self) -> float:
        """Return the seconds over n log n of the most lakes, over those of the fewest; the target is near 1."""
        few, _, many = (seconds / (n * np.log(n)) for n, seconds in self.measure().items())
        return float(many / few)

    track_growth.unit = "x"


def draw_frames(count: int, groups: int, *, seed: int = 0) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Draw lakes and a reference: most lakes lie a little off a reference, the others elsewhere."""
    rng = np.random.default_rng(seed)
    side = np.sqrt(count / LAKES_PER_KM2) * 1e3
    there = rng.uniform(0, side, (count, 2))
    found = rng.random(count) < _FOUND
    here = np.where(found[:, None], there + rng.normal(0, _OFF_M, (count, 2)), rng.uniform(0, side, (count, 2)))
    size, corners = rng.standard_normal((2, count))
    outlines = [_draw_outlines(centres, size, corners, rng) for centres in (here, there)]
    keys = {"image": [f"{k % 4}.tif" for k in range(groups)], "region_num": np.arange(groups) // 4}
    group = rng.integers(0, groups, count)
    columns = {name: np.asarray(values)[group] for name, values in keys.items()} if groups > 1 else {}
    lakes, reference = (gpd.GeoDataFrame(columns, geometry=one, crs=3857) for one in outlines)
    return lakes, reference


def count_with_score(lakes: gpd.GeoDataFrame, reference: gpd.GeoDataFrame) -> tuple[int, int]:
    """Count the lakes that overlap another one, and those that overlap a reference, by `score`."""
    matches = ls.score(lakes, reference).matches
    return int((matches.reason == CLASH).sum()), int(matches.reference.notna().sum())


def count_bare(lakes: gpd.GeoDataFrame, reference: gpd.GeoDataFrame) -> tuple[int, int]:
    """Count the same by what cannot be avoided: for each pair of frames that meet a join, and areas of its pairs."""
    keys = [key for key in ("image", "region_num") if key in lakes]
    if not keys:
        return _count_group(lakes, reference)
    others = dict(iter(reference.groupby(keys)))
    counts = [_count_group(lakes_here, others[key]) for key, lakes_here in lakes.groupby(keys) if key in others]
    return tuple(map(sum, zip(*counts, strict=True)))


def _count_group(lakes: gpd.GeoDataFrame, reference: gpd.GeoDataFrame) -> tuple[int, int]:
    lakes, reference = lakes[["geometry"]].reset_index(drop=True), reference[["geometry"]].reset_index(drop=True)
    one, two = _overlapping(lakes, lakes)
    tied, _ = _overlapping(lakes, reference)
    return len(np.union1d(one, two)), len(np.unique(tied))


def _overlapping(lakes: gpd.GeoDataFrame, others: gpd.GeoDataFrame) -> tuple[NDArray[Any], NDArray[Any]]:
    """Join two frames; of a frame with itself each pair counts once."""
    joined = lakes.sjoin(others, predicate="intersects")
    own, other = joined.index.to_numpy(), joined["index_right"].to_numpy()
    if others is lakes:
        once = own < other
        own, other = own[once], other[once]
    shared = shapely.area(shapely.intersection(lakes.geometry.values[own], others.geometry.values[other])) > 0
    return own[shared], other[shared]


def _draw_outlines(
    centres: NDArray[np.float64], size: NDArray[np.float64], corners: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[Any]:
    """Draw ragged rings; large lakes have more vertices."""
    exponent = _SPREAD_WITH_AREA * size + _SPREAD_BESIDE * corners
    vertices = np.clip(_MEDIAN_VERTICES * np.exp(exponent), 3, 1000).astype(int)
    radius = np.sqrt(_MEDIAN_M2 * np.exp(_SPREAD * size) / np.pi)
    owner = np.repeat(np.arange(len(centres)), vertices)
    first = np.cumsum(vertices) - vertices
    angle = 2 * np.pi * (np.arange(len(owner)) - first[owner]) / vertices[owner]
    reach = radius[owner] * rng.uniform(0.7, 1.3, len(owner))
    ring = centres[owner] + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return shapely.polygons(shapely.linearrings(ring, indices=owner))


def _seconds(lakes: gpd.GeoDataFrame, reference: gpd.GeoDataFrame) -> float:
    start = perf_counter()
    ls.score(lakes, reference)
    return perf_counter() - start
