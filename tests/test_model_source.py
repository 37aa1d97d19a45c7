"""Models in the workers: loaded once, one call at a time, none in the graph; and checkpoints that do not fit."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import cloudpickle
import dask
import numpy as np
import pytest
from dask.utils import key_split
from rasters import raster
from small_models import blocks_of_255, made_up

import lakescale as ls
from lakescale.cluster import compute, open_cluster
from lakescale.evidence.model import lake_probability
from lakescale.evidence.model_source import ModelSource, checkpoint_source, drop_models

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _no_models_left():
    yield
    drop_models()


def loading(folder, *, bands=None, hash_=""):
    """Load a model that leaves a note of each loading and call; made here, so that it is pickled by its code."""

    def load(path):
        import os
        import uuid

        def note(what):
            (folder / f"{what}-{os.getpid()}-{uuid.uuid4().hex}").touch()

        def predict(windows):
            for _ in windows:
                note("window")
            return windows[:, 0] / 255

        note("loading")
        return SimpleNamespace(predict=predict, spec=SimpleNamespace(bands=bands) if bands else None, hash=hash_)

    return load


@pytest.mark.parametrize("kind", ["local", "threads"])
def test_a_model_is_loaded_once_in_each_worker_and_dropped_on_request(kind, tmp_path):
    scene = blocks_of_255()
    choice = {"window": 32, "stride": 16}
    expected = lake_probability(scene, lambda windows: windows[:, 0] / 255, **choice).values
    with open_cluster(kind, workers=2, dashboard="none") as client:
        for folder in (tmp_path / "first", tmp_path / "again"):
            folder.mkdir()
            source = ModelSource("any.ckpt", loading(folder))
            for batch in (8, 5):
                (found,) = compute(lake_probability(scene, source, **choice, batch=batch), client=client)
                np.testing.assert_array_equal(found, expected)
            loadings = Counter(note.name.split("-")[1] for note in folder.glob("loading-*"))
            assert len(list(folder.glob("window-*"))) == 2 * 7 * 7
            assert set(loadings.values()) == {1}
            assert sum(client.run(drop_models).values()) == len(loadings)


def test_two_models_are_kept_and_the_one_used_least_lately_goes(tmp_path):
    scene = blocks_of_255(128)
    sources = [ModelSource(f"{name}.ckpt", loading(tmp_path)) for name in "abc"]

    def run(k):
        lake_probability(scene, sources[k], window=64, stride=64).compute()
        return len(list(tmp_path.glob("loading-*")))

    assert [run(k) for k in (0, 1, 0, 2, 0, 1)] == [1, 2, 2, 3, 3, 4]
    assert drop_models() == 2


def test_torch_gets_the_threads_of_its_worker():
    import torch

    scene = raster(np.ones((1, 40, 40), np.float32), 16)
    before = torch.get_num_threads()

    def model(windows):
        return np.full(windows[:, 0].shape, torch.get_num_threads() / 100)

    with open_cluster("threads", workers=3, dashboard="none") as client:
        (found,) = compute(lake_probability(scene, model, window=16, stride=16), client=client)
    np.testing.assert_allclose(found, 0.03, atol=1e-5)
    found = lake_probability(scene, model, window=16, stride=16).values
    np.testing.assert_allclose(found, before / 100, atol=1e-5)


def test_one_thread_at_a_time_calls_the_model():
    import threading
    import time

    inside, most = [], []

    def model(windows):
        inside.append(threading.get_ident())
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return np.zeros(windows[:, 0].shape)

    with dask.config.set(scheduler="threads", num_workers=4):
        lake_probability(raster(np.ones((1, 64, 64), np.float32), 16), model, window=16, stride=8).compute()
    assert set(most) == {1}
    assert len(most) > 10


def test_the_graph_does_not_carry_the_weights(tmp_path):
    scene = blocks_of_255(16)
    built = lake_probability(scene, ModelSource("any.ckpt", loading(tmp_path)), window=32, stride=16)
    tasks = {key: task for key, task in built.data.dask.to_dict().items() if key_split(key).startswith("model")}
    assert len(cloudpickle.dumps(tasks)) < 2_000_000
    assert max(len(cloudpickle.dumps(task)) for task in tasks.values()) < 5_000


def test_a_model_that_cannot_travel_runs_in_threads():
    class Stays:
        def __reduce__(self):
            raise TypeError("a loaded model does not travel")

        def __call__(self, windows):
            return made_up(windows)

    scene = blocks_of_255()
    found = lake_probability(scene, Stays(), window=32, stride=16)
    np.testing.assert_array_equal(found, lake_probability(scene, made_up, window=32, stride=16))


def test_what_a_model_answers_with_stays_its_own():
    memory = np.full((1, 32, 32), 1.000001, np.float32)
    memory[:, ::2] = -0.000001
    before = memory.copy()
    choice = {"window": 32, "stride": 16, "batch": 1}
    for augment in (False, True):
        lake_probability(blocks_of_255(), lambda windows: memory, **choice, augment=augment).compute()
    np.testing.assert_array_equal(memory, before)


def test_a_checkpoint_runs_from_its_path(tmp_path):
    import torch

    from lakescale.models import ModelSpec, build_network, load_model, save_checkpoint

    spec = ModelSpec("unet", "resnet18", bands=("blue", "red"), scale=(255, 255), mean=(0.5, 0.4), std=(0.2, 0.3))
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, build_network(spec).module.state_dict(), spec)
    scene, choice = blocks_of_255(48), {"window": 64, "stride": 32, "batch": 1}
    whole = blocks_of_255(-1).sel(band=["blue", "red"])
    expected = lake_probability(whole, load_model(path), **choice).values
    assert np.ptp(expected) > 0.01
    found = lake_probability(scene, str(path), **choice)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    with_options = lake_probability(scene, checkpoint_source(path, device="cpu", precision="float32"), **choice)
    np.testing.assert_allclose(with_options, expected, rtol=0, atol=2e-5)
    assert checkpoint_source(path).hash == load_model(path).hash
    with pytest.raises(ls.InputError, match="windows of a multiple of 32 px, not of 80 px"):
        lake_probability(scene, path, window=80, stride=40)
    with pytest.raises(ls.InputError, match="for uint8, this scene is float32"):
        lake_probability(scene.astype(np.float32), path)
    built = lake_probability(scene, path, **choice)
    state = {name: value + 1 for name, value in build_network(spec).module.state_dict().items()}
    drop_models()
    save_checkpoint(path, state, spec)
    with pytest.raises(ls.InputError, match="another one than when the run was planned"):
        built.compute()


@pytest.mark.parametrize(
    ("source", "loads", "message"),
    [
        ({"bands": ("red",)}, {"bands": ("nir",)}, "the model wants the bands nir, it would be given red"),
        ({}, {"bands": ("nir",)}, "the model wants the bands nir, it would be given all"),
        ({"hash": "1"}, {"hash_": "2"}, "another one than when the run was planned"),
    ],
)
def test_a_loaded_model_that_is_not_the_one_planned_is_refused(source, loads, message, tmp_path):
    built = lake_probability(blocks_of_255(), ModelSource("any.ckpt", loading(tmp_path, **loads), **source))
    with pytest.raises(ls.InputError, match=message) as refusal:
        built.compute()
    assert "any.ckpt" in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"output_stride": 16}, "windows of a multiple of 16 px, not of 24 px"),
        ({"values": "reflectance"}, "is for reflectance, this scene is uint8"),
    ],
)
def test_windows_and_scenes_that_do_not_fit_a_checkpoint_are_refused(source, message):
    with pytest.raises(ls.InputError, match=message):
        lake_probability(blocks_of_255(), ModelSource("any.ckpt", made_up, **source), window=24, stride=8)


def test_an_8_bit_model_takes_no_reflectance():
    source = ModelSource("any.ckpt", made_up, values="uint8")
    lake_probability(blocks_of_255(), source)
    with pytest.raises(ls.InputError, match="is for uint8, this scene is float32"):
        lake_probability(blocks_of_255().astype(np.float32), source)


def test_a_missing_checkpoint_is_named(tmp_path):
    path = tmp_path / "none.safetensors"
    for call in (lambda: lake_probability(blocks_of_255(), path), lambda: checkpoint_source(str(path))):
        with pytest.raises(ls.InputError, match="no such checkpoint") as refusal:
            call()
        assert str(path) in str(refusal.value)
