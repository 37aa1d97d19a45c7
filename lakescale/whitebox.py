"""WhiteboxTools' FillDepressions on one array: finding the binary, preparing the raster, running, checking.

FillDepressions does not take the border of a raster, nor nodata, for an outlet: pits beside them come out too high (400
cells of a 400 x 400 lidar DEM). So the raster is prepared: a ring of cells lower than any land round it, and cells as
low in place of voids that drain; ``max_depth`` keeps it from filling these. It then equals priority-flood.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psutil
import rasterio
from rasterio.errors import RasterioError
from rasterio.transform import from_origin
from scipy import ndimage

from lakescale.kernels.components import border_parts, find_parts, paint
from lakescale.schema import InputError, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EXECUTABLE = "whitebox_tools.exe" if os.name == "nt" else "whitebox_tools"
_TRIES = 10
_LAST_LINES = 8
_BYTES_PER_CELL = 40
"""Measured peak of this process and the binary together; see `require_memory`."""
_NEIGHBOURS = np.ones((3, 3), bool)
_NODATA = -3e38
_FRONT_END = """
import contextlib, os, sys
with contextlib.suppress(AttributeError, OSError):
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
import whitebox
tools = whitebox.WhiteboxTools()
tools.set_whitebox_dir(sys.argv[1])
tools.run_tool("fill_depressions", sys.argv[2:])
"""
"""The package changes the working directory, so it runs in a process of its own. FillDepressions panics when its main
thread wakes before the last worker has let go of the raster; batch scheduling keeps it from waking so early (0 panics
in 160 runs instead of 14 to 63)."""


def find_binary() -> Path:
    """Find the WhiteboxTools executable, without letting the package `whitebox` download one.

    In ``$WBT_PATH`` (a folder or the file; then nowhere else), in the packages ``whitebox`` and ``weppcloud-wbt``, on
    ``PATH``.

    Raises
    ------
    InputError
        When there is none.
    """
    said = os.environ.get("WBT_PATH")
    if said:
        places = [Path(said), Path(said) / _EXECUTABLE]
    else:
        on_path = shutil.which(_EXECUTABLE)
        places = [
            *_in_package("whitebox", "", "WBT"),
            *_in_package("weppcloud_wbt", "bin"),
            *([Path(on_path)] if on_path else []),
        ]
    for place in places:
        if place.is_file() and os.access(place, os.X_OK):
            return place.resolve()
    raise InputError(
        "there is no WhiteboxTools executable" if said else "WhiteboxTools is not installed",
        f"WBT_PATH={said}" if said else "engine='whitebox'",
        "set WBT_PATH to its folder, or run: pip install weppcloud-wbt; or take engine='tiled', which needs none",
    )


def require_memory(shape: tuple[int, int]) -> None:
    """Refuse a DEM that does not fit into the memory of this machine, with its numbers."""
    need, have = shape[0] * shape[1] * _BYTES_PER_CELL, psutil.virtual_memory().available
    if need > have:
        raise InputError(
            f"engine='whitebox' holds the whole DEM in memory: {need / 2**30:.1f} GiB ({_BYTES_PER_CELL} bytes a "
            f"cell), {have / 2**30:.1f} GiB are free",
            f"DEM of {shape[0]} x {shape[1]}",
            "take engine='tiled', or a smaller area",
        )


def fill_array(dem: NDArray[np.float32], *, nodata: str) -> NDArray[np.float32]:
    """Fill the depressions of one array with WhiteboxTools.

    Parameters
    ----------
    dem
        float32 ``(y, x)``, m; NaN = void, no infinities.
    nodata
        What enclosed voids are: ``wall`` or ``outlet``. Voids joined to the edge are outlets.

    Returns
    -------
    numpy.ndarray
        float32 ``(y, x)``, NaN in voids.

    Raises
    ------
    InputError
        When WhiteboxTools is not installed.
    RunError
        When ten runs gave no usable answer.
    """
    void = np.isnan(dem)
    if void.all():
        return dem.copy()
    binary = find_binary()
    outlet = _outlets(void, nodata)
    with tempfile.TemporaryDirectory(prefix="lakescale-whitebox-") as folder:
        job = _Job(binary, Path(folder), dem.shape)
        filled = _run(job, _write(job, *_prepare(dem, void, outlet)))
    kept = _cut_off(void, outlet)
    filled[kept] = dem[kept]
    filled[void] = np.nan
    if (filled < dem).any():
        wrong = "WhiteboxTools' FillDepressions lowered cells, which no fill does"
        raise RunError(wrong, str(binary), "take engine='tiled'")
    return filled


# -- what drains


def _outlets(void: NDArray[np.bool_], nodata: str) -> NDArray[np.bool_]:
    """Voids that drain: those joined to the edge, and all if enclosed ones are outlets."""
    if nodata == "outlet" or not void.any():
        return void
    parts = find_parts(void, connectivity=8)
    joined = np.zeros(parts.n_parts + 1, bool)
    joined[np.concatenate(border_parts(parts))] = True
    return paint(parts, joined[1:], np.zeros(void.shape, bool))


def _cut_off(void: NDArray[np.bool_], outlet: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Land that reaches no outlet: it lies within walls."""
    out = np.zeros(void.shape, bool)
    if np.array_equal(void, outlet):
        return out
    parts = find_parts(~void, connectivity=8)
    drains = np.zeros(parts.n_parts + 1, bool)
    drains[np.concatenate(border_parts(parts))] = True
    number = paint(parts, np.arange(1, parts.n_parts + 1, dtype=np.int32), np.zeros(void.shape, np.int32))
    drains[number[ndimage.binary_dilation(outlet, _NEIGHBOURS)]] = True
    return paint(parts, ~drains[1:], out)


