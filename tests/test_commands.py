"""The commands beside `map`, as a user runs them."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from map_scenes import lakescale, rgb_with_lakes, write_scene

import lakescale as ls


@pytest.fixture
def two_dates(tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for day in ("20190723", "20190801"):
        write_scene(folder / f"S2_small_{day}.tif", rgb_with_lakes())
    return folder


def test_ingest_writes_a_cube_once_and_map_reads_it(two_dates, tmp_path):
    arguments = (
        "ingest",
        "--scene",
        two_dates,
        "--out",
        tmp_path / "cube.zarr",
        "--chunks",
        64,
        "--cluster",
        "threads",
    )
    planned = lakescale(*arguments, "--dry-run")
    assert "dates: 2019-07-23, 2019-08-01" in planned.stdout
    assert "chunks a date: 16" in planned.stdout
    assert not (tmp_path / "cube.zarr").exists()
    first = lakescale(*arguments, "--cog")
    assert first.returncode == 0, first.stderr
    assert "32 chunks written, 0 were there" in first.stdout
    again = lakescale(*arguments)
    assert "0 chunks written, 32 were there" in again.stdout
    cog = tmp_path / "cube_2019-07-23.tif"
    assert f"written: {cog}" in first.stdout
    with rasterio.open(cog) as stored, rasterio.open(two_dates / "S2_small_20190723.tif") as source:
        np.testing.assert_array_equal(stored.read(), source.read())
    done = lakescale(
        "map",
        "--scene",
        tmp_path / "cube.zarr",
        "--date",
        "2019-08-01",
        "--out",
        tmp_path / "RUN",
        "--cluster",
        "threads",
        "--fuse",
        "none",
    )
    assert done.returncode == 0, done.stderr
    assert len(gpd.read_parquet(tmp_path / "RUN" / "lakes.parquet")) == 2
    refused = lakescale("map", "--scene", tmp_path / "cube.zarr", "--out", tmp_path / "X", "--cluster", "threads")
    assert refused.returncode == 2
    assert "--date" in refused.stderr


def test_ingest_refuses_another_grid(two_dates, tmp_path):
    out = ("--out", tmp_path / "cube.zarr", "--cluster", "threads", "--workers", 1)
    assert lakescale("ingest", "--scene", two_dates / "S2_small_20190723.tif", *out).returncode == 0
    options = ("--scene", two_dates / "S2_small_20190801.tif", "--crs", "EPSG:3413", "--resolution", 10)
    refused = lakescale("ingest", *options, *out)
    assert refused.returncode == 2, refused.stdout
    assert "grid" in refused.stderr
    assert "cube.zarr" in refused.stderr


def test_ingest_brings_a_dem_to_the_cubes_grid(two_dates, tmp_path):
    heights = np.linspace(900, 1000, 120 * 120, dtype=np.float32).reshape(1, 120, 120)
    dem = write_scene(tmp_path / "dem.tif", heights, resolution=20.0, nodata=-9999)
    done = lakescale(
        "ingest", "--scene", two_dates, "--out", tmp_path / "cube.zarr", "--dem", dem, "--cluster", "threads"
    )
    assert done.returncode == 0, done.stderr
    layer = ls.open_layer(tmp_path / "dem.zarr", "dem")
    cube = ls.open_cube(tmp_path / "cube.zarr")
    assert ls.Grid.of(layer) == ls.Grid.of(cube)
    np.testing.assert_array_equal(layer, ls.regrid(ls.open_dem(dem), ls.Grid.of(cube)))
    mapped = lakescale(
        "map", "--scene", tmp_path / "cube.zarr", "--date", "2019-07-23", "--dem", tmp_path / "dem.zarr",
        "--out", tmp_path / "RUN", "--cluster", "threads", "--fuse", "none",
    )  # fmt: skip
    assert mapped.returncode == 0, mapped.stderr
    assert (gpd.read_parquet(tmp_path / "RUN" / "lakes.parquet").dem_share == 1).all()


def test_score_prints_a_table_and_writes_what_became_of_each_lake(tmp_path):
    reference = gpd.GeoDataFrame(geometry=shapely.box([0, 200], 0, [90, 290], 90), crs=3413)
    lakes = gpd.GeoDataFrame(geometry=shapely.box([0, 200], 0, [90, 290], [90, 40]), crs=3413)
    reference.to_file(tmp_path / "reference.gpkg")
    lakes.to_parquet(tmp_path / "lakes.parquet")
    done = lakescale("score", tmp_path / "lakes.parquet", tmp_path / "reference.gpkg", "--out", tmp_path / "SCORE")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "strict rules"
    assert "0.500" in done.stdout
    assert json.loads((tmp_path / "SCORE" / "score.json").read_text())["tp"] == 1
    verdicts = gpd.read_file(tmp_path / "SCORE" / "matches.gpkg", layer="matches").verdict.tolist()
    assert verdicts == ["tp", "fp"]
    seed = lakescale("score", tmp_path / "lakes.parquet", tmp_path / "reference.gpkg", "--rules", "seed")
    assert seed.stdout.startswith("seed rules")


def test_score_names_what_is_wrong(tmp_path):
    reference = gpd.GeoDataFrame({"image": ["a"], "region_num": [1]}, geometry=shapely.box([0], 0, [90], 90), crs=3413)
    reference.to_file(tmp_path / "reference.gpkg")
    reference[["geometry"]].to_file(tmp_path / "lakes.gpkg")
    pair = (tmp_path / "lakes.gpkg", tmp_path / "reference.gpkg")
    refused = lakescale("score", *pair)
    assert refused.returncode == 2
    assert "--as-one-group" in refused.stderr
    assert lakescale("score", *pair, "--as-one-group").returncode == 0
    for arguments, message in (
        ((tmp_path / "gone.gpkg", pair[1]), "gone.gpkg"),
        ((*pair, "--as-one-group", "--rules", "kind"), "kind"),
    ):
        refused = lakescale("score", *arguments)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
