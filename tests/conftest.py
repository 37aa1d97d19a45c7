"""Fixtures: where real data lies, rasters in any chunks, and a scheduler that refuses to compute."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import dask
import pytest
from hypothesis import HealthCheck, settings
from map_scenes import rgb_with_lakes, write_scene
from s3_server import make_bucket, serving, set_environment

from lakescale.logs import Stderr

_OURS = "lakescale", "pipelines", "training"

settings.register_profile(
    "lakescale",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("lakescale")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real scenes, DEMs and vectors (see README); skips where LAKESCALE_DATA does not say where they are."""
    folder = os.environ.get("LAKESCALE_DATA")
    if not folder:
        pytest.skip("LAKESCALE_DATA is not set: it names the folder of real scenes, DEMs and vectors")
    path = Path(folder)
    assert path.is_dir(), f"LAKESCALE_DATA={folder} is no folder"
    return path


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_here():
    """Fail where a test writes a run into the checkout: it would be in the way of a user's own."""
    here = Path(__file__).parents[1]
    before = set(here.iterdir())
    yield
    left = sorted(path.name for path in set(here.iterdir()) - before if not path.name.startswith("."))
    assert not left, f"tests left {left} in {here}"


@pytest.fixture(autouse=True)
def quiet_after_commands():
    """Take back what a command that runs in this process does to logging."""
    names = [None, *(name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _OURS)]
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for handler in [one for one in logging.getLogger().handlers if isinstance(one, Stderr)]:
        logging.getLogger().removeHandler(handler)


@pytest.fixture
def never_compute():
    """Fail as soon as dask computes anything."""

    def refuse(dsk, keys, **kwargs):
        raise AssertionError("building a graph computed something")

    with dask.config.set(scheduler=refuse):
        yield


@pytest.fixture
def one_thread():
    """Compute without threads: quick for many small graphs."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def small_scene(tmp_path):
    """8-bit RGB with two lakes and a stream."""
    return write_scene(tmp_path / "S2_small_20190723.tif", rgb_with_lakes())


@pytest.fixture(scope="session")
def s3_endpoint():
    """A server of S3 on loopback, for all tests."""
    with serving() as url:
        yield url


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    """An empty bucket, ``s3://...``, that this process and those it starts may read and write."""
    set_environment(monkeypatch, s3_endpoint)
    return make_bucket(s3_endpoint)
