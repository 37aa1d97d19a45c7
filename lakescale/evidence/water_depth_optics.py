"""How water dims light: the formula of Sneed and Hamilton, its constants, and the darkest water of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale.schema import BAND, GREEN, RED, InputError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

A_D, R_INF, G = "rt_a_d", "rt_r_inf", "rt_g"
OPTICS = (A_D, R_INF, G)
"""Columns: reflectance of the lake's floor and of optically deep water, and how much a metre of water dims."""

G_PER_M = {
    ("Sentinel-2", RED): 0.8304,
    ("Sentinel-2", GREEN): 0.1413,
    ("Landsat 8", GREEN): 0.1413,
    ("Landsat 9", GREEN): 0.1413,
    ("synthetic", RED): 0.8304,
    ("synthetic", GREEN): 0.1413,
}
"""By beginnings of sensors' names and bands. Red: Williamson et al. (2018). Green: Pope et al. (2016) for Landsat 8; in
use for Sentinel-2, too, where nobody has confirmed it."""
SATURATED_M = {RED: 4.0}
"""Depths from which on a band hardly changes: red saturates near 4 to 5 m (Pope et al. 2016)."""

R_INF_SHARE, R_INF_PIXELS, R_INF_MOST = 0.001, 1000, 0.06
"""The estimate of R_inf: the share of water that is darker, how many pixels of water that takes, and the most that is
taken for optically deep (Pope et al. 2016: 0.023 to 0.057 at the top of the atmosphere)."""
_WATER_INDEX = 0.25
_STEPS, _DARKEST, _STEP = 8192, -0.125, 2.0**-13


@dataclass(frozen=True)
class Optics:
    """What depths are computed with."""

    band: str
    g: float
    """How much the water dims the light on its way down and up, 1/m."""
    r_inf: float
    """Reflectance of optically deep water; NaN where the scene has to tell."""
    a_d: float
    """Reflectance of the floor; NaN where the ring round each lake has to tell."""
    level: str
    """Processing level of the scene."""


def choose_optics(scene: xr.DataArray, band: str, *, g: float | None, r_inf: float | None, a_d: float | None) -> Optics:
    """Choose constants for a scene of reflectance.

    Raises
    ------
    InputError
        When the scene holds stretched numbers, lacks the band, or a constant is not known or makes no sense.
    """
    require_reflectance(scene, band)
    if r_inf is None and band != RED:
        raise InputError(
            f"R_inf of {band} cannot be told from lakes: their floors shine through",
            item_of(scene),
            f"give r_inf=, the reflectance in {band} of deep sea in the same scene or the nearest one",
        )
    for name, value in (("g", g), ("r_inf", r_inf), ("a_d", a_d)):
        if value is not None and not (np.isfinite(value) and (value > 0 or name == "r_inf")):
            raise InputError(f"{name} must be a number above 0, got {value!r}", "water_depth", "give a number or None")
    deep, floor = (np.nan if value is None else float(value) for value in (r_inf, a_d))
    level = str(scene.attrs.get("product_level", "unknown"))
    return Optics(band, _known_g(scene, band) if g is None else float(g), deep, floor, level)


def require_reflectance(scene: xr.DataArray, band: str) -> None:
    """Raise `InputError` for a scene of other numbers, or without the band."""
    if scene.dtype.kind != "f" or scene.attrs.get("radiometry") == "rgb8":
        raise InputError(
            f"depths need reflectance, this scene holds {scene.dtype} numbers stretched as for display",
            item_of(scene),
            "give the bands as reflectance, for example open_scene of the product's own files, with scale= if need be",
        )
    names = [str(name) for name in np.atleast_1d(scene[BAND].values)] if BAND in scene.coords else []
    if band not in names or BAND not in scene.dims:
        mend = "name its bands with open_scene(..., bands=[...])"
        raise InputError(
            f"the scene has no band {band!r}, only {', '.join(names) or 'unnamed ones'}", item_of(scene), mend
        )


def _known_g(scene: xr.DataArray, band: str) -> float:
    sensor = str(scene.attrs.get("sensor", ""))
    for (name, of), value in G_PER_M.items():
        if of == band and sensor.startswith(name):
            return value
    raise InputError(
        f"no g is known for {band} of {sensor or 'an unknown sensor'}",
        item_of(scene),
        "give g=, per metre; for Sentinel-2's red it is 0.8304",
    )


def item_of(scene: xr.DataArray) -> str:
    """Name a scene in messages."""
    return str(scene.attrs.get("source", "scene" if scene.name is None else scene.name))


def find_depths(
    reflectance: NDArray[Any], a_d: NDArray[np.float64], r_inf: NDArray[np.float64], g: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute depths, z = (ln(A_d - R_inf) - ln(R_w - R_inf)) / g (Sneed and Hamilton 2007).

    Returns
    -------
    numpy.ndarray
        m; 0 where the water is brighter than the floor; infinite where it is as dark as optically deep water or darker:
        how deep it is cannot be told; NaN where something is NaN, or the floor no brighter than deep water.
    """
    light = reflectance.astype(np.float64) - r_inf
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (np.log(a_d - r_inf) - np.log(np.maximum(light, 0))) / g
    return np.where(a_d > r_inf, np.maximum(depth, 0), np.nan)


def count_water(
    band: NDArray[Any], red: NDArray[Any], blue: NDArray[Any], usable: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Count the pixels of water by their reflectance in a band, in steps of 2**-13: NDWI_ice above 0.25."""
    red, blue = (one.astype(np.float32) for one in (red, blue))
    water = usable & ~np.isnan(band) & (blue + red > 0) & (blue - red > np.float32(_WATER_INDEX) * (blue + red))
    step = np.floor((band[water].astype(np.float64) - _DARKEST) / _STEP)
    return np.bincount(np.clip(step, 0, _STEPS - 1).astype(np.int64), minlength=_STEPS)


def no_water() -> NDArray[np.int64]:
    """Give the counts of no pixels."""
    return np.zeros(_STEPS, np.int64)


def darkest_water(count: NDArray[np.int64]) -> float:
    """Estimate R_inf from the counts of a scene: the middle of the step below which a thousandth of its water lies.

    NaN where there is too little water, or none of it is dark enough to be optically deep.
    """
    whole = int(count.sum())
    if whole < R_INF_PIXELS:
        return np.nan
    step = int(np.searchsorted(np.cumsum(count), max(int(whole * R_INF_SHARE), 1)))
    found = _DARKEST + (step + 0.5) * _STEP
    return found if found <= R_INF_MOST else np.nan
