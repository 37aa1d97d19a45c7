"""Scenes whose bands lie on several grids, and scenes brought to another grid."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from rasters import raster
from scene_files import ORIGIN, S2_OLD, bands_of, dn, from_origin, rgb, write

import lakescale as ls
from lakescale.scene import bring_to_grid, open_parts
from lakescale.scene.on_grid import choose_resampling
from lakescale.schema import InputError

COARSE = from_origin(600_000, 7_400_000, 20, 20)
TILE = "T22WEV_20190723T151911"


def sentinel2_folder(folder, *, scl=True):
    for band in ("B02", "B03", "B04"):
        write(folder / f"{TILE}_{band}.tif", dn())
    write(folder / f"{TILE}_B11.tif", dn(low=100, high=3000, shape=(10, 15)), transform=COARSE)
    write(folder / f"{TILE}_B05.tif", dn(shape=(10, 15)), transform=COARSE)
    if scl:
        classes = np.random.default_rng(1).integers(1, 12, (10, 15), dtype=np.uint8)
        write(folder / f"{TILE}_SCL.tif", classes, transform=COARSE)
    return folder


def test_the_finest_grid_makes_the_scene_and_the_bands_that_tell_cloud_come_to_it(tmp_path):
    scene, beside = open_parts(sentinel2_folder(tmp_path))
    assert bands_of(scene) == ["blue", "green", "red"]
    assert [name for part in beside for name in bands_of(part)] == ["scl", "swir1"]
    assert all(part.shape[-2:] == scene.shape[-2:] for part in beside)
    assert str(scene.time.values)[:10] == "2019-07-23"
    stored = rasterio.open(tmp_path / f"{TILE}_SCL.tif").read(1)
    np.testing.assert_array_equal(beside[0].values[0], stored.repeat(2, 0).repeat(2, 1))


def test_a_scene_on_one_grid_is_what_open_scene_gives(tmp_path):
    for band in ("B02", "B03", "B04"):
        write(tmp_path / f"{TILE}_{band}.tif", dn())
    scene, beside = open_parts(tmp_path)
    xr.testing.assert_identical(scene.compute(), ls.open_scene(tmp_path).compute())
    assert beside == ()


def test_chosen_bands_leave_the_others_out_but_for_those_that_tell_cloud(tmp_path):
    scene, beside = open_parts(sentinel2_folder(tmp_path), bands=["red", "blue"], beside=("swir1",))
    assert bands_of(scene) == ["red", "blue"]
    assert [name for part in beside for name in bands_of(part)] == ["swir1"]
    write(tmp_path / "flat" / S2_OLD, dn(3), names=["B2", "B4", "B11"])
    scene, beside = open_parts(tmp_path / "flat" / S2_OLD, bands=["red", "blue"])
    assert [name for part in beside for name in bands_of(part)] == ["swir1"]


def test_an_image_of_many_bands_makes_the_scene_with_classes_beside_it(tmp_path):
    write(tmp_path / f"{TILE}_TCI.tif", rgb())
    write(tmp_path / f"{TILE}_SCL.tif", np.full((20, 30), 9, np.uint8))
    scene, beside = open_parts(tmp_path)
    assert scene.dtype == np.uint8
    assert [bands_of(part) for part in beside] == [["scl"]]
    with pytest.raises(InputError, match="many bands"):
        ls.open_scene(tmp_path)


def test_two_images_of_many_bands_are_still_refused(tmp_path):
    write(tmp_path / f"{TILE}_TCI.tif", rgb())
    write(tmp_path / f"{TILE}_preview.tif", rgb((10, 15)), transform=COARSE)
    with pytest.raises(InputError, match="several images for one date"):
        open_parts(tmp_path)


def test_a_scene_on_the_grid_is_handed_back(tmp_path):
    scene = ls.open_scene(write(tmp_path / S2_OLD, dn(2), names=["B2", "B4"]))
    assert bring_to_grid(scene, scene.odc.geobox) is scene
    assert bring_to_grid(scene, scene.odc.geobox, chunks=7).data.chunks[1] == (7, 7, 6)


@pytest.mark.parametrize(("resolution", "how"), [(10, "bilinear"), (7, "bilinear"), (14, "bilinear"), (16, "average")])
def test_means_are_taken_where_the_target_is_coarser(resolution, how):
    scene = raster(np.zeros((2, 40, 40), np.float32), transform=ORIGIN, crs="EPSG:32622", bands=["red", "blue"])
    polar = scene.odc.geobox.to_crs("EPSG:3413", resolution=resolution)
    assert choose_resampling(ls.Grid.of(scene), ls.Grid(polar)) == how
    assert bring_to_grid(scene, polar).attrs["resampling"] == how


def test_reflectance_goes_through_regrid(never_compute):
    scene = raster(np.zeros((2, 40, 40), np.float32), transform=ORIGIN, crs="EPSG:32622", bands=["red", "blue"])
    assert bring_to_grid(scene, scene.odc.geobox.to_crs("EPSG:3413")).dtype == np.float32


def test_numbers_stay_of_their_kind_and_not_seen_stays_not_seen(tmp_path):
    bands = rgb((40, 40))
    bands[:, :, :10] = 0
    bands[:, 5, 20] = 0  # a pixel of nodata inside
    bands[:, 30, 30] = (0, 0, 7)
    scene = ls.open_scene(write(tmp_path / "S2_20190713.tif", bands))
    target = GeoBox((80, 80), from_origin(600_000, 7_400_000, 5, 5), "EPSG:32622")
    moved = bring_to_grid(scene, target, chunks=(33, 80))
    assert moved.dtype == np.uint8
    seen = ls.seen_mask(moved).values
    np.testing.assert_array_equal(seen, ls.seen_mask(scene).values.repeat(2, 0).repeat(2, 1))
    expected = ls.regrid(scene.astype(np.float32).where(ls.seen_mask(scene)), target).values
    np.testing.assert_array_equal(moved.values, np.where(seen, np.round(np.nan_to_num(expected)), 0))


def test_classes_are_never_mixed(tmp_path):
    classes = np.random.default_rng(2).choice(np.array([4, 9], np.uint16), (2, 20, 30))
    scene = ls.open_scene(write(tmp_path / S2_OLD, classes, names=["B2", "SCL"]))
    moved = bring_to_grid(scene, GeoBox((27, 41), from_origin(600_000, 7_400_000, 7, 7), "EPSG:32622"))
    assert bands_of(moved) == ["blue", "scl"]
    found = moved.sel(band="scl").values
    assert set(np.unique(found[np.isfinite(found)])) <= {4.0, 9.0}


def test_an_8_bit_picture_beside_the_bands_is_left_out(tmp_path):
    sentinel2_folder(tmp_path)
    write(tmp_path / f"{TILE}_TCI.tif", rgb())
    scene, beside = open_parts(tmp_path)
    assert scene.dtype == np.float32
    assert bands_of(scene) == ["blue", "green", "red"]
    assert f"{TILE}_TCI.tif" in scene.attrs["skipped"]
    assert [name for part in beside for name in bands_of(part)] == ["scl", "swir1"]


def test_a_panchromatic_band_does_not_make_the_scene(tmp_path):
    name = "LC08_L1TP_008012_20190723_20200827_02_T1_{}.TIF"
    for band in ("B2", "B3", "B4", "B6"):
        write(tmp_path / name.format(band), dn(), transform=from_origin(600_000, 7_400_000, 30, 30), scale=(2e-5, -0.1))
    write(tmp_path / name.format("B8"), dn(shape=(40, 60)), transform=from_origin(600_000, 7_400_000, 15, 15))
    scene, _ = open_parts(tmp_path)
    assert bands_of(scene) == ["blue", "green", "red", "swir1"]
    assert name.format("B8") in scene.attrs["skipped"]
