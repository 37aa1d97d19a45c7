"""Sinks as polygons, with what they would hold, and the sinks that lie within them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import dask_geopandas  # noqa: TC002  (importing it teaches dask what a GeoDataFrame is)
import geopandas as gpd
import numpy as np
import shapely

from lakescale.chunks import (
    Blocks,
    Merge,
    Stitch,
    Tree,
    map_beside,
    merge_tree,
    read_again,
    stitch,
    to_frame,
    with_least_chunks,
    zip_blocks,
)
from lakescale.depressions import as_dem_array, declared_nodata, fill_stitch
from lakescale.evidence.sink_areas import AREA_UNIT_M2
from lakescale.evidence.sink_blocks import collect, find_sinks, name_sinks, share_edges, summarize
from lakescale.evidence.sink_cells import Rules, SinkCells, Split, crossing, deal, join
from lakescale.evidence.sink_edges import EDGE
from lakescale.evidence.sink_seams import contract_seams, expand_seams, solve_seams
from lakescale.evidence.sink_tables import count_nested, make_rows, number_rows
from lakescale.evidence.sinks import as_filled, check_choices, fill_depressions
from lakescale.grid import Grid
from lakescale.polygons import to_map
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.array as da
    import xarray as xr
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.evidence.sink_blocks import Found

_NONE_NESTED = np.empty(0, np.int64)
_ALL_LEVELS = np.iinfo(np.int32).max


def sink_regions(
    dem: xr.DataArray,
    *,
    engine: str = "tiled",
    nodata: str = "wall",
    min_depth_m: float = 0.0,
    min_area_m2: float = 0.0,
    levels: int | None = 1,
    filled: xr.DataArray | None = None,
) -> dask_geopandas.GeoDataFrame:
    """Outline and measure sinks, and the sinks within them.

    An outermost sink is a region (8-connected) of cells that filling raises; all of them rise to one level. Within it
    an inner sink is a part that keeps its own water as it rises, up to the level at which it meets another one: the
    cells below that level that are joined below it (8-connected). Where several meet at one level, over one flat or one
    after the other, all are children of one sink. An inner sink that misses ``min_depth_m`` or ``min_area_m2`` is none,
    and its water counts to the sink round it; one that so has no sibling left is none either, since it is its parent
    at a lower level. With 0 and 0 every minimum counts; a flat is one minimum.

    Lazy, and the same rows for any chunks. Of the sinks that are large enough, and of all at the edges of chunks, 4
    bytes a cell, 12 a run of cells along a row and 49 a sink wait in memory while seams are solved (on the disk, where
    workers have a limit). A solving task holds 16 bytes a border pixel and 24 a row of each chunk, and 80 for each sink
    at its edges: of 512 chunks at most, since more are solved in squares of 16 x 16. A sink that lies in one chunk is
    measured there; the cells of one that crosses seams (16 bytes each) go to one of the tasks that measure those that
    cross the seams within a square of 4 x 4 chunks, or of 4 x 4 such squares and so on, and reach no further: as many
    tasks as the square is chunks wide, so that each holds as much, or one large sink. With ``levels`` above 1 the rows
    wait in memory until they are numbered.

    Parameters
    ----------
    dem, engine, nodata
        See `lakescale.fill_depressions`. The grid must be in metres.
    min_depth_m, min_area_m2
        Least greatest depth in m, and least true area in m2, of outermost and inner sinks alike.
    levels
        How many levels of nesting: 1 gives outermost sinks only; None gives all. Deep levels of rough terrain are many
        rows, and large ones: noise nests as deeply as there are minima.
    filled
        The DEM as it was filled before with the same ``nodata``, such as a layer that was written; None fills it here.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        One row a sink. One partition a chunk (of 4 pixels at least) and 4 or more a square of chunks;
        ``spatial_partitions`` is set. In the DEM's CRS, with the columns

        - ``sink_id``: int64. The outermost sinks that are large enough have 1, 2, ... in raster order of their first
          cells; inner ones count on from there, by the id of their outermost sink, then by level, then by first cell.
        - ``level``: int32, 0 for an outermost sink; ``parent``: the ``sink_id`` of the sink round it (Int64, NA).
        - ``depth_m``, ``spill_m``, ``pit_m``: float32, greatest depth, and elevation of the water's surface when the
          sink is full and of its lowest cell; ``merge_m``: the spill elevation at which an inner sink joins
          others, NaN for an outermost one.
        - ``area_m2``: true area; ``capacity_m3``: depth times true area, each cell's rounded to 2**-10 m3.
        - ``pour_x``, ``pour_y``: centre of a cell beside the sink (8), at its spill elevation, over which it
          overflows: the first in raster order from which water runs on at once (to a cell outside the sink that is
          lower when filled, over the mosaic's edge, or into any void by ``nodata="outlet"``), else the first of all.
          Of an inner sink: the first with a cell beside it that is lower and outside the sink, else the first.
        - ``pit_x``, ``pit_y``: centre of its lowest cell, the first in raster order.
        - ``void_share``: of the outermost sink's cells and those of the voids (8-connected) that touch it,
          the share of void cells. Above 0 the true extent is not known: the sink may go on in the void.
        - ``geometry``: Polygon, or MultiPolygon of the 4-connected parts; valid, no collinear vertices.

    Raises
    ------
    InputError
        As `lakescale.fill_depressions`; when a least value is negative, ``levels`` is below 1, or the grid is not in
        metres.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> heights = np.full((3, 7), 99, np.float32)
    >>> heights[1] = [0, 9, 1, 5, 2, 9, 99]  # a valley with two basins, which meet at 5 m and overflow at 9 m
    >>> axes = {"y": [2500.0, 1500.0, 500.0], "x": np.arange(500.0, 7500.0, 1000.0)}
    >>> dem = xr.DataArray(heights, axes, ("y", "x")).odc.assign_crs("EPSG:3413").chunk(y=3, x=2)
    >>> sinks = sink_regions(dem, levels=None).compute().sort_values("sink_id")
    >>> print(sinks[["sink_id", "level", "parent", "depth_m", "spill_m"]].to_string(index=False))
     sink_id  level  parent  depth_m  spill_m
           1      0    <NA>      8.0      9.0
           2      1       1      4.0      5.0
           3      1       1      3.0      5.0
    """
    _check(min_depth_m, min_area_m2, levels)
    check_choices(dem, engine, nodata)
    level = None
    if filled is not None:
        level = as_filled(filled, dem).data
    elif engine != "tiled":
        level = fill_depressions(dem, engine=engine, nodata=nodata).data
    array, missing = as_dem_array(dem, "DEM"), declared_nodata(dem)
    fills = fill_stitch(nodata, missing)
    grid = Grid.of(dem)
    grid.require_metres(str(dem.name or "dem"))
    rules = Rules(
        grid,
        np.float32(min_depth_m),
        int(np.ceil(min_area_m2 / AREA_UNIT_M2)),
        _ALL_LEVELS if levels is None else levels,
    )
    is_outlet = nodata == "outlet"
    find = partial(find_sinks, rules=rules, void_is_outlet=is_outlet, missing=missing)
    found = _fill_and_find(array, fills, find) if level is None else _find(array, level, find)
    pours = map_beside(found, "sink-pours", share_edges, partial(collect, void_is_outlet=is_outlet))
    return _tabulate(pours, rules)


def waiting(levels: int = 1) -> tuple[str, ...]:
    """Name the tasks of `sink_regions` whose results wait for others; see `lakescale.store.Stages`."""
    stitches = ("sink-cells", "sinks") if levels == 1 else ("sink-cells", "sinks", "sink-regions")
    steps = (f"{name}-{step}" for name in stitches for step in ("summary", "contract", "pick"))
    rows = ("sink-rows-rest",) if levels == 1 else ("sink-rows-rest", "sink-rows")
    return (*steps, "sink-cells", "sink-pours-shared", "sink-pours", *rows)


def _check(min_depth_m: float, min_area_m2: float, levels: int | None) -> None:
    for option, least in (("min_depth_m", min_depth_m), ("min_area_m2", min_area_m2)):
        if not 0 <= least < np.inf:
            raise InputError(f"{option} must be 0 or more, got {least!r}", "sink_regions")
    if levels is not None and not (isinstance(levels, int) and levels >= 1):
        raise InputError(f"levels must be a whole number from 1 on, or None for all, got {levels!r}", "sink_regions")


def _tabulate(cells: Blocks, rules: Rules) -> dask_geopandas.GeoDataFrame:
    """Name the sinks of all chunks, then measure each where all of its cells are."""
    tree = Tree(partial(contract_seams, rules=rules), partial(expand_seams, rules=rules))
    how = Stitch("sinks", summarize, partial(solve_seams, rules=rules), name_sinks, tree=tree)
    rows, places = merge_tree(
        stitch(cells, how), Merge("sink-rows", crossing, deal, join, partial(_measure, rules=rules))
    )
    ready = rows
    if rules.levels > 1:
        ready = stitch(rows, Stitch("sink-regions", count_nested, _number, number_rows))
    keys = [(ready.name, *index) for index in ready.indices]
    meta = number_rows(make_rows(SinkCells.empty(), rules), _NONE_NESTED)
    frame: dask_geopandas.GeoDataFrame = to_frame(ready.graph, keys, meta, "sink-regions")
    boxes = [(p.col, p.row, p.col + p.width, p.row + p.height) for p in places]
    bounds = to_map(shapely.box(*np.array(boxes, float).T), rules.grid.transform)
    frame.spatial_partitions = gpd.GeoSeries(bounds, crs=rules.grid.crs)
    return frame


# -- cells


def _fill_and_find(dem: da.Array, fills: Stitch, find: Callable[..., Found]) -> Blocks:
    """Fill chunks and find their sinks in one task, so that what is filled never waits for anything."""
    apply = partial(_fill_block, fill=fills.apply, find=find)
    return stitch(with_least_chunks(dem, EDGE), fills._replace(name="sink-cells", apply=apply, placed=True))


def _fill_block(
    dem: NDArray[Any],
    answer: Any,
    place: Place,
    *,
    fill: Callable[..., NDArray[np.float32]],
    find: Callable[..., Found],
) -> Found:
    return find(fill(dem, answer), dem, place)


def _find(dem: da.Array, filled: da.Array, find: Callable[..., Found]) -> Blocks:
    """Find the sinks of chunks that are filled elsewhere."""
    # with keys of its own the DEM is read again here; else its chunks would wait in memory while the seams are solved
    again = read_again(dem, "sink-cells", after=Blocks.of(filled))
    return zip_blocks("sink-cells", find, *(with_least_chunks(one, EDGE) for one in (filled, again)))


# -- rows


def _measure(split: Split, *, rules: Rules) -> gpd.GeoDataFrame:
    rows = make_rows(split.complete, rules)
    return number_rows(rows, _NONE_NESTED) if rules.levels == 1 else rows


def _number(counts: list[list[Any]], _places: Any) -> list[list[NDArray[np.int64]]]:
    """Count nested rows on from the outermost ones, in the order of the sinks that hold them."""
    holders, nested, outermost = zip(*counts[0], strict=True)
    count = np.concatenate(nested)
    order = np.argsort(np.concatenate(holders))
    first = np.empty(len(count), np.int64)
    first[order] = sum(outermost) + 1 + np.cumsum(count[order]) - count[order]
    return [np.split(first, np.cumsum([len(k) for k in nested])[:-1])]
