"""What the numbers of a scene mean: scale, offset and nodata, from the caller, the file, STAC or the product's name.

Sentinel-2 numbers carry an offset of -0.1 since processing baseline 04.00; some mirrors remove it, and many files do
not name their baseline, so that the darkest numbers have to tell.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from rasterio.windows import Window

from lakescale.scene.files import listed
from lakescale.scene.names import SCL, wavelength_rank
from lakescale.scene.pixels import read_window
from lakescale.schema import BLUE, GREEN, RED, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lakescale.scene.bands import Layer
    from lakescale.scene.files import File

_LOG = logging.getLogger(__name__)
_ZERO_OR_ONE, _CUP_MOSAIC = (0, 1), "Greenland26X_22W_Sentinel2"
_OFFSET_SINCE = dt.date(2022, 1, 25)
_S2_SCALE, _S2_OFFSET = 1e-4, -0.1
_DARKEST_WITH_OFFSET, _DARKEST_WITHOUT_OFFSET = 900, 1000
_SAMPLES_A_SIDE, _SAMPLE_PX = 4, 256


@dataclass(frozen=True)
class Scaling:
    """Reflectance = DN * scale + offset, and why."""

    scale: float
    offset: float
    source: str
    doubt: bool = False
    """True where the user should be told in the log."""


@dataclass(frozen=True)
class Radiometry:
    """What the numbers of each layer mean."""

    kind: str
    """``rgb8`` (uint8, kept as it is) or ``reflectance``."""
    scalings: tuple[Scaling, ...]
    """Of each layer."""
    nodata: tuple[tuple[float, ...], ...] = ()
    """Of each layer of ``reflectance``: the stored numbers that become NaN."""
    nodata_values: tuple[int, ...] = ()
    """Of ``rgb8``: what means not seen where all bands have it."""


def read_radiometry(
    layers: list[Layer],
    day: dt.date | None,
    *,
    scale: float | None,
    offset: float | None,
    nodata: float | str | None,
) -> Radiometry:
    """Decide what the numbers mean; ``scale``, ``offset`` and ``nodata`` of the caller win."""
    if scale is None and offset is None and all(layer.dtype == "uint8" for layer in layers):
        kept = Scaling(1.0, 0.0, "8-bit numbers, kept as they are")
        return Radiometry("rgb8", (kept,) * len(layers), nodata_values=_rgb8_nodata(layers, nodata))
    _check_scale(layers, scale)
    sentinel2 = cache(lambda: _sentinel2_scaling(layers, day))  # one decision for all bands, if one is needed
    scalings = tuple(_scaling(layer, scale, offset, sentinel2) for layer in layers)
    for source in dict.fromkeys(scaling.source for scaling in scalings if scaling.doubt):
        _LOG.warning("%s: %s", layers[0].file.name, source)
    return Radiometry("reflectance", scalings, tuple(_missing(layer, nodata) for layer in layers))


def _check_scale(layers: list[Layer], scale: float | None) -> None:
    dtypes = {layer.dtype: layer.file for layer in layers if layer.band != SCL}
    if scale is None and "uint8" in dtypes and len(dtypes) > 1:
        raise InputError(
            f"files of different types: {' and '.join(dtypes)}",
            listed(dtypes.values()),
            "choose bands of one type with bands=[...]",
        )
    if scale is not None and not (math.isfinite(scale) and scale):
        raise InputError("scale= must be a number other than 0", str(scale), "for example scale=0.0001")


def _scaling(layer: Layer, scale: float | None, offset: float | None, sentinel2: Callable[[], Scaling]) -> Scaling:
    if layer.band == SCL:
        return Scaling(1.0, 0.0, "classes as stored")
    if scale is not None:
        return Scaling(scale, offset or 0.0, "scale= and offset= as passed")
    found = _known_scaling(layer) or sentinel2()
    if offset is not None:
        return Scaling(found.scale, offset, f"{found.source}; but offset= as passed")
    return found


def _known_scaling(layer: Layer) -> Scaling | None:
    """Scale and offset that a file brings along; None where Sentinel-2's offset has to be decided for the scene."""
    asset, tags = layer.file.asset, layer.file.scale_offsets[layer.index - 1]
    if layer.dtype.startswith("float"):
        return Scaling(1.0, 0.0, "float numbers, kept as they are")
    if layer.dtype != "uint8":
        if tags != (1.0, 0.0):
            return Scaling(*tags, "the file's own scale and offset")
        if asset.product.is_sentinel2:
            return None
        if asset.scale_offset is not None:
            return Scaling(*asset.scale_offset, "the STAC item's scale and offset")
        if asset.product.collection2_level2:
            return Scaling(2.75e-5, -0.2, "Landsat Collection 2 level 2 by name: DN * 2.75e-5 - 0.2")
    raise InputError(
        f"numbers of type {layer.dtype} whose scale is unknown", layer.file.path,
        "pass scale= (and offset=): reflectance = DN * scale + offset, for example scale=0.0001",
    )  # fmt: skip


