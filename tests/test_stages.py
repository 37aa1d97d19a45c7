"""What a run writes down of its stages: that figures are those of the work, and where they end up."""

from __future__ import annotations

import json
import logging
import os

import dask.array as da
import pytest
from dask import delayed
from map_scenes import recipe
from test_map_sources import slope_with_bowl, write_dem
from worker_tasks import hold, write

from lakescale.cluster import compute, open_cluster
from lakescale.stages import Journal, current_stage
from pipelines.ingest import ingest
from pipelines.ingest_recipe import read_ingest_recipe
from pipelines.inputs import describe_inputs
from pipelines.map_lakes import map_lakes
from pipelines.run_folder import ingest_manifest
from pipelines.sinks import find_sinks
from pipelines.sinks_recipe import read_sinks_recipe

OF_A_STAGE = {
    "state", "seconds", "tasks", "task_seconds", "transfer_seconds", "spill_seconds", "bytes_read", "bytes_written",
    "bytes_moved", "bytes_spilled", "peak_memory_mb", "driver_memory_mb",
}  # fmt: skip
MB = 1_000_000


@pytest.fixture(scope="module")
def two_processes():
    with open_cluster(workers=2, memory_limit="1GB", dashboard="none") as client:
        yield client


def stage_of(client, function, *arguments):
    """Run tasks of a function in a stage and give its figures."""
    journal = Journal()
    journal.connect(client)
    with journal.stage("work"):
        compute(
            [delayed(function, pure=False)(*some) for some in zip(*arguments, strict=True)], client=client, pixels=7
        )
    return journal.facts()["stages"]["work"]


def test_bytes_and_tasks_of_workers_are_counted(two_processes, tmp_path):
    for size in (1, 5 * MB):  # libraries are read by the first tasks
        told = stage_of(two_processes, write, [tmp_path / f"{i}" for i in range(4)], [size] * 4)
    assert set(told) == OF_A_STAGE | {"pixels"}
    assert (told["state"], told["pixels"]) == ("finished", 7)
    for done in (told["bytes_written"], told["bytes_read"]):
        assert 20 * MB <= done < 30 * MB
    assert told["tasks"] == 4
    assert told["bytes_spilled"] == 0
    assert 0 < told["task_seconds"] < 2 * told["seconds"]


def spans_of(dask_scheduler):
    found = dask_scheduler.extensions["spans"].spans.values()
    return sorted(
        ("/".join(one.name), len(one.groups), dict(one.cumulative_worker_metrics))
        for one in found
        if one.name[0] == "lakescale"
    )


def test_the_scheduler_keeps_one_span_of_a_stage_and_one_group_of_it_and_its_dashboard_can_tell_of_both(two_processes):
    told = []
    for size in range(1, 4):  # dates of a season, each with a journal of its own
        for name in ("seen", "color"):
            outer = Journal()
            outer.connect(two_processes)
            with outer.stage("season"), Journal().stage(name):
                compute([delayed(hold, pure=False)(size)], client=two_processes)
        told.append(two_processes.run_on_scheduler(spans_of))
    names = [[name for name, *_ in one] for one in told]
    assert {"lakescale/season/seen", "lakescale/season/color"} <= set(names[0])
    assert names[0] == names[1] == names[2]
    assert {groups for name, groups, _ in told[-1] if name.startswith("lakescale/season/")} == {1}
    assert all(("execute", "N/A", "idle or other spans", "seconds") in metrics for *_, metrics in told[-1])


def test_the_peak_is_that_of_the_stage_and_begins_anew(two_processes):
    high = stage_of(two_processes, hold, [300 * MB])["peak_memory_mb"]
    low = stage_of(two_processes, hold, [1])["peak_memory_mb"]
    assert high - low > 250


def test_what_workers_send_each_other_is_counted(two_processes):
    pixels = da.random.random((8, 500_000), chunks=(1, 500_000))
    journal = Journal()
    journal.connect(two_processes)
    with journal.stage("alone"):
        compute(pixels[:, 0], client=two_processes)
    with journal.stage("together"):
        compute(pixels.rechunk((8, 62_500)).sum(), client=two_processes)
    alone, together = (journal.stages[name].used["bytes_moved"] for name in ("alone", "together"))
    assert alone < MB < together < 8 * 500_000 * 8


def test_a_worker_that_spills_is_told():
    with open_cluster(workers=1, memory_limit="500MB", dashboard="none") as client:
        pixels = [da.random.random(5 * MB, chunks=-1) for _ in range(12)]
        journal = Journal()
        journal.connect(client)
        with journal.stage("all"):
            compute(da.stack([one.persist() for one in pixels]).sum(axis=1), client=client)
    assert journal.stages["all"].used["bytes_spilled"] > 50 * MB
    assert journal.stages["all"].used["spill_seconds"] > 0


def test_threads_of_this_process_count_once(tmp_path):
    with open_cluster("threads", workers=2, dashboard="none") as client:
        told = stage_of(client, write, [tmp_path / f"{i}" for i in range(2)], [5 * MB] * 2)
    assert 10 * MB <= told["bytes_written"] < 15 * MB
    assert told["peak_memory_mb"] == told["driver_memory_mb"] > 50


