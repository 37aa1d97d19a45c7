"""The cube: what is written is what is read, whatever the chunks; dates, refusals, damage; layers beside it."""

import json
import pickle
import shutil
import warnings
from hashlib import sha256

import dask
import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasters import axis_chunks, raster
from scene_files import S2_NEW, dn, rgb, write

import lakescale as ls
from lakescale.chunks import sink, sink_serial
from lakescale.cube import open_cube, write_cube
from lakescale.evidence.color import color_mask, index_mask
from lakescale.grid import Grid
from lakescale.scene import seen_mask
from lakescale.schema import InputError, RunError
from lakescale.store import locked, open_layer, write_layer
from lakescale.store.commits import Commits, Member

SHAPE = (90, 130)


def rgb_scene(folder, day="2019-07-23", *, seed=0, chunks=64, shape=SHAPE, **options):
    pixels = np.random.default_rng(seed).integers(2, 255, (3, *shape), dtype=np.uint8)
    pixels[:, :, :70] = 0
    path = folder / f"rgb_{seed}_{day}.tif"
    if not path.exists():  # written again it would be another source
        write(path, pixels, tiled=True, blockxsize=32, blockysize=32, nodata=0)
    return ls.open_scene(path, chunks=chunks, **options)


def reflectance(folder, day="20220713", **options):
    pixels = dn(3, shape=SHAPE)
    pixels[:, 60:, :] = 0
    path = write(folder / S2_NEW.replace("20220713", day), pixels, names=("red", "green", "blue"))
    return ls.open_scene(path, chunks=64, **options)


def tree(store):
    """Every file of a store and a hash of its bytes, which a failed comparison shows fast."""
    files = (path for path in sorted(store.rglob("*")) if path.is_file())
    return {str(path.relative_to(store)): sha256(path.read_bytes()).hexdigest() for path in files}


def stamps(store, under=""):
    found = (path for path in (store / under).rglob("*") if path.is_file() and "/c/" in str(path))
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def assert_same_scene(found, scene):
    assert found.dims == scene.dims
    assert found.dtype == scene.dtype
    np.testing.assert_array_equal(found.values, scene.values)
    np.testing.assert_array_equal(seen_mask(found).values, seen_mask(scene).values)
    assert found.attrs == scene.attrs
    for name in ("time", "band", "y", "x"):
        np.testing.assert_array_equal(found[name].values, scene[name].values)
    assert found["time"].dtype == scene["time"].dtype
    assert Grid.of(found).geobox == Grid.of(scene).geobox


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("kind", [rgb_scene, reflectance])
@pytest.mark.parametrize("chunks", [32, 64, 2048])
def test_one_date_is_the_scene(tmp_path, kind, chunks):
    scene = kind(tmp_path)
    done = write_cube(scene, tmp_path / "cube.zarr", chunks=chunks)
    cube = open_cube(tmp_path / "cube.zarr")
    assert cube.dims == ("time", "band", "y", "x")
    assert cube.data.chunksize == (1, 3, min(chunks, 90), min(chunks, 130))
    assert done.chunks_written == int(np.prod(cube.data.numblocks))
    assert done.pixel_bytes == scene.nbytes + scene[0].size
    assert_same_scene(cube.isel(time=0), scene)


def test_evidence_from_the_cube_is_evidence_from_the_scene(tmp_path):
    painted, measured = rgb_scene(tmp_path), reflectance(tmp_path)
    for name, scene, evidence in (("a", painted, color_mask), ("b", measured, index_mask)):
        write_cube(scene, tmp_path / name, chunks=48)
        from_cube = evidence(open_cube(tmp_path / name).isel(time=0))
        np.testing.assert_array_equal(from_cube.values, evidence(scene).values)


def test_a_mask_in_the_file_is_kept_as_what_was_seen(tmp_path):
    pixels = rgb(SHAPE)
    alpha = np.where(np.arange(130) < 40, 0, 255).astype(np.uint8) * np.ones(SHAPE, np.uint8)
    path = write(tmp_path / "a_20190723.tif", [*pixels, alpha], colors=("red", "green", "blue", "alpha"))
    write_cube(ls.open_scene(path), tmp_path / "cube.zarr", chunks=50)
    np.testing.assert_array_equal(seen_mask(open_cube(tmp_path / "cube.zarr").isel(time=0)).values, alpha > 0)


