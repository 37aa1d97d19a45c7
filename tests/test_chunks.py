"""The three ways to cross a seam: any chunking equals no chunking, dask equals the serial twin."""

from __future__ import annotations

from functools import partial

import dask
import dask.array as da
import numpy as np
import pytest
from dask._task_spec import Task
from dask.callbacks import Callback
from hypothesis import given
from hypothesis import strategies as st
from rasters import axis_chunks, chunked, masks
from scipy import ndimage

from lakescale.chunks import (
    Blocks,
    PackedBits,
    Stitch,
    WindowPlan,
    gather,
    gather_serial,
    map_beside,
    map_blocks,
    map_tiles,
    map_tiles_serial,
    overlap_add,
    overlap_add_serial,
    plan_blocks,
    plan_tiles,
    read_again,
    split_blocks,
    stitch,
    stitch_serial,
    with_least_chunks,
    zip_blocks,
)
from lakescale.cluster import compute

pytestmark = pytest.mark.usefixtures("one_thread")


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(axis_chunks(n), axis_chunks(n))), st.integers(0, 12))
def test_tile_interiors_partition_the_grid(chunks, depth):
    covered = np.zeros([sum(axis) for axis in chunks], int)
    for row in plan_tiles(chunks, depth):
        for tile in row:
            covered[tile.inner] += 1
            outer = np.zeros_like(covered)[tile.outer]
            assert outer[tile.trim].shape == covered[tile.inner].shape
    assert (covered == 1).all()


@given(chunked(masks(30)), st.integers(0, 9))
def test_map_tiles_equals_the_whole_array(case, depth):
    mask, chunks = case
    values = mask.astype(np.float64)
    kernel = partial(_local_maximum, depth=depth)
    tiled = map_tiles(kernel, da.from_array(values, chunks=chunks), depth=depth, name="test", dtype=float)
    assert tiled.chunks == chunks
    np.testing.assert_array_equal(tiled.compute(), kernel(values))
    np.testing.assert_array_equal(
        map_tiles_serial(kernel, values, chunks=chunks, depth=depth, dtype=float), kernel(values)
    )


def _local_maximum(block, *, depth):
    return ndimage.maximum_filter(block, 2 * depth + 1)


@given(chunked(masks(12)))
def test_map_tiles_takes_bands_and_layers_together(case):
    mask, chunks = case
    bands = np.stack([mask, ~mask, mask]).astype(np.int32) * np.array([1, 2, 4])[:, None, None]
    layers = da.from_array(bands, chunks=(1, *chunks))
    tiled = map_tiles(
        lambda b, m: b.sum(axis=0) * m, layers, da.from_array(mask, chunks=-1), depth=2, name="test", dtype=np.int32
    )
    np.testing.assert_array_equal(tiled.compute(), bands.sum(axis=0) * mask)


def _mosaic_minimum(keep):
    """A stitch whose answer needs every block: subtract the mosaic's minimum, and add where the block lies."""
    return Stitch(
        "test-minimum",
        summarize=lambda kept: (kept.unpack() if isinstance(kept, PackedBits) else kept).min(),
        solve=lambda summaries, places: [
            [(min(min(row) for row in summaries), place.row * 1000 + place.col) for place in row] for row in places
        ],
        apply=lambda kept, answer: (
            (kept.unpack() if isinstance(kept, PackedBits) else kept).astype(float) - answer[0] + answer[1]
        ),
        keep=keep,
    )


@pytest.mark.parametrize("keep", [None, PackedBits.of], ids=["read again", "packed bits"])
@given(case=chunked(masks(12)))
def test_stitch_equals_its_serial_twin(keep, case):
    mask, chunks = case
    how = _mosaic_minimum(keep)
    blocks = stitch(da.from_array(mask, chunks=chunks), how)
    serial = np.block(stitch_serial(split_blocks(mask, chunks), how, chunks))
    np.testing.assert_array_equal(blocks.to_array(float).compute(), serial)
    corners = np.zeros(mask.shape)
    for place in (p for row in plan_blocks(chunks) for p in row):
        corners[place.row : place.row + place.height, place.col : place.col + place.width] = (
            place.row * 1000 + place.col
        )
    np.testing.assert_array_equal(serial, mask - mask.min().astype(float) + corners)


