"""A season's catalogue, read back and compared with plain loops over its tracks."""

from __future__ import annotations

import errno
import hashlib
import json
from dataclasses import replace

import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pandas.testing import assert_frame_equal
from plain_tracking import box_cells, frame_of, outline
from pyproj import Geod

from lakescale.grid import Grid
from lakescale.schema import InputError, RunError
from lakescale.series import track
from pipelines import catalogue
from pipelines.catalogue import Images, Provenance, write_catalogue
from pipelines.catalogue_columns import QUALITY, STATES, TABLES, render_dictionary
from pipelines.catalogue_tables import build_tables

EAST, NORTH = -200_000.0, -2_400_000.0
"""Where the lattice of cells begins, in EPSG:3413: south-west Greenland."""
GRID = Grid(GeoBox((120, 160), Affine(100, 0, EAST - 1000, 0, -100, NORTH + 1000), "EPSG:3413"))
ERROR_M = 20.0
A, A_HALF, A_REST = box_cells(0, 0, 8, 10), box_cells(0, 0, 8, 5), box_cells(0, 0, 4, 3)
B, B_WEST, B_EAST = box_cells(20, 0, 6, 12), box_cells(20, 0, 6, 5), box_cells(20, 7, 6, 5)
RING = box_cells(40, 0, 6, 6) - box_cells(42, 2, 2, 2)
DAYS = ["2019-07-01", "2019-07-03", "2019-07-06", "2019-07-20", "2019-08-20", "2020-07-01"]
# dask resets the index of each part in place, which pandas 3.1 no longer likes
reads_with_dask = pytest.mark.filterwarnings("ignore:The inplace keyword")


def place(frame):
    """Bring a frame of the lattice to Greenland; its areas are computed anew."""
    return frame.drop(columns="area_m2", errors="ignore").set_geometry(frame.translate(EAST, NORTH), crs=3413)


def lakes_of(*cells, **columns):
    return place(frame_of(list(cells), **columns))


def cover(*cells):
    return place(gpd.GeoDataFrame(geometry=[outline(c) for c in cells], crs=3413))


@pytest.fixture(scope="module")
def tracks():
    """A fills, drains and comes back a year later; B is cut by cloud and gets a lid; a ring with an island appears."""
    lakes = {
        DAYS[0]: lakes_of(A, B),
        DAYS[1]: lakes_of(A_HALF, B_WEST, B_EAST, first_id=7),
        DAYS[2]: lakes_of(RING),
        DAYS[3]: lakes_of(),
        DAYS[4]: lakes_of(RING),
        DAYS[5]: lakes_of(A),
    }
    not_seen = {day: cover() for day in DAYS}
    not_seen[DAYS[1]], not_seen[DAYS[3]] = cover(box_cells(18, 5, 10, 2)), cover(A, RING)
    lids = {day: cover() for day in DAYS} | {DAYS[4]: cover(B)}
    spans = {day: (day, day) for day in DAYS} | {DAYS[3]: ("2019-07-18", "2019-07-22")}
    return track(lakes, not_seen=not_seen, lids=lids, dates=spans)


@pytest.fixture(scope="module")
def provenance():
    images = {
        DAYS[0]: Images(
            scene_ids=("S2A_T22WEV_Ä", "S2B 2"),
            sensor="Sentinel-2",
            product_level="L1C",
            baseline="02.08",
            cloud="swir",
            seen_m2=1.5e8,
        ),
        DAYS[1]: Images(sensor="Sentinel-2", seen_m2=1.2e8),
        DAYS[3]: Images(sensor="Landsat 8", seen_m2=0.0),
    }
    return Provenance(recipe_hash="0123abcd", images=images, inputs=("ArcticDEM mosaic v4.1",), region_m2=1.8e8)


@pytest.fixture(scope="module")
def volumes(tracks):
    known = tracks.lakes[["time", "lake_id"]].iloc[[0, 2, 4]]
    return known.assign(volume_m3=[1e6, 2e5, np.nan], volume_reason=["known", "known", "flat"], note="left out")


