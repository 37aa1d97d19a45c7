"""The stages of a run: what each took, told as they begin and end, and written down for the manifest."""

from __future__ import annotations

import datetime as dt
import logging
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from lakescale.bars import Bars, Pace
from lakescale.logs import EVENT, PLACE, is_json
from lakescale.probing import OWN, Probe, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

_LOG = logging.getLogger(__name__)

RUNNING, FINISHED, FAILED, KEPT = "running", "finished", "failed", "kept"
TELL_S = 10.0
"""Seconds between events that tell how far a stage is."""
_TELLERS = "lakescale", "distributed"
_CURRENT: ContextVar[Stage | None] = ContextVar("stage", default=None)


@dataclass
class Stage:
    """One stage of a run. What cannot be known is not told."""

    name: str
    pixels: int = 0
    """How many it worked on, as `lakescale.cluster.compute` was told."""
    state: str = RUNNING
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    """The most that any worker held."""
    driver_memory_mb: float = 0.0
    """The most that this process held."""
    used: dict[str, float] = field(default_factory=dict)
    """See `lakescale.probing.Probe.since`."""
    counts: dict[str, Any] = field(default_factory=dict)
    """What it made, by the names of whoever ran it."""
    warnings: int = 0
    parent: Stage | None = field(default=None, repr=False)
    """Of another run, within which this one takes place."""
    screen: Bars | _Lines | None = field(default=None, repr=False)
    """Where it is told how far it is."""

    @property
    def path(self) -> tuple[str, ...]:
        """Names from the outermost stage to this one."""
        return (*self.parent.path, self.name) if self.parent else (self.name,)

    @property
    def place(self) -> str:
        """The same as text."""
        return "/".join(self.path)

    @property
    def bar(self) -> str:
        """Name its bar: by itself, since dates side by side have stages of the same place."""
        return f"{id(self)}/{self.place}"

    @property
    def span(self) -> dict[str, tuple[str, ...]]:
        """Name its tasks on the dashboard, as `distributed.span` does.

        Dask never forgets a span, on the scheduler and on each worker. A stage that is run again, for another date of a
        season, therefore goes on with the same one, where Dask would begin another.
        """
        names = (OWN, *self.path)
        ids = tuple(str(uuid5(NAMESPACE_URL, "/".join(names[: i + 1]))) for i in range(len(names)))
        return {"name": names, "ids": ids}

    def pace(self, unit: str = "tasks", *, pixels: int = 0, description: str = "") -> Callable[[int, int], None] | None:
        """Give what tells how far it is, ``draw(done, total)``; None where nobody looks.

        Parameters
        ----------
        unit
            What is counted.
        pixels
            How many all of them are, where that tells the speed.
        description
            Of this part of the stage.
        """
        screen, bar, pace = self.screen, self.bar, Pace(unit, pixels)
        if screen is None:
            return None
        screen.restart(bar)
        return lambda done, total: screen.draw(bar, done, total, pace.tell(done, total), description or self.name)

    def facts(self) -> dict[str, Any]:
        """Say of it what a manifest tells."""
        told = {"state": self.state, "seconds": round(self.seconds, 3), **self.used, **self.counts}
        for name in ("pixels", "peak_memory_mb", "driver_memory_mb", "warnings"):
            if value := getattr(self, name):
                told[name] = value
        return told

    def hold(self, worker_mb: float, driver_mb: float) -> None:
        """Note what was held, here and in the stages around."""
        self.peak_memory_mb = max(self.peak_memory_mb, worker_mb)
        self.driver_memory_mb = max(self.driver_memory_mb, driver_mb)
        if self.parent:
            self.parent.hold(worker_mb, driver_mb)


