"""The command's face: help at once, versions, recipes, exit codes."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import lakescale
from lakescale.schema import InputError, LakescaleError, RunError
from pipelines.recipe import read_recipe

ROOT = Path(__file__).parents[1]


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_lakescale_loads_nothing_heavy():
    loaded = python("import lakescale, sys; print(' '.join(sorted({m.split('.')[0] for m in sys.modules})))").split()
    assert not {"xarray", "torch", "geopandas", "dask", "numpy", "pandas", "numba", "rasterio"} & set(loaded)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['lakescale', 'map', '--help']\n"
        "from pipelines.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(' '.join(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    loaded = python(code).splitlines()[-1].split()
    assert not {"xarray", "torch", "geopandas", "dask", "numpy", "pandas", "yaml", "matplotlib"} & set(loaded)


def test_the_public_face_is_there():
    for name in lakescale.__all__:
        assert getattr(lakescale, name).__doc__, name


@pytest.mark.parametrize(
    "module",
    [
        "lakescale.regions", "lakescale.polygons", "lakescale.rules", "lakescale.evidence.color", "lakescale.schema",
        "lakescale.scene.opening", "lakescale.scene.seen", "lakescale.scene.names", "lakescale.cluster",
    ],
)  # fmt: skip
def test_examples_in_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0


def test_version_and_unknown_options():
    run = [sys.executable, "-m", "lakescale"]
    done = subprocess.run([*run, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"lakescale {lakescale.__version__}\n"
    wrong = subprocess.run([*run, "map", "--no-such-option"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_debug_shows_the_traceback(tmp_path):
    run = [
        sys.executable,
        "-m",
        "lakescale",
        "map",
        "--scene",
        str(tmp_path / "gone.tif"),
        "--out",
        str(tmp_path / "R"),
    ]
    quiet = subprocess.run(run, capture_output=True, text=True, check=False)
    loud = subprocess.run([*run, "--debug"], capture_output=True, text=True, check=False)
    assert (quiet.returncode, "Traceback" in quiet.stderr) == (2, False)
    assert "Traceback" in loud.stderr
    assert loud.returncode != 0


def test_recipes_round_trip_through_yaml(tmp_path):
    asked = read_recipe(None, scene__source=["a.tif", "b.tif"], out=tmp_path, rules__neck_px=3, cluster__workers=2)
    (tmp_path / "recipe.yaml").write_text(asked.to_yaml())
    assert read_recipe(tmp_path / "recipe.yaml") == asked
    changed = read_recipe(tmp_path / "recipe.yaml", preset="cup")
    assert (changed.preset, changed.scene.source) == ("cup", ["a.tif", "b.tif"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out: RUN", "no scene is given"),
        ("scene: {source: a.tif}\nout: R\ncolour: red", "recipe.yaml: colour"),
        ("scene: {source: a.tif, chunks: 0}\nout: R", "recipe.yaml: scene.chunks"),
        ("scene: {source: a.tif}\nout: R\nrules: {neck: 3}", "no polygon rule 'neck'"),
        ("scene: {source: a.tif}\nout: R\nevidence: guess", "recipe.yaml: evidence"),
        ("scene: {source: a.tif}", "no out is given"),
        ("scene: {source: a.tif}\nout: R\nrules: {min_area_m2: .nan}", "min_area_m2 must be a number"),
        ("- a list", "no mapping"),
        ("a: [", "cannot be read"),
        ("!!python/object/apply:os.system ['touch /tmp/owned']", "cannot be read"),
    ],
)
def test_wrong_recipes_are_named(tmp_path, text, message):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(tmp_path / "recipe.yaml")
    assert message in str(caught.value)


def test_options_fill_empty_sections_and_refuse_wrong_ones(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("scene: {source: a.tif, date: 2019-07-23}\nout: R\nrules:\n")
    asked = read_recipe(path, rules__neck_px=3)
    assert (asked.scene.date, asked.rules) == ("2019-07-23", {"neck_px": 3})
    path.write_text("scene: a.tif\nout: R\ncluster: local")
    assert read_recipe(path, cluster={}).scene.source == ["a.tif"]
    with pytest.raises(InputError, match="cluster must be a mapping"):
        read_recipe(path, cluster__workers=2)


def test_errors_have_three_parts_and_survive_pickling():
    import pickle

    error = InputError("bands are missing", "scene.tif", "name them with bands=[...]")
    assert str(error) == "bands are missing [scene.tif]. Name them with bands=[...]"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.what, again.item, again.mend) == (InputError, error.what, error.item, error.mend)
    assert (InputError.exit_code, RunError.exit_code) == (2, 1)
    assert issubclass(InputError, LakescaleError)


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="README.md is not beside the tests")
def test_the_readmes_options_exist():
    text = (ROOT / "README.md").read_text()
    environment = {**os.environ, "COLUMNS": "200"}
    help_text = subprocess.run(
        [sys.executable, "-m", "lakescale", "map", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout
    for line in re.findall(r"^.*lakescale map .*$", text, flags=re.MULTILINE):
        for option in re.findall(r" (--[a-z-]+)", line.split("lakescale map", 1)[1]):
            assert option in help_text, option


def test_the_ci_finds_the_readmes_test_command():
    section = (ROOT / "README.md").read_text().split("<!-- tests -->")[1].split("<!-- /tests -->")[0]
    commands = [line for line in section.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 1
    assert "pytest" in commands[0]


def test_pre_commit_runs_what_ci_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {hook["id"] for hook in hooks["repos"][0]["hooks"]} >= {
        "ruff-check",
        "ruff-format",
        "mypy",
        "import-contracts",
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell):
    def complete(words):
        environment = {**os.environ, "_LAKESCALE_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words}
        environment |= {
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        code = "import sys; sys.argv = ['lakescale']; from pipelines.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
        ).stdout

    assert "season" in complete("lakescale s")
    assert "sinks" in complete("lakescale s")
    assert "ingest" not in complete("lakescale s")
    assert "--performance-report" in complete("lakescale map --perf")


def test_completion_can_be_shown_for_a_shell():
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    run = [sys.executable, "-m", "lakescale", "--show-completion", "bash"]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    assert "_LAKESCALE_COMPLETE=complete_bash" in done.stdout
    assert done.stdout.rstrip().endswith("lakescale")
