"""True areas of pixels, exact whatever the block they are asked with."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def pixel_areas_m2(grid: Grid, rows: range, cols: range) -> NDArray[np.float64]:
    """Compute true areas of pixels, ``(rows, cols)``, in m2; the same whatever the block they are asked with.

    Exact (see `lakescale.polygons.areas_m2`) every 64 pixels of the whole grid, bilinear between; 0 where the grid
    lies outside the world.
    """
    nodes = [np.arange(r.start // _STEP_PX, -(-r.stop // _STEP_PX) + 1) for r in (rows, cols)]
    row, col = (axis.ravel() * _STEP_PX for axis in np.meshgrid(*nodes, indexing="ij"))
    boxes = to_map(shapely.box(col, row, col + 1, row + 1), grid.transform)
    areas = areas_m2(gpd.GeoSeries(boxes, crs=grid.crs)).reshape(len(nodes[0]), len(nodes[1]))
    areas = np.where(np.isfinite(areas), areas, 0.0)
    i, y = _cell_and_share(rows, nodes[0])
    j, x = _cell_and_share(cols, nodes[1])
    y, upper, lower = y[:, None], areas[i], areas[i + 1]
    along = upper * (1 - y) + lower * y
    return along[:, j] * (1 - x) + along[:, j + 1] * x


def whole_areas(grid: Grid, rows: range, cols: range) -> NDArray[np.int64]:
    """Compute true areas of pixels, ``(rows, cols)``, in units of `AREA_UNIT_M2`."""
    out = np.empty((len(rows), len(cols)), np.int64)
    for first in range(rows.start, rows.stop, _STRIP_PX):  # in floats a block of 2048 takes 130 MB at once
        strip = range(first, min(first + _STRIP_PX, rows.stop))
        out[first - rows.start :][: len(strip)] = np.rint(pixel_areas_m2(grid, strip, cols) / AREA_UNIT_M2)
    return out


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
    cols, before = range(place.col, place.col + place.width), 0
    for first in range(0, place.height, _STRIP_PX):
        inside = is_sink[first : first + _STRIP_PX]
        count = int(np.count_nonzero(inside))
        if count:
            rows = range(place.row + first, place.row + first + len(inside))
            np.add.at(out, part[before : before + count], whole_areas(grid, rows, cols)[inside])
        before += count
    return out


def _cell_and_share(pixels: range, nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    at = np.arange(pixels.start, pixels.stop)
    return at // _STEP_PX - nodes[0], (at % _STEP_PX) / _STEP_PX
