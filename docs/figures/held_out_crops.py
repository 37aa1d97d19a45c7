"""Draw the real crops that the shipped model has not seen, with what it, color and index find: docs/img/held_out.jpg.

Run from the repository's root: LAKESCALE_DATA=../shared/data python docs/figures/held_out_crops.py
"""

import os
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

import lakescale as ls
from lakescale.grid import Grid
from lakescale.models import describe_checkpoint, shipped_checkpoint
from lakescale.regions import fill_holes
from training.labels import read_labels

SHADES = {"model": "#00e5ff", "color": "#ff2fa8", "index": "#ffd400"}


def find_lakes(scene):
    spec = describe_checkpoint(shipped_checkpoint()).spec
    probability = ls.lake_probability(scene, shipped_checkpoint(), window=spec.window, stride=spec.window // 2)
    masks = {
        "model": probability > np.float32(spec.threshold),
        "color": ls.color_mask(scene),
        "index": ls.index_mask(scene),
    }
    return {name: fill_holes(mask).values for name, mask in masks.items()}


def draw_labels(axis, path, grid):
    frame = read_labels(path)
    for kind, style in (("unsure", ":"), ("open", "-"), ("lid", "-")):
        for ring in frame.loc[frame["kind"] == kind].geometry.exterior:
            x, y = ~grid.transform * np.array(ring.coords).T
            axis.plot(x - 0.5, y - 0.5, style, color="white", linewidth=1.1)


def draw(paths, out):
    figure, axes = plt.subplots(len(paths), 4, figsize=(15, 3.75 * len(paths)), layout="constrained")
    for row, path in zip(axes, paths, strict=True):
        scene = ls.open_scene(path)
        grid, image = Grid.of(scene), scene.transpose("y", "x", "band").values
        tile = next(part for part in path.stem.split("_") if part.startswith("T") and len(part) == 6)
        for axis in row:
            axis.set_axis_off()
            axis.imshow(image, interpolation="nearest")
            axis.set(xlim=(-0.5, grid.shape[1] - 0.5), ylim=(grid.shape[0] - 0.5, -0.5))
        row[0].set_title(f"{tile} {str(scene.time.values)[:10]}, drawn by hand (dots: unsure)", fontsize=10)
        draw_labels(row[0], path, grid)
        for axis, (name, mask) in zip(row[1:], find_lakes(scene).items(), strict=True):
            axis.set_title(name, fontsize=10)
            if mask.any():
                axis.contour(mask, [0.5], colors=SHADES[name], linewidths=1.4)
    figure.savefig(out, dpi=70, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    asked = describe_checkpoint(shipped_checkpoint()).spec.training["recipe"]["split"]["test"]
    crops = sorted((Path(os.environ["LAKESCALE_DATA"]) / "scenes" / "fluidsurrf").glob("*.tif"))
    held_out = [path for path in crops if any(fnmatchcase(path.name, like) for like in asked)]
    draw(held_out, Path(__file__).parents[1] / "img" / "held_out.jpg")
