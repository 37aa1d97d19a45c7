"""`lakescale info`, and results that show themselves."""

from __future__ import annotations

import io
import json

import geopandas as gpd
import pytest
import shapely
from map_scenes import lakescale, recipe
from rich.console import Console
from test_map_sources import slope_with_bowl, write_dem

import lakescale as ls
from lakescale.schema import InputError
from pipelines.info import describe_path
from pipelines.info_tables import lay_out
from pipelines.ingest import ingest
from pipelines.ingest_recipe import read_ingest_recipe
from pipelines.map_lakes import map_lakes
from pipelines.report_words import spell_bytes
from pipelines.sinks import find_sinks
from pipelines.sinks_recipe import read_sinks_recipe

QUIET = {"cluster__kind": "threads", "cluster__dashboard": "none"}


def drawn(thing, width=200):
    said = io.StringIO()
    Console(width=width, file=said).print(thing)
    return said.getvalue()


@pytest.fixture
def run(small_scene, tmp_path):
    return map_lakes(recipe(small_scene, tmp_path / "RUN", scene__chunks=128, report=False))


def test_a_run_is_told_and_shows_itself(run):
    told = describe_path(run.out)
    assert (told["what"], told["state"], told["dates"]) == ("run", "finished", ["2019-07-23"])
    assert told["grid"]["shape"] == [200, 200]
    assert told["grid"]["pixel_m"] == 10
    assert (told["lakes"], told["candidates"]) == (2, {"kept": 2, "stream": 1})
    assert [(one["name"], one["chunks"], one["chunks_left"]) for one in told["layers"]] == [
        ("color", 4, 0),
        ("seen", 4, 0),
    ]
    assert told["bytes"] == sum(path.stat().st_size for path in run.out.rglob("*") if path.is_file())
    text = drawn(lay_out(told))
    for part in ("finished", "200 x 200 pixels of 10 m, EPSG:32622", "0.520 km2", "candidates"):
        assert part in text
    shown = drawn(run)
    assert "2 lakes, 0.520 km2 of true area" in shown
    assert "stream" in shown
    assert repr(run) == f"MapResult({run.out}: 2 lakes, 0.520 km2 of true area)"
    assert "<td>stream</td><td>1</td>" in run._repr_html_()
    for marker in (run.out / "evidence.zarr" / "color" / "commits" / "1").iterdir():
        marker.unlink()
    assert [one["chunks_left"] for one in describe_path(run.out)["layers"]] == [2, 0]


def test_the_command_prints_tables_and_json(run):
    done = lakescale("info", run.out)
    assert done.returncode == 0, done.stderr
    assert "stages" in done.stdout
    told = json.loads(lakescale("info", run.out, "--json").stdout)
    assert told == json.loads(json.dumps(describe_path(run.out), default=str))
    missing = lakescale("info", run.out / "nothing")
    assert (missing.returncode, "nothing" in missing.stderr) == (2, True)


def test_cubes_stores_and_sinks_are_told(small_scene, tmp_path):
    cube = tmp_path / "cube.zarr"
    ingest(read_ingest_recipe(scene__source=[str(small_scene)], out=cube, scene__chunks=128, **QUIET))
    told = describe_path(cube)
    assert (told["what"], told["state"], told["bands"]) == ("cube", "finished", ["red", "green", "blue"])
    assert [(one["date"], one["chunks"], one["chunks_left"]) for one in told["dates"]] == [("2019-07-23", 4, 0)]
    assert list(told["stages"]) == ["open", "cube"]
    next((cube / "scene" / "commits" / "0" / "1").iterdir()).unlink()
    told = describe_path(cube)
    assert (told["state"], told["dates"][0]["chunks_left"]) == ("unfinished", 1)
    assert "unfinished" in drawn(lay_out(told))

    dem = write_dem(tmp_path / "dem.tif", slope_with_bowl(slice(20, 60), slice(20, 60), size=192))
    out = tmp_path / "X.zarr"
    find_sinks(read_sinks_recipe(source=[str(dem)], out=out, chunks=96, **QUIET))
    told = describe_path(out)
    assert (told["what"], told["state"], told["request"]["engine"]) == ("sinks of a DEM", "finished", "tiled")
    assert [one["name"] for one in told["layers"]] == ["filled", "sink_depth"]
    assert describe_path(tmp_path / "X.sinks.json")["stages"] == told["stages"]
    assert "regions" in drawn(lay_out(told))
    ls.write_layer(ls.open_layer(out, "filled"), tmp_path / "own.zarr", "heights", chunks=96)
    told = describe_path(tmp_path / "own.zarr")
    assert (told["what"], told["state"], told["layers"][0]["name"]) == ("store of layers", "finished", "heights")


def test_what_is_nothing_of_ours_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path, message in ((tmp_path, "nothing that lakescale wrote"), (tmp_path / "gone", "there is nothing")):
        with pytest.raises(InputError, match=message):
            describe_path(path)


def test_bytes_are_spelled_for_people():
    assert [spell_bytes(one) for one in (5, 999, 1000, 12_345, 999_999, 5e15)] == [
        "5 B", "999 B", "1 kB", "12.3 kB", "1,000 kB", "5,000 TB",
    ]  # fmt: skip


def test_scores_and_tracks_show_themselves():
    reference = gpd.GeoDataFrame(geometry=shapely.box([0, 200], 0, [90, 290], 90), crs=3413)
    lakes = reference.iloc[:1]
    score = ls.score(lakes, reference)
    shown = drawn(score)
    assert "strict rules" in shown
    assert "0.667" in shown
    assert "<td>0.667</td>" in score._repr_html_()
    by_group = [frame.assign(image="a<b", region_num=range(len(frame))) for frame in (lakes, reference)]
    shown = drawn(ls.score(*by_group))
    assert [line.split("  ")[0].strip() for line in shown.splitlines()[2:5]] == ["a<b 0", "a<b 1", "all"]
    assert "a&lt;b 1" in ls.score(*by_group)._repr_html_()
    dated = {day: lakes.assign(area_m2=8100.0, lake_id=1, seen_share=1.0) for day in ("2019-07-01", "2019-07-04")}
    tracks = ls.track(dated)
    assert repr(tracks) == "Tracks(2 lakes of 2 dates, 2019-07-01 to 2019-07-04; 1 tracks)"
    assert "fate" in drawn(tracks)
