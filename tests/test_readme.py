"""The README's commands and examples do what it says they print."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.slow
def test_the_first_command_prints_what_the_readme_shows(data_dir, tmp_path):
    command = next(line for line in blocks("sh")[0].splitlines() if "lakescale map" in line)
    arguments = command.split(".venv/bin/lakescale ", 1)[1]
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m lakescale {arguments}"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ, "LAKESCALE_DATA": str(data_dir)},
    )  # fmt: skip
    assert done.stdout == blocks("text")[0]
    assert (tmp_path / "RUN" / "quicklook.png").stat().st_size > 100_000


def test_the_python_example_prints_what_the_readme_shows(data_dir):
    code = blocks("python")[0].replace("../shared/data", str(data_dir))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "README.md", "exec"), {})
    assert said.getvalue() == blocks("text")[1]
