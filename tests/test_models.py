"""Models: batches of windows in, probabilities out; SAM asked by boxes; memory that runs out."""

import logging
import pickle
import socket
from dataclasses import replace

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from lakescale.models import LoadedModel, LoadedSam, ModelSpec, build_network, load_model, save_checkpoint
from lakescale.models.loaded import run_halving
from lakescale.models.sam import SamSize, sam_spec
from lakescale.schema import InputError, RunError

BANDS = {
    "bands": ("nir", "red", "green", "blue"),
    "scale": (128.0, 255.0, 100.0, 200.0),
    "mean": (0.4, 0.3, -0.2, 0.1),
    "std": (0.7, 1.0, 2.0, 0.5),
}
WHOLE = [[0.0, 0.0, 64.0, 64.0]]

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is not there: this runs on a GPU only")


def random_state(spec, std=None):
    """Weights that say something: by the library's own start all logits are near zero, or far from it."""
    torch.manual_seed(5)
    module = build_network(spec).module.eval()
    if std:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=std)
        return module.state_dict()
    for parameter in module.segmentation_head.parameters():
        torch.nn.init.normal_(parameter)
    with torch.no_grad():
        spread = module(torch.randn(4, len(spec.bands), 64, 64)).std()
        for parameter in module.segmentation_head.parameters():
            parameter.div_(spread)
    return module.state_dict()


