"""A season's catalogue: `track` puts lakes of many dates together; `Tracks` is what is known of them then."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from lakescale.schema import AREA_M2, LAKE_TIME, InputError
from lakescale.series.events import EVENT_TYPES, find_events, open_ledgers
from lakescale.series.fates import FATE_TYPES, tell_fates
from lakescale.series.identity import Basins, Links, follow, no_basins
from lakescale.series.overlay import unite
from lakescale.series.reading import Dated, Day, Evidence, read_dates, true_areas
from lakescale.series.rules import FATE, SEASON, TRACK_ID, TrackRules
from lakescale.series.states import doubt_dry, judge_day
from lakescale.shown import Sheet, Shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import dask_geopandas
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

_LINK_COLUMNS = (LAKE_TIME, "link", "parent", "child")
_SUMMARY_COLUMNS = [
    TRACK_ID, SEASON, "first_water", "last_water", "max_area_m2", "max_time", "extent_m2", FATE, "reason",
    "drained_after", "drained_before", "lost_share", "geometry",
]  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Tracks(Shown):
    """Lakes with ids that persist, and what became of them. Times are datetime64[ms]; ids are int64 from 1."""

    lakes: gpd.GeoDataFrame
    """The lakes as they came, with ``track_id``; of a date where cloud cuts a lake in parts, several have the same."""
    states: pd.DataFrame = field(repr=False)
    """One row per track and date, by time, then track; of a track that ``previous`` did not know, from the first date
    after it:

    - ``track_id``, ``time``, ``first_day`` and ``last_day`` of the date's pictures, ``season``;
    - ``seen_share`` of its basin, ``lid_share`` of its basin under ice or snow;
    - ``least_water``, ``most_water``: shares (0..1) of its basin that hold open water for sure, and at most: if all
      that was not seen, lies under ice or looks wet were water, and a basin without a lake held one too small to be
      mapped;
    - ``area_m2``, true, of its lakes (NaN without), ``lakes``, their number, ``lake_id`` (Int64) of the largest;
    - ``in_track`` (Int64): the track whose lake covers it, where it has none of its own;
    - ``whole``: whether a lake was seen there with all that is round it;
    - ``state``: ``water``, ``lidded``, ``snow``, ``empty``, ``partly seen``, ``not seen``, ``dry or lidded``,
      ``not outlined``.
    """
    events: pd.DataFrame = field(repr=False)
    """By season, track and time: ``track_id``, ``season``, ``event`` (``filled``, ``drained``, ``refilled``,
    ``frozen over``, ``snowed over``), its bracket ``after`` (NaT where nothing is known before) and ``before``; of a
    drainage ``lost_share``, at least (NaN else), and ``speed``: ``rapid``, ``slow``, ``unknown`` (empty else)."""
    links: pd.DataFrame = field(repr=False)
    """The graph of tracks: ``time``, ``link`` (``split``: ``child`` parted from ``parent``; ``merge``: the lake of
    ``child`` covers ``parent``), ``parent``, ``child``."""
    summary: gpd.GeoDataFrame = field(repr=False)
    """One row per track and season in which it had a lake of its own:

    - ``track_id``, ``season`` (the year in which it ends), ``first_water``, ``last_water``;
    - ``max_area_m2``, true, and ``max_time``: its largest lake on one date; ``extent_m2``, true, of its outline;
    - ``fate``, ``reason``, and of its last drainage ``drained_after``, ``drained_before``, ``lost_share``;
    - ``geometry``: all outlines of the season united.
    """
    basins: gpd.GeoDataFrame = field(repr=False)
    """The ground of each track, by which it is found; no two have much in common: ``track_id`` 1, 2, ...;
    ``merged_into``, the track whose lake covers it, or 0; ``was_whole``: a lake of it was once seen with all that is
    round it; ``absorbed``: it was a part of ``merged_into`` that cloud cut off, and its ground went over."""
    rules: TrackRules
    notes: tuple[str, ...]
    """What was done to the input, and what was not known; logged too."""

    def sheet(self) -> Sheet:
        """Give the numbers of dates, tracks, events by kind and fates."""
        days = self.states[LAKE_TIME].drop_duplicates().sort_values().astype(str).str[:10].tolist()
        span = f", {days[0]} to {days[-1]}" if days else ""
        counted = [("fate", self.summary[FATE]), ("event", self.events["event"])]
        rows = [
            (f"{what}: {name}", str(count))
            for what, column in counted
            for name, count in column.value_counts().sort_index().items()
        ]
        title = f"{len(self.lakes)} lakes of {len(days)} dates{span}; {self.basins[TRACK_ID].nunique()} tracks"
        return Sheet(title, ("", ""), rows)


def track(
    lakes: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame | Mapping[Any, Any],
    *,
    dates: Iterable[Any] | Mapping[Any, tuple[Any, Any]] | None = None,
    not_seen: Mapping[Any, Any] | None = None,
    lids: Mapping[Any, Any] | None = None,
    snow: Mapping[Any, Any] | None = None,
    wet: Mapping[Any, Any] | None = None,
    previous: Tracks | None = None,
    rules: TrackRules | None = None,
) -> Tracks:
    """Track lakes over dates and seasons.

    A track is a basin: ground on which lakes were seen. The lakes of a date are matched to basins one to one, the
    largest shared area first (in a draw the smaller basin, the older track, the northern lake); what a lake covers is
    then ground of its track, unless it is another's. A lake that is left over where its basin is taken has split off;
    a basin without a lake of its own under the lake of another has merged into it. Dates may come in any order, rows
    too; later dates never change the ids of earlier ones.

    Parameters
    ----------
    lakes
        Polygons in one CRS in metres, with ``lake_id`` (whole numbers, different within a date) and ``time``; or a dict
        from date to frame. Optional columns: ``area_m2`` (true; else computed), ``seen_share`` of a lake's
        surroundings, ``lid_share`` of its outline. dask-geopandas frames are computed.
    dates
        All dates that were mapped, those without a lake, too; or a dict from date to the first and last day of its
        pictures, by which brackets are then told.
    not_seen
        Dict from each date to polygons of what was not seen: cloud, no data, and beyond the scene. They may overlap.
        None: all was seen, but what ``seen_share`` says.
    lids
        Dict from date to polygons of ice and snow that may hide water. Dates that it lacks were not assessed.
    snow
        Dict from date to polygons of snow, which tells buried from frozen over.
    wet
        Dict from date to polygons of ground that looks like water: without a lake there it is not taken for empty.
    previous
        Tracks of earlier dates, to be continued; its CRS and rules must be the same. Their states stay as they are.
    rules
        Rules, `TrackRules()` by default.

    Returns
    -------
    Tracks
        Lakes with ``track_id``, states, events, links, fates.

    Raises
    ------
    InputError
        The same date twice, a date not after those of ``previous``, times with a zone; lakes without ids, or that lie
        on each other; polygons that are none, without an area, in degrees or in different CRSs; shares outside 0 to 1;
        evidence of a date that was not mapped, ``not_seen`` without one of the dates.

    Examples
    --------
    >>> import geopandas as gpd, shapely
    >>> lake = gpd.GeoDataFrame({"lake_id": [7]}, geometry=[shapely.box(0, 0, 400, 300)], crs=3413)
    >>> tracks = track({"2019-07-01": lake, "2019-07-03": lake.iloc[:0], "2019-07-06": lake.iloc[:0]})
    >>> tracks.summary.fate[0], tracks.summary.reason[0]
    ('drained rapidly', 'lost 96% at least between 2019-07-01 and 2019-07-03, within 4 days')
    """
    rules = rules or (previous.rules if previous else TrackRules())
    (lakes,) = dask.compute(lakes)
    dated = read_dates(lakes, dates, Evidence(not_seen, lids, snow, wet), rules)
    if previous is not None:
        _check_previous(previous, dated, rules)
    for note in dated.notes:
        _LOG.info("%s", note)
    named, basins, links = _follow_all(dated.days, previous, rules)
    numbered = _number_lakes(dated, named, previous)
    states = _judge_all(dated.days, named, basins, previous, rules, numbered.crs)
    events, fates = _tell(states, rules)
    return Tracks(
        lakes=numbered,
        states=states,
        events=events,
        links=links,
        summary=_summarize(numbered, states, fates, rules),
        basins=_frame_basins(basins, numbered.crs),
        rules=rules,
        notes=tuple(dated.notes),
    )


def find_basins(
    lakes: Mapping[Any, Any],
    *,
    dates: Iterable[Any] | Mapping[Any, tuple[Any, Any]] | None = None,
    not_seen: Mapping[Any, Any] | None = None,
    rules: TrackRules | None = None,
) -> gpd.GeoDataFrame:
    """Find the ground of each track alone, so that one may look at it before `track` tells what became of the lakes.

    Parameters
    ----------
    lakes, dates, not_seen, rules
        As for `track`.

    Returns
    -------
    geopandas.GeoDataFrame
        `Tracks.basins`.

    Raises
    ------
    InputError
        As `track` does.
    """
    rules = rules or TrackRules()
    dated = read_dates(lakes, dates, Evidence(not_seen), rules)
    return _frame_basins(_follow_all(dated.days, None, rules)[1], dated.frame.crs)


def _check_previous(previous: Tracks, dated: Dated, rules: TrackRules) -> None:
    last = previous.states[LAKE_TIME].max()
    if dated.days and dated.days[0].time <= last:
        item = f"{dated.days[0].time.isoformat()}, after {last.isoformat()}"
        raise InputError(
            "a date that is not after those of the previous tracks", item, "track all dates anew, in one call"
        )
    if len(dated.frame) and len(previous.lakes) and dated.frame.crs != previous.lakes.crs:
        raise InputError("the previous tracks have another CRS", "previous", "bring the lakes to it")
    if rules != previous.rules:
        raise InputError("the previous tracks were made by other rules", "rules", "leave rules= out, or track all anew")


def _follow_all(
    days: list[Day], previous: Tracks | None, rules: TrackRules
) -> tuple[list[NDArray[np.int64]], Basins, pd.DataFrame]:
    """Follow lakes from date to date: the ids of the lakes of each, the ground of all tracks, splits and merges."""
    basins, season, named, tables = no_basins(), None, [], []
    if previous is not None:
        basins = _read_basins(previous.basins)
        season = previous.states[SEASON].max()
        tables.append(previous.links)
    for day in days:
        if season != (season := rules.season(day.time)):  # what was one lake last year may be dry or two by now
            basins = basins._replace(merged_into=np.where(basins.absorbed, basins.merged_into, 0))
        step = follow(basins, day, rules)
        basins = step.basins
        named.append(step.track_id)
        tables.append(_table_links(day.time, step.links))
    return named, basins, pd.concat(tables, ignore_index=True)


def _read_basins(frame: gpd.GeoDataFrame) -> Basins:
    flags = (frame[name].to_numpy(bool) for name in ("was_whole", "absorbed"))
    return Basins(frame.geometry.to_numpy(), frame["merged_into"].to_numpy(np.int64), *flags)


def _frame_basins(basins: Basins, crs: Any) -> gpd.GeoDataFrame:
    columns = basins._asdict() | {TRACK_ID: np.arange(1, len(basins.geometry) + 1)}
    return gpd.GeoDataFrame(columns, geometry="geometry", crs=crs)[[TRACK_ID, *Basins._fields[1:], "geometry"]]


def _table_links(time: pd.Timestamp, links: Links) -> pd.DataFrame:
    columns = dict(zip(_LINK_COLUMNS, (time, links.kind, links.parent, links.child), strict=True))
    table = pd.DataFrame(columns, index=range(len(links.kind))).astype({LAKE_TIME: "datetime64[ms]", "link": "str"})
    return table.sort_values(["link", "parent", "child"], ignore_index=True)


def _number_lakes(dated: Dated, named: list[NDArray[np.int64]], previous: Tracks | None) -> gpd.GeoDataFrame:
    """Add ids and true areas to the lakes, after those of the previous tracks."""
    track_id, area = np.zeros(len(dated.frame), np.int64), np.zeros(len(dated.frame))
    for day, ids in zip(dated.days, named, strict=True):
        track_id[day.row], area[day.row] = ids, day.area_m2
    lakes = dated.frame.assign(**{TRACK_ID: track_id, AREA_M2: area})
    if previous is None or not len(previous.lakes):
        return lakes
    return pd.concat([previous.lakes, lakes]) if len(lakes) else previous.lakes


def _judge_all(
    days: list[Day],
    named: list[NDArray[np.int64]],
    basins: Basins,
    previous: Tracks | None,
    rules: TrackRules,
    crs: Any,
) -> pd.DataFrame:
    area_m2 = true_areas(basins.geometry, crs)
    tables = [judge_day(basins.geometry, area_m2, day, ids, rules) for day, ids in zip(days, named, strict=True)]
    if not rules.trust_lids:
        earlier = [] if previous is None else [rows.copy() for _, rows in previous.states.groupby(LAKE_TIME)]
        doubt_dry([*earlier, *tables])
    return pd.concat([previous.states, *tables] if previous is not None else tables, ignore_index=True)


def _tell(states: pd.DataFrame, rules: TrackRules) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find events and fates, season by season."""
    events, fates = ([pd.DataFrame(columns=list(types)).astype(types)] for types in (EVENT_TYPES, FATE_TYPES))
    for ledger in open_ledgers(states):
        found, course = find_events(ledger, rules)
        events.append(found)
        fates.append(tell_fates(ledger, found, course, rules))
    return pd.concat(events, ignore_index=True), pd.concat(fates, ignore_index=True)


