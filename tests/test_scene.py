"""Scenes: names, dates, radiometry, nodata, laziness, and errors that name the file."""

import datetime as dt
import json
import logging
import os
import pickle
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.shutil import copy
from rasterio.windows import Window

from lakescale import scene as scene_module
from lakescale import scene_names as names
from lakescale.grid import Grid
from lakescale.scene import open_scene, seen_mask
from lakescale.schema import InputError


def from_origin(west, north, width, height):
    return Affine(width, 0, west, 0, -height, north)  # rasterio's own multiplies, which affine 3 warns about


ORIGIN = from_origin(600_000, 7_400_000, 10, 10)
S2_OLD = "S2A_MSIL2A_20190713T150921_N0213_R025_T22WFB_20190713T191839.tif"
S2_NEW = "S2A_MSIL2A_20220713T150921_N0400_R025_T22WFB_20220713T191839.tif"


@pytest.fixture
def real_data():
    folder = os.environ.get("LAKESCALE_DATA")
    if not folder:
        pytest.skip("needs real scenes: set LAKESCALE_DATA to the folder that holds them")
    return Path(folder)


def write(path, pixels, *, crs="EPSG:32622", transform=ORIGIN, names=None, colors=None, scale=None, tags=None, **more):
    pixels = np.asarray(pixels)
    pixels = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    count, height, width = pixels.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype, "crs": crs}
    with rasterio.open(path, "w", **profile, transform=transform, **more) as raster:
        raster.write(pixels)
        if names:
            raster.descriptions = names
        if colors:
            raster.colorinterp = [ColorInterp[color] for color in colors]
        if scale:
            raster.scales, raster.offsets = [scale[0]] * count, [scale[1]] * count
        if tags:
            raster.update_tags(**tags)
    return path


def dn(count=1, low=2000, high=9000, shape=(20, 30)):
    return np.random.default_rng(7).integers(low, high, (count, *shape), dtype=np.uint16)


def rgb(shape=(20, 30)):
    return np.random.default_rng(7).integers(2, 255, (3, *shape), dtype=np.uint8)


def bands_of(scene):
    return scene["band"].values.tolist()


# ---------------------------------------------------------------- what comes out


def test_rgb_stays_as_it_is_with_names_grid_and_time(tmp_path):
    pixels = rgb()
    scene = open_scene(write(tmp_path / "lake_2019-07-13.tif", pixels, nodata=0))
    assert scene.dims == ("band", "y", "x")
    assert scene.dtype == np.uint8
    assert isinstance(scene.data, da.Array)
    assert bands_of(scene) == ["red", "green", "blue"]
    np.testing.assert_array_equal(scene, pixels)
    assert scene["time"].values == np.datetime64("2019-07-13", "ns")
    assert scene["time"].dtype == "datetime64[ns]"
    assert scene.attrs["radiometry"] == "rgb8"
    assert scene.attrs["nodata_values"] == [0]
    assert scene.attrs["source"] == "lake_2019-07-13.tif"


