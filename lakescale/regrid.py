"""Rasters on another grid, the same bit for bit whatever the chunks of either."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  (gives rasters their .rio)
import xarray as xr
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from lakescale.chunks import Chunks, Place, on_dask, plan_blocks, pull
from lakescale.grid import Grid
from lakescale.kernels import warp
from lakescale.kernels.lattice import OUTSIDE, STEP, TORN, Aim, Lattice, find_exact, judge_cells, locate_pixels, snap
from lakescale.missing import NODATA_ATTRS, Missing
from lakescale.schema import SEEN, InputError, X, Y

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

_SIDE = 2048
_WINDOW_BYTES = 2**28
"""Source pixels that one task may hold, as float32; chunks that need more are made in parts."""
_MOST_WINDOW_BYTES = 2**31
_STRIP_CELLS = 8
_LATTICE_CELLS_AT_ONCE = 2**18
_PLANE, _STACK = 2, 3


def regrid(
    raster: xr.DataArray,
    like: Grid | GeoBox | xr.DataArray,
    *,
    resampling: str = "bilinear",
    chunks: Any = None,
) -> xr.DataArray:
    """Bring a raster to another grid.

    A target pixel whose centre lies outside the source's outer edge is not seen: NaN, or for classes the raster's
    nodata, else 0 or False. Within the outer half pixel the edge pixel is repeated. Source coordinates are within 0.01
    source pixel of pyproj's at every pixel, and exact to 2**-20 pixel near the source's edge, poles and the
    antimeridian; longitudes are taken modulo 360 degrees. Lazy; the answer does not depend on the chunks of either
    grid. Building asks pyproj for 8 points per 64 x 64 target pixels.

    Parameters
    ----------
    raster
        ``(y, x)`` or ``(band, y, x)`` with a CRS. Missing are NaN, the declared nodata or, where
        ``attrs["nodata_values"]`` lists some, pixels all of whose bands equal one of these; and what a coordinate
        ``seen`` says. It comes along beside classes, elsewhere NaN says it.
    like
        The grid to bring it to: a `Grid`, a GeoBox, or a raster on it.
    resampling
        ``nearest``; ``bilinear`` (always 2 x 2); ``cubic`` (4 x 4, a = -0.5; bilinear next to a missing pixel);
        ``average`` (mean of what the target pixel covers, by exact area under the quadrilateral of its corners, for
        targets coarser than the source). All but average are NaN where the nearest source pixel is; average where less
        than half of what it covers is seen. See `lakescale.kernels.warp.sample`.
    chunks
        Of the result, as dask has them for ``(y, x)``; None takes those of ``like`` if it is a raster on dask, else
        2048. Chunks that would need more than 256 MiB of source at once are made in parts and put together.

    Returns
    -------
    xr.DataArray
        On the grid of ``like``, all bands in one chunk. ``nearest`` keeps bool and integers; float32 else.

    Raises
    ------
    InputError
        When either grid has no CRS, the dims are not ``(y, x)`` or ``(band, y, x)``, the resampling or the chunks make
        no sense, or even 64 x 64 target pixels need more than 2 GiB of source.

    Examples
    --------
    >>> import numpy as np
    >>> coarse = GeoBox.from_bbox((0, 0, 40, 40), "EPSG:3413", resolution=20)
    >>> heights = xr.DataArray(np.array([[1.0, 2], [3, 4]]), dims=("y", "x"), coords=Grid(coarse).coords())
    >>> regrid(heights, coarse.zoom_out(2), resampling="average").values
    array([[2.5]], dtype=float32)
    """
    _check_request(raster, resampling)
    if SEEN in raster.coords:
        return _regrid_with_seen(raster, like, resampling, chunks)
    source, target = Grid.of(raster), _target(like)
    seen = Missing.of(raster, resampling)
    mapping = Mapping(source, target)
    want = _target_chunks(like, target, chunks)
    array = on_dask(raster)
    fitting, windows = _plan(mapping, want, resampling, bands=array.size // max(1, source.shape[0] * source.shape[1]))
    if not any(window.height for row in windows for window in row):
        _LOG.warning("regrid: %s does not meet the target grid, nothing of it is seen", raster.name or "the raster")
    warped = pull(array, fitting, windows, Warp(mapping, resampling, seen), name="regrid", dtype=seen.dtype)
    return _wrap(raster, warped.rechunk((*warped.chunks[:-2], *want)), target, keep_nodata=not seen.as_nan)


def _regrid_with_seen(raster: xr.DataArray, like: Any, resampling: str, chunks: Any) -> xr.DataArray:
    """Bring a raster and its coordinate ``seen``: numbers become NaN where not seen, classes keep it beside them."""
    seen, values = raster.coords[SEEN].drop_vars(SEEN), raster.drop_vars(SEEN)
    if resampling == "nearest" and raster.dtype.kind != "f":
        moved = regrid(seen, like, resampling="nearest", chunks=chunks)
        return regrid(values, like, resampling="nearest", chunks=chunks).assign_coords({SEEN: moved})
    return regrid(values.where(seen), like, resampling=resampling, chunks=chunks)


# -- what is asked for


def _check_request(raster: xr.DataArray, resampling: str) -> None:
    name = str(raster.name or "raster")
    if resampling not in warp.POINTS:
        raise InputError(f"unknown resampling {resampling!r}", name, f"resampling is one of {', '.join(warp.POINTS)}")
    if raster.ndim not in (_PLANE, _STACK) or raster.dims[-2:] != (Y, X):
        mend = "regrid the times one by one" if raster.ndim > _STACK else "raster.transpose(..., 'y', 'x')"
        raise InputError(f"a raster needs the dims ('y', 'x') or ('band', 'y', 'x'), got {raster.dims}", name, mend)
    if raster.dtype.kind not in "biuf":
        raise InputError(f"a raster must be bool, integer or float, got {raster.dtype}", name, "convert it with astype")
    if not raster.size:
        raise InputError(f"a raster without pixels, shape {raster.shape}", name, "check the selection before regrid")


def _target(like: Grid | GeoBox | xr.DataArray) -> Grid:
    if isinstance(like, xr.DataArray):
        return Grid.of(like)
    grid = Grid(like) if isinstance(like, GeoBox) else like
    if not isinstance(grid, Grid):
        raise InputError(
            f"like must be a Grid, a GeoBox or a raster, got {type(like).__name__}",
            "like",
            "for example other.odc.geobox",
        )
    if grid.geobox.crs is None:
        raise InputError("a grid without a CRS", "like", "give it one: GeoBox(shape, transform, 'EPSG:...')")
    return grid


def _target_chunks(like: Any, target: Grid, chunks: Any) -> Chunks:
    if chunks is None:
        is_lazy = isinstance(like, xr.DataArray) and isinstance(like.data, da.Array)
        chunks = like.data.chunks[-2:] if is_lazy else _SIDE
    try:
        rows, cols = da.core.normalize_chunks(chunks, target.shape, dtype=np.float32)
    except (TypeError, ValueError) as error:
        wrong = f"chunks {chunks!r} do not fit a grid of {target.shape}: {error}"
        raise InputError(wrong, "chunks", "give a number, or sizes (y, x) that sum to the grid") from error
    return rows, cols


def _wrap(raster: xr.DataArray, array: da.Array, target: Grid, *, keep_nodata: bool) -> xr.DataArray:
    kept: dict[Hashable, Any] = {
        name: coord for name, coord in raster.coords.items() if not {Y, X} & set(coord.dims) and name != "spatial_ref"
    }
    attrs = {key: value for key, value in raster.attrs.items() if keep_nodata or key not in NODATA_ATTRS}
    return xr.DataArray(array, dims=raster.dims, coords={**kept, **target.coords()}, attrs=attrs, name=raster.name)


# -- where target pixels lie in the source


@dataclass(frozen=True)
class Mapping:
    """From the pixels of a target grid to those of a source grid."""

    source: Grid
    target: Grid

    def exact(self, row: NDArray[np.float64], col: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Source column and row of points in target pixels, by pyproj; inf or NaN where there are none."""
        a, b, c, d, e, f = self.target.transform[:6]
        x, y = a * col + b * row + c, d * col + e * row + f
        if self.source.geobox.crs != self.target.geobox.crs:
            x, y = _transformer(self.target.crs.to_wkt(), self.source.crs.to_wkt()).transform(x, y)
        with np.errstate(invalid="ignore"):  # inf - inf, inf modulo 360
            if self.source.crs.is_geographic:
                x = self._wrap(x)
            a, b, c, d, e, f = (~self.source.transform)[:6]
            return snap(a * x + b * y + c), snap(d * x + e * y + f)

    def _wrap(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bring longitudes outside the source to those nearest to its middle."""
        west, _, east, _ = self.source.bounds_xyxy
        turn = round(2 * np.pi / self.source.crs.axis_info[0].unit_conversion_factor, 9)
        slack = 1e-9 * turn  # rounding must not tear a global grid's edges
        first = (west + east - turn) / 2
        return np.where((x < west - slack) | (x > east + slack), first + np.mod(x - first, turn), x)

    def lattice(self, rows: range, cols: range) -> Lattice:
        """Transform the nodes and probes of some cells."""
        node_row = np.arange(2 * rows.start, 2 * rows.stop + 1) * (STEP / 2)
        node_col = np.arange(2 * cols.start, 2 * cols.stop + 1) * (STEP / 2)
        nodes = self.exact(*np.meshgrid(node_row, node_col, indexing="ij"))
        probes = self.exact(*np.meshgrid(node_row[:-1] + STEP / 4, node_col[:-1] + STEP / 4, indexing="ij"))
        return Lattice(*nodes, *probes)

    def aim(self, place: Place, points: Any = warp.CENTRE) -> Aim:
        """Place the pixels of a block of the target."""
        rows, cols = _cells(place.row, place.height), _cells(place.col, place.width)
        lattice = self.lattice(rows, cols)
        state, _ = judge_cells(lattice, self.source.shape)
        first = (place.row - rows.start * STEP, place.col - cols.start * STEP)
        start, col = find_exact(lattice, state, first, (place.height, place.width), self.source.shape)
        row = np.repeat(np.arange(place.height), np.diff(start))
        x, y = self.exact_points(place.row + row, place.col + col, points)
        return Aim(lattice.node_x, lattice.node_y, *first, start, col, x, y)

    def exact_points(
        self, row: NDArray[np.int64], col: NDArray[np.int64], points: Any
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Transform points of pixels, ``(points, n)`` source columns and rows."""
        offset = np.array(points)[:, :, None]
        return self.exact(row + offset[:, 0], col + offset[:, 1])


def source_coordinates(source: Grid, target: Grid, place: Place) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Source column and row at which `regrid` samples the pixels of a block of the target.

    Returns
    -------
    x, y
        ``(height, width)`` each, in source pixels: ``(0.5, 0.5)`` is the centre of the first one.
    """
    return locate_pixels(Mapping(source, target).aim(place), (place.height, place.width))


@lru_cache(maxsize=16)
def _transformer(from_wkt: str, to_wkt: str) -> Transformer:
    return Transformer.from_crs(from_wkt, to_wkt, always_xy=True)


def _cells(first: int, size: int) -> range:
    return range(first // STEP, -(-(first + size) // STEP))


# -- windows


class _Boxes(NamedTuple):
    """Source pixels that each lattice cell of a target needs, ``(rows, cols)`` each; none where stop <= start."""

    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    def window(self, place: Place) -> Place:
        """Bound what the cells of a block need."""
        rows, cols = _cells(place.row, place.height), _cells(place.col, place.width)
        cells = (slice(rows.start, rows.stop), slice(cols.start, cols.stop))
        top, bottom = int(self.top[cells].min()), int(self.bottom[cells].max())
        left, right = int(self.left[cells].min()), int(self.right[cells].max())
        return Place(top, left, bottom - top, right - left) if bottom > top and right > left else Place(0, 0, 0, 0)


def _plan(mapping: Mapping, want: Chunks, resampling: str, *, bands: int) -> tuple[Chunks, list[list[Place]]]:
    """Plan the windows, with chunks so small that each fits into memory."""
    boxes = find_boxes(mapping, resampling)
    chunks, parts = want, 1
    while True:
        windows = [[boxes.window(place) for place in row] for row in plan_blocks(chunks)]
        largest = 4 * bands * max(window.height * window.width for row in windows for window in row)
        if largest <= _WINDOW_BYTES or parts >= max(max(axis) for axis in want) / STEP:
            break
        parts *= 2
        chunks = (_split(want[0], parts), _split(want[1], parts))
    if largest > _MOST_WINDOW_BYTES:
        raise InputError(
            f"{STEP} x {STEP} target pixels need {largest / 2**30:.1f} GiB of source, 2 GiB are allowed",
            f"source {mapping.source.shape}",
            "go there in two steps, the first with resampling='average' to a grid between",
        )
    return chunks, windows


def _split(axis: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """Divide each chunk of an axis."""
    edges = [[size * k // n for k in range(n + 1)] for size in axis for n in (min(parts, size),)]
    return tuple(b - a for of_chunk in edges for a, b in pairwise(of_chunk))


def find_boxes(mapping: Mapping, resampling: str) -> _Boxes:
    """Bound the source pixels that each lattice cell of the target needs, in strips of cells."""
    rows, cols = (_cells(0, size) for size in mapping.target.shape)
    height, width = mapping.source.shape
    at_once = max(1, _LATTICE_CELLS_AT_ONCE // len(cols))
    strips = []
    for first in range(0, len(rows), at_once):
        strip = range(first, min(len(rows), first + at_once))
        state, bounds = judge_cells(mapping.lattice(strip, cols), mapping.source.shape)
        bounds[state == OUTSIDE] = np.nan
        for i, j in zip(*np.nonzero(state == TORN), strict=True):
            bounds[i, j] = _torn_bounds(mapping, Place(strip[i] * STEP, int(j) * STEP, 0, 0), resampling)
        strips.append(bounds)
    y_min, y_max, x_min, x_max = np.moveaxis(np.concatenate(strips), -1, 0)
    reach = warp.REACH_PX[resampling] + 1
    return _Boxes(
        *_whole_px(y_min - reach, y_max + reach, height),
        *_whole_px(x_min - reach, x_max + reach, width),
    )


def _whole_px(
    low: NDArray[np.float64], high: NDArray[np.float64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First pixel and the one after the last, within the source; size and 0 where there is none."""
    nothing = ~np.isfinite(low)
    start = np.clip(np.floor(np.where(nothing, size, low)), 0, size)
    stop = np.clip(np.ceil(np.where(nothing, 0, high)), 0, size)
    return start.astype(np.int64), stop.astype(np.int64)


def _torn_bounds(mapping: Mapping, corner: Place, resampling: str) -> tuple[float, float, float, float]:
    """Bound the points of all pixels of a cell whose centre lies in the source: y min, y max, x min, x max."""
    height, width = (min(STEP, size - first) for first, size in zip(corner[:2], mapping.target.shape, strict=True))
    row, col = (index.ravel() for index in np.indices((height, width)))
    x, y = mapping.exact_points(corner.row + row, corner.col + col, warp.POINTS[resampling])
    inside = (x[0] >= 0) & (x[0] <= mapping.source.shape[1]) & (y[0] >= 0) & (y[0] <= mapping.source.shape[0])
    if not inside.any():
        return np.nan, np.nan, np.nan, np.nan
    x, y = (np.where(np.isfinite(at), at, at[0])[:, inside] for at in (x, y))
    return y.min(), y.max(), x.min(), x.max()


# -- blocks


@dataclass(frozen=True)
class Warp:
    """Makes a block of the target from a window of the source; see `lakescale.chunks.pull`."""

    mapping: Mapping
    resampling: str
    nodata: Missing

    def __call__(self, pixels: NDArray[Any], window: Place, place: Place) -> NDArray[Any]:
        """Sample in strips, so that what must be placed exactly never fills the memory."""
        out = np.full((*pixels.shape[:-2], place.height, place.width), self.nodata.fill, self.nodata.dtype)
        if window.height:
            stack = np.ascontiguousarray(pixels).reshape(-1, window.height, window.width)
            if self.nodata.as_nan:
                stack = self.nodata.to_float(stack)
            planes = out.reshape(-1, place.height, place.width)
            for strip in _strips(place):
                aim = self.mapping.aim(strip, warp.POINTS[self.resampling])
                part = planes[:, strip.row - place.row : strip.row - place.row + strip.height]
                warp.sample(stack, window[:2], self.mapping.source.shape, aim, self.resampling, part)
        return out


def _strips(place: Place) -> Iterator[Place]:
    step = _STRIP_CELLS * STEP
    for row in range(place.row - place.row % step, place.row + place.height, step):
        first, stop = max(row, place.row), min(row + step, place.row + place.height)
        yield Place(first, place.col, stop - first, place.width)
