"""Rasters within polygons: against shapely on pixel boxes of the whole array, and bit for bit for any chunks."""

from __future__ import annotations

import pickle

import dask
import dask.array as da
import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from rasters import CUP_TRANSFORM, axis_chunks, raster
from scipy import ndimage

import lakescale as ls
from lakescale.chunks import Place, Zones, ask_zones_serial
from lakescale.cluster import compute, open_cluster
from lakescale.evidence import zonal_cover
from lakescale.evidence.zonal import polygon_evidence
from lakescale.evidence.zonal_distance import distance_to_unseen
from lakescale.polygons import to_map

pytestmark = pytest.mark.usefixtures("one_thread")

PIXEL_M = CUP_TRANSFORM.a
NOISE = np.random.default_rng(5).random((40, 50), np.float32)
STATISTICS = ("mean", "max", "data_share")


def frame_of(pixel_polygons, crs="EPSG:3857", **columns):
    """Make a frame of polygons given in pixel coordinates (col, row)."""
    polygons = np.empty(len(pixel_polygons), object)
    polygons[:] = pixel_polygons
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(to_map(polygons, CUP_TRANSFORM), crs=crs), crs=crs)


@st.composite
def pixel_polygons(draw, height, width):
    """Triangles, boxes and rings on quarter pixels; some outside, some of several parts."""
    quarter = st.tuples(st.integers(-8, 4 * width + 8), st.integers(-8, 4 * height + 8))
    corners = draw(st.lists(quarter, min_size=3, max_size=6, unique=True))
    hull = shapely.convex_hull(shapely.MultiPoint(np.array(corners) / 4))
    kind = draw(st.sampled_from(["hull", "pixels", "ring", "several", "empty", "missing"]))
    if kind == "missing" or hull.geom_type != "Polygon":
        return None
    if kind == "empty":
        return shapely.Polygon()
    if kind == "pixels":
        left, top, right, bottom = np.floor(hull.bounds)
        return shapely.box(left, top, right + 1, bottom + 1)
    if kind == "ring":
        inner = shapely.box(*np.round(hull.buffer(-2).bounds)) if hull.buffer(-3).area else shapely.Polygon()
        return hull.difference(inner) if hull.contains_properly(inner) else hull
    other = shapely.affinity.translate(hull, hull.bounds[2] - hull.bounds[0] + 0.25)
    return shapely.MultiPolygon([hull, other]) if kind == "several" else hull


@st.composite
def cases(draw, largest=18):
    height, width = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layer = (rng.standard_normal((height, width)) * 10.0 ** draw(st.integers(-1, 4))).astype(np.float32)
    layer[rng.random(layer.shape) < draw(st.sampled_from([0, 0.3, 0.9]))] = np.nan
    mask, seen = rng.random((2, height, width)) < draw(st.sampled_from([0.1, 0.5, 1.1]))
    polygons = draw(st.lists(pixel_polygons(height, width), max_size=7))
    chunks = (draw(axis_chunks(height)), draw(axis_chunks(width)))
    return layer, mask & seen, seen, polygons, chunks, draw(st.sampled_from([4, 7, 512]))


def evidence_of(case, chunks, window=512):
    layer, mask, seen, polygons = case[:4]
    rasters = {"layer": raster(layer, chunks), "mask": raster(mask, chunks), "sink": raster(mask, chunks)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zonal_cover, "WINDOW_PX", window)
        return polygon_evidence(frame_of(polygons), rasters, seen={"mask": raster(seen, chunks)}).compute()


