"""Map a function over chunks with a halo."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from lakescale.chunks.plan import plan_tiles, rechunk_yx

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike, NDArray

    from lakescale.chunks.plan import Chunks


def map_tiles(
    kernel: Callable[..., NDArray[Any]],
    *arrays: da.Array,
    depth: int,
    name: str,
    dtype: DTypeLike,
    options: dict[str, Any] | None = None,
) -> da.Array:
    """Map a kernel over blocks with a halo; the result is 2-D and chunked like the first array.

    The kernel gets blocks that end where the mosaic ends (no padding there: the edge is its own business) and reach
    ``depth`` pixels into every neighbour, and returns ``(y, x)`` of the same height and width; what it computes in the
    halo is cut off. Its result inside must not depend on anything further away than ``depth``.

    Parameters
    ----------
    kernel
        ``kernel(*blocks, **options) -> (y, x)``.
    arrays
        ``(y, x)`` or ``(band, y, x)``, of one height and width; the chunks of the first one count.
    depth
        Pixels of halo; 0 for a function of single pixels.
    name
        Name of the tasks on the dashboard.
    dtype
        Of the result.
    options
        Keyword arguments of the kernel.
    """
    chunks = arrays[0].chunks[-2:]
    wide = tuple(_at_least(axis, depth) for axis in chunks)
    blocks = [rechunk_yx(array, wide) for array in arrays]
    axes = {-2: depth, -1: depth}
    result = da.map_overlap(
        partial(_trimmed, kernel, depth, tuple(len(axis) for axis in wide), options or {}),
        *blocks,
        depth=[{a.ndim + k: d if a.numblocks[k] > 1 else 0 for k, d in axes.items()} for a in blocks],
        boundary="none",
        trim=False,
        allow_rechunk=False,
        token=name,
        dtype=dtype,
        meta=np.empty((0, 0), dtype),
        chunks=wide,
        drop_axis=list(range(max(a.ndim for a in blocks) - 2)),
    )
    return result.rechunk(chunks)


def map_tiles_serial(
    kernel: Callable[..., NDArray[Any]],
    *arrays: NDArray[Any],
    chunks: Chunks,
    depth: int,
    dtype: DTypeLike,
    options: dict[str, Any] | None = None,
) -> NDArray[Any]:
    """Run what `map_tiles` runs, in a plain loop over numpy arrays."""
    out = np.empty(arrays[0].shape[-2:], dtype)
    for row in plan_tiles(chunks, depth):
        for tile in row:
            out[tile.inner] = kernel(*(a[..., *tile.outer] for a in arrays), **(options or {}))[tile.trim]
    return out


def _at_least(axis: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """Merge chunks until each holds ``depth`` pixels, so that a halo comes from the next neighbour alone."""
    merged: list[int] = []
    for size in axis:
        if merged and merged[-1] < depth:
            merged[-1] += size
        else:
            merged.append(size)
    if len(merged) > 1 and merged[-1] < depth:
        merged[-2:] = [sum(merged[-2:])]
    return tuple(merged)


def _trimmed(
    kernel: Callable[..., NDArray[Any]],
    depth: int,
    numblocks: tuple[int, ...],
    options: dict[str, Any],
    *blocks: NDArray[Any],
    block_info: Any = None,
) -> NDArray[Any]:
    result = kernel(*blocks, **options)
    location = block_info[None]["chunk-location"]
    before = [depth if i > 0 else 0 for i in location]
    after = [depth if i < n - 1 else 0 for i, n in zip(location, numblocks, strict=True)]
    (top, left), (bottom, right) = before, after
    height, width = result.shape
    return np.ascontiguousarray(result[top : height - bottom, left : width - right])
