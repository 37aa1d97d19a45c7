"""The report in a browser: what a click, a key, a phone and the dark make of it."""

from __future__ import annotations

import json
import shutil
from contextlib import chdir

import pandas as pd
import pytest
from browser import chromium, opened
from map_scenes import write_scene
from report_folders import write_large_run
from season_scenes import DATES, SIZE, WATER, A, read, rgb, write_season

from pipelines.report import write_report
from pipelines.report_words import spell_bytes
from pipelines.season import map_season

STREAM = slice(168, 180), slice(5, 165)
MILLION = "\N{MULTIPLICATION SIGN} 10⁶ m³"
BAD_NAME = f"S2_{DATES[2]}_<img src=x onerror=alert(1)>.tif"


@pytest.fixture(scope="module")
def season(tmp_path_factory):
    """A season whose first date has a candidate that is no lake, and whose last has a scene with a bad name."""
    path = write_season(tmp_path_factory.mktemp("season"))
    write_scene(path.parent / f"S2_{DATES[0]}.tif", rgb([*WATER[DATES[0]], STREAM]))
    (path.parent / f"S2_{DATES[2]}.tif").rename(path.parent / BAD_NAME)
    with chdir(path.parent):
        result = map_season(read(path))
    assert result.notes == ()
    return path.parent / "RUN"


@pytest.fixture(scope="module")
def browser(season):  # runs come first: the browser's event loop takes the thread
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser, season):
    with opened(browser, season / "report.html") as page:
        yield page


def select(page, day):
    page.locator("#date").evaluate(
        f"slider => {{ slider.value = {DATES.index(day)}; slider.dispatchEvent(new Event('input')) }}"
    )
    assert page.locator("#date-told").inner_text().startswith(day)


def place_of(page, rows, cols):
    """Where the middle of some pixels is on the screen."""
    y, x = (rows.start + rows.stop) / 2, (cols.start + cols.stop) / 2
    page.locator("#map").scroll_into_view_if_needed()
    point = page.evaluate(
        f"(() => {{ const p = lakeMap.map.latLngToContainerPoint([{-y}, {x}]); return [p.x, p.y] }})()"
    )
    box = page.locator("#map").bounding_box()
    return box["x"] + point[0], box["y"] + point[1]


def plain(text):
    """With spaces where numbers and their units are held together."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


def popup(page):
    found = page.locator(".leaflet-popup")
    found.wait_for()
    return plain(found.inner_text())


def gone(page):
    page.locator(".leaflet-popup").wait_for(state="detached")


def until(page, expression, tries=200):
    """Wait for it in turns: the page's policy lets nobody put a script into it that waits."""
    for _ in range(tries):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"it does not come true: {expression}")


def focused(page, name):
    return page.evaluate(f"document.activeElement?.{name}")


def tab_to(page, selector, most=60):
    """Press Tab until an element has the focus; each stop on the way must be seen."""
    for _ in range(most):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            "(() => { const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth] })()"
        )
        assert outline[0] != "none", focused(page, "outerHTML")
        assert outline[1] != "0px", focused(page, "outerHTML")
        if page.evaluate(f"document.activeElement.matches('{selector}')"):
            return
    raise AssertionError(f"Tab does not reach {selector}")


# -- by mouse


def test_the_slider_shows_the_lakes_of_each_date(page, season):
    lakes = pd.read_parquet(season / "lakes.parquet", columns=["time", "area_m2"])
    for day in DATES:
        select(page, day)
        areas = lakes.area_m2[lakes.time == day]
        told = plain(page.locator("#date-told").inner_text())
        assert told == f"{day}: {len(areas)} lakes, {areas.sum() / 1e6:.3g} km², 94.8 % seen"
        assert page.locator("#list tbody tr").count() == len(areas)
        assert page.locator("#list caption").inner_text() == f"Lakes of {day}"
        assert page.locator("#chart-area .point.now title").text_content().startswith(day)
    page.locator("#earlier").click()
    assert page.locator("#date-told").inner_text().startswith(DATES[1])
    page.locator("#chart-area .point[data-date='0'] .target").click()
    assert page.locator("#date-told").inner_text().startswith(DATES[0])


def test_the_dates_play_until_they_are_stopped(page):
    select(page, DATES[2])
    button = page.locator("#play")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    until(page, f"document.getElementById('date-told').textContent.startsWith('{DATES[0]}')")  # round and round
    button.click()
    assert (button.get_attribute("aria-pressed"), button.inner_text()) == ("false", "Play")
    now = page.locator("#date-told").inner_text()
    page.wait_for_timeout(1500)
    assert page.locator("#date-told").inner_text() == now


