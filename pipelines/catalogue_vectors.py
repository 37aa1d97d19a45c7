"""A catalogue's tables as GeoParquet by date, as one GeoPackage, and as CSV."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq

from lakescale.schema import LAKE_TIME

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd
    from pyproj import CRS

    from pipelines.catalogue_tables import Tables

PARTS, GEOPACKAGE = "lakes", "catalogue.gpkg"
_META = b"lakescale"
_LAYERS = {"lakes": "MultiPolygon", "seasons": "MultiPolygon", "events": "Point"}


def write_parts(tables: Tables, folder: Path, about: dict[str, Any]) -> dict[str, Path]:
    """Write the lakes, a GeoParquet file a day, those without lakes too; all have one schema.

    Returns
    -------
    dict
        File by day, such as ``2019-07-01``.
    """
    days = pd.Series(tables.totals[LAKE_TIME]).dt.strftime("%Y-%m-%d").unique()
    of_lake = tables.lakes[LAKE_TIME].dt.strftime("%Y-%m-%d")
    parts = {}
    for day in days:
        parts[day] = folder / PARTS / f"date={day}" / "part-0.parquet"
        parts[day].parent.mkdir(parents=True)
        _write_part(tables.lakes[of_lake == day], parts[day], about)
    return parts


def _write_part(lakes: gpd.GeoDataFrame, path: Path, about: dict[str, Any]) -> None:
    memory = io.BytesIO()
    lakes.to_parquet(memory, index=False)
    table = pq.read_table(memory)
    meta = {**table.schema.metadata, _META: json.dumps(about).encode()}
    pq.write_table(table.replace_schema_metadata(meta), path, compression="snappy")


def write_geopackage(tables: Tables, path: Path, crs: CRS, about: dict[str, Any]) -> None:
    """Write the layers ``lakes``, ``seasons`` and ``events`` in a CRS."""
    for layer, kind in _LAYERS.items():
        frame: gpd.GeoDataFrame = getattr(tables, layer)
        # GeoPackage knows times in UTC only
        in_utc = {name: frame[name].dt.tz_localize("UTC") for name in frame.select_dtypes("datetime64").columns}
        frame.assign(**in_utc).to_crs(crs).to_file(
            path,
            layer=layer,
            driver="GPKG",
            engine="pyogrio",
            geometry_type=kind,
            promote_to_multi=kind.startswith("Multi"),
            layer_metadata={"lakescale": json.dumps(about)},
        )


def write_tables(tables: Tables, folder: Path) -> list[Path]:
    """Write each table as CSV, without outlines."""
    paths = []
    for name, frame in tables._asdict().items():
        paths.append(folder / f"{name}.csv")
        table = pd.DataFrame(frame).drop(columns="geometry", errors="ignore")
        table.to_csv(paths[-1], index=False, encoding="utf-8")
    return paths
