"""Draw where WhiteboxTools' FillDepressions, run as it is, fills too high: docs/img/whitebox_edge.png.

Run from the repository's root: LAKESCALE_DATA=../shared/data python docs/figures/whitebox_edge.py
"""

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from matplotlib import pyplot as plt
from matplotlib.colors import LightSource

import lakescale as ls
from lakescale.whitebox import find_binary


def fill_with_whitebox(path: Path) -> np.ndarray:
    """Run the binary as users do (flats not fixed), again where it dies."""
    binary = find_binary()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "filled.tif")
        libraries = ":".join(str(found) for up in binary.parents[:3] for found in up.glob("*.libs"))
        for _ in range(20):
            command = [binary, "--run=FillDepressions", f"--dem={path}", f"--output={target}"]
            found = {**os.environ, "LD_LIBRARY_PATH": libraries}
            subprocess.run(command, check=False, capture_output=True, env=found)  # noqa: S603
            if target.exists():
                with rasterio.open(target) as file:
                    return file.read(1)
    raise RuntimeError("WhiteboxTools died twenty times")


def draw(path: Path, out: Path) -> None:
    dem = ls.open_dem(path, chunks=100)
    ours, theirs, heights = ls.fill_depressions(dem).values, fill_with_whitebox(path), dem.values
    higher = np.where(theirs > ours, theirs - ours, np.nan)
    row, col = np.unravel_index(np.nanargmax(higher), higher.shape)
    shade = LightSource(azdeg=315, altdeg=40).hillshade(heights, dx=1, dy=1, vert_exag=3)
    figure, (whole, near) = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
    for axes in (whole, near):
        axes.imshow(shade, cmap="gray")
        axes.imshow(np.where(ours > heights, 1.0, np.nan), cmap="Blues", vmin=0, vmax=1.6, alpha=0.8)
        shown = axes.imshow(higher, cmap="autumn_r", vmin=0)
        axes.set(xlabel="column, m", ylabel="row, m")
    figure.colorbar(shown, label="WhiteboxTools higher by, m", shrink=0.8)
    whole.set_title(f"{np.isfinite(higher).sum()} of {higher.size} cells too high, none too low (blue: sinks)")
    bottom = min(row + 40, len(heights) - 0.5)
    near.set(
        xlim=(col - 40, col + 40), ylim=(bottom, bottom - 60), title="a pit at the edge, whose water it holds back"
    )
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    data = Path(os.environ["LAKESCALE_DATA"])
    draw(data / "dem" / "lidar_nested_basin_1m.tif", Path(__file__).parents[1] / "img" / "whitebox_edge.png")
