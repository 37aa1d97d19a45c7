"""True areas of pixels, exact whatever the block they are asked with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import geopandas as gpd
import numpy as np
import shapely

from lakescale.polygons import areas_m2, to_map

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.grid import Grid

AREA_UNIT_M2 = 2.0**-16
"""Areas are added as whole multiples of this: such sums do not depend on their order, and reach 1.4e8 km2."""
_STEP_PX = 64
_STRIP_PX = 256
_CELLS = 2**16
"""Cells whose areas are computed at once."""


def pixel_areas_m2(grid: Grid, rows: range, cols: range) -> NDArray[np.float64]:
    """Compute true areas of pixels, ``(rows, cols)``, in m2; the same whatever the block they are asked with.

    Exact (see `lakescale.polygons.areas_m2`) every 64 pixels of the whole grid, bilinear between; 0 where the grid
    lies outside the world.
    """
    row, col = (np.arange(r.start, r.stop) for r in (rows, cols))
    return _Nodes.of(grid, rows, cols).areas_m2(row[:, None], col[None, :])


def whole_areas(grid: Grid, rows: range, cols: range) -> NDArray[np.int64]:
    """Compute true areas of pixels, ``(rows, cols)``, in units of `AREA_UNIT_M2`."""
    out = np.empty((len(rows), len(cols)), np.int64)
    for first in range(rows.start, rows.stop, _STRIP_PX):  # in floats a block of 2048 takes 130 MB at once
        strip = range(first, min(first + _STRIP_PX, rows.stop))
        out[first - rows.start :][: len(strip)] = np.rint(pixel_areas_m2(grid, strip, cols) / AREA_UNIT_M2)
    return out


def cell_areas(grid: Grid, row: NDArray[np.integer[Any]], col: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Compute true areas of single pixels, in units of `AREA_UNIT_M2`."""
    if not len(row):
        return np.empty(0, np.int64)
    rows, cols = (range(int(axis.min()), int(axis.max()) + 1) for axis in (row, col))
    return _Nodes.of(grid, rows, cols).units(row, col)


def add_areas(
    grid: Grid, place: Place, is_sink: NDArray[np.bool_], part: NDArray[np.int32], n_parts: int
) -> NDArray[np.int64]:
    """Add up the areas of the parts of a block, in units of `AREA_UNIT_M2`.

    Parameters
    ----------
    grid, place
        Where the block lies.
    is_sink
        ``(y, x)``: cells that lie in a part.
    part
        Part of each of these, in raster order.
    n_parts
        How many parts there are.
    """
    out = np.zeros(n_parts, np.int64)
    rows, cols = range(place.row, place.row + place.height), range(place.col, place.col + place.width)
    nodes, before = _Nodes.of(grid, rows, cols), 0
    for first in range(0, place.height, _STRIP_PX):
        row, col = np.nonzero(is_sink[first : first + _STRIP_PX])
        areas = nodes.units(row + (rows.start + first), col + cols.start)
        np.add.at(out, part[before : before + len(row)], areas)
        before += len(row)
    return out


class _Nodes(NamedTuple):
    """Exact areas at every 64 pixels of the whole grid, as far as some pixels need them."""

    first: tuple[int, int]
    """Row and column of the first node, among those of the grid."""
    m2: NDArray[np.float64]

    @classmethod
    def of(cls, grid: Grid, rows: range, cols: range) -> _Nodes:
        axes = [np.arange(r.start // _STEP_PX, -(-r.stop // _STEP_PX) + 1) for r in (rows, cols)]
        row, col = (axis.ravel() * _STEP_PX for axis in np.meshgrid(*axes, indexing="ij"))
        boxes = to_map(shapely.box(col, row, col + 1, row + 1), grid.transform)
        areas = areas_m2(gpd.GeoSeries(boxes, crs=grid.crs)).reshape(len(axes[0]), len(axes[1]))
        return cls((int(axes[0][0]), int(axes[1][0])), np.where(np.isfinite(areas), areas, 0.0))

    def areas_m2(self, row: NDArray[np.integer[Any]], col: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Interpolate areas of pixels; rows and columns of the grid may be of shapes that go together."""
        i, y = row // _STEP_PX - self.first[0], (row % _STEP_PX) / _STEP_PX
        j, x = col // _STEP_PX - self.first[1], (col % _STEP_PX) / _STEP_PX
        left, right = (self.m2[i, at] * (1 - y) + self.m2[i + 1, at] * y for at in (j, j + 1))
        return left * (1 - x) + right * x

    def units(self, row: NDArray[np.integer[Any]], col: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Tell areas of pixels in units of `AREA_UNIT_M2`, few at a time: in floats they take 48 bytes each."""
        out = np.empty(len(row), np.int64)
        for start in range(0, len(row), _CELLS):
            some = slice(start, start + _CELLS)
            out[some] = np.rint(self.areas_m2(row[some], col[some]) / AREA_UNIT_M2)
        return out
