"""What a path says about an image: date, bands, sensor, level, processing baseline.

Nothing is opened here. Sources: the naming conventions of Sentinel-2 (ESA's product specification) and Landsat
Collection 2 (USGS), and the common band names of the STAC extension eo.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakescale.schema import BLUE, GREEN, RED, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCL, ALPHA = "scl", "alpha"
"""Sentinel-2's scene classification; opacity."""
WAVELENGTH_ORDER = (
    "coastal", BLUE, GREEN, RED, "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09", "cirrus", "swir1",
    "swir2", SCL,
)  # fmt: skip

_SENTINEL2, _LANDSAT_8_9, _LANDSAT_4_7 = "sentinel2", "landsat89", "landsat47"
_CODES = {
    _SENTINEL2: {
        "1": "coastal", "2": BLUE, "3": GREEN, "4": RED, "5": "rededge1", "6": "rededge2", "7": "rededge3", "8": "nir",
        "8A": "nir08", "9": "nir09", "10": "cirrus", "11": "swir1", "12": "swir2",
    },
    _LANDSAT_8_9: {
        "1": "coastal", "2": BLUE, "3": GREEN, "4": RED, "5": "nir", "6": "swir1", "7": "swir2", "9": "cirrus",
    },
    _LANDSAT_4_7: {"1": BLUE, "2": GREEN, "3": RED, "4": "nir", "5": "swir1", "7": "swir2"},
}  # fmt: skip
_SYNONYMS = {
    "swir16": "swir1", "swir22": "swir2", "rededge071": "rededge1", "rededge074": "rededge2",
    "rededge078": "rededge3",
}  # fmt: skip

