"""Cloud-optimized GeoTIFFs for GIS users, who cannot read the stores: GDAL 3.10 refuses their arrays."""

from __future__ import annotations

import contextlib
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import dask.base
import dask.local
import dask.threaded
import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from lakescale.chunks import plan_blocks, sink
from lakescale.cluster import compute
from lakescale.grid import Grid
from lakescale.scene.seen import seen_mask
from lakescale.schema import BAND, BLUE, GREEN, RED, SEEN, TIME, InputError, LakescaleError, RunError, X, Y
from lakescale.storage import DISK_FULL, aside, locate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import xarray as xr
    from distributed import Client
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.storage import Location

_BLOCK = 512
_AT_ONCE_BYTES = 256e6
_LAYOUT = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "interleave": "pixel", "bigtiff": "if_safer"}
_COG = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "BLOCKSIZE": _BLOCK, "BIGTIFF": "IF_SAFER"}
_ENV = {"GDAL_TIFF_INTERNAL_MASK": True, "GDAL_NUM_THREADS": 1}
_TAGS = {"sensor": "sensor", "product_level": "product_level", "baseline": "processing_baseline"}
"""Attributes of a scene, and the tags they become; `lakescale.open_scene` reads the last."""
_REFUSALS = (RasterioError, OSError, CPLE_BaseError, SystemError)
"""What rasterio raises where GDAL fails; SystemError where it overlooked that it did."""
_SAYS_FULL = re.compile(r"TIFFAppend|write error|seek error|no space left|file too large", re.IGNORECASE)
_COLORS = {RED: ColorInterp.red, GREEN: ColorInterp.green, BLUE: ColorInterp.blue}


def export_cog(raster: xr.DataArray, path: str | Location, *, client: Client | None = None) -> Location:
    """Write a raster as a cloud-optimized GeoTIFF, with overviews.

    The pixels go to a tiled GeoTIFF beside the target first, from which GDAL's driver COG makes the file. It has its
    name only once it is whole. One process writes: on threads, blocks are written as they are computed, in one graph; a
    cluster hands over at most 256 MB of blocks at a time, each with a graph of its own. So a raster with stages that
    need all of it (labels, filled terrain, stitching) is computed anew for each: bring it to disk with
    `lakescale.store.write_layer` first, and export the layer.

    Parameters
    ----------
    raster
        ``(band, y, x)`` or ``(y, x)``, such as one date of a cube, ``cube.isel(time=0)``, or a layer.
    path
        The file, or its URL in an object store, to which it is uploaded; replaced where it is there.
    client
        Where to compute; by default as in Dask.

    Returns
    -------
    Path
        The file, or its URL. Bool is stored as 0 and 1; NaN is nodata; where ``seen`` comes along with integers it is
        the file's mask, and the number of the layer's own nodata is kept. Bands have their names, ``TIFFTAG_DATETIME``
        the date; the tags ``sensor``, ``product_level`` and ``processing_baseline`` have what attributes tell of them.

    Raises
    ------
    InputError
        When the raster has more dates than one.
    RunError
        When it cannot be written.
    """
    target = locate(path)
    if set(raster.dims) - {BAND, Y, X}:
        mend = "export one date after the other: cube.isel(time=0)"
        raise InputError(f"a GeoTIFF has no dims but band, y and x, this has {raster.dims}", str(target), mend)
    stack = (raster if BAND in raster.dims else raster.expand_dims(BAND)).transpose(BAND, Y, X)
    problem = ""
    try:
        _make(stack, target, client, "NEAREST" if BAND not in raster.dims and stack.dtype.kind != "f" else "AVERAGE")
    except LakescaleError:
        raise
    except _REFUSALS as error:
        problem = _why(error)
    if problem:
        # raised out here, since a cause or context of GDAL's cannot be pickled
        raise RunError(f"cannot write: {problem}", str(target), "make room on the disk, or give another path")
    return target


def _make(stack: xr.DataArray, target: Location, client: Client | None, overviews: str) -> None:
    with aside(target, step=".cog") as whole:
        plain = whole.with_name(f"{target.stem}.plain.partial.tif")
        with _removed(plain, beside=whole), rasterio.Env(**_ENV):
            with rasterio.open(plain, "w", **_profile(stack)) as file:
                _describe(file, stack)
                _write_blocks(file, stack, client)
            rasterio.shutil.copy(plain, whole, driver="COG", OVERVIEW_RESAMPLING=overviews, **_COG)


