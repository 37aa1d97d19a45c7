"""Which pixels of a raster hold data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  (gives arrays the accessor .rio)
import xarray as xr

from lakescale.schema import BAND, SEEN, X, Y

if TYPE_CHECKING:
    from numpy.typing import NDArray


def seen_mask(scene: xr.DataArray) -> xr.DataArray:
    """Tell the pixels that hold data from those that do not.

    Parameters
    ----------
    scene
        Dims ``(band, y, x)`` or ``(y, x)``, of `open_scene` or any other raster. A coordinate ``seen`` is taken
        as the answer where there is one. Else, a float pixel is seen where no band is NaN; an integer pixel is
        seen unless all its bands equal one of ``attrs["nodata_values"]`` (else of the raster's own nodata;
        without either, everything is seen).

    Returns
    -------
    xr.DataArray
        Bool, the scene's dims without ``band``, lazy where the scene is; True = seen.

    Examples
    --------
    >>> pixels = xr.DataArray(np.array([[[0, 0]], [[0, 9]]], "uint8"), dims=("band", "y", "x"))
    >>> seen_mask(pixels.assign_attrs(nodata_values=[0])).values.tolist()
    [[False, True]]
    """
    if SEEN in scene.coords:
        return scene.coords[SEEN].drop_vars([SEEN, BAND], errors="ignore")
    stack = scene if BAND in scene.dims else scene.expand_dims(BAND)
    stack = stack.transpose(..., BAND, Y, X)
    seen = reduce_to_seen(stack.data, _nodata_values(scene))
    coords = {name: coord for name, coord in scene.coords.items() if BAND not in (name, *coord.dims)}
    return xr.DataArray(seen, dims=[dim for dim in stack.dims if dim != BAND], coords=coords, name=SEEN)


def reduce_to_seen(stack: Any, values: tuple[float, ...], *, masks: int = 0) -> Any:
    """Reduce ``(..., band, y, x)`` to bool ``(..., y, x)``, True = seen; the first ``masks`` planes are 0 where not."""
    if not isinstance(stack, da.Array):
        return _seen_block(stack, values, masks)
    axis = stack.ndim - 3
    return da.map_blocks(
        _seen_block,
        stack.rechunk({axis: -1}),
        values,
        masks,
        drop_axis=axis,
        dtype=bool,
        token="seen-mask",  # noqa: S106  (the name of its tasks)
        meta=np.empty((0,) * (stack.ndim - 1), bool),
    )


def _seen_block(stack: NDArray[Any], values: tuple[float, ...], masks: int) -> Any:
    bands = stack[..., masks:, :, :]
    if bands.dtype.kind == "f":
        return ~np.isnan(bands).any(axis=-3)
    seen = np.all(stack[..., :masks, :, :] > 0, axis=-3)
    for value in values:
        seen = seen & ~np.all(bands == value, axis=-3)
    return seen


def _nodata_values(scene: xr.DataArray) -> tuple[float, ...]:
    if "nodata_values" in scene.attrs:
        return tuple(np.atleast_1d(scene.attrs["nodata_values"]).tolist())
    stored: float | None = scene.rio.nodata
    return (float(stored),) if stored is not None and math.isfinite(stored) else ()
