"""A small season on disk: three dates of 8-bit RGB on one grid, with a DEM, and the recipe of its run."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pandas as pd
import yaml
from cube_killer import tree
from map_scenes import write_scene
from test_map_sources import slope_with_bowl, write_dem

from pipelines.season_recipe import read_season_recipe

SIZE, CHUNK = 192, 96
CHUNKS = 4
DATES = ("2019-07-01", "2019-07-04", "2019-07-09")
LAYERS = ("seen", "color")
TABLES = ("lakes", "tracks", "events", "links", "catalogue")
A, B, C = (slice(20, 60), slice(20, 60)), (slice(90, 150), slice(70, 130)), (slice(20, 50), slice(120, 160))
WATER = {DATES[0]: (A, B, C), DATES[1]: (A, B), DATES[2]: (B, C)}


def rgb(lakes, size=SIZE):
    """Ice with lakes, and a border without data; ice that is as even as snow may hide water."""
    bright = np.random.default_rng(0).integers(195, 236, (size, size), dtype=np.uint8)
    picture = np.repeat(bright[None], 3, axis=0)
    for rows, cols in lakes:
        picture[:, rows, cols] = np.array([20, 100, 200], np.uint8)[:, None, None]
    picture[:, :, size - 10 :] = 0
    return picture


def write_season(folder, *, dem=True, dates=DATES, **options):
    """Write scenes, terrain and a recipe, whose paths start in the folder; hand back where the recipe lies."""
    folder.mkdir(parents=True, exist_ok=True)
    for day in dates:
        write_scene(folder / f"S2_{day}.tif", rgb(WATER[day]))
    values = {
        "scenes": {"source": ["S2_*.tif"], "chunks": CHUNK},
        "out": "RUN",
        "evidence": "color",
        "cluster": {"kind": "threads", "workers": 2, "dashboard": "none"},
    }
    if dem:
        write_dem(folder / "dem.tif", slope_with_bowl(*A, size=SIZE))
        values["dem"] = {"source": "dem.tif", "margin_m": 0}
    return write_recipe(folder, values | options)


def write_recipe(folder, values):
    (folder / "season.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / "season.yaml"


def change(path, **options):
    """Change entries of a recipe on disk."""
    return write_recipe(path.parent, yaml.safe_load(path.read_text()) | options)


def read(path, **options):
    return read_season_recipe(path, **options)


def answer(run):
    """All tables of a season, and the lakes of each date, as plain values."""
    files = [run / f"{name}.parquet" for name in TABLES]
    files += [run / "dates" / day / f"{name}.parquet" for day in DATES for name in ("lakes", "candidates", "not_seen")]
    return {str(path.relative_to(run)): pd.read_parquet(path).to_csv() for path in files if path.exists()}


def layers(run):
    """Bytes of the chunks of evidence of all dates, and of the sinks."""
    left_out = "catalogue/", ".partial"
    return {name: data for name, data in tree(run).items() if "/c/" in name and not any(x in name for x in left_out)}


def markers(run):
    """Inode and time of each commit marker, by stage, date and chunk: they tell whether it was written twice."""
    while True:
        with suppress(FileNotFoundError):  # of a store that was renamed meanwhile
            paths = [path for path in run.rglob("commits/*/*") if path.name.isdigit()]
            stats = [path.stat() for path in paths]
            keys = [str(path.relative_to(run)).replace("evidence.partial.zarr", "evidence.zarr") for path in paths]
            return {key: (stat.st_ino, stat.st_mtime_ns) for key, stat in zip(keys, stats, strict=True)}
