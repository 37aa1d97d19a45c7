"""What a run of one date starts from: the scene on the run's grid, what was seen of it, terrain, ice and areas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale.areas import area_mask, read_areas
from lakescale.cube import open_cube
from lakescale.dem import open_dem
from lakescale.evidence.cloud import assess_cloud, seen_without_cloud
from lakescale.evidence.color import color_mask, index_mask
from lakescale.evidence.ice import ice_mask, is_raster
from lakescale.evidence.sink_regions import sink_regions
from lakescale.evidence.sinks import sink_depth
from lakescale.grid import Grid
from lakescale.regrid import regrid
from lakescale.scene import SceneParts, bring_to_grid, open_parts, seen_mask
from lakescale.scene.on_grid import choose_resampling, overlap, read_grid
from lakescale.schema import BAND, BLUE, COLOR, DEM, GREEN, INDEX, RED, SEEN, TIME, InputError, X, Y
from lakescale.store import open_layer
from pipelines.recipe import LAKESCALE

if TYPE_CHECKING:
    from collections.abc import Iterable

    import geopandas as gpd
    import xarray as xr

    from pipelines.recipe import DemRecipe, GridRecipe, IceRecipe, MapRecipe, SceneRecipe


LEAST_SINK_M2 = 2000.0
"""Least true area of a sink that lakes are fused by: smaller ones hold no lake, and rough ground has very many."""


@dataclass
class Sources:
    """What a run starts from; all rasters are lazy and on one grid."""

    scene: xr.DataArray
    """With a coordinate ``seen`` where values alone do not tell: cloud counts as not seen."""
    grid: Grid
    notes: list[str]
    """What was decided, missing or left out, once each."""
    aoi: gpd.GeoDataFrame | None = None
    exclude: gpd.GeoDataFrame | None = None
    ice: gpd.GeoDataFrame | None = None
    ice_raster: xr.DataArray | None = None
    """Bool, in place of ``ice`` where the ice comes from a raster."""
    elevation: xr.DataArray | None = None
    """A DEM: float32, m, NaN where there is no elevation."""
    sink_depth: xr.DataArray | None = None
    """Of that DEM: float32, m, NaN where there is no elevation."""
    sinks: Any = None
    """Outlines of that DEM's sinks, one within the other (a lazy frame, or a frame), where lakes are fused by them."""
    region: xr.DataArray | None = None
    """Bool, where lakes are looked for; None for everywhere."""


def open_sources(recipe: MapRecipe) -> Sources:
    """Open the scene and all that lies beside it, and refuse what cannot be mapped."""
    scene, beside, notes = open_date(recipe.scene)
    item = str(scene.attrs.get("source", recipe.scene.source))
    grid = find_grid(recipe.grid, scene, item)
    if TIME not in scene.coords:
        raise InputError("no date can be read from the names of the scene", item, "give one: --date 2019-07-23")
    scene, cloud_note = hide_cloud(scene, beside, recipe.cloud, margin_m=recipe.cloud_margin_m)
    sources = Sources(bring_to_grid(scene, grid, chunks=_chunks_for(scene, grid, recipe)), grid, notes)
    if "resampling" in sources.scene.attrs:
        notes.append(
            f"scene: brought to {grid.crs.to_string()[:40]}, {grid.pixel_size_m:g} m by {_resampling(sources)}"
        )
    notes.append(cloud_note)
    add_areas(sources, recipe)
    if recipe.dem is not None:
        add_terrain(sources, recipe.dem, nested=recipe.nests_sinks)
    return sources


def open_date(asked: SceneRecipe) -> tuple[xr.DataArray, tuple[xr.DataArray, ...], list[str]]:
    """Open a scene, from files or from a cube, and what lies beside it on other grids."""
    source = asked.source[0] if len(asked.source) == 1 else asked.source
    if isinstance(source, str) and _is_zarr(source):
        parts = SceneParts(_open_cubes_date(source, asked), ())
    else:
        parts = open_parts(source, **asked.model_dump(exclude={"source"}))
    scene, beside = parts
    notes = (
        [f"date {str(scene.time.values)[:10]}: {scene.attrs.get('date_source', '')}"] if TIME in scene.coords else []
    )
    notes.append(f"values: {scene.attrs.get('radiometry_source', scene.dtype)}")
    if scene.attrs.get("skipped"):
        notes.append(f"skipped, not a georeferenced band: {scene.attrs['skipped']}")
    return scene, beside, notes


