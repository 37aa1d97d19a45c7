"""The truth of synthetic regions is physics: lakes under their spill level, polygons of the mask, fates over dates."""

from __future__ import annotations

import heapq

import numpy as np
import pandas as pd
import pytest
import rasterio.features
import shapely
from scipy import ndimage

import lakescale as ls
from lakescale.synthetic import CLASSES, Scenery, make_region

pytestmark = pytest.mark.usefixtures("one_thread")

EIGHT = np.ones((3, 3))
DAYS = pd.date_range("2019-06-10", "2019-09-10", freq="10D").strftime("%Y-%m-%d")
CLEAR = Scenery(cloud_share=0.0, cirrus_share=0.0, swath_gaps=False)
DOMAIN_PX = 190
"""Half of the widest window in which a basin is flooded: nearer to the edge the oracle's land ends too early."""


@pytest.fixture(scope="module")
def region():
    return make_region(2048, scenery=CLEAR).window(slice(0, 1000), slice(200, 1200))


@pytest.fixture(scope="module")
def bed(region):
    return region.dem().compute(scheduler="synchronous").values


@pytest.fixture(scope="module")
def filled(bed):
    return flood(bed)


@pytest.fixture(scope="module")
def season(region):
    return {day: region.lakes(day).set_index("lake_id") for day in DAYS}


def flood(bed):
    """Priority-flood (Barnes et al. 2014) with a heap, eight neighbours, the array's edge as the outlet."""
    height, width = bed.shape
    filled, done = bed.copy(), np.zeros(bed.shape, bool)
    done[[0, -1]] = done[:, [0, -1]] = True
    heap = [(bed[i, j], i, j) for i, j in np.argwhere(done)]
    heapq.heapify(heap)
    while heap:
        level, i, j = heapq.heappop(heap)
        for m in range(max(0, i - 1), min(height, i + 2)):
            for n in range(max(0, j - 1), min(width, j + 2)):
                if not done[m, n]:
                    done[m, n] = True
                    filled[m, n] = max(level, bed[m, n])
                    heapq.heappush(heap, (filled[m, n], m, n))
    return filled


def inner_lakes(frame, labels):
    """Lakes whose domain lies inside the region."""
    rows, cols = np.indices(labels.shape)
    away = np.minimum.reduce([rows, cols, labels.shape[0] - 1 - rows, labels.shape[1] - 1 - cols]) >= DOMAIN_PX
    return [lake for lake in frame.itertuples() if away[labels == lake.Index].all()]


def test_lakes_fill_real_depressions_no_higher_than_they_spill(region, bed, filled, season):
    labels = region.truth("2019-07-10").values
    lakes = inner_lakes(season["2019-07-10"], labels)
    assert len(lakes) >= 8
    as_told = 0
    for lake in lakes:
        inside = labels == lake.Index
        water = inside & (bed < np.float32(lake.level_m))
        assert lake.level_m <= lake.spill_m
        assert (filled[water] >= np.float32(lake.level_m)).all()
        assert (filled[water] >= np.float32(lake.spill_m)).all()
        as_told += bool((filled[water] == np.float32(lake.spill_m)).all())
        assert ndimage.label(water, EIGHT)[1] == 1
        np.testing.assert_array_equal(ndimage.binary_fill_holes(water), inside)
        shore = ndimage.binary_dilation(water, EIGHT) & ~water
        assert (bed[shore] >= np.float32(lake.level_m)).all()
        depth = np.float32(lake.level_m) - bed[water]
        assert depth.max() == pytest.approx(lake.depth_max_m, abs=1e-3)
        assert depth.sum(dtype=float) * 100 == pytest.approx(lake.volume_m3, rel=1e-4)
    assert as_told >= 0.8 * len(lakes)  # the others lie in wider hollows than the domain in which they are flooded


def test_lakes_keep_apart(region):
    labels = region.truth("2019-07-10").values
    assert set(ndimage.label(labels > 0, EIGHT)[0][labels > 0]) == set(range(1, len(np.unique(labels))))