def whole_array_evidence(values, is_seen, polygon):
    """Mean, largest value and share with data of one polygon, from the area it shares with each pixel's box.

    And how far mean and share may be off where each pixel counts by a multiple of 2**-16.
    """
    if polygon is None or polygon.is_empty:
        return np.nan, np.nan, 0, 0, 0
    row, col = np.indices(values.shape)
    share = shapely.area(shapely.intersection(shapely.box(col, row, col + 1, row + 1), polygon))
    share = np.where(is_seen, share, 0)
    off = 2.0**-16 * np.count_nonzero(share)
    if share.sum() < 1e-9:
        return np.nan, np.nan, 0, 0, off
    values = np.where(share > 0, values, 0).astype(float)
    mean, largest = (share * values).sum() / share.sum(), values[share > 1e-9].max()
    mean_off = 2 * off / share.sum() * np.abs(values).max() + 2.0**-24
    return mean, largest, share.sum() / polygon.area, mean_off, off / polygon.area + 1e-6


@given(cases())
def test_evidence_equals_the_shared_areas_with_the_pixels_of_the_whole_array(case):
    layer, mask, seen, polygons, chunks, window = case
    evidence = evidence_of(case, chunks, window)
    assert len(evidence) == len(polygons)
    every = np.ones(seen.shape, bool)
    for name, values, is_seen in (("layer", layer, ~np.isnan(layer)), ("mask", mask, seen), ("sink", mask, every)):
        for row, polygon in enumerate(polygons):
            mean, largest, share, mean_off, share_off = whole_array_evidence(values, is_seen, polygon)
            ours = [evidence[f"{name}_{statistic}"].iloc[row] for statistic in STATISTICS]
            assert ours[0] == pytest.approx(mean, abs=float(mean_off), nan_ok=True)
            assert ours[1] == pytest.approx(largest, abs=0, rel=1e-12, nan_ok=True)
            assert ours[2] == pytest.approx(share, abs=float(share_off))


@given(cases())
def test_no_chunks_change_a_bit(case):
    chunks, window = case[4:]
    assert_frame_equal(evidence_of(case, chunks, window), evidence_of(case, -1, window), check_exact=True)


@given(st.tuples(*[st.integers(0, 1500)] * 2), st.tuples(*[st.integers(1, 900)] * 2))
def test_windows_follow_the_grid_whatever_the_block(corner, size):
    shape = (1800, 2000)
    place = Place(*corner, *(min(n, whole - at) for n, whole, at in zip(size, shape, corner, strict=True)))
    windows = zonal_cover._windows(place, shape)
    side = zonal_cover.WINDOW_PX
    every = {
        (row, col, min(side, shape[0] - row), min(side, shape[1] - col))
        for row in range(0, shape[0], side)
        for col in range(0, shape[1], side)
    }
    meeting = {
        (row, col, height, width)
        for row, col, height, width in every
        if row < place.row + place.height and place.row < row + height
        if col < place.col + place.width and place.col < col + width
    }
    assert set(map(tuple, windows)) == meeting


@settings(max_examples=30)
@given(cases(), st.integers(1, 4))
def test_no_partitions_change_a_bit(case, parts):
    layer, _, _, polygons, chunks, _ = case
    frame = frame_of(polygons)
    lazy = dask_geopandas.from_geopandas(frame, npartitions=parts, sort=False)
    layers = {"layer": raster(layer, chunks)}
    assert_frame_equal(polygon_evidence(lazy, layers).compute(), polygon_evidence(frame, layers).compute())
    seen = raster(~np.isnan(layer), chunks)
    assert_frame_equal(distance_to_unseen(lazy, seen).compute(), distance_to_unseen(frame, seen).compute())


# -- distances


def whole_array_distances(frame, seen, max_m):
    """The least distance to the boxes of all unseen pixels and to what lies beyond the edge."""
    row, col = np.nonzero(~seen)
    boxes = to_map(shapely.box(col, row, col + 1, row + 1), CUP_TRANSFORM)
    extent = to_map(np.array([shapely.box(0, 0, *seen.shape[::-1])]), CUP_TRANSFORM)[0]
    world = shapely.box(*shapely.bounds(extent.buffer(1e5))).difference(extent)
    others = [*boxes, world]
    return [
        np.nan if one is None or one.is_empty else min(max_m, *(shapely.distance(one, other) for other in others))
        for one in frame.geometry
    ]


