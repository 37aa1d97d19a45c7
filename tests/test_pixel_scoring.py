"""Pixels scored at every threshold, against a plain loop over pixels, whatever the chunks; and areas against pixels."""

from __future__ import annotations

import doctest
import json
import math

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from plain_scoring import lattice_frames
from rasters import axis_chunks, chunked, raster, shapes

import lakescale.pixel_scoring
from lakescale.cluster import open_cluster
from lakescale.grid import Grid
from lakescale.pixel_scoring import STEPS, count_pixels, score_areas, score_pixels
from lakescale.schema import InputError

NAMES = ["tp", "fp", "fn", "tn"]
UNIT = Affine(10, 0, 0, 0, -10, 200)
"""A grid on which pixel (row, col) has its centre at (10 col + 5, 195 - 10 row)."""


@st.composite
def probabilities(draw, largest=12):
    """Values that lie on, and just beside, thresholds; and pixels not seen."""
    shape = draw(shapes(largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.choice([0, 1, 0.25, 0.5, 0.75, rng.random(), rng.random()], shape).astype(np.float32)
    nudge = rng.choice([-1, 0, 1], shape)
    values = np.clip(np.nextafter(values, np.float32(2) * nudge, dtype=np.float32), 0, 1)
    values[rng.random(shape) < draw(st.sampled_from([0, 0.3, 1]))] = np.nan
    return values


def plain_counts(values, truth, threshold):
    counts = dict.fromkeys([*NAMES, "not_seen", "not_seen_lake"], 0)
    for value, lake in zip(values.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if math.isnan(value):
            counts["not_seen"] += 1
            counts["not_seen_lake"] += lake
        else:
            counts[("t" if (value > threshold) == lake else "f") + ("p" if value > threshold else "n")] += 1
    return counts


def plain_rates(tp, fp, fn, **_):
    def share(part, whole):
        return part / whole if whole else 0

    return {
        "precision": share(tp, tp + fp), "recall": share(tp, tp + fn), "f1": share(2 * tp, 2 * tp + fp + fn),
        "iou": share(tp, tp + fp + fn),
    }  # fmt: skip


def on_unit_grid(array, chunks=-1):
    return raster(array, chunks, transform=UNIT, crs="EPSG:3413")


@given(data=st.data(), asked=st.lists(st.integers(0, STEPS - 1), min_size=1, max_size=4))
def test_equals_a_plain_loop_over_pixels_in_any_chunks(data, asked):
    values, chunks = data.draw(chunked(probabilities()))
    truth = np.random.default_rng(len(asked)).random(values.shape) < 0.4
    thresholds = sorted({k / STEPS for k in asked})
    with dask.config.set(scheduler="synchronous"):
        found = score_pixels(
            on_unit_grid(values, chunks), on_unit_grid(truth), threshold=thresholds[0], thresholds=thresholds
        )
    assert found.curve.threshold.tolist() == thresholds
    for row in found.curve.to_dict("records"):
        expected = plain_counts(values, truth, row["threshold"])
        assert {name: row[name] for name in NAMES} == {name: expected[name] for name in NAMES}
        assert {name: row[name] for name in plain_rates(1, 1, 1)} == pytest.approx(plain_rates(**expected))
    expected = plain_counts(values, truth, thresholds[0])
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.f1 == found.curve.f1[0]


@settings(max_examples=20)
@given(values=probabilities(), seed=st.integers(0, 99))
def test_average_precision_and_the_best_threshold(values, seed):
    truth = np.random.default_rng(seed).random(values.shape) < 0.4
    with dask.config.set(scheduler="synchronous"):
        found = score_pixels(on_unit_grid(values), on_unit_grid(truth))
    cuts = sorted({max(np.ceil(v * STEPS) - 1, 0) / STEPS for v in values[values > 0].tolist()}, reverse=True)
    average, recall, best = 0.0, 0.0, 0.0
    for cut in cuts:
        rates = plain_rates(**plain_counts(values, truth, cut))
        average += (rates["recall"] - recall) * rates["precision"]
        recall, best = rates["recall"], max(best, rates["f1"])
    assert found.average_precision == pytest.approx(average)
    assert found.best_f1 == pytest.approx(best)
    assert plain_rates(**plain_counts(values, truth, found.best_threshold))["f1"] == pytest.approx(best)


@settings(max_examples=20)
@given(chunks=st.tuples(axis_chunks(20), axis_chunks(20)), seed=st.integers(0, 999))
def test_polygons_are_drawn_where_pixel_centres_lie_inside(chunks, seed):
    rng = np.random.default_rng(seed)
    values = rng.random((20, 20)).astype(np.float32)
    outline = shapely.make_valid(shapely.Polygon(rng.uniform(-20, 220, (6, 2))))
    region = shapely.box(*rng.uniform(0, 100, 2), *rng.uniform(100, 200, 2))
    centres = [shapely.Point(10 * col + 5, 195 - 10 * row) for row in range(20) for col in range(20)]
    inside, counted = (np.array([one.contains(at) for at in centres]) for one in (outline, region))
    reference, within = (gpd.GeoDataFrame(geometry=[one], crs=3413) for one in (outline, region))
    with dask.config.set(scheduler="synchronous"):
        found = score_pixels(on_unit_grid(values, chunks), reference, threshold=0.25, within=within)
    expected = plain_counts(values.ravel()[counted], inside[counted], 0.25)
    assert {name: getattr(found, name) for name in expected} == expected


def test_a_mask_has_one_point_and_every_pixel_was_seen(one_thread):
    truth = np.zeros((8, 8), bool)
    truth[:4] = True
    mask = np.zeros((8, 8), bool)
    mask[2:6] = True
    found = score_pixels(on_unit_grid(mask, 3), on_unit_grid(truth), thresholds=[0, 0.5, 1])
    assert found.curve[NAMES].to_numpy().tolist() == [[16, 16, 16, 16]] * 3
    assert (found.iou, found.f1, found.not_seen) == (1 / 3, 0.5, 0)
    assert found.curve.threshold.tolist() == [0, 0.5, 1 - 1 / STEPS]  # nothing lies above 1


def test_building_computes_nothing(never_compute):
    reference = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 50, 50)], crs=3413)
    counts = count_pixels(on_unit_grid(np.zeros((20, 20), np.float32), 6), reference, within=reference)
    assert counts.dtype == np.int64
    assert counts.shape == (2, STEPS + 2)
    names = {key[0].rsplit("-", 1)[0] for key in counts.__dask_graph__() if isinstance(key, tuple)}
    assert {"score-pixels", "score-reference", "score-within"} <= names