class Journal:
    """Writes down the stages of a run, and tells how far they are; a run may take place in another one's stage.

    Parameters
    ----------
    progress
        Draw bars on stderr, where that is a terminal; or tell it every `TELL_S` seconds where logs are JSON.
    """

    def __init__(self, *, progress: bool = False) -> None:
        self.progress = progress
        self.stages: dict[str, Stage] = {}
        self._client: Client | None = None
        self._last: Probe | None = None
        self._start = time.perf_counter()
        self._begun = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")

    def connect(self, client: Client | None) -> None:
        """Look at the processes of a cluster, too, from now on."""
        self._client, self._last = client, None

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Run a stage; one that was run before goes on, and its figures add up.

        Parameters
        ----------
        name
            Short, one word where that can be.
        """
        parent = _CURRENT.get()
        stage = self.stages.setdefault(name, Stage(name, parent=parent))
        stage.state, stage.screen = RUNNING, parent.screen if parent else self._find_screen()
        start, before = time.perf_counter(), self._last or probe(self._client)
        _tell("stage started", stage)
        try:
            with _current(stage), _counting_warnings(stage), _on_screen(stage):
                yield stage
            stage.state = FINISHED
        except BaseException:
            stage.state = FAILED
            raise
        finally:
            after = self._last = probe(self._client)
            stage.seconds += time.perf_counter() - start
            stage.hold(max(after.worker_peaks_mb, default=0.0), after.driver_peak_mb)
            for what, value in after.since(before).items():
                stage.used[what] = round(stage.used.get(what, 0) + value, 3)
            _tell(f"stage {stage.state}", stage)

    def _find_screen(self) -> Bars | _Lines | None:
        if not self.progress:
            return None
        if is_json():
            return _Lines()
        return Bars() if Bars.are_wanted() else None

    def keep(self, name: str) -> None:
        """Note a stage that was finished by an earlier run."""
        self.stages.setdefault(name, Stage(name, state=KEPT, parent=_CURRENT.get()))

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.perf_counter() - self._start

    def total(self, figure: str) -> float:
        """Sum up a figure of all stages."""
        return sum(stage.used.get(figure, 0) for stage in self.stages.values())

    def facts(self) -> dict[str, Any]:
        """Say of the run what a manifest tells: when it began, its seconds, and its stages by name."""
        return {
            "started": self._begun,
            "seconds": round(self.seconds, 3),
            "stages": {name: stage.facts() for name, stage in self.stages.items()},
        }


def current_stage() -> Stage | None:
    """Give the stage that runs."""
    return _CURRENT.get()


class _Lines:
    """Tells how far stages are as events of the log, now and then."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def begin(self, _: str) -> None:
        """Begin a stage."""

    restart = end = begin

    def draw(self, _: str, done: int, total: int, speed: str, description: str) -> None:
        """Tell of the stage that runs."""
        if time.monotonic() - self._told >= TELL_S:
            self._told = time.monotonic()
            told = {EVENT: "stage progress", "done": done, "total": total, "speed": speed}
            _LOG.info("%s: %d of %d %s", description, done, total, speed, extra={EVENT: told})


@contextmanager
def _current(stage: Stage) -> Iterator[None]:
    tokens = _CURRENT.set(stage), PLACE.set(stage.place)
    try:
        yield
    finally:
        _CURRENT.reset(tokens[0])
        PLACE.reset(tokens[1])


@contextmanager
def _on_screen(stage: Stage) -> Iterator[None]:
    if stage.screen is None:
        yield
        return
    stage.screen.begin(stage.bar)
    try:
        yield
    finally:
        stage.screen.end(stage.bar)


class _Counter(logging.Handler):
    """Counts warnings and errors."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(logging.WARNING)
        self._stage = stage

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002
        self._stage.warnings += 1


@contextmanager
def _counting_warnings(stage: Stage) -> Iterator[None]:
    counter, loggers = _Counter(stage), [logging.getLogger(name) for name in _TELLERS]
    for one in loggers:
        one.addHandler(counter)
    try:
        yield
    finally:
        for one in loggers:
            one.removeHandler(counter)


def _tell(event: str, stage: Stage) -> None:
    facts = {} if stage.state == RUNNING else stage.facts()
    about = f"{stage.state}, {stage.seconds:.1f} s" if facts else "started"
    _LOG.info("%s: %s", stage.place, about, extra={EVENT: {EVENT: event, "stage": stage.place, **facts}})
