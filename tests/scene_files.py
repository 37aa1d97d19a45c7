"""Small GeoTIFFs for the tests of scenes."""

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp


def from_origin(west, north, width, height):
    return Affine(width, 0, west, 0, -height, north)  # rasterio's own multiplies, which affine 3 warns about


ORIGIN = from_origin(600_000, 7_400_000, 10, 10)
S2_OLD = "S2A_MSIL2A_20190713T150921_N0213_R025_T22WFB_20190713T191839.tif"
S2_NEW = "S2A_MSIL2A_20220713T150921_N0400_R025_T22WFB_20220713T191839.tif"


def write(path, pixels, *, crs="EPSG:32622", transform=ORIGIN, names=None, colors=None, scale=None, tags=None, **more):
    pixels = np.asarray(pixels)
    pixels = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    count, height, width = pixels.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype, "crs": crs}
    with rasterio.open(path, "w", **profile, transform=transform, **more) as raster:
        raster.write(pixels)
        if names:
            raster.descriptions = names
        if colors:
            raster.colorinterp = [ColorInterp[color] for color in colors]
        if scale:
            raster.scales, raster.offsets = [scale[0]] * count, [scale[1]] * count
        if tags:
            raster.update_tags(**tags)
    return path


def dn(count=1, low=2000, high=9000, shape=(20, 30)):
    return np.random.default_rng(7).integers(low, high, (count, *shape), dtype=np.uint16)


def rgb(shape=(20, 30)):
    return np.random.default_rng(7).integers(2, 255, (3, *shape), dtype=np.uint8)


def bands_of(scene):
    return scene["band"].values.tolist()