def test_the_grid_is_read_by_rioxarray_odc_and_grid(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", rgb()))
    assert scene.rio.crs.to_epsg() == 32622
    assert scene.odc.geobox.affine == ORIGIN
    assert Grid.of(scene).transform == ORIGIN
    assert float(scene["x"][0]) == 600_005
    assert float(scene["y"][0]) == 7_399_995
    assert "time" not in scene.coords
    assert scene.attrs["date_source"] == "none found"


def test_degrees_are_opened_too(tmp_path):
    path = write(tmp_path / "a.tif", rgb(), crs="EPSG:4326", transform=from_origin(-50, 67, 0.001, 0.001))
    scene = open_scene(path)
    assert scene.dims == ("band", "y", "x")
    assert {"y", "x", "spatial_ref"} <= set(scene.coords)
    assert scene.odc.geobox.crs.epsg == 4326
    with pytest.raises(InputError, match="metres are needed"):
        Grid.of(scene).require_metres("a.tif")


def test_attrs_are_plain_json(tmp_path):
    for scene in (
        open_scene(write(tmp_path / S2_OLD, rgb())),
        open_scene(write(tmp_path / S2_NEW, dn(3), names=("red", "green", "blue"))),
    ):
        assert json.loads(json.dumps(scene.attrs)) == scene.attrs


@pytest.mark.parametrize("chunks", [1, 7, 16, 100])
def test_any_chunking_is_no_chunking(tmp_path, chunks):
    pixels = dn(2)
    path = write(tmp_path / S2_NEW, pixels, names=("B02", "B04"), nodata=0)
    scene = open_scene(path, chunks=chunks)
    assert scene.data.chunksize == (2, min(chunks, 20), min(chunks, 30))
    np.testing.assert_array_equal(scene, open_scene(path))


@pytest.mark.parametrize(
    "key",
    [
        np.s_[1],
        np.s_[:, 3],
        np.s_[:, :, -1],
        np.s_[::2, ::3, ::-2],
        np.s_[1:1],
        np.s_[:, 5:9, 20:],
        np.s_[::-1, 19:2:-4, 4],
    ],
)
def test_basic_indexing_reads_the_right_pixels(tmp_path, key):
    pixels = rgb()
    path = write(tmp_path / "a.tif", pixels)
    np.testing.assert_array_equal(open_scene(path, chunks=8)[key].values, pixels[key])
    reader = scene_module._Reader(
        tuple(scene_module._Take(str(path), one) for one in (1, 2, 3)), pixels.shape, pixels.dtype
    )
    key = key if isinstance(key, tuple) else (key,)
    np.testing.assert_array_equal(reader[(*key, *[slice(None)] * (3 - len(key)))], pixels[key])


@pytest.mark.parametrize("chunks", [0, -1, True, 1.5])
def test_chunks_must_be_pixels(tmp_path, chunks):
    with pytest.raises(InputError, match="chunks="):
        open_scene(write(tmp_path / "a.tif", rgb()), chunks=chunks)


def test_opening_computes_nothing_and_tasks_have_names(tmp_path):
    def refuse(*_, **__):
        raise AssertionError("computed while building")

    s2 = write(tmp_path / S2_NEW, dn(2), names=("B02", "B04"))
    rgba = write(tmp_path / "rgba.tif", np.concatenate([rgb(), rgb()[:1]]), colors=("red", "green", "blue", "alpha"))
    with dask.config.set(scheduler=refuse):
        for path in (s2, rgba):
            scene = open_scene(path, chunks=8)
            mask = seen_mask(scene)
            repr(scene), repr(mask)
            layers = list(mask.data.dask.layers)
            assert any(layer.startswith("read-scene-") for layer in layers)
            assert any(layer.startswith("seen-mask-") for layer in layers)


def test_all_bands_of_a_chunk_are_one_task(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", rgb()), chunks=16)
    assert scene.data.numblocks == (1, 2, 2)
    assert len(dict(scene.data.__dask_graph__())) == 4


def test_the_data_survive_pickling_and_processes(tmp_path):
    scene = open_scene(write(tmp_path / S2_OLD, dn(3), names=("red", "green", "blue")), chunks=16)
    again = pickle.loads(pickle.dumps(scene.data))
    np.testing.assert_array_equal(again.compute(scheduler="sync"), scene.values)


def test_names_of_tasks_follow_the_file_and_the_options(tmp_path):
    path = write(tmp_path / "red_2019-07-13.tif", dn())
    one, same, other = (open_scene(path, scale=scale).data.name for scale in (1e-4, 1e-4, 2e-4))
    assert one == same != other
    os.utime(path, ns=(1, 1))
    assert open_scene(path, scale=1e-4).data.name != one


# ---------------------------------------------------------------- sources


def test_lists_globs_and_folders_agree(tmp_path):
    blue, red = (write(tmp_path / f"S2_22WEV_20190723_{code}.tif", dn(), nodata=0) for code in ("B02", "B04"))
    expected = open_scene([red, str(blue)])
    assert bands_of(expected) == ["blue", "red"]
    for source in (tmp_path, str(tmp_path), str(tmp_path / "*.tif"), tmp_path / "S2_*_B0?.tif", (blue, red)):
        xr.testing.assert_identical(open_scene(source), expected)


def test_a_vrt_opens(tmp_path):
    tif = write(tmp_path / "a.tif", rgb())
    vrt = tmp_path / "b_2020-01-02.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}"><ColorInterp>{color}</ColorInterp><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for i, color in enumerate(("Red", "Green", "Blue"), start=1)
    )
    vrt.write_text(
        '<VRTDataset rasterXSize="30" rasterYSize="20"><SRS>EPSG:32622</SRS>'
        f"<GeoTransform>600000, 10, 0, 7400000, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )
    np.testing.assert_array_equal(open_scene(vrt), open_scene(tif))


def test_urls_go_to_gdal_unchecked(tmp_path):
    path = write(tmp_path / "a.tif", rgb())
    np.testing.assert_array_equal(open_scene(f"file://{path}"), open_scene(path))
    for source in ("/vsimem/no-such.tif", "file:///no/such_2019-07-13.tif"):
        with pytest.raises(InputError, match="cannot be opened"):
            open_scene(source)


@pytest.mark.parametrize("source", ["no-such-file.tif", "no-such-*.tif", "empty", []])
def test_nothing_to_open(tmp_path, source):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no such|no raster|empty list"):
        open_scene(source if isinstance(source, list) else tmp_path / source)


@pytest.mark.parametrize("content", [b"", b"this is a text that was renamed\n", None])
def test_what_is_no_raster_is_named(tmp_path, content):
    path = tmp_path / "broken.tif"
    path.write_bytes(write(tmp_path / "good.tif", rgb()).read_bytes()[:60] if content is None else content)
    with pytest.raises(InputError, match=r"cannot be opened as a raster.*broken\.tif"):
        open_scene(path)


@pytest.mark.parametrize("kind", [{"compress": "deflate"}, {"driver": "COG", "compress": "lzw"}])
def test_a_truncated_file_is_named(tmp_path, kind):
    whole, path = tmp_path / "whole.tif", tmp_path / "S2A_MSIL2A_20190713_N0213_red.tif"
    smooth = (5000 + 1000 * np.sin(np.add.outer(np.arange(700), np.arange(800)) / 50)).astype(np.uint16)
    pixels = (smooth + dn(shape=(700, 800))[0] // 20)[np.newaxis]
    tiles = {} if "driver" in kind else {"tiled": True, "blockxsize": 128, "blockysize": 128}
    write(tmp_path / "plain.tif", pixels, **tiles, **{key: value for key, value in kind.items() if key != "driver"})
    whole = tmp_path / "plain.tif"
    if "driver" in kind:
        copy(whole, tmp_path / "cog.tif", **kind, blocksize=128)
        whole = tmp_path / "cog.tif"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=r"N0213_red\.tif") as caught:
        open_scene(path, chunks=256).compute(scheduler="threads")
    assert "rows" in str(caught.value) or "opened" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_the_error_of_a_worker_names_the_file(tmp_path):
    distributed = pytest.importorskip("distributed")
    path = write(tmp_path / "red.tif", dn(shape=(64, 64)), compress="deflate")
    scene = open_scene(path, scale=1e-4, chunks=32)
    path.write_bytes(path.read_bytes()[:400])
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        pytest.raises(InputError, match=r"rows.*red\.tif.*copy it again"),
    ):
        scene.compute()


def test_a_file_that_goes_bad_later_names_the_window(tmp_path):
    path = write(tmp_path / "red.tif", dn(shape=(64, 64)))
    scene = open_scene(path, scale=1e-4, chunks=32)
    path.unlink()
    with pytest.raises(InputError, match=r"rows 0 to 32, columns 32 to 64 cannot be read.*red\.tif.*copy it again"):
        scene[:, :32, 32:].compute()


def test_no_crs_is_refused_with_the_mend(tmp_path):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        path = write(tmp_path / "a.tif", rgb(), crs=None, transform=None)
    with pytest.raises(InputError, match=r"without a CRS.*gdal_edit\.py -a_srs EPSG"):
        open_scene(path)


def test_files_without_crs_beside_others_are_skipped_and_named(tmp_path, caplog):
    write(tmp_path / "S2_22WEV_20190723_B02.tif", dn())
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write(tmp_path / "preview.png", rgb(), crs=None, transform=None)
    write(tmp_path / "S2_22WEV_20190723_AOT.tif", dn())
    with caplog.at_level(logging.WARNING):
        scene = open_scene(tmp_path)
    assert bands_of(scene) == ["blue"]
    assert scene.attrs["skipped"] == "preview.png, S2_22WEV_20190723_AOT.tif"
    assert "preview.png" in caplog.text
    assert "AOT" in caplog.text


def test_several_images_or_a_mixture_are_refused(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"two/{name}.tif", rgb())
    write(tmp_path / "mix/tci.tif", rgb())
    write(tmp_path / "mix/S2_20190713_B02.tif", dn())
    for folder, named in (("two", "a.tif, b.tif"), ("mix", "S2_20190713_B02.tif, tci.tif")):
        with pytest.raises(InputError, match=f"{named}.*ass one of them"):
            open_scene(tmp_path / folder)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"crs": "EPSG:32623"}, "CRS: EPSG:32622 and EPSG:32623"),
        ({"transform": from_origin(600_000, 7_400_000, 20, 20)}, "resolution: 10 x -10 and 20 x -20"),
        ({"shape": (20, 31)}, r"shape: \(20, 30\) and \(20, 31\)"),
        ({"transform": from_origin(600_005, 7_400_000, 10, 10)}, "origin: .*600005.*"),
    ],
)
def test_mixed_grids_name_both_files_and_values(tmp_path, other, what):
    write(tmp_path / "S2_20190713_B02.tif", dn())
    write(tmp_path / "S2_20190713_B04.tif", dn(shape=other.pop("shape", (20, 30))), **other)
    with pytest.raises(InputError, match=rf"{what} \[S2_20190713_B02.tif, S2_20190713_B04.tif\].*bands="):
        open_scene(tmp_path)
    assert bands_of(open_scene(tmp_path, bands=["red"])) == ["red"]


