"""Admission and shares against plain loops."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from lakescale.fusion import EXCLUDED, NOT_ON_ICE, admit, covered_share, overlaps, seen_share
from lakescale.grid import Grid
from lakescale.schema import KEPT

boxes = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 5), st.integers(1, 5)), min_size=0, max_size=8
).map(lambda many: np.array([shapely.box(x, y, x + w, y + h) for x, y, w, h in many], object))


@given(boxes, boxes)
def test_overlap_means_a_shared_area_above_zero(geometry, others):
    expected = [any(shapely.intersection(a, b).area > 0 for b in others) for a in geometry]
    assert overlaps(geometry, others).tolist() == expected


@given(boxes, boxes)
def test_covered_share_equals_a_plain_loop(geometry, cover):
    cover = shapely.get_parts(shapely.union_all(cover))
    expected = [sum(shapely.intersection(a, b).area for b in cover) / a.area for a in geometry]
    np.testing.assert_allclose(covered_share(geometry, cover), expected, atol=1e-6)


def candidates(*geometry):
    return gpd.GeoDataFrame({"reason": [KEPT] * len(geometry)}, geometry=list(geometry), crs=3413)


def test_admit_keeps_lakes_on_ice_and_drops_what_overlaps_excludes():
    lakes = candidates(
        shapely.box(0, 0, 2, 2), shapely.box(10, 0, 12, 2), shapely.box(4, 0, 6, 2), shapely.box(-2, 0, 0, 2)
    )
    lakes.loc[2, "reason"] = "stream"
    ice = candidates(shapely.box(0, -5, 9, 5))
    exclude = candidates(shapely.box(1, 1, 1.5, 1.5))
    assert admit(lakes, ice=ice).reason.tolist() == [KEPT, NOT_ON_ICE, "stream", NOT_ON_ICE]  # the last only touches
    assert admit(lakes, ice=ice, exclude=exclude).reason.tolist() == [EXCLUDED, NOT_ON_ICE, "stream", NOT_ON_ICE]
    assert admit(lakes).reason.tolist() == lakes.reason.tolist()


def test_seen_share_counts_holes_in_the_data_and_the_edge_of_the_scene():
    grid = Grid(GeoBox((100, 100), Affine(10, 0, 0, 0, -10, 1000), "EPSG:3413"))
    lakes = np.array([shapely.box(400, 400, 500, 500), shapely.box(0, 400, 100, 500), shapely.box(700, 700, 800, 800)])
    unseen = np.array([shapely.box(650, 650, 750, 900), shapely.box(300, 0, 310, 10)])
    inside, at_the_edge, half = seen_share(lakes, unseen, grid)
    assert inside == 1
    assert at_the_edge == pytest.approx(
        1 - (30 * 100 + 2 * np.pi * 30**2 / 4) / shapely.buffer(lakes[1], 30).difference(lakes[1]).area, abs=0.01
    )
    assert half == pytest.approx(0.5, abs=0.01)