@pytest.fixture(scope="module")
def made(tmp_path_factory, tracks, provenance, volumes):
    folder = tmp_path_factory.mktemp("made") / "Grönland Süd"
    options = {"grid": GRID, "title": "Grönland, Süd 2019", "provenance": provenance, "volumes": volumes}
    write_catalogue(tracks, folder, position_error_m=ERROR_M, **options)
    return folder


def read_csv(folder, name):
    times = [column.name for column in TABLES[name] if column.kind.startswith("datetime")]
    return pd.read_csv(folder / f"{name}.csv", parse_dates=times).astype(dict.fromkeys(times, "datetime64[ms]"))


def measure(shape):
    """Give the geodesic area and length of an outline."""
    lonlat = gpd.GeoSeries([shapely.segmentize(shape, 50)], crs=3413).to_crs(4326).iloc[0]
    geod = Geod(ellps="WGS84")
    area, _ = geod.geometry_area_perimeter(shapely.orient_polygons(lonlat))
    return area, sum(geod.geometry_length(shapely.LinearRing(ring)) for ring in shapely.get_rings(lonlat))


# -- lakes


def test_each_outline_has_its_area_deviation_length_and_centroid(made, tracks):
    lakes = gpd.read_parquet(made / "lakes").set_index(["time", "lake_id"])
    assert len(lakes) == len(tracks.lakes) == 8
    for row in tracks.lakes.itertuples():
        told = lakes.loc[(row.time, row.lake_id)]
        area, length = measure(row.geometry)
        assert told.area_m2 == pytest.approx(area, rel=1e-4)
        assert told.perimeter_m == pytest.approx(length, rel=1e-4)
        assert told.area_sd_m2 == pytest.approx(ERROR_M * length, rel=1e-4)
        assert told.track_id == row.track_id
        centre = gpd.GeoSeries([row.geometry.centroid], crs=3413).to_crs(4326).iloc[0]
        assert (told.centroid_lon, told.centroid_lat) == pytest.approx((centre.x, centre.y), abs=1e-9)
        assert told.area_3857_m2 == pytest.approx(gpd.GeoSeries([row.geometry], crs=3413).to_crs(3857).area.iloc[0])
        assert told.geometry.equals(row.geometry)


def test_lakes_tell_states_and_fates_of_their_tracks(made, tracks):
    lakes = gpd.read_parquet(made / "lakes")
    state = {(row.track_id, row.time): row for row in tracks.states.itertuples()}
    fate = {(row.track_id, row.season): row.fate for row in tracks.summary.itertuples()}
    for row in lakes.itertuples():
        known = state[row.track_id, row.time]
        assert (row.state, row.basin_seen_share) == (known.state, known.seen_share)
        assert (row.time_start, row.time_end, row.parts) == (known.first_day, known.last_day, known.lakes)
        assert row.fate == fate[row.track_id, row.season]


def test_lakes_tell_their_scenes_and_null_where_these_are_not_known(made):
    lakes = gpd.read_parquet(made / "lakes").set_index("time")
    names = ["scene_ids", "sensor", "product_level", "processing_baseline", "cloud"]
    told = lakes.loc[pd.Timestamp(DAYS[0]), names].drop_duplicates().values.tolist()
    assert told == [["S2A_T22WEV_Ä; S2B 2", "Sentinel-2", "L1C", "02.08", "swir"]]
    assert lakes.loc[pd.Timestamp(DAYS[1]), names].notna().sum().tolist() == [0, 3, 0, 0, 0]
    assert lakes.loc[pd.Timestamp(DAYS[2]) :, names].isna().all(axis=None)
    assert lakes[["verified", "seen_share", "lid_share", "elevation_datum", "floating"]].isna().all(axis=None)