def test_stages_within_stages_and_those_that_fail(caplog):
    caplog.set_level(logging.INFO, "lakescale.stages")
    outer, inner = Journal(), Journal()

    def run():
        with outer.stage("dates"):
            with inner.stage("seen") as stage:
                assert current_stage() is stage
                logging.getLogger("lakescale.x").warning("look")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run()
    stage = inner.stages["seen"]
    assert current_stage() is None
    assert stage.path == ("dates", "seen")
    assert (outer.stages["dates"].state, inner.stages["seen"].state) == ("failed", "finished")
    assert (outer.stages["dates"].warnings, inner.stages["seen"].warnings) == (1, 1)
    assert outer.stages["dates"].driver_memory_mb >= inner.stages["seen"].driver_memory_mb > 0
    told = [record.event for record in caplog.records if hasattr(record, "event")]
    assert [(one["event"], one["stage"]) for one in told] == [
        ("stage started", "dates"),
        ("stage started", "dates/seen"),
        ("stage finished", "dates/seen"),
        ("stage failed", "dates"),
    ]
    assert told[2]["warnings"] == 1


def test_figures_of_a_stage_that_is_run_twice_add_up():
    journal = Journal()
    for _ in range(2):
        with journal.stage("read") as stage:
            compute(da.ones(4, chunks=2), pixels=4)
            logging.getLogger("lakescale.x").warning("look")
    journal.keep("read")
    journal.keep("old")
    assert (stage.pixels, stage.warnings, stage.state) == (8, 2, "finished")
    assert journal.facts()["stages"]["old"] == {"state": "kept", "seconds": 0.0}


def test_the_manifest_of_a_run_tells_its_stages_and_what_it_read(small_scene, tmp_path, monkeypatch):
    asked = recipe(small_scene, tmp_path / "RUN", scene__chunks=128)
    stages = map_lakes(asked).stages
    told = json.loads((tmp_path / "RUN" / "manifest.json").read_text())
    assert told["stages"] == stages
    assert list(stages) == ["open", "seen", "color", "candidates", "lakes", "write"]
    assert {one["state"] for one in stages.values()} == {"finished"}
    assert (stages["color"]["chunks_written"], stages["color"]["pixels"]) == (4, 200 * 200)
    assert set(stages["color"]) == OF_A_STAGE | {"pixels", "chunks_written"}
    assert sum(one["seconds"] for one in stages.values()) <= told["seconds"]
    (scene,) = told["inputs"]
    assert (scene["role"], scene["bytes"], scene["files"]) == ("scene", small_scene.stat().st_size, 1)
    monkeypatch.setattr("pipelines.map_lakes.write_products", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        map_lakes(asked)
    failed = json.loads((tmp_path / "RUN" / "manifest.json").read_text())
    states = {name: one["state"] for name, one in failed["stages"].items()}
    assert (failed["state"], states["seen"], states["lakes"], states["write"]) == (
        "failed", "kept", "finished", "failed",
    )  # fmt: skip


def test_inputs_are_told_by_what_changes_with_them(small_scene, tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for name in ("a.tif", "b.tif"):
        (folder / name).write_bytes(bytes(10))
    sources = [str(folder), f"{folder}/*.tif", str(tmp_path / "gone"), "https://me:secret@host/x.tif?key=secret"]

    def told():
        return describe_inputs({"scene": [str(small_scene)], "dem": sources})

    scene, tiles, same, gone, far = first = told()
    assert (scene["role"], scene["files"], scene["bytes"]) == ("scene", 1, small_scene.stat().st_size)
    assert (tiles["files"], tiles["bytes"], tiles["fingerprint"]) == (2, 20, same["fingerprint"])
    assert gone == {"role": "dem", "source": sources[2]}
    assert far == {"role": "dem", "source": "https://host/x.tif"}
    assert told() == first
    nested = tmp_path / "nested"
    (nested / "a").mkdir(parents=True)
    (nested / "a/tile.tif").write_bytes(bytes(30))
    for source in (str(nested), f"{nested}/**/*.tif"):
        (deep,) = describe_inputs({"dem": [source]})
        assert (deep["files"], deep["bytes"]) == (1, 30)
    os.utime(folder / "a.tif", ns=(1, 1))
    assert [one == two for one, two in zip(told(), first, strict=True)] == [True, False, False, True, True]


def test_sinks_and_ingest_tell_their_stages_beside_what_they_write(small_scene, tmp_path):
    dem = write_dem(tmp_path / "dem.tif", slope_with_bowl(slice(20, 60), slice(20, 60), size=192))
    options = {"cluster__kind": "threads", "cluster__dashboard": "none"}
    find_sinks(read_sinks_recipe(source=[str(dem)], out=tmp_path / "sinks.zarr", chunks=96, **options))
    told = json.loads((tmp_path / "sinks.sinks.json").read_text())
    assert list(told["stages"]) == ["open", "filled", "sink_depth", "regions"]
    assert told["stages"]["filled"]["chunks_written"] == 4
    assert told["inputs"][0]["role"] == "dem"
    cube = tmp_path / "cube.zarr"
    ingest(read_ingest_recipe(scene__source=[str(small_scene)], out=cube, cog=True, scene__chunks=128, **options))
    told = json.loads(ingest_manifest(cube).read_text())
    assert list(told["stages"]) == ["open", "cube", "cogs"]
    assert (told["state"], told["dates"], told["stages"]["cube"]["pixels"]) == ("finished", ["2019-07-23"], 40_000)
