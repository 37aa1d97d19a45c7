"""Cloud rules against plain numpy formulas, on any chunks."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasters import axis_chunks, raster

from lakescale.evidence.cloud import assess_cloud, seen_without_cloud
from lakescale.scene import seen_mask
from lakescale.schema import InputError

F = np.float32
BANDS = ["red", "blue", "cirrus", "swir1", "scl"]

chunked_seeds = st.tuples(
    st.integers(1, 25).flatmap(axis_chunks), st.integers(1, 25).flatmap(axis_chunks), st.integers(0, 2**31)
)


def random_bands(height, width, seed):
    """Reflectance about the thresholds, many exactly on them, classes, and holes in single bands."""
    rng = np.random.default_rng(seed)
    bands = np.empty((5, height, width), F)
    on = {"red": [0.5], "blue": [0.6, 0.97, 0.8], "cirrus": [0.003, 0.002, 0.004], "swir1": [0.11, 0.14, 0.12, 0.15]}
    for plane, name in enumerate(BANDS[:4]):
        near = rng.choice(np.array(on[name], F), (height, width))
        ulps = rng.integers(-1, 2, (height, width))
        bands[plane] = np.where(ulps == 0, near, np.nextafter(near, np.where(ulps > 0, F(9), F(-9))))
    bands[4] = rng.integers(0, 12, (height, width))
    bands[rng.random(bands.shape) < 0.05] = np.nan
    return bands


def expected_cloud(bands, rule):
    """DOMAIN.md, word for word, in float32; NaN compares false."""
    _, blue, cirrus, swir1, scl = bands
    cloud = {
        "moussavi": (cirrus > F(0.003)) & (swir1 > F(0.11)) & (F(0.6) < blue) & (blue < F(0.97)),
        "williamson": swir1 > F(0.14),
        "scl": (scl == 3) | (scl == 8) | (scl == 9) | (scl == 10),
    }[rule]
    return cloud & ~np.isnan(bands).any(axis=0)


@pytest.mark.parametrize("rule", ["moussavi", "williamson", "scl"])
@given(chunked_seeds)
def test_each_rule_is_its_formula_in_any_chunks(rule, drawn):
    rows, cols, seed = drawn
    bands = random_bands(sum(rows), sum(cols), seed)
    scene = raster(bands, (rows, cols), bands=BANDS)
    found = assess_cloud(scene, rule=rule)
    assert found.rule == rule
    assert found.mask.dtype == bool
    assert found.mask.name == "cloud"
    assert found.mask.dims == ("y", "x")
    assert found.mask.data.chunks == (rows, cols)
    assert found.mask.rio.crs == scene.rio.crs
    np.testing.assert_array_equal(found.mask.values, expected_cloud(bands, rule))


@given(chunked_seeds, st.integers(1, 25))
def test_bands_may_lie_beside_the_scene_in_other_chunks(drawn, side):
    rows, cols, seed = drawn
    bands = random_bands(sum(rows), sum(cols), seed)
    scene = raster(bands[:2], (rows, cols), bands=BANDS[:2])
    beside = [raster(bands[2:4], side, bands=BANDS[2:4]), raster(bands[4:], side, bands=BANDS[4:])]
    asked = {"moussavi": [2, 3], "williamson": [3], "scl": [4]}
    for rule, planes in asked.items():
        counting = np.where(np.isin(range(5), [0, 1, *planes])[:, None, None], bands, 0)  # other holes do not matter
        mask = assess_cloud(scene, beside=beside, rule=rule).mask
        np.testing.assert_array_equal(mask.values, expected_cloud(counting, rule))
        assert mask.data.chunks == (rows, cols)


@pytest.mark.parametrize(
    ("band", "rule", "on_the_limit"),
    [
        ("cirrus", "moussavi", 0.003),
        ("swir1", "moussavi", 0.11),
        ("blue", "moussavi", 0.60),
        ("blue", "moussavi", 0.97),
        ("swir1", "williamson", 0.14),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_on_a_threshold_is_no_cloud(band, rule, on_the_limit, dtype):
    cloudy = {"red": 0.8, "blue": 0.8, "cirrus": 0.01, "swir1": 0.3, "scl": 11}
    inwards = -1 if on_the_limit == 0.97 else 1
    for value, is_cloud in ((F(on_the_limit), False), (np.nextafter(F(on_the_limit), F(inwards)), True)):
        pixel = np.array([value if name == band else cloudy[name] for name in BANDS], dtype)[:, None, None]
        assert assess_cloud(raster(pixel, bands=BANDS), rule=rule).mask.values.item() is is_cloud


def test_classes_of_scl():
    classes = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    mask = assess_cloud(raster(classes, bands=["scl"])).mask
    assert classes[0][mask.values].tolist() == [3, 8, 9, 10]  # 11 is snow


def scene_of(*bands, dtype=np.float32, beside=(), **attrs):
    def stack(names):
        return raster(np.full((len(names), 4, 4), 1, dtype), 2, bands=list(names)).assign_attrs(attrs)

    return stack(bands), [stack(names) for names in beside]


@pytest.mark.parametrize(
    ("bands", "beside", "level", "rule"),
    [
        (["red", "blue", "cirrus", "swir1"], [], "L1C", "moussavi"),
        (["red", "blue"], [["swir1"], ["cirrus"]], "L1C", "moussavi"),
        (["red", "blue", "cirrus", "swir1"], [], "", "williamson"),  # the level is not known
        (["red", "cirrus", "swir1"], [], "L1C", "williamson"),
        (["red", "blue", "swir1", "scl"], [], "L2A", "williamson"),
        (["red", "blue"], [["swir1"], ["scl"]], "L2A", "williamson"),
        (["red", "blue"], [["scl"]], "L2A", "scl"),
        (["red", "blue", "nir"], [["swir2"]], "L2A", "none"),
    ],
)
def test_auto_takes_the_best_that_the_bands_allow(bands, beside, level, rule):
    scene, others = scene_of(*bands, beside=beside, product_level=level)
    found = assess_cloud(scene, beside=others)
    assert found.rule == rule
    assert (found.mask is None) == (rule == "none")


def test_notes_say_what_was_done():
    def note(*bands, dtype=np.float32, rule="auto", **attrs):
        return assess_cloud(scene_of(*bands, dtype=dtype, **attrs)[0], rule=rule).note

    assert note("swir1") == "cloud: B11 > 0.14 (Williamson et al. 2018)"
    assert note("swir1", sensor="Landsat 8").endswith("; set on Sentinel-2, this is Landsat 8")
    assert "B10 > 0.003 and B11 > 0.11" in note("blue", "cirrus", "swir1", product_level="L1C")
    assert "level of this is not known" in note("blue", "cirrus", "swir1", rule="moussavi")
    assert "shadow for water" in note("scl")
    assert note("red", "blue") == (
        "cloud not assessed: the scene has no SWIR band and no SCL; clouded pixels count as seen"
    )
    assert note("red", "green", "blue", dtype=np.uint8) == (
        "cloud not assessed: 8-bit RGB does not tell it from ice; clouded pixels count as seen"
    )
    assert "needs reflectance as float, these bands are uint16" in note("swir1", dtype=np.uint16)
    assert note("swir1", rule="none") == "cloud not assessed, as asked: clouded pixels count as seen"


def test_rgb_may_have_classes_or_reflectance_beside_it():
    rgb = raster(np.full((3, 4, 4), 200, np.uint8), 2).assign_attrs(nodata_values=[0])
    swir1 = raster(np.full((1, 4, 4), 0.2, np.float32), 2, bands=["swir1"])
    scl = raster(np.full((1, 4, 4), 9, np.uint8), 2, bands=["scl"])
    for beside, rule in ((swir1, "williamson"), (scl, "scl")):
        found = assess_cloud(rgb, beside=[beside])
        assert found.rule == rule
        assert found.mask.values.all()


@given(chunked_seeds)
def test_cloud_is_not_seen(drawn):
    rows, cols, seed = drawn
    bands = random_bands(sum(rows), sum(cols), seed)
    scene = raster(bands, (rows, cols), bands=BANDS)
    clear = seen_without_cloud(seen_mask(scene), assess_cloud(scene, rule="williamson"))
    expected = ~np.isnan(bands).any(axis=0) & ~(bands[3] > F(0.14))
    np.testing.assert_array_equal(clear.values, expected)
    assert clear.name == "seen"
    assert clear.data.chunks == (rows, cols)


def test_without_an_assessment_seen_stays_as_it_is():
    seen = seen_mask(raster(np.ones((2, 4, 4), np.float32), bands=["red", "blue"]))
    assert seen_without_cloud(seen, assess_cloud(raster(np.ones((1, 4, 4), np.float32)))) is seen


def test_a_scene_in_memory_and_bands_in_another_order_of_dims():
    bands = random_bands(6, 5, 1)
    scene = raster(bands, bands=BANDS).compute().transpose("x", "band", "y")
    found = assess_cloud(scene, rule="moussavi")
    np.testing.assert_array_equal(found.mask.values, expected_cloud(bands, "moussavi"))
    one = raster(bands[3:4], bands=["swir1"]).isel(band=0)
    np.testing.assert_array_equal(assess_cloud(one).mask.values, bands[3] > F(0.14))


def test_building_computes_nothing_and_a_chunk_is_one_task(never_compute):
    scene = raster(np.ones((5, 90, 90), np.float32), 30, bands=BANDS)
    found = assess_cloud(scene, rule="moussavi")
    clear = seen_without_cloud(seen_mask(scene), found)
    names = [key[0].rsplit("-", 1)[0] for key in clear.__dask_graph__() if isinstance(key, tuple)]
    assert {name: names.count(name) for name in ("cloud-mask", "seen-mask", "seen-without-cloud")} == {
        "cloud-mask": 9, "seen-mask": 9, "seen-without-cloud": 9,
    }  # fmt: skip
    assert len([name for name in names if "array" not in name]) == 27


@pytest.mark.parametrize(
    ("bands", "options", "message"),
    [
        (
            ["red"],
            {"rule": "fmask"},
            "no cloud rule 'fmask' [cloud]. Choose auto, moussavi, williamson, scl, s2cloudless or none",
        ),
        (["red", "swir1"], {"rule": "moussavi"}, "'moussavi' cannot be used: the scene has no cirrus and no blue"),
        (["red", "blue"], {"rule": "williamson"}, "the scene has no swir1 [raw.tif]"),
        (["red", "blue"], {"rule": "scl"}, "the scene has no scl"),
        (["swir1"], {"rule": "williamson", "dtype": np.uint8}, "needs reflectance as float, these bands are uint8"),
        (["blue", "cirrus", "swir1"], {"rule": "moussavi", "product_level": "L2A"}, "the level is L2A"),
    ],
)
def test_rules_that_cannot_be_used_are_refused(bands, options, message):
    rule = options.pop("rule")
    scene, _ = scene_of(*bands, source="raw.tif", **options)
    with pytest.raises(InputError, match=re.escape(message)):
        assess_cloud(scene, rule=rule)


def test_bands_beside_on_another_grid_are_refused():
    scene, _ = scene_of("red", "blue")
    with pytest.raises(InputError, match=r"\(2, 2\) pixels beside a scene of \(4, 4\).*regrid"):
        assess_cloud(scene, beside=[raster(np.ones((1, 2, 2), np.float32), bands=["swir1"])])
