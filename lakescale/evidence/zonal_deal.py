"""Polygons of a frame, checked, numbered, and dealt to the blocks that they meet."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import dask_geopandas
import geopandas as gpd
import numpy as np
import shapely

from lakescale.chunks import ask_zones, plan_blocks, to_frame
from lakescale.polygons import to_map
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import dask.array as da
    from numpy.typing import NDArray

    from lakescale.chunks import Place, Zones
    from lakescale.grid import Grid

_ROW_BITS = 32
_MARGIN_PX = 1e-3
_POLYGONAL = (shapely.GeometryType.MISSING, shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


class Parcel(NamedTuple):
    """Polygons that meet a block."""

    row: NDArray[np.int64]
    """Number of each polygon, ascending; see `numbers_of`."""
    polygons: NDArray[Any]


def as_dask_frame(
    frame: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame, columns: Sequence[str], grid: Grid
) -> dask_geopandas.GeoDataFrame:
    """Check a frame that is to get columns, and make it a dask frame; one in memory becomes one partition.

    Raises
    ------
    InputError
        When it is no frame of polygons in the grid's CRS, or has such columns.
    """
    if not isinstance(frame, gpd.GeoDataFrame | dask_geopandas.GeoDataFrame):
        raise InputError(f"a frame of polygons is needed, got {type(frame).__name__}", "frame", "make a GeoDataFrame")
    if getattr(frame, "_meta", frame).active_geometry_name is None:
        raise InputError("a frame without geometry", "frame", "set it: frame.set_geometry('COLUMN')")
    if frame.crs is None:
        raise InputError("polygons without a CRS", "frame", "set it: frame.set_crs('EPSG:...')")
    if not frame.crs.equals(grid.crs, ignore_axis_order=True):
        raise InputError(
            f"the polygons are in {frame.crs.to_string()[:60]}, the rasters in {grid.crs.to_string()[:60]}",
            "frame",
            "bring them to the rasters' CRS: frame.to_crs(raster.rio.crs)",
        )
    taken = sorted(set(columns) & set(frame.columns))
    if taken:
        raise InputError(f"the frame already has the columns {', '.join(taken)}", "frame", "drop or rename them")
    if isinstance(frame, dask_geopandas.GeoDataFrame):
        return frame
    polygons_of(frame)
    with dask.config.set({"dataframe.convert-string": False}):  # a column keeps its dtype
        return dask_geopandas.from_geopandas(frame, npartitions=1, sort=False)


def polygons_of(part: gpd.GeoDataFrame) -> NDArray[Any]:
    """Take the geometry of a part of a frame: valid Polygons and MultiPolygons, None or empty ones among them.

    Raises
    ------
    InputError
        For any other.
    """
    geometry = part.geometry.to_numpy()
    polygonal = np.isin(shapely.get_type_id(geometry), _POLYGONAL)
    if not polygonal.all():
        row = int(np.argmin(polygonal))
        raise InputError(f"polygons are needed, found a {geometry[row].geom_type}", _row(part, row), "leave it out")
    valid = shapely.is_valid(geometry) | shapely.is_missing(geometry)
    if not valid.all():
        row = int(np.argmin(valid))
        raise InputError(
            f"an invalid polygon: {shapely.is_valid_reason(geometry[row])}",
            f"{_row(part, row)}, one of {int((~valid).sum())}",
            "repair it: frame.geometry = frame.make_valid()",
        )
    return geometry


def _row(part: gpd.GeoDataFrame, row: int) -> str:
    return f"the row with index {part.index[row]}"


def deal(parts: list[NDArray[Any]], boxes: NDArray[Any], *, reach: float = 0.0) -> list[Parcel]:
    """Deal polygons to the boxes that they meet.

    Parameters
    ----------
    parts
        Polygons of each part of the frame.
    boxes
        In the polygons' coordinates.
    reach
        A polygon goes to the boxes this far away, too.
    """
    polygons = np.concatenate([np.empty(0, object), *parts])
    numbers = np.concatenate([np.empty(0, np.int64), *(numbers_of(p, len(part)) for p, part in enumerate(parts))])
    polygon, box = find_met(polygons, boxes, reach=reach)
    order = np.lexsort((polygon, box))
    groups = np.split(polygon[order], np.searchsorted(box[order], np.arange(1, len(boxes))))
    return [Parcel(numbers[group], polygons[group]) for group in groups[: len(boxes)]]


def find_met(
    polygons: NDArray[Any], boxes: NDArray[Any], *, reach: float = 0.0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the pairs of a polygon and a box that meet, or lie no further than ``reach`` from each other."""
    tree = shapely.STRtree(boxes)
    if reach:
        polygon, box = tree.query(polygons, predicate="dwithin", distance=reach)
    else:
        polygon, box = tree.query(polygons, predicate="intersects")
    return polygon, box


