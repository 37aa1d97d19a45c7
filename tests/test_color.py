"""Color thresholds against the seed's sequence in scipy and OpenCV on the whole array; the index against numpy."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import axis_chunks, chunked, masks, raster, shapes
from scipy import ndimage

import lakescale as ls
from lakescale.evidence.color import SEED_RANGES
from lakescale.kernels.color import grow, open_rectangle

pytestmark = pytest.mark.usefixtures("one_thread")


def seed_color_mask(rgb, region=None, seen=None, openings=((5, 5), (1, 10), (10, 1))):
    """The sequence of DOMAIN.md in scipy and OpenCV, on one array; also the peer of the benchmark."""
    everywhere = np.ones(rgb.shape[-2:], bool)
    region = everywhere if region is None else region
    seen = everywhere if seen is None else seen
    planes = rgb.transpose(1, 2, 0)
    water = np.zeros(everywhere.shape, bool)
    for channels in SEED_RANGES:
        low, high = (tuple(int(c[k]) for c in channels) for k in (0, 1))
        water |= cv2.inRange(planes, low, high) > 0
    water &= region & seen
    grown = ndimage.gaussian_filter(water.astype(np.uint8) * 255, 5) > 0
    holes = ndimage.binary_fill_holes(grown) & ~grown & region
    water |= ndimage.gaussian_filter(holes.astype(np.uint8) * 255, 7) > 0
    water = ndimage.binary_fill_holes(water).astype(np.uint8)
    for height, width in openings:
        kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (width, height))
        water = cv2.morphologyEx(water, cv2.MORPH_OPEN, kernel)
    return ndimage.binary_fill_holes(water) & region & seen


@st.composite
def water_scenes(draw, largest=90):
    """Blue blobs, some with lids (holes), on bright ice, noise and black borders without data."""
    height, width = draw(shapes(largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    smooth = ndimage.gaussian_filter(rng.standard_normal((height, width)), draw(st.sampled_from([2, 5, 9])))
    rank = smooth.ravel().argsort().argsort().reshape(smooth.shape) / smooth.size
    depth = draw(st.sampled_from([0.1, 0.3, 0.6]))
    lake = (rank < depth) & ~((rank < depth / 6) & draw(st.booleans()))
    rgb = np.where(lake, rng.integers(20, 140, (3, height, width)), rng.integers(150, 256, (3, height, width)))
    rgb[2][lake] = 200
    if draw(st.booleans()):
        rgb[:, :, : width // 3] = 0
    if draw(st.booleans()):
        rgb[:, 0, 0] = (10, 10, 250)
    return rgb.astype(np.uint8)


@settings(max_examples=40)
@given(chunked(water_scenes()), st.booleans())
def test_color_mask_equals_the_seeds_sequence(case, with_region):
    rgb, chunks = case
    region = np.add.outer(np.arange(rgb.shape[1]), np.arange(rgb.shape[2])) % 97 > 12 if with_region else None
    scene = raster(rgb, chunks)
    scene.attrs["nodata_values"] = [0]
    mask = ls.color_mask(scene, region=None if region is None else raster(region, 11))
    np.testing.assert_array_equal(mask.values, seed_color_mask(rgb, region, seen=(rgb != 0).any(axis=0)))
    assert mask.chunks == chunks


@given(masks(60), st.sampled_from([0.6, 2.0, 5.0, 7.0]))
def test_growth_equals_scipys_gaussian_on_integers(mask, sigma):
    expected = ndimage.gaussian_filter(mask.astype(np.uint8) * 255, sigma) > 0
    np.testing.assert_array_equal(grow(mask, sigma), expected)


@given(masks(40), st.tuples(st.integers(1, 11), st.integers(1, 11)))
def test_openings_equal_opencv(mask, size):
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, size[::-1])
    expected = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
    np.testing.assert_array_equal(open_rectangle(mask, size, centred=False), expected)
    centred = open_rectangle(mask, size, centred=True)
    assert not (centred & ~mask).any()
    moved = [0 if n % 2 else 1 for n in size]
    inner = np.zeros(mask.shape, bool)  # away from the edges the two differ by the shift alone
    inner[12:-12, 12:-12] = True
    np.testing.assert_array_equal((np.roll(centred, moved, (0, 1)) == expected)[inner], True)


def test_the_seeds_openings_shift_by_one_right_and_down_and_the_centred_do_not():
    rgb = np.full((3, 120, 120), 255, np.uint8)
    rgb[:, 40:80, 40:80] = np.array([20, 100, 200], np.uint8)[:, None, None]
    square = np.zeros((120, 120), bool)
    square[40:80, 40:80] = True
    np.testing.assert_array_equal(ls.color_mask(raster(rgb, 50)).values, np.roll(square, (1, 1), (0, 1)))
    np.testing.assert_array_equal(ls.color_mask(raster(rgb, 50), centred=True).values, square)


def test_a_lid_is_part_of_its_lake_over_many_chunks():
    rgb = np.full((3, 400, 400), 230, np.uint8)
    rows, cols = np.ogrid[:400, :400]
    radius = np.hypot(rows - 200, cols - 200)
    rgb[:, (radius < 180) & (radius > 120)] = np.array([[20], [100], [200]], np.uint8)
    mask = ls.color_mask(raster(rgb, 37)).values
    assert mask[200, 200]
    assert mask.sum() == pytest.approx(np.pi * 180**2, rel=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"ranges": [((0, 10), (0, 255), (90, 255))]},
        {"grow_sigma_px": 1.0},
        {"hole_sigma_px": 0.4},
        {"openings_yx": ()},
        {"centred": True},
    ],
)
def test_every_option_changes_a_result(options):
    rng = np.random.default_rng(4)
    smooth = ndimage.gaussian_filter(rng.standard_normal((200, 200)), 6)
    rgb = np.full((3, 200, 200), 230, np.uint8)
    rgb[:, (smooth > 0.02) & (smooth < 0.06)] = np.array([[20], [100], [200]], np.uint8)
    scene = raster(rgb, 64)
    assert (ls.color_mask(scene) != ls.color_mask(scene, **options)).any()


def test_building_computes_nothing(never_compute):
    ls.color_mask(raster(np.zeros((3, 90, 90), np.uint8), 32))
    ls.index_mask(raster(np.zeros((3, 90, 90), np.float32), 32))


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(axis_chunks(n), axis_chunks(n))), st.integers(0, 2**31))
def test_water_index_is_numpys_formula_with_nan_where_nothing_was_seen(chunks, seed):
    rng = np.random.default_rng(seed)
    bands = rng.uniform(-0.1, 1, (2, *(sum(axis) for axis in chunks))).astype(np.float32)
    bands[:, rng.random(bands.shape[1:]) < 0.2] = np.nan
    bands[:, : chunks[0][0], : chunks[1][0]] = np.nan
    red, blue = bands
    scene = raster(bands, chunks, bands=["red", "blue"])
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.where(blue + red > 0, (blue - red) / (blue + red), np.nan)
    index = ls.water_index(scene)
    assert index.dtype == np.float32
    np.testing.assert_array_equal(index.values, expected)
    np.testing.assert_array_equal(ls.index_mask(scene).values, np.nan_to_num(expected) > 0.25)


def test_the_index_of_8_bit_rgb_is_nan_without_data():
    rgb = np.array([[[0, 50]], [[0, 80]], [[0, 150]]], np.uint8)
    scene = raster(rgb)
    scene.attrs["nodata_values"] = [0]
    np.testing.assert_array_equal(ls.water_index(scene).values, np.array([[np.nan, 0.5]], np.float32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: ls.color_mask(s.astype(np.float32)), "for 8-bit RGB, this scene is float32"),
        (lambda s: ls.color_mask(s.isel(band=[0, 2])), "no band 'green', only red, blue"),
        (lambda s: ls.water_index(s.isel(band=[0, 1])), "no band 'blue', only red, green"),
        (lambda s: ls.color_mask(s, region=raster(np.ones((3, 3), bool))), r"the region has \(3, 3\) pixels"),
        (lambda s: ls.color_mask(s, ranges=[]), "1 to 64 triples"),
        (lambda s: ls.color_mask(s, ranges=[((60, 0), (0, 255), (0, 255))]), "from low to high"),
        (lambda s: ls.color_mask(s, grow_sigma_px=-1), "grow_sigma_px must be above 0"),
        (lambda s: ls.color_mask(s, hole_sigma_px=float("nan")), "hole_sigma_px must be above 0"),
        (lambda s: ls.color_mask(s, openings_yx=((0, 3),)), "whole height and width"),
    ],
)
def test_bad_scenes_are_named(call, message):
    with pytest.raises(ls.InputError, match=message):
        call(raster(np.zeros((3, 8, 8), np.uint8)))
