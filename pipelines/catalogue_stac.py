"""A season as a STAC collection, with an item for each product."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

import geopandas as gpd
import pandas as pd
import pystac
import shapely
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.table import Column, TableExtension

from lakescale.schema import LAKE_TIME
from pipelines.catalogue_columns import LAKES
from pipelines.catalogue_places import gis_crs

if TYPE_CHECKING:
    from pathlib import Path

    from pyproj import CRS

    from lakescale.grid import Grid
    from pipelines.catalogue_places import Footprint
    from pipelines.catalogue_tables import Tables

STAC = "stac"
_PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
_SHA2_256 = "1220"
"""Multihash: the function's code and 32 bytes."""
_MEDIA_TYPES = {
    ".parquet": "application/vnd.apache.parquet", ".gpkg": pystac.MediaType.GEOPACKAGE, ".csv": "text/csv",
    ".nc": pystac.MediaType.NETCDF, ".zarr": "application/vnd.zarr",
}  # fmt: skip
_MAKERS = {
    "Copernicus": ("European Union, Copernicus", "https://www.copernicus.eu"),
    "Landsat": ("U.S. Geological Survey", "https://www.usgs.gov"),
    "Polar Geospatial Center": ("Polar Geospatial Center", "https://www.pgc.umn.edu"),
}
"""Provider, by a word in the credits."""


class Product(NamedTuple):
    """A product of the season."""

    name: str
    files: list[Path]


class _Season(NamedTuple):
    """What all items share."""

    name: str
    """Of the collection; the start of each item's name."""
    root: Path
    """Folder of the products; assets are told relative to it."""
    place: Footprint
    grid: Grid
    about: dict[str, Any]


def write_stac(
    tables: Tables,
    parts: dict[str, Path],
    products: list[Product],
    grid: Grid,
    place: Footprint,
    about: dict[str, Any],
    folder: Path,
) -> None:
    """Write ``stac/collection.json`` and the items, with relative links only.

    Parameters
    ----------
    tables
        Of the catalogue.
    parts
        GeoParquet file of each day.
    products
        Those of all dates.
    grid, place
        Where the maps lie: a lake that is not there was looked for there.
    about
        Provenance.
    folder
        Where the products are.
    """
    season = _Season(_slug(about["title"]), folder, place, grid, about)
    totals = tables.totals
    collection = _collect(season, totals)
    days = totals[LAKE_TIME].dt.strftime("%Y-%m-%d")
    for day, path in parts.items():
        collection.add_item(_describe_part(season, totals[days == day], day, path))
    for product in products:
        collection.add_item(_describe_product(season, totals, product))
    collection.normalize_hrefs(str(folder / STAC))
    collection.save(pystac.CatalogType.SELF_CONTAINED)


