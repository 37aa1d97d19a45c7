"""Pixels of tiles on disk, joined to one lazy raster."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from rasterio.windows import Window

from lakescale.scene.pixels import read_window
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lakescale.dem.mosaic import Part, Plan


def lazy_mosaic(
    plan: Plan, token: str, overlap: str, nodata: float | None, limits: tuple[float, float] | None
) -> da.Array:
    """Read planned parts lazily; a task knows its own parts only, and ``token`` tells the plan from others."""
    chunks, parts = plan
    reads = np.empty((len(chunks[0]), len(chunks[1])), object)
    for (i, height), (j, width) in product(enumerate(chunks[0]), enumerate(chunks[1])):
        reads[i, j] = ((height, width), parts[i][j])
    return da.map_blocks(
        _read_chunk, da.from_array(reads, chunks=1, name=f"dem-plan-{token}", meta=np.empty((0, 0), object)),
        overlap=overlap, nodata=nodata, limits=limits, chunks=chunks, dtype=np.float32,
        meta=np.empty((0, 0), np.float32), name=f"read-dem-{tokenize(token, overlap, nodata, limits)}",
    )  # fmt: skip


def _read_chunk(
    reads: NDArray[Any], *, overlap: str, nodata: float | None, limits: tuple[float, float] | None
) -> NDArray[np.float32]:
    shape, parts = reads[0, 0]
    join = _join_first if overlap == "first" else _join_mean
    return join(parts, shape, nodata, limits)


def _join_first(
    parts: Iterable[Part], shape: tuple[int, int], nodata: float | None, limits: tuple[float, float] | None
) -> NDArray[np.float32]:
    out = np.full(shape, np.nan, np.float32)
    for part in parts:
        here = out[part.into]
        void = np.isnan(here)
        if void.any():
            values = read_part(part, nodata)
            taken = void & ~np.isnan(values)
            _refuse_outside(np.where(taken, values, np.nan), part, limits)
            here[taken] = values[taken]
    return out


def _join_mean(
    parts: Iterable[Part], shape: tuple[int, int], nodata: float | None, limits: tuple[float, float] | None
) -> NDArray[np.float32]:
    total, count = np.zeros(shape), np.zeros(shape, np.int32)
    for part in parts:
        values = read_part(part, nodata)
        _refuse_outside(values, part, limits)
        valid = ~np.isnan(values)
        np.add(total[part.into], values, out=total[part.into], where=valid)
        count[part.into] += valid
    mean = np.full(shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(np.float32)


def read_part(part: Part, nodata: float | None) -> NDArray[Any]:
    """Read a part of a tile as float, NaN in voids; float64 where float32 would round."""
    tile, window = part.tile, _window(part)
    stored = read_window(tile.path, [1] if tile.mask is None else [1, tile.mask], window)
    values = stored[1]
    void = np.zeros(values.shape, bool) if tile.mask is None else stored[tile.mask] == 0
    missing = tile.nodata if nodata is None else nodata
    if missing is not None:
        with np.errstate(over="ignore"):  # it may not fit the type, and then no pixel has it
            void |= values == missing
    exact = values.dtype == np.float32 or values.dtype.itemsize <= 2  # noqa: PLR2004
    plain = (tile.scale, tile.offset) == (1.0, 0.0)
    out: NDArray[Any] = values.astype(np.float32 if exact and plain else np.float64)
    if not plain:
        out = out * tile.scale + tile.offset
    out[void] = np.nan
    return out


def _refuse_outside(values: NDArray[Any], part: Part, limits: tuple[float, float] | None) -> None:
    if limits is None:
        return
    outside = values[(values < limits[0]) | (values > limits[1])]
    if not outside.size:
        return
    found, counts = np.unique(outside, return_counts=True)
    often = found[counts.argmax()]
    (top, bottom), (left, right) = _window(part).toranges()
    raise InputError(
        f"{outside.size} elevations outside {limits[0]:g}..{limits[1]:g} m, {counts.max()} of them {often:.10g}",
        f"{part.tile.path}, rows {top} to {bottom}, columns {left} to {right}",
        f"the nodata value is probably wrong: give nodata={often:.10g} (--dem-nodata), or other limits=",
    )


def _window(part: Part) -> Window:
    rows, cols = part.into
    return Window(part.left, part.top, cols.stop - cols.start, rows.stop - rows.start)
