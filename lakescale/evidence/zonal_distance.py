"""How far polygons lie from what was not seen."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
from scipy import ndimage

from lakescale.chunks import Place, Zones
from lakescale.evidence.zonal_deal import as_dask_frame, ask, deal, find_blocks, outline, polygons_of, split_parts
from lakescale.evidence.zonal_layers import as_array, require_mask
from lakescale.grid import Grid
from lakescale.polygons import to_map
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask_geopandas
    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray

    from lakescale.evidence.zonal_deal import Parcel

UNSEEN_M = "unseen_m"
"""Column: distance to the nearest pixel that was not seen, or to the mosaic's edge, in metres of the CRS."""

_STRIP_ROWS = 256
_SLACK, _DECIMALS_M = 1e-9, 3


def distance_to_unseen(
    frame: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame, seen: xr.DataArray, *, max_m: float = 1000.0
) -> dask_geopandas.GeoDataFrame:
    """Tell how far polygons lie from what was not seen: the nearest such pixel, or the mosaic's edge.

    To a millimetre, and the same bit for bit for any chunks: the least of the distances between the polygon and the
    squares of single pixels. Lazy; what waits in memory is as in `polygon_evidence`.

    Parameters
    ----------
    frame
        See `polygon_evidence`.
    seen
        Bool ``(y, x)``, a grid in metres.
    max_m
        Larger distances are given as this.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        The same rows, the columns of ``frame``, and ``unseen_m``: float64, metres of the CRS (in EPSG:3857 2.4 to 5.5
        are one on the ground of Greenland); 0 where the polygon touches an unseen pixel or the edge, or lies outside;
        NaN for missing and empty geometry.

    Raises
    ------
    InputError
        As `polygon_evidence`; when ``seen`` is no mask, its grid is not in metres, or ``max_m`` is not above 0.
    """
    if not 0 < max_m < np.inf:
        raise InputError(f"max_m must be above 0, got {max_m!r}", "distance_to_unseen", "for example 1000")
    require_mask(seen, "seen")
    grid, array = Grid.of(seen), as_array(seen, "seen")
    grid.require_metres(str(seen.name or "seen"))
    source = as_dask_frame(frame, [UNSEEN_M], grid)
    how = Zones(
        "unseen-distance",
        polygons_of,
        partial(_deal_near, grid=grid, max_m=max_m),
        partial(measure_distance, grid=grid, max_m=max_m),
        _join_distances,
        partial(_attach_distance, grid=grid, max_m=max_m),
    )
    return ask(source, [array], how, find_blocks(frame, grid, array, reach=max_m), Near.empty())


class Near(NamedTuple):
    """Distances of polygons to what is unseen in some pixels."""

    row: NDArray[np.int64]
    """``(polygon,)``, ascending."""
    distance_m: NDArray[np.float64]

    @classmethod
    def empty(cls) -> Near:
        """Give the distances of no polygons."""
        return cls(np.empty(0, np.int64), np.empty(0))

    @classmethod
    def join(cls, many: Sequence[Near]) -> Near:
        """Take the least distance of each polygon."""
        row, distance = (np.concatenate(parts) for parts in zip(Near.empty(), *many, strict=True))
        if not len(row):
            return Near.empty()
        order = np.argsort(row, kind="stable")
        first = np.flatnonzero(np.diff(row[order], prepend=-1))
        return cls(row[order][first], np.minimum.reduceat(distance[order], first))


def measure_distance(
    parcel: Parcel, pixels: list[NDArray[np.bool_]], place: Place, *, grid: Grid, max_m: float
) -> Near:
    """Measure the distances of polygons, in map coordinates, to the unseen pixels of a block.

    Only unseen pixels beside a seen one (8), or at the block's edge, are asked for: any other is at least a pixel
    further away than one of these, unless the polygon lies wholly among such, at 0. So the least over all blocks is
    the least over all pixels, and it is a distance to one square, which no chunks change.
    """
    unseen = ~pixels[0]
    distance = np.full(len(parcel.row), np.inf)
    if not len(parcel.row) or not unseen.any():
        return Near(parcel.row, distance)
    distance[_start_unseen(parcel.polygons, unseen, place, grid)] = 0.0
    shore = unseen & ~ndimage.binary_erosion(unseen, np.ones((3, 3), bool), border_value=0)
    for first in range(0, place.height, _STRIP_ROWS):
        row, col = np.nonzero(shore[first : first + _STRIP_ROWS])
        squares = _squares(row + (first + place.row), col + place.col, grid)
        far = np.flatnonzero(distance > 0)
        if len(squares) and len(far):
            distance[far] = np.minimum(distance[far], _least_distance(parcel.polygons[far], squares, max_m))
    return Near(parcel.row, distance)


