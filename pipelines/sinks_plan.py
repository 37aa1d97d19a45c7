"""What a sinks run would take: tasks, bytes, and seconds from a calibration on one chunk. Writes nothing."""

from __future__ import annotations

import time
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
from dask.system import CPU_COUNT

from lakescale.depressions import as_elevation, declared_nodata, fill_stitch
from lakescale.evidence.sinks import fill_depressions, sink_depth
from lakescale.flats import drain_flats
from lakescale.grid import Grid
from lakescale.kernels.flood import Final, fill, survey
from lakescale.schema import SINK_DEPTH, InputError
from lakescale.store.codec import pack
from pipelines.sinks import DRAINED, FILLED, find_regions, measures_in_metres, open_elevation
from pipelines.sinks_recipe import stored_dem

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr
    from numpy.typing import NDArray

    from lakescale.kernels.flood import Survey
    from pipelines.sinks_recipe import SinksRecipe

EMPTY_WORKER_BYTES = 365e6
"""Measured: a worker process that has loaded lakescale and its compiled kernels, with nothing to do."""
FILL_BYTES_A_CELL, DEPTH_BYTES_A_CELL = 35, 40
"""Measured, of a chunk: above the empty worker, while it is filled and written, and while depths are (chunks of 1024 to
4096 cells a side, 1.9 to 6 % minima: 23 to 33, and 31 to 40)."""
WAITING_BYTES_A_SINK_CELL = 12
"""Of all cells of sinks, shared by the workers, while sinks are put together; see `lakescale.sink_depth`."""
SOLVE_BYTES_A_SUMMARY_BYTE = 3
"""Measured: what the solving task holds at its peak, by what is sent to it (170 to 280 kB of 80 to 100)."""
_COUNTED_CHUNKS = 8
"""Tasks are counted on a graph of so many chunks a side at most; each further chunk has as many."""
_CALIBRATED_PX, _REGIONS_PX, _WARM_PX = 2048, 1024, 64
_TRIED_CHUNKS = 25


class Calibration(NamedTuple):
    """One chunk, read and filled."""

    read_s: float
    survey_s: float
    fill_s: float
    pack_s: float
    """To compress it, without the disk."""
    regions_s: float
    """To outline and measure its sinks, as if it were the whole DEM; without reading."""
    summary_bytes: int
    sink_share: float
    """Share of its cells that lie in sinks."""
    place: str


def describe_plan(recipe: SinksRecipe) -> dict[str, str]:
    """Say what a run would write and take, after reading and filling one chunk of the DEM.

    Raises
    ------
    InputError
        As `pipelines.sinks.find_sinks`, as far as the headers tell; when no elevation is found near the DEM's middle.
    """
    dem = open_elevation(recipe)
    regions_wanted = measures_in_metres(dem, recipe)
    fill_depressions(dem, engine=recipe.engine, nodata=recipe.voids)  # refuses what cannot be filled
    grid, out = Grid.of(dem), recipe.outputs
    rows, cols = dem.data.numblocks
    files = [str(path) for path in out.files if path != out.regions or regions_wanted]
    store = f"{out.store}" if out.is_kept else f"{out.store} (while it runs)"
    has = {FILLED: True, SINK_DEPTH: out.store_has_depth, DRAINED: recipe.drained}
    layers = ", ".join(name for name, is_there in has.items() if is_there)
    told = {
        "dem": str(dem.attrs.get("source", stored_dem(recipe))),
        "writes": ", ".join([f"{store}: {layers}", *files]),
        "grid": f"{grid.shape[0]} x {grid.shape[1]} cells, {grid.crs.to_string()[:40]}",
        "chunks": f"{rows * cols} ({rows} x {cols} of {max(dem.data.chunks[0])} x {max(dem.data.chunks[1])} cells)",
    }
    if recipe.engine == "whitebox":
        return told | {"estimate": "none: WhiteboxTools fills the whole DEM in one task, in 40 bytes a cell"}
    told["tasks"] = f"about {_count_tasks(dem, recipe, regions_wanted=regions_wanted)}"
    found = calibrate(dem, recipe, regions_wanted=regions_wanted)
    return told | _estimate(dem, recipe, found)


def calibrate(dem: xr.DataArray, recipe: SinksRecipe, *, regions_wanted: bool = True) -> Calibration:
    """Read, survey, fill and pack the chunk in the DEM's middle, or the nearest to it that holds an elevation.

    Of a chunk larger than 2048 x 2048 cells only as many are filled, and the seconds and bytes are scaled.
    """
    index, chunk, read_s = _find_chunk(dem, recipe)
    place = f"chunk {index}: rows from {sum(dem.data.chunks[0][: index[0]])}, columns from "
    place += f"{sum(dem.data.chunks[1][: index[1]])}"
    block = np.ascontiguousarray(chunk[:_CALIBRATED_PX, :_CALIBRATED_PX])
    is_outlet = recipe.voids == "outlet"
    _survey_and_fill(block[:_WARM_PX, :_WARM_PX], void_is_outlet=is_outlet)  # loads the compiled kernels
    known, filled, survey_s, fill_s = _survey_and_fill(block, void_is_outlet=is_outlet)
    pack_s, _ = _timed(lambda: pack(filled, (block.shape[0], block.shape[1])))
    regions_s = 0.0
    if regions_wanted:
        _time_regions(dem, block[:_WARM_PX, :_WARM_PX], recipe)
        part = block[:_REGIONS_PX, :_REGIONS_PX]
        regions_s = _time_regions(dem, part, recipe) * block.size / part.size
    times = chunk.size / block.size
    sent = sum(values.nbytes for values in (*known.saddles, *known.node, *known.elevation))
    return Calibration(
        read_s, survey_s * times, fill_s * times, pack_s * times, regions_s * times,
        summary_bytes=int(sent * np.sqrt(times)), sink_share=float(np.mean(filled > block)), place=place,
    )  # fmt: skip


