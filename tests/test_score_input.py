"""What two frames may be like: invalid, empty, with heights, in any CRS, across the antimeridian and round the pole."""

from __future__ import annotations

import logging

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from lakescale.schema import InputError
from lakescale.score_input import fit
from lakescale.scoring import ALONE, FITS, score

NORTH, SOUTH, MERCATOR = 3413, 3031, 3857


def frame(*shapes, crs=MERCATOR, **columns):
    return gpd.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


def ring_lonlat(lon, lat, radius, crs, n=24):
    """A ring round a place, in degrees, drawn in a polar CRS, where nothing is special about the antimeridian."""
    x, y = gpd.GeoSeries([shapely.Point(lon, lat)], crs=4326).to_crs(crs).iloc[0].coords[0]
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False)
    polar = shapely.Polygon(np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1))
    return polar, gpd.GeoSeries([polar], crs=crs).to_crs(4326).iloc[0]


# -- invalid, empty, heights


bow_tie = shapely.Polygon([(0, 0), (20, 20), (20, 0), (0, 20)])
twice = shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(5, 0, 20, 10)])
spiked = shapely.Polygon([(0, 0), (10, 0), (10, 10), (30, 10), (10, 10), (0, 10)])
hole_outside = shapely.Polygon([(0, 0), (10, 0), (10, 10), (0, 10)], [[(20, 0), (30, 0), (30, 10), (20, 10)]])
flat = shapely.Polygon([(0, 0), (10, 0), (20, 0)])


@pytest.mark.parametrize(
    ("invalid", "area"), [(bow_tie, 200), (twice, 200), (spiked, 100), (hole_outside, 200), (flat, 0)]
)
def test_invalid_rings_are_made_valid_counted_and_told(invalid, area, caplog):
    lakes = frame(shapely.box(100, 0, 110, 10), invalid)
    before = lakes.copy()
    with caplog.at_level(logging.WARNING, "lakescale"):
        result = score(lakes, frame(shapely.box(100, 0, 110, 10), invalid, invalid))
    assert result.mended == {"lakes": 1, "reference": 2}
    assert result.matches.lake_m2.tolist() == [100, area]
    assert result.matches.is_valid.all()
    assert result.matches.reason.tolist() == [FITS, FITS if area else ALONE]
    assert result.fn == (1 if area else 2)
    assert "lakes: 1 invalid polygon made valid" in result.notes
    assert "reference: 2 invalid polygons made valid" in caplog.text
    assert lakes.geom_equals_exact(before, 0).all()
    assert ("lakes: 1 polygon without any area" in result.notes) == (area == 0)


ring_points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=8)


@given(st.lists(ring_points.map(shapely.Polygon), min_size=1, max_size=5))
def test_no_polygon_is_lost_whatever_its_rings(shapes):
    reference = frame(shapely.box(0, 0, 6, 6))
    result = score(frame(*shapes), reference)
    assert len(result.matches) == len(shapes) == result.tp + result.fp
    assert result.mended["lakes"] == (~shapely.is_valid(shapes)).sum()
    assert result.matches.is_valid.all()
    repaired = shapely.make_valid(np.array(shapes), method="structure", keep_collapsed=False)
    assert result.matches.shared_m2.tolist() == pytest.approx(shapely.area(repaired))  # all lie inside the reference


def test_empty_geometries_stay_in_the_count():
    empty = frame(shapely.Polygon(), shapely.MultiPolygon(), shapely.box(0, 0, 10, 10))
    result = score(empty, empty)
    assert (result.tp, result.fp, result.fn) == (1, 2, 2)
    assert result.notes == ("lakes: 2 polygons without any area", "reference: 2 polygons without any area")


@pytest.mark.parametrize("crs", [None, MERCATOR, NORTH])
def test_heights_do_not_matter(crs):
    plain = frame(shapely.box(0, 0, 10, 10), twice, crs=crs)
    high = plain.set_geometry(shapely.force_3d(plain.geometry.values, 700), crs=crs)
    result = score(high, plain)
    assert result.to_dict() == score(plain, plain).to_dict()
    assert not result.matches.has_z.any()


def test_multipolygons_are_one_lake():
    parts = shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10)])
    whole = score(frame(parts), frame(parts))
    assert (whole.tp, whole.fp, whole.fn) == (1, 0, 0)
    apart = score(frame(*parts.geoms), frame(parts))
    assert (apart.tp, apart.fp, apart.fn) == (1, 1, 0)


def test_labels_that_repeat_tell_rows_apart_all_the_same():
    lakes = frame(shapely.box(0, 0, 10, 10), shapely.box(40, 0, 50, 10), lake_id=[1, 1]).set_index(pd.Index([7, 7]))
    reference = frame(shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10)).set_index(pd.Index(["a", "a"]))
    result = score(lakes, reference)
    assert result.matches.reason.tolist() == [FITS, ALONE]
    assert result.matches.index.tolist() == [7, 7]
    assert result.missed.geometry.tolist() == [reference.geometry.iloc[1]]


