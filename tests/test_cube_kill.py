"""A cube that is killed, and one that the disk refuses: running again ends in the same store, nothing written twice."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cube_killer import finished_files, tree
from scene_files import write

import lakescale as ls
from lakescale.cube import open_cube, write_cube
from lakescale.schema import RunError

HERE = Path(__file__).parent


def scene_file(path, side=80, seed=0):
    pixels = np.random.default_rng(seed).integers(2, 255, (3, side, side), dtype=np.uint8)
    pixels[:, : side // 3] = 0
    return write(path, pixels, tiled=True, blockxsize=32, blockysize=32, nodata=0)


def killer(folder, step, what="write"):
    for seed, name in enumerate(("a_2019-07-23.tif", "b_2019-06-01.tif")):
        scene_file(folder / name, seed=seed)
    command = [sys.executable, str(HERE / "cube_killer.py"), what, str(folder), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=HERE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_at_some_of_its_changes_to_the_disk(tmp_path):
    told = killer(tmp_path, step=41)
    assert told["kills"] > 4
    assert told["changes"] > 150
    assert told["kept"] > 30


@pytest.mark.slow
def test_killed_at_more_of_its_changes_to_the_disk(tmp_path):
    told = killer(tmp_path, step=11)
    assert told["kills"] > 15
    assert told["kept"] > 60


def test_killed_while_a_date_is_replaced(tmp_path):
    told = killer(tmp_path, step=23, what="replace")
    assert told["kills"] > 3
    assert told["changes"] > 80


WRITE_ON_A_CLUSTER = """
import sys
import lakescale as ls
from lakescale.cluster import open_cluster
from lakescale.cube import write_cube
if __name__ == "__main__":
    with open_cluster("local", workers=2, dashboard="none") as client:
        write_cube(ls.open_scene(sys.argv[1], chunks=32), sys.argv[2], chunks=32, client=client)
"""


def test_a_cluster_killed_half_way(tmp_path):
    path, store, peace = scene_file(tmp_path / "a_20190723.tif", 384), tmp_path / "cube.zarr", tmp_path / "peace.zarr"
    script = tmp_path / "ingest.py"
    script.write_text(WRITE_ON_A_CLUSTER)
    command = [sys.executable, str(script), str(path), str(store)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL, cwd=HERE.parent)
    while len(finished_files(store)) < 60:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
    before = finished_files(store)
    total, markers = 12 * 12, sum("commits" in name for name in before)
    assert 10 < markers < total
    done = write_cube(ls.open_scene(path, chunks=32), store, chunks=32)
    assert done.chunks_skipped == markers
    assert done.chunks_written == total - markers
    after = finished_files(store)
    assert {name: after[name] for name in before} == before
    write_cube(ls.open_scene(path, chunks=32), peace, chunks=32)
    assert tree(store) == tree(peace)
    np.testing.assert_array_equal(open_cube(store).isel(time=0).values, ls.open_scene(path).values)


FULL_DISK = """
import resource, signal, sys
import dask
import lakescale as ls
from lakescale.cube import write_cube
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
with dask.config.set(scheduler="sync"):
    try:
        write_cube(ls.open_scene(sys.argv[1], chunks=256), sys.argv[2], chunks=256)
    except ls.RunError as error:
        print(error)
"""


def test_a_disk_that_takes_no_more(tmp_path):
    path, store = scene_file(tmp_path / "a_20190723.tif", 600), tmp_path / "cube.zarr"
    command = [sys.executable, "-c", FULL_DISK, str(path), str(store)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr
    assert "cannot write: no space left on the disk" in done.stdout
    assert "Make room" in done.stdout
    assert not list(store.rglob("*.partial"))
    left = write_cube(ls.open_scene(path, chunks=256), store, chunks=256)
    assert left.chunks_written > 0
    np.testing.assert_array_equal(open_cube(store).isel(time=0).values, ls.open_scene(path).values)


@pytest.mark.parametrize("after", [0, 3, 12, 30])
def test_a_disk_that_fills_up_at_any_time(tmp_path, monkeypatch, one_thread, after):
    path, store = scene_file(tmp_path / "a_20190723.tif"), tmp_path / "cube.zarr"
    scene, calls, real = ls.open_scene(path, chunks=32), 0, Path.open

    def refuse(self, mode="r", *arguments, **options):
        nonlocal calls
        if "w" in mode and "cube.zarr" in str(self):
            calls += 1
            if calls > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return real(self, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RunError, match="no space left on the disk"):
        write_cube(scene, store, chunks=32)
    monkeypatch.undo()
    write_cube(scene, store, chunks=32)
    np.testing.assert_array_equal(open_cube(store).isel(time=0).values, scene.values)
    assert [one.name for one in tmp_path.iterdir() if one.suffix != ".tif"] == ["cube.zarr"]
