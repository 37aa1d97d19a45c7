"""Files to a cube, a DEM and GeoTIFFs beside it; what comes out is what the files hold."""

import json
import logging
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio._err import CPLE_AppDefinedError
from rasters import raster
from scene_files import ORIGIN, dn, from_origin, rgb, write

import lakescale as ls
from lakescale import cog
from lakescale.cog import export_cog
from lakescale.cube import open_cube, write_cube
from lakescale.grid import Grid
from lakescale.scene import seen_mask
from lakescale.schema import InputError, RunError
from lakescale.store import open_layer, write_layer
from lakescale.store.commits import Commits
from pipelines.ingest import describe_plan, ingest, sort_by_day
from pipelines.ingest_recipe import read_ingest_recipe

SHAPE = (90, 130)


def recipe(source, out, **options):
    cluster = {"cluster__kind": "threads", "cluster__workers": 1, "cluster__dashboard": "none"}
    return read_ingest_recipe(scene__source=source, out=out, **{**cluster, **options})


def rgb_files(folder, days=("2019-07-23", "2019-06-01"), **options):
    folder.mkdir(exist_ok=True)
    for k, day in enumerate(days):
        image = np.random.default_rng(k).integers(2, 255, (3, *SHAPE), dtype=np.uint8)
        write(folder / f"S2_{day.replace('-', '')}.tif", image, **options)
    return folder


def band_files(folder, day="20190723"):
    """Two bands of 10 m, one of 20 m, as Sentinel-2 has them."""
    folder.mkdir(exist_ok=True)
    for seed, band in enumerate(("B02", "B04")):
        write(folder / f"S2_22WEV_{day}_{band}.tif", np.random.default_rng(seed).integers(100, 9000, SHAPE, "uint16"))
    coarse = from_origin(600_000, 7_400_000, 20, 20)
    write(folder / f"S2_22WEV_{day}_B11.tif", dn(shape=(45, 65)), transform=coarse)
    return folder


def test_a_folder_of_two_dates_is_a_cube_of_two_scenes(tmp_path):
    folder = rgb_files(tmp_path / "in")
    done = ingest(recipe(str(folder), tmp_path / "cube.zarr", scene__chunks=64))
    assert done.dates == ("2019-06-01", "2019-07-23")
    assert (done.chunks_written, done.chunks_skipped) == (12, 0)
    assert done.mb_per_s > 0
    cube = open_cube(done.cube)
    for k, day in enumerate(done.dates):
        path = folder / f"S2_{day.replace('-', '')}.tif"
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(cube.isel(time=k).values, file.read())
        told = json.loads((done.cube / "zarr.json").read_text())["attributes"]["lakescale"]["dates"][k]
        assert told["attrs"]["source"] == path.name
        assert told["attrs"]["date_source"] == f"the date in the name {path.name}"
    again = ingest(recipe(str(folder), tmp_path / "cube.zarr"))
    assert (again.chunks_written, again.chunks_skipped, again.mb_per_s) == (0, 12, 0)


def test_one_date_may_be_chosen_and_others_added(tmp_path):
    folder = rgb_files(tmp_path / "in")
    out = tmp_path / "cube.zarr"
    assert ingest(recipe(str(folder), out, scene__date="2019-06-01")).dates == ("2019-06-01",)
    with pytest.raises(
        InputError, match="2019-06-01 from another source or place, or with other bands, chunks or options"
    ):
        ingest(recipe(str(folder), out, scene__nodata=7))
    assert ingest(recipe(str(folder / "S2_20190723.tif"), out)).chunks_written == 1
    assert open_cube(out).sizes["time"] == 2


