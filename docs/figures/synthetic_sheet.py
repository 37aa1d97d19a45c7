"""Draw FLUIDSuRRF crops and, beside each, a synthetic crop of the same size: docs/img/synthetic.png.

Which crop is shown is no choice of taste: of one seed and date a pair, the lake whose size and lid come nearest to
those that the pair asks for. Run from the repository's root:
LAKESCALE_DATA=../shared/data python docs/figures/synthetic_sheet.py
"""

import os
from pathlib import Path

import dask
import numpy as np
from matplotlib import pyplot as plt

import lakescale as ls
from lakescale.synthetic import make_region

PAIRS = (
    ("T22WFB 20190713", "2019-07-08", 0.6),
    ("T22WEB 20190716", "2019-07-28", 0.0),
    ("T22WFB 20190802", "2019-07-20", 0.1),
    ("T22WED 20190818", "2019-07-28", 0.0),
    ("T22WEC 20200713", "2020-07-13", 0.0),
    ("T22WEB 20190522", "2019-07-01", 0.0),
    ("T22WED 20190813", "2019-07-08", 0.4),
    ("T22WEB 20200705", "2020-07-13", 0.0),
    ("T22WED 20200718", "2019-07-08", 0.3),
    ("T22WEE 20200820", "2019-08-20", 0.3),
    ("T42DWG 20190122", "2019-06-25", 0.2),
    ("T43DDB 20210112", "2019-07-05", 0.0),
)
"""Tile and date of the real crop; date of the synthetic one; share of the lake under ice."""
COLUMNS, LAND_PX = 4, 2048


def synthetic_crop(seed: int, date: str, shape: tuple[int, int], lid: float) -> np.ndarray:
    region = make_region(LAND_PX, seed=seed)
    lakes = region.lakes(date)
    x, y = lakes.geometry.envelope.centroid.x, lakes.geometry.envelope.centroid.y
    size = np.ptp(lakes.bounds.to_numpy().reshape(-1, 2, 2), axis=1).max(axis=1) / region.resolution_m
    row = (region.grid.bounds_xyxy[3] - y) / region.resolution_m - shape[0] / 2
    col = (x - region.grid.bounds_xyxy[0]) / region.resolution_m - shape[1] / 2
    fits = (row >= 0) & (col >= 0) & (row + shape[0] <= LAND_PX) & (col + shape[1] <= LAND_PX)
    wrong = np.abs(np.log(size / (0.55 * min(shape)))) + 2 * np.abs(lakes.lid_share - lid) + 3 * (lakes.clear_share < 1)
    best = (wrong + 100 * ~fits).idxmin()
    corner = int(row[best]), int(col[best])
    part = region.window(*(slice(first, first + n) for first, n in zip(corner, shape, strict=True)))
    return part.scene(date, kind="rgb8").transpose("y", "x", "band").values


def draw(folder: Path, out: Path) -> None:
    rows = -(-len(PAIRS) // COLUMNS)
    figure, axes = plt.subplots(rows, 2 * COLUMNS, figsize=(3.2 * 2 * COLUMNS, 3.5 * rows), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (name, date, lid) in enumerate(PAIRS):
        tile, day = name.split()
        (path,) = folder.glob(f"*_{day}T*_{tile}_*.tif")
        real = ls.open_scene(path).transpose("y", "x", "band").values
        row, column = divmod(number, COLUMNS)
        axes[row, 2 * column].imshow(real, interpolation="nearest")
        axes[row, 2 * column].set_title(f"{tile} {day}", fontsize=12)
        axes[row, 2 * column + 1].imshow(synthetic_crop(number, date, real.shape[:2], lid), interpolation="nearest")
        axes[row, 2 * column + 1].set_title(f"synthetic, seed {number}, {date}", fontsize=12)
    figure.suptitle(
        "Pairs of a FLUIDSuRRF crop (CC0; contains modified Copernicus Sentinel data 2019-2021) and a synthetic crop "
        "of the same size, 10 m",
        fontsize=14,
    )
    figure.savefig(out, dpi=47)


if __name__ == "__main__":
    data = Path(os.environ["LAKESCALE_DATA"])
    with dask.config.set(scheduler="synchronous"):
        draw(data / "scenes" / "fluidsurrf", Path(__file__).parents[1] / "img" / "synthetic.png")
