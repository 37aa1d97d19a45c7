"""`fuse` with the preset `lakescale` against a slow plain loop, and the same from any partitions and order."""

from __future__ import annotations

import importlib
from pathlib import Path

import dask
import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import shapely.affinity
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_preset import plain_preset

from lakescale.fusion import REASONS, Lakescale, fuse
from lakescale.fusion.outlines import cut_necks, fill_lids
from lakescale.fusion.rivals import settle
from lakescale.schema import InputError

SMALL = {"min_sink_area_m2": 20.0}
GIVEN = ["kept"] * 4 + ["stream", "smaller than the least area", "not on the ice"]


def run(frames, *, evidence=None, partitions=None, **options):
    models = {name: frames[name] for name in ("deeplab", "index") if name in frames}
    rest = {name: frames.get(name) for name in ("sinks", "color", "ice")}
    preset = Lakescale(**(SMALL | options))
    return fuse(models, **rest, evidence=evidence, preset=preset, return_reasons=True, partitions=partitions)


def assert_equals_plain(frames, **options):
    lakes, reasons = run(frames, **options)
    models = {name: frames[name] for name in ("deeplab", "index")}
    expected, told = plain_preset(models, *(frames[name] for name in ("sinks", "color", "ice")), **(SMALL | options))
    assert reasons["reason"].tolist() == [reason for reason, _ in told]
    by = zip(reasons["by"], reasons["by_row"].fillna(-1).astype(int), strict=True)
    assert list(by) == [by for _, by in told]
    assert [*zip(lakes["model"], lakes["row"], strict=True)] == [lake[:2] for lake in expected]
    for outline, (_, _, other) in zip(lakes.geometry, expected, strict=True):
        assert shapely.area(shapely.symmetric_difference(outline, other)) < 1e-6
    assert lakes["lake_id"].tolist() == list(range(1, len(lakes) + 1))
    assert_counts_add_up(frames, lakes, reasons)


def assert_counts_add_up(frames, lakes, reasons):
    assert len(reasons) == sum(len(frames[name]) for name in ("deeplab", "index") if name in frames)
    assert set(reasons["reason"]) <= set(REASONS)
    kept = reasons[reasons["reason"] == "kept"]
    assert set(zip(kept["model"], kept["row"], strict=True)) == set(zip(lakes["model"], lakes["row"], strict=True))
    days = lakes.groupby(["image", "region_num"]) if "image" in lakes.columns else [(None, lakes)]
    for _, day in days:
        outlines = day.geometry.to_numpy()
        i, j = shapely.STRtree(outlines).query(outlines, predicate="intersects")
        assert not (shapely.area(shapely.intersection(outlines[i], outlines[j]))[i < j] > 0).any()


def box(x, y, w, h):
    return shapely.box(x, y, x + w, y + h)


whole = st.integers
boxes = st.builds(box, whole(0, 9), whole(0, 9), whole(1, 6), whole(1, 6))
rings = st.builds(
    lambda x, y, w, h: box(x, y, w, h).difference(box(x + 1, y + 1, w - 2, h - 2)),
    *(whole(0, 9), whole(0, 9), whole(3, 6), whole(3, 6)),
)
dumbbells = st.builds(
    lambda x, y, w: shapely.union_all([box(x, y, 4, 4), box(x + 4, y + 1.5, w, 0.5), box(x + 4 + w, y, 3, 4)]),
    *(whole(0, 6), whole(0, 6), whole(1, 3)),
)
both = st.builds(
    lambda *parts: shapely.MultiPolygon([*parts]), boxes, boxes.map(lambda b: shapely.affinity.translate(b, 20))
)
shapes = boxes | boxes | rings | dumbbells | both


