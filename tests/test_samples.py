"""Samples against a plain loop over windows of the whole image."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import axis_chunks, raster
from training_scenes import blobs, plain_mask, plain_windows, to_frame, write_cube

import lakescale as ls
from lakescale.chunks import Place
from lakescale.cluster import compute
from lakescale.grid import Grid
from training.annotations import Annotations
from training.counting import count_windows
from training.images import Image, list_images
from training.mining import mine_hard_negatives
from training.outlines import Outlines
from training.pictures import thin_alike
from training.samples import SampleRules, count_kinds, find_samples, read_samples

pytestmark = pytest.mark.usefixtures("one_thread")

DAY = "2019-07-23"


# -- pixels inside polygons


@st.composite
def polygons(draw):
    """Polygons on quarters of a pixel, so that edges run through centres; some with a hole, some of two parts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for _ in range(draw(st.integers(1, 5))):
        points = shapely.MultiPoint(
            rng.integers(-20, 100, (draw(st.integers(3, 9)), 2)) / draw(st.sampled_from([1, 2, 4]))
        )
        hull = points.convex_hull
        if draw(st.booleans()):
            hull = hull.difference(shapely.MultiPoint(rng.integers(0, 40, (4, 2)) / 2).convex_hull)
        if hull.geom_type in ("Polygon", "MultiPolygon") and not hull.is_empty:
            found.append(shapely.set_precision(hull, 1 / 4096))
    found = [one for one in found if one.geom_type in ("Polygon", "MultiPolygon") and not one.is_empty]
    return np.array(found or [shapely.box(1, 1, 3, 3)], object)


@st.composite
def places(draw):
    return Place(*(draw(st.integers(-9, 30)) for _ in range(2)), *(draw(st.integers(1, 30)) for _ in range(2)))


@settings(max_examples=80)
@given(polygons(), places())
def test_a_mask_holds_the_centres_inside_polygons(shapes, place):
    mask = Outlines(shapes).mask(place)
    assert mask.shape == (place.height, place.width)
    rows, cols = np.indices(mask.shape) + 0.5
    points = shapely.points(cols + place.col, rows + place.row)
    inside = np.any([shapely.contains_properly(shape, points) for shape in shapes], axis=0)
    outside = ~np.any([shapely.intersects(shape, points) for shape in shapes], axis=0)
    assert mask[inside].all()
    assert not mask[outside].any()


@given(polygons(), places(), st.data())
def test_a_mask_does_not_depend_on_the_place_it_is_asked_with(shapes, place, data):
    row, col = data.draw(st.integers(0, place.height - 1)), data.draw(st.integers(0, place.width - 1))
    height, width = data.draw(st.integers(1, place.height - row)), data.draw(st.integers(1, place.width - col))
    part = Outlines(shapes).mask(Place(place.row + row, place.col + col, height, width))
    np.testing.assert_array_equal(part, Outlines(shapes).mask(place)[row : row + height, col : col + width])


@given(st.integers(0, 2**32 - 1))
def test_polygons_that_share_edges_share_no_pixel(seed):
    points = np.random.default_rng(seed).integers(0, 41, (12, 2)) / 2
    corners = shapely.MultiPoint([*points, (0, 0), (0, 20), (20, 0), (20, 20)])
    triangles = shapely.get_parts(shapely.delaunay_triangles(corners))
    hits = sum(Outlines(np.array([one], object)).mask(Place(0, 0, 20, 20)).astype(int) for one in triangles)
    assert (hits == 1).all()


# -- counts


@st.composite
def cases(draw, largest=40):
    """An image with gaps in all or single bands, in any chunks, and polygons."""
    chunks = tuple(draw(axis_chunks(draw(st.integers(1, largest)))) for _ in range(2))
    shape = tuple(sum(axis) for axis in chunks)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = rng.integers(1, 256, (3, *shape)).astype(np.uint8)
    unseen = rng.random(shape) < draw(st.sampled_from([0, 0.3, 1]))
    if draw(st.booleans()):
        bands = np.where(unseen, 0, levels).astype(np.uint8)
        scene = raster(bands, chunks).assign_attrs(nodata_values=[0])
    else:
        bands = (levels / np.float32(200)).astype(np.float32)
        bands[rng.integers(0, 3), unseen] = np.nan
        scene = raster(bands, chunks)
    lakes, ignore = (blobs(rng, draw(st.integers(0, 4)), shape, (1, 12)) for _ in range(2))
    return scene, bands, ~unseen, lakes, ignore


