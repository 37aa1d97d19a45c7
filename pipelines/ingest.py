"""Scenes to a cube: one scene a date, on one grid, with a DEM and GeoTIFFs beside it where they are asked for."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask
import xarray as xr

from lakescale.cluster import describe
from lakescale.cog import export_cog
from lakescale.cube import layout_of, open_cube, read_dates, write_cube
from lakescale.dem import open_dem
from lakescale.grid import Grid
from lakescale.regrid import regrid
from lakescale.scene.mixed import TELL_CLOUD, open_parts
from lakescale.scene.names import parse_day
from lakescale.scene.on_grid import choose_resampling, overlap
from lakescale.scene.opening import find_assets
from lakescale.schema import BAND, DEM, TIME, InputError, LakescaleError, without_secrets
from lakescale.stages import Journal
from lakescale.storage import changed_ns
from lakescale.store import is_store, write_layer
from pipelines.inputs import describe_inputs
from pipelines.run_cluster import DaskReport, open_run_cluster
from pipelines.run_folder import DASK_REPORT, describe_software, ingest_manifest, publish
from pipelines.sources import find_grid

if TYPE_CHECKING:
    from lakescale.cube import Written
    from lakescale.storage import Location
    from pipelines.ingest_recipe import IngestRecipe
    from pipelines.recipe import SceneRecipe

log = logging.getLogger("lakescale.ingest")
_STAC = (".json", ".geojson")


@dataclass(frozen=True)
class IngestResult:
    """What an ingest wrote, and where it lies."""

    cube: Location
    dates: tuple[str, ...]
    chunks_written: int
    chunks_skipped: int
    """Those that were finished before."""
    seconds: float
    """For the cube alone."""
    mb_per_s: float
    """Pixels written to the cube before compression, in megabytes a second; 0 where nothing was."""
    cogs: tuple[Location, ...] = ()
    """GeoTIFFs written by this call."""
    dem: Location | None = None
    dem_chunks_written: int = 0
    notes: tuple[str, ...] = ()
    """What was decided against what the files say; logged as warnings, too."""


def ingest(recipe: IngestRecipe, *, overwrite: bool = False, progress: bool = False) -> IngestResult:
    """Write scenes to a cube; run it again after a kill, and it goes on.

    Parameters
    ----------
    recipe
        The scenes, the cube, its grid, and what else is to be written.
    overwrite
        Whether dates that the cube has already, and an elevation model beside it, are written anew; after a kill it
        goes on. A GeoTIFF older than its date is always written anew.
    progress
        Whether to show a progress bar on stderr.

    Raises
    ------
    InputError
        When the scenes cannot be used, or do not fit the cube.
    RunError
        When a worker dies, or the disk takes no more.
    """
    journal, report = Journal(progress=progress), DaskReport()
    side = _side_of_chunks(recipe)
    notes = _note_dates(recipe.scene)
    for note in notes:
        log.warning("%s", note)
    with journal.stage("open"):
        scenes = open_dates(recipe.scene.model_copy(update={"chunks": side}))
        asks_grid = not is_store(recipe.out) or recipe.grid.model_dump(exclude_none=True)
        grid = find_grid(recipe.grid, scenes[0], str(recipe.out)) if asks_grid else None
        terrain = _open_terrain(recipe, side, Grid.of(scenes[0]))
    facts: dict[str, Any] = {"notes": list(notes)}
    try:
        with open_run_cluster(recipe.cluster, journal, report) as client:
            facts["cluster"] = describe(client)
            options: dict[str, Any] = {"overwrite": overwrite, "client": client}
            with journal.stage("cube") as stage:
                done = write_cube(scenes, recipe.out, grid=grid, chunks=side, **options)
                stage.counts["chunks_written"] = done.chunks_written
            cogs, dem, dem_chunks = _write_beside(recipe, done, terrain, journal, **options)
    except BaseException as error:
        said = without_secrets(str(error)) or type(error).__name__
        with suppress(LakescaleError):  # as far as the disk allows
            if is_store(recipe.out):
                _tell(recipe, journal, **facts, state="failed", error=said)
        raise
    finally:
        report.write(recipe.out.with_name(f"{recipe.out.stem}.{DASK_REPORT}"))
    numbers = done.chunks_written, done.chunks_skipped
    facts |= {"dates": done.dates, "chunks_written": numbers[0], "chunks_skipped": numbers[1]}
    if done.chunks_written or cogs or dem_chunks or not _is_finished(recipe):
        _tell(recipe, journal, **facts, state="finished")
    rate = done.pixel_bytes / 1e6 / stage.seconds
    return IngestResult(
        recipe.out, done.dates, *numbers, stage.seconds, rate, cogs, dem, dem_chunks_written=dem_chunks, notes=notes
    )


def describe_plan(recipe: IngestRecipe) -> dict[str, Any]:
    """Say what an ingest would write, without computing: dates, grid, chunks and bytes before compression.

    Of a cube that is there, finished or not, ``chunks left`` are those that the dates asked for still lack.
    """
    side = _side_of_chunks(recipe)
    scenes = open_dates(recipe.scene.model_copy(update={"chunks": side}))
    there = is_store(recipe.out)
    grid = layout_of(recipe.out).grid if there else find_grid(recipe.grid, scenes[0], str(recipe.out))
    height, width = grid.shape
    total = -(-height // side) * -(-width // side)
    days = [str(scene[TIME].to_numpy().astype("datetime64[D]")) for scene in scenes]
    pixel_bytes = sum(scene.sizes[BAND] * scene.dtype.itemsize + 1 for scene in scenes)
    states = read_dates(recipe.out) if there else {}
    left = sum(states[day].chunks_left if day in states else total for day in days)
    notes = _note_dates(recipe.scene)
    return {
        "cube": f"{recipe.out}" + (", which is there: its dates stay" if there else ""),
        "dates": ", ".join(days),
        "bands": ", ".join(str(name) for name in scenes[0][BAND].to_numpy()),
        "grid": f"{height} x {width} pixels of {grid.pixel_size_m:g} m, {grid.crs.to_string()[:40]}",
        "chunks a date": total,
        "chunks left": left,
        "bytes before compression": pixel_bytes * height * width,
        **({"note": "; ".join(notes)} if notes else {}),
    }


def open_dates(asked: SceneRecipe) -> list[xr.DataArray]:
    """Open one scene for each date among the files, in order of time; bands of other grids are brought to the finest.

    Raises
    ------
    InputError
        When no date is known, or a scene cannot be opened.
    """
    options = asked.model_dump(exclude={"source", "date"})
    by_day = sort_by_day(asked.source) if asked.date is None else {}
    if len(by_day) > 1:
        scenes = [_open(files, options) for _, files in sorted(by_day.items())]
    else:
        scenes = [_open(asked.source, options | {"date": asked.date})]
    for scene in scenes:
        if TIME not in scene.coords:
            item = str(scene.attrs.get("source", asked.source))
            raise InputError("no date can be read from the names", item, "give one: --date 2019-07-23")
    return scenes


def sort_by_day(sources: list[str]) -> dict[str, list[str]]:
    """Sort files by the date in their names; a STAC item stays as it is, files without a date are left out."""
    by_day: dict[str, list[str]] = {}
    undated = []
    for source in sources:
        for asset in find_assets(source):
            path = source if source.lower().endswith(_STAC) else asset.path
            if asset.day is None:
                undated.append(asset.name)
            elif path not in (files := by_day.setdefault(asset.day.isoformat(), [])):
                files.append(path)
    if by_day and undated:
        log.warning("left out, since their names hold no date: %s", ", ".join(undated))
    return by_day


def _side_of_chunks(recipe: IngestRecipe) -> int:
    """Choose the chunks: those that the cube was made with, unless others are asked for.

    Scenes have to be opened with the same ones again, or their source would count as another one.
    """
    asked = recipe.scene.chunks
    if not is_store(recipe.out):
        return asked
    layout = layout_of(recipe.out)
    is_other = "chunks" in recipe.scene.model_fields_set and not layout.has_chunks(asked)
    return asked if is_other else layout.side


def _note_dates(asked: SceneRecipe) -> tuple[str, ...]:
    """Note where the date asked for is in none of the names, though these hold others."""
    if asked.date is None:
        return ()
    day = parse_day(asked.date)
    named = {asset.day for source in asked.source for asset in find_assets(source) if asset.day is not None}
    if not named or day in named:
        return ()
    return (f"the name says {', '.join(sorted(map(str, named)))}, --date {day} wins",)


def _open(files: list[str], options: dict[str, Any]) -> xr.DataArray:
    """Open a scene with all its bands, those of other grids among them."""
    wanted = options["bands"]
    scene, beside = open_parts(files[0] if len(files) == 1 else files, **options, beside=wanted or TELL_CLOUD)
    alike = [part for part in beside if part.dtype == scene.dtype]
    if alike:
        with dask.config.set({"array.rechunk.method": "tasks"}):
            parts = [scene, *alike]
            joined = xr.concat(parts, BAND, coords="minimal", compat="override", combine_attrs="override")
            scene = joined.chunk({BAND: -1})
    if wanted:
        there = [str(name) for name in scene[BAND].to_numpy()]
        if lacking := [name for name in wanted if name not in there]:
            what = f"no band {', '.join(lacking)}"
            raise InputError(what, str(scene.attrs.get("source", files)), f"choose among bands: {', '.join(there)}")
        scene = scene if there == wanted else scene.sel({BAND: wanted})
    return scene


def _open_terrain(recipe: IngestRecipe, side: int, grid: Grid) -> xr.DataArray | None:
    asked = recipe.dem
    if asked is None:
        return None
    source: Any = asked.source[0] if len(asked.source) == 1 else asked.source
    terrain = open_dem(source, chunks=side, overlap=asked.overlap, nodata=asked.nodata)
    if not overlap(Grid.of(terrain), grid):
        raise InputError(
            "the DEM misses the scenes", str(terrain.attrs.get("source", source)), "give one that covers them"
        )
    return terrain


def _write_beside(
    recipe: IngestRecipe, done: Written, terrain: xr.DataArray | None, journal: Journal, **options: Any
) -> tuple[tuple[Location, ...], Location | None, int]:
    """Write what is asked for beside the cube; the GeoTIFFs, the elevations' store, and the chunks written to it."""
    cogs: tuple[Location, ...] = ()
    if recipe.cog:
        with journal.stage("cogs"):
            cogs = _write_cogs(recipe, done)
    if terrain is None:
        return cogs, None, 0
    with journal.stage(DEM) as stage:
        dem, count = _write_terrain(recipe, terrain, **options)
        stage.counts["chunks_written"] = count
    return cogs, dem, count


