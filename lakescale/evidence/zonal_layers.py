"""Rasters to sum up over polygons, and the masks that say where they have data: checked, and of the same chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from lakescale.chunks import on_dask
from lakescale.grid import Grid
from lakescale.schema import InputError, X, Y
from lakescale.store import same_grid

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dask.array as da


class Layer(NamedTuple):
    """A raster to sum up."""

    name: str
    array: int
    """Which of the arrays it is."""
    seen: int | None
    """Which of the arrays says where it has data. None: a float is NaN where it has none, a mask has it everywhere."""


def lay_out(
    rasters: Mapping[str, xr.DataArray], seen: xr.DataArray | Mapping[str, xr.DataArray] | None
) -> tuple[list[da.Array], tuple[Layer, ...], Grid]:
    """Check the rasters, and list them with the masks of what is seen: arrays of the same chunks, each once."""
    if not rasters:
        raise InputError("no rasters", "rasters", "give one or more by name: {'probability': ...}")
    for name, raster in rasters.items():
        if raster.dtype not in (np.dtype(bool), np.dtype(np.float32)):
            raise InputError(f"a raster of {raster.dtype}", name, "make it bool, or float32 with NaN where not seen")
    seen_by_name = _seen_by_name(rasters, seen)
    for name, mask in seen_by_name.items():
        require_mask(mask, f"seen of {name}")
    named = [*rasters.items(), *((f"seen of {name}", mask) for name, mask in seen_by_name.items())]
    arrays = {id(raster): as_array(raster, name) for name, raster in named}
    grid = _common_grid(named)
    index = {key: k for k, key in enumerate(arrays)}
    layers = tuple(
        Layer(name, index[id(raster)], index[id(seen_by_name[name])] if name in seen_by_name else None)
        for name, raster in rasters.items()
    )
    chunks = next(iter(arrays.values())).chunks
    return [array.rechunk(chunks) for array in arrays.values()], layers, grid


def _common_grid(named: list[tuple[str, xr.DataArray]]) -> Grid:
    (first, raster), *others = named
    grid = Grid.of(raster)
    for name, other in others:
        if not same_grid(Grid.of(other), grid):
            raise InputError(f"rasters on different grids, {first} and {name}", name, "bring it over by regrid")
    return grid


def _seen_by_name(
    rasters: Mapping[str, xr.DataArray], seen: xr.DataArray | Mapping[str, xr.DataArray] | None
) -> dict[str, xr.DataArray]:
    if isinstance(seen, xr.DataArray):
        return {name: seen for name, raster in rasters.items() if raster.dtype == bool}
    unknown = sorted(set(seen or ()) - set(rasters))
    if unknown:
        raise InputError(f"seen names no rasters: {', '.join(unknown)}", "seen", f"there are {', '.join(rasters)}")
    return dict(seen or {})


def require_mask(seen: xr.DataArray, name: str) -> None:
    """Raise `InputError` for what is no mask."""
    if seen.dtype != bool:
        raise InputError(f"a mask must be bool, got {seen.dtype}", name, "for example lakescale.seen_mask(scene)")


def as_array(raster: xr.DataArray, name: str) -> da.Array:
    """Give the pixels as a dask array; raise `InputError` for other dims than y and x."""
    if raster.dims != (Y, X):
        raise InputError(f"a raster needs the dims ('y', 'x'), got {raster.dims}", name, "give one band or date of it")
    return on_dask(raster)
