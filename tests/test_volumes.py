"""Volumes of lakes from elevations: against a plain loop over cells, bit for bit for any chunks, and against truth."""

from __future__ import annotations

import doctest
import math
import pickle

import dask
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
from rasters import CUP_TRANSFORM, axis_chunks, raster

import lakescale as ls
from lakescale.chunks import Place
from lakescale.evidence import volumes
from lakescale.evidence.volume_outlines import move_outlines, trace_rims
from lakescale.evidence.volumes import lake_volumes
from lakescale.polygons import to_map
from lakescale.schema import InputError
from lakescale.synthetic.scenery import Scenery

pytestmark = pytest.mark.usefixtures("one_thread")

GEOD = pyproj.Geod(ellps="WGS84")
SIDE_M = 30.0
POLAR = {"transform": Affine(SIDE_M, 0, -200_000, 0, -SIDE_M, -2_400_000), "crs": "EPSG:3413"}
NUMBERS = [
    "level_m", "level_low_m", "level_high_m", "volume_m3", "volume_low_m3", "volume_high_m3", "depth_mean_m",
    "depth_max_m", "void_share", "flat_share",
]  # fmt: skip


def frame_of(pixel_polygons, *, crs="EPSG:3413", transform=POLAR["transform"], **columns):
    """Make a frame of polygons given in pixel coordinates (col, row)."""
    polygons = np.empty(len(pixel_polygons), object)
    polygons[:] = pixel_polygons
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(to_map(polygons, transform), crs=crs), crs=crs)


def cup_frame(pixel_polygons):
    return frame_of(pixel_polygons, crs="EPSG:3857", transform=CUP_TRANSFORM)


def polar(array, chunks=-1):
    return raster(np.asarray(array, np.float32), chunks, **POLAR)


def bowl(size=20, depth=8.0, reach=8.0):
    """A paraboloid, m: 0 on a circle of ``reach`` pixels round the middle, ``-depth`` in the middle."""
    at = np.arange(size) + 0.5 - size / 2
    return depth * ((at[:, None] ** 2 + at**2) / reach**2 - 1)


def disc(radius=8.0, size=20):
    return shapely.Point(size / 2, size / 2).buffer(radius, 64)


# -- a plain loop


def true_area(polygon):
    """Geodesic area of a polygon in map coordinates of the Cup's mosaics, m2."""
    lonlat = pyproj.Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True)
    ring = shapely.transform(polygon, lambda xy: np.column_stack(lonlat.transform(*xy.T)))
    return abs(GEOD.geometry_area_perimeter(ring)[0])


def cells_of(polygon, shape):
    """Each cell's share in a polygon, and the length of the exterior rings in it; along its edge it counts half."""
    rings = shapely.MultiLineString([part.exterior for part in getattr(polygon, "geoms", [polygon])])
    row, col = np.indices(shape)
    boxes = shapely.box(col, row, col + 1, row + 1)
    along = shapely.length(shapely.intersection(shapely.get_exterior_ring(boxes), rings))
    length = shapely.length(shapely.intersection(boxes, rings)) - along / 2
    return shapely.area(shapely.intersection(boxes, polygon)), length


def median_range(values, weights, slack):
    """The lowest and highest value that may be the median, where weights may be off by a little."""
    pairs = sorted((v, w) for v, w in zip(values, weights, strict=True) if w > 1e-9 and not math.isnan(v))
    whole, told = sum(weights), sum(w for _, w in pairs)
    if not pairs or told < whole / 2 - slack:
        return None
    if told < whole / 2 + slack:
        return "either"
    sides = []
    for target in (told / 2 - slack, told / 2 + slack):
        so_far = 0
        for v, w in pairs:
            so_far += w
            if so_far >= target:
                sides.append(v)
                break
        else:
            sides.append(pairs[-1][0])
    return sides


def check_median(found, values, weights, slack):
    told = median_range(values, weights, slack)
    if told is None:
        assert math.isnan(found)
    elif told != "either":
        assert told[0] - 1e-9 <= found <= told[1] + 1e-9


