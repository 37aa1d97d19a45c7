"""Charts of a report as plain numbers: where each mark lies in a picture of 480 x 250; the template draws them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num, num2date
from matplotlib.ticker import MaxNLocator

from pipelines.report_words import tell_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 468, 12, 208
"""Edges of what is plotted."""
_TICKS, _HEADROOM, _WIDEST, _NARROWEST = 5, 1.06, 26.0, 3.0
_A_DECADE, _MOST_LABELS = 4, 8
_Ticks = list[tuple[float, str]]


@dataclass(frozen=True)
class Mark:
    """A point or a bar of a chart."""

    x: float
    y: float
    """Of a bar its upper edge."""
    told: str
    """What it says when it is pointed at."""
    date: int = -1
    """Of the report, from 0; -1: of all."""
    low: float | None = None
    """Lower end of its interval; of a bar its lower edge."""
    high: float | None = None
    width: float = 0.0
    kind: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart with its words."""

    name: str
    title: str
    unit: str
    """Of the upright axis, with what it counts."""
    alt: str
    """What it shows, in sentences, for those who do not see it."""
    x_ticks: _Ticks
    y_ticks: _Ticks
    x_label: str = ""
    points: list[Mark] = field(default_factory=list)
    bars: list[Mark] = field(default_factory=list)
    lines: list[list[tuple[float, float]]] = field(default_factory=list)
    """Through the points; a new one after each gap."""
    per_count: float = 0.0
    """Height of a count of one; of a histogram."""
    legend: list[tuple[str, str]] = field(default_factory=list)
    """Kind of a mark, and its name."""


def draw_course(
    name: str, title: str, unit: str, days: Sequence[str], values: Sequence[float | None], **options: Any
) -> Chart:
    """Draw a value over the dates.

    Parameters
    ----------
    name, title, unit
        Of the chart.
    days
        ISO dates, in order.
    values
        One a date; None where it is not known: the line has a gap there.
    options
        ``low`` and ``high``: ends of the intervals; ``most``: upper end of the axis, by default the largest value;
        ``told``: what a point says beside its date and value.
    """
    at, x_ticks = _place_days(days)
    lows, highs, words = (options.get(key) or [None] * len(days) for key in ("low", "high", "told"))
    known = [one for one in (*values, *highs) if one is not None]
    scale, y_ticks = _scale(options.get("most") or max(known, default=0))
    points: list[Mark] = []
    lines: list[list[tuple[float, float]]] = [[]]
    for k, (x, value) in enumerate(zip(at, values, strict=True)):
        if value is None:
            lines.append([])
            continue
        said = f"{days[k]}: {_with_unit(value, unit)}" + (f", {words[k]}" if words[k] else "")
        low, high = (None if end is None else scale(max(end, 0)) for end in (lows[k], highs[k]))
        points.append(Mark(x, scale(value), said, k, low, high))
        lines[-1].append((x, scale(value)))
    alt = _tell_course(title, unit, days, values)
    return Chart(name, title, unit, alt, x_ticks, y_ticks, points=points, lines=[one for one in lines if len(one) > 1])


def draw_stack(
    name: str, title: str, unit: str, days: Sequence[str], parts: Mapping[str, Sequence[int]], kinds: Mapping[str, str]
) -> Chart:
    """Draw counts over the dates, on top of each other; ``kinds`` tells how each part is drawn."""
    at, x_ticks = _place_days(days)
    gap = min(np.diff(at), default=_WIDEST)
    width = min(_WIDEST, max(_NARROWEST, 0.8 * gap))
    totals = [sum(counts) for counts in zip(*parts.values(), strict=True)]
    scale, y_ticks = _scale(max(totals, default=0))
    bars, below = [], [0] * len(days)
    for part, counts in parts.items():
        for k, count in enumerate(counts):
            if count:
                lower, below[k] = below[k], below[k] + count
                told = f"{days[k]}: {count} {part}"
                bars.append(Mark(at[k] - width / 2, scale(below[k]), told, k, scale(lower), None, width, kinds[part]))
    shown = [part for part, counts in parts.items() if any(counts)]
    alt = f"{title}, {days[0]} to {days[-1]}. Most of a date: " + ", ".join(f"{max(parts[p])} {p}" for p in shown) + "."
    return Chart(name, title, unit, alt, x_ticks, y_ticks, bars=bars, legend=[(kinds[part], part) for part in shown])


@dataclass(frozen=True)
class Histogram:
    """Counts of areas in classes of equal ratio."""

    edges_km2: NDArray[np.float64]
    counts: NDArray[np.int64]
    """One row a date, one column a class."""


