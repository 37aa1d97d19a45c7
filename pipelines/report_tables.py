"""Tables of a report, in words and numbers as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from lakescale.schema import AREA_M2, REASON
from lakescale.series.rules import FATE, FATES, SEASON, TRACK_ID
from pipelines.report_read import DATE
from pipelines.report_words import UNKNOWN, tell_fact, tell_number, tell_percent, tell_with_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipelines.report_read import DateTold, Told

_MOST_EVENTS = 400
_VOLUMES = {"volume": "volume by the bed, 10⁶ m³", "rt_volume": "volume by light, 10⁶ m³"}
_VOLUME_NOTES = {
    "volume": "Volume by the bed is that between the lakes' level and the DEM.",
    "rt_volume": "Volume by light is that of what was seen, by radiative transfer (how much the water dims the light).",
}
_INPUT = ("role", "source", "changed", "fingerprint", "files", "bytes")


@dataclass(frozen=True)
class Table:
    """A table."""

    name: str
    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: int = 1
    """How many columns from the left hold words; the others hold numbers."""
    note: str = ""


def table_dates(told: Told, seen: Sequence[float | None]) -> Table:
    """Tell of each date what was found, and what was seen."""
    totals = told.totals.set_index(DATE) if told.totals is not None else pd.DataFrame()
    lakes, dropped = told.lakes.groupby(DATE), told.dropped.groupby(DATE).size()
    counts, areas = lakes.size(), lakes[AREA_M2].sum()
    volumes = [name for name in _VOLUMES if f"{name}_m3" in totals and totals[f"{name}_m3"].notna().any()]
    rows = []
    for k, date in enumerate(told.dates):
        total = pd.Series(totals.loc[k]) if k in totals.index else pd.Series(dtype=object)
        rows.append(
            (
                date.day,
                f"{counts.get(k, 0):,}",
                _area(areas.get(k, 0.0), total.get("area_sd_m2")) if seen[k] != 0 else UNKNOWN,
                *(_volume(total, name) for name in volumes),
                tell_percent(seen[k]),
                tell_percent(total.get("lake_share_of_seen")),
                f"{dropped.get(k, 0):,}",
            )
        )
    told_volumes = [_VOLUMES[name] for name in volumes]
    head = ("date", "lakes", "area, km²", *told_volumes, "seen", "lakes' share", "candidates dropped")
    notes = ["Lakes' share is that of what was seen."]
    notes += ["± is the standard deviation from the outlines' position."] if "area_sd_m2" in totals else []
    notes += [_VOLUME_NOTES[name] for name in volumes]
    return Table("by-date", "What was found on each date", head, rows, note=" ".join(notes))


def table_reasons(told: Told) -> Table:
    """Count what became of candidates, by date; the most frequent reason comes first."""
    days = [date.day for date in told.dates]
    counts = pd.crosstab(told.dropped[DATE], told.dropped[REASON]).reindex(index=range(len(days)), fill_value=0)
    by_size = counts[counts.sum().sort_values(ascending=False, kind="stable").index]
    title, all_of_them = "Why candidates are no lakes", [f"{n:,}" for n in by_size.sum()]
    if not all_of_them:
        return Table("reasons", title, (), [])
    if len(days) == 1:
        return Table("reasons", title, ("reason", "candidates"), list(zip(map(str, by_size), all_of_them, strict=True)))
    rows = [(day, *(f"{n:,}" for n in row)) for day, row in zip(days, by_size.to_numpy().tolist(), strict=True)]
    return Table("reasons", title, ("date", *map(str, by_size)), [*rows, ("all dates", *all_of_them)])


def table_fates(told: Told) -> Table:
    """Count the fates of tracks by season."""
    assert told.tracks is not None
    seasons = sorted(told.tracks[SEASON].unique())
    rows = []
    for fate in FATES:
        of_fate = told.tracks[told.tracks[FATE] == fate]
        if len(of_fate):
            area = of_fate["max_area_m2"].sum() / 1e6
            rows.append((fate, *(f"{(of_fate[SEASON] == one).sum():,}" for one in seasons), tell_number(area)))
    head = ("fate", *(f"tracks, {one}" for one in seasons), "sum of their largest areas, km²")
    return Table("fates", "What became of the lakes", head, rows)


def table_events(told: Told) -> Table:
    """List what happened, between which dates."""
    assert told.events is not None
    events = told.events.sort_values(["before", TRACK_ID], kind="stable")
    rows = []
    for one in events.head(_MOST_EVENTS).to_dict("records"):
        what = str(one["event"]), str(one["speed"] or ""), _day(one["after"]), _day(one["before"])
        rows.append((*what, str(one[TRACK_ID]), tell_percent(one["lost_share"], "")))
    note = f"The first {_MOST_EVENTS} of {len(events):,}; events.parquet has all." if len(events) > _MOST_EVENTS else ""
    head = ("event", "speed", "after", "before, or on", "track", "lost at least")
    return Table("events", "What happened, and between which dates", head, rows, 4, note)


def table_left_out(told: Told) -> Table:
    """List the scenes that were left out."""
    passing = {True: "may pass", False: "does not pass"}
    names = ("date", "scene", "reason")
    rows = [(*(str(one.get(name, "")) for name in names), passing[bool(one.get("may_pass"))]) for one in told.left_out]
    return Table("left-out", "Scenes that were left out", ("date", "scene", "reason", "the fault"), rows, 4)


def table_scenes(told: Told) -> Table:
    """Tell what each date was made of."""
    rows = []
    for date in told.dates:
        scene = {str(k): str(v) for k, v in date.manifest.get("scene", {}).items()}
        of_season = date.manifest.get("of_season", {})
        names = [str(name) for name in of_season.get("scenes", [])] or [scene.get("source", UNKNOWN)]
        about = ", ".join(scene[key] for key in ("sensor", "product_level", "baseline") if scene.get(key))
        print_of = str(of_season.get("fingerprint") or date.manifest.get("fingerprint") or UNKNOWN)
        rows.append((date.day, "; ".join(names), about or UNKNOWN, print_of))
    return Table("scenes", "Scenes and fingerprints", ("date", "scenes", "sensor", "fingerprint"), rows, 4)


def table_inputs(told: Told) -> Table:
    """List what was read, with what tells whether it is still the same."""
    inputs = told.manifest.get("inputs")
    listed = [one for one in inputs if isinstance(one, dict)] if isinstance(inputs, list) else []
    rows = [tuple(tell_fact(name, one.get(name)) for name in _INPUT) for one in listed]
    return Table("inputs", "Inputs", ("input", *_INPUT[1:]), rows, 4)


def table_models(dates: Iterable[DateTold]) -> Table:
    """List the models with the hashes of their weights."""
    found: dict[tuple[str, ...], None] = {}
    for date in dates:
        for name, one in (date.manifest.get("models") or {}).items():
            row = (
                str(name),
                str(one.get("source", "")),
                str(one.get("hash", "")),
                tell_fact("threshold", one.get("threshold")),
            )
            found.setdefault(row)
    return Table("models", "Models", ("name", "weights", "hash of the weights", "threshold"), list(found), 3)


def table_versions(told: Told) -> Table:
    """List the versions of what computed."""
    rows = [(str(name), str(version)) for name, version in told.manifest["versions"].items()]
    return Table("versions", "Versions", ("package", "version"), rows, 2)


def _volume(total: pd.Series[Any], name: str) -> str:
    """Tell a volume with how many lakes' it is."""
    volume, known, lakes = (total.get(column) for column in (f"{name}_m3", f"{name}_lakes", "lakes"))
    if volume is None or pd.isna(volume):
        return UNKNOWN
    return f"{tell_number(float(volume) / 1e6)} ({int(known or 0):,} of {int(lakes or 0):,} lakes)"


def _area(value: float, error: Any) -> str:
    return tell_with_error(value / 1e6, None if error is None or pd.isna(error) else float(error) / 1e6)


def _day(time: Any) -> str:
    return "" if pd.isna(time) else pd.Timestamp(time).strftime("%Y-%m-%d")