def check_lake(row, polygon, dem, depth, options):
    """Check a lake against sums over all cells of the whole array."""
    share, length = cells_of(polygon, dem.shape)
    check_median(row.level_m, dem.ravel(), length.ravel(), 1e-3 * length.sum())
    void = np.isnan(dem)
    covered, empty = share.sum(), share[void].sum()
    assume(abs(empty / covered - options["max_void_share"]) > 1e-3)
    assert row.void_share == pytest.approx(empty / covered, abs=1e-4)
    bins, inside = {}, (share > 0) & ~void
    for z, part in zip(dem[inside].astype(float), share[inside], strict=True):
        step = math.floor(z / (options["flat_m"] / 4))
        bins[step] = bins.get(step, 0) + part
    windows = [sum(bins.get(step + k, 0) for k in range(4)) for step in bins]
    assert row.flat_share == pytest.approx(max(windows, default=0) / max(covered - empty, 1e-9), abs=1e-3)
    left, top, right, bottom = polygon.bounds
    height, width = dem.shape
    level = row.level_m
    pit = float(dem[inside].min()) if inside.any() else np.nan
    spill = np.nan if depth is None or not inside.any() else (dem + depth)[inside & (dem == pit)].max()
    expected = "known"
    wet = share[inside & (dem < level)].sum() / max(covered - empty, 1e-9)
    assume(abs(wet - 0.5) > 1e-3)
    if wet < 0.5:
        expected = "no basin"
    if row.level_low_m > spill:
        expected = "above spill"
    if row.flat_share >= 0.3:
        expected = "flat"
    if empty / covered > options["max_void_share"] or math.isnan(level):
        expected = "voids"
    if left < 0 or top < 0 or right > width or bottom > height:
        expected = "beyond the DEM"
    assert row.volume_reason == expected
    if expected == "known":
        check_volumes(row, share, dem, pit)
    else:
        assert np.isnan([row.volume_m3, row.volume_low_m3, row.volume_high_m3, row.depth_mean_m]).all()
        assert np.isnan(row.depth_max_m)


def check_volumes(row, share, dem, pit):
    volumes, area, void_area = {"low_": 0, "": 0, "high_": 0}, 0, 0
    for at in np.argwhere(share > 0):
        z, col, line = dem[tuple(at)], at[1], at[0]
        cell = true_area(to_map(np.array([shapely.box(col, line, col + 1, line + 1)]), CUP_TRANSFORM)[0])
        part = share[tuple(at)] * cell
        if np.isnan(z):
            void_area += part
            continue
        area += part
        for name in volumes:
            volumes[name] += part * max(row[f"level_{name}m"] - z, 0)
    volumes["high_"] += void_area * (row.level_high_m - pit)
    for name, volume in volumes.items():
        assert row[f"volume_{name}m3"] == pytest.approx(volume, rel=2e-3, abs=1)
    assert row.depth_mean_m == pytest.approx(volumes[""] / area, rel=2e-3, abs=1e-3)
    assert row.depth_max_m == pytest.approx(row.level_m - pit, abs=1e-9)


def check_interval(row, polygon, dem, outline_error_m, dem_error_m):
    """Check the level's interval by outlines that are moved in pixels of the ground."""
    mapped = to_map(np.array([polygon]), CUP_TRANSFORM)[0]
    stretch = math.sqrt(mapped.area / true_area(mapped)) / CUP_TRANSFORM.a
    for sign, name in ((-1, "level_low_m"), (1, "level_high_m")):
        moved = polygon.buffer(sign * outline_error_m * stretch)
        if moved.is_empty or row.volume_reason != "known":
            continue
        length = cells_of(moved, dem.shape)[1]
        told = median_range(dem.ravel(), length.ravel(), 0.05 * length.sum())
        if told not in (None, "either"):
            error = sorted(math.hypot(max(sign * (z - row.level_m), 0), dem_error_m) for z in told)
            assert error[0] - 1e-6 <= sign * (row[name] - row.level_m) <= error[1] + 1e-6


