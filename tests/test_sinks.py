"""Sinks: whole sinks by depth and true area whatever the chunks; WhiteboxTools against a plain priority-flood."""

from __future__ import annotations

import logging
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
import xarray as xr
from affine import Affine
from flooding import dems, priority_flood, rough
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import axis_chunks, raster
from scipy import ndimage

import lakescale as ls
from lakescale import whitebox
from lakescale.evidence.sink_areas import pixel_areas_m2
from lakescale.evidence.sinks import fill_depressions, sink_depth, sink_mask
from lakescale.polygons import areas_m2

pytestmark = pytest.mark.usefixtures("one_thread")

EIGHT = np.ones((3, 3))


@pytest.fixture(scope="module")
def binary():
    """A real WhiteboxTools."""
    try:
        return whitebox.find_binary()
    except ls.InputError:
        pytest.skip("no WhiteboxTools: set WBT_PATH, or pip install weppcloud-wbt")


@pytest.fixture(params=["tiled", "whitebox"])
def engine(request):
    if request.param == "whitebox":
        request.getfixturevalue("binary")
    return request.param


def rough_dem(rng, shape, kind, voids):
    """Flats, smooth hills or noise, with voids of any size."""
    heights = rng.random(shape) * 10
    if kind == "flat":
        heights = np.round(heights)
    if kind == "smooth":
        heights = ndimage.gaussian_filter(heights, 2) * 20
    hole = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
    heights[hole > np.quantile(hole, 1 - voids)] = np.nan
    return heights.astype(np.float32)


def chunked(heights, chunks=-1, **grid):
    return raster(heights, chunks, **grid).rename("dem")


# -- whole sinks


def plain_sinks(heights, min_depth_m, min_area_m2, nodata="wall", area=None):
    """Sinks on one array, by scipy."""
    depth = priority_flood(heights, nodata) - heights
    labels, count = ndimage.label(depth > 0, EIGHT)
    for label in range(1, count + 1):
        inside = labels == label
        if depth[inside].max() < min_depth_m or (area is not None and area[inside].sum() < min_area_m2):
            depth[inside] = 0
    return depth


