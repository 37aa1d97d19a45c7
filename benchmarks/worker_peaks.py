"""Peaks of workers, those of the solving tasks told from the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import Worker, WorkerPlugin

import lakescale as ls
from benchmarks import ice
from benchmarks.worker_memory import peak_rss_mb

if TYPE_CHECKING:
    from distributed import Client

_WARM_PX = 256


class Peaks(WorkerPlugin):
    """Tells the peak of a worker's memory while it solves seams, of all chunks or of a square, from all others."""

    name = "peaks"

    def setup(self, worker: Worker) -> None:
        """Begin with what the worker holds when it is empty."""
        self.peaks_mb = {"other": peak_rss_mb(), "solving": 0.0}
        self.solving: set[Any] = set()
        worker.peaks = self

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Solving begins when the summaries are asked for and ends when the answer is there."""
        if not any(f"-{step}-" in str(key) for step in ("solve", "contract", "expand")):
            return
        if start == "released" and not self.solving:
            self._note("other")
        if finish in ("memory", "released", "error"):
            self.solving.discard(key)
            if not self.solving:
                self._note("solving")
        else:
            self.solving.add(key)

    def read(self) -> dict[str, float]:
        """Peaks so far."""
        self._note("other")
        return self.peaks_mb

    def _note(self, state: str) -> None:
        self.peaks_mb[state] = max(self.peaks_mb[state], peak_rss_mb())
        forget_peak()


def forget_peak() -> None:
    """Let the peak of this process begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def warm_up() -> None:
    """Find the sinks of a little ice in this process, so that it has loaded all that it will need."""
    dem = ice.lazy_ice(ice.SHEET_NOISE_M, dome=ice.sheet(_WARM_PX), chunk=_WARM_PX // 2)
    ls.sink_regions(dem, min_depth_m=0.1).compute(scheduler="synchronous")


def read_peaks(client: Client) -> list[dict[str, float]]:
    """Read the peaks of each worker so far, MB: ``solving`` and ``other``."""
    return list(client.run(_read).values())


def _read(dask_worker: Worker) -> dict[str, float]:
    return dask_worker.peaks.read()