def numbers_of(part: int, count: int) -> NDArray[np.int64]:
    """Give each row of a part of the frame a number; those of all parts, in order, are ascending."""
    return (part << _ROW_BITS) + np.arange(count, dtype=np.int64)


def split_parts(table: Any, parts: int) -> list[Any]:
    """Split a table of arrays by its ``row``: ascending numbers, which become the rows within each part."""
    cuts = np.searchsorted(table.row, np.arange(parts + 1, dtype=np.int64) << _ROW_BITS)
    split = [type(table)(*(one[..., a:b] for one in table)) for a, b in pairwise(cuts)]
    return [one._replace(row=one.row - (p << _ROW_BITS)) for p, one in enumerate(split)]


def outline(places: Sequence[Place]) -> NDArray[Any]:
    """Outline blocks in pixel coordinates."""
    return shapely.box(
        *np.array([(p.col, p.row, p.col + p.width, p.row + p.height) for p in places], float).reshape(-1, 4).T
    )


def find_blocks(
    frame: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame, grid: Grid, array: da.Array, *, reach: float = 0.0
) -> list[tuple[int, int]] | None:
    """List the blocks that polygons in memory meet, or lie no further than ``reach`` from; None for a dask frame."""
    if not isinstance(frame, gpd.GeoDataFrame):
        return None
    rows = plan_blocks(array.chunks)
    boxes = to_map(outline([place for row in rows for place in row]), grid.transform)
    polygons, margin = frame.geometry.to_numpy(), _MARGIN_PX * float(np.sqrt(abs(grid.transform.determinant)))
    _, box = find_met(polygons, boxes, reach=reach + margin)  # in pixel coordinates polygons are a little elsewhere
    return [divmod(k, len(rows[0])) for k in np.unique(box).tolist()]


def find_blocks_round(
    frame: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame,
    draw: Callable[[NDArray[Any]], NDArray[Any]],
    grid: Grid,
    array: da.Array,
) -> list[tuple[int, int]] | None:
    """List the blocks that what is drawn round polygons in memory meets; None for a dask frame."""
    if not isinstance(frame, gpd.GeoDataFrame):
        return None
    return find_blocks(gpd.GeoDataFrame(geometry=draw(frame.geometry.to_numpy()), crs=frame.crs), grid, array)


def ask(
    source: dask_geopandas.GeoDataFrame,
    arrays: Sequence[da.Array],
    how: Zones,
    blocks: list[tuple[int, int]] | None,
    nothing: Any,
) -> dask_geopandas.GeoDataFrame:
    """Ask the blocks that polygons meet, and make a frame of the answers.

    Parameters
    ----------
    source, arrays, how, blocks
        See `lakescale.chunks.ask_zones`.
    nothing
        The answer of a part without polygons.
    """
    graph, keys = ask_zones(source, arrays, how, blocks=blocks)
    answer: dask_geopandas.GeoDataFrame = to_frame(graph, keys, how.attach(source._meta, nothing), how.name)  # noqa: SLF001
    answer.spatial_partitions = source.spatial_partitions
    return answer