@settings(max_examples=15)
@given(st.data())
def test_small_sinks_are_dropped_whole_whatever_the_chunks(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = data.draw(st.tuples(st.integers(1, 30), st.integers(1, 30)))
    heights = rough_dem(rng, shape, data.draw(st.sampled_from(["flat", "smooth", "noise"])), rng.choice([0.0, 0.2]))
    chunks = (data.draw(axis_chunks(shape[0])), data.draw(axis_chunks(shape[1])))
    nodata = data.draw(st.sampled_from(["wall", "outlet"]))
    grid = {"transform": Affine(100, 0, -500_000, 0, -100, -1_800_000), "crs": "EPSG:3413"}
    dem = chunked(heights, chunks, **grid)
    area = pixel_areas_m2(ls.Grid.of(dem), range(shape[0]), range(shape[1]))
    min_depth, min_area = float(rng.choice([0, 1, 3])), float(rng.choice([0, 1e4, 5e4]))
    options = {"nodata": nodata, "min_depth_m": min_depth, "min_area_m2": min_area}
    depth = sink_depth(dem, **options)
    assert depth.data.chunks == chunks
    np.testing.assert_array_equal(depth.values, plain_sinks(heights, min_depth, min_area, nodata, area))
    np.testing.assert_array_equal(sink_mask(dem, **options).values, depth.values > 0)


def test_flats_drain_on_request():
    dem = raster(rough((40, 50), 3), (11, 13))
    level = fill_depressions(dem)
    drained = fill_depressions(dem, flats="drain")
    np.testing.assert_array_equal(drained, ls.drain_flats(level))
    assert (drained > level).any()
    assert float((drained - level).max()) < 0.01
    with pytest.raises(ls.InputError, match="unknown flats 'up'"):
        fill_depressions(dem, flats="up")


def test_whitebox_as_users_run_it_is_never_lower_and_higher_where_pits_lie_by_the_edge(data_dir, binary, tmp_path):
    """FillDepressions does not take the border for an outlet: it holds back the water of pits beside it."""
    with rasterio.open(data_dir / "dem" / "lidar_nested_basin_1m.tif") as file:
        dem = file.read(1)
    theirs = run_unprepared(dem, binary, tmp_path)
    ours = fill_depressions(raster(dem, 100)).values
    assert (theirs >= ours).all()
    higher = theirs > ours
    assert higher.sum() == 400
    labels, count = ndimage.label(higher, np.ones((3, 3)))
    for label in range(1, count + 1):
        row, col = np.nonzero(labels == label)
        beside = min(row.min(), col.min(), dem.shape[0] - 1 - row.max(), dem.shape[1] - 1 - col.max())
        assert beside <= 1


def run_unprepared(dem, binary, folder):
    """Run FillDepressions (flats not fixed) on a raster as it is, again where it dies."""
    job = whitebox._Job(binary, folder, dem.shape)
    whitebox._write(job, dem, 0.0)
    for _ in range(10):
        whitebox._call(job, 1e6)
        if job.target.exists():
            with rasterio.open(job.target) as file:
                return file.read(1)
    raise AssertionError("WhiteboxTools died ten times")


def test_depth_is_zero_without_a_sink_and_nan_in_voids():
    heights = np.array([[9, 9, 9, 9, 9], [9, 3, 4, 9, np.nan], [9, 9, 9, 9, 9]], "f4")
    depth = sink_depth(chunked(heights, ((2, 1), (3, 2))))
    np.testing.assert_array_equal(depth.values[1], [0, 6, 5, 0, np.nan])
    assert depth.dtype == np.float32
    assert sink_mask(chunked(heights)).values[1].tolist() == [False, True, True, False, False]
    assert (depth.name, sink_mask(chunked(heights)).name) == ("sink_depth", "sink")


def test_pixel_areas_are_those_of_their_outlines_and_know_no_blocks():
    for crs, transform in (
        ("EPSG:3857", Affine(38.2185, 0, -5_684_468.92, 0, -38.2185, 15_654_303.39)),
        ("EPSG:3413", Affine(100, 0, -500_000, 0, -100, -1_800_000)),
        ("EPSG:4326", Affine(0.01, 0, -50, 0, -0.01, 70)),
    ):
        dem = chunked(np.zeros((150, 200), "f4"), transform=transform, crs=crs)
        grid = ls.Grid.of(dem)
        whole = pixel_areas_m2(grid, range(150), range(200))
        np.testing.assert_array_equal(pixel_areas_m2(grid, range(33, 130), range(70, 71)), whole[33:130, 70:71])
        labels = np.arange(1, 30_001, dtype=np.int32).reshape(150, 200)[40:42, 90:93]
        some = np.zeros((150, 200), np.int32)
        some[40:42, 90:93] = labels
        outlines = ls.polygonize(raster(some, transform=transform, crs=crs)).compute().sort_values("label")
        np.testing.assert_allclose(whole[40:42, 90:93].ravel(), areas_m2(outlines.geometry), rtol=1e-4)


def test_the_area_of_a_sink_is_that_of_its_outline():
    heights = np.full((90, 120), 10, "f4")
    heights[20:70, 30:95] = 5
    dem = chunked(heights, 32)
    true = areas_m2(ls.polygonize(sink_mask(dem)).compute().geometry)[0]
    for factor, kept in ((0.9999, True), (1.0001, False)):
        assert sink_mask(dem, min_area_m2=true * factor).values.any() == kept


def test_building_computes_nothing(engine, never_compute):
    depth = sink_depth(chunked(np.ones((40, 40), "f4"), 16), engine=engine, min_depth_m=1, min_area_m2=5)
    assert depth.shape == (40, 40)


def test_the_dem_is_not_held_while_the_seams_are_solved():
    dem = chunked(np.ones((40, 40), "f4"), 16)
    graph = dict(sink_depth(dem).data.__dask_graph__())
    readers = [key for key in graph if str(key).startswith("('sink-depth")]
    assert len(readers) == 9
    for key in readers:
        assert not [used for used in graph[key].dependencies if used[0] == dem.data.name]


# -- bad input


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        (np.ones((2, 3, 3), "f4"), "dims"),
        (np.ones((3, 3), bool), "integer or float"),
        (np.ones((0, 3), "f4"), "without cells"),
    ],
)
def test_what_is_no_dem_is_refused(engine, heights, message):
    dem = xr.DataArray(heights, dims=("band", "y", "x")[-heights.ndim :], name="summit")
    with pytest.raises(ls.InputError, match=message) as caught:
        fill_depressions(dem, engine=engine)
    assert caught.value.item == "summit"


def test_infinite_elevations_are_refused(engine):
    heights = np.ones((4, 4), "f4")
    heights[2, 2] = np.inf
    with pytest.raises(ls.InputError, match="infinite"):
        fill_depressions(chunked(heights), engine=engine).compute()


def test_whole_numbers_that_float32_rounds_are_logged(caplog, binary):
    with caplog.at_level(logging.WARNING):
        fill_depressions(chunked(np.full((3, 3), 2**24 + 1, np.int32)), engine="whitebox").compute()
    assert "16777217 lose digits" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "arcgis"}, "tiled, whitebox"),
        ({"nodata": "hole"}, "wall, outlet"),
        ({"min_depth_m": -1}, "min_depth_m"),
        ({"min_area_m2": float("nan")}, "min_area_m2"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ls.InputError, match=message):
        sink_depth(chunked(np.ones((3, 3), "f4")), **options)


