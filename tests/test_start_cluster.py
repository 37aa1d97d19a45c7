"""``lakescale cluster``: what it starts, how it is reached, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import dask.array as da
import psutil
import pytest

from lakescale.cluster import compute, describe, open_cluster, open_workers
from lakescale.placement import has_gpus
from lakescale.schema import InputError, RunError
from pipelines import start_cluster
from pipelines.start_cluster import VISIBLE, ClusterPlan, find_gpus, plan_cluster

READY_S = 120


@pytest.fixture(autouse=True)
def _hearing_ctrl_c():
    """pytest-xdist ignores SIGINT in its workers, and what they start would, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def cluster_command(folder, *options, **environment):
    """Run ``lakescale cluster`` in a process group of its own."""
    with (folder / "out.log").open("w") as out, (folder / "err.log").open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "lakescale", "cluster", *options], stdout=out, stderr=err, start_new_session=True,
            cwd=Path(__file__).parents[1], env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(folder), **environment},
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def await_lines(process, folder):
    """Await what the command prints when all is there, as a dict."""
    end = time.monotonic() + READY_S
    while "Ctrl-C ends it" not in (text := (folder / "out.log").read_text()):
        assert process.poll() is None, (folder / "err.log").read_text()
        assert time.monotonic() < end
        time.sleep(0.05)
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def test_it_is_reached_and_computes_and_each_gpu_worker_sees_its_gpu(tmp_path):
    def look(dask_worker):
        names = "CUDA_VISIBLE_DEVICES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"
        resources = dask_worker.state.total_resources
        return dask_worker.name, resources, dask_worker.state.nthreads, *map(os.environ.get, names)

    where = tmp_path / "scheduler.json"
    options = "--workers", "1", "--memory-limit", "1GiB", "--scheduler-file", str(where)
    with cluster_command(tmp_path, *options, CUDA_VISIBLE_DEVICES="5,GPU-0a") as process:
        lines = await_lines(process, tmp_path)
        assert lines["scheduler"].startswith("tcp://127.0.0.1:")
        assert lines["dashboard"].startswith("http://127.0.0.1:")
        assert lines["workers"] == "1 for CPUs, 2 for GPUs, 1.0 GiB each"
        assert json.loads(where.read_text())["address"] == lines["scheduler"]
        with open_cluster(lines["scheduler"]) as client:
            assert has_gpus(client)
            assert describe(client)["memory_limit_bytes"] == 3 * 2**30
            assert compute(da.arange(12, chunks=2).sum(), client=client) == (66,)
            malloc = str(64 * 2**20), str(8 * 2**20)
            assert sorted(client.run(look).values()) == [
                ("cpu-0", {}, 1, "", *malloc),
                ("gpu-0", {"GPU": 1}, 1, "5", *malloc),
                ("gpu-1", {"GPU": 1}, 1, "GPU-0a", *malloc),
            ]
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        listening = [c.laddr.ip for each in family for c in each.net_connections("inet") if c.status == "LISTEN"]
        assert set(listening) == {"127.0.0.1"}


DASK_CUDA = {
    "__init__": "",
    "utils": "def get_cpu_affinity(gpu):\n    return {'7': [0], 'GPU-0a': [1]}[gpu]\n",
    "plugins": """
import os
from distributed import WorkerPlugin

class CPUAffinity(WorkerPlugin):
    def __init__(self, cores):
        self.cores = cores

    def setup(self, worker=None):
        os.sched_setaffinity(0, self.cores)
""",
}
"""What of dask-cuda 26.10 is used, for GPUs that this machine has not."""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: no worker can be kept from another")
def test_where_dask_cuda_is_installed_gpu_workers_stay_on_the_cpus_near_their_gpu(tmp_path):
    (tmp_path / "dask_cuda").mkdir()
    for name, text in DASK_CUDA.items():
        (tmp_path / "dask_cuda" / f"{name}.py").write_text(text)
    there = {"CUDA_VISIBLE_DEVICES": "7,GPU-0a", "PYTHONPATH": str(tmp_path)}
    with cluster_command(tmp_path, "--workers", "1", "--memory-limit", "1GiB", **there) as process:
        lines = await_lines(process, tmp_path)
        with open_cluster(lines["scheduler"]) as client:
            kept = client.run(lambda dask_worker: (dask_worker.name, sorted(os.sched_getaffinity(0))))
            assert sorted(kept.values())[1:] == [("gpu-0", [0]), ("gpu-1", [1])]
            assert len(dict(kept.values())["cpu-0"]) > 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("to", [os.kill, os.killpg])
