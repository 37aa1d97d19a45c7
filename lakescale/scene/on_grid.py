"""Scenes on another grid: the same bands, the same kind of numbers, and which pixels were seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lakescale.grid import Grid
from lakescale.regrid import Mapping, regrid
from lakescale.scene.files import one_grid, open_headers
from lakescale.scene.names import SCL
from lakescale.scene.opening import find_assets
from lakescale.scene.seen import seen_mask
from lakescale.schema import BAND, SEEN, X, Y

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

_COARSER = 1.5
"""From how many source pixels along a side on a target pixel is a mean: below, bilinear still uses all of them."""

_POINTS = 33


def bring_to_grid(
    scene: xr.DataArray, grid: Grid | GeoBox, *, resampling: str = "auto", chunks: Any = None
) -> xr.DataArray:
    """Bring a scene to another grid by `lakescale.regrid`, and keep its kind.

    Lazy. A scene that is on the grid already is handed back as it is, but for its chunks.

    Parameters
    ----------
    scene
        ``(band, y, x)`` as `lakescale.open_scene` gives it.
    grid
        The target.
    resampling
        As in `lakescale.regrid`; ``auto`` is ``average`` where a target pixel is at least 1.5 source pixels wide,
        else ``bilinear``. Classes (the band ``scl``) are always ``nearest``.
    chunks
        Of the result along y and x; None for 2048.

    Returns
    -------
    xr.DataArray
        ``(band, y, x)``: float32 with NaN where not seen; or, of 8-bit RGB, uint8 rounded to whole numbers, 0 where not
        seen, with a coordinate ``seen`` ``(y, x)``, since 0 may also be a color.

    Raises
    ------
    InputError
        When the scene or the grid has no CRS, or the target is far too coarse (see `lakescale.regrid`).
    """
    target = grid if isinstance(grid, Grid) else Grid(grid)
    if Grid.of(scene).geobox == target.geobox:
        return scene if chunks is None else scene.chunk({BAND: -1, **_along(chunks)})
    names = [str(name) for name in scene[BAND].values]
    classes = [k for k, name in enumerate(names) if name == SCL]
    values = [k for k in range(len(names)) if k not in classes]
    how = choose_resampling(Grid.of(scene), target) if resampling == "auto" else resampling
    moved = []
    if values:
        moved.append(_move_values(scene.isel({BAND: values}), target, how, chunks))
    if classes:
        moved.append(regrid(scene.isel({BAND: classes}), target, resampling="nearest", chunks=chunks))
    placed = moved[0] if len(moved) == 1 else xr.concat(moved, BAND, coords="minimal", compat="override")
    return placed.sel({BAND: names}).assign_attrs(scene.attrs | {"resampling": how})


def read_grid(source: Any) -> Grid:
    """Read the grid of a raster file.

    Raises
    ------
    InputError
        When it cannot be opened, is rotated, or does not say where it lies.
    """
    files, _ = open_headers(find_assets(source), None, None)
    return one_grid(files[:1])


def choose_resampling(source: Grid, target: Grid) -> str:
    """Tell ``average`` from ``bilinear`` by the source pixels along a side of the target's middle pixel."""
    row, col = (size / 2 for size in target.shape)
    x, y = Mapping(source, target).exact(np.array([row, row, row + 1]), np.array([col, col + 1, col]))
    area = abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0]))
    return "average" if np.isfinite(area) and np.sqrt(area) >= _COARSER else "bilinear"


def overlap(one: Grid, other: Grid) -> bool:
    """Tell whether two grids share any ground, by 33 x 33 points of each."""
    return _meets(one, other) or _meets(other, one)


def _meets(source: Grid, target: Grid) -> bool:
    rows, cols = (np.linspace(0, size, _POINTS) for size in target.shape)
    x, y = Mapping(source, target).exact(*np.meshgrid(rows, cols, indexing="ij"))
    height, width = source.shape
    return bool(np.any((x > 0) & (x < width) & (y > 0) & (y < height)))


def _move_values(scene: xr.DataArray, target: Grid, how: str, chunks: Any) -> xr.DataArray:
    """Move numbers as float32, NaN where not seen; 8-bit ones become 8-bit again."""
    values = scene.drop_vars(SEEN, errors="ignore").astype(np.float32)
    if SEEN in scene.coords or scene.dtype != np.float32:
        values = values.where(seen_mask(scene).drop_vars(SEEN, errors="ignore"))
    values.attrs = {key: value for key, value in scene.attrs.items() if key != "nodata_values"}
    moved = regrid(values, target, resampling=how, chunks=chunks)
    if scene.dtype != np.uint8:
        return moved
    seen = seen_mask(moved)
    whole = moved.round().fillna(0).astype(np.uint8)
    return whole.assign_coords({SEEN: seen.drop_vars(SEEN, errors="ignore")})


def _along(chunks: Any) -> dict[str, Any]:
    rows, cols = chunks if isinstance(chunks, tuple) else (chunks, chunks)
    return {Y: rows, X: cols}
