"""Synthetic regions: scenes of any size, their DEM, ice and true lakes, lazily and from absolute coordinates."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, floor
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import rioxarray  # noqa: F401  (gives rasters their .rio)
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from lakescale.grid import Grid
from lakescale.schema import BAND, BLUE, GREEN, RED, SEEN, TIME, InputError, X, Y
from lakescale.synthetic.lazy import Classes, Drawing, Heights, Labels, Picture, Seen, lazy
from lakescale.synthetic.scenery import Block, Scenery
from lakescale.synthetic.vectors import outline_ice, outline_lakes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd

    from lakescale.kernels.terrain import Land

CRS = "EPSG:3413"
ANCHOR_XY = (-210_000.0, -2_480_000.0)
"""Where all synthetic land is counted from, m: south-west Greenland, near 67 N, 50 W."""
DATES = ("2019-06-19", "2019-07-08", "2019-07-28", "2019-08-20")
BANDS = (BLUE, GREEN, RED, "nir", "swir1", "cirrus")
CLASSES = (
    "not seen", "ice", "snow", "slush", "stream", "water", "lid", "rock", "tundra water", "shadow", "cloud",
)  # fmt: skip
"""Names of the classes of `Region.classes`, by their values from 0."""
_SURFACES, _KINDS = ("bed", "arcticdem"), ("reflectance", "rgb8")
_COARSEST_M, _FINEST_M, _MOST_M = 100.0, 2.0, 4_000_000
_SIDE, _SIDES = 2048, 2


@dataclass(frozen=True)
class Region:
    """A window of an endless synthetic land; what a pixel shows follows from the seed and from where it lies.

    Every raster is lazy, the same bit for bit for any chunks, and equal to the same window of a larger region.
    """

    height: int
    """Rows."""
    width: int
    """Columns."""
    row: int = 0
    """Row of the first pixel, from `ANCHOR_XY`."""
    col: int = 0
    seed: int = 0
    resolution_m: float = 10.0
    dates: tuple[dt.date, ...] = ()
    """Days of the season; a scene may be asked of any day."""
    scenery: Scenery = field(default_factory=Scenery)

    @cached_property
    def grid(self) -> Grid:
        """EPSG:3413, north up."""
        return self._grid(self._block, self.resolution_m)

    @property
    def land(self) -> Land:
        """What the kernels make the land from."""
        return self.scenery.land(self.seed)

    def window(self, rows: slice, cols: slice) -> Region:
        """Cut out a window, by slices of rows and columns within the region; the land is the same."""
        (top, bottom, down), (left, right, along) = rows.indices(self.height), cols.indices(self.width)
        if bottom <= top or right <= left or (down, along) != (1, 1):
            mend = "give slices within the region, without a step"
            raise InputError("a window without pixels, or with gaps", f"rows {rows}, columns {cols}", mend)
        return replace(self, height=bottom - top, width=right - left, row=self.row + top, col=self.col + left)

    def scene(self, date: Any, *, kind: str = "reflectance", chunks: Any = _SIDE) -> xr.DataArray:
        """Picture the region on a day, as `lakescale.open_scene` would open it.

        Parameters
        ----------
        date
            ISO text, date or datetime64; one of ``dates`` or any other.
        kind
            ``reflectance``: float32 (band, y, x) blue, green, red, nir, swir1, cirrus, top of atmosphere, NaN where
            not seen. ``rgb8``: uint8 red, green, blue, stretched linearly so that 255 is a reflectance of 0.85;
            0 where not seen, 1 at least elsewhere.
        chunks
            As dask has them for ``(y, x)``.

        Raises
        ------
        InputError
            An unknown kind, or a date that cannot be read.
        """
        if kind not in _KINDS:
            raise InputError(f"there is no scene of kind {kind!r}", "kind", f"choose one of {', '.join(_KINDS)}")
        names = list(BANDS) if kind == "reflectance" else [RED, GREEN, BLUE]
        day = parse_day(date)
        picture = Picture(self._block, day, self.land, self.scenery, kind)
        scene = self._wrap(picture, chunks, "scene", {BAND: names}).assign_coords({TIME: np.datetime64(day, "ns")})
        attrs = {
            "source": f"synthetic seed={self.seed} row={self.row} col={self.col}",
            "sensor": "synthetic",
            "product_level": "L1C",
            "scale": 1.0,
            "offset": 0.0,
            "radiometry": kind,
            "radiometry_source": "lakescale.synthetic",
            "date_source": "the date= argument",
        }
        return scene.assign_attrs(attrs | ({"nodata_values": [0]} if kind == "rgb8" else {}))

    def dem(self, *, surface: str = "bed", resolution_m: float | None = None, chunks: Any = _SIDE) -> xr.DataArray:
        """Heights, float32 ``(y, x)`` m above the ellipsoid, NaN where void.

        Parameters
        ----------
        surface
            ``bed``: all basins dry, no voids. ``arcticdem``: as mosaics of summer stereo pairs have it: nearly half of
            the basins hold the level surface of a lake of some other year, a third of these are void over the
            lake, and there are a few other voids.
        resolution_m
            Metres a pixel, 2 to 100; the region's by default. Heights are points at pixel centres, not means; the
            grid starts at a multiple of the resolution from the anchor and covers the region.
        chunks
            As dask has them for ``(y, x)``.
        """
        if surface not in _SURFACES:
            raise InputError(f"there is no surface {surface!r}", "dem", f"choose one of {', '.join(_SURFACES)}")
        step = self.resolution_m if resolution_m is None else _checked_resolution(resolution_m)
        block = self._block_at(step)
        heights = Heights(block, self.land, surface, self.resolution_m)
        attrs = {"units": "m", "source": f"synthetic seed={self.seed}", "surface": surface}
        return self._wrap(heights, chunks, "dem").assign_attrs(attrs)

    def classes(self, date: Any, *, chunks: Any = _SIDE) -> xr.DataArray:
        """Tell what each pixel shows on a day: uint8 ``(y, x)``, see `CLASSES`; cloud and shadow hide the rest."""
        made = Classes(self._block, parse_day(date), self.land, self.scenery)
        return self._wrap(made, chunks, "classes").assign_attrs(flag_meanings=", ".join(CLASSES))

    def truth(self, date: Any, *, chunks: Any = _SIDE) -> xr.DataArray:
        """Label the true lakes of a day: int32 ``(y, x)``, the basin's id, 0 elsewhere.

        Lids and islands belong to the lake, as the Cup had it; so do lakes under cloud or outside the swath, and
        those that ice and snow cover wholly. Ids are the same on all dates, and neither dense nor in raster order.
        """
        return self._wrap(Labels(self._block, parse_day(date), self.land), chunks, "truth")

    def seen(self, date: Any, *, chunks: Any = _SIDE) -> xr.DataArray:
        """Tell the pixels that a day's swath holds: bool ``(y, x)``; what is under cloud is seen, too."""
        return self._wrap(Seen(self._block, parse_day(date), self.land, self.scenery), chunks, SEEN)

    def lakes(self, date: Any) -> gpd.GeoDataFrame:
        """Outline the true lakes of a day, cut to the region; computed here, in about 2 ms a basin.

        Returns
        -------
        geopandas.GeoDataFrame
            One row a label of `truth`, by ``lake_id``: ``time``; ``state``: ``open``, ``partly lidded`` or ``lidded``
            (all of it under ice and snow: no open water, no lake by the Cup's rules); ``area_m2`` (true); of the whole
            lake ``depth_max_m`` and ``volume_m3`` (in areas of the map), ``level_m`` and ``spill_m``; ``lid_share``
            of its water; ``fate`` of that year; ``clear_share`` of its pixels, seen and under no opaque cloud;
            ``geometry``, a Polygon, or a MultiPolygon of parts that meet at corners.
        """
        return outline_lakes(self._block, self.grid, parse_day(date), self.land, self.scenery)

    def ice_outline(self) -> gpd.GeoDataFrame:
        """Outline the ice, without the land beyond its margin and nunataks, in steps of four pixels; computed here."""
        block = self._block_at(4 * self.resolution_m)
        return outline_ice(block, self._grid(block, block.step), self.land, self.grid)

    @property
    def _block(self) -> Block:
        return Block(self.row, self.col, self.height, self.width, self.resolution_m)

    def _block_at(self, step: float) -> Block:
        """Find the pixels of another size that cover the region."""
        if step == self.resolution_m:
            return self._block
        ratio = self.resolution_m / step
        top, left = floor(self.row * ratio), floor(self.col * ratio)
        bottom, right = ceil((self.row + self.height) * ratio), ceil((self.col + self.width) * ratio)
        return Block(top, left, bottom - top, right - left, step)

    def _grid(self, block: Block, step: float) -> Grid:
        x, y = ANCHOR_XY[0] + block.col * step, ANCHOR_XY[1] - block.row * step
        return Grid(GeoBox(block.shape, Affine(step, 0, x, 0, -step, y), CRS))

    def _wrap(self, drawing: Drawing, chunks: Any, name: str, bands: Any = None) -> xr.DataArray:
        dims = (BAND, Y, X) if drawing.planes else (Y, X)
        coords = self._grid(drawing.block, drawing.block.step).coords() | (bands or {})
        return xr.DataArray(lazy(drawing, chunks, name), dims=dims, coords=coords, name=name)


