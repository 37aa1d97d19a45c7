"""Depths of lakes from how much light their water swallows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale.chunks import Zones
from lakescale.evidence.sink_areas import AREA_UNIT_M2
from lakescale.evidence.volume_deal import deal_tables
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
from lakescale.evidence.water_depth_layers import bands, lid_array, same_chunks
from lakescale.evidence.water_depth_optics import (
    A_D,
    OPTICS,
    R_INF,
    SATURATED_M,
    G,
    Optics,
    choose_optics,
    find_depths,
    item_of,
)
from lakescale.evidence.water_depth_rings import NOTHING, Told, cut_rings, join_shown, look_at_rings, reach_of
from lakescale.evidence.zonal_cover import to_covering_pixels
from lakescale.evidence.zonal_deal import as_dask_frame, ask, find_blocks, find_blocks_round
from lakescale.grid import Grid
from lakescale.polygons import areas_m2
from lakescale.schema import BLUE, RED, InputError

if TYPE_CHECKING:
    import dask.array as da
    import dask_geopandas
    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray

KNOWN = "known"
"""Value of ``rt_reason`` for a lake whose depths are given; the others say why they are not."""
NO_POLYGON, NO_DEEP_WATER, NO_RING = "no polygon", "no deep water", "no ring"
DARK_FLOOR, NOT_SEEN, TOO_DEEP = "dark floor", "not seen", "too deep"
REASONS = (NO_POLYGON, NO_DEEP_WATER, NO_RING, DARK_FLOOR, NOT_SEEN, TOO_DEEP, KNOWN)
"""In this order; the first that holds is given."""

_MEASURED = ("rt_depth_mean_m", "rt_depth_max_m", "rt_volume_m3", "rt_censored_share", "rt_saturated_share",
             "rt_seen_share")  # fmt: skip
_BAND, _LEVEL, _REASON = "rt_band", "rt_product_level", "rt_reason"
_DEPTH_UNIT_M = 2.0**-16
_SHARE_DECIMALS = 6
_NOTHING = Totals.empty(4, 1)


def water_depth(
    scene: xr.DataArray,
    lakes: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame,
    *,
    band: str = RED,
    g: float | None = None,
    r_inf: float | None = None,
    a_d: float | None = None,
    ring_m: float = 30.0,
    lids: xr.DataArray | None = None,
) -> dask_geopandas.GeoDataFrame:
    """Compute depths and volumes of lakes from reflectance: radiative transfer after Sneed and Hamilton (2007).

    z = (ln(A_d - R_inf) - ln(R_w - R_inf)) / g for each pixel, with the reflectance R_w of the pixel, A_d of the lake's
    floor and R_inf of optically deep water. z below 0 is 0. A pixel as dark as deep water is censored: how deep it is
    cannot be told, so it counts in ``rt_censored_share`` alone. On five lakes of south-west Greenland red was up to
    63 % too low, green up to 153 % too high (Melling et al. 2024); an error of 0.05 in A_d is one of 0.13 m in red and
    0.75 m in green.

    Lazy, and the same bit for bit for any chunks and partitions, as `lakescale.lake_volumes`. The scene is read twice,
    first for the rings, unless both ``a_d`` and ``r_inf`` are given; all of its chunks where R_inf is estimated.

    Parameters
    ----------
    scene
        ``(band, y, x)`` of reflectance, NaN where not seen, as `lakescale.open_scene` gives it; a grid in metres. Cloud
        should be NaN. Published g and R_inf were set at the top of the atmosphere (L1C).
    lakes
        Polygons and MultiPolygons in the scene's CRS. Missing and empty geometry is allowed. Any index.
    band
        Name of the band.
    g
        1/m. None: by sensor and band; 0.8304 for red (Williamson et al. 2018) and 0.1413 for green of Sentinel-2, and
        0.1413 for green of Landsat 8 and 9 (Pope et al. 2016).
    r_inf
        None, for red alone: the darkest thousandth of the scene's water (NDWI_ice above 0.25, under no lid) is darker
        than this; at least 1000 pixels of it, and no more than 0.06 is taken for deep water. It needs red and blue.
    a_d
        None: for each lake the mean of a ring, a pixel wide, whose middle lies ``ring_m`` outside the outline; pixels
        of other lakes of the frame and what was not seen left out.
    ring_m
        On the ground.
    lids
        Bool ``(y, x)`` on the scene's grid, True where ice lies on the water: not measured.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        The same rows in the same order, the columns of ``lakes``, and (float64, NaN where not known)

        - ``rt_depth_mean_m``, ``rt_depth_max_m``, ``rt_volume_m3``: of the pixels that were seen, under no lid, and not
          censored, each by the true area of its part within the lake; the volume of the whole lake is no less;
        - ``rt_censored_share``: share of what was seen that is as dark as deep water; ``rt_saturated_share``: share of
          it that is that dark or, in red, deeper than 4 m: near 4 to 5 m red hardly changes;
        - ``rt_seen_share``: share of the lake that was seen, under no lid;
        - ``rt_a_d``, ``rt_r_inf``, ``rt_g``, and as text ``rt_band`` and ``rt_product_level``;
        - ``rt_reason``: ``known``, or why depths are not: ``no polygon``; ``no deep water`` (R_inf could not be
          estimated); ``no ring`` (nothing of it was seen); ``dark floor`` (A_d is not above R_inf); ``not seen``;
          ``too deep`` (all that was seen is censored).

    Raises
    ------
    InputError
        When the scene holds 8-bit numbers or any that are no reflectance, lacks the band, has a grid that is not in
        metres; when g is not known, R_inf of another band than red is not given or a number makes no sense; when lids
        are no mask on the scene's grid; for frames as `lakescale.lake_volumes`.
    """
    optics = choose_optics(scene, band, g=g, r_inf=r_inf, a_d=a_d)
    if not 0 <= ring_m < np.inf:
        raise InputError(f"ring_m must be metres, 0 or more, got {ring_m!r}", "water_depth", "for example 30")
    grid = Grid.of(scene)
    grid.require_metres(item_of(scene))
    asks_water, asks_rings = bool(np.isnan(optics.r_inf)), bool(np.isnan(optics.a_d))
    covers = lid_array(lids, grid)
    source = as_dask_frame(lakes, [*_MEASURED, *OPTICS, _BAND, _LEVEL, _REASON], grid)
    beside = same_chunks(*bands(scene, [band, *([RED, BLUE] if asks_water else [])]), *(covers if asks_water else []))
    rings = Zones(
        "lake-rings",
        partial(cut_rings, grid=grid, ring_m=float(ring_m)),
        partial(deal_tables, by="reach"),
        partial(look_at_rings, grid=grid, asks_rings=asks_rings, asks_water=asks_water),
        join_shown,
        partial(_attach_optics, optics=optics),
    )
    known = ask(source, beside, rings, _ring_blocks(lakes, grid, beside[0], (ring_m, asks_rings, asks_water)), NOTHING)
    pixels = same_chunks(*bands(scene, [band]), *covers)
    depths = Zones(
        "lake-depths",
        partial(_cut_lakes, grid=grid),
        partial(deal_tables, by="polygons"),
        partial(measure_lakes, grid=grid, weigh=partial(_weigh, optics=optics), nothing=_NOTHING),
        partial(join_totals, nothing=_NOTHING),
        _attach_depths,
    )
    return ask(known, pixels, depths, find_blocks(lakes, grid, pixels[0]), _NOTHING)


# -- depths


def _ring_blocks(lakes: Any, grid: Grid, array: da.Array, asked: tuple[float, bool, bool]) -> Any:
    """List the blocks to ask about rings and water; None for all."""
    ring_m, asks_rings, asks_water = asked
    if asks_water:
        return None
    if not asks_rings:
        return []
    return find_blocks_round(lakes, partial(reach_of, ring_m=ring_m, grid=grid), grid, array)


def _attach_optics(part: gpd.GeoDataFrame, told: Told, *, optics: Optics) -> gpd.GeoDataFrame:
    a_d = np.full(len(part), optics.a_d)
    if np.isnan(optics.a_d):
        a_d[told.row] = told.a_d
    r_inf = told.r_inf if np.isnan(optics.r_inf) else optics.r_inf
    numbers: dict[str, Any] = dict.fromkeys(_MEASURED, np.nan) | {A_D: a_d, R_INF: r_inf, G: optics.g}
    texts = {_BAND: optics.band, _LEVEL: optics.level, _REASON: KNOWN}
    columns = {name: np.broadcast_to(value, len(part)).astype(np.float64) for name, value in numbers.items()}
    return part.assign(**columns, **{name: np.full(len(part), text, object) for name, text in texts.items()})


def _cut_lakes(part: gpd.GeoDataFrame, *, grid: Grid) -> Lakes:
    polygons = to_covering_pixels(part.geometry.to_numpy(), grid.transform)
    return Lakes(np.arange(len(part)), polygons, part[[A_D, R_INF]].to_numpy(np.float64).T)


def _weigh(cells: Cells, pixels: list[NDArray[Any]], *, optics: Optics) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Weigh cells: volume, area that was seen, the part of it that is censored, and saturated; and greatest depths."""
    band, seen, *lids = (block[cells.at.row, cells.at.col] for block in pixels)
    usable = seen & ~np.isnan(band) & ~(lids[0] if lids else np.zeros(len(band), bool))
    depth = find_depths(band, cells.numbers[0], cells.numbers[1], optics.g)
    # a logarithm may differ in its last digit from one machine to the next
    depth = np.rint(np.where(usable, depth, np.nan) / _DEPTH_UNIT_M) * _DEPTH_UNIT_M
    told, censored = np.isfinite(depth), np.isinf(depth)
    finite = np.where(told, depth, 0)
    areas = (usable, censored, censored | (finite > SATURATED_M.get(optics.band, np.inf)))
    sums = np.stack([volume_units(finite, cells), *(area_units(chosen, cells) for chosen in areas)])
    return sums, np.where(told, finite / _DEPTH_UNIT_M, -1).astype(np.int64)[None]