# -- coordinate reference systems


@pytest.mark.parametrize(("lat", "code"), [(67.0, "EPSG:6931"), (-72.0, "EPSG:6932")])
def test_a_reference_in_degrees_is_compared_in_an_equal_area_crs(lat, code):
    size_lon = 0.02 / np.cos(np.radians(lat))
    reference = frame(shapely.box(-49, lat, -49 + size_lon, lat + 0.02), crs=4326)
    result = score(reference, reference)
    assert result.f1 == 1
    assert result.matches.crs == code
    metres = 111_400 * 0.02
    assert result.matches.lake_m2[0] == pytest.approx(metres**2, rel=0.01)
    assert code in result.notes[0]


def test_lakes_in_another_crs_are_moved_whichever_side_they_are_on():
    polar, degrees = ring_lonlat(-49, 67, 500, NORTH)
    frames = [frame(polar, crs=NORTH), frame(degrees, crs=4326), frame(polar, crs=NORTH).to_crs(MERCATOR)]
    for lakes in frames:
        for reference in frames:
            assert score(lakes, reference).matches.iou[0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("lat", "crs"), [(75, NORTH), (-75, SOUTH), (89.95, NORTH), (90, NORTH), (-90, SOUTH)])
@pytest.mark.parametrize("lon", [180, -179.995, 0])
def test_across_the_antimeridian_and_round_the_pole(lon, lat, crs):
    polar, degrees = ring_lonlat(lon, lat, 2000, crs)
    there, here = frame(polar, crs=crs), frame(degrees, crs=4326)
    for lakes, reference in ((here, here), (here, there), (there, here)):
        result = score(lakes, reference)
        assert result.f1 == 1
        assert result.matches.iou[0] == pytest.approx(1, abs=1e-6)
        assert result.matches.lake_m2[0] == pytest.approx(polar.area, rel=0.07)  # polar stereographic is not equal-area
        assert result.mended == {"lakes": 0, "reference": 0}


def test_a_lake_cut_at_the_antimeridian_is_the_lake():
    _, degrees = ring_lonlat(180, 75, 2000, NORTH)
    xy = shapely.get_coordinates(degrees)
    unwrapped = shapely.Polygon(np.stack([xy[:, 0] % 360, xy[:, 1]], axis=1))
    west = shapely.intersection(unwrapped, shapely.box(0, 0, 180, 90))
    east = shapely.intersection(unwrapped, shapely.box(180, 0, 360, 90))
    moved = shapely.transform(east, lambda at: at - [360, 0])
    result = score(frame(shapely.MultiPolygon([west, moved]), crs=4326), frame(unwrapped, crs=4326))
    assert result.f1 == 1
    assert result.matches.iou[0] == pytest.approx(1, abs=1e-3)  # the cut adds two vertices


@pytest.mark.parametrize("lat", [75, 90])
def test_what_mercator_tears_is_refused(lat):
    polar, degrees = ring_lonlat(180, lat, 2000, NORTH)
    lakes, reference = frame(shapely.box(0, 0, 1, 1), degrees, crs=4326), frame(shapely.box(0, 0, 9, 9))
    with pytest.raises(InputError, match=r"torn in WGS 84 / Pseudo-Mercator \[lakes, row 1.*polar CRS"):
        score(lakes, reference)
    with pytest.raises(InputError, match="torn"):
        score(frame(polar, crs=NORTH), reference)
    torn = gpd.GeoSeries([degrees], crs=4326).to_crs(MERCATOR)
    with pytest.raises(InputError, match=r"torn in WGS 84 / Pseudo-Mercator \[reference, row 0"):
        score(reference, gpd.GeoDataFrame(geometry=torn))


def test_large_polygons_are_not_taken_for_torn(data_dir):
    ice = gpd.read_file(data_dir / "vector" / "greenland_ice_basins.shp")[["geometry"]]
    assert fit(ice, ice).mended == {"lakes": 0, "reference": 0}
    assert score(ice.to_crs(4326), ice, rules="seed").tp == len(ice)
    assert score(ice, ice.to_crs(MERCATOR), rules="seed").tp == len(ice)


def test_not_a_number_is_no_place():
    holed = shapely.transform(shapely.box(0, 0, 1, 1), lambda xy: np.where([[0], [0], [1], [0], [0]], np.nan, xy))
    with pytest.raises(InputError, match=r"no place in WGS 84 / Pseudo.* \[lakes, row 1, index 1 \(one of 1\)\]"):
        score(frame(shapely.box(0, 0, 1, 1), holed), frame(shapely.box(0, 0, 1, 1)))
