"""Bars on a terminal: one for each stage that runs, with its speed and the time that is left."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _TimeLeft(ProgressColumn):
    """Time that is left, where the length is known."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        if left is None or task.finished:
            return Text("")
        minutes, seconds = divmod(int(left), 60)
        return Text(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left", style="progress.remaining")


@dataclass
class Bars:
    """The bars of a run; without a terminal nothing is drawn."""

    _progress: Progress = field(init=False)
    _tasks: dict[str, TaskID] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            _TimeLeft(),
            TextColumn("{task.fields[told]}"),
            console=Console(stderr=True),
            redirect_stdout=False,
        )

    @staticmethod
    def are_wanted() -> bool:
        """Tell whether there is a terminal to draw on."""
        return sys.stderr.isatty()

    def begin(self, name: str) -> None:
        """Draw the bar of a stage whose length is not known yet; it is told by what stands behind the last slash."""
        if not self._tasks:
            self._progress.start()
        self._tasks[name] = self._progress.add_task(name.rpartition("/")[2], total=None, told="")

    def draw(self, name: str, done: int, total: int, speed: str, description: str = "") -> None:
        """Move the bar of a stage."""
        about = description or name
        told = f"{done}/{total} {speed}"
        self._progress.update(self._tasks[name], completed=done, total=total, told=told, description=about)

    def restart(self, name: str) -> None:
        """Begin the bar of a stage anew, for another part of it."""
        self._progress.reset(self._tasks[name], total=None, told="")

    def end(self, name: str) -> None:
        """Leave the bar of the outermost stage as it is, and take away those of stages within it."""
        task = self._tasks.pop(name)
        if self._tasks:
            self._progress.remove_task(task)
            return
        if self._progress.tasks[-1].total is None:
            self._progress.update(task, total=1, completed=1)
        self._progress.stop()


@contextmanager
def one_bar(description: str, pixels: int = 0) -> Iterator[Callable[[int, int], None] | None]:
    """Draw one bar for the length of a ``with`` block, ``draw(done, total)``; None without a terminal."""
    if not Bars.are_wanted():
        yield None
        return
    bars, pace = Bars(), Pace(pixels=pixels)
    bars.begin(description)
    try:
        yield lambda done, total: bars.draw(description, done, total, pace.tell(done, total))
    finally:
        bars.end(description)


class Pace:
    """Tells the speed of something that goes on."""

    def __init__(self, unit: str = "tasks", pixels: int = 0) -> None:
        self.unit, self.pixels, self._start = unit, pixels, time.perf_counter()

    def tell(self, done: int, total: int) -> str:
        """Say so many a second; millions of pixels where it is known how many there are in all."""
        seconds = time.perf_counter() - self._start
        if not done or not total or seconds <= 0:
            return self.unit
        if self.pixels:
            return f"{self.unit}, {self.pixels * done / total / 1e6 / seconds:.3g} Mpx/s"
        return f"{self.unit}, {done / seconds:.3g} a second"