@given(case=chunked(masks(12)))
def test_what_is_gathered_equals_its_serial_twin(case):
    """One answer a row of chunks: the number of its pixels, and of all."""
    mask, chunks = case
    how = Stitch(
        "test-sums",
        summarize=np.sum,
        solve=lambda summaries, _: [(sum(row), sum(map(sum, summaries))) for row in summaries],
        apply=lambda answer: [int(number) for number in answer],
    )
    graph, keys = gather(Blocks.of(da.from_array(mask, chunks=chunks)), how, len(chunks[0]))
    stops = np.cumsum(chunks[0])
    expected = [[mask[stop - size : stop].sum(), mask.sum()] for size, stop in zip(chunks[0], stops, strict=True)]
    assert gather_serial(split_blocks(mask, chunks), how, chunks) == expected
    assert list(dask.get(graph.to_dict(), keys)) == expected


def test_stitch_reads_again_under_keys_of_its_own():
    reads = []

    def read(block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return np.ones((2, 2))

    source = da.map_blocks(read, chunks=((2, 2), (2, 2)), dtype=float, meta=np.empty((0, 0)))
    stitch(source, _mosaic_minimum(None)).to_array(float).compute()
    assert sorted(reads) == sorted(2 * [(0, 0), (0, 1), (1, 0), (1, 1)])


def test_blocks_that_are_no_array_wait_as_they_are():
    source = da.from_array(np.arange(16.0).reshape(4, 4), chunks=(1, 3))
    blocks = stitch(map_blocks(Blocks.of(source), "twice", lambda block: 2 * block), _mosaic_minimum(None))
    (corner,) = dask.get(blocks.graph.to_dict(), [(blocks.name, 1, 1)])
    np.testing.assert_array_equal(corner, [[2 * 7 + 1003]])


@given(case=chunked(masks(12)))
def test_blocks_beside_each_other_are_told_where_the_others_lie(case):
    mask, chunks = case
    source = da.from_array(mask, chunks=chunks)
    blocks = map_beside(
        Blocks.of(source), "beside", lambda block: block.shape, lambda block, beside: (block.shape, beside)
    )
    keys = [(blocks.name, *index) for index in blocks.indices]
    heights, widths = source.chunks
    for (i, j), (own, beside) in zip(blocks.indices, dask.get(blocks.graph.to_dict(), keys), strict=True):
        assert own == (heights[i], widths[j])
        around = {(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x}
        there = {(y, x) for y, x in around if 0 <= i + y < len(heights) and 0 <= j + x < len(widths)}
        assert beside == {(y, x): (heights[i + y], widths[j + x]) for y, x in there}


def test_zipped_arrays_have_the_same_chunks():
    one, other = da.ones((4, 6), chunks=(2, 3)), da.ones((4, 6), chunks=3)
    places = zip_blocks("place", lambda a, b, place: (a.shape == b.shape, place), one, one + 1)
    found = dask.get(places.graph.to_dict(), [(places.name, 1, 1)])
    assert found == ((True, (2, 3, 2, 3)),)
    with pytest.raises(ValueError, match="arrays of different chunks"):
        zip_blocks("place", lambda *_: None, one, other)


def test_least_chunks_are_merged():
    array = da.ones((11, 3), chunks=((1, 1, 5, 3, 1), 1))
    assert with_least_chunks(array, 4).chunks == ((7, 4), (3,))
    assert with_least_chunks(array, 1).chunks == array.chunks


def test_task_names_are_readable():
    array = map_tiles(lambda b: b, da.ones((4, 4), chunks=2), depth=1, name="color-grow", dtype=float)
    blocks = stitch(array, _mosaic_minimum(None)).to_array(float)
    names = {dask.utils.key_split(key) for key in blocks.__dask_graph__()}
    assert {"color-grow", "test-minimum", "test-minimum-summary", "test-minimum-solve", "test-minimum-pick"} <= names


def _sum_windows(patch, corners, *, window):
    sums = np.zeros((2, *patch.shape[-2:]), np.int64)
    for r, c in corners:
        here = patch[0, r : r + window, c : c + window]
        weight = 1 + np.add.outer(np.arange(window), 3 * np.arange(window))
        sums[0, r : r + window, c : c + window] += here * weight * (1 + int(here.max()))
        sums[1, r : r + window, c : c + window] += weight
    return sums


def _mean(sums):
    return sums[0] / sums[1]


@given(
    st.integers(1, 24).flatmap(lambda n: st.tuples(axis_chunks(n), st.integers(1, 24).flatmap(axis_chunks))),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 2**31),
)
def test_overlap_add_equals_every_window_in_a_plain_loop(chunks, window, stride, seed):
    plan = WindowPlan(window, min(stride, window))
    shape = tuple(sum(axis) for axis in chunks)
    array = np.random.default_rng(seed).integers(0, 50, (1, *shape))
    run = partial(_sum_windows, window=window)
    tiled = overlap_add(da.from_array(array, chunks=(1, *chunks)), plan, run, _mean, name="test", dtype=float)

    padded = np.zeros((1, *(max(n, window) for n in shape)), array.dtype)
    padded[:, : shape[0], : shape[1]] = array
    corners = [(r, c) for r in plan.starts(shape[0]) for c in plan.starts(shape[1])]
    expected = _mean(run(padded, corners)[:, : shape[0], : shape[1]])

    assert tiled.chunks == chunks
    np.testing.assert_array_equal(tiled.compute(), expected)
    np.testing.assert_array_equal(overlap_add_serial(array, plan, run, _mean), expected)


def test_overlap_add_runs_each_window_once():
    seen = []

    def run(patch, corners):
        seen.extend(int(patch[0, r, c]) for r, c in corners)
        return np.ones((1, *patch.shape[-2:]), np.int64)

    array = np.arange(100 * 90).reshape(1, 100, 90)
    plan = WindowPlan(32, 16)
    source = da.from_array(array, chunks=(1, 37, 41))
    overlap_add(source, plan, run, lambda sums: sums[0], name="test", dtype=int).compute()
    assert sorted(seen) == sorted(int(array[0, r, c]) for r in plan.starts(100) for c in plan.starts(90))


class Waiting(Callback):
    """Most bytes that the results of tasks of some names hold at once, when Dask computes in its own order."""

    def __init__(self, *names):
        self.names, self.most = names, 0

    def _posttask(self, key, result, graph, state, worker):
        held = (block for key, block in state["cache"].items() if dask.utils.key_split(key) in self.names)
        owned = (block if block.base is None else block.base for block in held)
        self.most = max(self.most, sum({id(array): array.nbytes for array in owned}.values()))


def _most_waiting(rows, cols):
    """Bytes of a mosaic of 64 x 64 chunks that wait; the result goes at once, as if it were written."""
    read = partial(np.ones, dtype=np.uint8)
    tasks = {("read", 0, i, j): Task(("read", 0, i, j), read, (4, 64, 64)) for i, j in np.ndindex(rows, cols)}
    source = da.Array(tasks, "read", ((4,), (64,) * rows, (64,) * cols), dtype=np.uint8)
    plan, run = WindowPlan(32, 16), partial(_sum_windows, window=32)
    added = overlap_add(source, plan, run, _mean, name="test", dtype=float)
    written = added.map_blocks(lambda block: block[:1, :1], chunks=((1,) * rows, (1,) * cols), dtype=float)
    with Waiting("read", "test-read", "test-run", "test-strip", "test") as waiting:
        compute(written)
    return waiting.most


def test_what_waits_between_the_windows_of_a_mosaic_are_strips():
    """Each column adds the rows that reach into the chunk below, and no pixel of the source."""
    sums, strip = 2 * 8 * 80 * 80, 2 * 8 * 16 * 80
    for rows in (3, 12):
        few, many = (_most_waiting(rows, cols) for cols in (11, 25))
        assert few < 10 * sums
        assert many - few < 14 * strip * 1.5
    assert _most_waiting(25, 4) <= _most_waiting(12, 4) + sums


def test_sums_of_nothing_take_no_memory():
    plan = WindowPlan(32, 16)
    source = da.zeros((1, 300, 280), chunks=(1, 64, 64), dtype=np.uint8)
    nothing = partial(np.broadcast_to, np.int64(0))
    added = overlap_add(
        source, plan, lambda patch, _: nothing((1, *patch.shape[-2:])), lambda sums: sums[0], name="test", dtype=int
    )
    with Waiting("test-run", "test-strip") as waiting:
        np.testing.assert_array_equal(added, np.zeros((300, 280)))
    assert 0 < waiting.most < 2000


@pytest.mark.parametrize("size", [1, 5, 8, 9, 16, 17, 31])
def test_windows_cover_every_pixel_and_stay_inside(size):
    starts = WindowPlan(8, 3).starts(size)
    covered = {p for s in starts for p in range(s, s + 8)}
    assert set(range(size)) <= covered
    assert starts == sorted(set(starts))
    assert size < 8 or max(starts) + 8 == size


def test_a_stride_wider_than_the_window_is_refused():
    with pytest.raises(ValueError, match="stride must lie in"):
        WindowPlan(4, 5)


def test_an_array_read_again_shares_no_task_and_no_value_changes(one_thread):
    """Shared keys would hold the mosaic in memory while the seams are solved."""
    drawn = da.random.default_rng(3).random((40, 50), chunks=(16, 20)).astype(np.float32)
    tiled = map_tiles(lambda block: block + 1, drawn, depth=2, name="more", dtype=np.float32)
    for array in (drawn, drawn.rechunk((7, 11)), tiled, tiled.rechunk(13)):
        again = read_again(array, "test")
        assert again.chunks == array.chunks
        assert not set(again.dask.to_dict()) & set(array.dask.to_dict())
        assert read_again(array, "test").name == again.name != read_again(array, "other").name
        np.testing.assert_array_equal(again, array)
        both = da.compute(again, array)
        np.testing.assert_array_equal(*both)


def test_each_block_that_is_read_again_waits_for_its_own(one_thread):
    done = []

    def note(block, what, block_info=None):
        done.append((what, *block_info[0]["chunk-location"]))
        return block

    def noted(array, what):
        return da.map_blocks(note, array, what=what, dtype=array.dtype, meta=array._meta)

    drawn = noted(da.zeros((6, 6), chunks=2, dtype=np.float32), "read")
    for array in (drawn, drawn.rechunk(4), da.from_array(np.zeros((6, 6), np.float32), chunks=2) + 1):
        first = noted(da.ones((6, 6), chunks=array.chunks), "first")
        again = read_again(array, "test", after=Blocks.of(first))
        assert again.name == read_again(array, "test", after=Blocks.of(first)).name
        np.testing.assert_array_equal(again, array)
        done.clear()
        again.blocks[1, 1].compute()
        assert done[0][0] == "first"
    again = read_again(drawn, "test", after=Blocks.of(noted(da.ones((6, 6), chunks=2), "first")))
    done.clear()
    again.compute()
    for i, j in np.ndindex(3, 3):
        assert done.index(("first", i, j)) < done.index(("read", i, j))


def test_nothing_is_read_again_before_the_seams_are_solved():
    source = da.zeros((8, 8), chunks=2)
    graph = stitch(source, _mosaic_minimum(None)).graph.to_dict()
    ready = {key for key, task in graph.items() if not task.dependencies}
    assert ready == {(source.name, i, j) for i in range(4) for j in range(4)}
