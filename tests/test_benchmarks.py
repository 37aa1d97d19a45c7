"""Every benchmark once, small: it runs, and ours and the peer agree. Speed is no test."""

from __future__ import annotations

import importlib
import math
import sys
import time
from itertools import product
from pathlib import Path

import dask.array as da
import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_color import seed_color_mask

from lakescale.depressions import fill_tiled

SIZE = 512
BENCHMARKS = [
    ("color_mask", "ColorMask"),
    ("polygonize", "Polygonize"),
    ("fill_depressions", "FillDepressions"),
    ("fill_depressions", "FillBlock"),
    ("fill_depressions", "FillTasks"),
    ("fill_stores", "FillStores"),
    ("fill_stores", "FillMemory"),
    ("fill_stores", "FillGrowth"),
    ("fuse", "FuseBare"),
    ("fuse", "FuseLoop"),
    ("fuse", "FuseGrowth"),
    ("regrid", "Regrid"),
    ("ingest", "Ingest"),
    ("ingest", "IngestMemory"),
    ("label_regions", "LabelTasks"),
    ("label_regions", "LabelTasksDaskImage"),
    ("label_regions", "LabelRegions"),
    ("model", "ModelThroughput"),
    ("model", "ModelMemory"),
    ("samples", "TrainingPatches"),
    ("score", "Score"),
    ("score", "ScoreGrowth"),
    ("worker_memory", "WorkerMemory"),
    ("worker_memory", "WorkerMemoryGrowth"),
    ("zonal", "Zonal"),
]


@pytest.fixture(scope="module", autouse=True)
def small_scenes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAKESCALE_BENCH_SIZE", str(SIZE))
        for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
            patch.delitem(sys.modules, name)  # other tests may have loaded them, at full size
        patch.syspath_prepend(Path(__file__).parents[1])  # worker processes get this path too
        assert load("scenes").SIZE == SIZE
        yield


def load(module):
    return importlib.import_module(f"benchmarks.{module}")


def parameter_sets(benchmark):
    params = getattr(benchmark, "params", ())
    return product(*(params if len(getattr(benchmark, "param_names", ())) != 1 else (params,)))


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), BENCHMARKS)
def test_benchmark_runs_and_agrees_with_its_peer(module, name):
    benchmark = getattr(load(module), name)()
    tracks = [attribute for attribute in dir(benchmark) if attribute.startswith("track_")]
    assert tracks
    for chosen in parameter_sets(benchmark):
        try:
            getattr(benchmark, "setup", lambda *_: None)(*chosen)
        except NotImplementedError:  # a peer that is not installed
            continue
        try:
            for track in tracks:
                figure = getattr(benchmark, track)(*chosen)
                assert math.isfinite(figure)
                assert figure > 0
        finally:
            getattr(benchmark, "teardown", lambda *_: None)(*chosen)


def test_every_benchmark_is_tested():
    modules = [path.stem for path in Path(load("scenes").__file__).parent.glob("*.py") if path.stem != "__main__"]
    found = {
        (module, name)
        for module in modules
        if not module.startswith("__")
        for name, item in vars(load(module)).items()
        if isinstance(item, type) and any(attribute.startswith("track_") for attribute in dir(item))
    }
    assert found == set(BENCHMARKS)


def test_label_regions_has_at_most_12_tasks_a_chunk_at_any_number_of_chunks():
    tasks = load("label_regions").LabelTasks()
    for chunks in tasks.params:
        tasks.setup(chunks)
        assert tasks.track_tasks_a_chunk(chunks) <= 12


def test_a_race_of_two_different_answers_is_refused():
    with pytest.raises(RuntimeError, match="ours gave 1, the peer 2"):
        load("races").race(lambda: 1, lambda: 2)


def test_a_peer_that_dies_runs_again_and_only_the_run_that_ends_is_timed():
    races = load("races")
    deaths = iter([True, True, False] * 2)

    def dies_twice():
        if next(deaths):
            time.sleep(0.2)
            raise races.PeerDiedError("a race between its threads")
        return 1

    assert max(races.race(lambda: 1, dies_twice, repeats=1).peer_s) < 0.2
    with pytest.raises(races.PeerDiedError, match="always"):
        races.race(lambda: 1, lambda: (_ for _ in ()).throw(races.PeerDiedError("always")))


def test_a_race_gives_the_median_of_its_rounds():
    race = load("races").Race(ours_s=(1.0, 2.0, 4.0), peer_s=(3.0, 2.0, 8.0))
    assert race.ratios == (3.0, 1.0, 2.0)
    assert race.ratio == 2.0


