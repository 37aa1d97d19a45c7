"""Sinks and the sinks within them, against slow definitions on the whole array that share no code with them."""

from __future__ import annotations

import pickle
from functools import partial
from unittest import mock

import dask
import dask.array as da
import dask_geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio.features
import shapely
from affine import Affine
from flooding import bowl, dems, priority_flood, rough
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import chunked, raster
from scipy import ndimage

import lakescale as ls
from lakescale.chunks import Blocks, Tree, map_blocks, plan_blocks, split_blocks
from lakescale.chunks.tree import Merge, merge_tree, merge_tree_serial, plan_squares
from lakescale.cluster import compute, open_cluster
from lakescale.evidence import sink_areas, sink_tables
from lakescale.evidence.sink_areas import pixel_areas_m2
from lakescale.evidence.sink_blocks import find_sinks, summarize
from lakescale.evidence.sink_cells import Rules
from lakescale.evidence.sink_regions import sink_regions
from lakescale.evidence.sink_seams import contract_seams
from lakescale.evidence.sinks import sink_depth
from lakescale.polygons import areas_m2, to_map

pytestmark = pytest.mark.usefixtures("one_thread")

EIGHT = np.ones((3, 3), bool)
POLAR = {"transform": Affine(100, 0, -500_000, 0, -100, -1_800_000), "crs": "EPSG:3413"}
COLUMNS = {
    "sink_id": "int64",
    "level": "int32",
    "parent": "Int64",
    "depth_m": "float32",
    "spill_m": "float32",
    "pit_m": "float32",
    "area_m2": "float64",
    "capacity_m3": "float64",
    "pour_x": "float64",
    "pour_y": "float64",
    "pit_x": "float64",
    "pit_y": "float64",
    "merge_m": "float32",
    "void_share": "float64",
    "geometry": "geometry",
}


def regions(dem, chunks=-1, **options):
    rows = sink_regions(raster(dem, chunks, **POLAR), **options).compute()
    return rows.sort_values("sink_id").reset_index(drop=True)


# -- slow definitions


