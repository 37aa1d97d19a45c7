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

from lakescale.areas import area_mask, read_areas
from lakescale.cluster import compute, describe, open_cluster
from lakescale.evidence.color import color_mask, index_mask
from lakescale.fusion import admit, covered_share, seen_share
from lakescale.grid import Grid
from lakescale.polygons import polygonize
from lakescale.report import draw_quicklook, overview
from lakescale.rules import outline_candidates
from lakescale.scene import open_scene, seen_mask
from lakescale.schema import (
    AREA_3857_M2,
    AREA_M2,
    BAND,
    BLUE,
    COLOR,
    GREEN,
    INDEX,
    KEPT,
    LABEL,
    LAKE_ID,
    LAKE_TIME,
    REASON,
    RED,
    SEEN_SHARE,
    InputError,
)
from pipelines.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import xarray as xr

    from pipelines.recipe import MapRecipe

_LARGE_ENOUGH_TO_DRAW = 0.2  # of the least lake: smaller specks would hide the picture


@dataclass
class Sources:
    """What a run starts from."""

    scene: xr.DataArray
    grid: Grid
    ice: gpd.GeoDataFrame | None
    aoi: gpd.GeoDataFrame | None
    exclude: gpd.GeoDataFrame | None


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
        sources, notes = open_sources(recipe)
        evidence, evidence_notes = find_evidence(sources, recipe)
        notes += evidence_notes
    folder = RunFolder.check(recipe, overwrite=overwrite)
    try:
        with open_cluster(recipe.cluster.kind, **_cluster_options(recipe)) as client:
            cluster = describe(client)
            with _timed(seconds, "compute"):
                products = compute_products(sources, evidence, recipe, progress=progress)
        with _timed(seconds, "lakes"):
            candidates = judge_candidates(products, sources)
            lakes = name_lakes(candidates, products, sources, evidence)
            notes.append(_say_what_was_seen(products["seen_share"]))
        with _timed(seconds, "write"):
            folder.claim()
            write_products(folder, lakes, candidates, products, sources, recipe)
        folder.finish(**_facts(sources, lakes, candidates, notes), seconds=seconds, cluster=cluster)
    except BaseException as error:
        folder.fail(error)
        raise
    return MapResult(recipe.out, lakes, candidates, notes, seconds)


def plan(recipe: MapRecipe) -> dict[str, Any]:
    """Say what a run would do, without computing: chunks, tasks and bytes a chunk."""
    sources, notes = open_sources(recipe)
    evidence, evidence_notes = find_evidence(sources, recipe)
    scene = sources.scene
    graphs = [frame.__dask_graph__() for frame in _lazy_products(sources, evidence, recipe)[:2]]
    chunk_px = int(np.prod([max(axis) for axis in scene.chunks[-2:]])) if scene.chunks else scene.size
    return {
        "scene": scene.attrs.get("source", ""),
        "pixels": scene.sizes["y"] * scene.sizes["x"],
        "chunks": int(np.prod([len(axis) for axis in scene.chunks[-2:]])) if scene.chunks else 1,
        "tasks": len({key for graph in graphs for key in graph}),
        "bytes a chunk read": chunk_px * scene.sizes[BAND] * scene.dtype.itemsize,
        "notes": notes + evidence_notes,
    }


def open_sources(recipe: MapRecipe) -> tuple[Sources, list[str]]:
    """Open the scene and its areas, and refuse what cannot be mapped."""
    asked = recipe.scene
    source = asked.source[0] if len(asked.source) == 1 else asked.source
    scene = open_scene(
        source,
        bands=asked.bands,
        date=asked.date,
        scale=asked.scale,
        offset=asked.offset,
        nodata=asked.nodata,
        chunks=asked.chunks,
    )
    item = str(scene.attrs.get("source", source))
    grid = Grid.of(scene)
    grid.require_metres(item)
    if "time" not in scene.coords:
        raise InputError("no date can be read from the names of the scene", item, "give one: --date 2019-07-23")
    areas = {
        name: read_areas(path, grid, what=what, may_miss=name == "exclude") if path else None
        for name, path, what in (
            ("ice", recipe.ice, "ice outline"),
            ("aoi", recipe.aoi, "area of interest"),
            ("exclude", recipe.exclude, "excluded area"),
        )
    }
    notes = [f"date {str(scene.time.values)[:10]}: {scene.attrs.get('date_source', '')}"]
    notes.append(f"values: {scene.attrs.get('radiometry_source', scene.dtype)}")
    if scene.attrs.get("skipped"):
        notes.append(f"skipped, not a georeferenced band: {scene.attrs['skipped']}")
    if areas["exclude"] is not None and not len(areas["exclude"]):
        notes.append("exclude: none of its polygons lies in the scene")
    if areas["ice"] is None:
        notes.append("ice: none given, so no candidate is dropped for lying off it")
    return Sources(scene, grid, **areas), notes