def test_a_rotated_grid_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", rgb(), transform=Affine(10, 1, 600_000, 1, -10, 7_400_000))
    with pytest.raises(InputError, match="rotated"):
        open_scene(path)


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
    planes = scene_module._planes
    monkeypatch.setattr(scene_module, "_planes", lambda p, i, w: windows.append((tuple(i), w)) or planes(p, i, w))
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


# ---------------------------------------------------------------- STAC


def stac_item(folder, **properties):
    scaled = {"scale": 1e-4, "offset": -0.1, "nodata": 7}
    blue, red = {"name": "B02", "common_name": "blue"}, {"name": "B04", "eo:common_name": "red"}
    visual = [{"common_name": name} for name in ("red", "green", "blue")]
    assets = {
        "blue-jp2": {"href": f"{folder}/none.jp2", "type": "image/jp2", "eo:bands": [blue]},
        "blue": {"href": f"{folder}/1.tif", "type": "image/tiff", "eo:bands": [blue], "raster:bands": [scaled]},
        "red": {"href": "./2.tif", "bands": [red | {"raster:scale": 1e-4, "raster:offset": -0.1}], "nodata": 7},
        "swir16": {"href": f"{folder}/absent.tif", "eo:bands": [{"name": "swir16", "common_name": "swir16"}]},
        "visual": {"href": f"{folder}/none.tif", "eo:bands": visual},
        "thumbnail": {"href": f"{folder}/none.jpg", "roles": ["thumbnail"], "eo:bands": visual[:1]},
        "product_metadata": {"href": "metadata.xml"},
    }
    said = {"datetime": "2022-07-13T23:30:00-02:00", "platform": "sentinel-2a", **properties}
    return {"id": "S2A_22WEV_20220713_0_L2A", "collection": "sentinel-2-l2a", "properties": said, "assets": assets}


