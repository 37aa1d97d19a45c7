"""The Cup's answer: what is written, and which region a lake belongs to."""

from __future__ import annotations

import logging

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from plain_scoring import lattice_frames

from lakescale.schema import InputError, RunError
from lakescale.scoring import score
from pipelines import run_folder
from pipelines.cup import assign_regions, read_regions, write_cup_answer

IMAGE = "Greenland26X_22W_Sentinel2_2019-06-03_05.tif"


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

    monkeypatch.setattr(run_folder, "_sync", full)
    with pytest.raises(RunError, match="no space left on the disk"):
        write_cup_answer(LAKES, REGIONS, IMAGE, tmp_path / "answer.gpkg")
    assert not list(tmp_path.iterdir())