def test_it_ends_on_a_signal_without_a_traceback_and_leaves_nothing(number, code, to, tmp_path):
    """A terminal sends Ctrl-C to the workers, too."""
    where = tmp_path / "scheduler.json"
    options = "--workers", "2", "--gpus", "0", "--dashboard", "none", "--scheduler-file", str(where)
    with cluster_command(tmp_path, *options) as process:
        assert await_lines(process, tmp_path)["dashboard"] == "none"
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        to(process.pid, number)
        assert process.wait(60) == code
    told = (tmp_path / "err.log").read_text()
    if (to, number) == (os.killpg, signal.SIGTERM):  # it ends workers by itself, which may be noticed and told first
        assert "Traceback" not in told
    else:
        assert told == ""
    psutil.wait_procs(children, timeout=20)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert not where.exists()


def test_a_host_that_this_machine_has_not_is_refused():
    with pytest.raises(RunError, match=r"did not start.*\[192.0.2.1\]"), open_workers({"cpu-0": {}}, host="192.0.2.1"):
        pass


# -- the plan


@pytest.mark.parametrize(
    ("asked", "found", "plan"),
    [
        ({}, [], ClusterPlan(4, ())),
        ({}, ["0"], ClusterPlan(3, ("0",))),
        ({}, ["0", "1", "2", "3", "4"], ClusterPlan(1, ("0", "1", "2", "3", "4"))),
        ({"gpus": 1}, ["a", "b"], ClusterPlan(3, ("a",))),
        ({"gpus": 0}, ["a", "b"], ClusterPlan(4, ())),
        ({"workers": 0}, ["a"], ClusterPlan(0, ("a",))),
        ({"workers": 7, "gpus": 1}, ["a"], ClusterPlan(7, ("a",))),
    ],
)
def test_a_worker_for_each_gpu_and_the_cpus_left(asked, found, plan, monkeypatch):
    monkeypatch.setattr(start_cluster, "CPU_COUNT", 4)
    assert plan_cluster(**asked, find=lambda: found) == plan


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"gpus": 3}, r"this machine has 2 GPUs \[--gpus 3\]. Give at most 2"),
        ({"gpus": -1}, r"\[--gpus -1\]"),
        ({"workers": -1}, r"\[--workers -1\]"),
        ({"workers": 0, "gpus": 0}, r"a cluster needs a worker \[--workers 0\]"),
    ],
)
def test_a_plan_that_cannot_be(asked, message):
    with pytest.raises(InputError, match=message):
        plan_cluster(**asked, find=lambda: ["0", "1"])


@pytest.mark.parametrize(
    ("visible", "found"),
    [("0,1", ["0", "1"]), ("", []), ("-1", []), ("2,-1,3", ["2"]), (" GPU-a , MIG-b", ["GPU-a", "MIG-b"])],
)
def test_gpus_are_those_that_cuda_may_see(visible, found, monkeypatch):
    monkeypatch.setenv(VISIBLE, visible)
    assert find_gpus() == found


def test_gpus_are_told_by_nvidia_smi(tmp_path, monkeypatch):
    """Its stand-in prints what one with two GPUs does."""
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "$@" >"$0.asked"\necho GPU-aa\necho GPU-bb\n')
    tool.chmod(0o755)
    assert find_gpus() == ["GPU-aa", "GPU-bb"]
    assert (tmp_path / "nvidia-smi.asked").read_text() == "--query-gpu=uuid --format=csv,noheader\n"
    tool.write_text("#!/bin/sh\necho no driver\nexit 9\n")
    with pytest.raises(RunError, match=r"no driver.*Give --gpus 0"):
        find_gpus()