def test_volumes_join_their_lakes_and_others_are_null(made, volumes):
    lakes = gpd.read_parquet(made / "lakes").set_index(["time", "lake_id"])
    asked = lakes.loc[list(map(tuple, volumes[["time", "lake_id"]].values))]
    assert asked.volume_m3.tolist()[:2] == [1e6, 2e5]
    assert asked.volume_reason.tolist() == ["known", "known", "flat"]
    assert lakes.volume_m3.notna().sum() == 2
    assert lakes.rt_volume_m3.isna().all()
    assert "note" not in lakes


def test_volumes_that_lakes_bring_along_are_kept_unless_others_are_given():
    tracks = track({"2019-07-01": lakes_of(A, B, volume_m3=[5.0, np.nan], rt_band=["red", None], sink_share=0.3)})
    given = GRID.crs, Provenance(recipe_hash="")
    lakes = build_tables(tracks, *given, None, ERROR_M).lakes
    assert lakes.volume_m3.isna().tolist() == lakes.rt_band.isna().tolist() == [False, True]
    assert (lakes.volume_m3[0], lakes.rt_band[0]) == (5.0, "red")
    other = build_tables(tracks, *given, volume_of(2, volume_m3=7.0), ERROR_M).lakes
    assert other.volume_m3.fillna(-1).tolist() == [-1, 7]
    assert other.rt_band.isna().all()


@reads_with_dask
def test_all_parts_have_one_schema_and_read_as_one_frame(made):
    parts = sorted((made / "lakes").glob("date=*/*"))
    assert [path.parent.name for path in parts] == [f"date={day}" for day in DAYS]
    first = pq.read_schema(parts[0])
    assert all(pq.read_schema(path).equals(first) for path in parts)
    assert first.names == [*(column.name for column in TABLES["lakes"]), "geometry"]
    whole = gpd.read_parquet(made / "lakes")
    assert (whole.date.astype(str) == whole.time.dt.strftime("%Y-%m-%d")).all()
    lazy = dask_geopandas.read_parquet(made / "lakes")
    assert lazy.npartitions == len(DAYS)
    assert lazy.crs == whole.crs == GRID.crs
    one, other = (frame.assign(date=frame.date.astype(str)) for frame in (lazy.compute(), whole))
    assert_frame_equal(pd.DataFrame(one).reset_index(drop=True), pd.DataFrame(other), check_dtype=False)
    alone = gpd.read_parquet(parts[3])
    assert (len(alone), alone.crs) == (0, GRID.crs)


def test_bits_of_quality(tracks, provenance):
    flag = {one.name: one.bit for one in QUALITY}
    assert sorted(flag.values()) == [1 << k for k in range(len(flag))]
    lakes = build_tables(tracks, GRID.crs, provenance, None, ERROR_M).lakes
    found = lakes.quality_flag.groupby(lakes.time.astype(str)).agg(list)
    cut = flag["edge_not_seen"] + flag["in_parts"] + flag["basin_not_seen"] + flag["cloud_not_assessed"]
    assert found[DAYS[0]] == [0, 0]
    assert found[DAYS[1]] == [flag["cloud_not_assessed"], cut, cut]
    coarse = build_tables(tracks, GRID.crs, provenance, None, 2000.0).lakes
    assert (coarse.quality_flag & flag["uncertain_area"] > 0).all()
    spans = {"2019-07-01": ("2019-06-30", "2019-07-02")}
    of_days = track({"2019-07-01": lakes_of(A, lid_share=0.7)}, dates=spans)
    told = build_tables(of_days, GRID.crs, Provenance(recipe_hash=""), None, ERROR_M).lakes
    assert told.quality_flag[0] == flag["several_days"] + flag["lidded"] + flag["cloud_not_assessed"]
    assert told.lid_share[0] == 0.7


# -- tables


