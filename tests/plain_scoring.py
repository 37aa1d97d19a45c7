"""DOMAIN.md ("The competition", scoring), word for word, as a plain loop over anything that has an area."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import geopandas as gpd
import shapely
from hypothesis import strategies as st

SIDE = 6


class Shape(NamedTuple):
    """A submitted lake or a test polygon: what it covers, and where it belongs."""

    covers: frozenset | shapely.Geometry
    group: tuple = ()
    bounds: tuple = ()

    @property
    def area(self):
        return len(self.covers) if isinstance(self.covers, frozenset) else self.covers.area

    def shares(self, other):
        """Area that both cover, if they are of one image and region."""
        if self.group != other.group:
            return 0
        if isinstance(self.covers, frozenset):
            return len(self.covers & other.covers)
        (x0, y0, x1, y1), (left, bottom, right, top) = self.bounds, other.bounds
        if x1 < left or right < x0 or y1 < bottom or top < y0:
            return 0
        return self.covers.intersection(other.covers).area


def plain_score(submitted, tests, rules):
    """Verdicts, tied rows, rows of the reference left over."""
    verdicts, tied, matched = [], [], set()
    for i, lake in enumerate(submitted):
        clashes = any(lake.shares(another) > 0 for j, another in enumerate(submitted) if i != j)
        greatest, test = 0, None
        for j, candidate in enumerate(tests):
            shared = lake.shares(candidate)
            if shared > greatest:
                greatest, test = shared, j
        tied.append(test)
        fits = test is not None and 50 <= 100 * Fraction(lake.area) / Fraction(tests[test].area) <= 160
        if not fits or (clashes and rules == "strict"):
            verdicts.append("fp")
        elif test in matched:
            verdicts.append("fp" if rules == "strict" else "ignored")
        else:
            matched.add(test)
            verdicts.append("tp")
    return verdicts, tied, [j for j in range(len(tests)) if j not in matched]


def shapes_of(frame):
    keyed = {"image", "region_num"} <= set(frame)
    groups = zip(frame.image, frame.region_num, strict=True) if keyed else [()] * len(frame)
    return [Shape(outline, group, outline.bounds) for outline, group in zip(frame.geometry, groups, strict=True)]


# -- polygons made of quarters of the cells of a lattice: their areas are counts, whatever GEOS thinks of them


def quarter(x, y, k):
    """One of the four triangles that the diagonals cut a cell into."""
    corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
    return shapely.Polygon([corners[k], corners[(k + 1) % 4], (x + 0.5, y + 0.5)])


def cells(x, y, width, height):
    return {(i, j, k) for i in range(x, x + width) for j in range(y, y + height) for k in range(4)}


def diamond(x, y):
    """The four quarters that meet round the middle of an edge of cells, and of the next."""
    return {(x, y, 1), (x + 1, y, 3), (x, y, 0), (x, y, 2)}


places = st.integers(0, SIDE - 1)
sizes = st.integers(1, 4)
blocks = st.builds(cells, places, places, sizes, sizes)
triangles = st.builds(lambda *at: {at}, places, places, st.integers(0, 3))
pieces = blocks | blocks | triangles | st.builds(diamond, places, places)
lakes = st.builds(lambda one, more, less: frozenset(one | more) - less or frozenset(one), blocks, pieces, pieces)
rows = st.lists(st.tuples(lakes, st.sampled_from("ab"), st.integers(1, 2)), max_size=9)


@st.composite
def lattice_frames(draw, grouped):
    """Frames whose polygons tie, touch, nest and overlap, some with holes or of many parts, and what they cover."""
    drawn, first = draw(rows), draw(st.integers(0, 50))
    columns = {"image": [image for _, image, _ in drawn], "region_num": [num for *_, num in drawn]} if grouped else {}
    outlines = [shapely.union_all([quarter(*at) for at in sorted(covers)]) for covers, *_ in drawn]
    frame = gpd.GeoDataFrame(columns, geometry=outlines, crs=3857, index=range(first, first + len(drawn)))
    return frame, [Shape(covers, tuple(group) if grouped else ()) for covers, *group in drawn]
