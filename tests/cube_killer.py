"""Writes a cube of two dates and is killed at each of its changes to the disk in turn; run by test_cube_kill.

One process imports everything, and forks a child for each kill. An audit hook in the child counts what it is about to
change on disk (files opened for writing, renamed, removed, folders made) and kills it with SIGKILL before one of these.
"""

import json
import os
import shutil
import signal
import sys
import warnings
from functools import partial
from pathlib import Path

import dask
import zarr  # noqa: F401

import lakescale as ls
from lakescale.cube import open_cube, write_cube

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}


def write_all(folder, store):
    with dask.config.set(scheduler="sync"):
        for name in ("a_2019-07-23.tif", "b_2019-06-01.tif"):
            write_cube(ls.open_scene(folder / name, chunks=32), store, chunks=32)


def in_child(run):
    """Run in a forked child; True where it ended by itself."""
    child = os.fork()
    if not child:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the child failed, see above"
    return True


def killed_at(count, folder, run):
    """Run until some change to the disk, counted from the start, and be killed just before it."""
    seen, folder = 0, str(folder.absolute())

    def hook(event, arguments):
        nonlocal seen
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in CHANGES or is_write) and str(Path(str(arguments[0])).absolute()).startswith(folder):
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    run()


def finished_files(store):
    """Inode and time of every chunk file whose commit marker is there."""
    stamps = {}
    for marker in (store / "scene/commits").rglob("*"):
        if marker.is_file() and marker.name.isdigit():
            for line in marker.read_text().splitlines():
                path = store / line.split()[0]
                if path.is_file():
                    stamps[str(path)] = (path.stat().st_ino, path.stat().st_mtime_ns)
            stamps[str(marker)] = (marker.stat().st_ino, marker.stat().st_mtime_ns)
    return stamps


def tree(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def refuses_to_open(store):
    try:
        open_cube(store)
    except ls.InputError:
        return
    raise AssertionError("an unfinished cube was opened")


def replace_first(folder, store):
    with dask.config.set(scheduler="sync"):
        scene = ls.open_scene(folder / "b_2019-06-01.tif", date="2019-07-23", chunks=32)
        write_cube(scene, store, overwrite=True)


def kill_replacing(folder, step):
    """Kill while a date is replaced, and replace it again."""
    before, peace, store = (folder / name for name in ("before.zarr", "peace.zarr", "cube.zarr"))
    assert in_child(partial(write_all, folder, before))
    shutil.copytree(before, peace)
    assert in_child(partial(replace_first, folder, peace))
    kills, count = 0, 1
    shutil.copytree(before, store)
    while not in_child(partial(killed_at, count, store, partial(replace_first, folder, store))):
        kills += 1
        if len([name for name in tree(store) if name.startswith("scene/commits/0/")]) < 9:
            assert in_child(partial(refuses_to_open, store))
        assert in_child(partial(replace_first, folder, store))
        assert tree(store) == tree(peace), f"another store after a kill at change {count}"
        shutil.rmtree(store)
        shutil.copytree(before, store)
        count += step
    sys.stdout.write(json.dumps({"kills": kills, "changes": count}))


def kill_writing(folder, step):
    """Kill while two dates are written, and write them again."""
    peace, store = folder / "peace.zarr", folder / "cube.zarr"
    assert in_child(partial(write_all, folder, peace))
    expected, kills, kept, count = tree(peace), 0, 0, 1
    while not in_child(partial(killed_at, count, store, partial(write_all, folder, store))):
        kills += 1
        before = finished_files(store)
        if (store / "scene/c/1").exists() and "scene/commits/1/2/2" not in tree(store):  # in the middle of a date
            assert in_child(partial(refuses_to_open, store))
        assert in_child(partial(write_all, folder, store))
        after = finished_files(store)
        assert {path: after[path] for path in before} == before, f"written twice after a kill at change {count}"
        differing = {name for name in {*expected, *tree(store)} if expected.get(name) != tree(store).get(name)}
        assert not differing, f"after a kill at change {count} other files: {differing}"
        left = [path.name for path in folder.iterdir() if path.name not in ("peace.zarr", "cube.zarr")]
        assert all(name.endswith(".tif") for name in left), left
        kept = max(kept, len(before))
        shutil.rmtree(store)
        count += step
    sys.stdout.write(json.dumps({"kills": kills, "changes": count, "kept": kept}))


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message="Use `@` matmul")
    {"write": kill_writing, "replace": kill_replacing}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
