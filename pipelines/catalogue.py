"""The outputs of a season: lakes, states, seasons and totals as GeoParquet, GeoPackage, CSV, NetCDF, Zarr and STAC."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale.schema import InputError
from pipelines.catalogue_files import staged
from pipelines.catalogue_netcdf import NETCDF, ZARR, build_dataset, write_netcdf, write_zarr
from pipelines.catalogue_places import footprint, gis_crs
from pipelines.catalogue_provenance import Images, Provenance, describe
from pipelines.catalogue_stac import STAC, Product, write_stac
from pipelines.catalogue_tables import Tables, build_tables
from pipelines.catalogue_vectors import GEOPACKAGE, PARTS, write_geopackage, write_parts, write_tables

if TYPE_CHECKING:
    import pandas as pd

    from lakescale.grid import Grid
    from lakescale.series import Tracks

__all__ = ["PROVENANCE", "Images", "Provenance", "write_catalogue"]

_LOG = logging.getLogger(f"lakescale.{__name__}")

PROVENANCE = "provenance.json"
POSITION_ERROR_M = 10.0
"""A pixel of Sentinel-2's visible bands."""


def write_catalogue(
    tracks: Tracks,
    folder: str | Path,
    *,
    grid: Grid,
    title: str,
    provenance: Provenance,
    volumes: pd.DataFrame | None = None,
    position_error_m: float = POSITION_ERROR_M,
) -> list[Path]:
    """Write all products of a season to a folder.

    Written are ``lakes/date=YYYY-MM-DD/part-0.parquet`` (GeoParquet, CRS of the grid), ``catalogue.gpkg`` (EPSG:3413
    where the grid's centre lies in or near Greenland, else CRS of the grid), ``lakes.csv`` and five other tables,
    ``catalogue.nc``, ``catalogue.zarr``, ``stac/collection.json`` with items, and ``provenance.json``. Their columns
    stand in ``docs/data_dictionary.md``. All is written aside first; then each product takes the place of the earlier
    one. A write that fails leaves the earlier products as they were.

    Parameters
    ----------
    tracks
        The season, or several.
    folder
        Where to; other files in it stay.
    grid
        Grid of the maps, in the CRS of the lakes.
    title
        Title of the catalogue.
    provenance
        What it was made from; its ``images`` name dates from before the first lake too.
    volumes
        One row a lake: ``time``, ``lake_id``, and columns of `pipelines.catalogue_columns.VOLUMES`, as `lake_volumes`
        and `water_depth` give them; other columns are left out. None: those that the tracked lakes came with.
    position_error_m
        Standard deviation of the position of outlines, m, by which areas get theirs.

    Returns
    -------
    list of Path
        The products: files, and the folders ``lakes``, ``catalogue.zarr`` and ``stac``.

    Raises
    ------
    InputError
        Tracks in another CRS than the grid, or in two; no dates; a title without a word; an error of position that is
        none; volumes that do not fit the lakes; a folder that is none, or holds something else under a product's name.
    RunError
        When the disk refuses, or another process writes there.
    """
    folder = Path(folder)
    crs = _check(tracks, grid, title, position_error_m)
    _refuse_others_work(folder)
    tables = build_tables(tracks, crs, provenance, volumes, position_error_m)
    about = describe(provenance, title.strip(), position_error_m, tracks.rules, tracks.notes)
    about |= {"crs": crs.to_string(), "gis_crs": gis_crs(grid).to_string()}
    with staged(folder, first=PROVENANCE) as staging:
        _write(tables, tracks, grid, about, staging)
        names = sorted(product.name for product in staging.iterdir())
    _LOG.info("catalogue of %d lakes on %d dates in %s", len(tables.lakes), len(tables.totals), folder)
    return [folder / name for name in names]


def _write(tables: Tables, tracks: Tracks, grid: Grid, about: dict[str, Any], folder: Path) -> None:
    """Write all products."""
    place = footprint(grid)
    parts = write_parts(tables, folder, about)
    write_geopackage(tables, folder / GEOPACKAGE, gis_crs(grid), about)
    csv = write_tables(tables, folder)
    dataset = build_dataset(tables, tracks, grid.crs, place, about)
    write_netcdf(dataset, folder / NETCDF)
    write_zarr(dataset, folder / ZARR)
    products = [Product("geopackage", [folder / GEOPACKAGE]), Product("tables", csv)]
    products += [Product("netcdf", [folder / NETCDF]), Product("zarr", [folder / ZARR])]
    write_stac(tables, parts, products, grid, place, about, folder)
    (folder / PROVENANCE).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check(tracks: Tracks, grid: Grid, title: str, position_error_m: float) -> Any:
    """Check what needs no look at rows, and give the CRS."""
    if not title.strip():
        raise InputError("a catalogue without a title", "title", "give it one, such as 'Lakes of 22WEV, 2019'")
    if not 0 < position_error_m < np.inf:
        raise InputError(f"an error of position that is none: {position_error_m}", "position_error_m", "give metres")
    for name in ("lakes", "summary", "basins"):
        frame = getattr(tracks, name)
        if len(frame) and (frame.crs is None or frame.crs != grid.crs):
            found = frame.crs.to_string()[:40] if frame.crs is not None else "none"
            what = f"the tracks' {name} have another CRS than the grid: {found}, not {grid.crs.to_string()[:40]}"
            raise InputError(what, "tracks", "track the lakes in the CRS of the grid, or give their grid")
    return grid.crs


def _refuse_others_work(folder: Path) -> None:
    """Refuse what is no folder, and a folder in which something else has the name of a product."""
    if folder.exists() and not folder.is_dir():
        raise InputError("the output is a file, not a folder", str(folder), "give another folder")
    names = (PARTS, GEOPACKAGE, NETCDF, ZARR, STAC, *(f"{name}.csv" for name in Tables._fields))
    taken = [name for name in names if (folder / name).exists()]
    if taken and not _is_ours(folder / PROVENANCE):
        raise InputError(f"the folder holds {taken[0]}, which is of no catalogue", str(folder), "give another folder")


def _is_ours(path: Path) -> bool:
    try:
        return "catalogue_id" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
