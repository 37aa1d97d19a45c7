"""Seasons by a STAC search: an API on loopback, a static catalogue, and what odc-stac would load of the items."""

from __future__ import annotations

import datetime as dt
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import geopandas as gpd
import numpy as np
import pystac
import pytest
import shapely
from map_scenes import write_scene
from season_scenes import change, read, write_recipe

import lakescale as ls
from lakescale.schema import InputError
from pipelines import season_stac
from pipelines.season import map_season, plan_season
from pipelines.season_scenes import list_scenes

DAYS = ("2019-07-01", "2019-07-05")
CLOUDS = (10, 80)
BOUNDS = (-49.0, 66.9, -48.7, 67.1)
WIDE = dict(zip(("west", "south", "east", "north"), (-50, 66, -48, 68), strict=True))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAKESCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def make_items(folder):
    """Two scenes of blue and red in files of their own, and an item for each."""
    rng, items = np.random.default_rng(0), []
    for k, day in enumerate(DAYS):
        numbers = rng.integers(4500, 5500, (2, 96, 96))
        numbers[:, 20 : 50 + 10 * k, 20:60] = np.array([3000, 800])[:, None, None]
        item = pystac.Item(
            f"S2A_T22WEV_{day.replace('-', '')}_0_L1C",
            shapely.geometry.mapping(shapely.box(*BOUNDS)), list(BOUNDS), dt.datetime.fromisoformat(f"{day}T15:00:00Z"),
            {"platform": "sentinel-2a", "eo:cloud_cover": CLOUDS[k], "s2:processing_baseline": "02.08"},
        )  # fmt: skip
        for band, code, plane in zip(("blue", "red"), ("B02", "B04"), numbers, strict=True):
            path = write_scene(folder / f"{item.id}_{code}.tif", plane[None].astype(np.uint16))
            extra = {"eo:bands": [{"name": code, "common_name": band}]}
            extra["raster:bands"] = [{"scale": 1e-4, "offset": 0.0, "nodata": 0, "data_type": "uint16"}]
            item.add_asset(
                band, pystac.Asset(str(path), media_type=pystac.MediaType.COG, roles=["data"], extra_fields=extra)
            )
        items.append(item)
    return items


def write_catalogue(folder):
    since = pystac.TemporalExtent([[dt.datetime(2019, 7, 1, tzinfo=dt.UTC), None]])
    extent = pystac.Extent(pystac.SpatialExtent([list(BOUNDS)]), since)
    collection = pystac.Collection("sentinel-2-l1c", "made up", extent)
    collection.add_items(make_items(folder))
    catalogue = pystac.Catalog("root", "made up")
    catalogue.add_child(collection)
    catalogue.normalize_and_save(str(folder / "stac"), pystac.CatalogType.SELF_CONTAINED)
    return folder / "stac/catalog.json"


class Api(BaseHTTPRequestHandler):
    """As much of a STAC API as a search needs."""

    items: ClassVar[list[dict]] = []
    asked: ClassVar[list[dict]] = []

    def do_GET(self):
        root = f"http://127.0.0.1:{self.server.server_port}"
        search = {"rel": "search", "href": f"{root}/search", "type": "application/geo+json", "method": "POST"}
        conforms = [f"https://api.stacspec.org/v1.0.0/{part}" for part in ("core", "item-search", "item-search#query")]
        self._answer({
            "type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "made up", "conformsTo": conforms,
            "links": [{"rel": "root", "href": root}, {"rel": "self", "href": root}, search],
        })  # fmt: skip

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(asked)
        most = asked.get("query", {}).get("eo:cloud_cover", {}).get("lt", 101)
        found = [item for item in self.items if item["properties"]["eo:cloud_cover"] < most]
        self._answer({"type": "FeatureCollection", "features": found, "links": []})

    def _answer(self, told):
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def api(tmp_path):
    """A server of the items; links to their files are signed anew for each fixture."""
    Api.items = [item.to_dict(include_self_link=False) for item in make_items(tmp_path)]
    Api.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def write_season(folder, url, **search):
    values = {"out": "RUN", "evidence": "index", "report": False}
    values["scenes"] = {"stac": {"url": str(url), **search}, "chunks": 64}
    values["cluster"] = {"kind": "threads", "workers": 1, "dashboard": "none"}
    return write_recipe(folder, values)


def test_a_static_catalogue_becomes_a_season(tmp_path):
    path = write_season(
        tmp_path, write_catalogue(tmp_path), collections=["sentinel-2-l1c"], datetime="2019-07-01/2019-07-31"
    )
    assert plan_season(read(path))["dates"] == ", ".join(DAYS)
    assert not (tmp_path / "RUN").exists()
    done = map_season(read(path))
    assert [one.day for one in done.dates] == list(DAYS)
    lakes = gpd.read_parquet(tmp_path / "RUN/lakes.parquet")
    np.testing.assert_allclose(lakes.area_m2, [120_000, 160_000], rtol=5e-3)
    told = json.loads((tmp_path / "RUN/catalogue/provenance.json").read_text())["images"]
    assert [one["scene_ids"] for one in told.values()] == [
        [f"S2A_T22WEV_{d.replace('-', '')}_0_L1C.json"] for d in DAYS
    ]
    assert {(one["sensor"], one["product_level"], one["baseline"]) for one in told.values()} == {
        ("Sentinel-2A", "L1C", "02.08")
    }
    again = map_season(read(path))
    assert all(one.is_kept for one in again.dates)
    assert again.catalogue["is_kept"]