def test_the_reference_may_have_any_crs_and_be_invalid(one_thread, caplog):
    values = np.full((20, 20), 0.9, np.float32)
    bow_tie = shapely.Polygon([(3, 0), (103, 100), (103, 0), (3, 100)])
    wings = [shapely.Polygon([(x, 0), (53, 50), (x, 100)]) for x in (3, 103)]
    centres = [shapely.Point(x, y) for x in range(5, 200, 10) for y in range(5, 200, 10)]
    reference = gpd.GeoDataFrame(geometry=[bow_tie, shapely.box(100, 100, 200, 200)], crs=3413)
    own, moved = (score_pixels(on_unit_grid(values), reference.to_crs(crs)) for crs in (3413, 6931))
    assert own.tp == moved.tp == 100 + sum(wing.contains(at) for wing in wings for at in centres)
    assert "reference: 1 invalid polygon made valid" in caplog.text


def test_on_processes_it_is_the_same(tmp_path):
    rng = np.random.default_rng(1)
    values, truth = rng.random((60, 70)).astype(np.float32), rng.random((60, 70)) < 0.3
    lazy = on_unit_grid(values, 16), on_unit_grid(truth, 16)
    with open_cluster("local", workers=2, dashboard="none") as client:
        one = score_pixels(*lazy, client=client)
        with pytest.raises(InputError, match=r"must lie in 0..1, found .* \[probability\]"):
            score_pixels(lazy[0].rename("probability") * 255, lazy[1], client=client)
    two = score_pixels(on_unit_grid(values), lazy[1])
    assert one.to_dict() == two.to_dict()
    pd.testing.assert_frame_equal(one.curve, two.curve)


