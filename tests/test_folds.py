"""Folds never share a pixel: painted pixel by pixel."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import lakescale as ls
from training.folds import assign_folds, require_disjoint, split_fold

KINDS = ["positive", "negative", "hard", "left out"]


@st.composite
def indexes(draw, side=60):
    """Windows of any size anywhere on some images, of two dates of one cube among them."""
    images = [("a", "x.zarr", "2019-06-19"), ("b", "x.zarr", "2019-07-23"), ("c", "c.tif", "")]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(1, 60))
    picked = rng.integers(0, draw(st.integers(1, 3)), count)
    table = pd.DataFrame([images[k] for k in picked], columns=["image", "path", "date"])
    window = draw(st.integers(1, 20))
    table["row"], table["col"] = rng.integers(0, side, (2, count))
    table["window"] = window if draw(st.booleans()) else rng.integers(1, 20, count)
    table["region_num"] = rng.integers(1, 4, count) if draw(st.booleans()) else 1 + table["col"] // 20
    table["kind"] = rng.choice(KINDS, count, p=[0.6, 0.2, 0.1, 0.1])
    return table.set_index(rng.permutation(count))


def paint(index):
    """For each image and pixel the set of folds that see it."""
    seen = {}
    for row in index[index["fold"] >= 0].itertuples():
        image = seen.setdefault((row.path, row.date), {})
        for y in range(row.row, row.row + row.window):
            for x in range(row.col, row.col + row.window):
                image.setdefault((y, x), set()).add(row.fold)
    return seen


@given(
    indexes(), st.sampled_from(["image-region", "region", "block"]), st.sampled_from([2, 3, "leave-one-out"]),
    st.integers(5, 60), st.integers(0, 9),
)  # fmt: skip
def test_no_pixel_is_in_two_folds(index, by, folds, block_px, seed):
    try:
        dealt = assign_folds(index, by=by, folds=folds, block_px=block_px, seed=seed)
    except ls.InputError as error:
        assert "without a positive" in str(error) or "folds of" in str(error)  # noqa: PT017
        assume(False)
    pd.testing.assert_frame_equal(dealt.drop(columns="fold"), index)
    assert all(len(folds_of) == 1 for image in paint(dealt).values() for folds_of in image.values())
    assert (dealt.loc[dealt["kind"] == "left out", "fold"] == -1).all()
    used = dealt[dealt["fold"] >= 0]
    assert set(used["fold"]) == set(range(used["fold"].max() + 1))
    assert used[used["kind"] == "positive"].groupby("fold").size().min() > 0
    for fold in set(used["fold"]) if used["fold"].max() > 0 else ():
        train, validation = split_fold(dealt, fold)
        assert (len(train), len(validation)) == ((used["fold"] != fold).sum(), (used["fold"] == fold).sum())
        columns = {"image-region": ["image", "region_num"], "region": ["region_num"]}.get(by)
        if columns:
            sides = [set(map(tuple, side[columns].to_numpy())) for side in (train, validation)]
            assert not sides[0] & sides[1]


def cube_index(height=64, width=64, window=8, stride=4, dates=("a",), positive=lambda row, col: True):
    rows = [
        {"image": date, "path": "x.zarr", "date": date, "row": row, "col": col, "window": window, "region_num": 0,
         "kind": "positive" if positive(row, col) else "negative"}
        for date in dates
        for row in range(0, height - window + 1, stride)
        for col in range(0, width - window + 1, stride)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_only_windows_over_the_edge_of_a_fold_are_set_aside():
    index = cube_index()
    dealt = assign_folds(index, by="block", folds=2, block_px=32)
    fold_of = {}
    for row in dealt[dealt["fold"] >= 0].itertuples():
        fold_of.setdefault(((row.row + 4) // 32, (row.col + 4) // 32), set()).add(row.fold)
    assert all(len(folds) == 1 for folds in fold_of.values())
    assert len(fold_of) == 4
    for row in dealt.itertuples():
        met = {next(iter(fold_of[y // 32, x // 32])) for y in (row.row, row.row + 7) for x in (row.col, row.col + 7)}
        assert (row.fold == -1) == (len(met) > 1)
    beside = next(iter(fold_of[0, 0])) != next(iter(fold_of[1, 1]))
    assert (dealt["fold"] == -1).sum() == (15 if beside else 29)


def test_the_dates_of_a_cube_share_their_blocks():
    dealt = assign_folds(cube_index(dates=("a", "b")), by="block", folds=3, block_px=16)
    one, other = (dealt[dealt["date"] == date]["fold"].to_numpy() for date in ("a", "b"))
    np.testing.assert_array_equal(one, other)


def test_folds_follow_the_seed_and_have_about_as_many_positives():
    index = cube_index(height=320, width=320, positive=lambda row, col: (row + col) % 3 == 0)
    dealt = assign_folds(index, by="block", folds=4, block_px=32, seed=1)
    pd.testing.assert_frame_equal(dealt, assign_folds(index, by="block", folds=4, block_px=32, seed=1))
    other = assign_folds(index, by="block", folds=4, block_px=32, seed=2)
    assert (dealt["fold"] != other["fold"]).any()
    positives = dealt[(dealt["kind"] == "positive") & (dealt["fold"] >= 0)].groupby("fold").size()
    assert positives.min() > 0.8 * positives.max()


def test_leave_one_out_has_a_fold_for_each_image_and_region():
    index = cube_index(dates=("a", "b"), stride=8).assign(region_num=lambda table: table["col"] // 32)
    dealt = assign_folds(index, folds="leave-one-out")
    assert (dealt["fold"] >= 0).all()
    assert dealt.groupby("fold")[["image", "region_num"]].nunique().to_numpy().tolist() == [[1, 1]] * 4
    by_region = assign_folds(index, by="region", folds="leave-one-out")
    assert by_region.groupby("fold")[["image", "region_num"]].nunique().to_numpy().tolist() == [[2, 1]] * 2


def test_regions_that_touch_lose_the_windows_that_overlap():
    index = cube_index().assign(region_num=lambda table: table["col"] // 32)
    dealt = assign_folds(index, folds=2)
    assert set(dealt[dealt["fold"] == -1]["col"]) == {28, 32}


def test_windows_that_share_a_pixel_across_folds_are_found():
    index = cube_index(height=8, width=16, stride=8).assign(fold=[0, 1])
    require_disjoint(index)
    touching = index.assign(col=[0, 7])
    with pytest.raises(ls.InputError, match=r"1 pairs of windows .* \[a, fold 0: row 0, col 0; fold 1: row 0, col 7\]"):
        require_disjoint(touching)
    with pytest.raises(ls.InputError, match="share pixels"):
        split_fold(touching, 1)
    require_disjoint(touching.assign(date=["a", "b"]))
    require_disjoint(touching.assign(fold=[0, -1]))


def test_a_fold_without_positives_is_refused():
    index = cube_index(positive=lambda row, col: col < 16)
    assert set(assign_folds(index, by="block", folds=2, block_px=32)["fold"]) == {-1, 0, 1}
    with pytest.raises(
        ls.InputError, match=r"folds by block without a positive window: 1, 3 of 4.*Ask for fewer folds"
    ):
        assign_folds(index, by="block", folds="leave-one-out", block_px=32)
    with pytest.raises(ls.InputError, match="without a positive window"):
        assign_folds(index.assign(kind="negative"), by="block", folds=2, block_px=32)
    with pytest.raises(ls.InputError, match="without a positive window: all"):
        assign_folds(index.assign(kind="left out"), folds="leave-one-out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "date"}, "no folds by 'date'"),
        ({"folds": 1}, "at least 2"),
        ({"folds": True}, "at least 2"),
        ({"folds": "all"}, "leave-one-out"),
        ({"by": "block", "block_px": 0}, "block_px must be"),
        ({"folds": 2}, r"2 folds of 1 groups by image-region"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(ls.InputError, match=message):
        assign_folds(cube_index(), **options)


@pytest.mark.parametrize("fold", [7, -1])
def test_there_is_no_side_for_a_fold_that_is_not_there(fold):
    dealt = assign_folds(cube_index(), by="block", folds=2, block_px=32)
    with pytest.raises(ls.InputError, match=rf"fold {fold} leaves one side empty.*\[0, 1\]"):
        split_fold(dealt, fold)
