"""A DEM to its sinks: filled once, to a store; depth and regions from what was written; run again after a kill."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
from dask.base import tokenize

from lakescale import __version__
from lakescale.cluster import describe
from lakescale.cog import export_cog
from lakescale.dem import open_dem
from lakescale.depressions import WAITING as FILL_WAITING
from lakescale.evidence.sink_regions import sink_regions, waiting
from lakescale.evidence.sink_sizes import WAITING as SIZE_WAITING
from lakescale.evidence.sinks import fill_depressions, sink_depth
from lakescale.flats import WAITING as FLAT_WAITING
from lakescale.flats import drain_flats
from lakescale.grid import Grid
from lakescale.schema import AREA_M2, DEM, SINK_DEPTH, InputError, LakescaleError, without_secrets
from lakescale.stages import Journal
from lakescale.storage import Remote, fetched, list_files, remove, require_writable
from lakescale.store import (
    Stages,
    is_store,
    locked,
    open_layer,
    open_store,
    remove_layer,
    remove_store,
    same_grid,
    stored_grid,
    write_layer,
    writing,
)
from lakescale.store.frames import parts_of, write_frame
from pipelines.inputs import describe_inputs
from pipelines.run_cluster import DaskReport, open_run_cluster
from pipelines.run_folder import describe_software, publish
from pipelines.sinks_recipe import stored_dem

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr
    from distributed import Client

    from lakescale.storage import Location
    from pipelines.sinks_recipe import Outputs, SinksRecipe

log = logging.getLogger(__name__)

FILLED, DRAINED = "filled", "drained"
LAYERS = FILLED, SINK_DEPTH, DRAINED
"""Layers of the store."""
SIDE = 2048
_KIND = "layers"
_WHITEBOX_WAITING = ("whitebox",)
_CLEARING, _RUNNING, _FINISHED, _FAILED = "clearing", "running", "finished", "failed"
_TELLERS = ("lakescale.depressions", "lakescale.evidence.sinks")


@dataclass(frozen=True)
class SinksResult:
    """What a run wrote, by this call and by those that were killed before it."""

    written: tuple[Location, ...]
    chunks_written: int
    """By this call, of all layers."""
    seconds: float
    count: int | None
    """Of sinks, those within others left out; None where the grid is not in metres, and there are no regions."""
    area_m2: float
    capacity_m3: float


def find_sinks(recipe: SinksRecipe, *, overwrite: bool = False, progress: bool = False) -> SinksResult:
    """Write the sinks of a DEM; run it again after a kill, and it goes on.

    The DEM is filled once, chunk by chunk into a store, from which depth and regions are made. A chunk that is finished
    is not written twice, and a file has its name only when it is whole.

    Parameters
    ----------
    recipe
        The DEM, how it is filled, and what is to be written.
    overwrite
        Whether the answer to another request, or a finished one, is replaced.
    progress
        Whether to show a progress bar for each stage on stderr.

    Raises
    ------
    InputError
        When the DEM cannot be used or holds no elevation, regions are asked for of a grid that is not in metres, or the
        output holds the answer to another request.
    RunError
        When a worker dies three times over one task, or the disk takes no more.
    """
    journal, report = Journal(progress=progress), DaskReport()
    with journal.stage("open"):
        dem = open_elevation(recipe)
        regions_wanted = measures_in_metres(dem, recipe)
        filled = fill_depressions(dem, engine=recipe.engine, nodata=recipe.voids)
    run = _Run.claim(recipe, dem, journal, overwrite=overwrite, regions_wanted=regions_wanted)
    chunks = 0
    if not run.is_complete:
        try:
            with open_run_cluster(recipe.cluster, journal, report) as client, _told_once(recipe, client):
                run.facts["cluster"] = describe(client)
                chunks = _write(run, dem, filled, client)
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            report.write(recipe.outputs.dask_report)
    run.finish()
    return SinksResult(run.products, chunks, journal.seconds, *run.totals())


def open_elevation(recipe: SinksRecipe) -> xr.DataArray:
    """Open the DEM: a layer of a store, or files."""
    store = stored_dem(recipe)
    if store is not None:
        return open_layer(store, DEM, chunks=recipe.chunks)
    source: Any = recipe.source[0] if len(recipe.source) == 1 else recipe.source
    return open_dem(source, chunks=recipe.chunks or SIDE, overlap=recipe.overlap or "first", nodata=recipe.nodata)


def measures_in_metres(dem: xr.DataArray, recipe: SinksRecipe) -> bool:
    """Tell whether the DEM's grid allows areas and capacities; refuse a recipe that needs them where it does not."""
    item = str(dem.attrs.get("source", recipe.source[0]))
    try:
        Grid.of(dem).require_metres(item)
    except InputError as error:
        if recipe.min_area_m2 > 0 or recipe.out == recipe.outputs.regions:
            mend = f"bring it to metres: gdalwarp -t_srs EPSG:3413 {item} OUT.tif; or ask for the depth alone, as .tif"
            raise InputError(error.what, error.item, mend) from None
        log.warning("regions are not written, since areas and capacities need metres: %s", error.what)
        return False
    return True


