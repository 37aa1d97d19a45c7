"""Outlines against rasterio on the whole array, bit for bit; true areas against the ellipsoid."""

from __future__ import annotations

from collections import defaultdict

import dask_geopandas
import geopandas as gpd
import numpy as np
import pytest
import rasterio.features
import shapely
from affine import Affine
from hypothesis import given
from pyproj import Geod
from rasters import CUP_TRANSFORM, chunked, label_images, masks, raster

import lakescale as ls
from lakescale.cluster import compute
from lakescale.polygons import areas_3857_m2, areas_m2, outline_parts, to_map, to_pixels

pytestmark = pytest.mark.usefixtures("one_thread")


def whole_array_outlines(labels, transform):
    """One geometry a label by GDAL's polygonizer on the whole array, put together in pixel coordinates."""
    parts = defaultdict(list)
    for shape, value in rasterio.features.shapes(labels.astype(np.int32), mask=labels > 0, connectivity=4):
        parts[int(value)].append(shapely.geometry.shape(shape))
    whole = {k: p[0] if len(p) == 1 else shapely.MultiPolygon(p) for k, p in parts.items()}
    return {k: to_map(np.array([shapely.normalize(g)]), transform)[0] for k, g in whole.items()}


@given(chunked(label_images()))
def test_polygonize_equals_the_whole_array_bit_for_bit(case):
    labels, chunks = case
    frame = ls.polygonize(raster(labels, chunks)).compute()
    expected = whole_array_outlines(labels, CUP_TRANSFORM)
    assert frame.label.is_unique
    assert set(frame.label) == set(expected)
    for label, geometry in zip(frame.label, frame.geometry, strict=True):
        assert shapely.to_wkb(geometry) == shapely.to_wkb(expected[label])


@given(chunked(masks()))
def test_outlines_are_valid_without_collinear_vertices_and_cover_their_pixels(case):
    mask, chunks = case
    frame = ls.polygonize(raster(mask, chunks)).compute()
    assert frame.is_valid.all()
    pixels = to_pixels(frame.geometry.values, CUP_TRANSFORM)
    assert shapely.area(pixels).sum() == mask.sum()
    for ring in shapely.get_rings(pixels):
        steps = np.diff(shapely.get_coordinates(ring), axis=0)
        turned = np.vstack([steps, steps[:1]])
        crosses = turned[:-1, 0] * turned[1:, 1] - turned[:-1, 1] * turned[1:, 0]
        assert (crosses != 0).all()


def test_holes_that_touch_at_corners_stay_valid():
    image = np.ones((7, 7), int)
    for r, c in [(1, 1), (2, 2), (3, 3), (3, 1), (5, 5), (4, 4)]:
        image[r, c] = 0
    (polygon,), _ = outline_parts(image)
    assert polygon.is_valid
    assert polygon.area == 43
    assert len(polygon.interiors) == 6


def test_a_label_in_far_places_is_one_row():
    labels = np.zeros((12, 12), np.int32)
    labels[0, 0] = labels[11, 11] = labels[5, 5] = 3
    frame = ls.polygonize(raster(labels, 2)).compute()
    assert list(frame.label) == [3]
    assert frame.geometry.iloc[0].geom_type == "MultiPolygon"
    assert len(frame.geometry.iloc[0].geoms) == 3


def test_partitions_bound_their_rows_so_that_spatial_joins_find_them():
    rng = np.random.default_rng(0)
    frame = ls.polygonize(raster(rng.random((40, 40)) < 0.3, 10))
    assert isinstance(frame, dask_geopandas.GeoDataFrame)
    bounds = frame.spatial_partitions
    assert len(bounds) == frame.npartitions
    for box, part in zip(bounds, frame.to_delayed(), strict=True):
        rows = part.compute()
        assert rows.geometry.covered_by(box.buffer(1e-6)).all()


def test_an_empty_mask_gives_an_empty_frame_with_crs():
    frame = ls.polygonize(raster(np.zeros((9, 9), bool), 4)).compute()
    assert len(frame) == 0
    assert frame.crs.to_epsg() == 3857
    assert list(frame.columns) == ["label", "geometry"]


