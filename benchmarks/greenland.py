"""Greenland on a laptop: the sinks of an ice sheet of 131072 x 131072 cells, drawn as it is read, on two cores.

    python -m benchmarks.greenland OUT.parquet [--size 131072] [--chunk 2048]

It writes the inventory of the sinks that are at least 0.5 m deep and 1 ha large, and prints what that took. Of the
elevations and what is filled, nothing is ever stored: each chunk is drawn twice.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import pandas as pd

import lakescale as ls
from benchmarks import ice
from benchmarks.worker_memory import peak_rss_mb
from benchmarks.worker_peaks import Peaks, read_peaks
from lakescale.cluster import open_cluster
from lakescale.store.frames import write_frame

if TYPE_CHECKING:
    from distributed import Client

WORKERS = 2
MIN_DEPTH_M, MIN_AREA_M2 = 0.5, 10_000
MEMORY_LIMIT, TARGET = "4 GB", 0.018
"""A worker puts results that wait on the disk once they hold that share of its limit; and it is sent no task ahead."""


def main(arguments: list[str] | None = None) -> None:
    """Write the inventory and print a table."""
    asked = _read_options(arguments)
    dem = ice.lazy_ice(ice.SHEET_NOISE_M, dome=ice.sheet(asked.size), chunk=asked.chunk)
    with (
        dask.config.set({"distributed.worker.memory.target": TARGET, "distributed.scheduler.worker-saturation": 1.0}),
        open_cluster("local", workers=WORKERS, memory_limit=MEMORY_LIMIT, dashboard=asked.dashboard) as client,
    ):
        client.register_plugin(Peaks())
        client.run(ice.draw_ice, 0, 0, 64, 64, ice.SHEET_NOISE_M)
        client.run(ice.forget_seconds)
        empty = client.run(peak_rss_mb)
        told = _run(dem, asked.out, client)
        told |= {"seconds to draw": sum(client.run(ice.drawing_seconds).values()) / WORKERS}
        told |= {"empty worker, MB": max(empty.values())}
        for number, peaks in enumerate(read_peaks(client)):
            told |= {
                f"worker {number}, MB": peaks["other"],
                f"worker {number} while it solves seams, MB": peaks["solving"],
            }
    told |= {"scheduler and client, MB": peak_rss_mb()}
    for what, value in told.items():
        sys.stdout.write(f"| {what} | {value:,.6g} |\n")


def _run(dem: Any, out: Path, client: Client) -> dict[str, float]:
    start = time.perf_counter()
    frame = ls.sink_regions(dem, min_depth_m=MIN_DEPTH_M, min_area_m2=MIN_AREA_M2)
    tasks = len(frame.__dask_graph__())
    built = time.perf_counter()
    write_frame(frame, out, order_by="sink_id", client=client, progress=True, description="sinks")
    sinks = pd.read_parquet(out, columns=["area_m2", "capacity_m3", "depth_m"])
    return {
        "cells": dem.size,
        "tasks": tasks,
        "seconds": time.perf_counter() - start,
        "seconds to build the graph": built - start,
        "sinks": len(sinks),
        "area, km2": sinks["area_m2"].sum() / 1e6,
        "capacity, km3": sinks["capacity_m3"].sum() / 1e9,
        "largest, km2": sinks["area_m2"].max() / 1e6,
        "deepest, m": sinks["depth_m"].max(),
    }


def _read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="GeoParquet of the sinks")
    parser.add_argument("--size", type=int, default=131072, help="cells a side")
    parser.add_argument("--chunk", type=int, default=2048, help="cells a side of a chunk")
    parser.add_argument("--dashboard", default="none", help="where to serve Dask's dashboard, host:port")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
