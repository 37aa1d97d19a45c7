"""Which candidates of one source are admitted as lakes; and shares of their area."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from lakescale.fusion.reasons import EXCLUDED, NO_SINK, NOT_ON_ICE
from lakescale.schema import KEPT, REASON

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

    from lakescale.grid import Grid

_SURROUNDINGS_PX = 3
_SHARE_DECIMALS = 6  # sums of areas depend on their order in the last digits


def admit(
    candidates: gpd.GeoDataFrame, *, ice: gpd.GeoDataFrame | None = None, exclude: gpd.GeoDataFrame | None = None
) -> gpd.GeoDataFrame:
    """Drop candidates that lie off the ice or overlap an excluded area; whole, with the reason.

    Overlap means a shared area above zero.

    Parameters
    ----------
    candidates
        Polygons with a column ``reason``; only those ``kept`` so far are judged.
    ice, exclude
        Polygons in the candidates' CRS; None where there is no such evidence.

    Returns
    -------
    geopandas.GeoDataFrame
        The same rows, ``reason`` brought up to date.
    """
    geometry, reason = candidates.geometry.values, candidates[REASON].to_numpy(object, copy=True)
    open_question = reason == KEPT
    if ice is not None:
        reason[open_question & ~overlaps(geometry, ice.geometry.values)] = NOT_ON_ICE
    if exclude is not None:
        reason[open_question & overlaps(geometry, exclude.geometry.values)] = EXCLUDED
    return candidates.assign(**{REASON: reason})


def require_sinks(
    candidates: gpd.GeoDataFrame, sinks: NDArray[Any], no_dem: NDArray[Any], *, least: float
) -> gpd.GeoDataFrame:
    """Drop candidates of which too little lies in sinks, where the DEM can tell.

    A DEM of a full lake holds the lake's surface, which is no sink: ask for this where the basins were empty when
    imaged.

    Parameters
    ----------
    candidates
        Polygons with a column ``reason``; only those ``kept`` so far are judged.
    sinks, no_dem
        Polygons of the sinks, and of where there is no elevation.
    least
        Least share (0..1) of a candidate in sinks, of the part that has elevations; one without any is not judged.
    """
    share, _ = sink_share(candidates.geometry.values, sinks, no_dem)
    dropped = (candidates[REASON] == KEPT).to_numpy() & (share < least)
    return candidates.assign(**{REASON: np.where(dropped, NO_SINK, candidates[REASON].to_numpy(object))})


def sink_share(
    geometry: NDArray[Any], sinks: NDArray[Any], no_dem: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share (0..1) of each polygon that lies in sinks, of the part with elevations (NaN without any); and that part."""
    covered = 1 - covered_share(geometry, no_dem)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(covered > 0, covered_share(geometry, sinks) / covered, np.nan)
    return np.clip(np.round(share, _SHARE_DECIMALS), 0, 1), covered


def overlaps(geometry: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which polygons share an area above zero with any of the others."""
    own, other = _pairs(geometry, others)
    shared = ~shapely.touches(geometry[own], others[other])
    found = np.zeros(len(geometry), bool)
    found[own[shared]] = True
    return found


def covered_share(geometry: NDArray[Any], cover: NDArray[Any]) -> NDArray[np.float64]:
    """Share (0..1) of each polygon's area that lies under a set of polygons which do not overlap each other."""
    area = shapely.area(geometry)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.round(_shared_area(geometry, cover) / area, _SHARE_DECIMALS)


def seen_share(lakes: NDArray[Any], not_seen: NDArray[Any], grid: Grid) -> NDArray[np.float64]:
    """Share (0..1) of each lake's surroundings that was seen: a ring of 3 pixels round it.

    Parameters
    ----------
    lakes
        Polygons in the grid's CRS.
    not_seen
        Polygons of the pixels without data; what lies beyond the grid was not seen either.
    grid
        The scene's grid.
    """
    a, b, _, d, e, _ = grid.transform[:6]
    pixel = float(np.sqrt(abs(a * e - b * d)))
    ring = shapely.difference(shapely.buffer(lakes, _SURROUNDINGS_PX * pixel), lakes)
    inside = shapely.intersection(ring, grid.geobox.extent.geom)
    seen = shapely.area(inside) - _shared_area(inside, not_seen)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(np.round(seen / shapely.area(ring), _SHARE_DECIMALS), 0, 1)


def _pairs(geometry: NDArray[Any], others: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs that touch or overlap; the others are the ones prepared, since an ice outline has most vertices."""
    other, own = shapely.STRtree(geometry).query(others, predicate="intersects")
    return own, other


def _shared_area(geometry: NDArray[Any], cover: NDArray[Any]) -> NDArray[np.float64]:
    own, other = _pairs(geometry, cover)
    shared = shapely.area(shapely.intersection(geometry[own], cover[other]))
    return np.bincount(own, weights=shared, minlength=len(geometry)).astype(np.float64)