def find_evidence(sources: Sources, recipe: MapRecipe) -> tuple[dict[str, xr.DataArray], list[str]]:
    """Build the masks of water that the scene allows (lazy), and say which it does not."""
    scene = sources.scene
    bands = {str(name) for name in scene[BAND].values}
    region = None
    if sources.aoi is not None:
        region = area_mask(sources.aoi, sources.grid, chunks=scene.data.chunks[-2:], name="aoi")
    missing = {COLOR: _why_no_color(scene, bands), INDEX: _why_no_index(scene, bands)}
    wanted = (COLOR, INDEX) if recipe.evidence == "auto" else (recipe.evidence,)
    if recipe.evidence == INDEX and not {RED, BLUE} - bands:
        missing[INDEX] = ""  # asked for by name: a ranking is better than nothing
    evidence = {}
    if COLOR in wanted and not missing[COLOR]:
        evidence[COLOR] = color_mask(scene, region=region)
    if INDEX in wanted and not missing[INDEX]:
        mask = index_mask(scene, threshold=recipe.index_threshold)
        evidence[INDEX] = mask if region is None else mask & region
    notes = [f"{name}: no evidence, {why}" for name, why in missing.items() if why and name in wanted]
    notes.append("cloud not assessed: clouded pixels count as seen")
    if not evidence:
        raise InputError(
            f"the scene (bands {', '.join(sorted(bands))}, {scene.dtype}) gives no evidence of water: "
            f"{'; '.join(notes[:-1])}",
            str(scene.attrs.get("source", "scene")),
            "give blue and red as reflectance, or red, green and blue as 8-bit RGB",
        )
    return evidence, notes


def _why_no_color(scene: xr.DataArray, bands: set[str]) -> str:
    if lacking := [name for name in (RED, GREEN, BLUE) if name not in bands]:
        return f"the scene has no {' and no '.join(lacking)}"
    return "" if scene.dtype == np.uint8 else "color thresholds are for 8-bit RGB and this is reflectance"


def _why_no_index(scene: xr.DataArray, bands: set[str]) -> str:
    if lacking := [name for name in (RED, BLUE) if name not in bands]:
        return f"the scene has no {' and no '.join(lacking)}"
    return "the water index of stretched 8-bit RGB is only a ranking" if scene.dtype == np.uint8 else ""


def _lazy_products(sources: Sources, evidence: dict[str, xr.DataArray], recipe: MapRecipe) -> list[Any]:
    masks = list(evidence.values())
    water = masks[0] if len(masks) == 1 else masks[0] | masks[1]
    seen = seen_mask(sources.scene)
    return [
        outline_candidates(water, recipe.polygon_rules),
        polygonize(~seen),
        overview(sources.scene, seen),
        *(polygonize(mask) for mask in masks),
    ]


def compute_products(
    sources: Sources, evidence: dict[str, xr.DataArray], recipe: MapRecipe, *, progress: bool
) -> dict[str, Any]:
    """Compute everything that comes from pixels, in one graph."""
    lazy = _lazy_products(sources, evidence, recipe)
    candidates, not_seen, image, *outlines = compute(*lazy, progress=progress, description="pixels to candidates")
    pixels = shapely.area(sources.grid.geobox.extent.geom)
    return {
        "candidates": candidates,
        "seen_share": 1 - not_seen.geometry.area.sum() / pixels,
        "not_seen": not_seen.geometry.values,
        "image": np.asarray(image),
        **{name: frame.geometry.values for name, frame in zip(evidence, outlines, strict=True)},
    }


def _say_what_was_seen(share: float) -> str:
    return f"seen: {share:.1%} of the scene" + ("" if share > 0 else "; whether there are lakes is not known")


def judge_candidates(products: dict[str, Any], sources: Sources) -> gpd.GeoDataFrame:
    """Order the candidates and give each its last reason."""
    order = [LABEL, REASON, AREA_M2]
    candidates = products["candidates"].sort_values(order, kind="stable").reset_index(drop=True)
    return admit(candidates, ice=sources.ice, exclude=sources.exclude)


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


def _facts(sources: Sources, lakes: gpd.GeoDataFrame, candidates: gpd.GeoDataFrame, notes: list[str]) -> dict[str, Any]:
    counts = pd.Series(candidates[REASON]).value_counts().sort_index()
    return {
        "fingerprint": sources.scene.data.name,
        "scene": {str(k): v for k, v in sources.scene.attrs.items()},
        "grid": {"crs": sources.grid.crs.to_string(), "shape": sources.grid.shape, "bounds": sources.grid.bounds_xyxy},
        "lakes": len(lakes),
        "area_m2": float(lakes[AREA_M2].sum()),
        "candidates": {str(k): int(v) for k, v in counts.items()},
        "notes": notes,
    }


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)
