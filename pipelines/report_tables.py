"""Tables of a report, in words and numbers as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lakescale.schema import AREA_M2, REASON
from lakescale.series.rules import FATE, FATES, SEASON, TRACK_ID
from pipelines.report_charts import tell_number
from pipelines.report_read import DATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipelines.report_read import DateTold, Told

UNKNOWN = "not known"
_MOST_EVENTS = 400
_VOLUMES = {"volume": "volume by the bed, 10⁶ m³", "rt_volume": "volume by light, 10⁶ m³"}
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
                _with_error(areas.get(k, 0.0), total.get("area_sd_m2"), 1e6) if seen[k] != 0 else UNKNOWN,
                *(_volume(total, name) for name in volumes),
                tell_percent(seen[k]),
                tell_percent(total.get("lake_share_of_seen")),
                f"{dropped.get(k, 0):,}",
            )
        )
    told_volumes = [_VOLUMES[name] for name in volumes]
    head = ("date", "lakes", "area, km²", *told_volumes, "seen", "lakes' share of it", "candidates dropped")
    note = "± is the standard deviation from the outlines' position." if "area_sd_m2" in totals else ""
    return Table("by-date", "What was found on each date", head, rows, note=note)


def table_reasons(told: Told) -> Table:
    """Count what became of candidates, by date."""
    days = [date.day for date in told.dates]
    counts = pd.crosstab(told.dropped[REASON], told.dropped[DATE]).reindex(columns=range(len(days)), fill_value=0)
    by_size = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    rows = [
        (str(reason), *(f"{n:,}" for n in row), *([f"{sum(row):,}"] if len(days) > 1 else []))
        for reason, row in zip(by_size.index, by_size.to_numpy().tolist(), strict=True)
    ]
    last = ("all",) if len(days) > 1 else ()
    return Table("reasons", "Why candidates are no lakes", ("reason", *days, *last), rows)


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


def table_stages(told: Told) -> Table:
    """Tell what each stage took: of a run all that its manifest says, of a season also of each date the seconds."""
    facts = _stages(told.manifest)
    names = list(dict.fromkeys(key for one in facts.values() for key, value in one.items() if _is_scalar(value)))
    rows = [(stage, *(_fact(one.get(name)) for name in names)) for stage, one in facts.items()]
    return Table("stages", "What each stage took", ("stage", *(_label(name) for name in names)), rows)


def table_stages_by_date(told: Told) -> Table:
    """Tell of each date of a season the seconds of its stages, and the most memory that a worker held."""
    facts = [_stages(date.manifest) for date in told.dates]
    names = list(dict.fromkeys(stage for one in facts for stage in one))
    rows = []
    for date, one in zip(told.dates, facts, strict=True):
        seconds = [one.get(name, {}).get("seconds") for name in names]
        peak = max((stage.get("peak_memory_mb") or 0 for stage in one.values()), default=0)
        known = [value for value in seconds if value is not None]
        rows.append((date.day, *map(_fact, seconds), _fact(sum(known) if known else None), _fact(peak or None)))
    head = ("date", *names, "all", "peak memory of a worker, MB")
    has_peak = any(row[-1] for row in rows)
    rows, head = (rows, head) if has_peak else ([row[:-1] for row in rows], head[:-1])
    return Table("stages-by-date", "Seconds of each date's stages", head, rows)


def table_prediction(told: Told) -> Table:
    """Put beside each other what was predicted and what was measured."""
    season = told.manifest.get("season", {})
    predicted, measured = season.get("predicted", {}), season.get("measured", {})
    rows = []
    for name in dict.fromkeys([*predicted, *measured]):
        before, after = predicted.get(name), measured.get(name)
        ratio = tell_number(after / before) if before and after is not None else ""
        rows.append((_label(name), _fact(before), _fact(after), ratio))
    note = "Of the dates that the last run had to map; a run that finds all finished predicts next to nothing."
    return Table("prediction", "Predicted and measured", ("", "predicted", "measured", "ratio"), rows, note=note)


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
    rows = [tuple(_fact(one.get(name)) for name in _INPUT) for one in listed]
    return Table("inputs", "Inputs", ("input", *_INPUT[1:]), rows, 4)


def table_models(dates: Iterable[DateTold]) -> Table:
    """List the models with the hashes of their weights."""
    found: dict[tuple[str, ...], None] = {}
    for date in dates:
        for name, one in (date.manifest.get("models") or {}).items():
            row = (str(name), str(one.get("source", "")), str(one.get("hash", "")), _fact(one.get("threshold")))
            found.setdefault(row)
    return Table("models", "Models", ("name", "weights", "hash of the weights", "threshold"), list(found), 3)


def table_versions(told: Told) -> Table:
    """List the versions of what computed."""
    rows = [(str(name), str(version)) for name, version in told.manifest["versions"].items()]
    return Table("versions", "Versions", ("package", "version"), rows, 2)


def _stages(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Take the stages of a manifest, or its seconds by stage."""
    stages = manifest.get("stages")
    if isinstance(stages, dict):
        return {str(name): dict(one) for name, one in stages.items() if isinstance(one, dict)}
    seconds = manifest.get("seconds")
    return {str(name): {"seconds": value} for name, value in seconds.items()} if isinstance(seconds, dict) else {}


def _volume(total: pd.Series[Any], name: str) -> str:
    """Tell a volume with how many lakes' it is."""
    volume, known, lakes = (total.get(column) for column in (f"{name}_m3", f"{name}_lakes", "lakes"))
    if volume is None or pd.isna(volume):
        return UNKNOWN
    return f"{tell_number(float(volume) / 1e6)} ({int(known or 0):,} of {int(lakes or 0):,} lakes)"


def _with_error(value: float, error: Any, unit: float) -> str:
    told = tell_number(value / unit)
    return told if error is None or pd.isna(error) else f"{told} ± {tell_number(float(error) / unit)}"


def tell_percent(share: Any, unknown: str = UNKNOWN) -> str:
    """Tell a share in percent.

    >>> tell_percent(0.1234), tell_percent(None)
    ('12.3 %', 'not known')
    """
    return unknown if share is None or pd.isna(share) else f"{100 * float(share):.1f} %"


def _day(time: Any) -> str:
    return "" if pd.isna(time) else pd.Timestamp(time).strftime("%Y-%m-%d")


def _label(name: str) -> str:
    return name.replace("_mb", ", MB").replace("_", " ")


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _fact(value: Any) -> str:
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else tell_number(value)