@settings(max_examples=15)
@given(st.data())
def test_any_chunks_give_the_source(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cube")
    shape = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    dtype = data.draw(st.sampled_from(["uint8", "float32"]))
    pixels = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, 3, (2, *shape)).astype(dtype)
    pixels[:, : shape[0] // 2] = 0 if dtype == "uint8" else np.nan
    chunks = tuple(data.draw(axis_chunks(size)) for size in shape)
    scene = raster(pixels, chunks, bands=["red", "blue"]).assign_coords(time=np.datetime64("2020-01-02", "ns"))
    scene.attrs["nodata_values"] = [0]
    with dask.config.set(scheduler="sync"):
        write_cube(scene, folder / "cube.zarr", chunks=data.draw(st.integers(5, 70)))
        found = open_cube(folder / "cube.zarr", chunks=data.draw(st.none() | st.integers(5, 70))).isel(time=0)
        np.testing.assert_array_equal(found.values, pixels)
        seen = ~np.isnan(pixels).any(0) if dtype == "float32" else ~(pixels == 0).all(0)
        np.testing.assert_array_equal(found["seen"].values, seen)
        row, col = (data.draw(st.slices(size)) for size in shape)
        np.testing.assert_array_equal(found[:, row, col].values, pixels[:, row, col])
        by_zarr = xr.open_zarr(folder / "cube.zarr", consolidated=False, decode_coords="all")
        np.testing.assert_array_equal(by_zarr["scene"].values[0], pixels)
        np.testing.assert_array_equal(by_zarr["seen"].values[0], seen)
    shutil.rmtree(folder)


def test_rioxarray_odc_and_zarr_read_grid_crs_and_time(tmp_path):
    scene = rgb_scene(tmp_path)
    write_cube(scene, tmp_path / "cube.zarr", chunks=64)
    found = xr.open_zarr(tmp_path / "cube.zarr", consolidated=False, decode_coords="all")
    assert found.rio.crs.to_epsg() == 32622
    assert found["scene"].rio.crs.to_epsg() == 32622
    assert found["scene"].rio.transform() == scene.rio.transform()
    assert found["scene"].odc.geobox == scene.odc.geobox
    assert found["seen"].odc.geobox == scene.odc.geobox
    assert found["time"].values == np.datetime64("2019-07-23", "ns")
    assert found["time"].encoding["calendar"] == "proleptic_gregorian"
    array = zarr.open_array(tmp_path / "cube.zarr/scene", mode="r")
    assert array.metadata.to_dict()["codecs"][-1]["name"] == "crc32c"
    assert array.chunks == (1, 1, 64, 64)
    assert array.attrs["grid_mapping"] == "spatial_ref"
    assert list(zarr.open_array(tmp_path / "cube.zarr/band").attrs["band_names"]) == ["red", "green", "blue"]


def test_opening_reads_metadata_only_and_tasks_have_names(tmp_path, never_compute):
    with dask.config.set(scheduler="sync"):
        write_cube(rgb_scene(tmp_path), tmp_path / "cube.zarr", chunks=32)
    for chunk in (tmp_path / "cube.zarr").glob("s*/c/**/*"):
        if chunk.is_file():
            chunk.write_bytes(b"no chunk")
    cube = open_cube(tmp_path / "cube.zarr")
    again = open_cube(tmp_path / "cube.zarr")
    assert cube.data.name == again.data.name
    assert [layer.rpartition("-")[0] for layer in cube.data.dask.layers] == ["read-cube"]
    assert [layer.rpartition("-")[0] for layer in cube["seen"].data.dask.layers] == ["read-seen"]


def test_a_cube_survives_pickling(tmp_path):
    scene = rgb_scene(tmp_path)
    write_cube(scene, tmp_path / "cube.zarr")
    again = pickle.loads(pickle.dumps(open_cube(tmp_path / "cube.zarr")))
    np.testing.assert_array_equal(again.isel(time=0).values, scene.values)


def test_bands_may_be_chosen_and_come_in_any_order(tmp_path):
    first, second = rgb_scene(tmp_path), rgb_scene(tmp_path, "2019-08-02", seed=1)
    second.attrs["scale"] = [1.0, 2.0, 3.0]
    mixed = second.isel(band=[2, 0, 1]).assign_attrs(scale=[3.0, 1.0, 2.0])
    write_cube([first, mixed], tmp_path / "cube.zarr")
    cube = open_cube(tmp_path / "cube.zarr", bands=["blue", "red"])
    np.testing.assert_array_equal(cube.isel(time=1).values, second.sel(band=["blue", "red"]).values)
    told = json.loads((tmp_path / "cube.zarr/zarr.json").read_text())["attributes"]["lakescale"]["dates"]
    assert told[1]["attrs"]["scale"] == [1.0, 2.0, 3.0]
    for wanted in (["nir"], [], "red", ["red", "red"]):
        with pytest.raises(InputError, match=r"(?i)choose among bands"):
            open_cube(tmp_path / "cube.zarr", bands=wanted)


# ---------------------------------------------------------------- dates


def test_dates_are_appended_sorted_and_leave_the_others_untouched(tmp_path):
    days = ["2019-07-23", "2019-06-01", "2020-01-05"]
    scenes = [rgb_scene(tmp_path, day, seed=k) for k, day in enumerate(days)]
    store = tmp_path / "cube.zarr"
    write_cube(scenes[0], store, chunks=32)
    before = stamps(store, "scene") | stamps(store, "seen")
    write_cube(scenes[1:], store)
    after = stamps(store)
    assert {path: after[path] for path in before} == before
    cube = open_cube(store)
    assert [str(day)[:10] for day in cube["time"].values] == sorted(days)
    for scene in scenes:
        np.testing.assert_array_equal(cube.sel(time=scene["time"]).values, scene.values)
    assert "source" not in cube.attrs
    assert cube.attrs["radiometry"] == "rgb8"


def test_the_same_again_writes_nothing(tmp_path):
    scene, store = rgb_scene(tmp_path), tmp_path / "cube.zarr"
    total = write_cube(scene, store, chunks=32).chunks_written
    before = tree(store), stamps(store)
    done = write_cube(rgb_scene(tmp_path), store)
    assert (done.chunks_written, done.chunks_skipped, done.pixel_bytes) == (0, total, 0)
    assert (tree(store), stamps(store)) == before


def test_another_source_of_a_date_is_refused_and_replaced_on_demand(tmp_path):
    store = tmp_path / "cube.zarr"
    keep, old, new = rgb_scene(tmp_path, "2019-01-01"), rgb_scene(tmp_path), rgb_scene(tmp_path, seed=5)
    write_cube([keep, old], store, chunks=64)
    with pytest.raises(InputError, match=r"2019-07-23 from another source.*overwrite=True"):
        write_cube(new, store)
    kept = {path: stamp for path, stamp in stamps(store).items() if "/c/0/" in path}
    done = write_cube(new, store, overwrite=True)
    assert done.chunks_written == 6
    assert {path: stamp for path, stamp in stamps(store).items() if "/c/0/" in path} == kept
    np.testing.assert_array_equal(open_cube(store).isel(time=1).values, new.values)
    assert open_cube(store).isel(time=1).attrs["nodata_values"] == [0]


def test_a_chunk_that_becomes_empty_leaves_no_old_pixels(tmp_path):
    store = tmp_path / "cube.zarr"
    full = raster(np.full((1, 40, 40), 7, np.uint8), bands=["red"]).assign_coords(
        time=np.datetime64("2020-01-02", "ns")
    )
    write_cube(full, store, chunks=20)
    write_cube(full.copy(data=da.zeros_like(full.data)), store, overwrite=True)
    assert not open_cube(store).values.any()
    assert not xr.open_zarr(store, consolidated=False)["scene"].values.any()
    assert not list((store / "scene/c").rglob("0/0/0/0"))


def test_bands_place_and_scale_are_part_of_the_source(tmp_path):
    store, path = tmp_path / "cube.zarr", write(tmp_path / "plain_20190723.tif", rgb(SHAPE)[:2])
    write_cube(ls.open_scene(path, bands=["blue", "red"]), store, chunks=64)
    with pytest.raises(InputError, match="2019-07-23 from another source"):
        write_cube(ls.open_scene(path, bands=["red", "blue"]), store)
    write_cube(ls.open_scene(path, bands=["red", "blue"]), store, overwrite=True)
    np.testing.assert_array_equal(open_cube(store, bands=["red"]).values[0, 0], rgb(SHAPE)[0])
    pixels = raster(np.full((1, 40, 40), 7, np.uint8), bands=["red"]).assign_coords(time=np.datetime64("2020-01-02"))
    write_cube(pixels, tmp_path / "b.zarr", chunks=20)
    assert write_cube(pixels.copy(), tmp_path / "b.zarr").chunks_written == 0
    moved = pixels.drop_vars("spatial_ref").assign_coords(x=pixels.x + 50, y=pixels.y).rio.write_crs(pixels.rio.crs)
    for other in (moved, pixels.assign_attrs(scale=2.0), pixels.assign_attrs(offset=[1.0])):
        with pytest.raises(InputError, match="2020-01-02 from another source"):
            write_cube(other, tmp_path / "b.zarr")


def test_replacing_that_was_killed_goes_on(tmp_path, monkeypatch, one_thread):
    store, new = tmp_path / "cube.zarr", rgb_scene(tmp_path, seed=5)
    write_cube(rgb_scene(tmp_path), store, chunks=64)
    real, done = Commits.write, []

    def write_some(self, *arguments):
        if len(done) == 4:
            raise RunError("killed")
        done.append(arguments)
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Commits, "write", write_some)
        with pytest.raises(RunError, match="killed"):
            write_cube(new, store, overwrite=True)
    again = write_cube(new, store, overwrite=True)
    assert (again.chunks_written, again.chunks_skipped) == (2, 4)
    np.testing.assert_array_equal(open_cube(store).isel(time=0).values, new.values)
    assert write_cube(new, store, overwrite=True).chunks_written == 6  # a finished date is written anew
    (store / "scene/c/0/1/0/2").write_bytes(b"short")  # damage is no kill: what else is damaged cannot be seen
    assert write_cube(new, store, overwrite=True).chunks_written == 6


