"""Depressions of chunked DEMs, filled as exactly as on one array."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale.chunks import Place, Stitch, Tree, on_dask, stitch
from lakescale.depression_seams import LIMITS_M, Cell, Summary, Tally, contract, expand, solve
from lakescale.kernels.flood import Final, fill, survey
from lakescale.regions import like
from lakescale.schema import InputError, X, Y

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr
    from numpy.typing import NDArray

WAITING = tuple(f"fill-depressions-{step}" for step in ("summary", "contract", "pick"))
"""Names of the tasks of `fill_tiled` whose results wait for others; see `lakescale.store.Stages`."""
_NODATA = ("wall", "outlet")
_EXACT_INTEGERS = 2**24
_MOST_CELLS = 2**31
_DECLARED = ("_FillValue", "missing_value", "fill_value", "nodata")


def fill_tiled(dem: xr.DataArray, *, nodata: str = "wall") -> xr.DataArray:
    """Fill the depressions of a DEM, however many chunks they span.

    A filled cell has the lowest elevation from which water can run off over 8 neighbours: the same, bit for bit, as by
    a priority-flood over the whole array, whatever the chunks (Barnes 2016, with basins and their saddles in place of
    the heap). Water leaves at the mosaic's edge, whose cells keep their elevation, and through voids (NaN) that are
    joined to it over 8 neighbours. Land that can reach no outlet, such as an island in an enclosed void, keeps its
    elevation.

    Lazy. Each chunk is read twice, and none of it waits in between; a DEM that is costly to make is written first. What
    crosses the barrier is the chunk's ring: 80 to 100 kB there and 35 kB back for a 2048 chunk. The solving task holds
    170 to 280 kB for each of these (the more, the rougher the ice), and takes 0.4 ms.

    Parameters
    ----------
    dem
        Integer or float ``(y, x)``, void where NaN or of a declared number (see `declared_nodata`); cast to float32
        first. Logged as warnings, once for all chunks: elevations outside -500..9000 m, with one of them and its chunk;
        integers beyond 2**24, which may lose their last digits; a DEM that is void everywhere.
    nodata
        What voids are that are not joined to the mosaic's edge: ``wall`` (no water enters them; a lake is often a void,
        and would be drained otherwise) or ``outlet`` (water leaves through them).

    Returns
    -------
    xr.DataArray
        float32 ``(y, x)``, the same chunks and unit; void cells stay NaN.

    Raises
    ------
    InputError
        When the DEM is not ``(y, x)`` or not of numbers, a chunk has 2**31 cells or more, or ``nodata`` is neither;
        while computing, when cells are infinite.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> heights = np.array([[9, 9, 9, 9], [9, 1, 2, 4], [9, 9, 9, 9]], np.float32)
    >>> fill_tiled(xr.DataArray(heights, dims=("y", "x")).chunk(y=2, x=1)).values
    array([[9., 9., 9., 9.],
           [9., 4., 4., 4.],
           [9., 9., 9., 9.]], dtype=float32)
    """
    blocks = stitch(as_dem_array(dem, "DEM"), fill_stitch(nodata, declared_nodata(dem)))
    return like(dem, blocks.to_array(np.float32))


def declared_nodata(dem: xr.DataArray) -> tuple[float, ...]:
    """List the numbers that a DEM declares to mean void, whether or not they still stand in its values.

    Those in ``attrs``, as ``rio.write_nodata`` sets them, and in ``encoding``, where xarray and rioxarray put them as
    they mask a file, under the names ``_FillValue``, ``missing_value``, ``fill_value`` and ``nodata``. NaN needs no
    telling, and what is no number tells nothing.
    """
    told = [said.get(name) for said in (dem.attrs, dem.encoding) for name in _DECLARED]
    numbers = {float(number) for number in told if isinstance(number, int | float | np.number)}
    return tuple(sorted(number for number in numbers if not np.isnan(number)))


def as_elevation(block: NDArray[Any], missing: tuple[float, ...] = ()) -> NDArray[np.float32]:
    """Cast a block to float32, NaN where it holds one of the numbers that mean void; other values stay."""
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, which is refused
        values = np.ascontiguousarray(block, np.float32)
        for number in missing:
            void = block == number  # in its own type, before it is rounded
            if void.any():
                values = np.where(void, np.float32(np.nan), values)
    return values


def fill_stitch(nodata: str, missing: tuple[float, ...] = ()) -> Stitch:
    """Fill blocks of elevation, ``missing`` the numbers that mean void; see `fill_tiled`."""
    if nodata not in _NODATA:
        raise InputError(f"nodata must be one of {', '.join(_NODATA)}, got {nodata!r}", "fill_depressions")
    is_outlet = nodata == "outlet"
    return Stitch(
        "fill-depressions",
        partial(_summarize, void_is_outlet=is_outlet, missing=missing),
        solve,
        partial(_apply, void_is_outlet=is_outlet, missing=missing),
        tree=Tree(contract, expand),
    )


def require_dem(dem: xr.DataArray, name: str) -> None:
    """Raise `InputError` for what is no DEM: not ``(y, x)``, not of numbers, or empty."""
    if dem.dims != (Y, X):
        raise InputError(f"a DEM needs the dims ('y', 'x'), got {dem.dims}", name, "select one band and one time")
    if dem.dtype.kind not in "iuf":
        raise InputError(f"a DEM must be integer or float, got {dem.dtype}", name, "convert it with astype('float32')")
    if not dem.size:
        raise InputError(f"a DEM without cells, shape {dem.shape}", name, "check the selection before filling")


def as_dem_array(dem: xr.DataArray, name: str) -> da.Array:
    """Take the array of a DEM, or refuse it: not ``(y, x)``, not of numbers, empty, or in chunks of 2**31 cells.

    Parameters
    ----------
    dem
        ``(y, x)``, integer or float.
    name
        What errors call one without a name.
    """
    name = str(dem.name or name)
    require_dem(dem, name)
    array = on_dask(dem)
    largest = max(array.chunks[0]), max(array.chunks[1])
    if (largest[0] + 2) * (largest[1] + 2) >= _MOST_CELLS:
        raise InputError(f"a chunk of {largest[0]} x {largest[1]} cells is too large", name, "chunk it by 2048 cells")
    return array


# -- one block


def look_outside(elevation: NDArray[np.float32]) -> tuple[int, Cell | None]:
    """Count the elevations that cannot be true, infinite ones too, and give the first of them."""
    outside = (elevation < LIMITS_M[0]) | (elevation > LIMITS_M[1])
    return int(np.count_nonzero(outside)), _first(outside, elevation)


def _first(chosen: NDArray[np.bool_], elevation: NDArray[np.float32]) -> Cell | None:
    at = int(chosen.argmax())
    if not chosen.flat[at]:
        return None
    row, col = np.unravel_index(at, chosen.shape)
    return Cell(int(row), int(col), float(elevation.flat[at]), Place(0, 0, *elevation.shape))


def _summarize(block: NDArray[Any], *, void_is_outlet: bool, missing: tuple[float, ...] = ()) -> Summary:
    elevation = as_elevation(block, missing)
    cells, outside = look_outside(elevation)
    infinite = _first(np.isinf(elevation), elevation) if outside is not None else None
    tally = Tally(
        chunks=1,
        void=bool(np.isnan(elevation.flat[0]) and np.isnan(elevation).all()),
        rounded=outside is not None and _is_rounded(block, elevation),
        infinite=infinite is not None,
        outside=outside is not None,
        outside_cells=cells,
        first_infinite=infinite,
        first_outside=outside,
    )
    return Summary(None if infinite is not None else survey(elevation, void_is_outlet=void_is_outlet), tally)


def _is_rounded(block: NDArray[Any], elevation: NDArray[np.float32]) -> bool:
    """Tell whether integers lie beyond those that float32 holds; voids do not count."""
    land = block[~np.isnan(elevation)]
    return block.dtype.kind in "iu" and bool(land.max() > _EXACT_INTEGERS or land.min() < -_EXACT_INTEGERS)


def _apply(
    block: NDArray[Any], final: Final, *, void_is_outlet: bool, missing: tuple[float, ...] = ()
) -> NDArray[np.float32]:
    return fill(as_elevation(block, missing), final, void_is_outlet=void_is_outlet)
