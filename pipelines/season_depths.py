"""What the lakes of a date hold: by their beds in the DEM, and by the light that their water swallows, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lakescale import __version__
from lakescale.cluster import compute
from lakescale.evidence.color import water_index
from lakescale.evidence.volumes import lake_volumes
from lakescale.evidence.water_depth import water_depth
from lakescale.schema import LAKE_ID, InputError
from pipelines.run_folder import OF_SEASON
from pipelines.season_ground import digest
from pipelines.season_tables import write_told

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd
    import xarray as xr
    from distributed import Client

    from pipelines.season_recipe import SeasonRecipe
    from pipelines.sources import Sources

DEPTHS = OF_SEASON[0]
"""File of a date: what its lakes hold, by ``lake_id``."""
RT_REASON = "rt_reason"
LID_INDEX = 0.12
"""NDWI_ice below which a pixel within a lake is ice and no water: grey ice on synthetic lakes has 0.04 to 0.09, water
of 0.15 m and more has this. Our choice."""


def depths_token(recipe: SeasonRecipe, fingerprint: str) -> str:
    """Sum up all that the depths of a date depend on."""
    asked = recipe.volume.model_dump(mode="json"), recipe.depth and recipe.depth.model_dump(mode="json")
    return digest([__version__, fingerprint, asked])


def write_depths(
    path: Path, lakes: gpd.GeoDataFrame, sources: Sources, recipe: SeasonRecipe, token: str, client: Client
) -> None:
    """Measure what lakes hold, and write it.

    Parameters
    ----------
    path
        Where to.
    lakes
        Of one date.
    sources
        Of that date.
    recipe
        Of the season.
    token
        Of `depths_token`.
    client
        Of the cluster.
    """
    bare = lakes[[LAKE_ID, "time", "geometry"]]
    asked, refusal = ask_depths(bare, sources, recipe)
    found = compute(*asked, client=client, description="depths") if asked and len(lakes) else ()
    columns: dict[str, Any] = {LAKE_ID: lakes[LAKE_ID].to_numpy()}
    for frame in found:
        columns |= {str(name): frame[name].to_numpy() for name in frame if name not in bare}
    if refusal is not None:
        columns[RT_REASON] = np.full(len(lakes), refusal.what, object)
    write_told(
        pd.DataFrame(columns), path, token, [] if refusal is None else [f"no depths from reflectance: {refusal}"]
    )


def ask_depths(lakes: gpd.GeoDataFrame, sources: Sources, recipe: SeasonRecipe) -> tuple[list[Any], InputError | None]:
    """Ask for volumes by the DEM and by reflectance (lazy), and say why the latter are refused."""
    asked: list[Any] = []
    if sources.elevation is not None:
        options = recipe.volume.model_dump(exclude={"datum"})
        asked.append(lake_volumes(lakes, sources.elevation, sinks=sources.sink_depth, **options))
    if recipe.depth is None:
        return asked, None
    try:
        how = recipe.depth.model_dump()
        asked.append(water_depth(sources.scene, lakes, lids=_find_lids(sources.scene, recipe), **how))
    except InputError as error:
        return asked, error
    return asked, None


def _find_lids(scene: xr.DataArray, recipe: SeasonRecipe) -> xr.DataArray | None:
    """Tell ice from water within lakes (lazy); None where the bands do not allow it."""
    if not recipe.lids or scene.dtype.kind != "f" or not {"red", "blue"} <= {str(name) for name in scene.band.values}:
        return None
    return water_index(scene) < np.float32(LID_INDEX)
