"""Losses of segmentation-models-pytorch, weighted and added; what is not labelled counts for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from segmentation_models_pytorch import losses

from training.dataset import NOT_LABELLED

if TYPE_CHECKING:
    from collections.abc import Mapping

_BINARY = losses.BINARY_MODE


class LakeLoss(torch.nn.Module):
    """A weighted sum of losses.

    Parameters
    ----------
    weights
        By name: ``dice``, ``cross_entropy``, ``focal``, ``tversky``.
    tversky_beta
        What a missed pixel weighs in the Tversky loss (Salehi et al. 2017); one too many weighs 1 - beta.
    """

    def __init__(self, weights: Mapping[str, float], *, tversky_beta: float = 0.7) -> None:
        super().__init__()
        makers = {
            "dice": lambda: losses.DiceLoss(_BINARY, ignore_index=NOT_LABELLED),
            "cross_entropy": lambda: losses.SoftBCEWithLogitsLoss(ignore_index=NOT_LABELLED),
            "focal": lambda: losses.FocalLoss(_BINARY, ignore_index=NOT_LABELLED),
            "tversky": lambda: losses.TverskyLoss(
                _BINARY, ignore_index=NOT_LABELLED, alpha=1 - tversky_beta, beta=tversky_beta
            ),
        }
        self.weights = dict(weights)
        self.terms = torch.nn.ModuleDict({name: makers[name]() for name in self.weights})

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Add up, for logits ``(n, y, x)`` and masks ``(n, y, x)`` of 0, 1 and 255; in float32.

        Where the batch holds no labelled pixel, it is 0, with gradients of 0.
        """
        logits, target = logits.float()[:, None], mask[:, None].float()
        if not bool((mask != NOT_LABELLED).any()):
            return logits.sum() * 0
        parts = [weight * self.terms[name](logits, target) for name, weight in self.weights.items()]
        return torch.stack(parts).sum()
