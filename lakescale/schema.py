"""Names that stages meet by: dimensions, bands, layers, columns; and the error classes.

Nothing here depends on anything else, so that every floor of the house can use it.
"""

from __future__ import annotations

import re

TIME, BAND, Y, X = "time", "band", "y", "x"

RED, GREEN, BLUE = "red", "green", "blue"

COLOR, INDEX, SEEN = "color", "index", "seen"
"""Layers of evidence, bool ``(y, x)``: color thresholds, water index, a pixel with data."""

SINK, ICE, CLOUD, DEM = "sink", "ice", "cloud", "dem"
"""Layers, bool ``(y, x)``: depressions of the terrain, ice, cloud or its shadow; and elevations, float32 m."""

PROBABILITY = "probability"
"""Layer, float32 ``(y, x)``, 0..1, NaN where not seen: a model's probability of lake."""

SINK_DEPTH, WATER_INDEX = "sink_depth", "water_index"
"""Layers, float32 ``(y, x)``: depth of sinks, m, NaN where there is no elevation; NDWI_ice, NaN where not seen."""

LABEL = "label"
"""Column of a polygon frame: the id of the labelled region it outlines, from 1."""

LAKE_ID, LAKE_TIME, REASON = "lake_id", "time", "reason"
AREA_M2, AREA_3857_M2 = "area_m2", "area_3857_m2"
"""Columns: the true area (equal-area projection), and the area in EPSG:3857, both in m2."""
IMAGE, REGION_NUM = "image", "region_num"
"""Columns of the Cup's answer: the mosaic's file name, and the region."""
SEEN_SHARE = "seen_share"
"""Column: share (0..1) of a lake's surroundings that was seen."""

KEPT = "kept"
"""Value of ``reason`` for a candidate that became a lake."""


_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#'\"<>]*@)?([^\s?#'\"<>]*)(?:[?#][^\s'\"<>]*)?")
_SIGNED = re.compile(r"(/vsi\w+)\?[^\s'\"<>]*|((?:X-Amz|X-Goog)-[A-Za-z-]+=)[^\s&'\"<>]*", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Leave out of all URLs in a text what may be secret: user, password, query and fragment.

    >>> without_secrets("cannot read https://me:word@host/a.tif?X-Amz-Signature=12ab: gone")
    'cannot read https://host/a.tif gone'
    """
    return _SIGNED.sub(r"\1\2", _URL.sub(r"\1\2", text))


class LakescaleError(Exception):
    """An error a user can act on: what is wrong, in which item, and what mends it; URLs in it keep no secrets.

    Parameters
    ----------
    what
        What is wrong, in one clause.
    item
        The file, chunk, row or date in which it is wrong; empty where there is none.
    mend
        The argument or command that mends it.
    """

    exit_code = 1

    def __init__(self, what: str, item: str = "", mend: str = "") -> None:
        self.what, self.item, self.mend = (without_secrets(str(part)) for part in (what, item, mend))
        super().__init__(self.what, self.item, self.mend)  # positional, so that it survives pickling from a worker

    def __str__(self) -> str:
        where = f" [{self.item}]" if self.item else ""
        how = f". {self.mend[:1].upper()}{self.mend[1:]}" if self.mend else ""
        return f"{self.what}{where}{how}"


class InputError(LakescaleError, ValueError):
    """The input cannot be used as it is (exit code 2)."""

    exit_code = 2


class RunError(LakescaleError, RuntimeError):
    """The input was fine, the run failed (exit code 1)."""

    exit_code = 1
