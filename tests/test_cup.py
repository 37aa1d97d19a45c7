"""The Cup's answer: what is written, and which region a lake belongs to."""

from __future__ import annotations

import json
import logging

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from map_scenes import lakescale, recipe, rgb_with_lakes, write_scene
from plain_scoring import lattice_frames

from lakescale.schema import InputError, RunError
from lakescale.scoring import score
from pipelines.cup import assign_regions, read_regions, write_cup_answer
from pipelines.map_lakes import map_lakes

IMAGE = "Greenland26X_22W_Sentinel2_2019-06-03_05.tif"


ANSWER = "lake_polygons_test.gpkg"


def frame(*boxes, crs=3857, **columns):
    return gpd.GeoDataFrame(columns, geometry=[shapely.box(*box) for box in boxes], crs=crs)


REGIONS = frame((0, 0, 100, 100), (100, 0, 200, 100), region_num=[3, 5])
LAKES = frame(
    (10, 10, 20, 20), (95, 10, 120, 20), (80, 40, 105, 50), (500, 0, 510, 10), (90, 60, 110, 70), (190, 0, 300, 9)
)


@pytest.fixture(scope="module")
def regions_file(data_dir):
    return data_dir / "vector" / "lakes_regions.gpkg"


def test_a_lake_goes_whole_to_the_region_that_has_most_of_it(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "pipelines"):
        answer = write_cup_answer(LAKES, REGIONS, IMAGE, tmp_path / "lake_polygons_test.gpkg")
    assert pyogrio.list_layers(tmp_path / "lake_polygons_test.gpkg").tolist() == [["lake_polygons_test", "Polygon"]]
    written = gpd.read_file(tmp_path / "lake_polygons_test.gpkg")
    assert written.columns.tolist() == ["image", "region_num", "geometry"]
    assert written.crs == "EPSG:3857"
    assert written.region_num.tolist() == [3, 5, 3, 3, 5]  # in a draw the first
    assert written.region_num.dtype.kind == "i"
    assert written.image.tolist() == [IMAGE] * 5
    assert written.geom_equals(LAKES.geometry.drop(3).reset_index(drop=True)).all()
    assert answer.outside == 1
    assert answer.polygons.geom_equals(written.geometry).all()
    assert "lakes: 1 in no region" in caplog.text


@given(data=st.data())
def test_regions_are_those_of_a_plain_loop(data):
    (lakes, own), (regions, areas) = (data.draw(lattice_frames(grouped=False)) for _ in range(2))
    numbers = data.draw(st.lists(st.integers(1, 3), min_size=len(regions), max_size=len(regions)))
    if not numbers:
        return
    found = assign_regions(lakes, regions.assign(region_num=numbers))
    assert found.index.equals(lakes.index)
    expected = []
    for lake in own:
        shared = {}
        for number, area in zip(numbers, areas, strict=True):
            shared[number] = shared.get(number, 0) + lake.shares(area)
        best = max(shared, key=shared.get)  # the first of equals
        expected.append(best if shared[best] > 0 else None)
    assert [None if pd.isna(number) else number for number in found] == expected


def test_lakes_of_a_run_and_the_cups_regions(regions_file, tmp_path):
    centres = read_regions(regions_file).set_index("region_num").representative_point()
    lakes = gpd.GeoDataFrame(geometry=centres.buffer(2000).rename(None).reset_index(drop=True)).to_crs(3413)
    answer = write_cup_answer(lakes.assign(lake_id=range(6)), regions_file, IMAGE, tmp_path / "answer.gpkg")
    assert answer.polygons.region_num.tolist() == centres.index.tolist()
    assert answer.outside == 0
    written = gpd.read_file(tmp_path / "answer.gpkg")
    assert score(written, written).f1 == 1
    assert np.allclose(written.area, np.pi * 2000**2, rtol=0.01)


def test_the_competitors_lakes_lie_where_they_say(regions_file, data_dir, tmp_path):
    theirs = gpd.read_file(data_dir / "vector" / "competitor_lake_polygons.gpkg")
    found = assign_regions(theirs, read_regions(regions_file))
    assert (found == theirs.region_num).mean() > 0.99
    answer = write_cup_answer(theirs, regions_file, IMAGE, tmp_path / "answer.gpkg")
    assert len(answer.polygons) + answer.outside == len(theirs)
    assert pyogrio.list_layers(tmp_path / "answer.gpkg")[0, 1] == "Unknown"  # one of theirs has two parts


