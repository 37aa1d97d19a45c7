"""Draw the 20 FLUIDSuRRF crops with what color thresholds and the water index find: docs/img/fluidsurrf.png.

Run from the repository's root: LAKESCALE_DATA=../shared/data python docs/figures/contact_sheet.py
"""

import os
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

import lakescale as ls

COLUMNS = 5


def draw(folder: Path, out: Path) -> None:
    scenes = sorted(folder.glob("*.tif"))
    rows = -(-len(scenes) // COLUMNS)
    figure, axes = plt.subplots(rows, 2 * COLUMNS, figsize=(3.2 * 2 * COLUMNS, 3.5 * rows), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for number, path in enumerate(scenes):
        row, column = divmod(number, COLUMNS)
        plain, marked = axes[row, 2 * column], axes[row, 2 * column + 1]
        scene = ls.open_scene(path)
        color, index = ls.color_mask(scene, centred=True).values, ls.index_mask(scene).values
        image = scene.transpose("y", "x", "band").values
        for axis in (plain, marked):
            axis.imshow(image, interpolation="nearest")
        for mask, shade in ((index, "#ffd400"), (color, "#ff2fa8")):
            if mask.any():
                marked.contour(np.pad(mask, 1)[1:-1, 1:-1], [0.5], colors=shade, linewidths=1.4)
        tile = next(part for part in path.stem.split("_") if part.startswith("T") and len(part) == 6)
        share = f"color {color.mean():.1%}, index {index.mean():.1%}"
        plain.set_title(f"{number + 1}: {tile} {str(scene.time.values)[:10]}", fontsize=12)
        marked.set_title(share, fontsize=12)
    figure.suptitle(
        "FLUIDSuRRF crops (CC0; contains modified Copernicus Sentinel data 2019-2021), 10 m: the crop, and beside it "
        "the outlines of the color thresholds (pink) and of NDWI_ice > 0.25 on stretched 8-bit RGB (yellow)",
        fontsize=14,
    )
    figure.savefig(out, dpi=55)


if __name__ == "__main__":
    data = Path(os.environ["LAKESCALE_DATA"])
    draw(data / "scenes" / "fluidsurrf", Path(__file__).parents[1] / "img" / "fluidsurrf.png")
