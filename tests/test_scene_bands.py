"""Scenes: the bands and dates that names, descriptions and callers give."""

import datetime as dt

import numpy as np
import pytest
from scene_files import S2_OLD, bands_of, dn, rgb, write

from lakescale.scene import names, open_scene
from lakescale.schema import InputError

# ---------------------------------------------------------------- bands


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("T22WEV_20190723T151911_B02_10m.jp2", "blue"),
        ("T22WEV_20190723T151911_B8A.jp2", "nir08"),
        ("S2_22WEV_20190723_B04_red.tif", "red"),
        ("T22WEV_20190723T151911_B11.jp2", "swir1"),
        ("T22WEV_20190723T151911_B10.jp2", "cirrus"),
        ("T22WEV_20190723T151911_SCL_20m.jp2", "scl"),
        ("S2A_20190723_B4.tif", "red"),
        ("LC08_L2SP_008013_20190705_20200827_02_T1_SR_B2.TIF", "blue"),
        ("LC09_L2SP_008013_20220705_20220827_02_T1_SR_B5.TIF", "nir"),
        ("LC08_L2SP_008013_20190705_20200827_02_T1_ST_B10.TIF", None),
        ("LT05_L2SP_008013_19900705_20200827_02_T1_SR_B4.TIF", "nir"),
        ("LE07_L2SP_008013_20020705_20200827_02_T1_SR_B1.TIF", "blue"),
        ("HLS.L30.T22WEV.2019204T150921.v2.0.B05.tif", "nir"),
        ("scene_green.tif", "green"),
        ("evergreen.tif", None),
        ("B021.tif", None),
        ("scene_B4.tif", None),
        ("scene_B04.tif", "red"),
    ],
)
def test_bands_in_file_names(name, band):
    assert names.band_of(name, names.product_of(name).family) == band


def test_a_folder_of_bands_comes_in_order_of_wavelength(tmp_path):
    for code in ("B12", "B02", "B08", "B8A", "B04", "B03", "B05", "B01", "B11"):
        write(tmp_path / f"S2A_MSIL2A_20190713_N0213_{code}.tif", dn())
    expected = ["coastal", "blue", "green", "red", "rededge1", "nir", "nir08", "swir1", "swir2"]
    assert bands_of(open_scene(tmp_path)) == expected
    assert bands_of(open_scene(tmp_path, bands=["red", "blue"])) == ["red", "blue"]


def test_two_files_for_a_band_are_named(tmp_path):
    for name in ("S2_20190713_B02_10m.tif", "S2_20190713_B02_20m.tif", "S2_20190713_B04.tif"):
        write(tmp_path / name, dn())
    with pytest.raises(InputError, match=r"band blue .S2_20190713_B02_10m.tif, S2_20190713_B02_20m.tif"):
        open_scene(tmp_path)
    assert bands_of(open_scene(tmp_path, bands=["red"])) == ["red"]


def test_descriptions_name_bands_of_one_file_in_file_order(tmp_path):
    path = write(tmp_path / S2_OLD, dn(4), names=("B8", "B4", "SWIR1", "Blue"))
    scene = open_scene(path)
    assert bands_of(scene) == ["nir", "red", "swir1", "blue"]
    picked = open_scene(path, bands=["blue", "nir"])
    np.testing.assert_array_equal(picked, scene.sel(band=["blue", "nir"]))


@pytest.mark.parametrize("wanted", [["green", "red"], ["red", "red"], "red", []])
def test_bands_that_cannot_be_chosen(tmp_path, wanted):
    path = write(tmp_path / S2_OLD, dn(2), names=("red", "blue"))
    with pytest.raises(InputError, match=r"no band|twice"):
        open_scene(path, bands=wanted)
    with pytest.raises(
        InputError, match=r"no band green \[.*choose among bands: red, blue|Choose among bands: red, blue"
    ):
        open_scene(path, bands=["green", "red"])