def test_a_layer_whose_replacing_was_killed_goes_on(tmp_path, one_thread):
    store, layer = tmp_path / "evidence.zarr", raster(np.ones(SHAPE, np.uint8), 50)
    write_layer(layer, store, "sink", chunks=64)
    for name in ("0/1", "1/1"):
        (store / "sink/commits" / name).unlink()
    assert write_layer(layer, store, "sink", overwrite=True) == 2
    assert write_layer(layer, store, "sink", overwrite=True) == 6


# ---------------------------------------------------------------- other grids


def test_scenes_on_another_grid_are_brought_to_the_cubes(tmp_path):
    first = rgb_scene(tmp_path)
    shifted = Affine(10, 0, 600_000 + 100, 0, -10, 7_400_000 - 50)
    pixels = np.random.default_rng(3).integers(2, 255, (3, *SHAPE), dtype=np.uint8)
    second = ls.open_scene(write(tmp_path / "b_20200101.tif", pixels, transform=shifted))
    write_cube([first, second], tmp_path / "cube.zarr", chunks=32)
    cube = open_cube(tmp_path / "cube.zarr")
    assert Grid.of(cube).geobox == Grid.of(first).geobox
    found = cube.isel(time=1)
    np.testing.assert_array_equal(found.values[:, 5:, 10:], pixels[:, :-5, :-10])  # whole pixels apart: a copy
    seen = np.zeros(SHAPE, bool)
    seen[5:, 10:] = True
    np.testing.assert_array_equal(found["seen"].values, seen)