def test_bands_of_other_grids_come_to_the_finest(tmp_path):
    folder = band_files(tmp_path / "in")
    done = ingest(recipe(str(folder), tmp_path / "a.zarr"))
    cube = open_cube(done.cube)
    assert cube["band"].values.tolist() == ["blue", "red", "swir1"]
    with rasterio.open(folder / "S2_22WEV_20190723_B04.tif") as file:
        expected = file.read(1).astype(np.float32) * np.float32(1e-4)
        np.testing.assert_array_equal(cube.sel(band="red").isel(time=0).values, expected)
    chosen = ingest(recipe(str(folder), tmp_path / "b.zarr", scene__bands=["swir1", "blue"]))
    assert open_cube(chosen.cube)["band"].values.tolist() == ["swir1", "blue"]
    np.testing.assert_array_equal(open_cube(chosen.cube).values, cube.sel(band=["swir1", "blue"]).values)
    with pytest.raises(InputError, match="no band nir"):
        ingest(recipe(str(folder), tmp_path / "c.zarr", scene__bands=["blue", "nir"]))


def test_a_grid_by_crs_and_resolution_or_like_a_file(tmp_path):
    folder = rgb_files(tmp_path / "in", ["2019-07-23"])
    polar = ingest(recipe(str(folder), tmp_path / "a.zarr", grid__crs="EPSG:3413", grid__resolution_m=20.0))
    grid = Grid.of(open_cube(polar.cube))
    assert grid.crs.to_epsg() == 3413
    assert grid.pixel_size_m == 20
    assert open_cube(polar.cube)["seen"].values.mean() > 0.4
    target = write(tmp_path / "like.tif", dn(shape=(30, 40)), transform=from_origin(600_100, 7_399_900, 10, 10))
    like = ingest(recipe(str(folder), tmp_path / "b.zarr", grid__like=str(target)))
    cube = open_cube(like.cube)
    assert Grid.of(cube).transform.c == 600_100
    with rasterio.open(folder / "S2_20190723.tif") as file:
        np.testing.assert_array_equal(cube.isel(time=0).values, file.read()[:, 10:40, 10:50])
    with pytest.raises(InputError, match="the store has another grid"):
        ingest(recipe(str(folder), tmp_path / "b.zarr", grid__crs="EPSG:3413"))


def test_a_dem_and_geotiffs_lie_beside_the_cube(tmp_path):
    folder = rgb_files(tmp_path / "in")
    heights = np.random.default_rng(0).normal(1000, 100, (60, 80)).astype(np.float32)
    dem = write(tmp_path / "tile_dem.tif", heights, transform=ORIGIN)
    options = {"dem__source": str(dem), "cog": True, "scene__chunks": 64}
    done = ingest(recipe(str(folder), tmp_path / "cube.zarr", **options))
    assert done.dem == tmp_path / "dem.zarr"
    found = open_layer(done.dem, "dem")
    np.testing.assert_array_equal(found.values[:60, :80], heights)
    assert np.isnan(found.values[60:]).all()
    assert Grid.of(found).geobox == Grid.of(open_cube(done.cube)).geobox
    assert [path.name for path in done.cogs] == ["cube_2019-06-01.tif", "cube_2019-07-23.tif"]
    for path in done.cogs:
        again = ls.open_scene(path)
        np.testing.assert_array_equal(again.values, open_cube(done.cube).sel(time=again["time"]).values)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    same = ingest(recipe(str(folder), tmp_path / "cube.zarr", **options))
    assert (same.chunks_written, same.dem_chunks_written, same.cogs) == (0, 0, ())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    new = ingest(recipe(str(folder / "S2_20190723.tif"), tmp_path / "cube.zarr", cog=True), overwrite=True)
    assert [path.name for path in new.cogs] == ["cube_2019-07-23.tif"]


def test_files_are_sorted_by_date_and_undated_ones_left_out(tmp_path, caplog):
    folder = rgb_files(tmp_path / "in")
    write(folder / "mosaic.tif", rgb(SHAPE))
    with caplog.at_level(logging.WARNING):
        found = sort_by_day([str(folder), str(folder / "S2_20190723.tif")])
    assert {day: [path.rpartition("/")[2] for path in paths] for day, paths in found.items()} == {
        "2019-06-01": ["S2_20190601.tif"],
        "2019-07-23": ["S2_20190723.tif"],
    }
    assert "mosaic.tif" in caplog.text