def _summarize(
    lakes: gpd.GeoDataFrame, states: pd.DataFrame, fates: pd.DataFrame, rules: TrackRules
) -> gpd.GeoDataFrame:
    """Add outlines and areas to the fates of tracks that had lakes of their own in a season."""
    keys = [TRACK_ID, SEASON]
    daily = states.loc[states["lakes"] > 0, [*keys, LAKE_TIME, AREA_M2]]
    largest = daily.sort_values([*keys, AREA_M2, LAKE_TIME]).drop_duplicates(keys, keep="last", ignore_index=True)
    season = lakes[LAKE_TIME].map({time: rules.season(time) for time in lakes[LAKE_TIME].unique()}).to_numpy()
    group = pd.DataFrame({TRACK_ID: lakes[TRACK_ID].to_numpy(), SEASON: season}).groupby(keys).ngroup()
    _, extent = unite(lakes.geometry.to_numpy(), np.asarray(group, np.intp))
    largest = largest.rename(columns={AREA_M2: "max_area_m2", LAKE_TIME: "max_time"})
    largest = largest.assign(extent_m2=true_areas(extent, lakes.crs))
    shapes = gpd.GeoDataFrame(largest, geometry=shapely.normalize(extent), crs=lakes.crs)
    return shapes.merge(fates, on=keys, how="left")[_SUMMARY_COLUMNS].sort_values([SEASON, TRACK_ID], ignore_index=True)