def find_grid(asked: GridRecipe, scene: xr.DataArray, item: str) -> Grid:
    """Find the run's grid: the one asked for, else the scene's; it must be in metres."""
    own = Grid.of(scene)
    if asked.like is not None and (asked.crs is not None or asked.resolution_m is not None):
        raise InputError("a grid like another raster's has its own CRS and resolution", asked.like, "leave out --like")
    if asked.like is not None:
        grid = Grid.of(open_cube(asked.like)) if _is_zarr(asked.like) else read_grid(asked.like)
    elif asked.crs is not None or asked.resolution_m is not None:
        grid = _grid_in(asked.crs or own.crs.to_wkt(), asked.resolution_m, own)
    else:
        grid = own
    grid.require_metres(asked.like or item)
    if grid is not own and not overlap(own, grid):
        there, here = (", ".join(f"{v:.6g}" for v in one.bounds_xyxy) for one in (own, grid))
        what = f"the scene misses the run's grid: it lies in {there}, the grid in {here} (x, y, x, y, each in its CRS)"
        raise InputError(what, item, "give another --like, or a finer --resolution")
    return grid


def hide_cloud(
    scene: xr.DataArray, beside: Iterable[xr.DataArray], rule: str, *, margin_m: float = 0.0
) -> tuple[xr.DataArray, str]:
    """Take clouded pixels for not seen, where the bands tell them; and say what was done."""
    found = assess_cloud(scene, beside=tuple(beside), rule=rule, margin_m=margin_m)
    if found.mask is None:
        return scene, found.note
    seen = seen_without_cloud(seen_mask(scene), found)
    return scene.assign_coords({SEEN: seen.drop_vars([SEEN, BAND], errors="ignore")}), found.note


def add_areas(sources: Sources, recipe: MapRecipe) -> None:
    """Read the polygons of a run: area of interest, excludes, ice; and the ice from a raster."""
    grid = sources.grid
    if recipe.aoi is not None:
        sources.aoi = read_areas(recipe.aoi, grid, what="area of interest")
        sources.region = area_mask(sources.aoi, grid, chunks=sources.scene.data.chunks[-2:], name="aoi")
    if recipe.exclude is not None:
        sources.exclude = read_areas(recipe.exclude, grid, what="excluded area", may_miss=True)
        if not len(sources.exclude):
            sources.notes.append("exclude: none of its polygons lies in the scene")
    if recipe.ice is None:
        sources.notes.append("ice: none given, so no candidate is dropped for lying off it")
    else:
        _add_ice(sources, recipe.ice)


def add_terrain(sources: Sources, asked: DemRecipe, *, nested: bool) -> None:
    """Find the sinks of a DEM, on the run's grid and a margin round it, so that its edge cuts no sink open.

    With ``nested`` outline them too, one within the other.
    """
    source = asked.source[0] if len(asked.source) == 1 else asked.source
    chunks = sources.scene.data.chunks[-2:]
    if isinstance(source, str) and _is_zarr(source):
        if asked.nodata is not None:
            raise InputError("a stored DEM knows its voids", source, "leave out --dem-nodata, or ingest again with it")
        dem = open_layer(source, DEM)
    else:
        dem = open_dem(source, overlap=asked.overlap, nodata=asked.nodata)
    if not overlap(Grid.of(dem), sources.grid):
        raise InputError("the DEM misses the scene", str(dem.attrs.get("source", source)), "give one that covers it")
    pad = int(np.ceil(asked.margin_m / sources.grid.pixel_size_m))
    wide = Grid(sources.grid.geobox.pad(pad))
    placed = regrid(dem, wide, resampling=choose_resampling(Grid.of(dem), wide), chunks=chunks[0][0])
    depth = sink_depth(placed, engine=asked.engine, nodata=asked.voids)
    inside = {Y: slice(pad, pad + sources.grid.shape[0]), X: slice(pad, pad + sources.grid.shape[1])}
    sources.elevation, sources.sink_depth = (
        raster.isel(inside).chunk(dict(zip((Y, X), chunks, strict=True))).assign_coords(sources.grid.coords())
        for raster in (placed.assign_attrs(dem.attrs), depth)
    )
    if nested:
        least: dict[str, Any] = {"min_depth_m": asked.min_depth_m, "min_area_m2": LEAST_SINK_M2}
        sources.sinks = sink_regions(placed, engine=asked.engine, nodata=asked.voids, levels=None, **least)
    about = f"{dem.attrs.get('source', source)}, sinks deeper than {asked.min_depth_m:g} m, engine {asked.engine}"
    sources.notes.append(f"dem: {about}, enclosed voids are {asked.voids}s")