class Whole:
    """Sinks on one array: thresholds, components of what lies below them, nothing clever."""

    def __init__(self, dem, *, nodata="wall", min_depth_m=0.0, min_area_m2=0.0, levels=1):
        self.dem, self.nodata, self.least, self.levels = dem, nodata, (min_depth_m, min_area_m2), levels
        grid = ls.Grid.of(raster(dem, **POLAR))
        self.area = np.rint(pixel_areas_m2(grid, *(range(n) for n in dem.shape)) * 2**16).astype(object)
        self.filled = priority_flood(dem, nodata)
        self.voids, _ = ndimage.label(np.isnan(dem), EIGHT)

    def rows(self):
        labels, count = ndimage.label(self.filled > self.dem, EIGHT)
        whole = [labels == k for k in range(1, count + 1)]
        whole = [inside for inside in whole if self.is_large(inside, self.filled[inside].max())]
        rows = [self.row(k, 0, None, inside, None) for k, inside in enumerate(whole, 1)]
        for k, inside in enumerate(whole, 1):
            around = [(k, inside)]
            for level in range(1, self.levels or 999):
                nested = [(outer, *inner) for outer, mask in around for inner in self.children(mask)]
                nested.sort(key=lambda found: int(found[1].argmax()))
                around = []
                for outer, mask, merge in nested:
                    rows.append(self.row(len(rows) + 1, level, outer, mask, merge))
                    rows[-1]["void_share"] = rows[k - 1]["void_share"]
                    around.append((len(rows), mask))
        return rows

    def is_large(self, inside, spill):
        area = sum(self.area[inside]) / 2**16
        return np.float32(spill - self.dem[inside].min()) >= self.least[0] and area >= self.least[1]

    def children(self, inside):
        """The large components below the highest level below which there are at least two of them."""
        for level in np.unique(self.dem[inside])[::-1]:
            labels, count = ndimage.label(inside & (self.dem < level), EIGHT)
            found = [labels == k for k in range(1, count + 1)]
            found = [(mask, level) for mask in found if self.is_large(mask, level)]
            if len(found) > 1:
                return found
        return []

    def row(self, sink_id, level, parent, inside, merge):
        spill = self.filled[inside].max() if merge is None else merge
        pits = np.argwhere(inside & (self.dem == self.dem[inside].min()))
        volume = sum(
            int(np.rint((float(spill) - float(z)) * (int(a) / 2**16) * 2**10))
            for z, a in zip(self.dem[inside], self.area[inside], strict=True)
        )
        beside = np.setdiff1d(self.voids[ndimage.binary_dilation(inside, EIGHT)], [0])
        n_void = np.isin(self.voids, beside).sum()
        return {
            "sink_id": sink_id,
            "level": level,
            "parent": parent,
            "depth_m": np.float32(spill - self.dem[inside].min()),
            "spill_m": spill,
            "pit_m": self.dem[inside].min(),
            "area_m2": float(sum(self.area[inside])) / 2**16,
            "capacity_m3": volume / 2**10,
            "pour": self.pour(inside, spill, outermost=merge is None),
            "pit": tuple(pits[0]),
            "merge_m": np.nan if merge is None else merge,
            "void_share": n_void / (n_void + inside.sum()),
            "inside": inside,
        }

    def pour(self, inside, spill, *, outermost):
        height, width = self.dem.shape
        rim = np.argwhere(ndimage.binary_dilation(inside, EIGHT) & (self.dem == spill) & ~inside)
        for row, col in rim:
            near = np.s_[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2]
            if outermost:
                at_edge = row in (0, height - 1) or col in (0, width - 1)
                runs_on = at_edge or (self.filled[near] < spill).any()
                runs_on |= self.nodata == "outlet" and np.isnan(self.dem[near]).any()
            else:
                runs_on = ((self.dem[near] < spill) & ~inside[near]).any()
            if runs_on:
                return row, col
        return tuple(rim[0])


def outline(inside):
    parts = [
        shapely.geometry.shape(shape)
        for shape, _ in rasterio.features.shapes(inside.astype(np.uint8), mask=inside, connectivity=4)
    ]
    whole = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return to_map(np.array([shapely.normalize(whole)]), POLAR["transform"])[0]


def assert_rows_equal(ours, expected):
    assert {name: str(dtype) for name, dtype in ours.dtypes.items()} == COLUMNS
    assert ours.crs == "EPSG:3413"
    assert list(ours.sink_id) == [row["sink_id"] for row in expected]
    for our, row in zip(ours.to_dict("records"), expected, strict=True):
        assert (our["parent"] is pd.NA and row["parent"] is None) or our["parent"] == row["parent"]
        for name in ("level", "depth_m", "spill_m", "pit_m", "area_m2", "capacity_m3", "void_share"):
            assert our[name] == row[name], name
        np.testing.assert_array_equal(our["merge_m"], row["merge_m"])
        for name in ("pour", "pit"):
            r, c = row[name]
            assert (our[f"{name}_x"], our[f"{name}_y"]) == POLAR["transform"] * (c + 0.5, r + 0.5), name
        assert shapely.to_wkb(our["geometry"]) == shapely.to_wkb(outline(row["inside"]))


# -- any chunks

RULES = st.fixed_dictionaries(
    {
        "nodata": st.sampled_from(["wall", "outlet"]),
        "min_depth_m": st.sampled_from([0.0, 0.0, 1.0, 60.0]),
        "min_area_m2": st.sampled_from([0.0, 0.0, 2.5e4, 8e4]),
        "levels": st.sampled_from([1, 2, 3, None, None]),
    }
)


@settings(max_examples=40)
@given(case=chunked(dems(largest=14)), rules=RULES)
def test_any_chunks_equal_slow_definitions_on_the_whole(case, rules):
    dem, chunks = case
    assert_rows_equal(regions(dem, chunks, **rules), Whole(dem, **rules).rows())


