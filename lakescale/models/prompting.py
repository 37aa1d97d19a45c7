"""SAM asked box by box: each window is encoded once, each mask comes with the score that SAM gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from lakescale.models.loaded import LoadedModel, run_halving
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lakescale.models.sam import SamNetwork

BOXES_AT_ONCE = 16
"""Masks of 1024 x 1024 that are decoded at once: 64 MB of float32."""


class BoxMasks(NamedTuple):
    """SAM's answers to boxes in one window."""

    probabilities: NDArray[np.float32]
    """float32 ``(k, y, x)``, one mask a box, in the order of the boxes."""
    scores: NDArray[np.float32]
    """float32 ``(k,)``: the intersection over union that SAM predicts for each mask."""


class LoadedSam(LoadedModel):
    """SAM: windows as any model takes them (one box round each), and boxes in them."""

    network: SamNetwork

    def predict_masks(self, window: NDArray[np.float32], boxes: NDArray[np.float32]) -> BoxMasks:
        """Masks of boxes in one window, which is encoded once.

        Parameters
        ----------
        window
            float32 ``(band, y, x)``, as in `predict`.
        boxes
            float32 ``(k, 4)``: x0, y0, x1, y1 in pixels of the window, edges counted from its upper left corner.

        Raises
        ------
        InputError
            As `predict`; and when a box is empty or lies beyond the window.
        RunError
            As `predict`.
        """
        parts = list(self._masks(window, boxes))
        if not parts:
            return BoxMasks(np.empty((0, *window.shape[-2:]), np.float32), np.empty(0, np.float32))
        return BoxMasks(np.concatenate([p.probabilities for p in parts]), np.concatenate([p.scores for p in parts]))

    def predict_boxes(
        self, batch: NDArray[np.float32], boxes: Sequence[NDArray[np.float32]], *, least_score: float = 0.0
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Probabilities of lake in windows, asked box by box: the highest of the masks that score enough.

        Each window is encoded once, and not at all where it has no box (it is 0 there). At most 16 masks are held.

        Parameters
        ----------
        batch
            As in `predict`.
        boxes
            For each window its boxes, as in `predict_masks`.
        least_score
            Masks whose predicted intersection over union is lower are left out.

        Returns
        -------
        tuple
            float32 ``(n, y, x)``, 0..1; and for each window float32 ``(k,)``, the scores of all its masks.
        """
        out = np.zeros((len(batch), *batch.shape[-2:]), np.float32)
        scores: list[NDArray[np.float32]] = []
        for window, of_window, highest in zip(batch, boxes, out, strict=True):
            parts = []
            for masks in self._masks(window, of_window):
                kept = masks.probabilities[masks.scores >= least_score]
                np.maximum(highest, kept.max(axis=0, initial=0.0), out=highest)
                parts.append(masks.scores)
            scores.append(np.concatenate(parts) if parts else np.empty(0, np.float32))
        return out, scores

    def _masks(self, window: NDArray[np.float32], boxes: NDArray[np.float32]) -> Iterator[BoxMasks]:
        self.check(window[None])
        side = window.shape[-1]
        boxes = _check_boxes(np.asarray(boxes, np.float32), side, self.spec.title)
        if not len(boxes):
            return
        embedding = self._encode(window)
        limit: int | None = None
        for start in range(0, len(boxes), BOXES_AT_ONCE):
            masks, limit = self._decode(embedding, boxes[start : start + BOXES_AT_ONCE], side, limit)
            self.require_finite(masks.probabilities)
            yield masks

    def _encode(self, window: NDArray[np.float32]) -> torch.Tensor:
        embeddings: list[torch.Tensor] = []

        def run(part: slice) -> None:
            with torch.inference_mode(), self.autocast():
                embeddings.append(self.network.encode(self.normalise(window[None][part]))[0])

        run_halving(run, 1, None, self.item)
        return embeddings[0]

    def _decode(
        self, embedding: torch.Tensor, boxes: NDArray[np.float32], side: int, limit: int | None
    ) -> tuple[BoxMasks, int | None]:
        masks = BoxMasks(np.empty((len(boxes), side, side), np.float32), np.empty(len(boxes), np.float32))

        def run(part: slice) -> None:
            with torch.inference_mode(), self.autocast():
                asked = torch.tensor(boxes[part], device=self.device)
                logits, scores = self.network.decode(embedding, asked, side)
                masks.probabilities[part] = self.network.to_window(logits, side).cpu().numpy()
                masks.scores[part] = scores.cpu().numpy()

        limit = run_halving(run, len(boxes), limit, self.item)
        return masks, limit


def _check_boxes(boxes: NDArray[np.float32], side: int, title: str) -> NDArray[np.float32]:
    boxes = boxes.reshape(-1, 4) if not boxes.size else boxes
    mend = "give x0 < x1, y0 < y1 in pixels of the window"
    if boxes.ndim != 2 or boxes.shape[1] != 4:  # noqa: PLR2004 - x0, y0, x1, y1
        raise InputError(f"boxes are (k, 4), and not {boxes.shape}", title, mend)
    fine = (boxes[:, :2] < boxes[:, 2:]).all(axis=1) & (boxes >= 0).all(axis=1) & (boxes <= side).all(axis=1)
    if not fine.all():
        raise InputError(f"box {boxes[~fine][0].tolist()} is none in a window of {side} pixels", title, mend)
    return boxes
