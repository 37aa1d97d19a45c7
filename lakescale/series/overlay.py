"""Polygons over polygons: areas that pairs share, unions by group, areas under covers that may overlap each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Pieces(NamedTuple):
    """What covers leave on polygons, piece by piece, in the order of the polygons."""

    own: NDArray[np.intp]
    """The polygon on which a piece lies."""
    other: NDArray[np.intp]
    """The cover that it is a part of."""
    shape: NDArray[Any]

    @property
    def area(self) -> NDArray[np.float64]:
        """Area of each piece."""
        return shapely.area(self.shape)


def cut_pieces(geometry: NDArray[Any], covers: NDArray[Any]) -> Pieces:
    """Cut covers to polygons; only pieces with an area."""
    other, own = shapely.STRtree(geometry).query(covers, predicate="intersects")
    order = np.lexsort((other, own))
    own, other = own[order], other[order]
    held = covers.copy()
    shapely.prepare(held)
    shape = geometry[own]
    rim = ~shapely.contains_properly(held[other], shape)  # clouds are wide: most of what they hide, they hide whole
    shape[rim] = shapely.intersection(geometry[own[rim]], covers[other[rim]])
    solid = shapely.area(shape) > 0
    return Pieces(own[solid], other[solid], shape[solid])


def covered_area(count: int, *covers: Pieces) -> NDArray[np.float64]:
    """Area that covers take of each of ``count`` polygons, once where they overlap."""
    own = np.concatenate([cover.own for cover in covers])
    shape = np.concatenate([cover.shape for cover in covers])
    alone = np.bincount(own, minlength=count)[own] == 1
    area = np.zeros(count)
    area[own[alone]] = shapely.area(shape[alone])
    group, united = unite(shape[~alone], own[~alone])
    area[group] = shapely.area(united)
    return area


def unite(shape: NDArray[Any], group: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Unite shapes by group: the groups that there are, in ascending order, and the union of each."""
    if not len(group):
        return group, shape
    order = np.argsort(group, kind="stable")
    groups, code = np.unique(group[order], return_inverse=True)
    return groups, shapely.union_all(shapely.geometrycollections(shape[order], indices=code)[:, None], axis=1)


def subtract(geometry: NDArray[Any], row: NDArray[np.intp], less: NDArray[Any]) -> NDArray[Any]:
    """Take from the polygons ``row`` what lies in ``less``; a polygon may be named many times."""
    left = geometry.copy()
    rows, united = unite(less, row)
    left[rows] = shapely.difference(geometry[rows], united)
    return left


def rim_seen(lakes: NDArray[Any], not_seen: NDArray[Any], rim_m: float) -> NDArray[np.float64]:
    """Share (0..1) of each lake's surroundings that does not lie under what was not seen."""
    seen = np.ones(len(lakes))
    if not len(not_seen):
        return seen
    near = np.unique(shapely.STRtree(not_seen).query(lakes, predicate="dwithin", distance=rim_m)[0])
    rim = shapely.difference(shapely.buffer(lakes[near], rim_m), lakes[near])
    seen[near] = 1 - covered_area(len(near), cut_pieces(rim, not_seen)) / shapely.area(rim)
    return seen