def _attach_depths(part: gpd.GeoDataFrame, totals: Totals) -> gpd.GeoDataFrame:
    sums, largest = np.zeros((len(_NOTHING.sums), len(part)), np.int64), np.full(len(part), -1)
    sums[:, totals.row], largest[totals.row] = totals.sums, totals.largest[0]
    volume, (seen, censored, saturated) = sums[0] * VOLUME_UNIT_M3, sums[1:] * AREA_UNIT_M2
    reason = _judge(part, seen, largest)
    known, there = reason == KNOWN, reason != NO_POLYGON
    whole = np.full(len(part), np.nan)
    whole[there] = areas_m2(part.geometry[there])
    told = known | (reason == TOO_DEEP)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = {
            "rt_depth_mean_m": np.where(known, volume / (seen - censored), np.nan),
            "rt_depth_max_m": np.where(known, largest * _DEPTH_UNIT_M, np.nan),
            "rt_volume_m3": np.where(known, volume, np.nan),
            "rt_censored_share": np.where(told, np.round(censored / seen, _SHARE_DECIMALS), np.nan),
            "rt_saturated_share": np.where(told, np.round(saturated / seen, _SHARE_DECIMALS), np.nan),
            "rt_seen_share": np.round(np.minimum(seen / whole, 1), _SHARE_DECIMALS),
        }
    return part.assign(**columns, **{_REASON: reason})


def _judge(part: gpd.GeoDataFrame, seen: NDArray[np.float64], largest: NDArray[np.int64]) -> NDArray[Any]:
    polygons = part.geometry
    a_d, r_inf = part[A_D].to_numpy(), part[R_INF].to_numpy()
    cases = [
        (polygons.isna() | polygons.is_empty).to_numpy(),
        np.isnan(r_inf),
        np.isnan(a_d),
        ~(a_d > r_inf),
        seen <= 0,
        largest < 0,
    ]
    return np.select(cases, REASONS[:-1], KNOWN).astype(object)
