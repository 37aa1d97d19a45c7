"""Cloud by band rules: what hides a scene is not seen, which is another answer than "no lake".

Cloud is as bright as ice in the visible; only the shortwave infrared tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np

from lakescale.chunks import map_tiles
from lakescale.scene import seen_mask
from lakescale.scene.names import SCL
from lakescale.schema import BAND, BLUE, CLOUD, SEEN, InputError, X, Y

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

CIRRUS, SWIR1 = "cirrus", "swir1"
AUTO, NO_RULE = "auto", "none"

SCL_CLOUD_CLASSES = (3, 8, 9, 10)
"""Of Sentinel-2's scene classification: cloud shadow, cloud of medium and of high probability, thin cirrus."""

_OPEN = float("inf")
_SEEN_ANYWAY = "clouded pixels count as seen"


class _Rule(NamedTuple):
    says: str
    within: dict[str, tuple[float, float]]
    """Reflectances between which, both excluded, each band must lie; empty for classes."""
    bands: tuple[str, ...]
    needs_toa: bool = False


_MOUSSAVI = {CIRRUS: (0.003, _OPEN), SWIR1: (0.11, _OPEN), BLUE: (0.60, 0.97)}
_RULES = {
    "moussavi": _Rule(
        "B10 > 0.003 and B11 > 0.11 and 0.60 < B02 < 0.97 (Moussavi et al. 2020)",
        _MOUSSAVI,
        tuple(_MOUSSAVI),
        needs_toa=True,
    ),
    "williamson": _Rule("B11 > 0.14 (Williamson et al. 2018)", {SWIR1: (0.14, _OPEN)}, (SWIR1,)),
    "scl": _Rule("SCL 3, 8, 9, 10 (cloud and its shadow; SCL takes cloud for snow and shadow for water)", {}, (SCL,)),
}  # in the order of preference


@dataclass(frozen=True, eq=False)
class CloudAssessment:
    """What is cloud, and how that was told."""

    mask: xr.DataArray | None
    """Bool ``(y, x)``, lazy, named ``cloud``: True = cloud (by ``scl`` its shadow too), False = not, or not seen.
    None where cloud was not assessed."""
    rule: str
    """``moussavi``, ``williamson``, ``scl`` or ``none``."""
    note: str
    """One sentence for a run's notes and manifest."""


def assess_cloud(scene: xr.DataArray, *, beside: Sequence[xr.DataArray] = (), rule: str = AUTO) -> CloudAssessment:
    """Find cloud by the best rule that the bands allow. Lazy.

    ``auto`` takes the first of these:

    1. ``moussavi``, where the level is L1C and cirrus (B10), swir1 (B11) and blue (B02) are there. A pixel is cloud
       where *all* of B10 > 0.003, B11 > 0.11 and 0.60 < B02 < 0.97 hold, as top-of-atmosphere reflectance: snow and
       ice alone are as bright in blue, rock in B11.
    2. ``williamson``, where swir1 is there: B11 > 0.14. Bare rock and soil pass it too.
    3. ``scl``, where the scene classification is there: cloud shadow, cloud of medium and high probability, thin
       cirrus. It comes last, though it alone knows shadows: it takes cloud for snow, and here all is snow and ice.
    4. ``none``: not assessed. 8-bit RGB tells no cloud from ice.

    Parameters
    ----------
    scene
        ``(band, y, x)`` of named bands, reflectance, NaN where not seen.
    beside
        Other bands on the scene's grid, ``(band, y, x)`` each, such as swir1 and SCL of 20 m in a scene of 10 m; of a
        band that several have, the first one counts, the scene's before all.
    rule
        ``auto``, or one by name; ``none`` for no assessment.

    Returns
    -------
    CloudAssessment
        The mask is False where the scene is not seen, and where a band that the rule asks is NaN.

    Raises
    ------
    InputError
        No such rule; a rule asked for by name whose bands are missing or 8-bit, or ``moussavi`` on surface reflectance;
        bands beside on another grid.
    """
    if rule not in (AUTO, NO_RULE, *_RULES):
        raise InputError(
            f"there is no cloud rule {rule!r}", "cloud", f"choose {AUTO}, {', '.join(_RULES)} or {NO_RULE}"
        )
    if rule == NO_RULE:
        return CloudAssessment(None, NO_RULE, f"cloud not assessed, as asked: {_SEEN_ANYWAY}")
    stacks = [scene, *beside]
    _refuse_other_shapes(stacks)
    candidates = tuple(_RULES) if rule == AUTO else (rule,)
    obstacles = {name: _obstacle(stacks, name, asked=rule != AUTO) for name in candidates}
    for name in (name for name, obstacle in obstacles.items() if not obstacle):
        note = f"cloud: {_RULES[name].says}{_doubt(scene, _RULES[name])}"
        return CloudAssessment(_cloud_mask(stacks, _RULES[name]), name, note)
    if rule == AUTO:
        why = _why_not(stacks, obstacles["williamson"])
        return CloudAssessment(None, NO_RULE, f"cloud not assessed: {why}; {_SEEN_ANYWAY}")
    raise InputError(
        f"the cloud rule {rule!r} cannot be used: {obstacles[rule]}",
        _name(scene),
        f"add the bands, choose another rule, or {NO_RULE} for no assessment",
    )


