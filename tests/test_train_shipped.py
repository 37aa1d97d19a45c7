"""The model that comes with lakescale: where it was taught, and that it finds lakes where it has never been."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from pyproj import Geod, Transformer

import lakescale as ls
from lakescale.grid import Grid
from lakescale.models import describe_checkpoint, shipped_checkpoint
from lakescale.regions import fill_holes
from lakescale.synthetic import make_region
from lakescale.synthetic.scenery import Scenery
from pipelines.train_recipe import read_train_recipe
from training import labels
from training.judging import Judged, score_masks
from training.train_recipe import TrainRecipe

ROOT = Path(__file__).parents[1]
RECIPE = read_train_recipe(ROOT / "training" / "recipes" / "lakes_small.yaml")
DRAWN = json.loads(Path(labels.__file__).with_name("lakes.geojson").read_text())["images"]


def side_of(name):
    sides = {"validation": RECIPE.split.validation, "test": RECIPE.split.test}
    return next((side for side, likes in sides.items() if any(fnmatchcase(name, like) for like in likes)), "train")


def centre(told):
    move = Transformer.from_crs(told["crs"], "EPSG:4326", always_xy=True)
    a, _, c, _, e, f = told["transform"][:6]
    return move.transform(c + a * told["width"] / 2, f + e * told["height"] / 2)


def test_crops_of_two_sides_lie_far_apart():
    sides = {name: side_of(name) for name in DRAWN}
    assert set(sides.values()) == {"train", "validation", "test"}
    for one, other in product(sides, sides):
        if sides[one] != sides[other]:
            assert Geod(ellps="WGS84").inv(*centre(DRAWN[one]), *centre(DRAWN[other]))[2] > 15_000


def test_seeds_of_two_sides_are_different():
    seeds = {side: set() for side in ("train", "validation", "test")}
    for group in RECIPE.data.synthetic:
        seeds[side_of(f"{group.name}-1-rgb8_{group.dates[0]}")] |= set(group.seeds)
    assert all(seeds.values())
    assert not seeds["train"] & seeds["validation"]
    assert not (seeds["train"] | seeds["validation"]) & seeds["test"]


def test_the_checkpoint_is_small_and_made_by_the_recipe():
    info = describe_checkpoint(shipped_checkpoint())
    assert info.n_bytes <= 12 * 2**20
    assert TrainRecipe.model_validate({"out": RECIPE.out, **info.spec.training["recipe"]}) == RECIPE
    assert info.hash in (ROOT / "docs" / "model_card.md").read_text()


@pytest.mark.parametrize(("seed", "date", "snow"), [(1951, "2019-08-20", 0.0), (1962, "2019-07-08", 0.3)])
def test_it_finds_lakes_where_it_has_never_been(seed, date, snow):
    """In 8-bit and in reflectance alike; docs/model_card.md tells how it compares with color and index."""
    region = make_region(512, seed=seed, dates=[date], scenery=Scenery(snow=snow, cloud_share=0.0, margin_km=30.0))
    truth = region.truth(date).values > 0
    images = Judged("x", Grid.of(region.truth(date)), truth, np.ones(truth.shape, bool))
    spec = describe_checkpoint(shipped_checkpoint()).spec
    found = {}
    for kind in ("rgb8", "reflectance"):
        scene = region.scene(date, kind=kind)
        probability = ls.lake_probability(scene, shipped_checkpoint(), window=spec.window, stride=spec.window // 2)
        mask = fill_holes(probability > np.float32(spec.threshold)).values
        found[kind] = score_masks([images], {"x": mask}, 5000)["pixel_iou"]
    assert min(found.values()) > 0.45
    assert found["rgb8"] == pytest.approx(found["reflectance"], abs=0.1)
