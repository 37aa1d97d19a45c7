"""What `fuse` does with input that is not as it should be: a clear error or the right answer, and no polygon lost."""

from __future__ import annotations

import logging

import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import shapely.affinity
from hypothesis import given
from hypothesis import strategies as st

from lakescale.cluster import compute, open_cluster
from lakescale.fusion import PRESETS, REASONS, Seed, fuse
from lakescale.schema import InputError

NAMES = ["sam", "deeplab", "sinks", "color", "ice"]


def squares(*corners, side=10, crs=3413, **columns):
    geometry = [shapely.box(x, y, x + side, y + side) for x, y in corners]
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=crs)


def world(**changed):
    """Two lakes of the first model, the second of which has color only; one of the second model in a sink."""
    frames = {
        "sam": squares((0, 0), (40, 0)),
        "deeplab": squares((1, 1), (80, 0)),
        "sinks": squares((0, 0), (80, 0)),
        "color": squares((41, 0)),
        "ice": squares((-500, -500), side=1000),
    }
    return frames | changed


def run(frames, **options):
    models = {name: frames[name] for name in ("sam", "deeplab") if name in frames}
    rest = {name: frames[name] for name in ("sinks", "color", "ice")}
    return fuse(models, **rest, return_reasons=True, **({"preset": "seed"} | options))


def kept(frames):
    lakes, reasons = run(frames)
    assert len(reasons) == len(frames["sam"]) + len(frames["deeplab"])
    assert set(reasons["reason"]) <= set(REASONS)
    assert lakes.is_valid.all()
    return list(zip(lakes["model"], lakes["row"], strict=True))


WHOLE = [("sam", 0), ("sam", 1), ("deeplab", 1)]


def test_the_world_of_these_tests():
    assert kept(world()) == WHOLE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sam", [("deeplab", 0), ("deeplab", 1)]),  # it plays the first model then
        ("deeplab", WHOLE[:2]),
        ("sinks", [("sam", 1)]),
        ("color", [("sam", 0), ("deeplab", 1)]),
        ("ice", []),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_each_frame_without_rows_in_turn(name, expected, bare):
    empty = gpd.GeoDataFrame(geometry=[]) if bare else world()[name].iloc[:0]
    assert kept(world(**{name: empty})) == expected
    dated = {other: frame.assign(image="june", region_num=1) for other, frame in world().items()}
    assert kept(dated | {name: empty}) == expected


@pytest.mark.parametrize("name", NAMES)
def test_each_dask_frame_without_rows_in_turn(name):
    frames = world() | {name: world()[name].iloc[:0]}
    lazy = {key: dask_geopandas.from_geopandas(frame, npartitions=1) for key, frame in frames.items()}
    lakes, reasons = compute(*run(lazy))
    assert list(zip(lakes["model"], lakes["row"], strict=True)) == kept(frames)
    assert len(reasons) == len(frames["sam"]) + len(frames["deeplab"])


def test_nothing_at_all():
    empty = {name: gpd.GeoDataFrame(geometry=[]) for name in NAMES}
    lakes, reasons = run(empty)
    assert len(lakes) == len(reasons) == 0
    assert lakes.columns.tolist() == ["lake_id", "model", "row", "geometry"]


BOWTIE = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
RING_WITH_SPIKE = shapely.Polygon([(0, 0), (10, 0), (10, 10), (10, 30), (10, 10), (0, 10)])


@pytest.mark.parametrize("name", NAMES)
def test_invalid_rings_are_made_valid_counted_and_reported(name, caplog):
    changed = world()[name].copy()
    low, side = {"ice": (-500, 1000), "color": (41, 10)}.get(name, (0, 10))
    changed.loc[0, "geometry"] = shapely.affinity.scale(RING_WITH_SPIKE, side / 10, side / 10, origin=(0, 0))
    changed.loc[0, "geometry"] = shapely.affinity.translate(changed.geometry[0], low, min(low, 0))
    with caplog.at_level(logging.WARNING):
        assert kept(world(**{name: changed})) == WHOLE
    assert f"{name}: 1 made valid" in caplog.text
    _, reasons = run(world(**{name: changed}))
    assert (reasons["mended"] == "made valid").sum() == (name in ("sam", "deeplab"))


