"""Scenes: GeoTIFF, COG, VRT, folders of bands and STAC items as lazy arrays with named bands.

Files are read by a reader of our own, a window per chunk and all its bands in one task, so that a damaged file
is named by the error. What a file's name and metadata say is read in ``scene_names``.
"""

from __future__ import annotations

import glob
import logging
import math
import warnings
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import rasterio
import rioxarray  # noqa: F401  (gives arrays the accessor .rio)
import xarray as xr
from dask.base import tokenize
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from lakescale import scene_names as names
from lakescale.grid import Grid
from lakescale.schema import BAND, SEEN, TIME, InputError, X, Y

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Hashable, Iterable, Sequence

_LOG = logging.getLogger(__name__)
_EXTENSIONS = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".png", ".jpg", ".jpeg", ".img"})
_SAMPLES_A_SIDE, _SAMPLE_PX = 4, 256


@dataclass(frozen=True)
class _Take:
    """How one plane of the stack is read: its file, band, and what makes numbers of it."""

    path: str
    index: int
    mask: int | None = None
    scale: float = 1.0
    offset: float = 0.0
    nodata: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Reader:
    """An array ``(band, y, x)`` on disk, for `dask.array.from_array`; each read opens its files by itself."""

    takes: tuple[_Take, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    ndim: int = 3

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        (bands, rows, cols), local = zip(*(_span(one, n) for one, n in zip(key, self.shape, strict=True)), strict=True)
        out = np.empty((len(bands), len(rows), len(cols)), self.dtype)
        if out.size:
            window = Window(cols.start, rows.start, len(cols), len(rows))
            takes = enumerate(self.takes[bands.start : bands.stop])
            for path, group in groupby(takes, key=lambda pair: pair[1].path):
                self._read_file(path, list(group), window, out)
        return out[local]

    def _read_file(self, path: str, group: list[tuple[int, _Take]], window: Window, out: np.ndarray[Any, Any]) -> None:
        wanted = {take.index for _, take in group} | {take.mask for _, take in group if take.mask is not None}
        planes = _planes(path, sorted(wanted), window)
        for row, take in group:
            if self.dtype.kind == "f":
                out[row] = _values(planes[take.index], take, None if take.mask is None else planes[take.mask])
            else:
                out[row] = planes[take.index]


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
        A GeoTIFF, COG, VRT or other GDAL raster; a list of them; a folder; a glob pattern; a URL (anything with
        ``://`` or ``/vsi`` goes to GDAL as it is); a STAC item (dict, pystac object, or path of its JSON).
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
    day = None if date is None else names.parse_day(date)
    files, skipped = _open_headers(_find_assets(source), day, bands)
    day, day_source = names.one_day(files, day)
    layers, siblings = names.choose(names.name_layers(files, bands, skipped), bands)
    grid = _one_grid(layers)
    radiometry = names.read_radiometry(layers, siblings, names.Wish(scale, offset, nodata), day, _darkest_dn)
    scene = _stack(layers, siblings, radiometry, grid, _side(chunks))
    said = {"date_source": day_source, "skipped": ", ".join(skipped)}
    return _describe(scene, layers, radiometry, day).assign_attrs({key: text for key, text in said.items() if text})


def seen_mask(scene: xr.DataArray) -> xr.DataArray:
    """Tell the pixels that hold data from those that do not.

    Parameters
    ----------
    scene
        Dims ``(band, y, x)`` or ``(y, x)``, of `open_scene` or any other raster. A coordinate ``seen`` is taken
        as the answer where there is one. Else, a float pixel is seen where no band is NaN; an integer pixel is
        seen unless all its bands equal one of ``attrs["nodata_values"]`` (else of the raster's own nodata;
        without either, everything is seen).

    Returns
    -------
    xr.DataArray
        Bool, the scene's dims without ``band``, lazy where the scene is; True = seen.

    Examples
    --------
    >>> pixels = xr.DataArray(np.array([[[0, 0]], [[0, 9]]], "uint8"), dims=("band", "y", "x"))
    >>> seen_mask(pixels.assign_attrs(nodata_values=[0])).values.tolist()
    [[False, True]]
    """
    coords = {name: coord for name, coord in scene.coords.items() if BAND not in (*coord.dims, name) and name != SEEN}
    if SEEN in scene.coords:
        known = scene.coords[SEEN]
        return xr.DataArray(known.variable, coords={name: coords[name] for name in coords}, name=SEEN)
    stack = scene if BAND in scene.dims else scene.expand_dims(BAND)
    stack = stack.transpose(..., BAND, Y, X)
    dims = tuple(dim for dim in stack.dims if dim != BAND)
    return xr.DataArray(_seen_lazily(stack.data, _nodata_values(scene)), dims=dims, coords=coords, name=SEEN)


def _find_assets(source: Any) -> list[names.Asset]:
    if isinstance(source, dict) or hasattr(source, "to_dict"):
        return names.read_stac(source)
    if isinstance(source, (list, tuple)):
        if not source:
            raise InputError("an empty list of files", "", "pass at least one path")
        return [asset for one in source for asset in _find_assets(one)]
    text = str(source)
    if "://" in text or text.startswith("/vsi"):
        return [names.asset_of_path(text)]
    path = Path(text)
    if path.suffix.lower() in {".json", ".geojson"}:
        return names.read_stac(path)
    if path.is_file():
        return [names.asset_of_path(text)]
    return [names.asset_of_path(found) for found in _list_rasters(path)]


def _list_rasters(path: Path) -> list[str]:
    if path.is_dir():
        found = [str(one) for one in path.iterdir()]
    elif glob.has_magic(str(path)):
        found = glob.glob(str(path), recursive=True)  # noqa: PTH207  (the pattern may be absolute)
    else:
        raise InputError("no such file or folder", str(path), "check the path; a relative one starts where you are")
    rasters = sorted(
        one for one in found if Path(one).suffix.lower() in _EXTENSIONS and not Path(one).name.startswith(".")
    )
    if not rasters:
        wanted = " ".join(sorted(_EXTENSIONS))
        raise InputError("no raster file found", str(path), f"it needs at least one file of: {wanted}")
    return rasters


def _open_headers(
    assets: list[names.Asset], day: dt.date | None, bands: Sequence[str] | None
) -> tuple[list[names.File], list[str]]:
    """Open the files that can belong to the scene; give those that cannot by name."""
    if day is not None and any(asset.day == day for asset in assets):
        assets = [asset for asset in assets if asset.day == day]
    wanted = set(bands or ())
    if wanted and all(len(asset.bands) == 1 for asset in assets):  # a STAC item: leave the rest unopened
        assets = [asset for asset in assets if asset.bands[0] in wanted] or assets
    files = [_open_header(asset) for asset in assets]
    placed = [file for file in files if _is_placed(file)]
    skipped = [file.name for file in files if not _is_placed(file)]
    if not placed:
        raise InputError(
            "a raster without a CRS or without a place on the map", assets[0].path,
            f"if you know them, write them into it: gdal_edit.py -a_srs EPSG:... -a_ullr ... {assets[0].path}",
        )  # fmt: skip
    if skipped:
        _LOG.warning("skipped, since they have no CRS: %s", ", ".join(skipped))
    return placed, skipped


def _is_placed(file: names.File) -> bool:
    return file.crs is not None and not file.transform.is_identity


def _open_header(asset: names.Asset) -> names.File:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # told by an error that names the file
            with rasterio.open(asset.path) as raster:
                return _header(asset, raster)
    except (RasterioError, OSError, ValueError) as error:
        failure = str(error)
    mend = "copy it again from its source, or leave it out"
    raise InputError(f"cannot be opened as a raster: {failure}", asset.path, mend)


def _header(asset: names.Asset, raster: Any) -> names.File:
    interpretations = tuple(color.name for color in raster.colorinterp)
    descriptions = tuple(text or "" for text in raster.descriptions)
    flags, mask = raster.mask_flag_enums[0], None
    if len(interpretations) > 1 and names.ALPHA in interpretations:
        mask = interpretations.index(names.ALPHA) + 1
    elif MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        mask = names.DATASET_MASK
    return names.File(
        asset, tuple(raster.shape), tuple(raster.dtypes), raster.crs, raster.transform, descriptions, interpretations,
        tuple(zip(raster.scales, raster.offsets, strict=True)),
        asset.nodata if raster.nodata is None else raster.nodata,
        asset.product.baseline or names.baseline_of_tags(raster.tags()), mask,
    )  # fmt: skip


def _one_grid(layers: list[names.Layer]) -> Grid:
    names.require_one_grid([layer.file for layer in layers])
    first = layers[0].file
    if first.transform.b or first.transform.d:
        raise InputError("a rotated grid", first.asset.path, f"turn it north up: gdalwarp {first.name} north_up.tif")
    return Grid(GeoBox(first.shape, first.transform, first.crs.to_wkt()))


def _darkest_dn(layer: names.Layer) -> int | None:
    """Lowest DN above zero in a bounded sample of windows, spread over the image."""
    found = []
    for row in _sample_starts(layer.file.shape[0]):
        for col in _sample_starts(layer.file.shape[1]):
            height, width = (min(_SAMPLE_PX, n) for n in layer.file.shape)
            plane = _planes(layer.file.asset.path, [layer.index], Window(col, row, width, height))[layer.index]
            with_data = plane[(plane > 0) & (plane != (layer.file.nodata or 0))]
            found += [int(with_data.min())] if with_data.size else []
    return min(found, default=None)


def _sample_starts(size: int) -> list[int]:
    count = min(_SAMPLES_A_SIDE, -(-size // _SAMPLE_PX))
    return sorted({int(start) for start in np.linspace(0, max(0, size - _SAMPLE_PX), count)})


def _stack(
    layers: list[names.Layer], siblings: list[names.Layer], radiometry: names.Radiometry, grid: Grid, side: int
) -> xr.DataArray:
    """Make the lazy array, with a coordinate ``seen`` where the values of the bands cannot tell."""
    is_rgb8 = radiometry.kind == "rgb8"
    takes = [
        _Take(layer.file.asset.path, layer.index) if is_rgb8
        else _Take(layer.file.asset.path, layer.index, layer.file.mask, scaling.scale, scaling.offset, missing)
        for layer, scaling, missing in zip(
            layers, radiometry.scalings, radiometry.nodata or ((),) * len(layers), strict=True
        )
    ]  # fmt: skip
    data = _lazy(takes, grid.shape, "uint8" if is_rgb8 else "float32", side)
    coords = _coords(grid) | {BAND: [layer.band for layer in layers]}
    scene = xr.DataArray(data, dims=(BAND, Y, X), coords=coords, name="scene")
    masks = {layer.file.asset.path: layer.file.mask for layer in siblings if layer.file.mask is not None}
    values = radiometry.nodata_values
    if is_rgb8 and (masks or (values and len(siblings) > len(layers))):
        planes = [_Take(path, mask) for path, mask in masks.items()]
        planes += [_Take(layer.file.asset.path, layer.index) for layer in siblings if values]
        seen = _seen_lazily(_lazy(planes, grid.shape, "uint8", side), values, len(masks))
        scene = scene.assign_coords({SEEN: ((Y, X), seen)})
    return scene


def _coords(grid: Grid) -> dict[Hashable, Any]:
    """Coordinates named ``y`` and ``x`` also on a grid in degrees, which odc-geo names otherwise."""
    dims: dict[Hashable, str] = dict(zip(grid.geobox.dimensions, (Y, X), strict=True))
    return {
        dims.get(name, name): coord.rename({dim: dims[dim] for dim in coord.dims})
        for name, coord in grid.coords().items()
    }


def _lazy(takes: list[_Take], shape: tuple[int, int], dtype: str, side: int) -> Any:
    reader = _Reader(tuple(takes), (len(takes), *shape), np.dtype(dtype))
    name = f"read-scene-{tokenize(reader, [_fingerprint(take.path) for take in takes], side)}"
    return da.from_array(
        reader, chunks=(len(takes), side, side), name=name, asarray=False, lock=False, inline_array=True,
        meta=np.empty((0, 0, 0), reader.dtype),
    )  # fmt: skip


def _fingerprint(path: str) -> tuple[int, int]:
    try:
        stat = Path(path).stat()
    except OSError:  # a URL
        return (0, 0)
    return stat.st_size, stat.st_mtime_ns


def _describe(
    scene: xr.DataArray, layers: list[names.Layer], radiometry: names.Radiometry, day: dt.date | None
) -> xr.DataArray:
    """Add the date, and attributes that say what was read and what was done."""
    if day is not None:
        scene = scene.assign_coords({TIME: np.datetime64(day, "ns")})
    product, baselines = layers[0].file.asset.product, [layer.file.baseline for layer in layers]
    scales = [one.scale for one in radiometry.scalings]
    offsets = [one.offset for one in radiometry.scalings]
    said = {
        "source": names.listed(layers),
        "sensor": product.sensor,
        "product_level": product.level,
        "baseline": next(filter(None, baselines), ""),
        "scale": scales[0] if len(set(scales)) == 1 else scales,
        "offset": offsets[0] if len(set(offsets)) == 1 else offsets,
        "radiometry": radiometry.kind,
        "radiometry_source": "; ".join(dict.fromkeys(one.source for one in radiometry.scalings)),
    }
    if radiometry.kind == "rgb8":
        scene = scene.assign_attrs(nodata_values=list(radiometry.nodata_values))
    return scene.assign_attrs({key: value for key, value in said.items() if value != ""})


def _span(key: Any, size: int) -> tuple[range, Any]:
    """Split a slice or a number into the range to read, and the key that picks from what was read."""
    picked = range(size)[key]
    if isinstance(picked, int):
        return range(picked, picked + 1), 0
    if not picked:
        return range(0), slice(None)
    return range(min(picked), max(picked) + 1), slice(None, None, picked.step)


def _planes(path: str, indexes: Iterable[int], window: Window) -> dict[int, np.ndarray[Any, Any]]:
    """Read a window of some bands (or `names.DATASET_MASK`) of a file."""
    try:
        with rasterio.open(path) as raster:
            return {
                one: raster.read_masks(1, window=window)
                if one == names.DATASET_MASK
                else raster.read(one, window=window)
                for one in indexes
            }
    except (RasterioError, OSError) as error:
        failure = error.__cause__ or error
    # raised out here: a cause or context of rasterio's would not survive pickling from a worker
    (top, bottom), (left, right) = window.toranges()
    raise InputError(
        f"rows {top} to {bottom}, columns {left} to {right} cannot be read: {failure}", path,
        f"the file is damaged or cut short: copy it again from its source (gdalinfo -checksum {path} tests it)",
    )  # fmt: skip


def _values(raw: np.ndarray[Any, Any], take: _Take, mask: np.ndarray[Any, Any] | None) -> np.ndarray[Any, Any]:
    """Turn stored numbers into reflectance: float32, NaN where there is no data."""
    missing = np.zeros(raw.shape, bool) if mask is None else mask == 0
    for value in take.nodata:
        missing |= raw == value
    with np.errstate(over="ignore"):  # nodata of float64 may not fit
        values = raw.astype(np.float32)
    if (take.scale, take.offset) != (1.0, 0.0):
        values *= np.float32(take.scale)
        values += np.float32(take.offset)
    values[missing] = np.nan
    return values


def _nodata_values(scene: xr.DataArray) -> tuple[float, ...]:
    if "nodata_values" in scene.attrs:
        return tuple(np.atleast_1d(scene.attrs["nodata_values"]).tolist())
    stored: float | None = scene.rio.nodata
    return (float(stored),) if stored is not None and math.isfinite(stored) else ()


def _seen_lazily(stack: Any, values: tuple[float, ...], masks: int = 0) -> Any:
    """Reduce ``(..., band, y, x)`` to bool ``(..., y, x)``; the first planes may be masks."""
    if not isinstance(stack, da.Array):
        return _seen_block(stack, values, masks)
    axis = stack.ndim - 3
    whole = stack.rechunk({axis: -1})
    return da.map_blocks(
        _seen_block,
        whole,
        values,
        masks,
        drop_axis=axis,
        dtype=bool,
        token="seen-mask",  # noqa: S106  (the name of its tasks)
        meta=np.empty((0,) * (stack.ndim - 1), bool),
    )


def _seen_block(stack: np.ndarray[Any, Any], values: tuple[float, ...], masks: int) -> Any:
    bands = stack[..., masks:, :, :]
    if bands.dtype.kind == "f":
        return ~np.isnan(bands).any(axis=-3)
    seen = np.all(stack[..., :masks, :, :] > 0, axis=-3)
    for value in values:
        seen = seen & ~np.all(bands == value, axis=-3)
    return seen


def _side(chunks: object) -> int:
    if not isinstance(chunks, int) or isinstance(chunks, bool) or chunks < 1:
        raise InputError("chunks= must be a whole number of pixels", repr(chunks), "for example chunks=2048")
    return chunks
