"""What names and metadata say about a scene: date, bands, sensor, baseline, scale and offset.

Pure Python: no file but a STAC item's JSON is opened here, headers are handed in as `File`. Sources: the naming
conventions of Sentinel-2 (ESA's product specification) and Landsat Collection 2 (USGS), and the STAC extensions eo
and raster.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from lakescale.schema import BLUE, GREEN, RED, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_LOG = logging.getLogger(__name__)
_CUP, _CUP_MOSAIC = (0, 1), "Greenland26X_22W_Sentinel2"
_SAME_ORIGIN_PX = 1e-3
_RGB_COUNTS = (3, 4)
_HOW_TO_NAME = "name them, in the order of the file: bands=[...] with {n} names such as red, green, blue, nir"
DATASET_MASK = 0
"""In place of a band's index: the mask of the whole file (GDAL's, from inside the file or a .msk beside it)."""

_START, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"

SCL, ALPHA = "scl", "alpha"
WAVELENGTH_ORDER = (
    "coastal", BLUE, GREEN, RED, "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09", "cirrus", "swir1",
    "swir2", SCL,
)  # fmt: skip

_SENTINEL2, _LANDSAT89, _LANDSAT47 = "sentinel2", "landsat89", "landsat47"
_CODES = {
    _SENTINEL2: {
        "1": "coastal", "2": BLUE, "3": GREEN, "4": RED, "5": "rededge1", "6": "rededge2", "7": "rededge3", "8": "nir",
        "8A": "nir08", "9": "nir09", "10": "cirrus", "11": "swir1", "12": "swir2",
    },
    _LANDSAT89: {
        "1": "coastal", "2": BLUE, "3": GREEN, "4": RED, "5": "nir", "6": "swir1", "7": "swir2", "9": "cirrus",
    },
    _LANDSAT47: {"1": BLUE, "2": GREEN, "3": RED, "4": "nir", "5": "swir1", "7": "swir2"},
}  # fmt: skip
_ALIASES = {
    "swir16": "swir1", "swir22": "swir2", "rededge071": "rededge1", "rededge074": "rededge2",
    "rededge078": "rededge3",
}  # fmt: skip
_BAND_CODE = re.compile(rf"{_START}B(0?[1-9]|1[0-2]|8A){_END}", re.IGNORECASE)
_SCL_CODE = re.compile(rf"{_START}SCL{_END}", re.IGNORECASE)
_BAND_WORD = re.compile(rf"{_START}({'|'.join([*WAVELENGTH_ORDER, ALPHA, *_ALIASES])}){_END}", re.IGNORECASE)
_DATE = re.compile(r"(?<!\d)((?:19[7-9]|20\d)\d)(?:(\d{2})(\d{2})|-(\d{2})-(\d{2})|_(\d{2})_(\d{2}))(?!\d)")
_S2_TOKEN = re.compile(rf"{_START}(?:S2([A-D])?|SENTINEL-?2([A-D])?){_END}", re.IGNORECASE)
_S2_TILE = re.compile(rf"{_START}T\d\d[A-Z]{{3}}{_END}")
_S2_LEVEL = re.compile(rf"(?<![A-Za-z0-9])(?:MSI)?(L1C|L2A){_END}")
_S2_BASELINE = re.compile(rf"{_START}N(\d\d)(\d\d){_END}")
_S2_PRODUCT_FOLDER = re.compile(r"S2[A-D]_MSIL(?:1C|2A)_")
_LANDSAT_TOKEN = re.compile(rf"{_START}L[COTE]0([4-9])(?:_(L[12][A-Z]{{2}}))?{_END}")
_LANDSAT_C2L2 = re.compile(r"(?<![A-Za-z0-9])L[COTE]0[4-9]_L2S[PR]_\d{6}_\d{8}_\d{8}_02_")
_HLS_LANDSAT = re.compile(r"(?<![A-Za-z0-9])HLS\.L30\.")
# GDAL cuts a tag's name at its colon, so that s2:processing_baseline=05.09 comes back as s2=...
_BASELINE_TAG = re.compile(r"(?:\w+[:=])?processing[_:=]baseline[:=]N?(\d\d?)\.?(\d\d)", re.IGNORECASE)

OFFSET_SINCE = dt.date(2022, 1, 25)
"""Sensing date from which Sentinel-2 products carry the offset of baseline 04.00."""
_S2_SCALE, _S2_OFFSET = 1e-4, -0.1
_DARKEST_WITH_OFFSET = 900
_DARKEST_WITHOUT_OFFSET = 1000


@dataclass(frozen=True)
class Product:
    """What a product's name and metadata say about where it came from; empty where they say nothing."""

    family: str = ""
    """Which band codes hold: ``sentinel2``, ``landsat89``, ``landsat47``."""
    sensor: str = ""
    level: str = ""
    baseline: str = ""
    """Sentinel-2 processing baseline, as ``04.00``."""
    collection2_level2: bool = False
    """Landsat Collection 2 surface reflectance."""

    @property
    def is_sentinel2(self) -> bool:
        """Whether its numbers are scaled as Sentinel-2's."""
        return self.family == _SENTINEL2


