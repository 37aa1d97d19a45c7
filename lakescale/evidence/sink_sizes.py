"""Sinks that are deep and large enough, however many chunks they span."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lakescale.chunks import PackedBits, Stitch, Tree, stitch, zip_blocks
from lakescale.evidence.sink_areas import AREA_UNIT_M2, add_areas
from lakescale.kernels.components import find_parts, paint
from lakescale.regions import Ring, join_rings, ring_around, ring_of

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.grid import Grid

_CELLS, _SIZE = "sink-size-cells", "sink-size"
WAITING = (_CELLS, *(f"{_SIZE}-{step}" for step in ("summary", "contract", "pick")))
"""Names of the tasks of `drop_small` whose results wait for others; see `lakescale.store.Stages`."""


class Least(NamedTuple):
    """What a sink must have to be kept."""

    depth_m: np.float32
    area: int
    """In units of `lakescale.evidence.sink_areas.AREA_UNIT_M2`."""

    def chosen(self, depth: NDArray[np.float32], area: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which sinks have it."""
        return (depth >= self.depth_m) & (area >= self.area)


class _Cells(NamedTuple):
    """The sink cells of a block, and its voids."""

    sink: PackedBits
    void: PackedBits
    depth: NDArray[np.float32]
    """Of the sink cells in raster order."""
    part_depth: NDArray[np.float32]
    """Greatest depth of each part of the sink cells (8-connected)."""
    part_area: NDArray[np.int64]
    """In units of `AREA_UNIT_M2`; 0 where nobody asks."""


class _Sizes(NamedTuple):
    """The sinks at the border of a block, or of a square of blocks."""

    ring: Ring
    depth: NDArray[np.float32]
    """Greatest depth of each ring part."""
    area: NDArray[np.int64]


def drop_small(depth: da.Array, grid: Grid | None, min_depth_m: float, min_area_m2: float) -> da.Array:
    """Make depths 0 in the sinks that are less deep or large; ``grid`` where there is a least area."""
    cells = zip_blocks(_CELLS, partial(_pack, grid=grid), depth)
    least = Least(np.float32(min_depth_m), int(np.ceil(min_area_m2 / AREA_UNIT_M2)))
    return stitch(cells, _size_stitch(least)).to_array(np.float32)


def _size_stitch(least: Least) -> Stitch:
    tree = Tree(_contract, partial(_expand, least=least))
    return Stitch(_SIZE, _measure, partial(_choose, least=least), partial(_keep_chosen, least=least), tree=tree)


def _pack(depth: NDArray[np.float32], place: Place, *, grid: Grid | None) -> _Cells:
    sink = depth > 0
    parts = find_parts(sink, connectivity=8)
    part = np.repeat(parts.part, parts.stop - parts.start)
    part_depth, part_area = np.zeros(parts.n_parts, np.float32), np.zeros(parts.n_parts, np.int64)
    values = depth[sink]
    np.maximum.at(part_depth, part, values)
    if grid is not None:
        part_area = add_areas(grid, place, sink, part, parts.n_parts)
    return _Cells(PackedBits.of(sink), PackedBits.of(np.isnan(depth)), values, part_depth, part_area)


def _measure(cells: _Cells) -> _Sizes:
    ring = ring_of(find_parts(cells.sink.unpack(), connectivity=8))
    return _Sizes(ring, cells.part_depth[ring.parts], cells.part_area[ring.parts])


class _Joined(NamedTuple):
    """The sinks at the borders of blocks, put together."""

    group: NDArray[np.int32]
    span: list[list[slice]]
    sizes: _Sizes
    """Of each sink; the ring is that of the square."""

    @classmethod
    def of(cls, sizes: list[list[_Sizes]]) -> _Joined:
        rings = [[s.ring for s in row] for row in sizes]
        group, span = join_rings(rings, corners=True)
        count = int(group.max(initial=-1)) + 1
        depth, area = np.zeros(count, np.float32), np.zeros(count, np.int64)
        np.maximum.at(depth, group, np.concatenate([s.depth for row in sizes for s in row]))
        np.add.at(area, group, np.concatenate([s.area for row in sizes for s in row]))
        return cls(group, span, _Sizes(ring_around(rings, group, span), depth, area))

    def tell(self, chosen: NDArray[np.bool_]) -> list[list[NDArray[np.bool_]]]:
        """Tell each block which of its ring parts belong to sinks that are kept."""
        return [[chosen[self.group[s]] for s in row] for row in self.span]


def _choose(sizes: list[list[_Sizes]], _places: list[list[Place]], *, least: Least) -> list[list[NDArray[np.bool_]]]:
    joined = _Joined.of(sizes)
    return joined.tell(least.chosen(joined.sizes.depth, joined.sizes.area))


def _contract(sizes: list[list[_Sizes]], _places: list[list[Place]]) -> _Sizes:
    ring, depth, area = _Joined.of(sizes).sizes
    return _Sizes(ring, depth[ring.parts], area[ring.parts])


def _expand(
    sizes: list[list[_Sizes]], _places: list[list[Place]], ring_is_chosen: NDArray[np.bool_], *, least: Least
) -> list[list[NDArray[np.bool_]]]:
    joined = _Joined.of(sizes)
    chosen = least.chosen(joined.sizes.depth, joined.sizes.area)
    chosen[joined.sizes.ring.parts] = ring_is_chosen
    return joined.tell(chosen)


def _keep_chosen(cells: _Cells, ring_is_chosen: NDArray[np.bool_], *, least: Least) -> NDArray[np.float32]:
    sink = cells.sink.unpack()
    parts = find_parts(sink, connectivity=8)
    chosen = least.chosen(cells.part_depth, cells.part_area)
    chosen[ring_of(parts).parts] = ring_is_chosen
    out = np.zeros(sink.shape, np.float32)
    out[sink] = cells.depth
    out[~paint(parts, chosen, np.zeros(out.shape, bool))] = 0
    out[cells.void.unpack()] = np.nan
    return out
