"""The answer to the 12th ACM SIGSPATIAL Cup (2023): lakes with their image's name and their region's number."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from pyproj import CRS

from lakescale.grid import Grid
from lakescale.schema import IMAGE, REGION_NUM, InputError
from lakescale.score_input import bring, fit
from lakescale.storage import locate, name_of
from pipelines.run_folder import publish
from pipelines.vector_files import read_polygons

if TYPE_CHECKING:
    from typing import Any

    import xarray as xr
    from numpy.typing import NDArray

    from lakescale.storage import Location
    from pipelines.recipe import MapRecipe

_LOG = logging.getLogger(__name__)

ANSWER_FILE, ANSWER_CRS = "lake_polygons_test.gpkg", "EPSG:3857"

_EDGES = 400


class CupRequest(NamedTuple):
    """What a run's answer needs beside its lakes."""

    regions: gpd.GeoDataFrame
    """Polygons with ``region_num``, in any CRS."""
    image: str
    """File name of the mosaic."""

    def write(self, lakes: gpd.GeoDataFrame, folder: Location) -> Answer:
        """Write the answer to a folder, see `write_cup_answer`."""
        return write_cup_answer(lakes, self.regions, self.image, folder / ANSWER_FILE)


class Answer(NamedTuple):
    """What was written."""

    polygons: gpd.GeoDataFrame
    """Columns ``image``, ``region_num``, ``geometry``, in EPSG:3857."""
    outside: int
    """Lakes that lie in no region: they are not in the file."""

    @property
    def note(self) -> str:
        """Say it in words."""
        count, regions = len(self.polygons), self.polygons[REGION_NUM].nunique()
        inside = f"{count} lake{'s' * (count != 1)} of {regions} region{'s' * (regions != 1)}"
        return f"cup: {inside} in {ANSWER_FILE}; left out, in no region: {self.outside}"


def open_cup(recipe: MapRecipe, scene: xr.DataArray) -> CupRequest | None:
    """Read what the answer of a run needs, before anything is computed; None where none is asked for.

    Parameters
    ----------
    recipe, scene
        Of the run.

    Raises
    ------
    InputError
        When the regions cannot be used or miss the scene, or the scene is not one file and its image has no name.
    """
    if recipe.cup_regions is None:
        return None
    regions = read_regions(recipe.cup_regions)
    _refuse_elsewhere(regions, Grid.of(scene), recipe.cup_regions)
    return CupRequest(regions, recipe.image or _name_of(scene))


def write_cup_answer(
    lakes: gpd.GeoDataFrame, regions: gpd.GeoDataFrame | str | Path, image: str, path: str | Location
) -> Answer:
    """Write lakes as the Cup wants them: one layer in EPSG:3857 with the columns ``image`` and ``region_num``.

    A lake that reaches over the edge of a region goes, whole, to the one with which it shares the greatest area. One of
    several parts stays one polygon of several parts, and no lake is left out for its size.

    Parameters
    ----------
    lakes
        Polygons of one image, in any CRS.
    regions
        Polygons with a column ``region_num``, or a file of them such as the Cup's ``lakes_regions.gpkg``.
    image
        File name of the mosaic.
    path
        The GeoPackage to write; one that is there is replaced.

    Raises
    ------
    InputError
        When the regions have no ``region_num``, or either frame cannot be used, see `assign_regions`.
    RunError
        When the file cannot be written; nothing is left of it then.
    """
    areas = regions if isinstance(regions, gpd.GeoDataFrame) else read_regions(regions)
    number = assign_regions(lakes, areas)
    inside = number.notna().to_numpy()
    moved, *_ = bring(lakes, CRS(ANSWER_CRS), "lakes")
    columns = {IMAGE: [image] * int(inside.sum()), REGION_NUM: number[inside].to_numpy(np.int64)}
    answer = gpd.GeoDataFrame(columns, geometry=moved[inside], crs=ANSWER_CRS)
    publish(locate(path), lambda file: _write(answer, file))
    return Answer(answer, int((~inside).sum()))


def read_regions(path: str | Path) -> gpd.GeoDataFrame:
    """Read regions from a vector file.

    Raises
    ------
    InputError
        When it cannot be read, or has no column ``region_num``.
    """
    regions = read_polygons(path, what="regions")
    _numbers_of(regions, str(path))
    return regions