def pixel_polygon(rng, height, width):
    """Draw a hull, a box, a ring or two parts on quarter pixels; sometimes one outside, an empty or a missing one."""
    kind = rng.choice(["hull", "pixels", "ring", "several", "outside", "empty", "missing"], p=[0.3, 0.3, *[0.08] * 5])
    if kind in ("missing", "empty"):
        return None if kind == "missing" else shapely.Polygon()
    over = 2 if kind == "outside" else 0
    corners = rng.integers(-4 * over, (4 * (width + over) + 1, 4 * (height + over) + 1), (6, 2)) / 4
    hull = shapely.convex_hull(shapely.MultiPoint(corners))
    if hull.geom_type != "Polygon":
        return None
    if kind == "pixels":
        left, top, right, bottom = np.floor(hull.bounds)
        return shapely.box(left, top, min(right + 1, width), min(bottom + 1, height))
    if kind == "ring" and hull.buffer(-2).area:
        return hull.difference(hull.buffer(-2))
    if kind == "several":
        left, top, right, bottom = hull.bounds
        halves = (
            shapely.box(left, top, (left + right) / 2, bottom),
            shapely.box((left + right) / 2 + 0.5, top, right, bottom),
        )
        parts = [part for part in shapely.intersection(hull, halves) if part.geom_type == "Polygon" and part.area]
        return shapely.MultiPolygon(parts)
    return hull


@st.composite
def cases(draw, largest=14):
    height, width = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    if draw(st.integers(0, 3)):
        height, width = max(height, largest - 3), max(width, largest - 3)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    at = [(np.arange(n) + 0.5) / n - 0.5 for n in (height, width)]
    dem = (20 * (at[0][:, None] ** 2 + at[1] ** 2) + rng.normal(0, 0.5, (height, width))).astype(np.float32)
    dem[rng.random(dem.shape) < rng.choice([0, 0, 0.1, 0.6])] = np.nan
    depth = None
    if rng.random() < 0.3:
        depth = rng.uniform(0, 6, dem.shape).astype(np.float32) + np.float32(0) * dem
    polygons = [pixel_polygon(rng, height, width) for _ in range(draw(st.integers(0, 4)))]
    chunks = (draw(axis_chunks(height)), draw(axis_chunks(width)))
    return dem, depth, polygons, chunks, float(rng.choice([0, 10, 25]))


OPTIONS = {"dem_error_m": 0.3, "flat_m": 0.2, "max_void_share": 0.15}


def volumes_of(case, chunks, partitions=None):
    dem, depth, polygons, _, outline_error_m = case
    sinks = None if depth is None else raster(depth, -1)
    frame = cup_frame(polygons)
    if partitions:
        frame = dask_geopandas.from_geopandas(frame, npartitions=partitions, sort=False)
    options = OPTIONS | {"outline_error_m": outline_error_m}
    return lake_volumes(frame, raster(dem, chunks), sinks=sinks, **options).compute()


@settings(max_examples=25)
@given(cases())
def test_levels_and_volumes_are_those_of_a_plain_loop(case):
    dem, depth, polygons, chunks, outline_error_m = case
    found = volumes_of(case, chunks)
    assert len(found) == len(polygons)
    for polygon, (_, row) in zip(polygons, found.iterrows(), strict=True):
        if polygon is None or polygon.is_empty:
            assert row.volume_reason == "no polygon"
            assert row[NUMBERS].isna().all()
        elif polygon.intersection(shapely.box(0, 0, *dem.shape[::-1])).area > 0:
            check_lake(row, polygon, dem, depth, OPTIONS)
            check_interval(row, polygon, dem, outline_error_m, OPTIONS["dem_error_m"])
        else:
            assert row.volume_reason == "beyond the DEM"


@settings(max_examples=20)
@given(cases(largest=20), st.integers(1, 4))
def test_no_chunks_and_no_partitions_change_a_bit(case, partitions):
    whole = volumes_of(case, -1)
    assert_frame_equal(volumes_of(case, case[3]), whole, check_exact=True)
    assert_frame_equal(volumes_of(case, case[3], partitions), whole, check_exact=True)


