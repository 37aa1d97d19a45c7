"""Frames as they were given: what they must have, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import dask_geopandas
import geopandas as gpd
import pandas as pd

from lakescale.fusion.parts import COLOR, ICE, MODELS, SINKS, Preset
from lakescale.schema import IMAGE, LAKE_TIME, REGION_NUM, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

DATES = (IMAGE, LAKE_TIME)
"""Columns that tell dates apart."""
KEYS = (*DATES, REGION_NUM)
"""Columns in which polygons must be equal to meet, where both frames have them."""


class Reading(NamedTuple):
    """How the partitions of a frame are read."""

    name: str
    """A model's name, or a role."""
    crs: Any
    """The one CRS of the comparison, or None."""
    keys: tuple[str, ...]
    columns: tuple[str, ...]
    """Columns that the preset judges by."""
    cut: Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[np.intp]]] | None = None
    """See `lakescale.fusion.parts.Preset`; None for what is no model."""
    outlines: bool = False
    """Whether the polygons themselves go to where all are judged."""


@dataclass(frozen=True, eq=False)
class Input:
    """A checked frame, and how it is read."""

    frame: Any
    reading: Reading

    @property
    def name(self) -> str:
        """A model's name, or a role."""
        return self.reading.name

    @property
    def lazy(self) -> bool:
        """Whether it is a dask frame."""
        return not isinstance(self.frame, gpd.GeoDataFrame)


@dataclass(frozen=True, eq=False)
class Inputs:
    """All frames of a fusion."""

    models: tuple[Input, ...]
    """In order of precedence."""
    evidence: tuple[Input, ...]
    """Those that were given, of sinks, color, ice."""
    keys: pd.DataFrame
    """No rows; the columns by which models are grouped, with their common types."""
    crs: Any

    @property
    def frames(self) -> tuple[Input, ...]:
        """Models first."""
        return (*self.models, *self.evidence)

    @property
    def missing(self) -> tuple[str, ...]:
        """Name the evidence that was not given."""
        return tuple(name for name in (SINKS, COLOR, ICE) if name not in {item.name for item in self.evidence})


def check_inputs(models: Mapping[str, Any], evidence: Mapping[str, Any], preset: Preset) -> Inputs:
    """Check that frames can be compared; no dask frame is computed.

    Raises
    ------
    InputError
        No models, or more than the preset knows what to do with; what is no frame of geometries; a CRS that is missing
        or not in metres; a column that is missing, or of another kind than in the other frames.
    """
    _refuse_names(models, preset)
    given = {**models, **{name: frame for name, frame in evidence.items() if frame is not None}}
    for name, frame in given.items():
        _refuse_no_geometry(frame, name)
    crs = _common_crs(given)
    keys = _model_keys({name: given[name] for name in models})
    _refuse_other_kinds(given)
    _refuse_undated(given.get(COLOR), keys, preset)
    inputs = {
        name: _input(name, frame, crs, MODELS if name in models else name, preset) for name, frame in given.items()
    }
    return Inputs(
        tuple(inputs[name] for name in models),
        tuple(item for name, item in inputs.items() if name not in models),
        _empty_keys([inputs[name] for name in models], keys),
        crs,
    )


def is_empty(frame: Any) -> bool:
    """Tell a frame that is known to have no rows: it is at home in any CRS and needs no columns."""
    return isinstance(frame, gpd.GeoDataFrame) and not len(frame)


def _refuse_names(models: Mapping[str, Any], preset: Preset) -> None:
    if not isinstance(models, dict) or not models:
        raise InputError("no models to fuse", "models", 'give a dict of frames in order of precedence: {"sam": frame}')
    if len(models) > preset.most_models:
        what = f"this preset fuses at most {preset.most_models} models, {len(models)} were given"
        raise InputError(what, ", ".join(map(str, models)), "leave some out, or choose another preset")
    for name in models:
        if not isinstance(name, str) or not name or name in (SINKS, COLOR, ICE):
            raise InputError(f"{name!r} is no name for a model", "models", "name models sam, deeplab, ...")


def _refuse_no_geometry(frame: Any, name: str) -> None:
    if not isinstance(frame, (gpd.GeoDataFrame, dask_geopandas.GeoDataFrame)):
        what = f"a frame of polygons is needed, got {type(frame).__name__}"
        raise InputError(what, name, "give a geopandas or dask-geopandas GeoDataFrame")
    meta = frame if isinstance(frame, gpd.GeoDataFrame) else frame._meta  # noqa: SLF001  (has no other name)
    if meta.active_geometry_name is None:
        raise InputError("the frame has no active geometry column", name, "name it with set_geometry")
    twice = meta.columns[meta.columns.duplicated()].tolist()
    if twice:
        raise InputError(f"a column is there twice: {twice[0]}", name, "drop one of them")


