"""Rules on shape: the same candidates for any chunks, and each option doing what its name says."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import CUP_TRANSFORM, chunked, masks, raster
from scipy import ndimage

import lakescale as ls
from lakescale.grid import Grid
from lakescale.kernels.color import open_rectangle
from lakescale.polygons import true_pixel_m
from lakescale.rules import (
    CUT_OFF,
    CUT_PART,
    PRESETS,
    STREAM,
    TOO_SMALL,
    close_gaps,
    cut_necks,
    elongation,
    outline_candidates,
)
from lakescale.schema import KEPT

pytestmark = pytest.mark.usefixtures("one_thread")

EIGHT = np.ones((3, 3))
NO_LIMITS = {"min_area_m2": 0, "min_area_3857_m2": 0, "max_elongation": 0}


def rows(frame):
    """A frame as a sorted list of its rows, geometry as WKB."""
    frame = frame.compute()
    return sorted(
        (reason, area, shapely.to_wkb(geometry, hex=True))
        for reason, area, geometry in zip(frame.reason, frame.area_m2, frame.geometry, strict=True)
    )


rules_drawn = st.builds(
    ls.PolygonRules,
    min_area_m2=st.sampled_from([0.0, 5000.0]),
    gap_m=st.sampled_from([0.0, 14.0, 40.0]),
    fill_holes=st.booleans(),
    max_elongation=st.sampled_from([0.0, 2.0, 10.0]),
    neck_px=st.sampled_from([0, 2, 3, 5]),
    neck_rule=st.sampled_from(["bridges", "streams"]),
)


@settings(max_examples=30)
@given(chunked(masks(24)), rules_drawn)
def test_candidates_do_not_depend_on_the_chunks(case, rules):
    mask, chunks = case
    whole = outline_candidates(raster(mask), rules)
    assert rows(outline_candidates(raster(mask, chunks), rules)) == rows(whole)


def land_that_holds_a_square(mask, size_px):
    """What squares without water cover, laid everywhere, beyond the edges too."""
    framed = np.pad(mask, size_px)
    land = np.zeros(framed.shape, bool)
    for row in range(framed.shape[0] - size_px + 1):
        for col in range(framed.shape[1] - size_px + 1):
            square = slice(row, row + size_px), slice(col, col + size_px)
            land[square] |= not framed[square].any()
    return land[size_px:-size_px, size_px:-size_px]


@settings(max_examples=40)
@given(chunked(masks(24)), st.sampled_from([1, 2, 3, 4, 8]))
def test_gaps_that_hold_no_square_are_closed(case, size_px):
    mask, chunks = case
    gap_m = size_px * true_pixel_m(Grid.of(raster(mask)))
    closed = close_gaps(raster(mask, chunks), gap_m).values
    np.testing.assert_array_equal(closed, ~land_that_holds_a_square(mask, size_px) if size_px > 1 else mask)


def test_gaps_are_measured_in_true_metres():
    """10 m of EPSG:3857 are 3.4 m at 70 N: the same gap of 4 pixels is 40 m there, and 14 m."""
    mask = np.ones((20, 20), bool)
    mask[:, 8:12] = False
    for crs, origin, closes in (("EPSG:32622", (600_000, 7_700_000), 50), ("EPSG:3857", (-5_500_000, 11_050_000), 17)):
        scene = raster(mask, transform=Affine(10, 0, origin[0], 0, -10, origin[1]), crs=crs)
        assert close_gaps(scene, closes).values.all()
        assert not close_gaps(scene, 0.8 * closes).values.all()


def test_a_lake_in_floes_is_one_candidate_and_two_lakes_stay_two():
    mask = np.zeros((60, 100), bool)
    mask[10:50, 10:40] = mask[10:50, 60:90] = True
    mask[:, 20:25] = mask[27:30] = False  # leads of ice, 5 and 3 pixels wide
    frame = outline_candidates(raster(mask, 13), ls.PolygonRules(min_area_m2=0)).compute()
    assert shapely.area(frame.geometry.values) / CUP_TRANSFORM.a**2 == pytest.approx([30 * 40, 30 * 40])
    assert len(outline_candidates(raster(mask, 13), ls.PolygonRules(min_area_m2=0, gap_m=0)).compute()) == 6


def test_what_is_closed_and_filled_stays_within():
    """A ring of water round a hole, a gap in it, and a boundary through both."""
    mask = np.zeros((30, 30), bool)
    mask[5:25, 5:25] = True
    mask[10:20, 10:20] = mask[5:10, 14:16] = False
    within = np.zeros((30, 30), bool)
    within[:, :15] = True
    frame = outline_candidates(raster(mask, 7), ls.PolygonRules(min_area_m2=0), within=raster(within, 9)).compute()
    (everywhere,) = outline_candidates(raster(mask), ls.PolygonRules(min_area_m2=0)).compute().geometry
    pixel = CUP_TRANSFORM.a**2
    assert everywhere.area == pytest.approx(400 * pixel)
    inside = np.zeros((30, 30), bool)
    inside[5:25, 5:15] = True
    assert frame.geometry.area.sum() == pytest.approx((mask | inside).sum() * pixel)


@settings(max_examples=40)
@given(chunked(masks(24)), st.sampled_from([2, 3, 5]), st.sampled_from([2.0, 10.0]), st.booleans())
def test_necks_equal_a_plain_loop_over_the_whole_array(case, neck_px, max_elongation, bridges):
    mask, chunks = case
    rules = ls.PolygonRules(
        neck_px=neck_px, max_elongation=max_elongation, neck_rule="bridges" if bridges else "streams"
    )
    wide = open_rectangle(mask, (neck_px, neck_px), centred=True)
    bodies, _ = ndimage.label(wide, EIGHT)
    narrow, count = ndimage.label(mask & ~wide, EIGHT)
    expected = mask.astype(np.uint8)
    for part in range(1, count + 1):
        here = narrow == part
        beside = set(bodies[ndimage.binary_dilation(here, EIGHT)]) - {0}
        r, c = np.nonzero(here)
        corners = shapely.MultiPoint(
            [(x + dx, y + dy) for x, y in zip(c, r, strict=True) for dx in (0, 1) for dy in (0, 1)]
        )
        is_stream = elongation(np.array([shapely.convex_hull(corners)]))[0] > max_elongation
        if beside and (is_stream or (bridges and len(beside) > 1)):
            expected[here] = CUT_PART
    np.testing.assert_array_equal(cut_necks(raster(mask, chunks), rules).values, expected)


def two_lakes(neck_width, neck_length):
    mask = np.zeros((60, 60 + neck_length), bool)
    mask[10:50, 5:25] = True
    mask[10:50, 25 + neck_length : 50 + neck_length] = True
    mask[30 : 30 + neck_width, 25 : 25 + neck_length] = True
    return mask


@pytest.mark.parametrize(
    ("rules", "width", "length", "lakes"),
    [
        ({"neck_px": 5, "neck_rule": "bridges"}, 4, 6, 2),
        ({"neck_px": 5, "neck_rule": "bridges"}, 5, 6, 1),
        ({"neck_px": 0}, 2, 6, 1),
        ({"neck_px": 7, "neck_rule": "streams"}, 4, 6, 1),
        ({"neck_px": 7, "neck_rule": "streams"}, 3, 31, 2),
        ({"neck_px": 7, "neck_rule": "streams", "max_elongation": 20.0}, 3, 31, 1),
    ],
)
def test_parts_joined_by_a_narrow_neck_are_split(rules, width, length, lakes):
    frame = outline_candidates(raster(two_lakes(width, length), 13), ls.PolygonRules(gap_m=0, **rules)).compute()
    assert (frame.reason == KEPT).sum() == lakes
    assert (frame.reason == CUT_OFF).sum() == lakes - 1


def test_a_narrow_lake_that_borders_no_wider_part_stays():
    mask = np.zeros((30, 30), bool)
    mask[10:13, 5:20] = True
    frame = outline_candidates(raster(mask, 8), ls.PolygonRules(min_area_m2=0, neck_px=5)).compute()
    assert list(frame.reason) == [KEPT]


def test_streams_are_named_by_their_rotated_rectangle():
    mask = np.zeros((80, 80), bool)
    mask[np.arange(70), np.arange(70)] = mask[np.arange(70), np.arange(70) + 1] = True
    mask[60:70, 5:15] = True
    frame = outline_candidates(raster(mask, 17), ls.PolygonRules(min_area_m2=0, neck_px=0)).compute()
    assert sorted(frame.reason) == [KEPT, STREAM]


def test_exactly_ten_times_as_long_as_wide_is_no_stream():
    assert elongation(np.array([shapely.box(0, 0, 10, 1), shapely.box(0, 0, 3, 3)])).tolist() == [10.0, 1.0]


def test_holes_are_filled_or_kept():
    mask = np.zeros((30, 30), bool)
    mask[5:25, 5:25] = True
    mask[12:18, 12:18] = False
    filled, kept = (
        outline_candidates(raster(mask, 7), ls.PolygonRules(gap_m=0, fill_holes=fill, neck_px=0)).compute()
        for fill in (True, False)
    )
    assert len(filled.geometry.iloc[0].interiors) == 0
    assert len(kept.geometry.iloc[0].interiors) == 1
    assert kept.area_m2.iloc[0] == pytest.approx(filled.area_m2.iloc[0] * (1 - 36 / 400), rel=1e-3)


def test_small_candidates_stay_as_rows_with_their_reason():
    mask = np.zeros((20, 20), bool)
    mask[1, 1] = mask[3:14, 3:14] = True
    frame = outline_candidates(raster(mask, 6), ls.PolygonRules(gap_m=0)).compute()
    assert sorted(frame.reason) == [KEPT, TOO_SMALL]
    assert frame.area_m2.max() > 5000
    cup = outline_candidates(raster(mask[:10, :11], 6), PRESETS["cup"]).compute()
    assert set(cup.reason) == {TOO_SMALL}  # 56 pixels of 38.2 m, 68.5 are needed


def test_the_cups_preset_holds_the_cups_values():
    cup = ls.PolygonRules.preset("cup")
    assert (cup.min_area_3857_m2, cup.max_elongation, cup.neck_px, cup.neck_rule) == (100_000.0, 10.0, 7, "streams")
    assert cup.gap_m == 0
    assert ls.PolygonRules.preset("cup", neck_px=3).neck_px == 3


def test_building_computes_nothing(never_compute):
    outline_candidates(raster(np.zeros((40, 40), bool), 9), ls.PolygonRules())


def test_spatial_partitions_survive_the_rules():
    frame = outline_candidates(raster(np.eye(40, dtype=bool), 10), ls.PolygonRules())
    assert len(frame.spatial_partitions) == frame.npartitions


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ls.PolygonRules(min_area_m2=-1), "min_area_m2 must be a number"),
        (lambda: ls.PolygonRules(min_area_m2=float("nan")), "min_area_m2 must be a number"),
        (lambda: ls.PolygonRules(min_area_m2="abc"), "min_area_m2 must be a number"),
        (lambda: ls.PolygonRules(gap_m=-1), "gap_m must be a number"),
        (lambda: ls.PolygonRules(neck_px=2.5), "neck_px must be whole"),
        (lambda: ls.PolygonRules(fill_holes="no"), "fill_holes true or false"),
        (lambda: ls.PolygonRules(max_elongation=0.5), "at least 1"),
        (lambda: ls.PolygonRules(neck_rule="all"), "neck_rule must be"),
        (lambda: ls.PolygonRules.preset("best"), "no preset 'best'"),
    ],
)
def test_wrong_rules_are_named(make, message):
    with pytest.raises(ls.InputError, match=message):
        make()
