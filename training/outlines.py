"""Polygons in pixels of an image, and which pixels lie inside: exactly, so that windows and chunks agree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import geopandas as gpd
import numpy as np
import shapely

from lakescale.polygons import to_pixels
from lakescale.schema import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.grid import Grid

UNIT = 4096
"""Coordinates are kept to this part of a pixel."""
_HALF = UNIT // 2
_REACH_PX = 1 << 18
"""Products of two differences of coordinates then fit 64 bits."""
_LONGEST_EDGE = {True: 2_000.0, False: 0.02}
"""Longest straight edge that is taken to another CRS in one piece: metres, or degrees."""


@dataclass(frozen=True)
class Outlines:
    """Polygons in the pixel coordinates ``(col, row)`` of one image; (0, 0) is the outer corner of the first pixel."""

    shapes: NDArray[Any]

    @cached_property
    def tree(self) -> shapely.STRtree:
        """Finds those whose bounds meet a box."""
        return shapely.STRtree(self.shapes)

    @cached_property
    def edges(self) -> _Edges:
        """Of all rings, in the order of the shapes."""
        return _list_edges(self.shapes)

    def __getstate__(self) -> dict[str, Any]:
        return {"shapes": self.shapes}

    def mask(self, place: Place) -> NDArray[np.bool_]:
        """Tell which pixels of a place have their centre inside a polygon.

        Whole numbers throughout: the answer for a pixel does not depend on the place it is asked with. A centre on an
        edge belongs to the polygon to its right (of a level edge, below it), so what shares an edge shares no pixel.

        Returns
        -------
        numpy.ndarray
            Bool ``(height, width)`` of the place, which may reach beyond the image.
        """
        box = shapely.box(place.col, place.row, place.col + place.width, place.row + place.height)
        near = np.sort(self.tree.query(box))
        return _burn(self.edges.of(near), place) if len(near) else np.zeros((place.height, place.width), bool)

    def meets(self, boxes: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which boxes (shapely, pixel coordinates) any polygon meets, be it in a point."""
        met = np.zeros(len(boxes), bool)
        met[self.tree.query(boxes, predicate="intersects")[0]] = True
        return met

    def first_at(self, points: NDArray[Any]) -> NDArray[np.int64]:
        """Give the number of the first polygon that each point lies in or on, -1 where there is none."""
        found = np.full(len(points), len(self.shapes), np.int64)
        point, shape = self.tree.query(points, predicate="intersects")
        np.minimum.at(found, point, shape)
        return np.where(found < len(self.shapes), found, -1)


def to_outlines(frame: gpd.GeoDataFrame, grid: Grid, item: str) -> Outlines:
    """Bring polygons to the pixels of a grid, row by row.

    Parameters
    ----------
    frame
        Valid Polygons and MultiPolygons in any CRS; edges are cut to 2 km before they go to another one.
    grid
        The image's.
    item
        What they are and of which image, for messages.

    Raises
    ------
    InputError
        For no polygon or an invalid one, none within the grid, no CRS, or vertices without a place in the grid's.
    """
    if not len(frame):
        return Outlines(np.empty(0, object))
    _require_polygons(frame, item)
    shapes = to_pixels(_move(frame, grid), grid.transform)
    bounds = shapely.bounds(shapes)
    if not np.isfinite(bounds).all():
        row = int((~np.isfinite(bounds).all(axis=1)).argmax())
        raise InputError("a vertex has no place in the image's CRS", f"{item}, row {row}", "check the CRS of the frame")
    height, width = grid.shape
    inside = shapely.intersects(shapes, shapely.box(0, 0, width, height))
    if not inside.any():
        x0, y0, x1, y1 = (round(float(v)) for v in (*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0)))
        there = f"columns {x0} to {x1} and rows {y0} to {y1}"
        what = f"the polygons miss the image: they lie in {there} of its {width} x {height} pixels"
        raise InputError(what, item, "check the CRS, and the image that they name")
    far = inside & (np.abs(bounds) >= _REACH_PX).any(axis=1)
    if far.any():
        what = f"a polygon reaches more than {_REACH_PX} pixels from the image's corner"
        raise InputError(what, f"{item}, row {int(far.argmax())}", "cut it to the image")
    return Outlines(np.where(inside, shapes, shapely.Polygon()))