def find_evidence(sources: Sources, recipe: MapRecipe) -> dict[str, xr.DataArray]:
    """Build the masks of water that the scene allows (lazy), and note which it does not."""
    scene = sources.scene
    bands = {str(name) for name in scene[BAND].values}
    missing = {COLOR: _why_no_color(scene, bands), INDEX: _why_no_index(scene, bands)}
    wanted = (recipe.evidence,) if recipe.evidence in (COLOR, INDEX) else (COLOR, INDEX)
    if recipe.evidence == INDEX and not {RED, BLUE} - bands:
        missing[INDEX] = ""  # asked for by name: a ranking is better than nothing
    if recipe.fuse == LAKESCALE and recipe.models and not {RED, BLUE} - bands:
        missing[INDEX] = ""  # the preset asks the models about each of its candidates
    evidence = {}
    if COLOR in wanted and not missing[COLOR]:
        evidence[COLOR] = color_mask(scene, region=sources.region)
    if INDEX in wanted and not missing[INDEX]:
        mask = index_mask(scene, threshold=recipe.index_threshold)
        evidence[INDEX] = mask if sources.region is None else mask & sources.region
    notes = [f"{name}: no evidence, {why}" for name, why in missing.items() if why and name in wanted]
    sources.notes += notes
    if not evidence and recipe.evidence != "model":
        raise InputError(
            f"the scene (bands {', '.join(sorted(bands))}, {scene.dtype}) gives no evidence of water: "
            f"{'; '.join(notes)}",
            str(scene.attrs.get("source", "scene")),
            "give blue and red as reflectance, or red, green and blue as 8-bit RGB",
        )
    return evidence


def _why_no_color(scene: xr.DataArray, bands: set[str]) -> str:
    if lacking := [name for name in (RED, GREEN, BLUE) if name not in bands]:
        return f"the scene has no {' and no '.join(lacking)}"
    return "" if scene.dtype == np.uint8 else "color thresholds are for 8-bit RGB and this is reflectance"


def _why_no_index(scene: xr.DataArray, bands: set[str]) -> str:
    if lacking := [name for name in (RED, BLUE) if name not in bands]:
        return f"the scene has no {' and no '.join(lacking)}"
    return "the water index of stretched 8-bit RGB is only a ranking" if scene.dtype == np.uint8 else ""


def _is_zarr(source: str) -> bool:
    return source.rstrip("/").endswith(".zarr")


def _open_cubes_date(store: str, asked: SceneRecipe) -> xr.DataArray:
    unusable = {
        name: getattr(asked, name) for name in ("scale", "offset", "nodata") if getattr(asked, name) is not None
    }
    if unusable:
        raise InputError(
            f"a cube knows its {', '.join(unusable)}", store, "leave the option out, or ingest again with it"
        )
    cube = open_cube(store, chunks=asked.chunks if "chunks" in asked.model_fields_set else None)
    days = [str(day)[:10] for day in cube[TIME].values]
    if asked.date is None and len(days) > 1:
        raise InputError(f"the cube holds {len(days)} dates: {', '.join(days)}", store, "choose one: --date YYYY-MM-DD")
    day = asked.date or days[0]
    if day not in days:
        raise InputError(f"the cube has no date {day}, only {', '.join(days)}", store, "choose one of them: --date")
    scene = cube.isel({TIME: days.index(day)})
    if asked.bands is not None:
        there = [str(name) for name in cube[BAND].values]
        if lacking := [name for name in asked.bands if name not in there]:
            raise InputError(f"no band {', '.join(lacking)}", store, f"choose among bands: {', '.join(there)}")
        scene = scene.sel({BAND: asked.bands})
    return scene.assign_attrs(source=store, date_source="the cube")


def _grid_in(crs: str, resolution_m: float | None, own: Grid) -> Grid:
    problem = ""
    try:
        if resolution_m is not None and own.geobox.crs == crs:
            return Grid(own.geobox.zoom_to(resolution=resolution_m))
        resolution: Any = "auto" if resolution_m is None else resolution_m
        return Grid(own.geobox.to_crs(crs, resolution=resolution))
    except Exception as error:  # noqa: BLE001  (odc-geo hands on what pyproj and rasterio raise)
        problem = str(error).strip().splitlines()[0]
    raise InputError(f"cannot make a grid there: {problem}", f"--crs {crs}", "give a CRS in metres, such as EPSG:3413")


def _chunks_for(scene: xr.DataArray, grid: Grid, recipe: MapRecipe) -> Any:
    return None if Grid.of(scene).geobox == grid.geobox else recipe.scene.chunks


def _resampling(sources: Sources) -> str:
    return str(sources.scene.attrs["resampling"])


def _add_ice(sources: Sources, asked: IceRecipe) -> None:
    if is_raster(asked.source):
        chunks = sources.scene.data.chunks[-2:]
        sources.ice_raster = ice_mask(asked.source, sources.grid, min_percent=asked.min_percent, chunks=chunks)
    else:
        sources.ice = read_areas(asked.source, sources.grid, what="ice outline")
