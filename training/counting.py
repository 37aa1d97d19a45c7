"""What the windows of an image hold: pixels seen, of lakes and ignored, colors; counted where the chunks are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from lakescale.chunks import on_dask
from lakescale.grid import Grid
from lakescale.scene import seen_mask
from lakescale.schema import BAND, BLUE, GREEN, RED, X, Y
from training.annotations import IGNORED, LAKE
from training.cells import PARTS, Layout, sum_windows
from training.pictures import COLOR_SUMS, color_planes, colorfulness, to_levels

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from training.annotations import Marks

_COUNTS = ("seen_px", "lake_px", "ignored_px")
_RGB = (RED, GREEN, BLUE)


class Counted(NamedTuple):
    """Sums that are still to be computed, and what they belong to."""

    parts: Any
    """Dask frame of `training.cells.sum_windows`."""
    layout: Layout
    colors: tuple[str, ...]
    """Bands of the thumbnails."""

    def finish(self, parts: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.float64]]:
        """Make, of the computed parts, a table with one row a window, and thumbnails ``(windows, 64 x bands)``."""
        sums = parts.groupby(np.arange(len(parts)) // PARTS**2).sum()
        windows = pd.DataFrame(self.layout.corners, columns=["row", "col"])
        windows["window"] = self.layout.window
        windows["inside_px"] = int(np.minimum(self.layout.window, self.layout.shape).prod())
        windows[list(_COUNTS)] = sums[list(_COUNTS)]
        seen = sums["seen_px"].to_numpy()
        has_colors = COLOR_SUMS[0] in sums
        windows["colorfulness"] = colorfulness(sums, seen) if has_colors else np.nan
        levels = parts[list(self.colors)].to_numpy() / np.maximum(parts[["seen_px"]].to_numpy(), 1)
        return windows, levels.reshape(len(windows), -1)


def count_windows(scene: xr.DataArray, marks: Marks, *, window: int, stride: int) -> Counted:
    """Count the pixels of all windows of an image. Lazy.

    Not seen are pixels without data in any band (NaN, nodata); only seen ones count as lake or as ignored, and for
    colors. Colors are red, green and blue as far as there are such, else the first bands, in 8-bit levels (reflectance
    times 255).

    Parameters
    ----------
    scene
        ``(band, y, x)``.
    marks
        Its annotations.
    window, stride
        In pixels.
    """
    grid, names = Grid.of(scene), [str(band) for band in scene[BAND].values]
    layout = Layout.of(grid.shape, window, stride)
    colors = tuple(band for band in _RGB if band in names) or tuple(names[: len(_RGB)])
    bands = [on_dask(scene.sel({BAND: band})) for band in colors]
    chunks = bands[0].chunks
    seen = on_dask(seen_mask(scene).transpose(Y, X)).rechunk(chunks)
    columns = (*_COUNTS, *colors, *(COLOR_SUMS if colors == _RGB else ()))
    planes = partial(_planes, in_color=colors == _RGB)
    parts = sum_windows(planes, seen, marks.lazy_flags(chunks), *bands, layout=layout, columns=columns, name="samples")
    return Counted(parts, layout, colors)


def _planes(seen: NDArray[np.bool_], flags: NDArray[np.uint8], *bands: NDArray[Any], in_color: bool) -> list[Any]:
    counts = [seen, seen & (flags == LAKE), seen & (flags == IGNORED)]
    levels = [np.where(seen, to_levels(band), 0) for band in bands]
    return [*counts, *levels, *(color_planes(*levels) if in_color else [])]
