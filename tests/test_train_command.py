"""`lakescale samples` and `lakescale train`, from a recipe in YAML."""

from __future__ import annotations

import re

import pytest
import typer
import yaml
from train_recipes import small_recipe, write_images
from typer.testing import CliRunner

from lakescale.models import describe_checkpoint
from lakescale.schema import InputError
from pipelines.cli_training import samples_command, train_command
from pipelines.train_recipe import read_train_recipe

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
]

app = typer.Typer()
app.command("samples")(samples_command)
app.command("train")(train_command)


def run(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_samples_then_a_training_then_none_to_resume(tmp_path):
    write_images(tmp_path, names=("a", "c"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(small_recipe(tmp_path, epochs=1).to_yaml())
    told = run("samples", recipe)
    assert re.search(r"train: 9 windows\n(.*\n)+.*a_2019-07-23", told)
    assert "validation: 9 windows" in told
    told = run("train", recipe)
    info = describe_checkpoint(tmp_path / "run" / "model.safetensors")
    assert f"threshold {info.spec.threshold:g}, hash {info.hash}" in told
    with pytest.raises(InputError, match="the folder holds a training"):
        run("train", recipe)
    again = run("train", "--resume", tmp_path / "run")
    assert info.hash in again
    with pytest.raises(InputError, match="no training to resume"):
        run("train", recipe, "--resume", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no recipe is given .* --resume RUN"):
        run("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "unet"}, "no preset 'unet'"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"optimizer": {"name": "adam"}}, "no optimizer.lr is given"),
        ({"loss": {}}, "a training needs a loss"),
        ({"data": {"sources": ["a.zarr"]}}, "sources need lakes"),
        ({"data": {"lakes": "a.gpkg"}}, "a training needs images"),
        ({"colour": 1}, "there is no such entry in a recipe"),
    ],
)
def test_mistakes_in_a_recipe_are_told(tmp_path, change, message):
    values = yaml.safe_load(small_recipe(tmp_path).to_yaml()) | change
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=message):
        read_train_recipe(tmp_path / "recipe.yaml")