def within(shapes, shape):
    image = shapely.box(0, 0, shape[1], shape[0])
    return [one for one in shapes if one.intersects(image)]


def hasler(bands, seen):
    """The published formula on the seen pixels of one window."""
    red, green, blue = bands[:, seen].astype(float)
    rg, yb = red - green, (red + green) / 2 - blue
    return np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())


@settings(max_examples=40)
@given(cases(), st.integers(3, 25), st.data())
def test_any_chunks_count_what_a_plain_loop_counts(case, window, data):
    scene, bands, seen, lakes, ignore = case
    stride = data.draw(st.integers(3, window))
    lakes, ignore = (within(shapes, seen.shape) for shapes in (lakes, ignore))
    drawn = Annotations(to_frame(lakes), to_frame(ignore)).of("one", Grid.of(scene))
    counted = count_windows(scene, drawn, window=window, stride=stride)
    table, _ = counted.finish(*compute(counted.parts))
    ignored = plain_mask(ignore, seen.shape)
    lake = plain_mask(lakes, seen.shape) & ~ignored
    levels = bands if bands.dtype == np.uint8 else np.rint(255 * np.clip(np.nan_to_num(bands), 0, 1))
    expected = plain_windows(seen.shape, window, stride)
    assert list(zip(table["row"], table["col"], strict=True)) == [(row, col) for row, col, _ in expected]
    for told, (_, _, place) in zip(table.to_dict("records"), expected, strict=True):
        assert told["inside_px"] == seen[place].size
        assert told["seen_px"] == seen[place].sum()
        assert told["lake_px"] == (lake & seen)[place].sum()
        assert told["ignored_px"] == (ignored & seen)[place].sum()
        if seen[place].any():
            assert told["colorfulness"] == pytest.approx(hasler(levels[:, *place], seen[place]), rel=1e-9, abs=1e-6)
        else:
            assert np.isnan(told["colorfulness"])


