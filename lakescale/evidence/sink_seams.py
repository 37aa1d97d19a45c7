"""Which pieces of blocks are one sink, which sinks are rows, and which ids they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale.evidence.sink_blocks import Answer
from lakescale.regions import join_rings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.evidence.sink_blocks import Summary
    from lakescale.evidence.sink_cells import Rules


def solve_seams(summaries: list[list[Summary]], places: list[list[Place]], *, rules: Rules) -> list[list[Answer]]:
    """Join the sinks that cross seams, choose those that are rows, and number them."""
    group, span = join_rings([[s.ring for s in row] for row in summaries], corners=True)
    void_group, void_span = join_rings([[s.void_ring for s in row] for row in summaries], corners=True)
    parts = np.concatenate([s.parts for row in summaries for s in row])
    parts["row"] += np.concatenate([np.full(len(s.parts), p.row) for s, p in _pairs(summaries, places)])
    parts["col"] += np.concatenate([np.full(len(s.parts), p.col) for s, p in _pairs(summaries, places)])
    n_groups = int(group.max(initial=-1)) + 1
    depth, area = np.zeros(n_groups, np.float32), np.zeros(n_groups, np.int64)
    np.maximum.at(depth, group, parts["depth"])
    np.add.at(area, group, parts["area"])
    chosen = rules.are_large(depth, area)
    root = _first_of_group(group, parts)
    before, group_id = _number(summaries, places, parts, root, chosen)
    is_root = np.zeros(len(group), bool)
    is_root[root] = chosen
    of_pieces = np.bincount(group, minlength=n_groups)
    voids, void_cells = _count_voids(summaries, group, span, void_group, void_span)
    return [
        [
            Answer(
                place,
                before[place.row : place.row + place.height, j],
                group_id[group[s]],
                is_root[s],
                of_pieces[group[s]],
                voids[group[s]],
                void_group[v].astype(np.int64),
                void_cells[void_group[v]],
            )
            for j, (place, s, v) in enumerate(zip(*row, strict=True))
        ]
        for row in zip(places, span, void_span, strict=True)
    ]


def _pairs(*grids: list[list[Any]]) -> Iterator[tuple[Any, ...]]:
    """Walk over grids of blocks side by side."""
    for rows in zip(*grids, strict=True):
        yield from zip(*rows, strict=True)


def _first_of_group(group: NDArray[np.int32], parts: NDArray[Any]) -> NDArray[np.int64]:
    """Index of the part of each group in which its first cell lies."""
    order = np.lexsort((parts["col"], parts["row"], group))
    return order[np.diff(group[order], prepend=-1) != 0]


def _number(
    summaries: list[list[Summary]],
    places: list[list[Place]],
    parts: NDArray[Any],
    root: NDArray[np.int64],
    chosen: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count sinks row by row of the mosaic: an id is the number of those that begin before it, plus one.

    Returns
    -------
    before, group_id
        Per row and column of blocks, how many sinks begin before; and the id of each sink that crosses seams.
    """
    blocks = [(s, p, j) for ss, ps in zip(summaries, places, strict=True) for j, (s, p) in enumerate(zip(ss, ps))]  # noqa: B905
    rank = np.concatenate([s.rank for s, _, _ in blocks])
    block_col = np.concatenate([np.full(len(s.parts), j) for s, _, j in blocks])
    last = places[-1][0]
    begins = np.zeros((last.row + last.height, len(places[0])), np.int64)
    for s, p, j in blocks:
        begins[p.row : p.row + p.height, j] = s.inner_roots
    root = root[chosen]
    row, block, col = parts["row"][root], block_col[root], parts["col"][root]
    np.add.at(begins, (row, block), 1)
    before = (np.cumsum(begins) - begins.ravel()).reshape(begins.shape)
    order = np.lexsort((col, block, row))
    position = np.arange(len(order))
    is_first = np.diff((row * len(places[0]) + block)[order], prepend=-1) != 0
    earlier = np.empty(len(order), np.int64)
    earlier[order] = position - np.maximum.accumulate(np.where(is_first, position, 0))
    group_id = np.zeros(len(chosen), np.int64)
    group_id[chosen] = before[row, block] + rank[root] + earlier + 1
    return before, group_id


def _count_voids(
    summaries: list[list[Summary]],
    group: NDArray[np.int32],
    span: list[list[slice]],
    void_group: NDArray[np.int32],
    void_span: list[list[slice]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the cells of the voids that touch each sink at the border of a block, and those of each void there."""
    n_rings = [len(s.void_ring.parts) for (s,) in _pairs(summaries)]
    cells = np.zeros(int(void_group.max(initial=-1)) + 1, np.int64)
    np.add.at(
        cells,
        void_group,
        np.concatenate([s.void_cells[:n] for (s,), n in zip(_pairs(summaries), n_rings, strict=True)]),
    )
    sizes, count, pairs = [cells], len(cells), list(_touching_over_seams(summaries, group, span, void_group, void_span))
    for (s, sinks, voids), n in zip(_pairs(summaries, span, void_span), n_rings, strict=True):
        inner = np.arange(count, count + len(s.void_cells) - n)
        name = np.concatenate([void_group[voids], inner])
        pairs.append(np.stack([group[sinks][s.beside[0]], name[s.beside[1]]]))
        sizes.append(s.void_cells[n:])
        count += len(inner)
    sink, void = np.unique(np.concatenate(pairs, axis=1), axis=1)
    voids_of = np.zeros(int(group.max(initial=-1)) + 1, np.int64)
    np.add.at(voids_of, sink, np.concatenate(sizes)[void])
    return voids_of, cells


def _touching_over_seams(
    summaries: list[list[Summary]],
    group: NDArray[np.int32],
    span: list[list[slice]],
    void_group: NDArray[np.int32],
    void_span: list[list[slice]],
) -> Iterator[NDArray[np.int64]]:
    """List sinks and voids that touch (8) over seams, ``(2, n)`` each."""

    def line(blocks: list[tuple[int, int]], side: str, *, is_void: bool) -> NDArray[np.int64]:
        groups, spans = (void_group, void_span) if is_void else (group, span)
        rings = [summaries[i][j].void_ring if is_void else summaries[i][j].ring for i, j in blocks]
        named = [np.append(groups[spans[i][j]], -1) for i, j in blocks]  # number 0 is nothing, and so the last
        return np.concatenate([n[getattr(r, side) - 1] for n, r in zip(named, rings, strict=True)])

    rows, cols = range(len(summaries)), range(len(summaries[0]))
    seams = [([(i, j) for j in cols], "bottom", [(i + 1, j) for j in cols], "top") for i in rows[:-1]]
    seams += [([(i, j) for i in rows], "right", [(i, j + 1) for i in rows], "left") for j in cols[:-1]]
    for first, side, second, facing in seams:
        for a_is_void in (False, True):
            a = line(first, side, is_void=a_is_void)
            b = line(second, facing, is_void=not a_is_void)
            for p, q in ((a, b), (a[:-1], b[1:]), (a[1:], b[:-1])):
                pair = np.stack([q, p] if a_is_void else [p, q])
                yield pair[:, (pair >= 0).all(axis=0)].astype(np.int64)