_START, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_DATE = re.compile(r"(?<!\d)((?:19[7-9]|20\d)\d)([-_]?)(\d{2})\2(\d{2})(?!\d)")
_BAND_CODE = re.compile(rf"{_START}B(0?[1-9]|1[0-2]|8A){_END}", re.IGNORECASE)
_BAND_WORD = re.compile(rf"{_START}({'|'.join([*WAVELENGTH_ORDER, ALPHA, *_SYNONYMS])}){_END}", re.IGNORECASE)
_SCL_CODE = re.compile(rf"{_START}SCL{_END}", re.IGNORECASE)
_S2_TOKEN = re.compile(rf"{_START}(?:S2([A-D])?|SENTINEL-?2([A-D])?){_END}", re.IGNORECASE)
_S2_TILE = re.compile(rf"{_START}T\d\d[A-Z]{{3}}{_END}")
_S2_LEVEL = re.compile(rf"{_START}(?:MSI)?(L1C|L2A){_END}")
_S2_BASELINE = re.compile(rf"{_START}N(\d\d)(\d\d){_END}")
_S2_PRODUCT_FOLDER = re.compile(r"S2[A-D]_MSIL(?:1C|2A)_")
_LANDSAT_TOKEN = re.compile(rf"{_START}L[COTE]0([4-9])(?:_(L[12][A-Z]{{2}}))?{_END}")
_LANDSAT_C2L2 = re.compile(rf"{_START}L[COTE]0[4-9]_L2S[PR]_\d{{6}}_\d{{8}}_\d{{8}}_02_")
_HLS_LANDSAT = re.compile(rf"{_START}HLS\.L30\.")
# GDAL cuts a tag's name at its colon, so that s2:processing_baseline=05.09 comes back as s2=...
_BASELINE_TAG = re.compile(r"(?:\w+[:=])?processing[_:=]baseline[:=]N?(\d\d?)\.?(\d\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Product:
    """What a name says about where an image comes from; empty where it says nothing."""

    family: str = ""
    """Which band codes hold: ``sentinel2``, ``landsat89``, ``landsat47``."""
    sensor: str = ""
    level: str = ""
    baseline: str = ""
    """Sentinel-2 processing baseline, as ``04.00``."""
    collection2_level2: bool = False
    """True for Landsat Collection 2 surface reflectance."""

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
    """True where STAC says that the mirror has removed the offset of baseline 04.00 from the numbers."""

    @property
    def name(self) -> str:
        """Name of the file, without its folders."""
        return _parts(self.path)[0]


def asset_of_path(path: str) -> Asset:
    """Read the names of a file and of its folders."""
    day, day_source = _day_of(path)
    return Asset(path, product_of(path), day, day_source)


def parse_day(value: object) -> dt.date:
    """Read the option ``date``: text, a date or datetime, or a datetime64."""
    text = str(value).strip()
    try:
        return dt.datetime.fromisoformat(text).date()
    except ValueError as error:
        raise InputError("date= is not a date", text, "write it as in date='2019-07-23'") from error


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
    return _SYNONYMS.get(name.lower(), name.lower())


def wavelength_rank(band: str) -> int:
    """Place of a band in order of wavelength; names that are not known come last."""
    return WAVELENGTH_ORDER.index(band) if band in WAVELENGTH_ORDER else len(WAVELENGTH_ORDER)


def product_of(path: str) -> Product:
    """Read sensor, level and baseline from a file's name, or from the Sentinel-2 product folder around it."""
    name, *folders = _parts(path)
    if _HLS_LANDSAT.search(name):
        return Product(_LANDSAT_8_9, "Landsat 8/9 (HLS)")
    around = next((folder for folder in folders if _S2_PRODUCT_FOLDER.match(folder)), "")
    is_tile = _S2_TILE.search(name) and (_BAND_CODE.search(name) or _SCL_CODE.search(name))
    if around or is_tile or _S2_TOKEN.search(name) or "MSIL1C" in name or "MSIL2A" in name:
        return _sentinel2(f"{name} {around}")
    landsat = _LANDSAT_TOKEN.search(name)
    return _landsat(name, int(landsat[1]), landsat[2] or "") if landsat else Product()


def level_of(text: str) -> str:
    """Read a Sentinel-2 processing level; empty where there is none."""
    level = _S2_LEVEL.search(text)
    return level[1] if level else ""


def baseline_of_tags(tags: Mapping[str, Any]) -> str:
    """Read the processing baseline from a file's tags or a STAC item's properties; empty where there is none."""
    for key, value in tags.items():
        match = _BASELINE_TAG.fullmatch(f"{key}={value}")
        if match:
            return f"{int(match[1]):02d}.{match[2]}"
    return ""


def _parts(path: str) -> list[str]:
    """Name of the file and of its folders, innermost first; of a URL without its query."""
    bare = path.split("?", maxsplit=1)[0] if "://" in path else path
    return [part for part in reversed(re.split(r"[/\\]", bare)) if part] or [path]


def _day_of(path: str) -> tuple[dt.date | None, str]:
    for name, where in zip(_parts(path)[:2], ("name", "folder's name"), strict=False):
        days = _days_in(name)
        if len(days) == 1:
            return days[0], f"the date in the {where} {name}"
        if days:
            listed = ", ".join(day.isoformat() for day in days)
            return days[0], f"first of {len(days)} dates in the {where} {name}: {listed}"
    return None, "none found"


def _days_in(text: str) -> list[dt.date]:
    found = []
    for year, _, month, day in _DATE.findall(text):
        try:
            found.append(dt.date(int(year), int(month), int(day)))
        except ValueError:
            continue
    return found


def _sentinel2(text: str) -> Product:
    token, baseline = _S2_TOKEN.search(text), _S2_BASELINE.search(text)
    letter = (token[1] or token[2] or "").upper() if token else ""
    number = f"{baseline[1]}.{baseline[2]}" if baseline else ""
    return Product(_SENTINEL2, f"Sentinel-2{letter}", level_of(text), number)


def _landsat(name: str, number: int, level: str) -> Product:
    family = _LANDSAT_8_9 if number >= 8 else _LANDSAT_4_7  # noqa: PLR2004
    return Product(family, f"Landsat {number}", level, collection2_level2=bool(_LANDSAT_C2L2.search(name)))
