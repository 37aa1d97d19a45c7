"""Greenland on a laptop: the sinks of an ice sheet of 131072 x 131072 cells, drawn as it is read, on two cores.

    python -m benchmarks.greenland OUT.parquet [--size 131072] [--chunk 2048]

It writes the inventory of the sinks that are at least 0.5 m deep and 1 ha large, and prints what that took. Of the
elevations and what is filled, nothing is ever stored: each chunk is drawn twice. What waits between the stages lies in
a folder beside the file, which is removed at the end.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pandas as pd

import lakescale as ls
from benchmarks import ice
from benchmarks.worker_memory import peak_rss_mb
from benchmarks.worker_peaks import Peaks, forget_peak, read_peaks, warm_up
from lakescale.cluster import open_cluster
from lakescale.evidence.sink_regions import waiting
from lakescale.store import Stages
from lakescale.store.frames import write_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

WORKERS = 2
MIN_DEPTH_M, MIN_AREA_M2 = 0.5, 10_000
WATCH_S = 5


def main(arguments: list[str] | None = None) -> None:
    """Write the inventory and print a table."""
    asked = _read_options(arguments)
    dem = ice.lazy_ice(ice.SHEET_NOISE_M, dome=ice.sheet(asked.size), chunk=asked.chunk)
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        other.submit(warm_up).result()  # compiles the kernels, which takes a process 100 MB that it keeps
    with open_cluster("local", workers=WORKERS, dashboard=asked.dashboard) as client:
        client.run(warm_up)
        client.run(ice.forget_seconds)
        client.run(forget_peak)
        client.register_plugin(Peaks())
        empty = client.run(peak_rss_mb)
        before = client.run(time.process_time)
        told = _run(dem, asked.out, client)
        used = [after - before[worker] for worker, after in client.run(time.process_time).items()]
        told |= {"CPU seconds of a worker": sum(used) / WORKERS}
        told |= {"of these to draw the ice": sum(client.run(ice.drawing_seconds).values()) / WORKERS}
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
    stages = Stages(out.with_suffix(".stages"), waiting())
    shutil.rmtree(stages.folder, ignore_errors=True)
    with _watched(stages.folder) as largest:
        write_frame(frame, out, order_by="sink_id", stages=stages, client=client, progress=True, description="sinks")
    shutil.rmtree(stages.folder)
    sinks = pd.read_parquet(out, columns=["area_m2", "capacity_m3", "depth_m"])
    return {
        "cells": dem.size,
        "tasks": tasks,
        "seconds": time.perf_counter() - start,
        "seconds to build the graph": built - start,
        "what waited on the disk, MB": largest[0] / 1e6,
        "sinks": len(sinks),
        "area, km2": sinks["area_m2"].sum() / 1e6,
        "capacity, km3": sinks["capacity_m3"].sum() / 1e9,
        "largest, km2": sinks["area_m2"].max() / 1e6,
        "deepest, m": sinks["depth_m"].max(),
    }


@contextmanager
def _watched(folder: Path) -> Iterator[list[int]]:
    """Look every few seconds how many bytes the files of a folder have; gives the most, in a list of one."""
    most, done = [0], Event()

    def watch() -> None:
        while not done.wait(WATCH_S):
            sizes = []
            for file in folder.rglob("*"):
                with suppress(FileNotFoundError):
                    sizes.append(file.stat().st_size)
            most[0] = max(most[0], sum(sizes))

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def _read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="GeoParquet of the sinks")
    parser.add_argument("--size", type=int, default=131072, help="cells a side")
    parser.add_argument("--chunk", type=int, default=2048, help="cells a side of a chunk")
    parser.add_argument("--dashboard", default="none", help="where to serve Dask's dashboard, host:port")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
