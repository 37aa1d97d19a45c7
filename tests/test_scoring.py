"""Scores against a plain loop over polygons, rule by rule, and on a competitor's lakes."""

from __future__ import annotations

import doctest
import json
import logging

import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal
from hypothesis import given
from hypothesis import strategies as st
from plain_scoring import lattice_frames, plain_score, shapes_of

import lakescale.scoring
from lakescale.schema import InputError
from lakescale.scoring import ALONE, CLASH, FITS, MISFIT, SECOND, score


def assert_equals_plain(lakes, reference, rules, shapes=None):
    result = score(lakes, reference, rules=rules)
    verdicts, tied, missed = plain_score(*(shapes or map(shapes_of, (lakes, reference))), rules)
    assert result.matches.verdict.tolist() == verdicts
    labels = [None if row is None else reference.index[row] for row in tied]
    assert [None if pd.isna(label) else label for label in result.matches.reference] == labels
    assert result.missed.index.tolist() == reference.index[missed].tolist()
    tp, fp, fn = verdicts.count("tp"), verdicts.count("fp"), len(missed)
    assert (result.tp, result.fp, result.fn) == (tp, fp, fn)
    assert result.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0)
    assert result.groups[["tp", "fp", "fn"]].sum().tolist() == [tp, fp, fn]
    return result


def frame(*boxes, crs=3857, index=None, **columns):
    return gpd.GeoDataFrame(geometry=[shapely.box(*b) for b in boxes], crs=crs, index=index).assign(**columns)


@pytest.mark.parametrize("rules", ["strict", "seed"])
@given(data=st.data(), grouped=st.booleans())
def test_equals_a_plain_loop(rules, data, grouped):
    (lakes, submitted), (reference, tests) = (data.draw(lattice_frames(grouped)) for _ in range(2))
    assert_equals_plain(lakes, reference, rules, (submitted, tests))
    assert_equals_plain(lakes, lakes, rules, (submitted, submitted))


def test_a_lake_that_overlaps_another_is_false_and_touching_is_no_overlap():
    reference = frame((0, 0, 10, 10), (10, 0, 20, 10))
    lakes = frame((0, 0, 10, 10), (10, 0, 20, 10), (19, 9, 21, 11))  # the first two share an edge
    result = score(lakes, reference)
    assert result.matches.reason.tolist() == [FITS, CLASH, CLASH]
    assert result.matches.reference.tolist() == [0, 1, 1]  # where it lies is told all the same
    assert result.missed.index.tolist() == [1]
    assert score(lakes, reference, rules="seed").matches.reason.tolist() == [FITS, FITS, MISFIT]


def test_a_lake_that_overlaps_no_reference_is_false():
    result = score(frame((10, 0, 20, 10), (40, 40, 50, 50)), frame((0, 0, 10, 10)))  # an edge is no area
    assert result.matches.reason.tolist() == [ALONE, ALONE]
    assert result.matches.reference.isna().all()
    assert result.matches.reference_m2.isna().all()
    assert (result.matches[["shared_m2", "iou"]] == 0).all(axis=None)
    assert (result.tp, result.fp, result.fn, result.f1) == (0, 2, 1, 0)


@pytest.mark.parametrize(
    ("height", "reason"), [(49.99, MISFIT), (50, FITS), (100, FITS), (160, FITS), (160.01, MISFIT)]
)
@pytest.mark.parametrize("width", [1, 3, 7, 0.1])
def test_fifty_and_a_hundred_and_sixty_percent_still_fit(height, width, reason):
    result = score(frame((0, 0, width, height)), frame((0, 0, width, 100)))
    assert result.matches.reason.tolist() == [reason]


def test_a_lake_is_tied_to_the_reference_that_shares_most_and_in_a_draw_to_the_first():
    reference = frame((0, 0, 10, 10), (10, 0, 30, 10), (0, 20, 10, 30), (10, 20, 20, 30), index=list("abcd"))
    lakes = frame((5, 0, 25, 10), (5, 20, 15, 30), (11, 21, 19, 29))
    result = score(lakes, reference, rules="seed")
    assert result.matches.reference.tolist() == ["b", "c", "d"]
    assert result.missed.index.tolist() == ["a"]
    assert result.matches.shared_m2.tolist() == [150, 50, 64]
    assert result.matches.iou.tolist() == pytest.approx([150 / 250, 50 / 150, 0.64])
    assert result.matches.lake_m2.tolist() == [200, 100, 64]
    assert result.matches.reference_m2.tolist() == [200, 100, 100]