@pytest.mark.parametrize(
    ("search", "days"),
    [
        ({"query": {"eo:cloud_cover": {"lt": 50}}}, DAYS[:1]),
        ({"query": {"eo:cloud_cover": {"gte": 80}, "platform": {"eq": "sentinel-2a"}}}, DAYS[1:]),
        ({"datetime": "2019-07-02/.."}, DAYS[1:]),
        ({"datetime": "../2019-07-01"}, DAYS[:1]),
        ({"datetime": "2019-07-05"}, DAYS[1:]),
        ({"bbox": [-48.8, 67, -40, 68]}, DAYS),
        ({"max_items": 1}, DAYS[:1]),
    ],
    ids=str,
)
def test_a_static_catalogue_is_searched_as_an_api_would(tmp_path, search, days):
    path = write_season(tmp_path, write_catalogue(tmp_path), **search)
    assert list(list_scenes(read(path))) == list(days)


@pytest.mark.parametrize(
    "search", [{"collections": ["x"]}, {"bbox": [0, 0, 1, 1]}, {"datetime": "2020-01-01/.."}], ids=str
)
def test_a_search_that_finds_nothing_is_refused(tmp_path, search):
    path = write_season(tmp_path, write_catalogue(tmp_path), **search)
    with pytest.raises(InputError, match=f"found nothing .*{next(iter(search))}"):
        map_season(read(path))


def test_an_api_is_asked_for_what_the_recipe_says(tmp_path, api):
    area = gpd.GeoDataFrame(geometry=[shapely.box(600_000, 7_429_100, 600_900, 7_430_000)], crs="EPSG:32622")
    area.to_file(tmp_path / "aoi.gpkg")
    search = {"collections": ["s2"], "datetime": "2019-06-01/2019-08-31", "query": {"eo:cloud_cover": {"lt": 60}}}
    path = change(write_season(tmp_path, api, **search), aoi="aoi.gpkg")
    done = map_season(read(path))
    assert [one.day for one in done.dates] == [DAYS[0]]
    (asked,) = Api.asked
    assert asked["collections"] == ["s2"]
    assert asked["query"] == {"eo:cloud_cover": {"lt": 60}}
    assert asked["datetime"] == "2019-06-01T00:00:00Z/2019-08-31T23:59:59Z"
    np.testing.assert_allclose(asked["bbox"], area.to_crs(4326).total_bounds)


def test_links_that_are_signed_anew_redo_nothing_and_an_item_that_changed_does(tmp_path, api):
    def states():
        return [scene.state for listed in list_scenes(read(path)).values() for scene in listed]

    path = write_season(tmp_path, api)
    for item in Api.items:
        item["assets"] = {name: one | {"href": f"{api}/{name}.tif?sig=1"} for name, one in item["assets"].items()}
    before = states()
    Api.items = json.loads(json.dumps(Api.items).replace("sig=1", "sig=2"))
    assert states() == before
    Api.items[0]["properties"]["updated"] = "2020-01-01T00:00:00Z"
    after = states()
    assert after[0] != before[0]
    assert after[1] == before[1]
    (item,) = list((tmp_path / "cache/stac").glob(f"*/{Api.items[1]['id']}.json"))
    assert "sig=2" in item.read_text()


def test_an_item_opens_as_odc_stac_would_load_it(tmp_path):
    import odc.stac

    items = make_items(tmp_path)
    opened = ls.open_scene(items[0])
    geobox = ls.Grid.of(opened).geobox
    loaded = odc.stac.load(items[:1], bands=["blue", "red"], geobox=geobox).isel(time=0)
    assert opened.band.values.tolist() == ["blue", "red"]
    for band in ("blue", "red"):
        stored = loaded[band].values
        expected = np.where(stored == 0, np.nan, stored * np.float32(1e-4)).astype(np.float32)  # it leaves scales alone
        np.testing.assert_allclose(opened.sel(band=band).values, expected, rtol=1e-6)
        np.testing.assert_array_equal(opened.x, loaded.x)
        np.testing.assert_array_equal(opened.y, loaded.y)


def test_what_cannot_be_searched_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"STAC search failed.*gone\.json"):
        list_scenes(read(write_season(tmp_path, "gone.json")))
    with pytest.raises(InputError, match="no scenes are named"):
        read(write_recipe(tmp_path, {"scenes": {"chunks": 64}, "out": "RUN"}))
    with pytest.raises(InputError, match="'eq', 'neq', 'lt'"):
        read(write_season(tmp_path, "x.json", query={"eo:cloud_cover": {"below": 3}}))
    monkeypatch.setattr(season_stac, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs pystac-client.*ip install 'lakescale\[stac\]'"):
        list_scenes(read(write_season(tmp_path, "catalog.json")))