@settings(max_examples=30)
@given(cases(), st.integers(0, 10), st.integers(0, 10))
def test_outlines_have_their_length_in_each_pixel_whatever_the_block(case, row, col):
    dem, _, polygons, *_ = case
    height, width = dem.shape
    row, col = min(row, height - 1), min(col, width - 1)
    block = Place(row, col, height - row, width - col)
    whole = trace_rims(np.array([*polygons, None], object)[:-1], Place(0, 0, height, width))
    table = {(p, i, j): n for p, i, j, n in zip(*(one.tolist() for one in whole), strict=True)}
    part = trace_rims(np.array([*polygons, None], object)[:-1], block)
    cut = {(p, i + row, j + col): n for p, i, j, n in zip(*(one.tolist() for one in part), strict=True)}
    assert cut == {key: n for key, n in table.items() if key[1] >= row and key[2] >= col}
    for p, polygon in enumerate(polygons):
        if polygon is not None and not polygon.is_empty:
            length = cells_of(polygon, dem.shape)[1]
            ours = np.zeros(dem.shape)
            for (q, i, j), n in table.items():
                if q == p:
                    ours[i, j] = n / 2**16
            np.testing.assert_allclose(ours, length, atol=1e-3)


# -- truth


@pytest.fixture(scope="module")
def region():
    return ls.make_region(640, seed=3, scenery=Scenery(margin_km=20))


@pytest.fixture(scope="module")
def truth(region):
    """True lakes that lie in the region; their volume by true areas, as the map's are a little too large."""
    lakes = region.lakes("2019-07-28")
    lakes = lakes[lakes.within(shapely.box(*region.grid.bounds_xyxy).buffer(-30))]
    return lakes.assign(volume=lakes.volume_m3 * lakes.area_m2 / lakes.area)


@pytest.mark.parametrize(("resolution_m", "off_share", "off_m"), [(10, 0.01, 0.02), (24, 0.1, 0.25)])
def test_volumes_over_dry_beds_are_the_true_ones(region, truth, resolution_m, off_share, off_m):
    dem = region.dem(resolution_m=resolution_m, chunks=250)
    found = lake_volumes(truth[["lake_id", "geometry"]], dem).compute()
    known = (found.volume_reason == "known").to_numpy()
    assert known.sum() >= 8
    off = np.abs(found.volume_m3 / truth.volume - 1)[known]
    assert np.median(off) < off_share
    assert np.median(np.abs(found.level_m - truth.level_m)) < off_m
    within = (found.volume_low_m3 <= truth.volume) & (truth.volume <= found.volume_high_m3)
    assert within[known].mean() > 0.9


def test_a_dem_that_holds_water_gives_no_volume(region, truth):
    bed, imaged = (region.dem(surface=surface, chunks=320).values for surface in ("bed", "arcticdem"))
    dem = region.dem(surface="arcticdem", chunks=320)
    found = lake_volumes(truth[["lake_id", "geometry"]], dem).compute()
    labels = region.truth("2019-07-28").values
    hidden = np.where(np.isnan(imaged) | (imaged > bed + 0.01), 1.0, 0.0)
    share = np.array([hidden[labels == lake].mean() for lake in truth.lake_id])
    inside = np.array([np.isnan(imaged[labels == lake]).mean() for lake in truth.lake_id])
    wet = (share > 0.35) | (inside > 0.12)
    assert wet.sum() >= 4
    assert set(found.volume_reason[wet]) <= {"flat", "voids"}
    known = found.volume_reason == "known"
    assert np.median(np.abs(found.volume_m3 / truth.volume - 1)[known]) < 0.1


def test_a_bowl_holds_what_geometry_says():
    found = lake_volumes(frame_of([disc()]), polar(bowl() + 700, 7), outline_error_m=15, dem_error_m=0.1).compute()
    (row,) = found.itertuples()
    scale = true_area_3413(disc()) / disc().area
    assert row.level_m == pytest.approx(700, abs=0.3)
    assert row.volume_m3 == pytest.approx(np.pi * 64 / 2 * 8 * scale, rel=0.06)
    assert row.depth_max_m == pytest.approx(8, abs=0.4)
    assert row.depth_mean_m == pytest.approx(4, abs=0.25)
    # half a pixel inwards and outwards, and a tenth of a metre
    assert row.level_high_m - row.level_m == pytest.approx(8 * ((8.5 / 8) ** 2 - 1), abs=0.5)
    assert row.level_m - row.level_low_m == pytest.approx(8 * (1 - (7.5 / 8) ** 2), abs=0.5)
    assert row.volume_low_m3 < row.volume_m3 < row.volume_high_m3