def _start_unseen(polygons: NDArray[Any], unseen: NDArray[np.bool_], place: Place, grid: Grid) -> NDArray[np.int64]:
    """Find the polygons of which some part begins in an unseen pixel: they may lie in the midst of such."""
    parts, polygon = shapely.get_parts(polygons, return_index=True)
    at = shapely.get_point(shapely.get_exterior_ring(parts), 0)
    x, y = shapely.get_x(at), shapely.get_y(at)
    a, b, c, d, e, f = (~grid.transform)[:6]
    col, row = np.floor(a * x + b * y + c) - place.col, np.floor(d * x + e * y + f) - place.row
    inside = (row >= 0) & (row < place.height) & (col >= 0) & (col < place.width)
    row, col, polygon = row[inside].astype(np.int64), col[inside].astype(np.int64), polygon[inside]
    return np.unique(polygon[unseen[row, col]])


def _squares(row: NDArray[np.int64], col: NDArray[np.int64], grid: Grid) -> NDArray[Any]:
    """Outline pixels in map coordinates, number by number: a product of matrices may round as their size is."""
    a, b, c, d, e, f = grid.transform[:6]
    corners = np.empty((len(row), 5, 2))
    for k, (down, right) in enumerate(((0, 0), (0, 1), (1, 1), (1, 0), (0, 0))):
        corners[:, k, 0] = a * (col + right) + b * (row + down) + c
        corners[:, k, 1] = d * (col + right) + e * (row + down) + f
    return shapely.polygons(corners)


def _least_distance(polygons: NDArray[Any], squares: NDArray[Any], max_m: float) -> NDArray[np.float64]:
    tree = shapely.STRtree(squares)
    least = np.full(len(polygons), np.inf)
    least[tree.query(polygons, predicate="intersects")[0]] = 0.0
    apart = np.flatnonzero(least > 0)
    (near, _), found = tree.query_nearest(polygons[apart], max_distance=max_m, return_distance=True, all_matches=False)
    # Which of several squares as near as each other was found depends on the tree, and they differ in the last digit.
    own = apart[near]
    pair, square = tree.query(polygons[own], predicate="dwithin", distance=found * (1 + _SLACK) + _SLACK)
    np.minimum.at(least, own[pair], shapely.distance(polygons[own[pair]], squares[square]))
    return least


# -- parts of the frame


def _deal_near(parts: list[NDArray[Any]], places: list[Place], *, grid: Grid, max_m: float) -> list[Parcel]:
    return deal(parts, to_map(outline(places), grid.transform), reach=max_m)


def _join_distances(answers: list[Near], parts: int) -> list[Near]:
    return split_parts(Near.join(answers), parts)


def _attach_distance(part: gpd.GeoDataFrame, near: Near, *, grid: Grid, max_m: float) -> gpd.GeoDataFrame:
    polygons = polygons_of(part)
    (extent,) = to_map(outline([Place(0, 0, *grid.shape)]), grid.transform)
    distance = np.minimum(shapely.distance(polygons, extent.exterior), max_m)
    distance[~shapely.contains_properly(extent, polygons)] = 0.0
    distance[near.row] = np.minimum(distance[near.row], near.distance_m)
    distance[shapely.is_missing(polygons) | shapely.is_empty(polygons)] = np.nan
    # of a polygon drawn along pixel edges the coordinates may be off in the last digit
    return part.assign(**{UNSEEN_M: np.round(distance, _DECIMALS_M)})
