"""What a run of a season will take, told before it runs."""

from __future__ import annotations

import time
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import xarray as xr
from dask.optimization import cull
from dask.system import CPU_COUNT

from lakescale.schema import LAKE_ID, LAKE_TIME, InputError
from pipelines.map_lakes import plan
from pipelines.model_speed import seconds_of_windows
from pipelines.run_folder import DATES
from pipelines.run_models import open_models
from pipelines.season_covers import ask_lids
from pipelines.season_dates import is_finished, prepare_date
from pipelines.season_depths import ask_depths
from pipelines.season_folder import SINKS, describe_grid

if TYPE_CHECKING:
    from pipelines.season_folder import SeasonFolder
    from pipelines.season_ground import Ground
    from pipelines.season_scenes import SeasonScene
    from pipelines.sources import Sources

TASKS, BYTES, SECONDS = "tasks", "bytes", "seconds"
_A_DATE_S, _A_TASK_S, _A_MEGAPIXEL_S = 1.8, 0.0045, 2.9
"""Seconds of one core that measures `_REFERENCE_S`: for a date (files, picture, judging), a task, a million pixels."""
_START_S = {"threads": 0.5, "local": 4.0}
_REFERENCE_S = 0.04


def predict(ground: Ground, scenes: dict[str, list[SeasonScene]], folder: SeasonFolder) -> dict[str, float]:
    """Predict what the dates that are left will take, from the graph of the first of them.

    Parameters
    ----------
    ground
        What the dates share, its sinks not written.
    scenes
        By date.
    folder
        Of the season: what is finished there is not counted.

    Returns
    -------
    dict
        ``dates`` left and ``chunks`` of each; ``tasks``; ``bytes`` written before compression; ``seconds``.
    """
    usable = {day: _usable(ground, listed, folder) for day, listed in scenes.items()}
    left = [listed for day, listed in usable.items() if listed and not _is_done(ground, listed, folder, day)]
    one = _plan_first(_with_written_sinks(ground), left, folder)
    rows, cols = ground.sources.scene.data.chunks
    chunks, pixels = len(rows) * len(cols), ground.grid.shape[0] * ground.grid.shape[1]
    tasks, n_bytes = len(left) * one.get("tasks", 0), len(left) * one.get("bytes written, before compression", 0)
    terrain = ground.sources.sink_depth
    if terrain is not None and left and not (folder.path / SINKS).exists():
        tasks, n_bytes = tasks + len(dict(terrain.data.dask)) + chunks, n_bytes + terrain.nbytes
    found = {"dates": len(left), "chunks": chunks, TASKS: tasks, BYTES: n_bytes}
    seconds = _estimate(len(left), tasks, pixels, ground) + _model_seconds(len(left), one, ground)
    return found | {SECONDS: round(seconds, 1)}


def describe_plan(ground: Ground, scenes: dict[str, list[SeasonScene]], folder: SeasonFolder) -> dict[str, Any]:
    """Say what a run would do."""
    told = predict(ground, scenes, folder)
    several = {day: len(listed) for day, listed in scenes.items() if len(listed) > 1}
    return {
        "dates": ", ".join(f"{day} ({several[day]} scenes)" if day in several else day for day in scenes),
        "dates left": told["dates"],
        "grid": describe_grid(ground.grid),
        "chunks a date": told["chunks"],
        "tasks": told[TASKS],
        "bytes written, before compression": told[BYTES],
        "seconds, about": told[SECONDS],
        "left out": ", ".join(f"{one.date} {one.scene}" for one in folder.left_out) or "none",
        "notes": ground.sources.notes,
    }


def _usable(ground: Ground, scenes: list[SeasonScene], folder: SeasonFolder) -> list[SeasonScene]:
    return [scene for scene in scenes if not folder.is_left_out(ground.fingerprint([scene]))]


def _is_done(ground: Ground, scenes: list[SeasonScene], folder: SeasonFolder, day: str) -> bool:
    return is_finished(folder.path / DATES / day, ground.fingerprint(scenes))


def _with_written_sinks(ground: Ground) -> Ground:
    """Put in place of the sinks, which no date computes, what takes as many tasks to read."""
    depth = ground.sources.sink_depth
    if depth is None:
        return ground
    return replace(ground, sources=replace(ground.sources, sink_depth=xr.zeros_like(depth), sinks=None))


def _plan_first(ground: Ground, left: list[list[SeasonScene]], folder: SeasonFolder) -> dict[str, Any]:
    """Plan the first date that can be opened; the others are on the same grid."""
    for scenes in left:
        recipe = ground.recipe.of_date(
            scenes[0].day, [file for one in scenes for file in one.files], folder.path / DATES
        )
        try:
            prepared = prepare_date(ground, scenes)
            told = plan(recipe, prepared)
        except InputError:  # told when its turn comes
            continue
        return told | {TASKS: told[TASKS] + _count_looks(prepared.sources, ground)}
    return {}


def _count_looks(sources: Sources, ground: Ground) -> int:
    """Count the tasks that tell depths and lids, as if lakes lay in all chunks."""
    everywhere = gpd.GeoDataFrame(
        {LAKE_ID: [1], LAKE_TIME: [np.datetime64("2000-01-01")]}, geometry=[ground.grid.geobox.extent.geom]
    ).set_crs(ground.grid.crs)
    asked, _ = ask_depths(everywhere, sources, ground.recipe)
    if ground.recipe.lids:
        with suppress(InputError):
            asked += ask_lids(sources.scene, everywhere, everywhere)
    graphs = [cull(dict(lazy.__dask_graph__()), lazy.__dask_keys__())[0] for lazy in asked]
    return len({key for graph in graphs for key in graph})


def _estimate(dates: int, tasks: int, pixels: int, ground: Ground) -> float:
    """Estimate seconds by the measured speed of this machine's cores."""
    cluster = ground.recipe.cluster
    workers = min(cluster.workers or CPU_COUNT, CPU_COUNT)
    work = tasks * _A_TASK_S + dates * pixels / 1e6 * _A_MEGAPIXEL_S
    return _START_S.get(cluster.kind, 1.0) + _slowness() * (dates * _A_DATE_S + work / workers)


def _model_seconds(dates: int, plan_of_date: dict[str, Any], ground: Ground) -> float:
    """Estimate what models take, as if all windows had been seen, and the measuring of it, which loads them too."""
    start = time.perf_counter()
    cluster, (_, models) = ground.recipe.cluster, open_models(ground.recipe)
    counts = {one.name: plan_of_date.get(f"windows of {one.name}", 0) for one in models}
    if not any(counts.values()):
        return 0.0
    workers = 0 if cluster.kind == "threads" else min(cluster.workers or CPU_COUNT, CPU_COUNT)
    took = seconds_of_windows(models, workers)
    loading = time.perf_counter() - start
    return loading + dates * sum(took[name] * count for name, count in counts.items())


def _slowness() -> float:
    """Measure how much slower a core is than that of the constants: the least of three tries."""
    pixels = np.random.default_rng(0).integers(0, 255, 1_000_000, dtype=np.uint8)
    took = []
    for _ in range(3):
        start = time.perf_counter()
        zlib.compress(np.sort(pixels.reshape(1000, 1000), axis=1).tobytes(), 1)
        took.append(time.perf_counter() - start)
    return min(took) / _REFERENCE_S