def test_unknown_bands_have_to_be_named(tmp_path):
    path = write(tmp_path / "a.tif", dn(2))
    with pytest.raises(InputError, match=r"unknown names.*bands=\[\.\.\.\] with 2 names"):
        open_scene(path, scale=1e-4)
    assert bands_of(open_scene(path, bands=["blue", "red"], scale=1e-4)) == ["blue", "red"]
    with pytest.raises(InputError, match="with 2 names"):
        open_scene(path, bands=["blue"], scale=1e-4)
    single = [write(tmp_path / f"{name}.tif", dn()) for name in ("x", "y")]
    assert bands_of(open_scene(single, bands=["red", "blue"], scale=1e-4)) == ["red", "blue"]


def test_uint8_without_colors_is_rgb_and_may_be_named_otherwise(tmp_path):
    path = write(tmp_path / "a.tif", rgb(), photometric="minisblack")
    assert bands_of(open_scene(path)) == ["red", "green", "blue"]
    assert bands_of(open_scene(path, bands=["nir", "red", "green"])) == ["nir", "red", "green"]
    four = write(tmp_path / "b.tif", np.concatenate([rgb(), rgb()[:1]]), photometric="minisblack", alpha="no")
    assert bands_of(open_scene(four)) == ["red", "green", "blue", "nir"]


def test_a_fourth_band_that_gdal_takes_for_alpha_can_be_named(tmp_path):
    path = write(tmp_path / "a.tif", np.concatenate([rgb(), rgb()[:1]]), colors=("red", "green", "blue", "alpha"))
    scene = open_scene(path, bands=["red", "green", "blue", "nir"])
    assert bands_of(scene) == ["red", "green", "blue", "nir"]
    assert "seen" not in scene.coords


# ---------------------------------------------------------------- dates


@pytest.mark.parametrize(
    ("path", "day", "words"),
    [
        (S2_OLD, "2019-07-13", f"first of 2 dates in the name {S2_OLD}: 2019-07-13, 2019-07-13"),
        ("LC08_L1GT_126111_20190331_20190401_01_RT.tiff", "2019-03-31", "first of 2 dates"),
        ("Greenland26X_22W_Sentinel2_2019-06-03_05.tif", "2019-06-03", "the date in the name"),
        ("a_2019_06_03_b.tif", "2019-06-03", "the date in the name"),
        ("2021-02-03/B02.tif", "2021-02-03", "the date in the folder's name 2021-02-03"),
        ("20210203/20190713_B02.tif", "2019-07-13", "in the name 20190713_B02.tif"),
        ("x20191399_20190713.tif", "2019-07-13", "the date in the name"),
        ("120190713_201907131.tif", None, "none found"),
        ("19690713_21000101.tif", None, "none found"),
        ("a/2019-07-13/b/c.tif", None, "none found"),
    ],
)
def test_dates_in_names(path, day, words):
    asset = names.asset_of_path(f"/no/{path}")
    assert (asset.day.isoformat() if asset.day else None) == day
    assert words in asset.day_source


@pytest.mark.parametrize(
    "value",
    [
        "2020-02-29",
        "20200229",
        "2020-02-29T12:00",
        dt.date(2020, 2, 29),
        dt.datetime(2020, 2, 29, 5, tzinfo=dt.UTC),
        np.datetime64("2020-02-29T05"),
    ],
)
def test_the_option_date_wins(tmp_path, value):
    scene = open_scene(write(tmp_path / "a_2019-07-13.tif", rgb()), date=value)
    assert scene["time"].values == np.datetime64("2020-02-29", "ns")
    assert scene.attrs["date_source"] == "the date= argument"


@pytest.mark.parametrize("value", ["2019-02-30", "summer", "2019", "x2019-01-01", "2019-01-01x", np.datetime64("NaT")])
def test_the_option_date_must_be_a_date(tmp_path, value):
    with pytest.raises(InputError, match="date= is not a date"):
        open_scene(write(tmp_path / "a.tif", rgb()), date=value)


def test_a_folder_of_several_dates_wants_a_choice(tmp_path):
    for day in ("20190713", "20190723"):
        write(tmp_path / f"S2_{day}_B02.tif", dn())
    with pytest.raises(InputError, match=r"2 dates: 2019-07-13, 2019-07-23.*date="):
        open_scene(tmp_path)
    scene = open_scene(tmp_path, date="2019-07-23")
    assert scene.attrs["source"] == "S2_20190723_B02.tif"
    with pytest.raises(InputError, match="2 dates"):
        open_scene(tmp_path, date="2019-08-01")
