"""`fuse` beside the work that nobody can avoid, beside a loop over rows, and how its time grows."""

from __future__ import annotations

import time
from math import log
from statistics import median
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from benchmarks import scenes
from benchmarks.races import REPEATS, TIMEOUT_S, Race, race
from lakescale.fusion import fuse
from lakescale.fusion.reasons import NO_EVIDENCE, REPLACED

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL_POLYGONS = max(100_000 * scenes.SIZE**2 // 8192**2, 60)
"""Of both models; as many color polygons, and twice as many sinks."""
LOOP_POLYGONS = MODEL_POLYGONS // 20

_REGIONS, _SPACING_M, _CRS = 6, 1500.0, 3413
_LEAST, _MOST = 0.7, 1.4


class FuseBare:
    """Against one `sjoin` for each two frames that meet, and one intersection area for each pair that it finds.

    Ice, one polygon of thousands of vertices, is the left one, which `sjoin` prepares, and no area is asked of it.
    """

    timeout = TIMEOUT_S

    def setup(self) -> None:
        """Draw the polygons."""
        self.frames = draw_frames(MODEL_POLYGONS)

    def race(self) -> Race:
        """Time both; they agree on how many polygons overlap nothing, and how many another model's."""
        return race(lambda: _fates(self.frames), lambda: bare_work(self.frames))

    def track_ratio(self) -> float:
        """Return how many times as fast ours is; the target is a third."""
        return self.race().ratio

    track_ratio.unit = "x"


class FuseLoop:
    """Against a loop over the rows of the frames of each region, each compared with all rows of another frame."""

    timeout = TIMEOUT_S

    def setup(self) -> None:
        """Draw the polygons."""
        self.frames = draw_frames(LOOP_POLYGONS)

    def race(self) -> Race:
        """Time both; they agree on every lake."""
        return race(lambda: _lakes(self.frames), lambda: loop_over_rows(self.frames), repeats=min(REPEATS, 3))

    def track_ratio(self) -> float:
        """Return how many times as fast ours is; the target is 50."""
        return self.race().ratio

    track_ratio.unit = "x"


class FuseGrowth:
    """Seconds of the largest of three sizes, over what n log n would make of those of the smallest."""

    timeout = TIMEOUT_S

    def measure(self) -> dict[int, float]:
        """Give the median of the seconds for each number of model polygons."""
        found = {}
        for count in (MODEL_POLYGONS // 16, MODEL_POLYGONS // 4, MODEL_POLYGONS):
            frames = draw_frames(count)
            _lakes(frames)
            found[count] = median(_seconds(frames) for _ in range(REPEATS))
        return found

    def track_growth(self) -> float:
        """Return 1 for growth by n log n; the target is 1 at most."""
        counts, seconds = zip(*self.measure().items(), strict=True)
        return (seconds[-1] / seconds[0]) / (counts[-1] * log(counts[-1]) / (counts[0] * log(counts[0])))

    track_growth.unit = "x"


def draw_frames(count: int) -> dict[str, gpd.GeoDataFrame]:
    """Draw lakes as two models, color and a DEM would see them, in six regions, at one density for any count."""
    rng = np.random.default_rng(count)
    side = _SPACING_M * np.sqrt(count)
    lakes = _Blobs(rng.uniform(0, side, (count, 2)), 60 * (1 - rng.random(count)) ** -0.6, rng)
    basins = _Blobs(rng.uniform(0, side, (2 * count, 2)), 60 * (1 - rng.random(2 * count)) ** -0.6, rng)
    wet = slice(count // 10, count // 10 + count // 2)  # lakes whose basins the DEM saw
    basins.centres[wet], basins.radii[wet] = lakes.centres[wet], 1.4 * lakes.radii[wet]
    half, fifth = count // 2, count // 5
    frames = {
        "sam": lakes.draw(slice(0, half), 0.05),
        "deeplab": lakes.draw(slice(half // 3, half // 3 + count - half), 0.1),
        "sinks": basins.draw(slice(None), 0.0),
        "color": pd.concat(
            [lakes.draw(slice(fifth, None), 0.15), basins.draw(slice(0, fifth), 0.0)], ignore_index=True
        ),
    }
    outline = _Blobs(np.full((1, 2), side / 2), np.array([0.6 * side]), rng, vertices=4000, ragged=0.02)
    ice = outline.draw(slice(None), 0.0)
    regions = {name: (f.centroid.x // (side / _REGIONS)).clip(0, _REGIONS - 1) for name, f in frames.items()}
    return {name: frame.assign(region_num=regions[name].astype(int)) for name, frame in frames.items()} | {"ice": ice}


class _Blobs:
    """Ragged rings round centres."""

    def __init__(
        self, centres: NDArray[Any], radii: NDArray[Any], rng: Any, vertices: int = 24, ragged: float = 0.25
    ) -> None:
        self.centres, self.radii, self.rng = centres, np.minimum(radii, radii.max() if len(radii) == 1 else 2000.0), rng
        self.shape = 1 + ragged * rng.uniform(-1, 1, (len(radii), vertices))

    def draw(self, rows: slice, error: float) -> gpd.GeoDataFrame:
        """Draw some of them, moved and scaled by a share of their radius."""
        radii = self.radii[rows]
        centres = self.centres[rows] + error * radii[:, None] * self.rng.standard_normal((len(radii), 2))
        angle = np.linspace(0, 2 * np.pi, self.shape.shape[1], endpoint=False)
        length = self.shape[rows] * (radii * (1 + error * self.rng.standard_normal(len(radii)).clip(-2, 2)))[:, None]
        rings = centres[:, None] + length[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        return gpd.GeoDataFrame(geometry=shapely.polygons(rings), crs=_CRS)


def bare_work(frames: dict[str, gpd.GeoDataFrame]) -> tuple[int, int]:
    """Join what meets and measure what each pair shares; nothing is judged."""
    found = {}
    for name, other in (
        ("sam", "sinks"), ("sam", "color"), ("deeplab", "sinks"), ("deeplab", "color"), ("deeplab", "sam")
    ):  # fmt: skip
        pairs = gpd.sjoin(frames[name], frames[other], on_attribute="region_num")
        own, others = pairs.index.to_numpy(), pairs["index_right"].to_numpy()
        a, b = frames[name].geometry.to_numpy()[own], frames[other].geometry.to_numpy()[others]
        found[name, other] = own[shapely.area(shapely.intersection(a, b)) > 0]
    for name in ("sam", "deeplab"):
        gpd.sjoin(frames["ice"], frames[name][["geometry"]])
    backed = np.union1d(found["sam", "sinks"], found["sam", "color"])
    return len(frames["sam"]) - len(backed), len(np.unique(found["deeplab", "sam"]))


def loop_over_rows(frames: dict[str, gpd.GeoDataFrame]) -> list[tuple[str, int]]:
    """Take the seed's five steps row by row."""
    lakes = []
    for region in sorted(set(frames["sam"]["region_num"]) | set(frames["deeplab"]["region_num"])):
        here = {name: f[f["region_num"] == region] if "region_num" in f else f for name, f in frames.items()}
        lakes += _loop_over_region(here["sam"], here["deeplab"], here["sinks"], here["color"], here["ice"])
    return sorted(lakes)


def _loop_over_region(sam: Any, deeplab: Any, sinks: Any, color: Any, ice: Any) -> list[tuple[str, int]]:
    kept, aside = [], set()
    for outline in sinks.geometry:
        over = _overlapping(sam, outline)
        if len(over) > 1:
            total = pd.Series(
                {row: _overlapping(color, m).intersection(m).area.sum() for row, m in over.geometry.items()}
            )
            aside |= set(over.index) - {total.idxmax()}
    for row, outline in sam.geometry.items():
        near = _overlapping(color, outline)
        if row in aside:
            if _fits(near, outline):
                kept.append(("sam", row, outline))
        elif len(near) or len(_overlapping(sinks, outline)):
            kept.append(("sam", row, outline))
    for row, outline in deeplab.geometry.items():
        if not len(_overlapping(sam, outline)) and any(
            _fits(_overlapping(f, outline), outline) for f in (sinks, color)
        ):
            kept.append(("deeplab", row, outline))
    return [(name, row) for name, row, outline in kept if len(_overlapping(ice, outline))]


def _overlapping(frame: gpd.GeoDataFrame, outline: Any) -> gpd.GeoDataFrame:
    near = frame[frame.intersects(outline)]
    return near[near.intersection(outline).area > 0]


def _fits(near: gpd.GeoDataFrame, outline: Any) -> bool:
    ratio = outline.area / near.area
    return bool(((ratio > _LEAST) & (ratio < _MOST)).any())


def _fuse(frames: dict[str, gpd.GeoDataFrame]) -> tuple[Any, Any]:
    models = {name: frames[name] for name in ("sam", "deeplab")}
    evidence = {name: frames[name] for name in ("sinks", "color", "ice")}
    lakes, reasons = fuse(models, **evidence, preset="seed", return_reasons=True)
    return lakes, reasons


def _fates(frames: dict[str, gpd.GeoDataFrame]) -> tuple[int, int]:
    counts = _fuse(frames)[1]["reason"].value_counts()
    return tuple(int(counts.get(reason, 0)) for reason in (NO_EVIDENCE, REPLACED))


def _lakes(frames: dict[str, gpd.GeoDataFrame]) -> list[tuple[str, int]]:
    lakes = _fuse(frames)[0]
    return sorted(zip(lakes["model"], lakes["row"], strict=True))


def _seconds(frames: dict[str, gpd.GeoDataFrame]) -> float:
    start = time.perf_counter()
    _fuse(frames)
    return time.perf_counter() - start
