"""What rasters of evidence say of polygons: means, maxima, and the share that has data, polygon by polygon."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from lakescale.chunks import Zones
from lakescale.evidence.zonal_cover import COVER_UNIT, to_covering_pixels
from lakescale.evidence.zonal_deal import (
    Parcel,
    as_dask_frame,
    ask,
    deal,
    find_blocks,
    outline,
    polygons_of,
    split_parts,
)
from lakescale.evidence.zonal_layers import lay_out
from lakescale.evidence.zonal_sums import Sums, measure
from lakescale.polygons import to_pixels

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dask_geopandas
    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.evidence.zonal_layers import Layer
    from lakescale.grid import Grid

_STATISTICS: dict[str, Any] = {"mean": (np.float64, np.nan), "max": (np.float32, np.nan), "data_share": (np.float64, 0)}
"""Their dtypes, and what they are of polygons that meet no pixel."""
_SHARE_DECIMALS = 6


def polygon_evidence(
    frame: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame,
    rasters: Mapping[str, xr.DataArray],
    *,
    seen: xr.DataArray | Mapping[str, xr.DataArray] | None = None,
) -> dask_geopandas.GeoDataFrame:
    """Tell the mean, the maximum and the share with data of rasters within polygons.

    Each pixel counts by the part of it that the polygon covers (exactextract), in units of 2**-16 pixel; values are
    rounded to 2**-24. Sums are whole numbers, so the answer is the same bit for bit for any chunks. The mean of a mask
    is the share of the polygon in it; that of a depth, the mean depth.

    Lazy. Of a frame in memory only the chunks that a polygon meets are read, of a dask frame all. A task holds the
    pixels of all rasters in one chunk, and the polygons that meet it. One task holds all polygons while they are dealt
    to the chunks, and one their sums: 16 bytes for each polygon and chunk, and 28 for each of its rasters.

    Parameters
    ----------
    frame
        Polygons and MultiPolygons in the rasters' CRS; missing and empty geometry is allowed. Any index.
    rasters
        By name, ``(y, x)`` on one grid: bool masks, or float32, NaN where not seen, of less than 2**20 either way.
    seen
        Bool ``(y, x)``, where the masks have data: one for all masks among the rasters, or one for each name (floats
        too, then). None: a mask has data everywhere.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        The same rows in the same order, the columns of ``frame``, and for each raster

        - ``NAME_mean``: float64, over the part with data;
        - ``NAME_max``: float32, over the pixels with data that the polygon covers at all; 1 or 0 for masks;
        - ``NAME_data_share``: float64, 0..1, share of the polygon that has data, to 6 decimals; what lies outside the
          grid has none.

        Mean and maximum are NaN where there is no data. As many partitions as ``frame`` has, one where it is in memory.

    Raises
    ------
    InputError
        When the frame has no CRS or another one, holds other geometry than valid polygons, or has such columns; when
        rasters are none, of another dtype, or on different grids. Of a dask frame geometry is judged when computed.

    Examples
    --------
    >>> import geopandas as gpd, numpy as np, shapely, xarray as xr
    >>> axes = {"y": [25.0, 15.0, 5.0], "x": [5.0, 15.0]}
    >>> depth = xr.DataArray(np.array([[1, 2], [3, 4], [5, np.nan]], np.float32), axes, ("y", "x"))
    >>> depth = depth.odc.assign_crs("EPSG:3413").chunk(y=2, x=1)
    >>> lakes = gpd.GeoDataFrame(geometry=[shapely.box(0, 20, 15, 30), shapely.box(10, 0, 20, 20)], crs=3413)
    >>> evidence = polygon_evidence(lakes, {"depth": depth}).compute()
    >>> print(evidence.drop(columns="geometry").round(3).to_string(index=False))
     depth_mean  depth_max  depth_data_share
          1.333        2.0               1.0
          4.000        4.0               0.5
    """
    arrays, layers, grid = lay_out(rasters, seen)
    names = [f"{layer.name}_{statistic}" for layer in layers for statistic in _STATISTICS]
    source = as_dask_frame(frame, names, grid)
    how = Zones(
        "zonal",
        partial(_cut, grid=grid),
        _deal_pixels,
        partial(measure, layers=layers, shape=grid.shape),
        partial(_join_sums, layers=len(layers)),
        partial(_attach_sums, grid=grid, layers=layers),
    )
    return ask(source, arrays, how, find_blocks(frame, grid, arrays[0]), Sums.empty(len(layers)))


def _cut(part: gpd.GeoDataFrame, *, grid: Grid) -> NDArray[Any]:
    return to_covering_pixels(polygons_of(part), grid.transform)


def _deal_pixels(parts: list[NDArray[Any]], places: list[Place]) -> list[Parcel]:
    return deal(parts, outline(places))


def _join_sums(answers: list[Sums], parts: int, *, layers: int) -> list[Sums]:
    return split_parts(Sums.join(answers, layers), parts)


def _attach_sums(part: gpd.GeoDataFrame, sums: Sums, *, grid: Grid, layers: tuple[Layer, ...]) -> gpd.GeoDataFrame:
    whole = _area_units(to_pixels(part.geometry.to_numpy(), grid.transform), grid)[sums.row]
    share = np.round(sums.seen / np.maximum(whole, sums.covered), _SHARE_DECIMALS)
    found: dict[str, Any] = {"mean": sums.means(), "max": sums.largest_or_nan(), "data_share": share}
    columns = {}
    for k, layer in enumerate(layers):
        for statistic, (dtype, without) in _STATISTICS.items():
            column = np.full(len(part), without, dtype)
            column[sums.row] = found[statistic][k]
            columns[f"{layer.name}_{statistic}"] = column
    return part.assign(**columns)


def _area_units(polygons: NDArray[Any], grid: Grid) -> NDArray[np.float64]:
    """Give the areas of polygons that reach beyond the grid, in units of `COVER_UNIT`; 0 for others.

    A polygon inside has the area that its pixels sum up to, so that the shares of one wholly seen are exactly 1.
    """
    left, top, right, bottom = shapely.bounds(polygons).T
    inside = (left >= 0) & (top >= 0) & (right <= grid.shape[1]) & (bottom <= grid.shape[0])
    return np.where(inside, 0.0, np.nan_to_num(shapely.area(polygons)) / COVER_UNIT)