def test_a_thumbnail_holds_the_means_of_eighths():
    bands = np.arange(3 * 32 * 40, dtype=np.float32).reshape(3, 32, 40) / 4000
    scene = raster(bands, 7)
    marks = Annotations(to_frame([])).of("one", Grid.of(scene))
    counted = count_windows(scene, marks, window=16, stride=8)
    _, thumbnails = counted.finish(*compute(counted.parts))
    levels = np.rint(255 * bands)
    for k, (_, _, place) in enumerate(plain_windows((32, 40), 16, 8)):
        means = levels[:, *place].reshape(3, 8, 2, 8, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
        np.testing.assert_allclose(thumbnails[k].reshape(8, 8, 3), means)


def test_counting_is_lazy(never_compute):
    scene = raster(np.full((3, 40, 40), 9, np.uint8), 10)
    marks = Annotations(to_frame(blobs(np.random.default_rng(0), 3, (40, 40), (3, 9)))).of("one", Grid.of(scene))
    counted = count_windows(scene, marks, window=16, stride=8)
    names = {
        str(key[0] if isinstance(key, tuple) else key).rsplit("-", 1)[0] for key in dict(counted.parts.__dask_graph__())
    }
    assert {"samples-count", "samples-solve", "samples", "annotations"} <= names


# -- kinds


def ice(shape=(96, 96), level=200):
    return np.full((3, *shape), level, np.uint8)


def kinds_of(index):
    return {
        (row.row, row.col): (row.kind, row.reason)
        for row in index.itertuples()
    }  # fmt: skip


def star(col, row, radius):
    turns = np.arange(8) * np.pi / 4 + 0.1
    return shapely.Polygon(np.column_stack([col + radius * np.cos(turns), row + radius * np.sin(turns)]))


@pytest.fixture
def tiles(tmp_path):
    """Nine tiles of 32 pixels, one for each fate but near-duplicates."""
    bands = ice()
    bands[:, :32, :32] = 0
    bands[2, 32:64, :32] -= 40
    bands[:, 64:, 64:] = np.random.default_rng(0).integers(150, 250, (32, 32))
    cube = write_cube(tmp_path / "cube.zarr", {DAY: bands}, 40)
    lakes = to_frame([star(48, 16, 6), shapely.box(70, 4, 90, 20), star(5, 5, 3)])
    annotations = Annotations(
        lakes, to_frame([star(48, 48, 30)]), to_frame([shapely.box(0, 0, 96, 95)], region_num=[7])
    )
    return cube, annotations


RULES = SampleRules(window=32, stride=32, thin=None, least_seen_share=0.3)


def test_each_window_gets_the_first_kind_that_applies(tiles, tmp_path):
    cube, annotations = tiles
    hard = pd.DataFrame({"image": [f"cube_{DAY}"], "row": [64], "col": [64]})
    small = Annotations(
        annotations.lakes, to_frame([star(48, 48, 16)]), to_frame([shapely.box(0, 0, 96, 80.5)], region_num=[7])
    )
    index = find_samples([cube], small, tmp_path / "s", rules=RULES, hard=hard)
    assert kinds_of(index) == {
        (0, 0): ("left out", "not seen"),
        (0, 32): ("positive", ""),
        (0, 64): ("left out", "bad annotation"),
        (32, 0): ("hard", "colorful"),
        (32, 32): ("left out", "ignored"),
        (32, 64): ("negative", ""),
        (64, 0): ("negative", ""),
        (64, 32): ("negative", ""),
        (64, 64): ("hard", "listed"),
    }
    assert set(index["region_num"]) == {7}
    counts = count_kinds(index)
    assert counts.loc[(f"cube_{DAY}", 7)].to_dict() == {
        "hard": 2, "left out: bad annotation": 1, "left out: ignored": 1, "left out: not seen": 1,
        "negative": 3, "positive": 1,
    }  # fmt: skip


def test_windows_whose_centre_lies_in_no_region_are_left_out(tiles, tmp_path):
    cube, annotations = tiles
    regions = to_frame([shapely.box(0, 0, 40, 60), shapely.box(40, 0, 96, 60)], region_num=[3, 5])
    index = find_samples([cube], Annotations(annotations.lakes, regions=regions), tmp_path / "s", rules=RULES)
    assert index["region_num"].tolist() == [3, 5, 5, 3, 5, 5, -1, -1, -1]
    assert set(index["reason"][6:]) == {"in no region"}


@pytest.mark.parametrize(
    ("change", "window", "kind"),
    [
        ({"colorful": 1e3}, (32, 0), "negative"),
        ({"least_vertices": 0}, (0, 64), "positive"),
        ({"least_seen_share": 0.0, "colorful": 1e3}, (0, 0), "negative"),
        ({"thin": 2.0}, (64, 0), "negative"),
    ],
)
def test_each_rule_changes_a_kind(tiles, tmp_path, change, window, kind):
    cube, annotations = tiles
    options = {"window": 32, "stride": 32, "thin": None, **change}
    index = find_samples([cube], Annotations(annotations.lakes), tmp_path / "s", rules=SampleRules(**options))
    assert kinds_of(index)[window][0] == kind


def test_near_duplicates_are_left_out_the_first_is_kept(tmp_path):
    """Flat ice: of windows every 16 px only those that overlap no kept one stay; texture keeps all."""
    flat, rough = ice((64, 64)), ice((64, 64))
    rough[:] = np.random.default_rng(0).integers(0, 2, (64, 64)) * 120 + 60
    lakes = to_frame([star(4, 4, 2)])
    cubes = [
        write_cube(tmp_path / f"{name}.zarr", {DAY: bands}, 64) for name, bands in (("flat", flat), ("rough", rough))
    ]
    annotations = Annotations({f"flat_{DAY}": lakes, f"rough_{DAY}": lakes})
    index = find_samples(cubes, annotations, tmp_path / "s", rules=SampleRules(window=32, stride=16))
    kept = (
        index[index["kind"] == "negative"].groupby("image")[["row", "col"]].apply(lambda rows: rows.to_numpy().tolist())
    )
    assert kept[f"flat_{DAY}"] == [[0, 16], [32, 0], [32, 32]]
    assert len(kept[f"rough_{DAY}"]) == 8
    again = find_samples(cubes, annotations, tmp_path / "all", rules=SampleRules(window=32, stride=16, thin=None))
    assert (again["kind"] == "negative").sum() == 16


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([0.0, 0.2, 0.5, 2.0]))
def test_thinning_keeps_the_first_of_those_alike(seed, window, least):
    """Pairs of all windows, one by one."""
    rng = np.random.default_rng(seed)
    corners = np.unique(rng.integers(0, 20, (15, 2)), axis=0)
    thumbnails = rng.random((len(corners), 4))
    kept = []
    for k, corner in enumerate(corners):
        near = [j for j in kept if (abs(corner - corners[j]) < window).all()]
        if all(abs(thumbnails[k] - thumbnails[j]).mean() >= least for j in near):
            kept.append(k)
    found = thin_alike(corners, thumbnails, window=window, least_difference=least)
    assert np.flatnonzero(found).tolist() == kept