def test_totals_equal_a_loop_over_the_lakes(made, tracks, provenance):
    totals = read_csv(made, "totals").set_index("time")
    assert totals.index.astype(str).tolist() == DAYS
    images = {pd.Timestamp(day): one for day, one in provenance.images.items()}
    for time, row in totals.iterrows():
        areas = [measure(lake.geometry) for lake in tracks.lakes.itertuples() if lake.time == time]
        seen = images[time].seen_m2 if time in images else None
        area = sum(area for area, _ in areas)
        deviation = sum((ERROR_M * length) ** 2 for _, length in areas) ** 0.5
        assert row.lakes == len(areas)
        if seen == 0:
            assert row[["area_m2", "area_sd_m2", "lake_share_of_seen"]].isna().all()
            assert row.seen_region_share == 0
            continue
        assert row.area_m2 == pytest.approx(area, rel=1e-4)
        assert row.area_sd_m2 == pytest.approx(deviation, rel=1e-4)
        shares = [area / seen, seen / provenance.region_m2] if seen else [np.nan] * 2
        assert row[["lake_share_of_seen", "seen_region_share"]].tolist() == pytest.approx(shares, rel=1e-4, nan_ok=True)
    states = tracks.states[~tracks.states.track_id.isin(tracks.basins.track_id[tracks.basins.absorbed])]
    for name in STATES:
        count = states[states.state == name].groupby("time").size().reindex(totals.index).fillna(0)
        assert totals[f"tracks_{name.replace(' ', '_')}"].tolist() == count.tolist()
    assert totals.volume_m3.tolist()[:3] == pytest.approx([1e6, 2e5, np.nan], nan_ok=True)
    assert totals.volume_lakes.tolist() == [1, 1, 0, 0, 0, 0]


def test_seasons_tell_first_and_last_water_the_maximum_and_the_fate(made, tracks):
    seasons = read_csv(made, "seasons")
    assert [column.name for column in TABLES["seasons"]] == seasons.columns.tolist()
    for row in seasons.itertuples():
        of_track = tracks.states[(tracks.states.track_id == row.track_id) & (tracks.states.season == row.season)]
        wet = [day.time for day in of_track.itertuples() if day.lakes or not pd.isna(day.in_track)]
        sizes = [(-day.area_m2, day.time) for day in of_track.itertuples() if day.lakes]
        assert (row.first_water, row.last_water) == (min(wet), max(wet))
        assert (row.dates_with_water, row.max_area_m2) == (len(sizes), pytest.approx(-min(sizes)[0]))
        largest = tracks.lakes[(tracks.lakes.time == row.max_time) & (tracks.lakes.track_id == row.track_id)]
        lengths = [measure(shape)[1] for shape in largest.geometry]
        assert row.max_area_sd_m2 == pytest.approx(ERROR_M * np.hypot.reduce(lengths), rel=1e-4)
    first = seasons.set_index(["track_id", "season"]).loc[(1, 2019)]
    bracket = [str(first[name])[:10] for name in ("drained_after", "drained_before")]
    assert [first.fate, *bracket] == ["drained, speed unknown", "2019-07-01", "2019-07-06"]
    assert first.reason.startswith("lost 99% at least between")
    assert pd.isna(first.rapid_drainage)


@pytest.mark.parametrize(("gap", "rapid"), [(3, True), (9, None)])
def test_a_drainage_of_unknown_speed_may_have_been_rapid(gap, rapid):
    days = {"2019-07-01": lakes_of(A), f"2019-07-{1 + gap:02d}": lakes_of(), "2019-07-30": lakes_of()}
    seasons = build_tables(track(days), GRID.crs, Provenance(recipe_hash=""), None, ERROR_M).seasons
    assert [None if pd.isna(one) else one for one in seasons.rapid_drainage] == [rapid]


def test_a_lake_that_froze_over_did_not_drain_rapidly():
    days = {"2019-07-01": lakes_of(A), "2019-07-03": lakes_of()}
    lids = {"2019-07-01": cover(), "2019-07-03": cover(A)}
    seasons = build_tables(track(days, lids=lids), GRID.crs, Provenance(recipe_hash=""), None, ERROR_M).seasons
    assert seasons[["fate", "rapid_drainage"]].values.tolist() == [["frozen over", False]]