@given(cases(), st.sampled_from([0.5, 2.2, 40]))
def test_distances_are_the_least_to_the_boxes_of_all_unseen_pixels(case, reach_px):
    layer, polygons, chunks = case[0], case[3], case[4]
    seen = ndimage.binary_dilation(~np.isnan(layer), iterations=2)
    frame, max_m = frame_of(polygons), reach_px * PIXEL_M
    ours = distance_to_unseen(frame, raster(seen, chunks), max_m=max_m).compute().unseen_m
    np.testing.assert_allclose(ours, whole_array_distances(frame, seen, max_m), atol=6e-4)
    whole = distance_to_unseen(frame, raster(seen), max_m=max_m).compute().unseen_m
    np.testing.assert_array_equal(ours, whole)


@pytest.mark.parametrize("chunks", [7, 20, ((13, 27), (1, 48, 1))])
def test_distances_across_many_chunks(chunks):
    seen = np.ones((40, 50), bool)
    seen[5, 44] = seen[30:40, :3] = False
    frame = frame_of([shapely.box(10, 8, 20, 18), shapely.box(46, 8, 47, 9), shapely.box(1, 33, 2, 34)])
    ours = distance_to_unseen(frame, raster(seen, chunks), max_m=8.5 * PIXEL_M).compute().unseen_m
    np.testing.assert_allclose(ours, np.array([8, np.hypot(1, 2), 0]) * PIXEL_M, atol=6e-4)


@pytest.mark.parametrize("chunks", [-1, 25, 10])
def test_distances_to_chunks_that_are_unseen_as_a_whole(chunks):
    seen = np.ones((40, 50), bool)
    seen[:, 25:] = False
    frame = frame_of([shapely.box(15, 12, 21, 18)])
    ours = distance_to_unseen(frame, raster(seen, chunks)).compute().unseen_m
    np.testing.assert_allclose(ours, 4 * PIXEL_M, atol=6e-4)


def test_a_polygon_in_the_midst_of_unseen_pixels_is_at_0():
    seen = np.ones((60, 60), bool)
    seen[10:50, 10:50] = False
    frame = frame_of([shapely.box(29.25, 29.25, 29.75, 29.75), shapely.box(12, 12, 48, 48)])
    for chunks in (-1, 60, 7):
        assert list(distance_to_unseen(frame, raster(seen, chunks)).compute().unseen_m) == [0, 0]


# -- what polygons may be


def test_a_polygon_larger_than_its_windows_and_chunks():
    values = np.full((700, 900), 1234.56, np.float32)
    ring = shapely.Point(450, 350).buffer(340).difference(shapely.Point(400, 300).buffer(77))
    frame = frame_of([ring, shapely.box(-100, -100, 1000, 800)])
    found = polygon_evidence(frame, {"z": raster(values, 300)}).compute()
    np.testing.assert_array_equal(found.z_mean, float(values[0, 0]))
    np.testing.assert_array_equal(found.z_max, values[0, 0])
    np.testing.assert_allclose(found.z_data_share, [1, 630_000 / (1100 * 900)], atol=1e-6)
    whole = polygon_evidence(frame, {"z": raster(values)}).compute()
    assert_frame_equal(found, whole, check_exact=True)


@pytest.mark.parametrize("hole", [(512, 100, 515, 104), (509, 100, 512, 104), (508, 508, 512, 512)])
def test_holes_of_four_corners_beside_a_window(hole):
    """exactextract crashes where such a hole touches the window that it is asked for from outside."""
    lake = shapely.box(100, 50, 900, 600).difference(shapely.box(*hole))
    values = raster(np.ones((700, 1000), np.float32), 256)
    found = polygon_evidence(frame_of([lake]), {"depth": values}).compute()
    assert found["depth_mean"].tolist() == [1.0]
    assert found["depth_data_share"].tolist() == [1.0]


