"""Areas from vector files: any CRS, pixel by pixel whatever the chunks, and clear errors."""

from __future__ import annotations

import warnings

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasters import axis_chunks

import lakescale as ls
from lakescale.areas import area_mask, read_areas

pytestmark = pytest.mark.usefixtures("one_thread")

GRID = ls.Grid(GeoBox((70, 90), Affine(10, 0, 600_000, 0, -10, 7_430_000), "EPSG:32622"))
INSIDE = shapely.box(600_100, 7_429_500, 600_600, 7_429_900)


def write(path, geometry, crs="EPSG:32622"):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        gpd.GeoDataFrame(geometry=list(geometry), crs=crs).to_file(path)
    return path


@settings(max_examples=30)
@given(st.tuples(axis_chunks(70), axis_chunks(90)), st.integers(0, 2**31))
def test_area_mask_asks_each_pixel_centre(chunks, seed):
    rng = np.random.default_rng(seed)
    corners = np.column_stack([rng.uniform(599_900, 601_000, 7), rng.uniform(7_429_200, 7_430_100, 7)])
    area = shapely.make_valid(shapely.Polygon(corners)).union(INSIDE.buffer(3))
    frame = gpd.GeoDataFrame(geometry=[area], crs=GRID.crs)
    x, y = GRID.centres_xy(slice(0, 70), slice(0, 90))
    mask = area_mask(frame, GRID, chunks=chunks, name="aoi")
    assert mask.chunks == chunks
    np.testing.assert_array_equal(mask.values, shapely.contains_xy(area, x, y))


def test_large_tiles_are_decided_at_once_with_the_same_answer():
    grid = ls.Grid(GeoBox((600, 600), Affine(10, 0, 0, 0, -10, 0), "EPSG:3413"))
    ring = shapely.Point(3000, -3000).buffer(2500).difference(shapely.Point(3000, -3000).buffer(900))
    frame = gpd.GeoDataFrame(geometry=[ring], crs=grid.crs)
    x, y = grid.centres_xy(slice(0, 600), slice(0, 600))
    mask = area_mask(frame, grid, chunks=((600,), (600,)), name="aoi")
    np.testing.assert_array_equal(mask.values, shapely.contains_xy(ring, x, y))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3413", "EPSG:3857"])
def test_areas_come_in_any_crs(tmp_path, crs):
    moved = gpd.GeoSeries([INSIDE], crs="EPSG:32622").segmentize(5).to_crs(crs)
    areas = read_areas(write(tmp_path / "aoi.gpkg", moved, crs), GRID, what="area of interest")
    assert areas.crs == GRID.crs
    assert areas.union_all().symmetric_difference(INSIDE).area < 1


def test_areas_are_cut_to_the_grid(tmp_path):
    areas = read_areas(write(tmp_path / "ice.gpkg", [INSIDE.buffer(50_000)]), GRID, what="ice outline")
    assert areas.union_all().bounds == pytest.approx(GRID.bounds_xyxy)


def test_long_edges_are_bent_like_the_projection(tmp_path):
    lonlat = shapely.box(-60, 60, -20, gpd.GeoSeries([INSIDE], crs=32622).to_crs(4326).bounds.maxy[0])
    areas = read_areas(write(tmp_path / "aoi.gpkg", [lonlat], "EPSG:4326"), GRID, what="area of interest")
    x, y = gpd.GeoSeries([shapely.Point(600_350, 7_429_700)], crs=32622).iloc[0].coords[0]
    assert areas.union_all().contains(shapely.Point(x, y))  # 30 km off with straight edges


BOWTIE = shapely.Polygon([(600_100, 7_429_500), (600_600, 7_429_900), (600_600, 7_429_500), (600_100, 7_429_900)])


@pytest.mark.parametrize(
    ("geometry", "crs", "message"),
    [
        ([BOWTIE], "EPSG:32622", "invalid polygon: Self-intersection"),
        ([INSIDE], None, "has no CRS"),
        ([shapely.LineString(INSIDE.exterior.coords)], "EPSG:32622", "must hold polygons only, found LineString"),
        ([shapely.box(0, 0, 1, 1)], "EPSG:32622", "misses the scene"),
    ],
)
def test_unusable_areas_are_named(tmp_path, geometry, crs, message):
    path = write(tmp_path / "ice.gpkg", geometry, crs)
    with pytest.raises(ls.InputError, match=message) as caught:
        read_areas(path, GRID, what="ice outline")
    assert "ice.gpkg" in str(caught.value)
    assert caught.value.mend


def test_missing_empty_and_unreadable_files_are_named(tmp_path):
    (tmp_path / "text.gpkg").write_text("no vectors here")
    empty = gpd.GeoDataFrame({"a": []}, geometry=[], crs="EPSG:32622")
    empty.to_file(tmp_path / "empty.gpkg", geometry_type="Polygon")
    for name, message in [("gone.gpkg", "no such"), ("text.gpkg", "cannot be read"), ("empty.gpkg", "no polygons")]:
        with pytest.raises(ls.InputError, match=message):
            read_areas(tmp_path / name, GRID, what="ice outline")


@pytest.mark.parametrize(
    ("box", "crs"),
    [
        ((-180, 0, 180, 90), 4326),
        ((-140, 0, 40, 89), 4326),
        ((-180, -90, 180, 90), 4326),
        ((-2e7, -2e7, 2e7, 2e7), 3857),
    ],
)
def test_areas_that_reach_round_the_world_cover_the_scene(tmp_path, box, crs):
    areas = read_areas(write(tmp_path / "world.gpkg", [shapely.box(*box)], crs), GRID, what="area of interest")
    assert areas.area.sum() == pytest.approx(700 * 900)


def test_excludes_may_miss_the_scene_and_geoparquet_is_read(tmp_path):
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=32622).to_parquet(tmp_path / "far.parquet")
    assert len(read_areas(tmp_path / "far.parquet", GRID, what="excluded area", may_miss=True)) == 0


def test_of_several_layers_one_must_be_chosen(tmp_path):
    for layer in ("lakes", "dropped"):
        gpd.GeoDataFrame(geometry=[INSIDE], crs=32622).to_file(tmp_path / "two.gpkg", layer=layer)
    with pytest.raises(ls.InputError, match=r"2 layers \(lakes, dropped\)"):
        read_areas(tmp_path / "two.gpkg", GRID, what="ice outline")
