"""The seed's five steps, on tables of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import shapely

from lakescale.fusion.pairs import measure
from lakescale.fusion.parts import COLOR, EXACT, ICE, LATER, MODELS, ROUNDED, SINKS, Meet, Pairs, Tables, Verdict
from lakescale.fusion.reasons import NO_AREA, NO_EVIDENCE, NO_FIT, NOT_ON_ICE, NOT_ONE_POLYGON, REPLACED, SET_ASIDE
from lakescale.schema import KEPT, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Seed:
    """The method of the seed project (12th ACM SIGSPATIAL Cup, 2023), its errors mended; each mend can be taken back.

    Per image (or time) and region, with M the polygons of the first model, or those of the second where the first has
    none, D those of the second, T sinks, C color polygons, I ice:

    1. of two or more M that overlap a sink, the one with the largest total overlap with C keeps it (in a draw the
       first in row order), the others are set aside;
    2. an M that overlaps neither T nor C is dropped;
    3. an M that was set aside comes back when its area lies strictly between 0.7 and 1.4 times that of a C it overlaps;
    4. a D is added that overlaps no M and whose area lies strictly between 0.7 and 1.4 times that of a T or C it
       overlaps;
    5. what does not overlap I is dropped.

    In step 1 each sink is judged by itself: an M that another sink sets aside still takes part.
    """

    pool_dates: bool = False
    """Whether polygons meet the color polygons of all dates, as in the original."""
    clip_revived: bool = False
    """Whether what step 3 brings back is cut to the sink that it lost, once for each such sink, as in the original."""
    touching: bool = False
    """Whether touching counts as overlapping, as in the original."""
    polygons_only: bool = False
    """Whether what is no Polygon at the end is dropped, as in the original: lakes of two parts, scraps of a clip."""

    most_models: ClassVar[int] = 2
    columns: ClassVar[Mapping[str, Sequence[str]]] = {}
    if_there: ClassVar[Mapping[str, Sequence[str]]] = {}
    outlines: ClassVar[Sequence[str]] = ()

    def meets(self) -> tuple[Meet, ...]:
        """List what the polygons of models meet."""
        return (
            Meet(SINKS, area=LATER, shapes=self.clip_revived),
            Meet(COLOR, area=LATER, any_date=self.pool_dates),
            Meet(MODELS, area=LATER),
            Meet(ICE, area=EXACT if self.clip_revived else ROUNDED, shapes=self.clip_revived),
        )

    def explain(self, missing: Sequence[str]) -> list[str]:
        """Say what is not judged for want of evidence."""
        said = {
            SINKS: "no sinks: none is contested (step 1), steps 2 and 4 judge by color alone",
            COLOR: "no color polygons: sinks stay contested (steps 1 and 3), steps 2 and 4 judge by sinks alone",
            ICE: "no ice: none is dropped for lying off it (step 5)",
        }
        if {SINKS, COLOR} <= set(missing):
            said |= {SINKS: "neither sinks nor color polygons: only the first model's polygons are kept, all of them"}
            said.pop(COLOR)
        return [said[name] for name in missing if name in said]

    def measure(self, models: Mapping[str, Any], evidence: Any) -> Mapping[str, Any]:
        """Refuse rasters: the five steps know polygons only."""
        del models, evidence
        raise InputError("the preset seed judges by polygons, not by rasters", "evidence", "leave evidence out")

    def cut(self, geometry: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Leave polygons as they are."""
        return geometry, np.arange(len(geometry))

    def judge(self, tables: Tables) -> Verdict:
        """Judge all polygons at once."""
        pairs = {role: self._overlapping(found) for role, found in tables.pairs.items()}
        fits = {role: _fitting(pairs[role], tables, role) for role in (SINKS, COLOR) if role in pairs}
        first, nobody = _first_models(tables), np.full(len(tables.area), "", object)
        verdict = Verdict(np.full(len(first), KEPT, object), nobody, np.full(len(first), -1))
        lost = _contest_sinks(pairs, first, tables, verdict)
        _require_evidence(pairs, first, verdict)
        revived = _revive(fits, verdict)
        _add_others(pairs, fits, first, tables, verdict)
        verdict.give(tables.area == 0, NO_AREA)

        lakes = _Lakes(np.flatnonzero(verdict.reason == KEPT), None)
        if self.clip_revived:
            lakes = _clip(lakes.number[~revived[lakes.number]], lost.where(revived[lost.own]))
        if ICE in pairs:
            lakes = _keep(lakes, self._on_ice(lakes, pairs[ICE]), NOT_ON_ICE, verdict)
        lakes = _keep(lakes, self._is_polygon(lakes, tables), NOT_ONE_POLYGON, verdict)
        verdict.lake, verdict.shape = lakes
        return verdict

    def _overlapping(self, found: Pairs) -> Pairs:
        return found if self.touching else found.where(found.area > 0)

    def _on_ice(self, lakes: _Lakes, ice: Pairs) -> NDArray[np.bool_]:
        on_ice = np.isin(lakes.number, ice.own)
        if lakes.shape is None:
            return on_ice
        cut = np.flatnonzero(on_ice & ~shapely.is_missing(lakes.shape))
        i, j = _join(lakes.number[cut], ice.own)
        a, b = lakes.shape[cut[i]], ice.shape[j]
        shared = shapely.intersects(a, b) if self.touching else shapely.area(shapely.intersection(a, b)) > 0
        on_ice[cut] = np.isin(np.arange(len(cut)), i[shared])
        return on_ice

    def _is_polygon(self, lakes: _Lakes, tables: Tables) -> NDArray[np.bool_]:
        one = tables.single[lakes.number] if self.polygons_only else np.ones(len(lakes.number), bool)
        if lakes.shape is not None:
            cut = ~shapely.is_missing(lakes.shape)
            kinds = (_POLYGON,) if self.polygons_only else (_POLYGON, _MULTIPOLYGON, _COLLECTION)
            found = np.isin(shapely.get_type_id(lakes.shape), kinds) & (shapely.area(lakes.shape) > 0)
            one[cut] = found[cut]
        return one


