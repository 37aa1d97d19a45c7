"""Fills of chunked DEMs against a plain priority-flood on the whole array."""

from __future__ import annotations

import logging
import pickle
from functools import cache

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from flooding import bowl, dems, priority_flood, rough, serpentine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import chunked, raster

from lakescale.chunks import split_blocks, stitch, stitch_serial
from lakescale.depressions import fill_stitch, fill_tiled
from lakescale.kernels.flood import fill_array
from lakescale.schema import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

NODATA = ("wall", "outlet")


def filled(dem, chunks, nodata="wall"):
    return fill_tiled(raster(dem, chunks), nodata=nodata).values


def assert_bits_equal(ours, expected):
    """Equal values, voids in the same cells, and no -0.0 either."""
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(np.signbit(ours) & ~np.isnan(ours), np.signbit(expected) & ~np.isnan(expected))


@pytest.mark.parametrize("nodata", NODATA)
@given(case=chunked(dems()))
def test_any_chunks_equal_a_priority_flood_of_the_whole(nodata, case):
    dem, chunks = case
    expected = priority_flood(dem, nodata)
    assert_bits_equal(filled(dem, chunks, nodata), expected)
    serial = stitch_serial(split_blocks(dem, chunks), fill_stitch(nodata), chunks)
    assert_bits_equal(np.block(serial), expected)


@pytest.mark.parametrize("nodata", NODATA)
@given(dem=dems(largest=12))
def test_chunks_of_one_cell_equal_a_priority_flood(nodata, dem):
    assert_bits_equal(filled(dem, 1, nodata), priority_flood(dem, nodata))


@pytest.mark.parametrize("nodata", NODATA)
@given(dem=dems(largest=24))
def test_one_block_equals_a_priority_flood(nodata, dem):
    ours = fill_array(dem, void_is_outlet=nodata == "outlet")
    assert_bits_equal(ours, priority_flood(dem, nodata))


@given(case=chunked(dems()))
def test_a_filled_dem_is_full(case):
    dem, chunks = case
    once = filled(dem, chunks)
    assert_bits_equal(filled(once, chunks), once)
    land = ~np.isnan(dem)
    assert (once[land] >= dem[land]).all()


@pytest.mark.parametrize("chunk", [3, 20, 40])
@pytest.mark.parametrize("across", [np.s_[::2], np.s_[:, ::2]])
@pytest.mark.parametrize("falling", [-1, 1])
def test_furrows_as_long_as_the_mosaic(chunk, across, falling):
    rows, cols = np.mgrid[:40, :40].astype(np.float32) * falling
    dem = rows + cols / 2
    dem[across] += 3
    dem[20, 7:33] = dem[7:33, 20] = dem.max()
    assert_bits_equal(filled(dem, chunk), priority_flood(dem))


# -- larger ones


@cache
def large(size, kind):
    dem = rough((size, size), size + len(kind), **KINDS[kind])
    return dem, {nodata: priority_flood(dem, nodata) for nodata in NODATA}


KINDS = {
    "noise": {},
    "smooth": {"smooth": 3.0},
    "terraces": {"smooth": 3.0, "levels": 8},
    "pocked": {"holes": 0.05},
    "lagoons": {"smooth": 3.0, "holes": 0.3},
    "archipelago": {"smooth": 2.0, "holes": 0.6, "levels": 20},
    "sieve": {"holes": 0.4},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunks", [(64, 64), (300, 7), (41, 113), (13, 300), ((1, 298, 1), (150, 1, 149))])
def test_300_cells_squared_in_many_chunks(kind, chunks):
    dem, expected = large(300, kind)
    chunks = da.core.normalize_chunks(chunks, dem.shape)
    for nodata in NODATA:
        assert_bits_equal(filled(dem, chunks, nodata), expected[nodata])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "nodata"), [("smooth", "wall"), ("lagoons", "wall"), ("pocked", "outlet")])
def test_1000_cells_squared_in_many_chunks(kind, nodata):
    dem = rough((1000, 1000), 7, **KINDS[kind])
    expected = priority_flood(dem, nodata)
    for chunks in [(1000, 1000), (256, 256), (99, 501), (37, 41)]:
        assert_bits_equal(filled(dem, da.core.normalize_chunks(chunks, dem.shape), nodata), expected)