def random_windows(n, n_bands, side, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (n, n_bands, side, side)).astype(np.float32)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Save random weights of a spec and load them."""

    def save_and_load(spec, std=None, **options):
        path = tmp_path_factory.mktemp("models") / "m.safetensors"
        save_checkpoint(path, random_state(spec, std), spec)
        return load_model(path, **options)

    return save_and_load


# -- networks of segmentation-models-pytorch


@pytest.mark.parametrize(
    ("architecture", "name", "options"),
    [
        ("deeplabv3plus", "DeepLabV3Plus", {"classes": 2, "encoder_output_stride": 8}),
        ("unet", "Unet", {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}),
        ("fpn", "FPN", {}),
    ],
)
def test_predict_is_the_network_on_normalised_bands(load, architecture, name, options):
    spec = ModelSpec(architecture, "resnet18", window=64, options=options, **BANDS)
    model = load(spec)
    plain = getattr(smp, name)(encoder_name="resnet18", encoder_weights=None, in_channels=4, **options).eval()
    plain.load_state_dict(model.network.module.state_dict())
    windows = random_windows(3, 4, 64)
    scale, mean, std = (np.array(BANDS[key])[:, None, None] for key in ("scale", "mean", "std"))
    with torch.no_grad():
        logits = plain(torch.from_numpy(((windows / scale - mean) / std).astype(np.float32))).numpy().astype(np.float64)
    wanted = 1 / (1 + np.exp(-logits[:, 0] if logits.shape[1] == 1 else logits[:, 0] - logits[:, 1]))
    assert wanted.std() > 0.05
    found = model.predict(windows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_array_equal(model(windows), found)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("unet", {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}), ("fpn", {"classes": 2})],  # fpn ends at a quarter
)
def test_a_head_of_detail_sees_single_pixels(load, architecture, options):
    spec = ModelSpec(architecture, "resnet18", window=64, options=options | {"detail_channels": 6}, **BANDS)
    model, plain = load(spec), build_network(replace(spec, options=options)).module
    module = model.network.module
    same = set(plain.state_dict()) - {name for name in plain.state_dict() if name.startswith("segmentation_head")}
    assert same == {name for name in module.state_dict() if name.startswith(("encoder.", "decoder."))}
    assert module.segmentation_head[-1].out_channels == options.get("classes", 1)
    windows = random_windows(2, 4, 64)
    found = model.predict(windows)
    assert found.shape == (2, 64, 64)
    with torch.no_grad():
        x = model.normalise(windows)
        coarse = module.decoder(module.encoder(x))
        coarse = interpolate(coarse, (64, 64), mode="bilinear") if coarse.shape[-1] < 64 else coarse
        wanted = module.segmentation_head(torch.cat([coarse, module.detail(x)], dim=1))
    wanted = wanted[:, 0].sigmoid() if wanted.shape[1] == 1 else wanted.softmax(1)[:, 1]
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    assert build_network(replace(spec, options=options | {"detail_channels": 0})).module.state_dict().keys() == set(
        plain.state_dict()
    )


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18", "mit_b0"])
def test_encoders_are_taken_by_name_and_nothing_is_downloaded(encoder, monkeypatch):
    def refuse(*args):
        raise AssertionError("something was downloaded")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    network = build_network(ModelSpec("unet", encoder, window=64))
    assert network.output_stride == 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "deeplabv4"}, "no architecture 'deeplabv4'.*take one of sam, unet"),
        ({"encoder": "mobilenet_v9"}, r"Wrong encoder name `mobilenet_v9`.*mobilenet_v2"),
        ({"encoder": "tu-nothing"}, "Unknown model"),
        ({"architecture": "linknet", "encoder": "mit_b0"}, "not supported for Linknet"),
        ({"options": {"dilation": 2}}, "unet has no options dilation"),
        *(
            ({"options": {"detail_channels": n}}, "detail_channels=.* is no number of channels")
            for n in (-1, True, "x")
        ),
        ({"options": {"encoder_depth": 9}}, "builds no unet with mobilenet_v2"),
        ({"options": {"classes": 3}}, "3 classes tells no probability"),
        ({"options": {"encoder_weights": "imagenet"}}, "options may not hold encoder_weights"),
        ({"architecture": "sam"}, "no size 'mobilenet_v2' of SAM"),
        ({"architecture": "sam", "encoder": "vit_b", "options": {"depth": 2}}, r"no size 'vit_b' of SAM.*depth"),
    ],
)
def test_networks_that_are_none_are_refused(changes, words):
    with pytest.raises(InputError, match=f"(?i){words}"):
        build_network(replace(ModelSpec("unet", "mobilenet_v2"), **changes))


@pytest.fixture(scope="module")
def unet(load):
    return load(ModelSpec("unet", "resnet18", window=64))


def test_batches_stay_as_they_are(unet):
    windows = random_windows(2, 3, 64)
    frozen, flipped = windows.copy(), windows[:, ::-1, :, ::-1]
    frozen.flags.writeable = False
    wanted = unet.predict(windows)
    np.testing.assert_array_equal(frozen, windows)
    np.testing.assert_array_equal(unet.predict(frozen), wanted)
    np.testing.assert_array_equal(unet.predict(flipped), unet.predict(flipped.copy()))
    assert unet.predict(windows[:0]).shape == (0, 64, 64)


def test_a_window_does_not_see_its_batch(unet):
    windows = random_windows(4, 3, 64)
    together = unet.predict(windows)
    for i in range(4):
        np.testing.assert_allclose(unet.predict(windows[i : i + 1])[0], together[i], atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 4, 64, 64), r"is \(n, 3, y, x\), and not \(1, 4, 64, 64\).*bands red, green, blue"),
        ((3, 64, 64), r"not \(3, 64, 64\)"),
        ((1, 3, 60, 64), r"60 x 64 pixels is no multiple of the model's output stride of 32.*window of 64"),
        ((1, 3, 64, 80), r"64 x 80 pixels is no multiple"),
    ],
)
def test_other_windows_are_refused(unet, shape, words):
    with pytest.raises(InputError, match=words):
        unet.predict(np.zeros(shape, np.float32))


def test_answers_that_are_no_numbers_are_refused(unet):
    windows = random_windows(1, 3, 64)
    windows[0, 0, 5, 5] = np.nan
    with pytest.raises(RunError, match=r"gives NaN.*0 where not seen"):
        unet.predict(windows)


def test_a_loaded_model_does_not_travel(unet):
    with pytest.raises(TypeError, match="send the path"):
        pickle.dumps(unet)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"device": "meta"}, "no device 'meta'"),
        ({"device": "cuda:99"}, "CUDA devices"),
        ({"precision": "int8"}, "'int8' is unknown"),
        ({"precision": "bf16"}, "'bf16' is for CUDA"),
    ],
)
def test_other_devices_and_precisions_are_refused(options, words, tmp_path):
    with pytest.raises(InputError, match=words):
        load_model(tmp_path / "not-read.safetensors", **options)


# -- memory that runs out


class Small:
    """A network in memory for a few windows: what it is asked is written down."""

    def __init__(self, network, room):
        self.network, self.room, self.asked = network, room, []

    def __getattr__(self, name):
        return getattr(self.network, name)

    def forward(self, x):
        self.asked.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.network.forward(x)


def test_out_of_memory_halves_the_batch_and_goes_on(unet, caplog):
    windows = random_windows(7, 3, 64)
    small = LoadedModel(Small(unet.network, 2), unet.info, torch.device("cpu"), "float32")
    small.batch_limit = None  # as on a GPU
    with caplog.at_level(logging.WARNING):
        found = small.predict(windows)
    np.testing.assert_allclose(found, unet.predict(windows), atol=1e-5)
    assert small.network.asked == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert [each.getMessage() for each in caplog.records] == [
        "unet-resnet18 on cpu: out of memory with 7 at once, going on with 3",
        "unet-resnet18 on cpu: out of memory with 3 at once, going on with 1",
    ]
    small.network.asked.clear()
    small.predict(windows[:3])
    assert small.network.asked == [1, 1, 1]


def test_on_a_cpu_windows_run_one_by_one_and_answers_do_not_move_with_the_batch(unet):
    windows = random_windows(5, 3, 64)
    watched = LoadedModel(Small(unet.network, 9), unet.info, torch.device("cpu"), "float32")
    together = watched.predict(windows)
    assert watched.network.asked == [1] * 5
    np.testing.assert_array_equal(together, np.concatenate([unet.predict(one[None]) for one in windows]))


def test_out_of_memory_gives_up_at_one(unet):
    none = LoadedModel(Small(unet.network, 0), unet.info, torch.device("cpu"), "float32")
    none.batch_limit = None  # as on a GPU
    with pytest.raises(RunError, match=r"one window alone does not fit.*smaller windows") as caught:
        none.predict(random_windows(2, 3, 64))
    assert none.network.asked == [2, 1]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@given(n=st.integers(0, 40), room=st.integers(1, 40), limit=st.none() | st.integers(1, 40))
def test_each_is_done_once_whatever_the_memory(n, room, limit):
    done = []

    def run(part):
        if part.stop - part.start > room:
            raise torch.OutOfMemoryError
        done.extend(range(part.start, part.stop))

    held = run_halving(run, n, limit, "here")
    assert done == list(range(n))
    assert held == limit or 1 <= held <= room


# -- SAM

TINY = SamSize(32, 3, 2, (1,), image_size=64, patch_size=8, attention_window=3, prompt_dim=32, decoder_mlp_dim=48)


@pytest.fixture(scope="module")
def sam(load):
    return load(sam_spec(TINY), std=0.3)


def ask_sam(model, window, boxes):
    """Segment Anything's own forward: masks ``(k, y, x)``, as the seed brings them to the window, and scores."""
    boxes = torch.tensor(boxes, dtype=torch.float32)
    asked = {"image": torch.from_numpy(window), "original_size": window.shape[-2:], "boxes": boxes}
    answer = model.network.module([asked], multimask_output=False)[0]
    masks = interpolate(answer["low_res_logits"].sigmoid(), window.shape[-2:], mode="bilinear", align_corners=False)
    return masks[:, 0].numpy(), answer["iou_predictions"][:, 0].numpy()


