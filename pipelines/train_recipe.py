"""Recipes of trainings from YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lakescale.schema import InputError
from pipelines.recipe import in_our_words, read_yaml
from training.train_recipe import PRESETS, TrainRecipe, fill_in

if TYPE_CHECKING:
    from pathlib import Path


def read_train_recipe(path: Path, **options: Any) -> TrainRecipe:
    """Read a recipe; options that are not None win.

    Parameters
    ----------
    path
        YAML with the fields of `training.train_recipe.TrainRecipe`; ``preset: deeplab`` or ``preset: sam`` fills in
        what is not given.
    options
        Fields of the recipe.

    Raises
    ------
    InputError
        When the file cannot be read, there is no such preset, or a value is not allowed.
    """
    values = read_yaml(path) | {name: value for name, value in options.items() if value is not None}
    preset = values.get("preset")
    if preset is not None and preset not in PRESETS:
        raise InputError(f"no preset {preset!r}", f"{path}: preset", f"choose one of {', '.join(PRESETS)}")
    try:
        return TrainRecipe.model_validate(fill_in(values))
    except ValidationError as error:
        raise in_our_words(error, str(path), {}) from None
