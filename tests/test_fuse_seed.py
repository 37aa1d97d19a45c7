"""`fuse` with the seed's method against a slow plain loop, and the same from any partitions."""

from __future__ import annotations

import logging

import dask
import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_fusion import plain_fuse

from lakescale.fusion import REASONS, Seed, fuse
from lakescale.schema import InputError

FATES = {
    "kept": "kept",
    "off the ice": "not on the ice",
    "no polygon": "not one Polygon",
    "no evidence": "overlaps neither sink nor color",
    "set aside": "another polygon keeps its sink",
    "replaced": "replaced by a model of higher precedence",
    "no fit": "fits no sink or color polygon that it overlaps",
}
OPTIONS = ["pool_dates", "clip_revived", "touching", "polygons_only"]
KINDS = {"image": "str", "region_num": "int64"}


def run(frames, *, method=None, **options):
    sam, deeplab, *evidence = frames
    evidence = dict(zip(("sinks", "color", "ice"), evidence, strict=True))
    models = {"sam": sam, "deeplab": deeplab}
    return fuse(models, **evidence, preset=method or Seed(), return_reasons=True, **options)


def told(lakes):
    return [
        (model, row, shapely.normalize(outline).wkb)
        for model, row, outline in zip(lakes["model"], lakes["row"], lakes.geometry, strict=True)
    ]


def assert_equals_plain(frames, **options):
    lakes, reasons = run(frames, method=Seed(**options))
    expected, fates = plain_fuse(*frames, **options)
    assert reasons["reason"].tolist() == [FATES[fate] for fate in fates]
    assert told(lakes) == [(model, row, shapely.normalize(outline).wkb) for model, row, outline in expected]
    assert lakes["lake_id"].tolist() == list(range(1, len(lakes) + 1))
    return lakes, reasons


boxes = st.builds(
    lambda x, y, w, h: shapely.box(x, y, x + w, y + h),
    *(st.integers(0, 9), st.integers(0, 9), st.integers(1, 4), st.integers(1, 4)),
)
triangles = st.builds(
    lambda x, y, w, h: shapely.Polygon([(x, y), (x + w, y), (x, y + h)]),
    *(st.integers(0, 9), st.integers(0, 9), st.integers(1, 4), st.integers(1, 4)),
)
far = st.builds(lambda x, y: shapely.box(x, y, x + 1, y + 2), st.integers(0, 7), st.integers(20, 24))
both = st.builds(lambda *parts: shapely.MultiPolygon(parts), boxes, far)
shapes = boxes | boxes | triangles | both


@st.composite
def frame_of(draw, *columns, least=0, most=8):
    """Shapes on a coarse lattice that touch, nest and tie; some of two parts; two images, two regions."""
    values = {"image": st.sampled_from("ab"), "region_num": st.integers(1, 2)}
    rows = draw(st.lists(st.tuples(shapes, *(values[column] for column in columns)), min_size=least, max_size=most))
    table = {column: [row[k + 1] for row in rows] for k, column in enumerate(columns)}
    index = range(draw(st.integers(0, 30)), 99)[: len(rows)]
    frame = gpd.GeoDataFrame(table, geometry=[row[0] for row in rows], crs=3413, index=index)
    return frame.astype({column: KINDS[column] for column in columns})


dated = frame_of("image", "region_num")
worlds = st.tuples(
    dated,
    dated,
    frame_of("region_num", most=6) | frame_of(most=6),
    dated,
    frame_of("region_num", most=6) | st.just(gpd.GeoDataFrame(geometry=[shapely.box(-9, 2, 11, 99)], crs=3413)),
)


@settings(max_examples=150)
@given(worlds, st.fixed_dictionaries({option: st.booleans() for option in OPTIONS}))
def test_equals_a_plain_loop(frames, options):
    assert_equals_plain(frames)
    assert_equals_plain(frames, **options)


def cut(frame, partitions):
    return dask_geopandas.from_geopandas(frame, npartitions=partitions, sort=False)