@dataclass(frozen=True)
class Asset:
    """One file, and what is known of it before it is opened."""

    path: str
    product: Product = Product()
    day: dt.date | None = None
    day_source: str = "none found"
    bands: tuple[str, ...] = ()
    """Band names that a STAC item gives, in file order; empty where the file itself has to say."""
    scale_offset: tuple[float, float] | None = None
    """From STAC."""
    nodata: float | None = None
    """From STAC."""
    offset_removed: bool = False
    """STAC says that the mirror has removed the offset of baseline 04.00 from the numbers."""


@dataclass(frozen=True)
class Scaling:
    """Reflectance = DN * scale + offset, and why."""

    scale: float
    offset: float
    source: str
    doubt: bool = False
    """True where the user should be told in the log."""


def file_name(path: str) -> str:
    """Last part of a path or URL, without its query."""
    return parts(path)[0]


def parts(path: str) -> list[str]:
    """Name of the file and of its folders, innermost first."""
    bare = path.split("?", maxsplit=1)[0] if "://" in path else path
    return [part for part in reversed(re.split(r"[/\\]", bare)) if part] or [path]


def asset_of_path(path: str) -> Asset:
    """Read the names of a file and of its folders."""
    day, source = _day_of_path(path)
    return Asset(path, product_of(path), day, source)


def _valid_days(text: str) -> list[dt.date]:
    found = []
    for match in _DATE.finditer(text):
        year, month, day = (int(group) for group in match.groups() if group)
        try:
            found.append(dt.date(year, month, day))
        except ValueError:
            continue
    return found


def _day_of_path(path: str) -> tuple[dt.date | None, str]:
    for name, where in zip(parts(path)[:2], ("name", "folder's name"), strict=False):
        days = _valid_days(name)
        if len(days) == 1:
            return days[0], f"the date in the {where} {name}"
        if days:
            listed = ", ".join(day.isoformat() for day in days)
            return days[0], f"first of {len(days)} dates in the {where} {name}: {listed}"
    return None, "none found"


def parse_day(value: object) -> dt.date:
    """Read the option ``date``: text, a date or datetime, or a datetime64."""
    text = str(value).strip()
    match, days = _DATE.match(text), _valid_days(text)
    if match is None or not days or not re.fullmatch(r"([T ].*)?", text[match.end() :]):
        raise InputError("date= is not a date", text, "write it as in date='2019-07-23'")
    return days[0]


def band_of(text: str, family: str = "") -> str | None:
    """Read the band a file name or a band description means; None where it names none.

    Codes of one digit (``B4``) mean different colors to different sensors, so they need a family; ``B04`` is
    Sentinel-2's unless the family says otherwise.

    >>> band_of("T22WEV_20190723T151911_B8A.jp2"), band_of("LT05_L2SP_SR_B4.TIF", "landsat47")
    ('nir08', 'nir')
    """
    code = _BAND_CODE.search(text)
    if code is not None and (family or len(code[1]) > 1):
        return _CODES[family or _SENTINEL2].get(code[1].lstrip("0").upper())
    if _SCL_CODE.search(text):
        return SCL
    word = _BAND_WORD.search(text)
    return canonical_band(word[1]) if word else None


