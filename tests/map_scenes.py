"""Small scenes and areas to map, and the command as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from pipelines import cli
from pipelines.recipe import read_recipe

FILES = {
    "recipe.yaml", "manifest.json", "evidence.zarr", "lakes.parquet", "lakes.gpkg", "candidates.parquet",
    "quicklook.png", "overview.webp", "report.html",
}  # fmt: skip


def lakescale(*arguments, **options):
    """Run the command as a user does."""
    environment = {**os.environ, **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "lakescale", *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment, timeout=300, **options,
    )  # fmt: skip


def run_here(monkeypatch, *arguments):
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["lakescale", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def recipe(scene, out, **options):
    """A recipe for threads; unless it is told otherwise, without a model and without fusion: what most tests test."""
    options = {"cluster__kind": "threads", "cluster__dashboard": "none", "models": "none", "fuse": "none", **options}
    return read_recipe(None, scene__source=str(scene), out=out, **options)


def write_scene(path, bands, *, crs="EPSG:32622", resolution=10.0, nodata=0, names=None, origin=(600_000, 7_430_000)):
    bands = np.asarray(bands)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2], dtype=bands.dtype,
        crs=crs, transform=from_origin(*origin, resolution, resolution), nodata=nodata, compress="deflate", tiled=True,
        blockxsize=64, blockysize=64,
    ) as sink:  # fmt: skip
        sink.write(bands)
        for i, name in enumerate(names or [], 1):
            sink.set_band_description(i, name)
    return path


def rgb_with_lakes(size=200):
    """8-bit RGB: a square lake, a lake with a lid, a stream, a speck; and a border without data."""
    rgb = np.full((3, size, size), 220, np.uint8)
    water = np.zeros((size, size), bool)
    water[20:60, 20:60] = True
    water[100:160, 100:160] = True
    water[125:135, 125:135] = False
    water[170:182, 5:165] = True
    rgb[:, water] = np.array([[20], [100], [200]], np.uint8)
    rgb[:, :, 190:] = 0
    return rgb


def as_set(frame):
    columns = sorted(set(frame.columns) - {"geometry"})
    return [tuple(row) for row in frame[columns].itertuples(index=False)], [g.wkb_hex for g in frame.geometry]


def write_areas(path, *boxes, crs="EPSG:32622"):
    gpd.GeoDataFrame(geometry=[shapely.box(*box) for box in boxes], crs=crs).to_file(path)
    return path