@pytest.mark.parametrize(("size", "chunk"), [(23, 1), (61, 3), (61, 7), (61, 10), (61, 61)])
@pytest.mark.parametrize("falling", [True, False])
def test_a_serpentine_through_every_chunk(size, chunk, falling):
    dem = serpentine(size, falling=falling)
    ours = filled(dem, chunk)
    assert_bits_equal(ours, priority_flood(dem))
    channel = dem < 1e6
    if falling:
        assert_bits_equal(ours, dem)
    else:  # a channel that rises to its mouth is one depression
        assert (ours[channel] == dem[channel].max()).all()


@pytest.mark.parametrize("chunk", [5, 12, 17, 60])
def test_a_depression_over_many_chunks_fills_to_its_spillway(chunk):
    dem = bowl(60)
    ours = filled(dem, chunk)
    assert_bits_equal(ours, priority_flood(dem))
    spillway = dem[-1, -2]
    assert (ours == spillway).sum() > 2000
    assert (dem < spillway).sum() > 2000


# -- voids


def island_dem():
    """Land, in it a void ring, in that an island with a pit; a pit beside the void drains only through it."""
    dem = np.full((15, 15), 50, np.float32)
    dem[3:12, 3:12] = np.nan
    dem[5:10, 5:10] = 20
    dem[7, 7] = 4
    dem[6, 2] = 10
    return dem


@pytest.mark.parametrize("chunk", [1, 2, 4, 7, 15])
def test_an_island_in_an_enclosed_void_keeps_its_elevation(chunk):
    dem = island_dem()
    wall = filled(dem, chunk)
    assert wall[7, 7] == 4
    assert wall[6, 2] == 50
    outlet = filled(dem, chunk, "outlet")
    assert outlet[7, 7] == 20
    assert outlet[6, 2] == 10


@pytest.mark.parametrize("chunk", [1, 2, 4, 7, 15])
@pytest.mark.parametrize("gap", [[(2, 2), (1, 1), (0, 0)], [(2, 7), (1, 6), (0, 7)], [(12, 12), (13, 13), (14, 14)]])
def test_a_void_joined_to_the_edge_by_corners_alone_is_an_outlet(chunk, gap):
    dem = island_dem()
    for k in range(len(gap)):
        dem[gap[k]] = np.nan
    ours = filled(dem, chunk)
    assert ours[7, 7] == 20
    assert ours[6, 2] == 10
    dem[gap[-1]] = 50  # on the mosaic's edge itself: now the void ends one cell inside
    assert filled(dem, chunk)[6, 2] == 50


@pytest.mark.parametrize("nodata", NODATA)
@pytest.mark.parametrize("chunk", [1, 4, 10])
def test_chunks_and_mosaics_of_nothing_but_void(chunk, nodata):
    nothing = np.full((10, 10), np.nan, np.float32)
    assert np.isnan(filled(nothing, chunk, nodata)).all()
    dem = rough((30, 30), 3, levels=6)
    dem[10:20, 10:20] = np.nan
    assert_bits_equal(filled(dem, chunk, nodata), priority_flood(dem, nodata))


def test_a_void_that_is_a_wall_holds_water_back():
    dem = np.array([[9, 9, 9, 9, 9], [9, 3, np.nan, 1, 0], [9, 9, 9, 9, 9]], np.float32)
    np.testing.assert_array_equal(filled(dem, 1)[1], [9, 9, np.nan, 1, 0])
    np.testing.assert_array_equal(filled(dem, 1, "outlet")[1], [9, 3, np.nan, 1, 0])


def test_the_edge_of_the_mosaic_is_never_raised():
    dem = rough((20, 23), 8)
    ours = filled(dem, 6)
    for line in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        np.testing.assert_array_equal(ours[line], dem[line])