def test_an_area_needs_a_crs():
    dem = xr.DataArray(np.ones((3, 3), "f4"), dims=("y", "x"))
    assert (sink_depth(dem, min_depth_m=1).values == 0).all()
    with pytest.raises(ls.InputError, match="CRS"):
        sink_depth(dem, min_area_m2=1)


# -- WhiteboxTools


@settings(max_examples=40)
@given(dem=dems(largest=40), nodata=st.sampled_from(["wall", "outlet"]))
def test_whitebox_equals_priority_flood(binary, dem, nodata):
    np.testing.assert_array_equal(whitebox.fill_array(dem, nodata=nodata), priority_flood(dem, nodata))


def ring(size, inner):
    """High land with a void ring round an island that has a pit, and a lake beside it."""
    heights = np.full((size, size), 50, "f4")
    heights[1:4, 1:4] = 20
    heights[8:15, 8:15] = np.nan
    heights[9:14, 9:14] = inner
    heights[11, 11] = inner - 5
    return heights


@pytest.mark.parametrize("nodata", ["wall", "outlet"])
def test_islands_in_voids(binary, nodata):
    heights = ring(20, 30)
    filled = fill_depressions(chunked(heights, ((7, 13), (9, 11))), engine="whitebox", nodata=nodata)
    assert filled.data.chunks == ((7, 13), (9, 11))
    np.testing.assert_array_equal(filled.values, priority_flood(heights, nodata))
    assert filled.values[11, 11] == (25 if nodata == "wall" else 30)
    assert filled.values[2, 2] == 50
    np.testing.assert_array_equal(fill_depressions(chunked(heights, 6), nodata=nodata).values, filled.values)


def test_degenerate_dems(binary):
    for heights in (
        np.full((1, 1), 7.0),
        np.full((5, 5), np.nan),
        np.zeros((6, 4)),
        np.full((4, 4), 1e9),
        -ring(20, 30),
    ):
        dem = heights.astype("f4")
        np.testing.assert_array_equal(whitebox.fill_array(dem, nodata="wall"), priority_flood(dem))


def test_large_voids_take_no_time(binary):
    """FillDepressions spends half a minute on these as a flat of equal cells."""
    rng = np.random.default_rng(0)
    heights = rough_dem(rng, (200, 200), "smooth", 0.0)
    heights[ndimage.gaussian_filter(rng.standard_normal((200, 200)), 7) > 0] = np.nan
    for nodata in ("wall", "outlet"):
        np.testing.assert_array_equal(whitebox.fill_array(heights, nodata=nodata), priority_flood(heights, nodata))


@pytest.mark.parametrize("name", ["greenland_icecap_100m.tif", "lidar_nested_basin_1m.tif"])
def test_real_dems(data_dir, binary, name):
    with rasterio.open(data_dir / "dem" / name) as source:
        heights = source.read(1, masked=True).astype("f4").filled(np.nan)
    expected = priority_flood(heights)
    filled = fill_depressions(chunked(heights, 128), engine="whitebox").values
    np.testing.assert_array_equal(filled, expected)
    assert (filled > heights).any()


def test_the_working_directory_and_the_settings_beside_the_binary_stay(binary):
    settings_file = binary.parent / "settings.json"
    before = settings_file.read_bytes() if settings_file.exists() else None
    here = Path.cwd()
    whitebox.fill_array(np.ones((5, 5), "f4"), nodata="wall")
    assert Path.cwd() == here
    assert (settings_file.read_bytes() if settings_file.exists() else None) == before


