"""Blocks of another grid: each is a function of the source pixels in a window that is planned before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from lakescale.chunks.plan import cut, plan_blocks, rechunk_yx, shared_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike, NDArray

    from lakescale.chunks.plan import Chunks, Place, Slices


def pull(
    source: da.Array,
    chunks: Chunks,
    windows: list[list[Place]],
    run: Callable[[NDArray[Any], Place, Place], NDArray[Any]],
    *,
    name: str,
    dtype: DTypeLike,
) -> da.Array:
    """Make each block of a target grid from the source pixels in its window.

    A task holds its window, put together from copies cut out of the source's chunks; where windows overlap, their
    shared pixels are copied again. One task a block, and one for each source chunk that its window reaches.

    Parameters
    ----------
    source
        ``(y, x)`` or ``(band, y, x)``.
    chunks
        Of the target grid.
    windows
        Rows of windows, one a target block, within the source; a window without pixels (height and width 0) reads
        nothing.
    run
        ``run(pixels, window, place) -> block``: the source pixels ``(..., y, x)`` of a window, the window, and where
        the block lies in the target grid. The block has the leading axes of the source.
    name
        Name of the tasks: ``NAME-read`` and ``NAME``.
    dtype
        Of the result.
    """
    source = rechunk_yx(source, source.chunks[-2:])
    token = tokenize(source.name, chunks, windows, run)
    read, name = f"{name}-read-{token}", f"{name}-{token}"
    leading = (0,) * (source.ndim - 2)
    tasks: dict[Any, Task] = {}
    for i, (window_row, place_row) in enumerate(zip(windows, plan_blocks(chunks), strict=True)):
        for j, (window, place) in enumerate(zip(window_row, place_row, strict=True)):
            parts = []
            for block, of_block, of_window in shared_blocks(window, source.chunks[-2:]) if window.height else ():
                key = (read, i, j, *block)
                tasks[key] = Task(key, cut, TaskRef((source.name, *leading, *block)), of_block)
                parts.append(List(TaskRef(key), of_window))
            key = (name, *leading, i, j)
            tasks[key] = Task(key, _run_block, run, source.shape[:-2], source.dtype, window, place, List(*parts))
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[source])
    whole_bands = tuple((n,) for n in source.shape[:-2])
    return da.Array(graph, name, (*whole_bands, *chunks), dtype=dtype, meta=np.empty((0,) * source.ndim, dtype))


def pull_serial(
    array: NDArray[Any],
    chunks: Chunks,
    windows: list[list[Place]],
    run: Callable[[NDArray[Any], Place, Place], NDArray[Any]],
    *,
    dtype: DTypeLike,
) -> NDArray[Any]:
    """Run what `pull` runs, in a plain loop over a numpy array."""
    out = np.empty((*array.shape[:-2], *(sum(axis) for axis in chunks)), dtype)
    for window_row, place_row in zip(windows, plan_blocks(chunks), strict=True):
        for window, place in zip(window_row, place_row, strict=True):
            pixels = array[..., *_slices(window)]
            out[..., *_slices(place)] = run(pixels, window, place)
    return out


def _slices(place: Place) -> Slices:
    return slice(place.row, place.row + place.height), slice(place.col, place.col + place.width)


def _run_block(
    run: Callable[[NDArray[Any], Place, Place], NDArray[Any]],
    leading: tuple[int, ...],
    dtype: np.dtype[Any],
    window: Place,
    place: Place,
    parts: Sequence[tuple[NDArray[Any], Slices]],
) -> NDArray[Any]:
    if len(parts) == 1:
        return run(parts[0][0], window, place)
    pixels = np.empty((*leading, window.height, window.width), dtype)
    for part, where in parts:
        pixels[..., *where] = part
    return run(pixels, window, place)