def find_regions(dem: xr.DataArray, recipe: SinksRecipe, filled: xr.DataArray | None = None) -> Any:
    """Outline the sinks (lazy), of a DEM that may have been filled before."""
    return sink_regions(
        dem, engine=recipe.engine, nodata=recipe.voids, min_depth_m=recipe.min_depth_m, min_area_m2=recipe.min_area_m2,
        levels=recipe.levels, filled=filled,
    )  # fmt: skip


# -- the stages


def _write(run: _Run, dem: xr.DataArray, filled: xr.DataArray, client: Client) -> int:
    """Write what is not there yet."""
    out, recipe = run.out, run.recipe

    def write(raster: xr.DataArray, name: str, waiting: tuple[str, ...]) -> int:
        side = max(dem.data.chunksize)
        with run.journal.stage(name) as stage, run.stages(name, waiting) as stages:
            stage.counts["chunks_written"] = count = write_layer(
                raster, out.store, name, chunks=side, stages=stages, client=client
            )
        return count

    chunks = write(filled, FILLED, FILL_WAITING if recipe.engine == "tiled" else _WHITEBOX_WAITING)
    _refuse_void(run)
    written = open_layer(out.store, FILLED)
    if run.needs_depth:
        area: dict[str, Any] = {"min_depth_m": recipe.min_depth_m, "min_area_m2": recipe.min_area_m2}
        chunks += write(sink_depth(dem, filled=written, **area), SINK_DEPTH, SIZE_WAITING)
    if recipe.drained and (out.is_kept or (out.drained is not None and run.lacks(out.drained))):
        chunks += write(drain_flats(written, nodata=recipe.voids), DRAINED, FLAT_WAITING)
    if run.lacks(out.regions):
        with run.journal.stage("regions"), run.stages("regions", waiting(recipe.levels)) as stages:
            regions = find_regions(dem, recipe, written)
            inform: dict[str, Any] = {"order_by": "sink_id", "parts": parts_of(out.regions), "stages": stages}
            publish(out.regions, lambda file: write_frame(regions, file, client=client, **inform))
    for path, name in ((out.depth, SINK_DEPTH), (out.filled, FILLED), (out.drained, DRAINED)):
        if path is not None and run.lacks(path):
            log.info("writing %s", path)
            with run.journal.stage(f"cog_{name}"):
                export_cog(open_layer(out.store, name), path, client=client)
    return chunks


def _refuse_void(run: _Run) -> None:
    """Refuse a DEM whose every chunk came out empty."""
    if not list_files(run.out.store, f"{FILLED}/c"):
        source = ", ".join(run.recipe.source)
        run.clear()
        run.out.manifest.unlink()
        raise InputError("the DEM holds no elevation, all of it is void", source, "see whether --nodata is right")


@contextmanager
def _told_once(recipe: SinksRecipe, client: Client) -> Iterator[None]:
    """Bring warnings from tasks to this process, and let each through once: a task may run again on another worker."""
    seen: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (message in seen or seen.add(message))  # type: ignore[func-returns-value]

    loggers = [logging.getLogger(name) for name in _TELLERS]
    elsewhere = recipe.cluster.kind != "threads"
    for one in loggers:
        one.addFilter(is_new)
    try:
        if elsewhere:
            client.forward_logging("lakescale", level=logging.WARNING)
        yield
    finally:
        if elsewhere:
            client.unforward_logging("lakescale")
        for one in loggers:
            one.removeFilter(is_new)


# -- the run on disk


