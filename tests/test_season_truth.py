"""A synthetic season from scenes on disk to its catalogue, judged by its truth; `benchmarks.season` has a large one."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from pipelines.season import map_season
from pipelines.season_recipe import read_season_recipe


@pytest.mark.slow
def test_a_season_is_what_it_truly_is(tmp_path, monkeypatch):
    """A dozen lakes, single and twin, under cloud and shadow: identity, drainages, volumes; prediction beside fact."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[1])])  # benchmarks are not installed
    bench, judged, scenes = (
        importlib.import_module(f"benchmarks.{name}") for name in ("season", "season_judge", "season_scenes")
    )
    dates, season = scenes.DATES[1:7], scenes.TrueSeason.make(690, seed=3)
    cluster = {"kind": "threads", "workers": 2, "dashboard": "none"}
    recipe = bench.write_season(season, tmp_path, dates, cluster=cluster, report=False)
    map_season(read_season_recipe(recipe))
    told = judged.judge(tmp_path / "RUN", season, bench.read_truth(season, dates), scenes.depth_of_index(bench.INDEX))
    assert told["mapped outlines"] >= 30
    assert told["mapped outlines on no true lake"] <= 2
    assert told["identity: precision"] >= 0.98
    assert told["identity: recall"] >= 0.93
    assert told["drainages of lakes that freeze or stay"] == 0
    assert told["rapid drainages: precision"] == told["rapid drainages: recall of these"] == 1
    assert told["rapid drainages that were seen for sure"] >= 3
    assert told["sudden drainages whose bracket holds the true day"] == 1
    assert told["volumes by the bed known"] >= 25
    assert told["volumes by the bed: median error"] <= 0.1
    assert told["true volume within the interval"] >= 0.85
    assert told["volumes by reflectance: median error"] <= 0.35  # of three lakes
    of_run = json.loads((tmp_path / "RUN/manifest.json").read_text())["season"]
    for name in ("tasks", "bytes"):
        assert 1 / 1.5 < of_run["measured"][name] / of_run["predicted"][name] < 1.5
