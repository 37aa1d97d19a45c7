"""What lies beside a scene in `lakescale map`: a DEM, ice from a raster, cloud, another grid, a cube."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from map_scenes import as_set, lakescale, recipe, rgb_with_lakes, write_areas, write_scene
from pyproj import Geod
from rasterio.transform import from_origin

import lakescale as ls
from lakescale.fusion import NO_SINK, NOT_ON_ICE
from lakescale.schema import KEPT, InputError
from lakescale.whitebox import find_binary
from pipelines.map_lakes import map_lakes
from pipelines.recipe import read_recipe

ORIGIN = (600_000, 7_430_000)


def write_dem(path, heights, *, resolution=10.0, origin=ORIGIN, nodata=-9999.0):
    heights = np.asarray(heights, np.float32)
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=heights.shape[0], width=heights.shape[1], dtype="float32",
        crs="EPSG:32622", transform=from_origin(*origin, resolution, resolution), nodata=nodata,
    ) as sink:  # fmt: skip
        sink.write(heights, 1)
    return path


def slope_with_bowl(rows, cols, *, size=200, depth=4.0):
    """A slope to the east, with one bowl in it."""
    heights = np.tile(1000 - 0.01 * np.arange(size, dtype=np.float32), (size, 1))
    heights[rows, cols] -= depth
    return heights


def notes_of(run):
    return json.loads((run / "manifest.json").read_text())["notes"]


# -- a DEM


def test_sinks_of_a_dem_come_with_each_lake(small_scene, tmp_path):
    dem = write_dem(tmp_path / "dem.tif", slope_with_bowl(slice(15, 65), slice(15, 65)))
    result = map_lakes(recipe(small_scene, tmp_path / "RUN", dem__source=str(dem)))
    assert result.lakes.sink_share.tolist() == [1.0, 0.0]
    assert result.lakes.dem_share.tolist() == [1.0, 1.0]
    assert any("dem.tif" in note and "engine tiled" in note for note in notes_of(tmp_path / "RUN"))


def test_a_lake_outside_the_sinks_is_dropped_where_that_is_asked_for(small_scene, tmp_path):
    heights = slope_with_bowl(slice(15, 65), slice(15, 65))
    dem = write_dem(tmp_path / "dem.tif", heights)
    result = map_lakes(recipe(small_scene, tmp_path / "RUN", dem__source=str(dem), min_sink_share=0.5))
    assert len(result.lakes) == 1
    assert (result.candidates.reason == NO_SINK).sum() == 1
    heights[95:165, 95:165] = -9999
    void = write_dem(tmp_path / "void.tif", heights)
    result = map_lakes(recipe(small_scene, tmp_path / "RUN2", dem__source=str(void), min_sink_share=0.5))
    assert len(result.lakes) == 2, "a void tells nothing about sinks"
    assert result.lakes.dem_share.tolist() == [1.0, 0.0]
    assert np.isnan(result.lakes.sink_share[1])


def test_sinks_that_the_scenes_edge_cuts_are_whole(tmp_path):
    rgb = rgb_with_lakes()
    rgb[:, 80:95, :30] = np.array([20, 100, 200], np.uint8)[:, None, None]
    scene = write_scene(tmp_path / "S2_20190723.tif", rgb)
    heights = slope_with_bowl(slice(175, 205), slice(60, 140), size=300)
    dem = write_dem(tmp_path / "dem.tif", heights, origin=(ORIGIN[0] - 1000, ORIGIN[1] + 1000))
    whole = map_lakes(recipe(scene, tmp_path / "RUN", dem__source=str(dem)))
    cut = map_lakes(recipe(scene, tmp_path / "CUT", dem__source=str(dem), dem__margin_m=0))
    at_edge = [run.lakes.geometry.bounds.minx.argmin() for run in (whole, cut)]
    assert whole.lakes.sink_share[at_edge[0]] == 1
    assert cut.lakes.sink_share[at_edge[1]] == 0


def test_a_dem_that_covers_part_of_the_scene_says_so(small_scene, tmp_path):
    dem = write_dem(tmp_path / "dem.tif", slope_with_bowl(slice(15, 65), slice(15, 65))[:, :100])
    done = lakescale(
        "map", "--scene", small_scene, "--out", tmp_path / "RUN", "--dem", dem, "--cluster", "threads", "--workers", 1,
        "--fuse", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "warning: the DEM covers 50.0% of the scene" in done.stdout
    lakes = gpd.read_parquet(tmp_path / "RUN" / "lakes.parquet")
    assert lakes.dem_share.tolist() == [1.0, 0.0]
    assert np.isnan(lakes.sink_share[1])


def test_a_dem_elsewhere_or_with_wrong_nodata_is_refused(small_scene, tmp_path):
    far = write_dem(tmp_path / "far.tif", slope_with_bowl(0, 0), origin=(700_000, 7_000_000))
    with pytest.raises(InputError, match="DEM"):
        map_lakes(recipe(small_scene, tmp_path / "RUN", dem__source=str(far)))
    heights = slope_with_bowl(slice(15, 65), slice(15, 65))
    heights[0, 0] = -32768
    wrong = write_dem(tmp_path / "wrong.tif", heights, nodata=None)
    with pytest.raises(InputError, match="nodata"):
        map_lakes(recipe(small_scene, tmp_path / "RUN", dem__source=str(wrong)))
    result = map_lakes(recipe(small_scene, tmp_path / "RUN", dem__source=str(wrong), dem__nodata=-32768))
    assert result.lakes.sink_share.tolist() == [1.0, 0.0]


def test_a_coarser_dem_in_another_crs_finds_the_same_sink(small_scene, tmp_path):
    fine = slope_with_bowl(slice(12, 68), slice(12, 68), depth=8.0)
    dem = ls.open_dem(write_dem(tmp_path / "dem.tif", fine))
    polar = ls.regrid(dem, dem.odc.geobox.to_crs("EPSG:3413", resolution=25), resampling="average")
    polar.rio.to_raster(tmp_path / "polar.tif")
    result = map_lakes(recipe(small_scene, tmp_path / "RUN", dem__source=str(tmp_path / "polar.tif")))
    assert result.lakes.sink_share[0] > 0.95
    assert result.lakes.sink_share[1] == 0


# -- ice


def test_ice_from_a_percent_raster(tmp_path, small_scene):
    grid = ls.Grid.of(ls.open_scene(small_scene))
    west, south, _, north = gpd.GeoSeries([shapely.box(*grid.bounds_xyxy)], crs=grid.crs).to_crs(4326).total_bounds
    percent = np.full((40, 60), 80, np.uint8)
    path = tmp_path / "ice.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=40, width=60, dtype="uint8", crs="EPSG:4326",
        transform=from_origin(west - 0.01, north + 0.005, 0.0012, 0.0012),
    ) as sink:  # fmt: skip
        sink.write(percent, 1)
    assert len(map_lakes(recipe(small_scene, tmp_path / "ALL", ice=str(path))).lakes) == 2
    half = int(((north + south) / 2 - 0.001 - (north + 0.005)) / -0.0012)
    for value in (50, 255):
        percent[half:] = value  # not more than 50 %, and nodata
        with rasterio.open(path, "r+") as sink:
            sink.write(percent, 1)
        result = map_lakes(recipe(small_scene, tmp_path / f"HALF{value}", ice=str(path)))
        assert len(result.lakes) == 1
        assert (result.candidates.reason == NOT_ON_ICE).sum() >= 1
    with rasterio.open(path, "r+") as sink:
        sink.write(np.zeros_like(percent), 1)
    with pytest.raises(InputError, match="no ice"):
        map_lakes(recipe(small_scene, tmp_path / "NONE", ice=str(path)))


def test_only_the_largest_piece_of_ice_counts_where_that_is_asked_for(small_scene, tmp_path):
    x, y = ORIGIN
    large, small = (x + 900, y - 1700, x + 1700, y - 900), (x + 100, y - 700, x + 700, y - 100)
    ice = write_areas(tmp_path / "ice.gpkg", large, small)
    assert len(map_lakes(recipe(small_scene, tmp_path / "BOTH", ice=str(ice))).lakes) == 2
    largest = map_lakes(recipe(small_scene, tmp_path / "ONE", ice__source=str(ice), ice__largest=True))
    assert len(largest.lakes) == 1
    aoi = write_areas(tmp_path / "aoi.gpkg", (x, y - 800, x + 800, y), (x + 800, y - 2000, x + 2000, y - 800))
    options = {"ice__source": str(ice), "ice__largest": True, "aoi": str(aoi)}
    each = map_lakes(recipe(small_scene, tmp_path / "EACH", **options))
    assert len(each.lakes) == 2, "the largest of each region"


# -- cloud


def reflectance_scene(folder, *, cloud):
    """Blue, green and red of two lakes at 10 m, SWIR at 20 m, as Sentinel-2 has them."""
    water = rgb_with_lakes()[0] < 100
    dn = {"B02": np.where(water, 4000, 8000), "B03": np.where(water, 2500, 8000), "B04": np.where(water, 800, 8000)}
    folder.mkdir(parents=True)
    for band, values in dn.items():
        write_scene(folder / f"T22WEV_20190723T151911_{band}.tif", values[None].astype(np.uint16))
    swir = np.full((1, 100, 100), 200, np.uint16)
    swir[:, cloud[0], cloud[1]] = 3000
    write_scene(folder / "T22WEV_20190723T151911_B11.tif", swir, resolution=20.0)
    return folder


def test_cloud_counts_as_not_seen(tmp_path):
    scene = reflectance_scene(tmp_path / "scene", cloud=(slice(5, 20), slice(5, 35)))
    result = map_lakes(recipe(scene, tmp_path / "RUN"))
    clear = map_lakes(recipe(scene, tmp_path / "CLEAR", cloud="none"))
    assert any("0.14" in note for note in result.notes)
    assert any(note.startswith("cloud not assessed") for note in clear.notes)
    assert clear.lakes.seen_share.tolist() == [1.0, 1.0]
    assert result.lakes.area_m2.sum() < clear.lakes.area_m2.sum()
    assert result.lakes.seen_share[0] < 1
    under = shapely.box(ORIGIN[0] + 100, ORIGIN[1] - 400, ORIGIN[0] + 700, ORIGIN[1] - 100)
    assert not result.candidates.intersects(under.buffer(-25)).any()
    seen = next(note for note in result.notes if note.startswith("seen"))
    assert seen.startswith(f"seen: {1 - 30 * 60 / 200 / 200:.1%}")


def test_a_cloud_rule_that_the_bands_do_not_allow_is_refused(small_scene, tmp_path):
    with pytest.raises(InputError, match="scl"):
        map_lakes(recipe(small_scene, tmp_path / "RUN", cloud="scl"))


def test_classes_beside_an_rgb_image_tell_its_cloud(tmp_path):
    folder = tmp_path / "scene"
    folder.mkdir()
    write_scene(folder / "T22WEV_20190723T151911_TCI.tif", rgb_with_lakes())
    classes = np.full((1, 100, 100), 6, np.uint8)
    classes[:, :50] = 9
    write_scene(folder / "T22WEV_20190723T151911_SCL.tif", classes, resolution=20.0)
    result = map_lakes(recipe(folder, tmp_path / "RUN"))
    assert len(result.lakes) == 1
    assert any("SCL" in note for note in result.notes)


# -- another grid, a cube


def test_a_run_on_another_grid_finds_the_same_lakes(small_scene, tmp_path):
    own = map_lakes(recipe(small_scene, tmp_path / "OWN"))
    polar = map_lakes(recipe(small_scene, tmp_path / "POLAR", grid__crs="EPSG:3413", grid__resolution_m=10))
    assert polar.lakes.crs.to_epsg() == 3413
    assert len(polar.lakes) == len(own.lakes) == 2
    np.testing.assert_allclose(polar.lakes.area_m2, own.lakes.area_m2, rtol=0.03)
    assert any("EPSG:3413" in note and "bilinear" in note for note in polar.notes)
    like = map_lakes(recipe(small_scene, tmp_path / "LIKE", grid__like=str(small_scene)))
    assert as_set(like.lakes) == as_set(own.lakes)


def test_a_coarser_grid_takes_means(small_scene, tmp_path):
    own = map_lakes(recipe(small_scene, tmp_path / "OWN"))
    coarse = map_lakes(recipe(small_scene, tmp_path / "COARSE", grid__resolution_m=20, rules__neck_px=0))
    assert any("20 m by average" in note for note in coarse.notes)
    assert json.loads((tmp_path / "COARSE" / "manifest.json").read_text())["grid"]["shape"] == [100, 100]
    np.testing.assert_allclose(coarse.lakes.area_m2.nlargest(1), own.lakes.area_m2.nlargest(1), rtol=0.06)


def test_degrees_are_mapped_once_a_grid_in_metres_is_asked_for(tmp_path):
    scene = write_scene(
        tmp_path / "S2_20190723.tif", rgb_with_lakes(), crs="EPSG:4326", resolution=1e-4, origin=(-50, 66)
    )
    with pytest.raises(InputError, match="--crs"):
        map_lakes(recipe(scene, tmp_path / "RUN"))
    result = map_lakes(recipe(scene, tmp_path / "RUN", grid__crs="EPSG:3413", grid__resolution_m=5))
    box = shapely.box(-50 + 100e-4, 66 - 160e-4, -50 + 160e-4, 66 - 100e-4)
    expected = abs(Geod(ellps="WGS84").geometry_area_perimeter(box)[0])
    assert result.lakes.area_m2.max() == pytest.approx(expected, rel=0.02)
    with pytest.raises(InputError, match="metres"):
        map_lakes(recipe(scene, tmp_path / "FEET", grid__crs="EPSG:2225"))


def test_a_cube_gives_the_lakes_of_its_scenes(small_scene, tmp_path):
    ls.write_cube(ls.open_scene(small_scene, chunks=64), tmp_path / "cube.zarr", chunks=64)
    own = map_lakes(recipe(small_scene, tmp_path / "OWN"))
    cube = map_lakes(recipe(tmp_path / "cube.zarr", tmp_path / "CUBE"))
    assert as_set(cube.lakes) == as_set(own.lakes)
    with pytest.raises(InputError, match="no date 2020-01-01"):
        map_lakes(recipe(tmp_path / "cube.zarr", tmp_path / "X", scene__date="2020-01-01"))


def test_old_recipes_with_ice_as_a_path_are_still_read(tmp_path):
    (tmp_path / "recipe.yaml").write_text("scene: {source: a.tif}\nout: RUN\nice: ice.gpkg\n")
    read = read_recipe(tmp_path / "recipe.yaml", ice__largest=True)
    assert (read.ice.source, read.ice.largest) == ("ice.gpkg", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dem__engine": "tiled"}, "no dem is given"),
        ({"min_sink_share": 0.5}, "min_sink_share needs a dem"),
        ({"dem__source": "x.tif", "dem__engine": "fast"}, "--sinks-engine"),
        ({"cloud": "guess"}, "--cloud"),
        ({"grid__resolution_m": -1}, "--resolution"),
    ],
)
def test_wrong_options_name_the_option(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        recipe(tmp_path / "scene.tif", tmp_path / "RUN", **options)


def test_every_candidate_keeps_its_reason(small_scene, tmp_path):
    dem = write_dem(tmp_path / "dem.tif", slope_with_bowl(slice(15, 65), slice(15, 65)))
    plain = map_lakes(recipe(small_scene, tmp_path / "PLAIN"))
    asked = map_lakes(recipe(small_scene, tmp_path / "ASKED", dem__source=str(dem), min_sink_share=0.5))
    assert len(plain.candidates) == len(asked.candidates)
    changed = plain.candidates.reason != asked.candidates.reason
    assert set(plain.candidates.reason[changed]) == {KEPT}


# -- real data


def test_the_ice_basins_hold_the_real_scenes_lakes(data_dir, tmp_path):
    basins = data_dir / "vector" / "greenland_ice_basins.shp"
    result = map_lakes(recipe(data_dir / "scenes" / "22WEV_2019-07-23", tmp_path / "RUN", ice=str(basins)))
    assert len(result.lakes) == 13
    assert (result.candidates.reason != NOT_ON_ICE).all()
    assert not any(note.startswith("ice: none") for note in result.notes)
    on_ice = gpd.read_file(basins).to_crs(result.lakes.crs).union_all()
    assert result.lakes.within(on_ice).all()


def test_a_scene_over_the_real_ice_cap_finds_its_large_sink(data_dir, tmp_path):
    dem = data_dir / "dem" / "greenland_icecap_100m.tif"
    with rasterio.open(dem) as file:
        grid, (row, col), (row2, col2) = file.profile, file.index(-8400, 8951000), file.index(0, 8940000)
    rgb = np.full((3, grid["height"], grid["width"]), 220, np.uint8)
    for r, c in ((row, col), (row2, col2)):
        rgb[:, r - 7 : r + 8, c - 6 : c + 7] = np.array([20, 100, 200], np.uint8)[:, None, None]
    scene = tmp_path / "icecap_20190723.tif"
    with rasterio.open(
        scene, "w", **{key: grid[key] for key in ("driver", "height", "width", "crs", "transform")},
        count=3, dtype="uint8", nodata=0,
    ) as file:  # fmt: skip
        file.write(rgb)
    for engine in ("tiled", "whitebox"):
        if engine == "whitebox" and not has_whitebox():
            continue
        options = {"dem__source": str(dem), "dem__engine": engine, "rules__neck_px": 0}
        result = map_lakes(recipe(scene, tmp_path / engine, **options))
        west = result.lakes.geometry.centroid.x < -5000
        assert (result.lakes.sink_share[west] > 0.9).all()
        assert (result.lakes.sink_share[~west] == 0).all()
        assert len(result.lakes) == 2
        assert (result.lakes.dem_share == 1).all()


def has_whitebox():
    try:
        find_binary()
    except InputError:
        return False
    return True


def test_grids_that_miss_the_scene_or_contradict_are_refused(small_scene, tmp_path):
    far = write_scene(tmp_path / "far.tif", rgb_with_lakes(), origin=(700_000, 7_000_000))
    with pytest.raises(InputError, match="misses the run's grid"):
        map_lakes(recipe(small_scene, tmp_path / "RUN", grid__like=str(far)))
    with pytest.raises(InputError, match="Leave out --like"):
        map_lakes(recipe(small_scene, tmp_path / "RUN", grid__like=str(far), grid__resolution_m=20))