@st.composite
def frame_of(draw, *columns, most=6):
    values = {
        "image": st.sampled_from("ab"), "region_num": whole(1, 2), "reason": st.sampled_from(GIVEN),
        "level": whole(0, 2), "depth_m": st.sampled_from([0.2, 1.0]),
    }  # fmt: skip
    rows = draw(st.lists(st.tuples(shapes, *(values[column] for column in columns)), max_size=most))
    table = {column: [row[k + 1] for row in rows] for k, column in enumerate(columns)}
    kinds = {"image": "str", "region_num": "int64", "reason": "str", "level": "int32", "depth_m": "float64"}
    frame = gpd.GeoDataFrame(table, geometry=[row[0] for row in rows], crs=3413)
    return frame.astype({column: kinds[column] for column in columns})


worlds = st.fixed_dictionaries(
    {
        "deeplab": frame_of("image", "region_num") | frame_of("image", "region_num", "reason"),
        "index": frame_of("image", "region_num", "reason"),
        "sinks": st.none() | frame_of("region_num", "level", "depth_m") | frame_of(),
        "color": st.none() | frame_of("image", "region_num", most=3),
        "ice": st.none() | frame_of(most=2) | st.just(gpd.GeoDataFrame(geometry=[box(0, 0, 50, 9)], crs=3413)),
    }
)
OPTIONS = {
    "fill_lids": (True, False),
    "neck": (0.0, 0.2, 0.6),
    "least_score": (-9.0, 0.0),
    "min_ice_share": (0.0, 1.0),
    "sink_fill": (0.3, 0.6, 1.0),
    "sink_cover": (0.2, 0.5, 2.0),
    "min_sink_depth_m": (0.0, 0.0),
}
choices = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in OPTIONS.items()})


@settings(max_examples=60, deadline=None)
@given(worlds, choices)
def test_equals_a_plain_loop(frames, options):
    assert_equals_plain(frames, **options)


def assert_same(found, expected):
    for frame, other in zip(found, expected, strict=True):
        tables = (pd.DataFrame(one.drop(columns="geometry")).astype(object) for one in (frame, other))
        pd.testing.assert_frame_equal(*tables)
        assert frame.geometry.to_wkb().tolist() == other.geometry.to_wkb().tolist()


def cut(frame, partitions):
    return dask_geopandas.from_geopandas(frame, npartitions=max(1, min(partitions, len(frame))), sort=False)


@settings(max_examples=15, deadline=None)
@given(worlds, whole(2, 9), whole(1, 5), whole(0, 31), choices)
def test_any_partitions_give_the_same_lakes(frames, partitions, count, lazy, options):
    expected = run(frames, **options)
    assert_same(run(frames, partitions=partitions, **options), expected)
    mixed = {
        name: frame if frame is None or (lazy >> k & 1 and k) else cut(frame, count)
        for k, (name, frame) in enumerate(frames.items())
    }
    found = dask.compute(*run(mixed, **options), scheduler="synchronous")
    assert_same([frame.reset_index(drop=True) for frame in found], expected)


@settings(max_examples=8, deadline=None)
@given(worlds, st.randoms(use_true_random=False))
def test_the_order_of_evidence_rows_changes_no_lake_unless_they_tie(frames, random):
    mixed = dict(frames)
    if frames["color"] is not None:
        rows = list(range(len(frames["color"])))
        random.shuffle(rows)
        mixed["color"] = frames["color"].iloc[rows]
    assert_same(run(mixed), run(frames))


def squares(*corners, side=10, **columns):
    return gpd.GeoDataFrame(columns, geometry=[box(x, y, side, side) for x, y in corners], crs=3413)


def outlines(*geometry, **columns):
    return gpd.GeoDataFrame(columns, geometry=list(geometry), crs=3413)


MOAT = [box(0, 0, 20, 2), box(0, 18, 20, 2), box(0, 2, 2, 16), box(18, 2, 2, 16)]


def test_a_lake_under_a_lid_is_its_sink_though_its_moat_is_in_pieces():
    index = outlines(*MOAT, reason=["stream"] * 4)
    lakes, reasons = run({"index": index, "sinks": squares((0, 0), side=20)})
    assert lakes.geometry.iloc[0].equals(box(0, 0, 20, 20))
    assert reasons["reason"].tolist() == ["kept"] + ["merged into another polygon"] * 3
    assert reasons["by_row"].fillna(-1).tolist() == [-1, 0, 0, 0]
    assert not len(run({"index": index, "sinks": squares((0, 0), side=20)}, sink_cover=2.0)[0])
    assert not len(run({"index": index, "sinks": squares((0, 0), side=20)}, min_sink_area_m2=500.0)[0])
    half = {"index": index.iloc[:1], "sinks": squares((0, 0), side=20)}
    assert run(half)[1]["reason"].tolist() == ["stream"]  # water on one shore only


