"""What a season tells of its lakes beside outlines: what they hold, lids on them, where on the ice sheet they lie."""

from __future__ import annotations

import json
import shutil
from contextlib import chdir

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from map_scenes import write_scene
from season_scenes import change, layers, read, write_recipe
from season_scenes import write_season as write_rgb_season
from test_map_sources import write_dem

import lakescale as ls
from lakescale.schema import InputError
from pipelines.season import map_season

SIZE, STEP = 96, 10.0
DATES = ("2019-07-01", "2019-07-03", "2019-07-06")
ORIGIN = (600_000, 7_430_000)
MIDDLES = {"west": (30, 25), "east": (60, 68)}
RADIUS, DEPTH = 18, 3.5
A_D, R_INF, G = 0.5, 0.03, 0.8304
LEVELS = {DATES[0]: (1.0, 1.0), DATES[1]: (1.0, 0.0), DATES[2]: (1.0, 0.0)}
"""Share of the water that each lake has on each date."""


def bed():
    """A slope with two bowls, m; and how deep each bowl is there."""
    y, x = np.mgrid[:SIZE, :SIZE]
    bowls = [np.maximum(1 - ((y - r) ** 2 + (x - c) ** 2) / RADIUS**2, 0) * DEPTH for r, c in MIDDLES.values()]
    return (1000 + 0.001 * x - sum(bowls)).astype(np.float32), bowls


def scene_of(day, *, lid=False):
    """Numbers of Sentinel-2's blue and red: rough ice, water as dark as it is deep, perhaps a floe in the west."""
    rng = np.random.default_rng(DATES.index(day))
    depth = sum(np.maximum(bowl - (1 - share) * DEPTH, 0) for bowl, share in zip(bed()[1], LEVELS[day], strict=True))
    grain = 1 + rng.normal(0, 0.06, depth.shape)
    red = R_INF + (A_D * grain - R_INF) * np.exp(-G * depth)
    blue = 0.06 + (1.06 * A_D * grain - 0.06) * np.exp(-0.065 * depth)
    if lid:
        floe = (slice(22, 38), slice(19, 31))
        red[floe], blue[floe] = 0.45, 0.47
    return np.clip(np.rint(np.stack([blue, red]) * 10_000), 1, 65535).astype(np.uint16)


def write_areas(path, boxes, crs="EPSG:32622"):
    """Write named boxes ``(west, south, east, north)`` in metres from the corner."""
    shapes = [shapely.box(*(np.array(box) + np.array([*ORIGIN, *ORIGIN]))) for box in boxes.values()]
    gpd.GeoDataFrame({"number": range(len(boxes)), "subregion": list(boxes)}, geometry=shapes, crs=crs).to_file(path)


