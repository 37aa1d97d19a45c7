"""`lakescale season`: many dates to one catalogue; what a change makes it do again, what is left out, what refused."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import chdir
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import typer
import yaml
from distributed import KilledWorker
from map_scenes import recipe as map_recipe
from map_scenes import write_areas, write_scene
from season_scenes import (
    CHUNKS,
    DATES,
    LAYERS,
    SIZE,
    WATER,
    A,
    B,
    C,
    answer,
    change,
    layers,
    markers,
    read,
    rgb,
    write_recipe,
    write_season,
)
from typer.testing import CliRunner

import lakescale as ls
from lakescale.schema import InputError, RunError
from lakescale.store import open_layer
from pipelines import season_dates, season_scenes
from pipelines.cli_info import info_command
from pipelines.cli_season import season_command
from pipelines.info import describe_path
from pipelines.map_lakes import map_lakes
from pipelines.report import write_report
from pipelines.season import map_season, plan_season
from pipelines.season_catalogue import find_cloud_rule
from pipelines.season_folder import sole_run
from pipelines.season_recipe import find_line
from pipelines.season_scenes import list_scenes, mosaic

app = typer.Typer()
app.command()(season_command)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A season that was run once, and what the run told."""
    path = write_season(tmp_path_factory.mktemp("season"))
    with chdir(path.parent):
        return path, map_season(read(path))