def test_a_grid_may_be_asked_for_once(tmp_path):
    scene = rgb_scene(tmp_path)
    coarse = GeoBox((30, 40), Affine(30, 0, 600_000, 0, -30, 7_400_000), "EPSG:32622")
    write_cube(scene, tmp_path / "cube.zarr", grid=coarse, chunks=16)
    cube = open_cube(tmp_path / "cube.zarr")
    assert cube.shape == (1, 3, 30, 40)
    assert cube.attrs["resampling"] == "average"
    assert write_cube(scene, tmp_path / "cube.zarr").chunks_written == 0
    assert write_cube(scene, tmp_path / "cube.zarr", grid=Grid(coarse)).chunks_written == 0


def test_a_scene_that_misses_the_cube_is_refused_before_anything_is_written(tmp_path):
    first = rgb_scene(tmp_path)
    away = write(tmp_path / "b_20200101.tif", rgb(SHAPE), transform=Affine(10, 0, 630_000, 0, -10, 7_400_000))
    told = r"does not meet.*x 630000 to 631300.*the cube x 600000 to 601300.*2020-01-01: b_20200101.tif"
    with pytest.raises(InputError, match=told):
        write_cube([first, ls.open_scene(away)], tmp_path / "cube.zarr")
    assert not (tmp_path / "cube.zarr").exists()
    write_cube(first, tmp_path / "cube.zarr")
    before = tree(tmp_path / "cube.zarr")
    with pytest.raises(InputError, match=told):
        write_cube(ls.open_scene(away), tmp_path / "cube.zarr")
    assert tree(tmp_path / "cube.zarr") == before


