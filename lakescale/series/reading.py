"""Lakes and what hid them, date by date: checked, in the order of time, in an order that the input does not set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from lakescale.polygons import areas_m2
from lakescale.schema import AREA_M2, LAKE_ID, LAKE_TIME, SEEN_SHARE, InputError
from lakescale.series.overlay import rim_seen
from lakescale.series.rules import LID_SHARE, TRACK_ID, TrackRules

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_POLYGONS = (3, 6)
_SAME_LAKE = 0.5
"""Lakes of one date that share more than this of the smaller are two drawings of one lake."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Day:
    """One date: its lakes, from the north to the south, and what hid others."""

    time: pd.Timestamp
    first: pd.Timestamp
    """First day of its pictures."""
    last: pd.Timestamp
    row: NDArray[np.intp]
    """Of each lake, in the frame of all lakes."""
    geometry: NDArray[Any]
    lake_id: NDArray[np.int64]
    area_m2: NDArray[np.float64]
    seen_share: NDArray[np.float64]
    """Share of each lake's surroundings that was seen."""
    lid_share: NDArray[np.float64]
    not_seen: NDArray[Any]
    lids: NDArray[Any] | None
    """None where they were not assessed."""
    snow: NDArray[Any]
    wet: NDArray[Any]
    """Ground that looks like water."""


