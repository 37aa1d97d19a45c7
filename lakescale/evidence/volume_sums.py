"""Volumes and areas summed up over lakes, in whole numbers: they do not depend on their order, so neither on chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lakescale.evidence.sink_areas import AREA_UNIT_M2, whole_areas
from lakescale.evidence.zonal_cover import COVER_UNIT, cover
from lakescale.evidence.zonal_deal import split_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.evidence.zonal_cover import Covered
    from lakescale.grid import Grid

VOLUME_UNIT_M3 = 2.0**-16
"""The volume over each cell is rounded to a whole multiple of this."""


class Lakes(NamedTuple):
    """Lakes, and a few numbers of each that tell how deep its cells are."""

    row: NDArray[np.int64]
    """Number of each lake, ascending."""
    polygons: NDArray[Any]
    """In pixel coordinates; None for those that are not asked for."""
    numbers: NDArray[np.float64]
    """``(number, lake)``."""


class Cells(NamedTuple):
    """Pixels that lakes cover."""

    at: Covered
    """Which pixels, and how much of them, by lake."""
    area_m2: NDArray[np.float64]
    """True area of the covered part of each."""
    numbers: NDArray[np.float64]
    """``(number, cell)``, of the lake of each."""


class Totals(NamedTuple):
    """Sums and largest values over lakes."""

    row: NDArray[np.int64]
    """``(lake,)``, ascending."""
    sums: NDArray[np.int64]
    """``(sum, lake)``."""
    largest: NDArray[np.int64]
    """``(value, lake)``."""

    @classmethod
    def empty(cls, sums: int, largest: int) -> Totals:
        """Give the totals of no lakes."""
        return cls(np.empty(0, np.int64), np.empty((sums, 0), np.int64), np.empty((largest, 0), np.int64))

    def join(self, many: Sequence[Totals]) -> Totals:
        """Add up; each lake is one column then."""
        row, sums, largest = (np.concatenate(parts, axis=-1) for parts in zip(self, *many, strict=True))
        if not len(row):
            return self
        order = np.argsort(row, kind="stable")
        first = np.flatnonzero(np.diff(row[order], prepend=-1))
        added = np.add.reduceat(sums[:, order], first, axis=1)
        return Totals(row[order][first], added, np.maximum.reduceat(largest[:, order], first, axis=1))


def measure_lakes(
    parcel: Lakes,
    pixels: list[NDArray[Any]],
    place: Place,
    *,
    grid: Grid,
    weigh: Callable[[Cells, list[NDArray[Any]]], tuple[NDArray[np.int64], NDArray[np.int64]]],
    nothing: Totals,
) -> Totals:
    """Sum up what the cells of lakes in a block weigh.

    Parameters
    ----------
    nothing
        Totals of no lakes.
    """
    if not len(parcel.row):
        return nothing
    areas = whole_areas(grid, range(place.row, place.row + place.height), range(place.col, place.col + place.width))
    found = []
    for covered in cover(parcel.polygons, place, grid.shape):
        if not len(covered.row):
            continue
        area_m2 = areas[covered.row, covered.col] * AREA_UNIT_M2 * (covered.units * COVER_UNIT)
        sums, largest = weigh(Cells(covered, area_m2, parcel.numbers[:, covered.polygon]), pixels)
        first = np.flatnonzero(np.diff(covered.polygon, prepend=-1))
        row = parcel.row[covered.polygon[first]]
        added = np.add.reduceat(sums, first, axis=1)
        found.append(Totals(row, added, np.maximum.reduceat(largest, first, axis=1)))
    return nothing.join(found)


def join_totals(answers: list[Totals], parts: int, *, nothing: Totals) -> list[Totals]:
    """Put the totals of all blocks together, and part them by the frame's parts."""
    return split_parts(nothing.join(answers), parts)


def volume_units(depth_m: NDArray[np.float64], cells: Cells) -> NDArray[np.int64]:
    """Give the volumes over cells, in units of `VOLUME_UNIT_M3`."""
    return np.rint(depth_m * cells.area_m2 / VOLUME_UNIT_M3).astype(np.int64)


def area_units(chosen: NDArray[np.bool_], cells: Cells) -> NDArray[np.int64]:
    """Give the areas of chosen cells, 0 for others, in units of `AREA_UNIT_M2`."""
    return np.where(chosen, np.rint(cells.area_m2 / AREA_UNIT_M2), 0).astype(np.int64)
