"""Patches against plain windows of the image, and what a model is shown."""

from __future__ import annotations

import multiprocessing
import pickle
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_scenes import blobs, plain_mask, plain_windows, to_frame, write_cube

import lakescale as ls
from training.annotations import Annotations
from training.dataset import BalancedSampler, LakePatches
from training.samples import SampleRules, find_samples

pytestmark = pytest.mark.usefixtures("one_thread")

DAYS = "2019-06-19", "2019-07-23"
SHAPE, WINDOW, STRIDE = (70, 60), 32, 20
RGB = ["red", "green", "blue"]


@pytest.fixture(params=["uint8", "float32"])
def case(request, tmp_path):
    """A cube of two dates with gaps in single bands, its annotations by image, and its samples."""
    rng, dates, drawn = np.random.default_rng(11), {}, {}
    for day in DAYS:
        bands = rng.integers(1, 256, (3, *SHAPE)).astype(np.uint8)
        gap = rng.random(SHAPE) < 0.2
        if request.param == "uint8":
            bands[:, gap] = 0
        else:
            bands = (bands / np.float32(255)).astype(np.float32)
            bands[1, gap] = np.nan
        dates[day] = bands
        drawn[f"cube_{day}"] = blobs(rng, 4, SHAPE, (4, 12)), blobs(rng, 2, SHAPE, (4, 12))
    annotations = Annotations(*({name: to_frame(pair[k]) for name, pair in drawn.items()} for k in range(2)))
    cube = write_cube(tmp_path / "cube.zarr", dates, 25)
    rules = SampleRules(window=WINDOW, stride=STRIDE, thin=None, least_vertices=0)
    index = find_samples([cube], annotations, tmp_path / "s", rules=rules)
    assert (index["kind"] != "left out").all()
    return dates, drawn, annotations, index


def plain_patch(bands, lakes, ignore, place):
    seen = (bands > 0).any(axis=0) if bands.dtype == np.uint8 else ~np.isnan(bands).any(axis=0)
    mask = plain_mask(lakes, SHAPE).astype(np.uint8)
    mask[plain_mask(ignore, SHAPE) | ~seen] = 255
    return np.where(seen, bands, 0)[:, *place].astype(np.float32), mask[place]


def test_patches_are_windows_of_the_image(case):
    dates, drawn, annotations, index = case
    patches = LakePatches(index, annotations, bands=["blue", "red"])
    expected = [(day, place) for day in DAYS for _, _, place in plain_windows(SHAPE, WINDOW, STRIDE)]
    assert len(patches) == len(index) == len(expected)
    for (pixels, mask), (day, place), row in zip(patches, expected, index.itertuples(), strict=True):
        assert (pixels.dtype, mask.dtype) == (torch.float32, torch.uint8)
        assert (pixels.shape, mask.shape) == ((2, WINDOW, WINDOW), (WINDOW, WINDOW))
        right_pixels, right_mask = plain_patch(dates[day], *drawn[f"cube_{day}"], place)
        np.testing.assert_array_equal(pixels.numpy(), right_pixels[[2, 0]])
        np.testing.assert_array_equal(mask.numpy(), right_mask)
        assert (mask == 1).sum() == row.lake_px
        assert (mask == 255).sum() == row.inside_px - row.seen_px + row.ignored_px


def test_patches_are_what_a_model_is_shown(case):
    """`lake_probability` hands the same windows to a model, those of a scene smaller than a window among them."""
    _, _, annotations, index = case
    cube = ls.open_cube(index["path"].iloc[0])
    shown = []

    def model(windows):
        shown.extend(windows.copy())
        return windows[:, 0] * 0

    ls.lake_probability(cube.isel(time=1), model, window=WINDOW, stride=STRIDE).compute(scheduler="synchronous")
    patches = LakePatches(index[index["date"] == DAYS[1]], annotations, bands=RGB)
    assert {pixels.numpy().tobytes() for pixels, _ in patches} == {window.tobytes() for window in shown}


def test_small_images_are_padded(tmp_path):
    rng = np.random.default_rng(2)
    bands, lakes = rng.integers(1, 256, (3, 20, 26)).astype(np.uint8), blobs(rng, 2, (20, 26), (5, 9))
    cube, annotations = write_cube(tmp_path / "cube.zarr", {DAYS[0]: bands}, 64), Annotations(to_frame(lakes))
    rules = SampleRules(window=32, stride=32)
    ((pixels, mask),) = LakePatches(
        find_samples([cube], annotations, tmp_path / "s", rules=rules), annotations, bands=RGB
    )
    expected = np.zeros((3, 32, 32), np.float32)
    expected[:, :20, :26] = bands
    np.testing.assert_array_equal(pixels.numpy(), expected)
    right = np.full((32, 32), 255)
    right[:20, :26] = plain_mask(lakes, (20, 26))
    np.testing.assert_array_equal(mask.numpy(), right)