def _is_finished(recipe: IngestRecipe) -> bool:
    """Tell whether the ingest before this one told that it was finished."""
    try:
        return bool(json.loads(ingest_manifest(recipe.out).read_text())["state"] == "finished")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _tell(recipe: IngestRecipe, journal: Journal, **facts: Any) -> None:
    sources = {"scene": recipe.scene.source, "dem": recipe.dem.source if recipe.dem else ()}
    about = {"recipe": recipe.model_dump(mode="json"), "inputs": describe_inputs(sources)}
    told = {**describe_software(), **facts, **about, **journal.facts()}
    publish(ingest_manifest(recipe.out), lambda file: file.write_text(json.dumps(told, indent=2, default=str) + "\n"))


def _write_terrain(recipe: IngestRecipe, terrain: xr.DataArray, **options: Any) -> tuple[Location, int]:
    """Bring elevations to the cube's grid: averaged where it is much coarser, else bilinear."""
    cube = open_cube(recipe.out)
    grid, chunks = Grid.of(cube), cube.data.chunks[-2:]
    how = choose_resampling(Grid.of(terrain), grid)
    placed = regrid(terrain, grid, resampling=how, chunks=chunks).assign_attrs(terrain.attrs | {"resampling": how})
    store = recipe.out.with_name("dem.zarr")
    side = max(axis[0] for axis in chunks)
    return store, write_layer(placed, store, DEM, chunks=side, **options)


def _cog_path(store: Location, day: str) -> Location:
    return store.with_name(f"{store.stem}_{day}.tif")


def _write_cogs(recipe: IngestRecipe, done: Written) -> tuple[Location, ...]:
    """Write the GeoTIFFs that are not there, or older than the pixels of their date."""
    states, written = read_dates(recipe.out), []
    for day in done.dates:
        path = _cog_path(recipe.out, day)
        if changed_ns(path) < max(states[day].last_written_ns, 1):
            scene = open_cube(recipe.out).sel({TIME: day}).assign_attrs(states[day].attrs)
            written.append(export_cog(scene, path))
    return tuple(written)
