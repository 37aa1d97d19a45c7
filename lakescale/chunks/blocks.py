"""Grids of tasks, one a chunk, and how they are chained."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
from dask._task_spec import DataNode, Task, TaskRef, convert_legacy_graph
from dask.base import clone_key, tokenize
from dask.highlevelgraph import HighLevelGraph

from lakescale.chunks.plan import plan_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import xarray as xr
    from numpy.typing import DTypeLike, NDArray

    from lakescale.chunks.plan import Chunks


@dataclass(frozen=True)
class Blocks:
    """A grid of tasks, one a chunk, whose results need not be arrays."""

    graph: HighLevelGraph
    name: str
    """Key of block ``(i, j)`` is ``(name, i, j)``."""
    chunks: Chunks

    @classmethod
    def of(cls, array: da.Array) -> Blocks:
        """Take the blocks of a ``(y, x)`` dask array."""
        return cls(array.dask, array.name, array.chunks)

    @property
    def indices(self) -> list[tuple[int, int]]:
        """Block indices in raster order."""
        return list(product(range(len(self.chunks[0])), range(len(self.chunks[1]))))

    def refs(self) -> list[list[TaskRef]]:
        """Refer to every block, as rows of references."""
        rows, cols = (range(len(axis)) for axis in self.chunks)
        return [[TaskRef((self.name, i, j)) for j in cols] for i in rows]

    def to_array(self, dtype: DTypeLike) -> da.Array:
        """Wrap blocks that are ``(y, x)`` numpy arrays of their chunk's shape."""
        return da.Array(self.graph, self.name, self.chunks, dtype=dtype, meta=np.empty((0, 0), dtype))

    def extend(self, name: str, tasks: dict[Any, Task]) -> HighLevelGraph:
        """Add a layer that depends on this one."""
        return HighLevelGraph({**self.graph.layers, name: tasks}, {**self.graph.dependencies, name: {self.name}})


class PackedBits(NamedTuple):
    """A block of bool, or of uint8 flags, at an eighth of a byte a pixel and flag before compression."""

    planes: dict[int, bytes]
    """Compressed bits of each flag that is set anywhere in the block."""
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, block: NDArray[Any]) -> PackedBits:
        """Pack a block of bool or uint8."""
        flags = block.view(np.uint8)
        used = int(np.bitwise_or.reduce(flags, axis=None))
        planes = {bit: np.packbits(flags & bit) for bit in _BITS if used & bit}
        # a mask of lakes shrinks a hundredfold, in less time than it takes to look at its pixels once
        return cls({bit: zlib.compress(plane.tobytes(), 1) for bit, plane in planes.items()}, flags.shape, block.dtype)

    def unpack(self) -> NDArray[Any]:
        """Give the block back."""
        size = self.shape[0] * self.shape[1]
        flags = np.zeros(size, np.uint8)
        for bit, plane in self.planes.items():
            flags |= np.unpackbits(np.frombuffer(zlib.decompress(plane), np.uint8), count=size) * np.uint8(bit)
        return flags.reshape(self.shape).view(self.dtype)


_BITS = tuple(1 << k for k in range(8))


def on_dask(raster: xr.DataArray) -> da.Array:
    """Give the pixels of a raster as a dask array: as they are, or as one chunk where they lie in memory."""
    return raster.data if isinstance(raster.data, da.Array) else da.from_array(raster.data, chunks=-1)


def map_blocks(source: Blocks, name: str, function: Callable[[Any], Any]) -> Blocks:
    """Map a function of one block over blocks, whatever they are."""
    return add_layer(source, f"{name}-{tokenize(source.name, function)}", function)


def zip_blocks(name: str, function: Callable[..., Any], *arrays: da.Array) -> Blocks:
    """Map ``function(*blocks, place)`` over arrays of the same chunks; the results need not be arrays."""
    chunks = arrays[0].chunks
    if any(array.chunks != chunks for array in arrays):
        raise ValueError(f"arrays of different chunks, {[array.chunks for array in arrays]}")
    name = f"{name}-{tokenize(function, [array.name for array in arrays])}"
    tasks = {}
    for i, row in enumerate(plan_blocks(chunks)):
        for j, place in enumerate(row):
            tasks[name, i, j] = Task((name, i, j), function, *(TaskRef((a.name, i, j)) for a in arrays), place)
    return Blocks(HighLevelGraph.from_collections(name, tasks, dependencies=arrays), name, chunks)


def add_layer(source: Blocks, name: str, function: Callable[[Any], Any]) -> Blocks:
    """Add a task for each block: ``function(block)``."""
    tasks = {(name, i, j): Task((name, i, j), function, TaskRef((source.name, i, j))) for i, j in source.indices}
    return Blocks(source.extend(name, tasks), name, source.chunks)


def read_again(
    array: da.Array, *told_apart_by: Any, after: Blocks | None = None, only: Sequence[tuple[int, int]] | None = None
) -> da.Array:
    """Give an array tasks of its own, so that what it shares with others need not wait in memory for them.

    (`dask.graph_manipulation.clone` leaves the references inside tasks as they were: they would still be shared.)

    Parameters
    ----------
    array
        What is read.
    told_apart_by
        Whatever tells this reading from others.
    after
        Blocks of the same grid: the reading of one begins when that one is there. Without it workers read on while they
        wait for a barrier, and hold what they read.
    only
        The blocks that there are of ``after``, and that will be read; None: all. What they share with others must not
        wait for these.
    """
    token = tokenize(array.name, told_apart_by)
    tasks = convert_legacy_graph(array.__dask_graph__().to_dict())
    renamed = {key: clone_key(key, token) for key in tasks}
    again = {renamed[key]: task.substitute(renamed, key=renamed[key]) for key, task in tasks.items()}
    name = clone_key(array.name, token)
    if after is None:
        graph = HighLevelGraph({name: again}, {name: set()})
    else:
        again |= dict(_wait(again, name, after, after.indices if only is None else only))
        graph = after.extend(name, again)
    return da.Array(graph, name, array.chunks, dtype=array.dtype, meta=array._meta)  # noqa: SLF001  (has no other name)


def _wait(
    tasks: dict[Any, Any], name: str, after: Blocks, blocks: Sequence[tuple[int, int]]
) -> Iterator[tuple[Any, Task]]:
    """Make the first tasks of each block wait; one that several blocks share waits for the first of these."""
    seen: set[Any] = set()
    for index in blocks:
        found = [(name, *index)]
        while found:
            key = found.pop()
            if key in seen or isinstance(tasks[key], DataNode):
                continue
            seen.add(key)
            needed = tasks[key].dependencies
            if all(isinstance(tasks[one], DataNode) for one in needed):
                yield key, Task(key, _after, TaskRef((after.name, *index)), tasks[key])
            found += needed


def _after(_done: Any, result: Any) -> Any:
    return result


def split_blocks(array: NDArray[Any], chunks: Chunks) -> list[list[NDArray[Any]]]:
    """Cut a ``(y, x)`` array into rows of blocks, for the serial twins."""
    return [[array[p.row : p.row + p.height, p.col : p.col + p.width] for p in row] for row in plan_blocks(chunks)]
