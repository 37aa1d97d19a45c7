"""What an epoch shows a network: each window follows from seed, epoch and place in the epoch alone.

So a training that was killed goes on with the same windows, whatever processes read them, and how many.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd

    from training.augment import Augmentation

from training.dataset import BalancedSampler
from training.kinds import HARD, NEGATIVE

_ORDER, _CHANGES = 1, 2
"""Streams of random numbers."""


class Draw(NamedTuple):
    """One window of an epoch."""

    epoch: int
    position: int
    """In the epoch, from 0."""
    row: int
    """Of the index."""


class DrawSampler(Sampler[Draw]):
    """Lists the windows of an epoch.

    Parameters
    ----------
    index
        The rows that the dataset has.
    shares
        Of each kind, as `training.dataset.BalancedSampler` draws them; where ``negative`` is named and ``hard`` is not,
        it means all negatives. None takes every window once, shuffled.
    length
        Windows in an epoch; by default as many as the index has.
    seed
        Of the draws.
    epoch
        Tells the epoch that begins.
    part
        Number of this process, and how many share the epoch; each gets as many windows.
    """

    def __init__(
        self,
        index: pd.DataFrame,
        shares: Mapping[Any, float] | None = None,
        *,
        length: int | None = None,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.length, self.seed, self.epoch, self.part = length or len(index), seed, epoch, part
        self.count = len(index)
        if shares and NEGATIVE in shares and HARD not in shares:
            index = index.assign(kind=index["kind"].replace({HARD: NEGATIVE}))
        self.balanced = BalancedSampler(index, shares, length=self.length, seed=seed) if shares else None

    def __len__(self) -> int:
        return self.length // self.part[1]

    def __iter__(self) -> Iterator[Draw]:
        epoch = self.epoch()
        rank, world = self.part
        rows = self._rows(epoch)
        for position in range(rank, len(self) * world, world):
            yield Draw(epoch, position, rows[position])

    def _rows(self, epoch: int) -> list[int]:
        if self.balanced is not None:
            self.balanced.set_epoch(epoch)
            return list(self.balanced)
        rng = np.random.default_rng([self.seed, _ORDER, epoch])
        rounds = -(-self.length // self.count)
        order = np.concatenate([rng.permutation(self.count) for _ in range(rounds)])
        return [int(row) for row in order[: self.length]]


class AugmentedPatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Windows of a dataset, each changed as its draw says; asked by `Draw`."""

    def __init__(
        self, patches: Dataset[tuple[torch.Tensor, torch.Tensor]], augmentation: Augmentation, seed: int
    ) -> None:
        self.patches, self.augmentation, self.seed = patches, augmentation, seed

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.seed, _CHANGES, draw.epoch, draw.position])
        pixels, mask = self.patches[draw.row]
        with _one_thread():
            return self.augmentation.apply(pixels, mask, rng)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute as the processes of a loader do: the last digits of powers depend on the threads that share an array."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
