"""Folds for validation: windows that share pixels never sit on both sides."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely

from lakescale.schema import IMAGE, REGION_NUM, InputError
from training.kinds import LEFT_OUT, POSITIVE

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

FOLD = "fold"
SET_ASIDE = -1
"""Fold of windows that reach into two folds, and of those left out."""
LEAVE_ONE_OUT = "leave-one-out"
_GROUPS = {"image-region": [IMAGE, REGION_NUM], "region": [REGION_NUM]}


def assign_folds(
    index: pd.DataFrame, *, by: str = "image-region", folds: int | str = 5, block_px: int = 8192, seed: int = 0
) -> pd.DataFrame:
    """Deal windows out to folds.

    Groups are dealt, those with the most positives first, to the fold with the fewest so far. Then every window that
    shares pixels with another fold is set aside: with blocks, what reaches over the edge of its fold; else each of two
    windows of one image that overlap.

    Parameters
    ----------
    index
        Of `training.samples.find_samples`.
    by
        ``image-region``: a group is what of one image lies in one region; ``region``: a region in all images, so that
        the same ground is on one side on all dates; ``block``: squares of each image's grid, counted from its first
        pixel; the dates of a cube share them.
    folds
        How many, or ``leave-one-out``: a fold for each group.
    block_px
        Side of the blocks; windows should be much smaller.
    seed
        Decides among equal groups.

    Returns
    -------
    pandas.DataFrame
        The index with a column ``fold``, from 0; -1 for what was set aside or left out.

    Raises
    ------
    InputError
        When there are fewer groups than folds, an option cannot be used, or a fold has no positives.
    """
    _check(by, folds, block_px)
    used = index[index["kind"] != LEFT_OUT]
    groups = _block_groups(used, block_px) if by == "block" else _column_groups(used, by)
    dealt = _deal(_weigh(groups, used), folds, seed, by)
    found = dealt[groups]
    if by == "block":
        found[_reaches_over(used, found, block_px)] = SET_ASIDE
    found[_shares_pixels(used, found)] = SET_ASIDE
    log.info("%d of %d windows set aside: they reach into two folds", (found == SET_ASIDE).sum(), len(used))
    fold = pd.Series(found, index=used.index).reindex(index.index, fill_value=SET_ASIDE)
    _require_positives(used["kind"].to_numpy(), found, dealt, by)
    answer = index.assign(**{FOLD: fold})
    require_disjoint(answer)
    return answer


def split_fold(index: pd.DataFrame, fold: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split into what to train on and what to validate with; windows set aside are in neither.

    Raises
    ------
    InputError
        When there is no such fold, none is left to train on, or both sides share pixels.
    """
    is_fold = index[FOLD] == fold
    validation, train = index[is_fold & (fold != SET_ASIDE)], index[~is_fold & (index[FOLD] != SET_ASIDE)]
    if not len(validation) or not len(train):
        there = sorted(set(index[FOLD]) - {SET_ASIDE})
        raise InputError(
            f"fold {fold} leaves one side empty", "fold", f"choose one of {there}, at least two are needed"
        )
    require_disjoint(pd.concat([train.assign(**{FOLD: 0}), validation.assign(**{FOLD: 1})]))
    return train, validation


def require_disjoint(index: pd.DataFrame) -> None:
    """Raise `InputError` where two windows of different folds share a pixel of an image; -1 is no fold."""
    dealt = index[index[FOLD] != SET_ASIDE]
    one, other = _overlaps(dealt)
    folds = dealt[FOLD].to_numpy()
    mixed = np.flatnonzero(folds[one] != folds[other])
    if not len(mixed):
        return
    pair = dealt.iloc[[one[mixed[0]], other[mixed[0]]]]
    told = "; ".join(f"fold {row.fold}: row {row.row}, col {row.col}" for row in pair.itertuples())
    what = f"{len(mixed) // 2} pairs of windows of different folds share pixels"
    raise InputError(what, f"{pair[IMAGE].iloc[0]}, {told}", "deal them out with assign_folds")


def _check(by: str, folds: int | str, block_px: int) -> None:
    if by not in (*_GROUPS, "block"):
        raise InputError(f"there are no folds by {by!r}", "by", f"choose {', '.join(_GROUPS)} or block")
    if folds != LEAVE_ONE_OUT and (isinstance(folds, bool) or not isinstance(folds, int) or folds < 2):  # noqa: PLR2004
        raise InputError(f"folds must be a number of at least 2, or {LEAVE_ONE_OUT!r}, got {folds!r}", "folds")
    if isinstance(block_px, bool) or not isinstance(block_px, int) or block_px < 1:
        raise InputError(f"block_px must be a whole number of at least 1, got {block_px!r}", "block_px")


