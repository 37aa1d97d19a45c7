"""Open an image of one date: find its files, name its bands, decide what its numbers mean, stack it lazily."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lakescale.scene.bands import choose_layers, name_bands
from lakescale.scene.files import File, largest_block, listed, one_grid, open_headers
from lakescale.scene.names import Asset, asset_of_path, parse_day
from lakescale.scene.pixels import Plane, lazy_stack
from lakescale.scene.radiometry import read_radiometry
from lakescale.scene.seen import reduce_to_seen
from lakescale.scene.stac import read_stac
from lakescale.schema import BAND, SEEN, TIME, InputError, X, Y
from lakescale.storage import Remote, has_magic, is_url, locate, name_of
from lakescale.storage.remote import READ_ONLY

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from lakescale.grid import Grid
    from lakescale.scene.bands import Layer
    from lakescale.scene.radiometry import Radiometry

RASTERS = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".png", ".jpg", ".jpeg", ".img"})


def open_scene(
    source: Any,
    *,
    bands: Sequence[str] | None = None,
    date: Any = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | str | None = None,
    chunks: int = 2048,
) -> xr.DataArray:
    """Open an image of one date as a lazy array with named bands.

    Only headers are read, and for Sentinel-2 numbers at most 16 windows of 256 x 256 pixels of one band, to see
    whether the offset of processing baseline 04.00 is in them.

    Parameters
    ----------
    source
        A GeoTIFF, COG, VRT or other GDAL raster; a list of them; a folder; a glob pattern; a URL of one of these
        (``s3://``, ``gs://``, ``az://``; of ``https://`` one file, with a key in its query where one is needed; what
        begins with ``/vsi`` goes to GDAL as it is); a STAC item (dict, pystac object, or path or URL of its JSON).
    bands
        Names of the bands wanted, in the order wanted; where the file does not say which bands it holds, the
        names of all of them, in file order.
    date
        Sensing date (text, date or datetime64) in place of the one in the names; of a folder with several
        dates it chooses one.
    scale, offset
        Reflectance = DN * scale + offset, in place of what the metadata say; ``offset`` is 0 where only
        ``scale`` is given.
    nodata
        The number that means no data, or ``"cup"``: 0 in all bands or 1 in all bands (RGB uint8 only).
    chunks
        Side of a chunk in pixels.

    Returns
    -------
    xr.DataArray
        Dims ``(band, y, x)``, with coordinates ``band`` (names), ``y``, ``x`` (pixel centres), ``spatial_ref``
        and, where a date is known, ``time`` (midnight of the day). RGB uint8 stays as it is; reflectance is
        float32, NaN where not seen: ``float32(DN) * float32(scale) + float32(offset)``, rounded after each
        step. Where the values cannot tell (an alpha band or mask in the file, or bands left out of an RGB) a
        coordinate ``seen`` ``(y, x)`` comes along. ``attrs`` say what was done: ``scale``, ``offset``,
        ``radiometry`` (``rgb8`` or ``reflectance``), ``radiometry_source``, ``nodata_values`` (of ``rgb8``),
        ``date_source``, ``source``, and where known ``skipped``, ``sensor``, ``product_level``, ``baseline``.

    Raises
    ------
    InputError
        For what cannot be one scene: missing or damaged files, no CRS, mixed grids, unknown bands or scale. A
        file that turns out damaged while its pixels are read raises it when computed.
    """
    day = None if date is None else parse_day(date)
    files, unplaced = open_headers(find_assets(source), day, bands)
    day, day_source = find_day(files, day)
    numbers = {"scale": scale, "offset": offset, "nodata": nodata}
    scene = open_files(files, day, bands=bands, chunks=chunks, numbers=numbers)
    return add_provenance(scene, day, date_source=day_source, skipped=unplaced)


def open_files(
    files: list[File], day: dt.date | None, *, bands: Sequence[str] | None, chunks: int, numbers: dict[str, Any]
) -> xr.DataArray:
    """Open files of one date and one grid; ``numbers`` are the options scale, offset and nodata."""
    files, unnamed = name_bands(files, bands)
    layers = choose_layers(files, bands)
    grid = one_grid([layer.file for layer in layers])
    radiometry = read_radiometry(layers, day, **numbers)
    scene = stack_layers(layers, radiometry, grid, chunks)
    return describe(scene, layers, radiometry, skipped=unnamed)


def find_assets(source: Any) -> list[Asset]:
    """List the files that a source means."""
    if isinstance(source, (list, tuple)):
        if not source:
            raise InputError("an empty list of files", "", "pass at least one path")
        return [asset for one in source for asset in find_assets(one)]
    if isinstance(source, dict) or hasattr(source, "to_dict"):
        return read_stac(source)
    text = str(source)
    if text.startswith("/vsi"):
        return [asset_of_path(text)]
    if Path(name_of(text)).suffix.lower() in {".json", ".geojson"}:
        return read_stac(text)
    if is_url(text):
        return [asset_of_path(one) for one in _list_urls(text)]
    path = Path(text)
    return [asset_of_path(one) for one in ([text] if path.is_file() else _list_rasters(path))]


def find_day(files: list[File], day: dt.date | None) -> tuple[dt.date | None, str]:
    """Find the sensing date of files that have at most one, and say where it is from; ``day`` wins."""
    assets = sorted((file.asset for file in files), key=lambda asset: asset.path, reverse=True)
    sources = {asset.day: asset.day_source for asset in assets if asset.day is not None}
    if len(sources) > 1:
        days = ", ".join(sorted(one.isoformat() for one in sources))
        raise InputError(f"files of {len(sources)} dates: {days}", listed(files), "choose one with date='YYYY-MM-DD'")
    if day is not None:
        return day, "the date= argument"
    return next(iter(sources.items()), (None, "none found"))


def stack_layers(layers: list[Layer], radiometry: Radiometry, grid: Grid, chunks: int) -> xr.DataArray:
    """Make the lazy array, with a coordinate ``seen`` where the values of the bands cannot tell."""
    if not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1:
        raise InputError("chunks= must be a whole number of pixels", repr(chunks), "for example chunks=2048")
    is_rgb8 = radiometry.kind == "rgb8"
    planes = _planes_as_stored(layers) if is_rgb8 else _planes_of_reflectance(layers, radiometry)
    block = largest_block(layer.file.block for layer in layers)
    data = lazy_stack(planes, grid.shape, "uint8" if is_rgb8 else "float32", chunks, block)
    coords = grid.coords() | {BAND: [layer.band for layer in layers]}
    scene = xr.DataArray(data, dims=(BAND, Y, X), coords=coords, name="scene")
    masks, colors = _planes_of_whole_files(layers)
    values = radiometry.nodata_values
    if is_rgb8 and (masks or (values and len(colors) > len(layers))):
        whole = lazy_stack(masks + (colors if values else []), grid.shape, "uint8", chunks, block)
        scene = scene.assign_coords({SEEN: ((Y, X), reduce_to_seen(whole, values, masks=len(masks)))})
    return scene


def describe(scene: xr.DataArray, layers: list[Layer], radiometry: Radiometry, *, skipped: list[str]) -> xr.DataArray:
    """Add attributes that tell what was read and what was done."""
    if radiometry.kind == "rgb8":
        scene = scene.assign_attrs(nodata_values=list(radiometry.nodata_values))
    files = [layer.file for layer in layers]
    known = {
        "source": listed(files),
        "sensor": files[0].asset.product.sensor,
        "product_level": files[0].asset.product.level,
        "baseline": next((file.baseline for file in files if file.baseline), ""),
        "scale": _one_or_all([scaling.scale for scaling in radiometry.scalings]),
        "offset": _one_or_all([scaling.offset for scaling in radiometry.scalings]),
        "radiometry": radiometry.kind,
        "radiometry_source": "; ".join(dict.fromkeys(scaling.source for scaling in radiometry.scalings)),
        "skipped": ", ".join(skipped),
    }
    return scene.assign_attrs({key: value for key, value in known.items() if value != ""})


def add_provenance(scene: xr.DataArray, day: dt.date | None, *, date_source: str, skipped: list[str]) -> xr.DataArray:
    """Add the date, where it is from, and the files that could not be placed."""
    if day is not None:
        scene = scene.assign_coords({TIME: np.datetime64(day, "ns")})
    left_out = ", ".join([*skipped, *filter(None, [scene.attrs.get("skipped", "")])])
    return scene.assign_attrs({"date_source": date_source} | ({"skipped": left_out} if left_out else {}))


def _list_rasters(path: Path) -> list[str]:
    if path.is_dir():
        found = [str(one) for one in path.iterdir()]
    elif glob.has_magic(str(path)):
        found = glob.glob(str(path), recursive=True)  # noqa: PTH207  (the pattern may be absolute)
    else:
        raise InputError("no such file or folder", str(path), "check the path; a relative one starts where you are")
    return _choose_rasters(found, str(path))


def _list_urls(url: str) -> list[str]:
    """List the rasters that a URL means: itself, or in an object store those of a folder or a pattern."""
    place, is_pattern = locate(url), has_magic(url)
    if not isinstance(place, Remote):
        return _list_rasters(place) if is_pattern or place.is_dir() else [str(place)]
    if is_pattern:
        return _choose_rasters([one.url for one in place.matches()], url)
    if place.url.startswith(READ_ONLY) or place.suffix.lower() in RASTERS or not place.is_dir():
        return [url]
    return _choose_rasters([one.url for one in place.iterdir()], url)


def _choose_rasters(found: list[str], source: str) -> list[str]:
    rasters = [one for one in found if Path(one).suffix.lower() in RASTERS and not Path(one).name.startswith(".")]
    if not rasters:
        wanted = " ".join(sorted(RASTERS))
        raise InputError("no raster file found", source, f"it needs at least one file of: {wanted}")
    return sorted(rasters)


def _planes_as_stored(layers: list[Layer]) -> list[Plane]:
    return [Plane(layer.file.path, layer.index) for layer in layers]


def _planes_of_reflectance(layers: list[Layer], radiometry: Radiometry) -> list[Plane]:
    return [
        Plane(layer.file.path, layer.index, layer.file.mask, scaling.scale, scaling.offset, nodata)
        for layer, scaling, nodata in zip(layers, radiometry.scalings, radiometry.nodata, strict=True)
    ]


def _planes_of_whole_files(layers: list[Layer]) -> tuple[list[Plane], list[Plane]]:
    """List masks, and all bands whether chosen or not."""
    files = {layer.file.path: layer.file for layer in layers}
    masks = [Plane(path, file.mask) for path, file in files.items() if file.mask is not None]
    return masks, [Plane(path, index) for path, file in files.items() for index in file.indexes]


def _one_or_all(values: list[float]) -> float | list[float]:
    return values[0] if len(set(values)) == 1 else values
