"""Which lake is which: lakes of a date matched to the basins of tracks, one to one; splits, merges, basins that grow.

Every piece of ground belongs to one track: to the first whose lake lay on it, until a part of that lake is seen as a
lake of its own beside it. A lake thus finds its basin again after it shrank, drained or was hidden, and lakes that
merge and part again get back their own names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely

from lakescale.series.overlay import Pieces, cut_pieces, subtract, unite
from lakescale.series.rules import MERGE, SPLIT, TrackRules

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.series.reading import Day

_ALIKE_M2 = 3
"""Decimals of areas that are compared, so that a draw is a draw whatever the last digits."""


class Basins(NamedTuple):
    """Ground of each track; track ``k`` is in place ``k - 1``."""

    geometry: NDArray[Any]
    merged_into: NDArray[np.int64]
    """The track whose lake covers it, or 0."""
    was_whole: NDArray[np.bool_]
    """Whether a lake of it was once seen with all that is round it."""
    absorbed: NDArray[np.bool_]
    """Whether it was a part of another track's lake that cloud cut off: its ground went over to that track."""

    @property
    def live(self) -> NDArray[Any]:
        """Ground by which lakes are found: none where it went over to another track."""
        ground = self.geometry.copy()
        ground[self.absorbed] = shapely.Polygon()
        return ground

    def extended(self, count: int) -> Basins:
        """Make room for more tracks."""
        more = max(0, count - len(self.geometry))
        fill = (None, 0, False, False)
        return Basins(*(np.concatenate([c, np.full(more, f, c.dtype)]) for c, f in zip(self, fill, strict=True)))


class Links(NamedTuple):
    """Splits and merges of a date, one in each place."""

    kind: NDArray[Any]
    parent: NDArray[np.int64]
    child: NDArray[np.int64]


class Step(NamedTuple):
    """What a date tells."""

    track_id: NDArray[np.int64]
    """Of each lake of the date."""
    basins: Basins
    links: Links


class _Meeting(NamedTuple):
    """Pairs of a basin and a lake that belong together, the closest first."""

    basin: NDArray[np.intp]
    lake: NDArray[np.intp]

    def where(self, chosen: NDArray[np.bool_]) -> _Meeting:
        return _Meeting(self.basin[chosen], self.lake[chosen])


def no_basins() -> Basins:
    """Begin without tracks."""
    return Basins(np.empty(0, object), np.empty(0, np.int64), np.empty(0, bool), np.empty(0, bool))


def follow(basins: Basins, day: Day, rules: TrackRules) -> Step:
    """Give each lake of a date its track: an old one, or a new one numbered from the north to the south."""
    ground = basins.live
    pieces = cut_pieces(ground, day.geometry)
    close = belong_together(pieces, ground, day.geometry, rules)
    meeting = _rank(pieces, close, ground)
    cut = day.seen_share < rules.min_rim_seen
    track = _match(meeting, len(day.geometry))
    _join_parts(track, meeting, cut)
    new = track < 0
    track[new] = len(ground) + np.arange(new.sum())

    grown = basins.extended(track.max(initial=-1) + 1)
    covered = _find_covered(meeting, track)
    links, merged_into = _link(grown.merged_into, meeting, covered, track, len(ground))
    known = _grow(ground, grown.geometry, day.geometry, track, pieces, close)
    grown.was_whole[track[~cut]] = True
    part = covered.where(~grown.was_whole[covered.basin] & ~cut[covered.lake])
    _absorb(known, part.basin, track[part.lake])
    grown.absorbed[part.basin] = True
    return Step(track + 1, grown._replace(geometry=known, merged_into=merged_into), links)


def belong_together(pieces: Pieces, basins: NDArray[Any], lakes: NDArray[Any], rules: TrackRules) -> NDArray[np.bool_]:
    """Tell the pairs of a basin and a lake that share enough of the smaller of the two."""
    smaller = np.minimum(shapely.area(basins)[pieces.own], shapely.area(lakes)[pieces.other])
    return pieces.area >= rules.min_overlap * smaller