def test_it_reads_well(one_thread):
    found = score_pixels(on_unit_grid(np.eye(4, dtype=np.float32)), on_unit_grid(np.eye(4, dtype=bool)))
    assert str(found) == (
        "pixels above 0.5: f1 1.000, precision 1.000, recall 1.000, iou 1.000; "
        "average precision 1.000, best f1 1.000 above 1.000"
    )
    assert json.loads(json.dumps(found.to_dict()))["tp"] == 4
    assert doctest.testmod(lakescale.pixel_scoring).failed == 0


@pytest.mark.parametrize(
    ("probability", "reference", "options", "message"),
    [
        (on_unit_grid(np.zeros((3, 4, 4), np.float32)), None, {}, r"has the dims \('y', 'x'\) and floats or bool"),
        (on_unit_grid(np.zeros((4, 4), np.uint8)), None, {}, "uint8.*Choose a band, or divide"),
        (None, on_unit_grid(np.zeros((4, 4), np.uint8)), {}, r"must be a bool mask .* got uint8 \(4, 4\)"),
        (None, on_unit_grid(np.zeros((5, 4), bool)), {}, r"got bool \(5, 4\) \[reference\]"),
        (None, gpd.GeoDataFrame({"a": [1]}), {}, r"no geometries to score \[reference\]"),
        (None, gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)]), {}, r"no CRS \[reference\].*set_crs"),
        (None, None, {"threshold": 1.5}, r"must lie in 0..1, got \[1.5\]"),
        (None, None, {"thresholds": []}, r"must lie in 0..1, got \[\]"),
        (on_unit_grid(np.full((4, 4), 1.5, np.float32)), None, {}, "found 1.5 to 1.5"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused(probability, reference, options, message, one_thread):
    probability = on_unit_grid(np.zeros((4, 4), np.float32)) if probability is None else probability
    reference = on_unit_grid(np.zeros((4, 4), bool)) if reference is None else reference
    with pytest.raises(InputError, match=message):
        score_pixels(probability, reference, **options)


# -- areas


@given(data=st.data(), grouped=st.booleans())
def test_areas_are_counts_of_what_is_covered(data, grouped):
    (lakes, own), (reference, other) = (data.draw(lattice_frames(grouped)) for _ in range(2))
    found = score_areas(lakes, reference)
    groups = sorted({shape.group for shape in own + other}) if grouped else [()]
    assert len(found) == len(groups) + grouped
    total = np.zeros(3)
    for group, row in zip(groups, found.to_numpy(), strict=False):
        one, two = ({at for s in some if s.group == group for at in s.covers} for some in (own, other))
        counts = len(one), len(two), len(one & two)
        total += counts
        assert (row[:3] * 4).tolist() == pytest.approx(counts)
        shared, only = counts[2], len(one | two) - counts[2]
        assert row[3:] == pytest.approx(list(plain_rates(shared, counts[0] - shared, counts[1] - shared).values()))
        assert row[6] == pytest.approx(shared / (shared + only) if shared else 0)
    assert (found.iloc[-1, :3] * 4).tolist() == pytest.approx(total.tolist())
    assert found.index[-1] == (("all", "") if grouped else "all")


def test_areas_are_what_ever_finer_pixels_come_to():
    rng = np.random.default_rng(2)
    lakes, reference = (
        gpd.GeoDataFrame(geometry=shapely.buffer(shapely.points(rng.uniform(0, 200, (12, 2))), 25), crs=3413)
        for _ in range(2)
    )
    area = score_areas(lakes, reference).iloc[0]
    grid = Grid(GeoBox((600, 600), Affine(0.5, 0, -50, 0, -0.5, 250), "EPSG:3413"))
    x, y = grid.centres_xy(slice(0, 600), slice(0, 600))
    mask = shapely.contains_xy(lakes.union_all(), x, y)
    pixels = score_pixels(raster(mask, 200, transform=grid.transform, crs="EPSG:3413"), reference)
    for name in ("precision", "recall", "f1", "iou"):
        assert getattr(pixels, name) == pytest.approx(area[name], abs=0.002)