def _common_crs(given: Mapping[str, Any]) -> Any:
    """Find the CRS of the first model with rows; all areas are areas in it."""
    filled = {name: frame for name, frame in given.items() if not is_empty(frame)}
    crs = next((frame.crs for frame in (*filled.values(), *given.values())), None)
    for name, frame in filled.items():
        if (frame.crs is None) != (crs is None):
            bare = name if frame.crs is None else next(iter(filled))
            raise InputError("only other frames have a CRS", bare, f"set it, for example {bare}.set_crs(3413)")
    if crs and filled and any(axis.unit_conversion_factor != 1 for axis in crs.axis_info[:2]):
        raise InputError(f"areas in {crs.name} are not in m2", next(iter(filled)), "use metres: to_crs(3413)")
    return crs


def _model_keys(models: Mapping[str, Any]) -> tuple[str, ...]:
    """List the columns by which models are grouped, which all must have."""
    has = {name: [key for key in KEYS if key in frame.columns] for name, frame in models.items() if not is_empty(frame)}
    every = [key for key in KEYS if any(key in keys for keys in has.values())]
    for name, keys in has.items():
        for key in every:
            if key not in keys:
                raise InputError(f"other models have a column {key}, this one has none", name, f"add {key}")
    if not has:
        return tuple(key for key in KEYS if all(key in frame.columns for frame in models.values()))
    return tuple(every)


def _refuse_other_kinds(given: Mapping[str, Any]) -> None:
    for key in KEYS:
        kinds = {
            name: _kind(frame, key) for name, frame in given.items() if key in frame.columns and not is_empty(frame)
        }
        known = {name: kind for name, kind in kinds.items() if kind}
        first = next(iter(known), "")
        for name, kind in known.items():
            if kind != known[first]:
                what = f"{key} is {kind} here and {known[first]} in {first}"
                raise InputError(what, name, f"bring both to one type, for example {key}.astype(str)")


def _kind(frame: Any, key: str) -> str:
    """Name the kind of a column; empty where only computing would tell."""
    column = frame[key].infer_objects() if isinstance(frame, gpd.GeoDataFrame) else frame._meta[key]  # noqa: SLF001
    if column.dtype == object and not isinstance(frame, gpd.GeoDataFrame):
        return ""
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "a number"
    return "a time" if pd.api.types.is_datetime64_any_dtype(column.dtype) else "text"


def _refuse_undated(color: Any, keys: Sequence[str], preset: Preset) -> None:
    """Refuse color polygons whose date is not known, where the preset asks for it."""
    if color is None or is_empty(color) or all(meet.any_date for meet in preset.meets() if meet.other == COLOR):
        return
    dated, color_dated = ([key for key in DATES if key in columns] for columns in (keys, color.columns))
    if (dated or color_dated) and not set(dated) & set(color_dated):
        what = f"models are dated by {dated or 'nothing'}, color polygons by {color_dated or 'nothing'}"
        raise InputError(what, COLOR, "add the column to the other frame, or pool dates: preset=Seed(pool_dates=True)")


def _input(name: str, frame: Any, crs: Any, role: str, preset: Preset) -> Input:
    asked = tuple(preset.columns.get(role, ()))
    for column in asked:
        if column not in frame.columns and not is_empty(frame):
            raise InputError(f"the preset judges by a column {column}, which is not there", name, f"add {column}")
    wanted = (*asked, *preset.if_there.get(role, ()))
    columns = tuple(column for column in wanted if column in frame.columns)
    cut = preset.cut if role == MODELS else None
    keys = tuple(key for key in KEYS if key in frame.columns)
    return Input(frame, Reading(name, crs, keys, columns, cut, role in preset.outlines))


def _empty_keys(models: Sequence[Input], keys: Sequence[str]) -> pd.DataFrame:
    metas = [item.frame._meta if item.lazy else item.frame for item in models if not is_empty(item.frame)]  # noqa: SLF001
    metas = metas or [item.frame for item in models]
    return pd.concat([pd.DataFrame(meta.iloc[:0][list(keys)]) for meta in metas], ignore_index=True)
