"""Probabilities of a model against a plain loop over the windows of the whole array."""

from __future__ import annotations

import pickle
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from dask.utils import key_split
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import axis_chunks, raster
from small_models import blocks_of_255, made_up

import lakescale as ls
from lakescale.evidence.model import count_windows, lake_probability
from lakescale.evidence.model_source import ModelSource

pytestmark = pytest.mark.usefixtures("one_thread")


def starts(size, window, stride):
    if size <= window:
        return [0]
    found = []
    while (len(found) * stride) + window < size:
        found.append(len(found) * stride)
    return [*found, size - window]


def plain_loop(bands, seen, model, window, stride, *, weights="hann", gate=None):
    """Probabilities by floats, window by window; and how many windows were not run, and why."""
    count, height, width = bands.shape
    size = max(height, window), max(width, window)
    padded = np.zeros((count, *size))
    padded[:, :height, :width] = np.where(seen, np.nan_to_num(bands), 0)
    inside = np.zeros(size, bool)
    inside[:height, :width] = seen
    open_gate = np.zeros(size, bool)
    open_gate[:height, :width] = True if gate is None else gate
    line = np.sin(np.pi * np.arange(window) / max(1, window - 1)) ** 2 if weights == "hann" else np.ones(window)
    weight = np.maximum(1, np.round(65535 * line[:, None] * line[None, :]))
    above, below, fates = np.zeros(size), np.zeros(size), Counter()
    for row in starts(height, window, stride):
        for col in starts(width, window, stride):
            place = slice(row, row + window), slice(col, col + window)
            fate = "unseen" if not inside[place].any() else "run" if open_gate[place].any() else "gated"
            fates[fate] += 1
            if fate == "run":
                above[place] += weight * model(padded[None, :, *place].astype(np.float32))[0].astype(np.float64)
                below[place] += weight
    mean = np.divide(above, below, out=np.zeros(size), where=below > 0)
    return np.where(inside, mean, np.nan)[:height, :width], fates


@st.composite
def scenes(draw, largest=30):
    """8-bit scenes with black corners and holes, or reflectance with NaN, in any chunks; and a gate."""
    chunks = tuple(draw(axis_chunks(draw(st.integers(1, largest)))) for _ in range(2))
    shape = tuple(sum(axis) for axis in chunks)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    bands = rng.integers(1, 255, (draw(st.integers(1, 3)), *shape)).astype(np.uint8)
    unseen = rng.random(shape) < draw(st.sampled_from([0, 0.3, 1]))
    unseen[: draw(st.integers(0, largest)), : draw(st.integers(0, largest))] = True
    gate = rng.random(shape) < draw(st.sampled_from([0, 0.002, 0.05]))
    if draw(st.booleans()):
        bands = np.where(unseen, 0, bands).astype(np.uint8)
        scene = raster(bands, chunks).assign_attrs(nodata_values=[0])
    else:
        bands = np.where(unseen, np.nan, bands / 255).astype(np.float32)
        scene = raster(bands, chunks)
    return scene, bands, ~unseen, gate


@st.composite
def options(draw, largest=14):
    window = draw(st.integers(1, largest))
    stride = draw(st.integers(1, window))
    return {"window": window, "stride": stride, "weights": draw(st.sampled_from(["hann", "flat"]))}


@settings(max_examples=80)
@given(scenes(), options(), st.integers(1, 5), st.booleans())
def test_any_chunks_equal_a_plain_loop_over_the_windows(case, choice, batch, gated):
    scene, bands, seen, gate = case
    found = lake_probability(scene, made_up, **choice, batch=batch, gate=raster(gate, 7) if gated else None)
    assert found.chunks == scene.chunks[-2:]
    assert (found.dtype, found.name, found.dims) == (np.float32, "probability", ("y", "x"))
    expected, _ = plain_loop(bands, seen, made_up, **choice, gate=gate if gated else None)
    values = found.values
    np.testing.assert_array_equal(np.isnan(values), ~seen)
    np.testing.assert_allclose(values, expected, rtol=0, atol=2e-5)  # of the fixed point and of the weights
    whole = scene.chunk({"y": -1, "x": -1})
    again = lake_probability(whole, made_up, **choice, batch=3, gate=raster(gate) if gated else None)
    np.testing.assert_array_equal(again.values.view(np.int32), values.view(np.int32))


