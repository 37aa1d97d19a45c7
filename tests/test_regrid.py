"""Another grid: exact coordinates, the edge rule, four kernels against plain numpy, and any chunking equals none."""

from __future__ import annotations

import logging
import sys

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio.warp
import shapely
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasters import CUP_TRANSFORM, axis_chunks, raster

import lakescale as ls
from lakescale.chunks import Place, plan_blocks, pull, pull_serial
from lakescale.regrid import Mapping, Warp, find_boxes, source_coordinates

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = ["nearest", "bilinear", "cubic", "average"]
MODULE = sys.modules[Mapping.__module__]  # the package's attribute of this name is the function


# -- pairs of grids


def box(crs, lonlat, resolution, shape, turn=0.0):
    """A grid of some shape round a point."""
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(*lonlat)
    middle = Affine.translation(x, y) * Affine.rotation(turn) * Affine.scale(resolution, -resolution)
    return GeoBox(shape, middle * Affine.translation(-shape[1] / 2, -shape[0] / 2), crs)


GLOBE = GeoBox((15000, 30000), Affine(0.012, 0, -180, 0, -0.012, 90), "EPSG:4326")
UTM = {f"EPSG:326{zone}": 6 * zone - 183 for zone in range(19, 28)}
PAIRS = {
    **{
        f"polar to {crs}": (box("EPSG:3413", (lon, 70), 40, (500, 400)), box(crs, (lon, 70), 38, (300, 450)))
        for crs, lon in UTM.items()
    },
    **{
        f"{crs} to polar": (box(crs, (lon, 66), 30, (500, 400)), box("EPSG:3413", (lon + 0.1, 66), 25, (300, 330)))
        for crs, lon in UTM.items()
    },
    "web mercator to polar": (
        box("EPSG:3857", (-49, 69), 38.2185, (900, 900)),
        box("EPSG:3413", (-49, 69), 38, (400, 400)),
    ),
    "polar to web mercator": (
        box("EPSG:3413", (-49, 78), 10, (900, 900)),
        box("EPSG:3857", (-49, 78), 38.2185, (400, 400)),
    ),
    "degrees to UTM": (box("EPSG:4326", (-51, 67), 0.0005, (700, 700)), box("EPSG:32622", (-51, 67), 40, (400, 400))),
    "UTM to degrees": (box("EPSG:32622", (-51, 67), 40, (700, 700)), box("EPSG:4326", (-51, 67), 0.0008, (400, 900))),
    "0.012 degrees to 38 m": (GLOBE, box("EPSG:3413", (-45, 72), 38.2185, (600, 600))),
    "0.012 degrees to web mercator": (GLOBE, box("EPSG:3857", (-45, 72), 38.2185, (600, 600))),
    "0.012 degrees to 3 km, all of Greenland": (GLOBE, box("EPSG:3413", (-42, 72), 3000, (900, 500))),
    "2 m to 38 m": (box("EPSG:3413", (-49, 69), 2, (9000, 9000)), box("EPSG:32622", (-49, 69), 38.2185, (500, 500))),
    "2 m to 38 m web mercator": (
        box("EPSG:3413", (-49, 69), 2, (9000, 9000)),
        box("EPSG:3857", (-49, 69), 38.2185, (500, 500)),
    ),
    "a grid that holds the pole": (GLOBE, box("EPSG:3413", (0, 90), 500, (300, 300))),
    "the pole to UTM": (box("EPSG:3413", (0, 90), 1200, (300, 300)), box("EPSG:32625", (-33, 88), 1000, (300, 300))),
    "the pole to degrees": (
        box("EPSG:3413", (0, 90), 500, (400, 400)),
        box("EPSG:4326", (100, 89.6), 0.002, (450, 500)),
    ),
    "across the antimeridian": (GLOBE, box("EPSG:3413", (180, 75), 400, (300, 300))),
    "across the antimeridian in degrees": (
        box("EPSG:4326", (179.0, 70), 0.01, (400, 600)),
        box("EPSG:3413", (180.5, 70), 300, (400, 400)),
    ),
    "degrees beyond 180 to degrees": (GLOBE, GeoBox((180, 200), Affine(0.01, 0, 179, 0, -0.01, 70), "EPSG:4326")),
    "turned": (box("EPSG:3413", (-49, 69), 40, (300, 250), 30), box("EPSG:32622", (-49, 69), 38, (300, 300), -17)),
}