@settings(max_examples=12)
@given(dem=dems(largest=7), rules=RULES)
def test_chunks_of_one_cell_equal_slow_definitions(dem, rules):
    assert_rows_equal(regions(dem, 1, **rules), Whole(dem, **rules).rows())


def in_squares(side):
    """Solve seams in squares of so many blocks a side, of squares and so on up to the whole."""
    return mock.patch("lakescale.evidence.sink_regions.Tree", partial(Tree, side=side, most=1))


@settings(max_examples=60)
@given(case=chunked(dems(largest=14)), rules=RULES, side=st.sampled_from([2, 3]))
def test_numbering_in_squares_equals_slow_definitions_on_the_whole(case, rules, side):
    dem, chunks = case
    with in_squares(side):
        assert_rows_equal(regions(dem, chunks, **rules), Whole(dem, **rules).rows())


def hilly(seed, **kind):
    """One basin as wide as the mosaic, with hills in it."""
    return (bowl(80)[:60] / 3 + rough((60, 80), seed, smooth=2.5, **kind)).astype(np.float32)


NESTED = {
    "hills": hilly(1),
    "terraces": np.floor(hilly(2) / 10),
    "lagoons": hilly(5, holes=0.05),
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("chunks", [(60, 80), (17, 23), ((1, 40, 19), (33, 1, 46))])
def test_nested_sinks_that_cross_seams(kind, chunks):
    rules = {"levels": None, "min_area_m2": 3e4}
    ours = regions(NESTED[kind], chunks, **rules)
    assert ours.level.max() >= 2
    assert_rows_equal(ours, Whole(NESTED[kind], **rules).rows())


@pytest.mark.parametrize("nodata", ["wall", "outlet"])
@pytest.mark.parametrize("chunks", [3, (4, 7), ((1, 40, 19), (33, 1, 46))])
def test_numbering_in_squares_of_squares_with_voids_across_them(chunks, nodata):
    dem = rough((60, 80), 4, smooth=2.5, holes=0.2)
    assert np.isnan(dem).any()
    rules = {"nodata": nodata, "min_area_m2": 3e4, "min_depth_m": 2.0}
    whole = regions(dem, **rules)
    assert (whole.void_share > 0).any() == (nodata == "wall")
    for side in (2, 4):
        with in_squares(side):
            pd.testing.assert_frame_equal(regions(dem, chunks, **rules), whole)


def test_many_chunks_are_numbered_in_squares():
    graph = sink_regions(raster(np.zeros((160, 160), np.float32), 4, **POLAR)).dask
    names = [str(key[0] if isinstance(key, tuple) else key).rpartition("-")[0] for key in graph]
    assert names.count("sinks-contract") == names.count("sinks-expand") == 9
    assert names.count("sinks-solve") == 1


def test_a_square_sends_on_what_lies_on_its_sides_only():
    """Not what its blocks hold: the task above it would hold the mosaic again."""
    dem = rough((96, 96), 2, smooth=1.0)
    rules = Rules(ls.Grid.of(raster(dem, **POLAR)), np.float32(0), 0, 1)
    summaries, places = ([row[2:10] for row in grid[2:10]] for grid in summaries_of(dem, 8, rules))
    square = contract_seams(summaries, places, rules=rules)
    largest = max(len(pickle.dumps(one, 5)) for row in summaries for one in row)
    assert len(pickle.dumps(square, 5)) < 8 * largest  # of 64 blocks
    assert len(square.ring.top) == len(square.roots) == 64
    inner = sum(len(one.parts) for row in summaries for one in row)
    assert 0 < len(square.parts) < inner / 3


def summaries_of(dem, side, rules):
    fill = priority_flood(dem)
    places = plan_blocks(da.empty(dem.shape, chunks=side).chunks)
    find = partial(find_sinks, rules=rules, void_is_outlet=False, missing=())
    cut = [[np.s_[p.row : p.row + p.height, p.col : p.col + p.width] for p in row] for row in places]
    found = [
        [find(fill[at], dem[at], p) for at, p in zip(ats, row, strict=True)]
        for ats, row in zip(cut, places, strict=True)
    ]
    return [[summarize(one.kept) for one in row] for row in found], places


def test_tiles_in_a_sink_leave_no_trace(monkeypatch):
    expected = regions(NESTED["terraces"], 30, levels=3)
    monkeypatch.setattr(sink_tables, "_TILE_PX", 7)
    monkeypatch.setattr(sink_areas, "_STRIP_PX", 3)
    monkeypatch.setattr(sink_areas, "_CELLS", 5)
    pd.testing.assert_frame_equal(regions(NESTED["terraces"], 30, levels=3), expected)


@pytest.mark.parametrize("size", [16, 20])
def test_squares_of_squares_of_chunks(size):
    """More than 4 x 4 chunks: some sinks are complete in a square, some only in a square of squares."""
    dem = rough((size, size), 3, smooth=1.2)
    assert_rows_equal(regions(dem, 2, levels=None), Whole(dem, levels=None).rows())


# -- what is a sink within a sink


def profile(*heights):
    """A valley between high banks, along which elevations are as given."""
    dem = np.full((3, len(heights)), 99, np.float32)
    dem[1] = heights
    return dem


def nesting(dem, chunks=-1, **rules):
    """Level, depth and parent of each row by its id."""
    rows = regions(dem, chunks, levels=None, **rules)
    parents = [None if parent is pd.NA else parent for parent in rows.parent]
    return dict(zip(rows.sink_id, zip(rows.level, rows.depth_m, parents, strict=True), strict=True))


@pytest.mark.parametrize("chunks", [-1, (3, 2), 1])
def test_two_basins_in_one(chunks):
    dem = profile(0, 9, 1, 5, 2, 9)
    rows = regions(dem, chunks, levels=None)
    assert nesting(dem, chunks) == {1: (0, 8, None), 2: (1, 4, 1), 3: (1, 3, 1)}
    assert list(rows.merge_m[1:]) == [5, 5]
    assert list(rows.spill_m) == [9, 5, 5]
    saddle, rim = (POLAR["transform"] * (col + 0.5, 1.5) for col in (3, 1))
    assert list(zip(rows.pour_x, rows.pour_y, strict=True)) == [rim, saddle, saddle]
    assert len(regions(dem, chunks)) == 1
    assert len(regions(dem, chunks, levels=2)) == 3


@pytest.mark.parametrize("middle", [(5, 2, 5), (5, 5, 2, 5, 5)])
def test_three_that_meet_at_one_level_are_children_of_one(middle):
    assert nesting(profile(0, 9, 1, *middle, 3, 9), 2) == {1: (0, 8, None), 2: (1, 4, 1), 3: (1, 3, 1), 4: (1, 2, 1)}


def test_basins_that_meet_one_after_the_other_nest():
    expected = {1: (0, 8, None), 2: (1, 6, 1), 3: (1, 4, 1), 4: (2, 4, 2), 5: (2, 3, 2)}
    assert nesting(profile(0, 9, 1, 5, 2, 7, 3, 9), 3) == expected


def test_a_small_basin_splits_nothing_and_its_water_counts_to_the_sink_round_it():
    dem = profile(0, 9, 1, 5, 4, 7, 3, 9)
    assert nesting(dem)[2][:2] == (1, 6)
    assert len(nesting(dem)) == 5
    # 4 is 1 m deep: it goes, and so does its sibling, which is its parent at a lower level
    assert nesting(dem, min_depth_m=2) == {1: (0, 8, None), 2: (1, 6, 1), 3: (1, 4, 1)}
    rows = regions(dem, levels=None, min_depth_m=2)
    assert rows.area_m2[1] / rows.area_m2[2] == pytest.approx(3, rel=1e-3)
    assert nesting(dem, min_depth_m=5) == {1: (0, 8, None)}
    assert nesting(dem, min_depth_m=9) == {}


def test_a_flat_is_one_minimum_and_a_step_is_none():
    assert nesting(profile(0, 9, 1, 1, 1, 9)) == {1: (0, 8, None)}
    assert nesting(profile(0, 9, 4, 4, 1, 2, 2, 9)) == {1: (0, 8, None)}
    assert nesting(profile(0, 9, 1, 1, 4, 1, 1, 9)) == {1: (0, 8, None), 2: (1, 3, 1), 3: (1, 3, 1)}


def test_ids_of_outermost_sinks_do_not_depend_on_the_levels():
    nested, whole = (regions(NESTED["hills"], 25, levels=levels, min_depth_m=3) for levels in (None, 1))
    assert nested.level.max() > 1
    pd.testing.assert_frame_equal(nested[nested.level == 0], whole)


# -- voids


@pytest.mark.parametrize("chunks", [-1, 4, 1])
def test_a_lake_that_is_a_void_is_told_by_its_share(chunks):
    dem = np.full((9, 9), 20, np.float32)
    dem[1:8, 1:8] = 10
    dem[3:6, 3:6] = np.nan
    dem[0, 8] = 15
    (row,) = regions(dem, chunks).to_dict("records")
    assert row["void_share"] == 9 / 49
    assert row["geometry"].area == 40 * 100**2
    assert len(regions(dem, chunks, nodata="outlet")) == 0


# -- sums


def test_area_and_capacity_are_those_of_depth_and_outline():
    rows = regions(NESTED["hills"], 20)
    np.testing.assert_allclose(rows.area_m2, areas_m2(rows.geometry), rtol=1e-5)
    dem = raster(NESTED["hills"], **POLAR)
    depth = sink_depth(dem).values.astype(float)
    area = pixel_areas_m2(ls.Grid.of(dem), range(60), range(80))
    assert rows.capacity_m3.sum() == pytest.approx((depth * area).sum(), rel=1e-6)


# -- the face


def test_no_sink_is_an_empty_frame():
    for dem in (np.full((9, 9), np.nan, np.float32), np.zeros((9, 9), np.float32)):
        for levels in (1, None):
            frame = sink_regions(raster(dem, 4, **POLAR), levels=levels, min_area_m2=1)
            assert isinstance(frame, dask_geopandas.GeoDataFrame)
            rows = frame.compute()
            assert_rows_equal(rows, [])
            assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == COLUMNS


def test_building_computes_nothing(never_compute):
    dem = raster(np.zeros((50, 50), np.float32), 7, **POLAR)
    frame = sink_regions(dem, levels=None, min_area_m2=10)
    assert frame.npartitions == 49 + 4 * 4 + 8  # the last line of chunks, 1 pixel wide, belongs to the one before
    assert frame.crs == "EPSG:3413"


def test_partitions_bound_their_rows():
    frame = sink_regions(raster(NESTED["hills"], (10, 14), **POLAR))
    parts = dask.compute(*frame.to_delayed())
    assert sum(len(part) > 0 for part in parts[36:]) > 1  # of the squares, after 6 x 6 chunks
    for box, part in zip(frame.spatial_partitions, parts, strict=True):
        assert part.geometry.covered_by(box).all()


def test_twenty_tasks_a_chunk_whatever_their_number():
    dem = raster(np.zeros((64, 64), np.float32), 4, **POLAR)
    assert len(sink_regions(dem, levels=None).dask) <= 22 * 16**2


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda r: r, {"levels": 0}, "levels must be a whole number from 1 on"),
        (lambda r: r, {"levels": 1.5}, "levels must be a whole number from 1 on"),
        (lambda r: r, {"min_depth_m": -1}, "min_depth_m must be 0 or more, got -1"),
        (lambda r: r, {"min_area_m2": np.nan}, "min_area_m2 must be 0 or more, got nan"),
        (lambda r: r, {"nodata": "pit"}, "unknown nodata"),
        (lambda r: r.drop_vars(["spatial_ref", "x", "y"]), {}, "without a CRS"),
        (lambda r: r.odc.assign_crs("EPSG:4326"), {}, "metres are needed"),
        (lambda r: r.expand_dims("band"), {}, "dims"),
    ],
)
def test_bad_input_is_named(change, options, message):
    with pytest.raises(ls.InputError, match=message):
        sink_regions(change(raster(np.zeros((4, 4), np.float32), **POLAR)), **options)


