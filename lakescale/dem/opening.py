"""Open an elevation model: find its tiles, place them on one grid, read them lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr
from dask.base import tokenize

from lakescale.dem.mosaic import place_tiles, plan_reads
from lakescale.dem.pixels import lazy_mosaic
from lakescale.dem.tiles import list_tiles, read_headers, shortened
from lakescale.schema import DEM, InputError, X, Y

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lakescale.dem.tiles import Tile

OVERLAPS = ("first", "mean")


def open_dem(
    source: Any,
    *,
    chunks: int = 2048,
    overlap: str = "first",
    nodata: float | None = None,
    limits: tuple[float, float] | None = (-500.0, 9000.0),
) -> xr.DataArray:
    """Open an elevation model as one lazy raster, from one file or many tiles.

    Tiles may overlap and must share CRS, resolution and pixel alignment. Only headers are read; a chunk opens only the
    tiles that it meets. The answer does not depend on the chunks.

    Parameters
    ----------
    source
        A GeoTIFF, COG, VRT or other GDAL raster; a list of them; a glob pattern; a URL; a folder, searched for tiles in
        its subfolders where it holds none itself. Of a folder or a pattern with files named as in ArcticDEM
        (``*_dem.tif``) only these are taken.
    chunks
        Side of a chunk in pixels.
    overlap
        Where several tiles hold a value: ``first``, that of the first tile in the order given, or by name for a folder
        or a pattern (its voids are filled by the next); or ``mean`` of all, added as float64 in this order.
    nodata
        The number that means void, in place of what the files declare. NaN and what a mask band hides always do.
    limits
        Lowest and highest elevation that can be true, in m; None for no limits.

    Returns
    -------
    xr.DataArray
        float32 ``(y, x)``, m, NaN in voids and between tiles; the files' scale and offset applied. Named ``dem``.
        ``attrs``: ``source``, ``tiles`` (how many), ``overlap``, ``units``, ``date_start`` and ``date_end`` (first and
        last day in names and tags) or ``date: unknown``, and ``skipped`` where files were left out.

    Raises
    ------
    InputError
        When a file is missing, unreadable, rotated, without CRS or not of one band; when tiles differ in CRS,
        resolution or alignment. While computing: damaged files, values outside the limits.
    """
    _check_options(chunks, overlap, limits)
    paths, skipped = list_tiles(source)
    tiles = read_headers(paths)
    rows, cols, grid = place_tiles(tiles)
    plan = plan_reads(tiles, rows, cols, grid.shape, chunks)
    token = tokenize([(tile.path, tile.fingerprint) for tile in tiles], plan.chunks)
    array = lazy_mosaic(plan, token, overlap, nodata, limits).rechunk((chunks, chunks))
    attrs = _describe(tiles, overlap, skipped)
    return xr.DataArray(array, dims=(Y, X), coords=grid.coords(), attrs=attrs, name=DEM)


def _check_options(chunks: int, overlap: str, limits: tuple[float, float] | None) -> None:
    if not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1:
        raise InputError("chunks= must be a whole number of pixels", repr(chunks), "for example chunks=2048")
    if overlap not in OVERLAPS:
        raise InputError(f"unknown overlap {overlap!r}", "open_dem", f"overlap is one of {', '.join(OVERLAPS)}")
    if limits is not None and not limits[0] < limits[1]:
        raise InputError("limits= are a lowest and a highest elevation", repr(limits), "for example (-500, 9000)")


def _describe(tiles: Sequence[Tile], overlap: str, skipped: Sequence[str]) -> dict[str, Any]:
    days = sorted(tile.day for tile in tiles if tile.day is not None)
    dated: dict[str, Any] = {"date": "unknown"}
    if days:
        dated = {"date_start": days[0].isoformat(), "date_end": days[-1].isoformat()}
        if len(days) < len(tiles):
            dated["date"] = f"known of {len(days)} of {len(tiles)} tiles"
    said = {"source": shortened([tile.name for tile in tiles]), "tiles": len(tiles), "overlap": overlap, "units": "m"}
    return said | dated | ({"skipped": shortened(list(skipped))} if skipped else {})