@pytest.fixture
def season(finished, tmp_path, monkeypatch):
    """A copy of the finished season, with scenes of its own."""
    shutil.copytree(finished[0].parent, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "season.yaml"


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """A season without a DEM that was not run."""
    monkeypatch.chdir(tmp_path)
    return write_season(tmp_path, dem=False)


def only(path, day, **options):
    """Let a recipe have the scene of one date alone."""
    scenes = yaml.safe_load(path.read_text())["scenes"]
    source = [f"S2_{day}.tif"] if isinstance(day, str) else [str(one) for one in day]
    return change(path, scenes=scenes | {"source": source}, **options)


def days(result, *, kept):
    return [one.day for one in result.dates if one.is_kept is kept]


def quarantine(path):
    return json.loads((path.parent / "RUN" / "quarantine.json").read_text())


def manifest(path):
    return json.loads((path.parent / "RUN" / "manifest.json").read_text())


# -- the catalogue


def test_the_catalogue_tells_what_became_of_each_lake(finished):
    path, result = finished
    run = path.parent / "RUN"
    lakes, states, summary = (gpd.read_parquet(run / "lakes.parquet"), *(
        pd.read_parquet(run / f"{name}.parquet") for name in ("tracks", "catalogue")
    ))  # fmt: skip
    assert len(lakes) == result.catalogue["lakes"] == sum(map(len, WATER.values()))
    assert lakes.track_id.nunique() == result.catalogue["tracks"] == 3
    assert {"lake_id", "time", "area_m2", "color_share", "sink_share"} <= set(lakes.columns)
    assert [str(day)[:10] for day in states.time.unique()] == list(DATES)
    by_size = summary.sort_values("max_area_m2", ignore_index=True)
    assert by_size.max_area_m2.tolist() == pytest.approx([120_000, 160_000, 360_000], rel=2e-3)
    assert by_size.fate.tolist() == ["refilled", "drained, speed unknown", "unknown"]
    assert str(by_size.drained_after[1])[:10] == DATES[1]
    assert str(by_size.drained_before[1])[:10] == DATES[2]
    assert manifest(path)["state"] == "finished"
    assert quarantine(path) == []


def test_a_lake_that_a_thin_cloud_keeps_from_being_outlined_is_not_told_empty(plain):
    veiled = rgb((A, B))
    veiled[:, C[0], C[1]] = np.array([130, 180, 215], np.uint8)[:, None, None]
    write_scene(plain.parent / f"S2_{DATES[1]}.tif", veiled)
    assert map_season(read(plain)).catalogue["lakes"] == sum(map(len, WATER.values())), "it was not outlined"
    states, summary = (pd.read_parquet(f"RUN/{name}.parquet") for name in ("tracks", "catalogue"))
    smallest = summary.sort_values("max_area_m2").iloc[0]
    assert states.state[states.track_id == smallest.track_id].tolist() == ["water", "not outlined", "water"]
    assert smallest.fate == "unknown", "and not refilled, as without a look at the ground"


def test_lakes_come_with_what_they_hold_by_the_dem(finished):
    path, _ = finished
    run, names = path.parent / "RUN", ["level_m", "volume_m3", "depth_max_m", "flat_share", "volume_reason"]
    dem, depth = ls.open_dem(path.parent / "dem.tif"), open_layer(run / "sinks.zarr", "sink_depth")
    of_season = gpd.read_parquet(run / "lakes.parquet")
    for day in DATES:
        bare = gpd.read_parquet(run / "dates" / day / "lakes.parquet")
        by_hand = ls.lake_volumes(bare, dem, sinks=depth).compute()
        told = of_season[of_season.time == pd.Timestamp(day)].sort_values("lake_id", ignore_index=True)
        pd.testing.assert_frame_equal(told[names], by_hand[names].reset_index(drop=True), check_dtype=False)
    assert of_season.level_m.notna().all()


def test_the_catalogue_comes_in_all_its_forms(finished):
    path, _ = finished
    folder = path.parent / "RUN/catalogue"
    products = {"lakes", "catalogue.gpkg", "catalogue.nc", "catalogue.zarr", "stac", "provenance.json", "totals.csv"}
    assert products <= {one.name for one in folder.iterdir()}
    lakes = gpd.read_parquet(folder / "lakes")
    assert lakes.volume_reason.tolist() == gpd.read_parquet(path.parent / "RUN/lakes.parquet").volume_reason.tolist()
    totals = pd.read_csv(folder / "totals.csv")
    assert totals.time.tolist() == list(DATES)
    assert totals.seen_region_share.tolist() == pytest.approx([(SIZE - 10) / SIZE] * len(DATES), abs=1e-3)
    told = json.loads((folder / "provenance.json").read_text())
    assert [one["scene_ids"] for one in told["images"].values()] == [[f"S2_{day}.tif"] for day in DATES]
    assert {(one["sensor"], one["cloud"]) for one in told["images"].values()} == {("Sentinel-2", "")}
    assert told["inputs"] == ["DEM: dem.tif"]
    assert told["title"] == f"Lakes of RUN, {DATES[0]} to {DATES[-1]}"


def test_the_rule_on_cloud_is_that_of_the_notes():
    region = ls.make_region(64, seed=1)
    told = ls.assess_cloud(region.scene(region.dates[0], kind="reflectance")).note
    assert find_cloud_rule(["ice: none given", told, f"a.tif: {told}"]) == told.removeprefix("cloud: ")
    assert find_cloud_rule(["cloud not assessed: no SWIR band; clouded pixels count as seen"]) == ""


def test_another_title_redoes_the_catalogue_alone(season):
    before = layers(season.parent / "RUN")
    result = map_season(read(change(season, title="Two lakes and a third")))
    assert not result.catalogue["is_kept"]
    assert days(result, kept=True) == list(DATES)
    assert layers(season.parent / "RUN") == before
    told = json.loads((season.parent / "RUN/catalogue/provenance.json").read_text())
    assert told["title"] == "Two lakes and a third"


def test_a_date_is_what_mapping_it_alone_gives(finished, tmp_path):
    path, day = finished[0], DATES[1]
    alone = map_lakes(
        map_recipe(
            path.parent / f"S2_{day}.tif", tmp_path / "ALONE",
            dem__source=str(path.parent / "dem.tif"), dem__margin_m=0, scene__chunks=64,
        )
    )  # fmt: skip
    of_season = gpd.read_parquet(path.parent / "RUN/dates" / day / "lakes.parquet")
    pd.testing.assert_frame_equal(of_season, alone.lakes)


def test_sinks_are_found_once_and_shared(finished):
    path, result = finished
    run = path.parent / "RUN"
    assert result.sinks_written == CHUNKS
    stored = open_layer(run / "sinks.zarr", "sink_depth")
    np.testing.assert_array_equal(stored, ls.sink_depth(ls.open_dem(path.parent / "dem.tif")))
    for day in DATES:
        written = {one.parent.name for one in (run / "dates" / day / "evidence.zarr").glob("*/commits")}
        assert written == set(LAYERS)
    assert len(markers(run)) == CHUNKS * (1 + len(DATES) * len(LAYERS))


def test_what_was_predicted_stands_beside_what_was(finished):
    told = manifest(finished[0])["season"]
    assert told["predicted"]["dates"] == len(DATES)
    assert told["predicted"]["chunks"] == CHUNKS
    assert told["predicted"]["tasks"] == pytest.approx(told["measured"]["tasks"], rel=0.5)
    pixels = SIZE * SIZE
    assert told["predicted"]["bytes"] == told["measured"]["bytes"] == pixels * (4 + len(DATES) * len(LAYERS))
    assert told["predicted"]["seconds"] > 0


def test_dates_side_by_side_give_the_same(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = change(write_season(tmp_path), dates_at_once=3)
    done = map_season(read(path))
    assert [one.day for one in done.dates] == list(DATES)
    assert answer(tmp_path / "RUN") == answer(finished[0].parent / "RUN")
    assert layers(tmp_path / "RUN") == layers(finished[0].parent / "RUN")
    again = map_season(read(change(path, dates_at_once=1)))
    assert days(again, kept=True) == list(DATES)


def test_a_bad_scene_among_dates_side_by_side_is_left_out_alone(plain):
    bad = plain.parent / f"S2_{DATES[1]}.tif"
    bad.write_bytes(bad.read_bytes()[:-400])
    done = map_season(read(change(plain, dates_at_once=2)))
    assert [one.day for one in done.dates] == [DATES[0], DATES[2]]
    assert [one.scene for one in done.left_out] == [bad.name]


def test_a_date_whose_server_does_not_answer_is_left_out_and_kept_for_later(plain, monkeypatch):
    map_season(read(plain))
    whole, told = season_dates.prepare_date, season_scenes.version_of

    def unreachable(ground, scenes, *rest):
        if scenes[0].day == DATES[1]:
            raise InputError("the server does not answer", scenes[0].name)
        return whole(ground, scenes, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(season_scenes, "version_of", lambda file: (0, 0) if DATES[1] in str(file) else told(file))
        patch.setattr(season_dates, "prepare_date", unreachable)
        assert [one.date for one in map_season(read(plain)).left_out] == [DATES[1]]
    again = map_season(read(plain))
    assert days(again, kept=True) == list(DATES)
    assert again.left_out == ()


def test_dates_that_were_begun_have_ended_when_the_season_fails(plain, monkeypatch):
    whole, begun, ended = season_dates.map_lakes, threading.Event(), []

    def slow_or_broken(recipe, *rest, **options):
        if DATES[0] in str(recipe.out):
            begun.wait(30)
            raise RunError("the disk is gone", str(recipe.out))
        begun.set()
        time.sleep(1)
        try:
            return whole(recipe, *rest, **options)
        finally:
            ended.append(recipe.out.name)

    monkeypatch.setattr(season_dates, "map_lakes", slow_or_broken)
    with pytest.raises(RunError, match="the disk is gone"):
        map_season(read(change(plain, dates_at_once=2)))
    assert ended == [DATES[1]]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("date")]


def test_the_season_tells_its_stages_and_each_date_its_own(finished):
    told = manifest(finished[0])
    stages = told["stages"]
    assert list(stages) == ["open", "sinks", "dates", "tracks", "lids", "catalogue"]
    run = finished[0].parent / "RUN"
    one = json.loads((run / "dates" / DATES[1] / "manifest.json").read_text())["stages"]
    assert list(one) == ["open", *LAYERS, "candidates", "lakes", "write"]
    assert stages["dates"]["tasks"] > sum(one[name]["tasks"] for name in (*LAYERS, "candidates"))
    assert stages["dates"]["peak_memory_mb"] >= max(one[name]["peak_memory_mb"] for name in LAYERS)
    assert told["season"]["measured"]["tasks"] == sum(one.get("tasks", 0) for one in stages.values())


def test_a_season_is_told_of_by_the_command(finished, capsys):
    run = finished[0].parent / "RUN"
    told = describe_path(run)
    assert (told["what"], told["state"], told["lakes"]) == ("season", "finished", sum(map(len, WATER.values())))
    assert [(one["date"], one["state"], one["lakes"]) for one in told["dates"]] == [
        (day, "finished", len(WATER[day])) for day in DATES
    ]
    info_command(run)
    said = capsys.readouterr().out
    for part in (f"3, {DATES[0]} to {DATES[-1]}", "tracks", "sink_depth"):
        assert part in said
    one = describe_path(run / "dates" / DATES[0])
    assert [layer["name"] for layer in one["layers"]] == sorted(LAYERS)


# -- running again


def test_nothing_is_done_twice(season):
    run = season.parent / "RUN"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    done = map_season(read(season))
    assert days(done, kept=True) == list(DATES)
    assert done.catalogue["is_kept"]
    changed = {str(path.relative_to(run)) for path, at in before.items() if path.stat().st_mtime_ns != at}
    assert changed == {"manifest.json", "recipe.yaml", "quarantine.json", "report.html", ".lock"}


def test_other_rules_of_tracking_redo_the_catalogue_alone(season):
    run = season.parent / "RUN"
    dates = {path: path.stat().st_mtime_ns for path in (run / "dates").rglob("*") if path.is_file()}
    done = map_season(read(change(season, track={"rapid_days": 5})))
    assert not done.catalogue["is_kept"]
    assert {path: path.stat().st_mtime_ns for path in (run / "dates").rglob("*") if path.is_file()} == dates
    assert "drained rapidly" in pd.read_parquet(run / "catalogue.parquet").fate.tolist()


def test_another_least_area_writes_no_evidence_and_a_flipped_bit_in_it_is_mended(season):
    """The chunk that does not fit its checksum is computed again, and no other."""
    run = season.parent / "RUN"
    chunk, pixels, before = run / "dates" / DATES[1] / "evidence.zarr/color/c/0/0", layers(run), markers(run)
    stored = bytearray(chunk.read_bytes())
    stored[len(stored) // 2] ^= 16
    chunk.write_bytes(stored)
    done = map_season(read(change(season, rules={"min_area_m2": 130_000})))
    assert days(done, kept=False) == list(DATES)
    assert [one.chunks_written for one in done.dates] == [0, 1, 0]
    assert layers(run) == pixels
    changed = {key for key, stamp in markers(run).items() if before[key] != stamp}
    assert changed == {f"dates/{DATES[1]}/evidence.zarr/color/commits/0/0"}
    lakes = gpd.read_parquet(run / "lakes.parquet")
    assert len(lakes) == sum(lake != C for day in WATER.values() for lake in day)
    assert lakes.area_m2.min() > 130_000


def test_a_damaged_chunk_of_the_sinks_is_mended(season):
    run = season.parent / "RUN"
    chunk, pixels = run / "sinks.zarr/sink_depth/c/0/0", layers(run)
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    done = map_season(read(only(season, DATES[0], min_sink_share=0.5)))
    assert layers(run) == pixels
    assert done.catalogue["lakes"] == 1
    assert 0.9 < gpd.read_parquet(run / "lakes.parquet").sink_share.item() < 1


def test_a_chunk_that_another_date_had_mended_meanwhile_is_read_again(tmp_path):
    before, after, error = object(), object(), InputError("damaged", str(tmp_path / "sinks.zarr/sink_depth/c/0/0"))
    mapper = season_dates.DateMapper(SimpleNamespace(path=tmp_path), None, before, None, {error.item})
    assert not mapper._mend(error, before), "mended before it was tried, and damaged still"
    mapper.ground = after
    assert mapper._mend(error, before)
    assert not mapper._mend(InputError("damaged", "elsewhere"), before)


def test_fused_seasons_outline_their_sinks_once(season):
    """Sinks within sinks lie beside the depths, are taken from there, and made anew where damaged or others."""
    run = season.parent / "RUN"
    assert not (run / "sinks.parquet").exists(), "nothing is fused by them"
    fused = only(season, DATES[0], fuse="lakescale", evidence="index")
    done = map_season(read(fused))
    assert days(done, kept=False) == [DATES[0]], "fusion is part of what a date depends on"
    sinks = gpd.read_parquet(run / "sinks.parquet")
    dem = ls.open_dem(season.parent / "dem.tif")
    expected = ls.sink_regions(dem, min_depth_m=0.5, min_area_m2=2000, levels=None).compute()
    assert sinks.geometry.to_wkb().tolist() == expected.geometry.to_wkb().tolist()
    notes = json.loads((run / "dates" / DATES[0] / "manifest.json").read_text())["notes"]
    assert any(f"; sinks {len(sinks)}, color " in note for note in notes)
    written = (run / "sinks.parquet").stat().st_mtime_ns
    assert days(map_season(read(fused)), kept=True) == [DATES[0]]
    assert (run / "sinks.parquet").stat().st_mtime_ns == written
    (run / "sinks.parquet").write_bytes((run / "sinks.parquet").read_bytes()[:-60])
    map_season(read(fused))
    assert len(gpd.read_parquet(run / "sinks.parquet")) == len(sinks)
    map_season(read(change(fused, dem={"source": "dem.tif", "margin_m": 0, "min_depth_m": 1e3})))
    assert not len(gpd.read_parquet(run / "sinks.parquet"))


def test_a_scene_that_changed_redoes_its_date_alone(season):
    run, others = season.parent / "RUN", {DATES[0], DATES[2]}
    write_scene(season.parent / f"S2_{DATES[1]}.tif", rgb([A, B, C]))
    before = markers(run)
    done = map_season(read(season))
    assert days(done, kept=False) == [DATES[1]]
    assert {key for key in before if markers(run)[key] == before[key]} == {
        key for key in before if "sinks" in key or key.split("/")[1] in others
    }
    assert len(gpd.read_parquet(run / "lakes.parquet")) == 8
    assert "refilled" not in pd.read_parquet(run / "catalogue.parquet").fate.tolist()


def test_layers_that_an_option_leaves_as_they_are_are_taken_over(season):
    run = season.parent / "RUN"
    before = markers(run)
    area = write_areas(season.parent / "aoi.gpkg", (600_000, 7_428_900, 601_920, 7_430_000))
    done = map_season(read(only(season, DATES[0], aoi=str(area))))
    assert [one.chunks_written for one in done.dates] == [CHUNKS]
    seen, color = (f"dates/{DATES[0]}/evidence.zarr/{name}/commits/0/0" for name in LAYERS)
    after = markers(run)
    assert after[seen] == before[seen]
    assert after[color] != before[color]
    states = pd.read_parquet(run / "tracks.parquet")
    assert set(states.state) == {"water", "partly seen"}, "a lake that the area's edge cuts is not seen whole"


def test_another_grid_is_refused_and_what_to_do_is_told(season):
    asked = read(change(season, grid={"resolution_m": 20}))
    with pytest.raises(InputError, match=r"another grid: 192 x 192 pixels of 10 m.*not 96 x 96.*--overwrite"):
        map_season(asked)
    with pytest.raises(InputError, match="another grid"):
        plan_season(asked)
    assert manifest(season)["state"] == "finished"


def test_a_date_whose_manifest_is_lost_keeps_its_evidence(season):
    run = season.parent / "RUN"
    before = markers(run)
    (run / "dates" / DATES[2] / "manifest.json").unlink()
    done = map_season(read(season))
    assert days(done, kept=False) == [DATES[2]]
    assert markers(run) == before


def test_a_damaged_table_of_a_date_is_told(season):
    table = season.parent / "RUN/dates" / DATES[0] / "lakes.parquet"
    table.write_bytes(table.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"table of a date is damaged.*maps this date anew"):
        map_season(read(change(season, track={"rapid_days": 5})))


def test_a_damaged_list_of_what_is_left_out_is_told(season):
    file = season.parent / "RUN" / "quarantine.json"
    file.write_text("[{")
    with pytest.raises(InputError, match=r"left out is damaged .*quarantine\.json.*Run the season again"):
        describe_path(file.parent)


def test_overwriting_begins_anew(season):
    asked = read(only(season, DATES[0], grid={"resolution_m": 20}))
    done = map_season(asked, overwrite=True)
    assert [one.name for one in (season.parent / "RUN/dates").iterdir()] == [DATES[0]]
    assert done.catalogue["lakes"] == 3


def test_a_full_disk_ends_the_run_and_the_next_goes_on(plain, monkeypatch):
    asked = read(only(plain, DATES[0]))
    with monkeypatch.context() as patch:
        patch.setattr(season_dates, "map_lakes", fail_with(RunError("cannot write: no space left", "x", "make room")))
        with pytest.raises(RunError, match="no space left"):
            map_season(asked)
    assert manifest(plain)["state"] == "failed"
    assert quarantine_or_none(plain) == []
    with sole_run(plain.parent / "RUN"):
        pass


def quarantine_or_none(path):
    return quarantine(path) if (path.parent / "RUN/quarantine.json").exists() else []


def fail_with(error, *, times=99):
    left = [times]

    def fail(*arguments, **options):
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return map_lakes(*arguments, **options)

    return fail


# -- the report


def test_the_season_has_a_report_and_its_dates_have_none_unless_asked(season):
    run = season.parent / "RUN"
    assert [path.parent for path in run.rglob("report.html")] == [run]
    write_report(run / "dates" / DATES[0])
    assert DATES[0] in (run / "dates" / DATES[0] / "report.html").read_text()
    map_season(read(change(season, report=False)))
    assert not (run / "report.html").exists()
    told = CliRunner().invoke(app, [str(change(season, report=True))])
    assert ", report.html" in told.output
    told = CliRunner().invoke(app, [str(season), "--no-report"])
    assert told.exit_code == 0, told.output
    assert "report.html" not in told.output


def test_a_season_that_ends_half_way_has_no_report(season, monkeypatch):
    run = season.parent / "RUN"
    monkeypatch.setattr(season_dates, "map_lakes", fail_with(RunError("cannot write: no space left", "x", "make room")))
    with pytest.raises(RunError, match="no space left"):
        map_season(read(change(season, rules={"min_area_m2": 130_000})))
    assert not (run / "report.html").exists()
    with pytest.raises(InputError, match=r"state is failed: cannot write.*[lL]akescale season"):
        write_report(run)


# -- scenes that are left out


def test_a_scene_that_misses_the_grid_is_left_out_with_both_extents(plain):
    far = write_scene(plain.parent / "S2_2019-07-02.tif", rgb([A]), origin=(700_000, 7_430_000))
    near = plain.parent / f"S2_{DATES[0]}.tif"
    path = only(plain, [near, far])
    told = CliRunner().invoke(app, [str(path)])
    assert told.exit_code == 3, told.output
    assert "2019-07-02" in told.output
    (one,) = quarantine(path)
    assert (one["date"], one["scene"], one["may_pass"]) == ("2019-07-02", far.name, False)
    assert "it covers 700000, 7.42808e+06" in one["reason"]
    assert "the grid 600000, 7.42808e+06" in one["reason"]
    assert manifest(path)["state"] == "partial"
    assert len(gpd.read_parquet(path.parent / "RUN/lakes.parquet")) == len(WATER[DATES[0]])


def test_a_damaged_scene_is_left_out_and_the_other_of_its_date_is_mapped(plain, monkeypatch):
    good, bad = (plain.parent / f"S2_{name}_{DATES[0]}.tif" for name in ("b", "a"))
    write_scene(good, rgb([A]))
    write_scene(bad, rgb([B, C]))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-400])
    path = only(plain, [good, bad])
    done = map_season(read(path))
    (one,) = done.left_out
    assert (one.scene, one.may_pass) == (bad.name, False)
    assert "cannot be read" in one.reason
    assert done.catalogue["lakes"] == 1
    with monkeypatch.context() as patch:
        patch.setattr(season_dates, "map_lakes", fail_with(AssertionError("a bad scene is tried again")))
        again = map_season(read(path))
    assert days(again, kept=True) == [DATES[0]]
    assert again.left_out == done.left_out
    bad.write_bytes(whole)
    mended = map_season(read(path))
    assert mended.left_out == ()
    assert mended.catalogue["lakes"] == 2, "of each pixel the first scene that saw it counts"


def dead_worker():
    error = RunError("4 worker(s) died while running color-mask", "color-mask", "give more memory")
    error.__cause__ = KilledWorker("color-mask", None, 3)
    return error


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), dead_worker()], ids=["disk", "worker"])
def test_a_fault_that_may_pass_is_tried_again(plain, monkeypatch, error):
    path = only(plain, DATES[0])
    monkeypatch.setattr(season_dates, "_PAUSE_S", 0)
    monkeypatch.setattr(season_dates, "map_lakes", fail_with(error, times=2))
    with pytest.raises(InputError, match="no date could be mapped"):
        map_season(read(path))
    (one,) = quarantine(path)
    assert one["may_pass"]
    done = map_season(read(path))
    assert done.left_out == ()
    assert days(done, kept=False) == [DATES[0]]