def test_two_processes_give_the_same_rows():
    frame = sink_regions(raster(NESTED["lagoons"], 20, **POLAR), levels=None, min_depth_m=1)
    (here,) = compute(frame)
    with open_cluster("local", workers=2, dashboard="none") as client:
        (there,) = compute(frame, client=client)
    pd.testing.assert_frame_equal(there, here)


# -- squares of blocks


@given(st.lists(st.integers(1, 3), min_size=1, max_size=18), st.lists(st.integers(1, 3), min_size=1, max_size=18))
def test_squares_end_in_one_and_hold_every_part_once(rows, cols):
    chunks = (tuple(rows), tuple(cols))
    squares = plan_squares(chunks)
    members = sorted(n for square in squares for n in square.members)
    n_parts = len(rows) * len(cols) + len(squares)
    assert members == list(range(n_parts - 1))  # the last square holds all
    if squares:
        assert squares[-1].place == (0, 0, sum(rows), sum(cols))
        assert max(len(square.members) for square in squares) <= 16


def test_a_tree_is_a_loop_over_its_squares():
    """Numbers that wait for their partner: finished where both are."""
    numbers = np.random.default_rng(1).permutation(np.repeat(np.arange(200), 2)).reshape(20, 20)
    how = Merge("pairs", _unpaired, _dealt, _pair, _paired)
    results, places = merge_tree(map_blocks(Blocks.of(da.from_array(numbers, chunks=3)), "flat", _flat), how)
    assert len(places) == len(results.chunks[1]) == 49 + 4 * 4 + 8
    got = dask.get(results.graph.to_dict(), [(results.name, 0, k) for k in range(len(places))])
    blocks = [[_flat(b) for b in row] for row in split_blocks(numbers, (((3,) * 6) + (2,),) * 2)]
    assert list(got) == merge_tree_serial(blocks, how, (((3,) * 6) + (2,),) * 2)
    assert sorted(n for done in got for n in done) == list(range(200))


def _flat(block):
    return sorted(block.ravel().tolist())


def _unpaired(part):
    return [n for n in part if part.count(n) == 1]


def _dealt(numbers, number, count):
    return [n for n in numbers if n % count == number]


def _paired(part):
    return sorted({n for n in part if part.count(n) == 2})


def _pair(rests):
    return sorted(n for rest in rests for n in rest)


# -- real ones


@pytest.mark.parametrize("chunk", [97, 256])
def test_a_real_nested_basin_whatever_the_chunks(data_dir, chunk):
    with rasterio.open(data_dir / "dem" / "lidar_nested_basin_1m.tif") as file:
        dem = file.read(1).astype(np.float32)
    whole, ours = (regions(dem, size, levels=None, min_depth_m=0.2, min_area_m2=2e6) for size in (-1, chunk))
    assert whole.level.max() >= 2
    pd.testing.assert_frame_equal(ours, whole)
    depth = sink_depth(raster(dem, **POLAR), min_depth_m=0.2, min_area_m2=2e6).values
    outermost = whole[whole.level == 0]
    assert outermost.depth_m.max() == depth.max()
    assert outermost.geometry.area.sum() == (depth > 0).sum() * 100**2
