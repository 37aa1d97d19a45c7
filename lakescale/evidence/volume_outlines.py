"""Outlines of lakes: how long they run through which pixels, outlines that are moved, medians along them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import geopandas as gpd
import numpy as np
import shapely

from lakescale.polygons import areas_m2

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyproj import CRS

    from lakescale.chunks import Place

LENGTH_UNIT = 2.0**-16
"""Lengths are counted in whole multiples of this share of a pixel's side: such sums do not depend on their order."""
_WHOLE, _HALF = 1 / LENGTH_UNIT, 0.5 / LENGTH_UNIT


class Rims(NamedTuple):
    """Lengths of outlines in pixels, each pixel once for each polygon."""

    polygon: NDArray[np.int64]
    """Index of the polygon, ascending."""
    row: NDArray[np.int64]
    """Within the block."""
    col: NDArray[np.int64]
    units: NDArray[np.int64]
    """Length, in units of `LENGTH_UNIT`; at least 1."""


def trace_rims(polygons: NDArray[Any], place: Place) -> Rims:
    """Measure the lengths of outlines in the pixels of a block.

    Outlines are exterior rings: a hole may be ice on the lake, whose rim is no shore. What runs along the edge of two
    pixels counts half to each, so an outline along pixel edges lies between the pixels inside and those outside.

    Parameters
    ----------
    polygons
        In pixel coordinates ``(col, row)`` of the grid; missing and empty ones have no outline.
    place
        Where the block lies. What a pixel is told does not depend on it.
    """
    start, end, polygon = _segments(polygons, place)
    lines = [(place.col, place.col + place.width), (place.row, place.row + place.height)]
    segment, begin, stop = _cut(start, end, lines)
    along = end - start
    length = (stop - begin) * np.hypot(along[segment, 0], along[segment, 1])
    middle = start[segment] + ((begin + stop) / 2)[:, None] * along[segment]
    cell = np.floor(middle).astype(np.int64)
    on_edge = (middle == cell) & (along[segment] == 0)
    is_half = on_edge.any(axis=1)
    units = np.rint(length * np.where(is_half, _HALF, _WHOLE)).astype(np.int64)
    beyond = cell - on_edge  # the pixel on the other side of the edge
    cell, units = np.concatenate([cell, beyond[is_half]]), np.concatenate([units, units[is_half]])
    return _add_up(np.concatenate([polygon[segment], polygon[segment[is_half]]]), cell, units, place)


def _segments(polygons: NDArray[Any], place: Place) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    """List the straight segments that may meet the block: their ends ``(n, 2)``, and their polygons."""
    parts, polygon = shapely.get_parts(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(shapely.get_exterior_ring(parts), return_index=True)
    same = np.flatnonzero(ring[1:] == ring[:-1])
    start, end = xy[same], xy[same + 1]
    low, high = np.minimum(start, end), np.maximum(start, end)
    corner = np.array([place.col, place.row])
    near = ((high >= corner) & (low <= corner + np.array([place.width, place.height]))).all(axis=1)
    return start[near], end[near], polygon[ring[same[near]]]


def _cut(
    start: NDArray[np.float64], end: NDArray[np.float64], lines: list[tuple[int, int]]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Cut segments at the lines of the grid: the segment of each piece, and shares of it where the piece is."""
    every = np.arange(len(start))
    segment, share = [every, every], [np.zeros(len(start)), np.ones(len(start))]
    for axis, (first, last) in enumerate(lines):
        a, b = start[:, axis], end[:, axis]
        lowest = np.maximum(np.floor(np.minimum(a, b)) + 1, first).astype(np.int64)
        highest = np.minimum(np.ceil(np.maximum(a, b)) - 1, last).astype(np.int64)
        count = np.maximum(highest - lowest + 1, 0)
        which = np.repeat(every, count)
        line = lowest[which] + np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        segment.append(which)
        share.append((line - a[which]) / (b - a)[which])
    segments, shares = np.concatenate(segment), np.concatenate(share)
    order = np.lexsort((shares, segments))
    segments, shares = segments[order], shares[order]
    piece = np.flatnonzero(segments[1:] == segments[:-1])
    return segments[piece], shares[piece], shares[piece + 1]


def _add_up(polygon: NDArray[np.int64], cell_xy: NDArray[np.int64], units: NDArray[np.int64], place: Place) -> Rims:
    col, row = cell_xy[:, 0] - place.col, cell_xy[:, 1] - place.row
    kept = (units > 0) & (row >= 0) & (row < place.height) & (col >= 0) & (col < place.width)
    key = (polygon[kept] * place.height + row[kept]) * place.width + col[kept]
    key, inverse = np.unique(key, return_inverse=True)
    total = np.zeros(len(key), np.int64)
    np.add.at(total, inverse, units[kept])
    pixel = key % (place.height * place.width)
    return Rims(key // (place.height * place.width), pixel // place.width, pixel % place.width, total)


def move_outlines(polygons: NDArray[Any], distance_m: float, crs: CRS, *, quad_segs: int = 16) -> NDArray[Any]:
    """Move outlines outwards, or inwards by less than 0, by metres on the ground.

    The CRS may stretch them: the factor is told by each polygon's area in it and its true area.

    Parameters
    ----------
    polygons
        In map coordinates, metres; missing ones stay.
    quad_segs
        Pieces of a quarter of a circle round a corner.
    """
    if distance_m == 0:
        return polygons
    there = ~(shapely.is_missing(polygons) | shapely.is_empty(polygons))
    stretch = np.ones(len(polygons))
    true = areas_m2(gpd.GeoSeries(polygons[there], crs=crs))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.sqrt(shapely.area(polygons[there]) / true)
    stretch[there] = np.where(np.isfinite(found) & (found > 0), found, 1.0)
    return shapely.buffer(polygons, distance_m * stretch, quad_segs=quad_segs)


def find_medians(
    key: NDArray[np.int64], value: NDArray[np.float32], units: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Compute the weighted median of the values of each key, whatever their order.

    Half of the weight lies at or below it, and half at or above; between two values that both do it is their middle.
    NaN where more than half of the weight has no value (NaN).

    Returns
    -------
    keys, medians
        Keys ascending.
    """
    order = np.lexsort((value, key))  # NaN is last
    key, heights, units = key[order], value[order].astype(np.float64), units[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    if not len(first):
        return key, heights
    told = np.where(np.isnan(heights), 0, units)
    whole, weight = np.add.reduceat(units, first), np.add.reduceat(told, first)
    so_far = np.cumsum(told)
    before = so_far[first] - told[first]
    low = np.searchsorted(so_far, before + (weight + 1) // 2)
    high = np.searchsorted(so_far, before + weight // 2 + 1)
    last = np.append(first[1:], len(key)) - 1
    low, high = np.minimum(low, last), np.minimum(high, last)
    middle = (heights[low] + heights[high]) / 2
    return key[first], np.where(2 * weight >= np.maximum(whole, 1), middle, np.nan)
