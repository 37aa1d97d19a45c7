"""Where there is ice: outlines drawn as vectors, or a raster of percent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr

from lakescale.areas import area_mask, read_areas
from lakescale.chunks import map_tiles
from lakescale.dem import open_dem
from lakescale.grid import Grid
from lakescale.polygons import areas_m2, polygonize
from lakescale.regions import like
from lakescale.regrid import Mapping, find_boxes, regrid
from lakescale.scene.files import open_headers
from lakescale.scene.opening import find_assets
from lakescale.schema import AREA_M2, ICE, InputError, X, Y
from lakescale.storage import name_of

if TYPE_CHECKING:
    import dask_geopandas
    from numpy.typing import NDArray

    from lakescale.chunks import Chunks

REGION = "region"
"""Column of `keep_largest`: the row of the region that a polygon lies in."""

_RASTERS = {".tif", ".tiff", ".vrt", ".img", ".jp2", ".nc", ".asc"}
_PERCENT = 100.0
_LONGEST_EDGE = {True: 2_000.0, False: 0.02}
"""Longest edge of a region that is taken to another CRS in one piece: metres, or degrees."""


def ice_mask(
    source: str | Path | gpd.GeoDataFrame, grid: Grid, *, min_percent: float = 50.0, chunks: int | Chunks = 2048
) -> xr.DataArray:
    """Tell which pixels lie on ice.

    Lazy. Pixels of which a raster says nothing are not ice; `ice_unknown` tells them.

    Parameters
    ----------
    source
        Polygons (a file of vectors in any CRS, or a frame in the grid's CRS), whose inside is asked for at each pixel's
        centre; or a single-band raster of percent such as NCSCDv2 (non-soil percent; ``.tif``, ``.vrt``, ...), of which
        each pixel centre asks the cell that it lies in. There, numbers above 100 or below 0 are nodata.
    grid
        The grid of the mask.
    min_percent
        More than this is ice. A raster of 0 and 1 is percent like any other: give 0.5.
    chunks
        Side of a chunk in pixels, or sizes along y and x.

    Returns
    -------
    xr.DataArray
        Bool ``(y, x)``, True on ice; named ``ice``.

    Raises
    ------
    InputError
        When the source is missing or unusable, or does not overlap the grid.
    """
    if not 0 <= min_percent < _PERCENT:
        raise InputError(f"min_percent must lie in 0..100, got {min_percent!r}", "ice_mask", "for example 50")
    if not is_raster(source):
        areas = source if isinstance(source, gpd.GeoDataFrame) else read_areas(source, grid, what="ice outline")
        return area_mask(areas, grid, chunks=_chunks(grid, chunks), name=ICE)
    percent = ice_percent(source, grid, chunks=chunks)
    options = {"min_percent": np.float32(min_percent)}
    ice = map_tiles(_is_above, percent.data, depth=0, name="ice", dtype=bool, options=options)
    return like(percent, ice).rename(ICE)


def ice_percent(source: str | Path | gpd.GeoDataFrame, grid: Grid, *, chunks: int | Chunks = 2048) -> xr.DataArray:
    """Bring a raster of percent to a grid, nearest cell, lazily; see `ice_mask`.

    Returns
    -------
    xr.DataArray
        float32 ``(y, x)``, 0..100; NaN outside the raster and where it is nodata; named ``ice_percent``.

    Raises
    ------
    InputError
        When the source is no usable raster of one band, or does not overlap the grid.
    """
    if not is_raster(source):
        raise InputError("a raster of percent is needed", str(source), "give a GeoTIFF or VRT")
    if (count := _count_bands(source)) != 1:
        raise InputError(
            f"a raster of percent has one band, this file has {count}", str(source), "give that band alone"
        )
    raster = open_dem(source, limits=None)
    _require_overlap(raster, grid, str(source))
    near = regrid(raster, grid, resampling="nearest", chunks=_chunks(grid, chunks))
    percent = map_tiles(_in_range, near.data, depth=0, name="ice-percent", dtype=np.float32)
    return like(near, percent).rename("ice_percent")


def ice_unknown(source: str | Path | gpd.GeoDataFrame, grid: Grid, *, chunks: int | Chunks = 2048) -> xr.DataArray:
    """Tell the pixels of which a raster of percent says nothing; its mean is the unknown share.

    Returns
    -------
    xr.DataArray
        Bool ``(y, x)``, True outside the raster and where it is nodata; False everywhere for polygons. Lazy; computed
        together with `ice_mask`, the raster is read once for both. Named ``ice_unknown``.
    """
    if not is_raster(source):
        nothing = da.zeros(grid.shape, dtype=bool, chunks=_chunks(grid, chunks))
        return xr.DataArray(nothing, dims=(Y, X), coords=grid.coords(), name="ice_unknown")
    percent = ice_percent(source, grid, chunks=chunks)
    unknown = map_tiles(_is_nan, percent.data, depth=0, name="ice-unknown", dtype=bool)
    return like(percent, unknown).rename("ice_unknown")


def ice_outlines(ice: xr.DataArray, *, min_area_m2: float = 0.0) -> dask_geopandas.GeoDataFrame:
    """Outline a mask of ice along its pixel edges, lazily; see `lakescale.polygonize`.

    Parameters
    ----------
    ice
        Bool ``(y, x)`` with a CRS.
    min_area_m2
        Leave out smaller polygons, by true area in m2.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        Columns ``label`` and ``geometry``, a row for each 8-connected piece. Compute it, then ask `require_ice`.
    """
    return polygonize(ice, min_area_m2=min_area_m2)


def require_ice(outlines: gpd.GeoDataFrame, source: str) -> None:
    """Raise `InputError` where there is no ice at all: nothing could be a lake then.

    Parameters
    ----------
    outlines
        Computed outlines, of `ice_outlines` or `keep_largest`.
    source
        Where they are from, for the message.
    """
    if not len(outlines) or not (outlines.geometry.area > 0).any():
        raise InputError(
            "there is no ice within the scene",
            source,
            "check that it covers the scene; of a raster, more than 50 is ice and above 100 is nodata, "
            "so give min_percent=0.5 (--ice-percent) if it holds 0 and 1",
        )


def keep_largest(ice: gpd.GeoDataFrame, regions: gpd.GeoDataFrame | None = None) -> gpd.GeoDataFrame:
    """Keep the largest polygon of ice, or the largest within each region.

    Polygons that touch along an edge or overlap are one. Within a region the ice is cut to the region first. Regions
    may overlap: then so may the rows of the answer, each the largest of its own region.

    Parameters
    ----------
    ice
        Polygons with a CRS.
    regions
        Polygons in any CRS; None for no regions.

    Returns
    -------
    geopandas.GeoDataFrame
        In the CRS of ``ice``: ``geometry`` (Polygon), ``area_m2`` (true area) and, with regions, ``region``: the index
        label of its region, in their order. Regions without ice have no row. Of equal areas the first counts.

    Raises
    ------
    InputError
        When either frame has no CRS, or regions are empty or invalid.
    """
    _require_crs(ice, "ice")
    pieces = _polygons(np.array([shapely.union_all(ice.geometry.values)]))
    if regions is None:
        return _largest(pieces, ice.crs)
    _require_crs(regions, "regions")
    if not len(regions) or not shapely.is_valid(regions.geometry.values).all():
        raise InputError("the regions are empty or invalid", "regions", "repair them: ogr2ogr -makevalid OUT IN")
    found = []
    for label, area in zip(regions.index, _moved(regions, ice.crs), strict=True):
        within = _largest(_polygons(shapely.intersection(pieces, area)), ice.crs)
        found.append(within.assign(**{REGION: [label] * len(within)}))
    return gpd.GeoDataFrame(pd.concat(found, ignore_index=True), geometry="geometry", crs=ice.crs)


# -- rasters


def is_raster(source: str | Path | gpd.GeoDataFrame) -> bool:
    """Whether a source of ice is a raster of percent, by its name (``.tif``, ``.vrt``, ...); else it is polygons."""
    return not isinstance(source, gpd.GeoDataFrame) and Path(name_of(source)).suffix.lower() in _RASTERS


def _count_bands(source: Any) -> int:
    files, _ = open_headers(find_assets(str(source)), None, None)
    return max(len(file.dtypes) for file in files)


def _chunks(grid: Grid, chunks: int | Chunks) -> Chunks:
    rows, cols = da.core.normalize_chunks(chunks, grid.shape)
    return rows, cols


def _in_range(percent: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where((percent >= 0) & (percent <= np.float32(_PERCENT)), percent, np.float32(np.nan))


def _is_above(percent: NDArray[np.float32], *, min_percent: np.float32) -> NDArray[np.bool_]:
    return percent > min_percent


def _is_nan(percent: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.isnan(percent)


def _require_overlap(raster: xr.DataArray, grid: Grid, source: str) -> None:
    mapping = Mapping(Grid.of(raster), grid)
    height, width = grid.shape
    row, col = np.meshgrid(np.linspace(0, height, 65), np.linspace(0, width, 65), indexing="ij")
    x, y = mapping.exact(row, col)
    rows, cols = mapping.source.shape
    if ((x > 0) & (x < cols) & (y > 0) & (y < rows)).any():
        return
    boxes = find_boxes(mapping, "nearest")
    if ((boxes.bottom > boxes.top) & (boxes.right > boxes.left)).any():
        return
    box = shapely.box(*grid.bounds_xyxy)
    outline = gpd.GeoSeries([shapely.segmentize(box, box.length / 400)], crs=grid.crs).to_crs(mapping.source.crs)
    bounds_pair = (mapping.source.bounds_xyxy, outline.total_bounds)
    there, here = (", ".join(f"{v:.6g}" for v in bounds) for bounds in bounds_pair)
    raise InputError(
        f"the ice raster misses the scene: it lies in {there}, the scene in {here} (x, y, x, y, in its CRS)",
        source,
        "check both CRSs, or give the ice of this scene",
    )


# -- polygons


def _require_crs(frame: gpd.GeoDataFrame, name: str) -> None:
    if frame.crs is None:
        raise InputError("polygons without a CRS", name, "set it: frame.set_crs('EPSG:...')")


def _moved(regions: gpd.GeoDataFrame, crs: Any) -> NDArray[Any]:
    """Bring regions to another CRS with edges short enough to bend."""
    if regions.crs == crs:
        return regions.geometry.values
    fine = shapely.segmentize(regions.geometry.values, _LONGEST_EDGE[regions.crs.is_projected])
    return shapely.make_valid(gpd.GeoSeries(fine, crs=regions.crs).to_crs(crs).values)


def _polygons(geometry: NDArray[Any]) -> NDArray[Any]:
    """Take geometries apart to the polygons in them."""
    parts = shapely.get_parts(shapely.get_parts(geometry))  # twice: collections hold multipolygons
    return parts[(shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0)]


def _largest(polygons: NDArray[Any], crs: Any) -> gpd.GeoDataFrame:
    frame = gpd.GeoDataFrame(geometry=gpd.GeoSeries(list(polygons), crs=crs), crs=crs)
    frame[AREA_M2] = areas_m2(frame.geometry) if len(frame) else np.empty(0)
    first = slice(0, 0) if not len(frame) else [int(frame[AREA_M2].to_numpy().argmax())]
    return frame.iloc[first].reset_index(drop=True)