def _rank(pieces: Pieces, close: NDArray[np.bool_], basins: NDArray[Any]) -> _Meeting:
    """Order pairs: the largest shared area first; in a draw the smaller basin, the older one, the northern lake."""
    own, other, area = pieces.own[close], pieces.other[close], pieces.area[close].round(_ALIKE_M2)
    order = np.lexsort((other, own, shapely.area(basins)[own].round(_ALIKE_M2), -area))
    return _Meeting(own[order], other[order])


def _match(meeting: _Meeting, lakes: int) -> NDArray[np.int64]:
    """Match one to one, the closest pair first; -1 for a lake that is left over.

    A pair that is the first of both its basin and its lake is taken, with all such pairs at once; the rest meets again.
    """
    track = np.full(lakes, -1, np.int64)
    while len(meeting.lake):
        first, first_too = (np.unique(side, return_index=True)[1] for side in meeting)
        pick = np.intersect1d(first, first_too)
        track[meeting.lake[pick]] = meeting.basin[pick]
        taken = np.isin(meeting.basin, meeting.basin[pick]) | np.isin(meeting.lake, meeting.lake[pick])
        meeting = meeting.where(~taken)
    return track


def _join_parts(track: NDArray[np.int64], meeting: _Meeting, cut: NDArray[np.bool_]) -> None:
    """Let a lake that is left over join the track of its basin where cloud cut both it and the lake that is there."""
    found = np.flatnonzero(track >= 0)
    cut_basins = track[found[cut[found]]]
    lakes, first = np.unique(meeting.lake, return_index=True)
    part = (track[lakes] < 0) & cut[lakes] & np.isin(meeting.basin[first], cut_basins)
    track[lakes[part]] = meeting.basin[first[part]]


def _find_covered(meeting: _Meeting, track: NDArray[np.int64]) -> _Meeting:
    """Find the basins without a lake of their own under the lake of another track, and that lake."""
    bare = meeting.where(~np.isin(meeting.basin, track))
    _, first = np.unique(bare.basin, return_index=True)
    return _Meeting(bare.basin[first], bare.lake[first])


def _grow(
    ground: NDArray[Any],
    before: NDArray[Any],
    lakes: NDArray[Any],
    track: NDArray[np.int64],
    pieces: Pieces,
    close: NDArray[np.bool_],
) -> NDArray[Any]:
    """Add lakes to the ground of their tracks, without the ground of others; a part that split off takes its own."""
    new = (track >= len(ground))[pieces.other]
    parted = new & close
    left = subtract(ground, pieces.own[parted], lakes[pieces.other[parted]])
    foreign = ~parted & (pieces.own != track[pieces.other])
    gain = subtract(lakes, pieces.other[foreign], left[pieces.own[foreign]])
    old = np.flatnonzero(np.isin(np.arange(len(ground)), track))
    groups, united = unite(np.concatenate([left[old], gain]), np.concatenate([old, track]))
    after = before.copy()
    lost = np.unique(pieces.own[parted])
    after[lost] = left[lost]
    after[groups] = united
    return after


def _absorb(ground: NDArray[Any], part: NDArray[np.intp], whole: NDArray[np.int64]) -> None:
    """Give the ground of tracks that were parts of a lake to its track."""
    tracks = np.unique(whole)
    groups, united = unite(np.concatenate([ground[tracks], ground[part]]), np.concatenate([tracks, whole]))
    ground[groups] = united


def _link(
    before: NDArray[np.int64], meeting: _Meeting, covered: _Meeting, track: NDArray[np.int64], old: int
) -> tuple[Links, NDArray[np.int64]]:
    """Tell which tracks part from which, and which are covered by the lake of another."""
    merged_into = before.copy()
    fresh = meeting.where(track[meeting.lake] >= old)
    back = np.flatnonzero((merged_into > 0) & np.isin(np.arange(len(merged_into)), track))
    splits = np.concatenate([fresh.basin + 1, merged_into[back]])
    children = np.concatenate([track[fresh.lake] + 1, back + 1])
    merged_into[back] = 0

    into = track[covered.lake] + 1
    changed = merged_into[covered.basin] != into
    merged_into[covered.basin] = into
    kind = np.repeat(np.array([SPLIT, MERGE], object), [len(splits), changed.sum()])
    parents = np.concatenate([splits, covered.basin[changed] + 1])
    return Links(kind, parents, np.concatenate([children, into[changed]])), merged_into
