"""The main job: the real scene, any cluster, any chunks, and what happens when something is wrong."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from map_scenes import FILES, as_set, lakescale, recipe, rgb_with_lakes, write_areas, write_scene
from matplotlib.image import imread
from schedulers import dask_command, scheduler_process

from lakescale.schema import KEPT
from pipelines.map_lakes import map_lakes, plan


@pytest.fixture
def real_scene(data_dir):
    return data_dir / "scenes" / "22WEV_2019-07-23"


@pytest.mark.slow
def test_the_command_maps_the_real_scene(real_scene, tmp_path):
    done = lakescale("map", "--scene", real_scene, "--out", tmp_path / "RUN")
    assert done.returncode == 0, done.stderr
    own = {"candidates_lakes_small.parquet", "candidates_index.parquet"}
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == FILES | own
    for told in (
        "date 2019-07-23: the date in the name",
        "truecolor.png",
        "color: no evidence, the scene has no green",
        "cloud not assessed",
    ):
        assert done.stdout.count(told) == 1
    assert "Dask dashboard: http://127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr
    lakes = gpd.read_parquet(tmp_path / "RUN" / "lakes.parquet")
    # the blob of NDWI_ice > 0.25 that the data's README measures, 0.645 km2, and the model's word on it
    largest = np.sort(lakes.area_m2)[::-1] / 1e6
    assert largest[0] == pytest.approx(1.06, abs=0.1)
    assert 10 <= len(lakes) <= 16


@pytest.mark.slow
def test_the_index_alone_finds_the_blobs_that_were_measured(real_scene, tmp_path):
    """Of the data's README, holes filled: 0.645 grows by its two ice floes."""
    lakes = map_lakes(recipe(real_scene, tmp_path / "RUN", rules__gap_m=0)).lakes
    largest = np.sort(lakes.area_m2)[::-1][:6] / 1e6
    np.testing.assert_allclose(largest[[0, 2, 3, 4]], [0.649, 0.117, 0.097, 0.042], atol=0.0015)
    assert largest[1] == pytest.approx(0.326, abs=0.0015)
    assert (np.abs(lakes.area_m2 / 1e6 - 0.034) < 0.0006).any()


def test_the_real_scenes_lakes_cover_its_water_pixel_by_pixel(real_scene, tmp_path):
    result = map_lakes(
        recipe(
            real_scene,
            tmp_path / "RUN",
            rules__gap_m=0,
            rules__fill_holes=False,
            rules__min_area_m2=0,
            rules__neck_px=0,
        )
    )
    blue, red = (
        rasterio.open(next(real_scene.glob(f"*_{band}_*.tif"))).read(1).astype(np.float64) for band in ("B02", "B04")
    )
    with np.errstate(invalid="ignore"):
        expected = (blue - red) / (blue + red) > 0.25
    water = result.candidates[result.candidates.reason.isin([KEPT, "stream"])]
    burnt = rasterio.features.rasterize(
        water.geometry, blue.shape, transform=rasterio.open(next(real_scene.glob("*_B02_*.tif"))).transform
    )
    np.testing.assert_array_equal(burnt > 0, expected)


@pytest.mark.slow
def test_processes_threads_and_a_running_scheduler_give_the_same_lakes_in_any_chunks(real_scene, tmp_path):
    whole = map_lakes(recipe(real_scene, tmp_path / "whole"))
    expected = as_set(whole.lakes), as_set(whole.candidates)
    common = "--host", "127.0.0.1", "--nthreads", "1", "--nworkers", "1", "--no-dashboard"
    with (
        scheduler_process(tmp_path) as address,
        dask_command(tmp_path, "worker", address, *common),
        dask_command(tmp_path, "worker", address, *common),
    ):
        for name, options in {
            "threads": {"scene__chunks": 333},
            "processes": {"cluster__kind": "local", "cluster__workers": 2, "scene__chunks": 256},
            "scheduler": {"cluster__kind": address, "cluster__dashboard": None, "scene__chunks": 411},
        }.items():
            result = map_lakes(recipe(real_scene, tmp_path / name, **options))
            assert (as_set(result.lakes), as_set(result.candidates)) == expected, name
            stored = gpd.read_parquet(tmp_path / name / "lakes.parquet")
            assert as_set(stored) == expected[0]


