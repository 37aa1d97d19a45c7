"""Join the blocks of ever larger squares, and finish in each what reaches no further.

Of two squares the one of twice the side has seams of twice the length within it, and what crosses them is twice as
much. So a square is dealt out, to as many tasks as it is blocks wide: each holds as much, whatever the mosaic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dask._task_spec import List, Task, TaskRef
from dask.base import tokenize

from lakescale.chunks.blocks import Blocks
from lakescale.chunks.plan import Place, plan_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakescale.chunks.plan import Chunks

_SIDE = 4


class Merge(NamedTuple):
    """What to do with things that reach over several blocks, where no task may hold all of them.

    A part is what a block holds, or a square of blocks.
    """

    name: str
    """Prefix of the task names: ``NAME-rest``, ``NAME-merge`` and ``NAME``."""
    rest: Callable[[Any], Any]
    """``rest(part) -> rest``: the little that reaches beyond the part."""
    deal: Callable[[Any, int, int], Any]
    """``deal(rest, number, count) -> rest``: one of so many shares of it. What belongs together has one number in all
    parts, which modulo a divisor of the count is its number among so many shares."""
    merge: Callable[[list[Any]], Any]
    """``merge(rests) -> part``: of up to 16 parts in a square, in raster order, a share of each."""
    finish: Callable[[Any], Any]
    """``finish(part) -> result``: of what is complete in the part."""


class Square(NamedTuple):
    """A square of parts that are merged, and the square of the next level that it belongs to."""

    members: list[int]
    """Parts in it, by their number: blocks in raster order come first, then squares, level by level."""
    place: Place
    shares: int
    """How many tasks it is dealt out to: as many as there are blocks along a side, or a few more."""


def plan_squares(chunks: Chunks) -> list[Square]:
    """Lay out the squares of 4 x 4 blocks, of 4 x 4 such squares, and so on up to the whole grid."""
    numbers: list[list[int]] = []
    places = plan_blocks(chunks)
    count, squares, shares = 0, [], 1
    for row in places:
        numbers.append(list(range(count, count + len(row))))
        count += len(row)
    while len(numbers) * len(numbers[0]) > 1:
        shares *= min(_SIDE, max(len(numbers), len(numbers[0])))
        rows, cols = (range(0, len(axis), _SIDE) for axis in (numbers, numbers[0]))
        level = [
            [
                Square(
                    [n for row in numbers[i : i + _SIDE] for n in row[j : j + _SIDE]],
                    _span(places[i][j], places[min(i + _SIDE, len(places)) - 1][min(j + _SIDE, len(places[0])) - 1]),
                    shares,
                )
                for j in cols
            ]
            for i in rows
        ]
        places = [[square.place for square in row] for row in level]
        numbers = [list(range(count + k * len(cols), count + (k + 1) * len(cols))) for k in range(len(rows))]
        count += len(rows) * len(cols)
        squares += [square for row in level for square in row]
    return squares


def merge_tree(source: Blocks, how: Merge) -> tuple[Blocks, list[Place]]:
    """Finish what is complete in each block, then in each square of blocks, up to the whole.

    A task holds a share of what crosses the seams within its square, so that no task sees the mosaic. Two tasks a
    chunk, and one more in the squares.

    Returns
    -------
    results, places
        One row of results, those of the blocks in raster order first; and where their parts lie.
    """
    squares = plan_squares(source.chunks)
    token = tokenize(source.name, how)
    rest, merged, name = f"{how.name}-rest-{token}", f"{how.name}-merge-{token}", f"{how.name}-{token}"
    parts = [[(source.name, i, j)] for i, j in source.indices]
    parts += [[(merged, k, n) for n in range(square.shares)] for k, square in enumerate(squares)]
    tasks: dict[Any, Task] = {}
    for k, square in enumerate(squares):
        for m in square.members:
            for n, part in enumerate(parts[m]):
                tasks[rest, m, n] = Task((rest, m, n), how.rest, TaskRef(part))
        for n in range(square.shares):
            rests = List(*(TaskRef((rest, m, n % len(parts[m]))) for m in square.members))
            tasks[merged, k, n] = Task((merged, k, n), _merge_share, how, rests, n, square.shares)
    places = [place for row in plan_blocks(source.chunks) for place in row] + [square.place for square in squares]
    flat = [(part, place) for of_part, place in zip(parts, places, strict=True) for part in of_part]
    for k, (part, _) in enumerate(flat):
        tasks[name, 0, k] = Task((name, 0, k), how.finish, TaskRef(part))
    return Blocks(source.extend(name, tasks), name, ((1,), (1,) * len(flat))), [place for _, place in flat]


def merge_tree_serial(blocks: list[list[Any]], how: Merge, chunks: Chunks) -> list[Any]:
    """Run what `merge_tree` runs, in a plain loop over rows of blocks."""
    parts = [[block] for row in blocks for block in row]
    for square in plan_squares(chunks):
        rests = [[how.rest(part) for part in parts[m]] for m in square.members]
        shares = range(square.shares)
        parts.append([_merge_share(how, [of[n % len(of)] for of in rests], n, square.shares) for n in shares])
    return [how.finish(part) for of_part in parts for part in of_part]


def _merge_share(how: Merge, rests: list[Any], number: int, count: int) -> Any:
    return how.merge([how.deal(rest, number, count) for rest in rests])


def _span(first: Place, last: Place) -> Place:
    return Place(first.row, first.col, last.row + last.height - first.row, last.col + last.width - first.col)