def canonical_band(name: str) -> str:
    """Lower case, with the synonyms of the STAC extension eo resolved (``swir16`` is ``swir1``)."""
    return _ALIASES.get(name.lower(), name.lower())


def product_of(path: str) -> Product:
    """Read sensor, level and baseline from a file's name, or from the Sentinel-2 product folder around it."""
    name, *folders = parts(path)
    around = next((folder for folder in folders if _S2_PRODUCT_FOLDER.match(folder)), "")
    landsat, said = _LANDSAT_TOKEN.search(name), f"{name} {around}"
    sentinel = _S2_TOKEN.search(said) or "MSIL1C" in said or "MSIL2A" in said
    if _HLS_LANDSAT.search(name):
        return Product(_LANDSAT89, "Landsat 8/9 (HLS)")
    if sentinel or (_S2_TILE.search(name) and (_BAND_CODE.search(name) or _SCL_CODE.search(name))):
        return _sentinel2(said)
    if landsat is not None:
        family = _LANDSAT89 if int(landsat[1]) >= 8 else _LANDSAT47  # noqa: PLR2004
        return Product(
            family,
            f"Landsat {landsat[1]}",
            landsat[2] or "",
            collection2_level2=bool(_LANDSAT_C2L2.search(name)),
        )
    return Product()


def _sentinel2(said: str) -> Product:
    token, level, baseline = _S2_TOKEN.search(said), _S2_LEVEL.search(said), _S2_BASELINE.search(said)
    letter = (token[1] or token[2] or "").upper() if token else ""
    return Product(
        _SENTINEL2,
        f"Sentinel-2{letter}",
        level[1] if level else "",
        f"{baseline[1]}.{baseline[2]}" if baseline else "",
    )


def baseline_of_tags(tags: Mapping[str, Any]) -> str:
    """Read the processing baseline from a file's tags or a STAC item's properties; empty where there is none."""
    for key, value in tags.items():
        match = _BASELINE_TAG.fullmatch(f"{key}={value}")
        if match:
            return f"{int(match[1]):02d}.{match[2]}"
    return ""


def painted_band(interpretation: str) -> str:
    """Band that a color interpretation means; empty where it means none of ours."""
    return interpretation if interpretation in {RED, GREEN, BLUE, "nir", "coastal"} else ""


def named_scaling(asset: Asset) -> Scaling | None:
    """Scale and offset by STAC or by a product's name, but for Sentinel-2; None where they are not known."""
    if asset.scale_offset is not None:
        return Scaling(*asset.scale_offset, "the STAC item's scale and offset")
    if asset.product.collection2_level2:
        return Scaling(2.75e-5, -0.2, "Landsat Collection 2 level 2 by name: DN * 2.75e-5 - 0.2")
    return None


def sentinel2_scaling(asset: Asset, baseline: str, day: dt.date | None, sample: Callable[[], int | None]) -> Scaling:
    """Decide whether Sentinel-2 numbers carry the offset of processing baseline 04.00.

    Parameters
    ----------
    asset
        The file, with what STAC declares.
    baseline
        Processing baseline, as ``04.00``; empty where unknown.
    day
        Sensing date.
    sample
        Finds the lowest nonzero DN of a sample (None where it held no data); called only where that matters.
    """
    offset, why = _presumed_offset(asset, baseline, day)
    unsure = not (offset or baseline or asset.offset_removed or asset.scale_offset)
    darkest = sample() if offset or unsure else None
    if offset and darkest is not None and darkest < _DARKEST_WITH_OFFSET:
        why = f"{why} suggests the offset -0.1, but the darkest sampled DN is {darkest}: it was removed already"
        return Scaling(_S2_SCALE, 0.0, f"Sentinel-2, {why}: DN / 10000", doubt=True)
    if unsure and darkest is not None and darkest >= _DARKEST_WITHOUT_OFFSET:
        why = f"{why}; ambiguous, the darkest sampled DN is {darkest}, so an offset of -0.1 may be missing"
        return Scaling(_S2_SCALE, 0.0, f"Sentinel-2, {why}: DN / 10000", doubt=True)
    scale = asset.scale_offset[0] if asset.scale_offset else _S2_SCALE
    formula = "(DN - 1000) / 10000" if offset else "DN / 10000"
    return Scaling(scale, offset, f"Sentinel-2, {why}: {formula}")


