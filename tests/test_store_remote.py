"""Cubes and layers in an object store: the bytes are those of a disk, and so are the promises."""

from __future__ import annotations

import uuid

import dask
import numpy as np
import pytest
from rasters import raster
from s3fs import S3FileSystem
from scene_files import write

import lakescale as ls
from lakescale import storage
from lakescale.cube import open_cube, write_cube
from lakescale.schema import InputError, RunError
from lakescale.storage import locate, locks
from lakescale.store import open_layer, write_layer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["memory", "s3"])
def place(request):
    """A folder in an object store."""
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return request.getfixturevalue("bucket")


def scene_of(folder, day, seed=0):
    pixels = np.random.default_rng(seed).integers(2, 255, (3, 70, 90), dtype=np.uint8)
    pixels[:, :40, :30] = 0
    return ls.open_scene(write(folder / f"a_{day}.tif", pixels, nodata=0), chunks=32)


def random_raster(seed):
    return raster(np.random.default_rng(seed).random((70, 90)).astype(np.float32), chunks=32)


def objects(root):
    root = locate(root)
    return {name: (root / name).read_bytes() for name in storage.list_files(root)}


def test_a_cube_has_the_bytes_of_one_on_disk(place, tmp_path):
    scenes = [scene_of(tmp_path, day, seed) for seed, day in enumerate(("2019-07-23", "2019-06-01"))]
    for store in (tmp_path / "cube.zarr", f"{place}/cube.zarr"):
        assert write_cube(scenes[0], store, chunks=32).chunks_written == 9
        done = write_cube(scenes, store)
        assert (done.chunks_written, done.chunks_skipped) == (9, 9)
    assert objects(f"{place}/cube.zarr") == objects(tmp_path / "cube.zarr")
    assert str(done.store) == f"{place}/cube.zarr"
    here, there = open_cube(tmp_path / "cube.zarr"), open_cube(f"{place}/cube.zarr", chunks=50)
    np.testing.assert_array_equal(here.values, there.values)
    np.testing.assert_array_equal(here.seen.values, there.seen.values)
    assert here.attrs == there.attrs


def test_a_layer_goes_on_and_is_replaced(place, tmp_path):
    store = f"{place}/layers.zarr"
    first, other = (random_raster(seed) for seed in (1, 2))
    assert write_layer(first, store, "depth", chunks=32) == 9
    np.testing.assert_array_equal(open_layer(store, "depth").values, first.values)
    for marker in ("0/1", "2/2"):
        (locate(store) / f"depth/commits/{marker}").unlink()
    with pytest.raises(InputError, match="2 of 9 chunks missing"):
        open_layer(store, "depth")
    assert write_layer(first, store, "depth") == 2
    assert write_layer(first, store, "depth") == 0
    with pytest.raises(InputError, match="from another source"):
        write_layer(other, store, "depth")
    assert write_layer(other, store, "depth", overwrite=True) == 9
    np.testing.assert_array_equal(open_layer(store, "depth").values, other.values)
    write_layer(other, tmp_path / "layers.zarr", "depth", chunks=32)
    assert objects(store) == objects(tmp_path / "layers.zarr")


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "marker"])
def test_a_damaged_object_is_noticed(request, damage):
    place = request.getfixturevalue("bucket") if damage == "cut" else f"memory://{uuid.uuid4().hex}"
    store = f"{place}/layers.zarr"
    values = random_raster(1)
    write_layer(values, store, "depth", chunks=32)
    where = locate(store) / ("depth/commits/1/1" if damage == "marker" else "depth/c/1/1")
    stored = where.read_bytes()
    if damage == "gone":
        where.unlink()
    else:
        storage.write_whole(where, stored[:-1] if damage == "cut" else stored[:40] + b"?" + stored[41:])
    with pytest.raises(InputError, match=r"chunk.*\(1, 1\)") as told:
        open_layer(store, "depth").compute()
    assert str(where) in str(told.value)
    assert "overwrite=True" in told.value.mend
    left = write_layer(values, store, "depth", overwrite=damage == "flipped")
    assert left == (9 if damage == "flipped" else 1)
    np.testing.assert_array_equal(open_layer(store, "depth").values, values.values)


def test_a_store_that_was_killed_while_it_was_made_is_made(place, tmp_path):
    values = random_raster(1)
    write_layer(values, tmp_path / "whole.zarr", "depth", chunks=32)
    store = locate(f"{place}/layers.zarr")
    for name in ("y/zarr.json", "spatial_ref/zarr.json"):
        storage.write_whole(store / name, b"as it was")
    assert write_layer(values, store, "depth", chunks=32) == 9
    assert objects(store) == objects(tmp_path / "whole.zarr")
    other = locate(f"{place}/other.zarr")
    storage.write_whole(other / "holiday.jpg", b"")
    with pytest.raises(InputError, match="something else"):
        write_layer(values, other, "depth")
    with pytest.raises(InputError, match="no such store"):
        open_layer(f"{place}/none.zarr", "depth")


def test_two_writers_are_refused(place, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.05)
    store = locate(f"{place}/layers.zarr")
    values = random_raster(1)
    with storage.locked(store), pytest.raises(RunError, match="another process is writing"):
        write_layer(values, store, "depth")
    assert write_layer(values, store, "depth", chunks=32) == 9


def test_what_the_storage_refuses_half_way_is_told_and_goes_on(bucket, monkeypatch):
    store, written, real = f"{bucket}/layers.zarr", [], S3FileSystem._pipe_file

    async def refuse(files, path, *data, **options):
        if "/depth/c/" in path:
            written.append(path)
            if len(written) > 4:
                raise OSError("please reduce your request rate")
        return await real(files, path, *data, **options)

    values = random_raster(1)
    monkeypatch.setattr(S3FileSystem, "_pipe_file", refuse)
    with pytest.raises(RunError, match="does not answer as it should: please reduce") as told:
        write_layer(values, store, "depth", chunks=32)
    assert "run it again" in told.value.mend
    assert not locate(f"{store}.lock").exists()
    monkeypatch.undo()
    assert write_layer(values, store, "depth", chunks=32) == 5
    np.testing.assert_array_equal(open_layer(store, "depth").values, values.values)


def test_opening_computes_nothing(place, tmp_path):
    write_cube(scene_of(tmp_path, "2019-07-23"), f"{place}/cube.zarr", chunks=32)

    def refuse(*_, **__):
        raise AssertionError("building a graph computed something")

    with dask.config.set(scheduler=refuse):
        assert open_cube(f"{place}/cube.zarr").sizes == {"time": 1, "band": 3, "y": 70, "x": 90}