def test_a_click_on_a_lake_tells_all_that_is_known_of_it(page, season):
    select(page, DATES[1])
    page.mouse.click(*place_of(page, *A))
    told = popup(page)
    lakes = pd.read_parquet(season / "lakes.parquet")
    lake = lakes[(lakes.time == DATES[1]) & lakes.area_m2.between(150_000, 170_000)].iloc[0]
    fate = pd.read_parquet(season / "catalogue.parquet").set_index("track_id").loc[lake.track_id]
    assert f"Track {lake.track_id}, lake {lake.lake_id} · {DATES[1]}" in told
    for what in ("0.16 km²", "water", fate.fate, fate.reason, "kept"):
        assert what in told
    states = page.locator(".popup tr")
    assert states.count() == len(DATES)
    assert states.nth(2).inner_text().split("\t")[:2] == [DATES[2], "empty"]
    page.locator(".popup summary").click()
    assert "color share\n100.0 %" in popup(page)
    assert page.locator("#list tr.now button").inner_text() == str(lake.lake_id)
    page.locator(".leaflet-popup-close-button").click()
    gone(page)


def test_dropped_candidates_show_when_they_are_asked_for(page):
    select(page, DATES[0])
    page.mouse.click(*place_of(page, *STREAM))
    assert page.locator(".leaflet-popup").count() == 0
    box = page.get_by_role("checkbox", name="dropped candidates")
    box.check()
    page.mouse.click(*place_of(page, *STREAM))
    told = popup(page)
    assert "Dropped candidate" in told
    assert "stream" in told
    assert "0.192 km²" in told
    box.uncheck()
    gone(page)
    page.mouse.click(*place_of(page, *STREAM))
    assert page.locator(".leaflet-popup").count() == 0


def test_the_ground_of_a_lake_that_drained_is_there_on_all_dates(page):
    select(page, DATES[2])
    page.mouse.click(*place_of(page, *A))
    assert page.locator(".leaflet-popup").count() == 0
    page.get_by_role("checkbox", name="ground of all lakes").check()
    page.mouse.click(*place_of(page, *A))
    told = popup(page)
    assert "drained, speed unknown" in told
    assert f", empty · {DATES[2]}" in told, "the state on the date"
    assert f"{DATES[1]}\twater" in told


def test_image_and_what_was_not_seen_are_layers_of_the_date(page):
    select(page, DATES[0])
    images = page.locator(".leaflet-image-pane img, .leaflet-hidden-pane img")
    assert images.count() == 2
    assert all(
        page.evaluate(
            "[...document.querySelectorAll('.leaflet-pane img')].map(image => image.complete && image.naturalWidth > 0)"
        )
    )
    page.get_by_role("checkbox", name="not seen").uncheck()
    page.get_by_role("checkbox", name="image", exact=True).uncheck()
    assert images.count() == 0
    # the border without data is covered: what was not seen lies where it is
    page.get_by_role("checkbox", name="not seen").check()
    box, area = images.bounding_box(), page.locator("#map").bounding_box()
    assert area["x"] < box["x"]
    assert box["width"] == pytest.approx(box["height"], rel=0.01)


def test_the_list_is_sorted_searched_and_goes_to_the_map(page, season):
    select(page, DATES[0])
    areas = page.locator("#list tbody tr td:nth-child(3)")
    assert [float(text) for text in areas.all_inner_texts()] == [0.36, 0.16, 0.12]
    page.get_by_role("button", name="area").click()
    assert [float(text) for text in areas.all_inner_texts()] == [0.12, 0.16, 0.36]
    assert page.locator("#list th[aria-sort='ascending']").inner_text().startswith("area, km²")
    page.locator("#find").fill("refilled")
    assert page.locator("#list-told").inner_text() == "1 found"
    button = page.locator("#list tbody button")
    name = button.get_attribute("aria-label").removesuffix(": show it on the map")
    button.click()
    assert popup(page).startswith(f"{name} · {DATES[0]}")
    assert focused(page, "getAttribute('role')") == "dialog"


