"""One seam for disks and object stores: the same tests on a folder, in memory, and on a server of S3."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from s3_server import new_sessions, serving, set_environment
from scene_files import write

from lakescale import storage
from lakescale.schema import InputError, LakescaleError, RunError, without_secrets
from lakescale.storage import Remote, locate, locks


@pytest.fixture(params=["disk", "memory", "s3"])
def root(request, tmp_path):
    """A folder that does not exist yet."""
    if request.param == "disk":
        return tmp_path / "folder"
    if request.param == "memory":
        return locate(f"memory://{uuid.uuid4().hex}/folder")
    return locate(f"{request.getfixturevalue('bucket')}/some/folder")


def sizes_of(root, below=""):
    return {name: told.size for name, told in storage.list_files(root, below).items()}


def test_files_are_written_read_and_deleted(root):
    assert not root.exists()
    assert sizes_of(root) == {}
    storage.write_whole(root / "a/b.txt", b"hello")
    storage.write_each(root, {"a/c.bin": b"\0" * 9, "d": b"d", "never": None}.items())
    assert root.is_dir()
    assert (root / "a/b.txt").is_file()
    assert not (root / "a/b.txt").is_dir()
    assert not (root / "a").is_file()
    assert (root / "a/b.txt").read_text() == "hello"
    assert list(storage.read_each(root, ["a/c.bin", "none", "d"])) == [b"\0" * 9, None, b"d"]
    assert sizes_of(root) == {"a/b.txt": 5, "a/c.bin": 9, "d": 1}
    assert sizes_of(root, "a") == {"a/b.txt": 5, "a/c.bin": 9}
    assert sorted(one.name for one in root.iterdir()) == ["a", "d"]
    assert [one.name for one in root.glob("*/*.txt")] == ["b.txt"]
    with pytest.raises(FileNotFoundError):
        (root / "none").read_bytes()
    storage.write_each(root, {"d": None, "a/b.txt": b"other"}.items())
    assert sizes_of(root) == {"a/b.txt": 5, "a/c.bin": 9}
    assert (root / "a/b.txt").read_text() == "other"
    storage.remove(root / "a/b.txt")
    storage.remove(root / "none")
    assert sizes_of(root) == {"a/c.bin": 9}
    storage.remove(root / "a")
    assert not (root / "a").exists()


def test_a_folder_is_deleted_and_not_what_is_named_alike(root):
    beside = root.with_name("folder.lock")
    for place in (root / "a", root / "b/c", beside, root.with_name("folders") / "x"):
        storage.write_whole(place, b"1")
    storage.remove(root)
    assert not root.exists()
    assert beside.exists()
    assert (root.with_name("folders") / "x").exists()


def test_a_folder_gets_another_name(root):
    target = root.with_name("other")
    contents = {"zarr.json": b"1", "a/zarr.json": b"2", "a/c/0/0": b"3"}
    storage.build_tree(root, contents, last="zarr.json")
    sizes = sizes_of(root)
    assert sizes == dict.fromkeys(contents, 1)
    storage.move(root, target, last="zarr.json")
    assert not root.exists()
    assert sizes_of(target) == sizes
    assert (target / "a/c/0/0").read_bytes() == b"3"


def test_a_file_that_is_made_aside_gets_its_name_when_it_is_whole(root):
    storage.require_writable(root)
    with storage.aside(root / "x.tif") as path:
        path.write_bytes(b"12345")
        assert path.suffix == ".tif"
        assert not (root / "x.tif").exists()
    assert (root / "x.tif").read_bytes() == b"12345"
    with pytest.raises(ZeroDivisionError), storage.aside(root / "x.tif") as path:
        _ = path.write_bytes(b"1") / 0
    assert (root / "x.tif").read_bytes() == b"12345"
    assert sizes_of(root) == {"x.tif": 5}
    assert not path.exists()


def test_what_goes_while_files_are_listed_is_left_out(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert sizes_of(tmp_path) == {"a": 1}


def test_a_file_tells_when_it_changed(root):
    assert storage.changed_ns(root / "a") == 0
    storage.write_whole(root / "a", b"1")
    assert storage.list_files(root)["a"].changed_ns == storage.changed_ns(root / "a")
    first, version = storage.changed_ns(root / "a"), storage.version_of(str(root / "a"))
    assert abs(first / 1e9 - time.time()) < 60
    assert version == storage.version_of(str(root / "a"))
    time.sleep(0.01)
    storage.write_whole(root / "a", b"2")
    assert storage.version_of(str(root / "a")) != version


def test_what_libraries_of_c_read_is_copied_here(root):
    for name in ("lakes.shp", "lakes.dbf", "lakes.shx", "other.dbf"):
        storage.write_whole(root / name, name.encode())
    with storage.fetched(str(root / "lakes.shp")) as path:
        assert Path(path).read_bytes() == b"lakes.shp"
        if isinstance(root, Remote):
            assert sorted(one.name for one in Path(path).parent.iterdir()) == ["lakes.dbf", "lakes.shp", "lakes.shx"]
    assert Path(path).exists() is not isinstance(root, Remote)


def test_one_writer_at_a_time(root, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.05)
    storage.write_whole(root / "zarr.json", b"1")
    with storage.locked(root), pytest.raises(RunError, match="another process is writing"), storage.locked(root):
        pass
    with storage.locked(root):  # it was let go
        pass
    assert not root.with_name("folder.lock").exists()


def test_paths_and_urls_are_taken_apart_alike(tmp_path):
    url, path = locate("s3://bucket/a/b.zarr/"), tmp_path / "a/b.zarr"
    for one in (url, path):
        assert (one.name, one.stem, one.suffix, one.parent.name) == ("b.zarr", "b", ".zarr", "a")
        assert one.with_name("c").name == "c"
        assert one.with_suffix(".tif").name == "b.tif"
        assert (one / "x/y").parent.parent == one
    assert str(url) == "s3://bucket/a/b.zarr"
    assert str(url.with_name("dem.zarr")) == "s3://bucket/a/dem.zarr"
    assert str(locate("s3://bucket").parent) == "s3://bucket"
    assert pickle.loads(pickle.dumps(url)) == url
    assert locate("file:///tmp/x") == locate("/tmp/x")


# -- object stores


def test_only_one_makes_an_object(bucket):
    place = locate(f"{bucket}/lock")
    assert place.create(b"1")
    assert not place.create(b"2")
    assert place.read_bytes() == b"1"


def test_the_lock_of_a_dead_run_is_taken_over(bucket, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.05)
    monkeypatch.setattr(locks, "LEASE_S", 0.5)
    root, lock = locate(f"{bucket}/cube.zarr"), locate(f"{bucket}/cube.zarr.lock")
    storage.write_whole(lock, b'{"token": "x", "host": "elsewhere", "pid": 1}')
    start = time.monotonic()
    with storage.locked(root):
        assert time.monotonic() - start > 0.5
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr(locks, "LEASE_S", 60)
    storage.write_whole(lock, f'{{"token": "x", "host": "{os.uname().nodename}", "pid": {ended.pid}}}'.encode())
    with storage.locked(root):
        pass
    assert time.monotonic() - start < 30
    assert not lock.exists()


def test_who_lost_the_lock_is_told_in_the_end(bucket, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.05)
    root, lock = locate(f"{bucket}/cube.zarr"), locate(f"{bucket}/cube.zarr.lock")

    def lose():
        storage.write_whole(lock, b'{"token": "another"}')
        time.sleep(0.5)

    with pytest.raises(RunError, match="took over the lock"), storage.locked(root):
        lose()
    assert lock.read_bytes() == b'{"token": "another"}'


def test_a_storage_without_conditions_is_told_of(bucket, monkeypatch, caplog):
    def overwrite(place, data):
        storage.write_whole(place, data)
        return True

    monkeypatch.setattr(Remote, "create", overwrite)
    with storage.locked(locate(f"{bucket}/cube.zarr")):
        pass
    assert "cannot tell writers apart" in caplog.text


def test_rasters_are_read_with_the_same_keys(bucket, tmp_path):
    pixels = np.arange(3 * 40 * 50, dtype=np.uint8).reshape(3, 40, 50)
    path = write(tmp_path / "a.tif", pixels)
    storage.write_whole(locate(f"{bucket}/a.tif"), path.read_bytes())
    with storage.open_raster(f"{bucket}/a.tif") as raster:
        np.testing.assert_array_equal(raster.read(), pixels)
    with storage.open_raster(str(path)) as raster:
        np.testing.assert_array_equal(raster.read(), pixels)


# -- what goes wrong


def fails(match, what):
    with pytest.raises(LakescaleError, match=match) as told:
        what()
    error = told.value
    assert error.what
    assert error.item
    assert error.mend
    assert error.__cause__ is None
    pickle.loads(pickle.dumps(error))
    return error


def test_a_bucket_that_is_not_there(bucket):
    there = locate("s3://not-there-at-all/x")
    for what in (
        lambda: storage.write_whole(there, b"1"),
        lambda: storage.write_each(there, {"a": b"1"}.items()),
        lambda: storage.require_writable(there),
        lambda: sizes_of(there),
        there.read_bytes,
    ):
        assert isinstance(fails("no such bucket", what), InputError)


def test_a_storage_that_does_not_answer(bucket, monkeypatch):
    set_environment(monkeypatch, "http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with new_sessions():
        place = locate(f"{bucket}/x")
        for what in (place.exists, place.is_file, lambda: storage.write_whole(place, b"1")):
            assert isinstance(fails("does not answer.*Could not connect", what), RunError)


def test_no_credentials_and_wrong_ones(monkeypatch):
    with serving(INITIAL_NO_AUTH_ACTION_COUNT="0") as endpoint, new_sessions():
        set_environment(monkeypatch, endpoint)
        error = fails("access is refused", lambda: storage.require_writable(locate("s3://bucket/x")))
        assert "AWS_ACCESS_KEY_ID" in error.mend
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with new_sessions():
            fails("access is refused.*credentials", lambda: locate("s3://bucket/x").exists())


def test_urls_that_cannot_be_used(tmp_path):
    fails("a user or a password", lambda: locate("s3://key:hidden@bucket/x"))
    assert "hidden" not in str(fails("a user or a password", lambda: locate("s3://key:hidden@bucket/x")))
    fails("names no file", lambda: locate("s3://"))
    fails("names no file", lambda: locate("s3://bucket/a/../b"))
    fails("no such kind of storage", lambda: locate("nonsense://a/b").exists())
    fails("can only be read", lambda: storage.require_writable(locate("https://127.0.0.1/x")))
    for url in ("s3://bucket/x", str(tmp_path.joinpath("s3:", "bucket"))[len(str(tmp_path)) + 1 :]):
        fails(
            "the folder of a season cannot be in an object store",
            lambda url=url: storage.local_path(url, "the folder of a season"),
        )
    assert storage.local_path("a/b:c", "it") == locate("a/b:c")


def test_what_may_be_secret_is_left_out_of_errors():
    told = str(
        InputError(
            "cannot read s3://me:hidden@b/x", "https://h/a?X-Amz-Signature=hidden&b=1", "see /vsicurl?url=hidden"
        )
    )
    assert "hidden" not in told
    assert told == "cannot read s3://b/x [https://h/a]. See /vsicurl"
    assert (
        without_secrets("rows 1 to 2 of s3://b/x.tif, X-Amz-Credential=hidden")
        == "rows 1 to 2 of s3://b/x.tif, X-Amz-Credential="
    )
    fails("a query", lambda: storage.refuse_secrets("https://h/a?sig=1", "a scene"))
    storage.refuse_secrets("https://h/a", "a scene")
    assert storage.bare_url("s3://bucket/a/b.safetensors") == "s3://bucket/a/b.safetensors"
    assert storage.bare_url("https://u:p@host:8/a?b=c#d") == "https://host:8/a"
    storage.refuse_secrets("/a?b", "a scene")
