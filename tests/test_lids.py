"""Lids: sums against a plain loop over pixels for any chunks, cases one by one, and the truth of synthetic lakes."""

from __future__ import annotations

import datetime as dt

import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from rasters import axis_chunks, raster

import lakescale as ls
from lakescale.evidence.lids import assess_lids
from lakescale.polygons import areas_m2, to_map
from lakescale.schema import InputError
from lakescale.synthetic import Scenery, make_region
from lakescale.synthetic.basins import fill_basin

pytestmark = pytest.mark.usefixtures("one_thread")

GRID = {"transform": Affine(10, 0, -200_000, 0, -10, -2_400_000), "crs": "EPSG:3413"}
SIZE = 60
LAKE = (slice(15, 35), slice(18, 42))
FOUND = ["ground_seen_share", "open_share", "deep_share", "spread_share", "brightness", "roughness", "tint"]


def ground_of(*pixel_polygons):
    """Make a frame of polygons given in pixel coordinates (col, row)."""
    polygons = np.empty(len(pixel_polygons), object)
    polygons[:] = pixel_polygons
    return gpd.GeoDataFrame(geometry=gpd.GeoSeries(to_map(polygons, GRID["transform"]), crs=GRID["crs"]))


def box_of(rows, cols):
    return shapely.box(cols.start, rows.start, cols.stop, rows.stop)


def picture(*parts, size=SIZE, noise=0.08, seed=0):
    """Ice of some roughness, and parts ``(rows, cols, red, blue)`` painted on it; red and blue."""
    rng = np.random.default_rng(seed)
    red = (0.5 * (1 + rng.normal(0, noise, (size, size)))).astype(np.float32)
    planes = np.stack([red, red * np.float32(1.1)])
    for rows, cols, *colors in parts:
        for plane, color in zip(planes, colors, strict=True):
            plane[rows, cols] = color
    return planes


def look(planes, ground, chunks=-1, **attrs):
    scene = raster(planes, chunks, bands=["red", "blue"], **GRID).assign_attrs(attrs)
    return assess_lids(scene, ground).compute()


WATER, SNOW, GREY = (0.12, 0.35), (0.7, 0.72), (0.47, 0.52)
SCATTERED = tuple((slice(r, r + 3), slice(c, c + 3), *WATER) for r in range(15, 35, 6) for c in range(18, 42, 6))
UNEVEN = ((slice(15, 35, 4), slice(18, 42), 0.45, 0.47),)
SLUSH = tuple((*one[:2], 0.38, 0.52) for one in SCATTERED)


@pytest.mark.parametrize(
    ("parts", "cover"),
    [
        (((*LAKE, *WATER),), "open"),
        (((slice(20, 28), slice(22, 32), *WATER),), "open"),
        (((*LAKE, *SNOW),), "snow"),
        (((*LAKE, *SNOW), (slice(15, 35, 3), LAKE[1], 0.55, 0.58)), "snow"),
        (((*LAKE, *GREY), *SCATTERED), "lid"),
        (((*LAKE, *WATER), (slice(18, 32), slice(21, 39), *GREY)), "lid"),
        ((), "ground"),
        (((*LAKE, 0.3, 0.33),), "ground"),
        (((*LAKE, 0.45, 0.48), *SLUSH), "open"),
        (((*LAKE, 0.45, 0.48), *SLUSH[:4]), "ground"),
        (((*LAKE, *SNOW), *SLUSH), "snow"),
        (((*LAKE, *GREY), *SLUSH[1:], (*SLUSH[0][:2], *WATER)), "open"),
        (((*LAKE, *GREY), *SLUSH[3:], *((*one[:2], *WATER) for one in SLUSH[:3])), "lid"),
        (((*LAKE, 0.583, 0.6), *UNEVEN), "snow"),
        (((*LAKE, 0.583, 0.68), *UNEVEN), "ground"),
        (((*LAKE, 0.52, 0.53), *UNEVEN), "ground"),
        (((*LAKE, 0.68, 0.79), *UNEVEN), "ground"),
        (((*LAKE, 0.75, 0.87), *UNEVEN), "snow"),
        (((*LAKE, np.nan, np.nan),), "not seen"),
        (((slice(0, SIZE), slice(0, SIZE), np.nan, np.nan), (*LAKE, *WATER)), "not seen"),
    ],
    ids=[
        "open",
        "half drained",
        "snow",
        "uneven and bright",
        "leads",
        "moat",
        "bare",
        "dark and even",
        "slush on a floor",
        "some slush on a floor",
        "slush on snow",
        "slush and one pool",
        "slush and leads",
        "white, uneven",
        "bright, uneven, bluish",
        "white, uneven, no brighter",
        "brighter by a quarter, uneven, bluish",
        "brighter by a third, uneven, bluish",
        "hidden",
        "no ring",
    ],
)
def test_what_ground_shows(parts, cover):
    assert look(picture(*parts), ground_of(box_of(*LAKE))).cover.tolist() == [cover]


def test_gain_of_the_bands_does_not_matter_so_8_bit_pictures_serve():
    planes = picture((*LAKE, *GREY), *SCATTERED)
    scaled = np.rint(planes * np.array([240, 290])[:, None, None]).astype(np.uint8)
    one, other = look(planes, ground_of(box_of(*LAKE))), look(scaled, ground_of(box_of(*LAKE)))
    assert one.cover.tolist() == other.cover.tolist() == ["lid"]
    np.testing.assert_allclose(one[FOUND].to_numpy(), other[FOUND].to_numpy(), atol=0.01)


