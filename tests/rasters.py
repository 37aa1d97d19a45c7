"""Hypothesis strategies and makers of rasters in any chunks, on the grid of the Cup's mosaics."""

from __future__ import annotations

from itertools import pairwise

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox
from scipy import ndimage

from lakescale.grid import Grid

CUP_TRANSFORM = Affine(38.21851414258808, 0, -5684468.92, 0, -38.21851414258808, 15654303.39)


def raster(array, chunks=-1, *, transform=CUP_TRANSFORM, crs="EPSG:3857", bands=None):
    """Wrap ``(y, x)`` or ``(band, y, x)`` as the public face hands rasters out."""
    grid = Grid(GeoBox(array.shape[-2:], transform, crs))
    if array.ndim == 2:
        return xr.DataArray(da.from_array(array, chunks=chunks), dims=("y", "x"), coords=grid.coords())
    if chunks != -1:
        chunks = ((array.shape[0],), *chunks) if isinstance(chunks, tuple) else (array.shape[0], chunks, chunks)
    names = bands or ["red", "green", "blue"][: array.shape[0]]
    return xr.DataArray(
        da.from_array(array, chunks=chunks), dims=("band", "y", "x"), coords={**grid.coords(), "band": names}
    )


@st.composite
def axis_chunks(draw, size):
    """Ragged chunks of one axis, down to one pixel."""
    if size == 1:
        return (1,)
    cuts = draw(st.sets(st.integers(1, size - 1), max_size=min(size - 1, 6)))
    edges = [0, *sorted(cuts), size]
    return tuple(b - a for a, b in pairwise(edges))


@st.composite
def chunked(draw, arrays):
    """An array together with ragged chunks of its last two axes."""
    array = draw(arrays)
    height, width = array.shape[-2:]
    return array, (draw(axis_chunks(height)), draw(axis_chunks(width)))


def shapes(largest):
    return st.tuples(st.integers(1, largest), st.integers(1, largest))


@st.composite
def masks(draw, largest=20):
    """Masks: noise of any density, and smooth blobs with holes that span many chunks."""
    shape = draw(shapes(largest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.05, 0.3, 0.5, 0.6, 0.95]))
    if draw(st.booleans()):
        return rng.random(shape) < density
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), draw(st.sampled_from([1.0, 2.5])))
    mask = smooth > np.quantile(smooth, 1 - density)
    mask[0, 0] |= draw(st.booleans())
    return mask


@st.composite
def label_images(draw, largest=16):
    """Integer images whose labels may lie in several places."""
    mask = draw(masks(largest))
    ids = draw(hnp.arrays(np.int32, mask.shape, elements=st.integers(1, 4)))
    return np.where(mask, ids, 0).astype(np.int32)