# -- which files are which scene


def test_dates_come_in_any_order(plain, caplog):
    scenes = [plain.parent / f"S2_{day}.tif" for day in reversed(DATES)]
    with caplog.at_level(logging.INFO, logger="lakescale"):
        assert list(list_scenes(read(only(plain, scenes)))) == list(DATES)
    assert f"dates are put in order: {', '.join(DATES)}" in caplog.text


def test_bands_in_files_of_their_own_are_one_scene_and_tiles_are_others(tmp_path):
    names = [f"T22W{tile}_20190708T145921_{band}.tif" for tile in "EF" for band in ("B02", "B04", "B11_20m")]
    for name in [*names, "S2_TCI_20190708.tif", "odd.tif"]:
        (tmp_path / name).touch()
    recipe = {"scenes": str(tmp_path / "*.tif"), "out": "RUN", "dates": {"odd.tif": "2019-08-01"}}
    found = list_scenes(read(write_recipe(tmp_path, recipe)))
    assert [len(scene.files) for scene in found["2019-07-08"]] == [1, 3, 3]
    assert found["2019-08-01"][0].name == "odd.tif"


def test_a_mosaic_of_several_days_is_told_by_its_name_or_the_recipe(season, tmp_path):
    names = [
        "Greenland26X_22W_Sentinel2_2019-06-03_05.tif",
        "S2_2019-06-19_0.tif",
        "b_2019-07-01_31.tif",
        "c_2019-07-08_02.tif",
    ]
    (tmp_path / "spans").mkdir()
    for name in names:
        (tmp_path / "spans" / name).touch()
    asked = {"scenes": "spans/*.tif", "out": "SPANS", "dates": {"b_2019-07-01_31.tif": "2019-07-01/2019-07-03"}}
    listed = list_scenes(read(write_recipe(tmp_path / "spans", asked)))
    assert {(day, scene.last_day) for day, (scene,) in listed.items()} == {
        ("2019-06-03", "2019-06-05"), ("2019-06-19", "2019-06-19"),
        ("2019-07-01", "2019-07-03"), ("2019-07-08", "2019-07-08"),
    }  # fmt: skip
    before = layers(season.parent / "RUN")
    done = map_season(read(change(season, dates={f"S2_{DATES[2]}.tif": f"{DATES[2]}/2019-07-11"})))
    assert days(done, kept=True) == list(DATES)
    assert layers(season.parent / "RUN") == before
    lakes = pd.read_csv(season.parent / "RUN/catalogue/lakes.csv")
    late = lakes[lakes.time == DATES[2]]
    assert set(late.time_end) == {"2019-07-11"}
    assert (late.quality_flag & 32 == 32).all()
    with pytest.raises(InputError, match="a date ends before it begins"):
        read(change(season, dates={"S2.tif": "2019-07-09/2019-07-01"}))


