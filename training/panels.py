"""Files that grow with the epochs: a table of figures, and pictures of what the network sees."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from lightning import Callback

from lakescale.storage import write_whole
from training.dataset import NOT_LABELLED
from training.learner import F1, IOU, LOSS, VALIDATION_LOSS

if TYPE_CHECKING:
    from pathlib import Path

    from lightning import LightningModule, Trainer
    from torch.utils.data import Dataset

log = logging.getLogger(f"lakescale.{__name__}")

METRICS = "metrics.csv"
_INCHES = 2.4


class MetricsTable(Callback):
    """Writes ``metrics.csv``, a row for each epoch; a training that goes on writes its epochs anew."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / METRICS

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  (Lightning's)
        """Write the row of an epoch."""
        if not trainer.is_global_zero:
            return
        epoch, found = trainer.current_epoch, trainer.callback_metrics
        rows = [] if not self.file.is_file() else pd.read_csv(self.file).to_dict("records")
        row = {"epoch": epoch, "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        row |= {name: float(found[name]) for name in (LOSS, VALIDATION_LOSS, IOU, F1) if name in found}
        table = pd.DataFrame([*(one for one in rows if one["epoch"] < epoch), row])
        write_whole(self.file, table.to_csv(index=False, float_format="%.17g").encode())
        log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in row.items()))


class Panels(Callback):
    """Draws windows of the validation side after each epoch: image, truth, probability."""

    def __init__(self, folder: Path, patches: Dataset[tuple[torch.Tensor, torch.Tensor]], rows: list[int]) -> None:
        self.folder, self.patches, self.rows = folder, patches, rows

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw ``epoch_NNN.png``."""
        if not trainer.is_global_zero or not self.rows:
            return
        pixels, masks = (torch.stack(parts) for parts in zip(*(self.patches[row] for row in self.rows), strict=True))
        training = pl_module.training
        pl_module.eval()
        with torch.no_grad():
            logits, _ = pl_module.logits(pixels.to(pl_module.device), masks.to(pl_module.device))
        pl_module.train(training)
        picture = draw_panels(pixels.numpy(), masks.numpy(), logits.float().sigmoid().cpu().numpy())
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / f"epoch_{trainer.current_epoch:03d}.png", picture)


def pick_rows(index: pd.DataFrame, count: int) -> list[int]:
    """Pick windows to draw: most with lakes, from all images evenly, always the same."""
    order = index.reset_index(drop=True)
    lakes = np.flatnonzero(order["lake_px"] > 0)
    rest = np.flatnonzero(order["lake_px"] == 0)
    wanted = min(len(lakes), count - min(len(rest), count // 4))
    return [int(rows[k]) for rows, n in ((lakes, wanted), (rest, count - wanted)) for k in _spread(len(rows), n)]


def draw_panels(pixels: np.ndarray[Any, Any], masks: np.ndarray[Any, Any], probability: np.ndarray[Any, Any]) -> bytes:
    """Draw windows as a PNG, one a row.

    Parameters
    ----------
    pixels
        float32 ``(n, band, y, x)``; see `_picture`.
    masks
        uint8 ``(n, y, x)``: 1 lake, 0 none, 255 grey.
    probability
        float32 ``(n, y, x)``, drawn where it is not 255; another size than the pixels' is fine.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  (heavy)

    n = len(pixels)
    figure = Figure(figsize=(3 * _INCHES, n * _INCHES + 0.3), dpi=100, layout="constrained")
    axes = figure.subplots(n, 3, squeeze=False)
    for row, (bands, mask, found) in zip(axes, zip(pixels, masks, probability, strict=True), strict=True):
        row[0].imshow(_picture(bands))
        truth = np.where(mask == NOT_LABELLED, np.nan, mask)
        row[1].imshow(truth, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        row[2].imshow(found, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], facecolor="0.6")
    for axis, title in zip(axes[0], ("image", "truth (grey: not labelled)", "probability"), strict=True):
        axis.set_title(title, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _picture(bands: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Show the first three bands as red, green and blue; of two, their mean as green; of one, grey."""
    planes = {1: bands[[0, 0, 0]], 2: np.stack([bands[0], bands.mean(axis=0), bands[-1]])}.get(len(bands), bands[:3])
    return np.clip(np.moveaxis(planes, 0, -1) / max(float(np.percentile(planes, 99.5)), 1e-6), 0, 1)


def _spread(size: int, count: int) -> list[int]:
    return [int(k) for k in np.linspace(0, size - 1, min(size, max(count, 0))).round()]
