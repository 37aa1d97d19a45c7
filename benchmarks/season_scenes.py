"""A season whose lakes are known: bowls dug into synthetic ice, whose water rises, joins, falls, vanishes, freezes.

Ice, snow, slush, streams, crevasses, cloud, shadow and swaths are those of `lakescale.make_region`; its own lakes are
left out, since none of them meets another. Water, lids and floors are painted with the numbers of its kernels.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from scipy import ndimage

from lakescale.cog import export_cog
from lakescale.kernels import landscape
from lakescale.polygons import areas_m2, outline_parts, to_map
from lakescale.synthetic import CLASSES, Region, Scenery, make_region
from lakescale.synthetic.scenery import make_weather

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

DATES = ("2019-06-22", "2019-07-02", "2019-07-06", "2019-07-10", "2019-07-14", "2019-07-18", "2019-07-22", "2019-08-09")
KINDS = {"stays": 0.12, "rapid": 0.35, "slow": 0.13, "twin": 0.2, "refills": 0.05, "freezes": 0.15}
PITCH_PX, _RADIUS_PX, _DEPTH_M = 230, (12, 30), (4.0, 10.0)
_SNOWED = 0.97
"""Share of a lid from which on it has no gap, and snow lies on it."""
_WATER, _GREY, _SNOW, _FLOOR = range(1, 5)
_PAINT = {  # blue, green, red, nir, swir: how much of a pixel it takes, and its reflectance
    _GREY: (0.97, (0.53, 0.505, 0.47, 0.35, 0.03)),
    _SNOW: (0.9, (0.78, 0.76, 0.73, 0.58, 0.04)),
    _FLOOR: (0.45, (0.50, 0.47, 0.44, 0.32, 0.03)),
}
_BOTTOM = (0.565, 0.517, 0.485, 0.365, 0.034)
"""Of lakes: half bare ice, half mud."""
_SHADE, _CLOUD = (0.40, 0.47, 0.53, 0.60, 0.68), (0.85, 0.84, 0.84, 0.80, 0.27)
"""What shadow takes away, and what cloud is like, as the region's kernels have it."""
_UNSEEN = CLASSES.index("not seen")
_BANDS = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir1": "B11", "cirrus": "B10"}
_DN = 10_000


class Bowl(NamedTuple):
    """Ground that holds water: one bowl, or two of which the second is smaller."""

    name: int
    """Even; that of the second bowl is one more."""
    kind: str
    """One of `KINDS`."""
    row: int
    """Of the window's first pixel, in the region."""
    col: int
    bed: np.ndarray
    """``(y, x)`` m; infinite where no water stands."""
    rim: float
    """Where water would run over, m."""
    depth: float
    filled: int
    """Day of the year on which it is full; of twins, on which the bowls are one."""
    turned: int
    """Day on which it drains, parts, or begins to freeze."""

    def level(self, day: dt.date) -> float:
        """Give the elevation of the water."""
        since, after = day.timetuple().tm_yday - self.filled, day.timetuple().tm_yday - self.turned
        rise = float(np.clip(1 + since / 14, 0, 1))
        share = 0.95 * {
            "rapid": rise * (after < 0),
            "slow": rise * float(np.clip(1 - after / 30, 0, 1)),
            "refills": rise * (not 0 <= after < 12),
            "twin": 0.6 + 0.4 * float(np.clip(1 + since / 8, 0, 1) - np.clip(after / 8, 0, 1)),
        }.get(self.kind, rise)
        return self.rim - (1 - share) * self.depth

    def lid(self, day: dt.date) -> float:
        """Give the share of the lake under ice."""
        after = day.timetuple().tm_yday - self.turned
        return float(np.clip(after / 15, 0, 1)) if self.kind == "freezes" else 0.0

    def lakes(self, day: dt.date, least_m: float = 0.0) -> list[tuple[int, np.ndarray]]:
        """Give names and masks of the lakes; while two bowls are one, it goes by the name of the larger.

        Water less than ``least_m`` deep is none.
        """
        labels, count = ndimage.label(self.bed < self.level(day) - least_m, np.ones((3, 3)))
        if not count:
            return []
        sizes = ndimage.sum_labels(labels > 0, labels, range(1, count + 1))
        order = np.argsort(-sizes, kind="stable")[: 1 + (self.kind == "twin")]
        return [(self.name + k, labels == part + 1) for k, part in enumerate(order)]

    def codes(self, day: dt.date, step: float) -> np.ndarray:
        """Tell what is painted on each pixel."""
        wet, lid = self.bed < self.level(day), self.lid(day)
        out = np.where(wet, _WATER, 0)
        after = day.timetuple().tm_yday - self.turned
        if self.kind in ("rapid", "slow", "refills") and after >= 0:
            out[np.isfinite(self.bed) & ~wet] = _FLOOR
        if lid >= _SNOWED:
            out[wet] = _SNOW
        elif lid > 0 and wet.any():
            depth = np.where(wet, self.level(day) - self.bed, 0).astype(np.float32)
            corner, radius = (float(self.row), float(self.col)), step * np.sqrt(wet.sum() / np.pi)
            middle = tuple(step * (np.array(corner) + np.array(self.bed.shape) / 2)[::-1])
            field = landscape.lid_field(depth, corner, step, middle, radius, self.name + 1)
            edge = float(np.quantile(field[wet], 1 - lid))
            ice = landscape.cover_lake(field, corner, step, edge, radius, self.name + 1)
            out[wet & (ice > 0) & (ice != landscape.OPEN_WATER)] = _GREY
        return out


