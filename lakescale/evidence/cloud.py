"""Cloud by band rules: what hides a scene is not seen, which is another answer than "no lake".

Cloud is as bright as ice in the visible; only the shortwave infrared tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import ndimage

from lakescale.chunks import map_tiles, on_dask
from lakescale.evidence import cloud_s2cloudless
from lakescale.grid import Grid
from lakescale.scene import seen_mask
from lakescale.scene.names import SCL
from lakescale.schema import BAND, BLUE, CLOUD, SEEN, InputError, X, Y

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
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
    is_asked_for: bool = False
    """Whether it is taken only by name."""


_S2CLOUDLESS = "s2cloudless"
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
    _S2CLOUDLESS: _Rule(
        f"s2cloudless, probability above {cloud_s2cloudless.THRESHOLD:g} on the mean of a disk of "
        f"{cloud_s2cloudless.AVERAGE_PX} pixels, grown by {cloud_s2cloudless.GROW_PX}",
        dict.fromkeys(cloud_s2cloudless.BANDS, (-_OPEN, _OPEN)),
        cloud_s2cloudless.BANDS,
        needs_toa=True,
        is_asked_for=True,
    ),
}  # in the order of preference


@dataclass(frozen=True, eq=False)
class CloudAssessment:
    """What is cloud, and how that was told."""

    mask: xr.DataArray | None
    """Bool ``(y, x)``, lazy, named ``cloud``: True = cloud (by ``scl`` its shadow too), False = not, or not seen.
    None where cloud was not assessed."""
    rule: str
    """``moussavi``, ``williamson``, ``scl``, ``s2cloudless`` or ``none``."""
    note: str
    """One sentence for a run's notes and manifest."""


def assess_cloud(
    scene: xr.DataArray, *, beside: Sequence[xr.DataArray] = (), rule: str = AUTO, margin_m: float = 0.0
) -> CloudAssessment:
    """Find cloud by the best rule that the bands allow. Lazy.

    ``auto`` takes the first of these:

    1. ``moussavi``, where the level is L1C and cirrus (B10), swir1 (B11) and blue (B02) are there. A pixel is cloud
       where *all* of B10 > 0.003, B11 > 0.11 and 0.60 < B02 < 0.97 hold, as top-of-atmosphere reflectance: snow and
       ice alone are as bright in blue, rock in B11.
    2. ``williamson``, where swir1 is there: B11 > 0.14. Bare rock and soil pass it too.
    3. ``scl``, where the scene classification is there: cloud shadow, cloud of medium and high probability, thin
       cirrus. It comes last, though it alone knows shadows: it takes cloud for snow, and here all is snow and ice.
    4. ``none``: not assessed. 8-bit RGB tells no cloud from ice.

    By name alone ``s2cloudless``: the package's model of single pixels of L1C, with ten bands (B01, B02, B04, B05, B08,
    B8A, B09, B10, B11, B12), smoothed and grown as its authors do at 10 m. It was trained on land, not on ice sheets;
    it is an extra (``pip install 'lakescale[s2cloudless]'``).

    Parameters
    ----------
    scene
        ``(band, y, x)`` of named bands, reflectance, NaN where not seen.
    beside
        Other bands on the scene's grid, ``(band, y, x)`` each, such as swir1 and SCL of 20 m in a scene of 10 m; of a
        band that several have, the first one counts, the scene's before all.
    rule
        ``auto``, or one by name; ``none`` for no assessment.
    margin_m
        Pixels with cloud within this distance count as cloud, too: thin edges, over dark water above all, pass every
        rule.

    Returns
    -------
    CloudAssessment
        The mask is False where the scene is not seen, and where a band that the rule asks is NaN.

    Raises
    ------
    InputError
        No such rule; a rule asked for by name whose bands are missing or 8-bit, or ``moussavi`` or ``s2cloudless`` on
        surface reflectance; ``s2cloudless`` where it is not installed; bands beside on another grid; a margin that is
        none.
    """
    if rule not in (AUTO, NO_RULE, *_RULES):
        raise InputError(
            f"there is no cloud rule {rule!r}", "cloud", f"choose {AUTO}, {', '.join(_RULES)} or {NO_RULE}"
        )
    if not 0 <= margin_m < _OPEN:
        raise InputError(f"margin_m must be metres, 0 or more, got {margin_m!r}", "cloud", "for example 300")
    if rule == NO_RULE:
        return CloudAssessment(None, NO_RULE, f"cloud not assessed, as asked: {_SEEN_ANYWAY}")
    stacks = [scene, *beside]
    _refuse_other_shapes(stacks)
    named = [name for name, one in _RULES.items() if not one.is_asked_for]
    candidates = named if rule == AUTO else [rule]
    obstacles = {name: _obstacle(stacks, name, asked=rule != AUTO) for name in candidates}
    for name in (name for name, obstacle in obstacles.items() if not obstacle):
        note = f"cloud: {_RULES[name].says}{_doubt(scene, _RULES[name])}"
        mask = _cloud_mask(stacks, _RULES[name])
        if margin_m:
            mask, note = _widen(mask, scene, margin_m), f"{note}; and within {margin_m:g} m of it"
        return CloudAssessment(mask, name, note)
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
    layers = on_dask(seen), on_dask(assessment.mask.transpose(Y, X))
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
    if name == _S2CLOUDLESS and not cloud_s2cloudless.is_installed():
        return "s2cloudless is not installed, which pip install 'lakescale[s2cloudless]' does"
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
    layers = [on_dask(seen), *(on_dask(_stack(stacks[i])) for i in used)]
    if rule.bands == cloud_s2cloudless.BANDS:
        return seen.copy(data=_ask_s2cloudless(layers, tuple(planes))).rename(CLOUD)
    limits = tuple((*plane, *rule.within[band]) for plane, band in zip(planes, rule.bands, strict=True) if rule.within)
    options = {"limits": limits} if limits else {"plane": planes[0]}
    kernel = _between if limits else _of_class
    mask = map_tiles(kernel, *layers, depth=0, name="cloud-mask", dtype=bool, options=options)
    return seen.copy(data=mask).rename(CLOUD)


def _ask_s2cloudless(layers: list[da.Array], planes: tuple[tuple[int, int], ...]) -> da.Array:
    kernel, depth = cloud_s2cloudless.find_cloud, cloud_s2cloudless.REACH_PX
    return map_tiles(kernel, *layers, depth=depth, name="cloud-s2cloudless", dtype=bool, options={"planes": planes})


def _widen(mask: xr.DataArray, scene: xr.DataArray, margin_m: float) -> xr.DataArray:
    """Take what lies within a distance of cloud for cloud, where it was seen."""
    radius = margin_m / Grid.of(scene).pixel_size_m
    seen = on_dask(seen_mask(scene).transpose(Y, X))
    layers, options = (on_dask(mask), seen), {"radius": radius}
    depth = int(np.ceil(radius))
    return mask.copy(data=map_tiles(_near, *layers, depth=depth, name="cloud-margin", dtype=bool, options=options))


def _near(cloud: NDArray[np.bool_], seen: NDArray[np.bool_], *, radius: float) -> NDArray[np.bool_]:
    if not cloud.any():
        return cloud
    return np.asarray(seen & (ndimage.distance_transform_edt(~cloud) <= radius))


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


def _name(scene: xr.DataArray) -> str:
    return str(scene.attrs.get("source") or scene.name or "scene")