def test_events_and_links_are_those_of_the_tracks(made, tracks):
    events = read_csv(made, "events")
    names = ["track_id", "season", "event", "after", "before", "lost_share"]
    assert_frame_equal(events[names], tracks.events[names], check_dtype=False)
    assert events.speed.fillna("").tolist() == tracks.events.speed.tolist()
    basins = tracks.basins.set_index("track_id").geometry
    for row in events.itertuples():
        point = gpd.GeoSeries([shapely.Point(row.lon, row.lat)], crs=4326).to_crs(3413).iloc[0]
        assert basins[row.track_id].contains(point)
    assert_frame_equal(read_csv(made, "links"), tracks.links, check_dtype=False)


def test_what_must_be_known_is_known_and_types_are_as_told(tracks, provenance, volumes):
    tables = build_tables(tracks, GRID.crs, provenance, volumes, ERROR_M)
    for name, columns in TABLES.items():
        frame = getattr(tables, name)
        assert [column.name for column in columns] == [c for c in frame.columns if c != "geometry"]
        assert frame.dtypes.astype(str).drop("geometry", errors="ignore").tolist() == [c.kind for c in columns]
        never = [column.name for column in columns if column.null == "never"]
        # a sum over nothing seen is told to be null
        assert frame[never].notna().all(axis=None), name


def test_the_page_in_the_docs_is_printed_from_the_code(request):
    page = request.config.rootpath / "docs" / "data_dictionary.md"
    assert page.read_text(encoding="utf-8") == render_dictionary()
    for name, columns in TABLES.items():
        rows = page.read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0].split("Bits of")[0]
        assert [line.split("`")[1] for line in rows.splitlines() if line.startswith("| `")] == [c.name for c in columns]


# -- GeoPackage


def test_the_geopackage_holds_lakes_seasons_and_events(made, tracks):
    path = made / "catalogue.gpkg"
    kinds = {"lakes": "MultiPolygon", "seasons": "MultiPolygon", "events": "Point"}
    assert dict(pyogrio.list_layers(path).tolist()) == kinds
    lakes = gpd.read_file(path, layer="lakes")
    assert lakes.crs.to_epsg() == 3413
    assert lakes.time.dt.tz is not None
    assert sorted(lakes.time.dt.tz_localize(None)) == sorted(tracks.lakes.time)
    assert sorted(lakes.geometry.area.round()) == sorted(tracks.lakes.geometry.area.round())
    fields = dict(zip(*(pyogrio.read_info(path, layer="lakes")[name] for name in ("fields", "dtypes")), strict=True))
    assert (fields["verified"], fields["track_id"], fields["area_m2"]) == ("bool", "int64", "float64")
    seasons = gpd.read_file(path, layer="seasons")
    assert sorted(seasons.geometry.area.round()) == sorted(tracks.summary.geometry.area.round())
    assert gpd.read_file(path, layer="events").event.tolist() == tracks.events.event.tolist()
    meta = pyogrio.read_info(path, layer="seasons")["layer_metadata"]
    assert json.loads(meta["lakescale"])["recipe_hash"] == "0123abcd"


def test_the_geopackage_of_greenland_is_polar_and_elsewhere_of_the_grid(tmp_path):
    for epsg, x, y, expected in ((32622, 500_000, 7_500_000, 3413), (3031, 1_700_000, 700_000, 3031)):
        grid = Grid(GeoBox((20, 20), Affine(100, 0, x, 0, -100, y), f"EPSG:{epsg}"))
        lake = frame_of([box_cells(2, 2, 4, 5)]).drop(columns="area_m2")
        lake = lake.set_geometry(lake.translate(x, y).set_crs(epsg, allow_override=True))
        write_catalogue(
            track({"2019-01-05": lake}),
            tmp_path / str(epsg),
            grid=grid,
            title="T",
            provenance=Provenance(recipe_hash="r"),
        )
        lakes = gpd.read_file(tmp_path / str(epsg) / "catalogue.gpkg", layer="lakes")
        assert lakes.crs.to_epsg() == expected
        assert gpd.read_parquet(tmp_path / str(epsg) / "lakes").crs.to_epsg() == epsg
        away = lakes.to_crs(epsg).geometry.iloc[0].symmetric_difference(lake.geometry.iloc[0]).area
        assert away < 1e-3
        assert json.loads((tmp_path / str(epsg) / "provenance.json").read_text())["gis_crs"] == f"EPSG:{expected}"


