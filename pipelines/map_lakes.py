"""One scene to lakes: evidence, candidates, lakes with a reason for each candidate, and the files of a run."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from lakescale.cluster import compute, describe, open_cluster
from lakescale.evidence.ice import keep_largest, require_ice
from lakescale.fusion import admit, covered_share, require_sinks, seen_share, sink_share
from lakescale.polygons import polygonize
from lakescale.report import draw_quicklook, overview
from lakescale.rules import outline_candidates
from lakescale.scene import seen_mask
from lakescale.schema import (
    AREA_3857_M2,
    AREA_M2,
    BAND,
    DEM,
    ICE,
    KEPT,
    LABEL,
    LAKE_ID,
    LAKE_TIME,
    REASON,
    SEEN_SHARE,
    SINK,
)
from pipelines.run_folder import RunFolder
from pipelines.sources import Sources, find_evidence, open_sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import xarray as xr

    from pipelines.recipe import MapRecipe

_LARGE_ENOUGH_TO_DRAW = 0.2  # of the least lake: smaller specks would hide the picture


@dataclass
class MapResult:
    """What a run found, and where it lies."""

    out: Path
    lakes: gpd.GeoDataFrame
    candidates: gpd.GeoDataFrame
    """Every candidate, lakes included, with its ``reason``."""
    notes: list[str]
    """What was missing or left out, once each."""
    seconds: dict[str, float] = field(default_factory=dict)


def map_lakes(recipe: MapRecipe, *, overwrite: bool = False, progress: bool = False) -> MapResult:
    """Map the lakes of one scene and write the files of a run.

    Parameters
    ----------
    recipe
        The scene, its areas, rules and cluster.
    overwrite
        Whether another run in the same folder may be replaced.
    progress
        Whether to show a progress bar on stderr.

    Raises
    ------
    InputError
        When the scene or the areas cannot be used, or the folder holds something else.
    RunError
        When a worker dies or a file cannot be written.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "open"):
        sources = open_sources(recipe)
        evidence = find_evidence(sources, recipe)
    folder = RunFolder.check(recipe, overwrite=overwrite)
    try:
        with open_cluster(recipe.cluster.kind, **_cluster_options(recipe)) as client:
            cluster = describe(client)
            with _timed(seconds, "compute"):
                products = compute_products(sources, evidence, recipe, progress=progress)
        with _timed(seconds, "lakes"):
            candidates = judge_candidates(products, sources, recipe)
            lakes = name_lakes(candidates, products, sources, evidence)
            sources.notes += _say_what_was_seen(products)
        with _timed(seconds, "write"):
            folder.claim()
            write_products(folder, lakes, candidates, products, sources, recipe)
        folder.finish(**_facts(sources, lakes, candidates), seconds=seconds, cluster=cluster)
    except BaseException as error:
        folder.fail(error)
        raise
    return MapResult(recipe.out, lakes, candidates, sources.notes, seconds)


def plan(recipe: MapRecipe) -> dict[str, Any]:
    """Say what a run would do, without computing: chunks, tasks and bytes a chunk."""
    sources = open_sources(recipe)
    evidence = find_evidence(sources, recipe)
    scene = sources.scene
    graphs = [lazy.__dask_graph__() for lazy in _lazy_products(sources, evidence, recipe).values()]
    chunk_px = int(np.prod([max(axis) for axis in scene.chunks[-2:]])) if scene.chunks else scene.size
    return {
        "scene": scene.attrs.get("source", ""),
        "pixels": scene.sizes["y"] * scene.sizes["x"],
        "chunks": int(np.prod([len(axis) for axis in scene.chunks[-2:]])) if scene.chunks else 1,
        "tasks": len({key for graph in graphs for key in graph}),
        "bytes a chunk read": chunk_px * scene.sizes[BAND] * scene.dtype.itemsize,
        "notes": sources.notes,
    }


def _lazy_products(sources: Sources, evidence: dict[str, xr.DataArray], recipe: MapRecipe) -> dict[str, Any]:
    masks = list(evidence.values())
    water = masks[0] if len(masks) == 1 else masks[0] | masks[1]
    seen = seen_mask(sources.scene)
    lazy = {
        "candidates": outline_candidates(water, recipe.polygon_rules),
        "not_seen": polygonize(~seen),
        "image": overview(sources.scene, seen),
        **{name: polygonize(mask) for name, mask in evidence.items()},
    }
    if sources.terrain:
        lazy |= {SINK: polygonize(sources.terrain[SINK]), "no_dem": polygonize(~sources.terrain[DEM])}
    if sources.ice_raster is not None:
        lazy[ICE] = polygonize(sources.ice_raster)
    return lazy


def compute_products(
    sources: Sources, evidence: dict[str, xr.DataArray], recipe: MapRecipe, *, progress: bool
) -> dict[str, Any]:
    """Compute everything that comes from pixels, in one graph: frames become their outlines."""
    lazy = _lazy_products(sources, evidence, recipe)
    found = compute(*lazy.values(), progress=progress, description="pixels to candidates")
    products = dict(zip(lazy, found, strict=True))
    candidates, image = products.pop("candidates"), np.asarray(products.pop("image"))
    outlines = {name: frame.geometry.values for name, frame in products.items()}
    pixels = shapely.area(sources.grid.geobox.extent.geom)
    shares = {
        f"{name}_share": 1 - shapely.area(outlines[name]).sum() / pixels
        for name in ("not_seen", "no_dem")
        if name in outlines
    }
    return {"candidates": candidates, "image": image, **shares, **outlines}


