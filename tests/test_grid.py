"""Grids: read from rasters, cut out of them, refused where they are none."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from rasters import CUP_TRANSFORM, raster

import lakescale as ls


def mask():
    return raster(np.zeros((8, 12), bool), 5)


def test_the_stored_transform_is_taken_exactly():
    grid = ls.Grid.of(mask())
    assert tuple(grid.transform) == tuple(CUP_TRANSFORM)
    assert grid.shape == (8, 12)
    assert grid.crs.to_epsg() == 3857


def test_a_cut_out_has_its_own_transform_though_it_still_carries_the_old_one():
    grid = ls.Grid.of(mask().isel(y=slice(2, 8), x=slice(3, 9)))
    left, _, _, top = grid.bounds_xyxy
    step = CUP_TRANSFORM.a
    assert (left, top) == pytest.approx((CUP_TRANSFORM.c + 3 * step, CUP_TRANSFORM.f - 2 * step), abs=1e-4)


def test_every_second_pixel_is_a_coarser_grid():
    assert ls.Grid.of(mask().isel(y=slice(None, None, 2), x=slice(None, None, 2))).pixel_size_m == pytest.approx(
        76.437, abs=1e-3
    )


@pytest.mark.parametrize("cols", [[0, 1, 2, 9], [0, 1, 3, 4], [0, 2, 1, 3, 4]])
def test_uneven_coordinates_are_refused(cols):
    with pytest.raises(ls.InputError, match="not evenly spaced"):
        ls.Grid.of(mask().isel(x=cols))


def test_labels_of_a_mask_from_zarr_survive_zarr(tmp_path):
    """A mask read from a store remembers that it was stored as bool; labels must not be stored so."""
    m = mask()
    m[2, 2] = m[5, 7] = True
    m.to_dataset(name="m").to_zarr(tmp_path / "m.zarr", consolidated=False)
    again = xr.open_dataset(tmp_path / "m.zarr", engine="zarr", chunks={}, consolidated=False).m
    labels = ls.label_regions(again)
    labels.to_dataset(name="l").to_zarr(tmp_path / "l.zarr", consolidated=False)
    stored = xr.open_dataset(tmp_path / "l.zarr", engine="zarr", consolidated=False).l
    assert stored.dtype == np.int32
    assert stored.values.max() == 2


def test_degrees_are_refused_where_metres_are_needed():
    with pytest.raises(ls.InputError, match="metres are needed"):
        ls.Grid.of(raster(np.zeros((4, 4)), crs="EPSG:4326")).require_metres("a.tif")
