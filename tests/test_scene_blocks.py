"""Reading follows the blocks of the files: none is decoded more than twice, whatever the chunks."""

from collections import Counter

import dask
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.shutil import copy
from scene_files import dn, rgb, write

import lakescale as ls
from lakescale.cube import open_cube, write_cube
from lakescale.scene import seen_mask
from lakescale.scene.pixels import plan_window
from lakescale.storage import rasters

TILED = {"tiled": True, "compress": "deflate"}


@pytest.fixture
def decoded(monkeypatch):
    """Count how often each block of each band is met by a window that rasterio is asked for."""
    counts = Counter()
    opened = rasterio.open

    class Counting:
        def __init__(self, raster):
            self.raster = raster

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.raster.close()

        def __getattr__(self, name):
            return getattr(self.raster, name)

        def read(self, indexes, *, window):
            for band in np.atleast_1d(indexes):
                height, width = self.raster.block_shapes[band - 1]
                (top, bottom), (left, right) = window.toranges()
                bottom, right = min(bottom, self.raster.height), min(right, self.raster.width)
                for i in range(top // height, -(-bottom // height)):
                    for j in range(left // width, -(-right // width)):
                        counts[self.raster.name, int(band), i, j] += 1
            return self.raster.read(indexes, window=window)

    def count(path, *arguments, **options):  # tests write files, too
        return opened(path, *arguments, **options) if arguments else Counting(opened(path, **options))

    monkeypatch.setattr(rasters.rasterio, "open", count)
    return counts


def blocks(path, bands):
    with rasterio.open(path) as raster:
        height, width = raster.block_shapes[0]
        return bands * -(-raster.height // height) * -(-raster.width // width)


@pytest.mark.parametrize("block", [256, 512])
@pytest.mark.parametrize("chunks", [1000, 300, 700, 2048])
def test_tiles_that_do_not_divide_the_chunks_are_decoded_once(tmp_path, decoded, one_thread, block, chunks):
    image = rgb((1300, 1700))
    path = write(tmp_path / "a.tif", image, blockxsize=block, blockysize=block, **TILED)
    scene = ls.open_scene(path, chunks=chunks)
    assert scene.data.chunksize == (3, min(chunks, 1300), min(chunks, 1700))
    np.testing.assert_array_equal(scene.values, image)
    assert len(decoded) == blocks(path, 3)
    assert set(decoded.values()) == {1}


@pytest.mark.parametrize("rows", [1, 16, 100])
def test_strips_are_decoded_once(tmp_path, decoded, one_thread, rows):
    image = dn(1, shape=(900, 1100))
    path = write(tmp_path / "S2_22WEV_20190723_B04.tif", image, blockysize=rows, compress="deflate")
    scene = ls.open_scene(path, scale=1, chunks=256)
    np.testing.assert_array_equal(scene.values, image)
    assert len(decoded) == blocks(path, 1)
    assert set(decoded.values()) == {1}


def test_jpeg2000_tiles_are_decoded_once(tmp_path, decoded, one_thread):
    image = rgb((700, 800))
    plain = write(tmp_path / "plain.tif", image)
    path = tmp_path / "a.jp2"
    copy(plain, path, driver="JP2OpenJPEG", BLOCKXSIZE=256, BLOCKYSIZE=256, QUALITY=100, REVERSIBLE="YES")
    scene = ls.open_scene(path, chunks=300)
    np.testing.assert_array_equal(scene.values, image)
    assert set(decoded.values()) == {1}
    assert len(decoded) == 3 * 3 * 4


def test_a_mask_beside_the_bands_is_one_more_time_at_most(tmp_path, decoded, one_thread):
    image = np.concatenate([rgb((500, 600)), np.full((1, 500, 600), 255, np.uint8)])
    colors = ("red", "green", "blue", "alpha")
    path = write(tmp_path / "a.tif", image, blockxsize=128, blockysize=128, colors=colors, **TILED)
    scene = ls.open_scene(path, bands=["red", "blue"], chunks=200)
    dask.compute(scene.data, seen_mask(scene).data)
    assert max(decoded.values()) <= 2


@pytest.mark.parametrize("layout", [{"blockxsize": 256, "blockysize": 256, **TILED}, {"blockysize": 3}])
def test_a_cube_on_another_grid_decodes_no_block_more_than_twice(tmp_path, decoded, one_thread, layout):
    image = np.maximum(rgb((700, 900)), 2)
    path = write(tmp_path / "a_20190723.tif", image, **layout)
    grid = GeoBox((500, 640), Affine(13.7, 0, 600_013, 0, -13.7, 7_399_971), "EPSG:32622")
    write_cube(ls.open_scene(path, chunks=100), tmp_path / "cube.zarr", grid=grid, chunks=90)
    assert len(decoded) == blocks(path, 3)
    assert max(decoded.values()) <= 2
    assert open_cube(tmp_path / "cube.zarr")["seen"].values.mean() > 0.9


def test_where_blocks_divide_the_chunks_a_chunk_is_one_task(tmp_path):
    path = write(tmp_path / "a.tif", rgb((64, 80)), blockxsize=16, blockysize=16, **TILED)
    scene = ls.open_scene(path, chunks=32)
    assert len(dict(scene.data.__dask_graph__())) == 2 * 3
    assert [layer.rpartition("-")[0] for layer in scene.data.dask.layers] == ["read-scene"]


def test_cutting_chunks_out_of_windows_is_deterministic_and_lazy(tmp_path, never_compute):
    path = write(tmp_path / "a.tif", rgb((64, 80)), blockxsize=32, blockysize=32, **TILED)
    one, same = (ls.open_scene(path, chunks=20).data for _ in range(2))
    assert one.name == same.name
    assert one.name.startswith("cut-scene-")


@given(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    st.tuples(st.integers(1, 700), st.integers(1, 5000)),
    st.integers(1, 3000),
    st.integers(1, 50),
)
@settings(max_examples=300)
def test_windows_follow_the_blocks(shape, block, side, bytes_a_pixel):
    window = plan_window(shape, block, side, bytes_a_pixel)
    for size, wide, stored in zip(shape, window, block, strict=True):
        assert wide >= min(size, side) or wide % stored == 0
        assert wide % stored == 0 or wide >= size
    if window != (side, side):
        held = min(window[0], shape[0]) * min(window[1], shape[1]) * bytes_a_pixel
        assert held <= 256e6 or window[0] <= max(block[0], side)
