"""Lakes and the sinks that hold them: one lake a sink, and lids of ice that float in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from lakescale.fusion.parts import SINKS
from lakescale.fusion.rivals import settle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.fusion.parts import Pairs, Tables

INSIDE = 0.5
"""Least share of a piece of water in a sink to which it belongs."""
LEAST_WATER = 0.03
"""Least share of a sink under water that makes it a lake."""
_DECIMALS = 9  # areas depend on the order of vertices in the last digits
LEVEL, DEPTH_M = "level", "depth_m"
"""Columns of sinks, see `lakescale.sink_regions`."""


class Basins(NamedTuple):
    """Sinks on a day, and the water in them: pairs of a piece of water and a sink, in the order of basins."""

    number: NDArray[np.int64]
    """Of the piece of water."""
    area: NDArray[np.float64]
    """That it has in the sink."""
    basin: NDArray[np.intp]
    """Place of the sink in what follows."""
    sink: NDArray[np.int64]
    """Row of each in its frame."""
    outline: NDArray[Any]
    """Of each."""
    full: NDArray[np.float64]
    """Area of each."""
    level: NDArray[np.int64]
    """How many sinks lie round each; 0 where that is not known."""


class Lidded(NamedTuple):
    """Sinks that are lakes, though their water lies in pieces."""

    outline: NDArray[Any]
    lead: NDArray[np.int64]
    """The piece of water that each lake is named after."""
    members: NDArray[np.int64]
    """Pieces of water in them."""
    lake: NDArray[np.intp]
    """In which of them each member is."""


def find_basins(tables: Tables, pairs: Pairs, *, min_depth_m: float) -> Basins:
    """Find the sinks in which pieces of water lie; a sink without a date is one of each date."""
    columns, full = tables.other_columns[SINKS], tables.other_area[SINKS]
    inside = pairs.area >= INSIDE * tables.area[pairs.own]
    if DEPTH_M in columns:
        inside &= columns[DEPTH_M].to_numpy(np.float64, na_value=np.nan)[pairs.other] >= min_depth_m
    own, other, area, _ = pairs.where(inside)
    key = tables.group[own] * len(full) + other
    keys, basin = np.unique(key, return_inverse=True)
    order = np.lexsort((own, basin))
    sink = keys % max(len(full), 1)
    level = np.zeros(len(sink), np.int64)
    if LEVEL in columns:
        level = columns[LEVEL].fillna(0).to_numpy(np.int64)[sink]
    return Basins(own[order], area[order], basin[order], sink, tables.other_outline[SINKS][sink], full[sink], level)


def find_fillers(
    basins: Basins, lake: NDArray[np.bool_], *, fill: float
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Find the lakes that fill a sink by themselves, and what else lies in that sink.

    Returns
    -------
    is_filler, filler
        Which lakes fill a sink; and for every other lake in one the filler of the smallest such sink, else -1.
    """
    fills = lake[basins.number] & (basins.area >= fill * basins.full[basins.basin])
    is_filler = np.zeros(len(lake), bool)
    is_filler[basins.number[fills]] = True
    holder = np.full(len(basins.sink), -1)
    order = np.flatnonzero(fills)[np.lexsort((basins.number[fills], -basins.area[fills]))][::-1]
    holder[basins.basin[order]] = basins.number[order]  # the largest comes last
    held = np.flatnonzero((holder[basins.basin] >= 0) & lake[basins.number] & ~is_filler[basins.number])
    held = held[np.lexsort((basins.sink[basins.basin[held]], basins.full[basins.basin[held]]))][::-1]
    filler = np.full(len(lake), -1)
    filler[basins.number[held]] = holder[basins.basin[held]]
    return is_filler, filler


