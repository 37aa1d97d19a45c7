"""Blocks that meet each other two by two: look at pairs, judge them all, apply the judgement to each block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import dask.threaded
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from lakescale.chunks.solving import pick_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Pairing(NamedTuple):
    """What to do with blocks that meet, such as parts of frames of polygons.

    ``judge`` is the one task that sees all blocks: its memory is the sum of what is told and found.
    """

    name: str
    """Prefix of the task names: ``NAME-read``, ``-tell``, ``-meet``, ``-judge``, ``-pick`` and ``NAME`` itself."""
    tell: Callable[[Any], Any]
    """``tell(block) -> told``: the little that is to be known of each block."""
    meet: Callable[[Any, Any, Any], Any]
    """``meet(block, other, how) -> found``."""
    judge: Callable[[list[Any], list[Any]], list[Any]]
    """``judge(told, found) -> answers``: of all blocks and all meetings; an answer for each of the first blocks."""
    apply: Callable[[Any, Any], tuple[Any, ...]]
    """``apply(block, answer) -> results``: for each of the first blocks."""


class Meeting(NamedTuple):
    """Two blocks, by their numbers, and how they meet."""

    block: int
    other: int
    how: Any


class Source(NamedTuple):
    """A partition of a dask collection, and the function that makes it a block."""

    collection: Any
    key: Any
    read: Callable[[Any], Any]


def pair_blocks(
    sources: Sequence[Source], meetings: Sequence[Meeting], how: Pairing, *, answers: int, results: int
) -> tuple[HighLevelGraph, list[list[Any]]]:
    """Build the graph over partitions: four tasks for each that is judged, two for any other, one for each meeting.

    Blocks that get an answer wait for it in memory; others go as soon as they have met what they meet.

    Parameters
    ----------
    sources
        Where the blocks come from; those that get an answer are the first.
    meetings
        Which blocks meet.
    how
        What to do with them.
    answers
        How many blocks get an answer.
    results
        How many results ``how.apply`` gives for a block.

    Returns
    -------
    graph, keys
        The graph, and for each of the results its keys, one a block.
    """
    token = tokenize([(source.key, source.read) for source in sources], meetings, how)
    tasks: dict[Any, Any] = {}
    for k, source in enumerate(sources):
        key = (f"{how.name}-read-{token}", k)
        tasks[key] = Task(key, source.read, TaskRef(source.key))
    _add_steps(tasks, len(sources), meetings, how, token, answers)
    keys = [[(f"{how.name}-result{n}-{token}", k) for k in range(answers)] for n in range(results)]
    for n, row in enumerate(keys):
        for k, key in enumerate(row):
            tasks[key] = Task(key, pick_answer, TaskRef((f"{how.name}-{token}", k)), n)
    collections = list({id(source.collection): source.collection for source in sources}.values())
    return HighLevelGraph.from_collections(f"{how.name}-{token}", tasks, dependencies=collections), keys


def pair_on_threads(blocks: Sequence[Any], meetings: Sequence[Meeting], how: Pairing, *, answers: int) -> list[Any]:
    """Run on the threads of this process, for blocks that lie in its memory; results as of `pair_serial`."""
    token = uuid4().hex
    tasks: dict[Any, Any] = {(key := (f"{how.name}-read-{token}", k)): DataNode(key, b) for k, b in enumerate(blocks)}
    _add_steps(tasks, len(blocks), meetings, how, token, answers)
    return list(dask.threaded.get(tasks, [(f"{how.name}-{token}", k) for k in range(answers)]))


def pair_serial(blocks: Sequence[Any], meetings: Sequence[Meeting], how: Pairing) -> list[Any]:
    """Run what `pair_blocks` runs, in a plain loop over blocks."""
    found = [how.meet(blocks[meeting.block], blocks[meeting.other], meeting.how) for meeting in meetings]
    answers = how.judge([how.tell(block) for block in blocks], found)
    return [how.apply(blocks[k], answer) for k, answer in enumerate(answers)]


def _add_steps(
    tasks: dict[Any, Any], blocks: int, meetings: Sequence[Meeting], how: Pairing, token: str, answers: int
) -> None:
    read, tell, meet, judge, pick, name = (
        f"{how.name}-{step}{token}" for step in ("read-", "tell-", "meet-", "judge-", "pick-", "")
    )
    for k in range(blocks):
        tasks[tell, k] = Task((tell, k), how.tell, TaskRef((read, k)))
    for k, meeting in enumerate(meetings):
        pair = TaskRef((read, meeting.block)), TaskRef((read, meeting.other))
        tasks[meet, k] = Task((meet, k), how.meet, *pair, meeting.how)
    told, found = ([TaskRef((step, k)) for k in range(n)] for step, n in ((tell, blocks), (meet, len(meetings))))
    tasks[judge] = Task(judge, how.judge, List(*told), List(*found))
    for k in range(answers):
        tasks[pick, k] = Task((pick, k), pick_answer, TaskRef(judge), k)
        tasks[name, k] = Task((name, k), how.apply, TaskRef((read, k)), TaskRef((pick, k)))
