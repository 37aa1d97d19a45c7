"""One scene to lakes: evidence, candidates, lakes with a reason for each candidate, and the files of a run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd

from lakescale.cluster import describe
from lakescale.evidence.ice import keep_largest, require_ice
from lakescale.fusion import admit, covered_share, require_sinks, seen_share, sink_share
from lakescale.report import draw_image, draw_quicklook, overview_step
from lakescale.schema import (
    AREA_3857_M2,
    AREA_M2,
    BAND,
    ICE,
    KEPT,
    LABEL,
    LAKE_ID,
    LAKE_TIME,
    REASON,
    SEEN_SHARE,
    SINK,
)
from lakescale.stages import Journal
from pipelines.cup import open_cup
from pipelines.evidence_store import EvidenceStore, PlannedStore, lay_evidence
from pipelines.fuse_lakes import EVIDENCE, fuse_candidates, open_fusion
from pipelines.inputs import describe_inputs, inputs_of
from pipelines.map_result import MapResult
from pipelines.products import CANDIDATES, IMAGE, NO_DEM, NOT_SEEN, compute_products, lazy_products
from pipelines.report import try_report
from pipelines.run_cluster import DaskReport, open_run_cluster
from pipelines.run_folder import (
    CANDIDATES_FILE,
    DASK_REPORT,
    LAKES_FILE,
    NOT_SEEN_FILE,
    OVERVIEW_FILE,
    RunFolder,
    candidates_of,
)
from pipelines.run_models import RunModel, find_gate, open_models
from pipelines.sources import Sources, find_evidence, open_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import xarray as xr
    from distributed import Client

    from lakescale.rules import PolygonRules
    from pipelines.cup import CupRequest
    from pipelines.fuse_lakes import Fusion
    from pipelines.recipe import MapRecipe

_LARGE_ENOUGH_TO_DRAW = 0.2  # of the least lake: smaller specks would hide the picture


@dataclass(frozen=True)
class Prepared:
    """What a season has ready for each of its dates."""

    sources: Sources
    client: Client | None
    """None for a plan."""
    stored: frozenset[str]
    """Layers of evidence that lie elsewhere, and are not written again."""
    facts: dict[str, Any]
    """What the manifest tells beside its own."""


def map_lakes(
    recipe: MapRecipe, *, overwrite: bool = False, progress: bool = False, prepared: Prepared | None = None
) -> MapResult:
    """Map the lakes of one scene and write the files of a run.

    Parameters
    ----------
    recipe
        The scene, its areas, rules and cluster.
    overwrite
        Whether another run in the same folder may be replaced.
    progress
        Whether to show a bar for each stage on stderr; within a season's the season decides.
    prepared
        Sources and cluster of a season, in place of those of the recipe; what was not seen is then written, too.

    Raises
    ------
    InputError
        When the scene or the areas cannot be used, or the folder holds something else.
    RunError
        When a worker dies or a file cannot be written.
    """
    journal = Journal(progress=progress)
    with journal.stage("open"):
        run = _Run.open(recipe, prepared)
        planned = run.lay_evidence()
    folder = RunFolder.check(run.recipe, overwrite=overwrite)
    store, report = None, DaskReport()
    try:
        with _cluster_of(recipe, prepared, journal, report) as client:
            cluster, layers = describe(client), planned
            if recipe.write_evidence:
                folder.announce()
                store = run.open_store(planned, journal, reuse=not (overwrite and folder.is_same))
                layers = run.lay_evidence(store.keep)
            with journal.stage(CANDIDATES):
                products = compute_products(run.lazy_products(layers), run.sources, run.recipe)
            with journal.stage("lakes"):
                of_models = judge_models(products, run)
                candidates, kept = choose_lakes(products, of_models, layers, run)
                lakes = name_lakes(kept, products, run)
            run.sources.notes += _say_what_was_seen(products) + _say_what_models_did(products, of_models, run.models)
        with journal.stage("write"):
            folder.claim(None if store is None else store.path)
            write_products(folder, lakes, candidates, of_models, products, run)
            report.write(recipe.out / DASK_REPORT)
        folder.finish(**_facts(run, lakes, candidates, products, store), cluster=cluster, **journal.facts())
    except BaseException as error:
        if store is not None and not folder.claimed:
            store.drop_if_empty()
        if folder.fail(error, **journal.facts()):
            report.write(recipe.out / DASK_REPORT)
        raise
    if recipe.report and prepared is None:
        run.sources.notes += try_report(recipe.out)
    stages = journal.facts()["stages"]
    return MapResult(recipe.out, lakes, candidates, run.sources.notes, stages, of_models)


def plan(recipe: MapRecipe, prepared: Prepared | None = None) -> dict[str, Any]:
    """Say what a run would do, without computing: chunks, tasks and bytes a chunk."""
    run = _Run.open(recipe, prepared)
    scene, written = run.sources.scene, PlannedStore()
    layers = run.lay_evidence(written.keep) if recipe.write_evidence else run.lay_evidence()
    graphs = [lazy.__dask_graph__() for lazy in run.lazy_products(layers).values()]
    chunk_px = int(np.prod([max(axis) for axis in scene.chunks[-2:]])) if scene.chunks else scene.size
    windows = {f"windows of {one.name}": one.count(scene, find_gate(layers)).windows.item() for one in run.models}
    return {
        "scene": scene.attrs.get("source", ""),
        "pixels": scene.sizes["y"] * scene.sizes["x"],
        "chunks": int(np.prod([len(axis) for axis in scene.chunks[-2:]])) if scene.chunks else 1,
        "tasks": len({key for graph in graphs for key in graph}) + written.tasks,
        "bytes a chunk read": chunk_px * scene.sizes[BAND] * scene.dtype.itemsize,
        **windows,
        **({"fused": f"{', '.join(run.fusion.names)}, by {run.fusion.preset}"} if run.fusion else {}),
        "layers written": ", ".join(written.layers) or "none",
        "bytes written, before compression": written.n_bytes,
        "notes": run.sources.notes,
    }


@dataclass
class _Run:
    """What is known of a run before anything is computed."""

    recipe: MapRecipe
    """With nothing of its models left open."""
    sources: Sources
    models: list[RunModel]
    masks: dict[str, xr.DataArray]
    """Of water, lazy."""
    fusion: Fusion | None
    cup: CupRequest | None
    prepared: Prepared | None = None

    @classmethod
    def open(cls, recipe: MapRecipe, prepared: Prepared | None = None) -> _Run:
        recipe, models = open_models(recipe)
        sources = prepared.sources if prepared else open_sources(recipe)
        masks = find_evidence(sources, recipe)
        sources.notes += [note for model in models for note in model.notes(sources.grid)]
        ranks_water = sources.scene.dtype == np.uint8
        beside = open_fusion(recipe, models, masks, ranks_water=ranks_water), open_cup(recipe, sources.scene)
        return cls(recipe, sources, models, masks, *beside, prepared)

    @property
    def shares(self) -> dict[str, str]:
        """Columns that say what share of a lake lies under some evidence, and the product that holds its outlines."""
        return {name: name for name in self.masks} | {model.name: model.layer for model in self.models}

    @property
    def day(self) -> str:
        return str(self.sources.scene.time.values)[:10]

    @property
    def stored(self) -> frozenset[str]:
        return self.prepared.stored if self.prepared else frozenset()

    def lay_evidence(self, keep: Callable[[str, xr.DataArray], xr.DataArray] | None = None) -> dict[str, xr.DataArray]:
        def kept(name: str, raster: xr.DataArray) -> xr.DataArray:
            return raster if keep is None or name in self.stored else keep(name, raster)

        return lay_evidence(self.sources, self.masks, self.models, self.recipe, kept)

    def open_store(self, planned: dict[str, xr.DataArray], journal: Journal, *, reuse: bool) -> EvidenceStore:
        own = {name: raster for name, raster in planned.items() if name not in self.stored}
        how = {"reuse": reuse, "adopt": self.prepared is not None}
        return EvidenceStore(self.recipe.out, own, self.sources.grid, journal, **how)

    def lazy_products(self, layers: dict[str, xr.DataArray]) -> dict[str, Any]:
        return lazy_products(layers, self.masks, self.sources, self.models, self.recipe)


def _say_what_was_seen(products: dict[str, Any]) -> list[str]:
    share = products["not_seen_share"]
    notes = [f"seen: {share:.1%} of the scene" + ("" if share > 0 else "; whether there are lakes is not known")]
    if len(products.get(NO_DEM, ())):
        covered = products["no_dem_share"]
        notes.append(f"warning: the DEM covers {covered:.1%} of the scene; elsewhere sinks are not seen")
    return notes


def _say_what_models_did(
    products: dict[str, Any], candidates: dict[str, gpd.GeoDataFrame], models: list[RunModel]
) -> list[str]:
    notes = []
    for model in models:
        counts = {name: int(count) for name, count in products[f"windows_{model.name}"].items()}
        idle = f"{counts['unseen']} without a seen pixel, {counts['gated']} without other evidence were not run"
        kept = int((candidates[model.name][REASON] == KEPT).sum())
        notes.append(f"model {model.name}: {counts['windows']} windows, {idle}; {kept} candidates are kept")
    return notes


def judge_candidates(frame: gpd.GeoDataFrame, products: dict[str, Any], run: _Run) -> gpd.GeoDataFrame:
    """Order candidates and give each its last reason."""
    candidates = frame.sort_values([LABEL, REASON, AREA_M2], kind="stable").reset_index(drop=True)
    candidates = admit(candidates, ice=find_ice(products, run.sources, run.recipe), exclude=run.sources.exclude)
    if run.recipe.min_sink_share:
        least = run.recipe.min_sink_share
        candidates = require_sinks(candidates, products[SINK], products[NO_DEM], least=least)
    return candidates


def judge_models(products: dict[str, Any], run: _Run) -> dict[str, gpd.GeoDataFrame]:
    """Judge the candidates of each model, and of the index where both are fused, and say which evidence it is."""
    names = run.fusion.names if run.fusion else [model.name for model in run.models]
    return {
        name: judge_candidates(products[f"{CANDIDATES}_{name}"], products, run).assign(evidence=name) for name in names
    }


def choose_lakes(
    products: dict[str, Any], of_models: dict[str, gpd.GeoDataFrame], layers: dict[str, xr.DataArray], run: _Run
) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Give every candidate with its last reason, and the outlines that are lakes: fused, or of one kind of evidence."""
    if run.fusion is None:
        candidates = judge_candidates(products[CANDIDATES], products, run)
        return candidates, candidates[candidates[REASON] == KEPT].sort_values(LABEL).reset_index(drop=True)
    ice = find_ice(products, run.sources, run.recipe)
    fused = fuse_candidates(run.fusion, of_models, products, layers, ice=ice, exclude=run.sources.exclude)
    run.sources.notes.append(fused.note)
    return fused.candidates, fused.lakes