@pytest.mark.parametrize("some", [LAKES[:0], LAKES[3:4]])
def test_no_lakes_make_an_empty_layer(some, tmp_path):
    answer = write_cup_answer(some, REGIONS, IMAGE, tmp_path / "answer.gpkg")
    written = gpd.read_file(tmp_path / "answer.gpkg")
    assert len(answer.polygons) == len(written) == 0
    assert {"image", "region_num"} <= set(written)
    assert answer.outside == len(some)
    assert written.crs == "EPSG:3857"


def test_regions_need_numbers(tmp_path):
    for regions, message in (
        (REGIONS.drop(columns="region_num"), r"regions need a column region_num \(geometry\) \[.*regions.gpkg\]"),
        (REGIONS.assign(region_num=["a", "b"]), "region_num must be whole numbers, found"),
        (REGIONS.assign(region_num=[1.5, 2]), "region_num must be whole numbers, found"),
        (REGIONS.assign(region_num=[1, None]), "region_num must be whole numbers, found"),
    ):
        regions.to_file(tmp_path / "regions.gpkg")
        with pytest.raises(InputError, match=message):
            write_cup_answer(LAKES, tmp_path / "regions.gpkg", IMAGE, tmp_path / "answer.gpkg")
        with pytest.raises(InputError, match=message.split("[")[0].strip("\\ ")):
            assign_regions(LAKES, regions)
    with pytest.raises(InputError, match=r"there is no such file for the regions \[.*gone.gpkg\]"):
        write_cup_answer(LAKES, tmp_path / "gone.gpkg", IMAGE, tmp_path / "answer.gpkg")
    with pytest.raises(InputError, match=r"only the other frame has a CRS \[lakes\]"):
        write_cup_answer(LAKES.set_crs(None, allow_override=True), REGIONS, IMAGE, tmp_path / "answer.gpkg")
    assert not (tmp_path / "answer.gpkg").exists()
    assert assign_regions(LAKES, REGIONS.assign(region_num=["3", "5"])).dropna().tolist() == [3, 5, 3, 3, 5]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lakescale.storage.files.sync", full)
    with pytest.raises(RunError, match="no space left on the disk"):
        write_cup_answer(LAKES, REGIONS, IMAGE, tmp_path / "answer.gpkg")
    assert not list(tmp_path.iterdir())


# -- the answer of a run


def on_ground(*boxes):
    """Boxes on the ground of the small scene: rows and columns of its pixels (from, to)."""
    places = [
        (600_000 + 10 * left, 7_430_000 - 10 * bottom, 600_000 + 10 * right, 7_430_000 - 10 * top)
        for top, bottom, left, right in boxes
    ]
    return frame(*places, crs=32622).segmentize(100).to_crs(3857).to_frame("geometry")


@pytest.fixture
def regions(tmp_path):
    """The first lake in region 5 (with most of it) and 2, the second in none."""
    drawn = on_ground((0, 90, 0, 50), (0, 90, 50, 95)).assign(region_num=[5, 2])
    drawn.to_file(tmp_path / "regions.gpkg")
    return tmp_path / "regions.gpkg"


def test_a_run_writes_the_cups_answer(small_scene, regions, tmp_path):
    asked = {"scene": small_scene, "out": tmp_path / "RUN", "scene__chunks": 128}
    result = map_lakes(recipe(**asked, cup_regions=str(regions)))
    assert len(result.lakes) == 2
    assert pyogrio.list_layers(tmp_path / "RUN" / ANSWER).tolist() == [["lake_polygons_test", "Polygon"]]
    written = gpd.read_file(tmp_path / "RUN" / ANSWER)
    assert written.columns.tolist() == ["image", "region_num", "geometry"]
    assert written.crs == "EPSG:3857"
    assert (written.image.tolist(), written.region_num.tolist()) == (["S2_small_20190723.tif"], [5])
    first = result.lakes.geometry.iloc[:1].to_crs(3857)
    assert shapely.equals_exact(written.geometry.iloc[0], first.iloc[0], tolerance=1e-6, normalize=True)
    said = "cup: 1 lake of 1 region in lake_polygons_test.gpkg; left out, in no region: 1"
    assert said in result.notes
    assert said in (tmp_path / "RUN/manifest.json").read_text()
    map_lakes(recipe(**asked, cup_regions=str(regions), image="mosaic.tif"))  # of the same lakes
    assert gpd.read_file(tmp_path / "RUN" / ANSWER).image.tolist() == ["mosaic.tif"]
    map_lakes(recipe(**asked))
    assert not (tmp_path / "RUN" / ANSWER).exists()


