"""Pixels on disk as a lazy stack of planes, read a window at a time and all its bands in one task.

Windows are the chunks asked for, where the blocks of the files divide them; else they follow the blocks, so that none
is decoded for one chunk and again for the next, and the chunks are cut out of the windows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from rasterio.errors import RasterioError
from rasterio.windows import Window

from lakescale.chunks import plan_blocks, pull, split_key
from lakescale.schema import InputError, LakescaleError
from lakescale.storage import bare_url, is_url, open_raster, require_there, version_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from lakescale.chunks import Place

DATASET_MASK = 0
"""In place of a band's index: the mask of the whole file (GDAL's, from inside the file or a .msk beside it)."""

_WINDOW_BYTES = 256e6
"""What a window of another shape than the chunk may hold; GDAL's cache and the chunks cut out of it come on top."""


@dataclass(frozen=True)
class Plane:
    """One plane of a stack: where it is read and, for stacks of float, what makes reflectance of its numbers."""

    path: str
    index: int
    """The band (from 1), or `DATASET_MASK`."""
    mask: int | None = None
    """The band (from 1), or `DATASET_MASK`, that is 0 where there is no data."""
    scale: float = 1.0
    offset: float = 0.0
    nodata: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reader:
    """An array ``(band, y, x)`` on disk, for `dask.array.from_array`; each read opens its files by itself."""

    planes: tuple[Plane, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    ndim: int = 3

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        (bands, rows, cols), picks = zip(*map(split_key, key, self.shape), strict=True)
        out = np.empty((len(bands), len(rows), len(cols)), self.dtype)
        if out.size:
            window = Window(cols.start, rows.start, len(cols), len(rows))
            pairs = zip(self.planes[bands.start : bands.stop], out, strict=True)
            for path, group in groupby(pairs, key=lambda pair: pair[0].path):
                _fill(list(group), path, window)
        return out[picks]


def lazy_stack(
    planes: list[Plane], shape: tuple[int, int], dtype: str, side: int, block: tuple[int, int] = (1, 1)
) -> Any:
    """Stack planes to a dask array ``(band, y, x)``: uint8 as stored, or float32 reflectance.

    ``block`` is the height and width of the blocks that the files are stored in: each is decoded for one window only.
    """
    reader = Reader(tuple(planes), (len(planes), *shape), np.dtype(dtype))
    versions = [version_of(path) for path in dict.fromkeys(plane.path for plane in planes)]
    window = plan_window(shape, block, side, len(planes) * reader.dtype.itemsize)
    read = da.core.normalize_chunks((len(planes), *window), reader.shape)
    windows = da.from_array(
        reader,
        chunks=read,
        name=f"read-scene-{tokenize(_without_keys(reader), versions, read)}",
        asarray=False,
        lock=False,
        inline_array=True,
        meta=np.empty((0, 0, 0), reader.dtype),
    )
    chunks = da.core.normalize_chunks((side, side), shape)
    if windows.chunks[1:] == chunks:
        return windows
    return pull(windows, chunks, plan_blocks(chunks), _as_it_is, name="cut-scene", dtype=reader.dtype)


def plan_window(shape: tuple[int, int], block: tuple[int, int], side: int, bytes_a_pixel: int) -> tuple[int, int]:
    """Choose the height and width of the windows to read: multiples of the block, or the chunk's where they fit it.

    >>> plan_window((16384, 16384), (512, 512), 2048, 3), plan_window((16384, 16384), (512, 512), 1000, 3)
    ((2048, 2048), (1024, 1024))
    >>> plan_window((16384, 16384), (1, 16384), 2048, 3)  # strips
    (2048, 16384)
    """
    height, width = (_fit(*along, side) for along in zip(shape, block, strict=True))
    if (height, width) != (side, side):
        most = int(_WINDOW_BYTES / bytes_a_pixel / width)
        height = min(height, max(block[0], most // block[0] * block[0]))
    return height, width


def read_window(path: str, indexes: Iterable[int], window: Window) -> dict[int, NDArray[Any]]:
    """Read a window of some bands (from 1, or `DATASET_MASK`) of a file."""
    wanted = list(indexes)
    bands = [index for index in wanted if index != DATASET_MASK]
    try:
        with open_raster(path) as raster:
            stored = _read_bands(raster, bands, window)
            if DATASET_MASK in wanted:
                stored[DATASET_MASK] = raster.read_masks(1, window=window)
            return stored
    except LakescaleError:
        raise
    except (RasterioError, OSError) as error:
        failure = error.__cause__ or error
    # raised out here: a cause or context of rasterio's would not survive pickling from a worker
    require_there(path)
    (top, bottom), (left, right) = window.toranges()
    raise InputError(
        f"rows {top} to {bottom}, columns {left} to {right} cannot be read: {failure}", path,
        f"the file is damaged or cut short: copy it again from its source (gdalinfo -checksum {path} tests it)",
    )  # fmt: skip


def _read_bands(raster: Any, bands: list[int], window: Window) -> dict[int, NDArray[Any]]:
    """Read all bands at once where they have one type: a block that holds all of them is decoded once."""
    if len({raster.dtypes[band - 1] for band in bands}) == 1:
        return dict(zip(bands, raster.read(bands, window=window), strict=True))
    return {band: raster.read(band, window=window) for band in bands}


def _fit(size: int, block: int, side: int) -> int:
    if side >= size or side % block == 0:
        return side
    return max(1, round(side / block)) * block


def _as_it_is(pixels: NDArray[Any], window: Place, place: Place) -> NDArray[Any]:  # noqa: ARG001  (`pull` passes them)
    return pixels


def _fill(pairs: list[tuple[Plane, NDArray[Any]]], path: str, window: Window) -> None:
    """Read the planes of one file into their places in the stack."""
    wanted = {index for plane, _ in pairs for index in (plane.index, plane.mask) if index is not None}
    stored = read_window(path, sorted(wanted), window)
    for plane, out in pairs:
        mask = None if plane.mask is None else stored[plane.mask]
        out[...] = _reflectance(stored[plane.index], mask, plane) if out.dtype.kind == "f" else stored[plane.index]


def _reflectance(dn: NDArray[Any], mask: NDArray[Any] | None, plane: Plane) -> NDArray[np.float32]:
    """Turn stored numbers into reflectance: float32, NaN where there is no data."""
    missing = np.zeros(dn.shape, bool) if mask is None else mask == 0
    for value in plane.nodata:
        missing |= dn == value
    with np.errstate(over="ignore"):  # nodata of float64 may not fit
        values = dn.astype(np.float32)
    values *= np.float32(plane.scale)
    values += np.float32(plane.offset)
    values[missing] = np.nan
    return values


def _without_keys(reader: Reader) -> Reader:
    """Name files alike whatever key to them their URLs hold: it is another one after an hour."""
    planes = (replace(one, path=bare_url(one.path)) if is_url(one.path) else one for one in reader.planes)
    return replace(reader, planes=tuple(planes))