# -- tables on disk


@pytest.fixture
def two_dates(tmp_path):
    rng = np.random.default_rng(5)
    dates = {date: rng.integers(1, 256, (3, 100, 90)).astype(np.uint8) for date in ("2019-06-19", DAY)}
    lakes = pd.concat(to_frame(blobs(rng, 5, (100, 90), (3, 12)), f"cube_{date}") for date in dates)
    return dates, Annotations(lakes)


def test_the_index_does_not_depend_on_the_chunks(two_dates, tmp_path):
    dates, annotations = two_dates
    rules = SampleRules(window=32, stride=20)
    found = []
    for chunks in (100, 17, 64):
        cube = write_cube(tmp_path / str(chunks) / "cube.zarr", dates, chunks)
        found.append(find_samples([cube], annotations, tmp_path / f"s{chunks}", rules=rules).drop(columns="path"))
    for other in found[1:]:
        pd.testing.assert_frame_equal(other, found[0], check_exact=True)
    assert set(found[0]["kind"]) >= {"positive", "hard"}


def test_finished_tables_are_read_not_made_again(two_dates, tmp_path, monkeypatch):
    dates, annotations = two_dates
    cube = write_cube(tmp_path / "cube.zarr", dates, 50)
    rules = SampleRules(window=32, stride=32)
    index = find_samples([cube], annotations, tmp_path / "s", rules=rules)
    monkeypatch.setattr("training.samples.compute", None)
    pd.testing.assert_frame_equal(find_samples([cube], annotations, tmp_path / "s", rules=rules), index)
    pd.testing.assert_frame_equal(read_samples(tmp_path / "s"), index)


KILLED = """
import os, signal, sys
from pathlib import Path
import geopandas as gpd
from training.annotations import Annotations
from training.samples import SampleRules, find_samples

replace = Path.replace
def killed(self, target):
    if Path(target).name == sys.argv[4]:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = killed
lakes = gpd.read_parquet(sys.argv[2])
find_samples([sys.argv[1]], Annotations(lakes), sys.argv[3], rules=SampleRules(window=32, stride=32))
"""


def test_a_killed_run_goes_on_where_it_ended(two_dates, tmp_path, monkeypatch):
    dates, annotations = two_dates
    cube = write_cube(tmp_path / "cube.zarr", dates, 50)
    annotations.lakes.to_parquet(tmp_path / "lakes.parquet")
    rules, folder = SampleRules(window=32, stride=32), tmp_path / "s"
    arguments = [str(cube), str(tmp_path / "lakes.parquet"), str(folder), f"cube_{DAY}.parquet"]
    root = str(Path(__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], check=False, cwd=root, env={**os.environ, "PYTHONPATH": root}
    )
    assert run.returncode == -signal.SIGKILL
    assert [file.name for file in folder.glob("*.parquet")] == ["cube_2019-06-19.parquet"]
    assert len(list(folder.glob("*.partial"))) == 1
    computed = []
    monkeypatch.setattr(
        "training.samples.compute", lambda *a, **k: computed.append(k["description"]) or compute(*a, **k)
    )
    index = find_samples([cube], annotations, folder, rules=rules)
    assert computed == [f"cube_{DAY}"]
    assert not list(folder.glob("*.partial"))
    pd.testing.assert_frame_equal(index, find_samples([cube], annotations, tmp_path / "whole", rules=rules))


def test_tables_of_other_inputs_are_replaced_only_when_asked(two_dates, tmp_path):
    dates, annotations = two_dates
    cube = write_cube(tmp_path / "cube.zarr", dates, 50)
    find_samples([cube], annotations, tmp_path / "s", rules=SampleRules(window=32, stride=32))
    moved = Annotations(annotations.lakes.assign(geometry=annotations.lakes.translate(40, 0)))
    for other, rules in ((annotations, SampleRules(window=32, stride=16)), (moved, SampleRules(window=32, stride=32))):
        with pytest.raises(ls.InputError, match=r"made from other pixels, annotations or rules"):
            find_samples([cube], other, tmp_path / "s", rules=rules)
        index = find_samples([cube], other, tmp_path / "s", rules=rules, overwrite=True)
        pd.testing.assert_frame_equal(read_samples(tmp_path / "s"), index)
        find_samples([cube], annotations, tmp_path / "s", rules=SampleRules(window=32, stride=32), overwrite=True)