# -- a WhiteboxTools that fails


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put a shell script in place of the binary; ``$OUT`` and ``$DEM`` are its files, ``$TRIES`` a file to count in."""

    def put(script, name="whitebox_tools"):
        path = tmp_path / name
        find = 'for a in "$@"; do case $a in --output=*) OUT=${a#*=};; --dem=*) DEM=${a#*=};; esac; done\n'
        path.write_text(f"#!/bin/sh\nTRIES={tmp_path}/tries\necho x >> $TRIES\n{find}{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("WBT_PATH", str(path))
        return path

    put.tries = lambda: len((tmp_path / "tries").read_text().splitlines())
    return put


@pytest.mark.parametrize(
    "script",
    [
        "echo Saving data...; echo all is well; exit 0",
        "echo Saving data...; echo thread main panicked >&2; kill -9 $$",
        "echo Saving data...; echo garbage > $OUT",
        "echo Saving data...; head -c 300 $DEM > $OUT",
    ],
    ids=["writes nothing", "dies", "writes garbage", "cut short"],
)
def test_a_binary_that_fails_is_tried_ten_times_and_quoted(fake, script):
    path = fake(script)
    dem = fill_depressions(chunked(np.ones((5, 5), "f4")), engine="whitebox")
    with pytest.raises(ls.RunError, match=r"failed 10 times; its last lines: .*Saving data\.\.\.") as caught:
        dem.compute()
    assert fake.tries() == 10
    assert caught.value.item == str(path)
    assert "engine='tiled'" in caught.value.mend
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    if "panicked" in script:
        assert "thread main panicked" in str(caught.value)


def test_a_raster_of_another_shape_is_no_answer(fake, tmp_path):
    with rasterio.open(
        tmp_path / "small.tif", "w", driver="GTiff", count=1, height=3, width=3, dtype="float32", crs="EPSG:3413",
        transform=Affine(1, 0, 5, 0, -1, 9),
    ) as sink:  # fmt: skip
        sink.write(np.ones((1, 3, 3), "f4"))
    fake(f"cp {tmp_path}/small.tif $OUT")
    with pytest.raises(ls.RunError, match="failed 10 times"):
        whitebox.fill_array(np.ones((5, 5), "f4"), nodata="wall")


def test_a_binary_that_works_at_the_third_try_is_enough(fake):
    fake("[ $(wc -l < $TRIES) -ge 3 ] && cp $DEM $OUT")
    heights = np.arange(20, dtype="f4").reshape(4, 5)
    np.testing.assert_array_equal(whitebox.fill_array(heights, nodata="wall"), heights)
    assert fake.tries() == 3


def test_an_answer_below_the_dem_is_refused(fake, tmp_path):
    with rasterio.open(
        tmp_path / "low.tif", "w", driver="GTiff", count=1, height=7, width=7, dtype="float64", crs="EPSG:3413",
        transform=Affine(1, 0, 5, 0, -1, 9),
    ) as sink:  # fmt: skip
        sink.write(np.zeros((1, 7, 7)))
    fake(f"cp {tmp_path}/low.tif $OUT")
    with pytest.raises(ls.RunError, match="lowered cells"):
        whitebox.fill_array(np.ones((5, 5), "f4"), nodata="wall")


def test_a_folder_and_any_name_will_do(fake, tmp_path, monkeypatch):
    path = fake("cp $DEM $OUT", name="wbt-2.4")
    assert whitebox.find_binary() == path
    whitebox.fill_array(np.ones((5, 5), "f4"), nodata="wall")
    path = fake("cp $DEM $OUT")
    monkeypatch.setenv("WBT_PATH", str(tmp_path))
    assert whitebox.find_binary() == path


def test_a_missing_binary_is_named_with_the_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("WBT_PATH", str(tmp_path))
    with pytest.raises(ls.InputError, match="no WhiteboxTools executable") as caught:
        fill_depressions(chunked(np.ones((5, 5), "f4")), engine="whitebox")
    assert str(tmp_path) in caught.value.item
    monkeypatch.delenv("WBT_PATH")
    monkeypatch.setattr(whitebox.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ls.InputError, match="not installed") as caught:
        fill_depressions(chunked(np.ones((5, 5), "f4")), engine="whitebox")
    for way in ("WBT_PATH", "pip install weppcloud-wbt", "engine='tiled'"):
        assert way in caught.value.mend


def test_looking_for_it_imports_and_downloads_nothing():
    code = "import sys; from lakescale.whitebox import find_binary\ntry: find_binary()\nexcept Exception: pass\n"
    code += "print([name for name in ('whitebox', 'weppcloud_wbt') if name in sys.modules])"
    environment = {name: value for name, value in os.environ.items() if name != "WBT_PATH"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_a_dem_that_memory_will_not_hold_is_refused_before_it_is_computed(fake, monkeypatch, never_compute):
    fake("exit 0")
    memory = type("memory", (), {"available": 2**30})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    with pytest.raises(ls.InputError, match=r"\d+\.\d GiB .*1\.0 GiB are free") as caught:
        fill_depressions(
            chunked(np.lib.stride_tricks.as_strided(np.ones(1, "f4"), (8192, 8192), (0, 0)), 2048), engine="whitebox"
        )
    assert "8192 x 8192" in caught.value.item


def test_no_room_for_the_raster_is_said(fake, monkeypatch):
    fake("cp $DEM $OUT")

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whitebox.rasterio, "open", full)
    with pytest.raises(ls.RunError, match="No space left on device") as caught:
        whitebox.fill_array(np.ones((5, 5), "f4"), nodata="wall")
    assert "TMPDIR" in caught.value.mend