def test_no_date_and_wrong_options_are_refused(tmp_path):
    path = write(tmp_path / "mosaic.tif", rgb(SHAPE))
    with pytest.raises(InputError, match=r"no date can be read.*--date"):
        ingest(recipe(str(path), tmp_path / "cube.zarr"))
    assert not (tmp_path / "cube.zarr").exists()
    with pytest.raises(InputError, match=r"scene\.chunks.*--chunks"):
        recipe(str(path), tmp_path / "cube.zarr", scene__chunks=0)
    with pytest.raises(InputError, match=r"no scene is given.*--scene"):
        read_ingest_recipe(out=tmp_path / "cube.zarr")


@contextmanager
def break_off(after):
    """Let a writer end after some chunks, as a kill would."""
    real, done = Commits.write, []

    def write_some(self, *arguments):
        if len(done) == after:
            raise RunError("killed")
        done.append(arguments)
        return real(self, *arguments)

    write_some.__name__ = "write"  # by which it is pickled
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Commits, "write", write_some)
        with pytest.raises(RunError, match="killed"):
            yield


def test_an_ingest_to_a_grid_smaller_than_a_chunk_goes_on(tmp_path):
    folder = rgb_files(tmp_path / "in")
    like = str(write(tmp_path / "like.tif", dn(shape=(30, 40)), transform=from_origin(600_100, 7_399_900, 10, 10)))
    out = tmp_path / "cube.zarr"
    with break_off(1):
        ingest(recipe(str(folder), out, grid__like=like))
    for options in ({}, {"grid__like": like}, {"scene__chunks": 2048}, {"scene__chunks": 500}):
        done = ingest(recipe(str(folder), out, **options))
        assert done.chunks_written + done.chunks_skipped == 2
    assert done.chunks_skipped == 2
    assert open_cube(out).data.chunksize == (1, 3, 30, 40)
    with pytest.raises(InputError, match=r"chunks of \(30, 40\).*--chunks"):
        ingest(recipe(str(folder), out, scene__chunks=20))


def test_a_dry_run_of_what_is_there_half_says_what_is_left(tmp_path):
    folder, out = rgb_files(tmp_path / "in"), tmp_path / "cube.zarr"
    asked = recipe(str(folder), out, scene__chunks=64)
    assert describe_plan(asked)["chunks left"] == 12
    with break_off(4):
        ingest(recipe(str(folder), out, scene__chunks=64, scene__date="2019-06-01"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for again in (asked, recipe(str(folder), out)):
        told = describe_plan(again)
        assert (told["chunks a date"], told["chunks left"]) == (6, 8)
        assert told["grid"].startswith("90 x 130 pixels of 10 m")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert ingest(asked).chunks_written == 8
    assert describe_plan(asked)["chunks left"] == 0


def test_geotiffs_stay_until_better_ones_are_written(tmp_path):
    folder, out = rgb_files(tmp_path / "in", ["2019-07-23"]), tmp_path / "cube.zarr"
    (path,) = ingest(recipe(str(folder), out, cog=True)).cogs
    whole = path.read_bytes()
    with pytest.raises(InputError, match="another grid"):
        ingest(recipe(str(folder), out, cog=True, grid__crs="EPSG:3413"), overwrite=True)
    assert path.read_bytes() == whole
    write(folder / "S2_20190723.tif", rgb(SHAPE))
    assert ingest(recipe(str(folder), out), overwrite=True).cogs == ()
    assert path.read_bytes() == whole
    assert ingest(recipe(str(folder), out, cog=True)).cogs == (path,)  # its date is younger
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), rgb(SHAPE))


def test_a_date_that_is_not_in_the_name_is_told(tmp_path, caplog):
    folder = rgb_files(tmp_path / "in", ["2019-07-28"])
    asked = recipe(str(folder), tmp_path / "cube.zarr", scene__date="2018-01-01")
    told = "the name says 2019-07-28, --date 2018-01-01 wins"
    assert describe_plan(asked)["note"] == told
    with caplog.at_level(logging.WARNING, "lakescale"):
        done = ingest(asked)
    assert (done.dates, done.notes) == (("2018-01-01",), (told,))
    assert told in caplog.messages
    caplog.clear()
    same = ingest(recipe(str(folder), tmp_path / "b.zarr", scene__date="2019-07-28"))
    assert same.notes == ()
    assert "wins" not in caplog.text