def test_polygons_outline_the_labels_holes_filled(region, season):
    truth = region.truth("2019-07-10")
    labels = truth.values
    frame = season["2019-07-10"]
    traced = rasterio.features.shapes(labels, mask=labels > 0, connectivity=4, transform=truth.rio.transform())
    pieces = pd.DataFrame(
        [(int(value), shapely.geometry.shape(shape)) for shape, value in traced], columns=["id", "at"]
    )
    whole = pieces.groupby("id")["at"].agg(lambda parts: shapely.union_all(list(parts)))
    assert sorted(frame.index) == sorted(whole.index)
    assert shapely.area(shapely.symmetric_difference(frame.geometry.to_numpy(), whole[frame.index])).max() == 0
    assert frame.geometry.is_valid.all()
    assert all(not part.interiors for part in shapely.get_parts(frame.geometry.to_numpy()))
    again = ls.polygonize(truth).compute().set_index("label").geometry
    assert shapely.area(shapely.symmetric_difference(frame.geometry.to_numpy(), again[frame.index])).max() == 0
    np.testing.assert_allclose(frame.area_m2, frame.area, rtol=0.05)


def test_lakes_have_many_sizes_and_some_have_islands_and_several_floors(region, bed, season):
    labels, frame = region.truth("2019-07-10").values, season["2019-07-10"]
    assert frame.area_m2.min() < 5000
    assert frame.area_m2.max() > 300_000
    islands = floors = 0
    for lake in frame.itertuples():
        inside = labels == lake.Index
        islands += bool((bed[inside] >= lake.level_m).any())
        levels = np.linspace(lake.level_m - lake.depth_max_m, lake.level_m, 12)[1:-1]
        for level in levels:  # pools of 20 pixels or more that are one lake at its level: nested depressions
            pools, count = ndimage.label(inside & (bed < level), EIGHT)
            if count > 1 and np.sort(np.bincount(pools.ravel())[1:])[-2] >= 20:
                floors += 1
                break
    assert islands >= 1
    assert floors >= 3


def test_fates_run_their_course(season):
    fates = pd.concat([frame.assign(day=pd.Timestamp(day)) for day, frame in season.items()]).sort_values("day")
    assert not set(fates.fate) & {"buried", "stays empty"}
    assert all(len(set(lake.fate)) == 1 for _, lake in fates.groupby(level=0))
    assert len(season[DAYS[0]]) < len(season["2019-07-10"]) > len(season[DAYS[-1]])
    seen = dict.fromkeys(("drains fast", "drains slowly", "freezes"), 0)
    for _, lake in fates.groupby(level=0):
        fate, level, lid = lake.fate.iloc[0], lake.level_m.to_numpy(), lake.lid_share.to_numpy()
        late = lake.day.iloc[-1]
        if fate == "drains fast":
            assert late < pd.Timestamp("2019-08-25")
            assert (np.diff(level) >= 0).all()
        elif fate == "drains slowly":
            peak = level.argmax()
            assert (np.diff(level[:peak]) >= 0).all()
            assert (np.diff(level[peak:]) <= 0).all()
            assert late < pd.Timestamp(DAYS[-1]) or level[-1] < level.max()
        elif fate == "freezes":
            assert late == pd.Timestamp(DAYS[-1])
            assert lake.state.iloc[-1] == "lidded"
            assert (np.diff(level) >= 0).all()
            assert (np.diff(lid[lake.day >= "2019-07-30"]) >= -0.02).all()
        seen[fate] = seen.get(fate, 0) + 1
    assert min(seen[fate] for fate in ("drains fast", "drains slowly", "freezes")) >= 3


def test_classes_agree_with_the_truth(region, season):
    for day in ("2019-06-20", "2019-07-10", "2019-08-19"):
        lakes = region.lakes(day).set_index("lake_id")
        labels, classes = region.truth(day).values, region.classes(day).values
        water, lid = (classes == CLASSES.index(name) for name in ("water", "lid"))
        assert not (water | lid)[labels == 0].any()
        assert (water | lid)[labels > 0].mean() > 0.85
        edge = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]}
        for lake in lakes[~lakes.index.isin(edge)].itertuples():
            here = labels == lake.Index
            share = lid[here].sum() / (lid | water)[here].sum()
            assert share == pytest.approx(lake.lid_share, abs=0.02)
            low, high = {"open": (0, 0.02), "partly lidded": (0.02, 0.97), "lidded": (0.97, 1)}[lake.state]
            assert low <= lake.lid_share <= high
        assert set(lakes.state) >= {"partly lidded", "open"}
    assert "lidded" in set(lakes.state)