def _require_polygons(frame: gpd.GeoDataFrame, item: str) -> None:
    if not isinstance(frame, gpd.GeoDataFrame) or frame.crs is None:
        raise InputError("annotations without a CRS", item, "set it, for example frame.set_crs('EPSG:3413')")
    geometry = frame.geometry.to_numpy()
    bad = ~np.isin(shapely.get_type_id(geometry), (3, 6)) | shapely.is_empty(geometry)
    if bad.any():
        row = int(bad.argmax())
        kind = "nothing" if geometry[row] is None or shapely.is_empty(geometry[row]) else geometry[row].geom_type
        raise InputError(f"annotations must be polygons, found {kind}", f"{item}, row {row}", "leave it out")
    invalid = ~shapely.is_valid(geometry)
    if invalid.any():
        row = int(invalid.argmax())
        why = shapely.is_valid_reason(geometry[row])
        raise InputError(f"an invalid polygon: {why}", f"{item}, row {row}", "repair it: frame.make_valid()")


def _move(frame: gpd.GeoDataFrame, grid: Grid) -> NDArray[Any]:
    shapes = shapely.force_2d(frame.geometry.to_numpy())
    if frame.crs.equals(grid.crs, ignore_axis_order=True):
        return shapes
    fine = shapely.segmentize(shapes, _LONGEST_EDGE[frame.crs.is_projected])
    return gpd.GeoSeries(fine, crs=frame.crs).to_crs(grid.crs).to_numpy()


class _Edges(NamedTuple):
    """Edges from ``(x1, y1)`` down to ``(x2, y2)``, in units, without the level ones."""

    units: NDArray[np.int64]
    """``(4, edges)``: x1, y1, x2, y2."""
    turn: NDArray[np.int16]
    """1 where the inside lies to the right, -1 where it ends there."""
    start: NDArray[np.intp]
    """The first edge of each shape, and the end."""

    def of(self, shapes: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        """Pick the edges of some shapes."""
        picked = _ranges(self.start[shapes], self.start[shapes + 1] - self.start[shapes])
        return self.units[:, picked], self.turn[picked]


def _list_edges(shapes: NDArray[Any]) -> _Edges:
    parts, owner = shapely.get_parts(shapely.orient_polygons(shapes, exterior_cw=True), return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    units = np.rint(xy * UNIT).astype(np.int64)
    within = (ring[1:] == ring[:-1]) & (units[1:, 1] != units[:-1, 1])
    begin, end = units[:-1][within], units[1:][within]
    up = end[:, 1] > begin[:, 1]  # of a ring that is clockwise where y grows upwards: the inside lies to the right
    upper, lower = np.where(up[:, None], begin, end), np.where(up[:, None], end, begin)
    start = np.searchsorted(owner[part[ring[:-1][within]]], np.arange(len(shapes) + 1))
    return _Edges(np.concatenate([upper, lower], axis=1).T, np.where(up, 1, -1).astype(np.int16), start)


def _burn(edges: tuple[NDArray[np.int64], NDArray[np.int16]], place: Place) -> NDArray[np.bool_]:
    """Find the pixels whose centres lie inside, by the edges that each row of centres crosses."""
    (_, y1, _, y2), turn = edges
    first = np.maximum(_ceil(y1 - _HALF, UNIT), place.row)
    count = np.maximum(np.minimum(_ceil(y2 - _HALF, UNIT), place.row + place.height) - first, 0)
    row, edge = _ranges(first, count), np.repeat(np.arange(len(count)), count)
    x1, y1, x2, y2 = edges[0][:, edge]
    along = (x1 - _HALF) * (y2 - y1) + (row * UNIT + _HALF - y1) * (x2 - x1)
    col = np.clip(_ceil(along, UNIT * (y2 - y1)) - place.col, 0, place.width)  # first centre right of the edge
    turns = np.zeros((place.height, place.width + 1), np.int16)
    np.add.at(turns, (row - place.row, col), turn[edge])
    return np.cumsum(turns, axis=1, dtype=np.int16)[:, :-1] != 0


def _ranges(first: NDArray[Any], count: NDArray[Any]) -> NDArray[np.int64]:
    """Chain the ranges ``first, first + 1, ...`` of so many numbers each."""
    return np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)


def _ceil(number: NDArray[np.int64], divisor: Any) -> NDArray[np.int64]:
    return -(-number // divisor)
