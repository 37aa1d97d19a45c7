"""Bands of a scene and a mask of lids, as arrays of the same chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakescale.evidence.water_depth_optics import item_of
from lakescale.evidence.zonal_layers import as_array, require_mask
from lakescale.grid import Grid
from lakescale.scene import seen_mask
from lakescale.schema import BAND, InputError
from lakescale.store import same_grid

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr


def bands(scene: xr.DataArray, names: list[str]) -> list[da.Array]:
    """Give the first band, what was seen of all of them, and the other bands; the first is known to be there."""
    there = [str(name) for name in scene[BAND].values]
    for name in names:
        if name not in there:
            mend = "give r_inf=, for example 0.03 for red at the top of the atmosphere"
            raise InputError(f"R_inf is estimated by red and blue, the scene has no {name}", item_of(scene), mend)
    chosen = scene.isel({BAND: [there.index(name) for name in dict.fromkeys(names)]})
    planes = [as_array(scene.isel({BAND: there.index(name)}), name) for name in names]
    return [planes[0], as_array(seen_mask(chosen), "seen"), *planes[1:]]


def same_chunks(first: da.Array, *others: da.Array) -> list[da.Array]:
    """Bring arrays to the chunks of the first."""
    return [first, *(other.rechunk(first.chunks) for other in others)]


def lid_array(lids: xr.DataArray | None, grid: Grid) -> list[da.Array]:
    """Give the mask of lids, where there is one; raise `InputError` for what is no mask on the scene's grid."""
    if lids is None:
        return []
    require_mask(lids, "lids")
    if not same_grid(Grid.of(lids), grid):
        raise InputError("lids and scene on different grids", "lids", "bring them over by regrid")
    return [as_array(lids, "lids")]
