"""Lakes of a run from several kinds of evidence: what was found goes to `lakescale.fuse`, its reasons come back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd

from lakescale.fusion import PRESETS, admit, fuse
from lakescale.fusion.parts import MODELS
from lakescale.rules import judge_shapes
from lakescale.schema import COLOR, INDEX, KEPT, LAKE_ID, REASON, SINK, InputError
from pipelines.recipe import LAKESCALE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from lakescale.rules import PolygonRules
    from pipelines.recipe import MapRecipe
    from pipelines.run_models import RunModel

EVIDENCE, ROW, BY, BY_ROW = "evidence", "row", "by", "by_row"
"""Columns: what a candidate comes from and its row in ``candidates_NAME.parquet``; frame and row of what decided."""

_MODEL = "model"
MIN_RANKED_INDEX = 0.4
"""Of `lakescale.Lakescale`, ``min_index_probability`` on 8-bit RGB, whose index only ranks: stretched colors made whole
glaciers water by it, of which the model gave a fifth."""
_BY_POLYGONS = ("seed",)
"""Presets that refuse rasters of evidence."""


@dataclass(frozen=True)
class Fusion:
    """How the lakes of a run are fused."""

    preset: str
    names: tuple[str, ...]
    """What has candidates, in order of precedence: models, then ``index``."""
    rules: PolygonRules
    """On shape; what a preset cuts or unites has to keep them too."""
    ranks_water: bool = False
    """Whether the index is one of 8-bit RGB."""

    @property
    def method(self) -> Any:
        """The preset, with its options."""
        ranked = {"min_index_probability": MIN_RANKED_INDEX} if self.ranks_water and self.preset == LAKESCALE else {}
        return PRESETS[self.preset](**ranked)

    def facts(self, candidates: gpd.GeoDataFrame) -> dict[str, Any]:
        """Say of it what a manifest tells."""
        counts = candidates.groupby([EVIDENCE, REASON]).size()
        of = {name: counts[name].to_dict() if name in counts.index.levels[0] else {} for name in self.names}
        return {"preset": self.preset, "options": asdict(self.method), "candidates": of}


class Fused(NamedTuple):
    """What became of all candidates."""

    candidates: gpd.GeoDataFrame
    """Those of all models one after the other, each with its last ``reason``, ``by``, ``by_row`` and ``lake_id``."""
    lakes: gpd.GeoDataFrame
    """With areas, ``reason`` and ``evidence``, in the order of models and rows."""
    note: str
    """What was fused, in words."""


def open_fusion(
    recipe: MapRecipe, models: Sequence[RunModel], water: Iterable[str], *, ranks_water: bool
) -> Fusion | None:
    """Find what is to be fused, before anything is computed; None where nothing is.

    Parameters
    ----------
    recipe, models
        Of the run.
    water
        Names of its masks of water.
    ranks_water
        Whether its index is one of 8-bit RGB.

    Raises
    ------
    InputError
        When there is no such preset, nothing to fuse, or more than the preset knows what to do with.
    """
    if recipe.fuse is None:
        return None
    if recipe.fuse not in PRESETS:
        raise InputError(f"there is no fusion {recipe.fuse!r}", "recipe: fuse", f"choose one of {', '.join(PRESETS)}")
    names = [model.name for model in models]
    if INDEX in water and recipe.evidence != "model":
        names.append(INDEX)
    most = PRESETS[recipe.fuse]().most_models
    if not names:
        what = "there is nothing to fuse: no model, and no water index (8-bit RGB has none unless it is asked for)"
        raise InputError(what, "recipe: fuse", "give a --model, or --evidence index")
    if len(names) > most:
        what = f"{recipe.fuse} fuses at most {most} kinds of candidates, there are {len(names)}: {', '.join(names)}"
        mend = "leave out a --model" + (", or the index by --evidence model" if INDEX in names else "")
        raise InputError(what, "recipe: fuse", mend)
    return Fusion(recipe.fuse, tuple(names), recipe.polygon_rules, ranks_water)


def fuse_candidates(
    fusion: Fusion,
    frames: Mapping[str, gpd.GeoDataFrame],
    products: Mapping[str, Any],
    layers: Mapping[str, xr.DataArray],
    *,
    ice: gpd.GeoDataFrame | None,
    exclude: gpd.GeoDataFrame | None,
) -> Fused:
    """Fuse the candidates of a run to lakes.

    Only those that were kept so far, for their shape and place, take part, the others keep their reason; unless the
    preset knows what to do with reasons. What it cuts or unites is judged anew, for its own shape and place.

    Parameters
    ----------
    fusion
        How.
    frames
        Judged candidates of each of its names, in one CRS, with ``reason`` and ``evidence``.
    products
        Of the run: outlines of ``sink`` and ``color``, and ``sinks`` within sinks, as far as there is such evidence.
    layers
        Rasters of evidence by name, for presets that judge by them.
    ice, exclude
        Polygons, or None where all may be ice, or nothing is excluded.
    """
    named = {name: frames[name] for name in fusion.names}
    crs = next(iter(named.values())).crs
    sinks = products["sinks"] if "sinks" in products else _frame(products.get(SINK), crs)
    beside = {"sinks": sinks, "color": _frame(products.get(COLOR), crs), "ice": ice}
    every = pd.concat([frame.assign(**{ROW: np.arange(len(frame))}) for frame in named.values()], ignore_index=True)
    takes_part = (every[REASON] == KEPT) | (REASON in fusion.method.if_there.get(MODELS, ()))
    lakes, reasons = fuse(
        {name: every[takes_part & (every[EVIDENCE] == name)].drop(columns=ROW) for name in named},
        **beside,
        evidence=None if fusion.preset in _BY_POLYGONS else layers,
        preset=fusion.method,
        return_reasons=True,
    )
    candidates, place = _give_reasons(every, every.index[takes_part], reasons)
    judge = partial(admit, ice=ice, exclude=exclude)
    kept = _judge_lakes(lakes, candidates, place, lambda frame: judge(judge_shapes(frame, fusion.rules, None)))
    made = ", ".join(f"{(kept[EVIDENCE] == name).sum()} of {name}" for name in fusion.names)
    told = ", ".join(f"{name} {'not known' if frame is None else len(frame)}" for name, frame in beside.items())
    return Fused(candidates, kept, f"fused by {fusion.preset}: lakes {made}; {told}")


def _frame(outlines: NDArray[Any] | None, crs: Any) -> gpd.GeoDataFrame | None:
    return None if outlines is None else gpd.GeoDataFrame(geometry=outlines, crs=crs)


def _give_reasons(
    every: gpd.GeoDataFrame, judged: pd.Index[int], reasons: gpd.GeoDataFrame
) -> tuple[gpd.GeoDataFrame, pd.Series[Any]]:
    """Give candidates their reasons; and say where each that was fused stands, by model and row in `fuse`."""
    told = pd.DataFrame(reasons[[REASON, BY, BY_ROW]].astype({REASON: object, BY: object})).set_index(judged)
    place = pd.Series(judged, pd.MultiIndex.from_frame(reasons[[_MODEL, ROW]]))
    # rows of what was fused become rows of the candidates' files; those of other frames stay
    decided = place.reindex(pd.MultiIndex.from_arrays([told[BY], told[BY_ROW].fillna(-1).astype(np.int64)])).to_numpy()
    known = ~np.isnan(decided)
    told.loc[judged[known], BY_ROW] = every[ROW].to_numpy()[decided[known].astype(np.intp)]
    every.loc[judged, REASON] = told[REASON]
    columns = {BY: told[BY].reindex(every.index, fill_value=""), BY_ROW: told[BY_ROW].reindex(every.index)}
    every = every.assign(**columns, **{LAKE_ID: pd.array([pd.NA] * len(every), "Int64")})
    return every[[*every.columns.drop("geometry"), "geometry"]], place


def _judge_lakes(
    lakes: gpd.GeoDataFrame,
    candidates: gpd.GeoDataFrame,
    place: pd.Series[Any],
    judge: Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame],
) -> gpd.GeoDataFrame:
    """Judge what was cut or united as candidates are judged; and tell the candidates of their lakes."""
    judged = judge(lakes[["geometry"]].assign(**{EVIDENCE: lakes[_MODEL].astype(object)}))
    judged.index = pd.Index(place.reindex(pd.MultiIndex.from_frame(lakes[[_MODEL, ROW]])).to_numpy(np.intp))
    right = judged[REASON] == KEPT
    kept, gone = judged[right], judged[~right]
    gone = gone[~gone.index.duplicated() & ~gone.index.isin(kept.index)]
    candidates.loc[gone.index, REASON] = gone[REASON]
    candidates.loc[gone.index, [BY, BY_ROW]] = ["", pd.NA]
    first = ~kept.index.duplicated()
    candidates.loc[kept.index[first], LAKE_ID] = np.arange(1, len(kept) + 1)[first]
    return kept.reset_index(drop=True)