@pytest.mark.parametrize("case", ["uint8"], indirect=True)
def test_patches_travel_to_workers(case):
    _, _, annotations, index = case
    patches = LakePatches(index, annotations, bands=RGB)
    first = patches[0]
    again = pickle.loads(pickle.dumps(patches))
    assert torch.equal(again[0][0], first[0])
    loader = torch.utils.data.DataLoader(
        patches, batch_size=4, num_workers=1, multiprocessing_context=multiprocessing.get_context("spawn")
    )
    pixels, masks = (torch.cat(part) for part in zip(*loader, strict=True))
    assert torch.equal(pixels, torch.stack([one for one, _ in patches]))
    assert torch.equal(masks, torch.stack([one for _, one in patches]))


def test_scenes_in_files_give_the_bands_asked_for(small_scene, tmp_path):
    scene = ls.open_scene(small_scene)
    annotations = Annotations(to_frame([], crs="EPSG:32622"))
    index = pd.DataFrame(
        {"image": ["S2"], "path": [str(small_scene)], "date": [""], "row": [10], "col": [90], "window": [120],
         "kind": ["hard"]}
    )  # fmt: skip
    ((pixels, mask),) = LakePatches(index, annotations, bands=["blue", "red"])
    values = scene.sel(band=["blue", "red"]).values[:, 10:130, 90:200]
    np.testing.assert_array_equal(pixels.numpy()[:, :, :110], values)
    assert not pixels.numpy()[:, :, 110:].any()
    seen = (scene.values > 0).any(axis=0)[10:130, 90:200]
    np.testing.assert_array_equal(mask.numpy()[:, :110] == 255, ~seen)


@pytest.mark.parametrize(
    ("change", "bands", "message"),
    [
        (lambda index: index.iloc[:0], RGB, "no windows"),
        (lambda index: index.assign(kind="left out"), RGB, "windows that were left out"),
        (lambda index: index, [], "no list of bands"),
        (lambda index: index, "red", "no list of bands"),
        (lambda index: index, ["red", "nir"], "no band .*nir"),
        (lambda index: index.assign(row=70), RGB, r"no window at row 70, column 0: the image has 70 x 60 pixels"),
        (lambda index: index.assign(date="2020-01-01"), RGB, "the cube has no 2020-01-01, only 2019-06-19"),
    ],
)
def test_what_cannot_be_read_is_refused(case, change, bands, message):
    _, _, annotations, index = case
    with pytest.raises(ls.InputError, match=message):
        LakePatches(change(index), annotations, bands=bands)[0]


def test_a_file_without_the_band_is_refused(small_scene):
    index = pd.DataFrame(
        {
            "image": ["S2"],
            "path": [str(small_scene)],
            "date": [""],
            "row": [0],
            "col": [0],
            "window": [8],
            "kind": ["hard"],
        }
    )
    with pytest.raises(ls.InputError, match=r"the image has no nir and no swir1, only red, green, blue \[S2\]"):
        LakePatches(index, Annotations({}), bands=["red", "nir", "swir1"])[0]


# -- sampler


def kinds(**counts):
    return pd.DataFrame(
        {"kind": np.random.default_rng(0).permutation([k for k, n in counts.items() for _ in range(n)])}
    )


@given(
    st.integers(1, 30), st.integers(1, 300), st.integers(1, 100), st.sampled_from([0.1, 0.5, 0.8]),
    st.integers(0, 2**31),
)  # fmt: skip
def test_each_kind_is_drawn_by_its_share(positive, negative, hard, share, seed):
    index = kinds(positive=positive, negative=negative, hard=hard)
    sampler = BalancedSampler(index, {"positive": share, "hard": 1 - share}, length=4000, seed=seed)
    drawn = list(sampler)
    assert len(drawn) == len(sampler) == 4000
    found = Counter(index["kind"].iloc[drawn])
    assert set(found) <= {"positive", "hard"}
    assert found["positive"] / 4000 == pytest.approx(share, abs=6 * np.sqrt(share * (1 - share) / 4000))


def test_windows_of_a_kind_are_drawn_alike():
    index = kinds(positive=5, negative=50)
    counts = Counter(BalancedSampler(index, {"positive": 0.5, "negative": 0.5}, length=20_000))
    for kind, expected in (("positive", 2000), ("negative", 200)):
        of_kind = [counts[k] for k in np.flatnonzero(index["kind"] == kind)]
        assert min(of_kind) > 0.6 * expected
        assert max(of_kind) < 1.4 * expected


def test_draws_follow_seed_and_epoch():
    index, shares = kinds(positive=30, negative=70), {"positive": 0.5, "negative": 0.5}
    sampler = BalancedSampler(index, shares, seed=4)
    first = list(sampler)
    assert len(first) == 100
    assert list(sampler) == first == list(BalancedSampler(index, shares, seed=4))
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(BalancedSampler(index, shares, seed=5)) != first


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({}, "shares must be above 0 and 1 together"),
        ({"positive": 0.5}, "shares must be"),
        ({"positive": 1.5, "negative": -0.5}, "shares must be"),
        ({"positive": 0.5, "hard": 0.5}, r"no window is hard: 3 negative, 2 positive"),
    ],
)
def test_shares_that_cannot_be_drawn_are_refused(shares, message):
    with pytest.raises(ls.InputError, match=message):
        BalancedSampler(kinds(positive=2, negative=3), shares)
