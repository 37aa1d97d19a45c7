"""Tracking by sets of cells and plain loops; seasons with a truth; counts of pairs that were named right."""

from __future__ import annotations

from itertools import pairwise

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from hypothesis import strategies as st

CELL_M = 100.0
CRS = "EPSG:3413"


# -- lakes as sets of cells (row, col) of a lattice, rows from the north


def outline(cells):
    boxes = [shapely.box(c * CELL_M, -(r + 1) * CELL_M, (c + 1) * CELL_M, -r * CELL_M) for r, c in sorted(cells)]
    return shapely.union_all(boxes)


def frame_of(lakes, first_id=1, **columns):
    shapes = gpd.GeoSeries([outline(cells) for cells in lakes], crs=CRS)
    area = [len(cells) * CELL_M**2 for cells in lakes]
    ids = np.arange(first_id, first_id + len(lakes))
    return gpd.GeoDataFrame({"lake_id": ids, "area_m2": np.array(area, float), **columns}, geometry=shapes, crs=CRS)


def box_cells(top, left, height, width):
    return frozenset((r, c) for r in range(top, top + height) for c in range(left, left + width))


def plain_track(days, min_overlap=0.2):
    """Ids of the lakes of each date, links, ground; all is seen, ``days`` are lists of sets of cells."""
    tracker = PlainTracker(min_overlap)
    steps = [tracker.follow(lakes) for lakes in days]
    return [names for names, _ in steps], [links for _, links in steps], tracker.ground


class PlainTracker:
    def __init__(self, min_overlap):
        self.min_overlap, self.ground, self.merged = min_overlap, [], []

    def follow(self, lakes):
        shapes = [outline(lake) for lake in lakes]
        order = sorted(range(len(lakes)), key=lambda k: from_the_north(shapes[k]))
        there = [lakes[k] for k in order]
        pairs, old = self.close_pairs(there), len(self.ground)
        track_of = self.name(there, pairs)
        links = self.part(there, pairs, track_of, old) | self.merge(pairs, track_of)
        for place, lake in enumerate(there):
            foreign = [cells for track, cells in enumerate(self.ground) if track != track_of[place]]
            self.ground[track_of[place]] |= lake - frozenset().union(*foreign)
        return [track_of[order.index(k)] + 1 for k in range(len(lakes))], links

    def close_pairs(self, lakes):
        pairs = []
        for place, lake in enumerate(lakes):
            for track, cells in enumerate(self.ground):
                shared = len(cells & lake)
                if shared and shared >= self.min_overlap * min(len(cells), len(lake)):
                    pairs.append((-shared, len(cells), track, place))
        return [pair[2:] for pair in sorted(pairs)]

    def name(self, lakes, pairs):
        taken = {}
        for track, place in pairs:
            if track not in taken and place not in taken.values():
                taken[track] = place
        track_of = {place: track for track, place in taken.items()}
        for place in range(len(lakes)):
            if place not in track_of:
                track_of[place] = len(self.ground)
                self.ground.append(frozenset())
                self.merged.append(None)
        return track_of

    def part(self, lakes, pairs, track_of, old):
        found = set()
        for track, place in pairs:
            if track_of[place] >= old:
                found.add(("split", track + 1, track_of[place] + 1))
                self.ground[track] -= lakes[place]
        for track in track_of.values():
            if self.merged[track] is not None:
                found.add(("split", self.merged[track] + 1, track + 1))
                self.merged[track] = None
        return found

    def merge(self, pairs, track_of):
        found, seen = set(), set(track_of.values())
        for track, place in pairs:
            if track not in seen:
                seen.add(track)
                if self.merged[track] != track_of[place]:
                    found.add(("merge", track + 1, track_of[place] + 1))
                self.merged[track] = track_of[place]
        return found


def from_the_north(shape):
    left, bottom, right, top = shape.bounds
    return -top, left, bottom, right, shapely.normalize(shape).wkb