def _survey_and_fill(
    block: NDArray[np.float32], *, void_is_outlet: bool
) -> tuple[Survey, NDArray[np.float32], float, float]:
    """Fill one block with its own ring for an answer of the mosaic's; also the seconds of both steps."""
    block = np.ascontiguousarray(block)
    survey_s, known = _timed(lambda: survey(block, void_is_outlet=void_is_outlet))
    final = Final(known.elevation, np.ones(known.n_voids, bool))
    fill_s, filled = _timed(lambda: fill(block, final, void_is_outlet=void_is_outlet))
    return known, filled, survey_s, fill_s


def _time_regions(dem: xr.DataArray, block: NDArray[np.float32], recipe: SinksRecipe) -> float:
    """Take the time to outline the sinks of one block, as if it were the whole DEM."""
    part = dem[: block.shape[0], : block.shape[1]]
    frame = find_regions(part.copy(data=da.from_array(block, chunks=-1, name=False)), recipe)
    return _timed(lambda: frame.compute(scheduler="synchronous"))[0]


def _estimate(dem: xr.DataArray, recipe: SinksRecipe, found: Calibration) -> dict[str, str]:
    workers = recipe.cluster.workers or CPU_COUNT
    cells = max(dem.data.chunks[0]) * max(dem.data.chunks[1])
    peak = EMPTY_WORKER_BYTES + cells * max(FILL_BYTES_A_CELL, DEPTH_BYTES_A_CELL)
    waiting = WAITING_BYTES_A_SINK_CELL * found.sink_share * dem.size / workers
    solve = _largest_solve(dem.data.numblocks, found.summary_bytes) * SOLVE_BYTES_A_SUMMARY_BYTE
    depth, regions = recipe.outputs.store_has_depth, found.regions_s > 0
    reads = 2 + 2 * depth + 3 * regions  # to survey, to fill; of the DEM and of what was filled; for the regions
    chunk_s = reads * found.read_s + found.survey_s + found.fill_s + (1 + depth) * found.pack_s + found.regions_s
    each = {name: getattr(found, f"{name}_s") for name in ("read", "survey", "fill", "pack", "regions")}
    steps = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in each.items())
    total = chunk_s * dem.size / cells / workers
    return {
        "calibration": f"{found.place}: {steps}; {found.sink_share:.1%} of it in sinks",
        "bytes a worker": f"{peak:.3g}, and {waiting:.3g} for cells of sinks while these are put together",
        "bytes of the largest solving task": f"{solve:.3g} ({found.summary_bytes} sent by each chunk)",
        "estimate": f"{total:.3g} s with {workers} workers, without disk, network and GeoTIFFs",
    }


def _largest_solve(blocks: tuple[int, int], sent: int) -> int:
    """Tell how many bytes are sent to the largest task that solves seams: of all chunks, or of a square in a tree."""
    (rows, cols), tree, largest = blocks, fill_stitch("wall").tree, 0
    while tree is not None and rows * cols > tree.most:
        largest = max(largest, min(rows, tree.side) * min(cols, tree.side) * sent)
        rows, cols, sent = -(-rows // tree.side), -(-cols // tree.side), sent * tree.side
    return max(largest, rows * cols * sent)


def _count_tasks(dem: xr.DataArray, recipe: SinksRecipe, *, regions_wanted: bool) -> int:
    """Count the tasks of a corner of the DEM, and take as many for each other chunk."""
    rows, cols = (sum(axis[:_COUNTED_CHUNKS]) for axis in dem.data.chunks)
    part = dem[:rows, :cols]
    filled = fill_depressions(part, engine=recipe.engine, nodata=recipe.voids)
    written = [filled]
    if recipe.outputs.store_has_depth:
        before = part.astype(np.float32)  # stands for what a run reads from the store
        depth = sink_depth(part, filled=before, min_depth_m=recipe.min_depth_m, min_area_m2=recipe.min_area_m2)
        written.append(depth)
    if recipe.drained:
        written.append(drain_flats(part.astype(np.float32), nodata=recipe.voids))
    counted = sum(len(raster.data.dask) + raster.data.npartitions for raster in written)
    if regions_wanted:
        counted += len(find_regions(part, recipe).__dask_graph__())
    return round(counted * dem.data.npartitions / part.data.npartitions)


def _find_chunk(dem: xr.DataArray, recipe: SinksRecipe) -> tuple[tuple[int, int], NDArray[np.float32], float]:
    """Read chunks from the DEM's middle on, until one holds an elevation; its seconds are the first reading's."""
    rows, cols = dem.data.numblocks
    middle = (rows - 1) / 2, (cols - 1) / 2
    near = sorted(product(range(rows), range(cols)), key=lambda at: (at[0] - middle[0]) ** 2 + (at[1] - middle[1]) ** 2)
    missing = declared_nodata(dem)
    for index in near[:_TRIED_CHUNKS]:
        read = dem.data.blocks[index].compute
        read_s, chunk = _timed(lambda read=read: read(scheduler="synchronous"))  # type: ignore[misc]
        values = as_elevation(chunk, missing)
        if not np.isnan(values).all():
            return index, values, read_s
    what = f"no elevation in the {min(len(near), _TRIED_CHUNKS)} chunks nearest to the DEM's middle"
    raise InputError(what, ", ".join(recipe.source), "see whether --nodata is right; a run needs no --dry-run")


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result
