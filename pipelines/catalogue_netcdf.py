"""A catalogue's states by lake and date as NetCDF and Zarr, by the conventions CF and ACDD."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyproj
import shapely
import xarray as xr

from lakescale.schema import AREA_M2, LAKE_TIME
from lakescale.series.rules import STATE, TRACK_ID
from pipelines.catalogue_columns import DAILY, STATES, SUMMED_VOLUMES
from pipelines.catalogue_places import points_in, to_lonlat

if TYPE_CHECKING:
    from pathlib import Path

    from lakescale.series import Tracks
    from pipelines.catalogue_places import Footprint
    from pipelines.catalogue_tables import Tables

NETCDF, ZARR = "catalogue.nc", "catalogue.zarr"
LAKE, TIME, _BOUNDS = "lake", "time", "time_bnds"
_SERIES = (AREA_M2, "area_sd_m2", "basin_seen_share", "basin_lid_share", "least_water", "most_water", *SUMMED_VOLUMES)
_KINDS = {"area_sd_m2": "qualityInformation", **dict.fromkeys((AREA_M2, *SUMMED_VOLUMES), "physicalMeasurement")}
"""Kinds of content, by ACDD; of others it is auxiliaryInformation."""
_NO_STATE = -1
_STANDARD_NAMES = {"lon": "longitude", "lat": "latitude"}
_TIME_ENCODING = {"units": "seconds since 1970-01-01", "calendar": "standard", "dtype": "float64"}


def build_dataset(tables: Tables, tracks: Tracks, crs: Any, place: Footprint, about: dict[str, Any]) -> xr.Dataset:
    """Lay the states out by lake and time: CF's orthogonal array of time series, at a point in each lake's basin."""
    lake = np.sort(tracks.basins[TRACK_ID].to_numpy(np.int64))
    time = tables.totals[LAKE_TIME].to_numpy()
    rows, cols = np.searchsorted(lake, tables.states[TRACK_ID]), np.searchsorted(time, tables.states[LAKE_TIME])
    described = {column.name: column for column in DAILY}
    data: dict[str, Any] = {}
    for name in _SERIES:
        values = np.full((len(lake), len(time)), np.nan)
        values[rows, cols] = tables.states[name]
        data[name] = ((LAKE, TIME), values, _describe(described[name].meaning, described[name].unit))
        data[name][2]["coverage_content_type"] = _KINDS.get(name, "auxiliaryInformation")
    state = np.full((len(lake), len(time)), _NO_STATE, np.int8)
    state[rows, cols] = tables.states[STATE].map({name: number for number, name in enumerate(STATES)})
    data[STATE] = ((LAKE, TIME), state, _flags("state of the lake"))
    data[_BOUNDS] = ((TIME, "nv"), tables.totals[["time_start", "time_end"]].to_numpy())
    data["crs"] = ((), np.int32(0), pyproj.CRS(4326).to_cf())
    dataset = xr.Dataset(data, coords=_coords(tracks, lake, time, crs), attrs=_attributes(tables, place, about))
    return _encode(dataset)


def _describe(meaning: str, unit: str, name: str = "") -> dict[str, str]:
    standard = {"standard_name": _STANDARD_NAMES[name]} if name in _STANDARD_NAMES else {}
    return {"long_name": meaning, "units": unit, **standard}


def _flags(meaning: str) -> dict[str, Any]:
    words = " ".join(name.replace(" ", "_") for name in STATES)
    values = np.arange(len(STATES), dtype=np.int8)
    kind = {"coverage_content_type": "thematicClassification"}
    return {"long_name": meaning, "flag_values": values, "flag_meanings": words, **kind}


def _coords(tracks: Tracks, lake: Any, time: Any, crs: Any) -> dict[str, Any]:
    points = points_in(tracks.basins.sort_values(TRACK_ID).geometry.to_numpy())
    lon, lat = to_lonlat(shapely.get_coordinates(points), crs)
    return {
        # CF before 1.9 has no integers of 64 bits
        LAKE: (LAKE, lake.astype(np.int32), {"long_name": "track_id of the lake", "cf_role": "timeseries_id"}),
        TIME: (TIME, time, {"standard_name": "time", "long_name": "date of the map", "axis": "T", "bounds": _BOUNDS}),
        "lon": (LAKE, lon, _describe("longitude of a point in the lake's basin", "degrees_east", "lon")),
        "lat": (LAKE, lat, _describe("latitude of a point in the lake's basin", "degrees_north", "lat")),
    }


def _attributes(tables: Tables, place: Footprint, about: dict[str, Any]) -> dict[str, Any]:
    """Give the attributes of ACDD 1.3."""
    west, south, east, north = place.bbox
    start, end = pd.Timestamp(tables.totals.time_start.min()), pd.Timestamp(tables.totals.time_end.max())
    sources = sorted({image["sensor"] for image in about["images"].values() if image["sensor"]})
    told = {
        "Conventions": "CF-1.8, ACDD-1.3",
        "featureType": "timeSeries",
        "cdm_data_type": "Station",
        "title": about["title"],
        "summary": "Supraglacial lakes by date: true area, state, and share of their basins that was seen. "
        "A lake that was not seen has no area; that is not the same as no lake.",
        "keywords": "supraglacial lakes, ice sheets, remote sensing",
        "id": about["catalogue_id"],
        "source": "; ".join(sources),
        "history": f"{about['created']}: lakescale {about['software']['lakescale']}, recipe {about['recipe_hash']}",
        "acknowledgement": " ".join(about["credits"]),
        "creator_name": about["creator"],
        "license": about["license"],
        "date_created": about["created"],
        "product_version": about["software"]["lakescale"],
        "time_coverage_start": start.isoformat(),
        "time_coverage_end": end.isoformat(),
        "time_coverage_duration": (end - start).isoformat(),
        "standard_name_vocabulary": "CF Standard Name Table v93",
        "geospatial_lon_min": west,
        "geospatial_lat_min": south,
        "geospatial_lon_max": east,
        "geospatial_lat_max": north,
        "geospatial_bounds": place.geometry.wkt,
        "geospatial_bounds_crs": "EPSG:4326",
        "position_error_m": about["position_error_m"],
        "lakescale_provenance": json.dumps(about),
    }
    return {name: value for name, value in told.items() if value != ""}


def _encode(dataset: xr.Dataset) -> xr.Dataset:
    for name in _SERIES:
        dataset[name].attrs["grid_mapping"] = "crs"
        dataset[name].encoding["_FillValue"] = np.nan
    dataset[AREA_M2].attrs["ancillary_variables"] = f"area_sd_m2 {STATE}"
    dataset[STATE].encoding["_FillValue"] = np.int8(_NO_STATE)
    for name in ("lon", "lat"):
        dataset[name].encoding["_FillValue"] = None  # CF: coordinates have no missing values
    for name in (TIME, _BOUNDS):
        dataset[name].encoding |= _TIME_ENCODING | {"_FillValue": None}
    return dataset


def write_netcdf(dataset: xr.Dataset, path: Path) -> None:
    """Write as NetCDF-4, compressed."""
    series = [dataset[name] for name in (*_SERIES, STATE) if dataset[name].size]
    packed = {str(one.name): {**one.encoding, "zlib": True, "complevel": 4} for one in series}
    dataset.to_netcdf(path, engine="h5netcdf", encoding=packed)


def write_zarr(dataset: xr.Dataset, path: Path) -> None:
    """Write as Zarr v3."""
    dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=False)