def test_a_bow_tie_is_the_two_triangles_that_it_covers():
    lakes, _ = run(world(sam=squares((0, 0)).set_geometry([BOWTIE], crs=3413)))
    assert lakes.geometry.iloc[0].area == 50
    assert lakes.geometry.iloc[0].geom_type == "MultiPolygon"


@pytest.mark.parametrize(
    "nothing",
    [None, shapely.Polygon(), shapely.Point(3, 3), shapely.LineString([(0, 0), (9, 9)]), shapely.GeometryCollection()],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_area_is_told_and_meets_nothing(name, nothing):
    frame = world()[name]
    more = gpd.GeoDataFrame(geometry=[*frame.geometry, nothing], crs=3413)
    assert kept(world(**{name: more})) == WHOLE
    _, reasons = run(world(**{name: more}))
    assert (reasons["reason"] == "no polygon with an area").sum() == (name in ("sam", "deeplab"))


def test_collapsed_rings_have_no_area():
    line = shapely.Polygon([(0, 0), (5, 5), (9, 9)])
    _, reasons = run(world(sam=squares((0, 0)).set_geometry([line], crs=3413)))
    assert reasons["reason"].tolist()[0] == "no polygon with an area"


def test_z_is_dropped_and_reported():
    high = world()["sam"].set_geometry(shapely.force_3d(world()["sam"].geometry.to_numpy(), 70.0), crs=3413)
    lakes, reasons = run(world(sam=high))
    assert kept(world(sam=high)) == WHOLE
    assert reasons["mended"].tolist() == ["z dropped", "z dropped", "", ""]
    assert not lakes.has_z.any()


def test_polygons_are_taken_out_of_collections():
    mixed = shapely.GeometryCollection([shapely.box(0, 0, 5, 10), shapely.Point(99, 99)])
    mixed = shapely.GeometryCollection([mixed, shapely.box(5, 0, 10, 10)])
    _, reasons = run(world(sam=squares((0, 0)).set_geometry([mixed], crs=3413)))
    assert reasons[["reason", "mended"]].iloc[0].tolist() == ["kept", "polygons taken out of a collection"]
    assert reasons.geometry.iloc[0].equals(shapely.box(0, 0, 10, 10))


def test_a_multipolygon_is_one_candidate():
    parts = shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(60, 60, 70, 70)])
    lakes, _ = run(world(sam=squares((0, 0)).set_geometry([parts], crs=3413)))
    assert lakes.geometry.iloc[0].area == 200


def test_rows_with_equal_ids_are_told_apart():
    doubled = world()["sam"]
    doubled.index = [7, 7]
    assert kept(world(sam=doubled)) == WHOLE


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_in_another_crs_is_brought_to_that_of_the_first_model(name):
    there = {key: frame.translate(-200_000, -2_200_000).to_frame("geometry") for key, frame in world().items()}
    assert kept(there) == WHOLE
    moved = there | {name: there[name].to_crs(32622)}
    assert kept(moved) == WHOLE
    lakes, _ = run(moved)
    assert lakes.crs == (32622 if name == "sam" else 3413)


@pytest.mark.parametrize("name", NAMES)
def test_one_frame_without_a_crs_is_refused(name):
    with pytest.raises(InputError, match="only other frames have a CRS") as caught:
        run(world(**{name: world()[name].set_crs(None, allow_override=True)}))
    assert name in str(caught.value)


def test_no_frame_with_a_crs_is_a_plane():
    assert kept({name: frame.set_crs(None, allow_override=True) for name, frame in world().items()}) == WHOLE


def test_areas_in_degrees_are_refused():
    degrees = {name: frame.set_crs(4326, allow_override=True) for name, frame in world().items()}
    with pytest.raises(InputError, match="areas in WGS 84 are not in m2"):
        run(degrees)


@pytest.mark.parametrize("key", ["image", "time", "region_num"])
def test_a_model_without_the_others_column_is_refused(key):
    with pytest.raises(InputError, match=f"other models have a column {key}, this one has none"):
        run(world(sam=world()["sam"].assign(**{key: 1})))