def test_sums_of_many_pixels_do_not_overflow():
    just_below_1 = np.float32(1 - 2.0**-24)
    values = raster(np.broadcast_to(just_below_1, (3000, 3000)), 3000)
    found = polygon_evidence(frame_of([shapely.box(0, 0, 3000, 3000)]), {"p": values}).compute()
    assert found.p_mean.tolist() == [float(just_below_1)]


def test_means_and_maxima_are_those_of_exactextract():
    rng = np.random.default_rng(3)
    centres = shapely.points(rng.uniform(0, 50, (60, 2)) * (1, 0.8))
    frame = frame_of(shapely.buffer(centres, rng.uniform(0.3, 12, 60)))
    ours = polygon_evidence(frame, {"p": raster(NOISE, 13)}).compute()
    left, top, right, bottom = *(CUP_TRANSFORM @ (0, 0)), *(CUP_TRANSFORM @ (50, 40))
    source = NumPyRasterSource(NOISE, left, bottom, right, top)
    theirs = exact_extract(source, frame, ["mean", "max"], output="pandas")
    np.testing.assert_allclose(ours.p_mean, theirs["mean"], atol=2e-5)
    np.testing.assert_array_equal(ours.p_max, theirs["max"].astype(np.float32))


def test_rows_keep_their_order_their_index_and_their_columns():
    boxes = [shapely.box(k, k, k + 3, k + 2) for k in (30, 2, 17, 2)]
    frame = frame_of([*boxes, None, shapely.Polygon(), shapely.box(200, 0, 210, 9)], name=list("abcdefg"))
    frame.index = pd.Index([7, 7, 3, 0, 1, 7, 5], name="id")
    found = polygon_evidence(frame, {"p": raster(NOISE, 9)}).compute()
    assert isinstance(found, gpd.GeoDataFrame)
    assert_frame_equal(found[["name", "geometry"]], frame)
    assert list(found.columns) == ["name", "geometry", "p_mean", "p_max", "p_data_share"]
    assert found.p_mean.iloc[1] == found.p_mean.iloc[3]
    assert found.p_mean.isna().tolist() == found.p_max.isna().tolist() == [False] * 4 + [True] * 3
    assert found.p_data_share.tolist() == [1, 1, 1, 1, 0, 0, 0]
    unseen = distance_to_unseen(frame, raster(NOISE > -1, 9)).compute().unseen_m
    assert unseen.index.equals(frame.index)
    assert unseen.isna().tolist() == [False] * 4 + [True, True, False]
    assert unseen.iloc[-1] == 0


def test_an_empty_frame_has_the_columns_and_their_dtypes():
    frame = frame_of([], name=np.empty(0, object))
    lazy = polygon_evidence(frame, {"p": raster(NOISE, 9), "m": raster(NOISE > 0.5, 9)})
    found = distance_to_unseen(lazy, raster(NOISE > 0.5, 9)).compute()
    assert len(found) == 0
    assert found.crs == frame.crs
    dtypes = {f"{name}_{of}": dtype for name in "pm" for of, dtype in zip(STATISTICS, ("f8", "f4", "f8"), strict=True)}
    assert {name: found.dtypes[name].str[1:] for name in (*dtypes, "unseen_m")} == {**dtypes, "unseen_m": "f8"}
    pd.testing.assert_series_equal(lazy.dtypes, lazy.compute().dtypes)


def test_polygons_of_polygonize_go_in_as_they_come():
    mask = NOISE > 0.7
    lakes = ls.polygonize(raster(mask, 11))
    (found,) = compute(distance_to_unseen(polygon_evidence(lakes, {"m": raster(mask, 11)}), raster(mask, 11)))
    assert len(found) == ndimage.label(mask, np.ones((3, 3)))[1]
    assert (found.m_mean == 1).all()
    assert (found.m_data_share == 1).all()
    assert (found.unseen_m == 0).all()


# -- graphs


