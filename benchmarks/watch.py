"""A long season watched in small: many dates of tiny chunks, and what the scheduler holds as they go by.

    python -m benchmarks.watch FOLDER [--dates 41] [--size 224] [--chunk 32]

It maps a season of made-up scenes on a LocalCluster of two workers, by what `lakescale season` runs. After each date it
prints the most that the process of scheduler and client held meanwhile (`rss_mb`), what it and the larger worker hold
afterwards, and how much the scheduler keeps; at the end the growth, and Dask's warnings of large graphs and slow event
loops, of which there should be none.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import logging
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import rasterio
import yaml
from rasterio.transform import from_origin

from pipelines import season
from pipelines.season_recipe import read_season_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_FIRST = dt.date(2019, 5, 1)
_KEPT = "tasks", "task_groups", "task_prefixes", "computations", "events"


def main(arguments: list[str] | None = None) -> None:
    """Run the season and print a table."""
    asked = _read_options(arguments)
    told = watch(asked.folder, asked.dates, asked.size, asked.chunk, tell=_print_row)
    sys.stdout.write(f"\n{told['chunks']} chunks, {told['tasks']:,.0f} tasks in {told['seconds']:.0f} s; ")
    sys.stdout.write(f"growth after the first quarter {told['growth']:.1%}; warnings: {told['warnings'] or 'none'}\n")


def watch(
    folder: Path, dates: int, size: int, chunk: int, tell: Callable[[dict[str, float]], None] = lambda _: None
) -> dict[str, Any]:
    """Run the season, and give ``growth``, the most memory after the first quarter over that until then, and more."""
    recipe = write_scenes(folder, dates, size, chunk)
    seen = _Seen(tell)
    with seen.warnings(), seen.dates():
        result = season.map_season(read_season_recipe(recipe))
    quarter = [one["rss_mb"] for one in seen.samples[: max(1, dates // 4)]]
    later = [one["rss_mb"] for one in seen.samples[max(1, dates // 4) :]]
    return {
        "growth": max(later) / max(quarter) - 1,
        "warnings": seen.told,
        "samples": seen.samples,
        "chunks": dates * (-(-size // chunk)) ** 2,
        "tasks": result.measured["tasks"],
        "seconds": result.measured["seconds"],
    }


def write_scenes(folder: Path, dates: int, size: int, chunk: int) -> Path:
    """Write a small scene for each date, 8-bit RGB with a lake that moves, and the recipe; give the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(dates):
        pixels = np.full((3, size, size), 220, np.uint8)
        corner = 10 + number % 20
        pixels[:, corner : corner + 60, corner : corner + 60] = np.array([20, 100, 200], np.uint8)[:, None, None]
        path = folder / f"S2_{_FIRST + dt.timedelta(days=number)}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", count=3, height=size, width=size, dtype="uint8", crs="EPSG:32622",
            transform=from_origin(600_000, 7_430_000, 10, 10),
        ) as file:  # fmt: skip
            file.write(pixels)
    values = {
        "scenes": {"source": [str(folder / "S2_*.tif")], "chunks": chunk},
        "out": str(folder / "RUN"),
        "evidence": "color",
        "models": "none",
        "report": False,
        "cluster": {"kind": "local", "workers": 2, "memory_limit": "1500MB", "dashboard": "none"},
    }
    recipe = folder / "season.yaml"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    return recipe


class _Seen:
    """What is seen of a season while it runs."""

    def __init__(self, tell: Callable[[dict[str, float]], None]) -> None:
        self.samples: list[dict[str, float]] = []
        self._tell = tell
        self.told: list[str] = []
        self._highest = 0.0

    def dates(self) -> AbstractContextManager[None]:
        """Sample when a date is done; between them the highest memory."""
        return _patched(season.DateMapper, "map_date", self._after)

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Write down what Dask warns of; what `lakescale.cluster.compute` silences, too."""
        told, tells = _Told(self.told), logging.getLogger("distributed")
        tells.addHandler(told)
        try:
            with _patched(warnings, "warn", self._hear):
                yield
        finally:
            tells.removeHandler(told)

    def _after(self, original: Any, *arguments: Any) -> Any:
        stop = threading.Event()
        watching = threading.Thread(target=self._follow, args=(stop,), daemon=True)
        watching.start()
        try:
            return original(*arguments)
        finally:
            stop.set()
            watching.join()
            mapper = arguments[0]
            kept = mapper.client.run_on_scheduler(_count)
            gc.collect()
            now = psutil.Process().memory_info().rss / 1e6
            workers = max(mapper.client.run(_rss_mb).values())
            self.samples.append(
                {"date": len(self.samples) + 1, "rss_mb": self._highest, "after_mb": now, "worker_mb": workers, **kept}
            )
            self._highest = 0.0
            self._tell(self.samples[-1])

    def _follow(self, stop: threading.Event) -> None:
        while not stop.wait(0.2):
            self._highest = max(self._highest, psutil.Process().memory_info().rss / 1e6)

    def _hear(self, original: Any, message: Any, *arguments: Any, **options: Any) -> Any:
        if "large graph" in str(message):
            self.told.append(str(message).splitlines()[0])
        return original(message, *arguments, **options)


class _Told(logging.Handler):
    def __init__(self, told: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        self._told.append(record.getMessage())


@contextmanager
def _patched(owner: Any, name: str, around: Any) -> Iterator[None]:
    """Put a function round another one for the length of a ``with`` block."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *some, **options: around(original, *some, **options))
    try:
        yield
    finally:
        setattr(owner, name, original)


def _count(dask_scheduler: Any) -> dict[str, int]:
    spans = dask_scheduler.extensions["spans"]
    kept = {name: len(getattr(dask_scheduler, name, ())) for name in _KEPT}
    held = sum(len(one.groups) for one in spans.spans.values())
    return {**kept, "spans": len(spans.spans), "span_groups": held}


def _rss_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


def _print_row(sample: dict[str, float]) -> None:
    if sample["date"] == 1:
        sys.stdout.write(f"| {' | '.join(sample)} |\n|{'---|' * len(sample)}\n")
    sys.stdout.write(f"| {' | '.join(f'{value:.6g}' for value in sample.values())} |\n")
    sys.stdout.flush()


def _read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="for scenes and the season; should not exist")
    parser.add_argument("--dates", type=int, default=41)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--chunk", type=int, default=32, help="pixels a side of a chunk")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
