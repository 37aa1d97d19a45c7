"""Pictures of scores: every polygon is drawn in its color, whatever the groups."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from rasters import raster

from lakescale.pixel_scoring import score_pixels
from lakescale.score_report import draw_score
from lakescale.scoring import score

TRUE, FALSE, MISSED, IGNORED = "#009e73", "#d55e00", "#0072b2", "#8c8c8c"


def frame(*boxes, crs=3413, **columns):
    return gpd.GeoDataFrame(columns, geometry=[shapely.box(*box) for box in boxes], crs=crs)


def count(path, color):
    return int((np.abs(imread(path)[..., :3] - to_rgb(color)).max(axis=2) < 0.01).sum())


@pytest.fixture(scope="module")
def lakes_and_reference():
    lakes = frame((0, 0, 10, 10), (30, 0, 40, 10), (0, 30, 10, 36), (0, 36, 10, 42))
    return lakes, frame((0, 0, 10, 10), (60, 60, 70, 70), (0, 30, 10, 42))


def test_each_kind_has_its_color(lakes_and_reference, tmp_path):
    lakes, reference = lakes_and_reference
    draw_score(tmp_path / "seed.png", score(lakes, reference, rules="seed"))
    assert all(count(tmp_path / "seed.png", color) > 100 for color in (TRUE, FALSE, MISSED, IGNORED))
    draw_score(tmp_path / "strict.png", score(reference, reference))
    assert count(tmp_path / "strict.png", TRUE) > 100
    assert sum(count(tmp_path / "strict.png", color) for color in (FALSE, MISSED)) == 0  # nor in the legend


def test_the_curve_is_a_panel_beside_the_maps(lakes_and_reference, tmp_path):
    lakes, reference = lakes_and_reference
    values = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    grid = {"transform": Affine(2, 0, 0, 0, -2, 80), "crs": "EPSG:3413"}
    pixels = score_pixels(raster(values, **grid), reference)
    draw_score(tmp_path / "with.png", score(lakes, reference), pixels=pixels)
    draw_score(tmp_path / "without.png", score(lakes, reference))
    assert imread(tmp_path / "with.png").shape[1] > imread(tmp_path / "without.png").shape[1]
    assert count(tmp_path / "with.png", "#333333") > count(tmp_path / "without.png", "#333333") + 200
    nothing = score_pixels(raster(np.zeros((40, 40), np.float32), **grid), reference)
    draw_score(tmp_path / "nothing.png", score(lakes, reference), pixels=nothing)
    assert imread(tmp_path / "nothing.png").shape == imread(tmp_path / "with.png").shape


@pytest.mark.parametrize("groups", [1, 2, 5, 12, 15])
def test_any_number_of_groups(groups, tmp_path):
    keys = {"image": [f"{k % 3}.tif" for k in range(groups)], "region_num": list(range(groups))}
    lakes = frame(*[(0, 0, 1000, 10)] * groups, **keys)
    result = score(lakes, lakes.iloc[1:])
    draw_score(tmp_path / "score.png", result)
    assert count(tmp_path / "score.png", FALSE) > 100
    assert (count(tmp_path / "score.png", TRUE) > 100) == (groups > 1)


def test_names_that_are_missing_other_crs_and_nothing_at_all(tmp_path):
    lakes = frame((0, 0, 10, 10), image=[None], region_num=[np.nan])
    draw_score(tmp_path / "missing.png", score(lakes, lakes))
    assert count(tmp_path / "missing.png", TRUE) > 100
    degrees = frame((-49, 67, -48.9, 67.1), (-49, 68, -48.9, 68.1), crs=4326)
    draw_score(tmp_path / "degrees.png", score(degrees[:1], degrees))
    assert count(tmp_path / "degrees.png", MISSED) > 100
    draw_score(tmp_path / "empty.png", score(frame(), frame()))
    assert imread(tmp_path / "empty.png").shape[2] == 4
    bare = gpd.GeoDataFrame(geometry=[shapely.Polygon()], crs=3413)
    draw_score(tmp_path / "bare.png", score(bare, bare))
    assert count(tmp_path / "bare.png", FALSE) > 20  # in the legend
