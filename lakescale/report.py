"""Pictures of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from lakescale.schema import AREA_M2, BAND, BLUE, GREEN, LAKE_ID, RED, X, Y

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import geopandas as gpd
    from numpy.typing import NDArray

    from lakescale.grid import Grid

_LARGEST_PX, _DRAWN_PX = 2400, 1600
"""Most pixels a side: of the image by itself, and under outlines."""
_WEBP_QUALITY = 82
_KEPT_COLOR, _DROPPED_COLOR, _TRUE_COLOR, _NOT_SEEN_GREY = "#ffd400", "#ff5a36", "#e0218a", 0.35
_NUMBERED = 60


def overview(scene: xr.DataArray, seen: xr.DataArray) -> xr.DataArray:
    """Thin a scene to at most 2400 pixels a side, as red, green and blue with NaN where not seen.

    Green is the mean of red and blue where the scene has none. Lazy.

    Parameters
    ----------
    scene
        ``(band, y, x)`` with red and blue.
    seen
        Bool ``(y, x)``.

    Returns
    -------
    xr.DataArray
        float32 ``(band, y, x)``.
    """
    step = overview_step((scene.sizes[Y], scene.sizes[X]))
    thin = {Y: slice(None, None, step), X: slice(None, None, step)}
    names = [str(name) for name in scene[BAND].values]
    plane = {
        name: scene.isel({BAND: names.index(name), **thin}, drop=True) for name in (RED, GREEN, BLUE) if name in names
    }
    plane = {name: values.astype(np.float32).where(seen.isel(thin)) for name, values in plane.items()}
    green = plane.get(GREEN, (plane[RED] + plane[BLUE]) / 2)
    return xr.concat([plane[RED], green, plane[BLUE]], BAND, coords="minimal", compat="override")


def overview_step(shape: tuple[int, int]) -> int:
    """Tell which pixels of a scene of so many rows and columns its overview has: every how many-th, from the first.

    >>> overview_step((10980, 10980))
    5
    """
    return -(-max(shape) // _LARGEST_PX)


def draw_image(path: Path, image: NDArray[np.float32]) -> None:
    """Write an image by itself as WebP, transparent where not seen.

    Parameters
    ----------
    path
        The file to write.
    image
        From `overview`, computed: float32 ``(3, y, x)``, NaN where not seen.
    """
    seen = np.isfinite(image).all(axis=0)
    rgba = np.dstack([np.rint(255 * _stretched(image)).astype(np.uint8), np.where(seen, 255, 0).astype(np.uint8)])
    Image.fromarray(rgba, "RGBA").save(path, "WEBP", quality=_WEBP_QUALITY, method=2)


def draw_quicklook(
    path: Path, image: NDArray[np.float32], grid: Grid, lakes: gpd.GeoDataFrame, dropped: gpd.GeoDataFrame, title: str
) -> None:
    """Draw outlines over the image and write a PNG.

    Parameters
    ----------
    path
        The PNG to write.
    image
        From `overview`, computed: float32 ``(3, y, x)``, NaN where not seen.
    grid
        The scene's grid.
    lakes, dropped
        Polygons in the grid's CRS: lakes with a column ``lake_id``, and candidates that are no lakes.
    title
        A line above the picture.
    """
    left, bottom, right, top = grid.bounds_xyxy
    shape = np.clip((top - bottom) / (right - left), 0.25, 4)  # a strip is drawn small rather than at any length
    figure = Figure(figsize=(10, 10 * shape + 1.1), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    drawn = image[:, :: (step := -(-max(image.shape) // _DRAWN_PX)), ::step]
    axes.imshow(_stretched(drawn), extent=(left, right, bottom, top), interpolation="nearest")
    axes.add_collection(_outlines(dropped, _DROPPED_COLOR, 0.7))
    axes.add_collection(_outlines(lakes, _KEPT_COLOR, 1.5))
    _number(axes, lakes)
    axes.set(title=title, xlabel=f"x, m ({grid.crs.to_string()[:40]})", ylabel="y, m", aspect="equal")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.legend(handles=_legend(len(lakes), len(dropped)), loc="upper right", framealpha=0.85)
    figure.savefig(path, format="png", bbox_inches="tight")


class Panel(NamedTuple):
    """A picture beside others."""

    image: NDArray[np.float32]
    """From `overview`, computed."""
    grid: Grid
    lakes: gpd.GeoDataFrame
    truth: gpd.GeoDataFrame
    title: str


def draw_panels(path: Path, panels: Sequence[Panel]) -> None:
    """Draw dates side by side, with the lakes found over the true ones, and write a PNG.

    Parameters
    ----------
    path
        The PNG to write.
    panels
        At least one.
    """
    figure = Figure(figsize=(8 * len(panels), 8.6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    for panel, axes in zip(panels, np.ravel(figure.subplots(1, len(panels))), strict=True):
        left, bottom, right, top = panel.grid.bounds_xyxy
        axes.imshow(_stretched(panel.image), extent=(left, right, bottom, top), interpolation="nearest")
        axes.add_collection(_outlines(panel.truth, _TRUE_COLOR, 2.2))
        axes.add_collection(_outlines(panel.lakes, _KEPT_COLOR, 0.9))
        axes.set(title=panel.title, aspect="equal", xticks=[], yticks=[])
    handles = [
        Line2D([], [], color=_KEPT_COLOR, lw=2, label="lakes found"),
        Line2D([], [], color=_TRUE_COLOR, lw=3, label="true lakes"),
        Line2D([], [], color=str(_NOT_SEEN_GREY), lw=6, label="not seen"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, format="png")


def _stretched(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Stretch each band from its 1st to its 99th percentile; grey where not seen."""
    seen = np.isfinite(image).all(axis=0)
    rgb = np.full((*image.shape[1:], 3), _NOT_SEEN_GREY, np.float32)
    if seen.any():
        low, high = np.percentile(image[:, seen], (1, 99), axis=1)
        spread = np.where(high > low, high - low, 1)
        rgb[seen] = np.clip((image[:, seen].T - low) / spread, 0, 1)
    return rgb


def _outlines(frame: gpd.GeoDataFrame, color: str, width: float) -> LineCollection:
    rings = shapely.get_rings(shapely.get_parts(frame.geometry.values))
    return LineCollection([shapely.get_coordinates(ring) for ring in rings], colors=color, linewidths=width)


def _number(axes: Any, lakes: gpd.GeoDataFrame) -> None:
    """Write the ids of the largest lakes beside them."""
    for _, lake in lakes.nlargest(_NUMBERED, AREA_M2).iterrows():
        vertices = shapely.get_coordinates(lake.geometry)
        axes.annotate(
            str(lake[LAKE_ID]),
            vertices[vertices[:, 1].argmax()],
            xytext=(0, 3),
            textcoords="offset points",
            color=_KEPT_COLOR,
            fontsize=9,
            weight="bold",
            ha="center",
        )


def _legend(lakes: int, dropped: int) -> list[Line2D]:
    return [
        Line2D([], [], color=_KEPT_COLOR, lw=2, label=f"lakes ({lakes})"),
        Line2D([], [], color=_DROPPED_COLOR, lw=1, label=f"candidates dropped, with a reason ({dropped})"),
        Line2D([], [], color=str(_NOT_SEEN_GREY), lw=6, label="not seen"),
    ]
