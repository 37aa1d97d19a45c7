"""Models that are asked box by box, about the regions of evidence in each window, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import raster
from scipy import ndimage
from small_models import blocks_of_255, made_up
from test_model_evidence import options, plain_loop, scenes, starts, turned_in_all_ways

import lakescale as ls
from lakescale.evidence.model import lake_probability
from lakescale.evidence.model_source import ModelSource, checkpoint_source, drop_models
from lakescale.evidence.model_windows import LEAST_REGION_PX, find_boxes

pytestmark = pytest.mark.usefixtures("one_thread")


class Boxed:
    """A model that answers to boxes: what it says follows from the pixels in a box, and from where the box lies."""

    def __init__(self):
        self.asked = []

    def predict(self, windows):
        raise AssertionError("asked about whole windows")

    def predict_boxes(self, batch, boxes, *, least_score=0.0):
        assert batch.dtype == np.float32
        assert all(len(each) for each in boxes)
        self.asked.extend(boxes)
        answers = np.zeros((len(batch), *batch.shape[-2:]), np.float32)
        scores = []
        for window, of_window, answer in zip(batch, boxes, answers, strict=True):
            masks = [self._mask(window, box) for box in of_window]
            scores.append([float(mask.max()) for mask in masks])
            np.maximum.reduce(
                [answer, *(m for m, s in zip(masks, scores[-1], strict=True) if s >= least_score)], 0, out=answer
            )
        return answers, scores

    def _mask(self, window, box):
        x0, y0, x1, y1 = box.astype(int)
        mask = made_up(window[None])[0].astype(np.float32) / 4
        mask[y0:y1, x0:x1] += np.float32(0.5 + 0.25 * np.sin(window[0, y0:y1, x0:x1].sum() + 3 * x0 + y1))
        return mask


def boxes_by_scipy(masks):
    """Boxes of the 8-connected regions of at least 10 pixels: x0, y0, x1, y1; each as often as it is found."""
    found = []
    for mask in masks:
        labels, _ = ndimage.label(mask, np.ones((3, 3)))
        for k, (rows, cols) in enumerate(ndimage.find_objects(labels), 1):
            if np.count_nonzero(labels == k) >= 10:
                found.append((cols.start, rows.start, cols.stop, rows.stop))
    return np.array(found, np.float32).reshape(-1, 4)


def asking(model, n_bands, least_score):
    """Ask about windows whose last bands are the masks, one by one."""

    def answer(windows):
        out = np.zeros(windows[:, 0].shape, np.float32)
        for k, window in enumerate(windows):
            boxes = boxes_by_scipy(window[n_bands:] > 0)
            if len(boxes):
                out[k] = model.predict_boxes(window[None, :n_bands], [boxes], least_score=least_score)[0][0]
        return out

    return answer


@st.composite
def prompted(draw, largest=30):
    """A scene with one to five masks of blobs, False where it was not seen."""
    scene, bands, seen, gate = draw(scenes(largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = []
    for _ in range(draw(st.integers(1, 5))):
        smooth = ndimage.uniform_filter(rng.random(seen.shape), draw(st.sampled_from([1, 3, 5])))
        masks.append((smooth > np.quantile(smooth, draw(st.sampled_from([0.5, 0.8, 0.97])))) & seen)
    return scene, bands, seen, gate, masks


@settings(max_examples=60)
@given(prompted(), options(), st.integers(1, 5), st.sampled_from([0.0, 0.6]), st.booleans())
def test_any_chunks_equal_a_plain_loop_over_boxes_by_scipy(case, choice, batch, least_score, gated):
    scene, bands, seen, gate, masks = case
    chosen = {**choice, "batch": batch, "prompts": "evidence", "least_score": least_score}
    model = Boxed()
    evidence = [raster(mask, 5 + 3 * k) for k, mask in enumerate(masks)]
    found = lake_probability(scene, model, **chosen, evidence=evidence, gate=raster(gate, 7) if gated else None).values
    oracle = Boxed()
    asked = asking(oracle, len(bands), least_score)
    layers = np.concatenate([bands, masks]).astype(np.float32)
    expected, _ = plain_loop(layers, seen, asked, **choice, gate=gate if gated else None)
    np.testing.assert_array_equal(np.isnan(found), ~seen)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    assert len(model.asked) == len(oracle.asked)
    whole = scene.chunk({"y": -1, "x": -1})
    evidence = [raster(mask) for mask in masks]
    again = lake_probability(whole, Boxed(), **chosen, evidence=evidence, gate=raster(gate) if gated else None)
    np.testing.assert_array_equal(again.values.view(np.int32), found.view(np.int32))


@settings(max_examples=15)
@given(prompted(20), options(9))
def test_boxes_turn_with_their_windows(case, choice):
    scene, bands, seen, _, masks = case
    evidence = [raster(mask) for mask in masks]
    found = lake_probability(scene, Boxed(), **choice, augment=True, prompts="evidence", evidence=evidence).values
    asked = asking(Boxed(), len(bands), 0.0)
    layers = np.concatenate([bands, masks]).astype(np.float32)
    expected, _ = plain_loop(layers, seen, lambda windows: turned_in_all_ways(windows, asked), **choice)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_regions_of_fewer_than_ten_pixels_prompt_for_nothing():
    flags = np.zeros((12, 14), np.uint8)
    flags[0, :9] |= 4
    flags[3:5, 2:7] |= 4
    flags[9, 5], flags[10, 6:14] = 8, 8  # joined at a corner, and 9 pixels
    assert LEAST_REGION_PX == 10
    np.testing.assert_array_equal(find_boxes(flags, 2), [[2, 3, 7, 5]])
    flags[9, 4] |= 8
    np.testing.assert_array_equal(find_boxes(flags, 2), [[2, 3, 7, 5], [4, 9, 14, 11]])
    np.testing.assert_array_equal(find_boxes(flags, 1), [[2, 3, 7, 5]])
    flags[3:5, 2:7] |= 8  # the same box is asked for once
    np.testing.assert_array_equal(find_boxes(flags, 2), [[2, 3, 7, 5], [4, 9, 14, 11]])
    assert find_boxes(np.zeros((3, 4), np.uint8), 5).shape == (0, 4)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float32])
def test_five_masks_travel_under_bands_of_any_type(dtype):
    masks = np.zeros((5, 20, 30), bool)
    for k in range(5):
        masks[k, 3 * k : 3 * k + 3, 4:12] = True
    model = Boxed()
    scene = raster(np.full((2, 20, 30), 7, dtype), 11)
    evidence = [raster(mask) for mask in masks]
    lake_probability(scene, model, window=30, stride=30, prompts="evidence", evidence=evidence).compute()
    (boxes,) = model.asked
    np.testing.assert_array_equal(boxes, [[4, 3 * k, 12, 3 * k + 3] for k in range(5)])


@pytest.fixture(scope="module")
def sam_path(tmp_path_factory):
    torch = pytest.importorskip("torch")
    from lakescale.models import build_network, save_checkpoint
    from lakescale.models.sam import SamSize, sam_spec

    size = SamSize(32, 3, 2, (1,), 64, 8, attention_window=3, prompt_dim=32, decoder_mlp_dim=48)
    spec = sam_spec(size)
    torch.manual_seed(8)
    module = build_network(spec).module
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    module.mask_decoder.iou_prediction_head.layers[-1].bias.data += 0.5  # scores on both sides of a half
    path = tmp_path_factory.mktemp("models") / "sam.safetensors"
    save_checkpoint(path, module.state_dict(), spec)
    yield path
    drop_models()


def test_sam_encodes_each_window_with_regions_once(sam_path):
    from lakescale.models import load_model

    scene = blocks_of_255(48)
    mask = np.zeros((128, 128), bool)
    mask[5:20, 8:30], mask[40:50, 60:90] = True, True
    sam = load_model(sam_path)
    corners = [(r, c) for r in starts(128, 64, 32) for c in starts(128, 64, 32)]
    boxes = [boxes_by_scipy([mask[r : r + 64, c : c + 64]]) for r, c in corners]
    batch = np.stack([scene.values[:, r : r + 64, c : c + 64] for r, c in corners]).astype(np.float32)
    scores = np.sort(np.concatenate(sam.predict_boxes(batch, boxes)[1]))
    least = float(scores[3:5].mean())
    assert scores[4] - scores[3] > 1e-3
    choice = {"window": 64, "stride": 32, "prompts": "evidence", "evidence": raster(mask, 31), "least_score": least}
    found = lake_probability(scene, sam_path, **choice).values
    encoded = []
    hook = sam.network.module.image_encoder.register_forward_hook(lambda _, given, __: encoded.append(len(given[0])))
    lake_probability(scene, sam, **choice).compute()
    hook.remove()
    assert sum(encoded) == sum(len(of_window) > 0 for of_window in boxes) == 6
    layers = np.concatenate([scene.values, mask[None]]).astype(np.float32)
    expected, _ = plain_loop(layers, np.ones((128, 128), bool), asking(sam, 3, least), 64, 32)
    assert np.ptp(expected[:64, :64]) > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    whole = scene.chunk({"y": -1, "x": -1})
    np.testing.assert_allclose(lake_probability(whole, sam, **choice), found, rtol=0, atol=2e-5)


# -- options and bad input


@pytest.mark.parametrize("choice", [{"least_score": 0.7}, {"evidence": "half"}, {"augment": True}])
def test_every_option_of_prompts_changes_a_result(choice):
    rng = np.random.default_rng(6)
    scene = raster(rng.random((1, 40, 40), np.float32), 16)
    mask = ndimage.uniform_filter(rng.random((40, 40)), 3) > 0.55
    plain = {"window": 16, "stride": 8, "prompts": "evidence", "evidence": raster(mask)}
    if "evidence" in choice:
        choice = {"evidence": raster(mask & (np.arange(40) < 20))}
    before = lake_probability(scene, Boxed(), **plain)
    assert (before != lake_probability(scene, Boxed(), **{**plain, **choice})).any()


def test_building_computes_nothing(never_compute):
    evidence = raster(np.ones((128, 128), bool), 32)
    source = ModelSource("no.ckpt", made_up, boxes=True)
    lake_probability(blocks_of_255(), source, window=16, stride=8, prompts="evidence", evidence=[evidence, evidence])


MASK = raster(np.ones((128, 128), bool), 50)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"prompts": "points"}, "no prompts 'points'.*window or evidence"),
        ({"evidence": ()}, "one to 5 masks can prompt, not 0.*evidence=.color, index, sink."),
        ({"evidence": None}, "one to 5 masks can prompt, not 0"),
        ({"evidence": [MASK] * 6}, "one to 5 masks can prompt, not 6"),
        ({"model": made_up}, "the model takes no boxes.*made_up.*checkpoint of SAM"),
        ({"model": ModelSource("/m/unet.ckpt", made_up)}, "takes no boxes.*/m/unet.ckpt"),
        ({"prompts": "window"}, "asked about without evidence and least_score"),
        ({"prompts": "window", "evidence": (), "least_score": 0.5}, "asked about without evidence and least_score"),
        ({"least_score": 1.5}, "least_score must be a number from 0 to 1, got 1.5"),
        ({"least_score": float("nan")}, "least_score must be a number"),
        ({"least_score": True}, "least_score must be a number"),
        ({"evidence": raster(np.ones((128, 3), bool))}, r"the evidence has {'y': 128, 'x': 3} pixels, the scene"),
        ({"evidence": [MASK, MASK.astype(float)]}, "the evidence must be bool, got float64"),
    ],
)
def test_prompts_that_cannot_be_are_refused(choice, message, never_compute):
    given_ = {"model": Boxed(), "prompts": "evidence", "evidence": MASK, **choice}
    with pytest.raises(ls.InputError, match=message):
        lake_probability(blocks_of_255(), given_.pop("model"), **given_)


def test_a_checkpoint_tells_whether_it_takes_boxes(sam_path, tmp_path):
    from lakescale.models import ModelSpec, build_network, save_checkpoint

    spec = ModelSpec("unet", "resnet18")
    save_checkpoint(tmp_path / "unet.safetensors", build_network(spec).module.state_dict(), spec)
    assert checkpoint_source(sam_path).boxes
    with pytest.raises(ls.InputError, match=r"takes no boxes.*unet\.safetensors"):
        lake_probability(blocks_of_255(), tmp_path / "unet.safetensors", prompts="evidence", evidence=MASK)


def test_a_source_that_promises_boxes_in_vain_is_refused():
    source = ModelSource("any.ckpt", lambda path: made_up, boxes=True)
    built = lake_probability(blocks_of_255(), source, window=64, stride=64, prompts="evidence", evidence=MASK)
    with pytest.raises(ls.InputError, match=r"takes no boxes, other than its source says.*any\.ckpt"):
        built.compute()
