"""What an elevation model says of lakes: the level along their outlines, their lowest cell, voids, what is flat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from lakescale.depressions import as_elevation
from lakescale.evidence.volume_outlines import find_medians, move_outlines, trace_rims
from lakescale.evidence.zonal_cover import cover, to_covering_pixels
from lakescale.evidence.zonal_deal import polygons_of, split_parts
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.evidence.volume_rules import VolumeRules

OUTLINE, INNER, OUTER = range(3)
"""Outlines of a lake: as it is, moved inwards, and outwards."""
_OUTLINES = 3
_LARGEST_M = 1e6
_BINS_A_WINDOW = 4
_VOID = np.iinfo(np.int64).min


class Outlines(NamedTuple):
    """Lakes in pixel coordinates."""

    row: NDArray[np.int64]
    """Number of each lake, ascending."""
    lakes: NDArray[Any]
    """``(lake,)`` or, moved: see `OUTLINE`, `INNER`, `OUTER`."""
    inner: NDArray[Any]
    outer: NDArray[Any]


class _Rims(NamedTuple):
    """Pixels of outlines; several may have one key."""

    key: NDArray[np.int64]
    """Lake's number times 3, plus which outline."""
    value: NDArray[np.float32]
    """Elevation, NaN in voids."""
    units: NDArray[np.int64]


class _Bins(NamedTuple):
    """Covered parts of lakes by elevation, in steps of a quarter of `VolumeRules.flat_m`."""

    row: NDArray[np.int64]
    bin: NDArray[np.int64]
    units: NDArray[np.int64]


class _Pits(NamedTuple):
    """Lowest cells of lakes."""

    row: NDArray[np.int64]
    pit: NDArray[np.float32]
    """Infinite where all is void."""
    spill: NDArray[np.float32]
    """Level to which the lowest cell fills; NaN where it is not known."""


class _Survey(NamedTuple):
    """What some blocks say of some lakes."""

    rims: _Rims
    bins: _Bins
    pits: _Pits


class Levels(NamedTuple):
    """What the elevation model says of each lake that covers some of its pixels."""

    row: NDArray[np.int64]
    """``(lake,)``, ascending."""
    level: NDArray[np.float64]
    """``(outline, lake)``, m: the median along each outline; NaN where more than half of it has no elevation."""
    pit: NDArray[np.float64]
    """``(lake,)``, m, NaN where all is void."""
    spill: NDArray[np.float64]
    """``(lake,)``, m."""
    covered: NDArray[np.int64]
    """``(lake,)``, in units of `lakescale.evidence.zonal_cover.COVER_UNIT`."""
    void: NDArray[np.int64]
    """``(lake,)``, the part of it without elevation."""
    flat: NDArray[np.int64]
    """``(lake,)``, the largest part of it within `VolumeRules.flat_m`."""

    @classmethod
    def join(cls, many: Sequence[Levels]) -> Levels:
        """Put tables together; no lake may be in two."""
        every = _concatenate([_finish(_join([])), *many])
        order = np.argsort(every[0], kind="stable")
        return cls(*(one[..., order] for one in every))


class Seen(NamedTuple):
    """A block's answer: lakes that lie in it, measured, and what it knows of the others."""

    whole: Levels
    rest: _Survey


# -- lakes of a frame


def cut_outlines(part: gpd.GeoDataFrame, *, rules: VolumeRules) -> Outlines:
    """Take the lakes of a part of a frame to pixel coordinates."""
    lakes = polygons_of(part)
    moved = [move_outlines(lakes, sign * rules.outline_error_m, rules.grid.crs) for sign in (0, -1, 1)]
    return Outlines(np.arange(len(lakes)), *(to_covering_pixels(one, rules.grid.transform) for one in moved))


# -- one block


def survey_block(parcel: Outlines, pixels: list[NDArray[Any]], place: Place, *, rules: VolumeRules) -> Seen:
    """Look at lakes in a block of elevations and, where there is one, of sink depths."""
    dem = as_elevation(pixels[0], rules.missing)
    if (np.abs(dem) >= _LARGEST_M).any():
        where = f"in the block that begins at row {place.row}, column {place.col}"
        raise InputError("the DEM holds elevations of a million metres or more", where, "make what is no data NaN")
    depth = pixels[1] if len(pixels) > 1 else None
    survey = _Survey(_look_along(parcel, dem, place), *_look_inside(parcel, dem, depth, place, rules))
    left, top, right, bottom = shapely.bounds(parcel.outer).T
    inside = (left > place.col) & (right < place.col + place.width)
    inside &= (top > place.row) & (bottom < place.row + place.height)
    own = parcel.row[inside]
    return Seen(_finish(_part(survey, own, kept=True)), _part(survey, own, kept=False))


def _look_along(parcel: Outlines, dem: NDArray[np.float32], place: Place) -> _Rims:
    found = []
    for which, polygons in enumerate(parcel[1:]):
        rims = trace_rims(polygons, place)
        key = parcel.row[rims.polygon] * _OUTLINES + which
        found.append(_Rims(key, dem[rims.row, rims.col], rims.units))
    return _Rims(*_concatenate(found))


