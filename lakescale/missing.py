"""What is missing in a raster, and how a raster made of it says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import rioxarray  # noqa: F401  (gives rasters their .rio)

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

NODATA_ATTRS = ("nodata_values", "_FillValue", "missing_value", "fill_value", "nodata")
"""Attributes that name a raster's nodata."""


@dataclass(frozen=True)
class Missing:
    """What is missing in the source, and how that is said in the result."""

    dtype: np.dtype[Any]
    """Of the result."""
    fill: float
    """Where nothing is seen."""
    as_nan: bool
    """Whether the source becomes float, NaN where missing; classes are copied as they are."""
    values: tuple[float, ...] = ()
    """Values that mean missing."""
    joint: bool = False
    """Whether all bands must have it."""

    @classmethod
    def of(cls, raster: xr.DataArray, resampling: str) -> Missing:
        """Read what a raster declares; only ``nearest`` keeps integers and bool."""
        joint = "nodata_values" in raster.attrs
        stored = raster.attrs["nodata_values"] if joint else _declared(raster)
        values = () if stored is None else tuple(float(value) for value in np.atleast_1d(stored))
        dtype = raster.dtype
        if resampling != "nearest" or dtype.kind == "f":
            return cls(np.dtype(np.float32), np.nan, True, values, joint)
        fits = dtype.kind in "iu" and values and values[0].is_integer() and _holds(dtype, int(values[0]))
        return cls(dtype, int(values[0]) if fits else 0, False)

    def to_float(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Make ``(band, y, x)`` float32 (float64 where that would round), NaN where missing."""
        exact = pixels.dtype.itemsize <= 2 or pixels.dtype == np.float32  # noqa: PLR2004
        out = pixels.astype(np.float32 if exact else np.float64, copy=False)
        for value in self.values:
            missing = (pixels == value).all(axis=0) if self.joint else pixels == value
            if missing.any():
                out = np.where(missing, out.dtype.type(np.nan), out)
        return out


def _holds(dtype: np.dtype[Any], value: int) -> bool:
    return bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)


def _declared(raster: xr.DataArray) -> float | None:
    try:
        stored: float | None = raster.rio.nodata
    except OverflowError:  # it does not fit the dtype, so no pixel has it
        return None
    return stored
