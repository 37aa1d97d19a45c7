"""The documentation: its commands run, its names exist, its messages are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

import lakescale
from pipelines.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"), key=lambda path: (path.stem != "index", path.stem))
FENCE = re.compile(
    r"(?:<!-- (?P<note>[^>]*) -->\n)?```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<text>.*?)```", re.DOTALL
)
OTHERS = {  # options of other commands that the pages name
    "--quiet", "--interface", "--nworkers", "--nthreads", "--resources", "--no-dashboard", "--death-timeout",
    "--job-name", "--partition", "--account", "--time", "--array", "--ntasks", "--cpus-per-task", "--mem", "--gres",
    "--local", "--python", "--quick", "--seeds", "--strict", "--dist", "--max_depth",
}  # fmt: skip


class Fence(NamedTuple):
    """A block of a page."""

    note: str
    """What a comment above it says: why, or by what, it is run or not."""
    language: str
    options: str
    text: str


def fences(page):
    return [Fence(*(found[name] or "" for name in Fence._fields)) for found in FENCE.finditer(page.read_text())]


def named(path):
    return str(path.relative_to(ROOT))


@cache
def options_of_commands():
    def walk(command):
        yield from (name for param in command.params for name in (*param.opts, *param.secondary_opts))
        for inner in getattr(command, "commands", {}).values():
            yield from walk(inner)

    return {*walk(typer.main.get_command(app)), "--help", "--install-completion", "--show-completion"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data_dir):
    """Where all guides run, one after the other, with ``lakescale`` on the path."""
    home = tmp_path_factory.mktemp("guides")
    shim = home / "bin" / "lakescale"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lakescale "$@"\n')
    shim.chmod(0o755)
    path = os.pathsep.join([str(shim.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    work = home / "work"
    work.mkdir()
    return work, {**os.environ, "PATH": path, "LAKESCALE_DATA": str(data_dir)}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_runs_from_top_to_bottom(page, folder):
    """What stands in a file's fence is written, what stands in a shell's is run, and what is shown is printed."""
    work, environment = folder
    said = ""
    for fence in fences(page):
        title = re.search(r'title="([^"]+)"', fence.options)
        if fence.note.startswith("not run"):
            continue
        if title:
            (work / title[1]).write_text(fence.text)
        elif fence.language in ("sh", "python"):
            shell = ["bash", "-euo", "pipefail", "-c"] if fence.language == "sh" else [sys.executable, "-c"]
            done = subprocess.run(
                [*shell, fence.text], check=False, capture_output=True, text=True, cwd=work, env=environment
            )
            assert done.returncode == 0, f"{page.name}: {fence.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            said = done.stdout
        elif fence.language == "text":
            assert fence.text.strip() in said, f"{page.name}: {fence.text}"


def test_guides_tell_of_every_block_that_is_not_run_why():
    skipped = [fence for page in GUIDES for fence in fences(page) if fence.note.startswith("not run")]
    assert all(re.fullmatch(r"not run: .{10,}", fence.note) for fence in skipped)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GUIDES], ids=named)
def test_commands_outside_the_guides_say_what_runs_them(page):
    """README's are run by CI and tests; elsewhere a comment names the test, or why there is none."""
    for fence in fences(page):
        if fence.language != "sh":
            continue
        assert fence.note, f"{named(page)}: nothing says whether this is run:\n{fence.text}"
        by = re.fullmatch(r"run by (?P<test>\S+)", fence.note)
        if by:
            assert (ROOT / by["test"]).is_file(), fence.note
        elif page.name != "README.md":
            assert re.fullmatch(r"not run: .{10,}", fence.note)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_options_that_pages_name_exist(page):
    text = re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.DOTALL)
    found = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    assert found <= options_of_commands() | OTHERS


def test_every_public_name_has_its_place_in_the_reference():
    listed = [
        line.removeprefix("::: lakescale.")
        for page in (ROOT / "docs" / "api").glob("*.md")
        for line in page.read_text().splitlines()
        if line.startswith(":::")
    ]
    assert sorted(path.rsplit(".", 1)[-1] for path in listed) == sorted(lakescale.__all__)
    for path in listed:
        public = getattr(lakescale, path.rsplit(".", 1)[-1])
        assert f"{public.__module__}.{public.__name__}" == f"lakescale.{path}"


def test_messages_that_are_explained_are_those_of_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    quoted = re.findall(r"^### `(.+)`$", page, flags=re.MULTILINE)
    assert len(quoted) > 20
    code = " ".join(
        re.sub(r"\s+", " ", path.read_text())
        for folder in ("lakescale", "pipelines", "training")
        for path in (ROOT / folder).rglob("*.py")
    )
    for message in quoted:
        parts = [re.escape(part.strip()) for part in message.split("...") if part.strip()]
        for part in parts:
            assert re.search(part, code), f"no error says {part!r}"


def test_commands_of_the_pages_are_commands():
    commands = set(typer.main.get_command(app).commands)
    for page in PAGES:
        for fence in fences(page):
            if fence.language == "sh":
                named_there = re.findall(r"(?<![\w/.-])lakescale ([a-z]+)", fence.text)
                assert set(named_there) <= commands, named(page)
