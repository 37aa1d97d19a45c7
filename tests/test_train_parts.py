"""Draws, losses, thresholds, panels and made-up scenes, each by itself."""

from __future__ import annotations

import io
import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from PIL import Image as Picture
from torch.utils.data import Dataset
from train_recipes import small_recipe

from lakescale.chunks import Place
from lakescale.grid import Grid
from lakescale.models import ModelSpec, build_network
from lakescale.models.normalisation import Normalisation
from lakescale.models.spec import spec_from_dict
from lakescale.schema import InputError
from lakescale.synthetic import make_region
from lakescale.synthetic.region import CLASSES
from training.annotations import Annotations
from training.augment import Augmentation
from training.draws import AugmentedPatches, Draw, DrawSampler
from training.images import Image
from training.judging import Judged, choose_threshold, score_masks
from training.learner import LakeLearner, make_optimizer, rate_at
from training.losses import LakeLoss
from training.made_up import MadeUp, label_region
from training.material import place_of
from training.panels import draw_panels, pick_rows
from training.train_recipe import OptimizerRecipe, SyntheticRecipe

# -- draws


def kinds(**counts):
    return pd.DataFrame({"kind": [kind for kind, count in counts.items() for _ in range(count)]})


@given(st.integers(0, 2**31 - 1), st.integers(0, 50))
@settings(max_examples=20)
def test_batches_have_the_share_asked_for(seed, epoch):
    index, batch = kinds(positive=20, negative=300, hard=50), 8
    shares = {"positive": 0.5, "negative": 0.2, "hard": 0.3}
    draws = list(DrawSampler(index, shares, length=1600, seed=seed, epoch=lambda: epoch))
    of_batches = np.array([
        [Counter(index["kind"].iloc[[d.row for d in draws[k : k + batch]]])[kind] for kind in shares]
        for k in range(0, 1600, batch)
    ])  # fmt: skip
    assert (of_batches.sum(axis=1) == batch).all()
    for found, share in zip(of_batches.T / batch, shares.values(), strict=True):
        spread = np.sqrt(share * (1 - share))
        assert found.mean() == pytest.approx(share, abs=6 * spread / 40)
        assert found.std() == pytest.approx(spread / np.sqrt(batch), rel=0.35)  # no batch is of one kind by rule


def test_negatives_are_all_negatives_where_hard_ones_are_not_named():
    index = kinds(positive=5, negative=10, hard=30)
    drawn = [d.row for d in DrawSampler(index, {"positive": 0.5, "negative": 0.5}, length=4000)]
    found = Counter(index["kind"].iloc[drawn])
    assert found["positive"] == pytest.approx(2000, abs=200)
    assert found["hard"] == pytest.approx(1500, abs=200)