def test_color_lakes_with_reasons_on_8_bit_rgb(small_scene, tmp_path):
    result = map_lakes(recipe(small_scene, tmp_path / "RUN", scene__chunks=64))
    assert len(result.lakes) == 2
    assert sorted(result.lakes.lake_id) == [1, 2]
    assert sorted(result.candidates.reason) == [KEPT, KEPT, "stream"]
    assert result.lakes.area_m2.tolist() == pytest.approx([160_000, 360_000], rel=0.01)
    assert result.lakes.color_share.tolist() == pytest.approx([1, 1], abs=0.01)
    assert (result.lakes.seen_share == 1).all()
    assert str(result.lakes.time.iloc[0])[:10] == "2019-07-23"
    picture = imread(tmp_path / "RUN" / "quicklook.png")
    assert min(picture.shape[:2]) > 500
    assert picture[..., :3].std() > 0.1
    for layer, count in (("lakes", 2), ("dropped", 1)):
        assert len(gpd.read_file(tmp_path / "RUN" / "lakes.gpkg", layer=layer)) == count
    manifest = json.loads((tmp_path / "RUN" / "manifest.json").read_text())
    assert manifest["state"] == "finished"
    assert manifest["candidates"] == {"kept": 2, "stream": 1}


def test_a_lake_at_the_edge_of_the_data_says_that_not_all_was_seen(tmp_path):
    rgb = rgb_with_lakes()
    rgb[:, :, 140:] = 0
    scene = write_scene(tmp_path / "cut_20190723.tif", rgb)
    lakes = map_lakes(recipe(scene, tmp_path / "RUN")).lakes
    assert lakes.seen_share.tolist()[0] == 1
    assert lakes.seen_share.tolist()[1] < 0.85


LEFT = (599_000, 7_429_000, 600_800, 7_431_000)  # holds the first lake only
LAKE_2 = (601_200, 7_428_500, 601_210, 7_428_510)


def test_ice_area_of_interest_and_excludes_decide_with_a_reason(small_scene, tmp_path):
    left = write_areas(tmp_path / "left.gpkg", LEFT)
    lonlat = gpd.read_file(left).segmentize(50).to_crs(4326)
    lonlat.to_file(tmp_path / "left.geojson")
    dot = write_areas(tmp_path / "dot.gpkg", LAKE_2)

    def reasons(**areas):
        options = {k: str(v) for k, v in areas.items()}
        result = map_lakes(recipe(small_scene, tmp_path / "RUN", **options), overwrite=True)
        return result.candidates[result.candidates.reason != "stream"].reason.tolist()

    assert reasons(ice=left) == [KEPT, "not on the ice"]
    assert reasons(ice=tmp_path / "left.geojson") == [KEPT, "not on the ice"]
    assert reasons(exclude=dot) == [KEPT, "overlaps an excluded area"]
    assert reasons(aoi=left) == [KEPT]


def test_a_scene_of_nothing_but_nodata_gives_an_empty_run(tmp_path):
    scene = write_scene(tmp_path / "void_20190723.tif", np.zeros((3, 100, 100), np.uint8))
    result = map_lakes(recipe(scene, tmp_path / "RUN", scene__chunks=33))
    assert len(result.lakes) == len(result.candidates) == 0
    assert "seen: 0.0% of the scene; whether there are lakes is not known" in result.notes
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == FILES
    stored = gpd.read_parquet(tmp_path / "RUN" / "lakes.parquet")
    assert list(stored.columns) == list(result.lakes.columns)
    assert stored.crs.to_epsg() == 32622


def test_dry_run_counts_and_writes_nothing(small_scene, tmp_path, never_compute):
    facts = plan(recipe(small_scene, tmp_path / "RUN", scene__chunks=64))
    assert (facts["chunks"], facts["pixels"], facts["bytes a chunk read"]) == (16, 40_000, 64 * 64 * 3)
    assert facts["tasks"] > 16
    assert not (tmp_path / "RUN").exists()
