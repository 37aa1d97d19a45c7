"""Depths of lakes from reflectance: against a plain loop over pixels, bit for bit for any chunks, and against truth."""

from __future__ import annotations

import math
import pickle

import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from rasters import axis_chunks, raster

import lakescale as ls
from lakescale.cluster import compute, open_cluster
from lakescale.evidence.volumes import lake_volumes
from lakescale.evidence.water_depth import water_depth
from lakescale.evidence.water_depth_raster import depth_raster
from lakescale.polygons import to_map
from lakescale.schema import InputError
from lakescale.synthetic.scenery import Scenery

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE_M = 10.0
GRID = {"transform": Affine(SIDE_M, 0, -200_000, 0, -SIDE_M, -2_400_000), "crs": "EPSG:3413"}
G_RED, FLOOR, DEEP = 0.8304, 0.5, 0.03
NUMBERS = [
    "rt_depth_mean_m", "rt_depth_max_m", "rt_volume_m3", "rt_censored_share", "rt_saturated_share", "rt_seen_share",
    "rt_a_d", "rt_r_inf", "rt_g",
]  # fmt: skip
TEXTS = ["rt_band", "rt_product_level", "rt_reason"]


def frame_of(pixel_polygons, *, crs="EPSG:3413", **columns):
    """Make a frame of polygons given in pixel coordinates (col, row)."""
    polygons = np.empty(len(pixel_polygons), object)
    polygons[:] = pixel_polygons
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(to_map(polygons, GRID["transform"]), crs=crs), crs=crs)


def scene_of(red, chunks=-1, **attrs):
    """Make a scene of red, and of a blue by which dark red is water."""
    red = np.asarray(red, np.float32)
    scene = raster(np.stack([red, red + np.float32(0.05)]), chunks, bands=["red", "blue"], **GRID)
    return scene.assign_attrs({"sensor": "Sentinel-2A", "product_level": "L1C", "radiometry": "reflectance"} | attrs)


def reflectance(depth):
    """What water of some depth over the floor looks like, in red."""
    return DEEP + (FLOOR - DEEP) * np.exp(-G_RED * np.asarray(depth))


# -- a plain loop


def shares_of(polygon, shape):
    row, col = np.indices(shape)
    return shapely.area(shapely.intersection(shapely.box(col, row, col + 1, row + 1), polygon))


def pixel_area():
    """True area of a pixel near the corner of the grid, m2."""
    lonlat = pyproj.Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    box = to_map(np.array([shapely.box(0, 0, 1, 1)]), GRID["transform"])[0]
    ring = shapely.transform(box, lambda xy: np.column_stack(lonlat.transform(*xy.T)))
    return abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(ring)[0])


def stretch():
    return SIDE_M / math.sqrt(pixel_area())


def ring_mean(red, polygon, others, ring_m):
    """Mean of a ring a pixel wide, without pixels of lakes; and how much of it there is, in pixels."""
    reach, within = ((ring_m + half) * stretch() / SIDE_M for half in (SIDE_M / 2, -SIDE_M / 2))
    ring = polygon.buffer(reach).difference(polygon.buffer(max(within, 0)))
    share = shares_of(ring, red.shape)
    for other in others:
        share[shares_of(other, red.shape) > 1e-9] = 0
    share[np.isnan(red)] = 0
    return (share * np.nan_to_num(red)).sum() / max(share.sum(), 1e-9), share.sum()


def check_lake(row, red, lid, share):
    """Check a lake against sums over all pixels, given its A_d."""
    volume, area, deepest, censored, saturated, seen = 0, 0, -1, 0, 0, 0
    for at in map(tuple, np.argwhere(share > 1e-9)):
        if np.isnan(red[at]) or lid[at]:
            continue
        seen += share[at]
        if red[at] <= row.rt_r_inf:
            censored += share[at]
            continue
        z = max(math.log((row.rt_a_d - row.rt_r_inf) / (float(red[at]) - row.rt_r_inf)) / row.rt_g, 0)
        assume(abs(z - 4) > 1e-3)
        saturated += share[at] * (z > 4)
        volume, area, deepest = volume + z * share[at] * pixel_area(), area + share[at], max(deepest, z)
    if not seen:
        assert row.rt_reason == "not seen"
    elif deepest < 0:
        assert row.rt_reason == "too deep"
        assert (row.rt_censored_share, row.rt_saturated_share) == (1, 1)
    else:
        assert row.rt_reason == "known"
        assert row.rt_volume_m3 == pytest.approx(volume, rel=1e-3, abs=1e-2)
        assert row.rt_depth_mean_m == pytest.approx(volume / (area * pixel_area()), rel=1e-3, abs=1e-4)
        assert row.rt_depth_max_m == pytest.approx(deepest, abs=1e-4)
        assert row.rt_censored_share == pytest.approx(censored / seen, abs=1e-4)
        assert row.rt_saturated_share == pytest.approx((censored + saturated) / seen, abs=1e-4)


