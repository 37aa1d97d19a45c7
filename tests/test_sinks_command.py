"""`lakescale sinks`: what it writes, kills at any time, other requests, the dry run."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import psutil
import pytest
import rasterio
from cube_killer import tree
from flooding import priority_flood, rough
from rasters import raster
from scene_files import write
from scipy import ndimage

from lakescale.evidence.sink_areas import pixel_areas_m2
from lakescale.flats import drain_flats
from lakescale.grid import Grid
from lakescale.schema import InputError
from lakescale.store import open_layer, write_layer
from pipelines.sinks import find_sinks
from pipelines.sinks_plan import _largest_solve, calibrate, describe_plan
from pipelines.sinks_recipe import read_sinks_recipe

HERE = Path(__file__).parent
EIGHT = np.ones((3, 3))
SHAPE = (90, 130)


def recipe(dem, out, **options):
    cluster = {"cluster__kind": "threads", "cluster__workers": 1, "cluster__dashboard": "none"}
    return read_sinks_recipe(source=[str(dem)], out=out, **{"chunks": 32, **cluster, **options})


def ice(shape=SHAPE, seed=1, holes=0.03):
    return rough(shape, seed, smooth=2.0, holes=holes) + 1000


def dem_file(folder, heights=None, name="ice_dem.tif", **options):
    heights = ice() if heights is None else heights
    return write(folder / name, heights, tiled=True, blockxsize=32, blockysize=32, nodata=np.nan, **options)


def plain_sinks(heights, min_depth_m=0.0, min_area_m2=0.0, area=None):
    """Depth on one array, and its sinks, by a plain priority-flood and scipy."""
    depth = priority_flood(heights) - heights
    labels, count = ndimage.label(depth > 0, EIGHT)
    for label in range(1, count + 1):
        inside = labels == label
        if depth[inside].max() < min_depth_m or (area is not None and area[inside].sum() < min_area_m2):
            depth[inside] = labels[inside] = 0
    return depth, labels


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# -- what is written


def test_a_store_holds_the_filled_dem_and_the_depth_and_regions_lie_beside_it(tmp_path):
    heights = ice()
    done = find_sinks(recipe(dem_file(tmp_path, heights), tmp_path / "out" / "x.zarr"))
    assert done.written == (tmp_path / "out/x.zarr", tmp_path / "out/x.parquet")
    assert done.chunks_written == 2 * 15
    depth, labels = plain_sinks(heights)
    np.testing.assert_array_equal(open_layer(done.written[0], "filled").values, priority_flood(heights))
    np.testing.assert_array_equal(open_layer(done.written[0], "sink_depth").values, depth)
    regions = gpd.read_parquet(done.written[1])
    assert len(regions) == done.count == len(np.unique(labels)) - 1 > 20
    assert regions["sink_id"].tolist() == sorted(regions["sink_id"])
    true = pixel_areas_m2(Grid.of(open_layer(done.written[0], "filled")), range(SHAPE[0]), range(SHAPE[1]))
    np.testing.assert_allclose(done.area_m2, true[labels > 0].sum(), rtol=1e-6)
    np.testing.assert_allclose(done.capacity_m3, np.nansum(np.where(labels, depth * true, 0)), rtol=1e-4)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"x.parquet", "x.sinks.json", "x.zarr"}


def test_a_geotiff_of_the_depth_and_of_the_filled_dem(tmp_path):
    heights = ice()
    path = dem_file(tmp_path, heights)
    done = find_sinks(recipe(path, tmp_path / "x.tif", filled=True, voids="outlet"))
    filled = priority_flood(heights, "outlet")
    for name, expected in (("x.tif", filled - heights), ("x_filled.tif", filled)):
        with rasterio.open(tmp_path / name) as file:
            np.testing.assert_array_equal(file.read(1), expected)
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert np.isnan(file.nodata)
    assert [one.name for one in done.written] == ["x.tif", "x_filled.tif", "x.parquet"]
    assert sorted(files(tmp_path)) == ["ice_dem.tif", "x.parquet", "x.sinks.json", "x.tif", "x_filled.tif"]


@pytest.mark.parametrize("out", ["x.zarr", "x.tif"])
def test_flats_drain_on_request(tmp_path, out):
    heights = ice()
    path = dem_file(tmp_path, heights)
    done = find_sinks(recipe(path, tmp_path / out, drained=True, voids="outlet"))
    expected = drain_flats(raster(priority_flood(heights, "outlet"), -1), nodata="outlet").values
    assert (expected > priority_flood(heights, "outlet")).any()
    if out.endswith(".tif"):
        assert tmp_path / "x_drained.tif" in done.written
        with rasterio.open(tmp_path / "x_drained.tif") as file:
            np.testing.assert_array_equal(file.read(1), expected)
    else:
        np.testing.assert_array_equal(open_layer(tmp_path / out, "drained").values, expected)
        assert done.chunks_written == 3 * 15
    again = find_sinks(recipe(path, tmp_path / out, drained=True, voids="outlet"))
    assert again.chunks_written == 0


def test_regions_alone_and_those_that_are_deep_and_large(tmp_path):
    heights = ice()
    path = dem_file(tmp_path, heights)
    whole = find_sinks(recipe(path, tmp_path / "all.parquet"))
    least = {"min_depth_m": 30.0, "min_area_m2": 900.0}
    some = find_sinks(recipe(path, tmp_path / "some.zarr", **least))
    true = pixel_areas_m2(Grid.of(open_layer(tmp_path / "some.zarr", "filled")), range(SHAPE[0]), range(SHAPE[1]))
    depth, labels = plain_sinks(heights, **least, area=true)
    assert 0 < some.count == len(np.unique(labels)) - 1 < whole.count
    np.testing.assert_array_equal(open_layer(tmp_path / "some.zarr", "sink_depth").values, depth)
    assert {path.name for path in tmp_path.iterdir()} == {
        "all.parquet", "all.sinks.json", "ice_dem.tif", "some.parquet", "some.sinks.json", "some.zarr",
    }  # fmt: skip


def test_sinks_within_sinks(tmp_path):
    path = dem_file(tmp_path)
    one = find_sinks(recipe(path, tmp_path / "one.parquet"))
    two = find_sinks(recipe(path, tmp_path / "two.parquet", levels=2))
    assert (one.count, one.area_m2, one.capacity_m3) == (two.count, two.area_m2, two.capacity_m3)
    assert set(gpd.read_parquet(tmp_path / "two.parquet")["level"]) == {0, 1}


def test_a_layer_of_a_store_and_options_of_files(tmp_path):
    heights = ice()
    write_layer(raster(heights, 40, crs="EPSG:3413").rename("dem"), tmp_path / "dem.zarr", "dem", chunks=40)
    done = find_sinks(recipe(tmp_path / "dem.zarr", tmp_path / "x.zarr", chunks=None))
    assert done.chunks_written == 2 * 12
    np.testing.assert_array_equal(open_layer(tmp_path / "x.zarr", "filled").values, priority_flood(heights))
    other = find_sinks(recipe(tmp_path / "dem.zarr", tmp_path / "y.zarr", chunks=50))
    assert other.chunks_written == 2 * 6
    assert gpd.read_parquet(tmp_path / "y.parquet").equals(gpd.read_parquet(tmp_path / "x.parquet"))
    with pytest.raises(InputError, match="--nodata and --overlap"):
        recipe(tmp_path / "dem.zarr", tmp_path / "z.zarr", nodata=3)
    tiles = [dem_file(tmp_path, heights[:, :70], "a.tif"), dem_file(tmp_path, heights[:, :70] + 8, "b.tif")]
    options = {"overlap": "mean", "nodata": float(heights[5, 5])}
    asked = recipe(tiles[0], tmp_path / "m.zarr").model_copy(update={"source": list(map(str, tiles)), **options})
    find_sinks(asked)
    holed = np.where(heights[:, :70] == heights[5, 5], np.nan, heights[:, :70])
    both = (holed.astype(float) + (heights[:, :70] + 8)) / 2
    mean = np.where(np.isnan(holed), heights[:, :70] + 8, both).astype("f4")
    np.testing.assert_array_equal(open_layer(tmp_path / "m.zarr", "filled").values, priority_flood(mean))


# -- kills


KILL = """
import json, shutil, sys, warnings
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from cube_killer import in_child, killed_at, tree
from pipelines.sinks import find_sinks
from pipelines.sinks_recipe import read_sinks_recipe
import lakescale.evidence.sink_regions, lakescale.cog

