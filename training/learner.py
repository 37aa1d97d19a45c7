"""The network as Lightning trains it: steps, rates, figures of an epoch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from lightning import LightningModule
from torch.nn.functional import interpolate

from lakescale.models.checkpoint import read_checkpoint
from lakescale.models.network import build_network, load_weights
from lakescale.models.normalisation import Normalisation
from lakescale.models.sam import SamNetwork
from lakescale.schema import InputError, RunError
from training.dataset import NOT_LABELLED
from training.losses import LakeLoss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lakescale.models.spec import ModelSpec
    from training.train_recipe import OptimizerRecipe, TrainRecipe

LOSS, VALIDATION_LOSS, IOU, F1 = "train_loss", "val_loss", "val_iou", "val_f1"
"""Figures of an epoch; the last two of pixels, at a probability of 0.5."""
_ENCODERS = ("encoder.", "image_encoder.")
_POLY = 0.9
"""Of DeepLab's schedule (Chen et al. 2018)."""


class LakeLearner(LightningModule):
    """A network of `lakescale.models` that learns windows as `training.dataset.LakePatches` gives them."""

    def __init__(self, recipe: TrainRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe, self.spec = recipe, recipe.network.spec(recipe.data.samples.window)
        self.network = start_network(self.spec, recipe.network.start)
        self.module = self.network.module
        if not isinstance(self.network, SamNetwork):
            self.module.to(memory_format=torch.channels_last)  # a third less time on a CPU
        self.loss = LakeLoss(recipe.loss.weights, tversky_beta=recipe.loss.tversky_beta)
        for name in recipe.network.frozen:
            find_part(self.module, name).requires_grad_(False)
        self._counts = torch.zeros(3)

    # -- what the network makes of windows

    def logits(self, windows: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``(n, y, x)`` of lake, and the masks that they are compared with.

        Two classes become one by the difference of their logits, whose sigmoid is the softmax. SAM may be compared on
        its own coarse grid.
        """
        shown = Normalisation(self.spec, windows.device)(windows.clone())
        if isinstance(self.network, SamNetwork):
            return self._ask_sam(self.network, shown, mask)
        out = self.module(shown.contiguous(memory_format=torch.channels_last))
        return (out[:, 0] if out.shape[1] == 1 else out[:, 1] - out[:, 0]), mask

    def _ask_sam(
        self, network: SamNetwork, shown: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        side = shown.shape[-1]
        whole = torch.tensor([[0.0, 0.0, side, side]], device=shown.device)
        out = torch.cat([network.decode(embedding, whole, side)[0] for embedding in network.encode(shown)])
        if not self.recipe.loss.coarse:
            return interpolate(out[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0], mask
        coarse = interpolate(mask[:, None].float(), out.shape[-2:], mode="nearest-exact")[:, 0]
        return out, coarse.to(mask.dtype)

    # -- steps

    def on_train_epoch_start(self) -> None:
        """Draw what the network draws by itself (dropout) from seed and epoch; frozen parts stay as in use."""
        torch.manual_seed(1_000_003 * self.recipe.seed + 1 + self.current_epoch)
        for name in self.recipe.network.frozen:
            find_part(self.module, name).eval()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Loss of a batch.

        Raises
        ------
        RunError
            When it is no number.
        """
        loss = self.loss(*self.logits(*batch))
        self._require_finite(loss)
        self.log(LOSS, loss, on_step=False, on_epoch=True, batch_size=len(batch[0]), sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Count pixels of a batch."""
        logits, mask = self.logits(*batch)
        loss = self.loss(logits, mask)
        self._require_finite(loss)
        self.log(VALIDATION_LOSS, loss, on_epoch=True, batch_size=len(mask), sync_dist=True)
        found, true, judged = logits > 0, mask == 1, mask != NOT_LABELLED
        counts = [(found & true), (found & ~true & judged), (~found & true)]
        self._counts = self._counts.to(loss.device) + torch.stack([one.sum() for one in counts]).float()

    def on_validation_epoch_end(self) -> None:
        """Tell IoU and F1 of pixels, over all windows together."""
        tp, fp, fn = self.trainer.strategy.reduce(self._counts, reduce_op="sum")
        self.log(IOU, tp / (tp + fp + fn).clamp(min=1))
        self.log(F1, 2 * tp / (2 * tp + fp + fn).clamp(min=1))
        self._counts = torch.zeros(3)

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimizer and schedule by the recipe, a rate for each step."""
        asked, steps = self.recipe.optimizer, int(self.trainer.estimated_stepping_batches)
        optimizer = make_optimizer(self.module, asked)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps, asked))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _require_finite(self, loss: torch.Tensor) -> None:
        if not bool(torch.isfinite(loss)):
            where = f"epoch {self.current_epoch}, step {self.global_step}"
            what = f"the loss is no number any more ({float(loss.detach())})"
            saved = self.recipe.saved("last")
            good = f"the last good checkpoint is {saved}" if saved.is_file() else "no epoch was whole yet"
            mend = f"lower optimizer.lr, or train with precision 32-true; {good}"
            raise RunError(what, where, mend)


def start_network(spec: ModelSpec, start: str | None) -> Any:
    """Build the network, with random weights or those of a checkpoint.

    Raises
    ------
    InputError
        When there is no such network, or the checkpoint cannot be read or is of another one.
    """
    network = build_network(spec)
    if start is not None:
        _, weights = read_checkpoint(start)
        load_weights(network, weights, spec, start)
    return network


def find_part(module: torch.nn.Module, name: str) -> torch.nn.Module:
    """Find a part of a network by name; raise `InputError` where it has none."""
    parts = dict(module.named_children())
    if name not in parts:
        raise InputError(f"the network has no part {name!r}", "network.frozen", f"choose among {', '.join(parts)}")
    return parts[name]


def make_optimizer(module: torch.nn.Module, asked: OptimizerRecipe) -> torch.optim.Optimizer:
    """Make the optimizer, with a rate for the encoder and one for the rest."""
    trained = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
    encoder = [weight for name, weight in trained if name.startswith(_ENCODERS)]
    rest = [weight for name, weight in trained if not name.startswith(_ENCODERS)]
    rates = ((encoder, asked.lr), (rest, asked.decoder_lr or asked.lr))
    groups: list[Any] = [{"params": weights, "lr": lr} for weights, lr in rates if weights]
    if asked.name == "sgd":
        return torch.optim.SGD(groups, lr=asked.lr, momentum=asked.momentum, weight_decay=asked.weight_decay)
    kind = torch.optim.Adam if asked.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=asked.lr, weight_decay=asked.weight_decay)


def rate_at(step: int, steps: int, asked: OptimizerRecipe) -> float:
    """Give the factor on the rates at a step of so many."""
    if step < asked.warmup_steps:
        return (step + 1) / (asked.warmup_steps + 1)
    left = 1 - min(1.0, (step - asked.warmup_steps) / max(1, steps - asked.warmup_steps))
    return {"constant": 1.0, "poly": left**_POLY, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[asked.schedule]


def list_weights(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """List the weights as a checkpoint holds them: copies on the CPU."""
    for name, weight in module.state_dict().items():
        yield name, weight.detach().cpu().clone()