# ---------------------------------------------------------------- refusals


def test_other_types_are_refused_with_those_accepted(tmp_path):
    scene = rgb_scene(tmp_path)
    for bad in (scene.to_dataset(name="scene"), "a.tif", [scene.values], None, [scene, 3]):
        with pytest.raises(InputError, match=r"this is no scene \[.*xarray\.DataArray"):
            write_cube(bad, tmp_path / "cube.zarr")
    for bad in ("EPSG:3413", 10, GeoBox((4, 4), Affine.identity(), None)):
        with pytest.raises(InputError, match=r"grid= is no grid with a CRS.*lakescale\.Grid or a GeoBox"):
            write_cube(scene, tmp_path / "cube.zarr", grid=bad)
    assert not (tmp_path / "cube.zarr").exists()
    assert write_cube((one for one in [scene]), tmp_path / "cube.zarr").chunks_written == 1


def test_mends_name_the_options_of_python_and_of_the_command(tmp_path):
    store, scene = tmp_path / "cube.zarr", rgb_scene(tmp_path)
    write_cube(scene, store, chunks=64)
    other = GeoBox((10, 10), Affine(10, 0, 0, 0, -10, 0), "EPSG:32622")
    cases = {
        r"Leave grid= \(--crs, --resolution, --like\) out": (scene, {"grid": other}),
        r"Leave chunks= \(--chunks\) out": (scene, {"chunks": 32}),
        r"overwrite=True \(--overwrite\)": (rgb_scene(tmp_path, seed=4), {}),
        r"chunks=2048 \(--chunks 2048\)": (scene, {"chunks": -1}),
    }
    for match, (bad, options) in cases.items():
        with pytest.raises(InputError, match=match):
            write_cube(bad, store, **options)


def test_what_does_not_fit_the_store_is_refused(tmp_path):
    store, scene = tmp_path / "cube.zarr", rgb_scene(tmp_path)
    write_cube(scene, store, chunks=64)
    before = tree(store)
    other = GeoBox((10, 10), Affine(10, 0, 0, 0, -10, 0), "EPSG:32622")
    later = scene.assign_coords(time=np.datetime64("2020-01-01", "ns"))
    cases = {
        r"another grid.*another store": (later, {"grid": other}),
        r"chunks of \(64, 64\)": (later, {"chunks": 32}),
        r"with the bands red, green; .*cube.zarr has red, green, blue": (later.isel(band=[0, 1]), {}),
        r"of type float32; .*stores of their own": (reflectance(tmp_path), {}),
        r"chunks= must be a whole number": (later, {"chunks": 0}),
    }
    for match, (bad, options) in cases.items():
        with pytest.raises(InputError, match=match):
            write_cube(bad, store, **options)
        assert tree(store) == before


