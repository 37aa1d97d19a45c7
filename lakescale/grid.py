"""The grid of a raster: shape, affine transform and CRS, frozen, on odc-geo's GeoBox."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from lakescale.schema import InputError, X, Y

if TYPE_CHECKING:
    from collections.abc import Hashable

    import xarray as xr
    from pyproj import CRS

_CENTRE_TOLERANCE_PX = 1e-3


@dataclass(frozen=True)
class Grid:
    """The pixels of a raster and where they lie.

    Pixel ``(row, col)`` covers the unit square from ``(col, row)`` to ``(col + 1, row + 1)`` in pixel
    coordinates; ``transform`` takes pixel to map coordinates.
    """

    geobox: GeoBox
    """Shape ``(y, x)``, affine transform and CRS."""

    @classmethod
    def of(cls, raster: xr.DataArray) -> Grid:
        """Read the grid of a raster with dims ``y`` and ``x``.

        The ``GeoTransform`` of its ``spatial_ref`` is taken where it fits the coordinates (it is exact, they
        are rounded), else the transform is recovered from the coordinates.

        Raises
        ------
        InputError
            When the raster has no ``y`` or ``x``, no CRS, or unevenly spaced coordinates.
        """
        for dim in (Y, X):
            if dim not in raster.dims:
                raise InputError(f"a raster needs the dimension {dim!r}, this one has {raster.dims}", _name(raster))
        crs = raster.odc.crs
        if crs is None:
            raise InputError(
                "a raster without a CRS", _name(raster), "give it one with raster.rio.write_crs('EPSG:...')"
            )
        shape = (raster.sizes[Y], raster.sizes[X])
        transform = _stored_transform(raster) or _transform_from_coords(raster)
        return cls(GeoBox(shape, transform, crs))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.geobox.shape
        return int(height), int(width)

    @property
    def transform(self) -> Affine:
        """From pixel ``(col, row)`` to map ``(x, y)``; ``(0, 0)`` is the outer corner of the first pixel."""
        return self.geobox.transform

    @cached_property
    def crs(self) -> CRS:
        """The CRS, as pyproj knows it."""
        return _read_wkt(str(self.geobox.crs and self.geobox.crs.to_wkt()))

    @property
    def bounds_xyxy(self) -> tuple[float, float, float, float]:
        """Outer edges in map coordinates: x min, y min, x max, y max."""
        box = self.geobox.boundingbox
        return box.left, box.bottom, box.right, box.top

    @property
    def pixel_size_m(self) -> float:
        """Side of a pixel in metres of the CRS (geometric mean of both sides)."""
        a, b, _, d, e, _ = self.transform[:6]
        return float(np.sqrt(abs(a * e - b * d))) * float(self.crs.axis_info[0].unit_conversion_factor)

    def require_metres(self, item: str) -> None:
        """Raise `InputError` where the CRS does not measure in metres (degrees have no lake area)."""
        if self.crs.is_geographic or self.crs.axis_info[0].unit_name not in {"metre", "meter", "m"}:
            unit = self.crs.axis_info[0].unit_name
            raise InputError(
                f"the grid is in units of {unit}, metres are needed",
                item,
                f"bring it to a grid in metres, for example --crs EPSG:3413 (its CRS is {self.crs.to_string()[:60]})",
            )

    def coords(self) -> dict[Hashable, xr.DataArray]:
        """Coordinates ``y``, ``x`` (pixel centres) and ``spatial_ref`` (CF, with GeoTransform) for xarray."""
        return dict(xr_coords(self.geobox, dims=(Y, X)))

    def centres_xy(self, rows: slice, cols: slice) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Map coordinates of pixel centres, two float64 arrays ``(rows, cols)``.

        They come from whole-grid indices, so a pixel has the same centre whatever block it is asked from.
        """
        col, row = np.meshgrid(np.arange(cols.start, cols.stop) + 0.5, np.arange(rows.start, rows.stop) + 0.5)
        a, b, c, d, e, f = self.transform[:6]
        return a * col + b * row + c, d * col + e * row + f


@lru_cache(maxsize=64)
def _read_wkt(wkt: str) -> CRS:
    """Make a CRS once in a process: it costs a millisecond and PROJ's memory, and each task brings its own grid."""
    import pyproj  # noqa: PLC0415  (odc-geo's CRS wraps it; a tenth of a second that most calls do not need)

    return pyproj.CRS.from_wkt(wkt)


def _name(raster: xr.DataArray) -> str:
    return str(raster.name) if raster.name is not None else "raster"


def _stored_transform(raster: xr.DataArray) -> Affine | None:
    """Read the GeoTransform, unless the raster was cut out of a larger one that it still describes."""
    text = raster.coords["spatial_ref"].attrs.get("GeoTransform") if "spatial_ref" in raster.coords else None
    if text is None or Y not in raster.coords or X not in raster.coords:
        return None
    transform = Affine.from_gdal(*(float(part) for part in str(text).split()))
    a, b, c, d, e, f = (~transform)[:6]
    x, y = raster[X].to_numpy(), raster[Y].to_numpy()
    cols, rows = np.arange(len(x)) + 0.5, np.arange(len(y)) + 0.5
    off_x = np.abs(a * x + b * y[0] + c - cols) if len(y) else cols * 0
    off_y = np.abs(d * x[0] + e * y + f - rows) if len(x) else rows * 0
    if max(off_x.max(initial=0), off_y.max(initial=0)) > _CENTRE_TOLERANCE_PX:
        return None
    return transform


def _transform_from_coords(raster: xr.DataArray) -> Affine:
    geobox = raster.odc.geobox
    if not isinstance(geobox, GeoBox) or not all(_is_even(raster[dim].to_numpy()) for dim in (X, Y)):
        raise InputError(
            "a raster whose x and y coordinates are missing or not evenly spaced",
            _name(raster),
            "open it with lakescale.open_scene, or give it regular pixel-centre coordinates",
        )
    return geobox.transform


def _is_even(centres: np.ndarray[Any, Any]) -> bool:
    steps = np.diff(centres)
    return not steps.size or bool(np.abs(steps - steps.mean()).max() <= _CENTRE_TOLERANCE_PX * abs(steps.mean()))
