"""Blending of windows against exact fractions in plain loops."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lakescale.kernels.blend import add_windows, count_planes, mean_probability, window_weights

probability = st.floats(0, 1, width=32)


@given(st.integers(1, 40))
def test_hann_weights_are_rounded_and_never_zero(window):
    weights = window_weights(window, "hann")
    assert weights.dtype == np.uint16
    line = [math.sin(math.pi * i / (window - 1)) ** 2 if window > 1 else 1.0 for i in range(window)]
    for i in range(window):
        for j in range(window):
            exact = 65535 * line[i] * line[j]
            assert weights[i, j] == 1 if exact < 1 else abs(weights[i, j] - exact) < 0.5 + 1e-6


def test_flat_weights_are_all_one():
    np.testing.assert_array_equal(window_weights(5, "flat"), np.full((5, 5), 65535))


def test_the_weights_of_a_process_are_shared_and_cannot_be_written():
    assert window_weights(6, "hann") is window_weights(6, "hann")
    with pytest.raises(ValueError, match="read-only"):
        window_weights(6, "hann")[0, 0] = 3


@st.composite
def batches(draw):
    """Windows somewhere in a block, with their probabilities."""
    window = draw(st.integers(1, 5))
    height, width = (draw(st.integers(window, 9)) for _ in range(2))
    corner = st.tuples(st.integers(0, height - window), st.integers(0, width - window))
    corners = draw(st.lists(corner, min_size=1, max_size=6))
    probabilities = draw(hnp.arrays(np.float32, (len(corners), window, window), elements=probability))
    return (height, width), window, corners, probabilities


@given(batches(), st.sampled_from(["hann", "flat"]), st.sampled_from([1, 2]))
def test_the_mean_equals_fractions_whatever_the_order(case, kind, planes):
    shape, window, corners, probabilities = case
    weights = window_weights(window, kind)
    above, below = ([[0] * shape[1] for _ in range(shape[0])] for _ in range(2))
    for (row, col), answer in zip(corners, probabilities, strict=True):
        for i in range(window):
            for j in range(window):
                fixed = math.floor(Fraction(float(answer[i, j])) * 65535 + Fraction(1, 2))
                above[row + i][col + j] += int(weights[i, j]) * fixed
                below[row + i][col + j] += int(weights[i, j])
    sums = np.zeros((planes, *shape), np.int64)
    add_windows(sums, probabilities, np.array(corners, np.int64), weights)
    backwards = np.zeros_like(sums)
    for k in reversed(range(len(corners))):
        add_windows(backwards, probabilities[k : k + 1], np.array(corners[k : k + 1], np.int64), weights)
    np.testing.assert_array_equal(backwards, sums)

    mean = mean_probability(sums)
    assert mean.dtype == np.float32
    for i in range(shape[0]):
        for j in range(shape[1]):
            exact = float(Fraction(above[i][j], 65535 * below[i][j])) if below[i][j] else 0.0
            assert mean[i, j] == np.float32(exact)


def test_strided_answers_are_added_as_they_look():
    answer = np.random.default_rng(0).random((2, 4, 4), np.float32)
    corners = np.array([[0, 0], [1, 2]], np.int64)
    sums, straight = np.zeros((2, 1, 5, 6), np.int64)
    add_windows(sums, answer.transpose(0, 2, 1)[:, ::-1], corners, window_weights(4, "hann"))
    add_windows(straight, answer.transpose(0, 2, 1)[:, ::-1].copy(), corners, window_weights(4, "hann"))
    np.testing.assert_array_equal(sums, straight)
    assert sums.any()


@pytest.mark.parametrize(("windows", "planes"), [(2, 1), (128, 1), (130, 2), (100_000, 2)])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_as_many_windows_as_there_may_be_do_not_overflow(windows, planes, share):
    assert count_planes(windows) == planes
    answers = np.zeros((windows, 1, 1), np.float32)
    answers[: int(share * windows)] = 1
    sums = np.zeros((planes, 1, 1), np.int64)
    add_windows(sums, answers, np.zeros((windows, 2), np.int64), window_weights(1, "flat"))
    assert mean_probability(sums)[0, 0] == share
