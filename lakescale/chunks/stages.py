"""A graph in stages: results that others wait for lie on a shelf, and no graph that is computed is larger than a batch.

A graph of a whole mosaic leaves traces: until what is made of a result goes, the scheduler and the workers keep the
record and the code of each task that it came from, some 70 kB a chunk. Here the same tasks run in small graphs, one
after the other. They are cut where results wait (what a stitch keeps of each block, what it tells the seams, what these
answer): such a result goes to a shelf, and what needs it takes it from there.
"""

from __future__ import annotations

from collections import Counter
from graphlib import TopologicalSorter
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from uuid import uuid4

import dask.array as da
import numpy as np
from dask._task_spec import DataNode, GraphNode, Task, TaskRef, convert_legacy_graph
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

Tasks = dict[Any, Any]


class Shelf(Protocol):
    """Where results wait, by the keys of their tasks. It travels with the tasks that use it."""

    def put(self, key: Any, result: Any) -> None:
        """Keep a result; a task may run twice, and put the same there again."""

    def take(self, key: Any) -> Any:
        """Give a result; it stays there."""

    def has(self, key: Any) -> bool:
        """Tell whether a result is there."""

    def keep_only(self, keys: Collection[Any]) -> None:
        """Drop all other results."""


class Stage(NamedTuple):
    """What is left to do of a graph, and what of it can be done now."""

    tasks: Tasks
    """All that is left."""
    read: set[Any]
    """Results on the shelf that it needs."""
    ready: list[Any]
    """Results for the shelf that can be made of these; the graph's own where there are no more others."""
    is_last: bool
    """Whether they are the graph's own."""
    total: int
    """How many results are left to be made, for the shelf and of the graph's own."""


def run_in_stages(
    array: da.Array, waiting: Collection[str], shelf: Shelf, *, most: int
) -> Iterator[tuple[da.Array, int]]:
    """Compute an array in stages: each batch that is handed out is to be computed before the next one is asked for.

    Parameters
    ----------
    array
        One-dimensional, of chunks of one number, such as `sink` makes: what its tasks return is of no interest.
    waiting
        Names, without tokens, of the tasks whose results others wait for.
    shelf
        Where these results lie; what is there already is not made again, and goes when nothing needs it any more.
    most
        Tasks of a batch. Results made by one task stay together, be they more.

    Yields
    ------
    batch, left
        An array to compute; and how many results are left to be made, with those of this batch.
    """
    tasks = dict(convert_legacy_graph(array.__dask_graph__().to_dict()))
    wanted, is_last = list(flatten(array.__dask_keys__())), False
    while not is_last:
        tasks, read, ready, is_last, left = plan_stage(tasks, wanted, waiting, shelf)
        shelf.keep_only(read)
        for keys in deal(ready, tasks, read, most):
            yield cut_out(tasks, keys, read, shelf, put=not is_last), left
            left -= len(keys)


def plan_stage(tasks: Tasks, wanted: Sequence[Any], waiting: Collection[str], shelf: Shelf) -> Stage:
    """Look what of a graph is left to do, and which results can be made now."""
    left: Tasks = {}
    read: set[Any] = set()
    found = list(wanted)
    while found:
        key = found.pop()
        if key in left or key in read:
            continue
        if name_of(key) in waiting and shelf.has(key):
            read.add(key)
        else:
            left[key] = tasks[key]
            found += tasks[key].dependencies
    to_put = [key for key in left if name_of(key) in waiting]
    follows = dict.fromkeys(read, False)  # whether something must be put there first
    for key in TopologicalSorter({key: task.dependencies for key, task in left.items()}).static_order():
        if key in left:
            needed = left[key].dependencies
            follows[key] = any(follows[one] or (one not in read and name_of(one) in waiting) for one in needed)
    ready = sorted(key for key in to_put if not follows[key])
    return Stage(left, read, ready or list(wanted), not ready, len(to_put) + len(wanted))


def deal(keys: Sequence[Any], tasks: Tasks, read: Collection[Any], most: int) -> Iterator[list[Any]]:
    """Deal results out to batches of so many tasks; those that are made by one task stay together."""
    for _, named in groupby(keys, name_of):
        batch: list[Any] = []
        counted: set[Any] = set()
        for group in _sharing(list(named), tasks, read):
            needed = _needed(group, tasks, read)
            if batch and len(counted | needed) > most:
                yield batch
                batch, counted = [], set()
            batch += group
            counted |= needed
        yield batch


def cut_out(tasks: Tasks, keys: Sequence[Any], read: Collection[Any], shelf: Shelf, *, put: bool) -> da.Array:
    """Make an array of the tasks that lead from what is on the shelf to some results.

    One task makes a result, from taking what it needs to putting it there, but for what several results share: so Dask
    holds none of it, and a worker begins no second one before the first is done.
    """
    name = f"{name_of(keys[0])}-{uuid4().hex}"
    found: Tasks = {}
    for key in _needed(keys, tasks, read):
        taken = {one: Task(None, shelf.take, one) for one in tasks[key].dependencies if one in read}
        found[key] = tasks[key].substitute(taken, key=key)
    for k, key in enumerate(keys):
        if put:
            found[name, k] = Task((name, k), _put, shelf, key, TaskRef(key))
        else:
            found[name, k] = found.pop(key).substitute({}, key=(name, k))
    graph = HighLevelGraph.from_collections(name, _fuse(found))
    return da.Array(graph, name, ((1,) * len(keys),), dtype=np.int64, meta=np.empty(0, np.int64))


def name_of(key: Any) -> str:
    """Name a task as the dashboard does, without its token."""
    return str(key[0] if isinstance(key, tuple) else key).rpartition("-")[0]


def _needed(keys: Sequence[Any], tasks: Tasks, read: Collection[Any]) -> set[Any]:
    """List the tasks that lead to results, down to what is on the shelf."""
    found, open_keys = set(keys), list(keys)
    while open_keys:
        new = tasks[open_keys.pop()].dependencies - found - read
        found |= new
        open_keys += new
    return found


def _sharing(keys: Sequence[Any], tasks: Tasks, read: Collection[Any]) -> list[list[Any]]:
    """Group results by the task that makes them together, such as one that solves seams and answers many blocks."""
    makers = {
        key: [one for one in tasks[key].dependencies - read if not isinstance(tasks[one], DataNode)] for key in keys
    }
    count = Counter(one for found in makers.values() for one in found)
    groups: dict[Any, list[Any]] = {}
    for key, found in makers.items():
        shared = [one for one in found if count[one] > 1]
        groups.setdefault(min(shared, default=key, key=str), []).append(key)
    return list(groups.values())


def _fuse(tasks: Tasks) -> Tasks:
    """Put tasks into the one that alone needs them."""
    order = list(TopologicalSorter({key: task.dependencies for key, task in tasks.items()}).static_order())
    users: dict[Any, set[Any]] = {key: set() for key in order}
    home: dict[Any, Any] = {}
    for key in reversed(order):
        homes = {home[user] for user in users[key]}
        home[key] = homes.pop() if len(homes) == 1 else key
        for one in tasks[key].dependencies:
            users[one].add(key)
    parts: dict[Any, list[Any]] = {}
    for key in order:
        parts.setdefault(home[key], []).append(tasks[key])
    return {key: GraphNode.fuse(*found, key=key) for key, found in parts.items()}


def _put(shelf: Shelf, key: Any, result: Any) -> NDArray[np.int64]:
    shelf.put(key, result)
    return np.ones(1, np.int64)
