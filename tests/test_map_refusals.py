"""What `lakescale map` refuses, and what a run that fails leaves behind."""

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
import shapely
from cube_killer import tree
from map_scenes import as_set, lakescale, recipe, rgb_with_lakes, write_areas, write_scene

from lakescale.schema import InputError, RunError
from lakescale.storage import files
from pipelines.map_lakes import map_lakes

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
    before = tree(out)
    with pytest.raises(InputError):
        map_lakes(recipe(small_scene, out, cluster__memory_limit="a lot"))
    small_scene.write_bytes(small_scene.read_bytes()[:-2000])
    with pytest.raises(InputError):
        map_lakes(recipe(small_scene, out))
    assert tree(out) == before


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
    left = {path.name for path in out.iterdir()} - {"evidence.partial.zarr"}  # the next run goes on from there
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
        left = {path.name for path in (disk / "RUN").iterdir()} - {"evidence.partial.zarr"}
        assert "quicklook.png" not in left
        assert not any("partial" in name for name in left)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("name", ["lakes.parquet", "lakes.gpkg", "quicklook.png", "overview.webp", "manifest.json"])
def test_a_write_that_fails_leaves_no_partial_file_and_no_finished_manifest(small_scene, tmp_path, monkeypatch, name):
    out = tmp_path / "RUN"
    sync = files.sync

    def full(path):
        if path.name == f"{Path(name).stem}.partial{Path(name).suffix}" and (
            name != "manifest.json" or json.loads(path.read_text())["state"] == "finished"
        ):
            raise OSError(28, "No space left on device")
        sync(path)

    monkeypatch.setattr("lakescale.storage.files.sync", full)
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
        "--evidence",
        "color",
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
