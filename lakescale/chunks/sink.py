"""Tasks that are there for what they do, such as writing a block, and for some blocks only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dask.array as da
import numpy as np
from dask._task_spec import List, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph

from lakescale.chunks.plan import plan_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from lakescale.chunks.plan import Chunks, Place


def sink(write: Callable[..., int], *arrays: da.Array, blocks: Sequence[tuple[int, int]], name: str) -> da.Array:
    """Hand some blocks of arrays to a function that does something with them; the others are not computed.

    Parameters
    ----------
    write
        ``write(index, place, pixels) -> number``: the block's row and column among the blocks, where it lies, and the
        pixels of each array there. It must bear to be run twice, since a worker may die.
    arrays
        ``(y, x)`` or ``(band, y, x)`` in one chunk of bands, with the same chunks along y and x.
    blocks
        Row and column of the blocks to compute.
    name
        Name of the tasks.

    Returns
    -------
    dask.array.Array
        int64, what ``write`` returned for each block. No two calls share tasks.
    """
    places = plan_blocks(arrays[0].chunks[-2:])
    key = f"{name}-{uuid4().hex}"  # of an equal name Dask could hand back the earlier result, and nothing would be done
    tasks = {}
    for k, (i, j) in enumerate(blocks):
        pixels = List(*(TaskRef((array.name, *(0,) * (array.ndim - 2), i, j)) for array in arrays))
        tasks[key, k] = Task((key, k), _run_block, write, (i, j), places[i][j], pixels)
    return _as_array(HighLevelGraph.from_collections(key, tasks, dependencies=list(arrays)), key, len(blocks))


def sink_parts(
    write: Callable[[int, list[Any]], int],
    graph: Mapping[Any, Any],
    groups: Sequence[list[Any]],
    *,
    numbers: Sequence[int],
    name: str,
) -> da.Array:
    """Hand groups of results, such as partitions of a frame, to a function that does something with them.

    Parameters
    ----------
    write
        ``write(number, results) -> number``. It must bear to be run twice, since a worker may die.
    graph
        Tasks that make the results.
    groups
        Keys of the results of each group.
    numbers
        What each group is called.
    name
        Name of the tasks.

    Returns
    -------
    dask.array.Array
        int64, what ``write`` returned for each group. No two calls share tasks.
    """
    key = f"{name}-{uuid4().hex}"
    tasks = dict(graph)
    for k, (number, group) in enumerate(zip(numbers, groups, strict=True)):
        tasks[key, k] = Task((key, k), _run_part, write, number, List(*map(TaskRef, group)))
    return _as_array(HighLevelGraph.from_collections(key, tasks), key, len(groups))


def sink_serial(
    write: Callable[..., int], *arrays: NDArray[Any], chunks: Chunks, blocks: Sequence[tuple[int, int]]
) -> list[int]:
    """Run what `sink` runs, in a plain loop over numpy arrays."""
    places = plan_blocks(chunks)
    results = []
    for i, j in blocks:
        row, col, height, width = places[i][j]
        pixels = [array[..., row : row + height, col : col + width] for array in arrays]
        results.append(write((i, j), places[i][j], pixels))
    return results


def _as_array(graph: HighLevelGraph, key: str, count: int) -> da.Array:
    return da.Array(graph, key, ((1,) * count,), dtype=np.int64, meta=np.empty(0, np.int64))


def _run_part(write: Callable[[int, list[Any]], int], number: int, results: list[Any]) -> NDArray[np.int64]:
    return np.array([write(number, results)], np.int64)


def _run_block(
    write: Callable[..., int], index: tuple[int, int], place: Place, pixels: list[NDArray[Any]]
) -> NDArray[np.int64]:
    return np.array([write(index, place, pixels)], np.int64)
