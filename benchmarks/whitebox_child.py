"""A process that fills one DEM with whitebox-workflows: it keeps gigabytes of each call, so each call gets its own.

    python -m benchmarks.whitebox_child DEM.tif

reads the DEM, says "ready", and then fills or saves what it filled, as told line by line: ``fill``, ``save OUT.npy``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class WhiteboxChild:
    """Such a process, held from outside."""

    def __init__(self, dem: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.whitebox_child", str(dem)]
        home = Path(__file__).resolve().parents[1]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=home
        )
        self._wait()

    def fill(self) -> None:
        """Fill, and return when that is done."""
        self._tell("fill")

    def answer(self, folder: Path) -> NDArray[np.float32]:
        """Read what was filled, by way of the disk."""
        path = folder / "filled.npy"
        self._tell(f"save {path}")
        return np.load(path, mmap_mode="r")

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._wait()

    def _wait(self) -> None:
        assert self._process.stdout is not None
        while (said := self._process.stdout.readline().strip()) != "ready":
            if not said and self._process.poll() is not None:
                raise RuntimeError(f"whitebox-workflows ended with {self._process.returncode}")


def main(dem: str) -> None:
    """Serve until nothing more is told."""
    import whitebox_workflows

    environment = whitebox_workflows.WbEnvironment()
    raster = environment.read_raster(dem)
    raster.pin()  # reads it
    fill = environment.hydrology.depressions_storage.fill_depressions
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        what, _, path = line.strip().partition(" ")
        if what == "fill":
            filled = fill(dem=raster, fix_flats=False)
        else:
            np.save(path, filled.to_numpy().astype(np.float32))
        sys.stdout.write("ready\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
