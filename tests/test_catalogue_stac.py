"""A catalogue's STAC collection: valid, complete, and whole wherever the folder is moved."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pystac
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from plain_tracking import box_cells, frame_of
from pyproj import Geod, Transformer
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.table import TableExtension
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

from lakescale import __version__
from lakescale.grid import Grid
from lakescale.series import track
from pipelines.catalogue import Images, Provenance, write_catalogue
from pipelines.catalogue_places import footprint, perimeters_m

WEST, NORTH = 1_700_000.0, 700_000.0
GRID = Grid(GeoBox((60, 80), Affine(100, 0, WEST, 0, -100, NORTH), "EPSG:3031"))
SPANS = {"2019-01-05": ("2019-01-04", "2019-01-05"), "2019-01-20": ("2019-01-20", "2019-01-20")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Write a season of the Amery Ice Shelf with a lake on the first of two dates, then move it."""
    lake = frame_of([box_cells(2, 3, 8, 10)]).drop(columns="area_m2").set_crs(3031, allow_override=True)
    lake = lake.set_geometry(lake.translate(WEST, NORTH), crs=3031)
    images = {"2019-01-05": Images(scene_ids=("S2 Ü", "S2 2"), sensor="Sentinel-2"), "2019-01-20": Images()}
    told = {"inputs": ("REMA v2",), "credits": ("Credit: Us.",), "creator": "A glaciologist"}
    provenance = Provenance(recipe_hash="r1", images=images, **told)
    folder = tmp_path_factory.mktemp("stac")
    tracks = track({"2019-01-05": lake, "2019-01-20": lake.iloc[:0]}, dates=SPANS)
    write_catalogue(tracks, folder / "a", grid=GRID, title="Amery: Süd (2019)", provenance=provenance)
    shutil.move(folder / "a", folder / "über all")
    return folder / "über all"


@pytest.fixture(scope="module")
def collection(made):
    return pystac.Collection.from_file(str(made / "stac" / "collection.json"))


@pytest.fixture(scope="module")
def items(collection):
    return {item.id: item for item in collection.get_items()}


def test_collection_and_items_are_valid_by_the_schemas_of_stac(made):
    schemas = get_local_schema_cache()
    registry = Registry().with_resources([(uri, Resource.from_contents(one)) for uri, one in schemas.items()])
    by_type = {"Feature": "item", "Collection": "collection"}
    paths = sorted((made / "stac").rglob("*.json"))
    assert len(paths) == 1 + len(SPANS) + 4
    for path in paths:
        told = json.loads(path.read_text(encoding="utf-8"))
        (uri,) = [uri for uri in schemas if uri.endswith(f"/{by_type[told['type']]}.json")]
        validator = jsonschema.Draft7Validator(schemas[uri], registry=registry)
        validator.validate(told)
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**told, "links": None})


def test_there_is_an_item_for_each_product(made, items):
    names = {name.removeprefix("amery-sud-2019-") for name in items}
    assert names == {"lakes-2019-01-05", "lakes-2019-01-20", "geopackage", "tables", "netcdf", "zarr"}
    described = {Path(asset.get_absolute_href()).resolve() for item in items.values() for asset in item.assets.values()}
    products = {path for path in made.iterdir() if path.name not in {"stac", "lakes", "provenance.json"}}
    assert described == {path.resolve() for path in (*products, *made.glob("lakes/*/*"))}


def test_files_are_told_with_size_and_checksum(items):
    for item in items.values():
        for asset in item.assets.values():
            path = Path(asset.get_absolute_href())
            if path.is_dir():
                assert asset.media_type == "application/vnd.zarr"
                continue
            file = FileExtension.ext(asset)
            assert file.size == path.stat().st_size
            assert file.checksum == f"1220{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_items_tell_times_places_and_columns(items, collection):
    first = items["amery-sud-2019-lakes-2019-01-05"]
    assert first.datetime.isoformat() == "2019-01-05T00:00:00+00:00"
    assert first.common_metadata.start_datetime.isoformat() == "2019-01-04T00:00:00+00:00"
    assert first.properties["processing:software"] == {"lakescale": __version__}
    assert first.properties["lakescale:scene_ids"] == ["S2 Ü", "S2 2"]
    projection, table = ProjectionExtension.ext(first), TableExtension.ext(first)
    assert (projection.code, tuple(projection.bbox)) == ("EPSG:3031", GRID.bounds_xyxy)
    assert table.row_count == 1
    assert table.columns[0].name == "time"
    assert TableExtension.ext(items["amery-sud-2019-lakes-2019-01-20"]).row_count == 0
    whole = items["amery-sud-2019-netcdf"]
    assert whole.datetime is None
    assert whole.common_metadata.end_datetime.isoformat() == "2019-01-20T00:00:00+00:00"
    assert collection.extent.temporal.intervals[0][0].isoformat() == "2019-01-04T00:00:00+00:00"
    assert collection.extent.spatial.bboxes[0] == first.bbox
    assert first.bbox == pytest.approx(shapely.geometry.shape(first.geometry).bounds)


