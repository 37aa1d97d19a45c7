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

CANDIDATES, IMAGE, NOT_SEEN, NO_DEM = "candidates", "image", "not_seen", "no_dem"
"""Names of products; outlines of evidence go by its name."""


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
        where there is such evidence, the outlines of each mask of water, of ``sink``, of ``no_dem`` and ``ice``; of
        each model its outlines as ``probability_NAME``, ``candidates_NAME`` and ``windows_NAME``.
    """
    masks = {name: layers[name] for name in names}
    lakes = {model.layer: model.mask(layers[model.layer], sources.region) for model in models}
    lazy = {
        f"{CANDIDATES}_{model.name}": outline_candidates(lakes[model.layer], recipe.polygon_rules) for model in models
    }
    water = _choose_water(masks, recipe)
    lazy |= {name: outline_candidates(mask, recipe.polygon_rules) for name, mask in water.items()}
    lazy |= {NOT_SEEN: polygonize(~layers[SEEN]), IMAGE: overview(sources.scene, layers[SEEN])}
    lazy |= {name: polygonize(mask) for name, mask in (masks | lakes).items()}
    if SINK in layers:
        lazy |= {SINK: polygonize(layers[SINK]), NO_DEM: polygonize(layers[SINK_DEPTH].isnull())}
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
        name: _in_order(one) if hasattr(one, "geometry") and not name.startswith(CANDIDATES) else one
        for name, one in zip(lazy, found, strict=True)
    }
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


def _in_order(outlines: gpd.GeoDataFrame) -> NDArray[Any]:
    """Give polygons in the order of their labels, which no chunks change."""
    return np.asarray(outlines.sort_values(LABEL).geometry, object)


def _unite(masks: list[xr.DataArray]) -> xr.DataArray:
    return masks[0] if len(masks) == 1 else masks[0] | masks[1]
