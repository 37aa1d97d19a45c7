"""When an elevation model tells what a lake holds, and when it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely

from lakescale.polygons import to_pixels
from lakescale.schema import LAKE_TIME, InputError

if TYPE_CHECKING:
    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray

    from lakescale.grid import Grid

KNOWN = "known"
"""Value of ``volume_reason`` for a lake whose volume is given; the others say why it is not."""
NO_POLYGON, BEYOND_DEM, VOIDS = "no polygon", "beyond the DEM", "voids"
WET_THEN, FLAT, ABOVE_SPILL, NO_BASIN = "wet when imaged", "flat", "above spill", "no basin"
REASONS = (NO_POLYGON, BEYOND_DEM, VOIDS, WET_THEN, FLAT, ABOVE_SPILL, NO_BASIN, KNOWN)
"""In this order; the first that holds is given."""

MIN_WET_SHARE = 0.5
"""A lake of which less lies below its level has no basin."""
MAX_FLAT_SHARE = 0.3
"""Water that the DEM shows on a share s of a bowl (a paraboloid) hides the share s**2 of what the bowl holds."""
WET_DAYS, LONG_DAYS = 3, 31
"""A DEM imaged within so many days of the lake's date shows its water; one that took longer has no date to go by."""


@dataclass(frozen=True)
class VolumeRules:
    """How lakes are looked at and judged; see `lakescale.lake_volumes`."""

    grid: Grid
    outline_depth_m: float
    outline_error_m: float
    dem_error_m: float
    flat_m: float
    max_void_share: float
    missing: tuple[float, ...]
    """Numbers that mean void."""
    days: tuple[np.datetime64, np.datetime64] | None
    """First and last day of the DEM; None where they are not known."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        for name in ("outline_depth_m", "outline_error_m", "dem_error_m"):
            value = getattr(self, name)
            if not 0 <= value < np.inf:
                raise InputError(f"{name} must be metres, 0 or more, got {value!r}", "lake_volumes", "for example 0.5")
        if not 0 < self.flat_m < np.inf:
            raise InputError(f"flat_m must be above 0, got {self.flat_m!r}", "lake_volumes", "for example 0.1")
        if not 0 <= self.max_void_share <= 1:
            share = self.max_void_share
            raise InputError(f"max_void_share must lie in 0 to 1, got {share!r}", "lake_volumes", "for example 0.1")

    @property
    def date(self) -> str:
        """The DEM's date: a day, ``first/last``, or ``unknown``."""
        return "unknown" if self.days is None else "/".join(dict.fromkeys(map(str, self.days)))


def read_days(dem_date: Any, dem: xr.DataArray | None = None) -> tuple[np.datetime64, np.datetime64] | None:
    """Read the first and last day of a DEM: as passed, else from its attributes where they hold for all of it."""
    told = dem_date
    if told is None and dem is not None and "date_start" in dem.attrs and "date" not in dem.attrs:
        told = dem.attrs["date_start"], dem.attrs.get("date_end", dem.attrs["date_start"])
    if told is None:
        return None
    days = pd.to_datetime(list(told) if isinstance(told, tuple | list) else [told], errors="coerce")
    if not 1 <= len(days) <= 2 or days.isna().any() or not days.is_monotonic_increasing:  # noqa: PLR2004
        mend = "give dem_date='2019-07-01', or the first and the last day"
        raise InputError("the date of the DEM cannot be read", repr(told), mend)
    first, last = days[0].to_datetime64(), days[-1].to_datetime64()
    return first.astype("datetime64[D]"), last.astype("datetime64[D]")


def judge(
    part: gpd.GeoDataFrame, found: dict[str, NDArray[np.float64]], spill: NDArray[np.float64], rules: VolumeRules
) -> NDArray[Any]:
    """Say of each lake whether its volume can be known: one of `REASONS`, but for what volumes have to tell.

    Parameters
    ----------
    part
        The lakes.
    found
        Columns that `lakescale.lake_volumes` gives them, before volumes.
    spill
        Level to which the lowest cell of each fills, NaN where it is not known.
    """
    polygons = part.geometry.to_numpy()
    left, top, right, bottom = shapely.bounds(to_pixels(polygons, rules.grid.transform)).T
    cases = [
        shapely.is_missing(polygons) | shapely.is_empty(polygons),
        (left < 0) | (top < 0) | (right > rules.grid.shape[1]) | (bottom > rules.grid.shape[0]),
        (found["void_share"] > rules.max_void_share) | np.isnan(found["level_m"]),
        _was_wet(part, rules.days),
        found["flat_share"] >= MAX_FLAT_SHARE,
        found["level_low_m"] > spill,
    ]
    return np.select(cases, REASONS[: len(cases)], KNOWN).astype(object)


def _was_wet(part: gpd.GeoDataFrame, days: tuple[np.datetime64, np.datetime64] | None) -> NDArray[np.bool_]:
    """Tell the lakes that were there as the DEM was imaged."""
    if days is None or LAKE_TIME not in part.columns or days[1] - days[0] > np.timedelta64(LONG_DAYS, "D"):
        return np.zeros(len(part), bool)
    time = pd.to_datetime(part[LAKE_TIME], utc=True).dt.tz_localize(None).to_numpy("datetime64[D]")
    margin = np.timedelta64(WET_DAYS, "D")
    return (time >= days[0] - margin) & (time <= days[1] + margin)