def find_ice(products: dict[str, Any], sources: Sources, recipe: MapRecipe) -> gpd.GeoDataFrame | None:
    """Take the ice of a vector file or of a raster, or only its largest pieces."""
    ice = sources.ice
    if ICE in products:
        ice = gpd.GeoDataFrame(geometry=products[ICE], crs=sources.grid.crs)
        require_ice(ice, str(recipe.ice and recipe.ice.source))
    if ice is None or recipe.ice is None or not recipe.ice.largest:
        return ice
    return keep_largest(ice, sources.aoi)


def name_lakes(kept: gpd.GeoDataFrame, products: dict[str, Any], run: _Run) -> gpd.GeoDataFrame:
    """Give lakes their id, time, evidence and the share of surroundings that was seen."""
    geometry = kept.geometry.values
    columns: dict[str, Any] = {
        LAKE_ID: np.arange(1, len(kept) + 1),
        LAKE_TIME: np.full(len(kept), run.sources.scene.time.values.astype("datetime64[ms]")),
        AREA_M2: kept[AREA_M2],
        AREA_3857_M2: kept[AREA_3857_M2],
        "perimeter_m": kept.geometry.length,
        **{f"{name}_share": covered_share(geometry, products[product]) for name, product in run.shares.items()},
        SEEN_SHARE: seen_share(geometry, products[NOT_SEEN], run.sources.grid),
        REASON: kept[REASON],
    }
    if SINK in products:
        share, covered = sink_share(geometry, products[SINK], products[NO_DEM])
        columns |= {"sink_share": share, "dem_share": covered}
    if EVIDENCE in kept:
        columns[EVIDENCE] = kept[EVIDENCE]
    return gpd.GeoDataFrame(columns, geometry=kept.geometry, crs=kept.crs)