def exact_coordinates(source, target):
    """Source columns and rows by pyproj at every pixel, the obvious way."""
    row, col = np.indices(target.shape) + 0.5
    x, y = target.transform * (col, row)
    x, y = Transformer.from_crs(target.crs.to_wkt(), source.crs.to_wkt(), always_xy=True).transform(x, y)
    if source.crs.geographic:
        middle = (source.boundingbox.left + source.boundingbox.right) / 2
        turns = np.round((x - middle) / 360)
        x = np.where(np.abs(x - middle) <= source.shape[1] * abs(source.transform.a) / 2, x, x - 360 * turns)
    with np.errstate(invalid="ignore"):  # inf where pyproj has no answer
        return ~source.transform * (x, y)


def place(geobox):
    return Place(0, 0, *geobox.shape)


def is_inside(x, y, source):
    return (x >= 0) & (x <= source.shape[1]) & (y >= 0) & (y <= source.shape[0])


@pytest.mark.parametrize("pair", PAIRS)
def test_source_coordinates_are_within_a_hundredth_of_a_pixel(pair):
    source, target = PAIRS[pair]
    x, y = source_coordinates(ls.Grid(source), ls.Grid(target), place(target))
    exact_x, exact_y = exact_coordinates(source, target)
    finite = np.isfinite(exact_x) & np.isfinite(exact_y)
    assert finite.mean() > 0.5
    np.testing.assert_array_equal(np.isfinite(x) & np.isfinite(y), finite)
    assert np.abs(x - exact_x)[finite].max() < 0.0025
    assert np.abs(y - exact_y)[finite].max() < 0.0025
    inside = is_inside(exact_x, exact_y, source)
    assert inside.any()
    np.testing.assert_array_equal(is_inside(x, y, source), inside)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_block_has_the_coordinates_it_has_in_the_whole(pair):
    source, target = PAIRS[pair]
    x, y = source_coordinates(ls.Grid(source), ls.Grid(target), place(target))
    for row, col, height, width in [(0, 0, 1, 1), (63, 64, 2, 1), (17, 60, 80, 70), (64, 63, 1, 100)]:
        part = source_coordinates(ls.Grid(source), ls.Grid(target), Place(row, col, height, width))
        np.testing.assert_array_equal(part[0], x[row : row + height, col : col + width])
        np.testing.assert_array_equal(part[1], y[row : row + height, col : col + width])


@pytest.mark.parametrize("resampling", ALL)
@pytest.mark.parametrize(
    "pair",
    [
        "polar to EPSG:32622",
        "EPSG:32622 to polar",
        "the pole to UTM",
        "the pole to degrees",
        "turned",
        "UTM to degrees",
    ],
)
def test_nan_exactly_where_the_centre_lies_outside_the_outer_edge(pair, resampling):
    source, target = PAIRS[pair]
    ones = raster(np.ones(source.shape, np.float32), 100, transform=source.transform, crs=source.crs)
    seen = np.isfinite(ls.regrid(ones, target, resampling=resampling, chunks=128).values)
    inside = is_inside(*exact_coordinates(source, target), source)
    assert 0 < inside.mean() < 1
    np.testing.assert_array_equal(seen, inside)


# -- any chunking equals no chunking


WORLD = GeoBox((90, 720), Affine(0.5, 0, -180, 0, -0.5, 90), "EPSG:4326")
POLE = GeoBox((90, 720), Affine(0.5, 0, -180, 0, -0.1, 90), "EPSG:4326")
SMALL = {
    "polar to UTM": (box("EPSG:3413", (-49, 69), 40, (150, 170)), box("EPSG:32622", (-49, 69), 38, (190, 140))),
    "finer": (box("EPSG:3413", (-49, 69), 300, (30, 37)), box("EPSG:3857", (-49, 69), 70, (150, 170))),
    "coarser": (box("EPSG:32622", (-49, 69), 10, (190, 210)), box("EPSG:3413", (-48.99, 69), 37, (70, 75))),
    "pole": (POLE, box("EPSG:3413", (0, 90), 9000, (140, 140))),
    "antimeridian": (WORLD, box("EPSG:3413", (180, 75), 9000, (140, 100))),
}
TURNED = box("EPSG:3413", (-49, 69), 40, (60, 60), 30), box("EPSG:3413", (-49, 69), 170, (20, 20), 77)