def test_a_lid_is_kept_inside_a_lake():
    ring = box(0, 0, 10, 10).difference(box(2, 2, 6, 6))
    frames = {"index": outlines(ring), "color": squares((0, 0))}
    assert run(frames)[0].geometry.area.tolist() == [100]
    assert run(frames, fill_lids=False)[0].geometry.area.tolist() == [64]


def test_one_lake_a_sink_at_each_level():
    index = outlines(box(0, 0, 9, 10), box(10, 0, 1, 10), box(12, 0, 8, 10))
    inner = outlines(box(0, 0, 11, 10), box(12, 0, 8, 10), level=[1, 1])
    lakes, reasons = run({"index": index, "sinks": inner}, least_score=-9.0)
    assert reasons["reason"].tolist() == ["kept", "merged into another polygon", "kept"]
    assert reasons["by_row"].fillna(-1).tolist() == [-1, 0, -1]
    assert lakes["row"].tolist() == [0, 2]
    assert run({"index": index, "sinks": inner}, sink_fill=0.9)[0].geometry.area.tolist() == [110, 80]


def test_of_candidates_that_overlap_the_one_that_others_agree_with_stays():
    frames = {"deeplab": outlines(box(0, 0, 10, 20)), "index": squares((0, 0)), "color": squares((0, 0), (0, 10))}
    lakes, reasons = run(frames)
    assert lakes["model"].tolist() == ["index"]
    assert reasons[["reason", "by", "by_row"]].iloc[0].tolist() == ["merged into another polygon", "index", 0]


def test_two_lakes_that_a_neck_joins_are_two_where_others_see_two():
    joined = shapely.union_all([box(0, 0, 10, 10), box(10, 4.5, 6, 1), box(16, 0, 10, 10)])
    two = {"deeplab": outlines(joined), "index": squares((0, 0), (16, 0))}
    lakes, reasons = run(two)
    assert len(lakes) == 2
    assert_counts_add_up(two, lakes, reasons)
    cut_only = {"deeplab": outlines(joined), "color": squares((0, 0), (16, 0))}
    lakes, reasons = run(cut_only)
    assert lakes["model"].tolist() == ["deeplab", "deeplab"]
    assert reasons[["reason", "lake_id"]].to_numpy().tolist() == [["kept", 1]]
    assert len(run(cut_only, neck=0.0)[0]) == 1
    assert len(run({"deeplab": outlines(joined), "color": outlines(joined)})[0]) == 1


def test_slush_and_streams_are_not_solid():
    comb = shapely.union_all([box(0, 0, 40, 1), *(box(4 * k, 0, 1, 20) for k in range(10))])
    frames = {"index": outlines(comb, box(60, 0, 10, 10)), "color": outlines(box(60, 0, 10, 10))}
    assert run(frames)[1]["reason"].tolist() == ["too little agrees with it", "kept"]
    assert run(frames, least_score=-9.0)[1]["reason"].tolist() == ["kept", "kept"]


def test_shares_on_ice():
    frames = {"index": squares((0, 0)), "ice": outlines(box(0, 0, 4, 10))}
    assert run(frames)[1]["reason"].tolist() == ["not on the ice"]
    assert run(frames, min_ice_share=0.4)[1]["reason"].tolist() == ["kept"]


