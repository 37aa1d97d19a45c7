"""Clusters of each kind compute the same, say plainly what is wrong, and leave nothing behind."""

import io
import logging
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import psutil
import pytest
import xarray as xr
from distributed import LocalCluster, get_worker
from schedulers import dask_command, scheduler_process

from lakescale import cluster
from lakescale.cluster import compute, describe, open_cluster
from lakescale.schema import InputError, RunError

KINDS = "local", "threads", "scheduler"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A scheduler and two workers, each its own process; one worker has a GPU, it says."""
    folder = tmp_path_factory.mktemp("dask")
    common = "--host", "127.0.0.1", "--nthreads", "1", "--nworkers", "1", "--no-dashboard"
    with (
        scheduler_process(folder) as found,
        dask_command(folder, "worker", found, *common, "--name", "plain"),
        dask_command(folder, "worker", found, *common, "--name", "gpu", "--resources", "GPU=1"),
    ):
        yield found


@pytest.fixture(params=KINDS)
def client(request):
    if request.param == "scheduler":
        with open_cluster(request.getfixturevalue("address")) as opened:
            yield opened
    else:
        with open_cluster(request.param, workers=2, dashboard="none") as opened:
            yield opened


class Terminal(io.StringIO):
    def isatty(self):
        return True


def listening(process):
    return {c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}


def workers_of_this_process():
    return {p for p in psutil.Process().children(recursive=True) if "resource_tracker" not in " ".join(p.cmdline())}


def array_and_frame():
    array = da.arange(12, chunks=5)
    frame = dd.from_pandas(pd.DataFrame({"a": np.arange(7)}), npartitions=3)
    return array, frame


def test_arrays_frames_and_xarray_compute_in_one_call(client):
    array, frame = array_and_frame()
    named = xr.DataArray(array * 2, dims="x")
    total, rows, doubled, nested, plain = compute(
        array.sum(), frame[frame.a > 2], named, {"mean": frame.a.mean()}, 7, client=client
    )
    assert total == 66
    assert rows.a.tolist() == [3, 4, 5, 6]
    np.testing.assert_array_equal(doubled, np.arange(12) * 2)
    assert isinstance(doubled, xr.DataArray)
    assert nested == {"mean": 3.0}
    assert plain == 7


def test_without_a_client_the_current_one_computes_else_this_process():
    def pid(block):
        return np.full(block.shape, os.getpid())

    here = da.zeros(2, chunks=1).map_blocks(pid, dtype=int)
    with open_cluster("local", workers=1, dashboard="none"):
        assert os.getpid() not in compute(here)[0]
    assert set(compute(here)[0]) == {os.getpid()}


def test_results_come_in_the_order_of_the_arguments():
    """Dask 2026.8 hands back ``compute(array, frame, array)`` as array, array, frame."""
    array, frame = array_and_frame()
    kinds = {
        "ndarray": array, "DataFrame": frame, "DataArray": xr.DataArray(array, dims="x"), "Series": frame.a,
        "Dataset": xr.Dataset({"v": ("x", array)}), "str": dask.delayed(str)(1), "int64": frame.a.sum(),
        "list": [array, 1], "float64": array.mean(), "NoneType": None,
    }  # fmt: skip
    names = list(kinds)
    for seed in range(20):
        drawn = np.random.default_rng(seed).choice(names, 6)
        with dask.config.set(scheduler="synchronous"):
            assert [type(result).__name__ for result in compute(*(kinds[name] for name in drawn))] == list(drawn)
    assert compute() == ()


def test_a_task_shared_by_an_array_and_a_frame_runs_once():
    runs = []

    def source(block):
        if block.size:
            runs.append(1)
        return block + 1

    array = da.zeros(6, chunks=2).map_blocks(source, dtype=float, meta=np.empty(0))
    blocks = array.to_delayed(optimize_graph=False)
    frame = dd.from_delayed([dask.delayed(pd.Series)(b) for b in blocks], meta=pd.Series(dtype=float))
    compute(array, frame, array.sum())
    assert len(runs) == 3


def test_annotated_tasks_stay_on_the_workers_they_name(address):
    def where(block):
        time.sleep(0.02)
        return np.full(block.shape, get_worker().name == "gpu")

    with dask.annotate(resources={"GPU": 1}):
        placed = da.zeros(12, chunks=1).map_blocks(where, dtype=bool, meta=np.empty(0, bool))
    negated = placed.map_blocks(np.logical_not, dtype=bool)  # fused with it, the task would run anywhere
    frame = array_and_frame()[1]
    with open_cluster(address) as client:
        inverse, raster, _ = compute(negated, xr.DataArray(placed & True, dims="x"), frame, client=client)
    assert not inverse.any()
    assert raster.all()


@pytest.mark.parametrize("error", [InputError("no date", "a.tif", "give --date"), KeyError("band")])
def test_errors_of_a_task_pass_as_they_are(client, error):
    def fail(_):
        raise error

    failing = da.zeros(2, chunks=1).map_blocks(fail, dtype=float, meta=np.empty(0))
    with pytest.raises(type(error)) as caught:
        compute(failing, client=client)
    assert type(caught.value) is type(error)
    assert caught.value.args == error.args
    assert str(caught.value) == str(error)


def test_a_worker_that_dies_is_a_run_error_naming_the_task():
    def gone(_):
        os._exit(1)

    deadly = da.zeros(1, chunks=1).map_blocks(gone, name="deadly-task", dtype=float, meta=np.empty(0))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        open_cluster("local", workers=1, dashboard="none") as client,
        pytest.raises(RunError, match=r"1 worker.*deadly-task.*--memory-limit.*smaller chunks"),
    ):
        compute(deadly, client=client)


@pytest.mark.parametrize("kind", ["local", "threads", None])
def test_progress_counts_tasks_on_stderr_only(kind, monkeypatch, capsys):
    @contextmanager
    def no_cluster():
        yield None

    slow = da.zeros(4, chunks=1).map_blocks(lambda b: time.sleep(0.1) or b, dtype=float, meta=np.empty(0))
    shown = Terminal()
    with open_cluster(kind, workers=1) if kind else no_cluster() as client:
        monkeypatch.setattr(sys, "stderr", shown)
        total, _ = compute(slow.sum(), slow, client=client, progress=True, description="summing")
        monkeypatch.undo()
    assert total == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    assert "summing" in text
    drawn = [(int(done), int(tasks)) for done, tasks in re.findall(r"(\d+)/(\d+) tasks", text)]
    assert drawn[-1][0] == drawn[-1][1] >= 4
    assert drawn == sorted(drawn)
    assert capsys.readouterr().out == ""


def test_progress_passes_errors_on_and_is_silent_without_a_terminal(client, monkeypatch, capsys):
    def fail(_):
        raise InputError("no date", "a.tif")

    failing = da.zeros(2, chunks=1).map_blocks(fail, dtype=float, meta=np.empty(0))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        with pytest.raises(InputError, match="no date"):
            compute(failing, client=client, progress=True)
    capsys.readouterr()
    compute(array_and_frame()[0], client=client, progress=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["local", "threads"])
def test_everything_listens_on_loopback_and_the_dashboard_is_told(kind, caplog):
    before = listening(psutil.Process())
    children = workers_of_this_process()
    with caplog.at_level(logging.INFO, "lakescale.cluster"), open_cluster(kind, workers=2) as client:
        found = listening(psutil.Process()) - before
        for child in workers_of_this_process() - children:
            found |= listening(child)
        link = client.dashboard_link
        assert urllib.request.urlopen(link).status == 200
    assert {place.ip for place in found} == {"127.0.0.1"}
    assert link.startswith("http://127.0.0.1:")
    assert link in caplog.text


@pytest.mark.parametrize("off", ["", "none"])
def test_dashboard_off(off, caplog):
    caplog.set_level(logging.INFO, "lakescale.cluster")
    with open_cluster("threads", workers=1, dashboard=off) as client:
        assert client.dashboard_link == describe(client)["dashboard"] == ""
        port = client.cluster.scheduler_info["services"]["dashboard"]
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/status")
        refused.value.close()
    assert "dashboard:" not in caplog.text


@pytest.mark.parametrize("given", ["0", ":0", "localhost:0"])
def test_a_dashboard_without_a_host_is_on_loopback(given):
    with open_cluster("threads", workers=1, dashboard=given) as client:
        port = client.cluster.scheduler_info["services"]["dashboard"]
        assert ("127.0.0.1", port) in listening(psutil.Process())
        assert client.dashboard_link.endswith(f":{port}/status")


def test_describe_counts(address):
    with open_cluster("local", workers=2, memory_limit="600 MiB") as client:
        found = describe(client)
        assert found == {
            "workers": 2, "threads": 2, "memory_limit_bytes": 1200 * 2**20, "dashboard": client.dashboard_link,
        }  # fmt: skip
    with open_cluster("threads", workers=3, memory_limit=10**9, dashboard="none") as client:
        assert describe(client) == {"workers": 1, "threads": 3, "memory_limit_bytes": 10**9, "dashboard": ""}
    with open_cluster(address) as client:
        found = describe(client)
        assert (found["workers"], found["threads"]) == (2, 2)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("cloud", {}, r"no such kind.*\[cloud\]. Give local, threads or tcp"),
        ("local", {"workers": 0}, r"\[workers=0\]. Give --workers 1 or more"),
        ("threads", {"workers": -2}, r"\[workers=-2\]"),
        ("local", {"memory_limit": "lots"}, r"not a size \[lots\]. Give --memory-limit"),
        ("threads", {"memory_limit": 0}, r"not a size \[0\]"),
        ("local", {"dashboard": "here"}, r"dashboard's address.*\[here\]"),
        ("local", {"dashboard": "127.0.0.1:99999"}, r"\[127.0.0.1:99999\]"),
        ("tcp://127.0.0.1:1", {"workers": 2}, r"belong to the running cluster \[tcp://127.0.0.1:1\]. Leave out"),
        ("tcp://127.0.0.1:1", {"memory_limit": "1 GiB"}, "belong to the running cluster"),
        ("tcp://127.0.0.1:1", {"dashboard": "none"}, "belong to the running cluster"),
        ("tcp://127.0.0.1:1", {}, r"no scheduler answers.*\[tcp://127.0.0.1:1\]. Start one with `dask scheduler`"),
        ("tls://127.0.0.1:1", {}, r"no scheduler answers.*distributed.comm.tls"),
        ("tcp://127.0.0.1", {}, "port is missing"),
        ("tcp://127.0.0.1:eight", {}, "no scheduler answers"),
    ],
)
def test_unusable_options(kind, options, message, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_S", 1)
    with pytest.raises(InputError, match=message), open_cluster(kind, **options):
        pass


def test_a_scheduler_without_workers(monkeypatch):
    monkeypatch.setattr(cluster, "WORKERS_S", 0.5)
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty:
        where = empty.scheduler_address
        with pytest.raises(RunError, match=rf"no worker.*\[{where}\].*dask worker {where}"), open_cluster(where):
            pass


def test_a_cluster_that_does_not_start_says_so(monkeypatch):
    def broken(**_):
        raise RuntimeError("Cluster failed to start")

    monkeypatch.setattr(cluster, "LocalCluster", broken)
    with pytest.raises(RunError, match=r"did not start \[local\].*__main__"), open_cluster():
        pass


def test_closing_leaves_the_scheduler_of_others_running(address):
    for _ in range(2):
        with open_cluster(address) as client:
            assert compute(array_and_frame()[0].sum(), client=client) == (66,)


SCRIPT = """
import sys, time, psutil
from lakescale.cluster import open_cluster

def nap(i):
    time.sleep(0.3)
    return i

if __name__ == "__main__":
    kind, end = sys.argv[1:]
    options = {} if "://" in kind else {"workers": 2}
    try:
        with open_cluster(kind, **options) as client:
            futures = client.map(nap, range(20), pure=False)
            total = client.submit(sum, futures)
            if end == "idle":
                total.result()
            else:
                time.sleep(0.5)
            children = psutil.Process().children(recursive=True)
            if end == "raise":
                raise KeyError("body")
    except KeyError as error:
        assert error.args == ("body",)
    alive = [p for p in children if p.is_running() and "resource_tracker" not in " ".join(p.cmdline())]
    print(len(children), len(alive))
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["idle", "busy", "raise"])
def test_closing_is_quiet_and_leaves_no_process(kind, end, tmp_path, request):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    where = request.getfixturevalue("address") if kind == "scheduler" else kind
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, script, where, end], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert done.stderr == ""
    assert done.returncode == 0
    children, alive = map(int, done.stdout.split())
    assert alive == 0
    assert (children > 0) == (kind == "local")