# ---------------------------------------------------------------- cloud-optimized GeoTIFF


def gdal_layout(path):
    with rasterio.open(path) as file:
        return file.tags(ns="IMAGE_STRUCTURE"), [file.overviews(band) for band in file.indexes]


def test_a_date_as_cog_is_pixel_equal_with_mask_names_and_date(tmp_path):
    image = rgb((1100, 1300))
    image[:, 500:] = 0
    scene = ls.open_scene(write(tmp_path / "a_20190723.tif", image, nodata=0), chunks=512)
    write_cube(scene, tmp_path / "cube.zarr", chunks=400)
    path = export_cog(open_cube(tmp_path / "cube.zarr").isel(time=0), tmp_path / "out_20190723.tif")
    layout, overviews = gdal_layout(path)
    assert layout["LAYOUT"] == "COG"
    assert all(levels and levels[0] == 2 for levels in overviews)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), image)
        np.testing.assert_array_equal(file.read_masks(1) > 0, (image > 0).any(0))
        assert file.descriptions == ("red", "green", "blue")
        assert [color.name for color in file.colorinterp] == ["red", "green", "blue"]
        assert file.tags()["TIFFTAG_DATETIME"] == "2019:07:23 00:00:00"
        assert file.block_shapes == [(512, 512)] * 3
        assert file.transform == ORIGIN
    again = ls.open_scene(path)
    np.testing.assert_array_equal(seen_mask(again).values, seen_mask(scene).values)
    assert {one.name for one in tmp_path.iterdir()} == {"a_20190723.tif", "cube.zarr", "out_20190723.tif"}


@pytest.mark.parametrize("dtype", ["float32", "bool", "uint8", "int32"])
def test_a_layer_as_cog_is_pixel_equal(tmp_path, dtype):
    values = np.random.default_rng(1).integers(0, 2, SHAPE).astype(dtype)
    if dtype == "float32":
        values[:30] = np.nan
    write_layer(raster(values, 50), tmp_path / "layers.zarr", "sink")
    path = export_cog(open_layer(tmp_path / "layers.zarr", "sink"), tmp_path / "sink.tif")
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), values)
        assert file.descriptions == ("sink",)
        assert (file.nodata is not None and np.isnan(file.nodata)) == (dtype == "float32")
    assert gdal_layout(path)[0]["LAYOUT"] == "COG"


def test_a_cog_tells_sensor_level_and_baseline_of_its_own_date(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, day in (("0400", "20220713"), ("0509", "20230714")):
        name = f"S2B_MSIL2A_{day}T145759_N{number}_R039_T22WEV_{day}T185000.tif"
        write(folder / name, dn(3, shape=SHAPE), names=("red", "green", "blue"))
    done = ingest(recipe(str(folder), tmp_path / "cube.zarr", cog=True))
    for path, baseline in zip(done.cogs, ("04.00", "05.09"), strict=True):
        with rasterio.open(path) as file:
            told = file.tags()
        assert (told["sensor"], told["product_level"]) == ("Sentinel-2B", "L2A")
        assert told["processing_baseline"] == baseline == ls.open_scene(path).attrs["baseline"]


FULL_DISK = """
import pickle, resource, signal, sys
import numpy as np
import lakescale as ls
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
scene = ls.open_scene(sys.argv[1]).load()
for limit in map(int, sys.argv[3:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        ls.export_cog(scene, sys.argv[2])
    except ls.RunError as error:
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert error.__cause__ is None and error.__context__ is None
        sys.stdout.write(f"{error}\\n")
"""


def test_a_disk_that_fills_up_is_said_in_words(tmp_path):
    """Noise does not compress, and the overviews come on top: the COG is the larger file."""
    image = np.random.default_rng(0).integers(0, 255, (3, 1024, 1024), dtype=np.uint8)
    source = write(tmp_path / "a_20190723.tif", image)
    limits = ["100", "400000", "1700000", "3200000", "3500000"]
    command = [sys.executable, "-c", FULL_DISK, str(source), str(tmp_path / "out.tif"), *limits]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == len(limits)
    assert all("cannot write: no space left on the disk" in line and "Make room" in line for line in told), told
    assert [path.name for path in tmp_path.iterdir()] == ["a_20190723.tif"]


def test_what_gdal_raises_last_is_an_error_that_travels(tmp_path, monkeypatch):
    def overlook(*_, **__):
        told = CPLE_AppDefinedError(1, 1, "TIFFAppendToStrip:Write error at scanline 7")
        raise SystemError("<built-in method copy> returned a result with an exception set") from told

    for fail, what in ((overlook, "no space left on the disk"), (refuse_access, "Permission denied")):
        monkeypatch.setattr("rasterio.shutil.copy", fail)
        with pytest.raises(RunError, match=f"cannot write: .*{what}") as told:
            export_cog(raster(rgb(SHAPE), 50), tmp_path / "a.tif")
        assert told.value.__cause__ is None
        assert told.value.__context__ is None
        assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)
        assert not list(tmp_path.iterdir())


