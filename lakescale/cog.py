"""Cloud-optimized GeoTIFFs for GIS users, who cannot read the stores: GDAL 3.10 refuses their arrays."""

from __future__ import annotations

import contextlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from lakescale.chunks import plan_blocks
from lakescale.cluster import compute
from lakescale.grid import Grid
from lakescale.scene.seen import seen_mask
from lakescale.schema import BAND, BLUE, GREEN, RED, SEEN, TIME, InputError, RunError, X, Y

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr
    from distributed import Client
    from numpy.typing import NDArray

_BLOCK = 512
_AT_ONCE_BYTES = 256e6
_LAYOUT = {"tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "interleave": "pixel", "bigtiff": "if_safer"}
_COG = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "BLOCKSIZE": _BLOCK, "BIGTIFF": "IF_SAFER"}
_COLORS = {RED: ColorInterp.red, GREEN: ColorInterp.green, BLUE: ColorInterp.blue}


def export_cog(raster: xr.DataArray, path: str | Path, *, client: Client | None = None) -> Path:
    """Write a raster as a cloud-optimized GeoTIFF, with overviews.

    The pixels go to a tiled GeoTIFF beside the target first, at most 256 MB of blocks at once, from which GDAL's driver
    COG makes the file. It has its name only once it is whole.

    Parameters
    ----------
    raster
        ``(band, y, x)`` or ``(y, x)``, such as one date of a cube, ``cube.isel(time=0)``, or a layer.
    path
        The file; replaced where it is there.
    client
        Where to compute; by default as in Dask.

    Returns
    -------
    Path
        The file. Bool is stored as 0 and 1; NaN is nodata; where ``seen`` comes along with integers it is the file's
        mask, and the number of the layer's own nodata is kept. Bands have their names, ``TIFFTAG_DATETIME`` the date.

    Raises
    ------
    InputError
        When the raster has more dates than one.
    RunError
        When it cannot be written.
    """
    target = Path(path)
    if set(raster.dims) - {BAND, Y, X}:
        mend = "export one date after the other: cube.isel(time=0)"
        raise InputError(f"a GeoTIFF has no dims but band, y and x, this has {raster.dims}", str(target), mend)
    stack = (raster if BAND in raster.dims else raster.expand_dims(BAND)).transpose(BAND, Y, X)
    plain, whole = (target.with_name(f"{target.stem}.{step}.partial.tif") for step in ("plain", "cog"))
    with _removed(plain, whole), _writing(target):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_NUM_THREADS=1):
            with rasterio.open(plain, "w", **_profile(stack)) as sink:
                _describe(sink, stack)
                _write_blocks(sink, stack, client)
            overviews = "NEAREST" if BAND not in raster.dims and stack.dtype.kind != "f" else "AVERAGE"
            rasterio.shutil.copy(plain, whole, driver="COG", OVERVIEW_RESAMPLING=overviews, **_COG)
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        whole.replace(target)
    return target


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


def _describe(sink: Any, stack: xr.DataArray) -> None:
    names = [str(name) for name in stack[BAND].to_numpy()] if BAND in stack.coords else [str(stack.name or "")]
    sink.descriptions = names
    if stack.dtype == np.uint8 and len(names) > 1:
        sink.colorinterp = [_COLORS.get(name, ColorInterp.undefined) for name in names]
    if TIME in stack.coords:
        day = str(stack[TIME].to_numpy().astype("datetime64[D]"))
        sink.update_tags(TIFFTAG_DATETIME=f"{day.replace('-', ':')} 00:00:00", time=day)


def _write_blocks(sink: Any, stack: xr.DataArray, client: Client | None) -> None:
    """Write block after block, some at a time, with the mask of what was seen where there is one."""
    stack = stack.chunk({BAND: -1}) if stack.chunks else stack.chunk({BAND: -1, Y: 2048, X: 2048})
    seen = None
    if SEEN in stack.coords and stack.dtype.kind != "f":
        seen = seen_mask(stack).chunk(dict(zip((Y, X), stack.data.chunks[-2:], strict=True)))
    places = [place for row in plan_blocks(stack.data.chunks[-2:]) for place in row]
    at_once = max(1, int(_AT_ONCE_BYTES // (stack.dtype.itemsize * np.prod(stack.data.chunksize))))
    for start in range(0, len(places), at_once):
        batch = places[start : start + at_once]
        where = [(slice(p.row, p.row + p.height), slice(p.col, p.col + p.width)) for p in batch]
        pixels = [stack.data[(slice(None), *one)] for one in where]
        masks = [] if seen is None else [seen.data[one] for one in where]
        blocks, seen_blocks = compute(pixels, masks, client=client)
        for place, block, mask in zip(batch, blocks, seen_blocks or [None] * len(batch), strict=True):
            _write_block(sink, Window(place.col, place.row, place.width, place.height), block, mask)


def _write_block(sink: Any, window: Window, block: NDArray[Any], mask: NDArray[Any] | None) -> None:
    sink.write(block.astype(np.uint8) if block.dtype == bool else block, window=window)
    if mask is not None:
        sink.write_mask(mask, window=window)


@contextmanager
def _removed(*paths: Path) -> Iterator[None]:
    """Leave none of these files behind, nor what GDAL writes beside them."""
    try:
        yield
    finally:
        for path in paths:
            for one in (path, path.with_name(f"{path.name}.msk"), path.with_name(f"{path.name}.aux.xml")):
                with contextlib.suppress(OSError):
                    one.unlink()


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    problem = ""
    try:
        yield
    except (RasterioError, OSError) as error:
        problem = str(error.__cause__ or error)
    if problem:
        raise RunError(f"cannot write: {problem}", str(target), "make room on the disk, or give another path")
