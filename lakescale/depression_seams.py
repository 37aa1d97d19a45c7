"""The seams of a DEM's blocks: a graph of their rings, solved at once or in squares."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lakescale.chunks import Place
from lakescale.kernels.basins import OUTLET
from lakescale.kernels.flood import Facing, Final, Ring, Survey, lowest_of_pairs, meet
from lakescale.kernels.saddles import Saddles, concatenate, drain, span
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

LIMITS_M = (-500.0, 9000.0)
"""Elevations that can be true: the shores of the Dead Sea lie at -430 m, Mount Everest's top at 8849 m."""


class Cell(NamedTuple):
    """A cell that something is said of, by its place within what it is said to."""

    row: int
    col: int
    elevation: float
    chunk: Place

    def shifted(self, place: Place) -> Cell:
        """Tell it to the mosaic in which the block lies there."""
        row, col, height, width = self.chunk
        chunk = Place(place.row + row, place.col + col, height, width)
        return Cell(place.row + self.row, place.col + self.col, self.elevation, chunk)

    @property
    def where(self) -> str:
        """Name its chunk."""
        row, col, height, width = self.chunk
        return f"chunk of rows {row} to {row + height - 1}, columns {col} to {col + width - 1}"


class Tally(NamedTuple):
    """What is wrong with the values of some chunks."""

    chunks: int
    void: int
    """Chunks without any elevation."""
    rounded: int
    """Chunks with integers that float32 does not hold."""
    infinite: int
    """Chunks with infinite elevations."""
    outside: int
    """Chunks with elevations that cannot be true."""
    outside_cells: int
    first_infinite: Cell | None
    first_outside: Cell | None

    @classmethod
    def total(cls, tallies: Iterable[tuple[Tally, Place]]) -> Tally:
        """Add up those of blocks, in raster order, that lie at places."""
        pairs = list(tallies)
        told = [tally for tally, _ in pairs]
        return cls(
            chunks=sum(tally.chunks for tally in told),
            void=sum(tally.void for tally in told),
            rounded=sum(tally.rounded for tally in told),
            infinite=sum(tally.infinite for tally in told),
            outside=sum(tally.outside for tally in told),
            outside_cells=sum(tally.outside_cells for tally in told),
            first_infinite=_first((tally.first_infinite, place) for tally, place in pairs),
            first_outside=_first((tally.first_outside, place) for tally, place in pairs),
        )

    def judge(self) -> None:
        """Refuse infinities; warn of what is probably wrong, once all chunks are seen.

        Raises
        ------
        InputError
            When there are infinite elevations.
        """
        cell = self.first_infinite
        if cell is not None:
            raise InputError(
                f"infinite elevation (as float32) at row {cell.row}, column {cell.col}, and in "
                f"{self.infinite} of {self.chunks} chunks",
                cell.where,
                "make it void first: dem.where(np.isfinite(dem))",
            )
        cell = self.first_outside
        if cell is not None:
            warn_outside(self.outside_cells, self.outside, cell, cell.where)
        if self.rounded:
            _LOG.warning("fill_depressions: integers beyond 2**24 were rounded to float32 in %d chunks", self.rounded)
        if self.void == self.chunks:
            _LOG.warning("fill_depressions: the DEM holds no elevation, all of it is void")


def _first(cells: Iterable[tuple[Cell | None, Place]]) -> Cell | None:
    return next((cell.shifted(place) for cell, place in cells if cell is not None), None)


def warn_outside(cells: int, chunks: int, example: Cell, where: str) -> None:
    """Log that elevations cannot be true."""
    _LOG.warning(
        "fill_depressions: %d elevations outside %g..%g m in %d chunks, such as %.7g at row %d, column %d "
        "(%s): the nodata value is probably wrong. Make them void with dem.where(...), or give open_dem their "
        "nodata (--nodata)",
        cells, *LIMITS_M, chunks, example.elevation, example.row, example.col, where,
    )  # fmt: skip


class Summary(NamedTuple):
    """What the seams must know of a block, or of a square of blocks."""

    survey: Survey | None
    """None where an infinite cell forbids it."""
    tally: Tally


def solve(summaries: list[list[Summary]], places: list[list[Place]]) -> list[list[Final]]:
    """Join the saddles of all blocks along their seams and find the way out of every ring."""
    _tally(summaries, places).judge()
    mosaic = _Mosaic.of(_surveys(summaries))
    saddles = concatenate(*mosaic.saddles(), *(_leave(edge) for edge in mosaic.edges()))
    group = mosaic.void_groups(saddles)
    return mosaic.finals(saddles, group == group[0])