@given(scenes(), options())
def test_windows_that_are_not_run_are_counted_lazily(case, choice):
    scene, bands, seen, gate = case
    window, stride = choice["window"], choice["stride"]
    _, fates = plain_loop(bands, seen, made_up, window, stride, gate=gate)
    found = count_windows(scene, window=window, stride=stride, gate=raster(gate, 9))
    assert found["gated"].chunks is not None
    counts = {name: int(count) for name, count in found.compute().items()}
    assert counts == {"windows": sum(fates.values()), "unseen": fates["unseen"], "gated": fates["gated"]}
    without = count_windows(scene, window=window, stride=stride).compute()
    assert (int(without["unseen"]), int(without["gated"])) == (fates["unseen"], 0)


def test_each_window_is_run_once_and_in_batches():
    sizes, seen_corners = [], []

    def model(windows):
        sizes.append(len(windows))
        seen_corners.extend(int(corner) for corner in windows[:, 0, 0, 0])
        return np.zeros(windows[:, 0].shape)

    numbers = np.arange(1, 1 + 70 * 90, dtype=np.float32).reshape(1, 70, 90)
    for chunks in (-1, (13, 90), (64, 17)):
        sizes.clear()
        seen_corners.clear()
        lake_probability(raster(numbers, chunks), model, window=32, stride=16, batch=3).compute()
        expected = [int(numbers[0, r, c]) for r in starts(70, 32, 16) for c in starts(90, 32, 16)]
        assert sorted(seen_corners) == expected
        assert max(sizes) <= 3
    lake_probability(raster(numbers), model, window=32, stride=16, batch=4).compute()
    assert sizes[-5:] == [4, 4, 4, 4, 4]


def test_nothing_is_run_where_nothing_was_seen():
    def model(windows):
        raise AssertionError("a window without a seen pixel was run")

    scene = raster(np.full((3, 40, 50), np.nan, np.float32), 16)
    assert np.isnan(lake_probability(scene, model, window=8, stride=4).values).all()


def test_where_the_gate_lets_nothing_through_seen_pixels_are_no_lake():
    pixels = np.ones((1, 20, 30), np.float32)
    pixels[:, :, :4] = np.nan
    gate = np.zeros((20, 30), bool)
    gate[10, 25] = True
    found = lake_probability(raster(pixels, 9), lambda w: w[:, 0], window=8, stride=8, gate=raster(gate, 6)).values
    expected = np.zeros((20, 30))
    expected[8:16, 22:30], expected[:, :4] = 1, np.nan  # one window holds the gate's pixel
    np.testing.assert_array_equal(found, expected)


def turned_in_all_ways(windows, model):
    """Mirror along x, along y, and swap the axes: the 8 symmetries of a square, put together in another way."""
    answers = []
    for axes in ((), (-1,), (-2,), (-2, -1)):
        mirrored = np.flip(windows, axes)
        answers.append(np.flip(model(mirrored), axes))
        answers.append(np.flip(np.swapaxes(model(np.swapaxes(mirrored, -1, -2).copy()), -1, -2), axes))
    return np.mean(answers, axis=0)


@settings(max_examples=25)
@given(scenes(20), options(9))
def test_augmented_answers_are_the_mean_of_all_eight_ways(case, choice):
    scene, bands, seen, _ = case
    found = lake_probability(scene, made_up, **choice, augment=True).values
    expected, _ = plain_loop(bands, seen, lambda windows: turned_in_all_ways(windows, made_up), **choice)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_a_model_that_writes_into_its_windows_harms_nobody():
    def rude(windows):
        answer = made_up(windows)
        windows[:] = -1
        return answer

    scene = raster(np.random.default_rng(1).random((2, 30, 30), np.float32), 11)
    for augment in (False, True):
        kind, rough = (lake_probability(scene, m, window=8, stride=3, augment=augment) for m in (made_up, rude))
        np.testing.assert_array_equal(kind, rough)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_the_model_gets_the_scenes_values_as_float32(dtype):
    got = []

    def model(windows):
        got.append(windows.copy())
        return np.zeros(windows[:, 0].shape)

    values = np.random.default_rng(2).integers(0, 120, (2, 5, 6)).astype(dtype)
    if np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize > 1:
        values = values * dtype(250)
    lake_probability(raster(values, 3), model, window=6, stride=6).compute()
    expected = np.zeros((1, 2, 6, 6), np.float32)
    expected[:, :, :5] = values
    assert [windows.dtype for windows in got] == [np.float32]
    np.testing.assert_array_equal(got[0], expected)


