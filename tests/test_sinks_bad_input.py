"""Elevations that are no elevations: declared nodata, wrong values, no CRS, degrees, damaged files, no memory."""

import logging
import pickle

import dask.array as da
import numpy as np
import psutil
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from flooding import dems, priority_flood, rough
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import axis_chunks, raster
from scene_files import write

import lakescale as ls
from lakescale.depressions import declared_nodata
from lakescale.evidence.sinks import fill_depressions, sink_depth
from lakescale.store import open_layer, write_layer

pytestmark = pytest.mark.usefixtures("one_thread")

POLAR = {"transform": Affine(100, 0, -500_000, 0, -100, -1_800_000), "crs": "EPSG:3413"}
DEGREES = {"transform": Affine(0.01, 0, -50, 0, -0.01, 70), "crs": "EPSG:4326"}


def declared(heights, chunks, number, how):
    dem = xr.DataArray(da.from_array(heights, chunks=chunks), dims=("y", "x"), name="summit")
    if how == "rio":
        return dem.rio.write_nodata(number)
    (dem.encoding if how == "encoding" else dem.attrs)["_FillValue" if how != "attrs" else "nodata"] = number
    return dem


@pytest.fixture(params=["tiled", "whitebox"])
def engine(request):
    if request.param == "whitebox":
        from lakescale import whitebox

        try:
            whitebox.find_binary()
        except ls.InputError:
            pytest.skip("no WhiteboxTools: set WBT_PATH, or pip install weppcloud-wbt")
    return request.param


# -- nodata that stands in the values


@settings(max_examples=40)
@given(st.data())
def test_declared_nodata_is_void_whatever_the_chunks(data):
    dem = data.draw(dems())
    dtype = data.draw(st.sampled_from([np.int16, np.int32, np.float32, np.float64]))
    number = data.draw(st.sampled_from([-9999, 0, -32768]))
    how = data.draw(st.sampled_from(["rio", "encoding", "attrs", "_FillValue"]))
    stored = np.where(np.isnan(dem), number, dem.clip(-30_000, 30_000)).astype(dtype)
    expected = np.where(stored == number, np.nan, stored.astype(np.float32))
    chunks = tuple(data.draw(axis_chunks(size)) for size in dem.shape)
    nodata = data.draw(st.sampled_from(["wall", "outlet"]))
    filled = fill_depressions(declared(stored, chunks, number, how), nodata=nodata)
    np.testing.assert_array_equal(filled.values, priority_flood(expected, nodata))
    depth = sink_depth(declared(stored, chunks, number, how), nodata=nodata)
    np.testing.assert_array_equal(depth.values, priority_flood(expected, nodata) - expected)


def test_whitebox_takes_declared_nodata_for_void_too(engine):
    heights = rough((20, 20), 3)
    heights[4:9, 5:8] = -9999
    void = np.where(heights == -9999, np.nan, heights)
    filled = fill_depressions(declared(heights, 7, -9999.0, "attrs"), engine=engine)
    np.testing.assert_array_equal(filled.values, priority_flood(void))


def test_the_largest_float_is_found_as_headers_round_it():
    heights = rough((9, 9), 1)
    heights[3, 3] = np.float32(-3.4028235e38)
    for number in (-3.4028234663852886e38, -3.4028235e38):
        filled = fill_depressions(declared(heights, 4, number, "attrs"))
        assert np.isnan(filled.values[3, 3])
        assert np.isnan(filled.values).sum() == 1


def test_what_is_declared():
    plain = xr.DataArray(np.ones((2, 2), "f4"), dims=("y", "x"))
    assert declared_nodata(plain) == ()
    assert declared_nodata(plain.rio.write_nodata(np.nan)) == ()
    assert declared_nodata(plain.rio.write_nodata(-9999)) == (-9999.0,)
    assert declared_nodata(declared(np.ones((2, 2)), 2, -1, "encoding")) == (-1.0,)
    assert declared_nodata(plain.rio.write_nodata(-1, encoded=True).assign_attrs(nodata="none")) == (-1.0,)


def test_declared_nodata_that_no_cell_has_changes_nothing(caplog):
    heights = rough((20, 20), 3)
    with caplog.at_level(logging.WARNING):
        filled = fill_depressions(declared(heights, 7, -9999.0, "attrs"))
        np.testing.assert_array_equal(filled.values, priority_flood(heights))
    assert not caplog.records


def test_integers_of_declared_nodata_are_no_integers_that_float32_rounds(caplog, engine):
    heights = np.full((6, 6), 100, np.int32)
    heights[2, 2] = -(2**31)
    with caplog.at_level(logging.WARNING):
        assert np.isnan(fill_depressions(declared(heights, 3, -(2**31), "attrs"), engine=engine).values[2, 2])
    assert not caplog.records


# -- values that cannot be true