def contract(summaries: list[list[Summary]], places: list[list[Place]]) -> Summary:
    """Reduce a square of blocks to its ring, as a block is reduced to its own; see `lakescale.kernels.flood.survey`.

    The basins that touch the ring stay, with the fewest saddles between them that leave every lowest way as it is. Of
    the voids those stay that touch the ring: another one reaches no edge of the mosaic, and is a wall for good.
    """
    tally = _tally(summaries, places)
    if tally.first_infinite is not None:
        return Summary(None, tally)
    mosaic = _Mosaic.of(_surveys(summaries))
    saddles = concatenate(*mosaic.saddles())
    name = _first_of_group(mosaic.void_groups(saddles))
    basin, void = mosaic.on_ring(name)
    on_land = ~mosaic.is_void[saddles.a] & ~mosaic.is_void[saddles.b]
    is_terminal = np.zeros(mosaic.n_nodes, bool)
    is_terminal[basin] = True
    found = drain(_choose(saddles, on_land), is_terminal)
    number = np.zeros(mosaic.n_nodes, np.int32)
    number[basin], number[void] = np.arange(len(basin)), len(basin) + np.arange(len(void))
    left = span(Saddles(number[found.left.a], number[found.left.b], found.left.elevation), len(basin))
    land, water, shore = mosaic.shores(saddles)
    water, terminal = name[water], found.terminal[land]
    asked = np.isin(water, void) & is_terminal[terminal]
    height = np.maximum(shore, found.level[land])
    drained = lowest_of_pairs(Saddles(number[terminal[asked]], number[water[asked]], height[asked]))
    edges = mosaic.edges()
    nodes = Ring(*(number[name[edge.node]] for edge in edges))
    rings = nodes, Ring(*(edge.elevation for edge in edges))
    return Summary(Survey(len(basin), len(void), concatenate(left, drained), *rings), tally)


def expand(summaries: list[list[Summary]], _places: list[list[Place]], final: Final) -> list[list[Final]]:
    """Tell the blocks of a square what the answer to its `contract` makes of their rings."""
    mosaic = _Mosaic.of(_surveys(summaries))
    saddles = concatenate(*mosaic.saddles())
    name = _first_of_group(mosaic.void_groups(saddles))
    _, void = mosaic.on_ring(name)
    is_outlet = np.zeros(mosaic.n_nodes, bool)
    is_outlet[void] = final.is_outlet
    is_outlet = is_outlet[name] & mosaic.is_void
    is_outlet[0] = True
    edges = (edge._replace(elevation=height) for edge, height in zip(mosaic.edges(), final.elevation, strict=True))
    leaving = concatenate(*(_leave(edge) for edge in edges))
    by_land = ~mosaic.is_void[leaving.a] & ~mosaic.is_void[leaving.b]
    return mosaic.finals(concatenate(saddles, _choose(leaving, by_land)), is_outlet)


def _tally(summaries: list[list[Summary]], places: list[list[Place]]) -> Tally:
    """Add up; a square's own place is that of its first block, and what it says is told from there."""
    first = places[0][0]
    return Tally.total(
        (s.tally, Place(p.row - first.row, p.col - first.col, p.height, p.width))
        for row, line in zip(summaries, places, strict=True)
        for s, p in zip(row, line, strict=True)
    )


def _surveys(summaries: list[list[Summary]]) -> list[list[Survey]]:
    return [[s.survey for s in row if s.survey is not None] for row in summaries]


def _first_of_group(group: NDArray[np.int32]) -> NDArray[np.int32]:
    """Name each node by the first one of its group."""
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int32)


def _choose(saddles: Saddles, chosen: NDArray[np.bool_]) -> Saddles:
    return Saddles(saddles.a[chosen], saddles.b[chosen], saddles.elevation[chosen])


