"""The ground beside lakes, which stands for their floors, and the darkest water of the scene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from lakescale.evidence.volume_outlines import move_outlines
from lakescale.evidence.water_depth_optics import count_water, darkest_water, no_water
from lakescale.evidence.zonal_cover import cover, to_covering_pixels
from lakescale.evidence.zonal_deal import Parcel, polygons_of, split_parts
from lakescale.evidence.zonal_layers import Layer
from lakescale.evidence.zonal_sums import Sums, measure

if TYPE_CHECKING:
    import geopandas as gpd
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.grid import Grid

_LAYERS = (Layer("reflectance", 0, None),)


class Rings(NamedTuple):
    """Lakes and the rings round them, in pixel coordinates."""

    row: NDArray[np.int64]
    """Number of each lake, ascending."""
    lakes: NDArray[Any]
    rings: NDArray[Any]
    reach: NDArray[Any]
    """The lake with its ring and what lies between."""


class Shown(NamedTuple):
    """What a block shows: reflectance in rings, and water by its reflectance."""

    rings: Sums
    water: NDArray[np.int64]


class Told(NamedTuple):
    """The answer for a part of the frame."""

    row: NDArray[np.int64]
    """Lakes whose ring shows something."""
    a_d: NDArray[np.float64]
    r_inf: float


NOTHING = Told(np.empty(0, np.int64), np.empty(0), np.nan)


def reach_of(polygons: NDArray[Any], ring_m: float, grid: Grid) -> NDArray[Any]:
    """Draw lakes with the ring round them, in map coordinates."""
    return move_outlines(polygons, ring_m + grid.pixel_size_m / 2, grid.crs)


def cut_rings(part: gpd.GeoDataFrame, *, grid: Grid, ring_m: float) -> Rings:
    """Draw the ring of each lake: a pixel wide, its middle ``ring_m`` outside the outline."""
    lakes = polygons_of(part)
    reach = reach_of(lakes, ring_m, grid)
    within = move_outlines(lakes, max(ring_m - grid.pixel_size_m / 2, 0.0), grid.crs)
    shapes = (to_covering_pixels(one, grid.transform) for one in (lakes, shapely.difference(reach, within), reach))
    return Rings(np.arange(len(lakes)), *shapes)


def look_at_rings(
    parcel: Rings, pixels: list[NDArray[Any]], place: Place, *, grid: Grid, asks_rings: bool, asks_water: bool
) -> Shown:
    """Look at the rings of lakes in a block, and at its water.

    Parameters
    ----------
    pixels
        The band, what was seen, and, for water, red, blue and perhaps lids.
    """
    band, seen = pixels[:2]
    rings, water = Sums.empty(len(_LAYERS)), no_water()
    if asks_rings:
        ground = seen.copy()
        for covered in cover(parcel.lakes, place, grid.shape):
            ground[covered.row, covered.col] = False
        shown = [np.where(ground, band, np.nan).astype(np.float32)]
        rings = measure(Parcel(parcel.row, parcel.rings), shown, place, layers=_LAYERS, shape=grid.shape)
    if asks_water:
        red, blue, *lids = pixels[2:]
        water = count_water(band, red, blue, seen & ~lids[0] if lids else seen)
    return Shown(rings, water)


def join_shown(answers: list[Shown], parts: int) -> list[Told]:
    """Put the answers of all blocks together, and part them by the frame's parts."""
    sums = Sums.join([answer.rings for answer in answers], len(_LAYERS))
    r_inf = darkest_water(sum((answer.water for answer in answers), no_water()))
    split = split_parts(_Means(sums.row, sums.means()[0]), parts)
    return [Told(one.row, one.mean, r_inf) for one in split]


class _Means(NamedTuple):
    row: NDArray[np.int64]
    mean: NDArray[np.float64]
