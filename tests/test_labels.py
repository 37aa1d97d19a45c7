"""Drawn lakes come back on the pixels that they were drawn on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from pyproj import Transformer

import lakescale as ls
from lakescale.grid import Grid
from training import labels
from training.labels import labelled_images, read_annotations, read_labels
from training.samples import SampleRules, find_samples

FILE = json.loads(Path(labels.__file__).with_name("lakes.geojson").read_text())


def drawn_on(name):
    return [one for one in FILE["features"] if one["properties"]["image"] == name]


def find_scene(data_dir, name):
    (path,) = (data_dir / "scenes").rglob(name)
    return path


@pytest.mark.parametrize("name", labelled_images())
def test_labels_lie_on_the_pixels_of_their_scene(data_dir, name):
    grid = Grid.of(ls.open_scene(find_scene(data_dir, name)))
    told = FILE["images"][name]
    assert (told["height"], told["width"]) == grid.shape
    frame = read_labels(name)
    assert frame.crs == grid.crs
    a, b, c, d, e, f = (~grid.transform)[:6]
    for polygon, one in zip(frame.geometry, drawn_on(name), strict=True):
        xy = shapely.get_coordinates(polygon)
        pixels = np.column_stack([a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f])
        expected = one["properties"]["pixels"]
        np.testing.assert_allclose(pixels, [*expected, expected[0]], rtol=0, atol=1e-6)
        assert pixels.min() >= -1e-6
        assert (pixels.max(axis=0) <= np.array(grid.shape[::-1]) + 1e-6).all()


def test_there_are_labels_of_both_kinds_in_both_hemispheres():
    names = labelled_images()
    assert len(names) == 24
    frames = [read_labels(name) for name in names]
    kinds = {(kind, side) for frame in frames for kind, side in zip(frame["kind"], frame["hemisphere"], strict=True)}
    assert kinds == {(kind, side) for kind in ("open", "lid", "unsure") for side in ("north", "south")}
    assert sum(len(frame) for frame in frames) == len(FILE["features"]) == 227
    assert all(frame.geometry.is_valid.all() for frame in frames)


@pytest.mark.parametrize("name", labelled_images())
def test_the_geometry_for_gis_is_the_outline_in_longitude_and_latitude(name):
    move = Transformer.from_crs(FILE["images"][name]["crs"], "EPSG:4326", always_xy=True)
    for polygon, one in zip(read_labels(name).geometry, drawn_on(name), strict=True):
        expected = shapely.transform(polygon, lambda xy: np.column_stack(move.transform(*xy.T)))
        stored = shapely.geometry.shape(one["geometry"])
        assert shapely.hausdorff_distance(stored, expected) < 2e-7
        assert shapely.is_ccw(stored.exterior)
        assert ("north" if stored.bounds[1] > 0 else "south") == one["properties"]["hemisphere"]


def test_an_image_without_labels_is_refused():
    with pytest.raises(ls.InputError, match=r"no labels of this image \[there/none.tif\]"):
        read_labels("there/none.tif")


@pytest.mark.usefixtures("one_thread")
def test_labels_make_samples_of_the_real_scenes(data_dir, tmp_path):
    """Their counts are those of the drawn pixels."""
    names = [labelled_images()[k] for k in (4, 20)]
    scenes = [find_scene(data_dir, name) for name in names]
    index = find_samples(scenes, read_annotations(names), tmp_path, rules=SampleRules(window=2048, stride=2048))
    assert index["kind"].tolist() == ["positive", "positive"]
    for name, lake_px, ignored_px in zip(names, index["lake_px"], index["ignored_px"], strict=True):
        areas = dict.fromkeys((True, False), 0.0)
        for one in drawn_on(name):
            areas[one["properties"]["kind"] == "unsure"] += shapely.Polygon(one["properties"]["pixels"]).area
        assert ignored_px == pytest.approx(areas[True], rel=0.05)
        assert lake_px == pytest.approx(areas[False], rel=0.05)