def _say_what_was_seen(products: dict[str, Any]) -> list[str]:
    share = products["not_seen_share"]
    notes = [f"seen: {share:.1%} of the scene" + ("" if share > 0 else "; whether there are lakes is not known")]
    if len(products.get("no_dem", ())):
        covered = products["no_dem_share"]
        notes.append(f"warning: the DEM covers {covered:.1%} of the scene; elsewhere sinks are not seen")
    return notes


def judge_candidates(products: dict[str, Any], sources: Sources, recipe: MapRecipe) -> gpd.GeoDataFrame:
    """Order the candidates and give each its last reason."""
    order = [LABEL, REASON, AREA_M2]
    candidates = products["candidates"].sort_values(order, kind="stable").reset_index(drop=True)
    candidates = admit(candidates, ice=find_ice(products, sources, recipe), exclude=sources.exclude)
    if recipe.min_sink_share:
        least = recipe.min_sink_share
        candidates = require_sinks(candidates, products[SINK], products["no_dem"], least=least)
    return candidates


def find_ice(products: dict[str, Any], sources: Sources, recipe: MapRecipe) -> gpd.GeoDataFrame | None:
    """Take the ice of a vector file or of a raster, or only its largest pieces."""
    ice = sources.ice
    if ICE in products:
        ice = gpd.GeoDataFrame(geometry=products[ICE], crs=sources.grid.crs)
        require_ice(ice, str(recipe.ice and recipe.ice.source))
    if ice is None or recipe.ice is None or not recipe.ice.largest:
        return ice
    return keep_largest(ice, sources.aoi)


def name_lakes(
    candidates: gpd.GeoDataFrame,
    products: dict[str, Any],
    sources: Sources,
    evidence: dict[str, xr.DataArray],
) -> gpd.GeoDataFrame:
    """Take the candidates that are lakes and add id, time, evidence and the share of surroundings that was seen."""
    kept = candidates[candidates[REASON] == KEPT].sort_values(LABEL).reset_index(drop=True)
    geometry = kept.geometry.values
    columns: dict[str, Any] = {
        LAKE_ID: np.arange(1, len(kept) + 1),
        LAKE_TIME: np.full(len(kept), sources.scene.time.values.astype("datetime64[ms]")),
        AREA_M2: kept[AREA_M2],
        AREA_3857_M2: kept[AREA_3857_M2],
        "perimeter_m": kept.geometry.length,
        **{f"{name}_share": covered_share(geometry, products[name]) for name in evidence},
        SEEN_SHARE: seen_share(geometry, products["not_seen"], sources.grid),
        REASON: kept[REASON],
    }
    if SINK in products:
        share, covered = sink_share(geometry, products[SINK], products["no_dem"])
        columns |= {"sink_share": share, "dem_share": covered}
    return gpd.GeoDataFrame(columns, geometry=kept.geometry, crs=kept.crs)


def write_products(
    folder: RunFolder,
    lakes: gpd.GeoDataFrame,
    candidates: gpd.GeoDataFrame,
    products: dict[str, Any],
    sources: Sources,
    recipe: MapRecipe,
) -> None:
    """Write the files of the run."""
    dropped = candidates[candidates[REASON] != KEPT]
    folder.publish("lakes.parquet", lakes.to_parquet)
    folder.publish("candidates.parquet", candidates.to_parquet)
    folder.publish("lakes.gpkg", lambda path: _write_geopackage(path, lakes, dropped))
    rules = recipe.polygon_rules
    least = _LARGE_ENOUGH_TO_DRAW
    drawn = dropped[
        (dropped[AREA_M2] >= least * rules.min_area_m2) & (dropped[AREA_3857_M2] >= least * rules.min_area_3857_m2)
    ]
    area_km2 = lakes[AREA_M2].sum() / 1e6
    title = f"{str(sources.scene.time.values)[:10]}: {len(lakes)} lakes, {area_km2:.3f} km² of true area"
    folder.publish(
        "quicklook.png", lambda path: draw_quicklook(path, products["image"], sources.grid, lakes, drawn, title)
    )


def _write_geopackage(path: Path, lakes: gpd.GeoDataFrame, dropped: gpd.GeoDataFrame) -> None:
    for layer, frame in (("lakes", lakes), ("dropped", dropped)):
        frame.to_file(path, layer=layer, driver="GPKG", geometry_type="MultiPolygon", promote_to_multi=True)


def _cluster_options(recipe: MapRecipe) -> dict[str, Any]:
    asked = recipe.cluster.model_dump(exclude={"kind"})
    return {name: value for name, value in asked.items() if value is not None}


def _facts(sources: Sources, lakes: gpd.GeoDataFrame, candidates: gpd.GeoDataFrame) -> dict[str, Any]:
    counts = pd.Series(candidates[REASON]).value_counts().sort_index()
    return {
        "fingerprint": sources.scene.data.name,
        "scene": {str(k): v for k, v in sources.scene.attrs.items()},
        "grid": {"crs": sources.grid.crs.to_string(), "shape": sources.grid.shape, "bounds": sources.grid.bounds_xyxy},
        "lakes": len(lakes),
        "area_m2": float(lakes[AREA_M2].sum()),
        "candidates": {str(k): int(v) for k, v in counts.items()},
        "notes": sources.notes,
    }


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)