def assign_regions(polygons: gpd.GeoDataFrame, regions: gpd.GeoDataFrame, *, what: str = "lakes") -> pd.Series[Any]:
    """Find the region of each polygon: the one with which it shares the greatest area, in a draw the first.

    Parameters
    ----------
    polygons
        In any CRS; they are brought to that of the regions, see `lakescale.score`.
    regions
        Polygons with a column ``region_num``; a region may have several rows.
    what
        What the polygons are, for messages.

    Returns
    -------
    pandas.Series
        Int64 ``region_num``, with the index of the polygons; NA where one overlaps no region (logged).

    Raises
    ------
    InputError
        Regions without numbers; whatever `lakescale.score` refuses.
    """
    codes, known = pd.factorize(_numbers_of(regions, "regions"))
    outlines = fit(polygons, regions)
    shapely.prepare(outlines.reference)
    own, other = shapely.STRtree(outlines.reference).query(outlines.lakes, predicate="intersects")
    inside = shapely.covers(outlines.reference[other], outlines.lakes[own])
    shared = shapely.area(outlines.lakes[own])
    cut = ~inside
    shared[cut] = shapely.area(shapely.intersection(outlines.lakes[own[cut]], outlines.reference[other[cut]]))
    pairs = pd.DataFrame({"own": own, "code": codes[other], "shared": shared})
    pairs = pairs[pairs["shared"] > 0].groupby(["own", "code"], as_index=False).sum()
    best = pairs.sort_values(["own", "shared", "code"], ascending=[True, False, True]).drop_duplicates("own")
    numbers = pd.array([pd.NA] * len(polygons), dtype="Int64")
    numbers[best["own"].to_numpy()] = known[best["code"].to_numpy()]
    if outside := len(polygons) - len(best):
        _LOG.warning("%s: %d in no region", what, outside)
    return pd.Series(numbers, index=polygons.index, name=REGION_NUM)


def _refuse_elsewhere(regions: gpd.GeoDataFrame, grid: Grid, path: str) -> None:
    """Refuse regions that cannot be compared with lakes on the grid, or that miss it."""
    if regions.crs is None:
        raise InputError("the regions have no CRS", path, "set it, for example: ogr2ogr -a_srs EPSG:3857 OUT IN")
    extent = grid.geobox.extent.geom
    fine = shapely.segmentize(extent, extent.length / _EDGES)  # a straight edge of one CRS is a curve in another
    scene = gpd.GeoDataFrame(geometry=[fine], crs=grid.crs)
    refused: InputError | None = None
    try:
        misses = assign_regions(scene, regions, what="scenes").isna().all()
    except InputError as error:
        refused = error
    if refused is not None:
        raise InputError(refused.what, f"{path}: {refused.item}", refused.mend)
    if misses:
        raise InputError("none of the regions overlaps the scene", path, "check its CRS, or give those of this scene")


def _name_of(scene: xr.DataArray) -> str:
    """Name the image of a scene: its file."""
    source = str(scene.attrs.get("source", ""))
    if not source or ", " in source or source.rstrip("/").endswith(".zarr"):
        what = "the scene is not one file, so its image has no name"
        raise InputError(what, source or "scene", "name it as the Cup does: --image NAME.tif")
    return name_of(source)


def _numbers_of(regions: gpd.GeoDataFrame, item: str) -> NDArray[np.int64]:
    if REGION_NUM not in regions or not len(regions):
        told = ", ".join(map(str, regions.columns)) if len(regions) else "it is empty"
        raise InputError(f"regions need a column {REGION_NUM} ({told})", item, "give the Cup's lakes_regions.gpkg")
    numbers = pd.to_numeric(regions[REGION_NUM], errors="coerce")
    if numbers.isna().any() or (numbers % 1 != 0).any():
        found = regions[REGION_NUM].tolist()[:10]
        raise InputError(
            f"{REGION_NUM} must be whole numbers, found {found}", item, "give the Cup's lakes_regions.gpkg"
        )
    return numbers.to_numpy(np.int64)


def _write(answer: gpd.GeoDataFrame, path: Path) -> None:
    kinds = set(answer.geom_type)
    kind = "Polygon" if kinds <= {"Polygon"} else "MultiPolygon" if kinds == {"MultiPolygon"} else "Unknown"
    answer.to_file(path, layer=Path(ANSWER_FILE).stem, driver="GPKG", engine="pyogrio", geometry_type=kind)