def test_the_histogram_follows_the_date(page):
    counts = json.loads(page.locator("#data").text_content())["histogram"]["counts"]
    for day in (DATES[2], DATES[1]):
        select(page, day)
        heights = page.locator("#chart-areas .of-date").evaluate_all(
            "bars => bars.map(bar => Number(bar.getAttribute('height')))"
        )
        ratio = max(heights) / max(counts[DATES.index(day)])
        assert heights == pytest.approx([ratio * count for count in counts[DATES.index(day)]])
        assert day in page.locator("#chart-areas figcaption").inner_text()


# -- by keyboard


def test_everything_is_reached_by_keys_alone(page):
    tab_to(page, "#date")
    page.keyboard.press("Home")
    assert page.locator("#date-told").inner_text().startswith(DATES[0])
    assert page.locator("#date").get_attribute("aria-valuetext").startswith(f"{DATES[0]}: 3 lakes")
    tab_to(page, "[data-layer=dropped]")
    page.keyboard.press("Space")
    tab_to(page, "#map")
    before = page.evaluate("lakeMap.map.getCenter().lng")
    page.keyboard.press("ArrowRight")
    until(page, f"lakeMap.map.getCenter().lng > {before}")
    tab_to(page, ".cursor")
    assert focused(page, "ariaLabel").startswith("Track"), "the largest lake comes first"
    assert "0.36 km²" in plain(focused(page, "ariaLabel"))
    page.keyboard.press("ArrowDown")
    assert focused(page, "ariaLabel").startswith("Dropped candidate"), "outlines of all layers that are on"
    page.keyboard.press("Enter")
    assert "stream" in popup(page)
    assert focused(page, "getAttribute('role')") == "dialog"
    page.keyboard.press("Escape")
    gone(page)
    assert focused(page, "className") == "cursor"
    page.keyboard.press("ArrowUp")
    assert "lake" in focused(page, "ariaLabel")
    assert page.locator("#said").inner_text() == focused(page, "ariaLabel")
    page.keyboard.press("Enter")
    assert "color share" not in popup(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert "color share" in popup(page)
    page.keyboard.press("Escape")
    gone(page)
    tab_to(page, "#find")
    page.keyboard.type("partly nothing")
    assert page.locator("#list-told").inner_text() == "0 found"


def test_every_control_and_picture_has_a_name(page):
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, [role], table, svg")].filter(one => {
            const ids = (one.getAttribute("aria-labelledby") ?? "").split(" ");
            const by = ids.map(id => document.getElementById(id)?.textContent ?? "");
            const label = one.labels?.length ? one.labels[0].textContent : "";
            const name = one.ariaLabel || by.join("") || label || one.caption?.textContent || one.textContent;
            return !name.trim() && !["status"].includes(one.role) && one.closest("[aria-hidden]") === null;
        }).map(one => one.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
    for chart in page.locator(".chart svg").all():
        assert len(chart.locator("desc").first.text_content()) > 40
        assert chart.locator(".unit").text_content().strip()


# -- whatever it is looked at with


def test_nothing_of_a_bad_name_is_run(page, season):
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("#table-scenes").inner_text().count("<img src=x onerror=alert(1)>") == 1


@pytest.mark.parametrize(("width", "motion"), [(320, "no-preference"), (375, "reduce")])
def test_a_phone_scrolls_down_only(browser, season, width, motion):
    options = {
        "viewport": {"width": width, "height": 700},
        "is_mobile": True,
        "has_touch": True,
        "reduced_motion": motion,
    }
    with opened(browser, season / "report.html", **options) as page:
        wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide == [width, width]
        select(page, DATES[0])
        page.touchscreen.tap(*place_of(page, *A))
        assert "0.16 km²" in popup(page)
        # the map moves until all of it is seen: at once, or in steps
        box = "document.querySelector('.leaflet-popup').getBoundingClientRect()"
        frame = page.locator("#map").bounding_box()
        is_seen = f"{box}.left >= 0 && {box}.right <= {width} && {box}.top >= {frame['y']}"
        assert motion != "reduce" or page.evaluate(is_seen)
        until(page, is_seen)


def test_the_dark_is_dark_and_paper_is_white(browser, season):
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, season / "report.html", color_scheme="dark") as page:
        assert max(map(int, page.evaluate(ground)[4:-1].split(","))) < 50
        page.emulate_media(media="print")
        assert page.evaluate(ground) == "rgb(255, 255, 255)"
        assert not page.locator("#date").is_visible()
        assert len(page.pdf(format="A4")) > 10_000