def _weigh(groups: NDArray[np.int64], used: pd.DataFrame) -> NDArray[np.int64]:
    """Count positives and windows of each group, ``(groups, 2)``."""
    positive = (used["kind"] == POSITIVE).to_numpy()
    return np.stack([np.bincount(groups, positive), np.bincount(groups)], axis=1).astype(np.int64)


def _deal(weights: NDArray[np.int64], folds: int | str, seed: int, by: str) -> NDArray[np.int64]:
    """Give each group a fold: the heaviest first, to the fold with the fewest positives and windows."""
    if isinstance(folds, str):
        return np.arange(len(weights))
    if len(weights) < folds:
        what = f"{folds} folds of {len(weights)} groups by {by}"
        raise InputError(what, "folds", "ask for fewer, or deal by smaller groups: by='block', block_px=...")
    lots = np.random.default_rng(seed).permutation(len(weights))
    loads, dealt = [(0, 0, fold) for fold in range(folds)], np.empty(len(weights), np.int64)
    for group in np.lexsort((lots, -weights[:, 1], -weights[:, 0])).tolist():
        positives, windows, fold = min(loads)
        dealt[group] = fold
        loads[fold] = positives + int(weights[group, 0]), windows + int(weights[group, 1]), fold
    return dealt


def _require_positives(kinds: NDArray[Any], found: NDArray[np.int64], dealt: NDArray[np.int64], by: str) -> None:
    there = set(found[kinds == POSITIVE].tolist()) - {SET_ASIDE}
    lacking = sorted(set(dealt.tolist()) - there)
    if lacking or not len(dealt):
        what = f"folds by {by} without a positive window: {', '.join(map(str, lacking)) or 'all'} of {len(set(dealt))}"
        raise InputError(what, "folds", "ask for fewer folds or larger blocks, or leave out groups without lakes")


def _blocks(used: pd.DataFrame, offset: Any, block_px: int) -> NDArray[np.int64]:
    """Give the ground and the block in which each window's pixel at an offset from its first lies, ``(n, 3)``."""
    ground = pd.factorize(used["path"], sort=True)[0]
    return np.column_stack([ground, (used[["row", "col"]].to_numpy() + np.reshape(offset, (-1, 1))) // block_px])


def _column_groups(used: pd.DataFrame, by: str) -> NDArray[np.int64]:
    return np.asarray(used.groupby(_GROUPS[by], sort=True).ngroup(), np.int64)


def _block_groups(used: pd.DataFrame, block_px: int) -> NDArray[np.int64]:
    """Tell windows apart by the block that their centre lies in."""
    blocks = _blocks(used, used["window"].to_numpy() // 2, block_px)
    return np.unique(blocks, axis=0, return_inverse=True)[1].reshape(-1)


def _reaches_over(used: pd.DataFrame, found: NDArray[np.int64], block_px: int) -> NDArray[np.bool_]:
    """Tell which windows meet a block of another fold."""
    side = used["window"].to_numpy()
    own, first, last = (_blocks(used, offset, block_px).tolist() for offset in (side // 2, 0, side - 1))
    fold_of = {tuple(block): fold for block, fold in zip(own, found.tolist(), strict=True)}
    reaches = np.zeros(len(used), bool)
    for k, ((ground, top, left), (_, bottom, right)) in enumerate(zip(first, last, strict=True)):
        met = ((ground, i, j) for i in range(top, bottom + 1) for j in range(left, right + 1))
        reaches[k] = any(fold_of.get(block, found[k]) != found[k] for block in met)
    return reaches


def _shares_pixels(used: pd.DataFrame, folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which windows overlap one of another fold."""
    one, other = _overlaps(used)
    shares = np.zeros(len(used), bool)
    shares[one[(folds[one] != folds[other]) & (folds[one] >= 0) & (folds[other] >= 0)]] = True
    return shares


def _overlaps(windows: pd.DataFrame) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """List pairs of windows of one image that share pixels, each both ways round."""
    pairs: list[Any] = [np.empty((2, 0), np.intp)]
    for places in windows.groupby(["path", "date"], sort=False).indices.values():
        row, col, side = (windows[name].to_numpy()[places] for name in ("row", "col", "window"))
        # a quarter of a pixel off each side: boxes that only touch share no pixel
        boxes = shapely.box(col + 0.25, row + 0.25, col + side - 0.25, row + side - 0.25)
        near = shapely.STRtree(boxes).query(boxes)
        pairs.append(places[near[:, near[0] != near[1]]])
    one, other = np.concatenate(pairs, axis=1)
    return one, other
