"""Draw the three dates of the Amery doline as `lakescale season` maps and tracks them by color.

LAKESCALE_DATA=DATA python docs/figures/amery_season.py docs/img/amery_season.jpg
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import geopandas as gpd
import matplotlib as mpl
import pandas as pd

import lakescale as ls
from pipelines.season import map_season
from pipelines.season_recipe import read_season_recipe

mpl.use("Agg")
import matplotlib.pyplot as plt

COLORS = {
    "water": "#0033cc", "partly seen": "#8833cc", "lidded": "#00a0a0", "snow": "#b0a000", "empty": "#c03030",
    "dry or lidded": "#e07000",
}  # fmt: skip
RECIPE = """
scenes: {scenes}
out: {out}
evidence: color
track: {{preset: antarctica}}
title: The Amery doline
cluster: {{kind: threads, workers: 2, dashboard: none}}
report: false
"""


def run(folder: Path) -> Path:
    """Map and track the season."""
    scenes = Path(os.environ["LAKESCALE_DATA"]) / "scenes/amery_doline/*.tiff"
    recipe = folder / "season.yaml"
    recipe.write_text(RECIPE.format(scenes=scenes, out=folder / "RUN"))
    map_season(read_season_recipe(recipe))
    return folder / "RUN"


def draw(run_folder: Path, target: Path) -> None:
    """Draw each date with its lakes filled, and the ground of all tracks by state."""
    lakes = gpd.read_parquet(run_folder / "lakes.parquet")
    states = pd.read_parquet(run_folder / "tracks.parquet")
    seasons = gpd.read_parquet(run_folder / "catalogue.parquet")
    ground = seasons.dissolve("track_id").reset_index()[["track_id", "geometry"]]
    files = sorted((Path(os.environ["LAKESCALE_DATA"]) / "scenes/amery_doline").glob("*.tiff"))
    scenes = sorted((ls.open_scene(file) for file in files), key=lambda scene: scene.time.values)
    figure, panels = plt.subplots(3, 1, figsize=(9, 15.2), layout="constrained")
    for panel, scene in zip(panels, scenes, strict=True):
        day, grid = pd.Timestamp(scene.time.values), ls.Grid.of(scene)
        left, bottom, right, top = grid.bounds_xyxy
        panel.imshow(
            scene.sel(band=["red", "green", "blue"]).values.transpose(1, 2, 0), extent=(left, right, bottom, top)
        )
        lakes[lakes.time == day].plot(ax=panel, color="#3388ff55", edgecolor="none")
        told = ground.merge(states[states.time == day], on="track_id")
        told.boundary.plot(ax=panel, color=[COLORS[state] for state in told.state], linewidth=1.4)
        count = told.state.value_counts()
        panel.set_title(f"{day:%Y-%m-%d}: " + ", ".join(f"{n} {name}" for name, n in count.items()), fontsize=11)
        panel.set_axis_off()
    handles = [plt.Line2D([], [], color=color, label=state) for state, color in COLORS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(target, dpi=80, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        draw(run(Path(scratch)), Path(sys.argv[1]))
