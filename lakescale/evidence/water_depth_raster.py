"""A picture of the depths of lakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from lakescale.chunks import Place
from lakescale.evidence.water_depth_layers import bands, lid_array, same_chunks
from lakescale.evidence.water_depth_optics import OPTICS, find_depths, require_reflectance
from lakescale.evidence.zonal_cover import COVER_UNIT, cover, to_covering_pixels
from lakescale.evidence.zonal_deal import as_dask_frame, find_met, outline, polygons_of
from lakescale.grid import Grid
from lakescale.schema import RED, InputError, X, Y

if TYPE_CHECKING:
    import dask_geopandas
    import geopandas as gpd
    from numpy.typing import NDArray


def depth_raster(
    scene: xr.DataArray,
    lakes: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame,
    *,
    band: str = RED,
    lids: xr.DataArray | None = None,
) -> xr.DataArray:
    """Draw the depths that `water_depth` found.

    Lazy. Each task holds all of the frame.

    Parameters
    ----------
    scene, band, lids
        As they went into `water_depth`.
    lakes
        The frame that it gave, or some rows of it: its columns ``rt_a_d``, ``rt_r_inf`` and ``rt_g`` are read.

    Returns
    -------
    xr.DataArray
        float32 ``(y, x)``, m, named ``water_depth``: in pixels of which a lake covers at least half (the first in the
        frame, of several). NaN elsewhere, where not seen, under lids, and where the depth is not known; infinite where
        the water is as dark as optically deep water.

    Raises
    ------
    InputError
        When the scene is no reflectance or lacks the band, the frame lacks a column or has another CRS.
    """
    require_reflectance(scene, band)
    grid = Grid.of(scene)
    whole = as_dask_frame(lakes, [], grid)
    missing = [name for name in OPTICS if name not in whole.columns]
    if missing:
        raise InputError(f"the frame lacks the columns {', '.join(missing)}", "lakes", "give the answer of water_depth")
    whole = whole[[*OPTICS, whole.geometry.name]]
    table = dask.delayed(pd.concat)(whole.to_delayed())
    blocks = same_chunks(*bands(scene, [band]), *lid_array(lids, grid))
    data = da.map_blocks(
        _draw,
        *blocks,
        table=table,
        grid=grid,
        dtype=np.float32,
        token="water-depth",  # noqa: S106  (the name of its tasks)
        meta=np.empty((0, 0), np.float32),
    )
    attrs = {"units": "m", "long_name": f"depth of water from {band}"}
    return xr.DataArray(data, dims=(Y, X), coords=grid.coords(), name="water_depth", attrs=attrs)


def _draw(
    band: NDArray[Any],
    seen: NDArray[np.bool_],
    lids: NDArray[np.bool_] | None = None,
    *,
    table: gpd.GeoDataFrame,
    grid: Grid,
    block_info: Any = None,
) -> NDArray[np.float32]:
    """Draw one block."""
    (top, bottom), (left, right) = block_info[None]["array-location"]
    place = Place(top, left, bottom - top, right - left)
    polygons = to_covering_pixels(polygons_of(table), grid.transform)
    rows = np.unique(find_met(polygons, outline([place]))[0])
    first = np.full(band.shape, len(rows), np.int64)
    for covered in cover(polygons[rows], place, grid.shape):
        half = covered.units * (2 * COVER_UNIT) >= 1
        np.minimum.at(first, (covered.row[half], covered.col[half]), covered.polygon[half])
    a_d, r_inf, g = (np.append(table[name].to_numpy(np.float64)[rows], np.nan)[first] for name in OPTICS)
    depth = find_depths(band, a_d, r_inf, g)
    usable = seen if lids is None else seen & ~lids
    return np.where(usable, depth, np.nan).astype(np.float32)
