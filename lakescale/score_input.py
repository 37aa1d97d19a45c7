"""Two frames of polygons made fit to be compared: one CRS in metres, valid, flat; no polygon is lost on the way."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import geopandas as gpd
import numpy as np
import shapely
from pyproj import CRS, Transformer

from lakescale.schema import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

_EQUAL_AREA = {"north": "EPSG:6931", "south": "EPSG:6932"}
"""EASE-Grid 2.0: no seam at the antimeridian or the pole of its hemisphere."""
_POLYGONS = (3, 6)
_MEND_TRIES = 3
"""One in 300 of the random rings that GEOS 3.14 made valid was not, and was when made anew."""
_TORN = 0.3
"""An edge whose middle moves by more than this share of its length does not lie between its ends."""
_WIDE = {True: 180.0, False: 1e6}
"""No lake is as wide, in degrees or metres; what is may be a ring that runs round the world."""


class Fit(NamedTuple):
    """Outlines that may be compared."""

    lakes: NDArray[Any]
    """Polygons and MultiPolygons, valid, without Z; one a row of the frame."""
    reference: NDArray[Any]
    crs: CRS | None
    mended: dict[str, int]
    """How many invalid polygons of ``lakes`` and of ``reference`` were made valid."""
    notes: tuple[str, ...]
    """What was done to them, in words."""


def fit(lakes: gpd.GeoDataFrame, reference: gpd.GeoDataFrame) -> Fit:
    """Bring two frames of polygons to one CRS, flat and valid.

    The CRS is the reference's; where it is in degrees, EASE-Grid 2.0 (equal-area) of its hemisphere. Polygons are moved
    vertex by vertex, edges the short way round the world, so that those across the antimeridian or round the pole come
    out whole. Invalid ones are made valid (`shapely.make_valid`, structure); what has no area then stays, empty.

    Raises
    ------
    InputError
        A frame without geometries, or with others than polygons; a CRS in one frame only, not in metres, or in degrees
        on both hemispheres; vertices that have no place in the CRS; polygons that it tears.
    """
    frames = {"lakes": lakes, "reference": reference}
    for name, frame in frames.items():
        require_polygons(frame, name)
        if len(lakes) and len(reference) and frame.crs is None and (lakes.crs or reference.crs):
            raise InputError("only the other frame has a CRS", name, f"set it, for example {name}.set_crs(3857)")
    crs, notes = _choose_crs(reference if len(reference) else lakes)
    brought = {name: bring(frame, crs, name) for name, frame in frames.items()}
    notes += [note for *_, told in brought.values() for note in told]
    for note in notes:
        _LOG.warning("%s", note)
    mended = {name: count for name, (_, count, _) in brought.items()}
    return Fit(brought["lakes"][0], brought["reference"][0], crs, mended, tuple(notes))


def bring(frame: gpd.GeoDataFrame, crs: CRS | None, name: str) -> tuple[NDArray[Any], int, list[str]]:
    """Bring polygons to a CRS, flat and valid, as `fit` does.

    Returns
    -------
    outlines, mended, notes
        One outline a row; how many were invalid; what was done, in words.
    """
    moved = _move(frame, crs, name)
    mended = _mend(moved)
    return moved, mended, _tell(name, mended, int(shapely.is_empty(moved).sum()))


def _mend(shapes: NDArray[Any]) -> int:
    """Make invalid polygons valid, in place; tell how many there were."""
    invalid = np.flatnonzero(~shapely.is_valid(shapes))
    left = invalid
    for _ in range(_MEND_TRIES):
        shapes[left] = shapely.make_valid(shapes[left], method="structure", keep_collapsed=False)
        left = left[~shapely.is_valid(shapes[left])]
    return len(invalid)


def require_polygons(frame: gpd.GeoDataFrame, name: str) -> None:
    """Refuse what is no frame of Polygons and MultiPolygons."""
    if not isinstance(frame, gpd.GeoDataFrame) or frame.active_geometry_name is None:
        raise InputError("no geometries to score", name, "give a GeoDataFrame with an active geometry column")
    polygonal = np.isin(shapely.get_type_id(frame.geometry.values), _POLYGONS)
    if polygonal.all():
        return
    row = int(polygonal.argmin())
    found = getattr(frame.geometry.iloc[row], "geom_type", "nothing")
    raise _refusal(f"only polygons have an area, found {found}", frame, ~polygonal, name, "leave it out")


def _refusal(what: str, frame: gpd.GeoDataFrame, bad: NDArray[np.bool_], name: str, mend: str) -> InputError:
    """Name the first bad row."""
    row = int(bad.argmax())
    return InputError(what, f"{name}, row {row}, index {frame.index[row]} (one of {bad.sum()})", mend)


def _choose_crs(frame: gpd.GeoDataFrame) -> tuple[CRS | None, list[str]]:
    """Choose the CRS of the comparison; and say so where it is not the frame's own."""
    crs = frame.crs
    if crs is None or not crs.is_geographic:
        if crs and any(axis.unit_conversion_factor != 1 for axis in crs.axis_info[:2]):
            raise InputError(f"areas in {crs.name} are not in m2", "reference", "use metres: reference.to_crs(3413)")
        return crs, []
    if not len(frame):
        return CRS(_EQUAL_AREA["north"]), []
    _, south, _, north = frame.total_bounds
    if south < 0 < north:
        mend = "score each hemisphere apart, in metres: reference.to_crs(3413) in the north, 3031 in the south"
        raise InputError(f"areas in {crs.name} are not in m2, and it lies on both hemispheres", "reference", mend)
    code = _EQUAL_AREA["north" if north > 0 else "south"]
    return CRS(code), [f"the reference is in degrees: areas are those in {code}, which is equal-area"]