def test_scenes_in_files_are_images_too(small_scene, tmp_path):
    grid = Grid.of(ls.open_scene(small_scene))
    x, y = grid.transform @ (40.2, 40.1) if hasattr(grid.transform, "__matmul__") else grid.transform * (40.2, 40.1)
    lakes = gpd.GeoDataFrame(geometry=[shapely.Point(x, y).buffer(200)], crs=grid.crs)
    (image,) = list_images(small_scene)
    assert image == Image("S2_small_20190723.tif", str(small_scene))
    index = find_samples(small_scene, Annotations(lakes), tmp_path / "s", rules=SampleRules(window=256, stride=256))
    assert len(index) == 1
    row = index.iloc[0]
    assert (row["inside_px"], row["seen_px"], row["kind"]) == (200 * 200, 200 * 190, "positive")
    assert row["lake_px"] == pytest.approx(np.pi * 20**2, rel=0.01)


def test_annotations_may_be_in_another_crs(two_dates, tmp_path):
    dates, annotations = two_dates
    cube = write_cube(tmp_path / "cube.zarr", dates, 50)
    rules = SampleRules(window=32, stride=32)
    index = find_samples([cube], annotations, tmp_path / "s", rules=rules)
    polar = Annotations(annotations.lakes.to_crs("EPSG:3413"))
    moved = find_samples([cube], polar, tmp_path / "t", rules=rules)
    np.testing.assert_allclose(moved["lake_px"], index["lake_px"], atol=2)


# -- bad input


def nan_everywhere():
    bands = np.full((3, 40, 40), 0.5, np.float32)
    bands[1] = np.nan
    return bands


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda lakes: lakes.assign(geometry=lakes.translate(1e6, 0)),
            r"the polygons miss the image: they lie in columns",
        ),
        (lambda lakes: lakes.set_crs("EPSG:3413", allow_override=True), r"miss the image.*Check the CRS"),
        (lambda lakes: lakes.set_crs(None, allow_override=True), r"annotations without a CRS"),
        (lambda lakes: lakes.assign(image="elsewhere"), r"annotations of an image that is not there: elsewhere"),
        (lambda lakes: lakes.assign(geometry=lakes.centroid), r"must be polygons, found Point \[lakes of .*row 0\]"),
        (lambda lakes: lakes.assign(geometry=None), r"must be polygons, found nothing"),
        (
            lambda lakes: lakes.assign(geometry=[shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])] * len(lakes)),
            r"an invalid polygon: Self-intersection.*make_valid",
        ),
        (lambda lakes: lakes.iloc[:0], r"no window holds a lake: \d+ hard"),
    ],
)
def test_annotations_that_cannot_be_used_are_refused(tmp_path, make, message):
    rng = np.random.default_rng(1)
    cube = write_cube(tmp_path / "cube.zarr", {DAY: rng.integers(1, 256, (3, 60, 60)).astype(np.uint8)}, 60)
    lakes = make(to_frame(blobs(rng, 3, (60, 60), (5, 9)), f"cube_{DAY}"))
    with pytest.raises(ls.InputError, match=message):
        find_samples([cube], Annotations(lakes), tmp_path / "s", rules=SampleRules(window=32, stride=32))


def test_lakes_of_one_of_many_images_must_say_which(two_dates, tmp_path):
    dates, annotations = two_dates
    cube = write_cube(tmp_path / "cube.zarr", dates, 50)
    with pytest.raises(ls.InputError, match="do not say which of 2 images"):
        find_samples([cube], Annotations(annotations.lakes.drop(columns="image")), tmp_path / "s")


def test_an_image_with_a_band_of_nan_is_refused(tmp_path):
    cube = write_cube(tmp_path / "cube.zarr", {DAY: nan_everywhere()}, 40)
    with pytest.raises(ls.InputError, match="one band or more is NaN or nodata everywhere"):
        find_samples([cube], Annotations(to_frame([star(9, 9, 5)])), tmp_path / "s")


