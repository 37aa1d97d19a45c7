"""Scenes to the bands, grid and chunks of a cube; what cannot be brought there is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import xarray as xr
from dask.base import tokenize
from odc.geo.geobox import GeoBox

from lakescale.cube.layout import Layout, bands_of, day_of
from lakescale.grid import Grid
from lakescale.scene.on_grid import bring_to_grid, overlap
from lakescale.schema import BAND, SEEN, TIME, InputError, X, Y
from lakescale.store import same_grid

if TYPE_CHECKING:
    from lakescale.storage import Location

_DTYPES = ("uint8", "float32")


class Placed(NamedTuple):
    """A scene on the grid and in the chunks of the cube."""

    scene: xr.DataArray
    fingerprint: str
    """Of where its pixels come from."""


def check_grid(grid: Any) -> Grid | None:
    """Make a `Grid` of what was given as one; refuse what is none."""
    if grid is None or isinstance(grid, Grid):
        return grid
    if isinstance(grid, GeoBox) and grid.crs is not None:
        return Grid(grid)
    mend = "give a lakescale.Grid or a GeoBox: Grid.of(raster), raster.odc.geobox, GeoBox.from_bbox(..., 'EPSG:3413')"
    raise InputError("grid= is no grid with a CRS", _said(grid), mend)


def sort_by_day(given: Any) -> dict[str, xr.DataArray]:
    """Sort scenes by date; refuse what is no scene of one date, and two of one date."""
    scenes = _list_scenes(given)
    if not scenes:
        raise InputError("no scenes", "", "pass at least one")
    by_day: dict[str, xr.DataArray] = {}
    for scene in scenes:
        item = str(scene.attrs.get("source", scene.name))
        if scene.dims != (BAND, Y, X):
            raise InputError(
                f"a scene has the dims (band, y, x), this one {scene.dims}", item, "pass one for each date"
            )
        if TIME not in scene.coords:
            raise InputError("a scene without a date", item, "open it with date='YYYY-MM-DD'")
        if str(scene.dtype) not in _DTYPES:
            raise InputError(f"a scene of type {scene.dtype}", item, "a cube holds uint8 or float32: scene.astype(...)")
        day = day_of(scene)
        if day in by_day:
            both = f"{by_day[day].attrs.get('source', '')}, {item}"
            raise InputError(f"two scenes of {day}", both, "pass one scene for each date")
        by_day[day] = scene
    first = next(iter(by_day.values()))
    for day, scene in by_day.items():
        _refuse_others(scene, day, bands_of(first), str(first.dtype), "the first scene")
    return dict(sorted(by_day.items()))


def _list_scenes(given: Any) -> list[xr.DataArray]:
    """List one scene or many; refuse what is none."""
    is_one = isinstance(given, xr.DataArray | Mapping | str) or not isinstance(given, Iterable)
    scenes = [given] if is_one else list(given)
    for one in scenes:
        if not isinstance(one, xr.DataArray):
            mend = (
                "pass an xarray.DataArray (band, y, x) with a date, as lakescale.open_scene gives it, or a list of them"
            )
            raise InputError("this is no scene", _said(one), mend)
    return scenes


def _refuse_others(scene: xr.DataArray, day: str, bands: tuple[str, ...], dtype: str, whose: str) -> None:
    item = f"{day}: {scene.attrs.get('source', scene.name)}"
    if set(bands_of(scene)) != set(bands) or len(bands_of(scene)) != len(bands):
        what = f"a scene with the bands {', '.join(bands_of(scene))}; {whose} has {', '.join(bands)}"
        raise InputError(what, item, "choose the same bands of all: open_scene(..., bands=[...]), or another store")
    if str(scene.dtype) != dtype:
        what = f"a scene of type {scene.dtype}; {whose} has {dtype}"
        raise InputError(what, item, "keep 8-bit RGB and reflectance in stores of their own")


def place(scene: xr.DataArray, layout: Layout, root: Location, resampling: str) -> Placed:
    """Bring a scene to the bands, the grid and the chunks of the cube."""
    day = day_of(scene)
    _refuse_others(scene, day, layout.bands, layout.dtype, f"the store {root.name}")
    fingerprint = _fingerprint(scene, resampling)
    if bands_of(scene) != layout.bands:
        scene = _reorder(scene, layout.bands)
    if not same_grid(Grid.of(scene), layout.grid):
        scene = bring_to_grid(scene, layout.grid, resampling=resampling, chunks=max(layout.chunk))
    height, width = layout.chunk
    return Placed(scene.chunk({BAND: -1, Y: height, X: width}), fingerprint)


def refuse_misses(scenes: Iterable[xr.DataArray], grid: Grid) -> None:
    """Refuse scenes that share no ground with the cube: a date without a pixel would be there for ever."""
    for scene in scenes:
        own = Grid.of(scene)
        if not same_grid(own, grid) and not overlap(own, grid):
            raise InputError(
                f"the scene does not meet the cube's grid: it covers {_extent(own)}, the cube {_extent(grid)}",
                f"{day_of(scene)}: {scene.attrs.get('source', scene.name)}",
                "leave the scene out, or give it a store of its own",
            )


def _said(value: Any) -> str:
    """Name the type of a value, and begin what it says."""
    return f"{type(value).__name__} {' '.join(str(value).split())[:60]}"


def _extent(grid: Grid) -> str:
    west, south, east, north = grid.bounds_xyxy
    return f"x {west:.10g} to {east:.10g}, y {south:.10g} to {north:.10g} ({grid.crs.to_string()[:40]})"


def _fingerprint(scene: xr.DataArray, resampling: str) -> str:
    """Name where a scene's pixels come from, which bands they are, where they lie and what they mean."""
    seen = scene.coords[SEEN].data if SEEN in scene.coords else None
    grid = Grid.of(scene)
    lies = grid.shape, tuple(grid.transform[:6]), grid.crs.to_wkt()
    means = [scene.attrs.get(name) for name in ("nodata_values", "scale", "offset")]
    return str(tokenize(scene.data, seen, bands_of(scene), lies, means, resampling))


def _reorder(scene: xr.DataArray, bands: tuple[str, ...]) -> xr.DataArray:
    """Put bands into the store's order, and what ``attrs`` list of each band."""
    order = [bands_of(scene).index(band) for band in bands]
    listed = {name: [scene.attrs[name][k] for k in order] for name in ("scale", "offset") if _is_list(scene, name)}
    return scene.isel({BAND: order}).assign_attrs(listed)


def _is_list(scene: xr.DataArray, name: str) -> bool:
    return isinstance(scene.attrs.get(name), list)