def seen_without_cloud(seen: xr.DataArray, assessment: CloudAssessment) -> xr.DataArray:
    """Take cloud out of what was seen. Lazy.

    Parameters
    ----------
    seen
        Bool ``(y, x)``, True = a pixel with data.
    assessment
        Of the same scene; without a mask, ``seen`` comes back as it is.

    Returns
    -------
    xr.DataArray
        Bool ``(y, x)``, True = a pixel with data and without cloud; named ``seen``.
    """
    if assessment.mask is None:
        return seen
    seen = seen.transpose(Y, X)
    layers = _raster(seen), _raster(assessment.mask.transpose(Y, X))
    clear = map_tiles(np.greater, *layers, depth=0, name="seen-without-cloud", dtype=bool)
    return seen.copy(data=clear).rename(SEEN)


def _bands(stack: xr.DataArray) -> list[str]:
    return [str(band) for band in np.atleast_1d(stack[BAND].values)] if BAND in stack.coords else []


def _holder(stacks: Sequence[xr.DataArray], band: str) -> int:
    """Tell which stack has a band; -1 where none has."""
    return next((i for i, stack in enumerate(stacks) if band in _bands(stack)), -1)


def _obstacle(stacks: Sequence[xr.DataArray], name: str, *, asked: bool) -> str:
    """Say why a rule cannot be used, empty where it can; by name also where the level is not known."""
    rule = _RULES[name]
    lacking = [band for band in rule.bands if _holder(stacks, band) < 0]
    if lacking:
        return f"the scene has no {' and no '.join(lacking)}"
    dtypes = {str(stacks[_holder(stacks, band)].dtype) for band in rule.bands}
    if rule.within and not all(dtype.startswith("float") for dtype in dtypes):
        return f"it needs reflectance as float, these bands are {' and '.join(sorted(dtypes))}"
    level = str(stacks[0].attrs.get("product_level", ""))
    if rule.needs_toa and (level.startswith("L2") if asked else level != "L1C"):
        return f"it needs top-of-atmosphere reflectance, the level is {level or 'not known'}"
    return ""


def _why_not(stacks: Sequence[xr.DataArray], obstacle: str) -> str:
    if _holder(stacks, SWIR1) >= 0:
        return obstacle
    if stacks[0].dtype == np.uint8:
        return "8-bit RGB does not tell it from ice"
    return "the scene has no SWIR band and no SCL"


def _doubt(scene: xr.DataArray, rule: _Rule) -> str:
    """Say what the thresholds were not set for."""
    sensor, level = (str(scene.attrs.get(key, "")) for key in ("sensor", "product_level"))
    doubts = [f"; set on Sentinel-2, this is {sensor}"] if rule.within and "Landsat" in sensor else []
    if rule.needs_toa and not level:
        doubts.append("; set on top-of-atmosphere reflectance, the level of this is not known")
    return "".join(doubts)


def _cloud_mask(stacks: Sequence[xr.DataArray], rule: _Rule) -> xr.DataArray:
    seen = seen_mask(stacks[0]).transpose(Y, X)
    holders = [_holder(stacks, band) for band in rule.bands]
    used = sorted(set(holders))
    planes = [(used.index(i), _bands(stacks[i]).index(band)) for i, band in zip(holders, rule.bands, strict=True)]
    limits = tuple((*plane, *rule.within[band]) for plane, band in zip(planes, rule.bands, strict=True) if rule.within)
    layers = [_raster(seen), *(_raster(_stack(stacks[i])) for i in used)]
    options = {"limits": limits} if limits else {"plane": planes[0]}
    kernel = _between if limits else _of_class
    mask = map_tiles(kernel, *layers, depth=0, name="cloud-mask", dtype=bool, options=options)
    return seen.copy(data=mask).rename(CLOUD)


def _between(
    seen: NDArray[np.bool_], *stacks: NDArray[Any], limits: tuple[tuple[int, int, float, float], ...]
) -> NDArray[np.bool_]:
    """Tell where each of some planes lies strictly between its limits; NaN never does."""
    cloud = seen.copy()
    for stack, plane, low, high in limits:
        values = stacks[stack][plane].astype(np.float32, copy=False)
        cloud &= values > np.float32(low)
        if high < np.inf:
            cloud &= values < np.float32(high)
    return cloud


def _of_class(seen: NDArray[np.bool_], *stacks: NDArray[Any], plane: tuple[int, int]) -> NDArray[np.bool_]:
    return seen & np.isin(stacks[plane[0]][plane[1]], SCL_CLOUD_CLASSES)


def _refuse_other_shapes(stacks: Sequence[xr.DataArray]) -> None:
    first, *others = ((stack.sizes[Y], stack.sizes[X]) for stack in stacks)
    for stack, shape in zip(stacks[1:], others, strict=True):
        if shape != first:
            raise InputError(
                f"{shape} pixels beside a scene of {first}", _name(stack), "bring it to the grid by regrid"
            )


def _stack(bands: xr.DataArray) -> xr.DataArray:
    return (bands if BAND in bands.dims else bands.expand_dims(BAND)).transpose(BAND, Y, X)


def _raster(array: xr.DataArray) -> da.Array:
    return array.data if isinstance(array.data, da.Array) else da.from_array(array.data, chunks=-1)


def _name(scene: xr.DataArray) -> str:
    return str(scene.attrs.get("source") or scene.name or "scene")
