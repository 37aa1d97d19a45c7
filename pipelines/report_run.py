"""Tables of a report on the run itself: what its stages took, what was predicted, what it ran on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.report_tables import Table
from pipelines.report_words import label, tell_fact, tell_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipelines.report_read import Told

_FIRST = (
    "state", "seconds", "tasks", "task_seconds", "transfer_seconds", "spill_seconds", "bytes_read", "bytes_written",
    "bytes_moved", "bytes_spilled", "peak_memory_mb", "driver_memory_mb", "warnings",
)  # fmt: skip
_SPEED = "million pixels a second"


def table_stages(told: Told) -> Table:
    """Tell what each stage took: all that the manifest says of it, and how fast it was."""
    facts = _stages(told.manifest)
    names = [name for name in _list_names(facts.values()) if name != "pixels"]
    speeds = [_find_speed(one) for one in facts.values()]
    rows = [
        (stage, *(tell_fact(name, one.get(name)) for name in names), *([speed] if any(speeds) else []))
        for (stage, one), speed in zip(facts.items(), speeds, strict=True)
    ]
    head = ("stage", *(label(name) for name in names), *([_SPEED] if any(speeds) else []))
    note = "Time of all tasks is summed over workers. Memory is the most that one process held during the stage."
    has_work = any(name in names for name in ("task_seconds", "peak_memory_mb"))
    return Table("stages", "What each stage took", head, rows, 2 if "state" in names else 1, note if has_work else "")


def table_stages_by_date(told: Told) -> Table:
    """Tell of each date of a season the seconds of its stages, and the most memory that a worker held."""
    facts = [_stages(date.manifest) for date in told.dates]
    names = list(dict.fromkeys(stage for one in facts for stage in one))
    rows = []
    for date, one in zip(told.dates, facts, strict=True):
        seconds = [one.get(name, {}).get("seconds") for name in names]
        peak = max((stage.get("peak_memory_mb") or 0 for stage in one.values()), default=0)
        known = [value for value in seconds if value is not None]
        told_seconds = [tell_fact("seconds", value) for value in (*seconds, sum(known) if known else None)]
        rows.append((date.day, *told_seconds, tell_fact("peak_memory_mb", peak or None)))
    head = ("date", *names, "all", label("peak_memory_mb"))
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
        rows.append((label(name), tell_fact(name, before), tell_fact(name, after), ratio))
    note = "Of the dates that the last run had to map; a run that finds all finished predicts next to nothing."
    return Table("prediction", "Predicted and measured", ("", "predicted", "measured", "ratio"), rows, note=note)


def list_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Tell facts of a manifest that are known: what each is called, and its value."""
    return [(label(name), tell_fact(name, value)) for name, value in facts.items() if value]


def _stages(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Take the stages of a manifest, or its seconds by stage."""
    stages = manifest.get("stages")
    if isinstance(stages, dict):
        return {str(name): dict(one) for name, one in stages.items() if isinstance(one, dict)}
    seconds = manifest.get("seconds")
    return {str(name): {"seconds": value} for name, value in seconds.items()} if isinstance(seconds, dict) else {}


def _list_names(facts: Iterable[dict[str, Any]]) -> list[str]:
    """List what is told of any stage, in order; what is nothing of all is left out."""
    found = dict.fromkeys(key for one in facts for key, value in one.items() if _is_scalar(value) and value)
    return [name for name in _FIRST if name in found] + [name for name in found if name not in _FIRST]


def _find_speed(stage: dict[str, Any]) -> str:
    seconds, pixels = stage.get("seconds"), stage.get("pixels")
    return tell_number(pixels / 1e6 / seconds) if pixels and seconds else ""


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)