def pixel_polygon(rng, height, width):
    """Draw a hull, a box or two parts on quarter pixels; sometimes one partly outside, an empty or a missing one."""
    kind = rng.choice(["hull", "pixels", "several", "empty", "missing"], p=[0.4, 0.25, 0.15, 0.1, 0.1])
    if kind == "missing":
        return None
    if kind == "empty":
        return shapely.Polygon()
    side = np.maximum(np.array([width, height]) // 2, 2)
    corner = rng.integers(-4, 4 * np.array([width, height]) - 4)
    hull = shapely.convex_hull(shapely.MultiPoint((corner + rng.integers(0, 4 * side, (6, 2))) / 4))
    if hull.geom_type != "Polygon":
        return None
    if kind == "pixels":
        left, top, right, bottom = np.floor(hull.bounds)
        return shapely.box(left, top, right + 1, bottom + 1)
    if kind == "several":
        return shapely.MultiPolygon([hull, shapely.affinity.translate(hull, hull.bounds[2] - hull.bounds[0] + 0.25)])
    return hull


@st.composite
def cases(draw, largest=18):
    height, width = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    if draw(st.integers(0, 3)):
        height, width = max(height, largest - 3), max(width, largest - 3)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    red = reflectance(rng.uniform(-0.5, 7, (height, width))).astype(np.float32)
    red[rng.random(red.shape) < rng.choice([0, 0.2, 0.2, 0.9])] = np.nan
    red[rng.random(red.shape) < rng.choice([0, 0.2, 0.2, 1])] = DEEP - 0.01
    lid = rng.random(red.shape) < rng.choice([0, 0.3, 1], p=[0.5, 0.4, 0.1])
    polygons = [pixel_polygon(rng, height, width) for _ in range(draw(st.integers(0, 4)))]
    chunks = (draw(axis_chunks(height)), draw(axis_chunks(width)))
    return red, lid, polygons, chunks, float(rng.choice([0, 12, 30]))


def depths_of(case, chunks, partitions=None, **options):
    red, lid, polygons, _, ring_m = case
    frame = frame_of(polygons)
    if partitions:
        frame = dask_geopandas.from_geopandas(frame, npartitions=partitions, sort=False)
    options = {"r_inf": DEEP, "ring_m": ring_m, "lids": raster(lid, chunks, **GRID)} | options
    return water_depth(scene_of(red, chunks), frame, **options).compute()


@settings(max_examples=25)
@given(cases())
def test_depths_are_those_of_a_plain_loop(case):
    red, lid, polygons, chunks, ring_m = case
    found = depths_of(case, chunks)
    lakes = [polygon for polygon in polygons if polygon is not None and not polygon.is_empty]
    for polygon, (_, row) in zip(polygons, found.iterrows(), strict=True):
        if polygon is None or polygon.is_empty:
            assert row.rt_reason == "no polygon"
            continue
        mean, seen = ring_mean(red, polygon, lakes, ring_m)
        assume(not 0 < seen < 0.05)
        if not seen:
            assert row.rt_reason == "no ring"
            assert np.isnan(row.rt_a_d)
        else:
            assert row.rt_a_d == pytest.approx(mean, abs=1e-3 + 1e-3 / seen)
            if row.rt_a_d > DEEP:
                check_lake(row, red, lid, shares_of(polygon, red.shape))
            else:
                assert row.rt_reason == "dark floor"


@settings(max_examples=15)
@given(cases(), st.integers(1, 3))
def test_no_chunks_and_no_partitions_change_a_bit(case, partitions):
    whole = depths_of(case, -1)
    assert_frame_equal(depths_of(case, case[3]), whole, check_exact=True)
    assert_frame_equal(depths_of(case, case[3], partitions), whole, check_exact=True)


@settings(max_examples=15)
@given(cases())
def test_the_raster_shows_the_depths_of_the_first_lake(case):
    red, lid, polygons, chunks, _ = case
    found = depths_of(case, chunks, a_d=FLOOR)
    drawn = depth_raster(scene_of(red, chunks), found, lids=raster(lid, **GRID)).values
    expected = np.full(red.shape, np.nan)
    for polygon in reversed(polygons):
        if polygon is not None and not polygon.is_empty:
            share = shares_of(polygon, red.shape)
            assume((np.abs(share - 0.5) > 1e-4).all() or (share[np.abs(share - 0.5) < 1e-4] == 0.5).all())
            with np.errstate(invalid="ignore", divide="ignore"):
                light = np.maximum(red.astype(float) - DEEP, 0)
                depth = np.maximum(np.log((FLOOR - DEEP) / light) / G_RED, 0)
            expected = np.where(share >= 0.5, depth, expected)
    expected[lid | np.isnan(red)] = np.nan
    np.testing.assert_allclose(drawn, expected, rtol=1e-5, atol=1e-6)


# -- what is known of light


def lake_scene(depth, size=24, chunks=-1, **attrs):
    """A scene of bare ice with water of given depths in a box of 8 pixels in the middle."""
    red = np.full((size, size), FLOOR)
    at = slice(size // 2 - 4, size // 2 + 4)
    red[at, at] = reflectance(depth)
    return scene_of(red, chunks, **attrs)


MIDDLE = shapely.box(8, 8, 16, 16)


def test_depths_that_made_the_light_come_back():
    depth = np.linspace(0, 5, 64).reshape(8, 8)
    row = water_depth(lake_scene(depth, chunks=7), frame_of([MIDDLE]), r_inf=DEEP).compute().iloc[0]
    assert row.rt_a_d == pytest.approx(FLOOR, abs=1e-6)
    assert row.rt_depth_mean_m == pytest.approx(depth.mean(), abs=1e-3)
    assert row.rt_depth_max_m == pytest.approx(5, abs=1e-3)
    assert row.rt_volume_m3 == pytest.approx(depth.sum() * pixel_area(), rel=1e-3)
    assert row.rt_saturated_share == pytest.approx((depth > 4).mean(), abs=1e-4)
    assert (row.rt_censored_share, row.rt_seen_share, row.rt_reason) == (0, 1, "known")
    assert row[["rt_band", "rt_product_level", "rt_g", "rt_r_inf"]].tolist() == ["red", "L1C", G_RED, DEEP]


def test_an_error_of_the_floor_costs_what_domain_says():
    scene = lake_scene(np.full((8, 8), 2.0))
    depths = [water_depth(scene, frame_of([MIDDLE]), r_inf=DEEP, a_d=a_d).compute() for a_d in (0.5, 0.55)]
    assert depths[1].rt_depth_mean_m[0] - depths[0].rt_depth_mean_m[0] == pytest.approx(0.12, abs=0.02)


def test_brighter_than_the_floor_is_no_depth_and_darker_than_deep_water_is_censored():
    depth = np.zeros((8, 8))
    scene = lake_scene(depth).copy(deep=True)
    red = scene.values
    red[0, 8:16, 8:12], red[0, 8:16, 12:14], red[0, 8:16, 14:16] = 0.7, DEEP, DEEP - 0.02
    row = water_depth(scene.copy(data=red).chunk(), frame_of([MIDDLE]), r_inf=DEEP).compute().iloc[0]
    assert (row.rt_depth_mean_m, row.rt_depth_max_m, row.rt_volume_m3) == (0, 0, 0)
    assert (row.rt_censored_share, row.rt_saturated_share, row.rt_reason) == (0.5, 0.5, "known")


def test_lids_and_what_is_not_seen_are_not_measured():
    depth = np.full((8, 8), 3.0)
    scene = lake_scene(depth)
    lid = np.zeros((24, 24), bool)
    lid[8:12, 8:16] = True
    red = scene.values
    red[:, 14:16, 8:16] = np.nan
    scene = scene.copy(data=red).chunk({"y": 5, "x": 9})
    lakes = frame_of([MIDDLE])
    found = water_depth(scene, lakes, r_inf=DEEP, lids=raster(lid, 6, **GRID)).compute()
    assert found.rt_seen_share.tolist() == pytest.approx([0.25], abs=1e-4)
    assert found.rt_volume_m3.tolist() == pytest.approx([3 * 16 * pixel_area()], rel=1e-3)
    drawn = depth_raster(scene, found, lids=raster(lid, 6, **GRID)).compute()
    assert drawn.attrs["units"] == "m"
    np.testing.assert_allclose(drawn.values[12:14, 8:16], 3, atol=1e-4)
    assert np.isfinite(drawn.values).sum() == 16
    everywhere = water_depth(scene, lakes, r_inf=DEEP, lids=raster(~lid | lid, **GRID)).compute()
    assert everywhere.rt_reason.tolist() == ["not seen"]


def test_other_lakes_are_no_floor():
    red = np.full((24, 40), FLOOR)
    red[8:16, 8:16] = red[8:16, 18:26] = reflectance(3.0)
    boxes = [MIDDLE, shapely.box(18, 8, 26, 16)]
    scene = scene_of(red, 11)
    both = water_depth(scene, frame_of(boxes), r_inf=DEEP).compute()
    np.testing.assert_allclose(both.rt_a_d, FLOOR, atol=1e-6)
    alone = water_depth(scene, frame_of(boxes[:1]), r_inf=DEEP).compute()
    assert alone.rt_a_d[0] < FLOOR - 0.02


def test_rectangular_holes_that_touch_the_edge_from_outside_crash_nothing():
    lakes = [shapely.box(24, 9, 31, 13), shapely.box(16, 8, 32, 16).difference(shapely.box(24, 9, 31, 13))]
    scene = scene_of(np.full((24, 24), FLOOR), 9)
    found = water_depth(scene, frame_of(lakes), r_inf=DEEP, a_d=FLOOR).compute()
    assert found.rt_seen_share.tolist() == pytest.approx([0, 64 / 100], abs=1e-3)
    assert water_depth(scene, frame_of(lakes[:1]), r_inf=DEEP).compute().rt_a_d[0] == pytest.approx(FLOOR)
    bed = raster(-np.asarray(scene.isel(band=0)).astype(np.float32), 9, **GRID)
    assert lake_volumes(frame_of(lakes), bed).compute().volume_reason.tolist() == ["beyond the DEM"] * 2


def test_the_darkest_water_of_the_scene_is_r_inf():
    rng = np.random.default_rng(2)
    red = np.full((60, 90), FLOOR)
    red[5:55, 5:55] = DEEP + rng.exponential(0.05, (50, 50))  # water
    red[:, 60:] = 0.001  # shade: no bluer than red
    scene = scene_of(red, 17)
    bands = scene.values
    bands[1, :, 60:] = 0.001
    scene = scene.copy(data=bands).chunk({"y": 17, "x": 23})
    lakes = frame_of([shapely.box(5, 5, 55, 55)])
    found = water_depth(scene, lakes).compute()
    index = np.sort(red[5:55, 5:55][(0.05 / (2 * red[5:55, 5:55] + 0.05)) > 0.25])
    assert found.rt_r_inf[0] == pytest.approx(index[int(len(index) * 0.001)], abs=2**-13)
    assert_frame_equal(found, water_depth(scene.chunk({"y": -1, "x": -1}), lakes).compute(), check_exact=True)
    assert_frame_equal(found, water_depth(scene, dask_geopandas.from_geopandas(lakes, npartitions=1)).compute())


@pytest.mark.parametrize(("size", "dark"), [(30, DEEP), (50, 0.07)])
def test_without_enough_dark_water_r_inf_is_not_known(size, dark):
    red = np.full((60, 60), FLOOR)
    red[5 : 5 + size, 5 : 5 + size] = dark
    scene = scene_of(red, 20)
    found = water_depth(scene, frame_of([MIDDLE, None])).compute()
    assert found.rt_reason.tolist() == ["no deep water", "no polygon"]
    assert found[NUMBERS[:5]].isna().all(axis=None)
    lids = raster(np.zeros((60, 60), bool), **GRID)
    assert water_depth(scene, frame_of([MIDDLE]), r_inf=0.02, lids=lids).compute().rt_reason.tolist() == ["known"]


def test_water_under_lids_does_not_tell_r_inf():
    scene = scene_of(np.full((60, 60), DEEP), 20)
    lids = raster(np.ones((60, 60), bool), **GRID)
    assert water_depth(scene, frame_of([MIDDLE])).compute().rt_r_inf[0] == pytest.approx(DEEP, abs=2**-13)
    assert water_depth(scene, frame_of([MIDDLE]), lids=lids).compute().rt_r_inf.isna().all()


@pytest.mark.parametrize(
    ("sensor", "band", "g"),
    [("Sentinel-2B", "red", 0.8304), ("Sentinel-2", "green", 0.1413), ("Landsat 8", "green", 0.1413)],
)
def test_g_is_known_by_sensor_and_band(sensor, band, g):
    scene = lake_scene(np.ones((8, 8)), sensor=sensor).assign_coords(band=[band, "nir"])
    found = water_depth(scene, frame_of([MIDDLE]), band=band, r_inf=0.01).compute()
    assert found.rt_g.tolist() == [g]
    assert found.rt_band.tolist() == [band]


# -- truth


def test_depths_of_a_synthetic_season_are_near_the_true_ones():
    day = "2019-07-28"
    scenery = Scenery(margin_km=20, cloud_share=0, cirrus_share=0, swath_gaps=False)
    region = ls.make_region(448, seed=3, scenery=scenery)
    lakes = region.lakes(day)
    scene = region.scene(day, chunks=150)
    lids = region.classes(day, chunks=150) == 6
    found = water_depth(scene, lakes[["lake_id", "geometry"]], r_inf=DEEP, lids=lids).compute()
    inside = lakes.within(shapely.box(*region.grid.bounds_xyxy).buffer(-30))
    chosen = (inside & (lakes.state == "open") & (lakes.depth_max_m < 4)).to_numpy()
    assert chosen.sum() >= 3
    off = np.abs(found.rt_volume_m3 / lakes.volume_m3 - 1)[chosen]
    assert np.median(off) < 0.25
    deep = (lakes.depth_max_m > 6).to_numpy()
    assert (found.rt_saturated_share[deep] > 0.05).all()


# -- frames and graphs


def test_rows_keep_their_order_their_index_and_their_columns():
    frame = frame_of([MIDDLE, None, shapely.Polygon(), shapely.box(90, 90, 95, 95), MIDDLE], name=list("abcde"))
    frame.index = pd.Index([7, 7, 3, 0, 1], name="id")
    found = water_depth(lake_scene(np.ones((8, 8)), chunks=9), frame, r_inf=DEEP).compute()
    assert_frame_equal(found[["name", "geometry"]], frame)
    assert set(found.columns) == {"name", "geometry", *NUMBERS, *TEXTS}
    assert found.rt_reason.tolist() == ["known", "no polygon", "no polygon", "no ring", "known"]


@pytest.mark.parametrize("r_inf", [None, DEEP])
def test_an_empty_frame_has_the_columns_and_their_dtypes(r_inf):
    scene = lake_scene(np.ones((8, 8)), chunks=9)
    lazy = water_depth(scene, frame_of([], name=np.empty(0, object)), r_inf=r_inf)
    found = lazy.compute()
    assert len(found) == 0
    assert set(found.dtypes[NUMBERS]) == {np.dtype(np.float64)}
    pd.testing.assert_series_equal(lazy.dtypes, found.dtypes)
    assert np.isnan(depth_raster(scene, found).values).all()


def test_building_computes_nothing(never_compute):
    scene, frame = lake_scene(np.ones((8, 8)), chunks=9), frame_of([MIDDLE])
    for options in ({}, {"r_inf": DEEP}, {"r_inf": DEEP, "a_d": FLOOR}):
        lazy = water_depth(scene, frame, **options)
        assert isinstance(lazy, dask_geopandas.GeoDataFrame)
        depth_raster(scene, lazy)


def test_a_block_that_is_read_for_several_chunks_waits_for_none_that_is_not_asked():
    """A file's block may hold many chunks, and the first of them no lake."""
    scene = lake_scene(np.full((8, 8), 2.0), chunks=-1)
    read = scene.copy(data=scene.data.map_blocks(np.array).rechunk((-1, 3, 3)))
    found, expected = (water_depth(one, frame_of([MIDDLE]), r_inf=DEEP).compute() for one in (read, scene))
    assert_frame_equal(found, expected, check_exact=True)


def test_the_raster_takes_dask_frames_of_several_parts():
    scene = lake_scene(np.full((8, 8), 2.0), chunks=9)
    boxes = [shapely.box(8, 8, 16, 12), shapely.box(8, 12, 16, 16)]
    found = water_depth(scene, dask_geopandas.from_geopandas(frame_of(boxes), npartitions=2), r_inf=DEEP)
    drawn = depth_raster(scene, found).values
    np.testing.assert_allclose(drawn[8:16, 8:16], 2, atol=1e-4)
    assert np.isfinite(drawn).sum() == 64


def test_where_the_scene_says_what_was_seen_it_counts():
    scene = lake_scene(np.ones((8, 8)), chunks=9)
    seen = np.ones((24, 24), bool)
    seen[8:12] = False
    scene = scene.assign_coords(seen=(("y", "x"), seen))
    found = water_depth(scene, frame_of([MIDDLE]), r_inf=DEEP).compute()
    assert found.rt_seen_share.tolist() == pytest.approx([0.5], abs=1e-4)


@pytest.mark.slow
def test_workers_of_a_cluster_give_the_same():
    boxes = [MIDDLE, shapely.box(1, 1, 6, 5), None, shapely.box(17, 2, 23, 22)]
    scene, frame = lake_scene(np.linspace(0, 5, 64).reshape(8, 8), chunks=7), frame_of(boxes)
    bed = -np.asarray(scene.isel(band=0)).astype(np.float32)

    def both(chunks):
        depths = water_depth(scene, frame, r_inf=DEEP)
        return lake_volumes(depths, raster(bed * 10, chunks, **GRID), flat_m=0.01)

    with open_cluster("local", workers=2, dashboard="none"):
        (found,) = compute(both(5))
    assert_frame_equal(found, both(-1).compute(), check_exact=True)


# -- bad input


def rgb8():
    pixels = np.full((3, 24, 24), 90, np.uint8)
    return raster(pixels, **GRID).assign_attrs(radiometry="rgb8", source="S2_mosaic.tif")


def test_stretched_rgb_is_refused_with_what_mends_it():
    for scene in (rgb8(), rgb8().astype(np.float32)):
        with pytest.raises(InputError, match="stretched as for display") as refused:
            water_depth(scene, frame_of([MIDDLE]), r_inf=DEEP)
        error = pickle.loads(pickle.dumps(refused.value))
        assert error.item == "S2_mosaic.tif"
        assert "reflectance" in error.mend
    with pytest.raises(InputError, match="stretched as for display"):
        depth_raster(rgb8(), frame_of([MIDDLE], rt_a_d=[1.0], rt_r_inf=[0.0], rt_g=[1.0]))


SCENE = lake_scene(np.ones((8, 8)))
DEGREES = raster(SCENE.values, transform=Affine(0.1, 0, -50, 0, -0.1, 70), crs="EPSG:4326", bands=["red", "blue"])


@pytest.mark.parametrize(
    ("scene", "options", "message"),
    [
        (SCENE, {"band": "green"}, "R_inf of green cannot be told from lakes|has no band 'green'"),
        (SCENE, {"band": "blue"}, "R_inf of blue cannot be told"),
        (SCENE, {"band": "blue", "r_inf": 0.05}, "no g is known for blue of Sentinel-2A"),
        (SCENE.assign_attrs(sensor=""), {}, "no g is known for red of an unknown sensor"),
        (SCENE, {"g": 0}, "g must be a number above 0"),
        (SCENE, {"r_inf": np.nan}, "r_inf must be a number"),
        (SCENE, {"a_d": -0.5}, "a_d must be a number above 0"),
        (SCENE, {"ring_m": -1}, "ring_m must be metres"),
        (SCENE.isel(band=[0]), {}, "the scene has no blue"),
        (SCENE.isel(band=0), {}, "has no band"),
        (SCENE, {"lids": SCENE.isel(band=0)}, "a mask must be bool"),
        (SCENE, {"lids": raster(np.ones((9, 9), bool), **GRID)}, "lids and scene on different grids"),
        (DEGREES, {"g": 1.0, "r_inf": 0.03}, "in units of degree, metres are needed"),
    ],
)
def test_what_makes_no_sense_is_refused(scene, options, message):
    with pytest.raises(InputError, match=message):
        water_depth(scene, frame_of([MIDDLE]), **options)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (frame_of([MIDDLE], crs="EPSG:3857"), "are in EPSG:3857, the rasters in"),
        (frame_of([shapely.Point(3, 3)]), "found a Point"),
        (frame_of([MIDDLE], rt_a_d=[1]), "already has the columns rt_a_d"),
    ],
)
def test_frames_that_do_not_fit_are_refused(frame, message):
    with pytest.raises(InputError, match=message):
        water_depth(SCENE, frame)


def test_a_raster_needs_the_answer_of_water_depth():
    with pytest.raises(InputError, match="lacks the columns rt_a_d, rt_r_inf, rt_g"):
        depth_raster(SCENE, frame_of([MIDDLE]))
