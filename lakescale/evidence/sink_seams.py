"""Which pieces of blocks are one sink, which sinks are rows, and which ids they have: of all blocks, or in squares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lakescale.evidence.sink_blocks import Answer, Summary
from lakescale.evidence.sink_voids import Voids
from lakescale.regions import NO_RING, Ring, join_rings, ring_around

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.evidence.sink_cells import Rules

_NONE = np.empty(0, np.int64)


def solve_seams(summaries: list[list[Summary]], places: list[list[Place]], *, rules: Rules) -> list[list[Answer]]:
    """Join the sinks that cross seams, choose those that are rows, and number them."""
    sinks = _Sinks.of(summaries, places, rules, is_whole=True)
    in_row = sinks.begins(sinks.complete_rows).sum(axis=1)
    before = np.cumsum(in_row) - in_row
    whole = Answer(places[0][0], before, _NONE, _NONE.astype(bool), _NONE, _NONE, _NONE, _NONE)
    return _tell(sinks, Voids.of(summaries, sinks.group, sinks.span, is_whole=True), places, whole)


def contract_seams(summaries: list[list[Summary]], places: list[list[Place]], *, rules: Rules) -> Summary:
    """Reduce a square of blocks to the sinks and voids on its ring, as a block is reduced to its own.

    Of the sinks that touch none of its sides, it tells how many rows begin in each of its lines, and no more.
    """
    sinks = _Sinks.of(summaries, places, rules, is_whole=False)
    voids = Voids.of(summaries, sinks.group, sinks.span, is_whole=False)
    begins = sinks.begins(sinks.complete_rows)
    at_ring = sinks.table[sinks.ring.parts]
    to_the_left = np.cumsum(begins, axis=1) - begins
    at_ring["rank"] = sinks.rank_in_block(sinks.complete_rows)[sinks.ring.parts]
    at_ring["rank"] += to_the_left[at_ring["row"], sinks.block_col[sinks.ring.parts]]
    return Summary(sinks.ring, at_ring, begins.sum(axis=1), voids.ring, *voids.beside(sinks.ring.parts))


def expand_seams(
    summaries: list[list[Summary]], places: list[list[Place]], answer: Answer, *, rules: Rules
) -> list[list[Answer]]:
    """Tell the blocks of a square what the answer to its `contract_seams` makes of their sinks."""
    sinks = _Sinks.of(summaries, places, rules, is_whole=False)
    return _tell(sinks, Voids.of(summaries, sinks.group, sinks.span, is_whole=False), places, answer)


class _Sinks(NamedTuple):
    """The sinks that touch the border of any block of a square, put together as far as the square goes."""

    group: NDArray[np.int32]
    """Sink of each part at the border of a block, blocks in raster order."""
    span: list[list[slice]]
    """Parts of each block."""
    table: NDArray[Any]
    """Of each sink, of dtype `lakescale.evidence.sink_blocks.BORDER`; its rank is that within its block."""
    root: NDArray[np.int64]
    """Part in which each sink begins."""
    block_col: NDArray[np.int64]
    """Column of the block in which it does."""
    roots: NDArray[np.int64]
    """``(row, column of blocks)``: rows of the blocks' own that begin there."""
    ring: Ring
    """Of the square; nothing where it is all there is."""
    complete_rows: NDArray[np.bool_]
    """Which sinks are rows, as far as that shows: they touch no side of the square, and are deep and large."""

    @classmethod
    def of(cls, summaries: list[list[Summary]], places: list[list[Place]], rules: Rules, *, is_whole: bool) -> _Sinks:
        rings = [[s.ring for s in row] for row in summaries]
        group, span = join_rings(rings, corners=True)
        ring = NO_RING if is_whole else ring_around(rings, group, span)
        blocks = [(s, p, j) for ss, pp in zip(summaries, places, strict=True) for j, (s, p) in enumerate(zip(ss, pp))]  # noqa: B905
        parts = np.concatenate([s.parts for s, _, _ in blocks])
        first, last = places[0][0], places[-1][-1]
        parts["row"] += np.concatenate([np.full(len(s.parts), p.row - first.row) for s, p, _ in blocks])
        parts["col"] += np.concatenate([np.full(len(s.parts), p.col - first.col) for s, p, _ in blocks])
        block_col = np.concatenate([np.full(len(s.parts), j) for s, _, j in blocks])
        roots = np.zeros((last.row + last.height - first.row, len(places[0])), np.int64)
        for s, p, j in blocks:
            roots[p.row - first.row :][: p.height, j] = s.roots
        root = _first_of_group(group, parts)
        table = _add_up(parts, group, root)
        rows = rules.are_large(table["depth"], table["area"])
        rows[ring.parts] = False
        return cls(group, span, table, root, block_col[root], roots, ring, rows)

    def begins(self, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count, per row and column of blocks, those that begin there: the blocks' own, and the sinks that count."""
        out = self.roots.copy()
        np.add.at(out, (self.table["row"][counted], self.block_col[counted]), 1)
        return out

    def rank_in_block(self, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count, for each sink, the rows that begin before it in its row of its block."""
        row, col, block = self.table["row"], self.table["col"], self.block_col
        order = np.lexsort((col, block, row))
        before: NDArray[np.int64] = np.cumsum(counted[order]) - counted[order]
        is_first = np.ones(len(order), bool)
        is_first[1:] = (np.diff(row[order]) != 0) | (np.diff(block[order]) != 0)
        rank = self.table["rank"].copy()
        rank[order] += before - before[is_first][np.cumsum(is_first) - 1]
        return rank


def _first_of_group(group: NDArray[np.int32], parts: NDArray[Any]) -> NDArray[np.int64]:
    """Index of the part of each group in which its first cell lies."""
    order = np.lexsort((parts["col"], parts["row"], group))
    return order[np.diff(group[order], prepend=-1) != 0]


def _add_up(parts: NDArray[Any], group: NDArray[np.int32], root: NDArray[np.int64]) -> NDArray[Any]:
    """Make one row of the pieces of each sink: where it begins, and what all of them hold."""
    out = parts[root]
    out["pieces"] = out["area"] = 0
    np.maximum.at(out["depth"], group, parts["depth"])
    np.add.at(out["area"], group, parts["area"])
    np.add.at(out["pieces"], group, parts["pieces"])
    return out


def _tell(sinks: _Sinks, voids: Voids, places: list[list[Place]], answer: Answer) -> list[list[Answer]]:
    """Tell each block its part of the answer to the square."""
    open_sinks, group = sinks.ring.parts, sinks.group
    counted = sinks.complete_rows.copy()
    counted[open_sinks] = answer.is_root
    begins = sinks.begins(counted)
    before = answer.before[:, None] + np.cumsum(begins, axis=1) - begins
    ids = before[sinks.table["row"], sinks.block_col] + sinks.rank_in_block(counted) + 1
    ids[~sinks.complete_rows] = 0
    of_pieces, beside = sinks.table["pieces"].copy(), voids.cells_beside(len(ids), answer)
    ids[open_sinks], of_pieces[open_sinks], beside[open_sinks] = answer.ring_id, answer.of_pieces, answer.voids
    is_root = np.zeros(len(group), bool)
    is_root[sinks.root] = counted
    name, size = voids.named(answer)
    top = places[0][0].row
    return [
        [
            Answer(
                place,
                before[place.row - top :][: place.height, j].copy(),  # a view would keep those of all blocks
                ids[group[s]],
                is_root[s],
                of_pieces[group[s]],
                beside[group[s]],
                name[voids.group[v]],
                size[voids.group[v]],
            )
            for j, (place, s, v) in enumerate(zip(*row, strict=True))
        ]
        for row in zip(places, sinks.span, voids.span, strict=True)
    ]