def write_products(
    folder: RunFolder,
    lakes: gpd.GeoDataFrame,
    candidates: gpd.GeoDataFrame,
    of_models: dict[str, gpd.GeoDataFrame],
    products: dict[str, Any],
    run: _Run,
) -> None:
    """Write the files of the run."""
    dropped = candidates[candidates[REASON] != KEPT]
    folder.publish(LAKES_FILE, lakes.to_parquet)
    folder.publish(CANDIDATES_FILE, candidates.to_parquet)
    if run.prepared is not None:
        hidden = gpd.GeoSeries(products[NOT_SEEN], crs=lakes.crs).to_frame("geometry")
        folder.publish(NOT_SEEN_FILE, hidden.to_parquet)
    for name, frame in of_models.items():
        folder.publish(candidates_of(name), frame.to_parquet)
    folder.publish("lakes.gpkg", lambda path: _write_geopackage(path, lakes, dropped))
    area_km2 = lakes[AREA_M2].sum() / 1e6
    title = f"{run.day}: {len(lakes)} lakes, {area_km2:.3f} km² of true area"
    drawn = _large_enough(dropped, run.recipe.polygon_rules)
    image, grid = products[IMAGE], run.sources.grid
    folder.publish("quicklook.png", lambda path: draw_quicklook(path, image, grid, lakes, drawn, title))
    folder.publish(OVERVIEW_FILE, lambda path: draw_image(path, image))
    if run.cup is not None:
        run.sources.notes.append(run.cup.write(lakes, folder.path).note)


