"""From lazy layers to what a run is judged by: outlines, candidates, windows counted, a picture; in one graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from lakescale.cluster import compute
from lakescale.polygons import polygonize
from lakescale.report import overview
from lakescale.rules import outline_candidates
from lakescale.schema import ICE, INDEX, LABEL, SEEN, SINK, SINK_DEPTH
from pipelines.run_models import find_gate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray

    from pipelines.recipe import MapRecipe
    from pipelines.run_models import RunModel
    from pipelines.sources import Sources

CANDIDATES, IMAGE, NOT_SEEN, NO_DEM, SINKS = "candidates", "image", "not_seen", "no_dem", "sinks"
"""Names of products; outlines of evidence go by its name."""
_FRAMES = (CANDIDATES, SINKS)
"""Beginnings of the names of products that stay frames."""


def lazy_products(
    layers: dict[str, xr.DataArray],
    names: Iterable[str],
    sources: Sources,
    models: Sequence[RunModel],
    recipe: MapRecipe,
) -> dict[str, Any]:
    """Build all that comes from pixels.

    Parameters
    ----------
    layers
        From `lay_evidence`.
    names
        Of the layers that are masks of water.
    sources, models, recipe
        Of the run.

    Returns
    -------
    dict
        Lazy frames and rasters: ``candidates`` (``candidates_index`` where they are fused), ``not_seen``, ``image``;
        where there is such evidence, the outlines of each mask of water, of ``sink``, of ``no_dem`` and ``ice``, and
        ``sinks`` within sinks; of each model its outlines as ``probability_NAME``, ``candidates_NAME`` and
        ``windows_NAME``.
    """
    masks = {name: layers[name] for name in names}
    lakes = {model.layer: model.mask(layers[model.layer], sources.region) for model in models}
    water = {f"{CANDIDATES}_{model.name}": lakes[model.layer] for model in models} | _choose_water(masks, recipe)
    rules, within = recipe.polygon_rules, sources.region
    lazy: dict[str, Any] = {name: outline_candidates(mask, rules, within=within) for name, mask in water.items()}
    lazy |= {NOT_SEEN: polygonize(~layers[SEEN]), IMAGE: overview(sources.scene, layers[SEEN])}
    lazy |= {name: polygonize(mask) for name, mask in (masks | lakes).items()}
    if SINK in layers:
        lazy |= {SINK: polygonize(layers[SINK]), NO_DEM: polygonize(layers[SINK_DEPTH].isnull())}
    if sources.sinks is not None:
        lazy[SINKS] = sources.sinks
    if sources.ice_raster is not None:
        lazy[ICE] = polygonize(sources.ice_raster)
    seen = sources.scene.assign_coords({SEEN: layers[SEEN].drop_vars(SEEN, errors="ignore")})
    return lazy | {f"windows_{model.name}": model.count(seen, find_gate(layers)) for model in models}


def compute_products(lazy: dict[str, Any], sources: Sources, recipe: MapRecipe) -> dict[str, Any]:
    """Compute everything that comes from pixels, in one graph.

    Returns
    -------
    dict
        Candidates as frames, the image as an array, windows as a Dataset, other outlines as arrays of polygons; and
        ``not_seen_share`` and ``no_dem_share``, 0..1 of the grid.
    """
    pixels = sources.scene[0].size
    found = compute(*lazy.values(), pixels=pixels)
    products: dict[str, Any] = {
        name: _in_order(one) if hasattr(one, "geometry") and not name.startswith(_FRAMES) else one
        for name, one in zip(lazy, found, strict=True)
    }
    if SINKS in products:
        products[SINKS] = _within(products[SINKS], sources)
    if recipe.evidence == "model":
        products[CANDIDATES] = products[f"{CANDIDATES}_{recipe.models[0].name}"]
    pixels = shapely.area(sources.grid.geobox.extent.geom)
    for name in (NOT_SEEN, NO_DEM):
        if name in products:
            products[f"{name}_share"] = float(1 - shapely.area(products[name]).sum() / pixels)
    return products | {IMAGE: np.asarray(products[IMAGE])}


def _choose_water(masks: dict[str, xr.DataArray], recipe: MapRecipe) -> dict[str, xr.DataArray]:
    """Choose the masks of water whose regions are candidates, by the name of their product."""
    if recipe.evidence == "model":
        return {}
    if recipe.fuse is None:
        return {CANDIDATES: _unite(list(masks.values()))}
    return {f"{CANDIDATES}_{INDEX}": masks[INDEX]} if INDEX in masks else {}


def _within(sinks: gpd.GeoDataFrame, sources: Sources) -> gpd.GeoDataFrame:
    """Put sinks in order, and cut them where the run's grid or its area of interest ends: no lake goes on there."""
    sinks = sinks.sort_values("sink_id")
    looked_at = shapely.box(*sources.grid.bounds_xyxy)
    if sources.aoi is not None:
        looked_at = shapely.intersection(looked_at, sources.aoi.to_crs(sinks.crs).union_all())
    shapely.prepare(looked_at)
    outline = np.array(sinks.geometry, object)
    cut = ~shapely.covers(looked_at, outline)
    outline[cut] = shapely.intersection(outline[cut], looked_at)
    return sinks.set_geometry(outline)[shapely.area(outline) > 0].reset_index(drop=True)


def _in_order(outlines: gpd.GeoDataFrame) -> NDArray[Any]:
    """Give polygons in the order of their labels, which no chunks change."""
    return np.asarray(outlines.sort_values(LABEL).geometry, object)


def _unite(masks: list[xr.DataArray]) -> xr.DataArray:
    return masks[0] if len(masks) == 1 else masks[0] | masks[1]
