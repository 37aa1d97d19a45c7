"""Windows changed at random: mask and pixels go together, and light stays light."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lakescale.schema import InputError
from training.augment import Augmentation

FULL = Augmentation(
    flips=True, turns=True, zoom=(0.7, 1.6), gain=(0.8, 1.25), tint=0.1, haze=0.1, black=0.1, gamma=(0.8, 1.3), clip=0.5
)
SHAPES = Augmentation(flips=True, turns=True)
COLORS = replace(FULL, flips=False, turns=False, zoom=(1.0, 1.0))
SEEDS = st.integers(0, 2**32)


def window(seed, side=24, scale=1.0, bands=3):
    """Pixels with a gap that is not seen, and a mask of which each pixel can be told by its color."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(0.2, 0.9, (bands, side, side)).astype(np.float32)
    mask = (rng.random((side, side)) < 0.4).astype(np.uint8)
    pixels[0] = np.where(mask, 0.1, 0.8)
    gap = np.zeros((side, side), bool)
    gap[3:9, 2:7] = True
    pixels[:, gap], mask[gap] = 0, 255
    return torch.from_numpy(pixels * np.float32(scale)), torch.from_numpy(mask)


def require_gaps(pixels, mask):
    """What is not seen has no label; a pixel on the edge of what has none may be seen."""
    unseen = (pixels == 0).all(dim=0)
    assert not (unseen & (mask != 255)).any()
    assert (~unseen & (mask == 255)).float().mean() < 0.05


@given(SEEDS, SEEDS)
def test_turned_and_mirrored_windows_are_one_of_the_eight(seed, draw):
    pixels, mask = window(seed)
    changed, labels = SHAPES.apply(pixels, mask, np.random.default_rng(draw))
    found = []
    for turns in range(4):
        for flipped in (False, True):
            ways = [np.rot90(one.numpy(), turns, (-2, -1)) for one in (pixels, mask)]
            ways = [one[..., ::-1] if flipped else one for one in ways]
            found.append(np.array_equal(ways[0], changed.numpy()) and np.array_equal(ways[1], labels.numpy()))
    assert sum(found) == 1


def test_all_eight_ways_are_drawn():
    pixels, mask = window(1)
    draws = [SHAPES.apply(pixels, mask, np.random.default_rng(k))[0].numpy().tobytes() for k in range(120)]
    assert len(set(draws)) == 8
    assert min(draws.count(one) for one in set(draws)) > 3


@given(SEEDS)
def test_the_mask_goes_where_its_pixels_go(draw):
    """Lakes are dark in the first band and large: where the color is pure, the mask tells it, whatever was done."""
    pixels, mask = torch.full((2, 48, 48), 0.8), torch.zeros((48, 48), dtype=torch.uint8)
    mask[10:30, 8:40] = 1
    mask[40:, :20] = 255
    pixels[0][mask == 1] = 0.2
    pixels[:, mask == 255] = 0
    changed, labels = replace(FULL, haze=0.0, black=0.0, clip=1.0).apply(pixels, mask, np.random.default_rng(draw))
    ratio = torch.where(changed[1] > 0, changed[0] / changed[1].clamp(min=1e-6), torch.nan)
    if (labels == 1).any() and (labels == 0).any():
        split = (ratio[labels != 255].min() + ratio[labels != 255].max()) / 2
        wrong = (ratio < split) != (labels == 1)
        assert (wrong & (labels != 255)).float().mean() < 0.05  # pixels on the edge, mixed by the zoom
    require_gaps(changed, labels)


@pytest.mark.parametrize("factor", [0.5, 0.75, 2.0])
def test_zoom_magnifies_by_its_factor(factor):
    pixels, mask = torch.full((1, 64, 64), 0.5), torch.zeros((64, 64), dtype=torch.uint8)
    mask[28:36, 28:36] = 1
    pixels[0][mask == 1] = 0.1
    augmentation = Augmentation(zoom=(factor, factor))
    areas = []
    for k in range(30):
        changed, labels = augmentation.apply(pixels, mask, np.random.default_rng(k))
        areas.append(int((labels == 1).sum()))
        assert (labels == 255).float().mean() == pytest.approx(max(0, 1 - factor**2), abs=0.05)
        require_gaps(changed, labels)
    assert max(areas) == pytest.approx(64 * factor**2, rel=0.15)


@given(SEEDS, SEEDS, st.sampled_from([1.0, 255.0]))
def test_light_stays_light(seed, draw, scale):
    pixels, mask = window(seed, scale=scale)
    changed, labels = COLORS.apply(pixels, mask, np.random.default_rng(draw))
    assert torch.equal(labels, mask)
    seen = (pixels != 0).any(dim=0)
    assert torch.equal((changed != 0).any(dim=0), seen)
    assert bool(torch.isfinite(changed).all())
    assert changed.min() >= 0
    assert changed.max() <= 2 * pixels.max()
    for before, after in zip(pixels, changed, strict=True):
        order = before[seen].argsort()
        assert bool((after[seen][order].diff() >= -1e-4 * scale).all())


@given(SEEDS, SEEDS)
def test_8_bit_and_reflectance_are_changed_alike(seed, draw):
    one, other = (
        COLORS.apply(*window(seed, scale=scale), np.random.default_rng(draw))[0] / scale for scale in (1.0, 255.0)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@given(SEEDS, SEEDS)
def test_gain_alone_keeps_ratios_of_bands(seed, draw):
    pixels, mask = window(seed)
    changed, _ = Augmentation(gain=(0.5, 2.0)).apply(pixels, mask, np.random.default_rng(draw))
    seen = mask != 255
    factors = (changed / pixels)[:, seen]
    assert 0.49 < factors.min() <= factors.max() < 2.01
    torch.testing.assert_close(factors, torch.full_like(factors, float(factors.mean())), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "one",
    [
        *({"tint": 0.1}, {"haze": 0.1}, {"black": 0.1}, {"gamma": (0.7, 0.8)}, {"clip": 0.3}, {"gain": (1.1, 1.2)}),
        *({"veil": 0.5}, {"shade": 0.5}, {"blur": 1.5}, {"noise": 0.05}, {"jpeg": 30}),
    ],
)
def test_every_option_changes_windows_and_none_does_not(one):
    pixels, mask = window(3)
    same, _ = Augmentation().apply(pixels, mask, np.random.default_rng(0))
    torch.testing.assert_close(same, pixels, rtol=1e-6, atol=1e-7)
    drawn = [Augmentation(**one).apply(pixels, mask, np.random.default_rng(k))[0] for k in range(6)]
    assert any(float((each - pixels).abs().max()) > 1e-3 for each in drawn)


def test_a_factor_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"zoom runs from low to high above 0, got \(0, 1\)"):
        Augmentation(zoom=(0, 1))
