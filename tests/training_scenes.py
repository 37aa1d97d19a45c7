"""Small images with lakes drawn at random, as cubes and as arrays, and their masks by a plain rasterizer."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import shapely
from rasterio.features import rasterize
from rasters import CUP_TRANSFORM, raster

import lakescale as ls

CRS = "EPSG:3857"


def blob(rng, col, row, radius, corners=9):
    """A star-shaped polygon in pixels, its corners rounded to 1/4096 pixel as outlines are."""
    turns = np.sort(rng.uniform(0, 2 * np.pi, corners) / corners + np.arange(corners) * 2 * np.pi / corners)
    reach = radius * rng.uniform(0.6, 1.0, corners)
    corners_xy = np.column_stack([col + reach * np.cos(turns), row + reach * np.sin(turns)])
    return shapely.Polygon(np.round(corners_xy * 4096) / 4096)


def blobs(rng, count, shape, radius):
    return [blob(rng, rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), rng.uniform(*radius)) for _ in range(count)]


def to_frame(shapes, image=None, crs=CRS, **columns):
    """Polygons in pixels as a frame in map coordinates."""
    a, _, c, _, e, f = CUP_TRANSFORM[:6]
    moved = [
        shapely.transform(shape, lambda xy: np.column_stack([a * xy[:, 0] + c, e * xy[:, 1] + f])) for shape in shapes
    ]
    named = {} if image is None else {"image": [image] * len(shapes)}
    return gpd.GeoDataFrame({**named, **columns}, geometry=moved, crs=crs)


def plain_mask(shapes, shape):
    """Pixels whose centres lie inside, by GDAL."""
    return rasterize(shapes, out_shape=shape, dtype="uint8").astype(bool) if shapes else np.zeros(shape, bool)


def write_cube(path, dates, chunks):
    """A cube of uint8 RGB or reflectance, by date."""
    scenes = []
    for date, bands in dates.items():
        scene = raster(bands).assign_coords(time=np.datetime64(date, "ns"))
        scenes.append(
            scene.assign_attrs(nodata_values=[0] if bands.dtype == np.uint8 else [], source=f"made of {date}")
        )
    ls.write_cube(scenes, path, chunks=chunks)
    return path


def starts(size, window, stride):
    """First pixels of windows, as the Cup's tiles lie."""
    if size <= window:
        return [0]
    found = []
    while len(found) * stride + window < size:
        found.append(len(found) * stride)
    return [*found, size - window]


def plain_windows(shape, window, stride):
    return [
        (row, col, (slice(row, row + window), slice(col, col + window)))
        for row in starts(shape[0], window, stride)
        for col in starts(shape[1], window, stride)
    ]