def _large_enough(frame: gpd.GeoDataFrame, rules: PolygonRules) -> gpd.GeoDataFrame:
    least = _LARGE_ENOUGH_TO_DRAW
    large = (frame[AREA_M2] >= least * rules.min_area_m2) & (frame[AREA_3857_M2] >= least * rules.min_area_3857_m2)
    return frame[large]


def _write_geopackage(path: Path, lakes: gpd.GeoDataFrame, dropped: gpd.GeoDataFrame) -> None:
    for layer, frame in (("lakes", lakes), ("dropped", dropped)):
        frame.to_file(path, layer=layer, driver="GPKG", geometry_type="MultiPolygon", promote_to_multi=True)


@contextmanager
def _cluster_of(
    recipe: MapRecipe, prepared: Prepared | None, journal: Journal, report: DaskReport
) -> Iterator[Client | None]:
    if prepared is None:
        with open_run_cluster(recipe.cluster, journal, report) as client:
            yield client
    else:
        journal.connect(prepared.client)
        yield prepared.client


def _facts(
    run: _Run,
    lakes: gpd.GeoDataFrame,
    candidates: gpd.GeoDataFrame,
    products: dict[str, Any],
    store: EvidenceStore | None,
) -> dict[str, Any]:
    counts = pd.Series(candidates[REASON]).value_counts().sort_index()
    scene, grid = run.sources.scene, run.sources.grid
    facts = {
        "date": run.day,
        "fingerprint": scene.data.name,
        "inputs": describe_inputs(inputs_of(run.recipe)),
        "scene": {str(k): v for k, v in scene.attrs.items()},
        "grid": {"crs": grid.crs.to_string(), "shape": grid.shape, "bounds": grid.bounds_xyxy},
        "overview_step": overview_step(grid.shape),
        "seen_share": products["not_seen_share"],
        "lakes": len(lakes),
        "area_m2": float(lakes[AREA_M2].sum()),
        "candidates": {str(k): int(v) for k, v in counts.items()},
        "models": {model.name: model.facts(products[f"windows_{model.name}"]) for model in run.models},
        "notes": run.sources.notes,
    }
    if run.fusion is not None:
        facts["fusion"] = run.fusion.facts(candidates)
    if run.prepared is not None:
        facts |= run.prepared.facts
    return facts if store is None else facts | {"evidence": store.facts()}
