"""Products that are written aside and put in place: whole after a kill at any moment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lakescale.schema import RunError
from lakescale.storage import locked
from pipelines.catalogue_files import staged

_WRITER = """
import os, pathlib, shutil, sys
from pathlib import Path
from pipelines.catalogue_files import staged

def write(folder, word):
    with staged(folder, first="about") as staging:
        for name in ("about", "one"):
            (staging / name).write_text(word)
        for name in ("parts", "store"):
            (staging / name / word).mkdir(parents=True)
            (staging / name / word / "data").write_text(word)

def killed_at(moment):
    count = 0
    def count_down(call):
        def counted(*args, **kwargs):
            nonlocal count
            count += 1
            if count == moment:
                os._exit(9)
            return call(*args, **kwargs)
        return counted
    watched = [(Path, name) for name in ("rename", "replace", "write_text", "mkdir")]
    for holder, name in [*watched, (shutil, "rmtree"), (os, "fsync")]:
        setattr(holder, name, count_down(getattr(holder, name)))

os.fsync = lambda handle: None  # no power fails here
root, moment = Path(sys.argv[1]), 0
while True:
    moment += 1
    folder = root / str(moment)
    write(folder, "old")
    child = os.fork()
    if not child:
        killed_at(moment)
        write(folder, "new")
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
print(moment)
"""


def word_of(product):
    """Give the word of which a product is whole."""
    if product.is_file():
        return product.read_text()
    (inside,) = product.iterdir()
    assert [path.name for path in inside.iterdir()] == ["data"]
    assert (inside / "data").read_text() == inside.name
    return inside.name


def test_killed_at_every_moment_each_product_is_whole_and_the_next_write_mends_all(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    ran = subprocess.run([sys.executable, "-c", _WRITER, tmp_path], capture_output=True, text=True, check=True)
    moments = int(ran.stdout)
    assert moments > 20
    seen = set()
    for moment in range(1, moments + 1):
        folder = tmp_path / str(moment)
        for name in ("about", "one", "parts", "store"):
            aside = folder / f"{name}.old.partial"  # between two names, for a moment
            seen.add(word_of(folder / name if (folder / name).exists() else aside))
        with staged(folder, first="about") as staging:
            assert not list(staging.iterdir())
            assert all(word_of(folder / name) in {"old", "new"} for name in ("about", "one", "parts", "store"))
        assert sorted(path.name for path in folder.iterdir()) == ["about", "one", "parts", "store"]
    assert seen == {"old", "new"}


def test_what_fails_while_it_is_put_in_place_gets_back_its_name(tmp_path, monkeypatch):
    with staged(tmp_path, first="parts") as staging:
        (staging / "parts" / "old").mkdir(parents=True)
    rename = type(tmp_path).rename

    def refuse(path, target):
        if path.parent.name == "catalogue.partial":
            raise PermissionError(1, "refused")
        return rename(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", refuse)
    with pytest.raises(Exception, match="refused"), staged(tmp_path, first="parts") as staging:
        (staging / "parts" / "new").mkdir(parents=True)
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
    assert (tmp_path / "parts" / "old").is_dir()


def test_two_writers_at_a_time_are_refused(tmp_path):
    with locked(tmp_path), pytest.raises(RunError, match="another process"), staged(tmp_path, first=""):
        pass
