"""Events between dates: what was certainly full and later certainly empty, with the bracket in which it happened.

Each date tells how much of a basin holds water at least and at most. What was not seen, lids and snow widen the gap
between the two, so that they can hide a drainage but never make one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lakescale.schema import LAKE_TIME
from lakescale.series.rules import (
    DRAINED,
    FILLED,
    FROZEN_OVER,
    LIDDED,
    PARTLY_SEEN,
    RAPID,
    REFILLED,
    SEASON,
    SLOW,
    SNOW,
    SNOWED_OVER,
    SPEED_UNKNOWN,
    STATE,
    TRACK_ID,
    WATER,
    TrackRules,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

NEVER = -1
_DAY_MS = 86_400_000
_SAME = 1e-6
"""Shares have six decimals: one that differs by less from a limit has reached it."""
EVENT_TYPES = {
    TRACK_ID: "int64", SEASON: "int64", "event": "str", "after": "datetime64[ms]", "before": "datetime64[ms]",
    "lost_share": "float64", "speed": "str",
}  # fmt: skip
"""Columns of events."""


class Ledger(NamedTuple):
    """One season; arrays are ``(track, date)``, dates in the order of time."""

    season: int
    track_id: NDArray[np.int64]
    time: NDArray[np.datetime64]
    first: NDArray[np.datetime64]
    last: NDArray[np.datetime64]
    least: NDArray[np.float64]
    """Share of the basin that holds water."""
    most: NDArray[np.float64]
    """Share that may hold water."""
    whole: NDArray[np.bool_]
    state: NDArray[Any]
    """An empty string where there is no row."""
    own: NDArray[np.bool_]
    """Whether there is a lake of the track's own."""
    covered_by: NDArray[np.int64]
    """The track whose lake covers it, or 0."""


@dataclass
class Course:
    """What became of each track's water, up to a date; dates are places in the ledger, or `NEVER`."""

    full: NDArray[np.intp]
    """Last date on which it was full."""
    level: NDArray[np.float64]
    """What it held then at least."""
    sure: NDArray[np.bool_]
    """Whether it was once full with a lake of its own that was seen whole."""
    below: NDArray[np.intp]
    """First date after ``full`` on which it was certainly less than full."""
    left: NDArray[np.intp]
    """Last date after ``full`` on which it was certainly not yet empty."""
    emptied: NDArray[np.intp]
    """Date on which it was first seen empty after it was last full."""
    rest: NDArray[np.float64]
    """What it held then at most."""
    confirmed: NDArray[np.bool_]
    """Whether a later date saw it still empty."""
    speed: NDArray[Any]
    refilled: NDArray[np.bool_]
    events: list[pd.DataFrame] = field(default_factory=list)


def open_ledgers(states: pd.DataFrame) -> Iterator[Ledger]:
    """Lay out the states of each season as arrays, for the tracks that held water in it."""
    for season, rows in states.groupby(SEASON):
        held = rows.loc[(rows["lakes"] > 0) | rows["in_track"].notna(), TRACK_ID]
        if len(held):
            yield _open_ledger(int(str(season)), rows[rows[TRACK_ID].isin(held)])


def _open_ledger(season: int, rows: pd.DataFrame) -> Ledger:
    track_id, track = np.unique(rows[TRACK_ID].to_numpy(np.int64), return_inverse=True)
    time, one, date = np.unique(rows[LAKE_TIME].to_numpy(), return_index=True, return_inverse=True)

    def lay(values: Any, empty: Any) -> NDArray[Any]:
        values = np.asarray(values)
        out = np.full((len(track_id), len(time)), empty, values.dtype)
        out[track, date] = values
        return out

    return Ledger(
        season=season,
        track_id=track_id,
        time=time,
        first=rows["first_day"].to_numpy()[one],
        last=rows["last_day"].to_numpy()[one],
        least=lay(rows["least_water"], 0.0),
        most=lay(rows["most_water"], 1.0),
        whole=lay(rows["whole"], empty=False),
        state=lay(rows[STATE].to_numpy(object), ""),
        own=lay(rows["lakes"] > 0, empty=False),
        covered_by=lay(rows["in_track"].fillna(0).to_numpy(np.int64), 0),
    )


def find_events(ledger: Ledger, rules: TrackRules) -> tuple[pd.DataFrame, Course]:
    """Walk through a season, all tracks at once.

    Returns
    -------
    events, course
        The columns of `lakescale.series.Tracks.events`, in the order of track and time; what became of the water.
    """
    course = _walk(ledger, rules)
    events = [_find_filling(ledger, rules), *course.events, *_find_covers(ledger)]
    table = pd.concat(events, ignore_index=True)
    return table.sort_values([TRACK_ID, "before", "event"], ignore_index=True), course


def _walk(ledger: Ledger, rules: TrackRules) -> Course:
    count = len(ledger.track_id)
    never, zero, no = (np.full(count, value) for value in (NEVER, 0.0, False))
    course = Course(
        full=never.copy(),
        level=zero.copy(),
        sure=no.copy(),
        below=never.copy(),
        left=never.copy(),
        emptied=never,
        rest=zero,
        confirmed=no.copy(),
        speed=np.full(count, "", object),
        refilled=no,
    )
    largest = ledger.least.max(axis=1, initial=0)
    for date in range(len(ledger.time)):
        _refill(course, ledger, date, rules)
        _drain(course, ledger, date, rules)
        _note_level(course, ledger, date, largest, rules)
    _close(course, ledger, np.flatnonzero(course.emptied != NEVER))
    return course