@settings(max_examples=20)
@given(st.tuples(*[st.integers(0, 1400)] * 2), st.tuples(*[st.integers(1, 200)] * 2))
def test_scenes_do_not_depend_on_the_block(corner, shape):
    scenes = load("scenes")
    block = scenes.draw_lakes(*corner, *shape)
    whole = scenes.draw_lakes(0, 0, 1600, 1600)
    row_col = tuple(slice(start, start + n) for start, n in zip(corner, shape, strict=True))
    np.testing.assert_array_equal(block, whole[row_col])
    rgb = scenes.paint_rgb(whole, 0, 0)
    np.testing.assert_array_equal(scenes.paint_rgb(block, *corner), rgb[:, *row_col])


def test_scenes_hold_two_percent_of_water_and_some_lids():
    scenes = load("scenes")
    lakes = scenes.draw_lakes(0, 0, 4096, 4096)
    assert 0.015 < np.mean(lakes == scenes.WATER) < 0.03
    assert 0.0005 < np.mean(lakes == scenes.LID) < 0.005


@settings(max_examples=20)
@given(st.tuples(*[st.integers(0, 600)] * 2), st.tuples(*[st.integers(1, 200)] * 2))
def test_ice_does_not_depend_on_the_block(corner, shape):
    ice = load("ice")
    dome = ice.Dome(size=800)
    row_col = tuple(slice(start, start + n) for start, n in zip(corner, shape, strict=True))
    whole = ice.draw_ice(0, 0, 800, 800, 0.39, dome=dome)
    np.testing.assert_array_equal(ice.draw_ice(*corner, *shape, 0.39, dome=dome), whole[row_col])


@pytest.mark.slow
@pytest.mark.parametrize("minima", ["1 %", "2.6 %", "6 %"])
def test_the_fill_of_4096_cells_squared_equals_richdem(minima):
    richdem = pytest.importorskip("richdem")
    ice = load("ice")
    dem = ice.draw_ice(1000, 6000, 4096, 4096, ice.NOISE_M[minima], dome=ice.Dome(size=16384))
    assert abs(100 * ice.share_of_minima(dem) - float(minima.split()[0])) < 0.2
    ours = fill_tiled(xr.DataArray(da.from_array(dem, chunks=1024), dims=("y", "x"))).values
    assert (ours > dem).any()
    np.testing.assert_array_equal(ours, richdem.FillDepressions(richdem.rdarray(dem, no_data=-9999), epsilon=False))


@pytest.mark.slow
def test_greenland_small(tmp_path, capsys):
    """The script runs, and tells what is in its file."""
    load("greenland").main([str(tmp_path / "sinks.parquet"), "--size", "4096"])
    told = dict(line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines())
    sinks = gpd.read_parquet(tmp_path / "sinks.parquet")
    assert int(told["sinks"]) == len(sinks) > 10
    assert float(told["area, km2"].replace(",", "")) == pytest.approx(sinks["area_m2"].sum() / 1e6, rel=1e-5)
    assert (sinks["depth_m"] >= 0.5).all()
    assert (sinks["area_m2"] >= 10_000).all()
    assert float(told["worker 0, MB"]) > float(told["empty worker, MB"])


@pytest.mark.slow
def test_the_scheduler_keeps_no_more_for_more_dates(tmp_path):
    """A season of three dates: Dask warns of nothing, and its scheduler keeps no more than after the first."""
    told = load("watch").watch(tmp_path, dates=3, size=64, chunk=32)
    slow = "Event loop was unresponsive"  # of a machine that has other things to do
    assert [one for one in told["warnings"] if not one.startswith(slow)] == []
    assert told["tasks"] > 4 * told["chunks"]
    for kept in ("tasks", "spans", "span_groups", "task_prefixes"):
        first, *later = (one[kept] for one in told["samples"])
        assert max(later) <= first, kept


def test_the_lazy_scene_is_the_written_one(tmp_path):
    scenes = load("scenes")
    pixels = scenes.write_rgb(tmp_path / "scene.tif", SIZE)
    np.testing.assert_array_equal(scenes.lazy_rgb(SIZE, chunk=200).values, pixels.transpose(2, 0, 1))
    mask = scenes.write_mask(tmp_path / "mask.zarr", SIZE)
    np.testing.assert_array_equal(scenes.open_mask(tmp_path / "mask.zarr").values, mask)


def test_the_peer_is_the_sequence_that_color_mask_is_tested_against():
    scenes, peer = load("scenes"), load("color_mask")
    rgb = scenes.paint_rgb(scenes.draw_lakes(0, 0, SIZE, SIZE), 0, 0)
    pixels = np.ascontiguousarray(rgb.transpose(1, 2, 0))
    expected = np.count_nonzero(seed_color_mask(rgb))
    assert peer.seed_water_px(pixels, peer.ndimage.binary_fill_holes) == expected
    assert peer.seed_water_px(pixels, peer.flood_fill_holes) == expected
