"""Schedulers and workers as processes of their own, started by dask's command."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

DASK = str(Path(sys.executable).parent / "dask")


@contextmanager
def dask_command(folder, *arguments):
    with (folder / f"{arguments[0]}-{time.monotonic_ns()}.log").open("w") as said:
        process = subprocess.Popen([DASK, *arguments], stdout=said, stderr=said, cwd=Path(__file__).parents[1])
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def scheduler_process(folder):
    told = folder / "scheduler.json"
    options = "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(told)
    with dask_command(folder, "scheduler", *options) as process:
        while not told.exists():
            assert process.poll() is None
            time.sleep(0.05)
        yield pd.read_json(told, typ="series")["address"]
