"""Logs as JSON, bars on a terminal, and Dask's report, as the commands write them."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from contextvars import copy_context
from types import SimpleNamespace

import pytest
from map_scenes import lakescale, recipe, rgb_with_lakes, write_scene
from test_cluster import Terminal
from worker_tasks import warn_twice

from lakescale import bars, logs, stages
from lakescale.cluster import open_cluster
from lakescale.stages import Journal
from pipelines.map_lakes import map_lakes


@pytest.fixture
def bare_logging(monkeypatch):
    """Leave the loggers as they were."""
    names = ("", "distributed", "py.warnings")
    before = {name: (logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in names}
    yield
    logging.captureWarnings(capture=False)
    for name, (handlers, level) in before.items():
        logging.getLogger(name).handlers[:] = handlers
        logging.getLogger(name).setLevel(level)
    logging.getLogger("distributed").propagate = False


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_command_logs_one_line_an_event(tmp_path):
    scene = write_scene(tmp_path / "S2_small_20190723.tif", rgb_with_lakes())
    options = ("--chunks", 128, "--workers", 1, "--memory-limit", "2GiB", "--no-report", "--log-format", "json")
    options += "--evidence", "color"
    asked = ("map", "--scene", scene, "--out", tmp_path / "RUN", *options)
    done = lakescale(*asked, "--performance-report")
    assert done.returncode == 0, done.stderr
    told = events(done.stderr)
    assert all({"time", "level", "event", "message", "logger"} <= set(one) for one in told)
    finished = {one["stage"]: one for one in told if one["event"] == "stage finished"}
    assert list(finished) == ["open", "seen", "color", "candidates", "lakes", "write"]
    manifest = json.loads((tmp_path / "RUN" / "manifest.json").read_text())
    for name, stage in manifest["stages"].items():
        assert finished[name].items() >= stage.items()
    assert (told[-1]["event"], told[-1]["exit_code"]) == ("ended", 0)
    assert "2 lakes" in done.stdout
    page = (tmp_path / "RUN" / "dask-report.html").read_text()
    assert "write-seen" in page
    assert "cdn.bokeh.org" not in page

    refused = lakescale(*asked, "--ice", tmp_path / "gone.gpkg")
    told = events(refused.stderr)
    (error,) = [one for one in told if one["event"] == "error"]
    assert (refused.returncode, told[-1]["exit_code"]) == (2, 2)
    assert "gone.gpkg" in error["item"]
    assert error["mend"]
    assert lakescale("map", "--log-format", "xml").returncode == 2


def test_records_warnings_and_tracebacks_are_lines_of_json(bare_logging, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    logging.getLogger().handlers.clear()
    logging.getLogger().setLevel(logging.INFO)
    logs.log_as_json(logging.INFO)
    assert logs.is_json()
    log = logging.getLogger("lakescale.x")
    with Journal().stage("seen"):
        log.warning("look at %s\nand below", "this")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    log.error("broken", exc_info=KeyError("k"))
    log.info('cannot read "https://me:hidden@host/a.tif?sig=hidden" now')
    told = events(said.getvalue())
    by_kind = {one["event"]: one for one in told}
    assert by_kind["stage finished"]["warnings"] == 1
    assert next(one for one in told if one["event"] == "warning")["stage"] == "seen"
    assert next(one for one in told if one["event"] == "warning")["message"] == "look at this\nand below"
    assert any("old" in one["message"] and one["event"] == "warning" for one in told)
    assert "KeyError" in by_kind["error"]["traceback"]
    assert by_kind["message"]["message"] == 'cannot read "https://host/a.tif" now'


def test_workers_log_as_json_where_the_command_does(bare_logging, monkeypatch, capfd):
    logging.getLogger().handlers.clear()
    logs.log_as_json(logging.WARNING)
    with open_cluster(workers=1, dashboard="none") as client:
        client.run(warn_twice)
    told = events(capfd.readouterr().err)
    assert {"memory is full"} < {one["message"] for one in told}
    assert any("an old way" in one["message"] for one in told)


def test_how_far_a_stage_is_is_told_now_and_then(bare_logging, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    logging.getLogger().handlers.clear()
    logging.getLogger().setLevel(logging.INFO)
    logs.log_as_json(logging.INFO)
    monkeypatch.setattr(stages, "TELL_S", 0.0)
    with Journal(progress=True).stage("dates") as stage:
        draw = stage.pace("dates")
        draw(1, 4)
        monkeypatch.setattr(stages, "TELL_S", 1000.0)
        draw(2, 4)
    told = [one for one in events(said.getvalue()) if one["event"] == "stage progress"]
    assert [(one["stage"], one["done"], one["total"]) for one in told] == [("dates", 1, 4)]


def test_stages_have_bars_with_speed_and_those_within_go_away(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("COLUMNS", "120")
    outer, inner = Journal(progress=True), Journal()
    with outer.stage("dates") as stage:
        draw = stage.pace("dates")
        draw(1, 3)
        with inner.stage("seen") as within:
            assert within.screen is stage.screen
            move = within.pace(pixels=4_000_000)
            move(1, 8)
            stage.screen._progress.refresh()
        draw(3, 3)
    text = shown.getvalue()
    for part in ("1/3 dates", "1/8 tasks", "Mpx/s"):
        assert part in text
    last = text.rsplit("\x1b[2K", 1)[-1]
    assert "3/3 dates" in last
    assert "seen" not in last


def test_stages_side_by_side_have_bars_of_their_own(monkeypatch):
    """As those of the dates of a season, whose places are the same."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Journal(progress=True).stage("dates") as stage:
        begun = []
        for one in (Journal().stage("seen"), Journal().stage("seen")):
            apart = copy_context()
            begun.append((apart, one, apart.run(one.__enter__).pace()))
        (first, seen, draw), (second, also_seen, move) = begun
        draw(1, 8)
        first.run(seen.__exit__, None, None, None)
        move(5, 8)
        assert [one.completed for one in stage.screen._progress.tasks] == [0, 5]
        second.run(also_seen.__exit__, None, None, None)


@pytest.mark.parametrize(
    ("seconds", "finished", "told"), [(3725.4, False, "1:02:05 left"), (None, False, ""), (0, True, "")]
)
def test_the_time_that_is_left_is_told(seconds, finished, told):
    assert bars._TimeLeft().render(SimpleNamespace(time_remaining=seconds, finished=finished)).plain == told


def test_nothing_is_drawn_without_a_terminal_or_where_it_is_not_asked_for(small_scene, tmp_path, capsys, monkeypatch):
    assert not bars.Bars.are_wanted()
    map_lakes(recipe(small_scene, tmp_path / "RUN", report=False), progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Journal().stage("seen") as stage:
        assert stage.pace() is None