# -- NetCDF and Zarr


def test_netcdf_and_zarr_hold_the_states_by_lake_and_date(made, tracks):
    with xr.open_dataset(made / "catalogue.nc") as netcdf:
        netcdf.load()
    assert xr.open_zarr(made / "catalogue.zarr", consolidated=False).load().identical(netcdf)
    assert dict(netcdf.sizes) == {"lake": len(tracks.basins), "time": len(DAYS), "nv": 2}
    assert netcdf.time.dt.strftime("%Y-%m-%d").values.tolist() == DAYS
    names = netcdf.state.attrs["flag_meanings"].split()
    known = {(row.track_id, row.time): row for row in tracks.states.itertuples()}
    for lake in netcdf.lake.values:
        for time in netcdf.time.values:
            here, row = netcdf.sel(lake=lake, time=time), known[lake, pd.Timestamp(time)]
            assert names[netcdf.state.attrs["flag_values"].tolist().index(int(here.state))] == row.state.replace(
                " ", "_"
            )
            np.testing.assert_array_equal(here.area_m2, row.area_m2)
            np.testing.assert_array_equal(here.basin_seen_share, row.seen_share)
            assert here.time_bnds.values.astype("datetime64[ms]").tolist() == [row.first_day, row.last_day]
    assert netcdf.volume_m3.sel(lake=1).values[:2].tolist() == [1e6, 2e5]
    assert int(netcdf.volume_m3.count()) == 2  # a lake in two parts needs both


def test_netcdf_follows_cf_and_acdd(made):
    with xr.open_dataset(made / "catalogue.nc", decode_cf=False) as raw:
        attrs = raw.attrs
        assert (attrs["Conventions"], attrs["featureType"]) == ("CF-1.8, ACDD-1.3", "timeSeries")
        assert {raw[name].dtype for name in raw.variables} <= {np.dtype(t) for t in ("f8", "i4", "i1")}
        assert raw.state.attrs["_FillValue"] == -1
        assert raw.area_m2.attrs["units"] == "m2"
        assert set(raw.area_m2.attrs["coordinates"].split()) == {"lon", "lat"}
        assert raw.area_m2.attrs["ancillary_variables"].split() == ["area_sd_m2", "state"]
        assert raw.lake.attrs["cf_role"] == "timeseries_id"
        assert raw.time.attrs["bounds"] == "time_bnds"
        assert raw.time.attrs["units"] == "seconds since 1970-01-01"
        assert not any("_FillValue" in raw[name].attrs for name in ("time", "time_bnds", "lon", "lat", "lake", "crs"))
        assert raw.crs.attrs["grid_mapping_name"] == "latitude_longitude"
    west, east = attrs["geospatial_lon_min"], attrs["geospatial_lon_max"]
    assert -50 < west < raw.lon.min() < raw.lon.max() < east < -48
    assert attrs["time_coverage_start"] == "2019-07-01T00:00:00"
    assert attrs["time_coverage_duration"] == "P366DT0H0M0S"
    assert attrs["acknowledgement"].startswith("Contains modified Copernicus Sentinel data [2019].")


# -- writing


