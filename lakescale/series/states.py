"""What is known of each basin on each date: how much of it was seen, how much holds water for sure and at most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely

from lakescale.schema import LAKE_ID, LAKE_TIME, SEEN_SHARE
from lakescale.series.identity import belong_together
from lakescale.series.overlay import Pieces, covered_area, cut_pieces
from lakescale.series.rules import (
    EMPTY,
    LID_SHARE,
    LIDDED,
    NOT_OUTLINED,
    NOT_SEEN,
    NOT_TOLD,
    PARTLY_SEEN,
    SEASON,
    SNOW,
    STATE,
    TRACK_ID,
    WATER,
    TrackRules,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lakescale.series.reading import Day

_DECIMALS = 6
"""Of shares: sums of areas depend on their order in the last digits."""


def judge_day(
    basins: NDArray[Any], basin_m2: NDArray[np.float64], day: Day, track_id: NDArray[np.int64], rules: TrackRules
) -> pd.DataFrame:
    """Judge each track on one date: a row each, with the columns of `lakescale.series.Tracks.states`.

    Parameters
    ----------
    basins
        Ground of each track, in the order of their ids.
    basin_m2
        Its true area, m2.
    day
        The date.
    track_id
        Track of each of its lakes.
    rules
        What counts as seen, and as lidded.
    """
    water = cut_pieces(basins, day.geometry)
    close = belong_together(water, basins, day.geometry, rules)
    own = _own_lakes(len(basins), day, track_id)
    rows = pd.DataFrame({TRACK_ID: np.arange(1, len(basins) + 1), LAKE_TIME: day.time})
    rows = rows.assign(first_day=day.first, last_day=day.last, **{SEASON: rules.season(day.time)})
    rows = rows.assign(**_shares(basins, day, water, rules), **own)
    rows["in_track"] = _covering_track(water, close, track_id, rows)
    missed = np.where((rows["lakes"] == 0) & rows["in_track"].isna(), rules.min_area_m2 / basin_m2, 0)
    rows["most_water"] = np.minimum(rows["most_water"] + missed.round(_DECIMALS), 1).round(_DECIMALS)
    rows["whole"] = _is_whole(water, close, day, rows, rules)
    rows[STATE] = _state(rows, _is_untold(day, rules), rules)
    rows.loc[rows[STATE] == NOT_OUTLINED, "most_water"] = 1.0
    return rows.drop(columns=["snow_share", "wet_share"])


def doubt_dry(tables: Iterable[pd.DataFrame]) -> None:
    """Take no basin for empty over whose open water ice or snow came, until it holds open water again; in place.

    Whether a lake drained under its lid, or its lid lost the last gaps by which it could be told, is not seen.

    Parameters
    ----------
    tables
        Of `judge_day`, of all dates in the order of time; rows by track.
    """
    season, opened, covered = None, np.zeros(0, bool), np.zeros(0, bool)
    for table in tables:
        count, place = int(table[TRACK_ID].max() or 0) if len(table) else 0, table[TRACK_ID].to_numpy(np.int64) - 1
        if season != (season := table[SEASON].iloc[0] if len(table) else season):
            opened, covered = np.zeros(0, bool), np.zeros(0, bool)
        opened, covered = (np.pad(flag, (0, max(count - len(flag), 0))) for flag in (opened, covered))
        state = table[STATE].to_numpy(object)
        covered[place] |= opened[place] & np.isin(state, (LIDDED, SNOW))
        doubted = covered[place] & (state == EMPTY)
        table.loc[doubted, [STATE, "most_water"]] = NOT_TOLD, 1.0
        is_open = state == WATER
        opened[place[is_open]], covered[place[is_open]] = True, False
        opened[place[(state == EMPTY) & ~doubted]] = False


def _shares(basins: NDArray[Any], day: Day, water: Pieces, rules: TrackRules) -> dict[str, NDArray[np.float64]]:
    """Measure, of each basin, what was seen, what is under ice, and what holds water at least and at most."""
    hidden, lids, snow, looks_wet = (
        cut_pieces(basins, np.empty(0, object) if c is None else c) for c in (day.not_seen, day.lids, day.snow, day.wet)
    )
    area, count = shapely.area(basins), len(basins)
    ice = covered_area(count, lids, snow)
    wet = covered_area(count, water, lids, snow)
    mapped = np.bincount(water.own, water.area, count)
    under = np.bincount(water.own, water.area * day.lid_share[water.other], count)
    bare = 1 - np.divide(under, mapped, out=np.zeros(count), where=mapped > 0)
    least = (wet - ice) * bare
    most = covered_area(count, water, lids, snow, hidden)
    shares = {
        SEEN_SHARE: 1 - covered_area(count, hidden) / area,
        LID_SHARE: (wet - least) / area,
        "least_water": least / area,
        "most_water": np.ones(count) if _is_untold(day, rules) else most / area,
        "snow_share": covered_area(count, snow) / area,
        "wet_share": covered_area(count, looks_wet) / area,
    }
    return {name: np.clip(share.round(_DECIMALS), 0, 1) for name, share in shares.items()}


def _is_untold(day: Day, rules: TrackRules) -> bool:
    """Tell whether what looks dry may be a lid."""
    return (day.lids is None or not rules.trust_lids) and rules.is_frosty(day.time)


def _own_lakes(count: int, day: Day, track_id: NDArray[np.int64]) -> dict[str, Any]:
    """Give each track its lakes of the date: their area, their number, and the id of the largest."""
    place = track_id - 1
    lakes = np.bincount(place, minlength=count)
    area = np.where(lakes > 0, np.bincount(place, day.area_m2, count), np.nan)
    largest = pd.array(np.zeros(count, np.int64), dtype="Int64")
    order = np.argsort(day.area_m2, kind="stable")
    largest[place[order]] = day.lake_id[order]
    largest[lakes == 0] = pd.NA
    return {"area_m2": area, "lakes": lakes, LAKE_ID: largest}


def _covering_track(water: Pieces, close: NDArray[np.bool_], track_id: NDArray[np.int64], rows: pd.DataFrame) -> Any:
    """Name the track whose lake covers most of a basin that has none of its own."""
    order = np.lexsort((water.other, water.area))
    order = order[close[order]]
    cover = np.zeros(len(rows), np.int64)
    cover[water.own[order]] = track_id[water.other[order]]
    return pd.Series(cover).astype("Int64").where((cover > 0) & (rows["lakes"] == 0))


def _is_whole(
    water: Pieces, close: NDArray[np.bool_], day: Day, rows: pd.DataFrame, rules: TrackRules
) -> NDArray[np.bool_]:
    """Tell where a lake lies that was seen with all that is round it."""
    rim = np.ones(len(rows))
    np.minimum.at(rim, water.own[close], day.seen_share[water.other[close]])
    held = np.zeros(len(rows), bool)
    held[water.own[close]] = True
    held |= (rows["lakes"] > 0).to_numpy()
    return held & (rim >= rules.min_rim_seen) & (rows[SEEN_SHARE] >= rules.min_seen).to_numpy()


def _state(rows: pd.DataFrame, untold: bool, rules: TrackRules) -> NDArray[Any]:  # noqa: FBT001
    wet = ((rows["lakes"] > 0) | rows["in_track"].notna()).to_numpy()
    seen, ice, open_share = (rows[name].to_numpy() for name in (SEEN_SHARE, LID_SHARE, "least_water"))
    iced = ice >= rules.lid_share * np.where(wet, ice + open_share, 1)
    cases = [
        (LIDDED, wet & iced),
        (WATER, wet & rows["whole"].to_numpy()),
        (PARTLY_SEEN, wet),
        (SNOW, iced & (rows["snow_share"].to_numpy() >= rules.lid_share)),
        (LIDDED, iced),
        (NOT_SEEN, seen < rules.least_seen),
        (PARTLY_SEEN, seen < rules.min_seen),
        (NOT_OUTLINED, rows["wet_share"].to_numpy() >= rules.lid_share),
        (NOT_TOLD, np.full(len(rows), untold)),
    ]
    return np.select([where for _, where in cases], [name for name, _ in cases], EMPTY)
