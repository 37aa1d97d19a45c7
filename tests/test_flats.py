"""Steps out of flats in any chunks against a plain breadth-first search on the whole array."""

from __future__ import annotations

from collections import deque
from functools import cache
from itertools import product

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from flooding import EIGHT, bowl, dems, priority_flood, rough, serpentine
from hypothesis import given
from hypothesis import strategies as st
from rasters import chunked, raster
from scipy import ndimage

from lakescale.chunks import map_tiles_serial, split_blocks, stitch_serial
from lakescale.depressions import fill_tiled
from lakescale.flats import drain_flats, flag_flats, flat_steps, outlets_stitch, steps_stitch
from lakescale.kernels.flats import raise_cells
from lakescale.schema import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

NODATA = ("wall", "outlet")
AROUND = [step for step in product((-1, 0, 1), repeat=2) if step != (0, 0)]


# -- the oracle


def neighbours(shape, row, col):
    around = [(row + down, col + right) for down, right in AROUND]
    return [(r, c) for r, c in around if 0 <= r < shape[0] and 0 <= c < shape[1]]


def outlet_voids(dem, nodata):
    is_void = np.isnan(dem)
    if nodata == "outlet":
        return is_void
    parts, _ = ndimage.label(is_void, EIGHT)
    edge = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.isin(parts, edge[edge > 0])


def ways_out(dem, nodata):
    """Tell which cells of land leave by themselves."""
    outlets = outlet_voids(dem, nodata)
    leaves = np.zeros(dem.shape, bool)
    for row, col in np.argwhere(~np.isnan(dem)):
        around = neighbours(dem.shape, row, col)
        leaves[row, col] = len(around) < 8 or any(outlets[n] or dem[n] < dem[row, col] for n in around)
    return leaves


def walk_out(dem, nodata="wall"):
    """Count steps cell by cell, from all cells that leave at once."""
    leaves = ways_out(dem, nodata)
    steps = np.where(leaves, 0, -1)
    queue = deque((int(r), int(c)) for r, c in np.argwhere(leaves))
    while queue:
        cell = queue.popleft()
        for beside in neighbours(dem.shape, *cell):
            if steps[beside] < 0 and dem[beside] == dem[cell]:
                steps[beside] = steps[cell] + 1
                queue.append(beside)
    return steps.clip(0).astype(np.uint32)


def steps_of(dem, chunks, nodata="wall"):
    return flat_steps(raster(dem, chunks), nodata=nodata).values


def assert_same(ours, expected):
    assert ours.dtype == expected.dtype
    np.testing.assert_array_equal(ours, expected)


# -- flats that are hard to leave


def channel(n):
    """A flat channel that winds through the whole square; its one way out is its mouth on the edge."""
    return np.where(serpentine(n) < 1e6, 0, serpentine(n)).astype(np.float32)