def test_regions_that_cannot_serve_are_refused_before_anything_is_computed(
    small_scene, regions, tmp_path, never_compute
):
    drawn = gpd.read_file(regions)
    for name, wrong in {
        "bare": drawn.drop(columns="region_num"),
        "far": drawn.set_crs(3413, allow_override=True),
        "degrees": drawn.set_geometry(shapely.box([-50, -40], [-70, 60], [-40, -30], [-60, 70]), crs=4326),
        "lines": drawn.set_geometry(drawn.boundary),
    }.items():
        wrong.to_file(tmp_path / f"{name}.gpkg")
    drawn.set_crs(None, allow_override=True).to_parquet(tmp_path / "placeless.parquet")
    for path, message in (
        ("gone.gpkg", r"there is no such file for the regions \[.*gone.gpkg\]"),
        ("bare.gpkg", r"regions need a column region_num \(geometry\) \[.*bare.gpkg\]"),
        ("far.gpkg", r"none of the regions overlaps the scene \[.*far.gpkg\]"),
        ("degrees.gpkg", r"both hemispheres \[.*degrees.gpkg: reference\]"),
        ("lines.gpkg", r"only polygons have an area, found .*LineString \[.*lines.gpkg: reference, row 0"),
        ("placeless.parquet", r"the regions have no CRS \[.*placeless.parquet\]"),
    ):
        with pytest.raises(InputError, match=message):
            map_lakes(recipe(small_scene, tmp_path / "RUN", cup_regions=str(tmp_path / path)))
    with pytest.raises(InputError, match="needs cup_regions"):
        recipe(small_scene, tmp_path / "RUN", image="mosaic.tif")
    assert not (tmp_path / "RUN").exists()


def test_an_image_of_several_files_must_be_named(regions, tmp_path, never_compute):
    rgb = rgb_with_lakes()
    for name, band in zip(("B02", "B03", "B04"), rgb[::-1], strict=True):
        write_scene(tmp_path / f"S2_20190723_{name}.tif", band[None])
    with pytest.raises(InputError, match=r"not one file, so its image has no name \[S2_.*B02.*, .*--image"):
        map_lakes(recipe(tmp_path / "S2_*.tif", tmp_path / "RUN", scene__scale=1e-4, cup_regions=str(regions)))


@pytest.mark.slow
def test_the_commands_map_for_the_cup_and_score_the_answer(small_scene, regions, tmp_path):
    image = ("--image", "mosaic.tif")
    done = lakescale(
        "map", "--scene", small_scene, "--out", tmp_path / "RUN", "--evidence", "index", "--fuse", "seed",
        "--model", "none", "--cup-regions", regions, *image, "--cluster", "threads", "--workers", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cup: 1 lake of 1 region" in done.stdout
    assert "fused by seed: lakes 2 of index; sinks not known, color not known, ice not known" in done.stdout
    assert "only the first model's polygons are kept" in done.stderr
    on_ground((20, 60, 20, 60), (22, 30, 70, 80)).to_file(tmp_path / "truth.gpkg")
    scored = lakescale(
        "score", tmp_path / "RUN" / ANSWER, tmp_path / "truth.gpkg", "--regions", regions, *image,
        "--out", tmp_path / "SCORE",
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    told = json.loads((tmp_path / "SCORE/score.json").read_text())
    assert [told[name] for name in ("tp", "fp", "fn")] == [1, 0, 1]
    assert {(one["image"], one["region_num"], one["tp"]) for one in told["groups"]} == {
        ("mosaic.tif", 5, 1), ("mosaic.tif", 2, 0),
    }  # fmt: skip
