"""Scenes: scale, offset and nodata, and which pixels were seen."""

import logging

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.windows import Window
from scene_files import ORIGIN, S2_NEW, S2_OLD, bands_of, dn, rgb, write

from lakescale.scene import open_scene, radiometry, seen_mask
from lakescale.schema import InputError

# ---------------------------------------------------------------- radiometry


def test_reflectance_is_computed_in_float32_in_a_fixed_way(tmp_path):
    pixels = np.array([[[0, 1, 999, 1000, 1001, 65535]]], np.uint16)
    scene = open_scene(write(tmp_path / "red.tif", pixels), scale=1e-4, offset=-0.1)
    expected = np.float32(pixels) * np.float32(1e-4) + np.float32(-0.1)
    expected[0, 0, 0] = np.nan
    assert scene.dtype == np.float32
    np.testing.assert_array_equal(scene, expected)
    assert float(scene[0, 0, 1]) < 0
    assert scene.attrs["radiometry"] == "reflectance"
    assert scene.attrs["radiometry_source"] == "scale= and offset= as passed"
    assert "nodata_values" not in scene.attrs


@pytest.mark.parametrize(
    ("name", "tags", "low", "offset", "words", "logs"),
    [
        (S2_OLD, {}, 200, 0, "processing baseline 02.13", False),
        (S2_NEW, {}, 1050, -0.1, "processing baseline 04.00", False),
        (S2_NEW, {}, 899, 0, "darkest sampled DN is 899: it was removed already", True),
        (S2_NEW, {}, 900, -0.1, "processing baseline 04.00", False),
        ("S2_20190713_red.tif", {"PROCESSING_BASELINE": "05.00"}, 1500, -0.1, "processing baseline 05.00", False),
        ("S2_20220713_red.tif", {"processing:baseline": "03.01"}, 1500, 0, "processing baseline 03.01", False),
        ("S2_20220124_red.tif", {}, 500, 0, "sensing date 2022-01-24", False),
        ("S2_20220124_red.tif", {}, 1000, 0, "ambiguous, the darkest sampled DN is 1000", True),
        ("S2_20220125_red.tif", {}, 1500, -0.1, "sensing date 2022-01-25", False),
        ("S2_20220125_red.tif", {}, 300, 0, "removed already", True),
        ("T22WEV_20220713T150921_B04.tif", {}, 1500, -0.1, "sensing date 2022-07-13", False),
        ("S2_red.tif", {}, 300, 0, "no date known", False),
    ],
)
def test_sentinel2_offset(tmp_path, caplog, name, tags, low, offset, words, logs):
    pixels = dn(low=low + 1)
    pixels[0, 3, 4], pixels[0, 0, 0] = low, 0
    path = write(tmp_path / "plain" / name, pixels, names=("red",), tags=tags)
    with caplog.at_level(logging.WARNING):
        scene = open_scene(path)
    assert scene.attrs["scale"] == 1e-4
    assert scene.attrs["offset"] == offset
    assert words in scene.attrs["radiometry_source"]
    assert bool(caplog.records) == logs
    assert np.isnan(scene[0, 0, 0])
    np.testing.assert_allclose(scene[0, 3, 4], low / 1e4 + offset, atol=1e-7)


def test_the_darkest_dn_is_sampled_in_few_windows(tmp_path, monkeypatch):
    path = write(tmp_path / S2_NEW, np.full((2, 1500, 1300), 3000, np.uint16), names=("B02", "B11"))
    windows = []
    read = radiometry.read_window
    monkeypatch.setattr(radiometry, "read_window", lambda p, i, w: windows.append((tuple(i), w)) or read(p, i, w))
    open_scene(path)
    assert len(windows) == 16
    assert {indexes for indexes, _ in windows} == {(2,)}
    assert all((w.width, w.height) == (256, 256) for _, w in windows)
    assert windows[-1][1] == Window(1300 - 256, 1500 - 256, 256, 256)
    windows.clear()
    open_scene(path, scale=1e-4)
    assert not windows


def test_an_empty_sample_keeps_the_presumption(tmp_path):
    scene = open_scene(write(tmp_path / S2_NEW, np.zeros((1, 9, 9), np.uint16), names=("red",)))
    assert scene.attrs["offset"] == -0.1
    assert np.isnan(scene).all()


def test_keywords_win_over_tags_and_tags_over_names(tmp_path):
    path = write(tmp_path / S2_NEW, dn(), names=("red",), scale=(2e-4, -0.3))
    assert (open_scene(path).attrs["scale"], open_scene(path).attrs["offset"]) == (2e-4, -0.3)
    assert open_scene(path, scale=3e-4).attrs["offset"] == 0
    only_offset = open_scene(path, offset=0)
    assert (only_offset.attrs["scale"], only_offset.attrs["offset"]) == (2e-4, 0)
    with pytest.raises(InputError, match="scale="):
        open_scene(path, scale=0)