def test_a_stac_item_is_one_scene_and_answers_for_its_files(tmp_path):
    assets = {name: {"href": f"./{name}.tif"} for name in ("red", "blue")}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "properties": {"datetime": "2019-07-08T15:00:00Z"}}
    (tmp_path / "a.json").write_text(json.dumps(item | {"assets": assets, "links": []}))
    asked = read(write_recipe(tmp_path, {"scenes": [str(tmp_path / "a.json")], "out": "RUN"}))
    ((scene,),) = list_scenes(asked).values()
    assert (scene.day, scene.name) == ("2019-07-08", "a.json")
    assert scene.is_meant_by(str(tmp_path / "red.tif"))
    assert not scene.is_meant_by("dem.tif")


def test_a_mosaic_takes_the_first_that_saw_a_pixel(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 255, (3, 3, 40, 50), dtype=np.uint8)
    pixels[:, :, rng.random((40, 50)) < 0.1] = 0
    for one in pixels:
        one[:, rng.random((40, 50)) < 0.4] = 0
    scenes = [
        ls.open_scene(write_scene(tmp_path / f"S2_{k}_20190708.tif", one), chunks=17) for k, one in enumerate(pixels)
    ]
    joined = mosaic(scenes)
    expected, seen = np.zeros_like(pixels[0]), np.zeros((40, 50), bool)
    for i, j in np.ndindex(40, 50):
        for one in pixels:
            if one[:, i, j].any():
                expected[:, i, j], seen[i, j] = one[:, i, j], True
                break
    np.testing.assert_array_equal(ls.seen_mask(joined), seen)
    np.testing.assert_array_equal(np.where(seen, joined.values, 0), expected)
    assert 0 < seen.mean() < 1
    with pytest.raises(InputError, match="type float32 beside one of uint8"):
        mosaic([scenes[0], scenes[1].astype(np.float32)])


