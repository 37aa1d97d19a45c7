"""STAC items, as the assets that hold bands (extensions eo, raster and processing; STAC 1.0 and 1.1)."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from lakescale.scene.names import (
    WAVELENGTH_ORDER,
    Asset,
    Product,
    band_of,
    baseline_of_tags,
    canonical_band,
    level_of,
    product_of,
)
from lakescale.schema import InputError, LakescaleError
from lakescale.storage import is_url, locate

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROLES_WITHOUT_BANDS = {"thumbnail", "overview", "metadata"}


def read_stac(source: object) -> list[Asset]:
    """Turn a STAC item (a dict, an object with ``to_dict``, or a path to its JSON) into the assets that hold bands.

    Single-band assets win over composites of several bands; of two assets for one band (a COG and a JP2) the one
    that is not JP2 wins, then the first.
    """
    item, base = _item_and_base(source)
    common = _read_common(item)
    said = sorted(item["assets"].items(), key=lambda pair: "jp2" in str(pair[1].get("type", "")))
    found = [asset for key, one in said if (asset := _read_asset(key, one, common, base)) is not None]
    if not found:
        raise InputError(
            "a STAC item without an asset that names its bands",
            str(item.get("id", base)),
            "pass the paths of the files instead, for example open_scene([path, path])",
        )
    first: dict[str, Asset] = {}
    for asset in found:
        if len(asset.bands) == 1:
            first.setdefault(asset.bands[0], asset)
    return list(first.values()) or found


def _item_and_base(source: object) -> tuple[Mapping[str, Any], str]:
    """Load an item, and the path or URL that its relative links start from."""
    item: Any
    if isinstance(source, (str, Path)):
        place = locate(source)
        base = str(place.resolve())
        try:
            item = json.loads(place.read_text(encoding="utf-8"))
        except LakescaleError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"cannot be read as a STAC item: {error}", str(source), "check the path") from error
    else:
        item = source if isinstance(source, dict) else source.to_dict()  # type: ignore[attr-defined]
        base = next((link["href"] for link in item.get("links") or [] if link.get("rel") == "self"), "")
    if not isinstance(item, dict) or not isinstance(item.get("assets"), dict):
        raise InputError(
            "is not a STAC item (it has no assets)", base, "pass one item, not a collection or a search's answer"
        )
    return item, base


def _read_common(item: Mapping[str, Any]) -> Asset:
    """Read what holds for all assets of an item."""
    properties = item.get("properties") or {}
    day, day_source = _read_day(item, properties)
    removed = any(properties.get(f"{who}:boa_offset_applied") is True for who in ("earthsearch", "sentinel"))
    return Asset("", _read_product(item, properties), day, day_source, offset_removed=removed)


def _read_product(item: Mapping[str, Any], properties: Mapping[str, Any]) -> Product:
    platform = str(properties.get("platform") or properties.get("constellation") or "")
    name, collection = str(item.get("id", "")), str(item.get("collection", ""))
    product = product_of(name)
    product = product if product.family else product_of(platform)
    return replace(
        product,
        level=product.level or level_of(f"{name} {collection.upper()}"),
        baseline=baseline_of_tags(properties) or product.baseline,
    )


def _read_day(item: Mapping[str, Any], properties: Mapping[str, Any]) -> tuple[dt.date | None, str]:
    text = properties.get("datetime") or properties.get("start_datetime")
    if not text:
        return None, "none found"
    try:
        moment = dt.datetime.fromisoformat(str(text))
    except ValueError as error:
        raise InputError(f"the STAC item's datetime is not a date: {text}", str(item.get("id", ""))) from error
    day = (moment.astimezone(dt.UTC) if moment.tzinfo else moment).date()
    return day, f"the STAC item's datetime {text}"


def _read_asset(key: str, said: Mapping[str, Any], common: Asset, base: str) -> Asset | None:
    """Read one asset; None where it holds no bands, or bands without a name."""
    listed = said.get("eo:bands") or said.get("bands") or [{}]
    bands = tuple(_band_name(band, key if len(listed) == 1 else "", common.product.family) for band in listed)
    if not all(bands) or _ROLES_WITHOUT_BANDS & set(said.get("roles") or ()):
        return None
    raster: dict[str, Any] = next(iter(said.get("raster:bands") or []), {})
    numbers = {**said, **listed[0], **{f"raster:{name}": value for name, value in raster.items()}}
    scale, offset = numbers.get("raster:scale"), numbers.get("raster:offset")
    nodata = numbers.get("raster:nodata", numbers.get("nodata"))
    return replace(
        common,
        path=_absolute(str(said["href"]), base),
        bands=bands,
        scale_offset=None if scale is None and offset is None else (float(scale or 1), float(offset or 0)),
        nodata=None if nodata is None else float(nodata),
    )


def _band_name(band: Mapping[str, Any], key: str, family: str) -> str:
    """Name a band, by its code first, since ``rededge`` is the common name of three bands."""
    common = canonical_band(str(band.get("common_name") or band.get("eo:common_name") or ""))
    candidates = (band_of(str(band.get("name", "")), family), band_of(key, family), common)
    return next((name for name in candidates if name in WAVELENGTH_ORDER), "")


def _absolute(href: str, base: str) -> str:
    if is_url(href) or href.startswith("/") or not base:
        return href
    if not is_url(base):
        return str(Path(base).parent / href)
    scheme, _, rest = base.partition("://")
    return urljoin(f"http://{rest}", href).replace("http", scheme, 1)  # urljoin knows no s3