def assert_same(found, expected):
    for frame, other in zip(found, expected, strict=True):
        assert frame.columns.tolist() == other.columns.tolist()
        numbers = [column for column in frame.columns if column not in ("image", "geometry")]  # dask has other strings
        assert frame[numbers].dtypes.tolist() == other[numbers].dtypes.tolist()
        tables = (pd.DataFrame(one.drop(columns="geometry")).astype(object) for one in (frame, other))
        pd.testing.assert_frame_equal(*tables)
        assert frame.geometry.to_wkb().tolist() == other.geometry.to_wkb().tolist()
        assert frame.crs == other.crs


@settings(max_examples=40)
@given(worlds, st.integers(2, 9), st.booleans())
def test_any_cut_of_frames_in_memory_gives_the_same_lakes(frames, partitions, clip_revived):
    method = Seed(clip_revived=clip_revived)
    assert_same(run(frames, method=method, partitions=partitions), run(frames, method=method))


@settings(max_examples=25)
@given(worlds, st.lists(st.integers(1, 5), min_size=5, max_size=5), st.booleans(), st.integers(0, 31))
def test_any_partitions_of_dask_frames_give_the_same_lakes(frames, partitions, known, lazy):
    mixed = [
        cut(frame, count) if lazy >> k & 1 or k == 0 else frame
        for k, (frame, count) in enumerate(zip(frames, partitions, strict=True))
    ]
    for frame in mixed:
        if known and not isinstance(frame, gpd.GeoDataFrame):
            frame.calculate_spatial_partitions()
    found = dask.compute(*run(mixed), scheduler="synchronous")
    found = [frame.reset_index(drop=True) for frame in found]
    assert_same(found, run(frames))


def competitor_frames(data_dir):
    """Lakes of another team as the first model; copies of them, shifted, grown and thinned, as all others."""
    lakes = gpd.read_file(data_dir / "vector" / "competitor_lake_polygons.gpkg")[["image", "region_num", "geometry"]]

    def copy(rows, x, y, grow):
        frame = lakes.iloc[rows].reset_index(drop=True)
        return frame.set_geometry(frame.translate(x, y).buffer(grow, join_style="mitre").buffer(0))

    deeplab = copy(slice(None, None, 2), 400, -250, 30)
    color = copy(slice(1, None, 3), -60, 90, 45)
    sinks = pd.concat([copy(slice(None, None, 3), 900, 300, 500), copy(slice(2, None, 5), 0, 0, -40)])
    sinks = sinks[~sinks.is_empty].drop(columns="image").reset_index(drop=True)
    ice = gpd.GeoDataFrame(geometry=lakes.iloc[::2].buffer(20_000).simplify(500).to_numpy(), crs=lakes.crs)
    doubled = pd.concat([lakes, copy(slice(None, None, 4), 150, 80, 10)], ignore_index=True)
    first = doubled[~((doubled["region_num"] == 2) & (doubled.index % 2 == 0))].reset_index(drop=True)
    first = first[first["region_num"] != 3].reset_index(drop=True)  # the second model plays the first there
    return [first, deeplab, sinks, color, ice]


@pytest.mark.slow
@pytest.mark.parametrize("pool_dates", [False, True])
def test_equals_a_plain_loop_on_the_lakes_of_another_team(data_dir, pool_dates):
    frames = competitor_frames(data_dir)
    _, reasons = assert_equals_plain(frames, pool_dates=pool_dates)
    assert set(reasons["reason"]) == set(FATES.values()) - {"not one Polygon"}


def test_fifty_partitions_of_the_lakes_of_another_team_give_the_same_lakes(data_dir):
    frames = competitor_frames(data_dir)
    expected = run(frames)
    assert len(expected[0]) > 1000
    assert_same(run(frames, partitions=50), expected)
    lazy = [cut(frame, 50 if len(frame) > 50 else 1) for frame in frames]
    for frame in lazy:
        frame.calculate_spatial_partitions()
    assert_same([f.reset_index(drop=True) for f in dask.compute(*run(lazy))], expected)


