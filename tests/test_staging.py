"""Arrays and frames computed in stages: the same as at once, bounded graphs, and nothing twice after a kill."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from functools import partial
from unittest import mock

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from affine import Affine
from dask._task_spec import Task, TaskRef
from dask.highlevelgraph import HighLevelGraph
from flooding import dems, priority_flood, rough
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import chunked, raster

import lakescale as ls
from lakescale.chunks import Tree, run_in_stages, sink
from lakescale.chunks.stages import deal, name_of
from lakescale.cluster import compute, open_cluster
from lakescale.depressions import WAITING as FILL_WAITING
from lakescale.evidence import sink_regions as regions_module
from lakescale.evidence.sink_regions import sink_regions, waiting
from lakescale.evidence.sink_sizes import WAITING as SIZE_WAITING
from lakescale.evidence.sinks import sink_depth
from lakescale.flats import WAITING as FLAT_WAITING
from lakescale.flats import drain_flats
from lakescale.store import Stages, open_layer, staging, write_layer
from lakescale.store.frames import write_frame

pytestmark = pytest.mark.usefixtures("one_thread")

POLAR = {"transform": Affine(100, 0, -500_000, 0, -100, -1_800_000), "crs": "EPSG:3413"}
DEM = rough((60, 80), 4, smooth=2.5, holes=0.1)
RULES = {"min_depth_m": 2.0, "min_area_m2": 3e4}


def regions_file(dem, folder, *, stages="stages", most=None, levels=1, **rules):
    kept = None if stages is None else Stages(folder / stages, waiting(levels), most)
    write_frame(sink_regions(dem, levels=levels, **rules), folder / "x.parquet", order_by="sink_id", stages=kept)
    return gpd.read_parquet(folder / "x.parquet")


class Graphs:
    """The graphs that are computed: for each array its name, its results, and its tasks."""

    def __init__(self, monkeypatch):
        self.seen = []
        monkeypatch.setattr(staging, "compute", self.compute)

    def compute(self, array, **options):
        self.seen.append((name_of(array.name + "-x").rpartition("-")[0], array.size, len(array.dask)))
        return compute(array, **options)


# -- the same answer


@settings(max_examples=12)
@given(
    case=chunked(dems(largest=12)),
    most=st.sampled_from([1, 5, 1000]),
    levels=st.sampled_from([1, 3]),
    nodata=st.sampled_from(["wall", "outlet"]),
)
def test_regions_in_stages_of_any_chunks_are_those_at_once(tmp_path_factory, case, most, levels, nodata):
    heights, chunks = case
    folder = tmp_path_factory.mktemp("any")
    dem = raster(heights, chunks, **POLAR)
    at_once = regions_file(dem, folder, stages=None, levels=levels, nodata=nodata)
    with (
        mock.patch("lakescale.depressions.Tree", partial(Tree, side=2, most=1)),
        mock.patch("lakescale.evidence.sink_regions.Tree", partial(Tree, side=2, most=1)),
    ):
        in_stages = regions_file(dem, folder, most=most, levels=levels, nodata=nodata)
    pd.testing.assert_frame_equal(in_stages, at_once)


@pytest.mark.parametrize("nodata", ["wall", "outlet"])
def test_layers_in_stages_are_those_at_once(tmp_path, nodata):
    dem = raster(DEM, 16, **POLAR)
    rasters = {
        "filled": (ls.fill_depressions(dem, nodata=nodata), FILL_WAITING),
        "depth": (sink_depth(dem, nodata=nodata, **RULES), (*FILL_WAITING, *SIZE_WAITING)),
        "drained": (drain_flats(raster(priority_flood(DEM, nodata), 16, **POLAR), nodata=nodata), FLAT_WAITING),
    }
    for name, (lazy, names) in rasters.items():
        stages = Stages(tmp_path / name, names, 6)
        assert write_layer(lazy, tmp_path / "x.zarr", name, chunks=16, stages=stages) == 20
        np.testing.assert_array_equal(open_layer(tmp_path / "x.zarr", name).values, lazy.values)
        waited = {file.name.rpartition("-")[0] for file in (tmp_path / name / "results").iterdir()}
        assert waited <= set(names)
        assert waited  # what the last stage read


def test_two_processes_compute_the_same_in_stages(tmp_path):
    dem = raster(DEM, 20, **POLAR)
    at_once = regions_file(dem, tmp_path, stages=None, **RULES)
    with open_cluster("local", workers=2, dashboard="none") as client:
        stages = Stages(tmp_path / "stages", waiting(), 9)
        write_frame(
            sink_regions(dem, **RULES), tmp_path / "x.parquet", order_by="sink_id", stages=stages, client=client
        )
        kept = client.run(lambda dask_worker: len(dask_worker.state.tasks))
    assert set(kept.values()) == {0}
    pd.testing.assert_frame_equal(gpd.read_parquet(tmp_path / "x.parquet"), at_once)


# -- what one graph holds


def test_no_graph_is_larger_than_a_batch_and_all_of_them_make_each_result_once(tmp_path, monkeypatch):
    graphs = Graphs(monkeypatch)
    dem = raster(DEM, 8, **POLAR)
    regions_file(dem, tmp_path, most=12, **RULES)
    blocks, counts = 8 * 10, Counter()
    for name, results, tasks in graphs.seen:
        counts[name] += results
        assert tasks <= 12 or name.endswith("-pick"), name  # one task solves the seams of all blocks
    assert set(counts) == {*waiting(), "write-frame"} - {"sink-cells-contract", "sinks-contract"}
    assert all(counts[name] == blocks for name in set(counts) - {"sink-rows-rest", "write-frame"})
    assert counts["sink-rows-rest"] == blocks + 6 * 4


def test_a_task_makes_a_result_and_few_more_are_needed(tmp_path, monkeypatch):
    """So many records a worker has to keep: of an empty DEM, less than 2 tasks for a result on the disk."""
    graphs = Graphs(monkeypatch)
    regions_file(raster(np.zeros((64, 64), np.float32), 4, **POLAR), tmp_path)
    tasks = sum(tasks for _, _, tasks in graphs.seen)
    results = sum(results for _, results, _ in graphs.seen)
    assert tasks < 1.1 * results
    assert results < 10 * 16**2


def test_what_waits_grows_with_the_rings_of_chunks(tmp_path, monkeypatch):
    """What is told of a chunk to the seams, in bytes: twice the side, twice as much."""
    largest = {}
    put = staging._Files.put

    def weigh(files, key, result):
        put(files, key, result)
        name = name_of(key)
        largest[name] = max(largest.get(name, 0), files.path(key).stat().st_size)

    monkeypatch.setattr(staging._Files, "put", weigh)
    sizes = []
    for side in (32, 64):
        largest.clear()
        regions_file(raster(rough((128, 128), 1, smooth=1.0), side, **POLAR), tmp_path, stages=f"s{side}", **RULES)
        sizes.append({name: largest[name] for name in ("sink-cells-summary", "sinks-summary", "sinks-pick")})
    for name, small in sizes[0].items():
        assert sizes[1][name] < 2.5 * small, name


def test_files_that_nothing_needs_any_more_are_removed(tmp_path, monkeypatch):
    there = {}

    def look(array, **options):
        there[array.name.rpartition("-")[0]] = {
            one.name.rpartition("-")[0] for one in folder.iterdir() if any(one.iterdir())
        }
        return compute(array, **options)

    folder = tmp_path / "stages" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr(staging, "compute", look)
    regions_file(raster(DEM, 20, **POLAR), tmp_path, **RULES)
    assert there["sink-cells"] == {"sink-cells-pick"}
    assert there["sink-pours"] == {"sink-cells", "sink-pours-shared"}
    assert there["write-frame"] <= {"sink-pours", "sinks-pick", "sink-rows-rest"}


# -- kills


class Killed(BaseException):
    pass


class Counted:
    """A function that counts its calls; to Dask it is one and the same, however often it was called."""

    def __init__(self, function):
        self.function, self.calls = function, Counter()

    def __call__(self, *arguments, **options):
        self.calls[arguments[-1]] += 1
        return self.function(*arguments, **options)

    def __dask_tokenize__(self):
        return self.function.__name__


def test_after_a_kill_nothing_is_made_twice(tmp_path, monkeypatch):
    """Whenever the kill comes: each block is found once, each result is put there once, in all runs together."""
    found, puts, put = Counted(regions_module.find_sinks), Counter(), staging._Files.put

    def die(files, key, result):
        if puts.total() == allowed:
            raise Killed
        puts[key] += 1
        put(files, key, result)

    monkeypatch.setattr(regions_module, "find_sinks", found)
    monkeypatch.setattr(staging._Files, "put", die)
    dem = raster(DEM, 20, **POLAR)
    allowed, kills = 7, -1
    while not (tmp_path / "x.parquet").exists():
        with suppress(Killed):
            regions_file(dem, tmp_path, **RULES)
        allowed, kills = allowed + 7, kills + 1
    assert kills > 8
    assert set(puts.values()) == {1}
    assert len(found.calls) == 12
    assert found.calls.total() <= 12 + kills  # one block may have been in hand
    again = tmp_path / "again"
    again.mkdir()
    monkeypatch.undo()
    pd.testing.assert_frame_equal(
        gpd.read_parquet(tmp_path / "x.parquet"), regions_file(dem, again, stages=None, **RULES)
    )


def test_a_damaged_file_is_named(tmp_path, monkeypatch):
    dem = raster(DEM, 20, **POLAR)

    def stop(*_, **__):
        raise Killed

    monkeypatch.setattr("lakescale.store.frames._write_part", stop)
    with pytest.raises(Killed):
        regions_file(dem, tmp_path, **RULES)
    monkeypatch.undo()
    one = next((tmp_path / "stages" / "results").glob("sink-pours-*/*"))
    data = bytearray(one.read_bytes())
    data[len(data) // 2] ^= 1
    one.write_bytes(data)
    with pytest.raises(ls.InputError, match=rf"bytes do not fit .*{one.name}.*Remove {tmp_path}/stages"):
        regions_file(dem, tmp_path, **RULES)


# -- parts


def test_results_of_one_task_stay_in_one_batch():
    tasks = {("solve-t",): Task(("solve-t",), int)}
    for k in range(10):
        tasks["pick-t", k] = Task(("pick-t", k), int, TaskRef(("solve-t",)))
        tasks["read-t", k] = Task(("read-t", k), int)
        tasks["find-t", k] = Task(("find-t", k), int, TaskRef(("read-t", k)))
    keys = [("find-t", k) for k in range(10)] + [("pick-t", k) for k in range(10)]
    batches = list(deal(keys, tasks, set(), 6))
    assert [len(batch) for batch in batches] == [3, 3, 3, 1, 10]
    assert [key for batch in batches for key in batch] == keys


def test_a_source_that_several_blocks_share_is_read_once_a_batch(tmp_path):
    read = []
    graph = {("read-t", 0): Task(("read-t", 0), _note, read)}
    for j in range(4):
        graph["cut-t", 0, j] = Task(("cut-t", 0, j), _add, TaskRef(("read-t", 0)), j)
    array = da.Array(HighLevelGraph.from_collections("cut-t", graph), "cut-t", ((1,), (1,) * 4), dtype=int)
    done = []
    sunk = sink(
        lambda index, place, pixels: done.append(int(pixels[0][0, 0])) or 1,
        array,
        blocks=[(0, j) for j in range(4)],
        name="w",
    )
    shelf = staging._Files(str(tmp_path))
    for batch, left in run_in_stages(sunk, (), shelf, most=100):
        assert (left, batch.size) == (4, 4)
        batch.compute(scheduler="synchronous")
    assert sorted(done) == [0, 1, 2, 3]
    assert len(read) == 1


def _note(read):
    read.append(1)
    return np.zeros((1, 1), int)


def _add(block, number):
    return block + number
