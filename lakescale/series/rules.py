"""What counts as the same lake, as seen, as drained: rules with their sources; names of states, events and fates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from lakescale.schema import InputError

TRACK_ID, SEASON, STATE, FATE = "track_id", "season", "state", "fate"
LID_SHARE = "lid_share"
"""Columns; ``lid_share``: share (0..1) of a lake's outline under ice."""

WATER, LIDDED, SNOW, EMPTY = "water", "lidded", "snow", "empty"
PARTLY_SEEN, NOT_SEEN, NOT_TOLD, NOT_OUTLINED = "partly seen", "not seen", "dry or lidded", "not outlined"
"""Values of ``state``; ``dry or lidded``: no water was seen, and a lid may hide it: late in the season where lids were
not assessed, or after ice came over its open water; ``not outlined``: its ground looks like water, but no lake was
outlined there, as under thin cloud."""

FILLED, DRAINED, REFILLED, FROZEN_OVER, SNOWED_OVER = "filled", "drained", "refilled", "frozen over", "snowed over"
"""Values of ``event``."""
RAPID, SLOW, SPEED_UNKNOWN = "rapid", "slow", "unknown"
"""Values of ``speed`` of a drainage."""
SPLIT, MERGE = "split", "merge"
"""Values of ``link``."""

DRAINED_RAPIDLY, DRAINED_SLOWLY, DRAINED_SOMEHOW = "drained rapidly", "drained slowly", "drained, speed unknown"
BURIED, MERGED, UNKNOWN = "buried", "merged", "unknown"
FATES = (DRAINED_RAPIDLY, DRAINED_SLOWLY, DRAINED_SOMEHOW, FROZEN_OVER, BURIED, REFILLED, MERGED, UNKNOWN)
"""Values of ``fate``."""

_SHARES = ("min_overlap", "min_seen", "min_rim_seen", "least_seen", "lid_share", "full_share", "lost_share",
           "refill_share")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrackRules:
    """Rules of tracking. Shares are of areas: FASTER and its forerunners had volumes, which need depths.

    Sources: Selmes, Murray and James (2013) for the fates; Miles et al. (2017) and Williamson et al. (2018) for rapid
    drainage. Where no source is named, the figure is our choice.
    """

    min_overlap: float = 0.2
    """A lake and a basin belong together from this share of the smaller of the two on; what covers less of a basin
    leaves it as empty as a lake that has drained."""
    min_area_m2: float = 5000.0
    """Least true area that was mapped, m2 (the default of `lakescale.PolygonRules`): a basin without a lake may hold as
    much, so that of small lakes it is not known whether they drained. 0: lakes of any size were mapped."""
    rim_m: float = 30.0
    """Width of the surroundings of a lake that must be seen, metres; three pixels of Sentinel-2."""
    min_rim_seen: float = 0.98
    """A lake with less of its surroundings seen is partly seen: its outline ends where sight ends."""
    min_seen: float = 0.9
    """A basin of which less was seen is neither water nor empty, but partly seen."""
    least_seen: float = 0.1
    """A basin without water of which less was seen is not seen."""
    lid_share: float = 0.5
    """A lake is lidded where ice covers this share of it, and a basin where ice (or snow) covers this share of it; a
    basin without a lake is not outlined where this share of it looks like water."""
    full_share: float = 0.8
    """A lake is full from this share of the season's largest on."""
    lost_share: float = 0.8
    """A full lake that lost at least this share has drained (FASTER: of the largest volume)."""
    rapid_days: float = 4.0
    """A loss within this many days is rapid (Miles et al. 2017, Williamson et al. 2018)."""
    refill_share: float = 0.2
    """A lake that wins back at least this share of the loss has refilled. Where the next sight shows it, the drainage
    is not called rapid (Williamson et al. 2018: the emptiness may have been an error)."""
    frost_from: tuple[int, int] | None = (8, 15)
    """Month and day from which a basin without water may hold a lid: unless lids were assessed on that date, it is not
    taken for empty. None: never."""
    trust_lids: bool = True
    """Whether evidence of lids, where there is any, is complete. False: from ``frost_from`` on, and once ice or snow
    came over open water, ground that holds neither water nor a lid is not taken for empty."""
    season_from: tuple[int, int] = (1, 1)
    """Month and day on which a season begins; a season is named by the year in which it ends."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in _SHARES:
            if not 0 < _number(self, name) <= 1:
                raise InputError(f"{name} must lie above 0 and not above 1, got {getattr(self, name)!r}", "rules")
        if not 0 <= _number(self, "min_area_m2") < np.inf:
            raise InputError(f"min_area_m2 must be a number not below 0, got {self.min_area_m2!r}", "rules")
        for name in ("rim_m", "rapid_days"):
            if not 0 < _number(self, name) < np.inf:
                raise InputError(f"{name} must be a number above 0, got {getattr(self, name)!r}", "rules")
        for name in ("frost_from", "season_from"):
            day = getattr(self, name)
            if not (_is_day(day) or (day is None and name == "frost_from")):
                raise InputError(f"{name} must be a month and a day, such as (8, 15), got {day!r}", "rules")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TrackRules:
        """Give the rules ``greenland`` (the defaults) or ``antarctica`` (seasons from July, frost from mid-February).

        Raises
        ------
        InputError
            When there is no such preset.
        """
        if name not in PRESETS:
            raise InputError(f"no preset {name!r} of track rules", "preset", f"choose one of {', '.join(PRESETS)}")
        return replace(PRESETS[name], **changes)

    def season(self, time: pd.Timestamp) -> int:
        """Name the season of a time: the year in which it ends."""
        return time.year + int(self.season_from != (1, 1) and (time.month, time.day) >= self.season_from)

    def is_frosty(self, time: pd.Timestamp) -> bool:
        """Tell whether what looks dry may be a lid."""
        if self.frost_from is None:
            return False
        start, frost, day = (_day_of_year(at) for at in (self.season_from, self.frost_from, time))
        return (day - start) % 366 >= (frost - start) % 366


def _number(rules: TrackRules, name: str) -> float:
    value = getattr(rules, name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else np.nan


def _is_day(day: Any) -> bool:
    try:
        _day_of_year(day)
    except (TypeError, ValueError):
        return False
    return True


def _day_of_year(day: Any) -> int:
    """Count the days up to a date, from the first of January of a leap year."""
    month, number = (day.month, day.day) if isinstance(day, pd.Timestamp) else day
    return pd.Timestamp(2000, month, number).day_of_year


PRESETS = {
    "greenland": TrackRules(),
    "antarctica": TrackRules(season_from=(7, 1), frost_from=(2, 15)),
}
"""Named rules."""
