"""Labels and holes against scipy on the whole array."""

from __future__ import annotations

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from hypothesis import given
from rasters import chunked, masks, raster
from scipy import ndimage

import lakescale as ls
from lakescale.chunks import split_blocks, stitch_serial
from lakescale.regions import hole_stitch, label_stitch

pytestmark = pytest.mark.usefixtures("one_thread")

EIGHT = np.ones((3, 3))


@given(chunked(masks()))
def test_fill_holes_equals_scipy(case):
    mask, chunks = case
    filled = ls.fill_holes(raster(mask, chunks))
    np.testing.assert_array_equal(filled.values, ndimage.binary_fill_holes(mask))
    np.testing.assert_array_equal(
        np.block(stitch_serial(split_blocks(mask, chunks), hole_stitch(), chunks)), filled.values
    )


@given(chunked(masks()))
@pytest.mark.parametrize("connectivity", [4, 8])
def test_label_regions_equals_scipy(connectivity, case):
    mask, chunks = case
    labels = ls.label_regions(raster(mask, chunks), connectivity=connectivity)
    expected, _ = ndimage.label(mask, structure=EIGHT if connectivity == 8 else None)
    np.testing.assert_array_equal(labels.values, expected)
    serial = stitch_serial(split_blocks(mask, chunks), label_stitch(connectivity, labels.dtype), chunks)
    np.testing.assert_array_equal(np.block(serial), expected)


def serpentine(n):
    """One corridor that winds through the whole square, and the wall beside it."""
    mask = np.zeros((n, n), bool)
    mask[::4] = True
    mask[2::8, -1] = mask[1::8, -1] = mask[3::8, -1] = True
    mask[5::8, 0] = mask[6::8, 0] = mask[7::8, 0] = True
    return mask


@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
def test_a_serpentine_through_every_chunk_is_one_region(chunk):
    mask = serpentine(49)
    expected, count = ndimage.label(mask)
    assert count == 1
    labels = ls.label_regions(raster(mask, (_cut(49, chunk), _cut(49, chunk))), connectivity=4)
    np.testing.assert_array_equal(labels.values, expected)


def _cut(n, chunk):
    return tuple(min(chunk, n - i) for i in range(0, n, chunk))


def test_a_hole_over_many_chunks_with_water_at_pixel_zero():
    mask = np.ones((60, 60), bool)
    mask[5:55, 5:55] = False
    mask[20:30, 20:30] = True
    filled = ls.fill_holes(raster(mask, 7))
    assert filled.values.all()


def test_a_diagonal_gap_does_not_open_a_hole_but_a_straight_one_does():
    ring = np.zeros((5, 5), bool)
    ring[1:4, 1:4] = True
    ring[2, 2] = False
    diagonal, straight = ring.copy(), ring.copy()
    diagonal[1, 1] = False
    straight[1, 2] = False
    assert ls.fill_holes(raster(diagonal, 2)).values[2, 2]
    assert not ls.fill_holes(raster(straight, 2)).values[2, 2]


def test_building_computes_nothing(never_compute):
    mask = raster(np.zeros((50, 50), bool), 7)
    ls.label_regions(ls.fill_holes(mask))


@pytest.mark.parametrize("blocks", [4, 8, 16, 32])
def test_labels_take_at_most_12_tasks_a_chunk_at_any_number_of_chunks(blocks):
    labels = ls.label_regions(raster(np.zeros((64, 64), bool), 64 // blocks))
    assert len(labels.data.__dask_graph__()) <= 12 * blocks**2


def test_coordinates_and_chunks_are_kept():
    mask = raster(np.eye(6, dtype=bool), (4, 2))
    labels = ls.label_regions(mask)
    assert labels.chunks == mask.chunks
    assert labels.odc.geobox == mask.odc.geobox
    assert labels.rio.crs.to_epsg() == 3857


def test_numpy_rasters_work_too():
    mask = xr.DataArray(np.eye(3, dtype=bool), dims=("y", "x"))
    assert ls.label_regions(mask, connectivity=4).values.max() == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: ls.label_regions(m.astype(int)), "must be bool, got int64"),
        (lambda m: ls.fill_holes(m.rename(y="row")), "dims"),
        (lambda m: ls.label_regions(m, connectivity=6), "must be 4 or 8, got 6"),
    ],
)
def test_bad_masks_are_named(call, message):
    with pytest.raises(ls.InputError, match=message):
        call(raster(np.zeros((4, 4), bool)))
