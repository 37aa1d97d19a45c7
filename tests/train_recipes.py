"""A small training: cubes of blue lakes on noisy ice, drawn in a vector file, and a recipe for them."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
from training_scenes import blobs, plain_mask, to_frame, write_cube

from training.train_recipe import TrainRecipe

DAY = "2019-07-23"
SHAPE, WINDOW = (96, 96), 32


def ice_with_lakes(rng, shapes, shape=SHAPE):
    """8-bit red, green and blue."""
    ice = rng.normal((200, 205, 215), 6, (*shape, 3))
    ice[plain_mask(shapes, shape)] = rng.normal((40, 110, 170), 6, (int(plain_mask(shapes, shape).sum()), 3))
    return np.moveaxis(ice.clip(1, 255).astype(np.uint8), -1, 0)


def write_images(folder, names=("a", "b", "c"), seed=5):
    """A cube for each name, and ``lakes.gpkg``; paths of the cubes."""
    rng, frames, cubes = np.random.default_rng(seed), [], []
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shapes = blobs(rng, 5, SHAPE, (8, 16))
        cubes.append(str(write_cube(folder / f"{name}.zarr", {DAY: ice_with_lakes(rng, shapes)}, 64)))
        frames.append(to_frame(shapes, image=f"{name}_{DAY}"))
    gpd.GeoDataFrame(pd.concat(frames, ignore_index=True)).to_file(folder / "lakes.gpkg")
    return cubes


def small_recipe(folder, out="run", **changes):
    """A recipe of seconds; sections are changed entry by entry."""
    values = {
        "out": str(folder / out),
        "seed": 3,
        "network": {
            "architecture": "unet",
            "encoder": "resnet18",
            "values": "any",
            "white_percentile": 95,
            "scale": [1, 1, 1],
            "options": {"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
        },
        "data": {
            "sources": [str(folder / "*.zarr")],
            "lakes": str(folder / "lakes.gpkg"),
            "samples": {"window": WINDOW, "stride": 32, "thin": None, "colorful": 1000},
        },
        "split": {"validation": ["c_*"]},
        "sampler": {"length": 16},
        "augment": {"flips": True, "turns": True, "zoom": [0.8, 1.3], "tint": 0.1},
        "loss": {"dice": 1, "cross_entropy": 1},
        "optimizer": {"name": "adam", "lr": 0.003, "schedule": "poly"},
        "batch": 4,
        "epochs": 3,
        "threads": 1,
        "panels": 2,
        "threshold": {"candidates": [0.4, 0.5, 0.6], "min_area_m2": 0},
    }
    for name, change in changes.items():
        values[name] = {**values[name], **change} if isinstance(change, dict) else change
    return TrainRecipe.model_validate(values)