def _presumed_offset(asset: Asset, baseline: str, day: dt.date | None) -> tuple[float, str]:
    if asset.offset_removed:
        return 0.0, "the STAC item says that the offset was removed"
    if asset.scale_offset is not None:
        return asset.scale_offset[1], f"the STAC item's offset {asset.scale_offset[1]:g}"
    if baseline:
        return (_S2_OFFSET if float(baseline) >= 4 else 0.0), f"processing baseline {baseline}"  # noqa: PLR2004
    if day is None:
        return 0.0, "no processing baseline and no date known"
    after = day >= OFFSET_SINCE
    return (_S2_OFFSET if after else 0.0), f"no processing baseline known, sensing date {day.isoformat()}"


def read_stac(source: object) -> list[Asset]:
    """Turn a STAC item (a dict, an object with ``to_dict``, or a path to its JSON) into the assets that hold bands.

    Single-band assets win over composites of several bands; of two assets for one band (a COG and a JP2) the one
    that is not JP2 wins, then the first.
    """
    item, base = _stac_item(source)
    found = list(_stac_assets(item, base))
    single = [asset for asset, _ in found if len(asset.bands) == 1]
    if not found:
        raise InputError(
            "a STAC item without an asset that names its bands",
            str(item.get("id", base)),
            "pass the paths of the files instead, for example open_scene([path, path])",
        )
    if not single:
        return [asset for asset, _ in found]
    chosen: dict[str, Asset] = {}
    for asset, _ in sorted(found, key=lambda pair: pair[1]):
        if len(asset.bands) == 1:
            chosen.setdefault(asset.bands[0], asset)
    return list(chosen.values())


def _stac_item(source: object) -> tuple[Mapping[str, Any], str]:
    item: Any
    if isinstance(source, (str, Path)):
        base = str(Path(source).resolve())
        try:
            item = json.loads(Path(source).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read as a STAC item: {error}", str(source), "check the path") from error
    else:
        item = source if isinstance(source, dict) else source.to_dict()  # type: ignore[attr-defined]
        links = item.get("links") or [] if isinstance(item, dict) else []
        base = next((link["href"] for link in links if link.get("rel") == "self"), "")
    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict):
        raise InputError(
            "is not a STAC item (it has no assets)",
            str(base),
            "pass one item, not a collection or a search's answer",
        )
    return item, base


def _stac_assets(item: Mapping[str, Any], base: str) -> Iterator[tuple[Asset, bool]]:
    properties = item.get("properties") or {}
    product, (day, source) = _stac_product(item, properties), _stac_day(item, properties)
    removed = any(properties.get(f"{who}:boa_offset_applied") is True for who in ("earthsearch", "sentinel"))
    for key, asset in item["assets"].items():
        if {"thumbnail", "overview", "metadata"} & set(asset.get("roles") or ()):
            continue
        named = asset.get("eo:bands") or asset.get("bands") or []
        bands = tuple(_stac_band(band, key if len(named) == 1 else "", product) for band in named or [{}])
        if not named:
            bands = (band_of(key, product.family) or "",)
        if not all(bands):
            continue
        raster: dict[str, Any] = next(iter(asset.get("raster:bands") or []), {})
        known = {
            **asset,
            **(named[0] if named else {}),
            **{f"raster:{name}": raster[name] for name in raster},
        }
        scale, offset = known.get("raster:scale"), known.get("raster:offset")
        nodata = known.get("raster:nodata", known.get("nodata"))
        yield (
            Asset(
                _absolute(str(asset["href"]), base), product, day, source, bands,
                None if scale is None and offset is None else (float(scale or 1), float(offset or 0)),
                None if nodata is None else float(nodata),
                removed,
            ),
            "jp2" in str(asset.get("type", "")),
        )  # fmt: skip