# -- values


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.int64, np.float64])
def test_other_dtypes_are_cast_first(dtype):
    dem = (rough((21, 20), 5) + 300).clip(0, 255)
    dem = dem.astype(dtype) if dtype != np.float64 else dem.astype(dtype) + 1e-9
    assert_bits_equal(filled(dem, 6), priority_flood(dem.astype(np.float32)))


def test_negative_zero_is_zero():
    dem = np.where(rough((12, 12), 2) > 0, np.float32(0), np.float32(-0.0))
    assert_bits_equal(filled(dem, 5), np.zeros((12, 12), np.float32))


def test_elevations_below_zero_are_filled_alike():
    dem = rough((40, 40), 4) - 5000
    assert_bits_equal(filled(dem, 9), priority_flood(dem))


def test_large_integers_are_filled_with_a_warning(caplog):
    dem = np.full((8, 8), 2**24 - 1, np.int32)
    with caplog.at_level(logging.WARNING):
        filled(dem, 4)
        assert "rounded" not in caplog.text
        dem[5, 5] = -(2**24) - 1
        filled(dem, 4)
    assert caplog.text.count("rounded to float32 in 1 chunks") == 1


@pytest.mark.parametrize("nodata", NODATA)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e39])
def test_an_infinite_cell_is_refused_with_its_chunk(bad, nodata):
    dem = np.zeros((20, 20))
    dem[13, 4] = bad
    with pytest.raises(InputError, match=r"row 13, column 4, and in 1 of 16 chunks .*rows 10 to 14, columns 0 to 4"):
        filled(dem, 5, nodata)


def test_the_refusal_survives_pickling():
    dem = np.zeros((4, 4))
    dem[1, 2] = np.inf
    with pytest.raises(InputError) as caught:
        filled(dem, 2)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# -- the face


def test_building_computes_nothing(never_compute):
    fill_tiled(raster(np.zeros((50, 50), np.float32), 7))