def test_building_computes_nothing(never_compute):
    ls.polygonize(raster(np.zeros((50, 50), bool), 7), min_area_m2=10)


def test_least_areas_count_the_whole_region_over_its_seams():
    labels = np.zeros((20, 20), np.int32)
    labels[4:14, 4:14] = 1  # 100 pixels over many chunks
    labels[16, 16] = 2
    pixel_3857 = 38.21851414258808**2
    image = raster(labels, 3)
    assert set(ls.polygonize(image, min_area_3857_m2=100 * pixel_3857 - 1).compute().label) == {1}
    assert len(ls.polygonize(image, min_area_3857_m2=100 * pixel_3857 + 1).compute()) == 0
    true = areas_m2(ls.polygonize(image).compute().query("label == 1").geometry)[0]
    assert set(ls.polygonize(image, min_area_m2=true - 1e-3).compute().label) == {1}
    assert len(ls.polygonize(image, min_area_m2=true + 1e-3).compute()) == 0


@pytest.mark.parametrize(
    ("crs", "x", "y"),
    [
        ("EPSG:3857", -5_500_000, 11_500_000),
        ("EPSG:3413", -150_000, -2_200_000),
        ("EPSG:32622", 540_000, 7_470_000),
        ("EPSG:3031", 2_100_000, 700_000),
        ("EPSG:32643", 500_000, 100_000),
    ],
)
def test_true_areas_agree_with_the_ellipsoid(crs, x, y):
    box = gpd.GeoSeries([shapely.box(x, y, x + 1000, y + 700)], crs=crs)
    lonlat = box.segmentize(10).to_crs("EPSG:4326").iloc[0]
    geodesic, _ = Geod(ellps="WGS84").geometry_area_perimeter(lonlat)
    np.testing.assert_allclose(areas_m2(box)[0], abs(geodesic), rtol=2e-6)


def test_the_cups_areas_are_web_mercator_areas():
    square = gpd.GeoSeries([shapely.box(-5_500_000, 9_900_000, -5_499_000, 9_901_000)], crs="EPSG:3857")
    assert areas_3857_m2(square)[0] == pytest.approx(1e6)
    assert areas_3857_m2(square)[0] / areas_m2(square)[0] == pytest.approx(7.0, abs=1.5)
    elsewhere = square.to_crs("EPSG:3413")
    assert areas_3857_m2(elsewhere)[0] == pytest.approx(1e6, rel=1e-3)


def test_grids_of_degrees_or_turned_grids_keep_their_coordinates():
    cos, sin = 10 * np.cos(0.5), 10 * np.sin(0.5)
    turned = Affine(cos, sin, 400_000, sin, -cos, 7_000_000)
    labels = np.zeros((5, 5), np.int32)
    labels[1, 2] = 1
    frame = ls.polygonize(raster(labels, 2, transform=turned, crs="EPSG:32622")).compute()
    corner = (2 * cos + sin + 400_000, 2 * sin - cos + 7_000_000)
    assert shapely.distance(shapely.Point(corner), frame.geometry.iloc[0].exterior) < 1e-6
    assert frame.geometry.iloc[0].area == pytest.approx(100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.astype(float), "must be integers or a bool mask, got float64"),
        (lambda r: r.expand_dims("time"), "dims"),
        (lambda r: r.drop_vars(["spatial_ref", "x", "y"]), "without a CRS"),
    ],
)
def test_bad_labels_are_named(change, message):
    with pytest.raises(ls.InputError, match=message):
        ls.polygonize(change(raster(np.zeros((4, 4), np.int32))))


def test_outlines_of_a_part_are_frames_also_beside_an_array():
    """Dask would take the tasks of the part that is not asked for as the answer."""
    whole = raster(np.eye(8, dtype=bool), (4, 4))
    part = ls.polygonize(whole.isel(y=slice(0, 4), x=slice(0, 4)))
    frame, array = compute(part, whole)
    assert len(frame) == 1
    assert frame.geometry.area.sum() == pytest.approx(4 * abs(CUP_TRANSFORM.a * CUP_TRANSFORM.e))
    np.testing.assert_array_equal(array, whole)
