"""What rasters of evidence tell of candidates, as columns that the preset `lakescale` judges by."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd

from lakescale.evidence.zonal import polygon_evidence
from lakescale.evidence.zonal_distance import distance_to_unseen
from lakescale.fusion.reading import mend
from lakescale.fusion.weight import SUPPORT
from lakescale.grid import Grid
from lakescale.schema import COLOR, ICE, INDEX, PROBABILITY, SEEN, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

MEAN, PEAK, ICE_SHARE, UNSEEN_M = "probability_mean", "probability_max", "ice_share", "unseen_m"
"""Columns: the largest mean and maximum of the models' probabilities; share on ice; metres to what was not seen."""

BACKED = "backed"
"""Column: the largest mean of the models' probabilities, of candidates that are the water index's; else NaN."""

_MASKS = (COLOR, INDEX, ICE)
_OWN = "own_"


def add_evidence(models: Mapping[str, Any], evidence: Mapping[str, xr.DataArray]) -> dict[str, Any]:
    """Measure candidates on rasters of evidence, chunk by chunk, see `polygon_evidence`.

    Parameters
    ----------
    models
        Frames of candidates by name. One in memory is measured at once, in any CRS, its invalid rings made valid; a
        dask frame lazily: it must hold valid polygons in the rasters' CRS.
    evidence
        Rasters on one grid, as in a run's ``evidence.zarr``; others than these are not used:

        - ``probability_NAME``, or ``probability``: float32, of models;
        - ``color``, ``index``, ``ice``: bool; ``seen``: bool, where these have data.

    Returns
    -------
    dict
        The frames with new columns, as far as the rasters tell: ``probability_mean`` and ``probability_max``;
        ``support``, the largest mean of ``color``, ``index`` and the probabilities of *other* models than the frame's
        own; ``backed``, as ``probability_mean``, of the frame named ``index`` alone; ``ice_share``; ``unseen_m``, of
        which 1000 is the most.

    Raises
    ------
    InputError
        Whatever `polygon_evidence` refuses; rasters that are no mapping; none that is known.
    """
    if not hasattr(evidence, "items"):
        raise InputError(
            f"rasters by name are needed, got {type(evidence).__name__}", "evidence", "give a dict of them"
        )
    rasters = {name: one for name, one in evidence.items() if name in _MASKS or name.startswith(PROBABILITY)}
    seen = evidence.get(SEEN)
    if not rasters and seen is None:
        known = f"{PROBABILITY}_NAME, {', '.join(_MASKS)}, {SEEN}"
        raise InputError("no raster of evidence that is known", ", ".join(evidence) or "evidence", f"name them {known}")
    return {name: _measure(frame, name, rasters, seen) for name, frame in models.items()}


def _measure(frame: Any, name: str, rasters: dict[str, xr.DataArray], seen: xr.DataArray | None) -> Any:
    if not isinstance(frame, gpd.GeoDataFrame):
        found = _ask(frame, rasters, seen)
        summarize = partial(_summarize, own=name, rasters=tuple(rasters))
        return found.map_partitions(summarize, meta=summarize(found._meta))  # noqa: SLF001  (has no other name)
    if not len(frame) or frame.active_geometry_name is None:
        return frame
    crs = Grid.of(*[*rasters.values(), *([] if seen is None else [seen])][:1]).crs
    plain = frame.geometry.to_crs(crs.to_wkt()) if frame.crs is not None else frame.geometry
    mended = gpd.GeoDataFrame(geometry=mend(np.asarray(plain, object))[0], crs=plain.crs)
    found = _summarize(_ask(mended, rasters, seen).compute(), own=name, rasters=tuple(rasters))
    return frame.assign(**{column: found[column].to_numpy() for column in found.columns.difference(["geometry"])})


def _ask(frame: Any, rasters: dict[str, xr.DataArray], seen: xr.DataArray | None) -> Any:
    named = {f"{_OWN}{name}": raster for name, raster in rasters.items()}  # a frame may have columns of such names
    found = polygon_evidence(frame, named, seen=seen) if named else frame
    return found if seen is None else distance_to_unseen(found, seen)


def _summarize(frame: pd.DataFrame, *, own: str, rasters: tuple[str, ...]) -> pd.DataFrame:
    """Make few columns of many: NaN where nothing is told."""
    models = [name for name in rasters if name.startswith(PROBABILITY)]
    others = [name for name in (*models, COLOR, INDEX) if name in rasters and name not in (own, f"{PROBABILITY}_{own}")]
    told = {
        MEAN: [f"{_OWN}{name}_mean" for name in models],
        PEAK: [f"{_OWN}{name}_max" for name in models],
        BACKED: [f"{_OWN}{name}_mean" for name in models if own == INDEX],
        SUPPORT: [f"{_OWN}{name}_mean" for name in others],
        ICE_SHARE: [f"{_OWN}{name}_mean" for name in rasters if name == ICE],
    }
    columns = {new: pd.DataFrame(frame[old]).max(axis=1).astype(np.float64) for new, old in told.items() if old}
    return frame.drop(columns=[column for column in frame.columns if str(column).startswith(_OWN)]).assign(**columns)