class PystacLike:
    def __init__(self, item):
        self.item = item

    def to_dict(self):
        return self.item


def test_stac_items_open_by_dict_object_and_path(tmp_path):
    for name in ("1.tif", "2.tif"):
        write(tmp_path / name, np.array([[[0, 7, 1500, 2500]]], np.uint16))
    item, path = stac_item(tmp_path), tmp_path / "item.json"
    item["links"] = [{"rel": "self", "href": str(path)}]
    path.write_text(json.dumps(item))
    for source in (item, PystacLike(item), path, str(path)):
        scene = open_scene(source, bands=["red", "blue"])
        assert bands_of(scene) == ["red", "blue"]
        assert scene["time"].values == np.datetime64("2022-07-14")
        assert scene.attrs["date_source"] == "the STAC item's datetime 2022-07-13T23:30:00-02:00"
        assert (scene.attrs["scale"], scene.attrs["offset"]) == (1e-4, -0.1)
        np.testing.assert_allclose(scene[0, 0], [np.nan, np.nan, 0.05, 0.15], atol=1e-7)
    with pytest.raises(InputError, match=r"absent\.tif"):
        open_scene(item)


def test_stac_offsets_that_a_mirror_removed(tmp_path):
    for low, flag, offset in ((1500, True, 0), (1500, False, -0.1), (300, False, 0)):
        for name in ("1.tif", "2.tif"):
            write(tmp_path / name, dn(low=low))
        item = stac_item(tmp_path, **{"earthsearch:boa_offset_applied": flag, "s2:processing_baseline": "05.09"})
        scene = open_scene(item, bands=["blue"])
        assert scene.attrs["offset"] == offset
        assert scene.attrs["baseline"] == "05.09"
        assert scene.attrs["product_level"] == "L2A"