def _stac_band(band: Mapping[str, Any], key: str, product: Product) -> str:
    """Name of a band: its code first, since ``rededge`` is the common name of three bands."""
    common = str(band.get("common_name") or band.get("eo:common_name") or "")
    by_code = [band_of(str(text), product.family) for text in (band.get("name", ""), key)]
    return next((name for name in (*by_code, canonical_band(common)) if name in WAVELENGTH_ORDER), "")


def _stac_product(item: Mapping[str, Any], properties: Mapping[str, Any]) -> Product:
    platform = str(properties.get("platform") or properties.get("constellation") or "")
    named = product_of(str(item.get("id", "")))
    said = named if named.family else product_of(platform)
    level = _S2_LEVEL.search(f"{item.get('id', '')} {str(item.get('collection', '')).upper()}")
    baseline = baseline_of_tags(properties) or said.baseline
    is_sentinel = said.family == _SENTINEL2
    return Product(
        said.family,
        said.sensor,
        said.level or (level[1] if level and is_sentinel else ""),
        baseline if is_sentinel else "",
        said.collection2_level2,
    )


def _stac_day(item: Mapping[str, Any], properties: Mapping[str, Any]) -> tuple[dt.date | None, str]:
    text = properties.get("datetime") or properties.get("start_datetime")
    if not text:
        return None, "none found"
    try:
        moment = dt.datetime.fromisoformat(str(text))
    except ValueError as error:
        raise InputError(f"the STAC item's datetime is not a date: {text}", str(item.get("id", ""))) from error
    day = (moment.astimezone(dt.UTC) if moment.tzinfo else moment).date()
    return day, f"the STAC item's datetime {text}"


def _absolute(href: str, base: str) -> str:
    if "://" in href or href.startswith("/") or not base:
        return href
    return urljoin(base, href) if "://" in base else str(Path(base).parent / href)


def wavelength_rank(band: str) -> int:
    """Place of a band in order of wavelength; names that are not known come last."""
    return WAVELENGTH_ORDER.index(band) if band in WAVELENGTH_ORDER else len(WAVELENGTH_ORDER)


@dataclass(frozen=True)
class File:
    """What a raster's header says."""

    asset: Asset
    shape: tuple[int, int]
    dtypes: tuple[str, ...]
    crs: Any
    transform: Any
    """Affine, from pixel to map coordinates."""
    descriptions: tuple[str, ...]
    interpretations: tuple[str, ...]
    scale_offsets: tuple[tuple[float, float], ...]
    nodata: float | None
    baseline: str
    mask: int | None
    """The alpha band (from 1), `DATASET_MASK`, or None where every pixel with data counts."""

    @property
    def name(self) -> str:
        """Name of the file, without its folders."""
        return file_name(self.asset.path)

    @property
    def color_indexes(self) -> tuple[int, ...]:
        """Bands (from 1) without alpha."""
        return tuple(index for index in range(1, len(self.dtypes) + 1) if index != self.mask)


@dataclass(frozen=True)
class Layer:
    """One band of one file."""

    file: File
    index: int
    band: str

    @property
    def name(self) -> str:
        """Name of the file, without its folders."""
        return self.file.name

    @property
    def dtype(self) -> str:
        """Type of the stored numbers, by numpy's name."""
        return self.file.dtypes[self.index - 1]

    @property
    def is_float(self) -> bool:
        """Whether the numbers are stored as they are meant."""
        return self.dtype.startswith("float")

    @property
    def is_wide_integer(self) -> bool:
        """Whether they are integers that a scale turns into reflectance."""
        return self.dtype.startswith(("int", "uint")) and self.dtype != "uint8"


