"""Scenes: what comes out of which source, laziness, errors that name the file, and real scenes."""

import json
import logging
import os
import pickle

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from rasterio.shutil import copy
from scene_files import ORIGIN, S2_NEW, S2_OLD, bands_of, dn, from_origin, rgb, write

from lakescale.grid import Grid
from lakescale.scene import open_scene, seen_mask
from lakescale.scene.pixels import Plane, Reader
from lakescale.schema import InputError

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
    reader = Reader(tuple(Plane(str(path), one) for one in (1, 2, 3)), pixels.shape, pixels.dtype)
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
    scene = open_scene(write(tmp_path / "a.tif", rgb(), tiled=True, blockxsize=16, blockysize=16), chunks=16)
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
    path = write(tmp_path / "red.tif", dn(shape=(64, 64)), tiled=True, blockxsize=32, blockysize=32)
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


# ---------------------------------------------------------------- real scenes


def test_the_real_scene_of_the_main_job(data_dir):
    folder = data_dir / "scenes" / "22WEV_2019-07-23"
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


def test_all_fluidsurrf_crops_open(data_dir):
    paths = sorted((data_dir / "scenes" / "fluidsurrf").glob("*.tif"))
    assert len(paths) == 20
    for path in paths:
        scene = open_scene(path)
        assert bands_of(scene) == ["red", "green", "blue"]
        assert scene.dtype == np.uint8
        assert scene.attrs["radiometry"] == "rgb8"
        assert scene.attrs["nodata_values"] == [0]
        assert seen_mask(scene).any()


def test_the_dates_of_the_doline(data_dir):
    folder = data_dir / "scenes" / "amery_doline"
    days = [str(open_scene(path)["time"].values)[:10] for path in sorted(folder.glob("*.tiff"))]
    assert days == ["2019-03-31", "2020-01-29", "2019-09-14"]
    with pytest.raises(InputError, match="3 dates"):
        open_scene(folder)
    assert open_scene(folder, date="2020-01-29").sizes["x"] == 1578
