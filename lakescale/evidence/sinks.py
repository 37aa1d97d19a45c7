"""Evidence from elevation: sinks, where water can stand."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale.chunks import Blocks, map_tiles, on_dask, read_again
from lakescale.depression_seams import warn_outside
from lakescale.depressions import as_elevation, declared_nodata, fill_tiled, look_outside, require_dem
from lakescale.evidence.sink_sizes import drop_small
from lakescale.flats import drain_flats
from lakescale.grid import Grid
from lakescale.regions import like
from lakescale.schema import SINK, InputError, X, Y
from lakescale.whitebox import fill_array, find_binary, require_memory

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


_LOG = logging.getLogger(__name__)

ENGINES = ("tiled", "whitebox")
VOIDS = ("wall", "outlet")
FLATS = ("level", "drain")
_EXACT_IN_FLOAT32 = 2**24


def fill_depressions(
    dem: xr.DataArray, *, engine: str = "tiled", nodata: str = "wall", flats: str = "level"
) -> xr.DataArray:
    """Raise every cell to the lowest level at which water would leave it.

    Cells are 8-connected, and water leaves at the mosaic's edge and at outlets. Voids joined to the edge (8-connected)
    are outlets; land that can reach no outlet keeps its elevation. Lazy.

    Parameters
    ----------
    dem
        ``(y, x)``, m, any integer or float type. Void where NaN, and where a number stands that the DEM declares as
        nodata (``_FillValue`` or the like in its attributes or encoding). It is cast to float32 first (whole
        numbers beyond 2**24 lose digits: a warning is logged). Elevations outside -500..9000 m are logged, once.
    engine
        ``tiled``: exact, in tiles, for mosaics of any size. ``whitebox``: WhiteboxTools' FillDepressions (flats not
        fixed) on the whole array in one task of one machine, in a temporary folder there; the same answer. It must be
        installed where the graph is built and where it is computed.
    nodata
        What enclosed voids are: ``wall`` (nothing leaves through them) or ``outlet``.
    flats
        ``level``: what is filled is flat. ``drain``: so that drainage continues, its cells rise by as many floats as
        they are steps from the way out (`lakescale.drain_flats`, which see for what an epsilon cannot promise). It
        fills several times over: where that is costly, write the level one first, and drain what was written.

    Returns
    -------
    xr.DataArray
        float32 ``(y, x)``, m, NaN in voids; never below the DEM.

    Raises
    ------
    InputError
        When the DEM is not ``(y, x)`` of numbers, holds infinities (when computed), an option is unknown, WhiteboxTools
        is not installed, or the DEM does not fit into memory for it.
    RunError
        When WhiteboxTools dies ten times (when computed).

    References
    ----------
    Barnes, Lehman, Mulla (2014), Priority-flood, doi:10.1016/j.cageo.2013.04.024.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> bowl = xr.DataArray(np.array([[3, 3, 3], [3, 1, 2], [3, 3, 3]]), dims=("y", "x"))
    >>> fill_depressions(bowl).values[1]
    array([3., 2., 2.], dtype=float32)
    """
    check_choices(dem, engine, nodata, flats)
    level = fill_tiled(dem, nodata=nodata) if engine == "tiled" else _fill_whole(dem, nodata)
    return level if flats == "level" else drain_flats(level, nodata=nodata)


def check_choices(dem: xr.DataArray, engine: str, nodata: str, flats: str = "level") -> None:
    """Refuse an engine and the like that are not known."""
    for name, value, known in (("engine", engine, ENGINES), ("nodata", nodata, VOIDS), ("flats", flats, FLATS)):
        if value not in known:
            raise InputError(f"unknown {name} {value!r}", _name(dem), f"{name} is one of {', '.join(known)}")


def sink_depth(
    dem: xr.DataArray,
    *,
    engine: str = "tiled",
    nodata: str = "wall",
    min_depth_m: float = 0.0,
    min_area_m2: float = 0.0,
    filled: xr.DataArray | None = None,
) -> xr.DataArray:
    """Compute how deep each cell lies below the level at which its sink would overflow.

    Over a lake that was full when the DEM was made, the DEM holds the water's surface: such a sink has no depth. Lazy.
    With a least depth or area, the cells of all sinks wait in memory while sinks that cross chunks are put together:
    4 bytes a cell of a sink and 12 a sink, and 64 bytes a border pixel of a chunk in the solving task.

    Parameters
    ----------
    dem, engine, nodata
        See `fill_depressions`.
    min_depth_m
        Leave out sinks (8-connected) whose deepest cell is less deep, in m.
    min_area_m2
        Leave out sinks of a smaller true area, in m2 (as `lakescale.polygons.areas_m2`; the area of a pixel is
        interpolated between its exact values every 64 pixels).
    filled
        The DEM as it was filled before, such as a layer that was written: then nothing is filled here, and ``engine``
        and ``nodata`` say nothing.

    Returns
    -------
    xr.DataArray
        float32 ``(y, x)``, m; 0 where there is no sink, NaN in voids; named ``sink_depth``.

    Raises
    ------
    InputError
        As `fill_depressions`; when a least value is negative, an area is asked for without a CRS or in degrees, or
        ``filled`` has another shape.
    """
    for name, least in (("min_depth_m", min_depth_m), ("min_area_m2", min_area_m2)):
        if not 0 <= least < np.inf:
            raise InputError(f"{name} must be 0 or more, got {least!r}", "sink_depth")
    grid = _metric_grid(dem) if min_area_m2 > 0 else None
    array = on_dask(dem)
    if filled is None:
        level = fill_depressions(dem, engine=engine, nodata=nodata)
        # with keys of its own the DEM is read again; else its chunks would wait in memory while the seams are solved
        array = read_again(array, "sink-depth", after=Blocks.of(level.data))
    else:
        level = as_filled(filled, dem)
    depth = map_tiles(_subtract, level.data, array, depth=0, name="sink-depth", dtype=np.float32)
    if min_depth_m > 0 or min_area_m2 > 0:
        depth = drop_small(depth, grid, min_depth_m, min_area_m2)
    return like(dem, depth).rename("sink_depth")


def sink_mask(
    dem: xr.DataArray,
    *,
    engine: str = "tiled",
    nodata: str = "wall",
    min_depth_m: float = 0.0,
    min_area_m2: float = 0.0,
) -> xr.DataArray:
    """Tell which cells lie in a sink; see `sink_depth`.

    Returns
    -------
    xr.DataArray
        Bool ``(y, x)``, True in a sink, False in voids; named ``sink``.
    """
    depth = sink_depth(dem, engine=engine, nodata=nodata, min_depth_m=min_depth_m, min_area_m2=min_area_m2)
    mask = map_tiles(_is_deep, depth.data, depth=0, name="sink-mask", dtype=bool)
    return like(depth, mask).rename(SINK)


# -- filling


def _fill_whole(dem: xr.DataArray, nodata: str) -> xr.DataArray:
    """Fill in one task."""
    name = _name(dem)
    require_dem(dem, name)
    find_binary()
    require_memory((dem.sizes[Y], dem.sizes[X]))
    array = on_dask(dem)
    told = {"name": name, "missing": declared_nodata(dem)}
    ready = map_tiles(_ready, array, depth=0, name="dem-float32", dtype=np.float32, options=told)
    options = {"nodata": nodata}
    filled = map_tiles(_fill_array, ready.rechunk(-1), depth=0, name="whitebox", dtype=np.float32, options=options)
    return like(dem, filled.rechunk(array.chunks))


def _fill_array(whole: NDArray[np.float32], *, nodata: str) -> NDArray[np.float32]:
    cells, example = look_outside(whole)
    if example is not None:
        warn_outside(cells, 1, example, "the whole DEM")
    return fill_array(whole, nodata=nodata)


def as_filled(filled: xr.DataArray, dem: xr.DataArray) -> xr.DataArray:
    """Give what was filled before the chunks of the DEM."""
    if filled.dims != dem.dims or filled.shape != dem.shape:
        what = f"filled= is {filled.dims} {filled.shape} and the DEM {dem.dims} {dem.shape}"
        raise InputError(what, _name(dem), "give the answer of fill_depressions for this DEM")
    return filled.chunk(dict(zip(dem.dims, on_dask(dem).chunks, strict=True)))


def _metric_grid(dem: xr.DataArray) -> Grid:
    grid = Grid.of(dem)
    grid.require_metres(_name(dem))
    return grid


def _ready(block: NDArray[Any], *, name: str, missing: tuple[float, ...] = ()) -> NDArray[np.float32]:
    """Cast to float32, -0.0 to 0.0; refuse infinities."""
    values = as_elevation(block, missing) + np.float32(0)
    if block.dtype.kind in "iu" and block.dtype.itemsize > 2 and block.size:  # noqa: PLR2004
        land = block[~np.isnan(values)]
        largest = max(abs(int(land.min(initial=0))), abs(int(land.max(initial=0))))
        if largest > _EXACT_IN_FLOAT32:
            _LOG.warning("%s: whole numbers up to %d lose digits as float32, which is exact to 2**24", name, largest)
    infinite = int(np.isinf(values).sum())
    if infinite:
        wrong = f"{infinite} infinite elevations in a block of {block.shape}"
        raise InputError(wrong, name, "make them void: dem.where(np.isfinite(dem)), or give open_dem their nodata")
    return values


def _subtract(filled: NDArray[np.float32], dem: NDArray[Any]) -> NDArray[np.float32]:
    return filled - dem.astype(np.float32)


def _is_deep(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    return depth > 0


def _name(dem: xr.DataArray) -> str:
    return str(dem.name or "dem")
