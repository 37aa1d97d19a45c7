"""Where on the ice sheet a lake lies: in which drainage basin, on grounded ice or afloat, above which datum."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import shapely

from lakescale.areas import read_areas

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

    from lakescale.grid import Grid
    from pipelines.season_recipe import SeasonRecipe

_ELLIPSOIDAL = re.compile(r"arcticdem|rema(?![a-z])", re.IGNORECASE)
"""DEMs of the Polar Geospatial Center: heights above the ellipsoid."""
_ELLIPSOID = "WGS84 ellipsoid"
_AFLOAT = 0.5
DATUM, BASIN, FLOATING = "elevation_datum", "drainage_basin", "floating"


class IceSheet(NamedTuple):
    """Outlines in the CRS of the grid; None where none were given."""

    basins: gpd.GeoDataFrame | None
    grounded: gpd.GeoDataFrame | None
    datum: str | None


def open_ice_sheet(recipe: SeasonRecipe, grid: Grid) -> IceSheet:
    """Read the outlines that a recipe names.

    Raises
    ------
    InputError
        When one cannot be used.
    """
    asked, basins, grounded = recipe.ice_sheet, None, None
    if asked.basins is not None:
        basins = read_areas(asked.basins, grid, what="drainage basins", column=asked.basin_name or "")
    if asked.grounded is not None:
        grounded = read_areas(asked.grounded, grid, what="outline of grounded ice", may_miss=True)
    return IceSheet(basins, grounded, _find_datum(recipe))


def place_lakes(lakes: gpd.GeoDataFrame, ice_sheet: IceSheet) -> gpd.GeoDataFrame:
    """Add where lakes lie, as far as it is known.

    Returns
    -------
    geopandas.GeoDataFrame
        With ``drainage_basin``, that with which a lake shares most area (None where it lies in none); ``floating``,
        whether less than half of it lies on grounded ice; ``elevation_datum``.
    """
    shapes, told = lakes.geometry.to_numpy(), dict[str, Any]()
    if ice_sheet.basins is not None:
        told[BASIN] = _name_largest(shapes, ice_sheet.basins)
    if ice_sheet.grounded is not None:
        own, _, area = _share(shapes, ice_sheet.grounded.geometry.to_numpy())
        grounded = np.bincount(own, area, len(shapes))
        told[FLOATING] = pd.array(grounded < _AFLOAT * shapely.area(shapes), "boolean")
    if ice_sheet.datum is not None:
        told[DATUM] = np.full(len(lakes), ice_sheet.datum, object)
    return lakes.assign(**told)


def _find_datum(recipe: SeasonRecipe) -> str | None:
    if recipe.dem is None:
        return None
    is_known = all(_ELLIPSOIDAL.search(source) for source in recipe.dem.source)
    return recipe.volume.datum or (_ELLIPSOID if is_known else None)


def _name_largest(shapes: NDArray[Any], basins: gpd.GeoDataFrame) -> NDArray[Any]:
    """Name the basin with which each shape shares most; in a draw the first."""
    column = next(name for name in basins if name != "geometry")
    own, other, area = _share(shapes, basins.geometry.to_numpy())
    order = np.lexsort((-other, area))  # the last one written stays
    names = np.full(len(shapes), None, object)
    names[own[order]] = basins[column].to_numpy(object)[other[order]]
    return names


def _share(shapes: NDArray[Any], areas: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[Any]]:
    """List pairs that share area, and how much."""
    own, other = shapely.STRtree(areas).query(shapes, predicate="intersects")
    area = shapely.area(shapely.intersection(shapes[own], areas[other]))
    return own[area > 0], other[area > 0], area[area > 0]