@dataclass(frozen=True)
class Wish:
    """The radiometry that the caller asks for."""

    scale: float | None
    offset: float | None
    nodata: float | str | None


@dataclass(frozen=True)
class Radiometry:
    """What the numbers of each layer mean."""

    kind: str
    """``rgb8`` or ``reflectance``."""
    scalings: tuple[Scaling, ...]
    nodata: tuple[tuple[float, ...], ...] = ()
    """Per layer: what becomes NaN."""
    nodata_values: tuple[int, ...] = ()
    """Of ``rgb8``: what means not seen where all bands have it."""


def one_day(files: list[File], day: dt.date | None) -> tuple[dt.date | None, str]:
    """Find the sensing date of files that have at most one, and say where it is from; ``day`` wins."""
    assets = sorted((file.asset for file in files), key=lambda asset: asset.path, reverse=True)
    dated = {asset.day: asset.day_source for asset in assets if asset.day is not None}
    if len(dated) > 1:
        days = ", ".join(sorted(one.isoformat() for one in dated))
        raise InputError(f"files of {len(dated)} dates: {days}", listed(files), "choose one with date='YYYY-MM-DD'")
    if day is not None:
        return day, "the date= argument"
    return next(iter(dated.items()), (None, "none found"))


def name_layers(files: list[File], bands: Sequence[str] | None, skipped: list[str]) -> list[Layer]:
    """Say which band each plane of the files is; files that hold no known band beside others that do are skipped."""
    if len(files) > 1 and any(len(file.color_indexes) > 1 for file in files):
        raise InputError("several images for one date, one of them with many bands", listed(files), "pass one of them")
    if len(files[0].color_indexes) > 1:
        return _name_bands(files[0], list(bands or ()))
    known = [_single_band(file) for file in files]
    if not any(known) and len(bands or ()) == len(files):
        known = list(bands or ())
    if not any(known):
        raise InputError("bands with unknown names", listed(files), _HOW_TO_NAME.format(n=len(files)))
    unknown = [file.name for file, band in zip(files, known, strict=True) if not band]
    if unknown:
        skipped.extend(unknown)
        _LOG.warning("skipped, since their names hold no known band: %s", ", ".join(unknown))
    layers = [Layer(file, file.color_indexes[0], band) for file, band in zip(files, known, strict=True) if band]
    return sorted(layers, key=lambda layer: wavelength_rank(layer.band))


def _single_band(file: File) -> str | None:
    from_stac = file.asset.bands[0] if file.asset.bands else None
    index, family = file.color_indexes[0], file.asset.product.family
    return from_stac or band_of(file.name, family) or band_of(file.descriptions[index - 1], family)


def _name_bands(file: File, bands: Sequence[str]) -> list[Layer]:
    """Name the bands of one image: by STAC or descriptions, else by ``bands`` where they fit, else by color."""
    indexes, family = file.color_indexes, file.asset.product.family
    described = tuple(band_of(file.descriptions[index - 1], family) or "" for index in indexes)
    known = _if_distinct(file.asset.bands, len(indexes)) or _if_distinct(described, len(indexes))
    if not known:
        known = _painted(file)
        if bands and not set(bands) <= set(known) and len(bands) in {len(indexes), len(file.dtypes)}:
            known = tuple(bands)
    if not known:
        raise InputError("bands with unknown names", file.asset.path, _HOW_TO_NAME.format(n=len(indexes)))
    if len(known) > len(indexes):  # the caller knows better than GDAL, which takes a fourth band of uint8 for alpha
        file = replace(file, mask=None)
    return [Layer(file, index, band) for index, band in zip(file.color_indexes, known, strict=True)]


def _painted(file: File) -> tuple[str, ...]:
    count = len(file.color_indexes)
    painted = tuple(painted_band(file.interpretations[index - 1]) for index in file.color_indexes)
    is_rgb = set(file.dtypes) == {"uint8"} and count in _RGB_COUNTS
    return _if_distinct(painted, count) or ((RED, GREEN, BLUE, "nir")[:count] if is_rgb else ())