def make_region(
    size: int | tuple[int, int] = 2048,
    *,
    seed: int = 0,
    resolution_m: float = 10.0,
    dates: Sequence[Any] = DATES,
    scenery: Scenery | None = None,
) -> Region:
    """Make a synthetic region of south-west Greenland, with truth by construction.

    Its upper-left corner is the anchor: the ice margin runs through the lower left of the default region, the ice
    rises to the east.

    Parameters
    ----------
    size
        Rows and columns, or one number for both.
    seed
        Any integer of 0 to 2**31 - 1: another land.
    resolution_m
        Metres a pixel, 2 to 100.
    dates
        Days of the season.
    scenery
        What the land holds: lakes, clouds, margin, gaps; see `Scenery`.

    Examples
    --------
    >>> region = make_region(256, seed=1)
    >>> region.scene("2019-07-28").sizes["band"], region.dem().dtype
    (6, dtype('float32'))
    """
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != _SIDES or not all(isinstance(n, Integral) for n in (*sides, seed)):
        raise InputError(
            f"size {size!r} and seed {seed!r}", "make_region", "give whole numbers, such as 2048 or (512, 1024)"
        )
    height, width = sides
    resolution_m = _checked_resolution(resolution_m)
    if min(height, width) < 1 or max(height, width) * resolution_m > _MOST_M:
        raise InputError(f"a region of {height} x {width} pixels", "size", "give 1 pixel to 4000 km a side")
    if not 0 <= seed < 2**31:
        raise InputError(f"the seed must lie in 0 to 2**31 - 1, got {seed!r}", "seed", "give another number")
    days = tuple(parse_day(date) for date in ([dates] if isinstance(dates, str) else dates))
    return Region(
        int(height), int(width), seed=int(seed), resolution_m=resolution_m, dates=days, scenery=scenery or Scenery()
    )


def parse_day(date: Any) -> dt.date:
    """Read a day from ISO text, a date, or datetime64."""
    try:
        day = np.datetime64(date, "D").item()
    except (TypeError, ValueError):
        day = None
    if not isinstance(day, dt.date):
        raise InputError("no date", repr(date), "give it as 2019-07-28")
    return day


def _checked_resolution(resolution_m: float) -> float:
    if not _FINEST_M <= resolution_m <= _COARSEST_M:
        raise InputError(f"a resolution of {resolution_m!r} m", "resolution_m", "give 2 to 100 metres a pixel")
    return float(resolution_m)