def test_paper_shows_the_map_without_empty_sides(browser, season):
    place = """(() => { const size = lakeMap.map.getSize(), image = lakeMap.map.getContainer().querySelector("img");
        return [size.x, size.y, lakeMap.map.getBounds().contains([[-200, 0], [0, 200]]), image.width / size.y] })()"""
    with opened(browser, season / "report.html") as page:
        before = page.evaluate(place)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        width, _, is_whole, share = page.evaluate(place)
        assert width < 190 / 25.4 * 96, "as wide as A4 without its margins"
        assert is_whole
        assert 0.8 < share <= 1
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(place) == pytest.approx(before, rel=0.2)
        assert page.evaluate(place)[:2] == before[:2]


def test_without_scripts_charts_and_tables_are_there(browser, season):
    with opened(browser, season / "report.html", java_script_enabled=False) as page:
        assert "need JavaScript" in page.locator("noscript").inner_text()
        assert page.locator("#chart-area .point").count() == len(DATES)
        assert page.locator("#table-by-date tbody tr").count() == len(DATES)


def test_a_season_is_told_from_prediction_to_provenance(page, season):
    manifest = json.loads((season / "manifest.json").read_text())["season"]
    rows = [row.split("\t") for row in page.locator("#table-prediction tbody tr").all_inner_texts()]
    told = {name: (before, after) for name, before, after, _ in rows}
    assert told["bytes"] == tuple(spell_bytes(manifest[name]["bytes"]) for name in ("predicted", "measured"))
    assert told["time, s"][1] != ""
    assert "DEM: dem.tif" in page.locator("#provenance").inner_text()
    assert page.locator("#table-fates tbody tr").count() == 3
    page.locator("summary", has_text="Events").click()
    events = pd.read_parquet(season / "events.parquet")
    assert page.locator("#table-events tbody tr").count() == len(events)
    seen = page.locator("#table-by-date tbody tr td:nth-child(5)").all_inner_texts()
    assert seen == [f"{100 * (SIZE - 10) / SIZE:.1f} %"] * len(DATES)


def test_dropped_candidates_are_counted_by_date_and_reason(page, season):
    head = page.locator("#table-reasons thead th").all_inner_texts()
    rows = [row.split("\t") for row in page.locator("#table-reasons tbody tr").all_inner_texts()]
    assert head[0] == "date"
    assert [row[0] for row in rows] == [*DATES, "all dates"]
    for k, day in enumerate(DATES):
        found = pd.read_parquet(season / "dates" / day / "candidates.parquet").reason.value_counts()
        assert [int(count) for count in rows[k][1:]] == [found.get(reason, 0) for reason in head[1:]]
    sums = [int(count) for count in rows[-1][1:]]
    assert sums == sorted(sums, reverse=True)
    assert sums == [sum(int(row[k]) for row in rows[:-1]) for k in range(1, len(head))]


def test_volumes_by_the_bed_and_by_light_stand_side_by_side(season, tmp_path):
    run = shutil.copytree(season, tmp_path / "RUN")
    assert "Volume of lakes by light" not in read_page(run)
    totals = pd.read_csv(run / "catalogue" / "totals.csv")
    totals.assign(rt_volume_m3=[2e6, None, 1e6], rt_volume_lakes=[2, 0, 1]).to_csv(run / "catalogue" / "totals.csv")
    write_report(run)
    page = read_page(run)
    assert f"from 1 {MILLION} on {DATES[2]} to 2 {MILLION} on {DATES[0]}; not known on 1 of 3 dates" in page
    assert "known for 2 of 3 lakes" in page
    assert page.count('<th scope="col" class="number">volume by ') == 2
    assert "1 (1 of 2 lakes)" in page


def read_page(run):
    return (run / "report.html").read_text(encoding="utf-8")


def test_10_000_lakes_answer_to_clicks(browser, tmp_path):
    folder = write_large_run(tmp_path / "LARGE")
    with opened(browser, write_report(folder)) as page:
        assert page.locator("#date-told").inner_text().startswith("2019-07-23: 10,000 lakes")
        page.get_by_role("checkbox", name="dropped candidates").check()
        page.locator("#list tbody button").first.click()
        largest = pd.read_parquet(folder / "lakes.parquet", columns=["area_m2", "lake_id"]).nlargest(1, "area_m2")
        assert popup(page).startswith(f"Lake {largest.lake_id.item()} ·")
        page.keyboard.press("Escape")
        gone(page)
        page.locator("#page-on").click()
        assert page.locator("#page-told").inner_text() == "page 2 of 667"