def _look_inside(
    parcel: Outlines, dem: NDArray[np.float32], depth: NDArray[np.float32] | None, place: Place, rules: VolumeRules
) -> tuple[_Bins, _Pits]:
    step, bins, pits = rules.flat_m / _BINS_A_WINDOW, [], []
    for covered in cover(parcel.lakes, place, rules.grid.shape):
        row, value = parcel.row[covered.polygon], dem[covered.row, covered.col]
        void = np.isnan(value)
        spill = np.full(len(value), np.float32(np.nan))
        if depth is not None:
            spill = value + np.nan_to_num(depth[covered.row, covered.col], nan=0.0)
        level = np.where(void, 0, np.floor(np.nan_to_num(value).astype(np.float64) / step)).astype(np.int64)
        bins.append(_add_bins(_Bins(row, np.where(void, _VOID, level), covered.units)))
        pits.append(_lowest(_Pits(row, np.where(void, np.float32(np.inf), value), spill)))
    return _join_bins(bins), _join_pits(pits)


# -- sums that do not depend on their order


def _join(many: Sequence[_Survey]) -> _Survey:
    none: list[Any] = [np.empty(0, dtype) for dtype in (np.int64, np.float32, np.int64)]
    rims = _Rims(*_concatenate([_Rims(*none), *(one.rims for one in many)]))
    return _Survey(rims, _join_bins([one.bins for one in many]), _join_pits([one.pits for one in many]))


def _join_bins(many: Sequence[_Bins]) -> _Bins:
    none = np.empty(0, np.int64)
    return _add_bins(_Bins(*_concatenate([_Bins(none, none, none), *many])))


def _join_pits(many: Sequence[_Pits]) -> _Pits:
    none: list[Any] = [np.empty(0, dtype) for dtype in (np.int64, np.float32, np.float32)]
    return _lowest(_Pits(*_concatenate([_Pits(*none), *many])))


def _concatenate(tables: Sequence[Any]) -> list[Any]:
    return [np.concatenate(column, axis=-1) for column in zip(*tables, strict=True)]


def _add_bins(bins: _Bins) -> _Bins:
    order = np.lexsort((bins.bin, bins.row))
    row, level, units = (one[order] for one in bins)
    is_first = np.ones(len(row), bool)
    is_first[1:] = (row[1:] != row[:-1]) | (level[1:] != level[:-1])
    first = np.flatnonzero(is_first)
    return _Bins(row[first], level[first], np.add.reduceat(units, first) if len(first) else units)


def _lowest(pits: _Pits) -> _Pits:
    """Keep the lowest cell of each lake; of several, the one that fills highest."""
    order = np.lexsort((-pits.spill, pits.pit, pits.row))
    first = order[np.flatnonzero(np.diff(pits.row[order], prepend=-1))]
    return _Pits(pits.row[first], pits.pit[first], pits.spill[first])


def _part(survey: _Survey, rows: NDArray[np.int64], *, kept: bool) -> _Survey:
    """Keep what is known of some lakes, or of all others."""
    rims, bins, pits = survey
    of_rims, of_bins, of_pits = (
        np.isin(key, rows, invert=not kept) for key in (rims.key // _OUTLINES, bins.row, pits.row)
    )
    return _Survey(
        _Rims(rims.key[of_rims], rims.value[of_rims], rims.units[of_rims]),
        _Bins(bins.row[of_bins], bins.bin[of_bins], bins.units[of_bins]),
        _Pits(pits.row[of_pits], pits.pit[of_pits], pits.spill[of_pits]),
    )


def _finish(survey: _Survey) -> Levels:
    """Turn what is known of whole lakes into one column each."""
    rims, bins, pits = survey
    level = np.full((_OUTLINES, len(pits.row)), np.nan)
    key, median = find_medians(*rims)
    at = np.searchsorted(pits.row, key // _OUTLINES)
    found = np.isin(key // _OUTLINES, pits.row)  # others have an outline, but cover no pixel
    level[key[found] % _OUTLINES, at[found]] = median[found]
    pit = np.where(np.isinf(pits.pit), np.nan, pits.pit).astype(np.float64)
    lake = np.searchsorted(pits.row, bins.row)
    void = bins.bin == _VOID
    counts = (np.bincount(lake[k], bins.units[k], len(pits.row)) for k in (np.ones(len(lake), bool), void))
    covered, empty = (count.astype(np.int64) for count in counts)
    flat = _largest_window(lake[~void], bins.bin[~void], bins.units[~void], len(pits.row))
    return Levels(pits.row, level, pit, pits.spill.astype(np.float64), covered, empty, flat)


def _largest_window(
    lake: NDArray[np.int64], level: NDArray[np.int64], units: NDArray[np.int64], lakes: int
) -> NDArray[np.int64]:
    """Find the largest sum over neighbouring bins of each lake; bins come sorted by lake, then by elevation."""
    largest, so_far = np.zeros(lakes, np.int64), np.concatenate([[0], np.cumsum(units)])
    lowest = level.min(initial=0)
    place = lake * (level.max(initial=0) - lowest + _BINS_A_WINDOW + 1) + (level - lowest)
    end = np.searchsorted(place, place + _BINS_A_WINDOW)
    np.maximum.at(largest, lake, so_far[end] - so_far[:-1])
    return largest


def join_seen(answers: list[Seen], parts: int) -> list[Levels]:
    """Put the answers of all blocks together, and part them by the frame's parts."""
    split_up = _finish(_join([answer.rest for answer in answers]))
    return split_parts(Levels.join([*(answer.whole for answer in answers), split_up]), parts)
