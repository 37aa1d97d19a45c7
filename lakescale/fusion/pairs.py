"""Pairs of polygons that touch or overlap, and the area that each pair shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from lakescale.fusion.parts import LATER, MODELS, ROUNDED, Pairs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lakescale.fusion.parts import Meet, Part, Tables, Told

_CLEARLY = 1e-6
"""Share of the coordinates; GEOS errs by 1e-8 of them at most."""


class Met(NamedTuple):
    """Pairs of one part with another, by their places in the parts."""

    own: NDArray[np.intp]
    other: NDArray[np.intp]
    area: NDArray[np.float64]
    shape: NDArray[Any]


def pair_parts(own: Part, other: Part, meet: Meet, dates: Sequence[str]) -> Met:
    """Find the pairs of two parts that touch or overlap, and measure what they share.

    Parameters
    ----------
    own, other
        Polygons of models, and what they meet: those that are equal in the columns that both have. Of two parts of one
        model each pair is measured once, the later polygon with the earlier one.
    meet
        What is asked of a pair.
    dates
        Columns that are no reason to stay apart where ``meet.any_date``.
    """
    i, j = _touching(own, other, meet, dates)
    if own is other:
        i, j = i[i > j], j[i > j]
    a, b = own.geometry[i], other.geometry[j]
    if own.told.frame == other.told.frame and not own.told.in_order:
        swap = own.told.row[i] < other.told.row[j]
        a, b = np.where(swap, b, a), np.where(swap, a, b)
    if meet.area == ROUNDED:
        return Met(i, j, _share_about(own, other, i, j), np.empty(0, object))
    if meet.area == LATER and not meet.shapes:
        return Met(i, j, _share_anything(own, other, i, j, (a, b)), np.empty(0, object))
    # an area can depend on the order of the two in its last digit
    shape = shapely.intersection(a, b)
    return Met(i, j, shapely.area(shape), shape if meet.shapes else np.empty(0, object))


def _touching(own: Part, other: Part, meet: Meet, dates: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    found = [np.empty((2, 0), np.intp)]
    near, other_near = _within_reach(own.geometry, other.geometry)
    if not (near.any() and other_near.any()):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    for group, other_group in _share_group(own.told, other.told, dates if meet.any_date else ()):
        rows, other_rows = group[near[group]], other_group[other_near[other_group]]
        a, b = own.geometry[rows], other.geometry[other_rows]
        if meet.area != ROUNDED:
            i, j = shapely.STRtree(b).query(a, predicate="intersects")
        else:  # ice has most vertices: it is the one to be prepared
            j, i = shapely.STRtree(a).query(b, predicate="intersects")
        found.append(np.stack([rows[i], other_rows[j]]))
    i, j = np.concatenate(found, axis=1)
    return i, j


def _within_reach(own: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which polygons have bounds that meet the bounds of all others: the halo of two parts."""
    box, other_box = shapely.bounds(own), shapely.bounds(other)
    return _meets(box, other_box), _meets(other_box, box)


def _meets(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    low = np.fmin.reduce(others[:, :2], axis=0, initial=np.inf)
    high = np.fmax.reduce(others[:, 2:], axis=0, initial=-np.inf)
    return (boxes[:, :2] <= high).all(axis=1) & (boxes[:, 2:] >= low).all(axis=1)


def _share_group(own: Told, other: Told, ignored: Sequence[str]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Give the rows of both for each combination of values that both have."""
    keys = [key for key in own.values if key in other.values and key not in ignored]
    if not keys:
        yield np.arange(len(own.row)), np.arange(len(other.row))
        return
    groups, other_groups = number_groups([own, other], keys)
    rows, other_rows = _rows_by_code(groups), _rows_by_code(other_groups)
    for code in sorted(rows.keys() & other_rows.keys()):
        yield rows[code], other_rows[code]


def number_groups(parts: Sequence[Told], keys: Sequence[str]) -> list[NDArray[np.intp]]:
    """Give the polygons of parts numbers that are equal where these columns are."""
    numbers: dict[tuple[Any, ...], int] = {}
    groups = []
    for part in parts:
        unknown = (None,) * part.combos  # an empty frame needs no columns
        combos = zip(*(part.values.get(key, unknown) for key in keys), strict=True) if keys else [()] * part.combos
        groups.append(np.array([numbers.setdefault(combo, len(numbers)) for combo in combos], np.intp)[part.code])
    return groups


def _rows_by_code(codes: NDArray[np.intp]) -> dict[int, NDArray[np.intp]]:
    order = np.argsort(codes, kind="stable")
    values, start = np.unique(codes[order], return_index=True)
    return {int(value): rows for value, rows in zip(values, np.split(order, start)[1:], strict=True)}


def measure(pairs: Pairs, role: str, tables: Tables, chosen: NDArray[np.bool_]) -> Pairs:
    """Measure what chosen pairs share, as far as it was left for later.

    Parameters
    ----------
    pairs
        Of the tables, or some of them.
    role
        What the polygons of models meet there.
    tables
        With the outlines of both.
    chosen
        Of the pairs.
    """
    rows = np.flatnonzero(chosen & np.isinf(pairs.area))
    if not len(rows):
        return pairs
    outline, others = np.asarray(tables.outline), tables.outline if role == MODELS else tables.other_outline[role]
    area = pairs.area.copy()
    area[rows] = _areas(outline[pairs.own[rows]], np.asarray(others)[pairs.other[rows]])
    return pairs._replace(area=area)


def _areas(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(shapely.area(shapely.intersection(a, b)), np.float64)


def _share_anything(
    own: Part, other: Part, i: NDArray[np.intp], j: NDArray[np.intp], pairs: tuple[NDArray[Any], NDArray[Any]]
) -> NDArray[np.float64]:
    """Give infinity for pairs that surely share an area, and the area of others.

    A pair surely does where a point lies in both, off their shores: a disc round it then lies in both. Tried are the
    middles of the bounds of both, and of where the bounds overlap.
    """
    boxes = [shapely.bounds(part.geometry)[rows] for part, rows in ((own, i), (other, j))]
    low, high = np.maximum(*boxes)[:, :2], np.minimum(*boxes)[:, 2:]
    least = _CLEARLY * np.abs(boxes).max(axis=(0, 2), initial=0.0)
    area, left = np.full(len(i), np.inf), np.arange(len(i))
    for middle in (*((box[:, :2] + box[:, 2:]) / 2 for box in boxes), (low + high) / 2):
        open_question = left
        for geometry in pairs:
            inside = shapely.contains_xy(geometry[open_question], *middle[open_question].T)
            open_question = open_question[inside]
        for geometry in pairs:
            shore, point = shapely.boundary(geometry[open_question]), shapely.points(middle[open_question])
            open_question = open_question[shapely.distance(point, shore) > least[open_question]]
        left = np.setdiff1d(left, open_question, assume_unique=True)
    area[left] = _areas(pairs[0][left], pairs[1][left])
    return area


def _share_about(own: Part, other: Part, i: NDArray[np.intp], j: NDArray[np.intp]) -> NDArray[np.float64]:
    """Give the areas of pairs to rounding: a polygon that lies in the other one shares all it has."""
    prepared = shapely.force_2d(other.geometry)  # copies: another thread must not meet them half prepared
    shapely.prepare(prepared)
    a, b = own.geometry[i], prepared[j]
    area = shapely.area(a)
    rim = ~shapely.contains_properly(b, a)
    area[rim] = _areas(a[rim], b[rim])
    return area