def test_what_was_not_seen_or_is_not_finite_is_zero_to_the_model():
    got = []

    def model(windows):
        got.append(windows[0].copy())
        return np.ones(windows[:, 0].shape)

    pixels = np.full((2, 1, 4), 7, np.float32)
    pixels[0, 0, 1], pixels[1, 0, 2] = np.nan, np.inf
    seen = xr.DataArray([[True, True, True, False]], dims=("y", "x"))
    found = lake_probability(raster(pixels).assign_coords(seen=seen), model, window=4, stride=4)
    np.testing.assert_array_equal(got or found.values, [[1, 1, 1, np.nan]])
    np.testing.assert_array_equal(got[0][:, 0], [[7, 0, 7, 0], [7, 7, 0, 0]])
    assert "seen" not in found.coords
    assert found.rio.crs == "EPSG:3857"


def test_hundreds_of_windows_over_a_pixel_do_not_overflow():
    scene = raster(np.ones((1, 40, 33), np.float32), 20)
    found = lake_probability(scene, lambda windows: windows[:, 0], window=16, stride=1, weights="flat")
    np.testing.assert_array_equal(found, np.ones((40, 33)))


def test_what_was_seen_may_be_chunked_in_another_way():
    pixels = np.random.default_rng(7).random((2, 30, 40), np.float32)
    seen = np.random.default_rng(8).random((30, 40)) < 0.4
    scene = raster(pixels, 11).assign_coords(seen=raster(seen, (7, 23)).drop_vars(["y", "x", "spatial_ref"]))
    found = lake_probability(scene, made_up, window=8, stride=5)
    assert found.chunks == scene.chunks[1:]
    expected, _ = plain_loop(pixels, seen, made_up, 8, 5)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_scenes_in_memory_and_dims_in_another_order_give_the_same():
    scene = raster(np.random.default_rng(3).random((3, 20, 24), np.float32), 7)
    expected = lake_probability(scene, made_up, window=8, stride=4).values
    other = scene.transpose("x", "band", "y")
    split = scene.chunk({"band": 1})
    for same in (scene.compute(), other, split):
        np.testing.assert_array_equal(lake_probability(same, made_up, window=8, stride=4), expected)


# -- options and models


@pytest.mark.parametrize(
    "choice", [{"window": 12}, {"stride": 3}, {"weights": "flat"}, {"augment": True}, {"gate": "corner"}]
)
def test_every_option_changes_a_result(choice):
    scene = raster(np.random.default_rng(4).random((1, 40, 40), np.float32), 16)
    if "gate" in choice:
        choice = {"gate": raster(np.add.outer(np.arange(40), np.arange(40)) < 3, 20)}
    plain = {"window": 16, "stride": 8}
    assert (lake_probability(scene, made_up, **plain) != lake_probability(scene, made_up, **{**plain, **choice})).any()


def test_a_model_gets_the_bands_of_its_spec_in_its_order():
    got = []

    def predict(windows):
        got.append(windows.copy())
        return np.zeros(windows[:, 0].shape)

    model = SimpleNamespace(spec=SimpleNamespace(bands=("nir", "red")), predict=predict)
    pixels = np.arange(3 * 4, dtype=np.float32).reshape(3, 2, 2)
    scene = raster(pixels, bands=["red", "green", "nir"])
    lake_probability(scene, model, window=2, stride=1).compute()
    np.testing.assert_array_equal(got[0][0], pixels[[2, 0]])
    with pytest.raises(ls.InputError, match="the model wants nir, red; the scene has no nir, only red, green"):
        lake_probability(scene.isel(band=[0, 1]), model)
    nameless = xr.DataArray(np.zeros((2, 4, 4), np.float32), dims=("band", "y", "x"))
    with pytest.raises(ls.InputError, match="no nir and no red, only unnamed bands"):
        lake_probability(nameless, model)


