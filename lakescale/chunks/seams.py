"""Solve blocks, then their seams, then blocks again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
from dask._task_spec import Alias, Task, TaskRef
from dask.base import normalize_token, tokenize
from dask.dataframe import from_graph
from dask.highlevelgraph import HighLevelGraph
from dask.optimization import cull

from lakescale.chunks.blocks import Blocks, add_layer, read_again
from lakescale.chunks.plan import plan_blocks
from lakescale.chunks.solving import pick_answer, solve, solve_at_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakescale.chunks.plan import Chunks, Place
    from lakescale.chunks.solving import Tree


class Stitch(NamedTuple):
    """What to do with blocks whose answer depends on other blocks.

    Without a tree ``solve`` is the one task that sees the whole mosaic: its memory is the sum of the summaries.
    """

    name: str
    """Prefix of the task names: ``NAME-keep``, ``NAME-summary``, ``NAME-solve``, ``NAME-pick`` and ``NAME``."""
    summarize: Callable[[Any], Any]
    """``summarize(kept) -> summary``: the little that the seams need to know of a block."""
    solve: Callable[[list[list[Any]], list[list[Place]]], Any]
    """``solve(summaries, places) -> answers``, both lists of rows of blocks; `gather` wants a flat list."""
    apply: Callable[..., Any]
    """``apply(kept, answer) -> block``; in `gather`, ``apply(answer) -> result``."""
    keep: Callable[[Any], Any] | None = None
    """``keep(block) -> kept``: what crosses the barrier in memory while the seams are solved. None: of an array nothing
    does, it is read again; blocks that are no array wait as they are."""
    placed: bool = False
    """For `stitch`: ``apply`` is also told where the block lies, as its third argument, a `Place`."""
    tree: Tree | None = None
    """For `stitch`: how to solve squares where there are many blocks; the answers must be those of ``solve``."""


def stitch(source: Blocks | da.Array, how: Stitch) -> Blocks:
    """Solve blocks, then seams, then blocks again.

    Five tasks a chunk at most (keep, summary, pick, apply, and the source a second time where nothing is kept) and
    one solve. With ``keep=None`` the second reading has keys of its own, and begins when the seams are solved: with
    shared keys, or with readers that need nothing, dask would hold much of the mosaic in memory across the barrier.
    """
    array = source if isinstance(source, da.Array) else None
    blocks = source if array is None else Blocks.of(array)
    token = tokenize(blocks.name, how)
    kept = blocks if how.keep is None else add_layer(blocks, f"{how.name}-keep-{token}", how.keep)
    summary = add_layer(kept, f"{how.name}-summary-{token}", how.summarize)
    solved = solve(summary, how.name, how.solve, how.tree)
    again = kept
    if array is not None and how.keep is None:
        again = Blocks.of(read_again(array, token, after=Blocks(solved.graph, solved.answers, blocks.chunks)))
    name, places = f"{how.name}-{token}", plan_blocks(blocks.chunks)
    tasks = {}
    for i, j in blocks.indices:
        where = (places[i][j],) if how.placed else ()
        read, answer = TaskRef((again.name, i, j)), TaskRef((solved.answers, i, j))
        tasks[name, i, j] = Task((name, i, j), how.apply, read, answer, *where)
    graph = HighLevelGraph(
        {**solved.graph.layers, **again.graph.layers, name: tasks},
        {**solved.graph.dependencies, **again.graph.dependencies, name: {solved.answers, again.name}},
    )
    return Blocks(graph, name, blocks.chunks)


def gather(source: Blocks, how: Stitch, count: int) -> tuple[HighLevelGraph, list[Any]]:
    """Solve blocks, then the whole; the answers are ``count`` results of ``apply(answer)``, no longer blocks.

    Returns
    -------
    graph, keys
        The graph, and the keys of the results in the order in which ``solve`` returned them.
    """
    token = tokenize(source.name, how, count)
    summary = add_layer(source, f"{how.name}-summary-{token}", how.summarize)
    solved, solve_key = solve_at_once(summary, how.name, how.solve)
    pick, name = f"{how.name}-pick-{token}", f"{how.name}-{token}"
    tasks = {}
    for k in range(count):
        tasks[pick, k] = Task((pick, k), pick_answer, TaskRef(solve_key), k)
        tasks[name, k] = Task((name, k), how.apply, TaskRef((pick, k)))
    graph = HighLevelGraph({**solved.layers, name: tasks}, {**solved.dependencies, name: {solve_key}})
    return graph, [(name, k) for k in range(count)]


def stitch_serial(blocks: list[list[Any]], how: Stitch, chunks: Chunks) -> list[list[Any]]:
    """Run what `stitch` runs, in a plain loop over rows of blocks."""
    kept = [[how.keep(block) if how.keep else block for block in row] for row in blocks]
    summaries = [[how.summarize(block) for block in row] for row in kept]
    places = plan_blocks(chunks)
    answers = how.solve(summaries, places)
    return [
        [
            how.apply(block, answer, *((place,) if how.placed else ()))
            for block, answer, place in zip(*rows, strict=True)
        ]
        for rows in zip(kept, answers, places, strict=True)
    ]


def gather_serial(blocks: list[list[Any]], how: Stitch, chunks: Chunks) -> list[Any]:
    """Run what `gather` runs, in a plain loop."""
    summaries = [[how.summarize(block) for block in row] for row in blocks]
    return [how.apply(answer) for answer in how.solve(summaries, plan_blocks(chunks))]


def to_frame(graph: HighLevelGraph, keys: list[Any], meta: Any, name: str) -> Any:
    """Collect tasks that return pandas-like frames into one dask frame, a partition a key.

    The frame's kind follows ``meta``: an empty GeoDataFrame gives a `dask_geopandas.GeoDataFrame`.
    """
    # Beside arrays, dask takes for an answer whatever nothing else needs, and a graph of layers is culled too roughly.
    needed, _ = cull(graph.to_dict(), keys)
    layer = _NamedGraph(needed)
    layer.token = tokenize(keys)
    return from_graph(layer, meta, (None,) * (len(keys) + 1), keys, name)


def from_frame(frame: Any) -> tuple[dict[Any, Any], list[Any]]:
    """Take the partitions of a dask frame: a graph, and the keys that they had before they were a frame."""
    built = frame.optimize(fuse=False)
    graph = dict(built.__dask_graph__())
    return graph, [graph[key].target if isinstance(graph[key], Alias) else key for key in built.__dask_keys__()]


class _NamedGraph(dict[Any, Any]):
    """A low-level graph that is known by its keys; hashing its thousands of tasks would take longer than running."""

    token = ""


# by its own method dask would not ask it: a dict is hashed by what it holds
normalize_token.register(_NamedGraph, lambda graph: ("named-graph", graph.token))