def _move(frame: gpd.GeoDataFrame, crs: CRS | None, name: str) -> NDArray[Any]:
    """Give the outlines in another CRS, as a new array."""
    shapes = shapely.force_2d(frame.geometry.to_numpy())
    moves = frame.crs is not None and crs is not None and frame.crs != crs
    moved = shapely.force_2d(frame.geometry.to_crs(crs).to_numpy()) if moves else shapes
    lost = ~_is_finite(moved)
    if lost.any():
        where = crs.name if crs else "the frame's coordinates"
        mend = f"check its CRS ({frame.crs and frame.crs.to_string()[:40]}), or use a polar one, such as EPSG:3413"
        raise _refusal(f"a vertex has no place in {where}", frame, lost, name, mend)
    torn = _torn(shapes, moved, frame.crs, crs)
    if torn.any():
        mend = "it may cross the antimeridian or the pole: bring reference and lakes to a polar CRS, such as EPSG:3413"
        raise _refusal(f"the polygon is torn in {crs and crs.name}", frame, torn, name, mend)
    return moved


def _is_finite(shapes: NDArray[Any]) -> NDArray[np.bool_]:
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    finite = np.ones(len(shapes), bool)
    finite[owner[~np.isfinite(xy).all(axis=1)]] = False
    return finite


def _torn(shapes: NDArray[Any], moved: NDArray[Any], there: CRS | None, here: CRS | None) -> NDArray[np.bool_]:
    """Tell which polygons have an edge that does not lie between its ends, in the CRS where they are to be compared."""
    torn = np.zeros(len(shapes), bool)
    if there is None or here is None:
        return torn
    left, bottom, right, top = shapely.bounds(moved).T
    suspect = np.fmax(right - left, top - bottom) > _WIDE[here.is_geographic]
    if there == here:  # coordinates that were not moved can only be looked at from elsewhere
        _, latitude = Transformer.from_crs(here, 4326, always_xy=True).transform(left[suspect], bottom[suspect])
        here = CRS(_EQUAL_AREA["south" if np.nanmean(latitude) < 0 else "north"]) if suspect.any() else here
    rows = np.flatnonzero(suspect)
    torn[rows[_torn_edges(shapes[rows], Transformer.from_crs(there, here, always_xy=True), there.is_geographic)]] = True
    return torn


def _torn_edges(shapes: NDArray[Any], move: Transformer, is_lonlat: bool) -> NDArray[np.intp]:  # noqa: FBT001
    """Give the row of the shape for each edge that is torn."""
    rings, row = _rings(shapes)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    within = ring[1:] == ring[:-1]
    start, end = xy[:-1][within], xy[1:][within]
    step = end - start
    if is_lonlat:
        step[:, 0] = (step[:, 0] + 180) % 360 - 180
    a, b, middle = (np.stack(move.transform(*at.T), axis=1) for at in (start, end, start + step / 2))
    off, length = (np.hypot(*d.T) for d in (middle - (a + b) / 2, b - a))
    return row[ring[:-1][within][~(off <= _TORN * length + 1)]]


def _rings(shapes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    parts, row = shapely.get_parts(shapes, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    return rings, row[part]


def _tell(name: str, mended: int, empty: int) -> list[str]:
    made = f"{mended} invalid polygon{'s' * (mended != 1)} made valid"
    bare = f"{empty} polygon{'s' * (empty != 1)} without any area"
    return [f"{name}: {text}" for count, text in ((mended, made), (empty, bare)) if count]