@pytest.mark.parametrize("name", ["deeplab", "index", "sinks", "color", "ice"])
def test_each_frame_without_rows_in_turn(name):
    frames = {
        "deeplab": squares((0, 0)), "index": squares((0, 0), (40, 0)), "sinks": squares((0, 0)),
        "color": squares((40, 0)), "ice": squares((-99, -99), side=999),
    }  # fmt: skip
    lakes, reasons = run(frames | {name: frames[name].iloc[:0]}, least_score=0.0)
    assert_counts_add_up(frames | {name: frames[name].iloc[:0]}, lakes, reasons)
    assert len(lakes) == {"index": 1, "color": 1, "ice": 0}.get(name, 2)  # nothing agrees with the other lake then
    if name in ("sinks", "color", "ice"):
        assert len(run(frames | {name: None}, least_score=0.0)[0]) == {"color": 1}.get(name, 2)


def raster(values, dtype):
    values = np.repeat(np.repeat(np.asarray(values, dtype), 10, axis=0), 10, axis=1)
    height, width = values.shape
    axes = {"y": np.arange(height, 0, -1) - 0.5, "x": np.arange(width) + 0.5}
    return xr.DataArray(values, axes, ("y", "x")).odc.assign_crs("EPSG:3413").chunk(y=7, x=9)


RASTERS = {
    "probability_deeplab": raster([[0.9, 0.2, 0.6, 0.9]], np.float32),
    "index": raster([[1, 1, 0, 0]], bool),
    "color": raster([[1, 0, 0, 0]], bool),
    "ice": raster([[1, 1, 1, 0]], bool),
    "seen": raster([[1, 1, 1, 1]], bool),
    "sink_depth": raster([[1, 1, 1, 1]], np.float32),
}
FOUR = squares((1, 1), (11, 1), (21, 1), (31, 1), side=8)
KEPT, OFF = "kept", "not on the ice"


@pytest.mark.parametrize("lazy", [False, True])
def test_rasters_of_evidence(lazy):
    def told(**options):
        frame = cut(FOUR, 2) if lazy else FOUR
        _, reasons = run({"deeplab": frame}, evidence=RASTERS, **options)
        return (reasons.compute() if lazy else reasons)["reason"].tolist()

    assert told() == [KEPT, KEPT, KEPT, OFF]  # all are solid squares
    assert told(min_ice_share=0.0) == [KEPT] * 4
    assert told(min_probability=0.5) == [KEPT, "too improbable by the models", KEPT, OFF]
    assert told(min_peak=0.7) == [KEPT, *["too improbable by the models"] * 2, OFF]
    assert told(min_unseen_m=1.5) == ["too near what was not seen"] * 3 + [OFF]
    assert told(least_score=2.0) == [KEPT, KEPT, "too little agrees with it", OFF]  # index and color support it


@pytest.mark.parametrize("lazy", [False, True])
def test_the_index_s_candidates_are_shown_to_the_models(lazy):
    """Rock that the index takes for water, beside the same polygons of a model, whose word is not asked."""
    frames = {"deeplab": FOUR.iloc[:0], "index": cut(FOUR, 2) if lazy else FOUR}

    def told(frames, **options):
        reasons = run(frames, evidence=RASTERS, min_ice_share=0.0, least_score=-9.0, **options)[1]
        return (reasons.compute() if lazy else reasons)["reason"].tolist()

    improbable = "too improbable by the models"
    assert told(frames, min_index_probability=0.5) == [KEPT, improbable, KEPT, KEPT]
    assert told(frames, min_index_probability=0.7) == [KEPT, improbable, improbable, KEPT]
    assert told(frames, min_index_probability=0.0) == [KEPT] * 4
    assert told({"deeplab": frames["index"]}, min_index_probability=1.0) == [KEPT] * 4
    assert len(run(frames, least_score=-9.0)[1]) == 4  # without rasters nothing is asked


def test_rasters_support_what_no_other_polygons_do():
    loose = outlines(*(box(x, 1, 8, 8).difference(box(x + 4, 5, 4, 4)) for x in (1, 11, 21)))
    assert run({"deeplab": loose})[1]["reason"].tolist() == [KEPT] * 3
    weak = "too little agrees with it"
    assert run({"deeplab": loose}, evidence=RASTERS, least_score=0.0)[1]["reason"].tolist() == [KEPT, KEPT, weak]
    moved = {"deeplab": loose.to_crs(32624)}
    assert run(moved, evidence=RASTERS, least_score=0.0)[1]["reason"].tolist() == [KEPT, KEPT, weak]
    bare = outlines(*loose.geometry, None, shapely.Polygon([(0, 0), (9, 9), (9, 0), (0, 9)]))
    assert len(run({"deeplab": bare}, evidence=RASTERS)[1]) == 5


