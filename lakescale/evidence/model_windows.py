"""What a task does with the windows of `lake_probability`: which are run, what the model is asked, and the sums."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lakescale.evidence.model_source import ONE_AT_A_TIME, ModelSource, calling, give_torch_threads, loaded_model, title
from lakescale.kernels.blend import add_windows, window_weights
from lakescale.kernels.components import find_parts
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Corners = list[tuple[int, int]]

SEEN, GATE = np.uint8(1), np.uint8(2)
MASKS = tuple(np.uint8(1 << k) for k in range(2, 7))
"""Flags of a pixel: it was seen, the gate lets it through, the masks that prompt. All below 128, for bands of int8."""

RUN, UNSEEN, GATED = range(3)
"""Fates of a window."""

LEAST_REGION_PX = 10
"""Regions of fewer pixels within a window prompt for nothing: a lake of the Cup has 68 at least."""

_SLACK = 1e-5
"""How far beyond 0..1 an answer may lie: less than a step of the fixed point, which interpolating may add."""


class Job(NamedTuple):
    """What a task must know to run its windows."""

    model: Any
    key: str
    """Tells loaded models apart; made once, since what a task unpickles may hash otherwise."""
    window: int
    weights: str
    batch: int
    augment: bool
    planes: int
    """Of the sums."""
    masks: int
    """How many masks prompt by the boxes of their regions; with none the model is asked about whole windows."""
    least_score: float


def mark_windows(patch: NDArray[np.uint8], corners: Corners, *, window: int) -> NDArray[np.int64]:
    """Write the fate of each window at its first pixel."""
    fates = np.zeros((1, *patch.shape[-2:]), np.int64)
    for corner in corners:
        fates[0, *corner] = _fate(patch[0], corner, window)
    return fates


def run_windows(patch: NDArray[Any], corners: Corners, *, job: Job) -> NDArray[np.int64]:
    """Run the windows of a patch whose last band holds the flags, and add up their weighted answers."""
    flags = patch[-1].astype(np.uint8)
    shape = job.planes, *flags.shape
    corners = [corner for corner in corners if _fate(flags, corner, job.window) == RUN]
    if not corners:
        return np.broadcast_to(np.int64(0), shape)
    sums = np.zeros(shape, np.int64)
    weights = window_weights(job.window, job.weights)
    bands = slice(None) if job.masks else slice(-1)  # boxes are found in the flags
    for start in range(0, len(corners), job.batch):
        part = corners[start : start + job.batch]
        places = [(slice(r, r + job.window), slice(c, c + job.window)) for r, c in part]
        windows = np.stack([patch[bands, *place] for place in places], dtype=np.float32)
        add_windows(sums, _answer(windows, job), np.array(part, np.int64), weights)
    return sums


def find_boxes(flags: NDArray[np.uint8], masks: int) -> NDArray[np.float32]:
    """Boxes round the 8-connected regions of each mask, those of fewer than `LEAST_REGION_PX` left out.

    Parameters
    ----------
    flags
        uint8 ``(y, x)``, of one window: what reaches beyond is cut off.
    masks
        How many of `MASKS` to look at.

    Returns
    -------
    numpy.ndarray
        float32 ``(k, 4)``: x0, y0, x1, y1 in pixels, edges counted from the upper left corner; each box once.
    """
    found = [_boxes_of((flags & bit) > 0) for bit in MASKS[:masks]]
    return np.unique(np.concatenate(found), axis=0).astype(np.float32)


def _boxes_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    parts = find_parts(mask, connectivity=8)
    row = np.repeat(np.arange(len(mask)), np.diff(parts.row_start))
    boxes = np.tile((*mask.shape[::-1], 0, 0), (parts.n_parts, 1))
    np.minimum.at(boxes[:, 0], parts.part, parts.start)
    np.maximum.at(boxes[:, 2], parts.part, parts.stop)
    np.minimum.at(boxes[:, 1], parts.part, row)
    np.maximum.at(boxes[:, 3], parts.part, row + 1)
    size_px = np.bincount(parts.part, parts.stop - parts.start, parts.n_parts)
    return boxes[size_px >= LEAST_REGION_PX]


def _fate(flags: NDArray[Any], corner: tuple[int, int], window: int) -> int:
    row, col = corner
    found = int(np.bitwise_or.reduce(flags[row : row + window, col : col + window], axis=None))
    if not found & SEEN:
        return UNSEEN
    return RUN if found & GATE else GATED


def _answer(windows: NDArray[np.float32], job: Job) -> NDArray[np.float32]:
    with ONE_AT_A_TIME:
        model = loaded_model(job.model, job.key) if isinstance(job.model, ModelSource) else job.model
        give_torch_threads()
        call = partial(_ask_boxes, model, job=job) if job.masks else calling(model)
        predict = partial(_predict, call, name=title(job.model))
        return _predict_turned(predict, windows) if job.augment else predict(windows)


def _ask_boxes(model: Any, windows: NDArray[np.float32], *, job: Job) -> NDArray[np.float32]:
    """Ask about the regions in windows whose last band holds the flags; where there are none there is no lake."""
    boxes = [find_boxes(window[-1].astype(np.uint8), job.masks) for window in windows]
    asked = [k for k, of_window in enumerate(boxes) if len(of_window)]
    answer = np.zeros((len(windows), *windows.shape[-2:]), np.float32)
    if asked:
        bands = np.ascontiguousarray(windows[asked, :-1])
        answer[asked], _ = model.predict_boxes(bands, [boxes[k] for k in asked], least_score=job.least_score)
    return answer


def _predict_turned(
    predict: Callable[[NDArray[np.float32]], NDArray[np.float32]], windows: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Average the answers to windows turned and mirrored in all 8 ways."""
    total = np.zeros((len(windows), *windows.shape[-2:]), np.float32)
    for turns, step in product(range(4), (1, -1)):
        answer = predict(np.array(np.rot90(windows, turns, (-2, -1))[..., ::step], order="C"))
        total += np.rot90(answer[..., ::step], -turns, (-2, -1))
    total /= 8
    return total


def _predict(call: Any, windows: NDArray[np.float32], *, name: str) -> NDArray[np.float32]:
    shape = len(windows), *windows.shape[-2:]
    answer = np.array(call(windows))  # a copy: a model may use its memory again
    if answer.shape != shape:
        what = f"the model answered {answer.shape} to windows {windows.shape}"
        raise InputError(what, name, f"it must answer (n, y, x), here {shape}")
    answer = answer.astype(np.float32, copy=False)
    low, high = float(answer.min()), float(answer.max())
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # NaN too
        what = f"the model answered values from {low:g} to {high:g}, which are no probabilities"
        raise InputError(what, name, "it must answer 0..1 and no NaN: end it with a sigmoid or softmax")
    return np.clip(answer, 0, 1, out=answer) if low < 0 or high > 1 else answer