def write_season(folder, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for day in DATES:
        name = f"S2A_MSIL1C_{day.replace('-', '')}_N0208.tif"
        write_scene(folder / name, scene_of(day, lid=day == DATES[2]), names=["B02", "B04"], origin=ORIGIN)
    write_dem(folder / "arcticdem_bed.tif", bed()[0])
    side = SIZE * STEP
    write_areas(folder / "basins.gpkg", {"SW": (0, -side, 450, 0), "CW": (450, -side, side, 0)})
    write_areas(folder / "grounded.gpkg", {"ice": (0, -side, 450, 0)})
    values = {
        "scenes": {"source": ["S2A_*.tif"], "chunks": 48},
        "out": "RUN",
        "cluster": {"kind": "threads", "workers": 2, "dashboard": "none"},
        "dem": {"source": "arcticdem_bed.tif", "margin_m": 0},
        "evidence": "index",
        "index_threshold": 0.14,
        "depth": {"r_inf": R_INF},
        "ice_sheet": {"basins": "basins.gpkg", "grounded": "grounded.gpkg"},
        "creator": "Anna Example",
        "license": "CC-BY-4.0",
        "credits": ["We thank the ice."],
        "report": False,
    }
    return write_recipe(folder, values | options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = write_season(tmp_path_factory.mktemp("depths"))
    with chdir(path.parent):
        map_season(read(path))
    return path


@pytest.fixture
def season(finished, tmp_path, monkeypatch):
    """A copy of the finished season."""
    shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "season.yaml"


def lakes_of(path, name="lakes"):
    frame = pd.read_csv(path.parent / f"RUN/catalogue/{name}.csv")
    return frame.assign(is_west=frame.centroid_lon < frame.centroid_lon.mean()) if name == "lakes" else frame


def notes_of(path):
    return json.loads((path.parent / "RUN/catalogue.json").read_text())["notes"]


def test_both_volumes_stand_side_by_side_in_all_forms(finished):
    lakes = lakes_of(finished)
    assert len(lakes) == 4
    assert lakes.volume_reason.tolist() == lakes.rt_reason.tolist() == ["known"] * 4
    true = DEPTH * np.pi * (RADIUS * STEP) ** 2 / 2
    whole = lakes[lakes.time < DATES[2]]
    np.testing.assert_allclose(whole.volume_m3, 0.83 * true, rtol=0.05)  # the index ends where water is 0.2 m deep
    assert (whole.volume_high_m3 > true).all()
    np.testing.assert_allclose(whole.rt_volume_m3, true, rtol=0.12)
    assert set(lakes.rt_product_level) == {"L1C"}
    assert set(lakes.rt_g) == {G}
    assert set(lakes.rt_r_inf) == {R_INF}
    np.testing.assert_allclose(lakes.rt_a_d, A_D, atol=0.02)
    assert lakes.rt_censored_share.between(0, 1).all()
    names = ["volume_m3", "rt_volume_m3"]
    daily = xr.open_dataset(finished.parent / "RUN/catalogue/catalogue.nc", engine="h5netcdf").load()
    for name in names:
        stored = daily[name].values[np.isfinite(daily[name].values)]
        np.testing.assert_allclose(sorted(stored), sorted(lakes[name]))
    parquet, geopackage = (
        gpd.read_parquet(finished.parent / "RUN/catalogue/lakes"),
        gpd.read_file(finished.parent / "RUN/catalogue/catalogue.gpkg", layer="lakes"),
    )
    for frame in (parquet, geopackage):
        np.testing.assert_allclose(frame[names].to_numpy(float), lakes[names].to_numpy())
    totals = lakes_of(finished, "totals")
    assert totals.rt_volume_lakes.tolist() == totals.volume_lakes.tolist() == [2, 1, 1]


def test_depths_are_those_of_the_function(finished):
    run, day = finished.parent / "RUN", DATES[0]
    scene = ls.open_scene(finished.parent / "S2A_MSIL1C_20190701_N0208.tif", chunks=48)
    bare = gpd.read_parquet(run / "dates" / day / "lakes.parquet")
    lids = ls.water_index(scene) < np.float32(0.12)
    by_hand = ls.water_depth(scene, bare[["lake_id", "geometry"]], r_inf=R_INF, lids=lids).compute()
    told = gpd.read_parquet(run / "lakes.parquet")
    told = told[told.time == pd.Timestamp(day)].sort_values("lake_id")
    for name in ("rt_volume_m3", "rt_depth_max_m", "rt_a_d", "rt_seen_share"):
        assert told[name].tolist() == by_hand[name].tolist()


def test_a_floe_is_a_lid_and_its_ice_is_in_no_depth(finished):
    lakes = lakes_of(finished)
    free, iced = (lakes[lakes.is_west & (lakes.time == day)].iloc[0] for day in (DATES[1], DATES[2]))
    assert free.lid_share < 0.2
    assert iced.lid_share == pytest.approx(16 * 12 / (np.pi * RADIUS**2), abs=0.1)
    assert iced.rt_seen_share < free.rt_seen_share - 0.1
    assert iced.area_m2 == pytest.approx(free.area_m2, rel=0.05)


def test_where_on_the_ice_sheet_a_lake_lies(finished):
    lakes = lakes_of(finished)
    assert set(zip(lakes.is_west, lakes.drainage_basin, lakes.floating, strict=True)) == {
        (True, "SW", False),
        (False, "CW", True),
    }
    assert set(lakes.elevation_datum) == {"WGS84 ellipsoid"}
    daily = xr.open_dataset(finished.parent / "RUN/catalogue/catalogue.nc", engine="h5netcdf")
    assert (daily.creator_name, daily.license) == ("Anna Example", "CC-BY-4.0")
    assert "We thank the ice." in daily.acknowledgement
    assert "Contains modified Copernicus Sentinel data [2019]." in daily.acknowledgement
    assert daily.position_error_m == STEP
    told = json.loads((finished.parent / "RUN/catalogue/provenance.json").read_text())["inputs"]
    assert {"drainage basins: basins.gpkg", "grounded ice: grounded.gpkg"} <= set(told)


def test_a_lake_that_is_gone_within_two_days_drained(finished):
    summary = pd.read_parquet(finished.parent / "RUN/catalogue.parquet")
    assert sorted(summary.fate) == ["drained rapidly", "unknown"]


def test_options_of_the_catalogue_write_no_evidence(season):
    run = season.parent / "RUN"
    before, first = layers(run), lakes_of(season)
    result = map_season(read(change(
        season, depth={"r_inf": 0.02, "g": 0.7}, volume={"dem_date": "2019-07-03", "datum": "EGM2008"},
        ice_sheet={"basins": "basins.gpkg", "basin_name": "number"}, position_error_m=3,
    )))  # fmt: skip
    assert all(one.is_kept for one in result.dates)
    assert layers(run) == before
    lakes = lakes_of(season)
    assert set(lakes.rt_g) == {0.7}
    assert (lakes.rt_volume_m3 > first.rt_volume_m3).all()
    assert set(lakes.volume_reason) == {"wet when imaged"}
    assert set(lakes.dem_date) == {"2019-07-03"}
    assert set(lakes.elevation_datum) == {"EGM2008"}
    assert set(lakes.drainage_basin) == {0, 1}
    assert lakes.floating.isna().all()
    np.testing.assert_allclose(lakes.area_sd_m2, 3 * lakes.perimeter_m)
    map_season(read(change(season, depth="none", lids=False)))
    lakes = lakes_of(season)
    assert lakes[["rt_volume_m3", "rt_reason", "lid_share"]].isna().all(axis=None)
    assert any("lids were not assessed" in note for note in notes_of(season))


def test_stretched_pictures_give_no_depths_and_say_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_rgb_season(tmp_path, dates=("2019-07-01",), dem=False, report=False)
    map_season(read(path))
    lakes = pd.read_csv(tmp_path / "RUN/catalogue/lakes.csv")
    assert lakes.rt_volume_m3.isna().all()
    assert lakes.rt_reason.str.startswith("depths need reflectance, this scene holds uint8 numbers").all()
    (note,) = (note for note in notes_of(path) if "depths" in note)
    assert note.startswith("2019-07-01: no depths from reflectance: depths need reflectance")
    assert lakes.lid_share.between(0, 1).all()


def test_a_damaged_table_of_depths_is_made_anew(season):
    table = season.parent / "RUN/dates" / DATES[0] / "depths.parquet"
    told = lakes_of(season).rt_volume_m3.tolist()
    table.write_bytes(table.read_bytes()[:100])
    result = map_season(read(change(season, title="again")))
    assert all(one.is_kept for one in result.dates)
    assert lakes_of(season).rt_volume_m3.tolist() == told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"volume": {"dem_date": "last year"}}, "date of the DEM cannot be read"),
        ({"volume": {"dem_error_m": -1}}, "greater than or equal to 0"),
        ({"depth": {"band": "nir"}}, "'red' or 'green'"),
        ({"depth": {"colour": "red"}}, "no such entry"),
        ({"ice_sheet": {"name": "x"}}, "no such entry"),
        ({"position_error_m": 0}, "greater than 0"),
    ],
)
def test_wrong_entries_are_told_before_anything_runs(tmp_path, options, told):
    with pytest.raises(InputError, match=told):
        read(write_recipe(tmp_path, {"scenes": "a.tif", "out": "RUN"} | options))


def test_outlines_that_cannot_be_used_are_refused(season):
    with pytest.raises(InputError, match="no column 'NAME', only number, subregion"):
        map_season(read(change(season, ice_sheet={"basins": "basins.gpkg", "basin_name": "NAME"})))
    with pytest.raises(InputError, match="no such outline of grounded ice"):
        map_season(read(change(season, ice_sheet={"grounded": "gone.gpkg"})))