def test_uint8_becomes_reflectance_only_by_a_scale(tmp_path):
    path = write(tmp_path / S2_OLD, rgb())
    scene = open_scene(path, scale=1 / 255)
    assert (scene.dtype, scene.attrs["radiometry"]) == (np.float32, "reflectance")
    with pytest.raises(InputError, match="scale is unknown"):
        open_scene(path, offset=0.5)


def test_landsat_collection_2(tmp_path):
    for band in ("SR_B2", "SR_B4"):
        write(tmp_path / f"LC08_L2SP_008013_20190705_20200827_02_T1_{band}.TIF", dn(low=8000, high=20000))
    scene = open_scene(tmp_path)
    assert (scene.attrs["scale"], scene.attrs["offset"]) == (2.75e-5, -0.2)
    assert bands_of(scene) == ["blue", "red"]
    assert scene.attrs["sensor"] == "Landsat 8"
    assert scene.attrs["product_level"] == "L2SP"
    assert scene["time"].values == np.datetime64("2019-07-05")


def test_an_unknown_scale_is_refused(tmp_path):
    for name in ("red.tif", "LC08_L1TP_008013_20190705_20200827_02_T1_B4.TIF"):
        with pytest.raises(InputError, match=r"scale is unknown.*pass scale=|scale is unknown.*Pass scale="):
            open_scene(write(tmp_path / name, dn()))


def test_floats_are_kept(tmp_path):
    pixels = np.array([[[0.25, -0.5, -9999.0, np.nan, -1.0e300]]])
    scene = open_scene(write(tmp_path / "red.tif", pixels, nodata=-9999))
    assert scene.dtype == np.float32
    np.testing.assert_array_equal(scene[0, 0], np.float32([0.25, -0.5, np.nan, np.nan, -np.inf]))
    assert scene.attrs["radiometry"] == "reflectance"
    assert seen_mask(scene).values.tolist() == [[True, True, False, False, True]]


def test_nodata_of_integers(tmp_path):
    pixels = np.array([[[0, -9999, 500, -20]]], np.int16)
    path = write(tmp_path / "red.tif", pixels, nodata=-9999)
    nan = np.isnan(open_scene(path, scale=1e-4)).values.tolist()
    assert nan == [[[False, True, False, False]]]
    assert np.isnan(open_scene(path, scale=1e-4, nodata=500)).values.tolist() == [[[False, False, True, False]]]
    s2 = write(tmp_path / S2_OLD, pixels.astype(np.uint16), names=("red",), nodata=500)
    assert np.isnan(open_scene(s2)).values.tolist() == [[[True, False, True, False]]]
    with pytest.raises(InputError, match="uint8"):
        open_scene(path, scale=1e-4, nodata="cup")


def test_scene_classes_keep_their_numbers(tmp_path):
    write(tmp_path / "S2A_MSIL2A_20190713_N0213_B04.tif", dn())
    write(tmp_path / "S2A_MSIL2A_20190713_N0213_SCL.tif", np.full((1, 20, 30), 6, np.uint8), nodata=0)
    scene = open_scene(tmp_path)
    assert bands_of(scene) == ["red", "scl"]
    assert float(scene.sel(band="scl").max()) == 6
    assert scene.attrs["scale"] == [1e-4, 1.0]


def test_uint8_beside_uint16_is_refused(tmp_path):
    write(tmp_path / "S2_20190713_B04.tif", dn())
    write(tmp_path / "S2_20190713_B02.tif", rgb()[:1])
    with pytest.raises(InputError, match="different types"):
        open_scene(tmp_path)


def test_what_the_name_says_is_recorded(tmp_path):
    attrs = open_scene(write(tmp_path / S2_OLD, rgb())).attrs
    assert (attrs["sensor"], attrs["product_level"], attrs["baseline"]) == ("Sentinel-2A", "L2A", "02.13")
    inside = tmp_path / S2_NEW.replace(".tif", ".SAFE") / "GRANULE" / "IMG_DATA" / "T22WFB_20220713T150921_B04_10m.tif"
    attrs = open_scene(write(inside, dn())).attrs
    assert (attrs["sensor"], attrs["product_level"], attrs["baseline"]) == ("Sentinel-2A", "L2A", "04.00")
    assert attrs["offset"] == -0.1


# ---------------------------------------------------------------- seen


def corner(values, count=3):
    """An RGB of 9s whose first row starts with one pixel for each tuple of values."""
    pixels = np.full((count, 2, 4), 9, np.uint8)
    for col, value in enumerate(values):
        pixels[:, 0, col] = value
    return pixels