def _refill(course: Course, ledger: Ledger, date: int, rules: TrackRules) -> None:
    """See which empty basins hold water again, and which are certainly still as good as empty."""
    enough = course.rest + rules.refill_share * (course.level - course.rest)
    is_empty = course.emptied != NEVER
    back = np.flatnonzero(is_empty & (ledger.least[:, date] >= enough - _SAME))
    course.confirmed |= is_empty & (ledger.most[:, date] < enough - _SAME)
    course.speed[back[~course.confirmed[back] & (course.speed[back] == RAPID)]] = SPEED_UNKNOWN
    _close(course, ledger, back)
    course.events.append(_table(ledger, back, REFILLED, course.emptied[back], np.full(len(back), date)))
    course.refilled[back] = True
    for dates in (course.emptied, course.full, course.below, course.left):
        dates[back] = NEVER


def _drain(course: Course, ledger: Ledger, date: int, rules: TrackRules) -> None:
    """See which full lakes are certainly gone, and how fast they went."""
    most = ledger.most[:, date]
    may = (course.full != NEVER) & course.sure & (course.emptied == NEVER)
    gone = np.flatnonzero(may & (most <= (1 - rules.lost_share) * course.level + _SAME))
    below, left = course.below[gone], course.left[gone]
    longest = ledger.last[date] - ledger.first[course.full[gone]]
    lasted = ledger.first[left] - ledger.last[below]  # from less than full to not yet empty
    limit = np.timedelta64(round(rules.rapid_days * _DAY_MS), "ms")
    is_slow = (below != NEVER) & (left != NEVER) & (lasted >= limit)
    course.speed[gone] = np.select([longest <= limit, is_slow], [RAPID, SLOW], SPEED_UNKNOWN).astype(object)
    course.emptied[gone], course.rest[gone], course.confirmed[gone] = date, most[gone], False


def _close(course: Course, ledger: Ledger, rows: NDArray[np.intp]) -> None:
    """Write down drainages that nothing can change any more."""
    lost = 1 - course.rest[rows] / course.level[rows]
    dates = course.full[rows], course.emptied[rows]
    course.events.append(_table(ledger, rows, DRAINED, *dates, lost=lost, speed=course.speed[rows]))


def _note_level(course: Course, ledger: Ledger, date: int, largest: NDArray[np.float64], rules: TrackRules) -> None:
    """Note which lakes are full, which are less, which still hold water."""
    least, most = ledger.least[:, date], ledger.most[:, date]
    held = course.emptied == NEVER
    full = held & (least > 0) & (least >= rules.full_share * largest - _SAME)
    course.full[full], course.level[full] = date, least[full]
    course.sure |= full & ledger.whole[:, date] & ledger.own[:, date]
    course.below[full] = course.left[full] = NEVER
    was_full = held & ~full & (course.full != NEVER)
    course.below[was_full & (course.below == NEVER) & (most < rules.full_share * largest - _SAME)] = date
    course.left[was_full & (least > (1 - rules.lost_share) * largest + _SAME)] = date


def _find_filling(ledger: Ledger, rules: TrackRules) -> pd.DataFrame:
    """Bracket the first filling: from the last date seen empty before it, if any, to the first date seen full."""
    largest = ledger.least.max(axis=1, initial=0)[:, None]
    is_full = (ledger.least >= rules.full_share * largest - _SAME) & (ledger.least > 0)
    full = is_full.argmax(axis=1)
    dates = np.arange(len(ledger.time))
    is_empty = (ledger.most <= (1 - rules.lost_share) * largest + _SAME) & (dates < full[:, None])
    empty = np.where(is_empty, dates, NEVER).max(axis=1, initial=NEVER)
    rows = np.flatnonzero(is_full.any(axis=1))
    return _table(ledger, rows, FILLED, empty[rows], full[rows])


def _find_covers(ledger: Ledger) -> Iterator[pd.DataFrame]:
    """Bracket lids and snow that came over open water and stayed: from the last open water to the first cover."""
    last_open = last_date(np.isin(ledger.state, (WATER, PARTLY_SEEN)) & (ledger.least > 0))
    later = np.arange(len(ledger.time)) > last_open[:, None]
    for event, states in ((FROZEN_OVER, (LIDDED,)), (SNOWED_OVER, (SNOW,))):
        covered = np.isin(ledger.state, states) & later
        rows = np.flatnonzero(covered.any(axis=1) & (last_open != NEVER))
        yield _table(ledger, rows, event, last_open[rows], covered[rows].argmax(axis=1))


def last_date(where: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Give the last date of each row on which something holds, or `NEVER`."""
    return np.where(where, np.arange(where.shape[1]), NEVER).max(axis=1, initial=NEVER)


def _table(
    ledger: Ledger,
    rows: NDArray[np.intp],
    event: str,
    after: NDArray[np.intp],
    before: NDArray[np.intp],
    *,
    lost: Any = np.nan,
    speed: Any = "",
) -> pd.DataFrame:
    start = ledger.first[after].copy()
    start[after == NEVER] = np.datetime64("NaT")
    columns = (ledger.track_id[rows], ledger.season, event, start, ledger.last[before], lost, speed)
    return pd.DataFrame(dict(zip(EVENT_TYPES, columns, strict=True)), index=range(len(rows))).astype(EVENT_TYPES)