def test_a_second_fit_is_false_by_strict_and_ignored_by_seed():
    reference, lakes = frame((0, 0, 10, 10)), frame((0, 0, 10, 2), (0, 2, 10, 7), (0, 7, 10, 17))
    strict, seed = (score(lakes, reference, rules=rules) for rules in ("strict", "seed"))
    assert strict.matches.reason.tolist() == seed.matches.reason.tolist() == [MISFIT, FITS, SECOND]
    assert strict.matches.verdict.tolist() == ["fp", "tp", "fp"]
    assert seed.matches.verdict.tolist() == ["fp", "tp", "ignored"]
    assert (strict.fp, seed.fp, seed.fn) == (2, 1, 0)


def test_a_lake_that_clashes_matches_nothing():
    lakes = frame((0, 0, 10, 10), (9, 0, 12, 10), (-5, 0, 0, 10))
    result = score(lakes, frame((-5, 0, 10, 10)))
    assert result.matches.reason.tolist() == [CLASH, CLASH, MISFIT]


def test_groups_are_scored_apart_and_summed():
    where = {"image": ["b", "a", "a"], "region_num": [1, 1, 2]}
    lakes, reference = frame(*[(0, 0, 10, 10)] * 3, **where), frame(*[(0, 0, 10, 10)] * 2, image="a", region_num=[2, 3])
    result = score(lakes, reference)
    assert result.groups.index.tolist() == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]
    assert result.groups.index.names == ["image", "region_num"]
    assert result.groups[["tp", "fp", "fn"]].to_numpy().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert result.groups.f1.tolist() == [0, 1, 0, 0]
    assert result.matches.image.tolist() == ["b", "a", "a"]
    assert (result.precision, result.recall, result.f1) == (1 / 3, 1 / 2, 2 / 5)


def test_group_columns_may_be_categories_and_other_kinds_of_numbers():
    lakes = frame((0, 0, 10, 10), image="a", region_num=np.int32(2)).astype({"image": "category"})
    assert score(lakes, frame((0, 0, 10, 10), image="a", region_num=2.0)).f1 == 1
    with pytest.raises(InputError, match="region_num is text in one frame"):
        score(lakes, frame((0, 0, 10, 10), image="a", region_num="2"))


@pytest.mark.parametrize("columns", [{"image": "a", "region_num": 1}, {"image": "a"}])
def test_columns_in_one_frame_only_make_one_group_and_a_line_in_the_log(columns, caplog):
    with caplog.at_level(logging.WARNING, "lakescale"):
        result = score(frame((0, 0, 10, 10), **columns), frame((0, 0, 10, 10)))
    assert result.f1 == 1
    assert result.groups.index.tolist() == ["all"]
    assert "one group" in caplog.text
    assert "image" not in result.matches


def test_nothing_to_score():
    some, none = frame((0, 0, 10, 10)), frame()
    assert score(none, none).to_dict() == dict.fromkeys(["tp", "fp", "fn", "precision", "recall", "f1"], 0) | {
        "rules": "strict"
    }
    assert score(none, some).fn == 1
    assert score(some, none).matches.reason.tolist() == [ALONE]
    assert score(some, frame(crs=None)).fp == 1
    assert score(frame(crs=None), some).matches.crs == some.crs
    keyed = frame(image=[], region_num=[])
    assert score(keyed, keyed).groups.empty
    assert score(keyed, frame((0, 0, 1, 1), image="a", region_num=1)).groups.fn.tolist() == [1]
    empty = gpd.GeoDataFrame(geometry=[shapely.Polygon()], crs=3857)
    assert score(empty, some).matches.reason.tolist() == [ALONE]
    assert score(some, empty).fn == 1


def test_a_score_reads_well():
    result = score(frame((0, 0, 10, 10)), frame((0, 0, 10, 10), (20, 0, 30, 10)))
    assert str(result) == "strict rules: f1 0.667, precision 1.000, recall 0.500 (1 tp, 0 fp, 1 fn)"
    assert repr(result) == f"Score(rules='strict', tp=1, fp=0, fn=1, precision=1.0, recall=0.5, f1={2 / 3})"
    assert json.loads(json.dumps(result.to_dict()))["tp"] == 1
    assert doctest.testmod(lakescale.scoring).failed == 0


def test_lakes_are_brought_to_the_crs_of_the_reference():
    reference = frame((-190000, -2500000, -189000, -2499000), crs=3413)
    lakes = reference.to_crs(4326).set_index(pd.Index(["only"]))
    result = score(lakes, reference)
    assert result.f1 == 1
    assert result.matches.crs == reference.crs
    assert result.matches.lake_m2["only"] == pytest.approx(1e6, rel=1e-9)
    assert score(reference, reference.to_crs(3857)).matches.lake_m2[0] > 2e6
    plane = frame((0, 0, 1, 1), crs=None)
    assert score(plane, plane).f1 == 1


