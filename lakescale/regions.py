"""Labels and holes of chunked masks, as exact as on one array."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lakescale.chunks import PackedBits, Stitch, on_dask, stitch
from lakescale.kernels.components import Parts, border_parts, find_parts, paint
from lakescale.schema import InputError, X, Y

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from lakescale.chunks import Place

_FOUR, _EIGHT = 4, 8


def fill_holes(mask: xr.DataArray) -> xr.DataArray:
    """Fill the holes of a mask, however many chunks they span.

    A hole is background that is not joined to the mosaic's edge through 4-connected background, as in
    `scipy.ndimage.binary_fill_holes`. Lazy. Between the two passes each chunk waits as packed bits; the solving task
    holds 16 bytes per border pixel of every chunk (130 kB a 2048 chunk).

    Parameters
    ----------
    mask
        Bool ``(y, x)``, True inside.

    Returns
    -------
    xr.DataArray
        Bool ``(y, x)``, the same chunks.

    Raises
    ------
    InputError
        When the mask is not bool or not 2-D.
    """
    blocks = stitch(_checked(mask), hole_stitch())
    return like(mask, blocks.to_array(bool))


def label_regions(mask: xr.DataArray, *, connectivity: int = 8) -> xr.DataArray:
    """Label the regions of a mask, however many chunks they span.

    Ids are dense from 1, in raster order of each region's first pixel, as `scipy.ndimage.label` gives them. Lazy.
    Between the two passes each chunk waits as packed bits; the solving task holds, a chunk, 12 bytes per row and 16
    per border pixel (160 kB a 2048 chunk).

    Parameters
    ----------
    mask
        Bool ``(y, x)``, True inside a region.
    connectivity
        8 (pixels that meet at a corner belong together) or 4.

    Returns
    -------
    xr.DataArray
        Integer ``(y, x)``, 0 = background; int32, or int64 where the mosaic could hold more regions than that.

    Raises
    ------
    InputError
        When the mask is not bool or not 2-D, or the connectivity is neither 4 nor 8.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> mask = xr.DataArray(np.array([[1, 0, 1], [0, 1, 0]], bool), dims=("y", "x")).chunk(y=1, x=2)
    >>> label_regions(mask, connectivity=4).values
    array([[1, 0, 2],
           [0, 3, 0]], dtype=int32)
    """
    if connectivity not in (_FOUR, _EIGHT):
        raise InputError(f"connectivity must be 4 or 8, got {connectivity!r}", "label_regions")
    array = _checked(mask)
    height, width = array.shape
    most = -(-height // 2) * -(-width // 2) if connectivity == _EIGHT else -(-height * width // 2)
    dtype = np.dtype(np.int32 if most <= np.iinfo(np.int32).max else np.int64)
    blocks = stitch(array, label_stitch(connectivity, dtype))
    return like(mask, blocks.to_array(dtype))


def like(raster: xr.DataArray, data: da.Array) -> xr.DataArray:
    """Put other values on a raster's grid; how it was stored (encoding, fill values) says nothing about them."""
    return xr.DataArray(data, dims=raster.dims, coords=raster.coords, name=raster.name)


def _checked(mask: xr.DataArray) -> da.Array:
    name = str(mask.name or "mask")
    if mask.dims != (Y, X):
        raise InputError(f"a mask needs the dims ('y', 'x'), got {mask.dims}", name)
    if mask.dtype != bool:
        raise InputError(f"a mask must be bool, got {mask.dtype}", name, "compare it with a threshold first")
    return on_dask(mask)


# -- seams