@st.composite
def lattice_days(draw, rows=4, cols=5, most=4):
    """Dates with lakes that tie, split, merge, come and go."""
    labels = st.lists(st.integers(0, 3), min_size=rows * cols, max_size=rows * cols)
    days = []
    for drawn in draw(st.lists(labels, min_size=1, max_size=most)):
        cells = {}
        for place, label in enumerate(drawn):
            if label:
                cells.setdefault(label, set()).add(divmod(place, cols))
        days.append([frozenset(lake) for _, lake in sorted(cells.items())])
    return days


# -- basins that fill to levels, under clouds and lids: the truth of what drained


@st.composite
def hidden_seasons(draw, dates=5):
    """Nested lakes in basins far apart, by date; what cloud leaves of them; clouds; lids; days of the year."""
    steps = draw(st.lists(st.integers(1, 9), min_size=dates - 1, max_size=dates - 1))
    days = np.cumsum([0, *steps])
    basins = []
    for k in range(2):
        long_, wide = draw(st.integers(3, 8)), draw(st.integers(2, 5))
        from_left = draw(st.booleans())
        nested = [box_cells(0, 20 * k + (0 if from_left else long_ - n), wide, n) for n in range(long_ + 1)]
        basins.append([nested[draw(st.integers(0, long_))] for _ in range(dates)])
    spot = st.builds(box_cells, st.integers(-1, 4), st.integers(-1, 28), st.integers(1, 6), st.integers(1, 8))
    clouds = [frozenset().union(*draw(st.lists(spot, max_size=3))) for _ in range(dates)]
    lidded = [[draw(st.integers(0, 5)) == 0 for _ in basins] for _ in range(dates)]
    return days, basins, clouds, lidded


def observe(season):
    """Frames of lakes, of what was not seen, and of lids, by date."""
    days, basins, clouds, lidded = season
    lakes, not_seen, lids = {}, {}, {}
    for d, day in enumerate(days):
        time = pd.Timestamp("2019-06-20") + pd.Timedelta(days=int(day))
        open_lakes = [b[d] - clouds[d] for b, lid in zip(basins, lidded[d], strict=True) if not lid]
        parts = [set(part) for lake in open_lakes for part in connected(lake)]
        lakes[time] = frame_of(parts)
        not_seen[time] = frame_of([clouds[d]] if clouds[d] else [])
        under = [b[d] - clouds[d] for b, lid in zip(basins, lidded[d], strict=True) if lid]
        lids[time] = frame_of([cells for cells in under if cells])
    return lakes, not_seen, lids


def connected(cells):
    """Parts of a lake that hang together by edges."""
    left, parts = set(cells), []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            r, c = edge.pop()
            part.add((r, c))
            for cell in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                if cell in left:
                    left.remove(cell)
                    edge.append(cell)
        parts.append(part)
    return sorted(parts, key=min)


# -- a season of hundreds of lakes

DAYS = "06-10", "06-20", "06-24", "07-01", "07-04", "07-15", "07-18", "08-12"
DATES = [pd.Timestamp(f"2019-{day}") for day in DAYS]
KINDS = {"stays": 0.15, "rapid": 0.4, "slow": 0.1, "twin": 0.2, "refills": 0.05, "freezes": 0.1}
PITCH_M = 2600.0
DAY = pd.Timedelta(days=1)