def plain_looks(planes, rows, cols):
    """The figures of a box of whole pixels, by numpy; the ring is that of a box, its corners round."""
    red, blue = planes.astype(np.float64)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    far = np.hypot(
        np.maximum(np.maximum(rows.start - y, y - rows.stop), 0),
        np.maximum(np.maximum(cols.start - x, x - cols.stop), 0),
    )
    seen = ~np.isnan(planes).any(axis=0)
    ring = seen & (far > 3.5) & (far < 7.5)
    inside = np.zeros((SIZE, SIZE), bool)
    inside[rows, cols] = True
    level, bluish = red / red[ring].mean(), blue / blue[ring].mean()
    water = inside & seen & ((bluish - level) > 0.08 * (bluish + level))
    deep = water & ((bluish - level) > 0.2 * (bluish + level))
    rest = inside & seen & ~water
    spread = [np.sqrt(np.linalg.det(np.cov(np.nonzero(mask), ddof=0))) for mask in (water, inside)]
    return [
        seen[inside].mean(), water.sum() / (inside & seen).sum(), deep.sum() / water.sum(), spread[0] / spread[1],
        level[rest].mean(), level[rest].std() / level[rest].mean(),
        (bluish[rest].mean() - level[rest].mean()) / (bluish[rest].mean() + level[rest].mean()),
    ]  # fmt: skip


def test_figures_equal_a_plain_loop():
    planes = picture(
        (*LAKE, 0.4, 0.48), *UNEVEN, *SCATTERED, *SLUSH[::2], (slice(15, 18), slice(18, 42), np.nan, np.nan)
    )
    found = look(planes, ground_of(box_of(*LAKE)))[FOUND].to_numpy()[0]
    np.testing.assert_allclose(found, plain_looks(planes, *LAKE), rtol=0.01, atol=1e-6)
    bare = look(picture(noise=0, seed=1), ground_of(box_of(*LAKE)))
    assert bare.ring_red.tolist() == pytest.approx([0.5])
    assert bare.brightness.tolist() == pytest.approx([1])


@settings(max_examples=8)
@given(st.integers(0, 99), axis_chunks(SIZE), axis_chunks(SIZE), st.integers(1, 3))
def test_any_chunks_and_partitions_give_the_same(seed, rows, cols, parts):
    rng = np.random.default_rng(seed)
    planes = picture(*((slice(r, r + 9), slice(c, c + 12), *WATER) for r, c in rng.integers(0, 45, (6, 2))), seed=seed)
    planes[:, rng.random((SIZE, SIZE)) < 0.05] = np.nan
    circles = [shapely.Point(x, y).buffer(r) for x, y, r in rng.uniform([0, 0, 2], [60, 60, 15], (4, 3))]
    ground = ground_of(*circles, shapely.Polygon(), shapely.box(-20, -20, 70, 70))
    whole = look(planes, ground)
    assert_frame_equal(look(planes, ground, (rows, cols)), whole)
    scene = raster(planes, (rows, cols), bands=["red", "blue"], **GRID)
    split = dask_geopandas.from_geopandas(ground, npartitions=parts, sort=False)
    assert_frame_equal(assess_lids(scene, split).compute(), whole)


def test_building_computes_nothing(never_compute):
    scene = raster(picture(), 20, bands=["red", "blue"], **GRID)
    assert "cover" in assess_lids(scene, ground_of(box_of(*LAKE))).columns


def test_a_scene_without_blue_is_refused():
    scene = raster(picture(), bands=["red", "nir"], **GRID)
    with pytest.raises(InputError, match="the scene has no blue"):
        assess_lids(scene, ground_of(box_of(*LAKE)))


def test_lids_of_synthetic_lakes_are_told_and_drained_floors_are_not_taken_for_open():
    """What thresholds were set on is another land (seeds 1 and 5); half of them 8-bit pictures."""
    region = make_region(640, seed=8, scenery=Scenery(margin_km=30, lake_density=1.5, swath_gaps=False))
    days = [dt.date(2019, 7, 12), dt.date(2019, 8, 14), dt.date(2019, 8, 28)]
    lakes = pd.concat([region.lakes(day) for day in days])
    ground = lakes[["lake_id", "geometry"]].dissolve("lake_id").reset_index()
    ground = ground[areas_m2(ground.geometry) >= 8000].reset_index(drop=True)
    basins = {basin.id: basin for basin in region._block.basins(region.land)}
    tables = []
    for day, kind in zip(days, ("reflectance", "rgb8", "reflectance"), strict=True):
        found = assess_lids(region.scene(day, kind=kind), ground).compute()
        filling = [fill_basin(basins[name], day, region.land) for name in found.lake_id]
        truth = [
            "snow" if f.holds_lake and f.is_snowed_over else "lid" if f.holds_lake and f.lid > 0.5
            else "open" if f.holds_lake and f.lid < 0.04 else "dry" if not f.holds_lake else "some lid"
            for f in filling
        ]  # fmt: skip
        tables.append(pd.crosstab(pd.Series(truth), found["cover"]))
    counts = pd.concat(tables).groupby(level=0).sum().reindex(columns=["open", "lid", "snow", "ground"]).fillna(0)
    assert counts.loc["snow"].sum() >= 5
    assert counts.loc["snow", "snow"] >= 0.9 * counts.loc["snow"].sum()
    assert counts.loc["lid"].sum() >= 5
    assert counts.loc["lid", ["lid", "snow"]].sum() >= 0.8 * counts.loc["lid"].sum()
    assert counts.loc["open", ["lid", "snow"]].sum() <= 0.1 * counts.loc["open"].sum()
    assert counts.loc["dry", ["lid", "snow"]].sum() <= 0.2 * counts.loc["dry"].sum()


def test_it_is_on_the_face():
    assert ls.assess_lids is assess_lids