def test_building_computes_nothing(never_compute):
    frame = frame_of([shapely.box(2, 2, 30, 30)])
    lazy = polygon_evidence(frame, {"p": raster(NOISE, 9), "m": raster(NOISE > 0.5, 9)}, seen=raster(NOISE > 0.1, 7))
    assert isinstance(lazy, dask_geopandas.GeoDataFrame)
    distance_to_unseen(lazy, raster(NOISE > 0.1, 9))


def test_only_chunks_that_a_polygon_meets_are_read_and_what_rasters_share_once():
    read = []

    def load(block, block_info=None):
        read.append(block_info[0]["chunk-location"])
        return block

    grid = raster(NOISE, 10)
    shared = da.map_blocks(load, grid.data, dtype=np.float32, meta=np.empty((0, 0), np.float32))
    rasters = {"p": grid.copy(data=shared), "m": grid.copy(data=shared > 0.5)}
    frame = frame_of([shapely.box(12, 3, 19, 9), shapely.Polygon([(1, 1), (39, 39), (39, 38.5)])])
    found = polygon_evidence(frame, rasters).compute()
    assert found.notna().all(axis=None)
    diagonal = {(k, k) for k in range(4)} | {(0, 1)}
    assert set(read) <= diagonal | {(i, j) for i, j in np.ndindex(4, 5) if abs(i - j) == 1}
    assert (0, 3) not in read
    assert len(read) == len(set(read))


def test_frames_that_are_asked_together_do_not_mix():
    layers = {"p": raster(NOISE, 10)}
    one, other = (frame_of([shapely.box(k, k, k + 4, k + 4)]) for k in (2, 33))
    lazy = [polygon_evidence(frame, layers) for frame in (one, other)]
    for found, frame in zip(dask.compute(*lazy), (one, other), strict=True):
        assert_frame_equal(found, polygon_evidence(frame, layers).compute())


def test_tasks_have_readable_names():
    lazy = polygon_evidence(frame_of([shapely.box(2, 2, 30, 30)]), {"p": raster(NOISE, 20)})
    names = {dask.utils.key_split(key) for key in lazy.__dask_graph__()}
    steps = {f"zonal-{step}" for step in ("cut", "deal", "parcel", "pixels", "measure", "join", "answer")}
    assert steps <= names


def test_the_serial_twin_gives_the_same():
    halves = Zones(
        "zones",
        cut=list,
        deal=lambda parts, places: [
            [x for part in parts for x in part if x % len(places) == k] for k in range(len(places))
        ],
        measure=lambda parcel, pixels, place: {x: (x, int(pixels[0].sum()), place.row) for x in parcel},
        join=lambda answers, parts: [{k: v for one in answers for k, v in one.items()}] * parts,
        attach=lambda part, answer: [answer[x] for x in part],
    )
    array, chunks = np.arange(20).reshape(4, 5), ((2, 2), (3, 2))
    parts = ask_zones_serial([[0, 1, 5], [2]], [array], halves, chunks)
    sums = [int(array[:2, :3].sum()), int(array[:2, 3:].sum()), int(array[2:, :3].sum())]
    assert parts == [[(0, sums[0], 0), (1, sums[1], 0), (5, sums[1], 0)], [(2, sums[2], 2)]]


@pytest.mark.slow
def test_workers_of_a_cluster_give_the_same():
    frame = frame_of([shapely.box(k, k, k + 9, k + 7) for k in range(30)])
    lazy = polygon_evidence(frame, {"p": raster(NOISE, 9)})
    with open_cluster("local", workers=2, dashboard="none"):
        (found,) = compute(distance_to_unseen(lazy, raster(NOISE > 0.02, 9)))
    expected = polygon_evidence(frame, {"p": raster(NOISE)}).compute()
    expected = distance_to_unseen(expected, raster(NOISE > 0.02)).compute()
    assert_frame_equal(found, expected, check_exact=True)


# -- bad input