def run(out, overwrite=False, **options):
    threads = {"cluster__kind": "threads", "cluster__workers": 1, "cluster__dashboard": "none"}
    find_sinks(read_sinks_recipe(source=[str(folder / "ice_dem.tif")], out=out, chunks=32, **threads, **options),
               overwrite=overwrite)

def answer(out):
    "All files, of the manifest what does not depend on the clock."
    told = tree(out)
    manifest = json.loads(told["x.sinks.json"])
    return told | {"x.sinks.json": (manifest["state"], manifest["request"])}

def stamps(out):
    "Inode and time of the files of the finished chunks."
    found = {}
    for marker in (one for one in out.rglob("commits/*/*") if one.name.isdigit()):
        for line in marker.read_text().splitlines():
            store = marker.parents[3]
            path = store / line.split()[0]
            if path.is_file():
                found[str(path)] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found

if __name__ == "__main__":
    folder, ending, step, replaces = Path(sys.argv[1]), sys.argv[3], int(sys.argv[4]), sys.argv[5] == "replace"
    peace, before, out = (folder / name for name in ("peace", "before", "out"))
    first = {"min_depth_m": 20.0} if replaces else {}
    before.mkdir()
    if replaces:
        assert in_child(partial(run, before / f"x.{ending}", **first))
    shutil.copytree(before, out)
    again = partial(run, out / f"x.{ending}", overwrite=replaces)
    assert in_child(again)
    out.rename(peace)
    kills, kept, count = 0, 0, 1
    shutil.copytree(before, out)
    while not in_child(partial(killed_at, count, out, again)):
        kills += 1
        finished = stamps(out)
        assert in_child(again)
        now = stamps(out)
        if out.joinpath("x.zarr").exists() and not replaces:
            assert {path: now[path] for path in finished} == finished, f"written twice after a kill at change {count}"
        kept = max(kept, len(finished))
        differing = {name for name, told in answer(peace).items() if answer(out).get(name) != told}
        assert not differing and set(answer(out)) == set(answer(peace)), f"after a kill at change {count}: {differing}"
        shutil.rmtree(out)
        shutil.copytree(before, out)
        count += step
    print(json.dumps({"kills": kills, "changes": count, "kept": kept}))
