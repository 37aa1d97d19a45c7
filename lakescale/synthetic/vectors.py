"""The truth as polygons: lakes with what is known of them, and the ice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import shapely

from lakescale.kernels.landscape import OPEN_WATER
from lakescale.polygons import areas_m2, outline_parts, to_map
from lakescale.schema import AREA_M2, LAKE_ID, LAKE_TIME
from lakescale.synthetic.basins import LIDDED, OPEN, PARTLY_LIDDED, fill_basin
from lakescale.synthetic.scenery import clear_share, draw_lake

if TYPE_CHECKING:
    import datetime as dt

    from numpy.typing import NDArray

    from lakescale.grid import Grid
    from lakescale.kernels.terrain import Land
    from lakescale.synthetic.scenery import Block, Scenery

_COLUMNS = {
    LAKE_ID: "int64", "state": "object", "depth_max_m": "float64", "volume_m3": "float64", "level_m": "float64",
    "spill_m": "float64", "lid_share": "float64", "fate": "object", "clear_share": "float64",
}  # fmt: skip
_SOME_LID, _WHOLE_LID = 0.02, 0.97


def outline_lakes(block: Block, grid: Grid, day: dt.date, land: Land, scenery: Scenery) -> gpd.GeoDataFrame:
    """Outline the lakes of a day; see `lakescale.synthetic.Region.lakes`."""
    rows, shapes = [], []
    for basin in block.basins(land):
        filling = fill_basin(basin, day, land)
        shared = basin.crop(block.row, block.col, block.shape)
        if shared is None or not filling.holds_lake:
            continue
        lake = basin.lake(filling.level)
        if not lake[shared[1]].any():
            continue
        depth, look = draw_lake(basin, filling, block.step)
        wet = depth > 0
        lid = 1.0 if filling.is_snowed_over else float((look[wet] != OPEN_WATER).mean())
        near = block._replace(
            row=block.row + shared[0][0].start, col=block.col + shared[0][1].start,
            height=shared[0][0].stop - shared[0][0].start, width=shared[0][1].stop - shared[0][1].start,
        )  # fmt: skip
        clear = clear_share(basin, lake, near, day, (land, scenery))
        volume = float(depth.sum(dtype=np.float64)) * block.step**2
        known = (filling.level, basin.spill, lid, filling.fate, clear)
        rows.append((basin.id, _state(lid), float(depth.max()), volume, *known))
        shapes.append(_outline(lake[shared[1]], near, block, grid))
    frame = gpd.GeoDataFrame(
        {name: np.array([row[k] for row in rows], dtype) for k, (name, dtype) in enumerate(_COLUMNS.items())},
        geometry=gpd.GeoSeries(shapes, crs=grid.crs),
        crs=grid.crs,
    ).sort_values(LAKE_ID, ignore_index=True)
    frame.insert(1, LAKE_TIME, np.full(len(frame), np.datetime64(day, "ns")))
    frame.insert(3, AREA_M2, areas_m2(frame.geometry) if len(frame) else np.empty(0))
    return frame


def outline_ice(block: Block, coarse: Grid, land: Land, grid: Grid) -> gpd.GeoDataFrame:
    """Outline the ice on a coarse grid, cut to the bounds of a finer one."""
    ice = np.empty(block.shape, np.uint8)
    for strip in block.strips():
        rows = slice(strip.row - block.row, strip.row - block.row + strip.height)
        ice[rows] = strip.heights(land)[1] >= 0
    polygons, _ = outline_parts(ice)
    inside = shapely.intersection(to_map(polygons, coarse.transform), shapely.box(*grid.bounds_xyxy))
    return gpd.GeoDataFrame(geometry=inside[shapely.area(inside) > 0], crs=grid.crs)


def _state(lid: float) -> str:
    if lid >= _WHOLE_LID:
        return LIDDED
    return PARTLY_LIDDED if lid >= _SOME_LID else OPEN


def _outline(lake: NDArray[np.bool_], near: Block, block: Block, grid: Grid) -> Any:
    polygons, _ = outline_parts(lake.astype(np.uint8))
    offset = near.col - block.col, near.row - block.row
    moved = shapely.transform(polygons, lambda xy: xy + offset)
    mapped = shapely.normalize(to_map(moved, grid.transform))
    return mapped[0] if len(mapped) == 1 else shapely.multipolygons(mapped)
