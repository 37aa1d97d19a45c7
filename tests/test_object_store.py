"""Runs in an object store, on a real server of S3: from there to there, killed there, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import geopandas as gpd
import numpy as np
import pytest
import rasterio.shutil
from map_scenes import as_set, lakescale, recipe, rgb_with_lakes, run_here, write_areas, write_scene
from s3_server import make_bucket, new_sessions, serving, set_environment

import lakescale as ls
from lakescale import storage
from lakescale.cube import open_cube
from lakescale.schema import InputError
from lakescale.storage import locate
from lakescale.store import open_layer
from pipelines.ingest import ingest
from pipelines.ingest_recipe import read_ingest_recipe
from pipelines.map_lakes import map_lakes
from pipelines.season_ground import state_of
from pipelines.season_scenes import SeasonScene
from pipelines.sinks import find_sinks
from pipelines.sinks_recipe import read_sinks_recipe

HERE = Path(__file__).parent
THREADS = {"cluster__kind": "threads", "cluster__workers": 2, "cluster__dashboard": "none"}
SCENE, BANDS = "S2_small_20190723.tif", ("red", "green", "blue")
AREA = 599_000, 7_427_000, 603_000, 7_431_000
THREE_PARTS = re.compile(r"lakescale: [^\[]+ \[.+\]\. [A-Z].+\n")


class Places(NamedTuple):
    """The same files on disk and in a bucket, and where to write."""

    here: Path
    there: str
    out: Path
    bucket: str


def put(path, url):
    """Copy a file of the disk to the storage."""
    storage.write_whole(locate(url), path.read_bytes())
    return url


def names(root):
    return {name.partition("/")[0] for name in storage.list_files(locate(root))}


def lakes_of(root):
    with storage.fetched(f"{root}/lakes.parquet") as path:
        return as_set(gpd.read_parquet(path))


def manifest(root):
    return json.loads((locate(root) / "manifest.json").read_text())


def write_tile(folder, left, width=130):
    """Elevations round the scene with two hollows: a tile of them, by its first column."""
    rows, cols = np.mgrid[:260, :260]
    hollows = sum(6 * np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / 300) for r, c in ((70, 70), (160, 160)))
    tile = (1000 + 0.01 * rows - hollows).astype(np.float32)[:, left : left + width]
    origin = 599_700 + 10 * left, 7_430_300
    return write_scene(folder / f"tile{left}_dem.tif", tile[np.newaxis], nodata=-9999, origin=origin)


@pytest.fixture(scope="module")
def places(s3_endpoint, tmp_path_factory):
    """Two dates, a DEM of two tiles, ice."""
    folder, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    for day in ("20190723", "20190801"):
        write_scene(folder / f"S2_small_{day}.tif", rgb_with_lakes())
    for left in (0, 130):
        write_tile(folder, left)
    for name in ("ice.gpkg", "ice.shp"):
        write_areas(folder / name, AREA)
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, s3_endpoint)
        bucket = make_bucket(s3_endpoint)
        for path in folder.iterdir():
            put(path, f"{bucket}/in/{path.name}")
        yield Places(folder, f"{bucket}/in", out, bucket)


def options_of(place, **others):
    given = {"dem__source": [f"{place}/*_dem.tif"], "ice__source": f"{place}/ice.shp", "scene__chunks": 128}
    return given | {"fuse": "none", "report": False} | THREADS | others


@pytest.fixture(scope="module")
def mapped(places):
    """The URL of a run that processes made, from there to there; and what they said."""
    out, given = f"{places.bucket}/RUN", {"--scene": SCENE, "--dem": "*_dem.tif", "--ice": "ice.shp"}
    inputs = [word for option, name in given.items() for word in (option, f"{places.there}/{name}")]
    options = ["--fuse", "none", "--chunks", "128", "--workers", "2", "--dashboard", "none"]
    told = lakescale("map", *inputs, "--out", out, *options)
    assert told.returncode == 0, told.stderr
    return out, told


# -- from there to there


def test_processes_map_from_there_to_there_as_on_disk(places, mapped):
    out, told = mapped
    assert f"written to {out}: lakes.parquet" in told.stdout
    expected = map_lakes(recipe(places.here / SCENE, places.out / "RUN", **options_of(places.here)))
    assert names(out) == {*names(places.out / "RUN"), "report.html"}
    assert lakes_of(out) == as_set(expected.lakes)
    assert len(expected.lakes) == 2
    for layer in manifest(out)["evidence"]["layers"]:
        found, on_disk = (open_layer(f"{root}/evidence.zarr", layer) for root in (out, places.out / "RUN"))
        np.testing.assert_array_equal(found.values, on_disk.values)


def test_a_run_there_is_scored_and_shown(places, mapped, tmp_path, monkeypatch, capsys):
    out, score = mapped[0], f"{places.bucket}/SCORE"
    with storage.fetched(f"{out}/lakes.gpkg") as path:
        reference = put(Path(path), f"{places.bucket}/reference.gpkg")
    for _ in range(2):  # an earlier score is replaced
        assert run_here(monkeypatch, "score", out, reference, "--out", score) == 0
    assert json.loads((locate(score) / "score.json").read_text())["f1"] == 1
    assert names(score) == {"score.json", "matches.gpkg"}
    (locate(out) / "report.html").unlink()
    assert run_here(monkeypatch, "report", out) == 0
    assert b"<html" in (locate(out) / "report.html").read_bytes()[:200]
    assert run_here(monkeypatch, "report", out, "--out", tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").stat().st_size == storage.size_of(locate(out) / "report.html")


def test_a_run_there_is_not_made_again(places, mapped):
    before = evidence_of(mapped[0])
    wanted = options_of(places.there, report=True)
    again = map_lakes(recipe(f"{places.there}/{SCENE}", mapped[0], **wanted))
    assert len(again.lakes) == 2
    assert evidence_of(mapped[0]) == before
    after = storage.list_files(locate(mapped[0]))
    with pytest.raises(InputError, match="another"):
        map_lakes(recipe(f"{places.there}/{SCENE}", mapped[0], **wanted, rules__min_area_m2=9000))
    assert storage.list_files(locate(mapped[0])) == after


def evidence_of(run):
    found = storage.list_files(locate(run))
    return {name: told for name, told in found.items() if name.startswith("evidence.zarr/")}


def test_a_cube_a_dem_and_geotiffs_are_written_there_and_mapped_from_there(places, monkeypatch, capsys):
    def asked(place, out):
        given = {"scene__source": [f"{place}/S2_small_*.tif"], "dem__source": [f"{place}/*_dem.tif"], "cog": True}
        return read_ingest_recipe(out=f"{out}/cube.zarr", scene__chunks=128, **given, **THREADS)

    bucket = places.bucket
    done = ingest(asked(places.there, bucket))
    ingest(asked(places.here, places.out))
    assert done.dates == ("2019-07-23", "2019-08-01")
    assert [str(path) for path in done.cogs] == [f"{bucket}/cube_{day}.tif" for day in done.dates]
    on_disk = open_cube(places.out / "cube.zarr").values
    np.testing.assert_array_equal(open_cube(f"{bucket}/cube.zarr").values, on_disk)
    np.testing.assert_array_equal(ls.open_scene(str(done.cogs[0])).values, ls.open_scene(places.here / SCENE))
    again = ingest(asked(places.there, bucket))
    assert (again.chunks_written, again.dem_chunks_written, again.cogs) == (0, 0, ())
    stored = {"dem__source": [f"{bucket}/dem.zarr"], "scene__date": "2019-08-01"}
    result = map_lakes(recipe(f"{bucket}/cube.zarr", f"{bucket}/STORED", **options_of(places.there, **stored)))
    assert len(result.lakes) == 2
    damage(f"{bucket}/cube.zarr")
    options = ["--date", "2019-08-01", "--out", f"{bucket}/DAMAGED", "--cluster", "threads", "--dashboard", "none"]
    assert run_here(monkeypatch, "map", "--scene", f"{bucket}/cube.zarr", *options) == 2
    told = capsys.readouterr().err
    assert "crc32c" in told or "checksum" in told or "damaged" in told
    assert f"{bucket}/cube.zarr" in told
    assert "lakes.parquet" not in names(f"{bucket}/DAMAGED")


def damage(cube):
    """Change one bit of one chunk of the second date."""
    name = max(name for name in storage.list_files(locate(cube)) if name.startswith("scene/c/1/"))
    data = bytearray((locate(cube) / name).read_bytes())
    data[len(data) // 2] ^= 4
    storage.write_whole(locate(cube) / name, bytes(data))


def test_sinks_are_written_there(places):
    def find(place, out, ending, **others):
        asked = {"source": [f"{place}/*_dem.tif"], "chunks": 128, "min_depth_m": 0.5}
        return find_sinks(read_sinks_recipe(out=f"{out}/x_{ending}.{ending}", **asked, **others, **THREADS))

    here, *there = (
        find(*place, ending)
        for place, ending in (
            ((places.here, places.out), "tif"),
            ((places.there, places.bucket), "tif"),
            ((places.there, places.bucket), "zarr"),
        )
    )
    for one in there:
        assert (one.count, one.capacity_m3) == (here.count, here.capacity_m3)
    assert here.count == 2
    found = [str(path).replace(places.bucket, str(places.out)) for path in there[0].written]
    assert found == list(map(str, here.written))
    assert find(places.there, places.bucket, "zarr").chunks_written == 0
    assert {name for name in names(places.bucket) if name.startswith("x_")} == {
        "x_zarr.zarr", "x_zarr.parquet", "x_zarr.sinks.json", "x_tif.tif", "x_tif.parquet", "x_tif.sinks.json"
    }  # fmt: skip


def test_a_vrt_a_folder_and_stac_items_are_read_there(places, bucket):
    folder = places.here
    for path in folder.glob("*.tif"):
        put(path, f"{bucket}/in/{path.name}")
    expected = ls.open_scene(folder / SCENE, chunks=64)
    item = {
        "type": "Feature", "id": "S2_x", "properties": {"datetime": "2019-07-23T00:00:00Z"},
        "assets": {"image": {"href": SCENE, "eo:bands": [{"name": name} for name in BANDS]}},
    }  # fmt: skip
    storage.write_whole(locate(f"{bucket}/in/item.json"), json.dumps(item).encode())
    found = ls.open_scene(f"{bucket}/in/item.json", chunks=64)
    np.testing.assert_array_equal(found.values, expected.values)
    assert found.data.name == ls.open_scene(f"{bucket}/in/item.json", chunks=64).data.name
    vrt = write_vrt(folder / "mosaic.vrt", [folder / "tile0_dem.tif", folder / "tile130_dem.tif"])
    put(vrt, f"{bucket}/in/mosaic.vrt")
    whole = ls.open_dem(vrt).values
    for source in ("in/mosaic.vrt", "in", "**/*_dem.tif"):
        np.testing.assert_array_equal(ls.open_dem(f"{bucket}/{source}").values, whole)
    name = found.data.name
    other = write_scene(folder.parent / f"other_{SCENE}", rgb_with_lakes()[:, ::-1])
    put(
        other, f"{bucket}/in/{SCENE}"
    )  # another file of that name; servers tell times by the second, hashes of bytes always
    assert ls.open_scene(f"{bucket}/in/item.json", chunks=64).data.name != name


def write_vrt(path, tiles):
    names = [tile.name for tile in tiles]
    rasterio.shutil.copy(tiles[0], path, driver="VRT")
    text = path.read_text().replace('rasterXSize="130"', 'rasterXSize="260"')
    source = text[text.index("<SimpleSource") : text.index("</SimpleSource>") + len("</SimpleSource>")]
    second = source.replace(names[0], names[1]).replace('<DstRect xOff="0"', '<DstRect xOff="130"')
    path.write_text(text.replace(source, source + second))
    return path


# -- killed


@pytest.mark.slow
def test_a_run_that_is_killed_there_goes_on_where_it_was(places, tmp_path):
    scene, out = f"{places.there}/{SCENE}", f"{places.bucket}/KILLED"
    options = options_of(places.there, scene__chunks=32, report=True)
    (tmp_path / "recipe.yaml").write_text(recipe(scene, out, **options).to_yaml())
    command = [sys.executable, "-m", "lakescale", "map", "--recipe", "recipe.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, env=environment, cwd=tmp_path)
    partial, deadline = locate(f"{out}/evidence.partial.zarr"), time.monotonic() + 400
    while count_markers(partial) < 60:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)
    assert manifest(out)["state"] == "running"
    assert "lakes.parquet" not in names(out)
    before = count_markers(partial)
    found = map_lakes(recipe(scene, out, **options))
    there = manifest(out)["evidence"]
    assert there["chunks_written"] == len(there["layers"]) * 49 - before
    whole = map_lakes(recipe(places.here / SCENE, places.out / "WHOLE", **options_of(places.here, scene__chunks=32)))
    assert as_set(found.lakes) == as_set(whole.lakes)
    assert names(out) == {*names(places.out / "WHOLE"), "report.html"}
    assert not any("lock" in name for name in names(places.bucket))


def count_markers(store):
    return sum("/commits/" in name for name in storage.list_files(store))


# -- refused


def test_what_cannot_be_there_is_refused(bucket, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    season, train = tmp_path / "season.yaml", tmp_path / "train.yaml"
    season.write_text("scenes: [a_20190723.tif]\nout: RUN\n")
    train.write_text("out: RUN\n")
    for command in (
        ["season", season, "--out", f"{bucket}/SEASON"],
        ["demo", "--out", f"{bucket}/DEMO", "--dry-run"],
        ["samples", train, "--out", f"{bucket}/TRAIN"],
        ["model", "convert", f"{bucket}/a.pth", f"{bucket}/a.safetensors"],
    ):
        assert run_here(monkeypatch, *command) == 2
        told = capsys.readouterr().err
        assert THREE_PARTS.fullmatch(told)
        assert "cannot be in an object store" in told
        assert bucket in told
        assert "aws s3 sync" in told
    assert not (tmp_path / "s3:").exists()
    assert names(bucket) == set()


COMMANDS = {
    "map to": ["map", "--scene", "{scene}", "--out", "{there}/RUN"],
    "map from": ["map", "--scene", "{there}/a_20190723.tif", "--out", "RUN"],
    "ingest to": ["ingest", "--scene", "{scene}", "--out", "{there}/cube.zarr"],
    "ingest from": ["ingest", "--scene", "{there}/*.tif", "--out", "cube.zarr"],
    "sinks to": ["sinks", "{dem}", "{there}/x.tif"],
    "sinks from": ["sinks", "{there}/a_dem.tif", "x.tif"],
    "score": ["score", "{there}/RUN", "{ice}"],
    "report": ["report", "{there}/RUN"],
    "model": ["model", "info", "{there}/m.safetensors"],
}
TROUBLES = {
    "no bucket": (2, "there is no such bucket", "Make it first"),
    "no server": (1, "the storage does not answer", "See the network"),
    "no right": (2, "access is refused", "AWS_ACCESS_KEY_ID"),
}


@pytest.fixture(scope="module")
def strict_endpoint():
    """A server that takes no key but its own."""
    with serving(INITIAL_NO_AUTH_ACTION_COUNT="0") as endpoint:
        yield endpoint


@pytest.fixture(params=TROUBLES)
def trouble(request, places, strict_endpoint, monkeypatch):
    """A URL below which nothing can be done; what is said of it."""
    with new_sessions():
        if request.param == "no server":
            set_environment(monkeypatch, "http://127.0.0.1:9", AWS_MAX_ATTEMPTS="1", GDAL_HTTP_MAX_RETRY="0")
        elif request.param == "no right":
            set_environment(monkeypatch, strict_endpoint)
        yield "s3://not-there-at-all/x", *TROUBLES[request.param]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_trouble_with_the_storage_is_told_before_anything_is_computed(
    command, trouble, places, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    there, code, what, mend = trouble
    files = {"scene": places.here / SCENE, "dem": places.here / "tile0_dem.tif", "ice": places.here / "ice.gpkg"}
    assert run_here(monkeypatch, *(word.format(there=there, **files) for word in command)) == code
    told = capsys.readouterr()
    assert THREE_PARTS.fullmatch(told.err), told.err
    assert what in told.err
    assert there in told.err
    assert mend in told.err
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


def test_inputs_that_are_not_there(bucket, tmp_path):
    grid = ls.Grid.of(ls.make_region(64).scene("2019-07-01"))
    for what, match in (
        (lambda: ls.open_scene(f"{bucket}/none.tif"), "no such file"),
        (lambda: ls.open_scene(f"{bucket}/*.tif"), "no raster file found"),
        (lambda: ls.open_scene("https://127.0.0.1:9/*.tif"), "does not list its files"),
        (lambda: ls.open_dem(f"{bucket}/none_dem.tif"), "no such file"),
        (lambda: ls.open_scene(f"{bucket}/none.json"), "STAC item"),
        (lambda: ls.ice_mask(f"{bucket}/none.gpkg", grid), "no such file"),
        (lambda: open_cube(f"{bucket}/none.zarr"), "no such|no store"),
    ):
        with pytest.raises(InputError, match=match) as told:
            what()
        assert told.value.mend


def test_a_season_notices_other_bytes_behind_a_url(bucket, tmp_path):
    path, url = tmp_path / "ice.shp", f"{bucket}/ice.shp"
    path.write_bytes(bytes(100))
    put(path, url)
    scene, before = SeasonScene("2019-07-01", (url,)), state_of(url)
    first = scene.state
    assert (scene.state, state_of(url)) == (first, before)
    path.write_bytes(bytes(99) + b"1")
    put(path, url)
    assert scene.state != first
    assert state_of(url) != before
    assert SeasonScene("2019-07-01", (f"{bucket}-gone/a.tif",)).state == [(f"{bucket}-gone/a.tif", 0, 0)]