@pytest.mark.parametrize("evidence", [{}, {"dem": RASTERS["seen"]}, [RASTERS["seen"]], "evidence.zarr"])
def test_rasters_that_tell_nothing_are_refused(evidence):
    with pytest.raises(InputError, match="raster"):
        run({"deeplab": FOUR}, evidence=evidence)


def test_models_that_are_none_are_refused_beside_rasters_too():
    with pytest.raises(InputError, match="no models to fuse"):
        fuse(None, sinks=None, color=None, ice=None, evidence=RASTERS)
    with pytest.raises(InputError, match="a frame of polygons is needed"):
        run({"deeplab": None}, evidence=RASTERS)


def test_values_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match="neck must lie in 0 to 1"):
        Lakescale(neck=2.0)
    with pytest.raises(InputError, match="sink_cover must not be negative"):
        Lakescale(sink_cover=-1.0)
    with pytest.raises(InputError, match="there is no reason 'rain'"):
        run({"index": FOUR.assign(reason="rain")})


def test_building_on_dask_frames_computes_nothing(never_compute):
    lazy = {name: cut(squares((0, 0)), 1) for name in ("deeplab", "index", "sinks", "color", "ice")}
    lakes, _ = run(lazy, evidence=RASTERS)
    assert lakes.npartitions == 2


@given(st.lists(shapes, max_size=5), st.sampled_from([0.1, 0.4]))
@settings(max_examples=40, deadline=None)
def test_bodies_lie_in_their_polygon_and_apart(polygons, neck):
    polygons = fill_lids(np.array([*polygons, shapely.Polygon()], object))
    assert (shapely.get_num_interior_rings(shapely.get_parts(polygons)) == 0).all()
    bodies, of = cut_necks(polygons, neck)
    for k in np.unique(of):
        mine = bodies[of == k]
        assert len(mine) > 1
        assert shapely.area(shapely.difference(shapely.union_all(mine), polygons[k])) < 1e-9
        assert all(one.distance(other) > 0 for one in mine for other in mine if one is not other)


@given(st.integers(1, 9), st.data())
def test_settling_equals_going_through_all_by_rank(count, data):
    pair = st.tuples(whole(0, count - 1), whole(0, count - 1)).filter(lambda p: p[0] != p[1])
    pairs = np.array(data.draw(st.lists(pair, max_size=20)) if count > 1 else [], np.int64).reshape(-1, 2)
    rank = np.array(data.draw(st.permutations(range(count))))
    taken, expected = [], np.full(count, -1)
    for one in np.argsort(rank):
        rivals = [k for k in taken if any(set(p) == {one, k} for p in pairs.tolist())]
        if rivals:
            expected[one] = rivals[0]
        else:
            taken.append(one)
    assert settle(pairs[:, 0], pairs[:, 1], rank).tolist() == expected.tolist()


def blueness(windows):
    """Stand in for a model: how blue 8-bit pixels are."""
    red, _, blue = np.moveaxis(windows, 1, 0)
    return np.clip(4 * (blue - red) / np.maximum(blue + red, 1), 0, 1)


def test_the_table_of_methods(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    methods = importlib.import_module("benchmarks.fusion_table")
    scores = methods.tabulate({8: methods.draw_case(8, 256, blueness)})
    assert list(scores) == ["color", "index", "model", "seed", "lakescale"]
    assert len({one.tp + one.fn for one in scores.values()}) == 1  # one truth for all
    assert scores["lakescale"].tp > 0
    table = methods.format_table(scores)
    assert table.count("\n") == 6
    assert f"| lakescale | {scores['lakescale'].f1:.3f} |" in table
    assert "| model |" not in methods.main(["--seeds", "1-2", "--size", "128"])
