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

from lakescale.schema import IMAGE, REGION_NUM, InputError
from lakescale.score_input import bring, fit
from pipelines.run_folder import publish
from pipelines.vector_files import read_polygons

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

ANSWER_FILE, ANSWER_CRS = "lake_polygons_test.gpkg", "EPSG:3857"


class Answer(NamedTuple):
    """What was written."""

    polygons: gpd.GeoDataFrame
    """Columns ``image``, ``region_num``, ``geometry``, in EPSG:3857."""
    outside: int
    """Lakes that lie in no region: they are not in the file."""


def write_cup_answer(
    lakes: gpd.GeoDataFrame, regions: gpd.GeoDataFrame | str | Path, image: str, path: str | Path
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
    publish(Path(path), lambda file: _write(answer, file))
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