def test_what_is_no_scene_of_one_date_is_refused(tmp_path):
    scene = rgb_scene(tmp_path)
    later = scene.assign_coords(time=np.datetime64("2020-01-01", "ns"))
    cases = {
        "no scenes": [],
        "without a date": scene.drop_vars("time"),
        r"dims \(band, y, x\)": xr.concat([scene, later], "time"),
        "type float64": scene.astype("float64"),
        "two scenes of 2019-07-23": [scene, rgb_scene(tmp_path, seed=2)],
        "the first scene has red, green, blue": [scene, later.isel(band=[0])],
        "the first scene has uint8": [scene, later.astype("float32")],
        "without a CRS": scene.drop_vars(["spatial_ref", "y", "x"]),
    }
    for match, bad in cases.items():
        with pytest.raises(InputError, match=match):
            write_cube(bad, tmp_path / "cube.zarr")
        assert not (tmp_path / "cube.zarr").exists()


def test_what_is_no_cube_is_refused_and_left_alone(tmp_path):
    scene, other = rgb_scene(tmp_path), tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    for path in (other, other / "mine.txt"):
        with pytest.raises(InputError, match="something else"):
            write_cube(scene, path)
    zarr.create_group(tmp_path / "foreign.zarr")
    layers = tmp_path / "layers.zarr"
    write_layer(scene[0].drop_vars(["band", "time"]), layers, "dem")
    for path in (tmp_path / "foreign.zarr", layers):
        with pytest.raises(InputError, match=r"no cube|no store of lakescale"):
            write_cube(scene, path)
    for path in (tmp_path / "foreign.zarr", layers, other, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"no cube|no store|no such store"):
            open_cube(path)
    assert (other / "mine.txt").read_text() == "mine"


def test_two_writers_at_once_are_refused(tmp_path):
    scene, store = rgb_scene(tmp_path), tmp_path / "cube.zarr"
    write_cube(scene, store)
    with locked(store), pytest.raises(RunError, match="another process is writing"):
        write_cube(scene, store)
    assert write_cube(scene, store).chunks_written == 0


# ---------------------------------------------------------------- damage


def damaged_cube(folder):
    scene = rgb_scene(folder)
    write_cube(scene, folder / "cube.zarr", chunks=64)
    return folder / "cube.zarr"


CHUNK, MARKER, EMPTY = "scene/c/0/1/0/2", "scene/commits/0/0/2", "scene/c/0/1/0/0"


def flips(data):
    places = (
        range(len(data))
        if len(data) < 300
        else {*range(0, len(data), 131), *range(24), *range(len(data) - 8, len(data))}
    )
    for place in places:
        yield data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


@pytest.mark.parametrize("name", [CHUNK, MARKER, "seen/c/0/0/2"])
def test_a_flipped_byte_is_an_error_that_names_the_chunk(tmp_path, one_thread, name):
    store = damaged_cube(tmp_path)
    chunk = open_cube(store).isel(time=0)[:, :64, 128:]
    chunk = chunk["seen"] if name.startswith("seen") else chunk
    whole = (store / name).read_bytes()
    for bad in flips(whole):
        (store / name).write_bytes(bad)
        with pytest.raises(
            InputError, match=r"chunk \(0,.* 0, 2\) of '(scene|seen)', 2019-07-23 \[.*overwrite=True"
        ) as told:
            chunk.compute()
        assert str(store / name) in str(told.value)
        assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)
    (store / name).write_bytes(whole)
    chunk.compute()


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), r"its file has \d+ bytes of \d+"),
        (lambda path: path.write_bytes(b""), "its file has 0 bytes of"),
        (lambda path: path.unlink(), "its file is missing"),
        (lambda path: shutil.copy(path.parents[2] / "0/0/2", path), "its (file has|checksum is not)"),
    ],
)
def test_a_cut_emptied_lost_or_exchanged_file_is_an_error(tmp_path, damage, what):
    store = damaged_cube(tmp_path)
    damage(store / CHUNK)
    cube = open_cube(store)
    cube.isel(time=0)[:, :, 64:128].compute()  # its neighbours are whole
    with pytest.raises(InputError, match=rf"damaged chunk, {what}.*chunk \(0, 1, 0, 2\) of 'scene', 2019-07-23"):
        cube.compute()


