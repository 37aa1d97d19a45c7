"""Where blocks, halos and windows lie: plain data, decided before any graph is built."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dask.array as da
    from numpy.typing import NDArray

Chunks = tuple[tuple[int, ...], tuple[int, ...]]
"""Chunk sizes along y and x, as dask has them."""
Slices = tuple[slice, slice]


class Place(NamedTuple):
    """Where a block lies in the mosaic."""

    row: int
    """Row of its first pixel."""
    col: int
    """Column of its first pixel."""
    height: int
    width: int


class Tile(NamedTuple):
    """A block and the halo it is read with."""

    inner: tuple[slice, slice]
    """The block, in the mosaic; the inner slices of a plan partition the grid."""
    outer: tuple[slice, slice]
    """The block with its halo, cut at the mosaic's edge."""
    trim: tuple[slice, slice]
    """The block, within ``outer``."""


def plan_blocks(chunks: Chunks) -> list[list[Place]]:
    """Lay out the blocks of a chunked ``(y, x)`` grid, one list a row of blocks."""
    rows, cols = (list(accumulate((0, *axis))) for axis in chunks)
    return [[Place(r, c, r_end - r, c_end - c) for c, c_end in pairwise(cols)] for r, r_end in pairwise(rows)]


def plan_tiles(chunks: Chunks, depth: int) -> list[list[Tile]]:
    """Lay out the blocks with a halo of ``depth`` pixels towards every neighbour."""
    height, width = (sum(axis) for axis in chunks)
    return [[_tile(place, depth, height, width) for place in row] for row in plan_blocks(chunks)]


def _tile(place: Place, depth: int, height: int, width: int) -> Tile:
    inner = (slice(place.row, place.row + place.height), slice(place.col, place.col + place.width))
    outer = tuple(
        slice(max(0, s.start - depth), min(n, s.stop + depth)) for s, n in zip(inner, (height, width), strict=True)
    )
    trim = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return Tile(inner, outer, trim)  # type: ignore[arg-type]


def rechunk_yx(array: da.Array, chunks: tuple[tuple[int, ...], ...]) -> da.Array:
    """Rechunk the last two axes, and put all bands of a pixel into one chunk."""
    whole_bands = tuple((n,) for n in array.shape[:-2])
    return array.rechunk((*whole_bands, *chunks))


def shared_blocks(place: Place, chunks: Chunks) -> Iterator[tuple[tuple[int, int], Slices, Slices]]:
    """Blocks that a place reaches, with the shared pixels as slices of the block and of the place."""
    shared = []
    for axis, first, size in zip(chunks, place[:2], place[2:], strict=True):
        edges = list(accumulate((0, *axis)))
        reached = range(bisect_right(edges, first) - 1, bisect_left(edges, min(first + size, edges[-1])))
        spans = [(i, max(first, edges[i]), min(first + size, edges[i + 1])) for i in reached]
        shared.append([(i, slice(a - edges[i], b - edges[i]), slice(a - first, b - first)) for i, a, b in spans])
    for (i, block_y, place_y), (j, block_x, place_x) in product(*shared):
        yield (i, j), (block_y, block_x), (place_y, place_x)


def cut(block: NDArray[Any], where: Slices) -> NDArray[Any]:
    """Copy pixels out of a block: a view would keep all of it alive."""
    return np.ascontiguousarray(block[..., *where])


def split_key(key: Any, size: int) -> tuple[range, Any]:
    """Split a slice or a number into the range to read, and the key that picks from what was read."""
    picked = range(size)[key]
    if isinstance(picked, int):
        return range(picked, picked + 1), 0
    if not picked:
        return range(0), slice(None)
    return range(min(picked), max(picked) + 1), slice(None, None, picked.step)


@dataclass(frozen=True)
class WindowPlan:
    """Square windows over a grid, every ``stride`` pixels from pixel (0, 0), the last one shifted inwards.

    A grid smaller than a window gets one window, which reaches beyond it: the model sees zeros there.
    """

    window: int
    stride: int

    def __post_init__(self) -> None:
        """Refuse strides that would leave pixels without a window."""
        if not 1 <= self.stride <= self.window:
            raise ValueError(f"stride must lie in 1..window, got stride {self.stride} and window {self.window}")

    def starts(self, size: int) -> list[int]:
        """First pixels of the windows along an axis of ``size`` pixels."""
        last = max(0, size - self.window)
        return [*range(0, last, self.stride), last]

    def owned(self, axis: tuple[int, ...]) -> list[list[int]]:
        """First pixels of the windows that each chunk of an axis owns: those that start in it."""
        starts = self.starts(sum(axis))
        edges = list(accumulate((0, *axis)))
        return [[s for s in starts if a <= s < b] for a, b in pairwise(edges)]