def squares(*corners, side=10, **columns):
    geometry = [shapely.box(x, y, x + side, y + side) for x, y in corners]
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=3413)


EVERYWHERE = squares((-1000, -1000), side=4000)
NOTHING = squares()


def test_color_of_another_date_is_no_evidence_unless_dates_are_pooled():
    sam = squares((0, 0), (0, 0), image=["june", "july"])
    color = squares((2, 0), image=["july"])
    frames = [sam, NOTHING, NOTHING, color, EVERYWHERE]
    assert run(frames)[1]["reason"].tolist() == ["overlaps neither sink nor color", "kept"]
    assert run(frames, method=Seed(pool_dates=True))[1]["reason"].tolist() == ["kept", "kept"]


def test_what_comes_back_is_itself_once_unless_it_is_clipped():
    sam = squares((0, 0), (6, 0))
    sinks = squares((4, 0), (4, 3), side=5)
    color = pd.concat([squares((6, 0), side=9), squares((0, 0), side=10)], ignore_index=True)
    frames = [sam, NOTHING, sinks, color, EVERYWHERE]
    lakes, reasons = run(frames)
    assert lakes["row"].tolist() == [0, 1]
    assert reasons[["by", "by_row"]].to_numpy().tolist()[1] == ["color", 0]
    lakes, reasons = run(frames, method=Seed(clip_revived=True))
    assert lakes["row"].tolist() == [0, 1, 1]
    assert lakes.area.tolist() == [100, 15, 15]
    assert reasons["lake_id"].tolist() == [1, 2]


def test_touching_is_no_overlap_unless_asked_for():
    frames = [squares((0, 0)), NOTHING, squares((10, 0)), NOTHING, EVERYWHERE]
    assert not len(run(frames)[0])
    assert len(run(frames, method=Seed(touching=True))[0]) == 1


def test_a_lake_of_two_parts_is_a_lake_unless_only_polygons_are():
    sam = squares((0, 0)).set_geometry([shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)])])
    frames = [sam, NOTHING, squares((0, 0)), NOTHING, EVERYWHERE]
    assert len(run(frames)[0]) == 1
    assert run(frames, method=Seed(polygons_only=True))[1]["reason"].tolist() == ["not one Polygon"]


@pytest.mark.parametrize(("width", "kept"), [(7, 0), (7.01, 1), (13.99, 1), (14, 0)])
@pytest.mark.parametrize("scale", [1, 3, 9, 0.5])
def test_areas_must_lie_strictly_between_their_limits(width, kept, scale):
    deeplab = NOTHING.reindex([0]).set_geometry([shapely.box(0, 0, width * scale, 10)], crs=3413)
    sinks = NOTHING.reindex([0]).set_geometry([shapely.box(0, 0, 10 * scale, 10)], crs=3413)
    sam = squares((100, 100))
    assert len(run([sam, deeplab, sinks, NOTHING, EVERYWHERE])[0]) == kept


def test_reasons_name_what_decided():
    sam = squares((0, 0), (5, 0), (60, 0))
    deeplab = squares((2, 0), (62, 0), (100, 0), (200, 0), (300, 0))
    sinks = pd.concat([squares((0, 0), side=12), squares((100, 0))], ignore_index=True)
    color = pd.concat([squares((11, 0), side=4), squares((199, 0)), squares((55, 0), side=30)], ignore_index=True)
    lakes, reasons = run([sam, deeplab, sinks, color, EVERYWHERE])
    assert reasons[["model", "row", "reason", "by"]].to_numpy().tolist() == [
        ["sam", 0, "another polygon keeps its sink", "sam"],
        ["sam", 1, "kept", ""],
        ["sam", 2, "kept", ""],
        ["deeplab", 0, "replaced by a model of higher precedence", "sam"],
        ["deeplab", 1, "replaced by a model of higher precedence", "sam"],
        ["deeplab", 2, "kept", "sinks"],
        ["deeplab", 3, "kept", "color"],
        ["deeplab", 4, "fits no sink or color polygon that it overlaps", ""],
    ]
    assert reasons["by_row"].fillna(-1).tolist() == [1, -1, -1, 0, 2, 1, 1, -1]
    assert reasons["lake_id"].fillna(0).tolist() == [0, 1, 2, 0, 0, 3, 4, 0]
    assert lakes["lake_id"].tolist() == [1, 2, 3, 4]
    assert set(reasons["reason"]) <= set(REASONS)