_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7


class _Lakes(NamedTuple):
    number: NDArray[np.int64]
    shape: NDArray[Any] | None


def _first_models(tables: Tables) -> NDArray[np.bool_]:
    """Tell the M of the method: of each group the polygons of the first model that has any there."""
    there = tables.area > 0
    least = np.full(tables.group.max(initial=-1) + 1, np.iinfo(np.intp).max)
    np.minimum.at(least, tables.group[there], tables.model[there])
    return there & (tables.model == least[tables.group])


def _contest_sinks(pairs: Mapping[str, Pairs], first: NDArray[np.bool_], tables: Tables, verdict: Verdict) -> Pairs:
    """Step 1: set aside what shares a sink with an M that overlaps more color; give the pairs that lost."""
    if SINKS not in pairs:
        return _NO_PAIRS
    found = pairs[SINKS].where(first[pairs[SINKS].own])
    if COLOR not in pairs:
        return found.where(np.zeros(len(found.own), bool))
    # a sink without a date is one of each date
    sink = tables.group[found.own] * (len(tables.other_area[SINKS]) + 1) + found.other
    _, which, rivals = np.unique(sink, return_inverse=True, return_counts=True)
    contends = np.zeros(len(first), bool)
    contends[found.own[rivals[which] > 1]] = True
    color = pairs[COLOR].where(contends[pairs[COLOR].own])
    color = measure(color, COLOR, tables, np.ones(len(color.own), bool))
    total = np.bincount(color.own, weights=color.area, minlength=len(first))
    order = np.lexsort((found.own, -total[found.own], sink))
    _, start, which = np.unique(sink[order], return_index=True, return_inverse=True)
    winner = np.empty_like(found.own)
    winner[order] = found.own[order][start][which]
    beaten = found.own != winner
    lost, by = found.where(beaten), winner[beaten]
    own, at = np.unique(lost.own, return_index=True)
    verdict.give(own, SET_ASIDE, _names(tables)[tables.model[by[at]]], tables.row[by[at]])
    return lost


