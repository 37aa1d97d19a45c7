"""Peak memory of a worker, from pixels to polygons: it follows the chunk, not the scene."""

from __future__ import annotations

import re
from pathlib import Path

import lakescale as ls
from benchmarks import scenes
from benchmarks.races import TIMEOUT_S
from lakescale.cluster import compute, open_cluster


class WorkerMemory:
    """The larger peak of two fresh worker processes of one thread each, `color_mask` and `polygonize` in one graph.

    The scene is drawn chunk by chunk in the workers; no file is read, the polygons go to the client.
    """

    params = (scenes.SIZE, 2 * scenes.SIZE)
    param_names = ("size",)
    timeout = TIMEOUT_S

    def track_peak_mb(self, size: int) -> float:
        """Return the peak of resident memory."""
        return measure_peak_mb(size)

    track_peak_mb.unit = "MB"


class WorkerMemoryGrowth:
    """What twice the side, four times the pixels, adds to the peak."""

    timeout = TIMEOUT_S

    def track_growth(self) -> float:
        """Return the peak at twice the side over the peak at once; 1 is no growth."""
        return measure_peak_mb(2 * scenes.SIZE) / measure_peak_mb(scenes.SIZE)

    track_growth.unit = "x"


def measure_peak_mb(size: int) -> float:
    """Map a scene of ``size`` pixels squared with two fresh workers."""
    with open_cluster("local", workers=2, dashboard="none") as client:
        (polygons,) = compute(ls.polygonize(ls.color_mask(scenes.lazy_rgb(size))))
        if not len(polygons):
            raise RuntimeError("no polygons: nothing was measured")
        return max(client.run(peak_rss_mb).values())


def peak_rss_mb() -> float:
    """Read the peak of resident memory of this process.

    Not `resource.getrusage`: its maximum includes what the parent held when it started the worker.
    """
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024 / 1e6
