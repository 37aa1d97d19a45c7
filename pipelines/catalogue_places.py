"""Places on the ellipsoid: centroids, lengths of outlines, footprints that may cross the date line or hold a pole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
from pyproj import CRS, Geod, Transformer
from shapely.affinity import affine_transform

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.grid import Grid

_ELLIPSOID = Geod(ellps="WGS84")
_STEPS = 32
"""Pieces into which the shorter side of a footprint is cut, since it is no straight line in degrees."""
_WORLD = shapely.box(-180, -90, 180, 90)
_GREENLAND_LONLAT = (-75.0, 59.0, -10.0, 84.0)
_POLAR = "EPSG:3413"


class Footprint(NamedTuple):
    """Where a grid lies, in degrees of WGS84."""

    geometry: Any
    """A Polygon, or a MultiPolygon where the grid crosses the date line (RFC 7946)."""
    bbox: tuple[float, float, float, float]
    """West, south, east, north; west is greater than east where the date line lies between."""


class LonLat(NamedTuple):
    """Longitudes and latitudes of WGS84."""

    lon: NDArray[np.float64]
    lat: NDArray[np.float64]


def to_lonlat(xy: NDArray[np.float64], crs: Any) -> LonLat:
    """Give longitudes and latitudes of points ``(point, 2)``."""
    x, y = xy.T
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return LonLat(np.asarray(lon), np.asarray(lat))


def centroids_lonlat(geometry: NDArray[Any], crs: Any) -> LonLat:
    """Give longitude and latitude of each centroid."""
    return to_lonlat(shapely.get_coordinates(shapely.centroid(geometry)), crs)


def points_in(geometry: NDArray[Any]) -> NDArray[Any]:
    """Give a point inside each polygon."""
    return np.array(shapely.point_on_surface(geometry), object)


def perimeters_m(geometry: NDArray[Any], crs: Any) -> NDArray[np.float64]:
    """Compute the geodesic lengths of outlines, holes included, in m."""
    if not len(geometry):
        return np.empty(0)
    parts, part_of = shapely.get_parts(geometry, return_index=True)
    rings, ring_of = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    lon, lat = to_lonlat(xy, crs)
    length = _ELLIPSOID.inv(lon[:-1], lat[:-1], lon[1:], lat[1:])[2]
    same = ring[1:] == ring[:-1]
    return np.bincount(part_of[ring_of[ring[1:][same]]], length[same], len(geometry)).astype(np.float64)


def gis_crs(grid: Grid) -> CRS:
    """Choose the CRS for GIS users: EPSG:3413 where the grid's centre lies in or near Greenland, else the grid's."""
    west, south, east, north = _GREENLAND_LONLAT
    (lon,), (lat,) = centroids_lonlat(np.array([shapely.box(*grid.bounds_xyxy)]), grid.crs)
    return CRS(_POLAR) if west <= lon <= east and south <= lat <= north else grid.crs


def footprint(grid: Grid) -> Footprint:
    """Outline a grid in degrees."""
    box = shapely.box(*grid.bounds_xyxy)
    left, bottom, right, top = grid.bounds_xyxy
    fine = shapely.segmentize(box, min(right - left, top - bottom) / _STEPS)
    lon, lat = to_lonlat(shapely.get_coordinates(fine), grid.crs)
    lon = np.unwrap(lon, period=360)
    south, north = float(lat.min()), float(lat.max())
    if abs(lon[-1] - lon[0]) > 180:  # noqa: PLR2004  (a ring round a pole ends a turn away from its start)
        pole = 90.0 if lat.mean() > 0 else -90.0
        return Footprint(_cap(lon, lat, pole), (-180.0, min(south, pole), 180.0, max(north, pole)))
    parts = _cut_at_date_line(shapely.Polygon(np.c_[lon, lat]))
    geometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return Footprint(geometry, (_into_world(lon.min()), south, _into_world(lon.max()), north))


def _cap(lon: NDArray[np.float64], lat: NDArray[np.float64], pole: float) -> Any:
    """Outline the ground between a ring and the pole within it; a rectangle's ring goes once through all longitudes."""
    (edge,) = np.interp([180.0], lon, lat, period=360)
    world = (lon + 180) % 360 - 180
    order = np.argsort(world)
    ring = np.c_[world[order], lat[order]]
    return shapely.Polygon([(-180, edge), *ring, (180, edge), (180, pole), (-180, pole)])


def _cut_at_date_line(outline: Any) -> list[Any]:
    """Bring an outline of any longitudes into -180 to 180."""
    turned = [affine_transform(outline, (1, 0, 0, 1, turn, 0)) for turn in (-360, 0, 360)]
    parts = shapely.get_parts(shapely.intersection(np.array(turned), _WORLD))
    return [part for part in parts if part.geom_type == "Polygon" and part.area > 0]


def _into_world(lon: float) -> float:
    return float((lon + 180) % 360 - 180)