def test_a_chunk_written_empty_must_stay_so(tmp_path):
    store = damaged_cube(tmp_path)
    assert not (store / EMPTY).exists()
    shutil.copy(store / CHUNK, store / EMPTY)
    with pytest.raises(InputError, match=r"written as empty and now has a file: chunk \(0, 1, 0, 0\)"):
        open_cube(store).compute()


def test_a_lost_marker_is_an_unfinished_date(tmp_path):
    store = damaged_cube(tmp_path)
    cube = open_cube(store)
    (store / MARKER).unlink()
    with pytest.raises(InputError, match=r"not finished \(2019-07-23: 1 of 6 chunks missing\).*again"):
        open_cube(store)
    with pytest.raises(InputError, match=r"a chunk is not finished: chunk \(0, 0, 2\)"):
        cube.compute()


def test_what_can_be_seen_without_reading_is_mended_by_writing_again(tmp_path):
    store, scene = damaged_cube(tmp_path), rgb_scene(tmp_path)
    whole = tree(store)
    for name in (CHUNK, MARKER, "seen/c/0/1/1"):
        (store / name).unlink()
    assert write_cube(scene, store).chunks_written == 2
    assert tree(store) == whole
    (store / CHUNK).write_bytes(b"?" * (store / CHUNK).stat().st_size)
    assert write_cube(scene, store).chunks_written == 0  # of the same size: told by reading only
    with pytest.raises(InputError, match="overwrite=True"):
        open_cube(store).compute()
    write_cube(scene, store, overwrite=True)
    assert tree(store) == whole


@pytest.mark.parametrize("name", ["time/c/0", "y/c/0", "x/c/0", "time/zarr.json", "scene/zarr.json", "zarr.json"])
def test_damaged_metadata_is_an_error(tmp_path, name):
    store = damaged_cube(tmp_path)
    data = bytearray((store / name).read_bytes())
    data[len(data) // 2 if name.endswith("0") else 0] ^= 2
    (store / name).write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"(store|cube)"):
        open_cube(store)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("spatial_ref/zarr.json", "6378137", "6378187"),
        ("zarr.json", '"green"', '"creen"'),
        ("zarr.json", '"date": "2019-07-23"', '"date": "2019-07-28"'),
        ("zarr.json", '"side": 64', '"side": 65'),
    ],
)
def test_a_changed_sign_in_the_metadata_is_an_error_that_names_the_file(tmp_path, name, old, new):
    store = damaged_cube(tmp_path)
    write_cube(rgb_scene(tmp_path, "2020-01-01"), store)
    text = (store / name).read_text()
    assert old in text
    (store / name).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=rf"do(es)? not fit (its|their) checksum.*{store}/{name}.*from a copy"):
        open_cube(store)
    with pytest.raises(InputError, match="checksum"):
        write_cube(rgb_scene(tmp_path), store)
    (store / name).write_text(text)
    open_cube(store).compute()


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize("dtype", ["float32", "bool", "uint8", "int32"])
def test_a_layer_is_the_raster(tmp_path, dtype):
    pixels = np.random.default_rng(1).integers(0, 2, SHAPE).astype(dtype)
    pixels[:40] = np.nan if dtype == "float32" else 0
    layer = raster(pixels, 50).assign_attrs(units="m", count=np.int64(3))
    assert write_layer(layer, tmp_path / "evidence.zarr", "sink", chunks=32) == 15
    assert write_layer(layer, tmp_path / "evidence.zarr", "sink") == 0
    found = open_layer(tmp_path / "evidence.zarr", "sink")
    assert found.dims == ("y", "x")
    assert found.dtype == layer.dtype
    assert found.name == "sink"
    assert found.attrs == {"units": "m", "count": 3}
    assert found.data.chunksize == (32, 32)
    np.testing.assert_array_equal(found.values, pixels)
    np.testing.assert_array_equal(
        open_layer(tmp_path / "evidence.zarr", "sink", chunks=41)[3:70, ::-2].values, pixels[3:70, ::-2]
    )
    by_zarr = xr.open_zarr(tmp_path / "evidence.zarr", consolidated=False, decode_coords="all")["sink"]
    np.testing.assert_array_equal(by_zarr.values, pixels)
    assert by_zarr.rio.transform() == layer.rio.transform()


