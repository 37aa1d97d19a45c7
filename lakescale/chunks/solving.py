"""Solve the seams of all blocks: in one task, or in a tree of squares."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from lakescale.chunks.blocks import Blocks
from lakescale.chunks.plan import Place, plan_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Tree(NamedTuple):
    """How to solve seams in squares of blocks, of squares and so on, where one task should not hold all summaries."""

    contract: Callable[[list[list[Any]], list[list[Place]]], Any]
    """``contract(summaries, places) -> summary``: of a square, as if it were one block."""
    expand: Callable[[list[list[Any]], list[list[Place]], Any], list[list[Any]]]
    """``expand(summaries, places, answer) -> answers``: what the answer to a square says to its blocks."""
    side: int = 16
    """Blocks a side of a square."""
    most: int = 512
    """Blocks, or squares, that one task may solve."""


class Solved(NamedTuple):
    """A graph in which the seams are solved."""

    graph: HighLevelGraph
    answers: str
    """The answer to block ``(i, j)`` has the key ``(answers, i, j)``."""


def solve(summary: Blocks, name: str, function: Callable[..., Any], tree: Tree | None) -> Solved:
    """Solve the seams of blocks, in squares where there are more than one task may solve.

    Parameters
    ----------
    summary
        What the seams need to know of each block.
    name
        Of the tasks: ``NAME-contract``, ``NAME-solve``, ``NAME-expand`` and ``NAME-pick``.
    function
        ``solve(summaries, places) -> answers``, both lists of rows of blocks.
    tree
        How to take squares for blocks; None where one task solves everything.
    """
    if tree is not None and len(summary.indices) > tree.most:
        return _solve_squares(summary, name, function, tree)
    graph, key = solve_at_once(summary, name, function)
    pick = _named(summary, name, "pick")
    picks = {(pick, i, j): Task((pick, i, j), pick_answer, TaskRef(key), i, j) for i, j in summary.indices}
    return Solved(_extend(graph, pick, picks, {key}), pick)


def solve_at_once(summary: Blocks, name: str, function: Callable[..., Any]) -> tuple[HighLevelGraph, str]:
    """Solve them in one task; gives its key."""
    key = _named(summary, name, "solve")
    rows = List(*(List(*row) for row in summary.refs()))
    return summary.extend(key, {key: Task(key, function, rows, plan_blocks(summary.chunks))}), key


def pick_answer(answers: Any, *index: int) -> Any:
    """Take one answer out of lists of lists."""
    for i in index:
        answers = answers[i]
    return answers


def _solve_squares(summary: Blocks, name: str, function: Callable[..., Any], tree: Tree) -> Solved:
    rows, cols = (_sums(axis, tree.side) for axis in summary.chunks)
    contract = _named(summary, name, "contract")
    members = dict(_members(summary, tree.side))
    tasks = {(contract, *at): Task((contract, *at), tree.contract, *told) for at, (_, *told) in members.items()}
    squares = Blocks(summary.extend(contract, tasks), contract, (rows, cols))
    above = solve(squares, name, function, tree)
    expand, pick = _named(summary, name, "expand"), _named(summary, name, "pick")
    expanding: dict[Any, Task] = {}
    for at, (blocks, *told) in members.items():
        expanding[expand, *at] = Task((expand, *at), tree.expand, *told, TaskRef((above.answers, *at)))
        for (i, j), within in blocks:
            expanding[pick, i, j] = Task((pick, i, j), pick_answer, TaskRef((expand, *at)), *within)
    return Solved(_extend(above.graph, pick, expanding, {above.answers, summary.name}), pick)


def _sums(axis: tuple[int, ...], side: int) -> tuple[int, ...]:
    return tuple(sum(axis[k : k + side]) for k in range(0, len(axis), side))


def _members(summary: Blocks, side: int) -> Iterator[tuple[tuple[int, int], tuple[Any, ...]]]:
    """List the squares: their blocks, each with its index in the square, the blocks' summaries and places."""
    refs, places = summary.refs(), plan_blocks(summary.chunks)
    for k, m in product(*(range(-(-len(axis) // side)) for axis in summary.chunks)):
        rows, cols = slice(k * side, (k + 1) * side), slice(m * side, (m + 1) * side)
        where = [row[cols] for row in places[rows]]
        within = list(product(range(len(where)), range(len(where[0]))))
        blocks = [((rows.start + i, cols.start + j), (i, j)) for i, j in within]
        yield (k, m), (blocks, List(*(List(*row[cols]) for row in refs[rows])), where)


def _named(summary: Blocks, name: str, step: str) -> str:
    """Name the tasks of a step by those that it follows, whose names tell all that they depend on."""
    return f"{name}-{step}-{tokenize(summary.name)}"


def _extend(graph: HighLevelGraph, name: str, tasks: dict[Any, Task], needs: set[str]) -> HighLevelGraph:
    return HighLevelGraph({**graph.layers, name: tasks}, {**graph.dependencies, name: needs})