def test_an_outline_in_shallow_water_tells_the_level_with_the_depth_there():
    lakes, dem = frame_of([disc(24, size=60)]), polar(bowl(60, reach=25), 16)
    whole, depth = np.pi * 25**2 / 2 * 8 * true_area_3413(disc()) / disc().area, 8 * (1 - (24 / 25) ** 2)
    low, right = (lake_volumes(lakes, dem, outline_depth_m=d).compute().iloc[0] for d in (0, depth))
    assert right.level_m == pytest.approx(0, abs=0.05)
    for name in ("level_m", "level_low_m", "level_high_m", "depth_max_m"):
        assert right[name] - low[name] == pytest.approx(depth, abs=1e-9)
    assert low.volume_m3 == pytest.approx(whole * (24 / 25) ** 4, rel=0.02)
    assert right.volume_m3 == pytest.approx(whole, rel=0.02)
    assert right.depth_mean_m > low.depth_mean_m


def true_area_3413(pixel_polygon):
    lonlat = pyproj.Transformer.from_crs("EPSG:3413", "EPSG:4326", always_xy=True)
    mapped = to_map(np.array([pixel_polygon]), POLAR["transform"])[0]
    ring = shapely.transform(mapped, lambda xy: np.column_stack(lonlat.transform(*xy.T)))
    return abs(GEOD.geometry_area_perimeter(ring)[0])


def test_an_outline_along_pixels_lies_between_those_inside_and_those_outside():
    dem = np.full((9, 9), 50.0)
    dem[2:7, 2:7] = 30 + np.arange(25).reshape(5, 5) / 5
    for chunks in (-1, 4, 2):
        found = lake_volumes(frame_of([shapely.box(2, 2, 7, 7)]), polar(dem, chunks), outline_error_m=0).compute()
        assert found.level_m.tolist() == [(50 + np.float32(34.8)) / 2]


def test_outlines_are_moved_by_metres_on_the_ground():
    square = to_map(np.array([shapely.box(100, 100, 140, 140), None, shapely.Polygon()], object), CUP_TRANSFORM)
    moved = move_outlines(square, 100.0, pyproj.CRS("EPSG:3857"))
    side = math.sqrt(true_area(square[0]))
    assert true_area(moved[0]) == pytest.approx(side**2 + 4 * side * 100 + math.pi * 100**2, rel=0.01)
    assert moved[1] is None
    assert moved[2].is_empty


# -- reasons


def reason_of(dem, polygon=None, **options):
    return lake_volumes(frame_of([disc() if polygon is None else polygon]), polar(dem, 9), **options).compute().iloc[0]


def test_voids_are_told_and_may_hold_as_much_as_the_deepest_cell():
    dem = bowl()
    dem[9, 9] = np.nan
    row, whole = reason_of(dem), reason_of(bowl())
    assert row.volume_reason == "known"
    assert row.void_share == pytest.approx(1 / disc().area, rel=1e-3)
    assert row.volume_m3 < whole.volume_m3 < row.volume_high_m3
    dem[7:13, 7:13] = np.nan
    row = reason_of(dem)
    assert row.volume_reason == "voids"
    assert np.isnan(row.volume_m3)
    assert row.level_m == whole.level_m
    assert reason_of(dem, max_void_share=0.5).volume_reason == "known"


def test_without_half_of_its_outline_a_lake_has_no_level():
    dem = bowl()
    dem[:, :11] = np.nan
    row = reason_of(dem, max_void_share=1)
    assert row.volume_reason == "voids"
    assert np.isnan(row.level_m)


def test_where_the_dem_holds_water_a_lake_is_flat():
    for level in (-0.5, -3.5):
        row = reason_of(np.maximum(bowl(), level))
        assert (row.volume_reason, row.flat_share > 0.3) == ("flat", True)
    noise = np.random.default_rng(0).normal(0, 0.1, (20, 20))
    assert reason_of(np.maximum(bowl(), -0.5) + noise).volume_reason == "flat"
    row = reason_of(np.maximum(bowl(), -7))
    assert row.volume_reason == "known"
    assert row.flat_share == pytest.approx(1 / 8, abs=0.06)


def test_a_lake_on_a_dome_has_no_basin():
    assert reason_of(-bowl()).volume_reason == "no basin"