@pytest.mark.parametrize("item", [{"type": "FeatureCollection", "features": []}, {"assets": {"a": {"href": "a.xml"}}}])
def test_what_is_no_usable_stac_item(tmp_path, item):
    with pytest.raises(InputError, match="STAC item"):
        open_scene(item)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json"):
        open_scene(tmp_path / "x.json")


# ---------------------------------------------------------------- real scenes


def test_the_real_scene_of_the_main_job(real_data):
    folder = real_data / "scenes" / "22WEV_2019-07-23"
    scene = open_scene(folder, chunks=512)
    assert bands_of(scene) == ["blue", "red"]
    assert scene["time"].values == np.datetime64("2019-07-23")
    assert scene.attrs["skipped"] == "S2_22WEV_20190723_truecolor.png"
    assert scene.attrs["offset"] == 0
    with rasterio.open(folder / "S2_22WEV_20190723_B04_red.tif") as raster:
        raw = raster.read(1)
    reflectance = scene.sel(band="red").values
    expected = np.where(raw == 0, np.nan, raw / 10_000).astype(np.float32)
    np.testing.assert_array_equal(np.isnan(reflectance), raw == 0)
    np.testing.assert_array_max_ulp(reflectance[raw > 0], expected[raw > 0], maxulp=1)


def test_all_fluidsurrf_crops_open(real_data):
    paths = sorted((real_data / "scenes" / "fluidsurrf").glob("*.tif"))
    assert len(paths) == 20
    for path in paths:
        scene = open_scene(path)
        assert bands_of(scene) == ["red", "green", "blue"]
        assert scene.dtype == np.uint8
        assert scene.attrs["radiometry"] == "rgb8"
        assert scene.attrs["nodata_values"] == [0]
        assert seen_mask(scene).any()


def test_the_dates_of_the_doline(real_data):
    folder = real_data / "scenes" / "amery_doline"
    days = [str(open_scene(path)["time"].values)[:10] for path in sorted(folder.glob("*.tiff"))]
    assert days == ["2019-03-31", "2020-01-29", "2019-09-14"]
    with pytest.raises(InputError, match="3 dates"):
        open_scene(folder)
    assert open_scene(folder, date="2020-01-29").sizes["x"] == 1578
