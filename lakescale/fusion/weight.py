"""How much speaks for a candidate: its form, and how well other evidence agrees with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from lakescale.fusion.parts import COLOR, MODELS, SINKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from lakescale.fusion.parts import Pairs, Tables

SUPPORT = "support"
"""Column: the largest mean, within a candidate, of the rasters of other evidence."""


class Weights(NamedTuple):
    """Coefficients of a logistic regression, on whether a candidate has 50 to 160 % of a true lake's area."""

    constant: float
    solid: float
    other: float


AGREED = Weights(-6.3, 5.4, 5.0)
"""With the best agreement with another polygon."""
SUPPORTED = Weights(-5.9, 6.4, 2.7)
"""With the mean of other rasters, where there are no other polygons."""
ALONE = Weights(-4.3, 6.5, 0.0)
"""Where there is no other evidence."""
_DECIMALS = 9  # areas depend on the order of vertices in the last digits


def weigh(tables: Tables, pairs: Mapping[str, Pairs]) -> NDArray[np.float64]:
    """Score candidates: the log of the odds that a candidate is a lake with the right outline."""
    solid = _solidity(np.asarray(tables.outline), tables.area)
    score = ALONE.constant + ALONE.solid * solid
    if SUPPORT in tables.columns:
        support = _numbers(tables.columns, SUPPORT)
        known = ~np.isnan(support)
        score[known] = (SUPPORTED.constant + SUPPORTED.solid * solid + SUPPORTED.other * support)[known]
    if len(tables.names) > 1 or SINKS in pairs or COLOR in pairs:
        score = AGREED.constant + AGREED.solid * solid + AGREED.other * agree(tables, pairs)
    return np.round(score, _DECIMALS)


def agree(tables: Tables, pairs: Mapping[str, Pairs], counts: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Give the largest intersection over union, 0..1, of each candidate with a polygon of other evidence.

    That is a candidate of another model (one that ``counts``), a sink at any level, or a color polygon.
    """
    best = np.zeros(len(tables.area))
    for role in (SINKS, COLOR):
        if role in pairs:
            own, other, area, _ = pairs[role]
            np.maximum.at(best, own, _iou(area, tables.area[own], tables.other_area[role][other]))
    own, other, area, _ = pairs[MODELS]
    apart = tables.model[own] != tables.model[other]
    own, other, area = own[apart], other[apart], area[apart]
    iou = _iou(area, tables.area[own], tables.area[other])
    for one, another in ((own, other), (other, own)):
        right = slice(None) if counts is None else counts[another]
        np.maximum.at(best, one[right], iou[right])
    return best


def _iou(shared: NDArray[np.float64], one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.round(shared / (one + other - shared), _DECIMALS)


def _solidity(outline: NDArray[Any], area: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of its convex hull that each polygon fills: that of slush and of streams is low."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(area / shapely.area(shapely.convex_hull(outline)))


def _numbers(columns: pd.DataFrame, name: str) -> NDArray[np.float64]:
    return columns[name].to_numpy(np.float64, na_value=np.nan)
