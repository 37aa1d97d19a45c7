"""Whether two polygons share an area is told without measuring it, and as the measured area would tell."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from lakescale.fusion import Seed, fuse, pairs
from lakescale.fusion.inputs import Reading
from lakescale.fusion.pairs import pair_parts
from lakescale.fusion.parts import COLOR, EXACT, LATER, Meet
from lakescale.fusion.reading import read_part


def part(name, shapes):
    frame = gpd.GeoDataFrame(geometry=gpd.GeoSeries(shapes, crs=3413))
    return read_part(frame, how=Reading(name, frame.crs, (), ()), in_order=False)


@st.composite
def rings(draw):
    """Ragged rings, some with a hole, of all sizes, far from the origin; many graze each other."""
    x, y = (draw(st.integers(0, 40)) / 4 + origin for origin in (-200_000, -2_200_000))
    radius = draw(st.sampled_from([1e-7, 0.25, 1.0, 3.0]))
    angle = np.linspace(0, 2 * np.pi, draw(st.integers(3, 9)), endpoint=False) + draw(st.floats(0, 3))
    length = radius * np.array(draw(st.lists(st.sampled_from([0.4, 1.0]), min_size=len(angle), max_size=len(angle))))
    ring = np.stack([x + length * np.cos(angle), y + length * np.sin(angle)], axis=1)
    outline = shapely.make_valid(shapely.Polygon(ring))
    hole = shapely.buffer(shapely.Point(x, y), 0.3 * radius)
    return shapely.difference(outline, hole) if draw(st.booleans()) else outline


@given(st.lists(rings(), min_size=1, max_size=8), st.lists(rings(), min_size=1, max_size=8))
def test_what_surely_shares_an_area_does(own, other):
    meet = {
        area: pair_parts(part("sam", own), part(COLOR, other), Meet(COLOR, area=area), ()) for area in (EXACT, LATER)
    }
    for name in ("own", "other"):
        assert getattr(meet[EXACT], name).tolist() == getattr(meet[LATER], name).tolist()
    measured, told = meet[EXACT].area, meet[LATER].area
    assert ((told > 0) == (measured > 0)).all()
    assert told[np.isfinite(told)].tolist() == measured[np.isfinite(told)].tolist()


def lakes_of_two_models(count):
    """Lakes that two models, color and the DEM see a little differently; every tenth sink has two."""
    rng = np.random.default_rng(count)
    place = np.stack([np.arange(count) % 20, np.arange(count) // 20], axis=1) * 1000.0
    frames = {}
    for name, off, size in (("sam", 5, 100), ("deeplab", 20, 110), ("color", 10, 95), ("sinks", 0, 150)):
        centre = place + rng.normal(0, off, place.shape)
        centre[::10] += 120 * (name in {"sam", "color"})
        frames[name] = gpd.GeoDataFrame(geometry=shapely.buffer(shapely.points(centre), size), crs=3413)
    twins = frames["sam"].iloc[::10].translate(-160, -160).to_frame("geometry")
    return frames | {"sam": pd.concat([frames["sam"], twins], ignore_index=True)}


@pytest.mark.parametrize("count", [200, 1500])
def test_areas_are_measured_only_where_the_seeds_steps_compare_them(monkeypatch, count):
    frames = lakes_of_two_models(count)
    models = {name: frames[name] for name in ("sam", "deeplab")}
    asked = []
    areas = pairs._areas
    monkeypatch.setattr(pairs, "_areas", lambda a, b: asked.append(len(a)) or areas(a, b))

    def told():
        asked.clear()
        lakes, reasons = fuse(
            models, sinks=frames["sinks"], color=frames["color"], ice=None, preset=Seed(), return_reasons=True
        )
        return lakes.lake_id.tolist(), reasons.reason.tolist(), reasons.by_row.fillna(-1).tolist(), sum(asked)

    *found, few = told()
    at_once = tuple(meet._replace(area=EXACT) for meet in Seed().meets())
    monkeypatch.setattr(Seed, "meets", lambda _: at_once)
    *expected, _ = told()
    assert found == expected
    assert 0 < few < count