def test_the_collection_credits_makers_and_tells_its_recipe(collection):
    names = [one.name for one in collection.providers]
    assert names == ["European Union, Copernicus", "Polar Geospatial Center", "A glaciologist"]
    assert collection.title == "Amery: Süd (2019)"
    assert collection.description.endswith("Credit: Us.")
    assert collection.extra_fields["lakescale:recipe_hash"] == "r1"
    assert collection.extra_fields["lakescale:version"] == __version__


@pytest.mark.parametrize(
    ("sensors", "inputs", "words"),
    [
        ({"2019-07-01": "Sentinel-2A", "2021-07-01": "Sentinel-2B"}, (), ["Copernicus Sentinel data [2019-2021]"]),
        ({"2019-07-01": "Landsat 8/9 (HLS)"}, ("s3://pgc/arcticdem/v4.1",), ["U.S. Geological", "Polar Geospatial"]),
        ({"2019-07-01": ""}, ("remark.tif", "rema_38_10m.tif"), ["Polar Geospatial"]),
        ({"2019-07-01": "unknown"}, ("remark.tif",), []),
    ],
)
def test_credits_follow_from_sensors_and_inputs(sensors, inputs, words):
    images = {day: Images(sensor=sensor) for day, sensor in sensors.items()}
    lines = Provenance(recipe_hash="", images=images, inputs=inputs).credit_lines()
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * len(words)


# -- places


def grid_of(epsg, x, y, step, shape=(40, 50)):
    return Grid(GeoBox(shape, Affine(step, 0, x, 0, -step, y), f"EPSG:{epsg}"))


@pytest.mark.parametrize(
    ("grid", "parts"),
    [
        (grid_of(3413, -200_000, -2_400_000, 3000), 1),
        (grid_of(3031, -70_000, -1_300_000, 3000), 2),  # over the date line, on the Ross Ice Shelf
        (grid_of(3031, -70_000, 70_000, 3000), 1),  # the south pole
        (grid_of(3413, -50_000, 60_000, 3000), 1),  # the north pole
        (grid_of(32601, 330_000, 7_500_000, 2000), 2),
    ],
)
def test_a_footprint_holds_what_lies_in_the_grid_and_nothing_else(grid, parts):
    place = footprint(grid)
    assert len(shapely.get_parts(place.geometry)) == parts
    assert place.geometry.is_valid
    west, south, east, north = place.bbox
    assert (west > east) == (parts == 2)
    to_lonlat = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True).transform
    height, width = grid.shape
    rows, cols = np.mgrid[-6.5 : height + 6, -6.5 : width + 6]
    inside = (rows > 1) & (rows < height - 1) & (cols > 1) & (cols < width - 1)
    outside = (rows < -1) | (rows > height + 1) | (cols < -1) | (cols > width + 1)
    lon, lat = to_lonlat(*(grid.transform * (cols, rows)))
    covered = shapely.contains_xy(place.geometry, lon, lat)
    assert covered[inside].all()
    assert not covered[outside].any()
    assert (lat[inside] > south).all()
    assert (lat[inside] < north).all()
    within = (lon > west) & (lon < east) if west < east else (lon > west) | (lon < east)
    assert within[inside].all()


def test_lengths_are_those_on_the_ellipsoid_with_islands_and_parts():
    ring = shapely.box(0, 0, 900, 900) - shapely.box(300, 300, 600, 600)
    two = shapely.MultiPolygon([shapely.box(0, 0, 500, 100), shapely.box(1000, 0, 1100, 100)])
    shapes = shapely.transform(np.array([ring, two]), lambda xy: xy + np.array([500_000, 7_500_000]))
    geod, to_lonlat = Geod(ellps="WGS84"), Transformer.from_crs(32622, 4326, always_xy=True).transform
    expected = [
        sum(geod.line_length(*to_lonlat(*shapely.get_coordinates(r).T)) for r in shapely.get_rings(parts))
        for parts in map(shapely.get_parts, shapes)
    ]
    np.testing.assert_allclose(perimeters_m(shapes, "EPSG:32622"), expected, rtol=1e-12)
    np.testing.assert_allclose(expected, np.array([4800, 1600]) / 0.9996, rtol=1e-4)
    assert perimeters_m(np.empty(0, object), "EPSG:32622").shape == (0,)