def _sentinel2_scaling(layers: list[Layer], day: dt.date | None) -> Scaling:
    """Decide whether Sentinel-2 numbers carry the offset of processing baseline 04.00.

    The band of the longest wavelength is looked at: snow is dark there, so that it tells most.
    """
    raw = [layer for layer in layers if layer.band != SCL and layer.file.asset.product.is_sentinel2]
    layer = max(raw, key=lambda layer: wavelength_rank(layer.band))
    offset, why, is_certain = _presumed_offset(layer.file, day)
    darkest = None if is_certain else _darkest_dn(layer)
    if darkest is not None and offset and darkest < _DARKEST_WITH_OFFSET:
        why = f"{why} suggests the offset -0.1, but the darkest sampled DN is {darkest}: it was removed already"
        return Scaling(_S2_SCALE, 0.0, f"Sentinel-2, {why}: DN / 10000", doubt=True)
    if darkest is not None and not offset and darkest >= _DARKEST_WITHOUT_OFFSET:
        why = f"{why}; ambiguous, the darkest sampled DN is {darkest}, so an offset of -0.1 may be missing"
        return Scaling(_S2_SCALE, 0.0, f"Sentinel-2, {why}: DN / 10000", doubt=True)
    scale = layer.file.asset.scale_offset[0] if layer.file.asset.scale_offset else _S2_SCALE
    return Scaling(scale, offset, f"Sentinel-2, {why}: {'(DN - 1000) / 10000' if offset else 'DN / 10000'}")


def _presumed_offset(file: File, day: dt.date | None) -> tuple[float, str, bool]:
    """Offset by what is written, where it is written, and whether the numbers cannot tell otherwise."""
    asset = file.asset
    if asset.offset_removed:
        return 0.0, "the STAC item says that the offset was removed", True
    if asset.scale_offset is not None:
        offset = asset.scale_offset[1]
        return offset, f"the STAC item's offset {offset:g}", not offset
    if file.baseline:
        offset = _S2_OFFSET if float(file.baseline) >= 4 else 0.0  # noqa: PLR2004
        return offset, f"processing baseline {file.baseline}", not offset
    if day is None:
        return 0.0, "no processing baseline and no date known", False
    offset = _S2_OFFSET if day >= _OFFSET_SINCE else 0.0
    return offset, f"no processing baseline known, sensing date {day.isoformat()}", False


def _darkest_dn(layer: Layer) -> int | None:
    """Lowest DN above zero in at most 16 windows spread over the image; None where they hold no data."""
    file, lows = layer.file, []
    height, width = (min(_SAMPLE_PX, size) for size in file.shape)
    for row, col in itertools.product(*map(_sample_starts, file.shape)):
        dn = read_window(file.path, [layer.index], Window(col, row, width, height))[layer.index]
        with_data = dn[(dn > 0) & (dn != (file.nodata or 0))]
        lows += [int(with_data.min())] if with_data.size else []
    return min(lows, default=None)


def _sample_starts(size: int) -> list[int]:
    count = min(_SAMPLES_A_SIDE, -(-size // _SAMPLE_PX))
    return sorted({int(start) for start in np.linspace(0, max(0, size - _SAMPLE_PX), count)})


def _rgb8_nodata(layers: list[Layer], nodata: float | str | None) -> tuple[int, ...]:
    files = [layer.file for layer in layers]
    if nodata == "cup" or (nodata is None and any(file.name.startswith(_CUP_MOSAIC) for file in files)):
        return _ZERO_OR_ONE
    if nodata is not None:
        if isinstance(nodata, str) or nodata not in range(256):
            raise InputError(f"nodata={nodata!r} is no uint8 number", listed(files), 'pass 0 to 255, or "cup"')
        return (int(nodata),)
    stored = {int(file.nodata) for file in files if file.nodata is not None and file.nodata in range(256)}
    is_rgb = {RED, GREEN, BLUE} <= {band for file in files for band in file.bands}
    if not stored and is_rgb and all(file.mask is None for file in files):
        return _ZERO_OR_ONE
    return tuple(sorted(stored))


def _missing(layer: Layer, nodata: float | str | None) -> tuple[float, ...]:
    """Raw numbers that become NaN in a band."""
    if isinstance(nodata, str):
        raise InputError(f"nodata={nodata!r} is for RGB of type uint8", layer.file.path, "pass a number")
    if nodata is not None:
        return (nodata,)
    stored = () if layer.file.nodata is None else (layer.file.nodata,)
    if layer.dtype.startswith("float"):
        return stored
    product = layer.file.asset.product
    return tuple({*stored, 0}) if product.is_sentinel2 or product.collection2_level2 else stored or (0,)
