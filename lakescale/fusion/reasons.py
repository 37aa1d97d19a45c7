"""Why a polygon became a lake, or did not: the closed list of reasons; and what was mended in its geometry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale.rules import CUT_OFF, STREAM, TOO_SMALL
from lakescale.schema import KEPT

if TYPE_CHECKING:
    from numpy.typing import NDArray

NOT_ON_ICE, EXCLUDED, NO_SINK = "not on the ice", "overlaps an excluded area", "too little of it in sinks of the DEM"
"""Reasons why a candidate is no lake."""

SHAPES = (TOO_SMALL, STREAM, CUT_OFF)
"""Reasons for its shape why a candidate is no lake by itself."""

NO_AREA = "no polygon with an area"
SET_ASIDE = "another polygon keeps its sink"
NO_EVIDENCE = "overlaps neither sink nor color"
REPLACED = "replaced by a model of higher precedence"
NO_FIT = "fits no sink or color polygon that it overlaps"
NOT_ONE_POLYGON = "not one Polygon"
MERGED = "merged into another polygon"
WEAK = "too little agrees with it"
IMPROBABLE = "too improbable by the models"
NEAR_UNSEEN = "too near what was not seen"
"""Reasons of `fuse`, beside ``kept`` and those above."""

REASONS = (
    KEPT,
    NO_AREA,
    SET_ASIDE,
    NO_EVIDENCE,
    REPLACED,
    NO_FIT,
    NOT_ONE_POLYGON,
    MERGED,
    WEAK,
    IMPROBABLE,
    NEAR_UNSEEN,
    NOT_ON_ICE,
    EXCLUDED,
    NO_SINK,
    *SHAPES,
)
"""All values of the column ``reason`` after admission or fusion."""

MADE_VALID, Z_DROPPED, TAKEN_OUT = 1, 2, 4
"""Flags of what was mended in a geometry."""
_MENDS = {MADE_VALID: "made valid", Z_DROPPED: "z dropped", TAKEN_OUT: "polygons taken out of a collection"}


def name_mends(flags: NDArray[np.uint8]) -> NDArray[Any]:
    """Say in words what was mended; an empty string where nothing was."""
    words = ["; ".join(text for flag, text in _MENDS.items() if code & flag) for code in range(8)]
    return np.array(words, object)[flags]


def count_mends(flags: NDArray[np.uint8]) -> dict[str, int]:
    """Count the geometries mended in each way, ways without any left out."""
    counts = {text: int(np.count_nonzero(flags & flag)) for flag, text in _MENDS.items()}
    return {text: count for text, count in counts.items() if count}