@pytest.mark.parametrize("key", ["image", "time"])
def test_color_without_a_date_is_refused_unless_dates_are_pooled(key):
    dated = {name: world()[name].assign(**{key: "june"}) for name in ("sam", "deeplab")}
    for frames in (world(**dated), world(color=world()["color"].assign(**{key: "june"}))):
        with pytest.raises(InputError, match="models are dated by"):
            run(frames)
        lakes, _ = run(frames, preset=Seed(pool_dates=True))
        assert len(lakes) == 3


def test_a_region_that_is_text_here_and_a_number_there_is_refused():
    frames = {name: frame.assign(region_num=1) for name, frame in world().items()}
    frames["sinks"] = frames["sinks"].assign(region_num="1")
    with pytest.raises(InputError, match="region_num is text here and a number in sam"):
        run(frames)


def test_whole_numbers_and_floats_are_the_same_regions_and_a_missing_region_is_one():
    frames = {name: frame.assign(region_num=1) for name, frame in world().items()}
    assert kept(frames | {"sinks": frames["sinks"].assign(region_num=1.0)}) == WHOLE
    unknown = {name: frame.assign(region_num=np.nan) for name, frame in world().items()}
    assert kept(unknown) == WHOLE
    assert run(unknown)[0]["region_num"].isna().all()


def test_times_of_another_unit_are_the_same_times():
    time = pd.Timestamp("2019-06-03")
    frames = {name: frame.assign(time=time.as_unit("s")) for name, frame in world().items()}
    frames["color"]["time"] = frames["color"]["time"].astype("datetime64[ns]")
    assert kept(frames) == WHOLE
    assert run(frames)[0]["time"].tolist() == [time] * 3


@pytest.mark.parametrize(
    "frame", [None, "lakes.gpkg", pd.DataFrame({"a": [1]}), gpd.GeoSeries([shapely.box(0, 0, 1, 1)], crs=3413)]
)
def test_what_is_no_frame_of_geometries_is_refused(frame):
    with pytest.raises(InputError, match="a frame of polygons is needed"):
        run(world(sam=frame))
    with pytest.raises(InputError, match="no active geometry"):
        run(world(ice=gpd.GeoDataFrame({"a": [1]})))


@pytest.mark.parametrize("models", [{}, None, [squares((0, 0))], {"ice": squares((0, 0))}, {1: squares((0, 0))}])
def test_models_that_are_no_named_frames_are_refused(models):
    with pytest.raises(InputError, match="models"):
        fuse(models, sinks=None, color=None, ice=None)


def test_presets_and_partitions_that_are_none_are_refused():
    with pytest.raises(InputError, match="there is no preset 'best'"):
        run(world(), preset="best")
    with pytest.raises(InputError, match="cannot be cut into 0 parts"):
        run(world(), partitions=0)
    with pytest.raises(InputError, match="by polygons, not by rasters"):
        run(world(), evidence={"probability": None})
    assert run(world(), preset="seed")[0].equals(run(world(), preset=PRESETS["seed"]())[0])


def test_a_column_that_the_preset_judges_by_must_be_there():
    class Deep(Seed):
        columns = {"sinks": ("depth_m",)}  # noqa: RUF012  (a constant)

        def judge(self, tables):
            assert tables.other_columns["sinks"]["depth_m"].tolist() == [3, 4]
            return super().judge(tables)

    with pytest.raises(InputError, match="a column depth_m, which is not there"):
        run(world(), preset=Deep())
    deep = world(sinks=world()["sinks"].assign(depth_m=[3, 4]))
    assert len(run(deep, preset=Deep(), partitions=2)[0]) == 3


def across_the_pole(crs):
    """A lake round the pole and one across the antimeridian, drawn in degrees, short edges."""
    pole = shapely.Polygon([(lon, 89.9) for lon in range(-180, 180, 30)])
    seam = shapely.Polygon([(179.9, 75.0), (-179.9, 75.0), (-179.9, 75.1), (179.9, 75.1)])
    return gpd.GeoDataFrame(geometry=[pole, seam], crs=4326).to_crs(crs)