def test_sam_is_asked_by_one_box_round_the_window(sam):
    windows = random_windows(3, 3, 64)
    found = sam.predict(windows)
    for i in range(3):
        wanted, _ = ask_sam(sam, windows[i], WHOLE)
        np.testing.assert_allclose(found[i], wanted[0], atol=1e-6)
    assert found.std() > 1e-3


@pytest.mark.parametrize("side", [32, 96])
def test_other_windows_are_brought_to_sams_size(sam, side):
    windows = random_windows(1, 3, side)
    full = interpolate(torch.from_numpy(windows), (64, 64), mode="bilinear", antialias=True)[0].numpy()
    asked = {"image": torch.from_numpy(full), "original_size": (64, 64), "boxes": torch.tensor(WHOLE)}
    coarse = sam.network.module([asked], multimask_output=False)[0]["low_res_logits"].sigmoid()
    wanted = interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(sam.predict(windows), wanted[0], atol=1e-6)


def test_sam_takes_square_windows_of_three_bands(sam):
    with pytest.raises(InputError, match="square windows, and not 64 x 32"):
        sam.predict(np.zeros((1, 3, 64, 32), np.float32))
    with pytest.raises(InputError, match="SAM takes three bands"):
        build_network(replace(sam_spec(TINY), **BANDS))


def random_boxes(k, side=64, seed=0):
    first, last = np.sort(np.random.default_rng(seed).uniform(0, side, (2, k, 2)), axis=0)
    return np.concatenate([first, last], axis=1).astype(np.float32)


@pytest.fixture
def encoded(sam):
    """How many windows were encoded, each time."""
    counts = []
    hook = sam.network.module.image_encoder.register_forward_hook(lambda _, given, __: counts.append(len(given[0])))
    yield counts
    hook.remove()


