"""Map a function over chunks with a halo."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from lakescale.chunks.blocks import Blocks
from lakescale.chunks.plan import plan_tiles, rechunk_yx

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike, NDArray

    from lakescale.chunks.plan import Chunks


def map_tiles(
    kernel: Callable[..., NDArray[Any]],
    *arrays: da.Array,
    depth: int,
    name: str,
    dtype: DTypeLike,
    options: dict[str, Any] | None = None,
) -> da.Array:
    """Map a kernel over blocks with a halo; the result is 2-D and chunked like the first array.

    The kernel gets blocks that end where the mosaic ends (no padding there: the edge is its own business) and reach
    ``depth`` pixels into every neighbour, and returns ``(y, x)`` of the same height and width; what it computes in the
    halo is cut off. Its result inside must not depend on anything further away than ``depth``.

    Parameters
    ----------
    kernel
        ``kernel(*blocks, **options) -> (y, x)``.
    arrays
        ``(y, x)`` or ``(band, y, x)``, of one height and width; the chunks of the first one count.
    depth
        Pixels of halo; 0 for a function of single pixels.
    name
        Name of the tasks on the dashboard.
    dtype
        Of the result.
    options
        Keyword arguments of the kernel.
    """
    chunks = arrays[0].chunks[-2:]
    wide = tuple(_at_least(axis, depth) for axis in chunks)
    blocks = [rechunk_yx(array, wide) for array in arrays]
    token = tokenize(kernel, [array.name for array in blocks], depth, options)
    edges, name = f"{name}-edges-{token}", f"{name}-{token}"
    rows, cols = (range(len(axis)) for axis in wide)
    tasks = {}
    for i, j in product(rows, cols):
        own = [TaskRef((array.name, *(0,) * (array.ndim - 2), i, j)) for array in blocks]
        around = [(y, x) for y, x in _AROUND if depth and i + y in rows and j + x in cols]
        if around:
            tasks[edges, i, j] = Task((edges, i, j), _cut_edges, List(*own), depth)
        beside = List(*(List(y, x, TaskRef((edges, i + y, j + x))) for y, x in around))
        tasks[name, i, j] = Task((name, i, j), _run_tile, kernel, options or {}, depth, List(*own), beside)
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=blocks)
    return da.Array(graph, name, wide, dtype=dtype, meta=np.empty((0, 0), dtype)).rechunk(chunks)


def map_tiles_serial(
    kernel: Callable[..., NDArray[Any]],
    *arrays: NDArray[Any],
    chunks: Chunks,
    depth: int,
    dtype: DTypeLike,
    options: dict[str, Any] | None = None,
) -> NDArray[Any]:
    """Run what `map_tiles` runs, in a plain loop over numpy arrays."""
    out = np.empty(arrays[0].shape[-2:], dtype)
    for row in plan_tiles(chunks, depth):
        for tile in row:
            out[tile.inner] = kernel(*(a[..., *tile.outer] for a in arrays), **(options or {}))[tile.trim]
    return out


def map_beside(
    source: Blocks,
    name: str,
    share: Callable[[Any], Any],
    function: Callable[[Any, dict[tuple[int, int], Any]], Any],
) -> Blocks:
    """Map ``function(block, {(y, x): share(neighbour)})`` over blocks, whatever they are.

    ``(y, x)`` says where the neighbour lies, from ``(-1, -1)`` to ``(1, 1)``: those beyond the mosaic's edge are not
    there. Two tasks a block; a block waits for those below it, so what it holds should be little.
    """
    token = tokenize(source.name, share, function)
    shared, name = f"{name}-shared-{token}", f"{name}-{token}"
    there = set(source.indices)
    tasks = {}
    for i, j in source.indices:
        around = [(y, x) for y, x in _AROUND if (i + y, j + x) in there]
        if around:
            tasks[shared, i, j] = Task((shared, i, j), share, TaskRef((source.name, i, j)))
        beside = List(*(List(y, x, TaskRef((shared, i + y, j + x))) for y, x in around))
        tasks[name, i, j] = Task((name, i, j), _run_beside, function, TaskRef((source.name, i, j)), beside)
    return Blocks(source.extend(name, tasks), name, source.chunks)


def with_least_chunks(array: da.Array, least: int) -> da.Array:
    """Merge chunks until each is at least so many pixels high and wide, as far as the array is."""
    return rechunk_yx(array, tuple(_at_least(axis, least) for axis in array.chunks[-2:]))


def _at_least(axis: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Merge chunks until each holds ``depth`` pixels, so that a halo comes from the next neighbour alone."""
    merged: list[int] = []
    for size in axis:
        if merged and merged[-1] < depth:
            merged[-1] += size
        else:
            merged.append(size)
    if len(merged) > 1 and merged[-1] < depth:
        merged[-2:] = [sum(merged[-2:])]
    return tuple(merged)


_AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]


class _Edges(NamedTuple):
    """What the neighbours of a block need of it: its outermost pixels, ``depth`` deep."""

    top: NDArray[Any]
    bottom: NDArray[Any]
    left: NDArray[Any]
    right: NDArray[Any]

    def facing(self, y: int, x: int, depth: int) -> NDArray[Any]:
        """Give the pixels that face a block from which this one lies ``y`` blocks down and ``x`` to the right."""
        strip = self.bottom if y < 0 else self.top
        if y == 0:
            return self.right if x < 0 else self.left
        if x == 0:
            return strip
        return strip[..., -depth:] if x < 0 else strip[..., :depth]


def _cut_edges(blocks: list[NDArray[Any]], depth: int) -> list[_Edges]:
    cuts = ((slice(None, depth), slice(None)), (slice(-depth, None), slice(None)))
    cuts += tuple((cols, rows) for rows, cols in cuts)
    return [_Edges(*(block[..., *cut].copy() for cut in cuts)) for block in blocks]  # a view keeps the block alive


def _run_beside(
    function: Callable[[Any, dict[tuple[int, int], Any]], Any], block: Any, beside: list[tuple[int, int, Any]]
) -> Any:
    return function(block, {(y, x): shared for y, x, shared in beside})


def _run_tile(
    kernel: Callable[..., NDArray[Any]],
    options: dict[str, Any],
    depth: int,
    blocks: list[NDArray[Any]],
    beside: list[tuple[int, int, list[_Edges]]],
) -> NDArray[Any]:
    height, width = blocks[0].shape[-2:]
    top, bottom = (depth * any(y == side for y, _, _ in beside) for side in (-1, 1))
    left, right = (depth * any(x == side for _, x, _ in beside) for side in (-1, 1))
    spans_y = {-1: slice(0, top), 0: slice(top, top + height), 1: slice(top + height, top + height + bottom)}
    spans_x = {-1: slice(0, left), 0: slice(left, left + width), 1: slice(left + width, left + width + right)}
    framed = []
    for k, block in enumerate(blocks):
        pixels = np.empty((*block.shape[:-2], top + height + bottom, left + width + right), block.dtype)
        pixels[..., spans_y[0], spans_x[0]] = block
        for y, x, edges in beside:
            pixels[..., spans_y[y], spans_x[x]] = edges[k].facing(y, x, depth)
        framed.append(pixels)
    result = kernel(*(framed if beside else blocks), **options)
    return np.ascontiguousarray(result[spans_y[0], spans_x[0]])
