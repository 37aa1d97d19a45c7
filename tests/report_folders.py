"""Folders for the report: a run of very many lakes, put together by hand."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import rasterio.features
import scipy.ndimage
import shapely

from lakescale.report import draw_image

TILE, PIXEL, LEFT, TOP = 1024, 10.0, 500_000.0, 7_600_000.0
SIDE_TILES = 8
"""Tiles a side of the grid."""


def write_large_run(folder, *, lakes=10_000, dropped=40_000, seed=3):
    """Write what a run leaves of a scene that is full of lakes, with an image that hardly gets smaller."""
    folder.mkdir()
    side = TILE * SIDE_TILES
    large, small = _spread(_blobs(seed, 3.0), lakes, seed), _spread(_blobs(seed + 1, 1.2), dropped, seed + 1)
    frame = _frame(large, "kept").assign(
        lake_id=np.arange(1, lakes + 1), time=np.datetime64("2019-07-23", "ms"), index_share=np.linspace(0.5, 1, lakes),
        seen_share=1.0, sink_share=np.random.default_rng(seed).random(lakes),
    )  # fmt: skip
    frame.to_parquet(folder / "lakes.parquet")
    _frame(np.concatenate([large, small]), ["kept"] * lakes + ["smaller than the least area"] * dropped).to_parquet(
        folder / "candidates.parquet"
    )
    noise = np.random.default_rng(seed).random((3, 2048, 2048), np.float32)
    noise[:, 500:900, 300:1200] = np.nan
    draw_image(folder / "overview.webp", noise)
    bounds = LEFT, TOP - side * PIXEL, LEFT + side * PIXEL, TOP
    manifest = {
        "state": "finished", "versions": {"lakescale": "0"}, "recipe": {}, "date": "2019-07-23",
        "grid": {"crs": "EPSG:32622", "shape": [side, side], "bounds": bounds}, "overview_step": 4,
        "seen_share": 0.9, "notes": ["made by hand"], "seconds": {"compute": 1.5},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _blobs(seed, sigma):
    """Outline smooth blobs of pixels on one tile."""
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((TILE, TILE)), sigma)
    water = noise > np.quantile(noise, 0.92)
    shapes = rasterio.features.shapes(water.astype(np.uint8), mask=water, connectivity=4)
    return np.array([shapely.geometry.shape(shape) for shape, _ in shapes], object)


def _spread(blobs, count, seed):
    """Repeat the blobs of a tile over the grid, a number of them, in metres."""
    tiles = np.random.default_rng(seed).permutation(SIDE_TILES**2)
    found, total = [], 0
    for tile in tiles:
        corner = np.array(divmod(int(tile), SIDE_TILES)) * TILE
        found.append(shapely.transform(blobs, lambda xy, at=corner: (xy + at) * [PIXEL, -PIXEL] + [LEFT, TOP]))
        total += len(blobs)
        if total >= count:
            return np.concatenate(found)[:count]
    raise AssertionError(f"only {total} blobs fit on the grid, {count} are asked for")


def _frame(shapes, reason):
    areas = shapely.area(shapes)
    return gpd.GeoDataFrame({"area_m2": areas, "area_3857_m2": areas, "reason": reason}, geometry=shapes, crs=32622)
