"""Ask blocks about things that are listed in a frame, such as polygons, each of the blocks that it meets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from lakescale.chunks.blocks import Blocks, read_again, split_blocks, zip_blocks
from lakescale.chunks.plan import plan_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from lakescale.chunks.plan import Chunks, Place


class Zones(NamedTuple):
    """What to ask, how to deal the things out to blocks, and how to put the answers together.

    ``deal`` and ``join`` are one task each, which sees all things or all answers: their memory is the sum of these.
    """

    name: str
    """Prefix of the task names: ``NAME-cut``, ``NAME-deal``, ``NAME-parcel``, ``NAME-measure``, ``NAME-join``,
    ``NAME-answer`` and ``NAME``."""
    cut: Callable[[Any], Any]
    """``cut(part) -> things``: what the blocks need to know of a part of the frame."""
    deal: Callable[[list[Any], list[Place]], list[Any]]
    """``deal(things of each part, places) -> parcels``, one for each block."""
    measure: Callable[[Any, list[Any], Place], Any]
    """``measure(parcel, pixels of each array, place) -> answer``."""
    join: Callable[[list[Any], int], list[Any]]
    """``join(answers of the blocks, count of parts) -> answers``, one for each part."""
    attach: Callable[[Any, Any], Any]
    """``attach(part, answer) -> part`` with its answers."""


def ask_zones(
    frame: Any, arrays: Sequence[da.Array], how: Zones, *, blocks: Sequence[tuple[int, int]] | None = None
) -> tuple[HighLevelGraph, list[Any]]:
    """Ask the blocks of arrays about the rows of a dask frame.

    The arrays are read anew, each block when its parcel is there: else workers would read on while the parcels are
    dealt, and hold what they read. What the arrays share is read once for all of them. A part of the frame waits in
    memory until its answer is there.

    Parameters
    ----------
    frame
        A dask frame.
    arrays
        ``(y, x)``, of the same chunks.
    how
        What to do.
    blocks
        Row and column of the blocks to ask; the others are not read. None: all.

    Returns
    -------
    graph, keys
        The graph, and the keys of the parts with their answers, as many as the frame has.
    """
    parts, places = frame.__dask_keys__(), plan_blocks(arrays[0].chunks)
    asked = [(i, j) for i, row in enumerate(places) for j in range(len(row))] if blocks is None else list(blocks)
    token = tokenize(parts, [array.name for array in arrays], how, asked)
    measure, join, answer, name = (f"{how.name}{step}-{token}" for step in ("-measure", "-join", "-answer", ""))
    parcels = _deal_parcels(frame, how, asked, arrays[0].chunks, token)
    # as one array of lists, so that what the arrays share is cloned once
    together = zip_blocks(f"{how.name}-pixels", _list, *arrays).to_array(object)
    pixels = Blocks.of(read_again(together, token, after=parcels, only=asked))
    tasks: dict[Any, Task] = {}
    for i, j in asked:
        parcel, block = TaskRef((parcels.name, i, j)), TaskRef((pixels.name, i, j))
        tasks[measure, i, j] = Task((measure, i, j), how.measure, parcel, block, places[i][j])
    answers = List(*(TaskRef((measure, i, j)) for i, j in asked))
    tasks[join] = Task(join, how.join, answers, len(parts))
    for p, part in enumerate(parts):
        tasks[answer, p] = Task((answer, p), _pick, TaskRef(join), p)
        tasks[name, p] = Task((name, p), how.attach, TaskRef(part), TaskRef((answer, p)))
    return pixels.extend(name, tasks), [(name, p) for p in range(len(parts))]


def ask_zones_serial(parts: list[Any], arrays: Sequence[NDArray[Any]], how: Zones, chunks: Chunks) -> list[Any]:
    """Run what `ask_zones` runs, in a plain loop over numpy arrays."""
    places = [place for row in plan_blocks(chunks) for place in row]
    parcels = how.deal([how.cut(part) for part in parts], places)
    split = [[block for row in split_blocks(array, chunks) for block in row] for array in arrays]
    pixels = map(list, zip(*split, strict=True))
    answers = [how.measure(*one) for one in zip(parcels, pixels, places, strict=True)]
    return [how.attach(part, answer) for part, answer in zip(parts, how.join(answers, len(parts)), strict=True)]


def _deal_parcels(frame: Any, how: Zones, asked: list[tuple[int, int]], chunks: Chunks, token: str) -> Blocks:
    source, cut, deal, parcel = (f"{how.name}-{step}-{token}" for step in ("frame", "cut", "deal", "parcel"))
    parts, places = frame.__dask_keys__(), plan_blocks(chunks)
    tasks: dict[Any, Task] = {(cut, p): Task((cut, p), how.cut, TaskRef(part)) for p, part in enumerate(parts)}
    things = List(*(TaskRef((cut, p)) for p in range(len(parts))))
    tasks[deal] = Task(deal, how.deal, things, [places[i][j] for i, j in asked])
    for k, (i, j) in enumerate(asked):
        tasks[parcel, i, j] = Task((parcel, i, j), _pick, TaskRef(deal), k)
    layers = {source: dict(frame.__dask_graph__()), parcel: tasks}
    return Blocks(HighLevelGraph(layers, {source: set(), parcel: {source}}), parcel, chunks)


def _list(*pixels_and_place: Any) -> list[Any]:
    return list(pixels_and_place[:-1])


def _pick(many: list[Any], k: int) -> Any:
    return many[k]
