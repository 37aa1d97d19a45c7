"""Many dates of one grid to a catalogue of lakes: run it again after a kill or a change, and it does what is left."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING, Any

import dask

from lakescale.cluster import describe
from lakescale.placement import unfused
from lakescale.stages import Journal, Stage
from pipelines.report import try_report
from pipelines.run_cluster import DaskReport, open_run_cluster
from pipelines.run_folder import DASK_REPORT
from pipelines.run_models import open_models
from pipelines.season_dates import DateMapper, MappedDate, bytes_of
from pipelines.season_finish import finish_season, require_dates
from pipelines.season_folder import SINKS, LeftOut, SeasonFolder, sole_run
from pipelines.season_ground import find_season_grid, lay_ground
from pipelines.season_plan import describe_plan, predict
from pipelines.season_scenes import list_scenes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipelines.season_ground import Ground
    from pipelines.season_recipe import SeasonRecipe
    from pipelines.season_scenes import SeasonScene

_LOG = logging.getLogger(f"lakescale.{__name__}")


@dataclass(frozen=True)
class SeasonResult:
    """What a run of a season did, and what is there now."""

    out: Path
    dates: tuple[MappedDate, ...]
    left_out: tuple[LeftOut, ...]
    """Scenes that could not be mapped; their reasons stand in ``quarantine.json``."""
    catalogue: dict[str, Any]
    """Numbers of ``lakes``, ``tracks`` and ``events``; ``notes``; ``is_kept``: whether it was there before."""
    sinks_written: int
    """Chunks of the season's sinks, by this run."""
    predicted: dict[str, float]
    """Tasks, bytes and seconds, told before; of the dates that were left."""
    measured: dict[str, float]
    notes: tuple[str, ...] = ()
    """What went wrong after the catalogue was written."""


def map_season(recipe: SeasonRecipe, *, overwrite: bool = False, progress: bool = False) -> SeasonResult:
    """Map the lakes of all dates of a season over one grid, and track them.

    Dates go one after the other, or a few at a time, their chunks side by side: a worker's memory depends on the chunk,
    not on the number of dates. Each finished chunk of evidence, date and table is known by what it was made of; a run
    does what is not there, or was made of something else.

    Parameters
    ----------
    recipe
        Scenes, grid, areas, rules, cluster, folder.
    overwrite
        Whether the season in the folder is taken away first.
    progress
        Whether to show progress bars on stderr.

    Raises
    ------
    InputError
        When the input cannot be used; a bad scene alone is left out, and told in the result.
    RunError
        When the cluster is lost, the disk takes no more, or another run works in the folder.
    """
    journal, report = Journal(progress=progress), DaskReport()
    scenes = list_scenes(recipe)
    recipe = recipe.model_copy(update={"models": open_models(recipe)[0].models})
    folder = SeasonFolder(recipe)
    folder.refuse_others_work()
    with sole_run(recipe.out):
        folder = SeasonFolder(recipe)  # as it is now that no one else writes
        if overwrite:
            folder.clear()
        try:
            with journal.stage("open"):
                ground = open_ground(recipe, scenes, folder)
                predicted = predict(ground, scenes, folder)
            folder.announce(ground.grid, dates=list(scenes), predicted=predicted)
            result = _run(ground, scenes, folder, predicted, journal, report)
        except BaseException as error:
            folder.fail(error, journal)
            raise
        finally:
            report.write(recipe.out / DASK_REPORT)
        notes = try_report(recipe.out) if recipe.report else []
    return replace(result, notes=tuple(notes))


def open_ground(recipe: SeasonRecipe, scenes: dict[str, list[SeasonScene]], folder: SeasonFolder) -> Ground:
    """Find the grid, and lay out what all dates share on it (lazy)."""
    grid = find_season_grid(recipe, scenes, folder.stored_grid(), is_asked_again=folder.asks_again("grid"))
    folder.refuse_another_grid(grid)
    return lay_ground(recipe, grid)


def _run(
    planned: Ground,
    scenes: dict[str, list[SeasonScene]],
    folder: SeasonFolder,
    predicted: dict[str, float],
    journal: Journal,
    report: DaskReport,
) -> SeasonResult:
    with ExitStack() as threads, open_run_cluster(planned.recipe.cluster, journal, report) as client:
        cluster = describe(client)
        with journal.stage("sinks"):
            mapper = DateMapper.start(folder, planned, client)
        with journal.stage("dates") as stage:
            dates = map_dates(mapper, scenes, stage, threads)
            require_dates(dates, folder)
        catalogue = finish_season(folder, mapper.ground, dates, client, journal)
    sinks = mapper.ground.chunks_written
    measured = {
        "tasks": journal.total("tasks"),
        "seconds": round(journal.seconds, 1),
        "bytes": sum(one.bytes_written for one in dates) + bytes_of(folder.path / SINKS, sinks),
    }
    told = {"mapped": [one.day for one in dates if not one.is_kept], "measured": measured, "catalogue": catalogue}
    folder.finish(scenes, journal, **told, cluster=cluster)
    left_out = tuple(folder.left_out)
    return SeasonResult(folder.path, tuple(dates), left_out, catalogue, sinks, predicted, measured)


def map_dates(
    mapper: DateMapper, scenes: dict[str, list[SeasonScene]], stage: Stage, threads: ExitStack
) -> list[MappedDate]:
    """Map the dates, as many at a time as the recipe asks for; those without a scene that can be used are left out.

    Where one cannot be mapped, those that were begun end as the cluster closes; ``threads``, which closes after it,
    waits for them, so that nothing is written to the folder once it is another run's.
    """
    at_once, draw, dates = mapper.planned.recipe.dates_at_once, stage.pace("dates"), []
    mapped = map(mapper.map_date, scenes.values()) if at_once == 1 else _side_by_side(mapper, scenes, at_once, threads)
    for number in range(len(scenes)):
        if draw:
            draw(number, len(scenes))
        dates.append(next(mapped))
    if draw:
        draw(len(scenes), len(scenes))
    return [one for one in dates if one is not None]


def _side_by_side(
    mapper: DateMapper, scenes: dict[str, list[SeasonScene]], at_once: int, threads: ExitStack
) -> Iterator[MappedDate | None]:
    """Map several dates at a time, and give them in order; where one cannot be mapped no other begins."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="date")
    threads.callback(pool.shutdown)
    failed = Event()

    def map_one(listed: list[SeasonScene]) -> MappedDate | None:
        if failed.is_set():
            return None
        try:
            return mapper.map_date(listed)
        except BaseException:
            failed.set()
            raise

    try:
        # what is set and restored by several threads must be the same before and after
        with dask.config.set({"array.rechunk.method": "tasks", "array_optimize": unfused}):
            asked = [pool.submit(copy_context().run, map_one, listed) for listed in scenes.values()]
            yield from (one.result() for one in asked)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def plan_season(recipe: SeasonRecipe) -> dict[str, Any]:
    """Say what a run would do, without doing it: dates, chunks, tasks, bytes, a time."""
    scenes = list_scenes(recipe)
    recipe = recipe.model_copy(update={"models": open_models(recipe)[0].models})
    folder = SeasonFolder(recipe)
    folder.refuse_others_work()
    return describe_plan(open_ground(recipe, scenes, folder), scenes, folder)
