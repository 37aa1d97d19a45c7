"""What a block holds of sinks, and what it makes of the seams' answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lakescale.depressions import as_elevation
from lakescale.evidence.sink_areas import add_areas
from lakescale.evidence.sink_cells import SINK, SinkCells, Split
from lakescale.evidence.sink_edges import Edges, pours_at_edges
from lakescale.kernels.components import find_parts, paint
from lakescale.kernels.rims import DRAW, find_pours, find_touching
from lakescale.regions import Ring, ring_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.evidence.sink_cells import Rules
    from lakescale.kernels.components import Parts

_NOWHERE = 2**40
"""Row of the pour point of a piece beside which there is none."""


PART = np.dtype(
    [
        ("row", np.int64),  # of the first cell
        ("col", np.int64),
        ("spill", np.float32),
        ("depth", np.float32),
        ("area", np.int64),
        ("pour_draw", np.bool_),
        ("pour_row", np.int64),
        ("pour_col", np.int64),
    ]
)


class Runs(NamedTuple):
    """Cells of sinks as runs along rows: a third of the bytes, since they may have to wait."""

    first: NDArray[np.int32]
    """Index in the block of the first cell of each run."""
    length: NDArray[np.int32]
    part: NDArray[np.int32]
    """Which sink it belongs to."""

    @property
    def cells(self) -> NDArray[np.int32]:
        """Index in the block of each cell, in raster order."""
        before = np.cumsum(self.length, dtype=np.int32) - self.length
        return np.repeat(self.first - before, self.length) + np.arange(int(self.length.sum()), dtype=np.int32)

    @property
    def parts(self) -> NDArray[np.int32]:
        """Sink of each cell."""
        return np.repeat(self.part, self.length)


class Kept(NamedTuple):
    """The sinks of a block that may be rows, and what touches its border, with rows and columns of the block."""

    shape: tuple[int, int]
    runs: Runs
    """The cells of sinks."""
    elevation: NDArray[np.float32]
    """Of each cell."""
    parts: NDArray[Any]
    """Of dtype `PART`, in raster order of their first cells."""
    ring: Ring
    """Of sinks."""
    void_ring: Ring
    void_cells: NDArray[np.int64]
    """Of the parts of void: those of the ring first, then those that touch sinks."""
    beside: NDArray[np.int64]
    """``(2, n)``: which part touches which part of void."""


class Found(NamedTuple):
    """The sinks of a block, as far as it shows by itself."""

    kept: Kept
    """Without pour points."""
    code: NDArray[np.uint8]
    """Step from each cell to a pour point; see `lakescale.kernels.rims.find_pours`."""
    edges: Edges


BORDER = np.dtype(
    [
        ("row", np.int64),  # of the first cell
        ("col", np.int64),
        ("depth", np.float32),
        ("area", np.int64),
        ("pieces", np.int64),  # how many parts of blocks it is
        ("rank", np.int64),  # how many rows that touch no border begin before it in its row
    ]
)


class Summary(NamedTuple):
    """What the seams need to know of a block, or of a square of blocks."""

    ring: Ring
    parts: NDArray[Any]
    """Of dtype `BORDER`: the sinks that touch the border."""
    roots: NDArray[np.int64]
    """How many rows that touch no border begin in each row."""
    void_ring: Ring
    void_cells: NDArray[np.int64]
    """Of the voids: those of the ring first, then those that touch sinks at the border."""
    beside: NDArray[np.int64]
    """Only of the sinks that touch the border, by their number in the ring."""


class Answer(NamedTuple):
    """What the seams tell a block, or a square of blocks."""

    place: Place
    before: NDArray[np.int64]
    """Per row of the block: sinks that begin in earlier rows of the mosaic and in chunks to the left."""
    ring_id: NDArray[np.int64]
    """Of the parts that touch the border; 0 for those that are no rows."""
    is_root: NDArray[np.bool_]
    """Whether the sink of such a part begins in it."""
    of_pieces: NDArray[np.int64]
    voids: NDArray[np.int64]
    """Cells of the voids that touch the sink."""
    void_group: NDArray[np.int64]
    """Void of each part of void that touches the border."""
    void_cells: NDArray[np.int64]
    """Cells of that void in the mosaic."""


def find_sinks(
    filled: NDArray[np.float32],
    dem: NDArray[Any],
    place: Place,
    *,
    rules: Rules,
    void_is_outlet: bool,
    missing: tuple[float, ...],
) -> Found:
    """Find the sinks of a block that are large enough or touch its border, and the voids beside sinks.

    Parameters
    ----------
    filled, dem
        ``(y, x)``: filled elevations, and elevations as they were given.
    place
        Where the block lies.
    rules
        Which sinks are large enough.
    void_is_outlet
        Whether water leaves through voids.
    missing
        The numbers that mean void.
    """
    elevation = as_elevation(dem, missing)
    is_sink = filled > elevation
    found = find_parts(is_sink, connectivity=8)
    part = np.repeat(found.part, found.stop - found.start)
    parts = _measure_parts(found, part, elevation[is_sink], filled)
    if rules.min_area > 0:
        parts["area"] = add_areas(rules.grid, place, is_sink, part, found.n_parts)
    ring = ring_of(found)
    chosen = rules.are_large(parts["depth"], parts["area"])
    chosen[ring.parts] = True
    number = np.cumsum(chosen, dtype=np.int32) - 1
    runs = _runs_of(found, chosen, number)
    cell = runs.cells
    code = find_pours(filled, elevation, void_is_outlet=void_is_outlet).ravel()[cell]
    void_ring, void_cells, beside = _voids_beside(np.isnan(elevation), found)
    beside = beside[:, chosen[beside[0]]]
    beside[0] = number[beside[0]]
    ring = ring._replace(parts=number[ring.parts])
    kept = Kept(
        dem.shape, runs, elevation.ravel()[cell] + np.float32(0), parts[chosen], ring, void_ring, void_cells, beside
    )
    return Found(kept, code, Edges.of(elevation, filled))


def share_edges(found: Found) -> Edges:
    """Tell the neighbours of a block what they must know to find pour points."""
    return found.edges


def collect(found: Found, beside: dict[tuple[int, int], Edges], *, void_is_outlet: bool) -> Kept:
    """Set the pour points, now that the neighbours have told of theirs."""
    kept = found.kept
    cell, parts = kept.runs.cells, kept.parts.copy()
    code = pours_at_edges(cell, found.code, found.edges, beside, void_is_outlet=void_is_outlet)
    _set_pours(parts, kept.runs.parts, cell, code, kept.shape[1])
    return kept._replace(parts=parts)


def _runs_of(found: Parts, chosen: NDArray[np.bool_], number: NDArray[np.int32]) -> Runs:
    """List the runs of the chosen parts, numbered anew."""
    stays = chosen[found.part]
    row = np.repeat(np.arange(found.shape[0], dtype=np.int32), np.diff(found.row_start))[stays]
    start, stop = found.start[stays], found.stop[stays]
    return Runs(row * np.int32(found.shape[1]) + start, stop - start, number[found.part[stays]])


def _measure_parts(
    found: Parts, part: NDArray[np.int32], elevation: NDArray[np.float32], filled: NDArray[np.float32]
) -> NDArray[Any]:
    """Make the table of the sinks of a block; ``elevation`` is that of their cells."""
    parts = np.zeros(found.n_parts, PART)
    parts["row"], parts["col"] = found.first_row, found.first_col
    parts["spill"] = filled[parts["row"], parts["col"]]
    parts["pour_draw"], parts["pour_row"] = True, _NOWHERE
    low = np.full(found.n_parts, np.inf, np.float32)
    np.minimum.at(low, part, elevation)
    parts["depth"] = parts["spill"] - low
    return parts


def _set_pours(
    parts: NDArray[Any], part: NDArray[np.int32], cell: NDArray[np.int32], code: NDArray[np.uint8], width: int
) -> None:
    """Choose the pour point of each part among those of its cells."""
    has = np.flatnonzero(code)
    step = (code[has] % DRAW).astype(np.int64) - 1
    row, col = cell[has] // width + step // 3 - 1, cell[has] % width + step % 3 - 1
    is_draw = code[has] >= DRAW
    order = np.lexsort((col, row, is_draw, part[has]))
    named, first = np.unique(part[has][order], return_index=True)
    best = order[first]
    parts["pour_draw"][named], parts["pour_row"][named], parts["pour_col"][named] = is_draw[best], row[best], col[best]


def _voids_beside(is_void: NDArray[np.bool_], sinks: Parts) -> tuple[Ring, NDArray[np.int64], NDArray[np.int64]]:
    """Find the voids that touch sinks or the border, and which sinks they touch."""
    voids = find_parts(is_void, connectivity=8)
    void_ring = ring_of(voids)
    cells = np.zeros(voids.n_parts, np.int64)
    np.add.at(cells, voids.part, voids.stop - voids.start)
    if not voids.n_parts or not sinks.n_parts:
        return void_ring, cells[void_ring.parts], np.empty((2, 0), np.int64)
    image = np.zeros(is_void.shape, np.int32)
    paint(sinks, np.arange(1, sinks.n_parts + 1, dtype=np.int32), image)
    paint(voids, -np.arange(1, voids.n_parts + 1, dtype=np.int32), image)
    sink, void = find_touching(image)
    sink, void = sink - 1, -void - 1
    inner = np.setdiff1d(void, void_ring.parts)
    listed = np.concatenate([void_ring.parts, inner])
    position = np.empty(voids.n_parts, np.int64)
    position[listed] = np.arange(len(listed))
    return void_ring, cells[listed], np.stack([sink, position[void]])


def summarize(kept: Kept) -> Summary:
    """Tell the seams of the sinks and voids at the border of a block."""
    is_inner, ring_number = np.ones(len(kept.parts), bool), np.full(len(kept.parts), -1)
    is_inner[kept.ring.parts] = False
    ring_number[kept.ring.parts] = np.arange(len(kept.ring.parts))
    beside = kept.beside[:, ~is_inner[kept.beside[0]]]
    row, own = kept.parts["row"], kept.parts[kept.ring.parts]
    parts = np.ones(len(own), BORDER)
    for name in ("row", "col", "depth", "area"):
        parts[name] = own[name]
    parts["rank"] = _rank_in_row(is_inner, row)[kept.ring.parts]
    return Summary(
        kept.ring,
        parts,
        np.bincount(row[is_inner], minlength=kept.shape[0]),
        kept.void_ring,
        kept.void_cells,
        np.stack([ring_number[beside[0]], beside[1]]),
    )


def name_sinks(kept: Kept, answer: Answer) -> Split:
    """Name the sinks of a block, and drop those that are no rows."""
    place, ring = answer.place, kept.ring.parts
    is_root, is_inner = np.ones((2, len(kept.parts)), bool)
    is_root[ring], is_inner[ring] = answer.is_root, False
    row = kept.parts["row"]
    table = np.zeros(len(row), SINK)
    table["id"] = answer.before[row] + _rank_in_row(is_root, row) + 1
    table["id"][ring] = answer.ring_id
    table["spill"], table["pour_draw"] = kept.parts["spill"], kept.parts["pour_draw"]
    table["pour_row"], table["pour_col"] = kept.parts["pour_row"] + place.row, kept.parts["pour_col"] + place.col
    table["voids"] = _inner_voids(kept, answer)
    table["voids"][ring] = answer.voids
    table["pieces"] = table["of_pieces"] = 1
    table["of_pieces"][ring] = answer.of_pieces
    row_col = np.divmod(kept.runs.cells, np.int32(kept.shape[1]))
    cells = SinkCells(
        row_col[0] + np.int32(place.row), row_col[1] + np.int32(place.col), kept.elevation, kept.runs.parts, table
    )
    split = Split.of(cells.where(table["id"] > 0))
    return split._replace(crossing=SinkCells.join([split.crossing]))


def _inner_voids(kept: Kept, answer: Answer) -> NDArray[np.int64]:
    """Count the cells of the voids that touch each sink; wrong for those at the border."""
    n_ring = len(answer.void_group)
    group = np.concatenate([answer.void_group, -1 - np.arange(len(kept.void_cells) - n_ring)])
    size = np.concatenate([answer.void_cells, kept.void_cells[n_ring:]])
    sink, void = kept.beside
    once = np.unique(np.stack([sink, group[void]]), axis=1, return_index=True)[1]
    out = np.zeros(len(kept.parts), np.int64)
    np.add.at(out, sink[once], size[void[once]])
    return out


def _rank_in_row(counted: NDArray[np.bool_], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count, for each part (in raster order), the counted ones before it in its row."""
    before = np.concatenate([[0], np.cumsum(counted)])
    return before[:-1] - before[np.searchsorted(row, row, side="left")]