@pytest.mark.parametrize(
    ("hard", "message"),
    [
        ({"image": [f"cube_{DAY}"], "row": [3], "col": [0]}, "there is no such window"),
        ({"image": [f"cube_{DAY}"], "row": [0], "col": [32]}, "a hard negative that holds a lake"),
        ({"image": ["other"], "row": [0], "col": [0]}, "windows of an image that is not there: other"),
        ({"image": ["other"], "row": [0]}, "no column col"),
    ],
)
def test_a_list_of_hard_negatives_must_fit(tiles, tmp_path, hard, message):
    cube, annotations = tiles
    with pytest.raises(ls.InputError, match=message):
        find_samples([cube], annotations, tmp_path / "s", rules=RULES, hard=pd.DataFrame(hard))


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (8, 9), (8, 0), (8.5, 4), (True, 1)])
def test_windows_that_cannot_be_are_refused(tiles, tmp_path, window, stride):
    cube, annotations = tiles
    with pytest.raises(ls.InputError, match=r"window|stride"):
        find_samples([cube], annotations, tmp_path / "s", rules=SampleRules(window=window, stride=stride))


def test_images_must_be_there_and_have_names_of_their_own(tmp_path):
    with pytest.raises(ls.InputError, match="no images"):
        list_images([])
    with pytest.raises(ls.InputError, match=r"two images of one name \[a.tif\]"):
        list_images(["x/a.tif", "y/a.tif"])
    with pytest.raises(ls.InputError, match="an image is a path, not DataArray"):
        list_images([raster(np.zeros((3, 8, 8), np.uint8))])
    with pytest.raises(ls.InputError, match="no such file"):
        find_samples(["x/a.tif"], Annotations({}), tmp_path / "s")
    with pytest.raises(ls.InputError, match="no samples here"):
        read_samples(tmp_path)


# -- mistakes of a model


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.2, 0.5, 0.9]))
def test_mined_windows_are_those_where_the_model_is_wrong(tmp_path_factory, seed, share, threshold):
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("mined")
    shape = (60, 50)
    bands = np.full((3, *shape), 200, np.uint8)
    lakes, ignore = (within(blobs(rng, 2, shape, (4, 9)), shape) for _ in range(2))
    lakes.append(star(10, 10, 4))
    cube = write_cube(folder / "cube.zarr", {DAY: bands}, 33)
    name = f"cube_{DAY}"
    annotations = Annotations(to_frame(lakes), to_frame(ignore))
    index = find_samples([cube], annotations, folder / "s", rules=SampleRules(window=16, stride=9))
    values = np.where(rng.random(shape) < 0.9, rng.random(shape) ** 4, np.nan).astype(np.float32)
    found = mine_hard_negatives(
        index, {name: raster(values, 13)}, annotations, threshold=threshold, least_share=share
    )  # fmt: skip
    ignored = plain_mask(ignore, shape)
    lake = plain_mask(lakes, shape) & ~ignored
    judged = ~np.isnan(values) & ~ignored
    wrong = judged & ((np.nan_to_num(values) >= threshold) != lake)
    for before, after, (row, col, place) in zip(
        index.itertuples(), found.itertuples(), plain_windows(shape, 16, 9), strict=True
    ):
        assert (after.row, after.col) == (row, col)
        assert (after.judged_px, after.wrong_px) == (judged[place].sum(), wrong[place].sum())
        may = before.kind == "negative" or before.reason == "near-duplicate"
        mined = may and wrong[place].sum() > share * judged[place].sum()
        assert (after.kind, after.reason) == (("hard", "mined") if mined else (before.kind, before.reason))


def test_mining_refuses_what_does_not_fit(two_dates, tmp_path):
    dates, annotations = two_dates
    cube = write_cube(tmp_path / "cube.zarr", dates, 50)
    index = find_samples([cube], annotations, tmp_path / "s", rules=SampleRules(window=32, stride=32))
    name, right = f"cube_{DAY}", raster(np.zeros((100, 90), np.float32))
    for probability, options, message in (
        ({"other": right}, {}, "not in the index"),
        ({name: right[:50]}, {}, "not on the grid of its image"),
        ({name: right}, {"threshold": 1.5}, "threshold must lie in 0..1"),
    ):
        with pytest.raises(ls.InputError, match=message):
            mine_hard_negatives(index, probability, annotations, **options)