def _prepare(
    dem: NDArray[np.float32], void: NDArray[np.bool_], outlet: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], float]:
    """Make the raster that gives our answer, one cell wider on each side, and the depth above which nothing is filled.

    Deep inside outlets it is nodata: FillDepressions spends minutes on a flat of 10,000 equal cells.
    """
    lowest, highest = float(np.nanmin(dem)), float(np.nanmax(dem))
    span = max(highest - lowest, 1.0, 1e-3 * max(abs(lowest), abs(highest)))
    low = np.float32(lowest - 3 * span)
    ready = np.full((dem.shape[0] + 2, dem.shape[1] + 2), low)
    inner = ready[1:-1, 1:-1]
    inner[...] = dem
    inner[void] = highest
    if outlet.any():
        inner[outlet] = low
        inner[ndimage.binary_erosion(outlet, _NEIGHBOURS)] = _NODATA
    return ready, 2 * span


# -- the binary


class _Job(NamedTuple):
    binary: Path
    folder: Path
    shape: tuple[int, ...]

    @property
    def source(self) -> Path:
        return self.folder / "dem.tif"

    @property
    def target(self) -> Path:
        return self.folder / "filled.tif"

    @property
    def tools(self) -> Path:
        return self.folder / "tools"


def _run(job: _Job, max_depth: float) -> NDArray[np.float32]:
    """Run the binary until its output file is what was asked for; what it says of itself is not believed."""
    said = ""
    for _ in range(_TRIES):
        job.target.unlink(missing_ok=True)
        said = _call(job, max_depth)
        filled = _read(job)
        if filled is not None:
            return filled
    lines = [line for line in said.splitlines() if line.strip()][-_LAST_LINES:]
    raise RunError(
        f"WhiteboxTools' FillDepressions failed {_TRIES} times; its last lines: {' | '.join(lines) or '(none)'}",
        str(job.binary),
        "take engine='tiled', which needs no binary",
    )


def _write(job: _Job, ready: NDArray[np.float32], max_depth: float) -> float:
    """Write the raster, and a copy of the binary: it writes its settings beside itself, and they would stay.

    The depth is handed on, so that the raster can be let go of before the binary runs.
    """
    height, width = ready.shape
    try:
        job.tools.mkdir()
        shutil.copy(job.binary, job.tools / _EXECUTABLE)
        with rasterio.open(
            job.source, "w", driver="GTiff", count=1, height=height, width=width, dtype="float32", nodata=_NODATA,
            crs="EPSG:3413", transform=from_origin(0, height, 1, 1), BIGTIFF="IF_SAFER",
        ) as sink:  # fmt: skip
            sink.write(ready, 1)
    except (OSError, RasterioError) as error:
        failure = str(error)
    else:
        return max_depth
    raise RunError(
        f"the DEM cannot be written for WhiteboxTools: {failure}",
        str(job.folder),
        "set TMPDIR to a folder with 12 bytes a cell of free space, or take engine='tiled'",
    )


def _call(job: _Job, max_depth: float) -> str:
    """Run the front end once; everything that it and the binary said."""
    arguments = [
        str(job.tools), f"--dem={job.source}", f"--output={job.target}", f"--max_depth={max_depth}", "--max_procs=1",
    ]  # fmt: skip
    libraries = [str(folder) for up in job.binary.parents[:3] for folder in up.glob("*.libs")]
    environment = {
        **os.environ,
        "WBT_PATH": str(job.tools),  # keeps the package from downloading
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [*libraries, os.environ.get("LD_LIBRARY_PATH", "")])),
    }
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _FRONT_END, *arguments],
        cwd=job.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        check=False,
    )  # fmt: skip
    return done.stdout


def _read(job: _Job) -> NDArray[np.float32] | None:
    """Read the output without its margin; None where it is missing, cut short or of another shape."""
    try:
        with rasterio.open(job.target) as raster:
            filled: NDArray[Any] = raster.read(1, out_dtype="float32")
    except (OSError, RasterioError):
        return None
    inside = filled[1:-1, 1:-1]
    return inside if inside.shape == job.shape else None


def _in_package(name: str, *parts: str) -> list[Path]:
    """Where executables lie in an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    return [] if folder is None else [folder / part / _EXECUTABLE for part in parts]
