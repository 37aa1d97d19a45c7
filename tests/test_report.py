"""The report of a run: what is read, how outlines, charts and tables come about, and what a fault may not do."""

from __future__ import annotations

import json
import re
import shutil

import geopandas as gpd
import numpy as np
import pytest
import shapely
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from map_scenes import lakescale, recipe, rgb_with_lakes, write_scene
from PIL import Image
from report_folders import write_large_run

from lakescale.schema import InputError
from pipelines import report as report_module
from pipelines.map_lakes import map_lakes
from pipelines.report import write_report
from pipelines.report_charts import BOTTOM, LEFT, RIGHT, TOP, count_areas, draw_course, draw_stack
from pipelines.report_columns import shorten, tabulate
from pipelines.report_pictures import make_pictures
from pipelines.report_read import Frame, read_told
from pipelines.report_run import table_stages
from pipelines.report_shapes import STEPS, decode, draw, encode
from pipelines.report_tables import table_inputs

PIXEL = 10.0
FRAME = Frame(None, 1000.0, 0.0, 3000.0, 2000.0, (200, 200))
BAD_NAME = "S2_20190723_<img src=x onerror=boom()>.tif"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a scene whose name is no good."""
    folder = tmp_path_factory.mktemp("report")
    scene = write_scene(folder / BAD_NAME, rgb_with_lakes())
    result = map_lakes(recipe(scene, folder / "RUN"))
    return folder / "RUN", result


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished[0], tmp_path / "RUN")


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def read(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def change(folder, **facts):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | facts))


# -- a run has its report


def test_a_run_ends_with_a_page_that_holds_its_lakes_and_what_was_dropped(finished):
    folder, result = finished
    data = data_of(read(folder))
    area = next(column for column in data["lakes"]["columns"] if column["name"] == "area_m2")
    np.testing.assert_allclose(area["values"], result.lakes.area_m2, rtol=1e-4)
    reason = next(column for column in data["dropped"]["columns"] if column["name"] == "reason")
    assert [reason["words"][k] for k in reason["values"]] == ["stream"]
    assert data["dates"][0]["day"] == "2019-07-23"
    assert data["dates"][0]["seen_share"] == pytest.approx(190 / 200)
    assert data["dates"][0]["image"]["bounds"] == [0, 0, 200, 200]
    assert data["tracks"] is None


def test_outlines_of_the_page_lie_where_the_lakes_are(finished):
    folder, result = finished
    data = data_of(read(folder))
    frame = data["frame"]
    for outline, lake in zip(data["lakes"]["outlines"], result.lakes.geometry, strict=True):
        (shell, *holes), *others = decode(outline)
        assert not holes
        assert not others
        xy = shell / STEPS * frame["pixel"] * [1, -1] + [frame["left"], frame["top"]]
        assert shapely.Polygon(xy).symmetric_difference(lake).area < 0.02 * lake.area


def test_names_from_files_are_escaped(finished):
    page = read(finished[0])
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=boom()&gt;" in page


def test_the_page_names_no_address_but_those_of_its_own_parts(finished):
    page = read(finished[0])
    markup = re.sub(r"<(script|style)[ >].*?</\1>", "", page, flags=re.DOTALL)
    assert len(re.findall(r'(?:src|href)="', markup)) > 5
    assert not re.findall(r'(?:src|href)="(?!#|data:)', markup)
    assert "default-src &#39;none&#39;" in page
    assert "sourceMappingURL" not in page


def test_the_page_tells_where_all_comes_from(finished):
    folder, _ = finished
    page, manifest = read(folder), json.loads((folder / "manifest.json").read_text())
    for told in (
        manifest["fingerprint"],
        manifest["versions"]["dask"],
        "Copernicus Sentinel data [2019]",
        "BSD 2-Clause",
    ):
        assert told in page
    for stage in manifest["stages"]:
        assert f'<th scope="row">{stage}</th>' in page
    assert "simplified by up to 7.5 m" in page
    assert "fill_holes" not in yaml.safe_load((folder / "recipe.yaml").read_text())["rules"]
    assert "polygon_rules" not in page


def test_report_is_off_on_demand_and_the_command_makes_it_later(small_scene, tmp_path):
    out = tmp_path / "RUN"
    quick = ("--cluster", "threads", "--fuse", "none")
    assert lakescale("map", "--scene", small_scene, "--out", out, *quick, "--no-report").returncode == 0
    assert not (out / "report.html").exists()
    done = lakescale("report", out)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"written: {out}/report.html, 0\.\d MB\n", done.stdout)
    again = lakescale("report", out, "--out", tmp_path / "page.html")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "page.html").read_text() == read(out)


def test_a_report_is_no_answer_so_that_switching_it_off_is_no_other_run(small_scene, tmp_path):
    out = tmp_path / "RUN"
    map_lakes(recipe(small_scene, out))
    map_lakes(recipe(small_scene, out, report=False))
    assert not (out / "report.html").exists(), "the page of an earlier run is none of this one's"


def test_a_report_that_fails_costs_no_lakes_and_is_told(small_scene, tmp_path, monkeypatch):
    def fail(*arguments):
        raise ValueError("no ink")

    monkeypatch.setattr(report_module, "render_page", fail)
    result = map_lakes(recipe(small_scene, tmp_path / "RUN"))
    assert len(result.lakes) == 2
    assert any("there is no report: no ink" in note and "lakescale report" in note for note in result.notes)
    assert json.loads((tmp_path / "RUN" / "manifest.json").read_text())["state"] == "finished"
    assert not list((tmp_path / "RUN").glob("report*"))


# -- folders that are not as they should be


def test_a_run_without_an_image_is_shown_by_its_evidence(run):
    (run / "overview.webp").unlink()
    change(run, seen_share=None, date=None, overview_step=None)
    write_report(run)
    (date,) = data_of(read(run))["dates"]
    assert date["what"] == "the colors (the run kept no image)"
    assert date["seen_share"] == pytest.approx(190 / 200)
    assert date["day"] == "2019-07-23"
    shutil.rmtree(run / "evidence.zarr")
    write_report(run)
    (date,) = data_of(read(run))["dates"]
    assert (date["image"], date["not_seen"], date["seen_share"]) == (None, None, None)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"state": "running"}, "not finished, its state is running"),
        ({"state": "failed", "error": "no room"}, "state is failed: no room"),
        ({"grid": {}}, "cannot be read: KeyError"),
        ({"versions": None}, "holds no run"),
    ],
)
def test_what_is_no_finished_run_is_refused(run, facts, message):
    change(run, **facts)
    with pytest.raises(InputError, match=message):
        write_report(run)


def test_a_damaged_or_missing_file_is_told(run, tmp_path):
    (run / "lakes.parquet").write_bytes((run / "lakes.parquet").read_bytes()[:-30])
    with pytest.raises(InputError, match="the run cannot be read"):
        write_report(run)
    done = lakescale("report", tmp_path / "nowhere")
    assert done.returncode == 2
    assert "holds no run" in done.stderr


def test_a_run_without_lakes_has_a_report(tmp_path):
    scene = write_scene(tmp_path / "ice_20190723.tif", np.full((3, 64, 64), 220, np.uint8))
    result = map_lakes(recipe(scene, tmp_path / "RUN"))
    assert not any("report" in note for note in result.notes)
    assert data_of(read(tmp_path / "RUN"))["lakes"]["outlines"] == []


def test_10_000_lakes_make_less_than_20_mb(tmp_path):
    folder = write_large_run(tmp_path / "LARGE")
    assert write_report(folder).stat().st_size < 20e6
    page = read(folder)
    data = data_of(page)
    assert len(data["lakes"]["outlines"]) == data["lakes"]["count"] == 10_000
    told = f"Of 40,000 dropped candidates the {len(data['dropped']['outlines']):,} largest are drawn"
    assert (told in page) == (len(data["dropped"]["outlines"]) < 40_000)


# -- outlines

cells = st.sets(st.tuples(st.integers(0, 19), st.integers(0, 19)), min_size=1, max_size=80)


@settings(max_examples=40)
@given(cells=cells, tolerance=st.sampled_from([0.75, 1.5, 3.0]))
def test_outlines_stay_within_the_tolerance(cells, tolerance):
    boxes = [shapely.box(1000 + 10 * x, 500 + 10 * y, 1010 + 10 * x, 510 + 10 * y) for x, y in cells]
    shape = shapely.union_all(boxes)
    (outline,) = encode(np.array([shape], object), FRAME, tolerance_px=tolerance)
    assert len(outline) == len(shapely.get_parts(shape))
    rings = [ring * [1, -1] * PIXEL / STEPS + [FRAME.left, FRAME.top] for part in decode(outline) for ring in part]
    assert all(shape.boundary.distance(shapely.Point(xy)) <= PIXEL / STEPS for ring in rings for xy in ring)
    drawn = shapely.Polygon()
    for ring in rings:  # a hole takes away what its shell gave
        drawn = drawn ^ shapely.make_valid(shapely.Polygon(ring))
    far = (drawn ^ shape) - shape.boundary.buffer(tolerance * PIXEL + PIXEL / STEPS)
    assert far.area < 1e-6


def test_what_does_not_fit_is_simplified_first_and_the_smallest_goes_then():
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    sizes = np.array([50.0, 400.0, 100.0, 200.0])
    shapes = np.array(
        [
            shapely.Polygon(np.c_[np.cos(angles), np.sin(angles)] * (size + rng.uniform(0, 8, 200))[:, None] + 1500)
            for size in sizes
        ],
        object,
    )
    full = draw(shapes, FRAME, most_bytes=10**6)
    assert (full.rows.tolist(), full.tolerance_px) == ([0, 1, 2, 3], 0.75)
    size = len(json.dumps(full.outlines, separators=(",", ":")))
    simpler = draw(shapes, FRAME, most_bytes=size // 2)
    assert simpler.tolerance_px > 0.75
    assert simpler.rows.tolist() == [0, 1, 2, 3]
    fewer = draw(shapes, FRAME, most_bytes=110)
    assert 0 < len(fewer.rows) < 4
    assert 1 in fewer.rows
    assert len(json.dumps(fewer.outlines, separators=(",", ":"))) <= 111


# -- pictures


def test_an_image_is_made_smaller_until_it_fits_and_keeps_its_place(tmp_path):
    folder = write_large_run(tmp_path / "LARGE", lakes=10, dropped=10)
    told = read_told(folder)
    with Image.open(folder / "overview.webp") as image:
        assert image.size == (2048, 2048)
    large = make_pictures(told.dates[0], told.frame, most_bytes=10**8)
    small = make_pictures(told.dates[0], told.frame, most_bytes=60_000)
    assert len(small.image.uri) < 4 / 3 * 60_000 + 100 < len(large.image.uri)
    assert small.image.bounds == large.image.bounds
    half_px = (4 - 1) / 2 * 10
    np.testing.assert_allclose(small.image.bounds, np.array([
        told.frame.left - half_px, told.frame.bottom + half_px, told.frame.right - half_px, told.frame.top + half_px
    ]))  # fmt: skip
    assert large.seen_share == pytest.approx(1 - 400 * 900 / 2048**2)


# -- charts, columns, tables


def test_a_course_has_gaps_where_nothing_is_known_and_its_words_say_so():
    days = ["2019-06-01", "2019-06-11", "2019-07-01", "2019-07-11"]
    chart = draw_course(
        "area", "Area", "km²", days, [1.0, None, 4.0, 2.0], low=[0.5, None, 3, -1], high=[1.5, None, 5, 3]
    )
    assert [point.date for point in chart.points] == [0, 2, 3]
    assert [len(line) for line in chart.lines] == [2]
    xs = [point.x for point in chart.points]
    assert LEFT < xs[0] < xs[1] < xs[2] < RIGHT
    assert (xs[1] - xs[0]) / (xs[2] - xs[1]) == pytest.approx(3)
    ys = np.array([[point.y, point.low, point.high] for point in chart.points])
    assert ((ys >= TOP) & (ys <= BOTTOM)).all()
    assert (BOTTOM - ys[1, 0]) / (BOTTOM - ys[0, 0]) == pytest.approx(4, rel=1e-3)
    assert ys[2, 1] == BOTTOM, "an area ends at zero"
    assert "from 1 km² on 2019-06-01 to 4 km² on 2019-07-01; not known on 1 of 4 dates" in chart.alt
    assert next(label for _, label in chart.y_ticks) == "0"
    assert any("Jul" in label for _, label in chart.x_ticks)


def test_a_stack_counts_from_the_ground_up():
    chart = draw_stack("s", "States", "lakes", ["2019-06-01", "2019-06-09"], {"water": [3, 0], "empty": [1, 4]},
                       {"water": "w", "empty": "e"})  # fmt: skip
    bars = {(bar.kind, bar.date): bar for bar in chart.bars}
    assert set(bars) == {("w", 0), ("e", 0), ("e", 1)}
    assert bars["e", 0].low == bars["w", 0].y
    assert bars["w", 0].low == bars["e", 1].low == BOTTOM
    assert bars["e", 1].y == bars["e", 0].y
    assert [name for _, name in chart.legend] == ["water", "empty"]


@given(st.lists(st.tuples(st.floats(100, 1e9), st.integers(0, 2)), max_size=60))
def test_areas_are_counted_as_numpy_counts_them(lakes):
    areas, dates = np.array([area for area, _ in lakes]), np.array([date for _, date in lakes])
    found = count_areas(areas, dates, 3)
    for date in range(3):
        expected, _ = np.histogram(areas[dates == date] / 1e6, found.edges_km2)
        # an area within a rounding error of an edge may fall to either side of it
        assert (
            abs(np.cumsum(expected) - np.cumsum(found.counts[date])).max()
            <= np.isclose(areas[:, None] / 1e6, found.edges_km2, rtol=1e-9).sum()
            if len(areas)
            else not found.counts.any()
        )
    assert found.counts.sum() == len(lakes)
    np.testing.assert_allclose(found.edges_km2[1:] / found.edges_km2[:-1], 10**0.25)


def test_columns_say_what_they_are_and_null_is_no_zero():
    frame = gpd.GeoDataFrame(
        {"lake_id": [1, 2], "area_m2": [5000.04, np.nan], "new_share": [0.5, 1], "reason": ["kept", None]},
        geometry=[shapely.box(0, 0, 1, 1)] * 2,
    )
    told = {column["name"]: column for column in tabulate(frame)}
    assert list(told) == ["lake_id", "area_m2", "reason", "new_share"]
    assert told["area_m2"]["values"] == [5000, None]
    assert (told["reason"]["words"], told["reason"]["values"]) == (["kept"], [0, None])
    assert [told[name]["kind"] for name in told] == ["number", "area", "text", "share"]
    assert told["new_share"]["label"] == "new share"
    assert shorten([0.123456, 1234567.0, np.inf]) == [0.12346, 1234567, None]


def test_stages_are_told_as_the_manifest_tells_them(run):
    stages = {
        "color": {"seconds": 2.5, "state": "finished", "parts": {}, "tasks": 1200, "task_seconds": 0.0, "chunks": 4,
                  "bytes_read": 3_210_000, "peak_memory_mb": 1512.0, "pixels": 5_000_000},
        "lakes": {"seconds": 1.0, "bytes_read": 0},
    }  # fmt: skip
    change(run, stages=stages)
    table = table_stages(read_told(run))
    assert table.head == (
        "stage", "state", "time, s", "tasks", "read", "most memory of a worker", "chunks", "million pixels a second",
    )  # fmt: skip
    assert table.rows == [
        ("color", "finished", "2.5", "1,200", "3.21 MB", "1.51 GB", "4", "2"),
        ("lakes", "", "1", "", "0 B", "", "", ""),
    ]
    assert table.words == 2
    assert '<td class="number">3.21 MB</td>' in write_report(run).read_text()


def test_a_manifest_with_seconds_alone_tells_them(run):
    change(run, seconds={"color": 2.5, "lakes": 1.0}, stages=None)
    table = table_stages(read_told(run))
    assert (table.head, table.rows) == (("stage", "time, s"), [("color", "2.5"), ("lakes", "1")])


def test_inputs_are_listed_as_the_manifest_tells_them(run):
    assert "Other inputs" not in read(run), "a scene is told beside its fingerprint"
    told = {
        "role": "dem",
        "source": "<b>.tif",
        "files": 2,
        "bytes": 12345,
        "changed": "2020-01-01",
        "fingerprint": "abc",
    }
    change(
        run, inputs=[told, {"role": "ice", "source": "https://ice"}], machine={"cpus": 7, "memory_limit_bytes": 2**31}
    )
    table = table_inputs(read_told(run))
    assert table.rows == [
        ("dem", "<b>.tif", "2020-01-01", "abc", "2", "12.3 kB"),
        ("ice", "https://ice", "", "", "", ""),
    ]
    page = write_report(run).read_text()
    assert "<td>&lt;b&gt;.tif</td>" in page
    assert "<dt>cpus</dt><dd>7</dd>" in page
    assert "<dd>2.15 GB</dd>" in page
