"""What all dates of a season share: the grid, the areas, and the sinks of its DEM, which are found once."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dask.array as da
import xarray as xr
from dask.base import tokenize

from lakescale import __version__
from lakescale.cluster import compute
from lakescale.cube import open_cube
from lakescale.grid import Grid
from lakescale.scene.on_grid import read_grid
from lakescale.schema import SINK, SINK_DEPTH, InputError, X, Y
from lakescale.storage import version_of
from lakescale.store import is_store, open_array, open_layer, open_store, write_layer
from pipelines.season_scenes import open_one
from pipelines.season_tables import is_told, read_table, write_told
from pipelines.sources import LEAST_SINK_M2, Sources, add_areas, add_terrain, find_grid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pipelines.season_recipe import SeasonRecipe
    from pipelines.season_scenes import SeasonScene

_LOG = logging.getLogger(f"lakescale.{__name__}")

STORED = frozenset({SINK_DEPTH, SINK})
"""Layers of evidence that dates do not write: depths are read from the season's store, sinks follow from them."""
OUTLINES = "sinks.parquet"
"""Of a season's folder: sinks within sinks, as `lakescale.sink_regions` gives them."""
_REQUEST = "request"
OF_THE_CATALOGUE = (
    "title", "creator", "license", "credits", "position_error_m", "volume", "depth", "lids", "ice_sheet",
)  # fmt: skip
"""Entries of a recipe on which the lakes of a date do not depend."""
_ELSEWHERE = ("track", "retries", "dates_at_once", "dates", "clouds", "mosaic", *OF_THE_CATALOGUE)


@dataclass(frozen=True)
class Ground:
    """What all dates share."""

    recipe: SeasonRecipe
    """With nothing of its models left open."""
    sources: Sources
    """Areas and sinks; in place of the scene a raster without data."""
    token: str
    """Of all that lakes depend on but the scenes."""
    chunks_written: int = 0
    """Of sinks, by this run."""

    @property
    def grid(self) -> Grid:
        """Of all dates."""
        return self.sources.grid

    def with_scene(self, scene: xr.DataArray, notes: list[str]) -> Sources:
        """Give the sources of one date."""
        return replace(self.sources, scene=scene, notes=[*notes, *self.sources.notes])

    def fingerprint(self, scenes: Iterable[SeasonScene]) -> str:
        """Sum up all that the lakes of a date depend on: scenes, options, version, weights."""
        listed = list(scenes)
        asked = [self.recipe.cloud_of(scene.day, scene.files) for scene in listed]
        how = self.recipe.mosaic if len(listed) > 1 else ""
        return digest([self.token, [scene.state for scene in listed], asked, how])


def find_season_grid(
    recipe: SeasonRecipe, scenes: dict[str, list[SeasonScene]], stored: Grid | None, *, is_asked_again: bool
) -> Grid:
    """Find the grid: that of the raster named, that of the season in the folder, or that of the first scene.

    Parameters
    ----------
    recipe, scenes
        Of the season.
    stored
        Of the season in the folder, if there is one.
    is_asked_again
        Whether that one's recipe asks for the same grid.

    Raises
    ------
    InputError
        When the grid cannot be made, is not in metres, or no scene can be opened.
    """
    asked = recipe.grid
    if asked.like is not None:
        is_cube = asked.like.rstrip("/").endswith(".zarr")
        own = Grid.of(open_cube(asked.like)) if is_cube else read_grid(asked.like)
        return find_grid(asked, _blank(own, recipe.scene.chunks), asked.like)
    if stored is not None and is_asked_again:
        return stored
    refused: InputError | None = None
    for scene in (one for listed in scenes.values() for one in listed):
        try:
            opened, _, _ = open_one(scene, recipe)
        except InputError as error:
            refused = refused or error
            continue
        return find_grid(asked, opened, scene.name)
    raise refused or InputError("there are no scenes", str(recipe.scene.source), "name them under scenes")


def lay_ground(recipe: SeasonRecipe, grid: Grid) -> Ground:
    """Read the areas, and plan the sinks (lazy)."""
    sources = Sources(_blank(grid, recipe.scene.chunks), grid, [])
    add_areas(sources, recipe)
    if recipe.dem is not None:
        add_terrain(sources, recipe.dem, nested=recipe.nests_sinks)
    depth = None if sources.sink_depth is None else _request(sources.sink_depth)
    areas = [state_of(source) for source in (recipe.aoi, recipe.exclude, recipe.ice and recipe.ice.source) if source]
    about = {name: value for name, value in recipe.answer.items() if name not in _ELSEWHERE}
    about["scene"] = {name: value for name, value in about["scene"].items() if name not in ("source", "stac")}
    where = [list(grid.shape), list(grid.transform)[:6], grid.crs.to_wkt()]
    return Ground(recipe, sources, digest([__version__, about, areas, depth, where]))


def write_sinks(ground: Ground, folder: Path) -> Ground:
    """Write the depth of sinks, and outlines, as far as they are not there, and read them from there for all dates."""
    depth, store = ground.sources.sink_depth, folder
    if depth is None:
        return ground
    request = _request(depth)
    _clear(store, request)
    rows, cols = depth.data.chunks
    written = write_layer(depth.assign_attrs({_REQUEST: request}), store, SINK_DEPTH, chunks=max(rows[0], cols[0]))
    _LOG.info("sinks: %d chunks written", written)
    stored = open_layer(store, SINK_DEPTH).chunk({Y: rows, X: cols})
    sinks = _write_outlines(ground, store.with_name(OUTLINES), request)
    sources = replace(ground.sources, sink_depth=stored, sinks=sinks)
    return replace(ground, sources=sources, chunks_written=written)


def _write_outlines(ground: Ground, path: Path, request: str) -> Any:
    """Write the outlines of sinks within sinks, where lakes are fused by them; what is there and damaged, anew."""
    sinks, dem = ground.sources.sinks, ground.recipe.dem
    if sinks is None or dem is None:
        return None
    token = digest([request, dem.min_depth_m, LEAST_SINK_M2])
    if is_told(path, token):
        with suppress(InputError):
            return read_table(path)
    (found,) = compute(sinks, description="sinks within sinks")
    write_told(found, path, token, [])
    return found


def digest(told: Any) -> str:
    """Sum up what JSON can hold."""
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _blank(grid: Grid, side: int) -> xr.DataArray:
    pixels = da.zeros(grid.shape, chunks=side, dtype=bool)
    return xr.DataArray(pixels, dims=(Y, X), coords=grid.coords())


def _request(depth: xr.DataArray) -> str:
    return str(tokenize(depth.data, __version__))


def _clear(store: Path, request: str) -> None:
    """Take sinks away that were made of something else; what a killed run left of that, too."""
    old = store.with_name(f"old.partial.{store.name}")
    if is_store(store):
        try:
            same = open_array(open_store(store, "layers"), SINK_DEPTH).attrs["told"].get(_REQUEST) == request
        except InputError:
            same = False
        if not same:
            shutil.rmtree(old, ignore_errors=True)
            store.replace(old)
    shutil.rmtree(old, ignore_errors=True)


def state_of(source: str) -> list[Any]:
    """Tell a file from what it was before: name, size, time of change, or what its server says."""
    return [source, *version_of(source)]
