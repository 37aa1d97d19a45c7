"""Elevation models: tiles to one raster, the same as on plain arrays whatever the chunks, and clear errors."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

import lakescale as ls
from lakescale.dem import mosaic, open_dem, pixels

pytestmark = pytest.mark.usefixtures("one_thread")

WEST, NORTH, STEP = -180_000.0, -2_200_000.0, 10.0


def write_tile(path, heights, row=0, col=0, **options):
    """Write a tile whose first pixel is (row, col) of a 10 m grid; NaN as nodata -9999."""
    heights = np.asarray(heights)
    nodata = options.pop("nodata", -9999.0)
    if heights.dtype.kind == "f" and nodata is not None:
        heights = np.where(np.isnan(heights), heights.dtype.type(nodata), heights)
    step = options.pop("step", STEP)
    place = from_origin(WEST + col * STEP, NORTH - row * STEP, step, step)
    profile = {
        "driver": "GTiff", "count": 1, "height": heights.shape[0], "width": heights.shape[1], "dtype": heights.dtype,
        "crs": "EPSG:3413", "nodata": nodata, "transform": place,
    } | options  # fmt: skip
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as sink:
        sink.write(heights, 1)
    return str(path)


def random_heights(rng, shape, voids=0.3):
    heights = (rng.random(shape) * 1000).astype(np.float32)
    heights[rng.random(shape) < voids] = np.nan
    return heights


def plain_mosaic(tiles, overlap):
    """Join tiles on one array: what `open_dem` must equal."""
    top, left = (min(tile[k] for tile in tiles) for k in (1, 2))
    bottom = max(row + heights.shape[0] for heights, row, _ in tiles)
    right = max(col + heights.shape[1] for heights, _, col in tiles)
    stack = np.full((len(tiles), bottom - top, right - left), np.nan)
    for layer, (heights, row, col) in zip(stack, tiles, strict=True):
        layer[row - top : row - top + heights.shape[0], col - left : col - left + heights.shape[1]] = heights
    valid = ~np.isnan(stack)
    if overlap == "mean":
        total = np.zeros(stack.shape[1:])
        for layer, is_valid in zip(stack, valid, strict=True):
            total[is_valid] += layer[is_valid]
        with np.errstate(invalid="ignore"):
            return (total / valid.sum(axis=0)).astype(np.float32)
    return np.take_along_axis(stack, valid.argmax(axis=0)[None], axis=0)[0].astype(np.float32)


@settings(max_examples=25)
@given(st.data(), st.sampled_from(["first", "mean"]))
def test_any_tiles_in_any_chunks_equal_one_array(tmp_path_factory, data, overlap):
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    tiles, paths = [], []
    for k in range(data.draw(st.integers(1, 5))):
        shape, at = rng.integers(1, 40, 2), rng.integers(-30, 30, 2)
        tiles.append((random_heights(rng, shape), *at))
        blocks = {"tiled": True, "blockxsize": 16, "blockysize": 16} if k % 2 else {}
        paths.append(write_tile(folder / f"{k}.tif", tiles[-1][0], *at, **blocks))
    for chunks in (data.draw(st.integers(1, 20)), 2048):
        dem = open_dem(paths, overlap=overlap, chunks=chunks)
        assert dem.dtype == np.float32
        assert max(dem.data.chunks[0] + dem.data.chunks[1]) <= chunks
        np.testing.assert_array_equal(dem.values, plain_mosaic(tiles, overlap))
    left, top = min(t[2] for t in tiles), min(t[1] for t in tiles)
    assert ls.Grid.of(dem).transform[:6] == (STEP, 0, WEST + left * STEP, 0, -STEP, NORTH - top * STEP)


def test_building_computes_nothing_and_opens_each_tile_once(tmp_path, never_compute, monkeypatch):
    paths = [write_tile(tmp_path / f"{k}.tif", np.ones((20, 20), "f4"), 0, 18 * k) for k in range(4)]
    opened = []
    original = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda path, *rest, **kw: opened.append(path) or original(path, *rest, **kw))
    dem = open_dem(paths, chunks=8)
    assert sorted(opened) == sorted(paths)
    assert dem.sizes == {"y": 20, "x": 74}


def test_a_chunk_opens_only_the_tiles_that_it_meets(tmp_path, monkeypatch):
    paths = [write_tile(tmp_path / f"{k}.tif", np.full((20, 20), k, "f4"), 0, 18 * k) for k in range(4)]
    dem = open_dem(paths, chunks=16)
    opened = []
    original = rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda path, *rest, **kw: opened.append(path) or original(path, *rest, **kw))
    assert (dem[:, -4:].values == 3).all()
    assert set(opened) == {paths[3]}
    tasks = dem.data.__dask_graph__()
    assert max(len(pickle.dumps(tasks[key])) for key in tasks if "plan" in str(key)) < 6000


def counting_reads(monkeypatch, block):
    """Count how often each block of each file is decoded."""
    counts = {}
    original = pixels.read_window

    def read(path, indexes, window):
        (top, bottom), (left, right) = window.toranges()
        for i in range(top // block, -(-bottom // block)):
            for j in range(left // block, -(-right // block)):
                counts[path, i, j] = counts.get((path, i, j), 0) + 1
        return original(path, indexes, window)

    monkeypatch.setattr(pixels, "read_window", read)
    return counts


@pytest.mark.parametrize("chunks", [20, 40, 64, 100, 300])
def test_blocks_of_one_file_are_decoded_once(tmp_path, monkeypatch, chunks):
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 32}
    path = write_tile(tmp_path / "dem.tif", random_heights(np.random.default_rng(0), (200, 250)), **tiled)
    counts = counting_reads(monkeypatch, 32)
    open_dem(path, chunks=chunks).compute()
    assert len(counts) == 7 * 8
    assert set(counts.values()) == {1}


def test_blocks_of_arcticdem_like_tiles_are_decoded_once(tmp_path, monkeypatch):
    """Tiles of 100 + 2 * 3 pixels every 100 pixels, as the 100 m buffers of ArcticDEM, in blocks of 16."""
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    rng = np.random.default_rng(1)
    for i in range(3):
        for j in range(3):
            heights = random_heights(rng, (106, 106), voids=0.1)
            write_tile(tmp_path / f"{i}_{j}_10m_v4.1_dem.tif", heights, 100 * i - 3, 100 * j - 3, **tiled)
    counts = counting_reads(monkeypatch, 16)
    open_dem(tmp_path, chunks=40).compute()
    assert len(counts) == 9 * 7 * 7
    assert set(counts.values()) == {1}


def test_files_of_strips_are_read_in_whole_rows(tmp_path, monkeypatch):
    path = write_tile(tmp_path / "dem.tif", np.ones((64, 400), "f4"), blockysize=1)
    counts = counting_reads(monkeypatch, 400)
    rows = []
    original = pixels.read_window
    monkeypatch.setattr(pixels, "read_window", lambda p, i, w: rows.append(w.width) or original(p, i, w))
    assert open_dem(path, chunks=40).data.chunks == ((40, 24), (40,) * 10)
    open_dem(path, chunks=40).compute()
    assert set(rows) == {400}
    assert counts


@given(st.data())
def test_chunks_along_an_axis_cover_it_and_stay_small(data):
    size = data.draw(st.integers(1, 200))
    count = data.draw(st.integers(1, 4))
    start = np.array([data.draw(st.integers(0, size - 1)) for _ in range(count)])
    length = np.array([data.draw(st.integers(1, size - first)) for first in start])
    block = np.array([data.draw(st.integers(1, 40)) for _ in range(count)])
    side = data.draw(st.integers(1, 50))
    chunks = mosaic.align_axis(start, np.column_stack([length, block]), size, side)
    assert sum(chunks) == size
    assert min(chunks) >= 1
    assert max(chunks) <= max(side, np.minimum(block, length).max())


# -- ArcticDEM's folders


def test_in_a_folder_of_arcticdem_only_elevation_is_taken(tmp_path, caplog):
    heights = np.full((10, 10), 500, "f4")
    write_tile(tmp_path / "14_37_10m_v4.1_dem.tif", heights)
    for suffix in ("count", "mad", "mindate", "maxdate", "datamask", "browse"):
        write_tile(tmp_path / f"14_37_10m_v4.1_{suffix}.tif", np.ones((10, 10), "u1"), nodata=0)
    with caplog.at_level(logging.INFO):
        dem = open_dem(tmp_path)
    assert dem.attrs["source"] == "14_37_10m_v4.1_dem.tif"
    assert dem.attrs["skipped"].endswith("and 3 more")
    assert "6 files beside the DEM" in caplog.text
    assert dem.attrs["tiles"] == 1
    assert dem.attrs["units"] == "m"
    assert dem.attrs["date"] == "unknown"
    assert dem.name == "dem"
    assert (dem.values == 500).all()


def test_tiles_may_lie_in_subfolders_and_the_first_by_name_wins(tmp_path):
    write_tile(tmp_path / "14_38" / "14_38_10m_v3.0_reg_dem.tif", np.full((10, 12), 2, "f4"), 0, 8)
    write_tile(tmp_path / "14_37" / "14_37_10m_v3.0_reg_dem.tif", np.full((10, 12), 1, "f4"))
    assert open_dem(tmp_path).values[0].tolist() == [1] * 12 + [2] * 8
    given_order = [str(tmp_path / f"14_{k}" / f"14_{k}_10m_v3.0_reg_dem.tif") for k in (38, 37)]
    assert open_dem(given_order).values[0].tolist() == [1] * 8 + [2] * 12
    assert open_dem(str(tmp_path / "*" / "*.tif"), overlap="mean").values[0, 7:13].tolist() == [1, *[1.5] * 4, 2]


def test_strips_tell_their_dates(tmp_path):
    names = (
        "SETSM_s2s041_WV01_20160716_1020_1020_2m_lsf_seg1_dem.tif",
        "SETSM_s2s041_WV02_20110501_1_1_2m_seg1_dem.tif",
    )
    for k, name in enumerate(names):
        write_tile(tmp_path / name, np.ones((4, 4), "f4"), 0, k)
        write_tile(tmp_path / name.replace("_dem", "_bitmask"), np.zeros((4, 4), "u1"), nodata=None)
    attrs = open_dem(tmp_path).attrs
    assert (attrs["date_start"], attrs["date_end"]) == ("2011-05-01", "2016-07-16")
    path = write_tile(tmp_path / "other" / "dem.tif", np.ones((4, 4), "f4"))
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(ACQUISITION_DATE="2019-07-23", TIFFTAG_DATETIME="2023:01:01 00:00:00")
    assert open_dem(path).attrs["date_start"] == "2019-07-23"


def test_a_vrt_and_a_glob_are_opened(tmp_path):
    path = write_tile(tmp_path / "tile.tif", np.arange(12, dtype="f4").reshape(3, 4))
    (tmp_path / "all.vrt").write_text(
        f"""<VRTDataset rasterXSize="4" rasterYSize="3"><SRS>EPSG:3413</SRS>
        <GeoTransform>{WEST}, 10, 0, {NORTH}, 0, -10</GeoTransform><VRTRasterBand dataType="Float32" band="1">
        <SimpleSource><SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
        </VRTRasterBand></VRTDataset>"""
    )
    for source in (tmp_path / "all.vrt", str(tmp_path / "t*.tif"), [path]):
        np.testing.assert_array_equal(open_dem(source).values, np.arange(12).reshape(3, 4))


# -- what the numbers mean


def test_integers_scale_offset_and_declared_nodata(tmp_path):
    path = write_tile(tmp_path / "dem.tif", np.array([[10, 20, -32768]], "i2"), nodata=-32768)
    assert np.array_equal(open_dem(path).values, [[10, 20, np.nan]], equal_nan=True)
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = (0.1,), (5.0,)
    expected = np.array([[10 * 0.1 + 5, 20 * 0.1 + 5, np.nan]], np.float32)
    np.testing.assert_array_equal(open_dem(path).values, expected)


def test_nodata_overrides_and_nan_is_always_void(tmp_path):
    path = write_tile(tmp_path / "dem.tif", np.array([[1, -5, -9999, np.nan]], "f4"), nodata=None)
    assert np.isnan(open_dem(path, nodata=-9999).values).tolist() == [[False, False, True, True]]
    other = write_tile(tmp_path / "other.tif", np.array([[1, -5, -9999]], "f4"))
    assert np.isnan(open_dem(other, nodata=-5, limits=None).values).tolist() == [[False, True, False]]


def test_a_nodata_value_beyond_the_files_type_is_no_trouble(tmp_path):
    path = write_tile(tmp_path / "dem.tif", np.array([[1, 2]], "f4"), nodata=None)
    assert open_dem(path, nodata=-1.7976931348623157e308).values.tolist() == [[1, 2]]
    small = write_tile(tmp_path / "small.tif", np.array([[1, 2]], "u1"), nodata=None)
    assert open_dem(small, nodata=-9999).values.tolist() == [[1, 2]]


def test_a_mask_band_hides_voids(tmp_path):
    path = write_tile(tmp_path / "dem.tif", np.array([[1, 2, 3]], "f4"), nodata=None)
    with rasterio.open(path, "r+") as raster:
        raster.write_mask(np.array([[255, 0, 255]], "u1"))
    assert np.isnan(open_dem(path).values).tolist() == [[False, True, False]]


def test_an_alpha_band_hides_voids(tmp_path):
    with rasterio.open(
        tmp_path / "dem.tif", "w", driver="GTiff", count=2, height=1, width=3, dtype="int16", crs="EPSG:3413",
        transform=from_origin(5, 5, 1, 1), photometric="MINISBLACK", alpha="YES",
    ) as sink:  # fmt: skip
        sink.write(np.array([[[7, 8, 9]], [[255, 255, 0]]], "i2"))
    np.testing.assert_array_equal(open_dem(tmp_path / "dem.tif").values, [[7, 8, np.nan]])


def test_values_that_no_elevation_has_are_named(tmp_path):
    heights = np.full((20, 30), 100, "f4")
    heights[12, 25:] = -9999
    heights[13, 29] = -8000
    path = write_tile(tmp_path / "dem.tif", heights, nodata=None)
    dem = open_dem(path)
    with pytest.raises(ls.InputError, match=r"6 elevations outside -500\.\.9000 m, 5 of them -9999") as caught:
        dem.compute()
    assert "dem.tif, rows 0 to 20, columns 0 to 30" in str(caught.value)
    assert "give nodata=-9999 (--dem-nodata), or other limits=" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    assert open_dem(path, limits=None).values.min() == -9999
    for overlap in ("first", "mean"):
        with pytest.raises(ls.InputError, match="outside"):
            open_dem(path, limits=(0, 50), overlap=overlap).compute()


# -- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crs": "EPSG:32622"}, "different CRS: EPSG:3413 and EPSG:32622"),
        ({"step": 2.0}, "different resolution: 10 x -10 and 2 x -2"),
        ({"col": 3.4}, r"do not align: b.tif lies 0.400 pixels off"),
    ],
)
def test_tiles_that_do_not_fit_are_named(tmp_path, options, message):
    a = write_tile(tmp_path / "a.tif", np.ones((5, 5), "f4"))
    b = write_tile(tmp_path / "b.tif", np.ones((5, 5), "f4"), **options)
    with pytest.raises(ls.InputError, match=message) as caught:
        open_dem([a, b])
    assert caught.value.item == f"{a}, {b}"
    assert "gdalwarp" in caught.value.mend


def test_files_that_are_no_dem_are_named(tmp_path):
    (tmp_path / "text.tif").write_text("nothing")
    with pytest.raises(ls.InputError, match="cannot be opened as a raster"):
        open_dem(tmp_path / "text.tif")
    with pytest.raises(ls.InputError, match="no such file"):
        open_dem(tmp_path / "gone.tif")
    with pytest.raises(ls.InputError, match="without a CRS"):
        open_dem(write_tile(tmp_path / "nowhere.tif", np.ones((5, 5), "f4"), crs=None))
    with rasterio.open(
        tmp_path / "rgb.tif", "w", driver="GTiff", count=3, height=2, width=2, dtype="uint8", crs="EPSG:3413",
        transform=from_origin(5, 5, 1, 1),
    ) as sink:  # fmt: skip
        sink.write(np.ones((3, 2, 2), "uint8"))
    with pytest.raises(ls.InputError, match="a DEM has one band, this file has 3"):
        open_dem(tmp_path / "rgb.tif")


def test_a_file_damaged_in_the_middle_is_named(tmp_path):
    heights = np.random.default_rng(0).random((256, 256)).astype("f4")
    path = write_tile(tmp_path / "dem.tif", heights, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8000] = bytes(8000)
    Path(path).write_bytes(data)
    dem = open_dem(path, chunks=64)
    with pytest.raises(ls.InputError, match=r"rows \d+ to \d+, columns \d+ to \d+ cannot be read") as caught:
        dem.compute()
    assert caught.value.item == path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": "last"}, "first, mean"),
        ({"chunks": 0}, "whole number"),
        ({"limits": (9, 1)}, "lowest and a highest"),
    ],
)
def test_options_are_checked(tmp_path, options, message):
    path = write_tile(tmp_path / "dem.tif", np.ones((5, 5), "f4"))
    with pytest.raises(ls.InputError, match=message):
        open_dem(path, **options)


def test_degrees_are_opened(tmp_path):
    path = write_tile(
        tmp_path / "dem.tif", np.ones((5, 5), "f4"), crs="EPSG:4326", transform=from_origin(-50, 70, 1, 1)
    )
    assert open_dem(path).odc.crs.epsg == 4326


def test_a_real_dem(data_dir):
    path = data_dir / "dem" / "greenland_icecap_100m.tif"
    with rasterio.open(path) as raster:
        expected = raster.read(1)
    dem = open_dem(path, chunks=100)
    np.testing.assert_array_equal(dem.values, expected.astype("f4"))
    assert ls.Grid.of(dem).pixel_size_m == pytest.approx(100, rel=0.01)