"""


def killer(folder, ending, step, what="write"):
    dem_file(folder)
    (folder / "killer.py").write_text(KILL)
    command = [sys.executable, str(folder / "killer.py"), str(folder), str(HERE), ending, str(step), what]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=HERE, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_at_some_of_its_changes_to_the_disk(tmp_path):
    told = killer(tmp_path, "zarr", 89)
    assert told["kills"] > 2
    assert told["kept"] > 8


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "what"), [("zarr", "write"), ("zarr", "replace"), ("tif", "write")])
def test_killed_at_more_of_its_changes_to_the_disk(tmp_path, ending, what):
    assert killer(tmp_path, ending, 41, what)["kills"] > 3


ON_A_CLUSTER = """
import sys
from pathlib import Path
from pipelines.sinks import find_sinks
from pipelines.sinks_recipe import read_sinks_recipe
if __name__ == "__main__":
    find_sinks(read_sinks_recipe(source=[sys.argv[1]], out=Path(sys.argv[2]), chunks=32,
                                 cluster__workers=2, cluster__dashboard="none"))
"""


def start_on_a_cluster(folder, dem, out):
    (folder / "run.py").write_text(ON_A_CLUSTER)
    command = [sys.executable, str(folder / "run.py"), str(dem), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, start_new_session=True, stderr=log, cwd=HERE.parent, env=environment)


def markers(store):
    return sum(path.name.isdigit() for path in store.rglob("commits/*/*"))  # and not what is being written


def wait_for_markers(process, store, count):
    while markers(store) < count:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.002)


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_changes_nothing(tmp_path):
    heights = ice((320, 320))
    dem, out = dem_file(tmp_path, heights), tmp_path / "x.zarr"
    process = start_on_a_cluster(tmp_path, dem, out)
    wait_for_markers(process, out, 15)
    workers = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
    assert len(workers) == 2
    workers[0].kill()
    assert markers(out) < 100, "it had filled all before the worker was killed"
    assert process.wait(200) == 0, (tmp_path / "log").read_text()[-3000:]
    find_sinks(recipe(dem, tmp_path / "peace" / "x.zarr"))
    np.testing.assert_array_equal(
        open_layer(out, "sink_depth").values, open_layer(tmp_path / "peace/x.zarr", "sink_depth").values
    )
    assert gpd.read_parquet(tmp_path / "x.parquet").equals(gpd.read_parquet(tmp_path / "peace/x.parquet"))
    np.testing.assert_array_equal(open_layer(out, "filled").values, priority_flood(heights))


@pytest.mark.slow
def test_a_cluster_that_is_killed_goes_on_where_it_was(tmp_path):
    dem, out = dem_file(tmp_path, ice((320, 320))), tmp_path / "x.zarr"
    process = start_on_a_cluster(tmp_path, dem, out)
    wait_for_markers(process, out, 25)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
    finished = markers(out)
    assert 25 <= finished < 100
    assert not (tmp_path / "x.parquet").exists()
    done = find_sinks(recipe(dem, out))
    assert done.chunks_written == 200 - finished
    again = find_sinks(recipe(dem, out))
    assert (again.chunks_written, again.count) == (0, done.count)


# -- other requests


def test_another_request_into_the_same_out_is_refused_unless_overwritten(tmp_path):
    path, other = dem_file(tmp_path), dem_file(tmp_path, ice(seed=2), "other_dem.tif")
    out = tmp_path / "x.zarr"
    find_sinks(recipe(path, out))
    before = tree(tmp_path)
    for dem, options, differs in (
        (path, {"min_depth_m": 5.0}, "min_depth_m"),
        (path, {"voids": "outlet"}, "voids"),
        (path, {"levels": 2}, "levels"),
        (path, {"chunks": 64}, "chunks, pixels"),
        (other, {}, "source, pixels"),
    ):
        with pytest.raises(InputError, match=rf"another run \(it differs in {differs}\)"):
            find_sinks(recipe(dem, out, **options))
    assert tree(tmp_path) == before
    done = find_sinks(recipe(other, out, min_depth_m=5.0), overwrite=True)
    assert done.chunks_written == 30
    np.testing.assert_array_equal(open_layer(out, "sink_depth").values, plain_sinks(ice(seed=2), 5.0)[0])
    assert find_sinks(recipe(other, out, min_depth_m=5.0)).chunks_written == 0


def test_a_dem_that_changed_is_another_one(tmp_path):
    path = dem_file(tmp_path)
    find_sinks(recipe(path, tmp_path / "x.tif"))
    dem_file(tmp_path, ice(seed=5))
    with pytest.raises(InputError, match="differs in pixels"):
        find_sinks(recipe(path, tmp_path / "x.tif"))


def test_files_of_others_are_left_alone(tmp_path):
    path, mine = dem_file(tmp_path), tmp_path / "x.parquet"
    mine.write_text("my notes")
    with pytest.raises(InputError, match="not by a run that is known"):
        find_sinks(recipe(path, tmp_path / "x.tif"))
    assert mine.read_text() == "my notes"
    (tmp_path / "y.zarr").mkdir()
    (tmp_path / "y.zarr/notes").write_text("mine")
    with pytest.raises(InputError, match="no store of lakescale"):
        find_sinks(recipe(path, tmp_path / "y.zarr"), overwrite=True)
    assert files(tmp_path) == ["ice_dem.tif", "x.parquet", "y.zarr/notes"]


def test_layers_may_lie_beside_the_dem_they_come_from(tmp_path):
    write_layer(raster(ice(), 40, crs="EPSG:3413").rename("dem"), tmp_path / "dem.zarr", "dem", chunks=40)
    find_sinks(recipe(tmp_path / "dem.zarr", tmp_path / "dem.zarr", chunks=None))
    np.testing.assert_array_equal(open_layer(tmp_path / "dem.zarr", "dem").values, ice())
    np.testing.assert_array_equal(open_layer(tmp_path / "dem.zarr", "filled").values, priority_flood(ice()))


# -- input that cannot be used


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": Path("x.gpkg")}, "OUT must end in .zarr, .tif"),
        ({"out": Path("x.parquet"), "filled": True}, "regions alone"),
        ({"engine": "arcgis"}, "--engine"),
        ({"voids": "hole"}, "--voids"),
        ({"levels": 0}, "--levels"),
        ({"min_depth_m": float("nan")}, "--min-depth-m"),
        ({"min_area_m2": -1}, "--min-area-m2"),
        ({"chunks": 3}, "--chunks"),
        ({"source": []}, "DEM"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        read_sinks_recipe(**{"source": ["a.tif"], "out": Path("x.tif"), **options})


def test_degrees_have_depths_but_no_regions(tmp_path, caplog):
    path = dem_file(tmp_path, crs="EPSG:4326", transform=rasterio.Affine(0.01, 0, -50, 0, -0.01, 70))
    for out, options in (("x.parquet", {}), ("x.tif", {"min_area_m2": 5.0})):
        with pytest.raises(InputError, match="units of degree, metres are needed"):
            find_sinks(recipe(path, tmp_path / out, **options))
    with caplog.at_level(logging.WARNING):
        done = find_sinks(recipe(path, tmp_path / "x.tif"))
    assert "regions are not written" in caplog.text
    assert (done.count, done.written) == (None, (tmp_path / "x.tif",))
    with rasterio.open(tmp_path / "x.tif") as file:
        np.testing.assert_array_equal(file.read(1), plain_sinks(ice())[0])


def test_a_dem_without_an_elevation_is_refused_and_nothing_is_left(tmp_path):
    path = dem_file(tmp_path, np.full(SHAPE, np.nan, "f4"))
    for name in ("x.zarr", "x.tif", "x.parquet"):
        with pytest.raises(InputError, match="holds no elevation"):
            find_sinks(recipe(path, tmp_path / name))
        with pytest.raises(InputError, match="no elevation in the 15 chunks"):
            describe_plan(recipe(path, tmp_path / name))
        assert [one for one in files(tmp_path) if not one.endswith("zarr.json")][:1] == ["ice_dem.tif"]
        assert not [one for one in files(tmp_path) if "/filled" in one or one.endswith((".sinks.json", ".parquet"))]


# -- the dry run


def test_the_dry_run_counts_and_measures_and_writes_nothing(tmp_path):
    asked = recipe(dem_file(tmp_path, holes := ice(holes=0.0)), tmp_path / "x.zarr", cluster__workers=3)
    told = describe_plan(asked)
    assert files(tmp_path) == ["ice_dem.tif"]
    assert told["chunks"] == "15 (3 x 5 of 32 x 32 cells)"
    assert told["writes"] == f"{tmp_path}/x.zarr: filled, sink_depth, {tmp_path}/x.parquet"
    assert "chunk (1, 2): rows from 32, columns from 64" in told["calibration"]
    assert "with 3 workers" in told["estimate"]
    share = (plain_sinks(holes[32:64, 64:96])[0] > 0).mean()
    assert f"{share:.1%} of it in sinks" in told["calibration"]
    assert int(re.search(r"\d+", told["tasks"])[0]) > 15 * 20


def test_the_dry_run_calibrates_on_a_chunk_that_holds_elevations(tmp_path):
    heights = np.full((160, 160), np.nan, "f4")
    heights[40:60, 100:120] = ice((20, 20), holes=0)
    asked = recipe(dem_file(tmp_path, heights), tmp_path / "x.tif")
    from pipelines.sinks import open_elevation

    found = calibrate(open_elevation(asked), asked)
    assert found.place.startswith("chunk (1, 3)")
    assert min(found.read_s, found.survey_s, found.fill_s, found.pack_s, found.regions_s) > 0


def test_the_dry_run_tells_what_the_largest_square_of_a_tree_is_sent():
    assert _largest_solve((20, 25), 100) == 500 * 100
    assert _largest_solve((64, 64), 100) == 256 * 100
    assert _largest_solve((320, 320), 100) == 20 * 20 * 1600  # the squares send what chunks of 16 times the side would
    assert _largest_solve((1, 513), 100) == 33 * 1600


def test_the_dry_run_of_whitebox_tells_what_it_holds(tmp_path, monkeypatch):
    from lakescale import whitebox

    monkeypatch.setattr("lakescale.evidence.sinks.find_binary", lambda: None)
    asked = recipe(dem_file(tmp_path), tmp_path / "x.tif", engine="whitebox")
    assert "40 bytes a cell" in describe_plan(asked)["estimate"]
    monkeypatch.setattr(whitebox.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100_000}))
    for run in (describe_plan, find_sinks):
        with pytest.raises(InputError, match="holds the whole DEM in memory"):
            run(asked)
    assert files(tmp_path) == ["ice_dem.tif"]


# -- the command


def command(*arguments):
    run = [sys.executable, "-m", "lakescale", "sinks", *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, check=False, cwd=HERE.parent, timeout=200)


@pytest.mark.slow
def test_the_command_tells_what_it_wrote_and_a_wrong_value_once(tmp_path):
    heights = ice()
    heights[50, 60] = heights[10, 10] = -9999
    write_layer(raster(heights, 32, crs="EPSG:3413").rename("dem"), tmp_path / "dem.zarr", "dem", chunks=32)
    done = command(tmp_path / "dem.zarr", tmp_path / "x.zarr", "--workers", "2", "--dashboard", "none")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("nodata value is probably wrong") == 1
    assert "2 elevations outside -500..9000 m in 2 chunks, such as -9999 at row 10, column 10" in done.stderr
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"\d+ sinks, [\d.]+ km2 of true area, [\d.e-]+ km3 of capacity", lines[0])
    assert lines[1].startswith("30 chunks written in ")
    assert lines[2:] == [f"written: {tmp_path}/x.zarr", f"written: {tmp_path}/x.parquet"]


def test_the_command_refuses_with_code_2_and_says_why(tmp_path):
    done = command(dem_file(tmp_path), tmp_path / "x.gpkg")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lakescale: OUT must end in")
    planned = command(tmp_path / "ice_dem.tif", tmp_path / "x.tif", "--dry-run", "--chunks", "32", "--filled")
    assert planned.returncode == 0, planned.stderr
    assert f"{tmp_path}/x_filled.tif" in planned.stdout
    assert files(tmp_path) == ["ice_dem.tif"]