def test_what_is_not_judged_for_want_of_evidence_is_said(caplog):
    sam, deeplab = squares((0, 0), (5, 0)), squares((100, 0))
    with caplog.at_level(logging.WARNING):
        _, reasons = run([sam, deeplab, None, None, None])
    assert reasons["reason"].tolist() == ["kept", "kept", "fits no sink or color polygon that it overlaps"]
    assert "neither sinks nor color" in caplog.text
    assert "no ice" in caplog.text
    _, reasons = run([sam, deeplab, squares((5, 0)), None, None])
    assert reasons["reason"].tolist()[:2] == ["kept", "kept"]  # one sink, no color to choose by
    _, reasons = run([sam, deeplab, None, squares((12, 0)), EVERYWHERE])
    assert reasons["reason"].tolist()[:2] == ["overlaps neither sink nor color", "kept"]


def test_building_on_dask_frames_computes_nothing(never_compute):
    frames = [cut(frame, 1) for frame in (*[squares((0, 0))] * 4, EVERYWHERE)]
    lakes, reasons = run(frames)
    assert lakes.npartitions == 2
    assert lakes.columns.tolist() == ["lake_id", "model", "row", "geometry"]
    names = {key[0] for key in reasons.__dask_graph__() if isinstance(key, tuple)}
    assert {"fuse-read", "fuse-tell", "fuse-meet", "fuse-pick", "fuse"} <= {name.rsplit("-", 1)[0] for name in names}
    again = {key[0] for key in run(frames)[1].__dask_graph__() if isinstance(key, tuple)}
    assert {name for name in names if "fuse-meet" in name} <= again  # the same work has the same keys


def test_partitions_that_lie_apart_do_not_meet():
    many = squares(*[(40 * k, 0) for k in range(40)])
    lazy = [cut(many, 10) for _ in range(5)]
    for frame in lazy:
        frame.calculate_spatial_partitions()
    meetings = [key for key in run(lazy)[0].__dask_graph__() if "fuse-meet" in str(key[0])]
    assert len(meetings) == 10 * 7


def test_a_second_date_does_not_change_the_first():
    sam, color = squares((0, 0), (5, 0), image=["a", "a"]), squares((5, 0), image=["a"])
    one = [sam, NOTHING, squares((3, 0)), color, EVERYWHERE]
    two = [pd.concat([frame, frame.assign(image="b")]) if "image" in frame else frame for frame in one]
    _, alone = run(one)
    _, both = run(two)
    assert both["reason"].tolist() == 2 * alone["reason"].tolist()


def test_a_third_model_is_refused():
    models = dict.fromkeys(("sam", "deeplab", "unet"), squares((0, 0)))
    with pytest.raises(InputError, match="at most 2 models"):
        fuse(models, sinks=None, color=None, ice=None, preset="seed")


def test_sums_are_taken_in_row_order():
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1: the plain loop's order decides who keeps the sink."""
    side = np.sqrt([0.1, 0.2, 0.3])
    parts = [shapely.box(20 * k, 0, 20 * k + s, s) for k, s in enumerate(side)]
    strip = shapely.box(-1, -1, 60, 1)
    sam = gpd.GeoDataFrame(geometry=[strip, shapely.box(-2, -1, 60, 1)], crs=3413)
    color = gpd.GeoDataFrame(geometry=parts, crs=3413)
    frames = [sam, NOTHING, gpd.GeoDataFrame(geometry=[strip], crs=3413), color, EVERYWHERE]
    assert_equals_plain(frames)
    assert_equals_plain([*frames[:3], color.iloc[::-1], EVERYWHERE])