def count_areas(areas_m2: NDArray[Any], dates: NDArray[Any], n_dates: int) -> Histogram:
    """Count areas by date in four classes a decade, from the least to the largest."""
    logs = np.log10(np.maximum(areas_m2, 1.0) / 1e6) * _A_DECADE
    first, last = (int(np.floor(logs.min())), int(np.floor(logs.max()))) if len(logs) else (-_A_DECADE, -1)
    edges = 10 ** (np.arange(first, last + 2) / _A_DECADE)
    counts = np.zeros((n_dates, last - first + 1), np.int64)
    np.add.at(counts, (dates.astype(int), np.floor(logs).astype(int) - first), 1)
    return Histogram(edges, counts)


def draw_histogram(name: str, title: str, histogram: Histogram) -> Chart:
    """Draw how many outlines of all dates there are in each class of area."""
    edges, counts = histogram.edges_km2, histogram.counts.sum(axis=0)
    at = np.linspace(LEFT, RIGHT, len(edges))
    scale, y_ticks = _scale(counts.max(initial=0), whole=True)
    bars = [
        Mark(float(at[k]) + 1, scale(count), f"{tell_number(edges[k])} to {tell_number(edges[k + 1])} km²: {count}", -1,
             scale(0), None, float(at[k + 1] - at[k]) - 2, "all")
        for k, count in enumerate(counts)
    ]  # fmt: skip
    every = next(step for step in (1, 2, _A_DECADE) if len(edges) <= _MOST_LABELS * step or step == _A_DECADE)
    exponents = np.rint(np.log10(edges) * _A_DECADE).astype(int)
    labelled = zip(at[exponents % every == 0], edges[exponents % every == 0], strict=True)
    x_ticks = [(float(x), tell_number(float(f"{edge:.2g}"))) for x, edge in labelled]
    most = int(counts.argmax()) if counts.any() else 0
    span, mode = (f"{tell_number(low)} to {tell_number(high)} km²" for low, high in (edges[[0, -1]], edges[most:][:2]))
    alt = f"{title}: {counts.sum()} outlines of {span}; most of them, {counts[most]}, are of {mode}."
    label = "true area, km² (classes of equal ratio)"
    per_count = round(scale(0) - scale(1), 4)
    return Chart(name, title, "outlines", alt, x_ticks, y_ticks, label, bars=bars, per_count=per_count)


def _place_days(days: Sequence[str]) -> tuple[list[float], _Ticks]:
    """Place dates along the axis, with a margin, and find ticks."""
    numbers = date2num(pd.to_datetime(list(days)).to_pydatetime())
    first, last = numbers[0], numbers[-1]
    margin = max((last - first) * 0.04, 0.5)
    low, high = first - margin, last + margin

    def place(number: float) -> float:
        return float(LEFT + (RIGHT - LEFT) * (number - low) / (high - low))

    locator = AutoDateLocator(minticks=3, maxticks=_TICKS + 1)
    ticks = [tick for tick in locator.tick_values(num2date(low), num2date(high)) if low <= tick <= high]
    labels = ConciseDateFormatter(locator, formats=["%Y", "%b", "%-d %b", "", "", ""],
                                  zero_formats=["", "%Y", "%b", "", "", ""]).format_ticks(ticks)  # fmt: skip
    return [place(number) for number in numbers], [(place(t), text) for t, text in zip(ticks, labels, strict=True)]


def _scale(most: float, *, whole: bool = False) -> tuple[Any, _Ticks]:
    """Scale from 0 to a value, and find ticks."""
    top = most * _HEADROOM if most > 0 else 1.0
    ticks = [tick for tick in MaxNLocator(_TICKS, integer=whole).tick_values(0, top) if 0 <= tick <= top]

    def place(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * float(value) / top, 2)

    return place, [(place(tick), tell_number(tick)) for tick in ticks]


def _tell_course(title: str, unit: str, days: Sequence[str], values: Sequence[float | None]) -> str:
    known = [(value, day) for value, day in zip(values, days, strict=True) if value is not None]
    if not known:
        return f"{title}: not known on any date."
    (least, least_day), (most, most_day) = min(known), max(known)
    told = f"{title}, {days[0]} to {days[-1]}: from {_with_unit(least, unit)} on {least_day} "
    told += f"to {_with_unit(most, unit)} on {most_day}"
    return (
        f"{told}; not known on {len(days) - len(known)} of {len(days)} dates." if len(known) < len(days) else f"{told}."
    )


def _with_unit(value: float, unit: str) -> str:
    """Tell a value with its unit, which may be a power of ten: ``2.5 km²``, but two point five times ``10⁶ m³``."""
    times = "\N{MULTIPLICATION SIGN} " if unit.startswith("10") else ""
    return f"{tell_number(value)} {times}{unit}"