def test_color_follows_depth(region, bed, season):
    day = "2019-07-10"
    scene, labels = region.scene(day), region.truth(day).values
    level = season[day].level_m.reindex(np.unique(labels)).to_numpy()[np.unique(labels, return_inverse=True)[1]]
    depth = level.reshape(labels.shape) - bed
    water = (region.classes(day).values == CLASSES.index("water")) & (depth > 0.3)
    for band, deep, low, high in (("red", 0.030, 0.75, 0.9), ("green", 0.035, 0.12, 0.17)):
        value = scene.sel(band=band).values - deep
        fit = water & (depth < 4) & (value > 0.005)
        slope, _ = np.polyfit(depth[fit], np.log(value[fit]), 1)
        assert low < -slope < high, band
    bins = [np.median(scene.sel(band="blue").values[water & (depth > z) & (depth < z + 1)]) for z in (0.5, 2.5, 4.5)]
    assert bins[0] > bins[1] > bins[2]
    assert np.median(scene.sel(band="nir").values[water & (depth > 1)]) < 0.06


def test_arcticdem_holds_some_lakes_and_voids(region, bed, filled):
    dem = region.dem(surface="arcticdem").values
    void = np.isnan(dem)
    raised = ~void & (dem != bed)
    assert 0.0005 < void.mean() < 0.03
    assert 0.003 < raised.mean() < 0.1
    assert (dem[raised] > bed[raised]).all()
    lakes, count = ndimage.label(raised, EIGHT)
    assert count >= 5
    for spread in ndimage.labeled_comprehension(dem, lakes, range(1, count + 1), np.ptp, float, 0):
        assert spread == 0
    sinks = filled - bed > 1.0
    over_lakes = sum(sinks[part].any() for part in ndimage.find_objects(ndimage.label(void, EIGHT)[0]))
    assert over_lakes >= 2


def test_lakes_lie_on_the_ice_and_land_does_not():
    region = make_region(2048).window(slice(900, 1900), slice(0, 800))
    ice = region.ice_outline()
    outline = ice.union_all()
    assert outline.is_valid
    assert 0.6 < outline.area / shapely.box(*region.grid.bounds_xyxy).area < 0.95
    assert sum(len(part.interiors) for part in shapely.get_parts(outline)) >= 1
    lakes = region.lakes("2019-07-08")
    assert len(lakes) > 5
    assert lakes.within(outline).all()
    classes = region.classes("2019-07-08").values
    inside = rasterio.features.rasterize([outline], classes.shape, transform=region.grid.transform).astype(bool)
    land = np.isin(classes, [CLASSES.index("rock"), CLASSES.index("tundra water")])
    assert land[inside].mean() < 0.005
    snowless = np.isin(classes, [CLASSES.index(name) for name in ("ice", "slush", "stream", "water", "lid")])
    assert snowless[~inside].mean() < 0.03


def test_what_is_hidden_is_told():
    region = make_region(2048, scenery=Scenery(cloud_share=0.35)).window(slice(0, 1200), slice(400, 1200))
    lakes, labels = region.lakes("2019-07-08"), region.truth("2019-07-08").values
    hidden = np.isin(region.classes("2019-07-08").values, [CLASSES.index("cloud"), CLASSES.index("not seen")])
    for lake in lakes.itertuples():
        assert 1 - hidden[labels == lake.lake_id].mean() == pytest.approx(lake.clear_share, abs=1e-6)
    assert (lakes.clear_share < 0.5).any()
    assert (lakes.clear_share == 1).any()


@pytest.mark.slow
def test_color_and_index_find_lakes_and_err():
    region = make_region(2048)
    lakes, ice = region.lakes("2019-07-28"), region.ice_outline().union_all()
    lakes = lakes[(lakes.area_m2 >= 5000) & (lakes.state != "lidded") & (lakes.clear_share > 0.5)]
    found = {
        "color": ls.color_mask(region.scene("2019-07-28", kind="rgb8"), centred=True),
        "index": ls.index_mask(region.scene("2019-07-28")),
    }
    for name, mask in found.items():
        polygons = ls.polygonize(mask, min_area_m2=5000).compute()
        result = ls.score(polygons[polygons.intersects(ice)], lakes)
        assert 0.3 < result.f1 < 0.9, f"{name}: {result}"