class Basin:
    """A basin whose water rises, joins another pool, falls, vanishes in a moment, comes back, or gets a lid."""

    def __init__(self, name, kind, centre, rng):
        self.name, self.kind, self.centre = name, kind, np.array(centre)
        self.radius_m = rng.uniform(150, 500)
        self.bumps = rng.uniform(-0.04, 0.04, (3, 2))
        self.filled = pd.Timestamp("2019-06-05") + rng.uniform(0, 20) * DAY
        self.gone = self.filled + rng.uniform(11, 35) * DAY

    def level(self, time):
        """Share of the radius that is under water."""
        rise = 0.5 + 0.5 * np.clip((time - self.filled) / (10 * DAY), -1, 1)
        after = (time - self.gone) / DAY
        left = {"rapid": after < 0, "slow": np.clip(1 - after / 30, 0, 1), "refills": not 0 <= after < 12}
        return rise * left.get(self.kind, 1)

    def lakes(self, time, rng):
        """Give names and outlines, and whether a lid hides all of it."""
        level = self.level(time)
        if level < 0.25:
            return []
        here = self.centre + rng.normal(0, 4, 2)  # pictures lie a few metres off
        if self.kind != "twin":
            lidded = self.kind == "freezes" and time > self.gone + 10 * DAY
            return [(self.name, self.draw(here, level), lidded)]
        there = here + np.array([1.35 * self.radius_m, 0])
        if self.filled + 2 * DAY < time < self.gone:
            both = shapely.union_all([self.draw(here, level), self.draw(there, 0.7 * level)])
            return [(self.name, shapely.convex_hull(both), False)]
        second = -1 - self.name
        return [(self.name, self.draw(here, 0.6 * level), False), (second, self.draw(there, 0.4 * level), False)]

    def draw(self, centre, share):
        """Outline a pool."""
        angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        wave = 1 + sum(a * np.cos(k * angle) + b * np.sin(k * angle) for k, (a, b) in enumerate(self.bumps, start=2))
        return shapely.Polygon(centre + (self.radius_m * share * wave)[:, None] * np.c_[np.cos(angle), np.sin(angle)])


class Season:
    """Lakes of eight dates, what hid them, and the true name of each: the name of the first pool that it holds."""

    def __init__(self, seed, basins=260, clouds=24):
        rng = np.random.default_rng(seed)
        side = int(np.ceil(np.sqrt(basins)))
        kinds = rng.choice(list(KINDS), basins, p=list(KINDS.values()))
        places = [(PITCH_M * (k % side), -PITCH_M * (k // side)) for k in range(basins)]
        self.basins = [Basin(k, kind, place, rng) for k, (kind, place) in enumerate(zip(kinds, places, strict=True))]
        self.truth, self.lakes, self.not_seen, self.lids = {}, {}, {}, {}
        for time in DATES:
            spots = shapely.points(rng.uniform(-500, side * PITCH_M, (clouds, 2)) * (1, -1))
            sky = shapely.union_all(shapely.buffer(spots, rng.uniform(300, 2500, clouds)))
            self._picture(time, sky, rng)

    def _picture(self, time, sky, rng):
        found = [lake for basin in self.basins for lake in basin.lakes(time, rng)]
        names, shapes, lidded = (np.array(column) for column in zip(*found, strict=True))
        seen = shapely.difference(shapes, sky)
        parts, of = shapely.get_parts(seen[~lidded], return_index=True)
        chosen = rng.permutation(np.flatnonzero(shapely.area(parts) >= 5000))
        ids = np.arange(1, len(chosen) + 1)
        self.lakes[time] = gpd.GeoDataFrame({"lake_id": ids}, geometry=parts[chosen], crs=CRS)
        self.truth[time] = names[~lidded][of[chosen]]
        self.not_seen[time] = gpd.GeoDataFrame(geometry=[sky], crs=CRS)
        self.lids[time] = gpd.GeoDataFrame(geometry=seen[lidded], crs=CRS)

    def sure_drainages(self, days):
        """Name the basins that lost a full lake for good within days, between two dates on which cloud was far away."""
        names = set()
        for basin in self.basins:
            areas = [basin.level(time) ** 2 for time in DATES]
            for (start, full), (end, rest) in pairwise(zip(DATES, areas, strict=True)):
                clear = all(self._is_clear(basin, time) for time in (start, end))
                if (
                    basin.kind == "rapid"
                    and end - start <= days * DAY
                    and full >= 0.85 * max(areas)
                    and rest < 0.01
                    and clear
                ):
                    names.add(basin.name)
        return names

    def _is_clear(self, basin, time):
        sky = self.not_seen[time].geometry.iloc[0]
        return shapely.Point(basin.centre).distance(sky) > 1.4 * basin.radius_m + 60


def count_pairs(truth, tracks):
    """Precision and recall of pairs of lakes that are said to be the same."""
    both = pd.DataFrame({"truth": truth, "track": tracks})
    said, true, right = (
        sum(n * (n - 1) // 2 for n in both.groupby(by).size()) for by in (["track"], ["truth"], ["truth", "track"])
    )
    return right / said, right / true
