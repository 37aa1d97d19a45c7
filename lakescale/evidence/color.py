"""Evidence from color: the seed's thresholds on 8-bit RGB, and the water index of the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lakescale.chunks import map_tiles, on_dask, stitch
from lakescale.kernels.color import gaussian_reach_px, grow, in_any_range, open_rectangle, range_tables
from lakescale.regions import hole_stitch
from lakescale.scene import seen_mask
from lakescale.schema import BAND, BLUE, COLOR, GREEN, INDEX, RED, InputError, X, Y

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from numpy.typing import NDArray

ColorRange = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

SEED_RANGES: tuple[ColorRange, ...] = (
    ((0, 30), (0, 255), (90, 255)),
    ((0, 60), (0, 255), (105, 255)),
    ((0, 90), (0, 255), (120, 255)),
    ((0, 120), (0, 255), (150, 255)),
)
"""Inclusive ranges of red, green and blue, 8-bit; their union is water (the seed, SIGSPATIAL Cup 2023)."""

SEED_OPENINGS_YX = ((5, 5), (1, 10), (10, 1))
"""Height and width of the rectangles that the mask is opened with, one after the other."""

NDWI_ICE_THRESHOLD = 0.25
"""Sentinel-2 over Greenland (Williamson et al. 2018)."""


def color_mask(
    scene: xr.DataArray,
    *,
    ranges: Sequence[ColorRange] = SEED_RANGES,
    grow_sigma_px: float = 5.0,
    hole_sigma_px: float = 7.0,
    openings_yx: Sequence[tuple[int, int]] = SEED_OPENINGS_YX,
    centred: bool = False,
    region: xr.DataArray | None = None,
) -> xr.DataArray:
    """Find water by color thresholds, lids and holes closed, streams opened away: the seed's sequence, exactly.

    Threshold; grow by a Gaussian and take the holes that this closes inside the region; grow those and unite them with
    the thresholded mask; fill holes; open with rectangles; fill holes again. Holes are global: they may span any number
    of chunks. Pixels outside the region or without data are never water. Lazy.

    Parameters
    ----------
    scene
        uint8 ``(band, y, x)`` with red, green and blue, stretched as for display.
    ranges
        Inclusive ranges of (red, green, blue); a pixel in any of them is water.
    grow_sigma_px
        Sigma of the Gaussian that closes gaps, in pixels; the mask grows to where it, cut to integers 0..255 after
        each axis, is above zero (at most 4 sigma).
    hole_sigma_px
        Sigma by which the closed holes grow back.
    openings_yx
        Rectangles (height, width) to open with, in this order; empty for none.
    centred
        False keeps OpenCV's anchors, by which a rectangle of even height or width moves the mask by one pixel down or
        right (so do the seed's 1 x 10 and 10 x 1). True opens without that shift.
    region
        Bool ``(y, x)`` on the scene's grid: True where lakes are looked for. Everywhere by default.

    Returns
    -------
    xr.DataArray
        Bool ``(y, x)``, True on water, False where not seen; named ``color``.

    Raises
    ------
    InputError
        When red, green or blue is missing, the scene is not uint8, or the region has another shape.
    """
    _refuse_sizes(grow_sigma_px, hole_sigma_px, openings_yx)
    flags = _flagged(scene, ranges, region)
    grown = _tiles(_grow_water, flags, depth=gaussian_reach_px(grow_sigma_px), step="grow", sigma_px=grow_sigma_px)
    holes = stitch(grown, hole_stitch(flag=int(_GROWN), mark=int(_HOLE))).to_array(np.uint8)
    closed = _tiles(_close, holes, depth=gaussian_reach_px(hole_sigma_px), step="close", sigma_px=hole_sigma_px)
    filled = stitch(closed, hole_stitch(flag=int(_WATER), mark=int(_WATER))).to_array(np.uint8)
    openings, reach = tuple(openings_yx), _opening_reach_px(openings_yx)
    opened = _tiles(_open, filled, depth=reach, step="open", openings_yx=openings, centred=centred)
    water = stitch(opened, hole_stitch(flag=int(_WATER), mark=int(_WATER))).to_array(np.uint8)
    return _like(scene, _tiles(_allowed_water, water, depth=0, step="mask", dtype=bool)).rename(COLOR)


def water_index(scene: xr.DataArray) -> xr.DataArray:
    """Compute NDWI_ice = (blue - red) / (blue + red), in float32.

    On 8-bit stretched RGB the index is only a ranking. Lazy.

    Parameters
    ----------
    scene
        ``(band, y, x)`` with red and blue.

    Returns
    -------
    xr.DataArray
        float32 ``(y, x)``, -1..1 for reflectances above zero; NaN where not seen or where blue + red <= 0; named
        ``index``.

    Raises
    ------
    InputError
        When red or blue is missing.
    """
    planes = _plane(scene, BLUE), _plane(scene, RED)
    bands = _raster(scene.transpose(BAND, Y, X))
    seen = _raster(seen_mask(scene))
    options = {"planes": planes}
    index = map_tiles(_ndwi_ice, bands, seen, depth=0, name="water-index", dtype=np.float32, options=options)
    return _like(scene, index).rename(INDEX)


def index_mask(scene: xr.DataArray, *, threshold: float = NDWI_ICE_THRESHOLD) -> xr.DataArray:
    """Find water where NDWI_ice is above a threshold.

    Parameters
    ----------
    scene
        ``(band, y, x)`` with red and blue, reflectance.
    threshold
        0.25 for Sentinel-2 over Greenland (Williamson et al. 2018); Moussavi et al. (2020) take 0.18 and 0.19 over
        Antarctica.

    Returns
    -------
    xr.DataArray
        Bool ``(y, x)``, True on water, False where not seen; named ``index``.
    """
    return water_index(scene) > np.float32(threshold)


_WATER, _REGION, _ALLOWED, _GROWN, _HOLE = (np.uint8(1 << k) for k in range(5))
"""Flags of a pixel on its way through `color_mask`. They travel together, so that between two passes nothing waits in
memory but their packed bits."""


def _flagged(scene: xr.DataArray, ranges: Sequence[ColorRange], region: xr.DataArray | None) -> da.Array:
    if scene.dtype != np.uint8:
        raise InputError(
            f"color thresholds are for 8-bit RGB, this scene is {scene.dtype}",
            _name(scene),
            "use index_mask for reflectance, or stretch the scene to uint8 as for display",
        )
    planes = tuple(_plane(scene, name) for name in (RED, GREEN, BLUE))
    bands = _raster(scene.transpose(BAND, Y, X))
    layers = [bands, _raster(seen_mask(scene)), *_region_layer(bands, region)]
    tables = range_tables(_checked_ranges(ranges))
    return _tiles(_threshold, *layers, depth=0, step="threshold", tables=tables, planes=planes)


def _plane(scene: xr.DataArray, name: str) -> int:
    names = [str(band) for band in scene[BAND].values] if BAND in scene.coords else []
    if name not in names:
        raise InputError(
            f"the scene has no band {name!r}, only {', '.join(names) or 'unnamed ones'}",
            _name(scene),
            "name its bands with open_scene(..., bands=[...])",
        )
    return names.index(name)


def _raster(array: xr.DataArray) -> da.Array:
    array = array.transpose(..., Y, X)
    return on_dask(array)


def _region_layer(like: da.Array, region: xr.DataArray | None) -> list[da.Array]:
    if region is None:
        return []
    if region.shape != like.shape[-2:]:
        raise InputError(
            f"the region has {region.shape} pixels, the scene {like.shape[-2:]}",
            str(region.name or "region"),
            "rasterize it on the scene's grid",
        )
    return [_raster(region.astype(bool))]


def _refuse_sizes(grow_sigma_px: float, hole_sigma_px: float, openings_yx: Sequence[tuple[int, int]]) -> None:
    for name, sigma in (("grow_sigma_px", grow_sigma_px), ("hole_sigma_px", hole_sigma_px)):
        if not 0 < sigma < np.inf:
            raise InputError(f"{name} must be above 0, got {sigma!r}", "color_mask")
    for size in openings_yx:
        if len(size) != 2 or any(side != int(side) or side < 1 for side in size):  # noqa: PLR2004
            raise InputError(f"an opening is a whole height and width of at least 1 px, got {size!r}", "openings_yx")


def _checked_ranges(ranges: Sequence[ColorRange]) -> NDArray[np.int64]:
    table = np.asarray(ranges, np.int64)
    if table.ndim != 3 or table.shape[1:] != (3, 2) or not 1 <= len(table) <= 64:  # noqa: PLR2004
        raise InputError(
            "color ranges are 1 to 64 triples of (low, high) for red, green and blue", f"ranges of shape {table.shape}"
        )
    if (table < 0).any() or (table > 255).any() or (table[..., 0] > table[..., 1]).any():  # noqa: PLR2004
        raise InputError("a color range runs from low to high within 0..255", f"ranges {table.tolist()}")
    return table


def _opening_reach_px(openings_yx: Sequence[tuple[int, int]]) -> int:
    """Reach of all openings in a row: each step of each looks half a rectangle far."""
    return max((sum(2 * (size[axis] // 2) for size in openings_yx) for axis in (0, 1)), default=0)


def _tiles(kernel: Any, *arrays: da.Array, depth: int, step: str, dtype: Any = np.uint8, **options: Any) -> da.Array:
    return map_tiles(kernel, *arrays, depth=depth, name=f"color-{step}", dtype=dtype, options=options)


def _threshold(
    bands: NDArray[np.uint8],
    seen: NDArray[np.bool_],
    region: NDArray[np.bool_] | None = None,
    *,
    tables: NDArray[np.uint64],
    planes: tuple[int, int, int],
) -> NDArray[np.uint8]:
    inside = np.ones(seen.shape, bool) if region is None else region
    allowed = seen & inside
    red, green, blue = (bands[k] for k in planes)
    water = in_any_range(red, green, blue, tables) & allowed
    layers = ((_WATER, water), (_REGION, inside), (_ALLOWED, allowed))
    return np.bitwise_or.reduce([flag * layer.view(np.uint8) for flag, layer in layers])


def _grow_water(flags: NDArray[np.uint8], *, sigma_px: float) -> NDArray[np.uint8]:
    return flags | _GROWN * grow((flags & _WATER) > 0, sigma_px).view(np.uint8)


def _close(flags: NDArray[np.uint8], *, sigma_px: float) -> NDArray[np.uint8]:
    holes = (flags & (_HOLE | _REGION)) == (_HOLE | _REGION)
    return (flags & (_WATER | _ALLOWED)) | grow(holes, sigma_px).view(np.uint8)


def _open(flags: NDArray[np.uint8], *, openings_yx: tuple[tuple[int, int], ...], centred: bool) -> NDArray[np.uint8]:
    water = (flags & _WATER) > 0
    for size in openings_yx:
        water = open_rectangle(water, size, centred=centred)
    return (flags & _ALLOWED) | water.view(np.uint8)


def _allowed_water(flags: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (flags & (_WATER | _ALLOWED)) == (_WATER | _ALLOWED)


def _ndwi_ice(bands: NDArray[Any], seen: NDArray[np.bool_], *, planes: tuple[int, int]) -> NDArray[np.float32]:
    blue, red = (bands[k].astype(np.float32) for k in planes)
    total = blue + red
    index = np.full(total.shape, np.nan, np.float32)
    np.divide(blue - red, total, out=index, where=seen & (total > 0))
    return index


def _like(scene: xr.DataArray, data: da.Array) -> xr.DataArray:
    coords = {k: v for k, v in scene.coords.items() if BAND not in v.dims and k not in {BAND, "seen"}}
    return xr.DataArray(data, dims=(Y, X), coords=coords)


def _name(scene: xr.DataArray) -> str:
    return str(scene.attrs.get("source") or scene.name or "scene")
