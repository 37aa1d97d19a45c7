"""Cloud, shadow, blur, noise and JPEG: what each does, and that none makes or hides what is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from lakescale.schema import InputError
from training.augment import Augmentation
from training.blemishes import add_noise, blur, compress, cover, smooth_field

SEEDS = st.integers(0, 2**32)
ALL = Augmentation(veil=0.5, shade=0.5, blur=1.5, noise=0.05, jpeg=40)


def window(seed, bands=2, side=32):
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.uniform(0.2, 0.9, (bands, side, side)).astype(np.float32))
    pixels[:, 4:10, 5:20] = 0
    return pixels, torch.zeros((side, side), dtype=torch.uint8)


@given(SEEDS, SEEDS, st.sampled_from([1.0, 255.0]), st.sampled_from([1, 2, 3, 4]))
def test_what_is_seen_stays_seen(seed, draw, scale, bands):
    pixels, mask = window(seed, bands)
    changed, labels = ALL.apply(pixels * scale, mask, np.random.default_rng(draw))
    assert torch.equal((changed != 0).any(dim=0), (pixels != 0).any(dim=0))
    assert torch.equal(labels, mask)
    assert bool(torch.isfinite(changed).all())
    assert float(changed.min()) >= 0
    assert float(changed.max()) < 2 * scale


def test_half_of_the_windows_are_spared_by_each_and_a_third_are_jpeg():
    seed, (pixels, mask) = 4, window(4)
    for one, share in (({"veil": 0.5}, 0.5), ({"shade": 0.5}, 0.5), ({"blur": 2.0}, 0.5), ({"noise": 0.1}, 0.5)):
        drawn = [Augmentation(**one).apply(pixels, mask, np.random.default_rng([seed, k]))[0] for k in range(60)]
        changed = np.mean([float((each - pixels).abs().max()) > 1e-4 for each in drawn])
        assert changed == pytest.approx(share, abs=0.2)
    drawn = [Augmentation(jpeg=40).apply(pixels, mask, np.random.default_rng([seed, k]))[0] for k in range(60)]
    assert np.mean([float((each - pixels).abs().max()) > 1e-2 for each in drawn]) == pytest.approx(1 / 3, abs=0.2)


def test_a_veil_whitens_and_a_shade_darkens_smoothly():
    field = smooth_field(64, np.random.default_rng(1))
    assert (float(field.min()), float(field.max())) >= (0, 0)
    assert float(field.max()) <= 1
    assert float(field.diff(dim=0).abs().max()) < 0.12
    ice = torch.full((2, 64, 64), 0.5)
    zero = torch.zeros(64, 64)
    torch.testing.assert_close(cover(ice, 0.4 * field, zero), 0.5 + 0.5 * 0.4 * field.expand(2, -1, -1))
    torch.testing.assert_close(cover(ice, zero, 0.4 * field), 0.5 * (1 - 0.4 * field.expand(2, -1, -1)))


@given(SEEDS, st.floats(0.4, 2.0))
def test_a_blur_is_the_gaussian_of_what_is_seen(seed, sigma):
    pixels = window(seed)[0]
    seen = (pixels != 0).any(dim=0)
    found = blur(pixels, seen, sigma)
    radius = int(np.ceil(3 * sigma))
    planes = [one.numpy() for one in (*pixels, seen.float())]
    means = [ndimage.gaussian_filter(one, sigma, radius=radius, mode="nearest") for one in planes]
    for band, mean in zip(found, means[:-1], strict=True):
        np.testing.assert_allclose(band[seen], mean[seen.numpy()] / means[-1][seen.numpy()], atol=1e-4)
    assert bool((found[:, ~seen] == 0).all())
    flat = torch.where(seen, 0.7, 0.0).expand(2, -1, -1)
    torch.testing.assert_close(blur(flat, seen, sigma), flat)


def test_noise_has_the_spread_asked_for_half_of_it_common_to_all_bands():
    noise = add_noise(torch.zeros(2, 200, 200), 0.03, np.random.default_rng(2))
    assert float(noise.std()) == pytest.approx(0.03, rel=0.03)
    assert float(torch.corrcoef(noise.reshape(2, -1))[0, 1]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("bands", [2, 3])
def test_a_jpeg_is_near_what_it_was_made_of_the_nearer_the_better_it_is(bands):
    ramp = torch.linspace(0.1, 0.9, 64).expand(bands, 64, -1).clone()
    ramp[0, 20:40, 20:40] = 0.1
    wrong = [float((compress(ramp, quality) - ramp).abs().mean()) for quality in (30, 60, 95)]
    assert wrong == sorted(wrong, reverse=True)
    assert wrong[-1] < 0.01
    assert wrong[0] < 0.1


@pytest.mark.parametrize("quality", [0, 96])
def test_a_quality_that_no_jpeg_has_is_refused(quality):
    with pytest.raises(InputError, match=f"jpeg is a quality of 1 to 95, got {quality}"):
        Augmentation(jpeg=quality)
