"""Volumes of lakes from elevations of their dry beds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale.chunks import Zones
from lakescale.depressions import as_dem_array, as_elevation, declared_nodata
from lakescale.evidence.levels import (
    INNER,
    OUTER,
    OUTLINE,
    Levels,
    cut_outlines,
    join_seen,
    survey_block,
)
from lakescale.evidence.sink_areas import AREA_UNIT_M2
from lakescale.evidence.volume_deal import deal_tables
from lakescale.evidence.volume_outlines import move_outlines
from lakescale.evidence.volume_rules import KNOWN, MIN_WET_SHARE, NO_BASIN, VolumeRules, judge, read_days
from lakescale.evidence.volume_sums import (
    VOLUME_UNIT_M3,
    Cells,
    Lakes,
    Totals,
    area_units,
    join_totals,
    measure_lakes,
    volume_units,
)
from lakescale.evidence.zonal_cover import to_covering_pixels
from lakescale.evidence.zonal_deal import as_dask_frame, ask, find_blocks, find_blocks_round
from lakescale.evidence.zonal_layers import as_array
from lakescale.grid import Grid
from lakescale.schema import InputError
from lakescale.store import same_grid

if TYPE_CHECKING:
    import dask.array as da
    import dask_geopandas
    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray

_COLUMNS = (
    "level_m", "level_low_m", "level_high_m", "volume_m3", "volume_low_m3", "volume_high_m3", "depth_mean_m",
    "depth_max_m", "void_share", "flat_share",
)  # fmt: skip
_DATE, _REASON = "dem_date", "volume_reason"
_SHARE_DECIMALS = 6
_NOTHING = Totals.empty(6, 0)


def lake_volumes(  # noqa: PLR0913 - keyword-only options
    lakes: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame,
    dem: xr.DataArray,
    *,
    dem_date: Any = None,
    outline_depth_m: float = 0.0,
    outline_error_m: float = 10.0,
    dem_error_m: float = 0.5,
    sinks: xr.DataArray | None = None,
    flat_m: float = 0.1,
    max_void_share: float = 0.1,
) -> dask_geopandas.GeoDataFrame:
    """Compute what lakes hold from their outlines and the elevation of their dry beds.

    The level of a lake is the median elevation along its outline, each cell by the length of the outline in it, and the
    depth of water there. (An outline along the edges of cells lies half in those inside and half in those outside: the
    level is between them.)
    The volume is the sum over its cells of level minus elevation where that is above 0, times the true area of the part
    of the cell that the lake covers. It cannot be known where the DEM does not show the bed: over a lake that was full
    when the DEM was made it holds the water's surface, or a void.

    Lazy, and the same bit for bit for any chunks and partitions: sums are whole numbers (each cell's volume in units of
    2**-16 m3). The DEM is read twice, first for the levels. Of a frame in memory only the chunks that a lake meets are
    read. A task holds one chunk, its sink depths, 8 bytes a cell for areas and the lakes that meet it; of lakes that
    several chunks share, 20 bytes for each cell along the outline go to one task.

    Parameters
    ----------
    lakes
        Polygons and MultiPolygons in the DEM's CRS, one row a lake with one level; exterior rings are its shore, holes
        are no part of it. Missing and empty geometry is allowed. Any index.
    dem
        ``(y, x)``, m, see `lakescale.fill_depressions`; a grid in metres.
    dem_date
        Day on which the DEM was imaged, or its first and last day. None: those in its ``attrs``, as
        `lakescale.open_dem` gives them. It goes into a column; and where it spans at most 31 days, the volume of a lake
        whose ``time`` (a column of ``lakes``) is within 3 days of it is not known: its water stood there.
    outline_depth_m
        How deep water is along the outline: a rule on color or an index sees no shallower water, so that its outlines
        lie within the shore. By so much the level lies above the elevation along the outline. (The volume between
        outline and shore is left out: a share of its square.)
    outline_error_m
        How far the outline may be off, on the ground. The level's interval is that along outlines moved so far inwards
        and outwards; one that vanishes has its lowest cell for a level.
    dem_error_m
        How far the level may be off against the bed, for the errors of the DEM; added to the other in quadrature.
        An error that shifts both does not matter.
    sinks
        Sink depths of this DEM (`lakescale.sink_depth`), on its grid: then levels above the spill elevation of the
        lake's lowest cell are told.
    flat_m
        Standard deviation of the DEM's noise over water. A lake counts as flat where 30 % of it or more lie within a
        window of elevations so wide (of a level surface 38 % do): the DEM holds water there, which on 30 % of a bowl
        hides 9 % of what it holds. Dry beds of less than about 5 times this depth are told from no water either.
    max_void_share
        Largest share of a lake without elevation for which a volume is given.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        The same rows in the same order, the columns of ``lakes``, and (float64, NaN where not known)

        - ``level_m``, ``level_low_m``, ``level_high_m``: elevation of the surface in the DEM's datum, with its
          interval; given wherever half of the outline has elevations;
        - ``volume_m3``, ``volume_low_m3``, ``volume_high_m3``: at these levels, within the outline. Voids hold nothing,
          but the greatest depth in ``volume_high_m3``;
        - ``depth_mean_m``: volume by the true area with elevations, islands too; ``depth_max_m``;
        - ``void_share``: share of the lake without elevation; ``flat_share``: the largest share of it, of the part with
          elevation, within ``flat_m``;
        - ``dem_date``: ``2019-07-01``, ``2012-06-01/2019-08-31`` or ``unknown``;
        - ``volume_reason``: ``known``, or why the volume is not: ``no polygon``; ``beyond the DEM`` (in part);
          ``voids`` (more than ``max_void_share``, or half of the outline); ``wet when imaged``; ``flat``; ``above
          spill`` (``level_low_m`` is higher than water can stand there); ``no basin`` (less than half of it lies below
          its level).

    Raises
    ------
    InputError
        When the frame has no CRS or another one, holds other geometry than valid polygons or has such columns; when the
        DEM is not ``(y, x)`` of numbers or its grid not in metres; when the sinks are no floats on its grid, a date
        cannot be read or a number makes no sense. While computing: elevations of a million metres or more.

    Examples
    --------
    >>> import geopandas as gpd, numpy as np, shapely, xarray as xr
    >>> y, x = np.mgrid[450:-500:-100, -450:500:100].astype(np.float32)
    >>> axes = {"y": y[:, 0] - 2e6, "x": x[0]}
    >>> bowl = xr.DataArray((x**2 + y**2) / 1e4, axes, ("y", "x")).odc.assign_crs("EPSG:3413").chunk(y=4, x=3)
    >>> lakes = gpd.GeoDataFrame(geometry=[shapely.Point(0, -2e6).buffer(300)], crs=3413)
    >>> found = lake_volumes(lakes, bowl, flat_m=0.5).compute()
    >>> found[["level_m", "depth_max_m", "volume_reason"]].round(1).to_string(index=False).splitlines()[1].split()
    ['8.5', '8.0', 'known']
    """
    grid, array = Grid.of(dem), as_dem_array(dem, "DEM")
    grid.require_metres("dem" if dem.name is None else str(dem.name))
    rules = VolumeRules(
        grid, outline_depth_m, outline_error_m, dem_error_m, flat_m, max_void_share,
        declared_nodata(dem), read_days(dem_date, dem),
    )  # fmt: skip
    source = as_dask_frame(lakes, [*_COLUMNS, _DATE, _REASON], grid)
    arrays = [array, *_sink_array(sinks, grid, array)]
    level = Zones(
        "lake-levels",
        partial(cut_outlines, rules=rules),
        partial(deal_tables, by="outer"),
        partial(survey_block, rules=rules),
        join_seen,
        partial(_attach_levels, rules=rules),
    )
    outwards = partial(move_outlines, distance_m=outline_error_m, crs=grid.crs)
    levelled = ask(source, arrays, level, find_blocks_round(lakes, outwards, grid, array), join_seen([], 1)[0])
    volume = Zones(
        "lake-volumes",
        partial(_cut_known, grid=grid),
        partial(deal_tables, by="polygons"),
        partial(measure_lakes, grid=grid, weigh=partial(_weigh, missing=rules.missing), nothing=_NOTHING),
        partial(join_totals, nothing=_NOTHING),
        _attach_volumes,
    )
    return ask(levelled, [array], volume, find_blocks(lakes, grid, array), _NOTHING)


# -- arguments


def _sink_array(sinks: xr.DataArray | None, grid: Grid, array: da.Array) -> list[da.Array]:
    if sinks is None:
        return []
    depth = as_array(sinks, "sinks")
    if depth.dtype.kind != "f":
        raise InputError(
            f"sinks must be depths in metres, got {sinks.dtype}", "sinks", "give lakescale.sink_depth(dem)"
        )
    if not same_grid(Grid.of(sinks), grid):
        raise InputError("sinks and DEM on different grids", "sinks", "give lakescale.sink_depth(dem)")
    return [depth.rechunk(array.chunks)]


# -- levels


def _attach_levels(part: gpd.GeoDataFrame, levels: Levels, *, rules: VolumeRules) -> gpd.GeoDataFrame:
    """Give each lake its level, and say whether its volume can be known."""
    low, level, high = (one + rules.outline_depth_m for one in _interval(levels, rules.dem_error_m))
    told = {
        "level_m": level,
        "level_low_m": low,
        "level_high_m": high,
        "depth_max_m": np.maximum(level - levels.pit, 0),
        "void_share": np.round(levels.void / levels.covered, _SHARE_DECIMALS),
        "flat_share": np.round(levels.flat / np.maximum(levels.covered - levels.void, 1), _SHARE_DECIMALS),
    }
    found, spill = {name: np.full(len(part), np.nan) for name in _COLUMNS}, np.full(len(part), np.nan)
    for name, value in told.items():
        found[name][levels.row] = value
    spill[levels.row] = levels.spill
    reason = judge(part, found, spill, rules)
    found["depth_max_m"][reason != KNOWN] = np.nan
    return part.assign(**found, **{_DATE: np.full(len(part), rules.date, object), _REASON: reason})


def _interval(levels: Levels, dem_error_m: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    level = levels.level[OUTLINE]
    inner = np.where(np.isnan(levels.level[INNER]), levels.pit, levels.level[INNER])
    fall = np.maximum(level - inner, 0)
    rise = np.maximum(levels.level[OUTER] - level, 0)
    rise = np.where(np.isnan(rise), fall, rise)  # what lies outside has no elevation
    return level - np.hypot(fall, dem_error_m), level, level + np.hypot(rise, dem_error_m)


# -- volumes


def _cut_known(part: gpd.GeoDataFrame, *, grid: Grid) -> Lakes:
    polygons = to_covering_pixels(part.geometry.to_numpy(), grid.transform)
    polygons[(part[_REASON] != KNOWN).to_numpy()] = None
    levels = part[["level_low_m", "level_m", "level_high_m"]].to_numpy(np.float64).T
    return Lakes(np.arange(len(part)), polygons, levels)


def _weigh(
    cells: Cells, pixels: list[NDArray[Any]], *, missing: tuple[float, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Weigh cells: their volumes at the three levels; areas with elevation, without, and below the lake's level."""
    elevation = as_elevation(pixels[0][cells.at.row, cells.at.col], missing).astype(np.float64)
    void = np.isnan(elevation)
    volumes = [volume_units(np.where(void, 0, np.maximum(level - elevation, 0)), cells) for level in cells.numbers]
    areas = (~void, void, elevation < cells.numbers[1])
    sums = np.stack([*volumes, *(area_units(chosen, cells) for chosen in areas)])
    return sums, np.empty((0, sums.shape[1]), np.int64)


def _attach_volumes(part: gpd.GeoDataFrame, totals: Totals) -> gpd.GeoDataFrame:
    sums = np.zeros((len(_NOTHING.sums), len(part)), np.int64)
    sums[:, totals.row] = totals.sums
    with_data, void, wet = sums[3:] * AREA_UNIT_M2
    reason = part[_REASON].to_numpy(object)
    reason = np.where((reason == KNOWN) & (wet < MIN_WET_SHARE * with_data), NO_BASIN, reason)
    known = reason == KNOWN
    low, volume, high = np.where(known, sums[:3] * VOLUME_UNIT_M3, np.nan)
    deepest = (part.depth_max_m + (part.level_high_m - part.level_m)).to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = volume / with_data
    columns = {"volume_low_m3": low, "volume_m3": volume, "volume_high_m3": high + void * deepest}
    depth_max = part.depth_max_m.where(known)
    return part.assign(**columns, depth_mean_m=mean, depth_max_m=depth_max, **{_REASON: reason})