@dataclass(frozen=True)
class TrueSeason:
    """A region with bowls; rasters are lazy."""

    region: Region
    seed: int

    @classmethod
    def make(cls, size: int, seed: int = 3, **scenery: Any) -> TrueSeason:
        """Make a season on ice alone, without rock."""
        told = {"margin_km": 60.0, "cloud_share": 0.1, "cirrus_share": 0.0, **scenery, "lake_density": 0.0}
        return cls(make_region(size, seed=seed, dates=DATES, scenery=Scenery(**told)), seed)

    @cached_property
    def bowls(self) -> list[Bowl]:
        """Dig bowls, one in each square of 2.3 km."""
        rng, bowls = np.random.default_rng(self.seed), list[Bowl]()
        height, width = (size // PITCH_PX for size in self.region.grid.shape)
        for i, j in np.ndindex(height, width):
            radius = int(rng.integers(*_RADIUS_PX))
            kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
            reach = (2 if kind == "twin" else 1) * radius + 6
            free = PITCH_PX - 2 * reach - 1
            corner = (PITCH_PX * i + int(rng.integers(0, free)), PITCH_PX * j + int(rng.integers(0, free)))
            bowls.append(self._dig(2 * len(bowls) + 2, kind, corner, radius, reach, rng))
        return bowls

    def _dig(self, name: int, kind: str, corner: tuple[int, int], radius: int, reach: int, rng: Any) -> Bowl:
        side = 2 * reach + 1
        ground = self.region.window(*(slice(first, first + side) for first in corner)).dem(chunks=side).to_numpy()
        y, x = np.mgrid[:side, :side] - reach
        turn, small = rng.uniform(0, np.pi), rng.uniform(0.65, 0.8)
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        angle, waves = np.arctan2(across, along), rng.uniform(-0.05, 0.05, (3, 2))
        wave = 1 + sum(a * np.cos(k * angle) + b * np.sin(k * angle) for k, (a, b) in enumerate(waves, start=2))
        shape = 1 - (along**2 + across**2) / (radius * wave) ** 2
        if kind == "twin":
            first, second = (((along + sign * 0.8 * radius) ** 2 + across**2) / radius**2 for sign in (1, -1))
            shape = np.maximum(1 - first, small * (1 - second / small**2))
        depth = float(rng.uniform(*_DEPTH_M))
        rim = float(ground[shape > -0.3].min())
        bed = np.where(shape > 0, rim - depth * shape, np.inf).astype(np.float32)
        filled, turned = int(rng.integers(168, 180)), int(rng.integers(184, 203))
        if kind == "twin":
            filled, turned = int(rng.integers(182, 190)), int(rng.integers(191, 200))
        return Bowl(name, kind, *corner, bed, rim, depth, filled, turned)

    def dem(self) -> xr.DataArray:
        """Give the dry bed."""
        dem = self.region.dem()
        return dem.copy(data=da.map_blocks(_dig_block, dem.data, bowls=self.bowls, dtype=np.float32))

    def scene(self, day: str) -> xr.DataArray:
        """Picture the region on a day, reflectance."""
        scene, classes = self.region.scene(day), self.region.classes(day)
        data = da.map_blocks(
            _paint_block, scene.data, classes.data[None], bowls=self.bowls, day=dt.date.fromisoformat(day),
            region=self.region, dtype=np.float32, chunks=scene.data.chunks,
        )  # fmt: skip
        return scene.copy(data=data)

    def lakes(self, day: str, least_m: float = 0.0) -> gpd.GeoDataFrame:
        """Outline the true lakes of a day: ``lake_id``, ``kind``, ``volume_m3`` (in true areas), ``lid_share``.

        Water less than ``least_m`` deep is none: two bowls that a shallow neck joins are then two lakes.
        """
        grid, rows, date = self.region.grid, [], dt.date.fromisoformat(day)
        for bowl in self.bowls:
            for name, mask in bowl.lakes(date, least_m):
                parts, _ = outline_parts(mask.astype(np.uint8))
                moved = shapely.transform(parts, lambda xy, b=bowl: xy + np.array([b.col, b.row]))
                depth_px = float((bowl.level(date) - bowl.bed)[mask].sum(dtype=float))
                rows.append(
                    (name, bowl.kind, bowl.lid(date), depth_px, shapely.union_all(to_map(moved, grid.transform)))
                )
        names, kinds, lids, depths, shapes = zip(*rows, strict=True) if rows else ((),) * 5
        frame = gpd.GeoDataFrame(
            {"lake_id": names, "kind": kinds, "lid_share": lids}, geometry=list(shapes), crs=grid.crs
        )
        area = areas_m2(frame.geometry)
        pixel = area / shapely.area(frame.geometry.to_numpy()) * grid.pixel_size_m**2
        return frame.assign(area_m2=area, volume_m3=np.array(depths) * pixel)

    def bowl_of(self, name: int) -> Bowl:
        """Give the bowl of a lake."""
        return self.bowls[name // 2 - 1]

    def write(self, folder: Path, dates: tuple[str, ...] = DATES) -> list[Path]:
        """Write a scene for each date, as a Sentinel-2 product's bands in one file, and the DEM, where not there."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for day in dates:
            paths.append(folder / f"S2A_MSIL1C_{day.replace('-', '')}_N0208_synthetic.tif")
            if not paths[-1].exists():
                export_cog(_as_stored(self.scene(day)), paths[-1])
        if not (folder / "dem.tif").exists():
            export_cog(self.dem(), folder / "dem.tif")
        return paths


def depth_of_index(index: float) -> float:
    """Tell how deep water is where NDWI_ice passes a value, m."""
    depth = np.arange(0, 3, 0.01)
    blue, _, red = (
        deep + (bottom - deep) * np.exp(-g * depth)
        for deep, bottom, g in zip(landscape.DEEP_WATER[:3], _BOTTOM, landscape.ATTENUATION_PER_M, strict=False)
    )
    return float(np.interp(index, (blue - red) / (blue + red), depth))


def day_of_year(number: int) -> pd.Timestamp:
    """Give a day of 2019."""
    return pd.Timestamp(2019, 1, 1) + pd.Timedelta(days=number - 1)


def _overlap(bowl: Bowl, top: int, left: int, shape: tuple[int, int]) -> tuple[Any, Any] | None:
    """Find what a bowl's window and a block share, as slices of each."""
    rows = max(bowl.row, top), min(bowl.row + bowl.bed.shape[0], top + shape[0])
    cols = max(bowl.col, left), min(bowl.col + bowl.bed.shape[1], left + shape[1])
    if rows[0] >= rows[1] or cols[0] >= cols[1]:
        return None
    of_block = slice(rows[0] - top, rows[1] - top), slice(cols[0] - left, cols[1] - left)
    return of_block, (slice(rows[0] - bowl.row, rows[1] - bowl.row), slice(cols[0] - bowl.col, cols[1] - bowl.col))


def _dig_block(block: np.ndarray, *, bowls: list[Bowl], block_info: Any = None) -> np.ndarray:
    (top, _), (left, _) = block_info[0]["array-location"]
    out = block.copy()
    for bowl in bowls:
        if shared := _overlap(bowl, top, left, block.shape):
            out[shared[0]] = np.minimum(out[shared[0]], bowl.bed[shared[1]])
    return out


def _paint_block(
    planes: np.ndarray, classes: np.ndarray, *, bowls: list[Bowl], day: dt.date, region: Region, block_info: Any = None
) -> np.ndarray:
    _, (top, _), (left, _) = block_info[0]["array-location"]
    out = planes.copy()
    for bowl in bowls:
        shared = _overlap(bowl, top, left, planes.shape[1:])
        if shared is None:
            continue
        codes = np.where(classes[0][shared[0]] == _UNSEEN, 0, bowl.codes(day, region.resolution_m)[shared[1]])
        depth = np.maximum(bowl.level(day) - bowl.bed[shared[1]], 0)
        grain = np.random.default_rng(bowl.name).normal(1, 0.01, bowl.bed.shape)[shared[1]]
        cloud, shadow = (field[shared[1]] for field in _weather(bowl, day, region))
        for k in range(5):
            deep = landscape.DEEP_WATER[k]
            water = deep + (_BOTTOM[k] - deep) * np.exp(-landscape.ATTENUATION_PER_M[k] * depth)
            looks = {_WATER: (1.0, water), **{code: (share, color[k]) for code, (share, color) in _PAINT.items()}}
            for code, (share, color) in looks.items():
                lit = color * grain * (1 - _SHADE[k] * shadow)
                here, part = codes == code, out[k][shared[0]]
                part[here] = ((1 - share) * part + share * (lit + cloud * (_CLOUD[k] - lit)))[here]
    return out


def _weather(bowl: Bowl, day: dt.date, region: Region) -> tuple[np.ndarray, np.ndarray]:
    """Give the opacity of cloud and of its shadow over a bowl's window."""
    block = region._block._replace(  # noqa: SLF001
        row=region.row + bowl.row, col=region.col + bowl.col, height=bowl.bed.shape[0], width=bowl.bed.shape[1]
    )
    return make_weather(block, day, region.land, region.scenery)[:2]


def _as_stored(scene: xr.DataArray) -> xr.DataArray:
    """Turn reflectance into the numbers of a Sentinel-2 file: 0 is no data."""
    dn = (scene * np.float32(_DN)).round().clip(1, 65535).fillna(0).astype(np.uint16)
    return dn.assign_coords(band=[_BANDS[str(name)] for name in scene["band"].values]).rio.write_nodata(0)