class _Mosaic(NamedTuple):
    """The surveys of some blocks, with nodes numbered through: the outlet they share is 0."""

    surveys: list[list[Survey]]
    before: NDArray[np.int32]
    """Per block, its outlet left out: how many nodes come before its own."""
    is_void: NDArray[np.bool_]
    """Per node."""

    @classmethod
    def of(cls, surveys: list[list[Survey]]) -> _Mosaic:
        own = np.array([[(s.n_basins - 1, s.n_voids) for s in row] for row in surveys])
        is_void = np.concatenate([[False], np.repeat(np.tile([False, True], own[..., 0].size), own.ravel())])
        counts = own.sum(axis=2)
        return cls(surveys, (np.cumsum(counts).reshape(counts.shape) - counts).astype(np.int32), is_void)

    @property
    def n_nodes(self) -> int:
        """Of the whole mosaic, the outlet included."""
        return len(self.is_void)

    def saddles(self) -> Iterator[Saddles]:
        """List those within blocks and across seams."""
        for row, before in zip(self.surveys, self.before, strict=True):
            for s, shift in zip(row, before, strict=True):
                yield Saddles(_shift(s.saddles.a, shift), _shift(s.saddles.b, shift), s.saddles.elevation)
        rows, cols = (range(n) for n in self.before.shape)
        for i in rows[:-1]:
            yield meet(self._line([(i, j) for j in cols], "bottom"), self._line([(i + 1, j) for j in cols], "top"))
        for j in cols[:-1]:
            yield meet(self._line([(i, j) for i in rows], "right"), self._line([(i, j + 1) for i in rows], "left"))

    def edges(self) -> tuple[Facing, Facing, Facing, Facing]:
        """Give the sides of the whole in the order of a `Ring`."""
        rows, cols = (range(n) for n in self.before.shape)
        return (
            self._line([(rows[0], j) for j in cols], "top"),
            self._line([(rows[-1], j) for j in cols], "bottom"),
            self._line([(i, cols[0]) for i in rows], "left"),
            self._line([(i, cols[-1]) for i in rows], "right"),
        )

    def on_ring(self, name: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """List the basins, the outlet first, and the voids that touch the sides of the whole, by their names."""
        touching = np.unique(np.concatenate([[0], *(name[edge.node] for edge in self.edges())]))
        return touching[~self.is_void[touching]], touching[self.is_void[touching]]

    def void_groups(self, saddles: Saddles) -> NDArray[np.int32]:
        """Group the nodes that meet at no elevation: only voids do, and the outlet."""
        voids, n = saddles.elevation == OUTLET, self.n_nodes
        ends = saddles.a[voids], saddles.b[voids]
        graph = coo_array((np.ones(np.count_nonzero(voids), bool), ends), shape=(n, n))
        group: NDArray[np.int32] = connected_components(graph, directed=False)[1]
        return group

    def shores(self, saddles: Saddles) -> Saddles:
        """List where land meets voids: basin, void, elevation."""
        a, b, elevation = _choose(saddles, self.is_void[saddles.a] != self.is_void[saddles.b])
        swap = self.is_void[a]
        return Saddles(np.where(swap, b, a), np.where(swap, a, b), elevation)

    def finals(self, saddles: Saddles, is_outlet: NDArray[np.bool_]) -> list[list[Final]]:
        """Drain all nodes, and give each block its part of the answer."""
        a, b = (np.where(is_outlet[end], np.int32(0), end) for end in (saddles.a, saddles.b))
        open_way = (a != b) & ~self.is_void[a] & ~self.is_void[b]
        is_terminal = np.zeros(self.n_nodes, bool)
        is_terminal[0] = True
        level = drain(_choose(Saddles(a, b, saddles.elevation), open_way), is_terminal).level
        rows, cols = (range(n) for n in self.before.shape)
        return [[self._final(i, j, level, is_outlet) for j in cols] for i in rows]

    def _final(self, i: int, j: int, level: NDArray[np.float32], is_outlet: NDArray[np.bool_]) -> Final:
        block, shift = self.surveys[i][j], self.before[i, j]
        lines = zip(block.node, block.elevation, strict=True)
        ring = Ring(*(np.maximum(elevation, level[_shift(node, shift)]) for node, elevation in lines))
        first = shift + block.n_basins
        return Final(ring, is_outlet[first : first + block.n_voids].copy())

    def _line(self, blocks: list[tuple[int, int]], side: str) -> Facing:
        """Put together one side of blocks in a row."""
        return Facing(
            np.concatenate([_shift(getattr(self.surveys[k][m].node, side), self.before[k, m]) for k, m in blocks]),
            np.concatenate([getattr(self.surveys[k][m].elevation, side) for k, m in blocks]),
        )


def _leave(edge: Facing) -> Saddles:
    """List the saddles over an edge that water leaves by."""
    n = len(edge.node)
    return meet(edge, Facing(np.zeros(n, np.int32), np.full(n, OUTLET)))


def _shift(node: NDArray[np.int32], before: np.int32) -> NDArray[np.int32]:
    return np.where(node > 0, node + before, 0).astype(np.int32)
