"""The README's commands and examples do what it says they print."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def assert_alike(printed, shown):
    """The same words; and the same numbers, but for what a model's last digits on another processor may move."""
    number = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
    assert re.sub(r" +", " ", number.sub("#", printed)) == re.sub(r" +", " ", number.sub("#", shown))
    found, told = ([float(one) for one in number.findall(text)] for text in (printed, shown))
    assert found == pytest.approx(told, rel=0.02, abs=2)


def run_as_the_readme_says(name, folder, data_dir):
    command = next(line for block in blocks("sh") for line in block.splitlines() if f"lakescale {name}" in line)
    arguments = command.split(".venv/bin/lakescale ", 1)[1]
    return subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m lakescale {arguments}"],
        capture_output=True, text=True, check=True, cwd=folder, env={**os.environ, "LAKESCALE_DATA": str(data_dir)},
    )  # fmt: skip


@pytest.mark.slow
def test_the_demo_prints_what_the_readme_shows(tmp_path):
    done = run_as_the_readme_says("demo", tmp_path, "")
    assert_alike(done.stdout, blocks("text")[0])
    scores = json.loads((tmp_path / "DEMO" / "score.json").read_text())
    assert scores["lakes"]["f1"] > max(scores["color"]["f1"], scores["index"]["f1"])
    assert (tmp_path / "DEMO" / "quicklook.png").stat().st_size > 100_000


@pytest.mark.slow
def test_the_map_of_the_real_scene_prints_what_the_readme_shows(data_dir, tmp_path):
    done = run_as_the_readme_says("map", tmp_path, data_dir)
    assert_alike(done.stdout, blocks("text")[1])
    assert (tmp_path / "RUN" / "quicklook.png").stat().st_size > 100_000


def test_the_python_example_prints_what_the_readme_shows(data_dir):
    code = blocks("python")[0].replace("../shared/data", str(data_dir))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "README.md", "exec"), {})
    assert said.getvalue() == blocks("text")[2]