@pytest.mark.parametrize("blocks", [2, 8, 32])
def test_five_tasks_a_chunk_whatever_their_number(blocks):
    graph = fill_tiled(raster(np.zeros((64, 64), np.float32), 64 // blocks)).data.__dask_graph__()
    assert len(graph) <= 5 * blocks**2 + 3 + 3 * (blocks // 16) ** 2  # three a square of 16 x 16


@pytest.mark.parametrize("nodata", NODATA)
@pytest.mark.parametrize("side", [2, 3])
@given(case=chunked(dems()))
def test_a_tree_of_squares_equals_a_priority_flood(nodata, side, case):
    dem, chunks = case
    assert_bits_equal(filled_in_squares(dem, chunks, nodata, side), priority_flood(dem, nodata))


@pytest.mark.parametrize("nodata", NODATA)
@pytest.mark.parametrize("chunk", [4, 9])
@pytest.mark.parametrize("seed", range(3))
def test_trees_over_rough_land_with_voids_that_cross_squares(nodata, chunk, seed):
    dem = rough((60, 70), seed, holes=0.2, smooth=3.0)
    assert np.isnan(dem).any()
    expected = priority_flood(dem, nodata)
    for side in (2, 4):
        assert_bits_equal(filled_in_squares(dem, chunk, nodata, side), expected)


def filled_in_squares(dem, chunks, nodata="wall", side=2):
    how = fill_stitch(nodata)
    array = da.from_array(dem, chunks=chunks)
    blocks = stitch(array, how._replace(tree=how.tree._replace(side=side, most=1)))
    assert array.npartitions == 1 or any("-contract-" in str(key) for key in blocks.graph.to_dict())
    return blocks.to_array(np.float32).compute()


def test_squares_say_of_values_what_chunks_say(caplog):
    dem = np.full((40, 40), 100.0)
    dem[33, 7], dem[34, 30], dem[2, 3] = -9999, 1e6, -9999
    messages = []
    for fill in (filled, filled_in_squares):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            fill(dem, 5)
        messages.append(caplog.messages)
    assert messages[0] == messages[1]
    (message,) = messages[0]
    assert "3 elevations outside -500..9000 m in 3 chunks, such as -9999 at row 2, column 3 " in message
    assert "(chunk of rows 0 to 4, columns 0 to 4)" in message
    dem[33, 7] = np.inf
    with pytest.raises(InputError, match=r"row 33, column 7, and in 1 of 64 chunks .*rows 30 to 34, columns 5 to 9"):
        filled_in_squares(dem, 5)


def test_many_chunks_are_solved_in_squares():
    graph = fill_tiled(raster(np.zeros((40, 40), np.float32), 1)).data.__dask_graph__()
    names = [str(key[0] if isinstance(key, tuple) else key) for key in graph]
    assert sum(name.startswith("fill-depressions-contract-") for name in names) == 9
    assert sum(name.startswith("fill-depressions-expand-") for name in names) == 9
    assert len(graph) <= 5 * 1600 + 2 * 9 + 16


def test_the_source_is_read_again_under_keys_of_its_own():
    graph = fill_tiled(raster(np.zeros((12, 12), np.float32), 4)).data.__dask_graph__()
    read_by = {}
    for key, task in graph.to_dict().items():
        for dependency in getattr(task, "dependencies", ()):
            read_by.setdefault(dependency, set()).add(key[0].rsplit("-", 1)[0])
    assert not [users for users in read_by.values() if {"fill-depressions", "fill-depressions-summary"} <= users]


def test_coordinates_chunks_and_name_are_kept():
    dem = raster(rough((14, 9), 1), (5, 4)).rename("dem")
    ours = fill_tiled(dem)
    assert ours.chunks == dem.chunks
    assert ours.odc.geobox == dem.odc.geobox
    assert ours.name == "dem"
    assert ours.dtype == np.float32


def test_numpy_rasters_work_too():
    heights = np.array([[9, 9, 9], [9, 1, 9], [9, 7, 9]], np.int16)
    ours = fill_tiled(xr.DataArray(heights, dims=("y", "x")))
    np.testing.assert_array_equal(ours, np.where(heights == 1, 7, heights))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: fill_tiled(d, nodata="pit"), "one of wall, outlet, got 'pit'"),
        (lambda d: fill_tiled(d.rename(y="row")), "dims"),
        (lambda d: fill_tiled(d.expand_dims("band")), "dims"),
        (lambda d: fill_tiled(d > 0), "must be integer or float, got bool"),
        (lambda d: fill_tiled(d[:0]), r"without cells, shape \(0, 4\)"),
        (lambda d: fill_tiled(xr.DataArray(da.zeros((2**16, 2**16), chunks=-1), dims=("y", "x"))), "too large"),
    ],
)
def test_bad_dems_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call(raster(np.zeros((4, 4), np.float32)))


# -- real ones


@pytest.mark.parametrize("name", ["greenland_icecap_100m.tif", "lidar_nested_basin_1m.tif"])
@pytest.mark.parametrize("chunk", [97, 256])
def test_real_dems_equal_richdem(data_dir, name, chunk):
    richdem = pytest.importorskip("richdem")
    with rasterio.open(data_dir / "dem" / name) as file:
        dem = file.read(1, masked=True).astype(np.float32).filled(np.nan)
    assert np.isfinite(dem).all()
    expected = richdem.FillDepressions(richdem.rdarray(dem.copy(), no_data=-9999), epsilon=False)
    assert_bits_equal(filled(dem, chunk), np.asarray(expected))


@pytest.mark.parametrize("name", ["greenland_icecap_100m.tif", "lidar_nested_basin_1m.tif"])
@settings(max_examples=15)
@given(data=st.data())
def test_real_dems_with_voids_equal_a_priority_flood(data_dir, name, data):
    with rasterio.open(data_dir / "dem" / name) as file:
        whole = file.read(1, masked=True).astype(np.float32).filled(np.nan)
    row, col = (data.draw(st.integers(0, n - 60)) for n in whole.shape)
    dem = whole[row : row + 60, col : col + 60].copy()
    dem[dem < np.quantile(dem, data.draw(st.sampled_from([0.0, 0.02, 0.1])))] = np.nan  # lakes are often voids
    for nodata in NODATA:
        assert_bits_equal(filled(dem, data.draw(st.integers(7, 40)), nodata), priority_flood(dem, nodata))