def test_lakes_across_the_pole_and_the_antimeridian_are_whole_in_a_polar_crs():
    lakes = across_the_pole(3413)
    ice = gpd.GeoDataFrame(geometry=lakes.buffer(1000), crs=3413)
    frames = {"sam": lakes, "sinks": across_the_pole(4326), "color": lakes.iloc[:0], "ice": ice}
    _, reasons = run(frames)
    assert reasons["reason"].tolist() == ["kept", "kept"]
    assert reasons.area.to_numpy() == pytest.approx([3.7e8, 6e7], rel=0.1)


def test_in_mercator_they_are_refused():
    frames = world(sam=squares((0, 0), crs=3857), deeplab=squares((80, 0), crs=3857))
    with pytest.raises(InputError, match=r"crosses the antimeridian \[sam, row 1, index 1 \(one of 1\)\]"):
        run(frames | {"sam": across_the_pole(4326).to_crs(3857)})
    with pytest.raises(InputError, match="crosses the antimeridian"):
        run(frames | {"sinks": across_the_pole(4326).iloc[1:]})
    at_the_pole = gpd.GeoDataFrame(geometry=[shapely.Polygon([(0, 90), (9, 80), (18, 80)])], crs=4326)
    with pytest.raises(InputError, match="has no place in WGS 84 / Pseudo-Mercator"):
        run(frames | {"sinks": at_the_pole})
    wide = squares((-2e7, -2e7), side=4e7, crs=3857)
    assert len(run(frames | {"ice": wide, "sinks": squares((0, 0), crs=3857), "color": squares(crs=3857)})[0]) == 1


@pytest.mark.slow
def test_an_error_of_a_worker_says_which_row():
    bad = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1), shapely.box(0, 0, np.inf, 1)], crs=3413)
    lazy = world(sam=dask_geopandas.from_geopandas(bad, npartitions=1))
    with open_cluster("local", workers=1, dashboard="none"):
        lakes, _ = run(world(sam=dask_geopandas.from_geopandas(world()["sam"], npartitions=2)))
        assert len(compute(lakes)[0]) == 3
        with pytest.raises(InputError, match=r"no place .*\[sam, row 1, index 1 \(one of 1\)\]"):
            compute(run(lazy)[0])


messy = st.sampled_from(
    [
        None,
        BOWTIE,
        RING_WITH_SPIKE,
        shapely.Polygon(),
        shapely.Point(1, 1),
        shapely.force_3d(shapely.box(2, 2, 8, 9)),
        shapely.box(40, 0, 50, 9),
        shapely.box(3, 3, 9, 9),
        shapely.MultiPolygon([shapely.box(0, 0, 3, 3), shapely.box(5, 5, 9, 9)]),
        shapely.MultiPolygon([shapely.box(0, 0, 3, 3), shapely.box(2, 2, 9, 9)]),
    ]
)


@given(*(st.lists(messy, max_size=6) for _ in NAMES), st.integers(1, 4), st.sampled_from(sorted(PRESETS)))
def test_every_polygon_ends_with_one_reason(sam, deeplab, sinks, color, ice, partitions, preset):
    drawn = zip(NAMES, (sam, deeplab, sinks, color, ice), strict=True)
    frames = {name: gpd.GeoDataFrame(geometry=gpd.GeoSeries(rows, crs=3413)) for name, rows in drawn}
    lakes, reasons = run(frames, partitions=partitions, preset=preset)
    assert reasons["model"].tolist() == ["sam"] * len(sam) + ["deeplab"] * len(deeplab)
    assert reasons["row"].tolist() == [*range(len(sam)), *range(len(deeplab))]
    assert set(reasons["reason"]) <= set(REASONS)
    of_lakes = reasons[reasons["reason"] == "kept"]
    assert lakes["lake_id"].tolist() == list(range(1, len(lakes) + 1))
    origin = ["model", "row"]  # lakescale may cut a polygon to several lakes
    assert of_lakes[origin].to_numpy().tolist() == lakes[origin].drop_duplicates().to_numpy().tolist()
    assert preset != "seed" or len(of_lakes) == len(lakes)
    assert reasons["lake_id"].notna().sum() == len(of_lakes)
    assert lakes.is_valid.all()
