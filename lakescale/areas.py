"""Areas drawn as vectors: ice outlines, areas of interest, excludes; read in any CRS, checked, brought to a grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
import xarray as xr

from lakescale.schema import InputError, LakescaleError, X, Y
from lakescale.storage import fetched, is_url

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.chunks import Chunks
    from lakescale.grid import Grid

_LONGEST_EDGE = {True: 2_000.0, False: 0.02}
"""Longest straight edge that is taken to another CRS in one piece: metres, or degrees."""
_POINTWISE_PX = 64


def read_areas(
    source: str | Path, grid: Grid, *, what: str, may_miss: bool = False, column: str | None = None
) -> gpd.GeoDataFrame:
    """Read polygons from a vector file and bring them to a grid's CRS, cut to the grid's bounds.

    Parameters
    ----------
    source
        Anything that GDAL reads as vectors (GeoPackage, Shapefile, GeoJSON, ...), in any CRS; of a URL a copy is read.
    grid
        The grid they are meant for.
    what
        What the polygons are, for messages: "ice outline", ...
    may_miss
        Whether polygons that all lie elsewhere are an empty frame instead of an error.
    column
        A column to keep, such as names; None for none, empty for the first one of text.

    Returns
    -------
    geopandas.GeoDataFrame
        Polygons in the grid's CRS, ``geometry`` and the column asked for; edges longer than 2 km are cut before they
        are transformed.

    Raises
    ------
    InputError
        When the file is missing or unreadable, has no CRS, no polygons or no such column, holds invalid ones, or misses
        the grid.
    """
    frame = _read(source, what)
    _refuse_unusable(frame, str(source), what)
    near = _near(frame, grid)
    fine = shapely.segmentize(near, _LONGEST_EDGE[frame.crs.is_projected])
    moved = shapely.make_valid(gpd.GeoSeries(fine, crs=frame.crs).to_crs(grid.crs).values)
    inside = shapely.intersection(moved, shapely.box(*grid.bounds_xyxy))
    there_is = shapely.area(inside) > 0
    if not there_is.any() and not may_miss:
        there, here = (
            ", ".join(f"{v:.6g}" for v in bounds)
            for bounds in (
                frame.total_bounds,
                gpd.GeoSeries([_outline(grid)], crs=grid.crs).to_crs(frame.crs).total_bounds,
            )
        )
        raise InputError(
            f"the {what} misses the scene: it lies in {there}, the scene in {here} (x, y, x, y, in its CRS)",
            str(source),
            "check both CRSs, or give the polygons of this scene",
        )
    kept = {} if column is None else _keep_column(frame, column, f"{source} ({what})")
    return gpd.GeoDataFrame(kept, geometry=inside, crs=grid.crs)[there_is].reset_index(drop=True)


def area_mask(areas: gpd.GeoDataFrame, grid: Grid, *, chunks: Chunks, name: str) -> xr.DataArray:
    """Tell which pixel centres lie inside polygons.

    Each centre is asked for itself, so the answer does not depend on the chunks. Lazy.

    Parameters
    ----------
    areas
        Polygons in the grid's CRS.
    grid
        The grid.
    chunks
        Chunk sizes along y and x.
    name
        Name of the mask and of its tasks.

    Returns
    -------
    xr.DataArray
        Bool ``(y, x)``, True where the centre lies inside.
    """
    union = dask.delayed(
        shapely.union_all(areas.geometry.values),
        name=f"{name}-polygons-{dask.base.tokenize(areas.to_wkb().geometry.tolist())}",
    )
    data = da.map_blocks(
        _inside_block, grid=grid, union=union, chunks=chunks, token=name, dtype=bool, meta=np.empty((0, 0), bool)
    )
    return xr.DataArray(data, dims=(Y, X), coords=grid.coords(), name=name)


def _outline(grid: Grid) -> Any:
    """Outline a grid with vertices close enough to bend with another CRS."""
    box = shapely.box(*grid.bounds_xyxy)
    return shapely.segmentize(box, max(box.length / 400, grid.pixel_size_m))


def _near(frame: gpd.GeoDataFrame, grid: Grid) -> NDArray[Any]:
    """Cut polygons to the scene's surroundings in their own CRS: far from it a projection folds or has no values."""
    there = gpd.GeoSeries([_outline(grid)], crs=grid.crs).to_crs(frame.crs).iloc[0]
    if not np.isfinite(shapely.get_coordinates(there)).all():
        return frame.geometry.values
    hull = shapely.convex_hull(there)
    return shapely.intersection(frame.geometry.values, shapely.buffer(hull, 0.05 * np.sqrt(hull.area)))


