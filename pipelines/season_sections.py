"""Sections of a season's recipe: where scenes are searched, what lakes hold, where they lie on the ice sheet."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from lakescale.evidence.volume_rules import read_days
from pipelines.strict import Strict


def _as_text(value: Any) -> Any:
    return None if value is None else str(value)


def _as_days(value: Any) -> Any:
    """Take a day, or the first and the last, as YAML reads them."""
    if value is None:
        return None
    days = [str(day) for day in (value if isinstance(value, list | tuple) else [value])]
    read_days(days)
    return days


Compare = Literal["eq", "neq", "lt", "lte", "gt", "gte", "in"]


class StacRecipe(Strict):
    """A search for scenes."""

    url: str
    """Of a STAC API, or URL or path of a static catalogue."""
    collections: list[str] = Field(default=[])
    bbox: Annotated[list[float] | None, Field(min_length=4, max_length=4)] = None
    """West, south, east, north in degrees; by default the bounds of the area of interest, where one is given."""
    datetime: Annotated[str | None, BeforeValidator(_as_text)] = None
    """A day, or ``first/last``, as STAC has it."""
    query: dict[str, dict[Compare, Any]] = Field(default={})
    """Such as ``eo:cloud_cover: {lt: 60}``."""
    max_items: Annotated[int, Field(ge=1)] | None = None


class VolumeRecipe(Strict):
    """What is known of the DEM whose beds tell volumes; see `lakescale.lake_volumes`."""

    dem_date: Annotated[list[str] | None, BeforeValidator(_as_days)] = None
    """The day on which it was imaged, or the first and the last; by default those in its names and tags."""
    datum: str | None = None
    """What its elevations are above, such as ``EGM2008``; by default known of ArcticDEM and REMA alone."""
    outline_depth_m: Annotated[float, Field(ge=0)] = 0.0
    """How deep water is where outlines end, which the evidence does not see: docs/season.md has figures."""
    outline_error_m: Annotated[float, Field(ge=0)] = 10.0
    dem_error_m: Annotated[float, Field(ge=0)] = 0.5
    flat_m: Annotated[float, Field(gt=0)] = 0.1
    max_void_share: Annotated[float, Field(ge=0, le=1)] = 0.1


class DepthRecipe(Strict):
    """Depths from reflectance; see `lakescale.water_depth`. What is not given is told by sensor and scene."""

    band: Literal["red", "green"] = "red"
    g: Annotated[float, Field(gt=0)] | None = None
    r_inf: float | None = None
    a_d: Annotated[float, Field(gt=0)] | None = None
    ring_m: Annotated[float, Field(ge=0)] = 30.0


class IceSheetRecipe(Strict):
    """Outlines that tell where on the ice sheet a lake lies, in any CRS."""

    basins: str | None = None
    """Polygons of drainage basins."""
    basin_name: str | None = None
    """The column with their names; by default the first column of text."""
    grounded: str | None = None
    """Polygons of grounded ice: a lake of which less than half lies in them floats."""
