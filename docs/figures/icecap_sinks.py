"""Draw the sinks of the Greenland ice cap DEM over its hillshade: docs/img/icecap_sinks.png.

Run from the repository's root: LAKESCALE_DATA=../shared/data python docs/figures/icecap_sinks.py
"""

import os
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import LightSource

import lakescale as ls


def draw(path: Path, out: Path) -> None:
    dem = ls.open_dem(path, chunks=100)
    depth = ls.sink_depth(dem)
    deep = ls.polygonize(depth > 0.5).compute()
    heights, depths = dem.values, depth.values
    left, bottom, right, top = ls.Grid.of(dem).bounds_xyxy
    extent = (left / 1000, right / 1000, bottom / 1000, top / 1000)
    figure, axes = plt.subplots(figsize=(10, 8.4), layout="constrained")
    shade = LightSource(azdeg=315, altdeg=40).hillshade(heights, dx=100, dy=100, vert_exag=4)
    axes.imshow(shade, cmap="gray", extent=extent, alpha=np.isfinite(heights).astype(float))
    shown = axes.imshow(np.where(depths > 0, depths, np.nan), cmap="viridis_r", extent=extent, vmin=0)
    figure.colorbar(shown, label="depth of the sink, m", shrink=0.8)
    axes.set(
        title=f"{len(deep)} sinks deeper than 0.5 m, {np.nansum(depths) * 1e4 / 1e6:.1f} million m³",
        xlabel="x, km", ylabel="y, km",
    )  # fmt: skip
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    data = Path(os.environ["LAKESCALE_DATA"])
    draw(data / "dem" / "greenland_icecap_100m.tif", Path(__file__).parents[1] / "img" / "icecap_sinks.png")