def test_building_computes_nothing_and_loads_nothing(never_compute, tmp_path):
    def refuse(path):
        raise AssertionError("loaded while building")

    scene = raster(np.zeros((3, 90, 90), np.uint8), 32)
    gate = raster(np.zeros((90, 90), bool), 32)
    lake_probability(scene, ModelSource("no.ckpt", refuse), window=16, stride=8, gate=gate)
    count_windows(scene, window=16, stride=8, gate=gate)


def test_tasks_are_named_after_the_model():
    scene = raster(np.zeros((3, 90, 90), np.uint8), 32)
    source = ModelSource("/models/DeepLab_r34-2.safetensors", made_up)
    for model, prefix in ((source, "model-deeplab"), (made_up, "model")):
        built = lake_probability(scene, model, window=16, stride=8)
        names = {key_split(key) for key in built.data.dask.to_dict()}
        steps = {f"{prefix}-{step}" for step in ("frame", "read", "run", "strip", "done", "turn", "probability")}
        read = {key_split(key) for key in ls.seen_mask(scene).data.dask.to_dict()}
        assert names == {"model-flags", prefix, *steps, *read}


# -- bad input


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"window": 0}, "window must be a whole number of at least 1, got 0"),
        ({"stride": -3}, "stride must be a whole number"),
        ({"stride": 2.0}, "stride must be a whole number of at least 1, got 2.0"),
        ({"batch": 0}, "batch must be a whole number"),
        ({"batch": True}, "batch must be a whole number"),
        ({"window": 8, "stride": 9}, "a stride of 9 px leaves pixels between windows of 8 px"),
        ({"weights": "gauss"}, "no weights 'gauss'.*hann or flat"),
        ({"gate": raster(np.ones((3, 3), bool))}, r"the gate has {'y': 3, 'x': 3} pixels, the scene \(128, 128\)"),
        ({"gate": raster(np.ones((128, 128)))}, "the gate must be bool, got float64"),
        ({"model": 3}, "a checkpoint's path or a callable, not int"),
        ({"scene": raster(np.ones((5, 5)))}, r"a scene needs the dims"),
        ({"scene": blocks_of_255().expand_dims("time")}, "take one date|Take one date"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(choice, message, never_compute):
    given_ = {"scene": blocks_of_255(), "model": made_up, **choice}
    with pytest.raises(ls.InputError, match=message):
        lake_probability(given_.pop("scene"), given_.pop("model"), **given_)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda w: w, r"the model answered \(2, 3, 16, 16\) to windows \(2, 3, 16, 16\).*here \(2, 16, 16\)"),
        (lambda w: w[:, 0, :-1] * 0, r"the model answered \(2, 15, 16\)"),
        (lambda w: w[:1, 0] * 0, r"the model answered \(1, 16, 16\)"),
        (lambda w: w[:, 0] * np.nan, "from nan to nan, which are no probabilities"),
        (lambda w: np.where(w[:, 0] > 250, np.nan, 0.5), "no probabilities"),
        (lambda w: w[:, 0] * 0 - 0.1, "from -0.1 to -0.1"),
        (lambda w: w[:, 0] * 0 + 1.01, "from 1.01 to 1.01"),
        (lambda w: w[:, 0] * np.inf, "no probabilities"),
    ],
)
def test_answers_that_are_no_probabilities_are_refused(answer, message):
    built = lake_probability(blocks_of_255(64), answer, window=16, stride=16, batch=2)
    with pytest.raises(ls.InputError, match=message) as refusal, np.errstate(invalid="ignore"):
        built.compute()
    assert str(pickle.loads(pickle.dumps(refusal.value))) == str(refusal.value)


def test_answers_a_rounding_error_beyond_the_ends_are_taken():
    scene = raster(np.ones((1, 20, 20), np.float32), 8)
    for answer, expected in ((1.0000002, 1), (-1e-6, 0)):
        found = lake_probability(scene, lambda w, a=answer: np.full(w[:, 0].shape, a), window=8, stride=4)
        np.testing.assert_array_equal(found, np.full((20, 20), expected))


def test_other_errors_of_a_model_are_its_own():
    def model(windows):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        lake_probability(blocks_of_255(), model, window=16, stride=16).compute()
