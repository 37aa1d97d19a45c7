"""Outlines of candidates before they are judged: lids filled, cut where they are narrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POLYGON = 3
_LEAST_BODY = 0.1
"""Least share of a polygon that a piece of it has."""
_GAP = 0.01
"""Bodies stay apart by this share of the reach: what only touches may overlap by a rounding error."""


def fill_lids(geometry: NDArray[Any]) -> NDArray[Any]:
    """Fill the holes of polygons, valid or empty: lids of ice, and islands."""
    parts, of = shapely.get_parts(geometry, return_index=True)
    holed = np.unique(of[shapely.get_num_interior_rings(parts) > 0])
    filled = geometry.copy()
    single = holed[shapely.get_type_id(geometry[holed]) == _POLYGON]
    filled[single] = shapely.polygons(shapely.get_exterior_ring(geometry[single]))
    for row in np.setdiff1d(holed, single):  # a part may lie in the hole of another one
        filled[row] = shapely.union_all(shapely.polygons(shapely.get_exterior_ring(parts[of == row])))
    return filled


def cut_necks(geometry: NDArray[Any], neck: float) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Cut polygons where they are narrow; those that fall into several bodies.

    A body is what is left, in one piece, of a polygon that is shrunk by half of ``neck`` times its width (the diameter
    of the circle of its area), grown back within the polygon; of two that meet again there the larger one has all. The
    necks themselves belong to no body. (This is an opening by a disc: GEOS' mitred buffers are none.)

    Parameters
    ----------
    geometry
        Valid Polygons and MultiPolygons, or empty ones.
    neck
        Width of a neck, as a share of the polygon's width.

    Returns
    -------
    bodies, of
        Two or more bodies of each polygon that has as many, each of a tenth of its area at least and the largest first;
        and the place of that polygon.
    """
    reach = neck * np.sqrt(shapely.area(geometry) / np.pi)
    cores, of = shapely.get_parts(shapely.buffer(geometry, -reach), return_index=True)
    several = np.flatnonzero(np.bincount(of, minlength=len(geometry)) > 1)
    bodies, places = [np.empty(0, object)], [np.empty(0, np.intp)]
    for row in several:
        found = _grow_back(geometry[row], cores[of == row], reach[row])
        if len(found) > 1:
            bodies.append(found)
            places.append(np.full(len(found), row))
    return np.concatenate(bodies), np.concatenate(places)


def _grow_back(polygon: Any, cores: NDArray[Any], reach: float) -> NDArray[Any]:
    grown = shapely.buffer(cores[np.argsort(-shapely.area(cores), kind="stable")], reach)
    bodies, taken = [], shapely.Polygon()
    for one in grown:
        body = _largest_part(shapely.difference(shapely.intersection(one, polygon), taken))
        if shapely.area(body) >= _LEAST_BODY * shapely.area(polygon):
            bodies.append(body)
            taken = shapely.union(taken, shapely.buffer(one, _GAP * reach))
    return np.array(bodies, object)


def _largest_part(geometry: Any) -> Any:
    parts = shapely.get_parts(geometry)
    parts = parts[shapely.get_type_id(parts) == _POLYGON]
    return parts[np.argmax(shapely.area(parts))] if len(parts) else shapely.Polygon()