def _if_distinct(bands: tuple[str, ...], count: int) -> tuple[str, ...]:
    return bands if all(bands) and len(set(bands)) == len(bands) == count else ()


def choose(layers: list[Layer], bands: Sequence[str] | None) -> tuple[list[Layer], list[Layer]]:
    """Choose the bands asked for, in their order; beside them, all bands of the same files."""
    wanted = [layer.band for layer in layers] if bands is None else list(bands)
    missing = [band for band in wanted if band not in {layer.band for layer in layers}]
    if missing or not wanted or isinstance(bands, str):
        there = ", ".join(dict.fromkeys(layer.band for layer in layers))
        raise InputError(f"no band {', '.join(missing) or bands!r}", listed(layers), f"choose among bands: {there}")
    chosen = []
    for band in wanted:
        same = [layer for layer in layers if layer.band == band]
        if len(same) > 1:
            raise InputError(f"two files for the band {band}", listed(same), "pass a list with one file for each band")
        chosen.append(same[0])
    if len(set(wanted)) < len(wanted):
        raise InputError("a band is asked for twice", ", ".join(wanted), "name each band once in bands=")
    files = {layer.file.asset.path for layer in chosen}
    return chosen, [layer for layer in layers if layer.file.asset.path in files]


def require_one_grid(files: Sequence[File]) -> None:
    """Raise `InputError` where files differ in CRS, resolution, shape or origin."""
    for other in files[1:]:
        for what, here, there, same in _compare_grids(files[0], other):
            if not same:
                raise InputError(
                    f"files of different {what}: {here} and {there}", listed([files[0], other]),
                    "choose bands of one grid with bands=[...], or bring the files to one grid with gdalwarp",
                )  # fmt: skip


def _compare_grids(one: File, other: File) -> Iterator[tuple[str, str, str, bool]]:
    """Compare two files: what, its two values, and whether they agree."""
    (a, b, c, d, e, f), (a2, b2, c2, d2, e2, f2) = one.transform[:6], other.transform[:6]
    near = abs(a) * _SAME_ORIGIN_PX
    yield "CRS", one.crs.to_string(), other.crs.to_string(), one.crs == other.crs
    same = all(
        math.isclose(here, there, rel_tol=1e-9) for here, there in zip((a, b, d, e), (a2, b2, d2, e2), strict=True)
    )
    yield "resolution", f"{a:g} x {e:g}", f"{a2:g} x {e2:g}", same
    yield "shape", str(one.shape), str(other.shape), one.shape == other.shape
    yield "origin", f"({c:.10g}, {f:.10g})", f"({c2:.10g}, {f2:.10g})", max(abs(c - c2), abs(f - f2)) <= near


def read_radiometry(
    layers: list[Layer], siblings: list[Layer], wish: Wish, day: dt.date | None, sample: Callable[[Layer], int | None]
) -> Radiometry:
    """Decide what the numbers mean.

    Parameters
    ----------
    layers, siblings
        The bands wanted, and all bands of the same files.
    wish
        What the caller asks for; it wins.
    day
        Sensing date.
    sample
        Finds the lowest nonzero DN in a sample of a band (None where it holds no data).
    """
    dtypes = {layer.dtype: layer.file for layer in layers if layer.band != SCL}
    if wish.scale is None and wish.offset is None and all(layer.dtype == "uint8" for layer in layers):
        stored = Scaling(1.0, 0.0, "8-bit numbers, kept as they are")
        return Radiometry("rgb8", (stored,) * len(layers), nodata_values=_rgb8_nodata(siblings, wish.nodata))
    if wish.scale is None and "uint8" in dtypes and len(dtypes) > 1:
        raise InputError(
            f"files of different types: {' and '.join(dtypes)}", listed(list(dtypes.values())),
            "choose bands of one type with bands=[...]",
        )  # fmt: skip
    if wish.scale is not None and not (math.isfinite(wish.scale) and wish.scale):
        raise InputError("scale= must be a number other than 0", str(wish.scale), "for example scale=0.0001")
    scalings = tuple(_scalings(layers, wish, lambda: _sentinel2_scaling(layers, day, sample)))
    for source in dict.fromkeys(scaling.source for scaling in scalings if scaling.doubt):
        _LOG.warning("%s: %s", layers[0].file.name, source)
    return Radiometry("reflectance", scalings, tuple(_missing(layer, wish.nodata) for layer in layers))


