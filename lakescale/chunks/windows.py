"""Windows that overlap: each runs once, in the chunk where it starts."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from lakescale.chunks.plan import Place, cut, plan_blocks, rechunk_yx, shared_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike, NDArray

    from lakescale.chunks.plan import Chunks, Slices, WindowPlan


def overlap_add(
    source: da.Array,
    plan: WindowPlan,
    run: Callable[[NDArray[Any], list[tuple[int, int]]], NDArray[np.int64]],
    merge: Callable[[NDArray[np.int64]], NDArray[Any]],
    *,
    name: str,
    dtype: DTypeLike,
) -> da.Array:
    """Run windows once each, in the chunk where they start, and add what they overlap.

    Parameters
    ----------
    source
        ``(band, y, x)``.
    plan
        The windows.
    run
        ``run(patch, corners) -> sums``: ``patch`` ``(band, y, x)`` holds all windows of one chunk, padded with zeros
        beyond the grid; ``corners`` are the windows' first pixels ``(row, col)`` in it; ``sums`` is int64
        ``(k, y, x)``, the sum over these windows of whatever is to be added. Integer sums do not depend on their
        order, so the result does not depend on the chunks.
    merge
        ``merge(sums) -> (y, x)``: from the sums of all windows to the result, pixel by pixel.
    name
        Name of the tasks: ``NAME-read``, ``NAME-run``, ``NAME-strip`` and ``NAME``.
    dtype
        Of the result.
    """
    chunks = source.chunks[-2:]
    source = rechunk_yx(source, chunks)
    token = tokenize(source.name, plan, run, merge)
    read, ran, strip, name = (f"{name}{step}-{token}" for step in ("-read", "-run", "-strip", ""))
    tasks: dict[Any, Task] = {}
    strips: dict[tuple[int, int], list[Any]] = {block: [] for block in np.ndindex(*source.numblocks[-2:])}
    for patch in _plan_patches(chunks, plan):
        parts = []
        for block, of_block, of_patch in shared_blocks(patch.place, chunks):
            key = (read, *patch.owner, *block)
            tasks[key] = Task(key, cut, TaskRef((source.name, 0, *block)), of_block)
            parts.append(List(TaskRef(key), of_patch))
            key = (strip, *patch.owner, *block)
            tasks[key] = Task(key, cut, TaskRef((ran, *patch.owner)), of_patch)
            strips[block].append(List(TaskRef(key), of_block))
        tasks[ran, *patch.owner] = Task((ran, *patch.owner), _run_patch, run, patch, List(*parts))
    for i, row in enumerate(plan_blocks(chunks)):
        for j, place in enumerate(row):
            tasks[name, i, j] = Task((name, i, j), _merge_block, merge, place, List(*strips[i, j]))
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[source])
    return da.Array(graph, name, chunks, dtype=dtype, meta=np.empty((0, 0), dtype))


def overlap_add_serial(
    array: NDArray[Any],
    plan: WindowPlan,
    run: Callable[[NDArray[Any], list[tuple[int, int]]], NDArray[np.int64]],
    merge: Callable[[NDArray[np.int64]], NDArray[Any]],
) -> NDArray[Any]:
    """Run what `overlap_add` runs, over the whole array at once."""
    height, width = array.shape[-2:]
    (patch,) = _plan_patches(((height,), (width,)), plan)
    sums = _run_patch(run, patch, [(array, (slice(0, height), slice(0, width)))])
    return merge(sums[:, :height, :width])


class _Patch(NamedTuple):
    """The windows that one chunk owns, and the pixels they cover."""

    owner: tuple[int, int]
    place: Place
    corners: list[tuple[int, int]]


def _plan_patches(chunks: Chunks, plan: WindowPlan) -> list[_Patch]:
    owned = [plan.owned(axis) for axis in chunks]
    patches = []
    for i, j in product(range(len(owned[0])), range(len(owned[1]))):
        rows, cols = owned[0][i], owned[1][j]
        if rows and cols:
            place = Place(rows[0], cols[0], rows[-1] - rows[0] + plan.window, cols[-1] - cols[0] + plan.window)
            corners = [(r - place.row, c - place.col) for r, c in product(rows, cols)]
            patches.append(_Patch((i, j), place, corners))
    return patches


def _run_patch(
    run: Callable[[NDArray[Any], list[tuple[int, int]]], NDArray[np.int64]],
    patch: _Patch,
    parts: Sequence[tuple[NDArray[Any], Slices]],
) -> NDArray[np.int64]:
    first = parts[0][0]
    pixels = np.zeros((*first.shape[:-2], patch.place.height, patch.place.width), first.dtype)
    for part, where in parts:
        pixels[..., *where] = part
    return run(pixels, patch.corners)


def _merge_block(
    merge: Callable[[NDArray[np.int64]], NDArray[Any]],
    place: Place,
    strips: Sequence[tuple[NDArray[np.int64], Slices]],
) -> NDArray[Any]:
    total = np.zeros((strips[0][0].shape[0], place.height, place.width), np.int64)
    for strip, where in strips:
        total[:, *where] += strip
    return merge(total)
