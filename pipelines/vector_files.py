"""Polygons in files: any vector file, or the folder of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import pyogrio
import shapely

from lakescale.schema import InputError, LakescaleError
from lakescale.storage import fetched, locate
from lakescale.storage.remote import READ_ONLY
from pipelines.run_folder import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

_RUN_LAKES, _LAKES_LAYER = "lakes.parquet", "lakes"


def read_polygons(source: str | Path, *, layer: str | None = None, what: str = "lakes") -> gpd.GeoDataFrame:
    """Read the polygons of a vector file or of a run.

    Parameters
    ----------
    source
        A file that GDAL or pyarrow reads, or the folder of a run; or the URL of either.
    layer
        Layer to read, by default the only one, else ``lakes``, else the only one of polygons.
    what
        What it is, for messages: ``lakes``, ``reference``, ``regions``.

    Returns
    -------
    geopandas.GeoDataFrame
        All rows and columns, numbered from 0, without Z; the frame may be empty.

    Raises
    ------
    InputError
        When there is no such file or layer, or it cannot be read.
    """
    path, problem, mend = file_of(source, what), "", "give a vector file, or the folder of a run"
    if path.endswith(".parquet") and layer is not None:
        raise InputError("a GeoParquet file has no layers", path, f"leave out --{what}-layer")
    try:
        with fetched(path) as here:
            if path.endswith(".parquet"):
                frame = gpd.read_parquet(here)
            else:
                frame = gpd.read_file(here, layer=_layer_of(here, layer, what), engine="pyogrio")
    except LakescaleError:
        raise
    except shapely.errors.GEOSException as error:
        problem = f"it holds a ring that is none: {error}"
        mend = "write it anew from geopandas.read_file(..., on_invalid='fix'), which closes rings"
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, OSError) as error:
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
    if problem:
        raise InputError(f"the {what} cannot be read: {problem}", path, mend)
    if not isinstance(frame, gpd.GeoDataFrame) or frame.active_geometry_name is None:
        raise InputError(f"the {what} have no geometries", path, "give a layer of polygons")
    return frame.set_geometry(shapely.force_2d(frame.geometry.values), crs=frame.crs).reset_index(drop=True)


def file_of(source: str | Path, what: str) -> str:
    """Give what to open: the source itself, or the lakes of a run."""
    path = locate(source)
    if str(source).startswith("/vsi") or str(path).startswith(READ_ONLY):
        return str(source)
    if not path.exists():
        raise InputError(f"there is no such file for the {what}", str(source), "check the path")
    if (path / MANIFEST).is_file() and not (path / _RUN_LAKES).is_file():
        raise InputError("the run has no lakes", str(source), "finish it first: lakescale map")
    return str(path / _RUN_LAKES if (path / _RUN_LAKES).is_file() else path)


def _layer_of(path: str, asked: str | None, what: str) -> str:
    """Choose a layer: the one asked for, the only one, `lakes`, the only one of polygons."""
    layers = {str(name): str(kind) for name, kind in pyogrio.list_layers(path)}
    listed = ", ".join(layers)
    if asked is not None:
        if asked not in layers:
            raise InputError(f"there is no layer {asked!r}, only {listed}", path, f"give another --{what}-layer")
        return asked
    polygonal = [name for name, kind in layers.items() if "Polygon" in kind]
    for candidates in (list(layers), [name for name in layers if name == _LAKES_LAYER], polygonal):
        if len(candidates) == 1:
            return candidates[0]
    what_is = f"the {what} are one of {len(layers)} layers: {listed}" if layers else f"the {what} have no layers"
    raise InputError(what_is, path, f"choose one with --{what}-layer" if layers else "give a vector file")
