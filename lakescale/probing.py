"""What the processes of a run have read, written, sent and held: asked of workers, scheduler and this process."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from distributed import Client, Scheduler, Worker

OWN = "lakescale"
"""Tag of the spans of our stages on the scheduler."""
ANSWER_S = 10.0
"""Seconds to wait for the workers: one that does not answer is left out."""
_GONE = "forgotten"
"""State of tasks that nobody waits for any more."""
_STATUS, _BEGIN_ANEW = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Counters:
    """Of one process, since it started."""

    bytes_read: int = 0
    """By calls to read files, those that the page cache answered too; not what is mapped or comes by network."""
    bytes_written: int = 0
    bytes_moved: int = 0
    """Results that a worker sent to others, to the scheduler or to the client."""
    bytes_spilled: int = 0
    """Results that a worker put on its disk since its memory was full."""

    def since(self, earlier: Counters) -> Counters:
        """Give what came since."""
        return Counters(**{one.name: getattr(self, one.name) - getattr(earlier, one.name) for one in fields(self)})


@dataclass
class Probe:
    """The state of a cluster and of this process."""

    processes: dict[str, Counters] = field(default_factory=dict)
    """By process; this one, and each worker that answered."""
    worker_peaks_mb: list[float] = field(default_factory=list)
    """Of each worker, since the last probe."""
    driver_peak_mb: float = 0.0
    work: dict[str, float] = field(default_factory=dict)
    """What the scheduler counted since it started: ``tasks`` finished, and their seconds on all workers, those of
    ``task_seconds``, ``transfer_seconds`` (waiting for results of others) and ``spill_seconds`` (on the disk)."""

    def since(self, earlier: Probe) -> dict[str, float]:
        """Sum up what all processes did since; a process that is gone does not count, a new one from its start."""
        told = Counters()
        for name, now in self.processes.items():
            for key, value in asdict(now.since(earlier.processes.get(name, Counters()))).items():
                setattr(told, key, getattr(told, key) + value)
        work = {name: round(value - earlier.work.get(name, 0), 3) for name, value in self.work.items()}
        return {**work, **asdict(told)}


def probe(client: Client | None) -> Probe:
    """Ask all processes, and let their peaks of memory begin anew.

    A cluster that does not answer is left out: nobody wants a run to fail for that.
    """
    found = Probe(driver_peak_mb=_peak_mb())
    found.processes[_own_name()] = _count()
    if client is None or client.status != "running":
        return found
    try:
        told, found.work = client.sync(_ask, client)
    except Exception:  # noqa: BLE001  (a cluster in trouble has many ways to say so)
        return found
    for name, counters, peak_mb in told:
        is_own = name == _own_name()
        found.processes[name] = Counters(**counters)
        found.worker_peaks_mb.append(found.driver_peak_mb if is_own else peak_mb)
    return found


async def _ask(client: Client) -> tuple[list[Any], dict[str, float]]:
    asked = client.run(_tell_of_worker, on_error="return"), client.run_on_scheduler(_tell_of_scheduler)
    told, work = await asyncio.wait_for(asyncio.gather(*asked), ANSWER_S)
    return [one for one in told.values() if isinstance(one, tuple)], work


def _tell_of_worker(dask_worker: Worker) -> tuple[str, dict[str, int], float]:
    counters = _count()
    counters.bytes_moved = dask_worker.transfer_outgoing_bytes_total
    metrics = getattr(dask_worker.data, "cumulative_metrics", {})
    counters.bytes_spilled = int(metrics.get(("disk-write", "bytes"), 0))
    return _own_name(), asdict(counters), _peak_mb()


def _tell_of_scheduler(dask_scheduler: Scheduler) -> dict[str, float]:
    _forget_groups(dask_scheduler)
    told = {"tasks": 0, "task_seconds": 0.0, "transfer_seconds": 0.0, "spill_seconds": 0.0}
    for prefix in dask_scheduler.task_prefixes.values():
        took = prefix.all_durations
        told["tasks"] += prefix.state_counts["memory"]
        told["task_seconds"] += took["compute"]
        told["transfer_seconds"] += took["transfer"]
        told["spill_seconds"] += took["disk-write"] + took["disk-read"]
    return told


def _forget_groups(dask_scheduler: Scheduler) -> None:
    """Have the spans of our stages let go of the groups of tasks that are gone: Dask keeps them for ever.

    Of each the last one stays, since the dashboard asks it when the span ended.
    """
    spans = dask_scheduler.extensions.get("spans")
    for span in () if spans is None else spans.spans.values():
        if span.name[0] == OWN and span.groups:
            last = max(span.groups, key=lambda group: group.stop)
            gone = {one for one in span.groups if not any(n for state, n in one.states.items() if state != _GONE)}
            span.groups = span.groups - gone | {last}


def _own_name() -> str:
    return f"{os.uname().nodename}:{os.getpid()}"


def _count() -> Counters:
    try:
        told = psutil.Process().io_counters()
    except (AttributeError, OSError, psutil.Error):  # macOS counts none
        return Counters()
    return Counters(getattr(told, "read_chars", 0), getattr(told, "write_chars", 0))


def _peak_mb() -> float:
    """Tell the most memory held since this was asked last; where the system cannot begin anew, since the start."""
    try:
        (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
        peak_mb = int(line.split()[1]) * 1024 / 1e6
        _BEGIN_ANEW.write_text("5")
    except (OSError, ValueError):
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_mb = held / 1e6 if sys.platform == "darwin" else held * 1024 / 1e6
    return round(peak_mb, 1)
