"""Ice: polygons and rasters of percent to a mask, the largest piece of each region, and clear errors."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.transform import from_origin
from rasters import axis_chunks, raster

import lakescale as ls
from lakescale.areas import read_areas
from lakescale.evidence.ice import (
    ice_mask,
    ice_outlines,
    ice_percent,
    ice_unknown,
    is_raster,
    keep_largest,
    require_ice,
)

pytestmark = pytest.mark.usefixtures("one_thread")

GRID = ls.Grid(GeoBox((120, 150), Affine(300, 0, 580_000, 0, -300, 7_450_000), "EPSG:32622"))
CELL = 0.012


def write_percent(path, percent, west=-49.6, north=67.3, **options):
    """Write percent as NCSCDv2 has it: EPSG:4326, cells of 0.012 degrees."""
    profile = {
        "driver": "GTiff", "count": 1, "height": percent.shape[0], "width": percent.shape[1], "dtype": percent.dtype,
        "crs": "EPSG:4326", "transform": from_origin(west, north, CELL, CELL),
    }  # fmt: skip
    with rasterio.open(path, "w", **(profile | options)) as sink:
        sink.write(percent, 1)
    return path


def cells_under(grid, west=-49.6, north=67.3):
    """Row and column of the cell that each pixel centre lies in, by pyproj."""
    x, y = grid.centres_xy(*(slice(0, n) for n in grid.shape))
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x, y)
    return np.floor((north - lat) / CELL).astype(int), np.floor((lon - west) / CELL).astype(int)


@pytest.fixture(scope="module")
def percent_file(tmp_path_factory):
    rng = np.random.default_rng(3)
    percent = rng.integers(0, 131, (50, 100)).astype(np.uint8)
    percent[:5] = 50
    percent[5:8] = 51
    return write_percent(tmp_path_factory.mktemp("ice") / "percent.tif", percent), percent


@settings(max_examples=15)
@given(chunks_y=axis_chunks(120), chunks_x=axis_chunks(150))
def test_each_pixel_asks_the_cell_it_lies_in(percent_file, chunks_y, chunks_x):
    path, percent = percent_file
    row, col = cells_under(GRID)
    covered = (row >= 0) & (row < 50) & (col >= 0) & (col < 100)
    assert 0.3 < covered.mean() < 1
    found = np.where(covered, percent[row.clip(0, 49), col.clip(0, 99)], 255)
    ice = ice_mask(path, GRID, chunks=(chunks_y, chunks_x))
    assert ice.data.chunks == (chunks_y, chunks_x)
    np.testing.assert_array_equal(ice.values, (found > 50) & (found <= 100))
    np.testing.assert_array_equal(ice_unknown(path, GRID, chunks=40).values, found > 100)
    np.testing.assert_array_equal(ice_mask(path, GRID, min_percent=90, chunks=64).values, (found > 90) & (found <= 100))
    known = ice_percent(path, GRID, chunks=64).values
    np.testing.assert_array_equal(known, np.where(found > 100, np.nan, found).astype("f4"))


def test_the_share_that_is_unknown_is_computed_with_the_mask(percent_file, monkeypatch):
    import dask

    from lakescale.dem import pixels

    path, _ = percent_file
    reads = []
    original = pixels.read_window
    monkeypatch.setattr(pixels, "read_window", lambda *args: reads.append(args) or original(*args))
    ice, unknown = ice_mask(path, GRID), ice_unknown(path, GRID).mean()
    _, share = dask.compute(ice, unknown)
    assert 0.1 < float(share) < 0.9
    assert len(reads) == 1


def test_building_computes_nothing(percent_file, never_compute):
    ice = ice_mask(percent_file[0], GRID, chunks=50)
    assert (ice.dtype, ice.name, ice.shape) == (bool, "ice", GRID.shape)
    assert ice_outlines(ice).crs == GRID.crs


def test_nodata_and_negative_numbers_are_unknown(tmp_path):
    percent = np.full((50, 100), 80, np.float32)
    percent[20:] = -9999
    percent[:, 60:] = np.nan
    path = write_percent(tmp_path / "percent.tif", percent)
    row, col = cells_under(GRID)
    known = (row >= 0) & (row < 20) & (col >= 0) & (col < 60)
    np.testing.assert_array_equal(ice_mask(path, GRID).values, known)
    np.testing.assert_array_equal(ice_unknown(path, GRID).values, ~known)


def test_a_raster_of_0_and_1_needs_its_own_threshold(tmp_path):
    path = write_percent(tmp_path / "mask.tif", np.ones((200, 200), np.uint8), west=-50.5, north=68)
    outlines = ice_outlines(ice_mask(path, GRID)).compute()
    with pytest.raises(ls.InputError, match="no ice within the scene") as caught:
        require_ice(outlines, str(path))
    assert "min_percent=0.5 (--ice-percent) if it holds 0 and 1" in caught.value.mend
    assert ice_mask(path, GRID, min_percent=0.5).values.all()


def test_outlines_of_a_mask_are_its_pixels(percent_file):
    ice = ice_mask(percent_file[0], GRID, chunks=37)
    outlines = ice_outlines(ice).compute()
    require_ice(outlines, "percent.tif")
    assert outlines.area.sum() == pytest.approx(ice.values.sum() * 300**2)
    some = ice_outlines(ice, min_area_m2=2e6).compute()
    assert 0 < len(some) < len(outlines)


def test_polygons_are_asked_at_pixel_centres(tmp_path):
    box = shapely.box(590_010, 7_420_010, 600_020, 7_440_020)
    frame = gpd.GeoDataFrame(geometry=[box], crs=GRID.crs)
    frame.to_crs(3413).to_file(tmp_path / "ice.gpkg")
    x, y = GRID.centres_xy(slice(0, 120), slice(0, 150))
    expected = shapely.contains_xy(box, x, y)
    for source in (tmp_path / "ice.gpkg", frame):
        np.testing.assert_array_equal(ice_mask(source, GRID, chunks=64).values, expected)
        assert not ice_unknown(source, GRID, chunks=64).values.any()
    assert not is_raster(frame)
    assert not is_raster(tmp_path / "ice.gpkg")
    assert is_raster("https://host/NCSCDv2.TIF?token=1")


def test_ice_elsewhere_is_refused_with_both_places(tmp_path):
    far = write_percent(tmp_path / "far.tif", np.full((50, 50), 100, np.uint8), west=30, north=-70)
    with pytest.raises(ls.InputError, match=r"misses the scene: it lies in 30, -70.6, 30.6, -70, the scene in -49"):
        ice_mask(far, GRID)
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(tmp_path / "far.gpkg")
    with pytest.raises(ls.InputError, match="misses the scene"):
        ice_mask(tmp_path / "far.gpkg", GRID)


def test_a_raster_that_meets_only_a_corner_of_the_scene_is_taken(tmp_path):
    row, col = cells_under(GRID)
    west, north = -49.6 + CELL * col[-1, -1], 67.3 - CELL * row[-1, -1]
    corner = write_percent(tmp_path / "corner.tif", np.full((1, 1), 100, np.uint8), west=west, north=north)
    ice = ice_mask(corner, GRID).values
    assert ice[-1, -1]
    assert 0 < ice.sum() < 30


@pytest.mark.parametrize(("source", "message"), [("gone.tif", "no such file"), ("gone.gpkg", "no such ice outline")])
def test_missing_sources_are_named(tmp_path, source, message):
    with pytest.raises(ls.InputError, match=message):
        ice_mask(tmp_path / source, GRID)


def test_options_are_checked(percent_file, tmp_path):
    with pytest.raises(ls.InputError, match=r"0\.\.100"):
        ice_mask(percent_file[0], GRID, min_percent=100)
    with pytest.raises(ls.InputError, match="a raster of percent is needed"):
        ice_percent(tmp_path / "ice.gpkg", GRID)


# -- the largest piece


def frame(*geometry, crs="EPSG:3413", **columns):
    return gpd.GeoDataFrame(columns, geometry=list(geometry), crs=crs)


def test_the_largest_by_true_area_not_by_the_projections():
    north = shapely.box(-5_600_000, 15_600_000, -5_590_000, 15_609_000)  # 90 km2 in EPSG:3857, less than 10 true
    south = shapely.box(-5_600_000, 9_000_000, -5_592_000, 9_008_000)
    largest = keep_largest(frame(north, south, crs="EPSG:3857"))
    assert largest.geometry.iloc[0].equals(south)
    assert north.area > south.area
    assert len(largest) == 1
    assert largest.area_m2[0] < 0.5 * south.area


def test_pieces_that_share_an_edge_are_one_and_corners_do_not_join():
    a, b = shapely.box(0, -1e6, 1000, -999_000), shapely.box(1000, -1e6, 2000, -999_000)
    c = shapely.box(2000, -999_000, 3500, -998_000)
    largest = keep_largest(frame(shapely.MultiPolygon([a, c]), b))
    assert largest.geometry.iloc[0].equals(shapely.union(a, b))


def test_per_region_the_ice_is_cut_first():
    """Most of the ice sheet lies outside the region: within it, the ice cap is larger."""
    sheet, cap = shapely.box(0, -2e6, 100_000, -1.9e6), shapely.box(110_000, -2e6, 130_000, -1.98e6)
    region = shapely.box(95_000, -2e6, 140_000, -1.99e6)
    far = shapely.box(500_000, -2e6, 501_000, -1.99e6)
    around = shapely.box(-1000, -2.1e6, 140_000, -1.8e6)
    regions = frame(region, far, around).set_index(np.array([7, 8, 9]))
    found = keep_largest(frame(sheet, cap), regions)
    assert found.region.tolist() == [7, 9]
    assert found.geometry[0].equals(cap.intersection(region))
    assert found.geometry[1].equals(sheet)
    alone = keep_largest(frame(sheet, cap), regions.loc[[7]])
    assert alone.geometry[0].equals(found.geometry[0])


def test_regions_in_another_crs_and_regions_without_ice():
    ice = frame(shapely.box(-100_000, -2e6, 100_000, -1.9e6))
    lonlat = frame(shapely.box(-60, 60, -20, 80), crs="EPSG:4326")
    found = keep_largest(ice, lonlat)
    assert found.crs == ice.crs
    assert found.geometry[0].equals(ice.geometry[0])
    none = keep_largest(ice, frame(shapely.box(0, 0, 10, 10)))
    assert len(none) == 0
    assert {"area_m2", "region", "geometry"} <= set(none.columns)
    with pytest.raises(ls.InputError, match="no ice"):
        require_ice(none, "ice.gpkg")


def test_frames_that_cannot_be_used_are_named():
    good = frame(shapely.box(0, 0, 1, 1))
    with pytest.raises(ls.InputError, match="without a CRS"):
        keep_largest(gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)]))
    with pytest.raises(ls.InputError, match="regions are empty"):
        keep_largest(good, good.iloc[:0])


def test_real_ice_and_regions(data_dir):
    """Region 3 of the Cup lies on the ice sheet's western margin; the seven basins are one piece there."""
    regions = gpd.read_file(data_dir / "vector" / "lakes_regions.gpkg").set_index("region_num")
    bounds = regions.loc[[3]].to_crs(3413).total_bounds
    grid = ls.Grid(GeoBox.from_bbox(tuple(bounds), "EPSG:3413", resolution=2000))
    source = data_dir / "vector" / "greenland_ice_basins.shp"
    basins = read_areas(source, grid, what="ice outline")
    largest = keep_largest(basins, regions.loc[[3]])
    assert largest.region.tolist() == [3]
    region = regions.loc[[3]].segmentize(2000).to_crs(3413)
    total = basins.union_all().intersection(region.union_all())
    assert 0.8 * total.area < largest.area.sum() <= total.area * (1 + 1e-9)
    ice = ice_mask(source, grid, chunks=50).values
    assert 0.1 < ice.mean() < 1
    assert np.count_nonzero(ice) * 2000**2 == pytest.approx(basins.union_all().area, rel=0.02)


def test_a_mask_on_the_cups_grid(percent_file):
    """EPSG:3857 pixels of 38 m, as the mosaics of the Cup have them."""
    x, y = Transformer.from_crs(4326, 3857, always_xy=True).transform(-49.3, 67.1)
    like = raster(np.zeros((60, 70), bool), transform=Affine(38.2185, 0, x, 0, -38.2185, y))
    path, percent = percent_file
    row, col = cells_under(ls.Grid.of(like))
    found = percent[row, col]
    np.testing.assert_array_equal(ice_mask(path, ls.Grid.of(like)).values, (found > 50) & (found <= 100))
