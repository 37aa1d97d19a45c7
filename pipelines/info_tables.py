"""What `pipelines.info` tells, laid out for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipelines.report_words import spell_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

_SECONDS = {"seconds": "s", "task_seconds": "tasks' s", "transfer_seconds": "moving s", "spill_seconds": "spilling s"}
_STATES = {"finished": "green", "kept": "green", "failed": "red", "partial": "yellow", "running": "yellow"}


def lay_out(told: Mapping[str, Any]) -> RenderableType:
    """Lay out what `pipelines.info.describe_path` gives."""
    parts: list[RenderableType] = [_head(told)]
    dates = told.get("dates") or []
    if dates and isinstance(dates[0], dict):
        parts.append(_table_of("dates", dates))
    if told.get("layers"):
        parts.append(_table_of("layers", told["layers"]))
    if told.get("stages"):
        parts.append(table_stages(told["stages"]))
    if told.get("left_out"):
        parts.append(_table_of("left out", told["left_out"]))
    return Group(*parts)


def table_stages(stages: Mapping[str, Mapping[str, Any]]) -> Group:
    """Lay out the stages of a manifest: what each took, and how fast it was."""
    table = _new(("stage", "state"))
    for name in (*_SECONDS.values(), "Mpx/s", "tasks", "read", "written", "moved", "spilled", "worker", "driver"):
        table.add_column(name, justify="right")
    for name, one in stages.items():
        seconds, pixels = one.get("seconds") or 0, one.get("pixels") or 0
        table.add_row(
            name,
            _state(one.get("state", "")),
            *(f"{one[key]:,.1f}" if one.get(key) else "" for key in _SECONDS),
            f"{pixels / 1e6 / seconds:.2f}" if pixels and seconds else "",
            f"{one['tasks']:,.0f}" if one.get("tasks") else "",
            *(_bytes(one.get(f"bytes_{what}")) for what in ("read", "written", "moved", "spilled")),
            *(_bytes((one.get(key) or 0) * 1e6) for key in ("peak_memory_mb", "driver_memory_mb")),
        )
    return Group("", Text("stages", style="bold underline"), table)


def _bytes(number: float | None) -> str:
    """Write bytes for people; nothing for none."""
    return spell_bytes(number) if number else ""


def _head(told: Mapping[str, Any]) -> Table:
    rows: dict[str, Any] = {"what": told["what"], "path": told["path"]}
    if "state" in told:
        rows["state"] = _state(told["state"])
    rows |= {name: told[name] for name in ("error", "started") if name in told}
    if "seconds" in told:
        rows["took"] = f"{told['seconds']:.1f} s"
    dates = told.get("dates") or []
    if dates:
        days = [one["date"] if isinstance(one, dict) else str(one) for one in dates]
        rows["dates"] = days[0] if len(days) == 1 else f"{len(days)}, {days[0]} to {days[-1]}"
    if told.get("grid"):
        rows["grid"] = _spell_grid(told["grid"])
    rows |= {name: told[name] for name in ("lakes", "tracks", "events", "dtype") if name in told}
    if "area_m2" in told:
        rows["true area"] = f"{told['area_m2'] / 1e6:.3f} km2"
    rows |= {name: ", ".join(map(str, told[name])) for name in ("bands",) if told.get(name)}
    for name in ("candidates", "request", "measured"):
        if told.get(name):
            rows[name] = ", ".join(f"{key} {_plain(value)}" for key, value in told[name].items())
    if "cluster" in told:
        one = told["cluster"]
        memory = _bytes(one.get("memory_limit_bytes"))
        rows["cluster"] = f"{one['workers']} workers, {one['threads']} threads, " + (
            f"{memory} in all" if memory else "no limit of memory"
        )
    rows["on disk"] = _bytes(told["bytes"])
    rows |= {name: told[name] for name in ("lakescale",) if name in told}
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value if isinstance(value, Text) else str(value))
    return table


def _table_of(title: str, rows: Sequence[Mapping[str, Any]]) -> Group:
    """Lay out rows that have the same keys."""
    table = _new(())
    for name in rows[0]:
        is_number = any(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(str(name).removesuffix("_m2"), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    return Group("", Text(title, style="bold underline"), table)


def _cell(name: str, value: Any) -> Text | str:
    if name == "state":
        return _state(str(value))
    if name == "bytes":
        return _bytes(value)
    if name == "area_m2" and value is not None:
        return f"{value / 1e6:.3f} km2"
    return _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.6g}"
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


def _spell_grid(grid: Mapping[str, Any]) -> str:
    rows, cols = grid["shape"]
    pixel = f" of {grid['pixel_m']:g} m" if "pixel_m" in grid else ""
    return f"{rows} x {cols} pixels{pixel}, {str(grid['crs'])[:60]}"


def _state(state: str) -> Text:
    return Text(state, style=_STATES.get(state, ""))


def _new(columns: Iterable[str]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name)
    return table
