"""Which sinks touch which voids, where either crosses the seams of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lakescale.regions import NO_RING, Ring, join_rings, ring_around

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lakescale.evidence.sink_blocks import Answer, Summary


class Voids(NamedTuple):
    """The voids at the borders of the blocks of a square, put together as far as it goes, and those within blocks."""

    group: NDArray[np.int32]
    """Void of each part at the border of a block, blocks in raster order."""
    span: list[list[slice]]
    """Parts of each block."""
    ring: Ring
    """Of the square; nothing where it is all there is."""
    cells: NDArray[np.int64]
    """Of each void; those within blocks that touch a sink at the border come last."""
    sink: NDArray[np.int64]
    """Which sink touches which void, each pair once."""
    void: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        summaries: list[list[Summary]],
        sink_group: NDArray[np.int32],
        sink_span: list[list[slice]],
        *,
        is_whole: bool,
    ) -> Voids:
        """Put them together; sinks are known by their groups."""
        rings = [[s.void_ring for s in row] for row in summaries]
        group, span = join_rings(rings, corners=True)
        ring = NO_RING if is_whole else ring_around(rings, group, span)
        cells = np.zeros(int(group.max(initial=-1)) + 1, np.int64)
        sink_rings = [[s.ring for s in row] for row in summaries]
        sizes, count, pairs = (
            [cells],
            len(cells),
            list(_touching(sink_rings, sink_group, sink_span, rings, group, span)),
        )
        for s, own, voids in _side_by_side(summaries, sink_span, span):
            n = len(s.void_ring.parts)
            np.add.at(cells, group[voids], s.void_cells[:n])
            name = np.concatenate([group[voids], np.arange(count, count + len(s.void_cells) - n)])
            pairs.append(np.stack([sink_group[own][s.beside[0]], name[s.beside[1]]]))
            sizes.append(s.void_cells[n:])
            count += len(s.void_cells) - n
        sink, void = np.unique(np.concatenate(pairs, axis=1), axis=1)
        return cls(group, span, ring, np.concatenate(sizes), sink, void)

    def beside(self, sinks: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give what a summary tells of voids: cells of those on the ring, then of others that touch some sinks; pairs.

        Parameters
        ----------
        sinks
            The sinks that are asked for; the pairs name them by their place among these.
        """
        number = np.full(int(self.sink.max(initial=-1)) + 1, -1)
        is_asked = sinks[sinks < len(number)]
        number[is_asked] = np.arange(len(sinks))[sinks < len(number)]
        asked = number[self.sink] >= 0
        sink, void = number[self.sink[asked]], self.void[asked]
        listed = np.concatenate([self.ring.parts, np.setdiff1d(void, self.ring.parts)])
        position = np.empty(len(self.cells), np.int64)
        position[listed] = np.arange(len(listed))
        return self.cells[listed], np.stack([sink, position[void]])

    def named(self, answer: Answer) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Name all voids so that one void has one name, and give its cells, by the answer to the square."""
        name = np.arange(len(self.cells)) + int(answer.void_group.max(initial=-1)) + 1
        cells = self.cells.copy()
        name[self.ring.parts], cells[self.ring.parts] = answer.void_group, answer.void_cells
        return name, cells

    def cells_beside(self, n_sinks: int, answer: Answer) -> NDArray[np.int64]:
        """Count the cells of the voids that touch each sink; wrong for those that reach beyond the square."""
        name, cells = self.named(answer)
        once = np.unique(np.stack([self.sink, name[self.void]]), axis=1, return_index=True)[1]
        out = np.zeros(n_sinks, np.int64)
        np.add.at(out, self.sink[once], cells[self.void[once]])
        return out


def _side_by_side(*grids: list[list[Any]]) -> Iterator[tuple[Any, ...]]:
    """Walk over grids of blocks side by side."""
    for rows in zip(*grids, strict=True):
        yield from zip(*rows, strict=True)


def _touching(
    sinks: list[list[Ring]],
    sink_group: NDArray[np.int32],
    sink_span: list[list[slice]],
    voids: list[list[Ring]],
    void_group: NDArray[np.int32],
    void_span: list[list[slice]],
) -> Iterator[NDArray[np.int64]]:
    """List sinks and voids that touch (8) over seams, ``(2, n)`` each."""

    def line(blocks: list[tuple[int, int]], side: str, *, is_void: bool) -> NDArray[np.int64]:
        rings, group, span = (voids, void_group, void_span) if is_void else (sinks, sink_group, sink_span)
        named = [np.append(group[span[i][j]], -1) for i, j in blocks]  # number 0 is nothing, and so the last
        return np.concatenate([n[getattr(rings[i][j], side) - 1] for n, (i, j) in zip(named, blocks, strict=True)])

    rows, cols = range(len(sinks)), range(len(sinks[0]))
    seams = [([(i, j) for j in cols], "bottom", [(i + 1, j) for j in cols], "top") for i in rows[:-1]]
    seams += [([(i, j) for i in rows], "right", [(i, j + 1) for i in rows], "left") for j in cols[:-1]]
    for first, side, second, facing in seams:
        for a_is_void in (False, True):
            a = line(first, side, is_void=a_is_void)
            b = line(second, facing, is_void=not a_is_void)
            for p, q in ((a, b), (a[:-1], b[1:]), (a[1:], b[:-1])):
                pair = np.stack([q, p] if a_is_void else [p, q])
                yield pair[:, (pair >= 0).all(axis=0)].astype(np.int64)
