"""Columns of frames as a page holds them: what each is called, its unit, and its values, short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lakescale.schema import AREA_3857_M2, AREA_M2, LABEL, LAKE_ID, LAKE_TIME, REASON, SEEN_SHARE
from lakescale.series.rules import FATE, LID_SHARE, SEASON, STATE, TRACK_ID
from pipelines.catalogue_columns import LAKES, SEASONS
from pipelines.report_read import DATE, WHY

if TYPE_CHECKING:
    from collections.abc import Iterable

_FIRST = (
    LAKE_ID, TRACK_ID, AREA_M2, STATE, FATE, WHY, REASON, "evidence", SEEN_SHARE, LID_SHARE, "level_m", "level_low_m",
    "level_high_m", "volume_m3", "volume_low_m3", "volume_high_m3", "volume_reason", "rt_volume_m3", "rt_reason",
    "first_water", "last_water", "max_area_m2", "max_time", "drained_after", "drained_before", "lost_share",
)  # fmt: skip
_LEFT_OUT = {"geometry", DATE, LAKE_TIME, SEASON, LABEL}
_KINDS = {"_m2": "area", "_m3": "volume", "_m": "length", "_share": "share"}
"""Of numbers by how their column's name ends; the page shows km2, million m3, m and percent."""
_LABELS = {
    LAKE_ID: "lake", TRACK_ID: "track", AREA_3857_M2: "area in EPSG:3857", WHY: "why this fate",
    "evidence": "outline from", REASON: "reason", "by": "dropped for", "volume_m3": "volume by the bed",
    "volume_reason": "no volume by the bed", "rt_volume_m3": "volume by light", "rt_reason": "no volume by light",
}  # fmt: skip
_MEANINGS = {column.name: column.meaning for column in (*SEASONS, *LAKES)} | {
    LAKE_ID: "the outline within its date",
    REASON: "why the candidate is a lake (kept), or why it is none",
    "evidence": "the evidence whose outline it is",
    WHY: "the fate in a sentence",
    "perimeter_m": "length of the outline on the grid",
    "sink_share": "share of the lake in sinks of the DEM",
    "dem_share": "share of the lake with elevations",
}
_SIGNIFICANT = 5


def tabulate(frame: pd.DataFrame, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Give columns as JSON takes them.

    Parameters
    ----------
    frame
        Lakes, candidates or tracks.
    names
        Columns to give, where the frame has them; by default all but geometries, times and labels.

    Returns
    -------
    list of dict
        ``name``, ``label``, ``kind`` (``area``, ``volume``, ``length``, ``share``, ``number``, ``text``, ``day``),
        ``meaning``, ``main`` (what is looked at first) and ``values``, None where not known. Of texts and days
        ``words`` holds each value once, and ``values`` their numbers.
    """
    first = [name for name in _FIRST if name in frame]
    others = [str(name) for name in frame if name not in first and name not in _LEFT_OUT]
    wanted = [*first, *others] if names is None else [name for name in names if name in frame]
    return [_describe(name, pd.Series(frame[name])) for name in wanted]


def call(name: str) -> str:
    """Give the label of a column.

    >>> call("level_low_m"), call("index_share")
    ('level low', 'index share')
    """
    ending = next((end for end in _KINDS if name.endswith(end)), "")
    bare = name if ending == "_share" else name.removesuffix(ending)
    return _LABELS.get(name, bare.replace("_", " "))


def _describe(name: str, values: pd.Series[Any]) -> dict[str, Any]:
    meaning = _MEANINGS.get(name, "share of the outline under this evidence" if name.endswith("_share") else "")
    about = {"name": name, "label": call(name), "meaning": meaning, "main": name in _FIRST}
    if pd.api.types.is_datetime64_any_dtype(values):
        return about | {"kind": "day"} | _code(values.dt.strftime("%Y-%m-%d"))
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        return about | {"kind": "text"} | _code(values)
    kind = next((kind for end, kind in _KINDS.items() if name.endswith(end)), "number")
    return about | {"kind": kind, "values": shorten(values.to_numpy(float, na_value=np.nan))}


def shorten(values: Any) -> list[float | int | None]:
    """Give numbers with five digits that count, whole ones as they are; None for those that are not finite."""
    return [_short(float(value)) for value in values]


def _short(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    if value == int(value):
        return int(value)
    return float(f"{value:.{_SIGNIFICANT}g}")


def _code(values: pd.Series[Any]) -> dict[str, Any]:
    """Write each text once."""
    codes, words = pd.factorize(values.astype(object).where(values.notna(), None))
    return {"words": [str(word) for word in words], "values": [int(code) if code >= 0 else None for code in codes]}