def find_lidded(
    basins: Basins,
    tables: Tables,
    lake: NDArray[np.bool_],
    is_filler: NDArray[np.bool_],
    *,
    cover: float,
    min_area_m2: float,
) -> Lidded:
    """Find the sinks that are lakes with a lid: the convex hull of the water in them covers most of the sink.

    Water lies level: where it reaches the shore all round, what is lower is water or floats on it. Of nested sinks the
    outermost such one is the lake.

    Parameters
    ----------
    basins, tables
        Sinks and pieces of water.
    lake, is_filler
        Which pieces are lakes by themselves, and which of these fill a sink: no sink that holds such a one is lidded.
    cover
        Least share of the sink that the hull covers.
    min_area_m2
        Least area of the sink, where none of its water is a lake by itself.
    """
    outline, (number, area, basin) = np.asarray(tables.outline), basins[:3]
    count = len(basins.sink)
    hull = shapely.convex_hull(_collect(outline[number], basin, count))
    covered = np.round(shapely.area(shapely.intersection(hull, basins.outline)) / basins.full, _DECIMALS)
    water = np.round(np.bincount(basin, area, minlength=count) / basins.full, _DECIMALS)
    filled, has_lake = (np.bincount(basin, flag[number], minlength=count) > 0 for flag in (is_filler, lake))
    right = (covered >= cover) & (water >= LEAST_WATER) & ~filled & (has_lake | (basins.full >= min_area_m2))
    chosen = np.flatnonzero(right)
    number, of = _keep(number, basin, chosen, count)
    united = shapely.union(basins.outline[chosen], _unite(outline, number[lake[number]], of[lake[number]], len(chosen)))
    day = np.zeros(len(chosen), np.int64)
    day[of] = tables.group[number]
    free = np.flatnonzero(~_overlaps(united, day, outline[is_filler], tables.group[is_filler]))
    chosen, united, day = chosen[free], united[free], day[free]
    number, of = _keep(number, of, free, len(right))
    order = np.lexsort((day, basins.sink[chosen], -basins.full[chosen], basins.level[chosen]))
    taken = np.flatnonzero(settle(*_conflicts(united, day, number, of), np.argsort(order)) < 0)
    number, of = _keep(number, of, taken, len(right))
    order = np.lexsort((number, -tables.area[number], ~lake[number], of))
    return Lidded(united[taken], number[order][np.unique(of[order], return_index=True)[1]], number, of)


def _keep(
    number: NDArray[np.int64], of: NDArray[np.intp], chosen: NDArray[np.intp], count: int
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Take the pieces of water of some sinks, which are then counted anew."""
    place = np.full(count, -1)
    place[chosen] = np.arange(len(chosen))
    stays = place[of] >= 0
    return number[stays], place[of[stays]]


def _overlaps(
    one: NDArray[Any], day: NDArray[np.int64], other: NDArray[Any], other_day: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which polygons share an area with others of the same day."""
    i, j = shapely.STRtree(other).query(one, predicate="intersects")
    same = day[i] == other_day[j]
    i, j = i[same], j[same]
    found = np.zeros(len(one), bool)
    found[i[shapely.area(shapely.intersection(one[i], other[j])) > 0]] = True
    return found


def _conflicts(
    united: NDArray[Any], day: NDArray[np.int64], number: NDArray[np.int64], of: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of lakes of one day that overlap, or have a piece of water in common."""
    a, b = shapely.STRtree(united).query(united, predicate="intersects")
    later = (a > b) & (day[a] == day[b])
    a, b = a[later], b[later]
    shared = shapely.area(shapely.intersection(united[a], united[b])) > 0
    order = np.lexsort((of, number))
    number, of = number[order], of[order]
    found = [(a[shared], b[shared])]
    step = 1
    while len(same := np.flatnonzero(number[step:] == number[:-step])):
        found.append((of[same + step], of[same]))
        step += 1
    return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])


def _collect(geometry: NDArray[Any], of: NDArray[np.intp], count: int) -> NDArray[Any]:
    """Put geometries together, each with those of its number (ascending; every number is there)."""
    if not count:
        return np.empty(0, object)
    return np.asarray(shapely.geometrycollections(geometry, indices=of), object)


def _unite(outline: NDArray[Any], number: NDArray[np.int64], of: NDArray[np.intp], count: int) -> NDArray[Any]:
    """Unite the outlines of each number, ascending; an empty polygon of one that has none."""
    united = np.full(count, shapely.Polygon(), object)
    start = np.searchsorted(of, np.arange(count + 1))
    for k in np.unique(of):
        united[k] = shapely.union_all(outline[number[start[k] : start[k + 1]]])
    return united