def _keep_column(frame: gpd.GeoDataFrame, column: str, item: str) -> dict[str, Any]:
    there = [str(name) for name in frame.columns if name != frame.active_geometry_name]
    texts = [name for name in there if pd.api.types.is_string_dtype(frame[name])]
    if (column and column not in there) or not (column or texts):
        what = f"no column {column!r}" if column else "no column of text"
        raise InputError(f"{what}, only {', '.join(there) or 'none'}", item, "name one of them")
    name = column or texts[0]
    return {name: frame[name].to_numpy()}


def _read(source: str | Path, what: str) -> gpd.GeoDataFrame:
    if not is_url(source) and not Path(source).exists():
        raise InputError(f"there is no such {what}", str(source), "check the path")
    problem = ""
    try:
        with fetched(source) as path:
            if path.endswith(".parquet"):
                return gpd.read_parquet(path)
            layers = pyogrio.list_layers(path)[:, 0].tolist()
            if len(layers) == 1:
                return gpd.read_file(path, engine="pyogrio")
        problem = f"it holds {len(layers)} layers ({', '.join(layers)}), one is needed"
    except LakescaleError:
        raise
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError, OSError) as error:
        problem = str(error).strip().splitlines()[0]
    raise InputError(f"the {what} cannot be read: {problem}", str(source), "give one layer: ogr2ogr OUT.gpkg IN LAYER")


def _refuse_unusable(frame: gpd.GeoDataFrame, source: str, what: str) -> None:
    if not isinstance(frame, gpd.GeoDataFrame) or not len(frame):
        raise InputError(f"the {what} holds no polygons", source, "give a layer of polygons")
    if frame.crs is None:
        raise InputError(f"the {what} has no CRS", source, "set it, for example: ogr2ogr -a_srs EPSG:3413 OUT IN")
    geometry = frame.geometry.values
    polygonal = np.isin(shapely.get_type_id(geometry), (3, 6))
    if not polygonal.all():
        row = int(np.argmin(polygonal))
        kind = "nothing" if geometry[row] is None else geometry[row].geom_type
        raise InputError(f"the {what} must hold polygons only, found {kind}", f"{source}, row {row}", "leave it out")
    valid = shapely.is_valid(geometry)
    if not valid.all():
        row = int(np.argmin(valid))
        raise InputError(
            f"the {what} holds an invalid polygon: {shapely.is_valid_reason(geometry[row])}",
            f"{source}, row {row} (one of {int((~valid).sum())})",
            "repair it, for example: ogr2ogr -makevalid OUT IN",
        )


def _inside_block(*, grid: Grid, union: Any, block_info: Any = None) -> NDArray[np.bool_]:
    (top, bottom), (left, right) = block_info[None]["array-location"]
    x, y = grid.centres_xy(slice(top, bottom), slice(left, right))
    shapely.prepare(union)
    return _inside(union, x, y)


def _inside(area: Any, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Ask for each point; whole tiles at once where they lie clear of every edge."""
    tile = shapely.box(x.min(), y.min(), x.max(), y.max()) if x.size else None
    if tile is None or not shapely.intersects(area, tile):
        return np.zeros(x.shape, bool)
    if shapely.contains_properly(area, tile):
        return np.ones(x.shape, bool)
    height, width = x.shape
    if max(height, width) <= _POINTWISE_PX:
        return shapely.contains_xy(area, x, y)
    out = np.empty(x.shape, bool)
    axis_halves = [(slice(0, n // 2), slice(n // 2, n)) for n in (height, width)]
    for rows in axis_halves[0]:
        for cols in axis_halves[1]:
            out[rows, cols] = _inside(area, x[rows, cols], y[rows, cols])
    return out
