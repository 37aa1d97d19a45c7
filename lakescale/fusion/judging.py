"""What was told of parts and found of pairs, to one table; and the verdict back to each part."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lakescale.fusion.pairs import number_groups
from lakescale.fusion.parts import MODELS, Pairs, Tables
from lakescale.fusion.reasons import count_mends
from lakescale.schema import KEPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lakescale.chunks.pairing import Meeting
    from lakescale.fusion.pairs import Met
    from lakescale.fusion.parts import Preset, Told, Verdict

_LOG = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What became of the polygons of a part, one for all their pieces, and the lakes that come from them."""

    row: NDArray[np.int64]
    """Row in the frame."""
    reason: NDArray[Any]
    by: NDArray[Any]
    by_row: NDArray[np.int64]
    lake_id: NDArray[np.int64]
    """From 1 in the order of models and rows."""
    place: NDArray[np.intp]
    """Place in the part of the piece that each lake comes from."""
    shape: NDArray[Any] | None
    """Outline of each lake, None where it is its polygon's own."""


@dataclass(frozen=True)
class Judge:
    """Judge all parts at once; holds about 100 bytes a polygon and 100 a pair."""

    models: tuple[str, ...]
    keys: tuple[str, ...]
    """Columns by which models are grouped."""
    preset: Preset
    meetings: tuple[Meeting, ...]

    def __call__(self, told: Sequence[Told], found: Sequence[Met]) -> list[Answer]:
        """Give an answer for each part of a model."""
        parts = [one for one in told if one.frame in self.models]
        number = _number(told, self.models)
        tables = self._tabulate(told, found, number)
        verdict = self.preset.judge(tables)
        _report(told, verdict)
        return _deal(verdict, parts, number[: len(parts)], tables)

    def _tabulate(self, told: Sequence[Told], found: Sequence[Met], number: Sequence[NDArray[np.int64]]) -> Tables:
        models = _Stack.of(told, number, self.models)
        others = [name for name in dict.fromkeys(one.frame for one in told) if name not in self.models]
        stacks = {name: _Stack.of(told, number, (name,)) for name in others}
        roles = dict.fromkeys(meet.other for meet in self.preset.meets())
        return Tables(
            model=models.put([np.full(len(one.row), self.models.index(one.frame)) for one in models.told]),
            row=models.put(_find_rows(models.told)),
            area=models.put([one.area for one in models.told]),
            single=models.put([one.single for one in models.told]),
            group=models.put(number_groups(models.told, self.keys)),
            columns=models.columns(),
            names=self.models,
            pairs={role: self._collect(role, found, number) for role in roles if role in (*others, MODELS)},
            other_area={name: stack.put([one.area for one in stack.told]) for name, stack in stacks.items()},
            other_columns={name: stack.columns() for name, stack in stacks.items()},
            outline=models.outlines() if models.outlined else None,
            other_outline={name: stack.outlines() for name, stack in stacks.items() if stack.outlined},
        )

    def _collect(self, role: str, found: Sequence[Met], number: Sequence[NDArray[np.int64]]) -> Pairs:
        """Put the pairs of all meetings in order."""
        own, other, area, shape = ([np.empty(0, dtype)] for dtype in (np.int64, np.int64, np.float64, object))
        for meeting, met in zip(self.meetings, found, strict=True):
            if meeting.how.other == role:
                own.append(number[meeting.block][met.own])
                other.append(number[meeting.other][met.other])
                area.append(met.area)
                shape.append(met.shape)
        pairs = Pairs(*(np.concatenate(values) for values in (own, other, area, shape)))
        if role == MODELS:  # parts of one model meet in any order
            pairs = pairs._replace(own=np.maximum(*pairs[:2]), other=np.minimum(*pairs[:2]))
        order = np.lexsort((pairs.other, pairs.own))
        return pairs.where(order)


class _Stack(NamedTuple):
    """Parts of some frames, and the order that puts their polygons by number."""

    told: list[Told]
    order: NDArray[np.intp]

    @classmethod
    def of(cls, told: Sequence[Told], number: Sequence[NDArray[np.int64]], names: Sequence[str]) -> _Stack:
        mine = [k for k, one in enumerate(told) if one.frame in names]
        return cls([told[k] for k in mine], np.argsort(np.concatenate([number[k] for k in mine])))

    @property
    def outlined(self) -> bool:
        return self.told[0].outline is not None

    def put(self, values: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(values)[self.order]

    def columns(self) -> pd.DataFrame:
        return pd.concat([one.columns for one in self.told]).iloc[self.order].reset_index(drop=True)

    def outlines(self) -> NDArray[Any]:
        return self.put([np.asarray(one.outline, object) for one in self.told])


def _number(told: Sequence[Told], models: Sequence[str]) -> list[NDArray[np.int64]]:
    """Give each polygon its number: of models in order of precedence, then by row; of other frames the row."""
    numbers, start, past = [], {}, 0
    for one in told:
        if one.frame not in start:
            start[one.frame] = past if one.frame in models else 0
        numbers.append(start[one.frame] + one.row)
        past += len(one.row) * (one.frame in models)
        if one.in_order:
            start[one.frame] += len(one.row)
    return numbers


def _find_rows(told: Sequence[Told]) -> list[NDArray[np.int64]]:
    """Give each piece the row in the frame that it comes from."""
    rows, start = [], dict.fromkeys((one.frame for one in told), 0)
    for one in told:
        rows.append(start[one.frame] + one.source)
        start[one.frame] += one.sources * one.in_order
    return rows


def is_first_piece(told: Told) -> NDArray[np.bool_]:
    """Tell the first piece of each polygon of a part; its other pieces follow."""
    return np.diff(told.source, prepend=-1) != 0


def _report(told: Sequence[Told], verdict: Verdict) -> None:
    """Log how many polygons were mended, and how many met which fate."""
    for name in dict.fromkeys(one.frame for one in told):
        counts = count_mends(np.concatenate([one.mended[is_first_piece(one)] for one in told if one.frame == name]))
        flat = sum(int(np.count_nonzero(one.area == 0)) for one in told if one.frame == name)
        counts |= {"without an area": flat} if flat else {}
        if counts:
            _LOG.warning("%s: %s", name, ", ".join(f"{count} {what}" for what, count in counts.items()))
    fates = pd.Series(verdict.reason).value_counts(sort=False)
    _LOG.info("%d polygons, %d lakes: %s", len(verdict.reason), len(verdict.lake), fates.to_dict())


def _deal(
    verdict: Verdict, parts: Sequence[Told], numbers: Sequence[NDArray[np.int64]], tables: Tables
) -> list[Answer]:
    """Hand each part of the models what concerns it."""
    answers = []
    for told, number in zip(parts, numbers, strict=True):
        telling = number[_find_telling(told, verdict.reason[number])]
        place = np.full(len(verdict.reason), -1)
        place[number] = np.arange(len(number))
        mine = np.flatnonzero(place[verdict.lake] >= 0)
        answers.append(
            Answer(
                row=tables.row[telling],
                reason=verdict.reason[telling],
                by=verdict.by[telling],
                by_row=verdict.by_row[telling],
                lake_id=mine + 1,
                place=place[verdict.lake[mine]],
                shape=None if verdict.shape is None else verdict.shape[mine],
            )
        )
    return answers


def _find_telling(told: Told, reason: NDArray[Any]) -> NDArray[np.intp]:
    """Choose the piece that tells what became of each polygon: the first one kept, else the largest."""
    order = np.lexsort((-told.area, reason != KEPT, told.source))
    return order[np.unique(told.source[order], return_index=True)[1]]