def digest(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write(folder, lakes, **options):
    told = {"grid": GRID, "title": "T", "provenance": Provenance(recipe_hash="r")} | options
    return write_catalogue(track(lakes), folder, **told)


def test_one_writing_has_one_id_and_tells_what_it_was_made_of(made):
    told = json.loads((made / "provenance.json").read_text(encoding="utf-8"))
    part = pq.read_schema(next((made / "lakes").rglob("*.parquet"))).metadata
    with xr.open_dataset(made / "catalogue.nc") as netcdf:
        ids = {netcdf.attrs["id"], json.loads(netcdf.attrs["lakescale_provenance"])["catalogue_id"]}
    ids |= {json.loads(part[b"lakescale"])["catalogue_id"], told["catalogue_id"]}
    ids |= {json.loads((made / "stac/collection.json").read_text())["lakescale:catalogue_id"]}
    assert len(ids) == 1
    assert told["title"] == "Grönland, Süd 2019"
    assert told["position_error_m"] == ERROR_M
    assert told["images"]["2019-07-01T00:00:00"]["scene_ids"] == ["S2A_T22WEV_Ä", "S2B 2"]
    assert [line.split(" ")[0] for line in told["credits"]] == ["Contains", "Landsat", "DEMs"]


def test_writing_again_replaces_all_and_leaves_what_is_others(tmp_path):
    two = {"2019-07-01": lakes_of(A), "2019-07-03": lakes_of(B)}
    products = write(tmp_path, two)
    (tmp_path / "notes.txt").write_text("mine")
    assert write(tmp_path, {"2019-07-03": lakes_of(A)}) == products
    assert [path.name for path in (tmp_path / "lakes").iterdir()] == ["date=2019-07-03"]
    assert not list((tmp_path / "stac").glob("*2019-07-01*"))
    assert len(gpd.read_file(tmp_path / "catalogue.gpkg", layer="lakes")) == 1
    assert xr.open_zarr(tmp_path / "catalogue.zarr", consolidated=False).sizes["time"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", *(path.name for path in products)}


def test_a_write_that_fails_leaves_the_earlier_products(tmp_path, monkeypatch):
    write(tmp_path, {"2019-07-01": lakes_of(A)})
    before = digest(tmp_path)

    def refuse(*_args):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(catalogue, "write_stac", refuse)
    with pytest.raises(RunError, match="no space left"):
        write(tmp_path, {"2019-07-03": lakes_of(B)})
    assert digest(tmp_path) == before


# -- input that is bad, or hardly there


@reads_with_dask
@pytest.mark.parametrize("dates", [["2019-07-01"], ["2019-07-01T00:00", "2019-07-03T14:30"]])
def test_a_season_without_any_lake(tmp_path, dates):
    images = {day: Images(seen_m2=1e8) for day in dates}
    given = {"provenance": Provenance(recipe_hash="r", images=images)}
    write(tmp_path, dict.fromkeys(dates, lakes_of()), **given)
    assert len(list((tmp_path / "lakes").iterdir())) == len(dates)
    assert len(gpd.read_parquet(tmp_path / "lakes")) == len(dask_geopandas.read_parquet(tmp_path / "lakes")) == 0
    assert read_csv(tmp_path, "totals").area_m2.tolist() == [0.0] * len(dates)
    assert [read_csv(tmp_path, name).empty for name in ("lakes", "states", "seasons", "events", "links")] == [True] * 5
    layers = [gpd.read_file(tmp_path / "catalogue.gpkg", layer=name) for name in ("lakes", "seasons", "events")]
    assert [(len(layer), layer.crs.to_epsg()) for layer in layers] == [(0, 3413)] * 3
    for one in (
        xr.open_dataset(tmp_path / "catalogue.nc"),
        xr.open_zarr(tmp_path / "catalogue.zarr", consolidated=False),
    ):
        assert (one.sizes["lake"], one.sizes["time"]) == (0, len(dates))
        one.close()


def test_dates_from_before_the_first_track_are_those_of_the_images(tmp_path):
    early, late = "2019-06-01", "2019-07-01"
    start = track({early: lakes_of()})
    tracks = track({late: lakes_of(A)}, previous=start)
    images = {early: Images(seen_m2=5e7), late: Images()}
    given = {"grid": GRID, "title": "T", "provenance": Provenance(recipe_hash="r", images=images)}
    write_catalogue(tracks, tmp_path, **given)
    totals = read_csv(tmp_path, "totals")
    assert totals.time.astype(str).tolist() == [early, late]
    assert totals.lakes.tolist() == [0, 1]
    assert len(list((tmp_path / "lakes").iterdir())) == 2


def test_two_times_of_one_day_share_a_part(tmp_path):
    times = ["2019-07-01T10:00", "2019-07-01T15:30"]
    write(tmp_path, dict(zip(times, (lakes_of(A), lakes_of(A_HALF)), strict=True)))
    assert [path.name for path in (tmp_path / "lakes").iterdir()] == ["date=2019-07-01"]
    lakes = gpd.read_parquet(tmp_path / "lakes")
    with xr.open_dataset(tmp_path / "catalogue.nc") as netcdf:
        assert lakes.time.tolist() == netcdf.time.to_index().tolist() == list(map(pd.Timestamp, times))


def bad_season(**changes):
    season = {"tracks": ONE, "grid": GRID, "title": "T"}
    return season | {"provenance": Provenance(recipe_hash="r")} | changes


def volume_of(lake_id, **columns):
    return pd.DataFrame({"time": [pd.Timestamp("2019-07-01")], "lake_id": [lake_id], **columns})


ONE = track({"2019-07-01": lakes_of(A)})
UTM = Grid(GeoBox((20, 20), Affine(100, 0, 5e5, 0, -100, 7.5e6), "EPSG:32622"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": UTM}, "another CRS than the grid: EPSG:3413, not EPSG:32622"),
        (
            {"tracks": replace(ONE, basins=ONE.basins.to_crs(32622))},
            "basins have another CRS than the grid: EPSG:32622, not EPSG:3413",
        ),
        ({"title": "  "}, "without a title"),
        ({"position_error_m": 0.0}, "error of position"),
        ({"position_error_m": np.nan}, "error of position"),
        ({"volumes": volume_of(9, volume_m3=1.0)}, "a volume of a lake that is none .*2019-07-01.*lake 9"),
        ({"volumes": pd.concat([volume_of(1, volume_m3=1.0)] * 2)}, "two volumes of one lake"),
        ({"volumes": volume_of(1, depth=1.0)}, "without any volume"),
        ({"volumes": volume_of(1, volume_m3=1.0).drop(columns="time")}, "volumes without time"),
        (
            {"provenance": Provenance(recipe_hash="r", images={"2019-07-02": Images()})},
            "a date that was not tracked .2019-07-02",
        ),
        ({"tracks": track({"2019-07-01": lakes_of()})}, "without any date"),
    ],
)
def test_input_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path, changes, words):
    season = bad_season(**changes)
    with pytest.raises(InputError, match=words):
        write_catalogue(season.pop("tracks"), tmp_path / "out", **season)
    assert not (tmp_path / "out").exists()


def test_images_are_refused_with_the_same_date_twice_or_areas_that_are_none():
    for images in ({"2019-07-01": Images(), "20190701": Images()}, {"soon": Images()}, {"2019-07-01T00:00Z": Images()}):
        with pytest.raises(InputError, match="date"):
            Provenance(recipe_hash="r", images=images)
    with pytest.raises(InputError, match="area that is none"):
        Provenance(recipe_hash="r", images={"2019-07-01": Images(seen_m2=-1.0)})


def test_what_is_of_no_catalogue_is_not_replaced(tmp_path):
    (tmp_path / "lakes").mkdir()
    (tmp_path / "lakes" / "mine.shp").write_text("mine")
    with pytest.raises(InputError, match="holds lakes, which is of no catalogue"):
        write(tmp_path, {"2019-07-01": lakes_of(A)})
    assert (tmp_path / "lakes" / "mine.shp").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file, not a folder"):
        write(tmp_path / "file", {"2019-07-01": lakes_of(A)})
