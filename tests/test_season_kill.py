"""A season that is killed: one more run ends in the same results, and computes no finished chunk of a date again."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
from season_scenes import CHUNKS, DATES, LAYERS, answer, layers, markers, read, write_season

from pipelines.season import map_season

HERE = Path(__file__).parent
KILLED = DATES[:2]
ALL_CHUNKS = CHUNKS * (1 + len(KILLED) * len(LAYERS))
"""Of the sinks and of the layers of all dates."""
RUN_ERROR = 11


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peace")
    with chdir(folder):
        map_season(read(write_season(folder, dates=KILLED)))
    assert len(markers(folder / "RUN")) == ALL_CHUNKS
    return folder / "RUN"


def kill(recipe, what, number, seed):
    command = [sys.executable, str(HERE / "season_killer.py"), what, str(recipe), str(number), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550, check=False, cwd=HERE)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_the_same(run, undisturbed):
    assert answer(run) == answer(undisturbed)
    assert layers(run) == layers(undisturbed)
    told = json.loads((run / "manifest.json").read_text())
    assert told["state"] == "finished"
    assert not [path for path in run.rglob("*") if ".partial" in path.name]


@pytest.mark.slow
def test_drivers_killed_at_many_of_their_changes_to_the_disk(undisturbed, tmp_path):
    recipe = write_season(tmp_path, dates=KILLED)
    told = kill(recipe, "driver", number=45, seed=1)
    assert told["kills"] >= 13  # how many there are hangs on which thread writes first
    assert len(set(told["moments"])) > 4
    is_the_same(tmp_path / "RUN", undisturbed)


@pytest.mark.slow
def test_workers_killed(undisturbed, tmp_path):
    recipe = write_season(tmp_path, dates=KILLED)
    told = kill(recipe, "worker", number=4, seed=2)
    assert told["kills"] == 4
    is_the_same(tmp_path / "RUN", undisturbed)


@pytest.mark.slow
def test_schedulers_killed(undisturbed, tmp_path):
    recipe = write_season(tmp_path, dates=KILLED)
    told = kill(recipe, "scheduler", number=3, seed=3)
    assert told["kills"] == 3
    assert told["codes"] == [RUN_ERROR] * 3
    is_the_same(tmp_path / "RUN", undisturbed)
