"""The wheel that users install: built from the tree, it holds what the code reads at run time, and works alone."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lakescale", "pipelines", "training")
READ_AT_RUN_TIME = {
    "lakescale/models/weights/lakes_small.safetensors",
    "lakescale/py.typed",
    "pipelines/report_assets/leaflet/leaflet.js",
    "pipelines/report_assets/leaflet/leaflet.css",
    "pipelines/report_assets/leaflet/LICENSE",
    "pipelines/report_assets/page.html",
    "training/labels/lakes.geojson",
    "training/recipes/lakes_small.yaml",
}
LIMIT_MB = 13
SAY = """
import lakescale, pipelines, training
from lakescale.models.checkpoint import describe_checkpoint
from lakescale.models.shipped import shipped_checkpoint
from training.labels.reading import labelled_images, read_labels
for package in (lakescale, pipelines, training):
    print(package.__file__)
print(describe_checkpoint(shipped_checkpoint()).spec.architecture)
print(all(len(read_labels(image)) for image in labelled_images()))
"""


def pip(*arguments):
    run = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


def run_installed(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    run = [sys.executable, *arguments]
    return subprocess.run(run, capture_output=True, text=True, check=True, env=environment, cwd=folder).stdout.split()


@pytest.mark.slow
def test_the_wheel_holds_what_the_tree_holds_and_no_more(wheel):
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    own = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    assert files == {path.relative_to(ROOT).as_posix() for path in own if path.parent.name != "__pycache__"}
    assert files >= READ_AT_RUN_TIME
    assert wheel.stat().st_size < LIMIT_MB * 1e6


@pytest.mark.slow
def test_what_is_installed_works_without_the_tree(wheel, tmp_path):
    pip("install", "--no-deps", "--target", tmp_path, wheel)
    *places, model, is_labelled = run_installed(tmp_path, "-c", SAY)
    assert places == [str(tmp_path / package / "__init__.py") for package in PACKAGES]
    assert (model, is_labelled) == ("unet", "True")
    version = run_installed(tmp_path, "-m", "lakescale", "--version")
    assert version[-1] in wheel.name
    assert run_installed(tmp_path, tmp_path / "bin" / "lakescale", "--version") == version
    about = run_installed(tmp_path, "-m", "lakescale", "--help")
    assert {"map", "season", "info", "report"} <= set(about)