def test_a_lake_cannot_stand_higher_than_its_sink_fills():
    rim = np.minimum(bowl(), 3)
    rim[10, :10] = np.minimum(rim[10, :10], -4)  # a notch, through which it runs out
    sinks = ls.sink_depth(polar(rim))
    row = lake_volumes(frame_of([disc()]), polar(rim, 6), sinks=sinks).compute().iloc[0]
    assert row.volume_reason == "above spill"
    row = lake_volumes(frame_of([disc(5)]), polar(rim, 6), sinks=sinks, outline_error_m=30).compute().iloc[0]
    assert row.volume_reason == "known"


def test_lakes_beyond_the_dem():
    dem, far = bowl(), shapely.box(100, 100, 120, 120)
    assert reason_of(dem, shapely.box(-2, 5, 8, 15)).volume_reason == "beyond the DEM"
    row = reason_of(dem, far)
    assert row.volume_reason == "beyond the DEM"
    assert row[NUMBERS].isna().all()


@pytest.mark.parametrize(
    ("dem_date", "told", "wet"),
    [
        (None, "unknown", []),
        ("2019-07-20", "2019-07-20", [1]),
        (("2019-06-28", np.datetime64("2019-07-20")), "2019-06-28/2019-07-20", [0, 1]),
        (("2012-05-01", "2022-09-30"), "2012-05-01/2022-09-30", []),
    ],
)
def test_a_dem_of_the_lakes_day_shows_its_water(dem_date, told, wet):
    times = pd.to_datetime(["2019-07-01", "2019-07-22", "2019-08-20", None])
    frame = frame_of([disc()] * 4, time=times)
    found = lake_volumes(frame, polar(bowl(), 9), dem_date=dem_date).compute()
    assert found.dem_date.tolist() == [told] * 4
    assert np.flatnonzero(found.volume_reason == "wet when imaged").tolist() == wet
    assert (found.volume_reason[~found.index.isin(wet)] == "known").all()


def test_the_date_of_a_dem_is_read_from_its_attributes():
    dem = polar(bowl(), 9).assign_attrs(date_start="2015-06-01", date_end="2015-06-01")
    assert lake_volumes(frame_of([disc()]), dem).compute().dem_date.tolist() == ["2015-06-01"]
    half = dem.assign_attrs(date="known of 1 of 2 tiles")
    assert lake_volumes(frame_of([disc()]), half).compute().dem_date.tolist() == ["unknown"]


def test_numbers_that_mean_void_are_void():
    dem = (bowl() * 100).astype(np.int16)
    dem[9:11, 9:11] = -9999
    dem = raster(dem, 7, **POLAR).assign_attrs(_FillValue=-9999)
    found = lake_volumes(frame_of([disc()]), dem).compute()
    assert found.void_share.tolist() == pytest.approx([4 / disc().area], rel=1e-3)
    assert found.depth_max_m[0] < 850


# -- frames and graphs


def test_rows_keep_their_order_their_index_and_their_columns():
    polygons = [disc(), None, shapely.Polygon(), disc(5), shapely.box(200, 0, 210, 9)]
    frame = frame_of(polygons, name=list("abcde"))
    frame.index = pd.Index([7, 7, 3, 0, 1], name="id")
    found = lake_volumes(frame, polar(bowl(), 9)).compute()
    assert isinstance(found, gpd.GeoDataFrame)
    assert_frame_equal(found[["name", "geometry"]], frame)
    assert list(found.columns) == ["name", "geometry", *NUMBERS, "dem_date", "volume_reason"]
    reasons = ["known", "no polygon", "no polygon", "known", "beyond the DEM"]
    assert found.volume_reason.tolist() == reasons


def test_an_empty_frame_has_the_columns_and_their_dtypes():
    lazy = lake_volumes(frame_of([], name=np.empty(0, object)), polar(bowl(), 9))
    found = lazy.compute()
    assert len(found) == 0
    assert found.crs == "EPSG:3413"
    assert set(found.dtypes[NUMBERS]) == {np.dtype(np.float64)}
    pd.testing.assert_series_equal(lazy.dtypes, found.dtypes)


