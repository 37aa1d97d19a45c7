"""Windows that overlap: each runs once, in the chunk where it starts."""

from __future__ import annotations

from itertools import chain, product
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from lakescale.chunks.blocks import read_again
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

    Chunks are taken row by row, and a chunk is finished as soon as its windows and those before it have run. What waits
    for the next row are the sums that reach into it: as many rows as windows overlap their chunk, in int64 (at most
    ``window - 1`` rows; 10 MB a chunk of the row, for windows of 1024 every 512 in chunks of 2048). So that no row of
    the source waits beside them, the source is computed a second time for the windows that reach into it from above:
    one that is dear should be stored before.

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
        order, so the result does not depend on the chunks. Sums that are all 0 need no memory as a broadcast 0.
    merge
        ``merge(sums) -> (y, x)``: from the sums of all windows to the result, pixel by pixel.
    name
        Name of the tasks: ``NAME-read``, ``NAME-run``, ``NAME-strip``, ``NAME-done``, ``NAME-turn`` and ``NAME``.
    dtype
        Of the result.
    """
    chunks = source.chunks[-2:]
    source = rechunk_yx(source, chunks)
    token = tokenize(source.name, plan, run, merge)
    again = read_again(source, token)
    names = _Names(*(f"{name}{step}-{token}" for step in ("-read", "-run", "-strip", "-done", "-turn", "")))
    patches = _plan_patches(chunks, plan)
    tasks = _run_tasks(patches, chunks, names, run, source.name, again.name)
    strip_tasks, sums = _strip_tasks(patches, chunks, names)
    turn_tasks, turns = _turn_tasks(patches, chunks, names)
    tasks |= strip_tasks | turn_tasks
    for i, row in enumerate(plan_blocks(chunks)):
        for j, place in enumerate(row):
            key = names.merged, i, j
            tasks[key] = Task(key, _merge_block, merge, place, List(*sums[i, j]), List(*turns[i, j]))
    graph = HighLevelGraph.from_collections(names.merged, tasks, dependencies=[source, again])
    return da.Array(graph, names.merged, chunks, dtype=dtype, meta=np.empty((0, 0), dtype))


def overlap_add_serial(
    array: NDArray[Any],
    plan: WindowPlan,
    run: Callable[[NDArray[Any], list[tuple[int, int]]], NDArray[np.int64]],
    merge: Callable[[NDArray[np.int64]], NDArray[Any]],
) -> NDArray[Any]:
    """Run what `overlap_add` runs, over the whole array at once."""
    height, width = array.shape[-2:]
    (patch,) = _plan_patches(((height,), (width,)), plan)
    sums = _run_patch(run, patch, [(array, _WHOLE, (slice(0, height), slice(0, width)))])
    return merge(sums[:, :height, :width])


_WHOLE = slice(None), slice(None)

_TURN = 5
"""Chunks of a row that have their turn together.

