"""Lakes with what belongs to each, dealt to the blocks that they meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lakescale.evidence.zonal_deal import deal, numbers_of, outline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lakescale.chunks import Place

Table = TypeVar("Table", bound=tuple)  # type: ignore[type-arg]


def deal_tables(parts: Sequence[Table], places: list[Place], *, by: str) -> list[Table]:
    """Deal the rows of tables to the blocks that they meet.

    Parameters
    ----------
    parts
        A table for each part of the frame: a named tuple of arrays ``(lake,)`` or ``(value, lake)``, ``row`` the first.
    places
        The blocks.
    by
        Name of the column of polygons, in pixel coordinates, that says which blocks a lake meets.

    Returns
    -------
    list
        A table for each block, its rows ascending by number (`lakescale.evidence.zonal_deal.numbers_of`).
    """
    numbers = np.concatenate([numbers_of(p, len(part[0])) for p, part in enumerate(parts)])
    columns = [np.concatenate(column, axis=-1) for column in list(zip(*parts, strict=True))[1:]]
    at = [np.searchsorted(numbers, parcel.row) for parcel in deal([getattr(one, by) for one in parts], outline(places))]
    return [type(parts[0])(numbers[k], *(column[..., k] for column in columns)) for k in at]