def test_rgb_is_unseen_only_where_all_bands_are_nodata(tmp_path):
    pixels = corner([(0, 0, 0), (0, 0, 7), (1, 1, 1), (255, 255, 255)])
    path = write(tmp_path / "a.tif", pixels, nodata=0)
    assert seen_mask(open_scene(path)).values[0].tolist() == [False, True, True, True]
    assert seen_mask(open_scene(path, nodata=255)).values[0].tolist() == [True, True, True, False]
    assert seen_mask(open_scene(path, nodata="cup")).values[0].tolist() == [False, True, False, True]
    with pytest.raises(InputError, match="no uint8 number"):
        open_scene(path, nodata=-9999)


@pytest.mark.parametrize("name", ["plain.tif", "Greenland26X_22W_Sentinel2_2019-06-03_05.tif"])
def test_the_cups_rule(tmp_path, name):
    pixels = corner([(0, 0, 0), (0, 1, 0), (1, 1, 1)])
    scene = open_scene(write(tmp_path / name, pixels, nodata=None if name == "plain.tif" else 0))
    assert scene.attrs["nodata_values"] == [0, 1]
    assert seen_mask(scene).values[0].tolist() == [False, True, False, True]


def test_bands_left_out_do_not_change_what_is_seen(tmp_path):
    path = write(tmp_path / "a.tif", corner([(0, 0, 0), (0, 0, 7)]), nodata=0)
    scene = open_scene(path, bands=["red"])
    np.testing.assert_array_equal(seen_mask(scene), seen_mask(open_scene(path)))


def test_alpha_is_a_coordinate_not_a_band(tmp_path):
    pixels = np.concatenate([corner([(0, 0, 0)]), np.array([[[255, 0, 255, 128]] * 2], np.uint8)])
    path = write(tmp_path / "a.tif", pixels, colors=("red", "green", "blue", "alpha"))
    scene = open_scene(path, chunks=3)
    assert bands_of(scene) == ["red", "green", "blue"]
    assert scene.attrs["nodata_values"] == []
    assert isinstance(scene["seen"].data, da.Array)
    assert seen_mask(scene).values.tolist() == [[True, False, True, True]] * 2
    assert seen_mask(scene.isel(x=slice(1, 3))).values.tolist() == [[False, True]] * 2


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_mask_inside_the_file_counts(tmp_path, dtype):
    path, mask = tmp_path / "a.tif", np.array([[255, 0, 255, 255]] * 2, np.uint8)
    profile = {
        "driver": "GTiff",
        "count": 3,
        "height": 2,
        "width": 4,
        "dtype": dtype,
        "crs": "EPSG:3413",
        "transform": ORIGIN,
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as raster:
        raster.write(corner([]).astype(dtype))
        raster.write_mask(mask)
        raster.descriptions = ("red", "green", "blue")
    scene = open_scene(path, scale=None if dtype == "uint8" else 1e-4)
    assert seen_mask(scene).values.tolist() == [[True, False, True, True]] * 2
    assert bool(np.isnan(scene.sel(band="red")).any()) == (dtype == "uint16")


def test_the_seen_mask_carries_its_grid_and_survives_zarr(tmp_path):
    path = write(tmp_path / "a_2019-07-13.tif", corner([(0, 0, 0), (1, 1, 1)]))
    scene = open_scene(path, chunks=3)
    mask = seen_mask(scene)
    assert mask.name == "seen"
    assert mask.dtype == bool
    assert mask.dims == ("y", "x")
    assert set(mask.coords) == {"y", "x", "spatial_ref", "time"}
    assert mask.odc.geobox == scene.odc.geobox
    store = tmp_path / "cube.zarr"
    scene.assign_coords(band=[0, 1, 2]).chunk(band=1, y=1).to_zarr(store, consolidated=False)
    again = xr.open_dataarray(store, engine="zarr", consolidated=False, chunks={}, decode_coords="all")
    np.testing.assert_array_equal(seen_mask(again), mask)
    np.testing.assert_array_equal(seen_mask(again.isel(y=[0])), mask[:1])


def test_rasters_of_users_own_making():
    pixels = corner([(0, 0, 0), (0, 0, 7)])
    plain = xr.DataArray(pixels, dims=("band", "y", "x"))
    assert seen_mask(plain).all()
    assert seen_mask(plain.assign_attrs(_FillValue=0)).values[0].tolist() == [False, True, True, True]
    assert seen_mask(plain.rio.write_nodata(0)).values[0].tolist() == [False, True, True, True]
    holes = plain.astype("float32").where(plain != 7)
    assert seen_mask(holes).values[0].tolist() == [True, False, True, True]
    assert seen_mask(plain.isel(band=0).assign_attrs(nodata_values=[0])).values[0].tolist() == [
        False,
        False,
        True,
        True,
    ]
    lazy = holes.chunk(band=1, y=1, x=3).expand_dims(time=2).transpose("y", "time", "x", "band")
    mask = seen_mask(lazy)
    assert mask.dims == ("time", "y", "x")
    np.testing.assert_array_equal(mask.isel(time=1), seen_mask(holes))