@st.composite
def rechunkings(draw):
    source, target = SMALL[draw(st.sampled_from(sorted(SMALL)))]
    chunks = [tuple(draw(axis_chunks(n)) for n in grid.shape) for grid in (source, target)]
    return source, target, *chunks, draw(st.integers(0, 2**32 - 1)), draw(st.booleans())


def noise(shape, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(1000, 300, shape).astype(np.float32)
    values[rng.random(shape) < 0.05] = np.nan
    values[..., 10:25, 12:20] = np.nan
    return values


@pytest.mark.parametrize("resampling", ALL)
@settings(max_examples=25)
@given(case=rechunkings())
def test_any_chunking_equals_none(resampling, case):
    source, target, source_chunks, target_chunks, seed, stack = case
    values = noise((2, *source.shape) if stack else source.shape, seed)
    grid = {"transform": source.transform, "crs": source.crs}
    chunked = ls.regrid(raster(values, source_chunks, **grid), target, resampling=resampling, chunks=target_chunks)
    whole = ls.regrid(raster(values, **grid), target, resampling=resampling, chunks=-1)
    assert chunked.data.chunks[-2:] == target_chunks
    assert chunked.dtype == np.float32
    assert np.isfinite(whole.values).any()
    np.testing.assert_array_equal(chunked.values, whole.values)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("resampling", ALL)
def test_the_serial_twin_agrees(resampling, scheduler):
    source, target = SMALL["pole"]
    chunks = ((50, 1, 89), (1, 64, 75))
    mapping = Mapping(ls.Grid(source), ls.Grid(target))
    boxes = find_boxes(mapping, resampling)
    windows = [[boxes.window(p) for p in row] for row in plan_blocks(chunks)]
    values = noise(source.shape, 3)
    lazy = raster(values, 37, transform=source.transform, crs=source.crs)
    run = Warp(mapping, resampling, MODULE.Missing.of(lazy, resampling))
    serial = pull_serial(values, chunks, windows, run, dtype=np.float32)
    with dask.config.set(scheduler=scheduler):
        np.testing.assert_array_equal(pull(lazy.data, chunks, windows, run, name="test", dtype=np.float32), serial)
        np.testing.assert_array_equal(ls.regrid(lazy, target, resampling=resampling, chunks=chunks), serial)


def test_a_chunk_reads_the_source_chunks_of_its_window_only():
    read = []

    def load(block_info=None):
        read.append(block_info[None]["chunk-location"])
        return np.ones((100, 100), np.float32)

    source, _ = SMALL["polar to UTM"]
    source = GeoBox((1000, 1000), source.transform, source.crs)
    pixels = da.map_blocks(load, chunks=((100,) * 10,) * 2, dtype=np.float32, meta=np.empty((0, 0), np.float32))
    lazy = xr.DataArray(pixels, dims=("y", "x"), coords=ls.Grid(source).coords())
    out = ls.regrid(lazy, source[210:290, 305:390], chunks=50)
    assert (out.values == 1).all()
    assert set(read) <= {(i, j) for i in (2, 3) for j in (3, 4)}  # whole lattice cells


def test_chunks_whose_windows_are_too_large_are_made_in_parts(monkeypatch):
    source, target = PAIRS["2 m to 38 m"]
    mapping = Mapping(ls.Grid(source), ls.Grid(target))
    want = ((500,), (300, 200))
    chunks, windows = MODULE._plan(mapping, want, "average", bands=3)
    assert max(12 * w.height * w.width for row in windows for w in row) <= MODULE._WINDOW_BYTES
    assert len(chunks[0]) > 1
    source, target = SMALL["coarser"]
    values = noise(source.shape, 1)
    lazy = raster(values, 50, transform=source.transform, crs=source.crs)
    whole = ls.regrid(lazy, target, resampling="average")
    monkeypatch.setattr(MODULE, "_WINDOW_BYTES", 50_000)
    parts = ls.regrid(lazy, target, resampling="average", chunks=(70, 50))
    assert parts.data.chunks == ((70,), (50, 25))
    assert {dask.utils.key_split(key) for key in parts.data.__dask_graph__()} >= {"regrid", "regrid-read"}
    np.testing.assert_array_equal(parts.values, whole.values)
    monkeypatch.setattr(MODULE, "_MOST_WINDOW_BYTES", 10_000)
    with pytest.raises(ls.InputError, match=r"GiB of source.*two steps"):
        ls.regrid(lazy, target, resampling="average")


# -- the four kernels, in plain numpy


def plain_nearest(values, x, y):
    height, width = values.shape
    return values[min(max(int(np.floor(y)), 0), height - 1), min(max(int(np.floor(x)), 0), width - 1)]


def plain_bilinear(values, x, y, weights=lambda t: {0: 1 - t, 1: t}):
    if np.isnan(plain_nearest(values, x, y)):
        return np.nan
    j, i = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    total = weight = 0.0
    for di, wy in weights(y - 0.5 - i).items():
        for dj, wx in weights(x - 0.5 - j).items():
            value = plain_nearest(values, j + dj + 0.5, i + di + 0.5)
            if np.isnan(value) and len(weights(0)) > 2:
                return plain_bilinear(values, x, y)
            if not np.isnan(value):
                total, weight = total + wy * wx * float(value), weight + wy * wx
    return total / weight


def keys_weights(t):
    """Keys (1981), a = -0.5, as a function of the distance."""

    def w(s, a=-0.5):
        s = abs(s)
        if s <= 1:
            return (a + 2) * s**3 - (a + 3) * s**2 + 1
        return a * s**3 - 5 * a * s**2 + 8 * a * s - 4 * a

    return {k: w(t - k) for k in (-1, 0, 1, 2)}


@pytest.mark.parametrize(
    ("resampling", "plain"),
    [
        ("nearest", plain_nearest),
        ("bilinear", plain_bilinear),
        ("cubic", lambda v, x, y: plain_bilinear(v, x, y, keys_weights)),
    ],
)
@pytest.mark.parametrize("pair", SMALL)
def test_samplers_equal_plain_numpy(pair, resampling, plain):
    source, target = SMALL[pair]
    values = noise(source.shape, 7)
    grid = {"transform": source.transform, "crs": source.crs}
    out = ls.regrid(raster(values, 40, **grid), target, resampling=resampling, chunks=50).values
    x, y = source_coordinates(ls.Grid(source), ls.Grid(target), place(target))
    inside = is_inside(x, y, source)
    assert np.isnan(out[~inside]).all()
    picked = np.random.default_rng(0).choice(np.flatnonzero(inside), min(4000, inside.sum()), replace=False)
    expected = [plain(values, a, b) for a, b in zip(x.flat[picked], y.flat[picked], strict=True)]
    np.testing.assert_allclose(
        out.flat[picked], np.float32(expected), rtol=2e-6, atol=1e-3 if resampling == "cubic" else 0
    )


@pytest.mark.parametrize(("source", "target"), [SMALL["coarser"], SMALL["polar to UTM"], SMALL["finer"], TURNED])
def test_average_is_the_mean_by_area_under_the_quadrilateral(source, target):
    values = noise(source.shape, 11)
    lazy = raster(values, 40, transform=source.transform, crs=source.crs)
    out = ls.regrid(lazy, target, resampling="average", chunks=33).values
    to_source = Transformer.from_crs(target.crs.to_wkt(), source.crs.to_wkt(), always_xy=True)
    row, col = np.indices(source.shape).reshape(2, -1)
    cells = shapely.box(col, row, col + 1, row + 1)
    tree = shapely.STRtree(cells)
    compared = 0
    for row, col in np.random.default_rng(0).integers(0, target.shape, (150, 2)):
        corners = np.add([(0, 0), (0, 1), (1, 1), (1, 0), (0.5, 0.5)], (row, col))
        x, y = ~source.transform * to_source.transform(*(target.transform * (corners[:, 1], corners[:, 0])))
        if not is_inside(x[-1], y[-1], source):
            assert np.isnan(out[row, col])
            continue
        quad = shapely.Polygon(np.stack([x[:-1], y[:-1]], axis=1))
        touched = tree.query(quad)
        area = shapely.area(shapely.intersection(cells[touched], quad))
        under = values.ravel()[touched]
        seen = ~np.isnan(under)
        share = area[seen].sum() / area.sum()
        if abs(share - 0.5) > 0.01:
            expected = (area * np.nan_to_num(under)).sum() / area[seen].sum() if share > 0.5 else np.nan
            np.testing.assert_allclose(out[row, col], expected, rtol=2e-4)
            compared += share > 0.5
    assert compared > 30


def test_average_by_whole_factors_is_the_block_mean():
    values = np.random.default_rng(0).integers(0, 1000, (120, 90)).astype(np.float32)
    lazy = raster(values, 50)
    out = ls.regrid(lazy, lazy.odc.geobox.zoom_out(3), resampling="average", chunks=7)
    np.testing.assert_array_equal(out.values, np.float32(values.reshape(40, 3, 30, 3).mean(axis=(1, 3), dtype=float)))


def test_average_wants_half_of_what_it_covers_to_be_seen():
    nan = np.nan
    values = np.array([[1, nan, nan, nan, 5, nan], [3, 2, 4, nan, nan, 7]], np.float32)
    lazy = raster(values)
    out = ls.regrid(lazy, lazy.odc.geobox.zoom_out(2), resampling="average").values
    np.testing.assert_array_equal(out, np.array([[2, nan, 6]], np.float32))


@pytest.mark.parametrize("resampling", ALL)
@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:4326"])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_the_same_grid_gives_the_same_bits(lead, crs, resampling):
    transform = CUP_TRANSFORM if crs == "EPSG:3857" else Affine(0.012, 0, -180, 0, -0.012, 90)
    values = noise((*lead, 70, 150), 5)
    same = raster(values, 40, transform=transform, crs=crs)
    np.testing.assert_array_equal(ls.regrid(same, same, resampling=resampling).values, values)
    np.testing.assert_array_equal(ls.regrid(same, same.odc.geobox, resampling=resampling, chunks=33).values, values)


@pytest.mark.parametrize("resampling", ALL)
def test_a_globe_in_degrees_is_itself_up_to_its_edges(resampling):
    globe = GeoBox((90, 180), Affine(2, 0, -180, 0, -2, 90), "EPSG:4326")
    values = noise(globe.shape, 2)
    lazy = raster(values, 50, transform=globe.transform, crs=globe.crs)
    np.testing.assert_array_equal(ls.regrid(lazy, globe, resampling=resampling).values, values)
    turned = GeoBox((90, 180), Affine(2, 0, 0, 0, -2, 90), "EPSG:4326")  # 0..360
    np.testing.assert_array_equal(ls.regrid(lazy, turned, resampling=resampling).values, np.roll(values, 90, axis=1))


@pytest.mark.parametrize("resampling", ALL)
def test_a_shift_by_whole_pixels_copies(resampling):
    values = noise((100, 120), 5)
    lazy = raster(values, 40)
    shifted = GeoBox((100, 120), CUP_TRANSFORM * Affine.translation(-7, 30), "EPSG:3857")
    expected = np.full_like(values, np.nan)
    expected[:70, 7:] = values[30:, :113]
    np.testing.assert_array_equal(ls.regrid(lazy, shifted, resampling=resampling, chunks=31).values, expected)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_agrees_with_gdal_on_smooth_data_and_is_nearer_to_the_truth(resampling):
    source, target = box("EPSG:3413", (-49, 69), 40, (400, 420)), box("EPSG:32622", (-49, 69), 40, (380, 400))

    def surface(x, y):
        return 1000 + 100 * np.sin(y / 40) * np.cos(x / 60) + 0.5 * y

    row, col = np.indices(source.shape) + 0.5
    values = surface(col, row).astype(np.float32)
    lazy = raster(values, 128, transform=source.transform, crs=source.crs)
    ours = ls.regrid(lazy, target, resampling=resampling, chunks=128).values
    theirs = np.full(target.shape, np.nan, np.float32)
    rasterio.warp.reproject(
        values,
        theirs,
        src_transform=source.transform,
        src_crs=str(source.crs),
        dst_transform=target.transform,
        dst_crs=str(target.crs),
        src_nodata=np.nan,
        dst_nodata=np.nan,
        resampling=rasterio.warp.Resampling[resampling],
    )
    assert (
        np.isfinite(ours) != np.isfinite(theirs)
    ).sum() < 10  # the transform of GDAL is good to an eighth of a pixel
    x, y = exact_coordinates(source, target)
    inner = (x > 2) & (x < 418) & (y > 2) & (y < 398)
    assert np.abs(ours - theirs)[inner].max() < (3.1 if resampling == "nearest" else 0.3)
    truth = surface(x, y)
    error = np.abs(ours - truth)[inner]
    assert error.max() < {"nearest": 1.6, "bilinear": 0.012, "cubic": 0.001}[resampling]
    assert error.mean() <= np.abs(theirs - truth)[inner].mean()


# -- kinds of numbers


def test_classes_keep_their_dtype_and_say_not_seen_by_nodata_or_zero():
    beyond = GeoBox((4, 8), CUP_TRANSFORM * Affine.translation(-2, -1), "EPSG:3857")
    for dtype in (bool, np.uint8, np.int16, np.int64):
        values = np.ones((4, 5), dtype)
        out = ls.regrid(raster(values, 2), beyond, resampling="nearest")
        assert out.dtype == dtype
        expected = np.zeros((4, 8), dtype)
        expected[1:, 2:7] = 1
        np.testing.assert_array_equal(out.values, expected)
    out = ls.regrid(raster(np.ones((4, 5), np.uint8)).assign_attrs(_FillValue=255), beyond, resampling="nearest")
    assert set(np.unique(out.values)) == {1, 255}
    assert out.rio.nodata == 255
    out = ls.regrid(raster(np.ones((4, 5), np.uint8)).assign_attrs(_FillValue=-9999), beyond, resampling="nearest")
    assert set(np.unique(out.values)) == {0, 1}


@pytest.mark.parametrize("resampling", ALL)
def test_nodata_becomes_nan_in_floats(resampling):
    values = noise((30, 40), 1)
    expected = ls.regrid(raster(values), raster(values), resampling=resampling).values
    marked = raster(np.nan_to_num(values, nan=-9999.0).astype(np.float64)).assign_attrs(_FillValue=-9999.0, units="m")
    out = ls.regrid(marked, marked, resampling=resampling)
    assert out.dtype == np.float32
    assert out.attrs == {"units": "m"}
    np.testing.assert_array_equal(out.values, expected)


def test_pixels_all_of_whose_bands_are_nodata_are_missing():
    values = np.full((3, 4, 4), 100, np.uint8)
    values[:, 0, 0] = 0
    values[0, 2, 2] = 0
    lazy = raster(values, 2).assign_attrs(nodata_values=[0])
    out = ls.regrid(lazy, lazy).values
    assert np.isnan(out).sum() == 3
    assert np.isnan(out[:, 0, 0]).all()
    assert out[0, 2, 2] == 0


def test_coordinates_names_and_attributes_follow():
    source, target = SMALL["finer"]
    lazy = raster(noise((2, *source.shape), 0), 20, transform=source.transform, crs=source.crs, bands=["red", "nir"])
    lazy = lazy.rename("scene").assign_attrs(units="1").assign_coords(time=np.datetime64("2019-08-02", "ns"))
    like = raster(np.zeros(target.shape), 60, transform=target.transform, crs=target.crs)
    out = ls.regrid(lazy, like)
    assert out.data.chunks == ((2,), *like.data.chunks)
    assert list(out.band.values) == ["red", "nir"]
    assert out.odc.geobox == target
    assert out.rio.crs.to_epsg() == 3857
    assert (out.name, out.attrs["units"], str(out.time.values)[:10]) == ("scene", "1", "2019-08-02")
    np.testing.assert_array_equal(ls.regrid(lazy, ls.Grid(target), chunks=60), out)


def test_numpy_rasters_work_too():
    values = noise((30, 40), 0)
    inside = xr.DataArray(values, dims=("y", "x"), coords=raster(values).coords)
    np.testing.assert_array_equal(ls.regrid(inside, inside).values, values)


def test_building_computes_nothing(never_compute):
    for source, target in (*SMALL.values(), PAIRS["a grid that holds the pole"]):
        pixels = da.zeros(tuple(source.shape), chunks=1000, dtype=np.float32)
        for resampling in ALL:
            ls.regrid(
                xr.DataArray(pixels, dims=("y", "x"), coords=ls.Grid(source).coords()), target, resampling=resampling
            )


def test_equal_requests_have_equal_names():
    source, target = SMALL["finer"]
    lazy = raster(noise(source.shape, 0), 20, transform=source.transform, crs=source.crs)
    assert ls.regrid(lazy, target).data.name == ls.regrid(lazy, target).data.name
    assert ls.regrid(lazy, target).data.name != ls.regrid(lazy, target, resampling="cubic").data.name


# -- bad input


def test_grids_that_do_not_meet_give_nan_and_say_so(caplog):
    lazy = raster(np.ones((20, 20), np.float32)).rename("dem")
    with caplog.at_level(logging.WARNING, "lakescale.regrid"):
        out = ls.regrid(lazy, box("EPSG:32719", (-70, -30), 30, (50, 50)), chunks=20)
    assert np.isnan(out.values).all()
    assert "dem does not meet the target grid" in caplog.text


PLAIN = raster(np.zeros((4, 4), np.float32)).rename("dem")
NO_CRS = xr.DataArray(np.zeros((4, 4)), {"y": range(4), "x": range(4)}, name="dem")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ls.regrid(PLAIN, PLAIN, resampling="sinc"), r"unknown resampling 'sinc' \[dem\].*cubic, average"),
        (lambda: ls.regrid(NO_CRS, PLAIN), r"without a CRS \[dem\].*write_crs"),
        (lambda: ls.regrid(PLAIN, NO_CRS), r"without a CRS \[dem\].*write_crs"),
        (lambda: ls.regrid(PLAIN, GeoBox((4, 4), CUP_TRANSFORM, None)), r"without a CRS \[like\].*GeoBox"),
        (lambda: ls.regrid(PLAIN, "EPSG:3413"), r"like must be a Grid.*got str \[like\].*geobox"),
        (lambda: ls.regrid(PLAIN.T, PLAIN), r"needs the dims .*'x', 'y'.*transpose"),
        (lambda: ls.regrid(PLAIN.expand_dims(["time", "band"]), PLAIN), r"needs the dims .*one by one"),
        (lambda: ls.regrid(PLAIN.astype(complex), PLAIN), r"got complex128 \[dem\].*astype"),
        (lambda: ls.regrid(PLAIN, PLAIN, chunks=(3, (1, 1))), r"do not fit a grid of \(4, 4\).*\[chunks\].*sizes"),
        (lambda: ls.regrid(PLAIN[:0], PLAIN), r"without pixels"),
    ],
)  # fmt: skip
def test_bad_requests_say_what_where_and_how_to_mend_it(call, message):
    with pytest.raises(ls.InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("int16", 9999), ("int16", 32767), ("int8", 127), ("int32", 2**31 - 1), ("int16", -9999)]
)
def test_classes_outside_the_source_are_the_nodata_they_declare(dtype, nodata):
    source = raster(np.ones((8, 8), dtype), transform=Affine(10, 0, 0, 0, -10, 80), crs="EPSG:32622").rio.write_nodata(
        nodata
    )
    wide = GeoBox((12, 12), Affine(10, 0, -20, 0, -10, 100), "EPSG:32622")
    moved = ls.regrid(source, wide, resampling="nearest")
    assert moved.dtype == dtype
    assert (moved.values == nodata).sum() == 144 - 64
    assert ls.seen_mask(moved).values.sum() == 64


def test_what_was_not_seen_stays_so():
    seen = np.ones((8, 8), bool)
    seen[:, :4] = False
    transform = Affine(10, 0, 0, 0, -10, 80)
    scene = raster(np.full((1, 8, 8), 7, np.uint8), transform=transform, crs="EPSG:32622", bands=["red"])
    scene = scene.assign_coords(seen=(("y", "x"), seen))
    half = GeoBox((16, 16), Affine(5, 0, 0, 0, -5, 80), "EPSG:32622")
    for how in ("nearest", "bilinear"):
        moved = ls.regrid(scene, half, resampling=how)
        np.testing.assert_array_equal(ls.seen_mask(moved), seen.repeat(2, 0).repeat(2, 1))
    assert ls.regrid(scene, half, resampling="nearest").dtype == np.uint8


def test_a_raster_in_memory_has_the_same_tasks_twice():
    source = raster(np.ones((8, 8), np.float32), transform=Affine(10, 0, 0, 0, -10, 80), crs="EPSG:32622").compute()
    like = GeoBox((4, 4), Affine(20, 0, 0, 0, -20, 80), "EPSG:32622")
    assert ls.regrid(source, like).data.name == ls.regrid(source, like).data.name
