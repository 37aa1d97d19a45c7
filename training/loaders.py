"""Windows for Lightning: drawn and changed ones to learn from, plain ones to judge by; each process loads its part."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from lakescale.schema import IMAGE
from training.dataset import LakePatches
from training.draws import AugmentedPatches, DrawSampler
from training.material import TRAIN, VALIDATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from training.annotations import Annotations
    from training.train_recipe import SamplerRecipe, TrainRecipe


class LakeWindows(LightningDataModule):
    """The windows of a training."""

    def __init__(self, recipe: TrainRecipe, annotations: Annotations, sides: Mapping[str, pd.DataFrame]) -> None:
        super().__init__()
        self.recipe, bands = recipe, recipe.network.bands
        self.rows = list_rows(sides[TRAIN], recipe.sampler)
        patches = LakePatches(self.rows, annotations, bands=bands)
        self.changed = AugmentedPatches(patches, recipe.augment.make(), recipe.seed)
        self.plain = LakePatches(sides[VALIDATION], annotations, bands=bands)
        self.sampler()  # shares that cannot be drawn are told before anything is trained

    def sampler(self, part: tuple[int, int] = (0, 1)) -> DrawSampler:
        """Draw the windows of the epoch that begins; those of one process of so many."""
        asked, seed = self.recipe.sampler, self.recipe.seed
        return DrawSampler(self.rows, asked.shares, length=asked.length, seed=seed, epoch=self._epoch, part=part)

    def train_dataloader(self) -> DataLoader[Any]:
        """Load windows to learn from."""
        sampler = self.sampler(self._part())
        return self._load(self.changed, sampler=sampler, drop_last=len(sampler) > self.recipe.batch)

    def val_dataloader(self) -> DataLoader[Any]:
        """Load windows to judge by."""
        rank, world = self._part()
        return self._load(self.plain, sampler=range(rank, len(self.plain), world))

    def _load(self, windows: Any, **options: Any) -> DataLoader[Any]:
        workers = self.recipe.workers
        if workers:
            options |= {"num_workers": workers, "persistent_workers": True, "multiprocessing_context": "spawn"}
        return DataLoader(windows, batch_size=self.recipe.batch, **options)

    def _part(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _epoch(self) -> int:
        return int(self.trainer.current_epoch) if self.trainer else 0


def list_rows(rows: pd.DataFrame, asked: SamplerRecipe) -> pd.DataFrame:
    """List the windows that are drawn from, some several times."""
    if asked.shares is None:
        rows = rows[rows["kind"].isin(asked.kinds)]
    times = [next((n for like, n in asked.repeat.items() if fnmatchcase(name, like)), 1) for name in rows[IMAGE]]
    return rows.loc[rows.index.repeat(times)]