def refuse_access(*_, **__):
    raise PermissionError(13, os.strerror(13))


def test_a_stage_that_needs_the_whole_raster_runs_once(tmp_path, monkeypatch):
    made = []

    def count(block):
        made.append(block.shape)
        return block

    monkeypatch.setattr("lakescale.cog._AT_ONCE_BYTES", 10_000)
    lazy = raster(rgb((300, 400)), 50)
    counted = lazy.data.map_blocks(count, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    export_cog(lazy.copy(data=counted - counted.min()), tmp_path / "a.tif")
    assert len(made) == 48
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(), rgb((300, 400)) - rgb((300, 400)).min())


def test_a_cog_is_written_as_its_blocks_are_made(tmp_path, monkeypatch):
    made, written, held = [], [], []
    real = cog._Writer.__call__

    def count(block):
        made.append(block.shape)
        return block

    def watch(self, index, place, pixels):
        held.append(len(made) - len(written))
        written.append(index)
        return real(self, index, place, pixels)

    monkeypatch.setattr(cog._Writer, "__call__", watch)
    image = rgb((300, 400))
    lazy = raster(image, 50)
    counted = lazy.data.map_blocks(count, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    with dask.config.set(scheduler="sync"):
        export_cog(lazy.copy(data=counted), tmp_path / "a.tif")
    assert len(written) == len(made) == 48
    assert max(held) <= 2
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(), image)


def test_another_scheduler_hands_over_some_blocks_at_a_time(tmp_path, monkeypatch):
    asked = []
    real = dask.compute

    def watch(*collections, **options):
        asked.append(sum(one.nbytes for one in collections if hasattr(one, "nbytes")))
        return real(*collections, **options)

    monkeypatch.setattr(dask, "compute", watch)
    monkeypatch.setattr("lakescale.cog._AT_ONCE_BYTES", 10_000)
    image = rgb((300, 400))
    with dask.config.set(scheduler=partial(dask.get)):
        export_cog(raster(image, 50), tmp_path / "a.tif")
    assert len(asked) == 48
    assert max(asked) <= 10_000
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(), image)


def test_a_cube_is_no_geotiff_and_a_failed_one_leaves_nothing(tmp_path):
    one = raster(rgb(SHAPE), 50)
    with pytest.raises(InputError, match=r"no dims but band, y and x.*cube\.isel\(time=0\)"):
        export_cog(xr.concat([one, one], "time"), tmp_path / "a.tif")
    with pytest.raises(RunError, match="cannot write"):
        export_cog(one, tmp_path / "nowhere/a.tif")
    (tmp_path / "kept.tif").write_text("mine")

    def fail(block):
        raise InputError("a damaged chunk", "x", "")

    broken = one.copy(data=one.data.map_blocks(fail, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)))
    with pytest.raises(InputError, match="a damaged chunk"):
        export_cog(broken, tmp_path / "kept.tif")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("kept.tif", "mine")]
