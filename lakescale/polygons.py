"""Exact outlines of labelled regions as a dask-geopandas frame, and true areas."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import dask_geopandas  # noqa: TC002  (importing it teaches dask what a GeoDataFrame is)
import geopandas as gpd
import numpy as np
import shapely
from dask.highlevelgraph import HighLevelGraph
from pyproj import Transformer

from lakescale.chunks import Blocks, Stitch, gather, map_blocks, on_dask, plan_blocks, stitch, to_frame
from lakescale.grid import Grid
from lakescale.kernels.components import find_parts
from lakescale.kernels.outline import trace_rings
from lakescale.regions import label_regions
from lakescale.schema import LABEL, InputError, X, Y

if TYPE_CHECKING:
    from collections.abc import Iterable

    import dask.array as da
    import xarray as xr
    from affine import Affine
    from numpy.typing import NDArray

    from lakescale.chunks import Place

_BLOCKS_PER_SHARED_PARTITION = 16
_SEGMENT_M = 250.0
_WEB_MERCATOR = "EPSG:3857"
_EQUAL_AREA = {"north": "EPSG:6931", "south": "EPSG:6932", "between": "EPSG:6933"}
"""EASE-Grid 2.0 (Brodzik et al. 2012): equal-area on the WGS84 ellipsoid."""
_POLAR_LATITUDE = 30.0


def polygonize(
    labels: xr.DataArray, *, min_area_m2: float = 0.0, min_area_3857_m2: float = 0.0
) -> dask_geopandas.GeoDataFrame:
    """Outline every labelled region along its pixel edges.

    Regions are put together in whole pixel coordinates and go to map coordinates last, so the set of polygons does not
    depend on the chunks. Lazy. A chunk's outlines wait in memory while the labels that several chunks share are
    found; the solving tasks hold 8 bytes a label, and the outlines of the regions that cross seams.

    Parameters
    ----------
    labels
        Integer ``(y, x)``, 0 = background; or a bool mask, which is labelled with 8 neighbours.
    min_area_m2
        Leave out regions of a smaller true area, in m2.
    min_area_3857_m2
        Leave out regions of a smaller area in EPSG:3857 (the Cup's measure), in m2.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        One row a label, columns ``label`` (int64) and ``geometry``: a Polygon, or a MultiPolygon of the label's
        4-connected parts; valid, no collinear vertices, in the raster's CRS. One partition a chunk for the regions
        inside it, then partitions of the regions that several chunks share; ``spatial_partitions`` is set.

    Raises
    ------
    InputError
        When the labels are not ``(y, x)``, not integer or bool, or have no CRS.
    """
    array, grid = _checked(labels), Grid.of(labels)
    finish = partial(_finish, grid=grid, min_area_m2=min_area_m2, min_area_3857_m2=min_area_3857_m2)
    pieces = stitch(Blocks.of(array), OUTLINE)
    inside = map_blocks(pieces, "polygons", partial(_finish_inside, finish=finish))
    keys, graph, count = [(inside.name, *index) for index in inside.indices], inside.graph, 0
    if len(keys) > 1:
        count = -(-len(keys) // _BLOCKS_PER_SHARED_PARTITION)
        crossing = Stitch(
            "polygons-shared", _shared_pieces, partial(_route, count=count), partial(_dissolve, finish=finish)
        )
        shared_graph, shared_keys = gather(pieces, crossing, count)
        keys, graph = keys + shared_keys, HighLevelGraph.merge(graph, shared_graph)
    frame: dask_geopandas.GeoDataFrame = to_frame(graph, keys, finish(_Pieces.empty()), "polygonize")
    frame.spatial_partitions = _partition_bounds(grid, array.chunks, count)
    return frame


def areas_m2(geometry: gpd.GeoSeries) -> NDArray[np.float64]:
    """Compute true areas, in m2, in an equal-area projection of the WGS84 ellipsoid.

    EASE-Grid 2.0 North or South poleward of 30 degrees, its global grid between. Edges are cut to 250 m first, since
    a straight edge of one CRS is a curve in another.
    """
    lonlat = Transformer.from_crs(geometry.crs, "EPSG:4326", always_xy=True)
    bounds = shapely.bounds(geometry.values)
    _, latitude = lonlat.transform(bounds[:, [0, 2]].mean(axis=1), bounds[:, [1, 3]].mean(axis=1))
    zone = np.select([latitude >= _POLAR_LATITUDE, latitude <= -_POLAR_LATITUDE], ["north", "south"], "between")
    step = _SEGMENT_M if geometry.crs.is_projected else _SEGMENT_M / 111_000
    fine = gpd.GeoSeries(shapely.segmentize(geometry.values, step), crs=geometry.crs)
    areas = np.zeros(len(fine))
    for name in np.unique(zone):
        areas[zone == name] = fine[zone == name].to_crs(_EQUAL_AREA[name]).area
    return areas


def areas_3857_m2(geometry: gpd.GeoSeries) -> NDArray[np.float64]:
    """Compute areas in EPSG:3857, in m2: the Cup's measure, 5 to 30 times too large over Greenland."""
    return geometry.to_crs(_WEB_MERCATOR).area.to_numpy(copy=True)


def true_pixel_m(grid: Grid) -> float:
    """Side of a true square as large as the pixel in the middle of a grid, in metres; in EPSG:3857 less than told."""
    row, col = (size // 2 for size in grid.shape)
    pixel = to_map(np.array([shapely.box(col, row, col + 1, row + 1)], object), grid.transform)
    return float(np.sqrt(areas_m2(gpd.GeoSeries(pixel, crs=grid.crs)).item()))


def to_map(geometry: NDArray[Any], transform: Affine) -> NDArray[Any]:
    """Take pixel coordinates ``(col, row)`` to map coordinates ``(x, y)``."""
    a, b, c, d, e, f = transform[:6]
    return shapely.transform(geometry, lambda xy: np.column_stack([xy @ (a, b) + c, xy @ (d, e) + f]))


def to_pixels(geometry: NDArray[Any], transform: Affine) -> NDArray[Any]:
    """Take map coordinates back to pixel coordinates, without the rounding of the way there."""
    a, b, c, d, e, f = (~transform)[:6]
    return shapely.transform(
        geometry, lambda xy: np.round(np.column_stack([xy @ (a, b) + c, xy @ (d, e) + f]), _PIXEL_DECIMALS)
    )


_PIXEL_DECIMALS = 5


def outline_parts(image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Outline the 4-connected parts of equal nonzero value of one block.

    Returns
    -------
    polygons, values
        Polygons in pixel coordinates of the block, in raster order of their first pixels; the value under each.
    """
    parts = find_parts(image, connectivity=4)
    if not parts.n_parts:
        return np.empty(0, object), np.empty(0, np.int64)
    rings = trace_rings(parts)
    ring_of_vertex = np.repeat(np.arange(len(rings.part)), np.diff(rings.ring_start))
    shells_and_holes = shapely.linearrings(rings.xy, indices=ring_of_vertex)
    values = np.asarray(image)[parts.first_row, parts.first_col].astype(np.int64)
    return shapely.polygons(shells_and_holes, indices=rings.part), values


def _checked(labels: xr.DataArray) -> da.Array:
    name = str(labels.name or "labels")
    if labels.dims != (Y, X):
        raise InputError(f"labels need the dims ('y', 'x'), got {labels.dims}", name)
    if labels.dtype == bool:
        labels = label_regions(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels must be integers or a bool mask, got {labels.dtype}", name, "label a mask first")
    return on_dask(labels)


# -- pieces of regions


class _Pieces(NamedTuple):
    """4-connected polygons in pixel coordinates; several may carry one label."""

    polygons: NDArray[Any]
    label: NDArray[np.int64]

    @classmethod
    def empty(cls) -> _Pieces:
        return cls(np.empty(0, object), np.empty(0, np.int64))

    @classmethod
    def join(cls, many: Iterable[_Pieces]) -> _Pieces:
        polygons, label = zip(cls.empty(), *many, strict=True)
        return cls(np.concatenate(polygons), np.concatenate(label))

    def where(self, chosen: NDArray[np.bool_]) -> _Pieces:
        return _Pieces(self.polygons[chosen], self.label[chosen])


class _SplitPieces(NamedTuple):
    inside: _Pieces
    """Of labels that no other chunk has."""
    shared: _Pieces


class _Shared(NamedTuple):
    """What the seams tell a block: where it lies, and which of its labels others have too."""

    place: Place
    labels: NDArray[np.int64]


def _trace(block: NDArray[np.integer[Any]]) -> _Pieces:
    return _Pieces(*outline_parts(block))


def _labels_of(pieces: _Pieces) -> NDArray[np.int64]:
    return np.unique(pieces.label)


def _find_shared(labels: list[list[NDArray[np.int64]]], places: list[list[Place]]) -> list[list[_Shared]]:
    every, chunks = np.unique(np.concatenate([a for row in labels for a in row]), return_counts=True)
    several = every[chunks > 1]
    return [
        [_Shared(place, np.intersect1d(own, several, assume_unique=True)) for own, place in zip(*rows, strict=True)]
        for rows in zip(labels, places, strict=True)
    ]


def _split(pieces: _Pieces, shared: _Shared) -> _SplitPieces:
    offset = (shared.place.col, shared.place.row)
    moved = _Pieces(shapely.transform(pieces.polygons, lambda xy: xy + offset), pieces.label)
    is_shared = np.isin(moved.label, shared.labels)
    return _SplitPieces(moved.where(~is_shared), moved.where(is_shared))


OUTLINE = Stitch("outline", _labels_of, _find_shared, _split, keep=_trace)
"""Outline blocks of labels; tell the regions inside a block from those that others share."""


def _shared_pieces(pieces: _SplitPieces) -> _Pieces:
    return pieces.shared


def _route(pieces: list[list[_Pieces]], _places: list[list[Place]], *, count: int) -> list[_Pieces]:
    """Deal the shared labels out to partitions, neighbours in raster order together."""
    every = _Pieces.join(p for row in pieces for p in row)
    order = np.argsort(every.label, kind="stable")
    every = _Pieces(every.polygons[order], every.label[order])
    bounds = [labels[0] for labels in np.array_split(np.unique(every.label), count) if len(labels)]
    groups = np.split(np.arange(len(order)), np.searchsorted(every.label, bounds[1:]))
    return [_Pieces(every.polygons[g], every.label[g]) for g in groups] + [_Pieces.empty()] * (count - len(groups))


# -- pieces to rows


def _dissolve(pieces: _Pieces, *, finish: Any) -> gpd.GeoDataFrame:
    """Unite the pieces of each label (sorted) and take out the vertices that the seams left on straight edges."""
    labels, first = np.unique(pieces.label, return_index=True)
    united = [shapely.union_all(group) for group in np.split(pieces.polygons, first[1:])] if len(labels) else []
    # a normalised ring starts at a corner, so that no vertex on a straight edge hides at its ends
    straight = shapely.simplify(shapely.normalize(np.array(united, object)), 0, preserve_topology=False)
    polygons, row = shapely.get_parts(straight, return_index=True)
    return finish(_Pieces(polygons, labels[row]))


def _finish_inside(pieces: _SplitPieces, *, finish: Any) -> gpd.GeoDataFrame:
    return finish(pieces.inside)


def _finish(pieces: _Pieces, *, grid: Grid, min_area_m2: float, min_area_3857_m2: float) -> gpd.GeoDataFrame:
    """Make one row a label, in map coordinates, and drop the small ones."""
    labels, row = np.unique(pieces.label, return_inverse=True)
    order = np.argsort(row, kind="stable")
    polygons, row = pieces.polygons[order], row[order]
    single = np.bincount(row, minlength=len(labels)) == 1
    geometry = np.empty(len(labels), object)
    geometry[single] = polygons[single[row]]
    several = ~single[row]
    if several.any():
        geometry[~single] = shapely.multipolygons(
            polygons[several], indices=np.unique(row[several], return_inverse=True)[1]
        )
    mapped = to_map(shapely.normalize(geometry), grid.transform)
    frame = gpd.GeoDataFrame({LABEL: labels}, geometry=gpd.GeoSeries(mapped, crs=grid.crs), crs=grid.crs)
    if min_area_m2 > 0:
        frame = frame[areas_m2(frame.geometry) >= min_area_m2]
    if min_area_3857_m2 > 0:
        frame = frame[areas_3857_m2(frame.geometry) >= min_area_3857_m2]
    return frame


def _partition_bounds(grid: Grid, chunks: Any, shared: int) -> gpd.GeoSeries:
    """Bound partitions: chunks by their edges, shared regions by the whole grid's (they outgrow their chunks)."""
    boxes = [(p.col, p.row, p.col + p.width, p.row + p.height) for row in plan_blocks(chunks) for p in row]
    height, width = grid.shape
    boxes += [(0, 0, width, height)] * shared
    return gpd.GeoSeries(to_map(shapely.box(*np.array(boxes, float).T), grid.transform), crs=grid.crs)
