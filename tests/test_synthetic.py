"""Synthetic regions: lazy, the same for any chunks and windows, seen or not seen, and shaped like ice."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import axis_chunks
from scipy import ndimage

import lakescale as ls
from lakescale.schema import InputError
from lakescale.synthetic import CLASSES, Scenery, make_region

pytestmark = pytest.mark.usefixtures("one_thread")

DAY = "2019-07-08"
RASTERS = {
    "reflectance": lambda region, **how: region.scene(DAY, **how),
    "rgb8": lambda region, **how: region.scene(DAY, kind="rgb8", **how),
    "bed": lambda region, **how: region.dem(**how),
    "arcticdem": lambda region, **how: region.dem(surface="arcticdem", **how),
    "coarse": lambda region, **how: region.dem(surface="arcticdem", resolution_m=32, **how),
    "classes": lambda region, **how: region.classes(DAY, **how),
    "truth": lambda region, **how: region.truth(DAY, **how),
    "seen": lambda region, **how: region.seen(DAY, **how),
}
CORNERS = ((20, 300), (380, 970), (1080, 330), (1500, 60), (900, 400))
"""Of windows over lakes, streams, nunataks, rock and cloud."""


def window(row, col, height, width, **scenery):
    scenery = Scenery(**{"cloud_share": 0.3, "striped": True, **scenery})
    whole = make_region(2048, scenery=scenery)
    return whole.window(slice(row, row + height), slice(col, col + width))


@st.composite
def windows(draw):
    row, col = draw(st.sampled_from(CORNERS))
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    region = window(row + draw(st.integers(0, 60)), col + draw(st.integers(0, 60)), height, width)
    return region, (draw(axis_chunks(height)), draw(axis_chunks(width)))


@pytest.mark.parametrize("kind", RASTERS)
@settings(max_examples=15)
@given(case=windows())
def test_any_chunks_equal_one_chunk(kind, case):
    region, chunks = case
    whole = RASTERS[kind](region, chunks=-1)
    if kind == "coarse":
        chunks = 1 + len(chunks[0])
    np.testing.assert_array_equal(RASTERS[kind](region, chunks=chunks).values, whole.values)


@pytest.mark.parametrize("kind", [kind for kind in RASTERS if kind != "coarse"])
def test_a_window_of_a_region_shows_what_the_region_shows_there(kind):
    region = window(380, 970, 150, 170)
    part = region.window(slice(31, 117), slice(-90, None))
    whole = RASTERS[kind](region)
    cut = whole.isel(y=slice(31, 117), x=slice(80, 170))
    alone = RASTERS[kind](part)
    np.testing.assert_array_equal(alone.values, cut.values)
    np.testing.assert_array_equal(alone.x.values, cut.x.values)
    np.testing.assert_array_equal(alone.y.values, cut.y.values)


def test_another_process_makes_the_same_bytes_and_another_seed_does_not():
    code = (
        "import dask, hashlib; from lakescale.synthetic import make_region; dask.config.set(scheduler='synchronous');"
        "r = make_region((40, 60), seed=5); h = hashlib.sha256();"
        "[h.update(a.values.tobytes()) for a in (r.scene('2019-07-08'), r.dem(), r.truth('2019-07-08'))];"
        "print(h.hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    regions = [make_region((40, 60), seed=seed) for seed in (5, 6)]
    digests = [hashlib.sha256() for _ in regions]
    for region, digest in zip(regions, digests, strict=True):
        for raster in (region.scene(DAY), region.dem(), region.truth(DAY)):
            digest.update(raster.values.tobytes())
    assert digests[0].hexdigest() == told
    assert digests[1].hexdigest() != told


def test_building_computes_nothing_and_tasks_have_names(never_compute):
    region = make_region(100_000)
    for name, make in RASTERS.items():
        raster = make(region)
        assert raster.data.name.startswith("synthetic-"), name
        assert raster.shape[-2:] == (100_000, 100_000) or name == "coarse"


def test_a_scene_is_as_open_scene_gives_it():
    region = window(380, 970, 60, 70, swath_gaps=False, striped=False)
    scene, rgb = region.scene(DAY), region.scene(DAY, kind="rgb8")
    assert scene.dtype == np.float32
    assert scene.dims == ("band", "y", "x")
    assert list(scene.band.values) == ["blue", "green", "red", "nir", "swir1", "cirrus"]
    assert list(rgb.band.values) == ["red", "green", "blue"]
    assert rgb.attrs["nodata_values"] == [0]
    assert (scene.attrs["radiometry"], rgb.attrs["radiometry"]) == ("reflectance", "rgb8")
    assert scene.time.values == np.datetime64(DAY)
    assert scene.rio.crs.to_epsg() == 3413
    assert ls.Grid.of(scene) == region.grid
    stretched = 1 + 254 * np.minimum(scene.sel(band=["red", "green", "blue"]).values / 0.85, 1)
    np.testing.assert_allclose(rgb.values, stretched, atol=0.51)


def test_not_seen_is_not_seen_everywhere():
    region = window(20, 300, 200, 200)
    seen = region.seen(DAY).values
    assert 0.5 < seen.mean() < 0.95
    np.testing.assert_array_equal(np.isnan(region.scene(DAY).values), np.broadcast_to(~seen, (6, *seen.shape)))
    np.testing.assert_array_equal((region.scene(DAY, kind="rgb8").values == 0).all(0), ~seen)
    np.testing.assert_array_equal(region.classes(DAY).values == CLASSES.index("not seen"), ~seen)
    for kind in ("reflectance", "rgb8"):
        np.testing.assert_array_equal(ls.seen_mask(region.scene(DAY, kind=kind)).values, seen)


def test_swaths_have_slanted_edges_that_differ_by_date():
    region = make_region((300, 6000))
    edges = [np.flatnonzero(np.diff(region.seen(day).values[0].astype(int))) for day in region.dates]
    assert all(len(edge) for edge in edges)
    assert len({tuple(edge) for edge in edges}) == len(edges)
    rows = region.seen(region.dates[0]).values
    assert (rows[0] != rows[-1]).any()


def test_every_knob_changes_the_picture():
    def shares(day="2019-07-28", *, size=400, row=800, col=0, **scenery):
        plain = {"cloud_share": 0.2, "cirrus_share": 0.3, "swath_gaps": False, **scenery}
        made = make_region(2048, scenery=Scenery(**plain)).window(slice(row, row + size), slice(col, col + size))
        counts = np.bincount(made.classes(day).values.ravel(), minlength=len(CLASSES)) / size**2
        return dict(zip(CLASSES, counts, strict=True))

    usual = shares()
    assert usual["water"] > 0
    assert shares(lake_density=0.0)["water"] == 0
    assert shares(cloud_share=0.0, cirrus_share=0.0)["cloud"] == 0
    assert shares(cloud_share=0.0)["shadow"] == 0
    assert shares(cloud_share=0.0, cirrus_share=0.9)["cloud"] > shares(cloud_share=0.0)["cloud"]
    assert usual["not seen"] == 0
    assert 0.1 < shares(striped=True)["not seen"] < 0.14
    assert shares(snow=0.4)["snow"] > 2 * usual["snow"]
    rocky = shares(row=1600)
    assert rocky["rock"] > 0.1
    assert shares(row=1600, margin_km=30.0)["rock"] == 0
    few, many = (shares(row=950, col=250, cloud_share=0.0, nunataks=n)["rock"] for n in (0.0, 1.0))
    assert few == 0 < many


# -- the surface


def test_two_to_four_percent_of_the_cells_are_minima():
    eight = np.ones((3, 3), bool)
    eight[1, 1] = False
    for seed in (0, 1):
        bed = make_region(600, seed=seed).window(slice(0, 600), slice(100, 600)).dem().values
        lowest_beside = ndimage.minimum_filter(bed, footprint=eight)
        share = (bed < lowest_beside)[1:-1, 1:-1].mean()
        assert 0.02 <= share <= 0.04


def test_heights_have_a_power_law_spectrum():
    bed = make_region(1024, scenery=Scenery(margin_km=30.0)).dem().values.astype(float)
    rows, cols = np.mgrid[: bed.shape[0], : bed.shape[1]]
    plane = np.column_stack([np.ones(bed.size), rows.ravel(), cols.ravel()])
    flat = bed - (plane @ np.linalg.lstsq(plane, bed.ravel(), rcond=None)[0]).reshape(bed.shape)
    power = np.abs(np.fft.fft2(flat * np.outer(np.hanning(1024), np.hanning(1024)))) ** 2
    wave = np.hypot(*np.meshgrid(np.fft.fftfreq(1024), np.fft.fftfreq(1024)))
    bins = np.geomspace(4 / 1024, 0.25, 13)
    place = np.digitize(wave.ravel(), bins)
    level = np.log([power.ravel()[place == k].mean() for k in range(1, len(bins))])
    middle = np.log(np.sqrt(bins[1:] * bins[:-1]))
    slope, start = np.polyfit(middle, level, 1)
    assert -4.0 < slope < -2.2
    assert np.abs(level - (slope * middle + start)).max() < 1.2


def test_a_coarser_dem_holds_the_heights_at_its_pixel_centres():
    region = window(370, 960, 200, 211, cloud_share=0.0)
    coarse, fine = region.dem(resolution_m=30), region.dem()
    assert coarse.dtype == np.float32
    assert coarse.x.values[0] - 15 <= fine.x.values[0] - 5
    assert coarse.x.values[-1] + 15 >= fine.x.values[-1] + 5
    both = coarse.sel(x=np.intersect1d(coarse.x, fine.x), y=np.intersect1d(coarse.y, fine.y)[::-1])
    assert min(both.shape) >= 60
    np.testing.assert_array_equal(both.values, fine.sel(x=both.x, y=both.y).values)


@pytest.mark.parametrize(("resolution_m", "seed"), [(2.0, 0), (30.0, 7), (100.0, 2**31 - 1)])
def test_other_resolutions_and_seeds(resolution_m, seed):
    region = make_region((80, 70), seed=seed, resolution_m=resolution_m, dates=[DAY])
    assert ls.Grid.of(region.dem()).pixel_size_m == resolution_m
    scene, heights = region.scene(region.dates[0]), region.dem(surface="arcticdem", resolution_m=25)
    assert np.nanmax(scene.values) < 1.2
    assert 100 < np.nanmin(heights.values) < np.nanmax(heights.values) < 2500
    labels = set(np.unique(region.truth(DAY).values)) - {0}
    assert labels == set(region.lakes(DAY).lake_id)
    assert np.abs(np.subtract(region.dem(resolution_m=25).shape, np.array([80, 70]) * resolution_m / 25)).max() < 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_region(0), "region of 0 x 0"),
        (lambda: make_region(500_000), "region of 500000"),
        (lambda: make_region(10, resolution_m=0.5), "resolution of 0.5 m"),
        (lambda: make_region(10, seed=-1), "seed must lie"),
        (lambda: make_region(10, dates=["late July"]), "no date"),
        (lambda: make_region(10).scene(DAY, kind="rgb16"), "no scene of kind 'rgb16'"),
        (lambda: make_region(10).scene(None), "no date"),
        (lambda: make_region(10).dem(surface="lid"), "no surface 'lid'"),
        (lambda: make_region(10).dem(resolution_m=1000), "resolution of 1000 m"),
        (lambda: make_region(10).dem(chunks="many"), "chunks that make no sense"),
        (lambda: make_region(10).window(slice(5, 5), slice(None)), "window without pixels"),
        (lambda: make_region(10, scenery=Scenery(cloud_share=1.5)), "cloud_share"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ls.InputError, match=message):
        call()


@pytest.mark.parametrize(
    "key", [np.s_[:, ::3, ::5], np.s_[0, 5, 7], np.s_[:, 5], np.s_[::-1, 90:10:-7, -1], np.s_[:, 4:4]]
)
def test_any_selection_is_that_of_the_whole(key):
    scene = make_region(120, seed=3).scene("2019-07-28", chunks=50)
    np.testing.assert_array_equal(scene.data[key], scene.values[key])
    dem = make_region(120, seed=3).dem(chunks=50)
    np.testing.assert_array_equal(dem.data[key[1:]], dem.values[key[1:]])


@pytest.mark.parametrize("size", ["x", [100, 200], 100.5, (1, 2, 3)])
def test_sizes_that_are_no_numbers_are_refused(size):
    with pytest.raises(InputError, match="whole numbers"):
        make_region(size)
    with pytest.raises(InputError, match="whole numbers"):
        make_region(100, seed=1.5)
    with pytest.raises(InputError, match="gaps"):
        make_region(100).window(slice(0, 100, 2), slice(0, 100))
