"""Which band each plane of a scene's files is, and the choice of those wanted."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lakescale.scene.files import File, listed
from lakescale.scene.names import WAVELENGTH_ORDER, band_of, wavelength_rank
from lakescale.schema import BLUE, GREEN, RED, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LOG = logging.getLogger(__name__)
_RGB_COUNTS = (3, 4)


@dataclass(frozen=True)
class Layer:
    """One band of one file."""

    file: File
    index: int
    """From 1."""
    band: str

    @property
    def dtype(self) -> str:
        """Type of the stored numbers, by numpy's name."""
        return self.file.dtypes[self.index - 1]


def name_bands(files: list[File], bands: Sequence[str] | None) -> tuple[list[File], list[str]]:
    """Give files their bands, in order of wavelength; beside them, the names of files that hold no known band."""
    if len(files) == 1 and len(files[0].indexes) > 1:
        return [_name_image(files[0], tuple(bands or ()))], []
    if any(len(file.indexes) > 1 for file in files):
        raise InputError("several images for one date, one of them with many bands", listed(files), "pass one of them")
    known = [_single_band(file) for file in files]
    if not any(known) and len(bands or ()) == len(files):
        known = list(bands or ())
    if not any(known):
        raise _unknown_bands(listed(files), len(files))
    named = [replace(file, bands=(band,)) for file, band in zip(files, known, strict=True) if band]
    unnamed = [file.name for file, band in zip(files, known, strict=True) if not band]
    if unnamed:
        _LOG.warning("skipped, since their names hold no known band: %s", ", ".join(unnamed))
    return sorted(named, key=lambda file: wavelength_rank(file.bands[0])), unnamed


def choose_layers(files: list[File], bands: Sequence[str] | None) -> list[Layer]:
    """Choose the bands asked for, in their order; all of them where none is asked for."""
    layers = [Layer(file, index, band) for file in files for index, band in zip(file.indexes, file.bands, strict=True)]
    wanted = [layer.band for layer in layers] if bands is None else list(bands)
    missing = [band for band in wanted if band not in {layer.band for layer in layers}]
    if missing or not wanted or isinstance(bands, str):
        there = ", ".join(dict.fromkeys(layer.band for layer in layers))
        raise InputError(f"no band {', '.join(missing) or bands!r}", listed(files), f"choose among bands: {there}")
    chosen = [_only_one([layer for layer in layers if layer.band == band]) for band in wanted]
    if len(set(wanted)) < len(wanted):
        raise InputError("a band is asked for twice", ", ".join(wanted), "name each band once in bands=")
    return chosen


def _single_band(file: File) -> str | None:
    from_stac, family = "".join(file.asset.bands[:1]), file.asset.product.family
    return from_stac or band_of(file.name, family) or band_of(file.descriptions[file.indexes[0] - 1], family)


def _name_image(file: File, bands: tuple[str, ...]) -> File:
    """Name the bands of one image: by STAC or descriptions, else by ``bands`` where they fit, else by color."""
    family = file.asset.product.family
    described = tuple(band_of(file.descriptions[index - 1], family) or "" for index in file.indexes)
    for known in (file.asset.bands, described):
        if _fits(known, file):
            return replace(file, bands=known)
    painted = _painted(file)
    if not set(bands) <= set(painted) and len(bands) == len(file.indexes):
        return replace(file, bands=bands)
    if not set(bands) <= set(painted) and len(bands) == len(file.dtypes):
        return replace(file, bands=bands, mask=None)  # a fourth band of uint8, which GDAL takes for alpha
    if not painted:
        raise _unknown_bands(file.path, len(file.indexes))
    return replace(file, bands=painted)


def _painted(file: File) -> tuple[str, ...]:
    """Bands by GDAL's color interpretation; three or four bands of uint8 without one are RGB and RGB + nir."""
    painted = tuple(file.colors[index - 1] for index in file.indexes)
    if set(painted) <= set(WAVELENGTH_ORDER) and _fits(painted, file):
        return painted
    count = len(file.indexes)
    return (RED, GREEN, BLUE, "nir")[:count] if set(file.dtypes) == {"uint8"} and count in _RGB_COUNTS else ()


def _fits(bands: tuple[str, ...], file: File) -> bool:
    return all(bands) and len(set(bands)) == len(bands) == len(file.indexes)


def _only_one(layers: list[Layer]) -> Layer:
    if len(layers) > 1:
        same = listed(layer.file for layer in layers)
        raise InputError(f"two files for the band {layers[0].band}", same, "pass a list with one file for each band")
    return layers[0]


def _unknown_bands(item: str, count: int) -> InputError:
    mend = f"name them, in the order of the file: bands=[...] with {count} names such as red, green, blue, nir"
    return InputError("bands with unknown names", item, mend)