@pytest.mark.parametrize("bad", [-9999, 9001, -500.5, 1e30])
def test_wrong_elevations_are_logged_once_with_one_of_them_and_its_chunk(caplog, engine, bad):
    heights = np.full((30, 40), 1200.0)
    heights[12, 33] = heights[12, 34] = heights[25, 0] = bad
    with caplog.at_level(logging.WARNING):
        fill_depressions(raster(heights, 10), engine=engine).compute()
    (record,) = caplog.records
    text = record.getMessage()
    assert f"3 elevations outside -500..9000 m in {2 if engine == 'tiled' else 1} chunks" in text
    assert f"such as {np.float32(bad):.7g} at row 12, column 33" in text
    where = "chunk of rows 10 to 19, columns 30 to 39" if engine == "tiled" else "the whole DEM"
    assert f"({where})" in text
    assert "nodata value is probably wrong" in text


def test_elevations_that_can_be_true_are_not_logged(caplog):
    heights = np.array([[-500, 9000, 0], [8849, -430, np.nan], [1, 2, 3]], np.float32)
    with caplog.at_level(logging.WARNING):
        fill_depressions(raster(heights, 2)).compute()
    assert not caplog.records


def test_a_dem_without_an_elevation_is_void_and_logged(caplog):
    with caplog.at_level(logging.WARNING):
        filled = fill_depressions(raster(np.full((9, 9), np.nan, "f4"), 4))
        assert np.isnan(filled.values).all()
    (record,) = caplog.records
    assert "holds no elevation" in record.getMessage()


def test_infinities_are_refused_where_nodata_is_declared_too(engine):
    heights = rough((9, 9), 1)
    heights[5, 6], heights[1, 1] = np.inf, -9999
    with pytest.raises(ls.InputError, match="infinite"):
        fill_depressions(declared(heights, 4, -9999.0, "attrs"), engine=engine).compute()


# -- areas need metres


def test_depths_need_no_metres_and_areas_do(never_compute):
    heights = rough((12, 12), 1)
    bare = xr.DataArray(heights, dims=("y", "x"))
    assert sink_depth(bare, min_depth_m=1).shape == (12, 12)
    assert sink_depth(raster(heights, 5, **DEGREES), min_depth_m=1).shape == (12, 12)
    with pytest.raises(ls.InputError, match="without a CRS"):
        sink_depth(bare, min_area_m2=1)
    with pytest.raises(ls.InputError, match="units of degree, metres are needed"):
        sink_depth(raster(heights, 5, **DEGREES), min_area_m2=1)


# -- a DEM that was filled before


@settings(max_examples=25)
@given(st.data())
def test_depths_from_what_was_filled_before_are_the_same(data):
    dem = data.draw(dems())
    chunks, other = (tuple(data.draw(axis_chunks(size)) for size in dem.shape) for _ in range(2))
    options = {"min_depth_m": data.draw(st.sampled_from([0, 20])), "min_area_m2": data.draw(st.sampled_from([0, 3e4]))}
    expected = sink_depth(raster(dem, chunks, **POLAR), **options)
    filled = raster(priority_flood(dem), other, **POLAR)
    depth = sink_depth(raster(dem, chunks, **POLAR), filled=filled, **options)
    assert depth.data.chunks == chunks
    np.testing.assert_array_equal(depth.values, expected.values)


def test_what_was_filled_is_not_filled_again():
    dem = raster(np.floor(rough((20, 20), 1)), 7, **POLAR).chunk(y=6, x=6)
    depth = sink_depth(dem, filled=dem + 1)
    assert not [key for key in dict(depth.__dask_graph__()) if "fill-depressions" in str(key)]
    assert (depth.values == 1).all()
    with pytest.raises(ls.InputError, match="filled= is"):
        sink_depth(dem, filled=dem[:5])


# -- files and memory


def test_a_damaged_tile_is_named_with_the_rows_that_cannot_be_read(tmp_path):
    path = write(tmp_path / "a_dem.tif", rough((96, 96), 2), tiled=True, blockxsize=32, blockysize=32)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(ls.InputError, match=r"rows \d+ to \d+, columns \d+ to \d+ cannot be read") as caught:
        fill_depressions(ls.open_dem(path, chunks=32)).compute()
    assert caught.value.item == str(path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_damaged_chunk_of_a_store_is_named_with_its_file(tmp_path):
    dem = raster(rough((90, 90), 2), 30, **POLAR)
    write_layer(dem, tmp_path / "dem.zarr", "dem", chunks=30)
    file = tmp_path / "dem.zarr/dem/c/1/2"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(ls.InputError, match=r"chunk \(1, 2\) of 'dem'") as caught:
        fill_depressions(open_layer(tmp_path / "dem.zarr", "dem")).compute()
    assert caught.value.item == str(file)


def test_whitebox_refuses_what_memory_will_not_hold_before_it_computes(monkeypatch, never_compute):
    from lakescale import whitebox

    monkeypatch.setattr(whitebox, "find_binary", lambda: None)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 2**30}))
    dem = xr.DataArray(da.zeros((100_000, 100_000), chunks=20_000, dtype=np.float32), dims=("y", "x"))
    with pytest.raises(ls.InputError, match=r"372\.5 GiB .* 1\.0 GiB are free \[DEM of 100000 x 100000\]"):
        sink_depth(dem, engine="whitebox")
