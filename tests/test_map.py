"""The main job: the real scene, any cluster, any chunks, and what happens when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from matplotlib.image import imread
from rasterio.transform import from_origin
from schedulers import dask_command, scheduler_process

from lakescale.schema import KEPT, InputError, RunError
from pipelines import run_folder
from pipelines.map_lakes import map_lakes, plan
from pipelines.recipe import read_recipe

FILES = {"recipe.yaml", "manifest.json", "lakes.parquet", "lakes.gpkg", "candidates.parquet", "quicklook.png"}


def lakescale(*arguments, **options):
    """Run the command as a user does."""
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "lakescale", *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment, timeout=300, **options,
    )  # fmt: skip


def recipe(scene, out, **options):
    options = {"cluster__kind": "threads", "cluster__dashboard": "none", **options}
    return read_recipe(None, scene__source=str(scene), out=out, **options)


@pytest.fixture
def real_scene(data_dir):
    return data_dir / "scenes" / "22WEV_2019-07-23"


def write_scene(path, bands, *, crs="EPSG:32622", resolution=10.0, nodata=0, names=None, origin=(600_000, 7_430_000)):
    bands = np.asarray(bands)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2], dtype=bands.dtype,
        crs=crs, transform=from_origin(*origin, resolution, resolution), nodata=nodata, compress="deflate", tiled=True,
        blockxsize=64, blockysize=64,
    ) as sink:  # fmt: skip
        sink.write(bands)
        for i, name in enumerate(names or [], 1):
            sink.set_band_description(i, name)
    return path


def rgb_with_lakes(size=200):
    """8-bit RGB: a square lake, a lake with a lid, a stream, a speck; and a border without data."""
    rgb = np.full((3, size, size), 220, np.uint8)
    water = np.zeros((size, size), bool)
    water[20:60, 20:60] = True
    water[100:160, 100:160] = True
    water[125:135, 125:135] = False
    water[170:182, 5:165] = True
    rgb[:, water] = np.array([[20], [100], [200]], np.uint8)
    rgb[:, :, 190:] = 0
    return rgb


@pytest.fixture
def small_scene(tmp_path):
    return write_scene(tmp_path / "S2_small_20190723.tif", rgb_with_lakes())


@pytest.mark.slow
def test_the_command_maps_the_real_scene(real_scene, tmp_path):
    done = lakescale("map", "--scene", real_scene, "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == FILES
    for told in (
        "date 2019-07-23: the date in the name",
        "truecolor.png",
        "color: no evidence, the scene has no green",
        "cloud not assessed",
    ):
        assert done.stdout.count(told) == 1
    assert "Dask dashboard: http://127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr
    lakes = gpd.read_parquet(tmp_path / "RUN" / "lakes.parquet")
    # the blobs of NDWI_ice > 0.25 that the data's README measures, holes filled: 0.645 grows by its two ice floes
    largest = np.sort(lakes.area_m2)[::-1][:6] / 1e6
    np.testing.assert_allclose(largest[[0, 2, 3, 4]], [0.649, 0.117, 0.097, 0.042], atol=0.0015)
    assert largest[1] == pytest.approx(0.326, abs=0.0015)
    assert (np.abs(lakes.area_m2 / 1e6 - 0.034) < 0.0006).any()


def test_the_real_scenes_lakes_cover_its_water_pixel_by_pixel(real_scene, tmp_path):
    result = map_lakes(
        recipe(real_scene, tmp_path / "RUN", rules__fill_holes=False, rules__min_area_m2=0, rules__neck_px=0)
    )
    blue, red = (
        rasterio.open(next(real_scene.glob(f"*_{band}_*.tif"))).read(1).astype(np.float64) for band in ("B02", "B04")
    )
    with np.errstate(invalid="ignore"):
        expected = (blue - red) / (blue + red) > 0.25
    water = result.candidates[result.candidates.reason.isin([KEPT, "stream"])]
    burnt = rasterio.features.rasterize(
        water.geometry, blue.shape, transform=rasterio.open(next(real_scene.glob("*_B02_*.tif"))).transform
    )
    np.testing.assert_array_equal(burnt > 0, expected)


def as_set(frame):
    columns = sorted(set(frame.columns) - {"geometry"})
    return [tuple(row) for row in frame[columns].itertuples(index=False)], [g.wkb_hex for g in frame.geometry]


@pytest.mark.slow
def test_processes_threads_and_a_running_scheduler_give_the_same_lakes_in_any_chunks(real_scene, tmp_path):
    whole = map_lakes(recipe(real_scene, tmp_path / "whole"))
    expected = as_set(whole.lakes), as_set(whole.candidates)
    common = "--host", "127.0.0.1", "--nthreads", "1", "--nworkers", "1", "--no-dashboard"
    with (
        scheduler_process(tmp_path) as address,
        dask_command(tmp_path, "worker", address, *common),
        dask_command(tmp_path, "worker", address, *common),
    ):
        for name, options in {
            "threads": {"scene__chunks": 333},
            "processes": {"cluster__kind": "local", "cluster__workers": 2, "scene__chunks": 256},
            "scheduler": {"cluster__kind": address, "cluster__dashboard": None, "scene__chunks": 411},
        }.items():
            result = map_lakes(recipe(real_scene, tmp_path / name, **options))
            assert (as_set(result.lakes), as_set(result.candidates)) == expected, name
            stored = gpd.read_parquet(tmp_path / name / "lakes.parquet")
            assert as_set(stored) == expected[0]


def test_color_lakes_with_reasons_on_8_bit_rgb(small_scene, tmp_path):
    result = map_lakes(recipe(small_scene, tmp_path / "RUN", scene__chunks=64))
    assert len(result.lakes) == 2
    assert sorted(result.lakes.lake_id) == [1, 2]
    assert sorted(result.candidates.reason) == [KEPT, KEPT, "stream"]
    assert result.lakes.area_m2.tolist() == pytest.approx([160_000, 360_000], rel=0.01)
    assert result.lakes.color_share.tolist() == pytest.approx([1, 1], abs=0.01)
    assert (result.lakes.seen_share == 1).all()
    assert str(result.lakes.time.iloc[0])[:10] == "2019-07-23"
    picture = imread(tmp_path / "RUN" / "quicklook.png")
    assert min(picture.shape[:2]) > 500
    assert picture[..., :3].std() > 0.1
    for layer, count in (("lakes", 2), ("dropped", 1)):
        assert len(gpd.read_file(tmp_path / "RUN" / "lakes.gpkg", layer=layer)) == count
    manifest = json.loads((tmp_path / "RUN" / "manifest.json").read_text())
    assert manifest["state"] == "finished"
    assert manifest["candidates"] == {"kept": 2, "stream": 1}


def test_a_lake_at_the_edge_of_the_data_says_that_not_all_was_seen(tmp_path):
    rgb = rgb_with_lakes()
    rgb[:, :, 140:] = 0
    scene = write_scene(tmp_path / "cut_20190723.tif", rgb)
    lakes = map_lakes(recipe(scene, tmp_path / "RUN")).lakes
    assert lakes.seen_share.tolist()[0] == 1
    assert lakes.seen_share.tolist()[1] < 0.85


def write_areas(path, *boxes, crs="EPSG:32622"):
    gpd.GeoDataFrame(geometry=[shapely.box(*box) for box in boxes], crs=crs).to_file(path)
    return path


LEFT = (599_000, 7_429_000, 600_800, 7_431_000)  # holds the first lake only
LAKE_2 = (601_200, 7_428_500, 601_210, 7_428_510)


def test_ice_area_of_interest_and_excludes_decide_with_a_reason(small_scene, tmp_path):
    left = write_areas(tmp_path / "left.gpkg", LEFT)
    lonlat = gpd.read_file(left).segmentize(50).to_crs(4326)
    lonlat.to_file(tmp_path / "left.geojson")
    dot = write_areas(tmp_path / "dot.gpkg", LAKE_2)

    def reasons(**areas):
        options = {k: str(v) for k, v in areas.items()}
        result = map_lakes(recipe(small_scene, tmp_path / "RUN", **options), overwrite=True)
        return result.candidates[result.candidates.reason != "stream"].reason.tolist()

    assert reasons(ice=left) == [KEPT, "not on the ice"]
    assert reasons(ice=tmp_path / "left.geojson") == [KEPT, "not on the ice"]
    assert reasons(exclude=dot) == [KEPT, "overlaps an excluded area"]
    assert reasons(aoi=left) == [KEPT]


def test_a_scene_of_nothing_but_nodata_gives_an_empty_run(tmp_path):
    scene = write_scene(tmp_path / "void_20190723.tif", np.zeros((3, 100, 100), np.uint8))
    result = map_lakes(recipe(scene, tmp_path / "RUN", scene__chunks=33))
    assert len(result.lakes) == len(result.candidates) == 0
    assert "seen: 0.0% of the scene; whether there are lakes is not known" in result.notes
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == FILES
    stored = gpd.read_parquet(tmp_path / "RUN" / "lakes.parquet")
    assert list(stored.columns) == list(result.lakes.columns)
    assert stored.crs.to_epsg() == 32622


def test_dry_run_counts_and_writes_nothing(small_scene, tmp_path, never_compute):
    facts = plan(recipe(small_scene, tmp_path / "RUN", scene__chunks=64))
    assert (facts["chunks"], facts["pixels"], facts["bytes a chunk read"]) == (16, 40_000, 64 * 64 * 3)
    assert facts["tasks"] > 16
    assert not (tmp_path / "RUN").exists()


# -- bad input: exit code 2, the item, what mends it


def refused(message, scene, out, *options, code=2):
    done = lakescale("map", "--scene", scene, "--out", out, "--cluster", "threads", "--workers", 1, *options)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (Path(out) / "lakes.parquet").exists()
    return done.stderr


def test_a_missing_scene_names_itself(tmp_path):
    assert "gone.tif" in refused("", tmp_path / "gone.tif", tmp_path / "RUN")


def test_a_truncated_scene_names_itself_and_leaves_no_lakes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 600, 600)).astype(np.uint8)
    scene = write_scene(tmp_path / "cut_20190723.tif", noise)
    scene.write_bytes(scene.read_bytes()[: scene.stat().st_size // 2])
    said = refused("cut_20190723.tif", scene, tmp_path / "RUN")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("scene_options", "options", "message"),
    [
        ({"crs": None}, (), "CRS"),
        ({"crs": "EPSG:4326", "resolution": 1e-4, "origin": (-50, 66)}, (), "units of degree, metres are needed"),
        ({}, ("--date", "2019-13-45"), "2019-13-45"),
        ({}, ("--bands", "a,b,c"), "no evidence of water"),
        ({}, ("--preset", "best"), "no preset 'best'"),
        ({}, ("--neck-rule", "all"), "neck_rule must be"),
        ({}, ("--workers", "0"), "workers"),
        ({}, ("--ice", "gone.gpkg"), "there is no such ice outline [gone.gpkg]"),
    ],
)
def test_bad_input_is_refused(tmp_path, scene_options, options, message):
    scene = write_scene(tmp_path / "scene_20190723.tif", rgb_with_lakes(), **scene_options)
    refused(message, scene, tmp_path / "RUN", *options)
    assert not (tmp_path / "RUN").exists()


def test_a_scene_without_a_date_is_refused_until_one_is_given(tmp_path):
    scene = write_scene(tmp_path / "scene.tif", rgb_with_lakes())
    assert "--date" in refused("no date", scene, tmp_path / "RUN")
    result = map_lakes(recipe(scene, tmp_path / "RUN", scene__date="2019-07-23"))
    assert len(result.lakes) == 2


def test_areas_that_miss_the_scene_or_are_invalid_are_refused(small_scene, tmp_path):
    far = write_areas(tmp_path / "far.gpkg", (0, 0, 10, 10))
    bow = shapely.Polygon([(600_000, 7_429_000), (601_000, 7_430_000), (601_000, 7_429_000), (600_000, 7_430_000)])
    gpd.GeoDataFrame(geometry=[bow], crs="EPSG:32622").to_file(tmp_path / "bow.gpkg")
    for area, message in ((far, "misses the scene"), (tmp_path / "bow.gpkg", "invalid polygon")):
        for name in ("ice", "aoi"):
            with pytest.raises(InputError, match=message):
                map_lakes(recipe(small_scene, tmp_path / "RUN", **{name: str(area)}))
    with pytest.raises(InputError, match="invalid polygon"):
        map_lakes(recipe(small_scene, tmp_path / "RUN", exclude=str(tmp_path / "bow.gpkg")))
    result = map_lakes(
        recipe(small_scene, tmp_path / "RUN", exclude=str(far))
    )  # a mask of mountains elsewhere is normal
    assert "exclude: none of its polygons lies in the scene" in result.notes


def test_a_folder_with_another_run_or_other_files_is_refused(small_scene, tmp_path):
    out = tmp_path / "RUN"
    map_lakes(recipe(small_scene, out))
    map_lakes(recipe(small_scene, out))  # the same run again is welcome
    with pytest.raises(InputError, match=r"holds another run \(it differs in index_threshold, rules\)"):
        map_lakes(recipe(small_scene, out, index_threshold=0.2, rules__neck_px=3))
    assert (out / "lakes.parquet").exists()
    map_lakes(recipe(small_scene, out, rules__neck_px=3), overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds files that are no run"):
        map_lakes(recipe(small_scene, other), overwrite=True)
    assert (other / "thesis.tex").exists()


def test_bad_input_leaves_an_earlier_run_whole(small_scene, tmp_path):
    out = tmp_path / "RUN"
    map_lakes(recipe(small_scene, out))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError):
        map_lakes(recipe(small_scene, out, cluster__memory_limit="a lot"))
    small_scene.write_bytes(small_scene.read_bytes()[:-2000])
    with pytest.raises(InputError):
        map_lakes(recipe(small_scene, out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("manifest", [None, "[]", '{"a": 1}', "not json"])
def test_a_users_own_folder_is_never_taken_over(small_scene, tmp_path, manifest):
    (tmp_path / "recipe.yaml").write_text("# mine\n")
    (tmp_path / "lakes.gpkg").write_text("mine")
    if manifest:
        (tmp_path / "manifest.json").write_text(manifest)
    for overwrite in (False, True):
        with pytest.raises(InputError, match="files that are no run"):
            map_lakes(recipe(small_scene, tmp_path), overwrite=overwrite)
    assert (tmp_path / "lakes.gpkg").read_text() == "mine"


def test_an_output_that_cannot_be_made_is_bad_input(small_scene, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write there: Not a directory"):
        map_lakes(recipe(small_scene, tmp_path / "file" / "RUN"))


# -- failed runs: exit code 1, nothing that looks finished


def test_a_full_disk_is_told_and_leaves_nothing_that_looks_finished(small_scene, tmp_path):
    """A file-size limit refuses bytes in the middle of a file, as a full disk does."""
    out = tmp_path / "RUN"
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000));"
        f"sys.argv = ['lakescale', 'map', '--scene', r'{small_scene}', '--out', r'{out}', '--cluster', 'threads'];"
        "from pipelines.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NUMBA_CACHE_DIR": ""},
    )
    assert done.returncode == 1, done.stderr
    assert "cannot write" in done.stderr
    assert "make room" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    left = {path.name for path in out.iterdir()}
    assert not any("partial" in name for name in left)
    assert "quicklook.png" not in left
    state = json.loads((out / "manifest.json").read_text())["state"] if "manifest.json" in left else "none"
    assert state != "finished"


def test_a_full_tmpfs_is_told_as_no_space(small_scene, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a small disk needs more rights")
    try:
        with pytest.raises(RunError, match="cannot write: "):
            map_lakes(recipe(small_scene, disk / "RUN"))
        left = {path.name for path in (disk / "RUN").iterdir()}
        assert "quicklook.png" not in left
        assert not any("partial" in name for name in left)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("name", ["lakes.parquet", "lakes.gpkg", "quicklook.png", "manifest.json"])
def test_a_write_that_fails_leaves_no_partial_file_and_no_finished_manifest(small_scene, tmp_path, monkeypatch, name):
    out = tmp_path / "RUN"
    sync = run_folder._sync

    def full(path):
        if path.name == f"{Path(name).stem}.partial{Path(name).suffix}" and (
            name != "manifest.json" or "finished" in path.read_text()
        ):
            raise OSError(28, "No space left on device")
        sync(path)

    monkeypatch.setattr(run_folder, "_sync", full)
    with pytest.raises(RunError, match="no space left on the disk") as caught:
        map_lakes(recipe(small_scene, out))
    assert name in caught.value.item
    assert not list(out.glob("*partial*"))
    assert json.loads((out / "manifest.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_a_killed_run_looks_unfinished_and_runs_again_to_the_same_answer(small_scene, tmp_path):
    out = tmp_path / "RUN"
    command = [
        sys.executable,
        "-m",
        "lakescale",
        "map",
        "--scene",
        str(small_scene),
        "--out",
        str(out),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (out / "manifest.json").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads((out / "manifest.json").read_text())["state"] == "running"
    again = lakescale(*command[3:])
    assert again.returncode == 0, again.stderr
    expected = map_lakes(recipe(small_scene, tmp_path / "peace"))
    assert as_set(gpd.read_parquet(out / "lakes.parquet")) == as_set(expected.lakes)
