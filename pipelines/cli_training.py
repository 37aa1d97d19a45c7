"""Commands ``samples`` and ``train``. What is heavy is imported where it is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from lakescale.schema import InputError
from pipelines.cli_options import Debug, LogFormat

Recipe = Annotated[Path, typer.Argument(help="Recipe of a training, YAML.")]
Out = Annotated[Path | None, typer.Option(help="Folder of the run [the recipe's out].")]


def samples_command(recipe: Recipe, out: Out = None, log_format: LogFormat = None, debug: Debug = False) -> None:
    """Find the windows that a training would learn from, and count them by image and kind; nothing is trained."""
    from pipelines.train_recipe import read_train_recipe
    from training.samples import count_kinds
    from training.train import prepare

    asked = read_train_recipe(recipe, out=out)
    _, sides = prepare(asked)
    for side, rows in sides.items():
        typer.echo(f"{side}: {len(rows)} windows")
        if len(rows):
            typer.echo(count_kinds(rows).to_string())
    typer.echo(f"written to {asked.out / 'samples'}")


def train_command(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe of a training, YAML [that of the run resumed].")] = None,
    out: Out = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a training that was stopped: go on with it.")] = None,
    log_format: LogFormat = None,
    debug: Debug = False,
) -> None:
    """Train a model by a recipe, choose its threshold, and write its checkpoint."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads cost two thirds of a core that is shared
    from pipelines.train_recipe import read_train_recipe
    from training.train import RECIPE, train

    if recipe is None and resume is None:
        raise InputError("no recipe is given", "RECIPE", "give a file, or --resume RUN")
    if resume is not None and not (resume / RECIPE).is_file():
        raise InputError("there is no training to resume", str(resume), "give the folder of a run")
    asked = read_train_recipe(recipe or resume / RECIPE, out=resume or out)  # type: ignore[operator]
    done = train(asked, resume=resume is not None)
    for name, value in done.spec.metrics.items():
        typer.echo(f"{name}: {value}")
    typer.echo(f"written: {done.checkpoint}, threshold {done.spec.threshold:g}, hash {done.hash}")
