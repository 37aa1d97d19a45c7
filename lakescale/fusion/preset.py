"""The preset `lakescale`: candidates weighed by form and agreement, one lake a sink, lids kept in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import shapely

from lakescale.fusion.basins import DEPTH_M, LEVEL, Lidded, find_basins, find_fillers, find_lidded
from lakescale.fusion.measuring import BACKED, ICE_SHARE, MEAN, PEAK, UNSEEN_M, add_evidence
from lakescale.fusion.outlines import cut_necks, fill_lids
from lakescale.fusion.parts import COLOR, ICE, MODELS, ROUNDED, SINKS, Meet, Pairs, Tables, Verdict
from lakescale.fusion.reasons import IMPROBABLE, MERGED, NEAR_UNSEEN, NO_AREA, NOT_ON_ICE, REASONS, SHAPES, WEAK
from lakescale.fusion.rivals import settle
from lakescale.fusion.weight import SUPPORT, agree, weigh
from lakescale.schema import KEPT, REASON, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_MANY = 1000
_LEAST_AGREED = 0.5
"""Least agreement of each body of a polygon that is cut."""


@dataclass(frozen=True, kw_only=True)
class Lakescale:
    """Candidates of all models, and of the index, weighed by a score of two terms; then one lake a sink.

    Per image (or time) and region:

    1. holes are filled; a polygon with narrow necks is judged as its bodies, where each of them agrees with other
       evidence better than the whole, and by a half at least;
    2. what lies off the ice, or is improbable by rasters of evidence (if asked for), is dropped;
    3. a candidate is scored by its solidity (share of its convex hull) and its agreement (largest intersection over
       union with a candidate of another model, a sink at any level, or a color polygon); see `weigh`;
    4. of candidates that overlap the one with the best score stays, the others are merged into it;
    5. of a sink that one lake fills the other candidates are merged into that lake;
    6. of any other sink the water in it is one lake, where its convex hull covers most of the sink: its outline is the
       sink with these candidates. So a lake under a lid of ice is whole, though only its moat is water.

    A column ``reason`` of the candidates, as `outline_candidates` gives it, may say that one is too small or too narrow
    to be a lake by itself: it takes part in step 6 only. Sinks may have columns ``level`` and ``depth_m``, as
    `sink_regions` gives them, and then be nested.

    The task that judges holds the outlines of all candidates and sinks: about 20 bytes a vertex.
    """

    fill_lids: bool = True
    """Whether holes are lake."""
    neck: float = 0.4
    """Width of a neck, as a share of the width of the polygon; 0 for none."""
    least_score: float = -2.0
    """Least score of a lake, log of odds that its outline is right: 0 is even. Lower by default, since a crescent of
    water beside a lid has a poor outline and is a lake all the same."""
    min_ice_share: float = 0.5
    """Least share of a candidate on ice."""
    sink_fill: float = 0.8
    """Least share of a sink that a lake must have to fill it by itself."""
    sink_cover: float = 0.7
    """Least share of a sink that the convex hull of its water must have for it to be a lake; above 1 for off."""
    min_sink_depth_m: float = 0.5
    """Least depth of a sink that counts in steps 5 and 6, where depths are known."""
    min_sink_area_m2: float = 5000.0
    """Least area, in the CRS, of a sink that is a lake though none of its water is one by itself."""
    min_probability: float = 0.0
    """Least mean probability of a candidate by any model's raster; only with rasters of evidence."""
    min_peak: float = 0.0
    """Least maximum probability, likewise."""
    min_index_probability: float = 0.05
    """Least mean probability, by any model's raster, of a candidate of the frame ``index``; only with such rasters.
    What the water index alone takes for lakes (rock, shadow, blue ice, stretched colors) a model knows better."""
    min_unseen_m: float = 0.0
    """Least distance to what was not seen; only with rasters of evidence."""

    most_models: ClassVar[int] = _MANY
    columns: ClassVar[Mapping[str, Sequence[str]]] = {}
    if_there: ClassVar[Mapping[str, Sequence[str]]] = {
        MODELS: (REASON, SUPPORT, BACKED, ICE_SHARE, MEAN, PEAK, UNSEEN_M),
        SINKS: (LEVEL, DEPTH_M),
    }
    outlines: ClassVar[Sequence[str]] = (MODELS, SINKS)

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("neck", "min_ice_share", "sink_fill", "min_probability", "min_peak", "min_index_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in 0 to 1, got {getattr(self, name)!r}", "preset")
        for name in ("sink_cover", "min_sink_depth_m", "min_sink_area_m2", "min_unseen_m"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)!r}", "preset")

    def meets(self) -> tuple[Meet, ...]:
        """List what the polygons of models meet."""
        return Meet(SINKS), Meet(COLOR), Meet(MODELS, same=True), Meet(ICE, area=ROUNDED)

    def explain(self, missing: Sequence[str]) -> list[str]:
        """Say what is not judged for want of evidence."""
        said = {
            SINKS: "no sinks: lakes under lids of ice stay in pieces; agreement is that with other models and color",
            COLOR: "no color polygons: agreement is that with other models and sinks",
            ICE: "no ice polygons: none is dropped for lying off the ice, unless a raster says so",
        }
        return [said[name] for name in missing]

    def measure(self, models: Mapping[str, Any], evidence: Any) -> Mapping[str, Any]:
        """Add what rasters of evidence tell to the frames of models; see `add_evidence`."""
        return add_evidence(models, evidence)

    def cut(self, geometry: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Fill lids; give each polygon, followed by the bodies that it may be cut to."""
        whole = fill_lids(geometry) if self.fill_lids else geometry
        every = np.arange(len(whole))
        if not self.neck:
            return whole, every
        bodies, of = cut_necks(whole, self.neck)
        source = np.concatenate([every, of])
        order = np.argsort(source, kind="stable")
        return np.concatenate([whole, bodies])[order], source[order]

    def judge(self, tables: Tables) -> Verdict:
        """Judge all polygons at once."""
        count = len(tables.area)
        verdict = Verdict(np.full(count, KEPT, object), np.full(count, "", object), np.full(count, -1))
        water, lake = _take_part(tables, verdict)
        water &= ~self._drop(tables, water, verdict)
        stand_in = _choose_cuts(tables, _among(tables.pairs, water), water)
        water &= stand_in == np.arange(count)
        lake &= water
        pairs = _among(tables.pairs, water)
        score = weigh(tables, pairs)
        verdict.give(lake & (score < self.least_score), WEAK)
        lake &= score >= self.least_score
        _settle_rivals(tables, pairs[MODELS], score, lake, verdict)
        lidded = self._fill_sinks(tables, pairs, lake, verdict)
        _give_lakes(tables, lidded, lake, verdict)
        idle = np.flatnonzero(stand_in != np.arange(count))
        like = stand_in[idle]
        verdict.give(idle, verdict.reason[like], verdict.by[like], verdict.by_row[like])
        return verdict

    def _drop(self, tables: Tables, water: NDArray[np.bool_], verdict: Verdict) -> NDArray[np.bool_]:
        """Take step 2: give reasons to what is dropped, and tell what that is."""
        columns, gone = tables.columns, np.zeros(len(water), bool)
        for name, least, reason in (
            (MEAN, self.min_probability, IMPROBABLE),
            (PEAK, self.min_peak, IMPROBABLE),
            (BACKED, self.min_index_probability, IMPROBABLE),
            (UNSEEN_M, self.min_unseen_m, NEAR_UNSEEN),
        ):
            if name in columns:
                low = water & (columns[name].to_numpy(np.float64, na_value=np.nan) < least)
                verdict.give(low, reason)
                gone |= low
        off_ice = water & (_share_on_ice(tables) < self.min_ice_share)
        verdict.give(off_ice, NOT_ON_ICE)
        return gone | off_ice

    def _fill_sinks(
        self, tables: Tables, pairs: Mapping[str, Pairs], lake: NDArray[np.bool_], verdict: Verdict
    ) -> Lidded | None:
        """Take steps 5 and 6; ``lake`` loses what is merged in step 5."""
        if SINKS not in pairs or not len(pairs[SINKS].own):
            return None
        basins = find_basins(tables, pairs[SINKS], min_depth_m=self.min_sink_depth_m)
        is_filler, filler = find_fillers(basins, lake, fill=self.sink_fill)
        held = np.flatnonzero(filler >= 0)
        _merge(tables, verdict, held, filler[held])
        lake[held] = False
        return find_lidded(basins, tables, lake, is_filler, cover=self.sink_cover, min_area_m2=self.min_sink_area_m2)


def _take_part(tables: Tables, verdict: Verdict) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which pieces are water, and which of them may be lakes by themselves; others keep the reason they have."""
    water = tables.area > 0
    lake = water.copy()
    if REASON in tables.columns:
        given = tables.columns[REASON].astype(object).fillna(KEPT).to_numpy(object)
        unknown = sorted(set(given) - set(REASONS))
        if unknown:
            raise InputError(f"there is no reason {unknown[0]!r}", REASON, "drop or rename the column")
        lake &= given == KEPT
        water &= np.isin(given, (KEPT, *SHAPES))
        verdict.reason[:] = given
    verdict.give(tables.area == 0, NO_AREA)
    return water, lake


def _share_on_ice(tables: Tables) -> NDArray[np.float64]:
    """Share of each piece on ice, by polygons or else by a raster; NaN where nothing is known."""
    if ICE in tables.pairs:
        own, _, area, _ = tables.pairs[ICE]
        with np.errstate(invalid="ignore"):
            return np.round(np.bincount(own, area, minlength=len(tables.area)) / tables.area, 9)
    if ICE_SHARE in tables.columns:
        return tables.columns[ICE_SHARE].to_numpy(np.float64, na_value=np.nan)
    return np.full(len(tables.area), np.nan)


def _among(pairs: Mapping[str, Pairs], water: NDArray[np.bool_]) -> dict[str, Pairs]:
    found = {role: one.where(water[one.own] & (one.area > 0)) for role, one in pairs.items()}
    return found | {MODELS: found[MODELS].where(water[found[MODELS].other])}


def _choose_cuts(tables: Tables, pairs: Mapping[str, Pairs], water: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Give for each piece the one that stands for it: itself, or of a polygon that is not cut the whole of it.

    The whole comes first, then its bodies; the whole of a polygon that is cut goes with the first body.
    """
    place = np.arange(len(water))
    key = np.stack([tables.model, tables.row])
    is_whole = np.concatenate([[True], (np.diff(key) != 0).any(axis=0)])[: len(place)]
    whole = np.maximum.accumulate(np.where(is_whole, place, 0)) if len(place) else place
    agreement, least = agree(tables, pairs, is_whole), np.full(len(place), np.inf)
    np.minimum.at(least, whole[~is_whole], agreement[~is_whole])
    is_cut = (least < np.inf) & (least > agreement) & (least >= _LEAST_AGREED) & water
    return np.where(is_whole, place + is_cut, np.where(is_cut[whole], place, whole))


def _settle_rivals(
    tables: Tables, over: Pairs, score: NDArray[np.float64], lake: NDArray[np.bool_], verdict: Verdict
) -> None:
    """Take step 4; ``lake`` loses what is merged."""
    rank = np.empty(len(lake), np.int64)
    rank[np.lexsort((np.arange(len(lake)), -score))] = np.arange(len(lake))
    rivals = over.where(lake[over.own] & lake[over.other])
    winner = settle(rivals.own, rivals.other, rank)
    lost = np.flatnonzero(winner >= 0)
    _merge(tables, verdict, lost, winner[lost])
    lake[lost] = False


def _give_lakes(tables: Tables, lidded: Lidded | None, lake: NDArray[np.bool_], verdict: Verdict) -> None:
    """Name the lakes; what lies in a lake under a lid, or overlaps it, is merged into it."""
    shape = np.full(len(lake), None, object)
    if lidded is not None and len(lidded.lead):
        _merge(tables, verdict, lidded.members, lidded.lead[lidded.lake])
        lake[lidded.members] = False
        number = np.flatnonzero(lake)
        outline = np.asarray(tables.outline)
        i, j = shapely.STRtree(lidded.outline).query(outline[number], predicate="intersects")
        met = tables.group[number[i]] == tables.group[lidded.lead[j]]
        i, j = i[met], j[met]
        over = shapely.area(shapely.intersection(outline[number[i]], lidded.outline[j]))
        order = np.lexsort((j, -over, i))
        order = order[over[order] > 0]
        lost, at = np.unique(i[order], return_index=True)
        _merge(tables, verdict, number[lost], lidded.lead[j[order][at]])
        lake[number[lost]] = False
        verdict.give(lidded.lead, KEPT)
        lake[lidded.lead], shape[lidded.lead] = True, lidded.outline
    verdict.lake = np.flatnonzero(lake)
    verdict.shape = shape[verdict.lake]


def _merge(tables: Tables, verdict: Verdict, lost: NDArray[np.intp], into: NDArray[np.int64]) -> None:
    verdict.give(lost, MERGED, np.array(tables.names, object)[tables.model[into]], tables.row[into])
