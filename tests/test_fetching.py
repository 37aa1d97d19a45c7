"""Checkpoints by URL: fetched once from a server, kept, fetched anew when they change; secrets are not told."""

from __future__ import annotations

import functools
import http.server
import multiprocessing
import threading
import time
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import torch
from rasters import raster

import lakescale as ls
from lakescale.evidence.model_source import checkpoint_source, drop_models
from lakescale.models import ModelSpec, build_network, describe_checkpoint, save_checkpoint
from lakescale.models.fetching import CACHE, local_copy
from pipelines.recipe import MapRecipe, read_recipe
from pipelines.run_models import open_models

pytestmark = pytest.mark.usefixtures("one_thread")


class Server(http.server.SimpleHTTPRequestHandler):
    """Hands out a folder, and notes what was asked for."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self):
        self.asked[self.path.partition("?")[0]] += 1
        super().do_GET()

    def log_message(self, *said):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder, and the URL under which it is served."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    Server.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
    drop_models()


def save(path, seed):
    spec = ModelSpec(
        architecture="unet", encoder="mobilenet_v2", bands=("red", "green", "blue"), window=64, values="uint8"
    )
    torch.manual_seed(seed)
    return save_checkpoint(path, build_network(spec).module.state_dict(), spec)


def test_a_model_behind_a_url_answers_as_its_file_and_is_fetched_once(served):
    folder, url = served
    save(folder / "m.safetensors", 1)
    values = np.random.default_rng(3).integers(1, 255, (3, 90, 70)).astype(np.uint8)
    scene = raster(values)
    choice = {"window": 64, "stride": 32}
    by_file = ls.lake_probability(scene, folder / "m.safetensors", **choice).values
    by_url = ls.lake_probability(scene, f"{url}/m.safetensors", **choice).values
    np.testing.assert_array_equal(by_url, by_file)
    assert describe_checkpoint(f"{url}/m.safetensors") == describe_checkpoint(folder / "m.safetensors")
    assert Server.asked["/m.safetensors"] == 1


def test_another_file_under_the_same_url_is_fetched_anew(served):
    folder, url = served
    hashes = []
    for seed in (1, 2):
        hashes.append(save(folder / "m.safetensors", seed))
        assert checkpoint_source(f"{url}/m.safetensors").hash == hashes[-1]
        time.sleep(1.1)  # the server tells times in whole seconds
    assert hashes[0] != hashes[1]


def test_processes_that_fetch_at_once_all_get_the_whole_file(served):
    folder, url = served
    (folder / "m.safetensors").write_bytes(np.random.default_rng(0).bytes(2_000_000))
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        copies = pool.map(local_copy, [f"{url}/m.safetensors"] * 8)
    assert len(set(copies)) == 1
    assert copies[0].read_bytes() == (folder / "m.safetensors").read_bytes()
    assert [one.name for one in copies[0].parent.iterdir()] == [copies[0].name]


def test_what_cannot_be_fetched_is_told_without_secrets(served):
    _, url = served
    secret = url.replace("http://", "http://me:hidden@")
    with pytest.raises(ls.InputError, match="cannot fetch the checkpoint") as told:
        describe_checkpoint(f"{secret}/none.safetensors?token=hidden")
    assert f"{url}/none.safetensors" in str(told.value)
    assert "hidden" not in str(told.value)
    with pytest.raises(ls.InputError, match="no such kind of storage"):
        describe_checkpoint("nonsense://a/b.safetensors")


def test_a_file_that_is_no_checkpoint_is_refused_by_its_url(served):
    folder, url = served
    (folder / "m.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(ls.InputError, match="no whole safetensors file"):
        describe_checkpoint(f"{url}/m.safetensors")


def test_a_recipe_keeps_no_secrets(served, tmp_path):
    folder, url = served
    save(folder / "m.safetensors", 1)
    recipe = {"scene": "x.tif", "out": tmp_path / "run"}
    settled, _ = open_models(MapRecipe(**recipe, models=[f"{url}/m.safetensors"]))
    assert settled.models[0].source == f"{url}/m.safetensors"
    for field, value in (("models", [f"{url}/m.safetensors?token=hidden"]), ("scene", f"{url}/x.tif?sig=hidden")):
        with pytest.raises(ValueError, match="a user, a password or a query") as told:
            MapRecipe(**recipe | {field: value})
        assert "hidden" not in str(told.value)
        with pytest.raises(ls.InputError, match="a user, a password or a query") as told:
            read_recipe(None, **recipe | {field: value})
        assert "hidden" not in str(told.value)
