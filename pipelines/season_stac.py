"""Scenes of a season by a search in a STAC API or a static catalogue: its items, as files that `open_scene` reads."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import geopandas as gpd
import platformdirs
import shapely

from lakescale.models.fetching import CACHE
from lakescale.schema import InputError
from lakescale.storage import bare_url, fetched, locate
from pipelines.run_folder import publish

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pystac

    from pipelines.season_sections import StacRecipe

_LOG = logging.getLogger(f"lakescale.{__name__}")

_COMPARE: dict[str, Any] = {
    "eq": lambda value, than: value == than,
    "neq": lambda value, than: value != than,
    "lt": lambda value, than: value is not None and value < than,
    "lte": lambda value, than: value is not None and value <= than,
    "gt": lambda value, than: value is not None and value > than,
    "gte": lambda value, than: value is not None and value >= than,
    "in": lambda value, than: value in than,
}
"""Of a query, as STAC's query extension names them."""
_WORLD = 4326
_STRANGE = re.compile(r"[^\w.-]")
"""What a name of a file does not need, such as what would lead out of its folder."""


def find_items(asked: StacRecipe, aoi: str | None) -> list[str]:
    """Search, and keep each item as a file of the user's cache.

    Parameters
    ----------
    asked
        Where to search, and what for.
    aoi
        File of the area of interest, whose bounds are searched where no ``bbox`` is given.

    Returns
    -------
    list of str
        Paths of the items' JSON, in the order of their ids. Links to assets are absolute. A path changes with the
        item, but not with the query part of its links, where signatures lie.

    Raises
    ------
    InputError
        Where pystac-client is not installed, the catalogue cannot be read, or nothing is found.
    """
    if find_spec("pystac_client") is None:
        mend = "pip install 'lakescale[stac]'"
        raise InputError("searching STAC needs pystac-client, which is not installed", asked.url, mend)
    bbox, problem = asked.bbox or _bounds_of(aoi), ""
    try:
        items = sorted(_search(asked, bbox), key=lambda item: (str(item.collection_id), item.id))
    except Exception as error:  # noqa: BLE001  (servers, requests and pystac have errors of their own)
        problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    where = bare_url(asked.url) if "://" in asked.url else asked.url
    if problem:
        raise InputError(f"the STAC search failed: {problem}", where, "check the URL, or the path of the catalogue")
    if not items:
        raise InputError("the STAC search found nothing", f"{where}: {_describe(asked, bbox)}", "widen it")
    _LOG.info("%d STAC items found in %s", len(items), where)
    return [str(_keep(item)) for item in items]


def digest_of_item(path: Path) -> str:
    """Sum up an item's JSON without the query parts of its links, which may be signed anew for each search."""
    return _digest(json.loads(path.read_text(encoding="utf-8")))


def _search(asked: StacRecipe, bbox: list[float] | None) -> Iterable[pystac.Item]:
    from pystac_client import Client  # noqa: PLC0415  (an extra)
    from pystac_client.warnings import PystacClientWarning  # noqa: PLC0415

    options = {"collections": asked.collections, "datetime": asked.datetime, "query": asked.query, "bbox": bbox}
    told = {name: value for name, value in options.items() if value}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PystacClientWarning)  # a static catalogue is no server
        client = Client.open(asked.url)
        if client.get_search_link() is not None:
            return list(client.search(**told, max_items=asked.max_items).items())
        found = [item for item in client.get_items(recursive=True) if _is_meant(item, asked, bbox)]
        return found[: asked.max_items]


def _is_meant(item: pystac.Item, asked: StacRecipe, bbox: list[float] | None) -> bool:
    """Search a static catalogue as an API would."""
    if asked.collections and item.collection_id not in asked.collections:
        return False
    if bbox and item.geometry and not shapely.box(*bbox).intersects(shapely.geometry.shape(item.geometry)):
        return False
    if asked.datetime and not _is_within(item, asked.datetime):
        return False
    return all(
        _COMPARE[how](item.properties.get(name), than) for name, one in asked.query.items() for how, than in one.items()
    )


def _is_within(item: pystac.Item, span: str) -> bool:
    """Tell whether an item's time lies in ``2019-06-01/2019-08-31``, days included; ``..`` is open."""
    start, _, end = span.partition("/")
    day = str(item.properties.get("datetime") or item.properties.get("start_datetime") or "")[:10]
    if not day:
        return False
    first, last = start.strip("."), (end if "/" in span else start).strip(".")
    return (not first or day >= first[:10]) and (not last or day <= last[:10])


def _bounds_of(aoi: str | None) -> list[float] | None:
    if aoi is None or not locate(aoi).exists():
        return None
    with fetched(aoi) as path:
        return [float(value) for value in gpd.read_file(path).to_crs(_WORLD).total_bounds]


def _keep(item: pystac.Item) -> Path:
    """Write an item to the user's cache, its links absolute, under a name that tells what it is made of."""
    item.make_asset_hrefs_absolute()
    told = item.to_dict(transform_hrefs=False)
    told["links"] = [link for link in told.get("links", []) if link.get("rel") == "self"]
    home = Path(os.environ[CACHE]) if CACHE in os.environ else Path(platformdirs.user_cache_dir("lakescale"))
    path = home / "stac" / _digest(told) / f"{_STRANGE.sub('_', item.id)}.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # links may be signed: they are this user's alone
    publish(path, lambda file: file.write_text(json.dumps(told), encoding="utf-8"))
    return path


def _digest(told: dict[str, Any]) -> str:
    assets = {name: one | {"href": _unsigned(str(one["href"]))} for name, one in told["assets"].items()}
    about = [told.get("id"), told.get("collection"), told.get("properties"), assets]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _unsigned(href: str) -> str:
    return urlunsplit(urlsplit(href)._replace(query="", fragment="")) if "://" in href else href


def _describe(asked: StacRecipe, bbox: list[float] | None) -> str:
    told = {"collections": asked.collections, "datetime": asked.datetime, "query": asked.query, "bbox": bbox}
    return ", ".join(f"{name} {value}" for name, value in told.items() if value) or "everything"