class _Run:
    """The files of a run, and the manifest that says whose they are."""

    def __init__(self, recipe: SinksRecipe, request: dict[str, Any], journal: Journal, *, regions_wanted: bool) -> None:
        self.recipe, self.request, self.regions_wanted = recipe, request, regions_wanted
        self.out: Outputs = recipe.outputs
        self.journal, self.facts = journal, dict[str, Any](inputs=describe_inputs({"dem": recipe.source}))

    @classmethod
    def claim(
        cls, recipe: SinksRecipe, dem: xr.DataArray, journal: Journal, *, overwrite: bool, regions_wanted: bool
    ) -> _Run:
        """Take the outputs for this request, or see that they are its own."""
        run = cls(recipe, recipe.asked | {"pixels": tokenize(dem.data)}, journal, regions_wanted=regions_wanted)
        told = _read_manifest(run.out.manifest)
        run._refuse_others_work(told, dem, overwrite=overwrite)
        is_same = told.get("request") == run.request
        with writing(run.out.manifest):
            require_writable(run.out.manifest.parent)
            if not is_same or told["state"] == _CLEARING or (overwrite and told["state"] == _FINISHED):
                run._tell(_CLEARING)  # killed while files are taken away, the next run takes the others away
                run.clear()
                run._tell(_RUNNING)
            elif not run.is_complete:
                run._tell(_RUNNING)
        return run

    @property
    def products(self) -> tuple[Location, ...]:
        """What is to be there in the end."""
        out = self.out
        kept = [out.store] if out.is_kept else []
        return (*kept, *(path for path in out.files if path != out.regions or self.regions_wanted))

    @cached_property
    def is_complete(self) -> bool:
        """Whether it was finished before, and nothing was taken away since."""
        told = _read_manifest(self.out.manifest)
        return (
            told.get("request") == self.request
            and told.get("state") == _FINISHED
            and all(path.exists() for path in self.products)
        )

    @property
    def needs_depth(self) -> bool:
        """Whether the layer of depths is written, or read by a file that is."""
        return self.out.is_kept or (self.out.depth is not None and self.lacks(self.out.depth))

    @contextmanager
    def stages(self, name: str, waiting: tuple[str, ...]) -> Iterator[Stages | None]:
        """Give a product its folder for what waits between stages; it stays where the run ends before the product.

        None in an object store: there it is computed in one graph.
        """
        if isinstance(self.out.work, Remote):
            yield None
            return
        folder = self.out.work / name
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            yield Stages(folder, waiting)
        remove(folder)

    def lacks(self, path: Location) -> bool:
        """Tell whether a file is still to be written."""
        return path in self.products and not path.exists()

    def clear(self) -> None:
        """Take away what another request left."""
        for path in self.out.files:
            steps = ("", ".partial", ".plain.partial", ".cog.partial")  # those of `publish` and `export_cog`
            for one in (path.with_name(f"{path.stem}{step}{path.suffix}") for step in steps):
                one.unlink(missing_ok=True)
        remove(self.out.work)
        remove(parts_of(self.out.regions))  # of a killed run, where there are no stages
        if not self.out.is_kept:
            remove_store(self.out.store)
        elif is_store(self.out.store):
            with locked(self.out.store):
                for name in LAYERS:
                    remove_layer(self.out.store, name)

    def finish(self) -> None:
        """Say that all is written, and take away the store that nobody asked for."""
        if not self.is_complete:
            self._tell(_FINISHED, **self.journal.facts())
        remove(self.out.work)
        if not self.out.is_kept:
            remove_store(self.out.store)

    def fail(self, error: BaseException) -> None:
        """Write down that the run failed, as far as the disk allows; another try goes on where it was."""
        if self.out.manifest.exists():
            with suppress(LakescaleError):
                self._tell(_FAILED, error=without_secrets(str(error)) or type(error).__name__, **self.journal.facts())

    def totals(self) -> tuple[int | None, float, float]:
        """Count the sinks that lie in no other, and add up their areas and capacities."""
        if not self.regions_wanted:
            return None, 0.0, 0.0
        with fetched(self.out.regions) as path:
            columns = pd.read_parquet(path, columns=["level", AREA_M2, "capacity_m3"])
        outer = columns[columns["level"] == 0]
        return len(outer), float(outer[AREA_M2].sum()), float(outer["capacity_m3"].sum())

    def _tell(self, state: str, **facts: Any) -> None:
        told = {"lakescale": __version__, "state": state, "request": self.request}
        told |= {**describe_software(), **self.facts, **facts}
        publish(self.out.manifest, lambda file: file.write_text(json.dumps(told, indent=2) + "\n"))

    def _refuse_others_work(self, told: dict[str, Any], dem: xr.DataArray, *, overwrite: bool) -> None:
        store, mend = self.out.store, "give another OUT, or --overwrite to replace it"
        if self.out.is_kept and is_store(store) and not same_grid(stored_grid(open_store(store, _KIND)), Grid.of(dem)):
            raise InputError("the store has another grid", str(store), "give another OUT")
        if self.out.is_kept and store.exists() and not is_store(store):
            raise InputError("there is something else, no store of lakescale", str(store), "give another OUT")
        if overwrite:
            return
        layers = [store / name for name in LAYERS] if self.out.is_kept else []
        there = [str(path) for path in (*self.out.files, *layers) if path.exists()]
        if not told and there:
            raise InputError("it is there, and not by a run that is known", ", ".join(there), mend)
        changed = [name for name in self.request if told and told["request"].get(name) != self.request[name]]
        if changed:
            raise InputError(f"OUT holds another run (it differs in {', '.join(changed)})", str(self.recipe.out), mend)


def _read_manifest(path: Location) -> dict[str, Any]:
    """Read a manifest of ours; empty where it is none."""
    try:
        told = json.loads(path.read_text())
        return dict(told) if {"lakescale", "state", "request"} <= set(told) else {}
    except LakescaleError:
        raise
    except (OSError, ValueError, TypeError):
        return {}
