"""What travels between the tasks of a fusion: parts of frames, pairs of polygons, tables of both, and verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

MODELS, SINKS, COLOR, ICE = "models", "sinks", "color", "ice"
"""Roles of frames."""
EXACT, ROUNDED, LATER = "exact", "rounded", "later"
"""How the area that two polygons share is measured: to the last digit; to rounding; or, of frames in memory, only where
it is asked for by `lakescale.fusion.pairs.measure`, and till then it is infinite where there surely is one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Told:
    """What is known of the polygons of a part without their geometries; about 40 bytes a polygon."""

    frame: str
    """A model's name, or a role."""
    row: NDArray[np.int64]
    """Number among the pieces of the frame, its rows where none is cut; in the partition where ``in_order``."""
    source: NDArray[np.int64]
    """Row in the frame, or in the partition, that each piece comes from."""
    sources: int
    """How many rows the frame or the partition has."""
    in_order: bool
    """Whether the parts of this frame follow each other, as partitions do: a row counts from its part's first."""
    area: NDArray[np.float64]
    """In the CRS of the comparison; 0 where there is no polygon."""
    single: NDArray[np.bool_]
    """A Polygon, not a MultiPolygon."""
    code: NDArray[np.intp]
    """Which combination of image, time and region each polygon has."""
    combos: int
    """How many combinations there are; 1 of a frame without these columns."""
    values: Mapping[str, tuple[Any, ...]]
    """Image, time and region of each combination, as far as the frame has them; None where it is missing."""
    mended: NDArray[np.uint8]
    columns: pd.DataFrame
    """Columns that the preset asks for."""
    outline: NDArray[Any] | None
    """The polygons, where the preset judges by them, or all is in memory."""


@dataclass(frozen=True, eq=False)
class Part:
    """Checked polygons of one frame, or of a part of it."""

    told: Told
    geometry: NDArray[Any]
    """Valid Polygons and MultiPolygons in one CRS, an empty polygon where there is none; pieces, where they are cut."""
    whole: NDArray[Any]
    """The polygon that each piece comes from."""

    def take(self, rows: NDArray[np.intp]) -> Part:
        """Take some of the polygons."""
        told = self.told
        arrays = {name: getattr(told, name)[rows] for name in ("row", "source", "area", "single", "code", "mended")}
        if told.outline is not None:
            arrays["outline"] = told.outline[rows]
        return Part(replace(told, **arrays, columns=told.columns.iloc[rows]), self.geometry[rows], self.whole[rows])


class Meet(NamedTuple):
    """Which polygons meet which, and what is asked of a pair."""

    other: str
    """A role. Models meet those of higher precedence."""
    same: bool = False
    """Whether polygons of one model meet each other, too."""
    any_date: bool = False
    """Whether polygons of different images or times meet."""
    area: str = EXACT
    """`EXACT`, `ROUNDED` or `LATER`."""
    shapes: bool = False
    """Whether the intersections themselves are needed."""


class Pairs(NamedTuple):
    """Pairs that touch or overlap, in the order of ``own``, then ``other``."""

    own: NDArray[np.int64]
    """Polygons of models, by their number."""
    other: NDArray[np.int64]
    """Row in the other frame; of models: the number, which is lower than ``own``."""
    area: NDArray[np.float64]
    """Area shared, as `Meet` says."""
    shape: NDArray[Any]
    """Intersections, where asked for; else empty."""

    def where(self, chosen: NDArray[Any]) -> Pairs:
        """Take some of the pairs: a mask, or places."""
        shape = self.shape[chosen] if len(self.shape) else self.shape
        return Pairs(self.own[chosen], self.other[chosen], self.area[chosen], shape)


@dataclass(frozen=True, eq=False)
class Tables:
    """All that a preset judges by; no geometries but those that it asked for, or lie in memory anyway.

    Polygons of models are numbered in order of precedence, then by row, then by piece.
    """

    model: NDArray[np.intp]
    """Place of each polygon's model in the order of precedence."""
    row: NDArray[np.int64]
    """In the frame."""
    area: NDArray[np.float64]
    single: NDArray[np.bool_]
    """A Polygon, not a MultiPolygon."""
    group: NDArray[np.intp]
    """Image, time and region, as one number."""
    columns: pd.DataFrame
    names: Sequence[str]
    """Of the models."""
    pairs: Mapping[str, Pairs]
    """By role; what is not given is not there."""
    other_area: Mapping[str, NDArray[np.float64]]
    """By role, by row."""
    other_columns: Mapping[str, pd.DataFrame]
    outline: NDArray[Any] | None = None
    """Polygons of models, where there are any."""
    other_outline: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(eq=False)
class Verdict:
    """What became of each polygon of the models, and which lakes there are."""

    reason: NDArray[Any]
    by: NDArray[Any]
    """Frame of the polygon that decided, or an empty string."""
    by_row: NDArray[np.int64]
    """Its row, or -1."""
    lake: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """The polygon that each lake comes from, by its number, in ascending order."""
    shape: NDArray[Any] | None = None
    """Outline of each lake; None where it is its polygon's own."""

    def give(self, chosen: NDArray[Any], reason: Any, by: Any = "", by_row: Any = -1) -> None:
        """Give polygons, a mask or numbers, their reason."""
        self.reason[chosen], self.by[chosen], self.by_row[chosen] = reason, by, by_row


class Preset(Protocol):
    """A method of fusion."""

    most_models: ClassVar[int]
    """How many models it knows what to do with."""
    columns: ClassVar[Mapping[str, Sequence[str]]]
    """Columns that it judges by, for each role."""
    if_there: ClassVar[Mapping[str, Sequence[str]]]
    """Columns that it judges by where a frame has them, for each role."""
    outlines: ClassVar[Sequence[str]]
    """Roles whose polygons it judges by."""

    def meets(self) -> Sequence[Meet]:
        """List what the polygons of models meet."""

    def explain(self, missing: Sequence[str]) -> Sequence[str]:
        """Say what is not judged for want of evidence, a sentence each."""

    def measure(self, models: Mapping[str, Any], evidence: Any) -> Mapping[str, Any]:
        """Add what rasters of evidence tell to the frames of models, or refuse them."""

    def cut(self, geometry: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Give the pieces of polygons of models that are to be judged, and the place of the polygon of each, ascending.

        Every polygon has one piece or more.
        """

    def judge(self, tables: Tables) -> Verdict:
        """Judge all polygons at once."""