def test_layers_of_one_store_are_refused_replaced_and_checked(tmp_path):
    store = tmp_path / "evidence.zarr"
    one, two = (raster(np.full(SHAPE, k, np.uint8), 50) for k in (1, 2))
    write_layer(one, store, "sink", chunks=64)
    write_layer(two, store, "ice", chunks=64)
    with pytest.raises(InputError, match=r"another source.*overwrite=True"):
        write_layer(two, store, "sink")
    assert write_layer(two, store, "sink", overwrite=True) == 6
    assert (open_layer(store, "sink").values == 2).all()
    cases = {
        "another grid": (raster(np.ones((4, 4), np.uint8)), "sink", {}),
        "chunks of": (one, "sink", {"chunks": 32}),
        "type uint8": (one.astype(bool), "sink", {}),
        "no name for a layer": (one, "a/b", {}),
        "dims": (one.expand_dims("band"), "sink", {}),
    }
    for match, (bad, name, options) in cases.items():
        with pytest.raises(InputError, match=match):
            write_layer(bad, store, name, **options)
    with pytest.raises(InputError, match=r"no layer 'cloud'.*ice, sink"):
        open_layer(store, "cloud")
    path = store / "ice/c/1/2"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"chunk \(1, 2\) of 'ice' .*overwrite=True"):
        open_layer(store, "ice").compute()
    (store / "ice/commits/0/1").unlink()
    with pytest.raises(InputError, match="1 of 6 chunks missing"):
        open_layer(store, "ice")


# ---------------------------------------------------------------- the format itself


def test_stores_open_without_a_warning_and_markers_lie_where_zarr_does_not_look(tmp_path):
    store = damaged_cube(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(store, mode="r")
        assert set(group.array_keys()) == {"scene", "seen", "time", "band", "y", "x", "spatial_ref"}
        assert not list(group.group_keys())


def test_commits_tell_where_their_files_lie():
    commits = Commits("cube.zarr", (Member("scene", "uint8", (2,)), Member("seen", "bool")), (5, 7), (4, 4))
    assert commits.chunks == ((4, 1), (4, 3))
    assert commits.indices(3) == [(3, 0, 0), (3, 0, 1), (3, 1, 0), (3, 1, 1)]
    assert list(commits.files((3, 0, 1)).values()) == ["scene/c/3/0/0/1", "scene/c/3/1/0/1", "seen/c/3/0/1"]
    assert commits.marker((3, 0, 1)) == "scene/commits/3/0/1"


@given(st.data())
def test_a_sink_gets_the_blocks_asked_for_and_no_others(data):
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    chunks = tuple(data.draw(axis_chunks(size)) for size in shape)
    everywhere = list(np.ndindex(len(chunks[0]), len(chunks[1])))
    wanted = data.draw(st.lists(st.sampled_from(everywhere), unique=True, min_size=1))
    flat = np.arange(shape[0] * shape[1]).reshape(shape)
    stack = np.stack([flat, flat + 1])
    met = []

    def write_block(index, place, pixels):
        met.append((index, place, [block.tolist() for block in pixels]))
        return int(pixels[0].sum() + pixels[1].sum())

    lazy = [da.from_array(stack, chunks=((2,), *chunks)), da.from_array(flat, chunks=chunks)]
    sums = sink(write_block, *lazy, blocks=wanted, name="sum").compute(scheduler="sync")
    by_dask = sorted(met, key=str)
    met.clear()
    assert sums.tolist() == sink_serial(write_block, stack, flat, chunks=chunks, blocks=wanted)
    assert by_dask == sorted(met, key=str)
    assert [index for index, *_ in met] == wanted
