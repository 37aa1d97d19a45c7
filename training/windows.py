"""Windows of images read at once, without a graph: for loaders, which read thousands one by one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np

from lakescale.cube.layout import KIND, SCENE, Layout
from lakescale.grid import Grid
from lakescale.scene import seen_mask
from lakescale.schema import BAND, SEEN, X, Y
from lakescale.store import StoredArray, describe, open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr
    from numpy.typing import NDArray

    from training.images import Image

    Window = tuple[NDArray[Any], NDArray[np.bool_]]


def open_windows(image: Image, bands: tuple[str, ...]) -> tuple[Grid, Callable[[slice, slice], Window]]:
    """Open an image to read windows of it.

    Chunks of a cube are read and checked as `lakescale.open_cube` does it, in half the time that a graph of dask takes
    for a window of 1024 px. Other scenes are read through their graph.

    Returns
    -------
    grid, read
        ``read(rows, cols) -> pixels, seen``: ``(band, y, x)`` as stored, and bool ``(y, x)``.
    """
    scene = image.open(bands=bands)
    read = partial(_compute, scene.data, seen_mask(scene).transpose(Y, X).data)
    return Grid.of(scene), _stored(image, scene) if image.date else read


def _stored(image: Image, scene: xr.DataArray) -> Callable[[slice, slice], Window]:
    """Read the chunks of one date of a cube that was opened before, so that it is known to be whole."""
    root = Path(image.path)
    group = open_store(root, KIND)
    layout = Layout.read(group)
    slot = [date["date"] for date in describe(group)["dates"]].index(image.date)
    picked = tuple(layout.bands.index(band) for band in scene[BAND].values)
    mend = f"write this date again: write_cube(..., {root.name!r}, overwrite=True)"
    open_array = partial(StoredArray, layout.commits(root), labels=(image.date,), mend=mend)
    pixels = open_array(SCENE, ((slot,),), (picked,), np.dtype(layout.dtype))
    return partial(_read, pixels, open_array(SEEN, ((slot,),), (), np.dtype(bool)))


def _read(pixels: StoredArray, seen: StoredArray, rows: slice, cols: slice) -> Window:
    return pixels[0, slice(None), rows, cols], seen[0, rows, cols]


def _compute(pixels: Any, seen: Any, rows: slice, cols: slice) -> Window:
    values, mask = dask.compute(pixels[:, rows, cols], seen[rows, cols], scheduler="synchronous")
    return values, mask