@pytest.mark.parametrize(
    ("lakes", "reference", "rules", "message"),
    [
        (frame(), frame(), "cup", r"no scoring rules 'cup'.*[Cc]hoose one of strict, seed"),
        (frame((0, 0, 1, 1), crs=None), frame((0, 0, 1, 1)), "strict", r"only the other frame has a CRS \[lakes\]"),
        (frame((0, 0, 1, 1)), frame((0, 0, 1, 1), crs=None), "seed", r"only the other frame has a CRS \[reference\]"),
        (frame((0, 0, 1, 1)), frame((0, 0, 1, 1), crs=2263), "strict", r"not in m2"),
        (pd.DataFrame({"a": [1]}), frame(), "strict", r"no geometries to score \[lakes\]"),
        (frame(), gpd.GeoDataFrame({"a": [1]}), "strict", r"no geometries to score \[reference\]"),
        (frame((0, 0, 1, 1)), frame((0, -1, 1, 1), crs=4326), "strict", r"both hemispheres \[reference\].*to_crs"),
        (gpd.GeoDataFrame(geometry=[None], crs=3857), frame(), "strict", r"found nothing \[lakes, row 0"),
        (gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=3857), frame(), "strict", r"found Point \[lakes, row 0"),
        (frame((0, 80, 1, 95), crs=4326), frame((0, 0, 1, 1)), "strict", r"no place in WGS 84 / .*\[lakes, row 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(lakes, reference, rules, message):
    with pytest.raises(InputError, match=message):
        score(lakes, reference, rules=rules)


@pytest.fixture(scope="module")
def competitor(data_dir):
    return gpd.read_file(data_dir / "vector" / "competitor_lake_polygons.gpkg")


@pytest.fixture(scope="module")
def perturbed(competitor):
    """A shifted, buffered copy without every fifth lake, some of it cut in halves."""
    rng = np.random.default_rng(3)
    geometry = competitor.geometry.values
    east, north = rng.normal(0, 60, (2, len(competitor)))
    coordinates, owner = shapely.get_coordinates(geometry, return_index=True)
    moved = shapely.set_coordinates(geometry.to_numpy().copy(), coordinates + np.stack([east, north], 1)[owner])
    grown = shapely.buffer(moved, rng.choice([-40, 0, 0, 60, 120], len(moved)))
    x0, y0, x1, y1 = shapely.bounds(grown).T
    halves = [shapely.box(x0, y0, (x0 + x1) / 2, y1), shapely.box((x0 + x1) / 2, y0, x1, y1)]
    cut = rng.random(len(grown)) < 0.1
    pieces = [shapely.intersection(grown[cut], half[cut]) for half in halves]
    shapes = np.concatenate([grown[~cut], *pieces])
    rows = competitor.drop(columns="geometry").iloc[np.concatenate([np.flatnonzero(c) for c in (~cut, cut, cut)])]
    copy = gpd.GeoDataFrame(rows, geometry=shapes, crs=competitor.crs).reset_index(drop=True)
    return copy[(copy.index % 5 > 0) & np.isin(copy.geom_type, ["Polygon", "MultiPolygon"])]


def test_a_competitor_against_itself(competitor):
    seed, strict = (score(competitor, competitor, rules=rules) for rules in ("seed", "strict"))
    assert (seed.tp, seed.fp, seed.fn, seed.f1) == (len(competitor), 0, 0, 1)
    assert set(strict.matches.reason) <= {FITS, CLASH}
    joined = competitor.sjoin(competitor, predicate="intersects")
    joined = joined[(joined.index != joined.index_right) & (joined.image_left == joined.image_right)
                    & (joined.region_num_left == joined.region_num_right)]  # fmt: skip
    shared = joined.geometry.intersection(competitor.geometry.loc[joined.index_right], align=False).area > 0
    assert strict.matches.index[strict.matches.reason == CLASH].tolist() == joined.index[shared].unique().tolist()


@pytest.mark.parametrize("rules", ["strict", "seed"])
def test_a_competitor_against_a_perturbed_copy_equals_a_plain_loop(competitor, perturbed, rules):
    result = assert_equals_plain(perturbed, competitor, rules)
    assert 0.2 < result.f1 < 0.9
    assert len(result.groups) == 12


@pytest.mark.parametrize("rules", ["strict", "seed"])
def test_partitions_do_not_matter(competitor, perturbed, rules, one_thread):
    whole = score(perturbed, competitor, rules=rules)
    one, seven = (
        score(*(dask_geopandas.from_geopandas(f, npartitions=n) for f in (perturbed, competitor)), rules=rules)
        for n in (1, 7)
    )
    assert one.to_dict() == seven.to_dict() == whole.to_dict()
    pd.testing.assert_frame_equal(one.groups, seven.groups)
    assert_geodataframe_equal(one.matches, seven.matches)
    assert_geodataframe_equal(one.missed, seven.missed)
    assert_geodataframe_equal(seven.matches, whole.matches, check_dtype=False)  # dask has another kind of strings