def test_parts_of_one_lake_have_one_level():
    dem = np.full((20, 30), 9.0)
    dem[5:15, 3:13], dem[5:15, 17:27] = np.linspace(0, 8, 100).reshape(10, 10), np.linspace(1, 7, 100).reshape(10, 10)
    boxes = shapely.box(3, 5, 13, 15), shapely.box(17, 5, 27, 15)
    both = lake_volumes(frame_of([shapely.MultiPolygon(boxes)]), polar(dem, 11)).compute()
    each = lake_volumes(frame_of(boxes), polar(dem, 11)).compute()
    assert both.volume_reason.tolist() == ["known"]
    assert each.level_m.tolist() == [8.5, 8]  # between the highest cell inside and those outside
    assert both[["level_m", "depth_max_m"]].to_numpy().tolist() == [[8.5, 8.5]]


def test_building_computes_nothing(never_compute):
    lazy = lake_volumes(frame_of([disc()]), polar(bowl(), 9), sinks=polar(bowl(), 5))
    assert isinstance(lazy, dask_geopandas.GeoDataFrame)


def test_only_chunks_that_a_lake_meets_are_read():
    read = set()

    def load(block, block_info=None):
        read.add(block_info[0]["chunk-location"])
        return block

    dem = polar(np.tile(bowl(), (3, 3)), 20)
    dem = dem.copy(data=dem.data.map_blocks(load, dtype=np.float32, meta=np.empty((0, 0), np.float32)))
    found = lake_volumes(frame_of([shapely.affinity.translate(disc(), 20, 20)]), dem).compute()
    assert found.volume_reason.tolist() == ["known"]
    assert read == {(1, 1)}


def test_tasks_have_readable_names():
    names = {dask.utils.key_split(key) for key in lake_volumes(frame_of([disc()]), polar(bowl(), 9)).__dask_graph__()}
    steps = {
        f"{name}-{step}" for name in ("lake-levels", "lake-volumes") for step in ("cut", "deal", "measure", "join")
    }
    assert steps <= names


def test_the_example_runs():
    assert doctest.testmod(volumes).failed == 0


# -- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outline_depth_m": -0.3}, "outline_depth_m must be metres"),
        ({"outline_error_m": -1}, "outline_error_m must be metres"),
        ({"dem_error_m": np.nan}, "dem_error_m must be metres"),
        ({"flat_m": 0}, "flat_m must be above 0"),
        ({"max_void_share": 2}, "max_void_share must lie in 0 to 1"),
        ({"dem_date": "last summer"}, r"date of the DEM cannot be read \['last summer'\]"),
        ({"dem_date": ("2019-08-01", "2019-07-01")}, "date of the DEM cannot be read"),
        ({"sinks": polar(bowl()) > 0}, "sinks must be depths"),
        ({"sinks": polar(bowl(21))}, "sinks and DEM on different grids"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        lake_volumes(frame_of([disc()]), polar(bowl()), **options)


@pytest.mark.parametrize(
    ("frame", "dem", "message"),
    [
        (frame_of([disc()], crs=None), polar(bowl()), "without a CRS"),
        (frame_of([disc()], crs="EPSG:3857"), polar(bowl()), "are in EPSG:3857, the rasters in"),
        (frame_of([shapely.Point(3, 3)]), polar(bowl()), "found a Point"),
        (frame_of([disc()], level_m=[1]), polar(bowl()), "already has the columns level_m"),
        (frame_of([disc()]), polar(np.stack([bowl(), bowl()])), "needs the dims"),
        (
            frame_of([shapely.box(0, 0, 9, 9)], crs="EPSG:4326", transform=Affine(0.1, 0, -50, 0, -0.1, 70)),
            raster(bowl(), transform=Affine(0.1, 0, -50, 0, -0.1, 70), crs="EPSG:4326"),
            "in units of degree, metres are needed",
        ),
    ],
)
def test_frames_and_dems_that_do_not_fit_are_refused(frame, dem, message):
    with pytest.raises(InputError, match=message):
        lake_volumes(frame, dem)


def test_elevations_that_cannot_be_are_refused_with_their_place():
    dem = bowl()
    dem[12, 3] = np.inf
    lazy = lake_volumes(frame_of([disc()]), polar(dem, 10))
    with pytest.raises(InputError, match="a million metres or more") as refused:
        lazy.compute()
    assert "row 10, column 0" in str(pickle.loads(pickle.dumps(refused.value)))