# -- input that cannot be used


def test_the_same_scene_twice_is_refused(plain):
    scene = plain.parent / f"S2_{DATES[0]}.tif"
    with pytest.raises(InputError, match=f"same scene of {DATES[0]} is given twice"):
        map_season(read(only(plain, [scene, scene])))
    copy = plain.parent / "copy" / scene.name
    copy.parent.mkdir()
    shutil.copy(scene, copy)
    with pytest.raises(InputError, match="is given twice"):
        map_season(read(only(plain, [scene, copy])))
    assert not (plain.parent / "RUN").exists()


def test_a_scene_without_a_date_is_refused(tmp_path):
    scene = write_scene(tmp_path / "undated.tif", rgb([A]))
    with pytest.raises(InputError, match=r"no date can be read.*dates: \{\"undated.tif\""):
        map_season(read(write_recipe(tmp_path, {"scenes": str(scene), "out": str(tmp_path / "RUN")})))


@pytest.mark.parametrize(
    ("entries", "line", "told"),
    [
        ("dem:\n  source: dem.tif\n  margin: 3\n", 5, "no such entry"),
        ("scenez: x\n", 3, "no such entry"),
        ("min_sink_share: much\n", 3, "number"),
        ("models:\n- a.safetensors\n- {source: b, stride: 0}\n", 5, "greater than or equal to 1"),
        ("retries: -1\n", 3, "greater"),
        ("write_evidence: false\n", 0, "keeps its evidence"),
    ],
)
def test_a_wrong_entry_is_told_with_its_line(tmp_path, entries, line, told):
    path = tmp_path / "season.yaml"
    path.write_text(f"scenes: a.tif\nout: RUN\n{entries}")
    with pytest.raises(InputError, match=told) as refused:
        read(path)
    assert (f"line {line}" in refused.value.item) == bool(line), refused.value


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"track": {"rapid": 4}}, "no rule of tracking 'rapid'"),
        ({"track": {"preset": "mars"}}, "no preset 'mars'"),
        ({"rules": {"area": 4}}, "no polygon rule"),
        ({"dates": {"a.tif": "yesterday"}}, "not a date"),
    ],
)
def test_wrong_rules_are_told_before_anything_runs(tmp_path, entries, told):
    with pytest.raises(InputError, match=told):
        read(write_recipe(tmp_path, {"scenes": "a.tif", "out": "RUN"} | entries))


