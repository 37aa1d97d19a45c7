"""How ground looks beside the ice round it: brightness, color, and where open water lies on it; in whole numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from lakescale.evidence.volume_outlines import move_outlines
from lakescale.evidence.volume_sums import Cells, Lakes, Totals, area_units, measure_lakes
from lakescale.evidence.zonal_cover import COVER_UNIT, cover, to_covering_pixels
from lakescale.evidence.zonal_deal import Parcel, polygons_of
from lakescale.evidence.zonal_layers import Layer
from lakescale.evidence.zonal_sums import Sums, measure

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.grid import Grid

OPEN_INDEX = 0.08
"""Open water is bluer than the ice round it: (b - r) / (b + r) of blue and red over those of the ring."""
DEEP_INDEX = 0.2
"""That of water some decimetres deep: gaps in a lid show it, slush does not. Of synthetic slush on dry floors the
bluest tenth reaches 0.12 to 0.18, of the gaps of lids 0.26 (the lowest twentieth) and more."""
RING_M = (30.0, 80.0)
"""The ring that stands for the ice round a lake, from the outline, whose steps of pixels are smoothed: wet snow at the
shore is left out."""
LAYERS = (Layer("red", 0, None), Layer("blue", 1, None))
_LEVEL_UNIT = 2.0**-12
"""Of red and blue over those of the ring; brighter than 16 times the ring counts as that."""
_BRIGHTEST = 16.0
_HALF, _ARC = 0.5, 4
_SUMS = 19
NOTHING = Totals.empty(_SUMS, 0)


class Ground(NamedTuple):
    """Polygons with the ring round each, in pixel coordinates."""

    row: NDArray[np.int64]
    """Number of each, ascending."""
    shapes: NDArray[Any]
    rings: NDArray[Any]
    reach: NDArray[Any]
    """The polygon with its ring and what lies between."""


class Looks(NamedTuple):
    """Sums over the pixels of each polygon, arrays ``(polygon,)``; coordinates are rows and columns within it."""

    seen: NDArray[np.int64]
    """Area, in units of `lakescale.evidence.sink_areas.AREA_UNIT_M2`."""
    open: NDArray[np.int64]
    rest: NDArray[np.int64]
    """Pixels that were seen and hold no open water."""
    level: NDArray[np.int64]
    """Sum of their red over that of the ring, in units of 2**-12."""
    level_squared: NDArray[np.int64]
    blue_level: NDArray[np.int64]
    """Sum of their blue over that of the ring, in the same units."""
    deep: NDArray[np.int64]
    """Pixels of open water that is deeper than slush."""
    all_moments: NDArray[np.int64]
    """``(6, polygon)`` of all pixels, seen or not."""
    open_moments: NDArray[np.int64]
    """``(6, polygon)`` of those with open water: count, sums of row and column, their squares and product."""


def boxes_round(polygons: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Draw boxes that hold polygons with their rings, in map coordinates, with room for the smoothing of outlines."""
    return move_outlines(shapely.envelope(polygons), 2 * RING_M[1], grid.crs)


def cut_ground(part: gpd.GeoDataFrame, *, grid: Grid) -> Ground:
    """Draw the ring of each polygon."""
    shapes = polygons_of(part)
    smooth = shapely.simplify(shapes, grid.pixel_size_m)  # steps of pixels would take ten times as long
    within, reach = (move_outlines(smooth, distance, grid.crs, quad_segs=_ARC) for distance in RING_M)
    drawn = (to_covering_pixels(one, grid.transform) for one in (shapes, shapely.difference(reach, within), reach))
    return Ground(np.arange(len(shapes)), *drawn)


def look_at_rings(parcel: Ground, pixels: list[NDArray[Any]], place: Place, *, grid: Grid) -> Sums:
    """Sum up red and blue in rings, where they lie on none of the polygons.

    Parameters
    ----------
    pixels
        Red, blue, and what was seen.
    """
    *bands, seen = pixels
    bare = seen.copy()
    for covered in cover(parcel.shapes, place, grid.shape):
        bare[covered.row, covered.col] = False
    shown = [np.where(bare, band, np.nan).astype(np.float32) for band in bands]
    return measure(Parcel(parcel.row, parcel.rings), shown, place, layers=LAYERS, shape=grid.shape)


def look_at_ground(parcel: Lakes, pixels: list[NDArray[Any]], place: Place, *, grid: Grid) -> Totals:
    """Sum up what polygons show in a block.

    Parameters
    ----------
    parcel
        Its numbers: red and blue of the ring, first row and column.
    pixels
        Red, blue, and what was seen.
    """

    def weigh(cells: Cells, pixels: list[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return _weigh(cells, pixels, place)

    return measure_lakes(parcel, pixels, place, grid=grid, weigh=weigh, nothing=NOTHING)


def _weigh(cells: Cells, pixels: list[NDArray[Any]], place: Place) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    red, blue, seen = (block[cells.at.row, cells.at.col] for block in pixels)
    ring_red, ring_blue, first_row, first_col = cells.numbers
    with np.errstate(divide="ignore", invalid="ignore"):
        level, bluish = red / ring_red, blue / ring_blue
        is_open, is_deep = (seen & (bluish - level > least * (bluish + level)) for least in (OPEN_INDEX, DEEP_INDEX))
    inside = cells.at.units * COVER_UNIT >= _HALF
    rest = inside & seen & ~is_open
    units, blue_units = (_level_units(one, rest) for one in (level, bluish))
    row = cells.at.row + place.row - first_row.astype(np.int64)
    col = cells.at.col + place.col - first_col.astype(np.int64)
    moments = np.stack([np.ones_like(row), row, col, row * row, col * col, row * col])
    sums = [
        area_units(seen, cells)[None],
        area_units(is_open, cells)[None],
        np.stack([rest.astype(np.int64), units, units * units, blue_units, inside & is_deep]),
        np.where(inside, moments, 0),
        np.where(inside & is_open, moments, 0),
    ]
    return np.concatenate(sums), np.empty((0, len(row)), np.int64)


def _level_units(level: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.rint(np.clip(np.where(where, np.nan_to_num(level), 0), 0, _BRIGHTEST) / _LEVEL_UNIT).astype(np.int64)


def spread(moments: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the area over which pixels spread, up to a factor: the root of the determinant of their covariance."""
    count, row, col, row_row, col_col, row_col = moments.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_row, mean_col = row / count, col / count
        var_row, var_col = row_row / count - mean_row**2, col_col / count - mean_col**2
        determinant = var_row * var_col - (row_col / count - mean_row * mean_col) ** 2
    return np.sqrt(np.maximum(determinant, 0))


def brightness(looks: Looks) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the mean of red over that of the ring, where there is no open water, and its deviation over its mean."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = looks.level / looks.rest
        deviation = np.sqrt(np.maximum(looks.level_squared / looks.rest - mean**2, 0))
        return mean * _LEVEL_UNIT, deviation / mean


def tint(looks: Looks) -> NDArray[np.float64]:
    """Compute how blue all is but open water: (b - r) / (b + r) of its mean blue and red over those of the ring."""
    with np.errstate(divide="ignore", invalid="ignore"):
        index: NDArray[np.float64] = (looks.blue_level - looks.level) / (looks.blue_level + looks.level)
    return index


def looks_of(sums: NDArray[np.int64]) -> Looks:
    """Name the sums of `look_at_ground`."""
    seen, is_open, rest, level, squared, blue, deep = sums[:7]
    return Looks(seen, is_open, rest, level, squared, blue, deep, sums[7:13], sums[13:])