def _slug(title: str) -> str:
    """Write a title in letters that any file system and URL takes."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60] or "season"


def _collect(season: _Season, totals: pd.DataFrame) -> pystac.Collection:
    about = season.about
    credit = " ".join(about["credits"])
    start, end = _span(totals)
    providers = [
        pystac.Provider(name, roles=[pystac.ProviderRole.PRODUCER], url=url)
        for word, (name, url) in _MAKERS.items()
        if word in credit
    ]
    if about["creator"]:
        providers.append(pystac.Provider(about["creator"], roles=[pystac.ProviderRole.PROCESSOR]))
    collection = pystac.Collection(
        id=season.name,
        title=about["title"],
        description=f"{about['title']}: supraglacial lakes by date, with their fates. {credit}".strip(),
        extent=pystac.Extent(pystac.SpatialExtent([list(season.place.bbox)]), pystac.TemporalExtent([[start, end]])),
        license=about["license"],
        keywords=["supraglacial lakes", "ice sheet", "lakescale"],
        providers=providers or None,
        catalog_type=pystac.CatalogType.SELF_CONTAINED,
    )
    collection.extra_fields |= _tell(about)
    collection.summaries.add("lakescale:lakes", pystac.RangeSummary(int(totals.lakes.min()), int(totals.lakes.max())))
    return collection


def _tell(about: dict[str, Any]) -> dict[str, Any]:
    """Tell what collection and items share."""
    names = ("catalogue_id", "recipe_hash", "inputs", "credits", "position_error_m")
    return {"lakescale:version": about["software"]["lakescale"]} | {f"lakescale:{name}": about[name] for name in names}


def _describe_part(season: _Season, totals: pd.DataFrame, day: str, path: Path) -> pystac.Item:
    """Describe the lakes of one day."""
    item = _item(season, totals, f"lakes-{day}", f"{season.about['title']}, lakes of {day}")
    _project(item, season.grid.crs, season.grid.bounds_xyxy)
    table = TableExtension.ext(item, add_if_missing=True)
    table.row_count = int(totals.lakes.sum())
    table.primary_geometry = "geometry"
    described = [{"name": c.name, "description": c.meaning, "type": c.kind} for c in LAKES]
    described.append({"name": "geometry", "description": "outline of the lake", "type": "geometry"})
    table.columns = [Column(column) for column in described]
    images = [season.about["images"].get(pd.Timestamp(time).isoformat()) for time in totals[LAKE_TIME]]
    item.properties["lakescale:scene_ids"] = [scene for told in images if told for scene in told["scene_ids"]]
    _add_asset(season, item, "lakes", path)
    return item


def _describe_product(season: _Season, totals: pd.DataFrame, product: Product) -> pystac.Item:
    item = _item(season, totals, product.name, f"{season.about['title']}, {product.name}")
    if product.name == "geopackage":
        crs = gis_crs(season.grid)
        outline = gpd.GeoSeries([shapely.box(*season.grid.bounds_xyxy)], crs=season.grid.crs)
        _project(item, crs, outline.segmentize(season.grid.pixel_size_m * 64).to_crs(crs).total_bounds)
    for path in product.files:
        _add_asset(season, item, path.stem if len(product.files) > 1 else "data", path)
    return item


def _item(season: _Season, totals: pd.DataFrame, name: str, title: str) -> pystac.Item:
    start, end = _span(totals)
    at = pd.Timestamp(totals[LAKE_TIME].iloc[0]).tz_localize("UTC").to_pydatetime() if len(totals) == 1 else None
    item = pystac.Item(
        id=f"{season.name}-{name}",
        geometry=shapely.geometry.mapping(season.place.geometry),
        bbox=list(season.place.bbox),
        datetime=at,
        start_datetime=start,
        end_datetime=end,
        properties={"title": title, "created": season.about["created"], **_tell(season.about)},
    )
    item.properties["processing:software"] = season.about["software"]
    item.stac_extensions.append(_PROCESSING)
    return item


def _span(totals: pd.DataFrame) -> tuple[Any, Any]:
    ends = totals["time_start"].min(), totals["time_end"].max()
    start, end = (pd.Timestamp(time).tz_localize("UTC").to_pydatetime() for time in ends)
    return start, end


def _project(item: pystac.Item, crs: CRS, bounds_xyxy: Any) -> None:
    projection = ProjectionExtension.ext(item, add_if_missing=True)
    authority = crs.to_authority()
    if authority is None:
        projection.wkt2 = crs.to_wkt()
    else:
        projection.code = ":".join(authority)
    projection.bbox = [float(bound) for bound in bounds_xyxy]


def _add_asset(season: _Season, item: pystac.Item, key: str, path: Path) -> None:
    """Add a file, with its size and checksum, or a folder."""
    # items lie two folders below the products
    href = os.path.join("..", "..", path.relative_to(season.root).as_posix())  # noqa: PTH118  (a link, no path)
    asset = pystac.Asset(href, title=path.name, media_type=_MEDIA_TYPES[path.suffix], roles=["data"])
    item.add_asset(key, asset)
    if path.is_file():
        with path.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        file = FileExtension.ext(asset, add_if_missing=True)
        file.size, file.checksum = path.stat().st_size, f"{_SHA2_256}{digest}"