def test_the_line_of_an_entry_that_is_not_there_is_that_of_its_section():
    assert find_line("out: RUN\ndem:\n  engine: tiled\n", ("dem", "source")) == 2


def test_rules_of_tracking_follow_the_polygons(tmp_path):
    entries = {"rules": {"min_area_m2": 900}, "track": {"preset": "antarctica", "frost_from": [2, 1]}}
    rules = read(write_recipe(tmp_path, {"scenes": "a.tif", "out": "RUN"} | entries)).track_rules
    assert (rules.min_area_m2, rules.season_from, rules.frost_from) == (900, (7, 1), (2, 1))


def test_a_recipe_that_a_run_wrote_is_read_back(finished):
    path = finished[0]
    assert read(path.parent / "RUN/recipe.yaml") == read(path)


def test_a_folder_of_something_else_is_refused(plain):
    (plain.parent / "RUN").mkdir()
    (plain.parent / "RUN/thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="files that are no season"):
        map_season(read(plain), overwrite=True)
    assert [one.name for one in (plain.parent / "RUN").iterdir()] == ["thesis.txt"]


HOLD = """
import sys, time
from pathlib import Path
from pipelines.season_catalogue import find_cloud_rule
from pipelines.season_folder import sole_run
with sole_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""


def test_two_runs_in_one_folder_are_refused_and_a_dead_one_is_not(plain):
    run = plain.parent / "RUN"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        who = rf"host {socket.gethostname()}, pid {holder.pid}, since 20\d\d-"
        with pytest.raises(RunError, match=rf"another run works in this folder \({who}"):
            map_season(read(plain))
    finally:
        holder.kill()
        holder.communicate()
    assert str(holder.pid) in (run / ".lock").read_text()
    with sole_run(run):
        assert json.loads((run / ".lock").read_text())["pid"] == os.getpid()
    assert (run / ".lock").read_text() == ""


def test_a_run_on_another_host_is_not_taken_for_dead(tmp_path):
    told = {"host": "elsewhere", "pid": 7, "start": "2026-11-23T08:00:00+00:00"}
    (tmp_path / ".lock").write_text(json.dumps(told))
    with pytest.raises(RunError, match=r"host elsewhere, pid 7, since 2026-11-23.*delete"), sole_run(tmp_path):
        pass
    assert json.loads((tmp_path / ".lock").read_text()) == told


# -- the command


def test_a_dry_run_makes_nothing(plain):
    told = CliRunner().invoke(app, [str(plain), "--dry-run"])
    assert told.exit_code == 0, told.output
    lines = dict(line.split(": ", 1) for line in told.output.splitlines())
    assert lines["dates"] == ", ".join(DATES)
    assert lines["chunks a date"] == str(CHUNKS)
    assert int(lines["tasks"]) > 3 * CHUNKS * len(LAYERS)
    assert int(lines["bytes written, before compression"]) == SIZE * SIZE * len(LAYERS) * len(DATES)
    assert float(lines["seconds, about"]) > 0
    assert not (plain.parent / "RUN").exists()


def test_the_command_tells_what_it_did(season):
    told = CliRunner().invoke(app, [str(season), "--cluster", "threads"])
    assert told.exit_code == 0, told.output
    assert "3 dates, 0 of them mapped by this run: none" in told.output
    assert "7 lakes of all dates, 3 tracks" in told.output
