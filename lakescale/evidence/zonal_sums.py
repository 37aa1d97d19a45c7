"""Sums over the pixels of polygons, in whole numbers: they do not depend on their order, so neither on the chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lakescale.evidence.zonal_cover import cover
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.evidence.zonal_cover import Covered
    from lakescale.evidence.zonal_deal import Parcel
    from lakescale.evidence.zonal_layers import Layer

VALUE_UNIT = 2.0**-24
"""Values are rounded to whole multiples of this; those of 0.5 to 1 in float32 are such."""
_UNITS_A_WHOLE = 2**24
_LARGEST = 2.0**20


class Sums(NamedTuple):
    """Sums of polygons over some pixels; one row a layer, one column a polygon."""

    row: NDArray[np.int64]
    """``(polygon,)``, ascending."""
    covered: NDArray[np.int64]
    """``(polygon,)``, in units of `COVER_UNIT`."""
    seen: NDArray[np.int64]
    """``(layer, polygon)``, the covered part with data, in these units."""
    whole: NDArray[np.int64]
    """``(layer, polygon)``, sum of coverage times value, rounded down to these units."""
    rest: NDArray[np.int64]
    """``(layer, polygon)``, what that left, in units of `VALUE_UNIT` times `COVER_UNIT`."""
    largest: NDArray[np.float32]
    """``(layer, polygon)``; minus infinity where there is no data."""

    @classmethod
    def empty(cls, layers: int) -> Sums:
        """Give the sums of no polygons."""
        row, none = np.empty(0, np.int64), np.empty((layers, 0), np.int64)
        return cls(row, row, none, none, none, none.astype(np.float32))

    @classmethod
    def join(cls, many: Sequence[Sums], layers: int) -> Sums:
        """Add up; each polygon is one column then."""
        every = cls(*(np.concatenate(parts, axis=-1) for parts in zip(cls.empty(layers), *many, strict=True)))
        if not len(every.row):
            return every
        order = np.argsort(every.row, kind="stable")
        sorted_by_row: list[Any] = [one[..., order] for one in every]
        every = cls(*sorted_by_row)
        first = _first_of_each(every.row)
        covered, seen, whole, rest = (np.add.reduceat(one, first, axis=-1) for one in every[1:5])
        largest = np.maximum.reduceat(every.largest, first, axis=-1)
        return cls(every.row[first], covered, seen, *_carry(whole, rest), largest)

    def means(self) -> NDArray[np.float64]:
        """Compute means, ``(layer, polygon)``; NaN where there is no data."""
        with np.errstate(invalid="ignore"):
            return (self.whole + self.rest * VALUE_UNIT) / self.seen

    def largest_or_nan(self) -> NDArray[np.float32]:
        """Give the largest values, NaN where there is no data."""
        return np.where(self.seen > 0, self.largest, np.float32(np.nan))


def measure(
    parcel: Parcel, pixels: list[NDArray[Any]], place: Place, *, layers: tuple[Layer, ...], shape: tuple[int, int]
) -> Sums:
    """Sum up layers over the pixels that each polygon covers in a block.

    Raises
    ------
    InputError
        When a layer holds infinity or a value of 2**20 or more, of either sign, in a polygon.
    """
    found = []
    for covered in cover(parcel.polygons, place, shape):
        if not len(covered.row):
            continue
        first = _first_of_each(covered.polygon)
        columns = [_sum_layer(covered, first, pixels, layer) for layer in layers]
        seen, whole, rest, largest = (np.stack(column) for column in zip(*columns, strict=True))
        row = parcel.row[covered.polygon[first]]
        found.append(Sums(row, np.add.reduceat(covered.units, first), seen, whole, rest, largest))
    return Sums.join(found, len(layers))


def _sum_layer(covered: Covered, first: NDArray[np.int64], pixels: list[NDArray[Any]], layer: Layer) -> Any:
    values = pixels[layer.array][covered.row, covered.col]
    is_seen = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
    if layer.seen is not None:
        is_seen &= pixels[layer.seen][covered.row, covered.col]
    values = np.where(is_seen, values, 0).astype(np.float64)
    if values.size and not np.abs(values).max() < _LARGEST:
        raise InputError(
            f"a value too large to be summed up exactly: {values[np.abs(values).argmax()]:g}, the limit is 2**20",
            layer.name,
            "mask what is no data with NaN, or bring the raster to another unit",
        )
    units = np.where(is_seen, covered.units, 0)
    whole = np.floor(values)
    rest = np.rint((values - whole) / VALUE_UNIT).astype(np.int64)
    sums = (np.add.reduceat(one, first) for one in (units * whole.astype(np.int64), units * rest))
    largest = np.maximum.reduceat(np.where(is_seen, values, -np.inf).astype(np.float32), first)
    return np.add.reduceat(units, first), *_carry(*sums), largest


def _carry(whole: NDArray[np.int64], rest: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Make the rest less than a whole, so that no sum overflows and equal sums are equal numbers."""
    return whole + rest // _UNITS_A_WHOLE, rest % _UNITS_A_WHOLE


def _first_of_each(number: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.flatnonzero(np.diff(number, prepend=-1))
