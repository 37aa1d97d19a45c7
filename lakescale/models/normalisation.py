"""Windows of a scene as a network takes them, in training and in use alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lakescale.models.spec import ModelSpec


class Normalisation:
    """Normalises windows as a spec says; each window by itself.

    Parameters
    ----------
    spec
        Says by what: ``white_percentile``, ``scale``, ``mean``, ``std``.
    device
        Where the windows are.
    """

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        self.white_percentile = spec.white_percentile
        self._scale, self._mean, self._std = (
            torch.tensor(numbers, device=device)[:, None, None] for numbers in (spec.scale, spec.mean, spec.std)
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise float32 windows ``(n, band, y, x)`` in place: values as in the scene, 0 where not seen."""
        if self.white_percentile is not None:
            for window in x:
                window.div_(find_white(window, self.white_percentile))
        return x.div_(self._scale).sub_(self._mean).div_(self._std)


def find_white(window: torch.Tensor, percentile: float) -> torch.Tensor:
    """Find a percentile of the brightest band over the seen pixels of a window ``(band, y, x)``; 1 without any."""
    seen = (window != 0).any(dim=0)
    brightest = window.amax(dim=0)[seen]
    if not len(brightest):
        return torch.ones((), device=window.device)
    white = brightest.sort().values[round((len(brightest) - 1) * percentile / 100)]
    return torch.where(white > 0, white, 1)
