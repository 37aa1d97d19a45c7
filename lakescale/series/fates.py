"""Fates: what became of each track's water in a season, with the reason in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lakescale.series.events import NEVER, Course, Ledger, last_date
from lakescale.series.rules import (
    BURIED,
    DRAINED,
    DRAINED_RAPIDLY,
    DRAINED_SLOWLY,
    DRAINED_SOMEHOW,
    EMPTY,
    FATE,
    FROZEN_OVER,
    LIDDED,
    MERGED,
    NOT_OUTLINED,
    NOT_SEEN,
    NOT_TOLD,
    PARTLY_SEEN,
    RAPID,
    REFILLED,
    SEASON,
    SLOW,
    SNOW,
    TRACK_ID,
    UNKNOWN,
    WATER,
    TrackRules,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


FATE_TYPES = {
    TRACK_ID: "int64", SEASON: "int64", "first_water": "datetime64[ms]", "last_water": "datetime64[ms]", FATE: "str",
    "drained_after": "datetime64[ms]", "drained_before": "datetime64[ms]", "lost_share": "float64", "reason": "str",
}  # fmt: skip
"""Columns of fates."""
_TELL_NOTHING = {
    NOT_TOLD: "no water was seen, but a lid may hide it",
    NOT_OUTLINED: "its ground looked like water, but no lake was outlined",
}


def tell_fates(ledger: Ledger, events: pd.DataFrame, course: Course, rules: TrackRules) -> pd.DataFrame:
    """Give each track of a season its fate.

    Returns
    -------
    pandas.DataFrame
        ``track_id``, ``season``, ``first_water`` and ``last_water``, ``fate``, ``reason``, and of the last drainage
        ``drained_after``, ``drained_before``, ``lost_share``.
    """
    last_known, state = _last_known(ledger)
    water = ledger.own | (ledger.covered_by > 0)
    held = last_date(water)
    rows = np.arange(len(held))
    merged = (ledger.covered_by[rows, held] > 0) & ~ledger.own[rows, held]
    drained = (course.speed != "") & ((course.emptied != NEVER) | (state == EMPTY))
    cases = (
        (MERGED, merged),
        (DRAINED_RAPIDLY, drained & (course.speed == RAPID)),
        (DRAINED_SLOWLY, drained & (course.speed == SLOW)),
        (DRAINED_SOMEHOW, drained),
        (BURIED, state == SNOW),
        (FROZEN_OVER, state == LIDDED),
        (REFILLED, course.refilled & np.isin(state, (WATER, PARTLY_SEEN))),
    )
    fate = np.select([where for _, where in cases], [name for name, _ in cases], UNKNOWN).astype(object)
    last = events[events["event"] == DRAINED].groupby(TRACK_ID)[["after", "before", "lost_share"]].last()
    last = last.reindex(ledger.track_id)
    table = pd.DataFrame(
        {
            TRACK_ID: ledger.track_id,
            SEASON: ledger.season,
            "first_water": ledger.time[water.argmax(axis=1)],
            "last_water": ledger.time[held],
            FATE: fate,
            "drained_after": last["after"].to_numpy(),
            "drained_before": last["before"].to_numpy(),
            "lost_share": last["lost_share"].to_numpy(),
        }
    )
    later = np.full(len(rows), "", object)
    for name, words in _TELL_NOTHING.items():
        later[last_date(ledger.state == name) > last_known] += f"; later {words}"
    told = zip(ledger.covered_by[rows, held], _days(ledger.time[last_known]), state, later, strict=True)
    bracket = zip(_days(table["drained_after"]), _days(table["drained_before"]), table["lost_share"], strict=True)
    table["reason"] = [
        _say(name, _Known(*known), *lost, rules.rapid_days)
        for name, known, lost in zip(fate, told, bracket, strict=True)
    ]
    return table.astype(FATE_TYPES)


def _last_known(ledger: Ledger) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Find the last date that tells anything of a basin, and its state there."""
    held = ledger.own | (ledger.covered_by > 0)
    tells = np.isin(ledger.state, (WATER, LIDDED, SNOW, EMPTY)) | ((ledger.state == PARTLY_SEEN) & held)
    last = last_date(tells)
    return last, np.where(last == NEVER, NOT_SEEN, ledger.state[np.arange(len(last)), last])


def _days(time: Any) -> NDArray[Any]:
    return np.datetime_as_string(np.asarray(time, "datetime64[ms]"), unit="D").astype(object)


class _Known(NamedTuple):
    """What a reason can name."""

    cover: int
    seen: str
    state: str
    later: str
    """Why it is not known what came after that, or nothing."""


def _say(fate: str, known: _Known, after: str, before: str, lost: float, days: float) -> str:
    """Give the reason for a fate."""
    gone = f"lost {lost:.0%} at least between {after} and {before}"
    return {
        MERGED: f"its water was part of track {known.cover} when last seen",
        DRAINED_RAPIDLY: f"{gone}, within {days:g} days",
        DRAINED_SLOWLY: f"{gone}, seen on its way for {days:g} days or more",
        DRAINED_SOMEHOW: f"{gone}; whether within {days:g} days was not seen",
        BURIED: f"snow over it when last seen, {known.seen}",
        FROZEN_OVER: f"under a lid when last seen, {known.seen}",
        REFILLED: f"{gone}, and held water again on {known.seen}",
        UNKNOWN: f"{known.state} when last seen, {known.seen}{known.later}",
    }[fate]