def comb(n):
    """A flat whose teeth cross each seam over and over, drained at the end of its last tooth alone."""
    dem = np.full((n, n), 7, np.float32)
    dem[1:-1, 1:-1:2] = 3
    dem[n // 2, 1:-1] = 3
    dem[-1, n - 2 if n % 2 else n - 3] = 3
    return dem


@st.composite
def flat_dems(draw, largest=15):
    """DEMs with flats: as they come, filled, winding, or in two levels with a few ways out."""
    kind = draw(st.sampled_from(["any", "filled", "filled", "channel", "comb", "ponds"]))
    if kind in {"any", "filled"}:
        dem = draw(dems(largest))
        return priority_flood(dem, draw(st.sampled_from(NODATA))) if kind == "filled" else dem
    n = draw(st.integers(5, largest))
    if kind == "ponds":
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        dem = (rng.random((n, draw(st.integers(3, largest)))) < draw(st.sampled_from([0.2, 0.4]))).astype(np.float32)
        dem[[0, -1]] = dem[:, [0, -1]] = 1
        dem[tuple(rng.integers(0, dem.shape))] = draw(st.sampled_from([-1, np.nan, 0]))
        return dem
    dem = channel(n) if kind == "channel" else comb(n)
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        dem[rng.random(dem.shape) < 0.05] = np.nan
    return dem.T.copy() if draw(st.booleans()) else dem


# -- any chunks


@pytest.mark.parametrize("nodata", NODATA)
@given(case=chunked(flat_dems()))
def test_any_chunks_equal_a_search_of_the_whole(nodata, case):
    dem, chunks = case
    expected = walk_out(dem, nodata)
    assert_same(steps_of(dem, chunks, nodata), expected)
    assert_same(steps_serially(dem, chunks, nodata), expected)


def steps_serially(dem, chunks, nodata):
    arrays = [dem]
    if nodata == "wall":
        arrays.append(np.block(stitch_serial(split_blocks(np.isnan(dem), chunks), outlets_stitch(), chunks)))
    flags = map_tiles_serial(flag_flats, *arrays, chunks=chunks, depth=2, dtype=np.uint8)
    return np.block(stitch_serial(split_blocks(flags, chunks), steps_stitch(), chunks))


@pytest.mark.parametrize("nodata", NODATA)
@given(dem=flat_dems(largest=8))
def test_chunks_of_one_cell_equal_a_search(nodata, dem):
    assert_same(steps_of(dem, 1, nodata), walk_out(dem, nodata))


@pytest.mark.parametrize("make", [channel, comb])
@pytest.mark.parametrize(
    ("size", "chunks"),
    [(11, 1), (21, 3), (31, 4), (31, 7), (31, 10), (31, ((1, 29, 1), (15, 1, 15))), (31, (31, 2)), (31, (5, 31))],
)
def test_flats_that_wind_through_every_chunk_and_come_back(make, size, chunks):
    dem = make(size)
    assert walk_out(dem).max() > size
    chunks = da.core.normalize_chunks(chunks, dem.shape)
    for turned in (dem, dem[:, ::-1].T.copy()):
        assert_same(steps_of(turned, chunks), walk_out(turned))


@pytest.mark.parametrize("chunks", [(8, 8), (40, 5), (40, 40), (7, 13)])
def test_an_open_flat_is_left_in_straight_lines(chunks):
    dem = np.full((40, 40), 6, np.float32)
    dem[20, 30] = 5
    dem[[0, -1]] = dem[:, [0, -1]] = 8
    rows, cols = np.mgrid[:40, :40]
    nearest = np.maximum(abs(rows - 20), abs(cols - 30)).clip(1) - 1
    expected = np.where(dem == 6, nearest, 0)
    ours = steps_of(dem, da.core.normalize_chunks(chunks, dem.shape))
    assert_same(ours, walk_out(dem))
    assert_same(ours, expected.astype(np.uint32))


# -- filled DEMs


KINDS = {
    "smooth": {"smooth": 3.0},
    "terraces": {"smooth": 3.0, "levels": 8},
    "lagoons": {"smooth": 3.0, "holes": 0.3, "levels": 10},
    "pocked": {"holes": 0.05, "levels": 3},
    "archipelago": {"smooth": 2.0, "holes": 0.6, "levels": 20},
}


@cache
def filled(kind, nodata):
    dem = bowl(110) if kind == "bowl" else rough((110, 110), 11 + len(kind), **KINDS[kind])
    full = fill_tiled(raster(dem, 50), nodata=nodata).values
    return full, walk_out(full, nodata)


@pytest.mark.parametrize("nodata", NODATA)
@pytest.mark.parametrize("kind", [*KINDS, "bowl"])
@pytest.mark.parametrize("chunks", [(32, 32), (110, 9), ((1, 108, 1), (55, 1, 54))])
def test_filled_dems_in_many_chunks(kind, nodata, chunks):
    full, expected = filled(kind, nodata)
    assert expected.max() > 2
    assert_same(steps_of(full, da.core.normalize_chunks(chunks, full.shape), nodata), expected)


def test_a_fill_and_its_steps_in_one_graph():
    dem = rough((90, 80), 3, smooth=2.0, levels=12)
    full = fill_tiled(raster(dem, 20))
    assert_same(flat_steps(full).values, walk_out(priority_flood(dem)))
    with dask.config.set(scheduler="threads"):
        assert_same(flat_steps(full).values, walk_out(priority_flood(dem)))


@pytest.mark.parametrize("name", ["greenland_icecap_100m.tif", "lidar_nested_basin_1m.tif"])
def test_real_dems(data_dir, name):
    with rasterio.open(data_dir / "dem" / name) as file:
        dem = file.read(1, masked=True).astype(np.float32).filled(np.nan)[:300, :300]
    full = fill_tiled(raster(dem, 100)).values
    expected = walk_out(full)
    assert expected.max() > 2
    assert_same(steps_of(full, 67), expected)


# -- voids


@pytest.mark.parametrize("chunk", [1, 2, 3, 9])
def test_an_enclosed_void_is_a_wall_or_an_outlet(chunk):
    dem = np.full((9, 9), 4, np.float32)
    dem[[0, -1]] = dem[:, [0, -1]] = 9
    dem[4, 4] = np.nan
    assert not steps_of(dem, chunk).any()  # no way out at all
    expected = np.zeros((9, 9), np.uint32)
    expected[1:-1, 1:-1] = 2
    expected[2:-2, 2:-2] = 1
    expected[3:-3, 3:-3] = 0
    assert_same(steps_of(dem, chunk, "outlet"), expected)


@pytest.mark.parametrize("chunk", [1, 2, 4, 9])
def test_a_void_joined_to_the_edge_by_corners_alone_is_an_outlet(chunk):
    dem = np.full((9, 9), 4, np.float32)
    dem[[0, -1]] = dem[:, [0, -1]] = 9
    for k in range(1, 5):
        dem[k, k] = np.nan
    assert not steps_of(dem, chunk).any()
    dem[0, 0] = np.nan
    steps = steps_of(dem, chunk)
    assert_same(steps, walk_out(dem))
    assert steps[7, 7] == 2


def test_declared_nodata_is_void():
    dem = np.full((9, 9), 4, np.float32)
    dem[[0, -1]] = dem[:, [0, -1]] = 9
    dem[4, 4] = -9999
    declared = raster(dem, 4).assign_attrs(_FillValue=-9999.0)
    void = np.where(dem == -9999, np.nan, dem).astype(np.float32)
    assert_same(flat_steps(declared, nodata="outlet").values, walk_out(void, "outlet"))
    assert not flat_steps(declared).values.any()
    raised = drain_flats(declared, nodata="outlet").values
    assert np.isnan(raised[4, 4])
    assert np.isfinite(raised).sum() == 80


@pytest.mark.parametrize("nodata", NODATA)
@pytest.mark.parametrize("chunk", [1, 4, 10])
def test_nothing_but_void_and_nothing_but_flat(chunk, nodata):
    nothing = np.full((10, 10), np.nan, np.float32)
    assert not steps_of(nothing, chunk, nodata).any()
    assert np.isnan(drain_flats(raster(nothing, chunk), nodata=nodata).values).all()
    rows, cols = np.mgrid[:10, :10]
    inwards = np.minimum(np.minimum(rows, 9 - rows), np.minimum(cols, 9 - cols)).astype(np.uint32)
    assert_same(steps_of(np.zeros((10, 10), np.float32), chunk, nodata), inwards)


# -- raised flats


def reaches_out(dem, leaves_at_end):
    """Tell which cells reach one that leaves the mosaic, always on to the lowest of the lower neighbours."""
    order = np.argsort(dem, axis=None, kind="stable")
    reached = leaves_at_end.copy()
    for row, col in zip(*np.unravel_index(order, dem.shape), strict=True):
        if np.isnan(dem[row, col]) or reached[row, col]:
            continue
        lower = [n for n in neighbours(dem.shape, row, col) if dem[n] < dem[row, col]]
        reached[row, col] = bool(lower) and reached[min(lower, key=lambda n: dem[n])]
    return reached


def ends(dem, nodata):
    """Tell which cells of land lie on the edge or beside an outlet."""
    framed = np.pad(outlet_voids(dem, nodata), 1, constant_values=True)
    return ndimage.binary_dilation(framed, EIGHT)[1:-1, 1:-1] & ~np.isnan(dem)


def ranks(dem, steps):
    """Order cells by elevation and then by steps: one number each."""
    pairs = np.stack([dem.ravel(), steps.ravel()], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(dem.shape).astype(np.float64)


def landlocked(dem, nodata):
    """Tell which land lies in a part, joined over 8 neighbours, without an end."""
    parts, _ = ndimage.label(~np.isnan(dem), EIGHT)
    return (parts > 0) & ~np.isin(parts, parts[ends(dem, nodata)])


@pytest.mark.parametrize("nodata", NODATA)
@given(case=chunked(dems(largest=13)))
def test_every_cell_drains_down_elevations_and_steps(nodata, case):
    dem, chunks = case
    full = priority_flood(dem, nodata)
    order = np.where(np.isnan(full), np.nan, ranks(full, steps_of(full, chunks, nodata)))
    reached = reaches_out(order, ends(full, nodata))
    assert (reached | landlocked(full, nodata) | np.isnan(full)).all()


@pytest.mark.parametrize("nodata", NODATA)
@given(case=chunked(dems(largest=13).map(lambda dem: np.round(dem * 4))))
def test_every_cell_of_a_drained_dem_reaches_an_outlet(nodata, case):
    dem, chunks = case
    full = priority_flood(dem, nodata)
    ours = drain_flats(raster(full, chunks), nodata=nodata).values
    assert ours.dtype == np.float32
    assert count_overtaken(full, ours) == 0  # the elevations lie too far apart
    reached = reaches_out(ours, ends(full, nodata))
    assert (reached | landlocked(full, nodata) | np.isnan(full)).all()


def count_overtaken(before, after):
    """Count neighbours of which the higher one no longer is."""
    count = 0
    for row, col in product(*map(range, before.shape)):
        count += sum(
            before[n] > before[row, col] and after[n] <= after[row, col] for n in neighbours(before.shape, row, col)
        )
    return count


@pytest.mark.parametrize("nodata", NODATA)
@given(case=chunked(flat_dems()))
def test_cells_are_raised_by_as_many_floats(nodata, case):
    dem, chunks = case
    expected, steps = dem + np.float32(0), walk_out(dem, nodata)
    for k in range(int(steps.max(initial=0))):
        raised = steps > k
        expected[raised] = np.nextafter(expected[raised], np.float32(np.inf))
    ours = drain_flats(raster(dem, chunks), nodata=nodata).values
    assert_same(ours, expected)
    for row, col in np.argwhere(steps > 0):
        assert any(ours[n] < ours[row, col] for n in neighbours(dem.shape, row, col))


def test_a_neighbour_that_is_hardly_higher_is_overtaken():
    low = np.float32(1000)
    hardly = np.nextafter(np.nextafter(low, np.float32(2000)), np.float32(2000))
    dem = np.full((5, 9), 1100, np.float32)
    dem[2, 1:] = low
    dem[1, 1] = hardly
    assert steps_of(dem, 2)[2].tolist() == [0, 7, 6, 5, 4, 3, 2, 1, 0]
    ours = drain_flats(raster(dem, 2)).values
    assert count_overtaken(dem, ours) == 2  # by (2, 1) and (2, 2), 7 and 6 floats higher now
    assert ours[1, 1] == hardly


@pytest.mark.parametrize("start", [0.0, -0.0, -1e-45, -3e-45, 1.0, -1.0, 1023.9999, -2048.0, 3.4028235e38])
@pytest.mark.parametrize("steps", [0, 1, 2, 5, 300])
def test_floats_are_counted_through_signs_and_zero(start, steps):
    with np.errstate(all="ignore"):
        expected = np.float32(start)
        for _ in range(steps):
            expected = min(np.nextafter(expected, np.float32(np.inf)), np.finfo(np.float32).max)
        ours = raise_cells(np.full((1, 1), start, np.float32), np.full((1, 1), steps, np.uint32))
        assert ours[0, 0] == expected


# -- the face


def test_building_computes_nothing(never_compute):
    dem = raster(np.zeros((50, 50), np.float32), 7)
    for nodata in NODATA:
        drain_flats(dem, nodata=nodata)


@pytest.mark.parametrize(("nodata", "most"), [("wall", 13), ("outlet", 7)])
def test_tasks_a_chunk_whatever_their_number(nodata, most):
    for blocks in (4, 16):
        graph = flat_steps(raster(np.zeros((64, 64), np.float32), 64 // blocks), nodata=nodata).data.__dask_graph__()
        assert len(graph) <= most * blocks**2 + 4


def test_no_elevation_waits_while_seams_are_solved():
    graph = drain_flats(raster(np.zeros((24, 24), np.float32), 8)).data.__dask_graph__()
    read_by = {}
    for key, task in graph.to_dict().items():
        for dependency in getattr(task, "dependencies", ()):
            read_by.setdefault(dependency, set()).add(key[0].rsplit("-", 1)[0])
    readers = [users & {"find-voids", "find-flats", "drain-flats"} for users in read_by.values()]
    assert set().union(*readers) == {"find-voids", "find-flats", "drain-flats"}
    assert all(len(users) <= 1 for users in readers)


def test_coordinates_chunks_and_names():
    dem = raster(rough((14, 9), 1), (5, 4)).rename("dem")
    steps, raised = flat_steps(dem), drain_flats(dem)
    assert (steps.name, raised.name) == ("flat_steps", "dem")
    assert (steps.dtype, raised.dtype) == (np.uint32, np.float32)
    for ours in (steps, raised):
        assert ours.chunks == dem.chunks
        assert ours.odc.geobox == dem.odc.geobox


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_other_dtypes_and_numpy_rasters_are_cast_first(dtype):
    dem = channel(13).clip(0, 9)
    ours = flat_steps(xr.DataArray(dem.astype(dtype), dims=("y", "x")))
    assert_same(ours.values, walk_out(dem))
    assert drain_flats(ours).dtype == np.float32


@pytest.mark.parametrize("face", [flat_steps, drain_flats])
@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda d: d, {"nodata": "pit"}, "one of wall, outlet, got 'pit'"),
        (lambda d: d.rename(y="row"), {}, "dims"),
        (lambda d: d.astype(bool), {}, "integer or float, got bool"),
        (lambda d: d[:0], {}, "without cells"),
    ],
)
def test_bad_dems_are_named(face, change, options, message):
    with pytest.raises(InputError, match=message):
        face(change(raster(np.zeros((4, 4), np.float32))), **options)
