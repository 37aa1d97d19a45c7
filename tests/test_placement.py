"""Models run on the workers with a GPU, where there are any, and nowhere else; each worker loads them for itself."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Thread

import cloudpickle
import dask
import numpy as np
import pytest
import torch
from distributed import get_task_stream
from rasters import raster
from schedulers import dask_command, scheduler_process
from small_models import blocks_of_255

from lakescale import placement
from lakescale.cluster import compute, open_cluster
from lakescale.evidence.model import lake_probability
from lakescale.evidence.model_source import checkpoint_source, drop_models
from lakescale.models import ModelSpec, build_network, save_checkpoint
from lakescale.placement import has_gpus, needed_resources
from lakescale.polygons import polygonize
from lakescale.schema import RunError

WORKER = "--host", "127.0.0.1", "--nthreads", "1", "--nworkers", "1", "--no-dashboard"
GPU = "--name", "gpu", "--resources", "GPU=1"
WINDOWS = {"window": 32, "stride": 16}


@contextmanager
def running(folder, *workers):
    """A scheduler and workers that are processes of their own, and a client when all are there."""
    with ExitStack() as stack:
        address = stack.enter_context(scheduler_process(folder))
        processes = [
            stack.enter_context(dask_command(folder, "worker", address, *WORKER, *options)) for options in workers
        ]
        client = stack.enter_context(open_cluster(address))
        client.wait_for_workers(len(workers), timeout=60)
        yield client, processes


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Two workers, of which one has a GPU, it says."""
    with running(tmp_path_factory.mktemp("dask"), ("--name", "plain"), GPU) as (opened, _):
        yield opened


@pytest.fixture
def red():
    """A model whose answer is the share of red; made here, so that it is pickled by its code. It takes a while."""

    def share_of_red(windows):
        time.sleep(0.002)
        return windows[:, 0] / 255

    return share_of_red


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network with random weights of 45 MB."""
    torch.manual_seed(5)
    spec = ModelSpec("unet", "resnet18", window=32, options={"decoder_channels": [16, 8, 8, 8, 8]})
    path = tmp_path_factory.mktemp("models") / "unet.safetensors"
    save_checkpoint(path, build_network(spec).module.state_dict(), spec)
    assert path.stat().st_size > 20e6
    return path


def where_tasks_ran(client, *lazy):
    """Compute; give results, and by the scheduler's log the names of the workers of model tasks and of all others."""
    names = worker_names(client)
    with get_task_stream(client=client) as log:
        results = compute(*lazy, client=client)
    names |= worker_names(client)
    models, others = Counter(), Counter()
    for task in log.data:
        name = task["key"][0] if isinstance(task["key"], tuple) else task["key"]
        is_model = name.startswith("model") and "-run-" in name
        (models if is_model else others)[names[task["worker"]]] += 1
    return results, models, others


def worker_names(client):
    return {where: worker["name"] for where, worker in client.scheduler_info(n_workers=-1)["workers"].items()}


# -- where tasks run


@pytest.mark.parametrize("kinds", [("array",), ("frame",), ("array", "frame", "share")])
def test_model_tasks_run_on_the_worker_with_a_gpu_and_others_on_both(kinds, client, red):
    scene = blocks_of_255()
    probability = lake_probability(scene, red, **WINDOWS)
    lazy = {
        "array": probability,
        "frame": polygonize(probability > 0.5),
        "share": dask.delayed(float)((probability > 0.5).mean().data.to_delayed(optimize_graph=False).item()),
    }
    results, models, others = where_tasks_ran(client, *(lazy[kind] for kind in kinds))
    assert models == {"gpu": 16}  # a task a chunk of 32
    assert others["plain"] > 0
    assert others["gpu"] > 0
    with dask.config.set(scheduler="synchronous"):
        expected = compute(*(lazy[kind] for kind in kinds))
    for result, known in zip(results, expected, strict=True):
        assert np.size(known)
        np.testing.assert_array_equal(result, known)


def test_two_models_named_by_their_checkpoints_are_placed_too(client, checkpoint):
    probability = lake_probability(blocks_of_255(64), checkpoint, window=64, stride=64)
    _, models, _ = where_tasks_ran(client, probability)
    assert models == {"gpu": 4}
    assert sum(client.run(drop_models).values()) == 1