def test_an_epoch_without_shares_shows_every_window_once():
    index = kinds(positive=3, negative=10)
    epochs = [[draw.row for draw in DrawSampler(index, epoch=lambda e=e: e)] for e in range(3)]
    assert all(sorted(rows) == list(range(13)) for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    longer = [draw.row for draw in DrawSampler(index, length=30)]
    assert max(Counter(longer).values()) - min(Counter(longer).values()) <= 1


@given(st.integers(1, 5), st.sampled_from([None, {"positive": 0.5, "negative": 0.5}]))
@settings(max_examples=20)
def test_processes_share_an_epoch(world, shares):
    index = kinds(positive=5, negative=20)
    parts = [list(DrawSampler(index, shares, length=23, part=(rank, world))) for rank in range(world)]
    whole = list(DrawSampler(index, shares, length=23))
    assert {len(part) for part in parts} == {23 // world}
    assert sorted(draw for part in parts for draw in part) == whole[: 23 // world * world]


class _Plain(Dataset):
    def __getitem__(self, row):
        return torch.full((1, 8, 8), float(row + 1)), torch.arange(64, dtype=torch.uint8).reshape(8, 8)


def test_changes_follow_from_seed_epoch_and_position_whoever_reads():
    augmentation = Augmentation(flips=True, turns=True, gain=(0.5, 2.0))
    patches = AugmentedPatches(_Plain(), augmentation, seed=3)
    index = kinds(positive=10)
    travelled = pickle.loads(pickle.dumps(patches))  # as to the processes of a loader
    for draw in DrawSampler(index, seed=3, epoch=lambda: 4):
        for one, other in zip(patches[draw], travelled[draw], strict=True):
            assert torch.equal(one, other)
    first = patches[Draw(4, 0, 2)]
    others = [
        patches[Draw(5, 0, 2)],
        patches[Draw(4, 1, 2)],
        AugmentedPatches(_Plain(), augmentation, 4)[Draw(4, 0, 2)],
    ]
    assert all(not torch.equal(first[0], other[0]) for other in others)
    assert torch.equal(first[0], patches[Draw(4, 0, 2)][0])


class _Noise(Dataset):
    def __getitem__(self, row):
        light = np.random.default_rng(row).random((2, 256, 256), np.float32)
        return torch.from_numpy(light), torch.zeros((256, 256), dtype=torch.uint8)


def test_changes_are_the_same_in_a_training_of_many_threads_and_in_a_loaders_process_of_one():
    patches = AugmentedPatches(_Noise(), Augmentation(zoom=(0.5, 1.8), gamma=(0.65, 1.5), blur=0.8), seed=3)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append([patches[Draw(0, k, k)][0] for k in range(20)])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


# -- losses


def plain_losses(logits, mask, beta):
    """By their formulas, in float64 over the labelled pixels."""
    labelled = mask != 255
    z, y = logits[labelled].double(), (mask[labelled] == 1).double()
    p = 1 / (1 + torch.exp(-z))
    tp, fp, fn = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
    log_likelihood = y * torch.log(p) + (1 - y) * torch.log(1 - p)
    right = torch.where(y == 1, p, 1 - p)
    return {
        "dice": 1 - 2 * tp / (2 * tp + fp + fn),
        "cross_entropy": -log_likelihood.sum() / mask.numel(),
        "focal": -((1 - right) ** 2 * torch.log(right)).mean(),
        "tversky": 1 - tp / (tp + (1 - beta) * fp + beta * fn),
    }


@given(st.integers(0, 2**31 - 1), st.floats(0.1, 0.9))
@settings(max_examples=30)
def test_losses_are_their_formulas_and_what_is_not_labelled_is_nothing(seed, beta):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (3, 6, 7)).astype(np.float32))
    mask = torch.from_numpy(rng.choice([0, 1, 255], (3, 6, 7)).astype(np.uint8))
    mask[0, 0, :2] = torch.tensor([0, 1])
    expected = plain_losses(logits, mask, beta)
    for name, value in expected.items():
        found = LakeLoss({name: 1}, tversky_beta=beta)
        assert float(found(logits, mask)) == pytest.approx(float(value), rel=1e-4)
        other = torch.where(mask == 255, logits + 5, logits)
        assert float(found(other, mask)) == pytest.approx(float(found(logits, mask)), rel=1e-6)
    total = LakeLoss({"dice": 2, "cross_entropy": 0.5})(logits, mask)
    assert float(total) == pytest.approx(float(2 * expected["dice"] + 0.5 * expected["cross_entropy"]), rel=1e-4)


def test_a_batch_without_labels_teaches_nothing():
    logits = torch.randn(2, 4, 4, requires_grad=True)
    LakeLoss({"dice": 1, "focal": 1})(logits, torch.full((2, 4, 4), 255, dtype=torch.uint8)).backward()
    assert not logits.grad.any()


# -- rates


def test_rates_fall_as_asked():
    asked = {"name": "sgd", "lr": 1.0}
    poly = [rate_at(step, 10, OptimizerRecipe(**asked, schedule="poly")) for step in range(11)]
    np.testing.assert_allclose(poly, (1 - np.arange(11) / 10) ** 0.9)
    cosine = [
        rate_at(step, 12, OptimizerRecipe(**asked, schedule="cosine", warmup_steps=2)) for step in (0, 1, 2, 7, 12)
    ]
    np.testing.assert_allclose(cosine, [1 / 3, 2 / 3, 1, 0.5, 0], atol=1e-12)
    assert rate_at(9, 10, OptimizerRecipe(**asked)) == 1


def test_encoder_and_decoder_have_rates_of_their_own():
    module = build_network(ModelSpec("unet", "resnet18", window=64)).module
    optimizer = make_optimizer(module, OptimizerRecipe(name="sgd", lr=5e-4, decoder_lr=5e-3, weight_decay=5e-4))
    sizes = {group["lr"]: sum(weight.numel() for weight in group["params"]) for group in optimizer.param_groups}
    encoder = sum(weight.numel() for weight in module.encoder.parameters())
    assert sizes == {5e-4: encoder, 5e-3: sum(weight.numel() for weight in module.parameters()) - encoder}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {5e-4}


# -- SAM


SAM = {"embed_dim": 16, "depth": 2, "n_heads": 2, "global_blocks": [1], "image_size": 64, "patch_size": 16,
       "attention_window": 2, "prompt_dim": 16, "mask_channels": 4, "decoder_mlp_dim": 16}  # fmt: skip


def sam_recipe(folder, **loss):
    network = {"architecture": "sam", "encoder": "vit", "options": SAM, "frozen": ["image_encoder", "prompt_encoder"],
               "white_percentile": None, "scale": [255, 255, 255]}  # fmt: skip
    return small_recipe(folder, network=network, loss={"cross_entropy": None, **loss})


def test_sam_learns_in_its_decoder_alone(tmp_path):
    learner = LakeLearner(sam_recipe(tmp_path, coarse=True))
    optimizer = make_optimizer(learner.module, OptimizerRecipe(name="adam", lr=1e-2))
    before = {name: weight.clone() for name, weight in learner.module.state_dict().items()}
    windows, mask = torch.rand(2, 3, 32, 32) * 255, torch.zeros(2, 32, 32, dtype=torch.uint8)
    mask[:, 8:24, 8:24] = 1
    losses = []
    for _ in range(12):
        logits, target = learner.logits(windows, mask)
        assert logits.shape == target.shape == (2, 16, 16)  # four times finer than its patches
        assert int((target == 1).sum()) == 2 * 64
        loss = learner.loss(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05
    changed = {
        name.split(".")[0] for name, weight in learner.module.state_dict().items() if not weight.equal(before[name])
    }
    assert changed == {"mask_decoder"}


def test_sam_may_be_compared_on_the_windows_pixels(tmp_path):
    learner = LakeLearner(sam_recipe(tmp_path))
    mask = torch.zeros(1, 32, 32, dtype=torch.uint8)
    logits, target = learner.logits(torch.rand(1, 3, 32, 32), mask)
    assert logits.shape == (1, 32, 32)
    assert target is mask


def test_two_classes_are_one_by_their_difference(tmp_path):
    learner = LakeLearner(
        small_recipe(tmp_path, network={"options": {"classes": 2, "encoder_depth": 3, "decoder_channels": [8, 8, 8]}})
    )
    learner.eval()
    windows = torch.rand(2, 3, 32, 32) + 0.1
    with torch.no_grad():
        logits, _ = learner.logits(windows, torch.zeros(2, 32, 32, dtype=torch.uint8))
        answer = learner.network.forward(Normalisation(learner.spec, windows.device)(windows.clone()))
    torch.testing.assert_close(logits.sigmoid(), answer)


# -- normalisation


def test_windows_are_divided_by_their_white():
    spec = ModelSpec(
        "unet", "resnet18", bands=("red", "blue"), values="any", white_percentile=90,
        scale=(1, 1), mean=(0.5, 0.25), std=(2, 4),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    windows = rng.uniform(0, 3, (3, 2, 9, 11)).astype(np.float32)
    windows[0, :, :4] = 0
    windows[2] = 0
    found = Normalisation(spec, torch.device("cpu"))(torch.from_numpy(windows.copy())).numpy()
    for window, answer in zip(windows, found, strict=True):
        brightest = np.sort(window.max(axis=0)[(window != 0).any(axis=0)])
        white = brightest[round((len(brightest) - 1) * 0.9)] if len(brightest) else 1
        expected = (window / white - np.array([0.5, 0.25])[:, None, None]) / np.array([2, 4])[:, None, None]
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


def test_a_spec_tells_its_percentile_and_older_ones_have_none():
    spec = ModelSpec("unet", "resnet18")
    said = spec.to_dict()
    del said["white_percentile"]
    assert spec_from_dict(said, "x") == spec
    assert "white_percentile" not in spec.identity()
    assert ModelSpec("unet", "resnet18", white_percentile=95).identity()["white_percentile"] == 95
    with pytest.raises(InputError, match="white_percentile=101 is no percentile"):
        ModelSpec("unet", "resnet18", white_percentile=101)
    with pytest.raises(InputError, match="the checkpoint's white_percentile is 'high'"):
        spec_from_dict({**said, "white_percentile": "high"}, "x")


# -- thresholds


def judged(truth, name="a", outside=None):
    grid = Grid(GeoBox(truth.shape, Affine(10, 0, -200_000, 0, -10, -2_400_000), "EPSG:3413"))
    within = np.ones(truth.shape, bool) if outside is None else ~outside
    return Judged(name, grid, truth & within, within)


def test_the_threshold_is_that_of_the_most_lakes():
    truth = np.zeros((40, 40), bool)
    truth[5:15, 5:15] = truth[25:35, 25:35] = True
    probability = np.where(truth, 0.62, 0.1).astype(np.float32)
    probability[2:38, 2:18] = np.maximum(probability[2:38, 2:18], 0.35)  # below this, one lake is far too large
    probability[25:35, 25:28] = 0.45
    probability[0, 0] = np.nan
    threshold, table = choose_threshold([judged(truth)], {"a": probability}, [0.3, 0.4, 0.5, 0.65], 1000)
    assert table["threshold"].tolist() == [0.3, 0.4, 0.5, 0.65]
    assert table["f1"].tolist() == [0.5, 1, 1, 0]
    assert threshold == 0.4  # as many lakes as 0.5, and more of their pixels
    assert table["pixel_iou"].iloc[1] == 1
    assert table["pixel_iou"].iloc[2] == pytest.approx(170 / 200)


def test_lakes_are_counted_image_by_image_and_where_they_may_be_judged():
    truth = np.zeros((30, 30), bool)
    truth[4:12, 4:12] = True
    ring = truth.copy()
    ring[7:9, 7:9] = False  # a lid: holes are filled
    false = np.zeros((30, 30), bool)
    false[20:28, 20:28] = True
    images = [judged(truth, "a"), judged(truth, "b", outside=false), judged(~truth & False, "c")]
    found = score_masks(images, {"a": ring | false, "b": truth | false, "c": truth}, 1000)
    assert (found["tp"], found["fp"], found["fn"]) == (2, 2, 0)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["pixel_iou"] == pytest.approx((60 + 64) / (64 + 64 + 64 + 64))
    assert score_masks(images, {"a": ring | false, "b": truth, "c": truth}, 1e6)["fp"] == 0


# -- panels


def test_panels_show_image_truth_and_probability():
    rng = np.random.default_rng(0)
    pixels, masks = rng.random((2, 2, 16, 16)).astype(np.float32), np.full((2, 16, 16), 255, np.uint8)
    masks[:, :8] = 1
    data = draw_panels(pixels, masks, np.zeros((2, 8, 8), np.float32))
    other = draw_panels(pixels, masks, np.ones((2, 8, 8), np.float32))
    one, two = (np.asarray(Picture.open(io.BytesIO(png)).convert("RGB")).astype(int) for png in (data, other))
    assert one.shape == two.shape
    differs = np.abs(one - two).sum(axis=(0, 2)) > 0
    assert not differs[: differs.size * 6 // 10].any()
    assert differs[differs.size * 7 // 10 :].any()


def test_windows_to_draw_are_mostly_lakes():
    index = pd.DataFrame({"lake_px": [0, 5, 0, 9, 0, 3, 2, 8]}, index=range(10, 18))
    assert [index["lake_px"].iloc[row] > 0 for row in pick_rows(index, 4)] == [True, True, True, False]
    assert len(pick_rows(index.iloc[:2], 6)) == 2
    assert pick_rows(index, 0) == []


# -- places and made-up scenes


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("x/S2A_MSIL2A_20190713T150921_N0213_R025_T22WFB_20190713T191839.tif", "tile 22WFB"),
        ("22WEV_2019-07-23", "tile 22WEV"),
        ("cubes/june.zarr", "cubes/june.zarr"),
    ],
)
def test_places_are_tiles(path, place):
    assert place_of(Image("any", path)) == place


def test_made_up_lands_differ_by_seed_and_have_labels_for_what_is_seen(tmp_path):
    group = SyntheticRecipe(name="x", seeds=[1, 2], size=160, dates=["2019-07-28"], scenery={"lake_density": 1.6})
    lands = [MadeUp(group, seed, "rgb8") for seed in (1, 2)]
    assert lands[0].region.row != lands[1].region.row
    ((image, labels),) = lands[0].write(tmp_path, None)
    assert image.name == "x-1-rgb8_2019-07-28"
    again = lands[0].write(tmp_path, None)[0][1]
    assert labels.geom_equals(again).all()
    assert set(labels["kind"]) <= {"lake", "ignore"}


@pytest.mark.usefixtures("one_thread")
def test_lakes_that_nobody_can_see_are_ignored():
    region = make_region(700, seed=4, dates=["2019-08-20"])
    labels = label_region(region, "2019-08-20")
    truth, classes = region.truth("2019-08-20").values, region.classes("2019-08-20").values
    lakes = region.lakes("2019-08-20").set_index("lake_id")
    hidden = np.isin(classes, [CLASSES.index("cloud"), CLASSES.index("not seen")]) & (truth > 0)
    whole = lakes.index[(lakes["state"] == "lidded") | (lakes["clear_share"] < 0.5)]
    expected = int((hidden | np.isin(truth, whole)).sum())
    marks = Annotations({"x": labels[labels["kind"] == "lake"]}, {"x": labels[labels["kind"] == "ignore"]}).of(
        "x", region.grid
    )
    flags = marks.flags(Place(0, 0, 700, 700))
    assert int((flags == 2).sum()) == expected > 0
    assert int((flags == 1).sum()) == int((truth > 0).sum()) - expected > 0
