"""A synthetic season from files to its catalogue by the command ``lakescale season``, judged by the truth.

    python -m benchmarks.season FOLDER [--size 4096] [--seed 3] [--dates 8] [--workers 2] [--fused]

It makes the scenes in FOLDER/input where they are not there, runs the season in FOLDER/RUN from the start, and prints a
table: what was found, seconds a date, the largest peak of a worker, prediction beside fact.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.season_judge import judge
from benchmarks.season_scenes import DATES, TrueSeason, depth_of_index
from benchmarks.worker_memory import peak_rss_mb
from lakescale.cluster import open_cluster
from pipelines.season import map_season
from pipelines.season_recipe import read_season_recipe

if TYPE_CHECKING:
    import geopandas as gpd

CHUNK, INDEX = 1024, 0.15
_FUSED = dict.fromkeys(("evidence", "index_threshold", "min_sink_share", "rules"))
"""Entries that a recipe lacks which takes all evidence and the rules on polygons, as by default."""
_PREDICTED = ("tasks", "bytes", "seconds")


def write_season(season: TrueSeason, folder: Path, dates: tuple[str, ...] = DATES, **options: Any) -> Path:
    """Write scenes, terrain and the recipe, without the options that are None, and hand back where that lies."""
    scenes = season.write(folder / "input", dates)
    recipe = {
        "scenes": {"source": [str(path) for path in scenes], "chunks": CHUNK},
        "out": str(folder / "RUN"),
        "dem": {"source": str(folder / "input/dem.tif"), "margin_m": 0},
        "evidence": "index",
        "index_threshold": INDEX,
        "volume": {"outline_depth_m": round(depth_of_index(INDEX), 2)},
        "min_sink_share": 0.3,
        "rules": {"gap_m": 0},  # twins lie closer than that, and no model says what of the index is sprinkled slush
        "title": "A synthetic season",
        **options,
    }
    path = folder / "season.yaml"
    asked = {name: value for name, value in recipe.items() if value is not None}
    path.write_text(yaml.safe_dump(asked, sort_keys=False))
    return path


def measure(recipe: Path, dates: int, workers: int) -> dict[str, Any]:
    """Run the first dates of a season on fresh workers: seconds a date, and the largest peak of a worker."""
    with open_cluster("local", workers=workers, dashboard="none") as client:
        asked = read_season_recipe(recipe)
        scene = asked.scene.model_copy(update={"source": asked.scene.source[:dates]})
        cluster = asked.cluster.model_copy(update={"kind": client.scheduler.address, "workers": None})
        out = asked.out.with_name(f"RUN_{dates}")
        shutil.rmtree(out, ignore_errors=True)
        done = map_season(asked.model_copy(update={"scene": scene, "cluster": cluster, "out": out}))
        peak = max(client.run(peak_rss_mb).values())
    shutil.rmtree(out)
    return {"seconds a date": done.measured["seconds"] / dates, "peak, MB": peak}


def run_command(recipe: Path, workers: int) -> dict[str, Any]:
    """Run ``lakescale season`` as a user does, and read what it says of itself."""
    command = [sys.executable, "-m", "lakescale", "season", str(recipe), "--workers", str(workers), "--overwrite"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    told = json.loads((recipe.parent / "RUN/manifest.json").read_text())
    return {"predicted": told["season"]["predicted"], "measured": told["season"]["measured"], "state": told["state"]}


def read_truth(season: TrueSeason, dates: tuple[str, ...] = DATES) -> dict[str, gpd.GeoDataFrame]:
    """Outline the true lakes of each date."""
    return {day: season.lakes(day) for day in dates}


def main(arguments: list[str] | None = None) -> None:
    """Make, run, judge, print."""
    asked = _read_options(arguments)
    logging.basicConfig(level=logging.WARNING)
    dates = DATES[: asked.dates]
    season = TrueSeason.make(asked.size, asked.seed)
    recipe = write_season(season, asked.folder, dates, **(_FUSED if asked.fused else {}))
    if asked.scale:
        few, many = (measure(recipe, count, asked.workers) for count in (2, len(dates)))
        for name in few:
            _print(
                f"{name}, 2 dates and {len(dates)}", f"{few[name]:.1f}, {many[name]:.1f}, {many[name] / few[name]:.2f}"
            )
        return
    told = run_command(recipe, asked.workers)
    for name in _PREDICTED:
        predicted, measured = told["predicted"][name], told["measured"][name]
        _print(f"{name}: predicted, measured", f"{predicted:,.0f}, {measured:,.0f}, {measured / predicted:.2f}")
    for name, value in judge(asked.folder / "RUN", season, read_truth(season, dates), depth_of_index(INDEX)).items():
        _print(name, f"{value:.3f}" if isinstance(value, float) else value)


def _print(name: str, value: Any) -> None:
    sys.stdout.write(f"| {name} | {value} |\n")
    sys.stdout.flush()


def _read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--dates", type=int, default=len(DATES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fused", action="store_true", help="all evidence and the rules of polygons, as by default")
    parser.add_argument("--scale", action="store_true", help="compare two dates with all, instead of judging")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