class Ring(NamedTuple):
    """The parts that touch a block's border, numbered densely from 1; 0 is background."""

    top: NDArray[np.int32]
    bottom: NDArray[np.int32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    parts: NDArray[np.int32]
    """Part of the block behind each number (number 1 first)."""


NO_RING = Ring(*(np.empty(0, np.int32) for _ in Ring._fields))
"""Of what ends nowhere."""


def ring_of(parts: Parts) -> Ring:
    """Find the parts that touch a block's border, and number them densely along its four lines."""
    return _number_densely(border_parts(parts))


def ring_around(rings: list[list[Ring]], group: NDArray[np.int32], span: list[list[slice]]) -> Ring:
    """Make the ring of a square of blocks from theirs; its parts are the groups of `join_rings`."""

    def line(blocks: list[tuple[int, int]], side: str) -> NDArray[np.int32]:
        named = [np.append(group[span[i][j]] + 1, 0) for i, j in blocks]  # number 0 is nothing, and so the last
        return np.concatenate([n[getattr(rings[i][j], side) - 1] for n, (i, j) in zip(named, blocks, strict=True)])

    rows, cols = range(len(rings)), range(len(rings[0]))
    top, bottom = (line([(i, j) for j in cols], side) for i, side in ((rows[0], "top"), (rows[-1], "bottom")))
    left, right = (line([(i, j) for i in rows], side) for j, side in ((cols[0], "left"), (cols[-1], "right")))
    return _number_densely((top, bottom, left, right))


def _number_densely(lines: Sequence[NDArray[np.int32]]) -> Ring:
    """Make a ring of four lines of parts, which count from 1."""
    touching, dense = np.unique(np.concatenate([[0], *lines]), return_inverse=True)
    ends = np.cumsum([len(line) for line in lines])[:-1]
    top, bottom, left, right = np.split(dense[1:].astype(np.int32), ends)
    return Ring(top, bottom, left, right, (touching[1:] - 1).astype(np.int32))


def join_rings(rings: list[list[Ring]], *, corners: bool) -> tuple[NDArray[np.int32], list[list[slice]]]:
    """Group the ring parts of all blocks that meet across seams.

    Returns
    -------
    group, span
        The group of every ring part, blocks in raster order; and each block's span in it.
    """
    counts = [[len(ring.parts) for ring in row] for row in rings]
    offsets = np.concatenate([[0], np.cumsum(np.ravel(counts), dtype=np.int64)])
    span = [
        [slice(int(offsets[k]), int(offsets[k + 1])) for k in range(i * len(row), (i + 1) * len(row))]
        for i, row in enumerate(rings)
    ]

    def line(i: int, j: int, side: str) -> NDArray[np.int64]:
        numbers = getattr(rings[i][j], side).astype(np.int64)
        return np.where(numbers > 0, numbers + span[i][j].start, 0)

    rows, cols = range(len(rings)), range(len(rings[0]))
    facing = [
        (np.concatenate([line(i, j, "bottom") for j in cols]), np.concatenate([line(i + 1, j, "top") for j in cols]))
        for i in rows[:-1]
    ] + [
        (np.concatenate([line(i, j, "right") for i in rows]), np.concatenate([line(i, j + 1, "left") for i in rows]))
        for j in cols[:-1]
    ]
    pairs = [pair for a, b in facing for pair in _touching(a, b, corners=corners)]
    edges = np.concatenate(pairs, axis=1) if pairs else np.empty((2, 0), np.int64)
    total = int(offsets[-1])
    graph = coo_array((np.ones(edges.shape[1], bool), (edges[0] - 1, edges[1] - 1)), shape=(total, total))
    return connected_components(graph, directed=False)[1], span


def _touching(a: NDArray[np.int64], b: NDArray[np.int64], *, corners: bool) -> list[NDArray[np.int64]]:
    """Pairs of parts that meet between two facing lines, ``(2, n)`` each."""
    shifted = [(a, b), (a[:-1], b[1:]), (a[1:], b[:-1])] if corners else [(a, b)]
    return [np.unique(np.stack([p, q])[:, (p > 0) & (q > 0)], axis=1) for p, q in shifted]


# -- holes


def hole_stitch(*, flag: int = 1, mark: int = 1) -> Stitch:
    """Mark the holes of one flag in blocks of uint8 flags (or bool), and hand the other flags on; see `fill_holes`.

    Parameters
    ----------
    flag
        The flag (1, 2, 4, ...) whose holes are meant.
    mark
        The flag that hole pixels get; the same one fills the holes.
    """
    return Stitch(
        "fill-holes",
        partial(_summarize_holes, flag=flag),
        _solve_holes,
        partial(_apply_holes, flag=flag, mark=mark),
        keep=PackedBits.of,
    )


def _hole_parts(block: NDArray[Any], flag: int) -> Parts:
    return find_parts((block.view(np.uint8) & flag) == 0, connectivity=_FOUR)


def _summarize_holes(kept: PackedBits, *, flag: int) -> Ring:
    return ring_of(_hole_parts(kept.unpack(), flag))


def _solve_holes(rings: list[list[Ring]], _places: list[list[Place]]) -> list[list[NDArray[np.bool_]]]:
    """Tell for each ring part of background whether it is a hole: not joined to the mosaic's edge."""
    group, span = join_rings(rings, corners=False)
    outside = np.zeros(len(group), bool)

    def mark(i: int, j: int, line: NDArray[np.int32]) -> None:
        outside[group[span[i][j]][line[line > 0] - 1]] = True

    last_row, last_col = len(rings) - 1, len(rings[0]) - 1
    for j in range(last_col + 1):
        mark(0, j, rings[0][j].top)
        mark(last_row, j, rings[last_row][j].bottom)
    for i in range(last_row + 1):
        mark(i, 0, rings[i][0].left)
        mark(i, last_col, rings[i][last_col].right)
    return [[~outside[group[s]] for s in row] for row in span]


def _apply_holes(kept: PackedBits, ring_is_hole: NDArray[np.bool_], *, flag: int, mark: int) -> NDArray[Any]:
    block = kept.unpack()
    parts = _hole_parts(block, flag)
    is_hole = np.ones(parts.n_parts, bool)
    is_hole[ring_of(parts).parts] = ring_is_hole
    holes = paint(parts, is_hole, np.zeros(kept.shape, bool))
    block.view(np.uint8)[holes] |= np.uint8(mark)
    return block


# -- labels


class _LabelSummary(NamedTuple):
    ring: Ring
    inner_roots: NDArray[np.int32]
    """First pixels per row of the parts that touch no border."""
    ring_row: NDArray[np.int64]
    """Row in the block of the first pixel of each ring part."""
    ring_col: NDArray[np.int64]
    ring_rank: NDArray[np.int64]
    """How many inner roots lie in that row before it."""


class _LabelAnswer(NamedTuple):
    before: NDArray[np.int64]
    """Per row of the block: roots in earlier rows of the mosaic and in chunks to the left."""
    ring_id: NDArray[np.int64]
    """Final id of each ring part."""
    is_root: NDArray[np.bool_]
    """Whether the region of a ring part has its first pixel in this part."""


def label_stitch(connectivity: int, dtype: np.dtype[Any]) -> Stitch:
    """Label blocks of bool; see `label_regions`."""
    return Stitch(
        "label-regions",
        partial(_summarize_labels, connectivity=connectivity),
        partial(_solve_labels, corners=connectivity == _EIGHT),
        partial(_apply_labels, connectivity=connectivity, dtype=dtype),
        keep=PackedBits.of,
    )


def _summarize_labels(kept: PackedBits, *, connectivity: int) -> _LabelSummary:
    parts = find_parts(kept.unpack(), connectivity=connectivity)
    ring = ring_of(parts)
    inner = np.ones(parts.n_parts, bool)
    inner[ring.parts] = False
    row = parts.first_row
    roots = np.bincount(row[inner], minlength=parts.shape[0]).astype(np.int32)
    rank = _rank_in_row(inner, row)
    return _LabelSummary(ring, roots, row[ring.parts], parts.first_col[ring.parts].astype(np.int64), rank[ring.parts])


def _rank_in_row(counted: NDArray[np.bool_], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count, for each part (in raster order), the counted ones before it in its row."""
    before = np.concatenate([[0], np.cumsum(counted)])
    return before[:-1] - before[np.searchsorted(row, row, side="left")]


def _solve_labels(
    summaries: list[list[_LabelSummary]], places: list[list[Place]], *, corners: bool
) -> list[list[_LabelAnswer]]:
    """Count roots row by row of the mosaic: an id is the number of roots before it, plus one."""
    group, span = join_rings([[s.ring for s in row] for row in summaries], corners=corners)
    flat = [(s, p, j) for ss, ps in zip(summaries, places, strict=True) for j, (s, p) in enumerate(zip(ss, ps))]  # noqa: B905
    row = np.concatenate([s.ring_row + p.row for s, p, _ in flat])
    col = np.concatenate([s.ring_col + p.col for s, p, _ in flat])
    rank = np.concatenate([s.ring_rank for s, _, _ in flat])
    block_col = np.concatenate([np.full(len(s.ring_row), j) for s, _, j in flat])
    root = _first_of_group(group, row, col)

    roots = np.zeros((places[-1][0].row + places[-1][0].height, len(places[0])), np.int64)
    for s, p, j in flat:
        roots[p.row : p.row + p.height, j] = s.inner_roots
    np.add.at(roots, (row[root], block_col[root]), 1)
    before = (np.cumsum(roots) - roots.ravel()).reshape(roots.shape)

    group_id = np.zeros(len(root), np.int64)
    earlier = _earlier_in_row(row[root], block_col[root], col[root])
    group_id[group[root]] = before[row[root], block_col[root]] + rank[root] + earlier + 1
    is_root = np.zeros(len(group), bool)
    is_root[root] = True
    return [
        [
            _LabelAnswer(before[p.row : p.row + p.height, j], group_id[group[s]], is_root[s])
            for j, (p, s) in enumerate(zip(place_row, span_row, strict=True))
        ]
        for place_row, span_row in zip(places, span, strict=True)
    ]


def _first_of_group(group: NDArray[np.int32], row: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of each group's first pixel in raster order."""
    order = np.lexsort((col, row, group))
    first = np.ones(len(order), bool)
    first[1:] = np.diff(group[order]) != 0
    return order[first]


def _earlier_in_row(row: NDArray[np.int64], block: NDArray[np.int64], col: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count, for each root, the others of the same row and block to its left."""
    order = np.lexsort((col, block, row))
    same = np.ones(len(order), bool)
    same[1:] = (np.diff(row[order]) != 0) | (np.diff(block[order]) != 0)
    position = np.arange(len(order))
    earlier = np.empty(len(order), np.int64)
    earlier[order] = position - np.maximum.accumulate(np.where(same, position, 0))
    return earlier


def _apply_labels(
    kept: PackedBits, answer: _LabelAnswer, *, connectivity: int, dtype: np.dtype[Any]
) -> NDArray[np.integer[Any]]:
    parts = find_parts(kept.unpack(), connectivity=connectivity)
    ring_parts = ring_of(parts).parts
    is_root = np.ones(parts.n_parts, bool)
    is_root[ring_parts] = answer.is_root
    row = parts.first_row
    ids = answer.before[row] + _rank_in_row(is_root, row) + 1
    ids[ring_parts] = answer.ring_id
    return paint(parts, ids.astype(dtype), np.zeros(kept.shape, dtype))
