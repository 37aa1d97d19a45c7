"""s2cloudless chunk by chunk against the package on the whole scene; margins of cloud against distances."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasters import axis_chunks, raster
from scipy import ndimage

from lakescale.evidence import cloud_s2cloudless
from lakescale.evidence.cloud import assess_cloud
from lakescale.schema import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

BANDS = list(cloud_s2cloudless.BANDS)
GRID = {"transform": Affine(10, 0, 500_000, 0, -10, 7_400_000), "crs": "EPSG:32622"}
CLEAR = (0.15, 0.12, 0.09, 0.12, 0.25, 0.26, 0.1, 0.001, 0.15, 0.1)
CLOUD = (0.55, 0.52, 0.5, 0.52, 0.55, 0.55, 0.3, 0.02, 0.35, 0.28)


def scene_of(height, width, seed):
    """Land with soft clouds, in ten bands of L1C; some pixels without data."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(height, width)), 3)
    share = np.clip((field / field.std() - 0.3) / 1.5, 0, 1)
    clear, cloud = (np.array(one)[:, None, None] for one in (CLEAR, CLOUD))
    planes = (clear + share * (cloud - clear)) * rng.normal(1, 0.03, (len(BANDS), height, width))
    planes[:, rng.random((height, width)) < 0.02] = np.nan
    return planes.astype(np.float32)


def look(planes, chunks=-1, **options):
    scene = raster(planes, chunks, bands=BANDS, **GRID).assign_attrs(product_level="L1C")
    return assess_cloud(scene, rule="s2cloudless", **options).mask.values


def by_the_package(planes):
    from s2cloudless import S2PixelCloudDetector

    detector = S2PixelCloudDetector(
        threshold=0.4, average_over=cloud_s2cloudless.AVERAGE_PX, dilation_size=cloud_s2cloudless.GROW_PX
    )
    seen = ~np.isnan(planes).any(axis=0)
    probability = detector.get_cloud_probability_maps(planes.transpose(1, 2, 0)[None])[0]
    return detector.get_mask_from_prob(np.where(seen, probability, 0)[None].astype(np.float32))[0].astype(bool) & seen


def test_it_equals_the_package_on_the_whole_scene():
    planes = scene_of(120, 150, 1)
    found, expected = look(planes), by_the_package(planes)
    assert 0.1 < expected.mean() < 0.9
    assert (found != expected).mean() < 1e-3  # probabilities are rounded to 16 bits


@settings(max_examples=10)
@given(st.integers(0, 99), axis_chunks(40), axis_chunks(30))
def test_any_chunks_give_the_same(seed, rows, cols):
    planes = scene_of(40, 30, seed)
    np.testing.assert_array_equal(look(planes, (rows, cols)), look(planes))
    np.testing.assert_array_equal(look(planes, (rows, cols), margin_m=45), look(planes, margin_m=45))


def test_a_margin_is_a_distance():
    planes = scene_of(60, 50, 3)
    cloud, seen = look(planes), ~np.isnan(planes).any(axis=0)
    far = ndimage.distance_transform_edt(~cloud) * 10
    np.testing.assert_array_equal(look(planes, 17, margin_m=70), (far <= 70) & seen)
    scene = raster(planes, bands=BANDS, **GRID)
    assert assess_cloud(scene, margin_m=70).note.endswith("; and within 70 m of it")
    with pytest.raises(InputError, match="margin_m must be metres"):
        assess_cloud(scene, margin_m=-1)


def test_it_is_taken_by_name_alone_and_refused_where_it_cannot_be_used(monkeypatch):
    planes = scene_of(8, 8, 0)
    scene = raster(planes, bands=BANDS, **GRID).assign_attrs(product_level="L1C")
    assert assess_cloud(scene).rule == "moussavi"
    with pytest.raises(InputError, match="no coastal"):
        assess_cloud(scene.isel(band=slice(1, None)), rule="s2cloudless")
    with pytest.raises(InputError, match="top-of-atmosphere reflectance, the level is L2A"):
        assess_cloud(scene.assign_attrs(product_level="L2A"), rule="s2cloudless")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(cloud_s2cloudless, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed, which pip install 'lakescale\[s2cloudless\]' does"):
        assess_cloud(scene, rule="s2cloudless")


def test_building_computes_nothing(never_compute):
    scene = raster(np.ones((10, 8, 8), np.float32), 4, bands=BANDS, **GRID).assign_attrs(product_level="L1C")
    assert assess_cloud(scene, rule="s2cloudless", margin_m=20).mask.shape == (8, 8)