Dask would order blocks that nothing else tells apart by their names as text (9, 8, ..., 2, 19, 18, ..., 1), and a chunk
between two such fronts waits in memory with all of its sums. What is finished in turns has one front. A divisor of ten
keeps the chunks of a turn together in the order of their names, too; one by one they would wait for each other.
"""


class _Names(NamedTuple):
    """First parts of the keys."""

    read: str
    ran: str
    strip: str
    done: str
    turn: str
    merged: str


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


def _run_tasks(
    patches: list[_Patch],
    chunks: Chunks,
    names: _Names,
    run: Callable[[NDArray[Any], list[tuple[int, int]]], NDArray[np.int64]],
    source: str,
    again: str,
) -> dict[Any, Task]:
    """Run the windows of each patch on its chunk, and on what is cut out of others: those below are read again."""
    tasks: dict[Any, Task] = {}
    for patch in patches:
        parts = []
        for block, of_block, of_patch in shared_blocks(patch.place, chunks):
            if block == patch.owner:
                parts.append(List(TaskRef((source, 0, *block)), of_block, of_patch))
                continue
            key = (names.read, *patch.owner, *block)
            origin = source if block[0] == patch.owner[0] else again
            tasks[key] = Task(key, cut, TaskRef((origin, 0, *block)), of_block)
            parts.append(List(TaskRef(key), _WHOLE, of_patch))
        ran = (names.ran, *patch.owner)
        tasks[ran] = Task(ran, _run_patch, run, patch, List(*parts))
    return tasks


def _strip_tasks(
    patches: list[_Patch], chunks: Chunks, names: _Names
) -> tuple[dict[Any, Task], dict[tuple[int, int], list[List]]]:
    """Cut out of a patch's sums what belongs to other chunks; and list the sums of each chunk."""
    tasks: dict[Any, Task] = {}
    sums: dict[tuple[int, int], list[List]] = {block: [] for block in np.ndindex(*map(len, chunks))}
    for patch in patches:
        strips = []
        ran = (names.ran, *patch.owner)
        for block, of_block, of_patch in shared_blocks(patch.place, chunks):
            if block == patch.owner:
                sums[block].append(List(TaskRef(ran), of_patch, of_block))
                continue
            key = (names.strip, *patch.owner, *block)
            tasks[key] = Task(key, _cut_sums, TaskRef(ran), of_patch)
            sums[block].append(List(TaskRef(key), _WHOLE, of_block))
            strips.append(TaskRef(key))
        done = (names.done, *patch.owner)
        tasks[done] = Task(done, _after, *(strips or [TaskRef(ran)]))
    return tasks, sums


def _turn_tasks(
    patches: list[_Patch], chunks: Chunks, names: _Names
) -> tuple[dict[Any, Task], dict[tuple[int, int], list[TaskRef]]]:
    """Chain the chunks in turns; and list what must be done before each chunk is finished."""
    rows, cols = map(len, chunks)
    tasks: dict[Any, Task] = {}
    before: dict[tuple[int, int], list[TaskRef]] = {}
    last: list[TaskRef] = []
    owners = {patch.owner for patch in patches}
    for i, first in product(range(rows), range(0, cols, _TURN)):
        turn = [(i, j) for j in range(first, min(first + _TURN, cols))]
        done = {block: [TaskRef((names.done, *block))] for block in turn if block in owners}
        before |= {block: last + done.get(block, []) for block in turn}
        if done:
            key = (names.turn, i, first)
            tasks[key] = Task(key, _after, *last, *chain.from_iterable(done.values()))
            last = [TaskRef(key)]
    return tasks, before


def _after(*_: Any) -> None:
    """Do nothing, after others."""


def _cut_sums(sums: NDArray[np.int64], where: Slices) -> NDArray[np.int64]:
    """Copy sums, so that the rest can go; a broadcast 0 stays one."""
    return sums[..., *where] if 0 in sums.strides else cut(sums, where)


def _run_patch(
    run: Callable[[NDArray[Any], list[tuple[int, int]]], NDArray[np.int64]],
    patch: _Patch,
    parts: Sequence[tuple[NDArray[Any], Slices, Slices]],
) -> NDArray[np.int64]:
    first = parts[0][0]
    pixels = np.zeros((*first.shape[:-2], patch.place.height, patch.place.width), first.dtype)
    for part, of_part, of_patch in parts:
        pixels[..., *of_patch] = part[..., *of_part]
    return run(pixels, patch.corners)


def _merge_block(
    merge: Callable[[NDArray[np.int64]], NDArray[Any]],
    place: Place,
    sums: Sequence[tuple[NDArray[np.int64], Slices, Slices]],
    _before: Sequence[None],
) -> NDArray[Any]:
    total = np.zeros((sums[0][0].shape[0], place.height, place.width), np.int64)
    for part, of_part, of_block in sums:
        total[:, *of_block] += part[:, *of_part]
    return merge(total)
