"""A training, from top to bottom: windows, network, epochs, threshold, checkpoint."""

from __future__ import annotations

import json
import logging
import pickle
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
import yaml
from lightning import Trainer
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from lakescale.models.network import save_checkpoint
from lakescale.schema import IMAGE, InputError
from lakescale.storage import write_whole
from lakescale.store import locked, writing
from training.compare import compare
from training.judging import Judged, choose_threshold, predict
from training.learner import IOU, LakeLearner, list_weights
from training.loaders import LakeWindows
from training.material import TEST, VALIDATION, Material, gather, split
from training.panels import METRICS, MetricsTable, Panels, pick_rows
from training.train_recipe import list_differences

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from training.train_recipe import TrainRecipe

log = logging.getLogger(f"lakescale.{__name__}")

RECIPE, MODEL = "recipe.yaml", "model.safetensors"
_BEST, _LAST = "best", "last"
_SEVERAL = "ddp_spawn_find_unused_parameters_true"
"""Lightning's strategy for several devices: others would run this program once for each; SAM's scores go unused."""


class Trained(NamedTuple):
    """What a training came to."""

    checkpoint: Path
    hash: str
    spec: Any
    """`lakescale.models.ModelSpec`, with the threshold chosen and what was measured."""


def train(recipe: TrainRecipe, *, resume: bool = False) -> Trained:
    """Train a network, choose its threshold, and write its checkpoint.

    The folder ``recipe.out`` holds ``model.safetensors`` in the end, and beside it the recipe, the windows
    (``samples/``), made-up scenes (``synthetic/``), ``metrics.csv``, ``tensorboard/``, ``panels/``, ``thresholds.csv``,
    ``test.csv`` where images are held back (see `training.compare`), and Lightning's checkpoints, the best and the
    last. What windows are drawn, in which order and how changed, follows from seed and epoch, so a training that was
    killed goes on after its last whole epoch as if nothing had been.

    Parameters
    ----------
    recipe
        See `training.train_recipe.TrainRecipe`.
    resume
        Go on with the training in the folder, which must be of the same recipe.

    Returns
    -------
    Trained
        The checkpoint, its hash, and the spec in it.

    Raises
    ------
    InputError
        For images, annotations, windows, folds, networks and weights that cannot be used; a folder with another
        training, or nothing to resume.
    RunError
        When the loss is no number any more; the best and the last checkpoint stay.
    """
    started = time.perf_counter()
    out = recipe.out
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        _claim(recipe, resume=resume)
        material, sides = prepare(recipe)
        if recipe.threads:
            torch.set_num_threads(recipe.threads)
        learner = LakeLearner(recipe)
        _fit(recipe, learner, material, sides, resume=resume)
        done = _finish(recipe, learner, material, sides[VALIDATION], time.perf_counter() - started)
        if len(sides[TEST]):
            table = compare(recipe, material, sides, done.checkpoint)
            write_whole(out / "test.csv", table.to_csv(index=False).encode())
        return done


def prepare(recipe: TrainRecipe) -> tuple[Material, dict[str, pd.DataFrame]]:
    """Gather images, find their windows, and split them; see `training.material.split`."""
    material = gather(recipe.data, recipe.out / "synthetic")
    index = material.find_samples(recipe.data, recipe.out / "samples")
    sides = split(index, recipe.split, material.places)
    for side, rows in sides.items():
        log.info("%s: %d windows of %d images: %s", side, len(rows), rows[IMAGE].nunique(), _spell(rows["kind"]))
    return material, sides


# -- epochs


def _fit(
    recipe: TrainRecipe, learner: LakeLearner, material: Material, sides: dict[str, pd.DataFrame], *, resume: bool
) -> None:
    """Train to the last epoch, or until the validation side no longer gets better."""
    windows = LakeWindows(recipe, material.annotations, sides)
    shown = Panels(recipe.out / "panels", windows.plain, pick_rows(sides[VALIDATION], recipe.panels))
    saved = recipe.saved(_LAST)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)  # advertisements
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)  # advice on loaders
        warnings.filterwarnings("ignore", message=".*(LeafSpec|Experiment logs directory|Checkpoint directory)")
        trainer = Trainer(
            accelerator=recipe.accelerator,
            devices=recipe.devices,
            strategy="auto" if recipe.devices == 1 else _SEVERAL,
            precision=recipe.precision,
            max_epochs=recipe.epochs,
            deterministic=True if recipe.accelerator == "cpu" else "warn",
            callbacks=[*_keepers(recipe), MetricsTable(recipe.out), shown],
            logger=TensorBoardLogger(str(recipe.out), name="tensorboard", version=""),
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
        )
        with _reading(saved) as file:
            trainer.fit(learner, windows, ckpt_path=file if resume and file.is_file() else None, weights_only=True)