def test_a_bar_of_progress_changes_no_placement(client, red, monkeypatch):
    drawn = []

    @contextmanager
    def bar(*_):
        yield lambda *counts: drawn.append(counts)

    monkeypatch.setattr("lakescale.cluster.one_bar", bar)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with get_task_stream(client=client) as log:
        compute(lake_probability(blocks_of_255(), red, **WINDOWS), client=client, progress=True)
    ran = {task["worker"] for task in log.data if "model-run" in str(task["key"])}
    assert [worker_names(client)[worker] for worker in ran] == ["gpu"]
    assert drawn[-1][0] == drawn[-1][1] > 0


@pytest.mark.parametrize("kind", ["local", "threads"])
def test_without_gpus_the_same_call_ends(kind, red):
    probability = lake_probability(blocks_of_255(), red, **WINDOWS)
    with dask.config.set(scheduler="synchronous"):
        expected = probability.values
    with open_cluster(kind, workers=2, dashboard="none") as client:
        assert not has_gpus(client)
        found, lakes = compute(probability, polygonize(probability > 0.5), client=client)
    np.testing.assert_array_equal(found, expected)
    assert len(lakes) > 3


def test_which_tasks_need_a_gpu():
    for key in [("model-run-0f", 1, 2), "model-run-0f", ("model-deeplab-run-ab12", 0, 0)]:
        assert needed_resources(key) == {"GPU": 1}
    for key in [("model-read-0f", 1), "model-0f", ("model-run", 0), ("sam-run-0f", 0), ("a-model-run-0f", 0), 7]:
        assert needed_resources(key) == {}


# -- workers that go


def slow_model(folder):
    def model(windows):
        import uuid

        (folder / uuid.uuid4().hex).touch()
        time.sleep(0.1)
        return windows[:, 0] / 255

    return model


def test_gpu_workers_that_go_end_the_run_with_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(placement, "CHECK_S", 0.1)
    monkeypatch.setattr(placement, "GONE_S", 0.5)
    seen = tmp_path / "seen"
    seen.mkdir()
    probability = lake_probability(blocks_of_255(), slow_model(seen), **WINDOWS)
    with running(tmp_path, (), GPU) as (client, (_, gpu_worker)):

        def stop():
            while not any(seen.iterdir()):
                time.sleep(0.02)
            gpu_worker.terminate()

        stopping = Thread(target=stop)
        stopping.start()
        with pytest.raises(RunError, match=r"model-run waits for a worker with a GPU.*Start the GPU workers again"):
            compute(probability, client=client)
        stopping.join()
        assert len(list(seen.iterdir())) < 16  # calls, one a chunk


def test_a_gpu_worker_that_dies_and_comes_back_goes_on(tmp_path, client):
    def dies_once(windows):
        import os

        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(1)
        return windows[:, 0] / 255

    probability = lake_probability(blocks_of_255(), dies_once, **WINDOWS)
    results, models, _ = where_tasks_ran(client, probability)
    assert (tmp_path / "died").exists()
    assert models == {"gpu": 16}
    np.testing.assert_allclose(results[0].max(), 1, atol=0.01)


# -- what each worker loads


def noting(folder, load):
    def noted(path):
        import os
        import uuid

        (folder / f"{os.getpid()}-{uuid.uuid4().hex}").touch()
        return load(path)

    return noted


@pytest.mark.slow
def test_each_worker_loads_a_checkpoint_once_and_again_when_dropped(tmp_path, checkpoint):
    source = checkpoint_source(checkpoint)
    source = replace(source, load=noting(tmp_path, source.load))
    scene = raster(np.random.default_rng(3).integers(0, 255, (3, 256, 256)).astype(np.uint8), 32)
    with open_cluster("local", workers=2, dashboard="none") as client:

        def run(stride):
            compute(lake_probability(scene, source, window=32, stride=stride), client=client)
            return Counter(note.name.split("-")[0] for note in tmp_path.iterdir())

        assert set(run(32).values()) == {1}
        loaded = run(16)
        assert set(loaded.values()) == {1}
        assert sum(client.run(drop_models).values()) == len(loaded) == 2
        assert set(run(32).values()) == {2}


def test_the_graph_does_not_grow_with_the_weights(checkpoint):
    scene = raster(np.zeros((3, 1024, 1024), np.uint8), 64)
    probability = lake_probability(scene, checkpoint_source(checkpoint), window=64, stride=32)
    for lazy in (probability, polygonize(probability > 0.5)):
        graph = dict(lazy.__dask_graph__())
        assert len(graph) > 1000
        assert len(cloudpickle.dumps(graph)) < 5e6
