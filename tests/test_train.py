"""A training from its recipe to its checkpoint: what it learns, that it can be killed, and what it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from geopandas import read_file as read
from lightning import Trainer
from torch.utils.data import DataLoader
from train_recipes import DAY, SHAPE, WINDOW, small_recipe, write_images
from training_scenes import blobs, plain_mask, to_frame, write_cube

import lakescale as ls
from lakescale.models import describe_checkpoint, load_model
from lakescale.rules import close_gaps
from lakescale.schema import InputError, RunError
from training.compare import MAPPED_GAP_M, SMALL_M2
from training.dataset import LakePatches
from training.learner import LakeLearner
from training.material import require_apart
from training.train import prepare, train
from training.train_recipe import PRESETS, TrainRecipe, fill_in, list_differences

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),  # Lightning's own
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Three cubes and their lakes; nothing in this folder is changed."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """A training that nothing stopped."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return train(small_recipe(images, out=out))


def figures(run):
    return pd.read_csv(run / "metrics.csv")


# -- what it writes


def test_a_training_ends_in_a_checkpoint_that_maps_lakes(trained, images):
    run = trained.checkpoint.parent
    info = describe_checkpoint(trained.checkpoint)
    assert info.hash == trained.hash
    assert (info.spec.values, info.spec.window, info.spec.white_percentile) == ("any", WINDOW, 95)
    thresholds = pd.read_csv(run / "thresholds.csv")
    assert info.spec.threshold == thresholds.loc[thresholds["f1"].idxmax(), "threshold"]
    assert info.spec.training["recipe"]["optimizer"]["name"] == "adam"
    assert info.spec.metrics["validation"]["f1"] == pytest.approx(thresholds["f1"].max(), abs=1e-4)
    table = figures(run)
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table["train_loss"].iloc[-1] < table["train_loss"].iloc[0]
    assert len(list((run / "panels").glob("epoch_*.png"))) == 3
    assert list((run / "tensorboard").glob("events*"))
    assert {one.name for one in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    scene = ls.open_cube(images / "c.zarr").isel(time=0)
    probability = ls.lake_probability(scene, trained.checkpoint, window=WINDOW, stride=16).values
    assert probability.shape == SHAPE
    assert np.isfinite(probability).all()


def test_reflectance_and_8_bit_of_one_scene_look_alike_to_the_model(trained):
    model = load_model(trained.checkpoint)
    rng = np.random.default_rng(1)
    windows = rng.integers(1, 256, (2, 3, WINDOW, WINDOW)).astype(np.float32)
    windows[:, :, :5] = 0
    np.testing.assert_allclose(model.predict(windows), model.predict(windows * np.float32(0.85 / 255)), atol=1e-5)


def test_the_white_of_a_window_is_its_own(trained):
    """So that a window's answer depends on no other in its batch."""
    model = load_model(trained.checkpoint)
    rng = np.random.default_rng(2)
    dark, bright = (rng.uniform(0.1, 1, (3, WINDOW, WINDOW)).astype(np.float32) * scale for scale in (1, 200))
    together = model.predict(np.stack([dark, bright, dark * 0]))
    for one, answer in zip((dark, bright, dark * 0), together, strict=True):
        np.testing.assert_allclose(model.predict(one[None])[0], answer, atol=1e-5)


# -- killed, and gone on with


def test_a_killed_training_goes_on_to_the_same_curve_and_weights(trained, images, tmp_path):
    recipe = small_recipe(images, out=tmp_path / "killed")
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    code = (
        "from pathlib import Path; import dask; dask.config.set(scheduler='synchronous');"
        "from pipelines.train_recipe import read_train_recipe; from training.train import train;"
        f"train(read_train_recipe(Path({str(tmp_path / 'recipe.yaml')!r})))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1], start_new_session=True)
    table = recipe.out / "metrics.csv"
    give_up = time.monotonic() + 300
    while not (table.is_file() and recipe.saved("last").is_file()):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < give_up
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (recipe.out / "model.safetensors").exists()
    again = train(recipe, resume=True)
    assert again.hash == trained.hash
    pd.testing.assert_frame_equal(figures(recipe.out), figures(trained.checkpoint.parent), check_exact=True)


def test_a_running_mean_of_weights_is_kept_and_gone_on_with(trained, images, tmp_path, monkeypatch):
    """Stopped after the second of three epochs, and gone on with; the steps themselves are those without a mean."""
    whole = train(small_recipe(images, out=tmp_path / "whole", average=0.7))
    assert whole.hash != trained.hash
    assert (
        figures(tmp_path / "whole")["train_loss"].tolist() == figures(trained.checkpoint.parent)["train_loss"].tolist()
    )
    recipe, plain = small_recipe(images, out=tmp_path / "stopped", average=0.7), LakeLearner.on_train_epoch_start

    def stop(self):
        if self.current_epoch == 2:
            raise KeyboardInterrupt
        plain(self)

    monkeypatch.setattr(LakeLearner, "on_train_epoch_start", stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(recipe)
    monkeypatch.undo()
    assert train(recipe, resume=True).hash == whole.hash
    pd.testing.assert_frame_equal(figures(recipe.out), figures(tmp_path / "whole"), check_exact=True)


def test_another_recipe_is_not_gone_on_with(trained, images):
    run = trained.checkpoint.parent
    other = small_recipe(images, out=run, optimizer={"lr": 0.1}, seed=4)
    with pytest.raises(InputError, match=r"the training is of another recipe: optimizer.lr, seed \["):
        train(other, resume=True)
    with pytest.raises(InputError, match=r"the folder holds a training .* \(--resume\)"):
        train(small_recipe(images, out=run))
    with pytest.raises(InputError, match="there is no training to resume"):
        train(small_recipe(images, out=run.parent / "new"), resume=True)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_epoch(images, tmp_path, monkeypatch):
    recipe = small_recipe(images, out=tmp_path / "nan")
    plain = LakeLearner.training_step

    def spoilt(self, batch):
        if self.current_epoch == 1:
            with torch.no_grad():
                next(self.module.parameters()).fill_(float("nan"))
        return plain(self, batch)

    monkeypatch.setattr(LakeLearner, "training_step", spoilt)
    with pytest.raises(RunError, match=r"no number any more \(nan\) \[epoch 1, step \d+\]. Lower .*last.ckpt"):
        train(recipe)
    kept = torch.load(recipe.saved("last"), weights_only=False)
    assert kept["epoch"] == 0
    assert all(bool(torch.isfinite(weight.float()).all()) for weight in kept["state_dict"].values())
    monkeypatch.undo()
    assert len(figures(train(recipe, resume=True).checkpoint.parent)) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's and Lightning's, on processes and their ports
def test_several_devices_share_an_epoch(images, tmp_path):
    """Two processes with half the batch each take the steps of one."""
    done = train(small_recipe(images, out=tmp_path / "two", devices=2, batch=2, epochs=1))
    assert figures(done.checkpoint.parent)["epoch"].tolist() == [0]
    steps = torch.load(done.checkpoint.parent / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert steps == 16 / 2 / 2


# -- what it learns


def test_four_patches_are_learned_by_heart(images, tmp_path):
    recipe = small_recipe(images, out=tmp_path / "four", optimizer={"lr": 0.01, "schedule": "constant"}, augment={})
    material, sides = prepare(recipe)
    rows = sides["train"].sort_values("lake_px").iloc[-4:]
    patches = LakePatches(rows, material.annotations, bands=recipe.network.bands)
    learner = LakeLearner(recipe)
    trainer = Trainer(
        accelerator="cpu", max_epochs=80, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(learner, DataLoader(patches, batch_size=4))
    pixels, masks = (torch.stack(parts) for parts in zip(*(patches[k] for k in range(4)), strict=True))
    learner.eval()
    with torch.no_grad():
        found = learner.logits(pixels, masks)[0] > 0
    lake = masks == 1
    assert 2 * (found & lake).sum() / (found.sum() + lake.sum()) >= 0.98


def test_mistakes_of_a_model_are_hard_negatives_of_the_next(images, tmp_path):
    """A lake that was not drawn is a mistake of whoever finds it."""
    lakes = read(images / "lakes.gpkg")
    lakes[lakes["image"] != f"c_{DAY}"].to_file(tmp_path / "fewer.gpkg")
    model = train(small_recipe(images, out=tmp_path / "first", epochs=12, sampler={"length": 32})).checkpoint
    data = {"lakes": str(tmp_path / "fewer.gpkg"), "mine": {"model": str(model), "least_share": 0.02}}
    split = {"validation": ["b_*"]}
    _, plain = prepare(small_recipe(images, out=tmp_path / "plain", data={"lakes": data["lakes"]}, split=split))
    _, mined = prepare(small_recipe(images, out=tmp_path / "mined", data=data, split=split))
    of_c = [sides["train"][sides["train"]["image"] == f"c_{DAY}"] for sides in (plain, mined)]
    assert of_c[0]["kind"].value_counts().to_dict() == {"negative": 9}
    assert (of_c[1]["kind"] == "hard").sum() >= 3
    found = of_c[1][of_c[1]["kind"] == "hard"].set_index(["row", "col"])
    assert set(found["reason"]) == {"mined"}
    drawn = prepare(small_recipe(images, out=tmp_path / "drawn"))[1]["validation"].set_index(["row", "col"])["lake_px"]
    assert (drawn.loc[found.index] > 0).mean() > 0.7


def test_images_held_back_are_scored_beside_color_and_index(images, tmp_path):
    recipe = small_recipe(images, out=tmp_path / "held", epochs=1, split={"validation": ["b_*"], "test": ["c_*"]})
    train(recipe)
    table = pd.read_csv(recipe.out / "test.csv").set_index(["min_area_m2", "gap_m", "method"])
    asked = product((0, SMALL_M2), (0, MAPPED_GAP_M), ("model", "index", "color"))
    assert table.index.tolist() == list(asked)
    assert set(table["lakes"]) == {"all lakes"}  # none of them is said to have a lid
    assert set(table["picture"]) == {"uint8"}
    lakes = read(images / "lakes.gpkg")
    lakes = lakes.loc[lakes["image"] == f"c_{DAY}", ["geometry"]].dissolve().explode()
    scene = ls.open_cube(images / "c.zarr").isel(time=0)
    masks = {"index": ls.index_mask(scene), "color": ls.color_mask(scene)}
    for (method, mask), gap_m in product(masks.items(), (0, MAPPED_GAP_M)):
        whole = ls.fill_holes(close_gaps(ls.fill_holes(mask), gap_m))
        result = ls.score(ls.polygonize(whole, min_area_m2=SMALL_M2).compute(), lakes, rules="strict")
        assert table.loc[(SMALL_M2, gap_m, method), ["tp", "fp", "fn"]].tolist() == [result.tp, result.fp, result.fn]


# -- who is on which side


def windows_of(rows):
    return {
        (row.image, y, x)
        for row in rows.itertuples()
        for y in range(row.row, row.row + row.window)
        for x in range(row.col, row.col + row.window)
    }


@pytest.mark.parametrize(
    "split", [{"validation": ["b_*"], "test": ["c_*"]}, {"validation": [], "by": "block", "block_px": 48, "folds": 2}]
)
def test_no_pixel_of_the_validation_side_is_learned_from(images, tmp_path, split):
    recipe = small_recipe(images, out=tmp_path, split=split, data={"samples": {"window": 16, "stride": 8}})
    _, sides = prepare(recipe)
    pixels = {side: windows_of(rows) for side, rows in sides.items()}
    assert pixels["train"]
    assert pixels["validation"]
    assert not pixels["train"] & pixels["validation"]
    assert not (pixels["train"] | pixels["validation"]) & pixels["test"]
    assert bool(pixels["test"]) == ("test" in split)
    overlapping = sides["validation"].iloc[[0]].assign(row=lambda rows: rows["row"] + 1)
    with pytest.raises(InputError, match="windows of different folds share pixels"):
        require_apart({**sides, "train": pd.concat([sides["train"], overlapping])})


def test_a_place_is_on_one_side(images, tmp_path):
    synthetic = [{"name": name, "seeds": [5], "size": 32, "dates": [DAY], "kinds": ["rgb8"]} for name in ("x", "y")]
    recipe = small_recipe(images, out=tmp_path, data={"synthetic": synthetic}, split={"validation": ["x-*"]})
    with pytest.raises(InputError, match=r"two sides look at one place: x-5-rgb8_.* \[synthetic seed 5\]"):
        prepare(recipe)


# -- what it refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lakes: lakes.set_geometry(lakes.translate(1e7, 0)), r"the polygons miss the image: .* \[lakes of a_"),
        (lambda lakes: lakes.set_crs("EPSG:3413", allow_override=True), "the polygons miss the image"),
        (lambda lakes: lakes.assign(image="elsewhere"), "annotations of an image that is not there: elsewhere"),
        (lambda lakes: lakes.drop(columns="image"), "the polygons do not say which of 3 images they are of"),
        (lambda lakes: lakes[lakes["image"] != f"c_{DAY}"], "no window with a lake among the 9 of validation"),
        (lambda lakes: lakes[lakes["image"] == f"c_{DAY}"], "no window with a lake among the 18 of train"),
    ],
)
def test_annotations_that_cannot_be_used(images, tmp_path, change, message):
    change(read(images / "lakes.gpkg")).to_file(tmp_path / "lakes.gpkg")
    with pytest.raises(InputError, match=message):
        train(small_recipe(images, out=tmp_path / "run", data={"lakes": str(tmp_path / "lakes.gpkg")}))


def test_lakes_without_a_pixel(images, tmp_path):
    lakes = read(images / "lakes.gpkg")
    lakes.set_geometry(lakes.scale(1e-4, 1e-4)).to_file(tmp_path / "tiny.gpkg")
    with pytest.raises(InputError, match=r"no window holds a lake: 27 negative"):
        train(small_recipe(images, out=tmp_path / "run", data={"lakes": str(tmp_path / "tiny.gpkg")}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": {"validation": ["z_*"]}}, r"no image is named like 'z_\*' \[split.validation\]"),
        ({"split": {"validation": [], "folds": 9}}, "9 folds of 3 groups"),
        ({"split": {"validation": [], "folds": 3, "fold": 7}}, "fold 7 leaves one side empty"),
        ({"data": {"sources": ["$NO_SUCH_VARIABLE/*.tif"]}}, "a variable of the environment is not set"),
        ({"data": {"sources": ["/nowhere/*.zarr"]}}, r"no scene or cube matches \[/nowhere/\*.zarr\]"),
        ({"data": {"lakes": "/nowhere.gpkg"}}, "the polygons cannot be read"),
        ({"network": {"start": "/nowhere.safetensors"}}, "there is no such checkpoint"),
        ({"network": {"frozen": ["neck"]}}, "the network has no part 'neck'"),
        ({"network": {"bands": ["red", "nir", "blue"]}}, "no band .nir."),
        ({"data": {"mine": {"model": "/nowhere.safetensors"}}}, "there is no such checkpoint"),
        ({"sampler": {"shares": {"positive": 0.5, "hard": 0.5}}}, "no window is hard"),
    ],
)
def test_recipes_that_cannot_be_followed(images, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(small_recipe(images, out=tmp_path / "run", **changes))


def test_pixels_that_are_no_number_are_zeros(tmp_path):
    """So they reach the network as what is not seen."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        shapes = blobs(rng, 4, (64, 64), (8, 14))
        bands = rng.uniform(0.5, 0.9, (3, 64, 64)).astype(np.float32)
        bands[0][plain_mask(shapes, (64, 64))] = 0.1
        bands[1, 10:20, 10:20] = np.nan
        write_cube(tmp_path / f"{name}.zarr", {DAY: bands}, 64)
        to_frame(shapes, image=f"{name}_{DAY}").to_file(tmp_path / f"{name}.gpkg")
    frame = pd.concat([read(tmp_path / f"{name}.gpkg") for name in ("a", "b")])
    frame.to_file(tmp_path / "lakes.gpkg")
    done = train(small_recipe(tmp_path, epochs=1, split={"validation": ["b_*"]}, network={"values": "reflectance"}))
    assert np.isfinite(figures(done.checkpoint.parent).to_numpy()).all()


# -- recipes


def test_presets_are_the_seeds():
    given = {"out": "x", "data": {"sources": ["a"], "lakes": "b"}}
    deeplab = TrainRecipe.model_validate(fill_in({**given, "preset": "deeplab"}))
    assert (deeplab.optimizer.lr, deeplab.optimizer.decoder_lr, deeplab.optimizer.momentum) == (5e-4, 5e-3, 0.9)
    assert (deeplab.optimizer.weight_decay, deeplab.optimizer.schedule) == (5e-4, "poly")
    assert (deeplab.batch, deeplab.epochs, set(deeplab.sampler.shares)) == (8, 14, {"positive", "negative"})
    sam = TrainRecipe.model_validate(fill_in({**given, "preset": "sam", "epochs": 12}))
    assert (sam.optimizer.name, sam.optimizer.lr, sam.batch, sam.epochs) == ("adam", 5e-6, 8, 12)
    assert (sam.loss.weights, sam.loss.coarse) == ({"dice": 1}, True)
    assert sam.network.frozen == ("image_encoder", "prompt_encoder")
    assert set(sam.sampler.shares) == {"positive", "hard"}
    assert set(PRESETS) == {"deeplab", "sam"}


def test_differences_are_named():
    assert list_differences({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 1, "c": [2]}, "e": 2}) == ["a.c", "d", "e"]
    assert list_differences({"a": 1}, {"a": 1}) == []


def test_a_run_tells_its_recipe(trained, images):
    stored = (trained.checkpoint.parent / "recipe.yaml").read_text()
    again = TrainRecipe.model_validate(yaml.safe_load(stored))
    assert again == small_recipe(images, out=trained.checkpoint.parent)
