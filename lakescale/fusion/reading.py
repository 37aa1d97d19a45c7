"""Partitions of frames to checked parts: one CRS, flat, valid, and no polygon lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from lakescale.fusion.parts import ICE, Part, Told
from lakescale.fusion.reasons import MADE_VALID, TAKEN_OUT, Z_DROPPED
from lakescale.schema import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.fusion.inputs import Reading

_POLYGON, _MULTIPOLYGON, _COLLECTION = 3, 6, 7
_HALF_GIRTH_M = np.pi * 6378137.0
_FARTHEST_M = 1e8  # Mercator puts a pole at 2.4e8, or at infinity


def read_part(frame: gpd.GeoDataFrame, *, how: Reading, in_order: bool) -> Part:
    """Check and mend the polygons of a frame, or of one of its partitions.

    Rings that are not valid are made valid, Z is dropped, polygons are taken out of collections; what has no area
    becomes an empty polygon. Then polygons of models are cut, if the preset cuts them.

    Raises
    ------
    InputError
        A geometry that has no place in the CRS, or that is wider than half the Earth.
    """
    whole, mended = mend(_to_crs(frame, how))
    _refuse_seams(whole, frame, how)
    geometry, source = how.cut(whole) if how.cut else (whole, np.arange(len(whole)))
    code, values = _find_combos(pd.DataFrame(frame[list(how.keys)]))
    told = Told(
        frame=how.name,
        row=np.arange(len(geometry)),
        source=source,
        sources=len(whole),
        in_order=in_order,
        area=shapely.area(geometry),
        single=shapely.get_type_id(geometry) == _POLYGON,
        code=code[source],
        combos=int(code.max(initial=0)) + 1,
        values=values,
        mended=mended[source],
        columns=pd.DataFrame(frame[list(how.columns)]).iloc[source].reset_index(drop=True),
        outline=geometry if how.outlines else None,
    )
    return Part(told, geometry, whole[source])


def _find_combos(keys: pd.DataFrame) -> tuple[NDArray[np.intp], dict[str, tuple[Any, ...]]]:
    """Find which combination of values each row has, and list those of each column."""
    if keys.columns.empty or keys.empty:
        return np.zeros(len(keys), np.intp), dict.fromkeys(keys.columns, (None,))
    code = keys.groupby(list(keys.columns), dropna=False, sort=False).ngroup().to_numpy().astype(np.intp)
    combos = keys.iloc[np.unique(code, return_index=True)[1]]
    return code, {str(key): tuple(None if pd.isna(v) else v for v in combos[key].tolist()) for key in combos}


def mend(geometry: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Make geometries flat and valid polygons; empty ones where there is no area. Give flags of what was mended."""
    mended = np.zeros(len(geometry), np.uint8)
    geometry = geometry.copy()
    for flag, wrong, right in (
        (Z_DROPPED, shapely.has_z, shapely.force_2d),
        (MADE_VALID, _is_invalid, _make_valid),
        (TAKEN_OUT, _is_collection, _take_polygons),
    ):
        rows = np.flatnonzero(wrong(geometry))
        geometry[rows] = right(geometry[rows])
        mended[rows] |= flag
    flat = ~np.isin(shapely.get_type_id(geometry), (_POLYGON, _MULTIPOLYGON)) | ~(shapely.area(geometry) > 0)
    geometry[flat] = shapely.Polygon()
    return geometry, mended


def _to_crs(frame: gpd.GeoDataFrame, how: Reading) -> NDArray[Any]:
    geometry = np.asarray(frame.geometry, object)
    if len(frame) and frame.crs != how.crs:
        # with Z, a height would be taken for a part of the place
        flat = gpd.GeoSeries(shapely.force_2d(geometry), crs=frame.crs)
        geometry = np.asarray(flat.to_crs(how.crs), object)
    farthest = _FARTHEST_M if how.crs else np.finfo(float).max
    somewhere = (np.abs(shapely.bounds(geometry)) <= farthest).all(axis=1)
    lost = ~(somewhere | shapely.is_missing(geometry) | shapely.is_empty(geometry))
    if lost.any():
        row = int(lost.argmax())
        what = f"a geometry has no place in {how.crs.name if how.crs else 'the plane'}"
        mend = "use a CRS that holds it, polar stereographic near a pole: to_crs(3413)"
        raise InputError(what, _where(frame, how, row, int(lost.sum())), mend)
    return geometry


def _refuse_seams(geometry: NDArray[Any], frame: gpd.GeoDataFrame, how: Reading) -> None:
    """Refuse polygons drawn the long way round the Earth; ice may be as wide as that in the CRS it came in."""
    if how.crs is None or (how.name == ICE and frame.crs == how.crs):
        return
    low_x, _, high_x, _ = shapely.bounds(geometry).T
    wide = np.flatnonzero(high_x - low_x > _HALF_GIRTH_M)
    parts, of = shapely.get_parts(geometry[wide], return_index=True)
    low_x, _, high_x, _ = shapely.bounds(parts).T
    wide = np.unique(wide[of[high_x - low_x > _HALF_GIRTH_M]])
    if len(wide):
        what = "a polygon is wider than half the Earth: it crosses the antimeridian"
        raise InputError(what, _where(frame, how, int(wide[0]), len(wide)), "use polar stereographic: to_crs(3413)")


def _where(frame: gpd.GeoDataFrame, how: Reading, row: int, count: int) -> str:
    return f"{how.name}, row {row}, index {frame.index[row]} (one of {count})"


def _is_invalid(geometry: NDArray[Any]) -> NDArray[np.bool_]:
    return ~(shapely.is_valid(geometry) | shapely.is_missing(geometry))


def _make_valid(geometry: NDArray[Any]) -> NDArray[Any]:
    return shapely.make_valid(geometry, method="structure", keep_collapsed=False)


def _is_collection(geometry: NDArray[Any]) -> NDArray[np.bool_]:
    return shapely.get_type_id(geometry) == _COLLECTION


def _take_polygons(geometry: NDArray[Any]) -> NDArray[Any]:
    taken = np.full(len(geometry), None, object)
    for k, one in enumerate(geometry):  # few: no program writes lakes as collections by intention
        parts = shapely.get_parts([one])
        while _is_collection(parts).any():
            parts = shapely.get_parts(parts)
        taken[k] = shapely.union_all(parts[np.isin(shapely.get_type_id(parts), (_POLYGON, _MULTIPOLYGON))])
    return taken