BOX = shapely.box(2, 2, 9, 9)
BOWTIE = shapely.Polygon([(1, 1), (9, 9), (9, 1), (1, 9)])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (frame_of([BOX], crs=None), "without a CRS"),
        (frame_of([BOX], crs="EPSG:3413"), "are in EPSG:3413, the rasters in"),
        (frame_of([None, BOWTIE]), r"invalid polygon: Self-intersection.*\[the row with index 1, one of 1\]"),
        (frame_of([BOX, shapely.Point(3, 3)]), r"found a Point \[the row with index 1\]"),
        (frame_of([BOX], p_max=[1]), "already has the columns p_max"),
        (gpd.GeoDataFrame({"a": [1]}), "without geometry"),
        (pd.DataFrame({"a": [1]}), "got DataFrame"),
    ],
)
def test_frames_that_cannot_be_used_are_refused(frame, message):
    with pytest.raises(ls.InputError, match=message) as caught:
        polygon_evidence(frame, {"p": raster(NOISE)})
    assert caught.value.item
    assert caught.value.mend


def shifted(array):
    return raster(array, transform=CUP_TRANSFORM * CUP_TRANSFORM.translation(0.5, 0))


@pytest.mark.parametrize(
    ("rasters", "seen", "message"),
    [
        ({}, None, "no rasters"),
        ({"p": raster(NOISE), "q": shifted(NOISE)}, None, "different grids, p and q"),
        ({"p": raster(NOISE), "q": raster(NOISE[:30])}, None, "different grids, p and q"),
        ({"p": raster(NOISE), "q": raster(NOISE, crs="EPSG:3413")}, None, "different grids, p and q"),
        ({"p": raster(NOISE.astype(np.float64))}, None, "raster of float64"),
        ({"p": raster(np.stack([NOISE] * 3))}, None, "got .'band', 'y', 'x'."),
        ({"p": raster(NOISE > 0.5)}, raster(NOISE), "mask must be bool, got float32"),
        ({"p": raster(NOISE > 0.5)}, shifted(NOISE > 0.5), "different grids, p and seen of p"),
        ({"p": raster(NOISE)}, {"q": raster(NOISE > 0.5)}, "seen names no rasters: q"),
        ({"p": xr.DataArray(NOISE, dims=("y", "x"))}, None, "without a CRS"),
    ],
)
def test_rasters_that_cannot_be_used_are_refused(rasters, seen, message):
    with pytest.raises(ls.InputError, match=message) as caught:
        polygon_evidence(frame_of([BOX]), rasters, seen=seen)
    assert caught.value.item
    assert caught.value.mend


@pytest.mark.parametrize("value", [np.inf, -np.inf, 2.0**20])
def test_values_that_would_spoil_the_sums_are_refused_and_the_error_travels(value):
    values = NOISE.copy()
    values[5, 5] = value
    with pytest.raises(ls.InputError, match="too large") as caught:
        polygon_evidence(frame_of([BOX]), {"p": raster(values)}).compute()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    elsewhere = frame_of([shapely.box(10, 10, 20, 20)])
    assert np.isfinite(polygon_evidence(elsewhere, {"p": raster(values)}).compute().p_mean).all()


def test_polygons_of_a_dask_frame_are_judged_when_computed():
    lazy = dask_geopandas.from_geopandas(frame_of([BOX, BOWTIE]), npartitions=2)
    with pytest.raises(ls.InputError, match="invalid polygon"):
        polygon_evidence(lazy, {"p": raster(NOISE)}).compute()


@pytest.mark.parametrize("max_m", [0, -1, np.inf, np.nan])
def test_distances_need_a_maximum(max_m):
    with pytest.raises(ls.InputError, match="max_m must be above 0"):
        distance_to_unseen(frame_of([BOX]), raster(NOISE > 0.5), max_m=max_m)


def test_distances_need_a_mask_in_metres():
    with pytest.raises(ls.InputError, match="must be bool"):
        distance_to_unseen(frame_of([BOX]), raster(NOISE))
    with pytest.raises(ls.InputError, match="metres are needed"):
        distance_to_unseen(frame_of([BOX], crs="EPSG:4326"), raster(NOISE > 0.5, crs="EPSG:4326"))