def _keepers(recipe: TrainRecipe) -> list[Any]:
    """Keep the best and the last checkpoint; stop early where the recipe says so."""
    keep = ModelCheckpoint(
        recipe.saved(_BEST).parent,
        filename=_BEST,
        monitor=IOU,
        mode="max",
        save_last=True,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    mean = [] if recipe.average is None else [EMAWeightAveraging(decay=recipe.average)]
    if recipe.patience is None:
        return [*mean, keep]
    return [*mean, keep, EarlyStopping(IOU, mode="max", patience=recipe.patience, check_on_train_epoch_end=True)]


# -- after the epochs


def _finish(
    recipe: TrainRecipe, learner: LakeLearner, material: Material, rows: pd.DataFrame, seconds: float
) -> Trained:
    """Take the best epoch's weights, choose the threshold on whole images of the validation side, and write it all."""
    out, window = recipe.out, recipe.data.samples.window
    with _reading(recipe.saved(_BEST)) as file:
        best = torch.load(file, map_location="cpu", weights_only=True)
    learner.load_state_dict(best["state_dict"])
    weights, draft = dict(list_weights(learner.module)), out / "draft.safetensors"
    save_checkpoint(draft, weights, learner.spec)
    images = [image for image in material.images if image.name in set(rows[IMAGE])]
    judged = [Judged.of(image, material.annotations, rows) for image in images]
    probability = {image.name: predict(image, draft, window=window) for image in images}
    asked = recipe.threshold
    threshold, table = choose_threshold(judged, probability, asked.candidates, asked.min_area_m2)
    write_whole(out / "thresholds.csv", table.to_csv(index=False).encode())
    chosen = table.set_index("threshold").loc[threshold].to_dict()
    told = {
        "validation": {name: round(float(value), 4) for name, value in chosen.items()} | {"images": len(images)},
        "epoch": int(best["epoch"]),
    }
    asked_for = recipe.model_dump(mode="json", exclude={"out", "workers", "panels"})
    how = {"recipe": asked_for, "seconds": round(seconds), "epochs": len(pd.read_csv(out / METRICS))}
    spec = replace(learner.spec, threshold=threshold, training=how, metrics=told)
    told_hash = save_checkpoint(out / MODEL, weights, spec)
    draft.unlink()
    log.info("%s: threshold %g, %s", out / MODEL, threshold, json.dumps(told))
    return Trained(out / MODEL, told_hash, spec)


# -- the folder


@contextmanager
def _reading(file: Path) -> Iterator[Path]:
    """Refuse a checkpoint that is more than tensors and numbers: reading it would run its code."""
    try:
        yield file
    except pickle.UnpicklingError:
        what, mend = "the checkpoint is damaged, or would run code", "take it away, and begin the training anew"
        raise InputError(what, str(file), mend) from None


def _claim(recipe: TrainRecipe, *, resume: bool) -> None:
    """Take the folder for this recipe; refuse that of another."""
    file, is_begun = recipe.out / RECIPE, recipe.saved(_LAST).parent.is_dir()
    if is_begun and not resume:
        raise InputError("the folder holds a training", str(recipe.out), "resume it (--resume), or give another out")
    if not resume:
        write_whole(file, recipe.to_yaml().encode())
        return
    if not file.is_file():
        raise InputError("there is no training to resume", str(recipe.out), "leave out --resume")
    stored = type(recipe).model_validate(yaml.safe_load(file.read_text()))
    if differing := list_differences(stored.answer, recipe.answer):
        what = f"the training is of another recipe: {', '.join(differing)}"
        raise InputError(what, str(file), "resume with its own recipe, or give another out")


def _spell(kinds: pd.Series[Any]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.value_counts().items()) or "none"