def _profile(stack: xr.DataArray) -> dict[str, Any]:
    grid = Grid.of(stack)
    count, height, width = stack.shape
    dtype = "uint8" if stack.dtype == bool else str(stack.dtype)
    return {
        "driver": "GTiff", "dtype": dtype, "count": count, "height": height, "width": width,
        "crs": grid.crs.to_wkt(), "transform": grid.transform, "nodata": _nodata(stack), **_LAYOUT,
    }  # fmt: skip


def _nodata(stack: xr.DataArray) -> float | None:
    if stack.dtype.kind == "f":
        return float("nan")
    stored: float | None = stack.rio.nodata
    return None if SEEN in stack.coords else stored


def _describe(file: Any, stack: xr.DataArray) -> None:
    names = [str(name) for name in stack[BAND].to_numpy()] if BAND in stack.coords else [str(stack.name or "")]
    file.descriptions = names
    if stack.dtype == np.uint8 and len(names) > 1:
        file.colorinterp = [_COLORS.get(name, ColorInterp.undefined) for name in names]
    file.update_tags(**{tag: str(stack.attrs[name]) for name, tag in _TAGS.items() if stack.attrs.get(name)})
    if TIME in stack.coords:
        day = str(stack[TIME].to_numpy().astype("datetime64[D]"))
        file.update_tags(TIFFTAG_DATETIME=f"{day.replace('-', ':')} 00:00:00", time=day)


def _write_blocks(file: Any, stack: xr.DataArray, client: Client | None) -> None:
    """Write block after block, with the mask of what was seen where there is one."""
    stack = stack.chunk({BAND: -1}) if stack.chunks else stack.chunk({BAND: -1, Y: 2048, X: 2048})
    arrays, chunks = [stack.data], stack.data.chunks[-2:]
    if SEEN in stack.coords and stack.dtype.kind != "f":
        arrays.append(seen_mask(stack).chunk(dict(zip((Y, X), chunks, strict=True))).data)
    indices = list(np.ndindex(len(chunks[0]), len(chunks[1])))
    write = _Writer(file)
    if dask.base.get_scheduler(scheduler=client) in (None, dask.threaded.get, dask.local.get_sync):
        compute(sink(write, *arrays, blocks=indices, name="write-cog"))
        return
    places = plan_blocks(chunks)
    at_once = max(1, int(_AT_ONCE_BYTES // (stack.dtype.itemsize * np.prod(stack.data.chunksize))))
    for start in range(0, len(indices), at_once):
        batch = [((i, j), places[i][j]) for i, j in indices[start : start + at_once]]
        (blocks,) = compute([[array[(..., *_slices(place))] for array in arrays] for _, place in batch], client=client)
        for (index, place), pixels in zip(batch, blocks, strict=True):
            write(index, place, pixels)


def _slices(place: Place) -> tuple[slice, slice]:
    return slice(place.row, place.row + place.height), slice(place.col, place.col + place.width)


@dataclass(frozen=True)
class _Writer:
    """Writes a block of pixels, and of what was seen where that comes along, for one thread at a time."""

    file: Any
    lock: Any = field(default_factory=Lock)

    def __call__(self, _: tuple[int, int], place: Place, pixels: list[NDArray[Any]]) -> int:
        block, *mask = pixels
        window = Window(place.col, place.row, place.width, place.height)
        with self.lock, rasterio.Env(**_ENV):  # GDAL's options are those of a thread
            self.file.write(block.astype(np.uint8) if block.dtype == bool else block, window=window)
            for seen in mask:
                self.file.write_mask(seen, window=window)
        return 1


@contextmanager
def _removed(path: Path, *, beside: Path) -> Iterator[None]:
    """Leave a file not behind, nor what GDAL writes beside it and another one."""
    try:
        yield
    finally:
        extra = [one.with_name(f"{one.name}{ending}") for one in (path, beside) for ending in (".msk", ".aux.xml")]
        for one in (path, *extra):
            with contextlib.suppress(OSError):
                one.unlink()


def _why(error: BaseException) -> str:
    """Say in words why GDAL failed, which its errors tell in those that led to them, if at all."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    if any(getattr(one, "errno", None) in DISK_FULL or _SAYS_FULL.search(str(one)) for one in chain):
        return "no space left on the disk"
    return str(error.__cause__ or error)