@dataclass(frozen=True, eq=False)
class Dated:
    """All dates, in the order of time."""

    frame: gpd.GeoDataFrame
    """All lakes, as they came, ``time`` as datetime64[ms]."""
    days: list[Day]
    notes: list[str]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What hides or covers lakes, or shows them without outlines: polygons by date; None where there is none."""

    not_seen: Mapping[Any, Any] | None
    lids: Mapping[Any, Any] | None = None
    snow: Mapping[Any, Any] | None = None
    wet: Mapping[Any, Any] | None = None


def read_dates(lakes: Any, dates: Any, evidence: Evidence, rules: TrackRules) -> Dated:
    """Check lakes and evidence, and put them in order; see `lakescale.series.track` for what is refused."""
    frame, spans = _one_frame(lakes), _read_spans(dates)
    if isinstance(lakes, Mapping):
        spans = {time: (time, time) for time in _read_keys(lakes, "lakes")} | spans
    _check_columns(frame)
    geometry, mended = _check_geometry(frame)
    covers = {one.name: _read_covers(getattr(evidence, one.name), one.name, frame.crs) for one in fields(evidence)}
    times = sorted(set(frame[LAKE_TIME]) | set(spans))
    if not times:
        raise InputError("no dates to track lakes over", "lakes", "name the dates that were mapped in dates=")
    _require_dates(covers, times)
    days = [_read_day(time, spans.get(time, (time, time)), frame, geometry, covers, rules) for time in times]
    return Dated(frame, days, _tell(mended, covers))


def _one_frame(lakes: Any) -> gpd.GeoDataFrame:
    """Put the frames of several dates into one."""
    if not isinstance(lakes, Mapping):
        _require_frame(lakes, "lakes")
        if LAKE_TIME not in lakes:
            raise InputError("lakes without dates", "lakes", 'add a column "time", or give a dict from date to frame')
        return _with_time(lakes, _read_times(lakes[LAKE_TIME]))
    if not lakes:
        raise InputError("no dates to track lakes over", "lakes", "give a dict from date to frame")
    frames = []
    for (key, frame), time in zip(lakes.items(), _read_keys(lakes, "lakes"), strict=True):
        _require_frame(frame, f"lakes of {key}")
        if LAKE_TIME in frame and len(frame) and set(_read_times(frame[LAKE_TIME])) != {time}:
            raise InputError("the lakes are of another date than they are given for", str(key), "check the dates")
        frames.append(_with_time(frame, pd.Series(time, frame.index)))
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    if len({frame.crs for frame in filled}) > 1:
        raise InputError("the dates have different CRSs", "lakes", "bring them to one: to_crs(3413)")
    name = filled[0].active_geometry_name
    return pd.concat([f if f.active_geometry_name == name else f.rename_geometry(name) for f in filled])


def _with_time(frame: gpd.GeoDataFrame, time: pd.Series[Any]) -> gpd.GeoDataFrame:
    return frame.assign(**{LAKE_TIME: time.astype("datetime64[ms]").to_numpy()})


def _require_frame(frame: Any, name: str) -> None:
    if not isinstance(frame, gpd.GeoDataFrame) or frame.active_geometry_name is None:
        raise InputError("no polygons to track", name, "give a GeoDataFrame with an active geometry column")


def _read_times(values: Any) -> pd.Series[Any]:
    """Read times without a zone; a missing one is refused."""
    problem = ""
    try:
        times = pd.Series(pd.to_datetime(pd.Series(values))).astype("datetime64[ms]")
        problem = "a date is missing" if times.isna().any() else ""
    except (TypeError, ValueError) as error:
        problem = f"dates that cannot be read: {str(error).splitlines()[0]}"
    if problem:
        raise InputError(problem, LAKE_TIME, "give times in UTC without a zone, such as 2019-07-28")
    return times


def _read_keys(by_date: Mapping[Any, Any], name: str) -> list[pd.Timestamp]:
    times = list(_read_times(list(by_date)))
    twice = pd.Series(times)[pd.Series(times).duplicated()]
    if len(twice):
        raise InputError("the same date twice", f"{name}, {twice.iloc[0].isoformat()}", "put its polygons together")
    return times


def _read_spans(dates: Any) -> dict[pd.Timestamp, tuple[pd.Timestamp, pd.Timestamp]]:
    """Give each date its first and last day."""
    if dates is None:
        return {}
    if not isinstance(dates, Mapping):
        dates = {date: (date, date) for date in _unique(dates)}
    spans = {}
    for time, ends in zip(_read_keys(dates, "dates"), dates.values(), strict=True):
        first, last = _read_times(list(ends))
        if first > last:
            mend = "give (first day, last day)"
            raise InputError("a date ends before it begins", f"dates, {time.isoformat()}", mend)
        spans[time] = (first, last)
    return spans


def _unique(dates: Iterable[Any]) -> list[Any]:
    listed = list(dates)
    if len(set(listed)) < len(listed):
        raise InputError("the same date twice", "dates", "name each date once")
    return listed


def _check_columns(frame: gpd.GeoDataFrame) -> None:
    if TRACK_ID in frame:
        raise InputError("the lakes have track ids already", TRACK_ID, "give them as previous=, or drop the column")
    if not len(frame):
        return
    ids = frame[LAKE_ID] if LAKE_ID in frame else pd.Series(dtype=object)
    if not pd.api.types.is_integer_dtype(ids) or ids.isna().any():
        raise InputError("lakes without ids", LAKE_ID, "add whole numbers, different within a date")
    twice = pd.DataFrame(frame[[LAKE_TIME, LAKE_ID]]).duplicated()
    if twice.any():
        row = int(twice.to_numpy().argmax())
        where = f"{frame[LAKE_TIME].iloc[row]}, lake {ids.iloc[row]} (one of {twice.sum()})"
        raise InputError("a lake is there twice: the same date may have been given twice", where, "give each date once")
    for name in (SEEN_SHARE, LID_SHARE):
        if name in frame and not frame[name].between(0, 1).all():
            raise InputError("a share outside 0 to 1", name, "give shares; 1 where all was seen")
    if AREA_M2 in frame and not (frame[AREA_M2] > 0).all():
        raise InputError("a lake without a true area", AREA_M2, "drop the column, and areas are computed")


def _check_geometry(frame: gpd.GeoDataFrame) -> tuple[NDArray[Any], int]:
    """Give the outlines, flat and valid, and how many were not valid."""
    crs = frame.crs
    if len(frame) and (crs is None or crs.is_geographic or crs.axis_info[0].unit_conversion_factor != 1):
        raise InputError("tracking needs metres", f"CRS {crs and crs.name}", "bring lakes to them: to_crs(3413)")
    geometry, mended = _mend(frame.geometry.to_numpy(), "lakes")
    if not (shapely.area(geometry) > 0).all():
        row = int((shapely.area(geometry) > 0).argmin())
        raise InputError("a lake without any area", f"row {row}, index {frame.index[row]}", "leave it out")
    return geometry, mended


def _mend(geometry: NDArray[Any], name: str) -> tuple[NDArray[Any], int]:
    polygonal = np.isin(shapely.get_type_id(geometry), _POLYGONS)
    if not polygonal.all():
        row = int(polygonal.argmin())
        kind = getattr(geometry[row], "geom_type", "nothing")
        raise InputError(f"only polygons can be tracked, found {kind}", f"{name}, row {row}", "leave it out")
    flat = np.array(shapely.force_2d(geometry), object)
    wrong = ~shapely.is_valid(flat)
    flat[wrong] = shapely.make_valid(flat[wrong], method="structure", keep_collapsed=False)
    return flat, int(wrong.sum())


def _read_covers(by_date: Mapping[Any, Any] | None, name: str, crs: Any) -> dict[pd.Timestamp, NDArray[Any]] | None:
    if by_date is None:
        return None
    covers = {}
    for time, polygons in zip(_read_keys(by_date, name), by_date.values(), strict=True):
        series = polygons.geometry if isinstance(polygons, gpd.GeoDataFrame) else gpd.GeoSeries(polygons)
        if series.crs is not None and len(series) and crs is not None and series.crs != crs:
            mend = f"bring it to {crs.to_string()[:40]}"
            raise InputError("the evidence has another CRS than the lakes", f"{name}, {time.isoformat()}", mend)
        shapes, _ = _mend(series.to_numpy(), name)
        parts = shapely.get_parts(shapes)  # a sky of clouds in one piece would lie near every lake
        covers[time] = parts[shapely.area(parts) > 0]
    return covers


def _require_dates(covers: dict[str, Any], times: list[pd.Timestamp]) -> None:
    for name, by_date in covers.items():
        if by_date is not None and (strange := sorted(set(by_date) - set(times))):
            mend = "name all dates that were mapped in dates=, those without lakes, too"
            raise InputError("evidence of a date that was not mapped", f"{name}, {strange[0].isoformat()}", mend)
    not_seen = covers["not_seen"]
    if not_seen is not None and (missing := sorted(set(times) - set(not_seen))):
        mend = "give an empty frame where all was seen"
        raise InputError("it is not told what was not seen", f"not_seen, {missing[0].isoformat()}", mend)


def _read_day(
    time: pd.Timestamp,
    span: tuple[pd.Timestamp, pd.Timestamp],
    frame: gpd.GeoDataFrame,
    geometry: NDArray[Any],
    covers: dict[str, Any],
    rules: TrackRules,
) -> Day:
    at: dict[str, Any] = {name: (by_date or {}).get(time) for name, by_date in covers.items()}
    not_seen, snow, wet = (np.empty(0, object) if at[n] is None else at[n] for n in ("not_seen", "snow", "wet"))
    row = np.flatnonzero(frame[LAKE_TIME] == time)
    row = row[_order(geometry[row])]
    lakes, here = geometry[row], frame.iloc[row]
    _refuse_twins(lakes, here, time)
    seen = np.minimum(rim_seen(lakes, not_seen, rules.rim_m), here[SEEN_SHARE] if SEEN_SHARE in frame else 1)
    return Day(
        time=time,
        first=span[0],
        last=span[1],
        row=row,
        geometry=lakes,
        lake_id=here[LAKE_ID].to_numpy(np.int64) if LAKE_ID in frame else np.empty(0, np.int64),
        area_m2=here[AREA_M2].to_numpy(float) if AREA_M2 in frame else true_areas(lakes, frame.crs),
        seen_share=np.asarray(seen, float),
        lid_share=here[LID_SHARE].to_numpy(float) if LID_SHARE in frame else np.zeros(len(row)),
        not_seen=not_seen,
        lids=at["lids"],
        snow=snow,
        wet=wet,
    )


def true_areas(geometry: NDArray[Any], crs: Any) -> NDArray[np.float64]:
    """Compute true areas, m2."""
    return areas_m2(gpd.GeoSeries(geometry, crs=crs)) if len(geometry) else np.empty(0)


def _order(geometry: NDArray[Any]) -> NDArray[np.intp]:
    """Order outlines from the north to the south, whatever rows they came in."""
    left, bottom, right, top = shapely.bounds(geometry).T.reshape(4, -1)
    drawing = np.array(shapely.to_wkb(shapely.normalize(geometry)), object)
    keys = pd.DataFrame({"top": -top, "left": left, "bottom": bottom, "right": right, "drawing": drawing})
    return keys.sort_values(keys.columns.tolist(), kind="stable").index.to_numpy()


def _refuse_twins(lakes: NDArray[Any], frame: gpd.GeoDataFrame, time: pd.Timestamp) -> None:
    """Refuse lakes of one date that are drawn on each other."""
    own, other = shapely.STRtree(lakes).query(lakes, predicate="intersects")
    own, other = own[own < other], other[own < other]
    smaller = np.minimum(shapely.area(lakes[own]), shapely.area(lakes[other]))
    twin = shapely.area(shapely.intersection(lakes[own], lakes[other])) > _SAME_LAKE * smaller
    if twin.any():
        a, b = (frame[LAKE_ID].iloc[k[twin.argmax()]] for k in (own, other))
        mend = "give each date once, and lakes that do not overlap"
        where = f"{time.isoformat()}, lakes {a} and {b} (one pair of {twin.sum()})"
        raise InputError("lakes of one date lie on each other: the same date may have been given twice", where, mend)


def _tell(mended: int, covers: dict[str, Any]) -> list[str]:
    notes = [f"{mended} invalid outline{'s' * (mended != 1)} made valid"] if mended else []
    if covers["not_seen"] is None:
        notes.append("not_seen was not given: every basin counts as seen on every date")
    if covers["lids"] is None:
        notes.append("lids were not assessed: late in the season, what looks dry is not taken for empty")
    return notes
