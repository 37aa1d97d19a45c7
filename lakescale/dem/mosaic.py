"""Where tiles lie on the one grid that holds them all, and what each chunk reads of them: plain data."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS

from lakescale.chunks import plan_blocks
from lakescale.grid import Grid
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lakescale.chunks import Chunks, Place
    from lakescale.dem.tiles import Tile

_ALIGNED_PX = 1e-3


class Part(NamedTuple):
    """What a chunk takes from a tile."""

    tile: Tile
    top: int
    left: int
    """First row and column in the tile."""
    into: tuple[slice, slice]
    """Where it goes in the chunk."""


class Plan(NamedTuple):
    """The chunks to read."""

    chunks: Chunks
    parts: list[list[tuple[Part, ...]]]
    """What each chunk takes of tiles, in their order; rows of chunks."""


def place_tiles(tiles: Sequence[Tile]) -> tuple[NDArray[np.int64], NDArray[np.int64], Grid]:
    """Place tiles on the one grid that holds them all: row and column of each one's first pixel, and the grid."""
    first = tiles[0]
    a, _, c, _, e, f = first.transform[:6]
    for tile in tiles:
        _require_same(first, tile)
    start = np.array([((t.transform.c - c) / a, (t.transform.f - f) / e) for t in tiles])
    whole = np.rint(start).astype(np.int64)
    off = np.abs(start - whole).max(axis=1)
    if off.max() > _ALIGNED_PX:
        other = tiles[int(off.argmax())]
        raise InputError(
            f"tiles whose pixels do not align: {other.name} lies {off.max():.3f} pixels off",
            f"{first.path}, {other.path}",
            f"bring them to one grid, each by: gdalwarp -tap -tr {abs(a):g} {abs(e):g} IN OUT",
        )  # fmt: skip
    cols, rows = (whole - whole.min(axis=0)).T
    height, width = (int((at + [tile.shape[axis] for tile in tiles]).max()) for axis, at in enumerate((rows, cols)))
    left, top = whole.min(axis=0).tolist()
    transform = Affine(a, 0, c + left * a, 0, e, f + top * e)
    return rows, cols, Grid(GeoBox((height, width), transform, first.crs))


def _require_same(one: Tile, other: Tile) -> None:
    item = f"{one.path}, {other.path}"
    if other.crs != one.crs and CRS.from_wkt(other.crs) != CRS.from_wkt(one.crs):
        names = [CRS.from_wkt(tile.crs).to_string()[:60] for tile in (one, other)]
        raise InputError(f"tiles of different CRS: {names[0]} and {names[1]}", item, "bring them to one with gdalwarp")
    a, _, _, _, e, _ = one.transform[:6]
    a2, _, _, _, e2, _ = other.transform[:6]
    if not np.allclose((a, e), (a2, e2), rtol=1e-9, atol=0):
        raise InputError(
            f"tiles of different resolution: {a:g} x {e:g} and {a2:g} x {e2:g}", item,
            "give the tiles of one resolution, for example 'FOLDER/*_10m_*_dem.tif', or gdalwarp the others",
        )  # fmt: skip


def plan_reads(
    tiles: Sequence[Tile], rows: NDArray[np.int64], cols: NDArray[np.int64], shape: tuple[int, int], side: int
) -> Plan:
    """Plan the chunks to read, along the blocks of the files where that is possible, and the parts of tiles in each."""
    spans = [np.array([[t.shape[k], t.block[k]] for t in tiles]) for k in (0, 1)]
    x_chunks = align_axis(cols, spans[1], shape[1], side)
    y_side = max(1, side * side // max(x_chunks))
    chunks = (align_axis(rows, spans[0], shape[0], y_side), x_chunks)
    bottom, right = rows + spans[0][:, 0], cols + spans[1][:, 0]
    parts = []
    for place_row in plan_blocks(chunks):
        top, height = place_row[0].row, place_row[0].height
        near = np.flatnonzero((rows < top + height) & (bottom > top))
        parts.append(
            [
                tuple(
                    _part(tiles[k], int(rows[k]), int(cols[k]), place)
                    for k in near[(cols[near] < place.col + place.width) & (right[near] > place.col)]
                )
                for place in place_row
            ]
        )
    return Plan(chunks, parts)


def align_axis(start: NDArray[np.int64], span: NDArray[np.int64], size: int, side: int) -> tuple[int, ...]:
    """Choose chunk sizes along an axis that cut as few blocks of the files as possible.

    Parameters
    ----------
    start
        First pixel of each tile.
    span
        Length and block length of each tile, ``(tiles, 2)``.
    size
        Of the axis.
    side
        Wanted chunk size; a chunk is longer only where a block is.
    """
    cut = np.zeros(size + 1, np.int64)
    for (first, length, block), count in zip(
        *np.unique(np.column_stack([start, span]), axis=0, return_counts=True), strict=True
    ):
        inside = cut[first + 1 : first + length]
        inside += count
        inside[block - 1 :: block] -= count
    longest = max(side, int(np.minimum(span[:, 0], span[:, 1]).max()))
    edges = [0]
    while edges[-1] < size:
        last = edges[-1]
        edges.append(size if last + side >= size else _best_edge(cut, last, side, longest))
    return tuple(b - a for a, b in pairwise(edges))


def _best_edge(cut: NDArray[np.int64], last: int, side: int, longest: int) -> int:
    """Last edge within reach that cuts no block; else the first one beyond; else the one that cuts fewest."""
    near = cut[last + 1 : last + side + 1]
    clean = np.flatnonzero(near == 0)
    if clean.size:
        return last + 1 + int(clean[-1])
    clean = np.flatnonzero(cut[last + side + 1 : last + longest + 1] == 0)
    if clean.size:
        return last + side + 1 + int(clean[0])
    far_half = near[side // 2 :]
    return last + 1 + side // 2 + int(np.flatnonzero(far_half == far_half.min())[-1])


def _part(tile: Tile, row: int, col: int, place: Place) -> Part:
    top, left = max(row, place.row), max(col, place.col)
    bottom = min(row + tile.shape[0], place.row + place.height)
    right = min(col + tile.shape[1], place.col + place.width)
    into = slice(top - place.row, bottom - place.row), slice(left - place.col, right - place.col)
    return Part(tile, top - row, left - col, into)