def _scalings(layers: list[Layer], wish: Wish, decide: Callable[[], Scaling]) -> Iterator[Scaling]:
    sentinel2: Scaling | None = None  # one decision for all bands
    for layer in layers:
        if layer.band == SCL:
            yield Scaling(1.0, 0.0, "classes as stored")
            continue
        if wish.scale is not None:
            yield Scaling(wish.scale, wish.offset or 0.0, "scale= and offset= as passed")
            continue
        found = _own_scaling(layer)
        if found is None:
            sentinel2 = sentinel2 or decide()
            found = sentinel2
        if wish.offset is not None:
            found = Scaling(found.scale, wish.offset, f"{found.source}; but offset= as passed")
        yield found


def _own_scaling(layer: Layer) -> Scaling | None:
    """Scale and offset that a file brings along; None where Sentinel-2's offset has to be decided for the scene."""
    file, tags = layer.file, layer.file.scale_offsets[layer.index - 1]
    if layer.is_float:
        return Scaling(1.0, 0.0, "float numbers, kept as they are")
    if layer.is_wide_integer and tags != (1.0, 0.0):
        return Scaling(*tags, "the file's own scale and offset")
    if layer.is_wide_integer and file.asset.product.is_sentinel2:
        return None
    named = named_scaling(file.asset)
    if named is None or not layer.is_wide_integer:
        raise InputError(
            f"numbers of type {layer.dtype} whose scale is unknown", file.asset.path,
            "pass scale= (and offset=): reflectance = DN * scale + offset, for example scale=0.0001",
        )  # fmt: skip
    return named


def _sentinel2_scaling(layers: list[Layer], day: dt.date | None, sample: Callable[[Layer], int | None]) -> Scaling:
    """Look at the band of the longest wavelength: snow is dark there, so that it tells most about the offset."""
    raw = [layer for layer in layers if layer.band != SCL and layer.file.asset.product.is_sentinel2]
    darkest = max(raw, key=lambda layer: wavelength_rank(layer.band))
    file = darkest.file
    return sentinel2_scaling(file.asset, file.baseline, day, lambda: sample(darkest))


def _rgb8_nodata(siblings: list[Layer], nodata: float | str | None) -> tuple[int, ...]:
    files = [layer.file for layer in siblings]
    if nodata == "cup" or (nodata is None and any(file.name.startswith(_CUP_MOSAIC) for file in files)):
        return _CUP
    if nodata is not None:
        if isinstance(nodata, str) or nodata not in range(256):
            raise InputError(f"nodata={nodata!r} is no uint8 number", listed(files), 'pass 0 to 255, or "cup"')
        return (int(nodata),)
    stored = {int(file.nodata) for file in files if file.nodata is not None and file.nodata in range(256)}
    is_rgb = {RED, GREEN, BLUE} <= {layer.band for layer in siblings}
    if not stored and is_rgb and all(file.mask is None for file in files):
        return _CUP
    return tuple(sorted(stored))


def _missing(layer: Layer, nodata: float | str | None) -> tuple[float, ...]:
    """Raw numbers that become NaN in a band."""
    if isinstance(nodata, str):
        raise InputError(f"nodata={nodata!r} is for RGB of type uint8", layer.file.asset.path, "pass a number")
    if nodata is not None:
        return (nodata,)
    stored = () if layer.file.nodata is None else (layer.file.nodata,)
    if layer.is_float:
        return stored
    product = layer.file.asset.product
    return tuple({*stored, 0}) if product.is_sentinel2 or product.collection2_level2 else stored or (0,)


def listed(items: Iterable[File | Layer]) -> str:
    """Names of files, each once."""
    return ", ".join(dict.fromkeys(item.name for item in items))