def test_a_window_is_encoded_once_for_all_its_boxes(sam, encoded):
    window, boxes = random_windows(1, 3, 64)[0], random_boxes(37)
    masks = sam.predict_masks(window, boxes)
    assert encoded == [1]
    wanted, scores = ask_sam(sam, window, boxes)
    np.testing.assert_allclose(masks.probabilities, wanted, atol=1e-6)
    np.testing.assert_allclose(masks.scores, scores, rtol=1e-4)
    assert np.ptp(scores) > 1e-3
    whole = sam.predict_masks(window, np.array(WHOLE, np.float32))
    np.testing.assert_array_equal(whole.probabilities, sam.predict(window[None]))


def test_boxes_scale_with_the_window(sam):
    """A window of half the size is brought to SAM's, and its boxes with it."""
    window = np.full((3, 32, 32), 90, np.float32)
    large = np.full((3, 64, 64), 90, np.float32)
    boxes = random_boxes(5, side=32)
    small, twice = sam.predict_masks(window, boxes), sam.predict_masks(large, 2 * boxes)
    np.testing.assert_allclose(small.scores, twice.scores, rtol=1e-4)


def test_windows_get_the_highest_mask_that_scores_enough(sam, encoded):
    windows = random_windows(3, 3, 64)
    boxes = [random_boxes(20, seed=1), np.empty((0, 4), np.float32), random_boxes(1, seed=2)]
    every = [sam.predict_masks(window, of_window) for window, of_window in zip(windows, boxes, strict=True)]
    least = float(every[0].scores.max())
    assert isinstance(sam, LoadedSam)
    encoded.clear()
    found, scores = sam.predict_boxes(windows, boxes, least_score=least)
    assert encoded == [1, 1]
    for i, masks in enumerate(every):
        good = masks.probabilities[masks.scores >= least]
        np.testing.assert_allclose(found[i], good.max(axis=0) if len(good) else np.zeros((64, 64)), atol=1e-6)
        np.testing.assert_allclose(scores[i], masks.scores, rtol=1e-5)
    assert (every[0].scores >= least).sum() == 1
    assert not found[1].any()
    assert every[1].probabilities.shape == (0, 64, 64)


def test_boxes_are_halved_when_memory_runs_out(sam, monkeypatch):
    window, boxes = random_windows(1, 3, 64)[0], random_boxes(20)
    wanted = sam.predict_masks(window, boxes)
    decode, asked = sam.network.decode, []

    def decode_few(embedding, boxes, side):
        asked.append(len(boxes))
        if len(boxes) > 5:
            raise torch.OutOfMemoryError
        return decode(embedding, boxes, side)

    monkeypatch.setattr(sam.network, "decode", decode_few)
    found = sam.predict_masks(window, boxes)
    assert asked == [16, 8, 4, 4, 4, 4, 4]
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-6)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[5, 5, 5, 9]], r"box \[5.0, 5.0, 5.0, 9.0\] is none in a window of 64"),
        ([[0, 0, 9, 9], [-1, 0, 3, 3]], r"box \[-1.0"),
        ([[0, 0, 65, 3]], r"box \[0.0, 0.0, 65.0"),
        ([[0, 0, np.nan, 3]], "box .*nan"),
        ([[0, 0, 9]], r"boxes are \(k, 4\), and not \(1, 3\)"),
    ],
)
def test_boxes_that_are_none_are_refused(sam, boxes, words):
    with pytest.raises(InputError, match=words):
        sam.predict_masks(random_windows(1, 3, 64)[0], np.array(boxes, np.float32))


def test_lower_precision_is_close_and_not_the_same(unet, sam):
    """Autocast as on CUDA, here on the CPU, which `load_model` does not offer: it gains nothing there."""
    windows = random_windows(2, 3, 64)
    for model in (unet, sam):
        low = type(model)(model.network, model.info, torch.device("cpu"), "bf16")
        found, wanted = low.predict(windows), model.predict(windows)
        assert found.dtype == np.float32
        assert not np.array_equal(found, wanted)
        np.testing.assert_allclose(found, wanted, atol=0.1)


# -- on a GPU


@cuda
@pytest.mark.parametrize(("precision", "atol"), [(None, 2e-3), ("bf16", 0.05), ("fp16", 0.02)])
@pytest.mark.parametrize("architecture", ["unet", "sam"])
def test_the_gpu_answers_as_the_cpu(load, architecture, precision, atol):
    spec, std = {"unet": (ModelSpec("unet", "resnet18", window=64), None), "sam": (sam_spec(TINY), 0.3)}[architecture]
    windows = random_windows(3, 3, 64)
    wanted = load(spec, std).predict(windows)
    model = load(spec, std, device="auto", precision=precision)
    assert model.device.type == "cuda"
    np.testing.assert_allclose(model.predict(windows), wanted, atol=atol)
