"""What a season hands out: the catalogue, with where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geopandas as gpd
import shapely

from lakescale.polygons import areas_m2
from pipelines.catalogue import PROVENANCE, Images, Provenance, write_catalogue
from pipelines.season_dates import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lakescale.series import Tracks
    from pipelines.season_dates import MappedDate
    from pipelines.season_folder import SeasonFolder
    from pipelines.season_ground import Ground

PRODUCTS = "catalogue"
"""Folder of the products within that of the season."""
_CLOUD = "cloud: "
"""Begins the note on the rule, as `lakescale.assess_cloud` gives it."""


def write_products(
    tracks: Tracks,
    folder: SeasonFolder,
    ground: Ground,
    dates: Sequence[MappedDate],
    not_seen: Mapping[str, gpd.GeoSeries],
    token: str,
) -> None:
    """Write the catalogue in all its forms to the season's folder.

    Parameters
    ----------
    tracks
        Of all dates.
    folder, ground, dates
        Of the season.
    not_seen
        What each date did not see, in the grid's CRS.
    token
        Tells this catalogue from those of other scenes and options.
    """
    looked_at = find_region(ground)
    images = {one.day: _describe_images(one, looked_at, not_seen[one.day]) for one in dates}
    recipe = ground.recipe
    models = [f"model {model.name}: {model.source}, hash {model.hash}" for model in recipe.models]
    beside = [f"{what}: {source}" for what, source in _inputs(ground)]
    provenance = Provenance(
        recipe_hash=token,
        images=images,
        inputs=(*beside, *models),
        region_m2=_area_m2(looked_at),
        credits=recipe.credits,
        creator=recipe.creator,
        license=recipe.license,
    )
    title = recipe.title or f"Lakes of {recipe.out.resolve().name}, {dates[0].day} to {dates[-1].day}"
    error_m = recipe.position_error_m or ground.grid.pixel_size_m
    options: dict[str, Any] = {"grid": ground.grid, "title": title, "position_error_m": error_m}
    write_catalogue(tracks, folder.path / PRODUCTS, provenance=provenance, **options)


def has_products(folder: SeasonFolder) -> bool:
    """Tell whether the folder holds a catalogue."""
    return (folder.path / PRODUCTS / PROVENANCE).exists()


def find_region(ground: Ground) -> gpd.GeoSeries:
    """Outline what all dates look at: the grid, within the area of interest where there is one."""
    extent = ground.grid.geobox.extent.geom
    region = extent if ground.sources.aoi is None else extent & ground.sources.aoi.union_all()
    return gpd.GeoSeries([region], crs=ground.grid.crs)


def find_cloud_rule(notes: Iterable[str]) -> str:
    """Find in the notes of a date by which rule cloud was found; empty where it was not assessed."""
    return "; ".join(sorted({note.partition(_CLOUD)[2] for note in notes if _CLOUD in note}))


def _describe_images(date: MappedDate, looked_at: gpd.GeoSeries, not_seen: gpd.GeoSeries) -> Images:
    told = read_manifest(date.folder)
    scene = {name: str(value) for name, value in told.get("scene", {}).items()}
    hidden = shapely.intersection(looked_at.iloc[0], shapely.union_all(not_seen.to_numpy()))
    seen_m2 = _area_m2(looked_at) - _area_m2(gpd.GeoSeries([hidden], crs=looked_at.crs))
    return Images(
        scene_ids=tuple(told.get("of_season", {}).get("scenes", ())),
        sensor=scene.get("sensor", ""),
        product_level=scene.get("product_level", ""),
        baseline=scene.get("baseline", ""),
        cloud=find_cloud_rule(told.get("notes", ())),
        seen_m2=max(seen_m2, 0.0),
    )


def _area_m2(outline: gpd.GeoSeries) -> float:
    return float(areas_m2(outline).sum())


def _inputs(ground: Ground) -> list[tuple[str, str]]:
    recipe = ground.recipe
    named = [("DEM", source) for source in (recipe.dem.source if recipe.dem else ())]
    named += [("ice", recipe.ice.source)] if recipe.ice else []
    areas = {"area of interest": recipe.aoi, "excluded": recipe.exclude}
    areas |= {"drainage basins": recipe.ice_sheet.basins, "grounded ice": recipe.ice_sheet.grounded}
    return named + [(what, str(source)) for what, source in areas.items() if source]
