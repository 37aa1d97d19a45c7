"""Ice and snow on lakes: what ground that held water shows now, told by how it looks beside the ice round it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from lakescale.chunks import Zones
from lakescale.evidence.lid_looks import (
    LAYERS,
    NOTHING,
    boxes_round,
    brightness,
    cut_ground,
    look_at_ground,
    look_at_rings,
    looks_of,
    spread,
    tint,
)
from lakescale.evidence.sink_areas import AREA_UNIT_M2
from lakescale.evidence.volume_deal import deal_tables
from lakescale.evidence.volume_sums import Lakes, Totals, join_totals
from lakescale.evidence.zonal_cover import to_covering_pixels
from lakescale.evidence.zonal_deal import as_dask_frame, ask, find_blocks, find_blocks_round, split_parts
from lakescale.evidence.zonal_layers import as_array
from lakescale.evidence.zonal_sums import Sums
from lakescale.grid import Grid
from lakescale.polygons import areas_m2
from lakescale.scene import seen_mask
from lakescale.schema import BAND, BLUE, RED, InputError

if TYPE_CHECKING:
    import dask.array as da
    import dask_geopandas
    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray

OPEN, LID, SNOW, GROUND, NOT_SEEN = "open", "lid", "snow", "ground", "not seen"
"""Values of ``cover``."""
MIN_SEEN = 0.5
"""Ground of which less was seen tells nothing."""
MIN_OPEN_PIXELS = 5
"""Fewer pixels of open water have no shape."""
LID_EXCESS = 0.15
"""Open water spreads over this share of the ground more than it fills, where ice floats in it. On synthetic lakes: open
ones 0.02 (median) and 0.10 (the highest twentieth), also those that are half drained; those with lids 0.39."""
LID_OPEN = 0.01
"""Fewer gaps than this share tell no lid. Of 157 synthetic lids that spread so far four had fewer."""
LID_DEEP = 0.1
"""Share of the open pixels that show water deeper than slush: with less it is no lid, but slush on a dry floor. Of 153
synthetic lids all but one have 0.14 or more, of 29 dry floors with scattered slush all but one have none."""
OPEN_SHARE = 0.1
"""Ground with less open water is bare, or covered."""
SNOW_ROUGHNESS, SNOW_BRIGHTNESS = 0.04, 0.96
"""Snow on a flat lid is even: deviation over mean of red at most, and red beside that of the ring at least. Lids under
snow have 0.010 to 0.024 and 1.04 or more on synthetic lakes, 0.020 to 0.032 and 0.98 to 1.02 on the Amery Ice Shelf;
of floors of synthetic lakes that drained the even ones (0.034 to 0.04) have 0.90 to 0.94."""
WHITE_SNOW, SNOW_TINT = 1.06, 0.01
"""What is so much brighter than the ring, and no bluer, is snow, even or not: the outline of a lake may take in ice
beside it. Lids under snow in wide outlines have 1.09 and more and -0.09 to 0.009 but for three lakes; the floors of
synthetic lakes that are as bright are bluer, 0.013 to 0.032."""
BRIGHT_SNOW = 1.3
"""What is so much brighter is snow, whatever its tint: three lids under snow have 1.38 to 1.55 and 0.017 to 0.021; so
does one of some 150 floors."""

_RING = ("ring_red", "ring_blue")
_SHARES = ("ground_seen_share", "open_share", "deep_share", "spread_share", "brightness", "roughness", "tint")
_COVER = "cover"
_DECIMALS = 6


def assess_lids(scene: xr.DataArray, ground: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame) -> Any:
    """Tell of ground that holds lakes on other dates whether it shows water, a lid of ice, snow, or neither.

    What a pixel shows is judged beside the ice round the ground: a ring 30 to 80 m outside its outline, where there is
    none of the other polygons. So 8-bit RGB serves as well as reflectance, as long as its numbers grow with the light.
    A pixel is open water where it is bluer than that ring: (b - r) / (b + r) > 0.08, with blue and red each over the
    ring's mean. Then, in this order, the ground is

    - ``not seen``, where less than half of it was, or nothing of its ring;
    - ``snow``, where less than a tenth is open water and the rest is even (standard deviation of red at most 0.04 of
      the mean) and not darker than 0.96 of the ring, or is bright: above 1.06 of it and no bluer (the number above
      at most 0.01), or above 1.3. Flat snow may hide water;
    - ``lid``, where open water lies scattered over it: its pixels, a hundredth at least, spread over a share of the
      ground (square root of the ratio of the determinants of both covariances) that is by 0.15 larger than the share
      that they fill, and a tenth of them is water deeper than slush, with a number above of 0.2 and more. What is left
      of a lake that drains is a pool in one place, and slush on a dry floor lies scattered, but is never that blue;
    - ``snow`` again, where less than a tenth is such deeper water, and the rest is bright;
    - ``open``, where a tenth is open water;
    - ``ground``: dry, or under grey ice with hardly a gap, which nothing in these bands tells from a drained floor.

    Lazy, and the same bit for bit for any chunks and partitions: sums are whole numbers. Only the chunks that polygons
    and their rings meet are read, twice.

    Parameters
    ----------
    scene
        ``(band, y, x)`` with red and blue, as `lakescale.open_scene` gives it; a grid in metres.
    ground
        Polygons in its CRS, such as the basins of `lakescale.track`. Any index.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        The same rows, and ``ground_seen_share``; of what was seen ``open_share``, of its pixels ``deep_share``;
        ``spread_share``; ``brightness``, ``roughness`` and ``tint`` of what is not open (NaN where they are not
        known); ``ring_red``, ``ring_blue``; ``cover``.

    Raises
    ------
    InputError
        When the scene lacks red or blue, its grid is not in metres; for frames as `lakescale.polygon_evidence`.
    """
    arrays, grid = _bands(scene)
    source = as_dask_frame(ground, [*_RING, *_SHARES, _COVER], grid)
    rings = Zones(
        "lid-rings",
        partial(cut_ground, grid=grid),
        partial(deal_tables, by="reach"),
        partial(look_at_rings, grid=grid),
        _join_rings,
        _attach_rings,
    )
    near = find_blocks_round(ground, partial(boxes_round, grid=grid), grid, arrays[0])
    ringed = ask(source, arrays, rings, near, Sums.empty(len(LAYERS)))
    looks = Zones(
        "lid-looks",
        partial(_cut_shapes, grid=grid),
        partial(deal_tables, by="polygons"),
        partial(look_at_ground, grid=grid),
        partial(join_totals, nothing=NOTHING),
        _attach_looks,
    )
    return ask(ringed, arrays, looks, find_blocks(ground, grid, arrays[0]), NOTHING)


def _bands(scene: xr.DataArray) -> tuple[list[da.Array], Grid]:
    item = str(scene.attrs.get("source", scene.name or "scene"))
    there = [str(name) for name in np.atleast_1d(scene[BAND].values)] if BAND in scene.dims else []
    if lacking := [name for name in (RED, BLUE) if name not in there]:
        raise InputError(f"lids are told by red and blue, the scene has no {lacking[0]}", item, "give these bands")
    grid = Grid.of(scene)
    grid.require_metres(item)
    pair = scene.isel({BAND: [there.index(name) for name in (RED, BLUE)]})
    red, blue = (as_array(pair.isel({BAND: k}), name) for k, name in enumerate((RED, BLUE)))
    return [red, blue.rechunk(red.chunks), as_array(seen_mask(pair), "seen").rechunk(red.chunks)], grid


def _join_rings(answers: list[Sums], parts: int) -> list[Sums]:
    return split_parts(Sums.join(answers, len(LAYERS)), parts)


def _attach_rings(part: gpd.GeoDataFrame, sums: Sums) -> gpd.GeoDataFrame:
    columns = {name: np.full(len(part), np.nan) for name in _RING}
    for column, mean in zip(columns.values(), sums.means(), strict=True):
        column[sums.row] = np.where(mean > 0, mean, np.nan)
    return part.assign(**columns)


def _cut_shapes(part: gpd.GeoDataFrame, *, grid: Grid) -> Lakes:
    polygons = to_covering_pixels(part.geometry.to_numpy(), grid.transform)
    left, top, _, _ = shapely.bounds(polygons).T.reshape(4, -1)
    corner = np.nan_to_num(np.floor([top, left]))
    return Lakes(np.arange(len(part)), polygons, np.concatenate([part[list(_RING)].to_numpy(np.float64).T, corner]))


def _attach_looks(part: gpd.GeoDataFrame, totals: Totals) -> gpd.GeoDataFrame:
    sums = np.zeros((len(NOTHING.sums), len(part)), np.int64)
    sums[:, totals.row] = totals.sums
    looks = looks_of(sums)
    there = ~(part.geometry.isna() | part.geometry.is_empty).to_numpy()
    whole = np.full(len(part), np.nan)
    whole[there] = areas_m2(part.geometry[there])
    has_ring = part[list(_RING)].notna().all(axis=1).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = np.nan_to_num(np.minimum(looks.seen * AREA_UNIT_M2 / whole, 1))
        share = np.where(has_ring, looks.open / looks.seen, np.nan)
        deep = np.where(has_ring, looks.deep / looks.open_moments[0], np.nan)
        over = np.minimum(spread(looks.open_moments) / spread(looks.all_moments), 1)
    over = np.where(looks.open_moments[0] >= MIN_OPEN_PIXELS, over, np.nan)
    bright, rough, blue = (np.where(has_ring, one, np.nan) for one in (*brightness(looks), tint(looks)))
    figures = (seen, share, deep, over, bright, rough, blue)
    found = dict(zip(_SHARES, (np.round(one, _DECIMALS) for one in figures), strict=True))
    return part.assign(**found, **{_COVER: _judge(found, has_ring)})


def _judge(found: dict[str, NDArray[np.float64]], has_ring: NDArray[np.bool_]) -> NDArray[Any]:
    seen, share, deep, over, bright, rough, blue = (found[name] for name in _SHARES)
    is_even = (rough <= SNOW_ROUGHNESS) & (bright >= SNOW_BRIGHTNESS)
    is_bright = (bright >= BRIGHT_SNOW) | ((bright >= WHITE_SNOW) & (blue <= SNOW_TINT))
    cases = [
        (NOT_SEEN, (seen < MIN_SEEN) | ~has_ring | np.isnan(share)),
        (SNOW, (share < OPEN_SHARE) & (is_even | is_bright)),
        (LID, (share >= LID_OPEN) & (deep >= LID_DEEP) & (over - share >= LID_EXCESS)),
        (SNOW, (share * np.nan_to_num(deep) < OPEN_SHARE) & is_bright),
        (OPEN, share >= OPEN_SHARE),
    ]
    return np.select([where for _, where in cases], [name for name, _ in cases], GROUND).astype(object)