def _require_evidence(pairs: Mapping[str, Pairs], first: NDArray[np.bool_], verdict: Verdict) -> None:
    """Step 2: drop each M that overlaps neither sinks nor color."""
    given = [pairs[role].own for role in (SINKS, COLOR) if role in pairs]
    if given:
        backed = np.isin(np.arange(len(first)), np.concatenate(given))
        verdict.give(first & (verdict.reason == KEPT) & ~backed, NO_EVIDENCE)


def _fitting(found: Pairs, tables: Tables, role: str) -> Pairs:
    """Take the pairs in which the area lies strictly between 0.7 and 1.4 times the other's."""
    area, other = tables.area[found.own], tables.other_area[role][found.other]
    # whole numbers, since neither 0.7 nor 1.4 is a binary one
    return found.where((10 * area > 7 * other) & (5 * area < 7 * other))


def _revive(fits: Mapping[str, Pairs], verdict: Verdict) -> NDArray[np.bool_]:
    """Step 3: bring back what was set aside and fits a color polygon."""
    revived = np.zeros(len(verdict.reason), bool)
    if COLOR in fits:
        own, at = np.unique(fits[COLOR].own, return_index=True)
        back = verdict.reason[own] == SET_ASIDE
        revived[own[back]] = True
        verdict.give(own[back], KEPT, COLOR, fits[COLOR].other[at[back]])
    return revived


def _add_others(
    pairs: Mapping[str, Pairs], fits: Mapping[str, Pairs], first: NDArray[np.bool_], tables: Tables, verdict: Verdict
) -> None:
    """Step 4: of the other polygons, keep those that overlap no M and fit a sink or a color polygon."""
    verdict.give(~first, NO_FIT)
    for role in (COLOR, SINKS):  # where both fit, the sink is named
        if role in fits:
            own, at = np.unique(fits[role].own, return_index=True)
            verdict.give(own[~first[own]], KEPT, role, fits[role].other[at[~first[own]]])
    over = pairs[MODELS].where(first[pairs[MODELS].other])
    over = measure(over, MODELS, tables, np.bincount(over.own, minlength=1)[over.own] > 1)
    order = np.lexsort((over.other, -over.area, over.own))
    own, at = np.unique(over.own[order], return_index=True)
    most = over.other[order][at]
    verdict.give(own, REPLACED, _names(tables)[tables.model[most]], tables.row[most])


def _clip(whole: NDArray[np.int64], lost: Pairs) -> _Lakes:
    """Put what comes back, cut to each sink that it lost, between what is kept whole."""
    number = np.concatenate([whole, lost.own])
    shape = np.concatenate([np.full(len(whole), None, object), lost.shape])
    order = np.argsort(number, kind="stable")
    return _Lakes(number[order], shape[order])


def _keep(lakes: _Lakes, right: NDArray[np.bool_], reason: str, verdict: Verdict) -> _Lakes:
    """Keep some of the lakes, and give the reason to polygons that are left without any."""
    number, shape = lakes.number[right], None if lakes.shape is None else lakes.shape[right]
    verdict.give(np.setdiff1d(lakes.number, number), reason)
    return _Lakes(number, shape)


def _join(left: NDArray[np.int64], right: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give the places of all equal values; ``right`` is in order."""
    start, stop = (np.searchsorted(right, left, side=side) for side in ("left", "right"))
    count = stop - start
    i = np.repeat(np.arange(len(left)), count)
    return i, np.arange(len(i)) + np.repeat(start - np.cumsum(count) + count, count)


def _names(tables: Tables) -> NDArray[Any]:
    return np.array(tables.names, object)


_NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty(0, object))
