"""The page of a report: what was read, as charts, tables and data, put into one HTML file that needs no other."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from lakescale.schema import AREA_M2
from lakescale.series.rules import EMPTY, LIDDED, NOT_OUTLINED, NOT_SEEN, NOT_TOLD, PARTLY_SEEN, SNOW, STATE, WATER
from pipelines import report_run
from pipelines import report_tables as tables
from pipelines.catalogue_provenance import Images, Provenance
from pipelines.report_charts import count_areas, draw_course, draw_histogram, draw_stack
from pipelines.report_columns import shorten
from pipelines.report_payload import build_payload, share_of
from pipelines.report_read import DATE
from pipelines.report_words import tell_number, tell_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.report_charts import Chart, Histogram
    from pipelines.report_pictures import Pictures
    from pipelines.report_read import Told

_ASSETS = "report_assets"
_SCRIPTS = ("leaflet/leaflet.js", "data.js", "map.js", "lakes.js", "page.js")
_STYLES = ("leaflet/leaflet.css", "page.css")
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)
_STATE_KINDS = {
    WATER: "water", LIDDED: "lidded", SNOW: "snow", EMPTY: "empty", NOT_TOLD: "not-told",
    NOT_OUTLINED: "not-outlined", PARTLY_SEEN: "partly-seen", NOT_SEEN: "not-seen",
}  # fmt: skip
_INPUTS = (("DEM", "dem"), ("ice", "ice"), ("area of interest", "aoi"), ("excluded", "exclude"))


def render_page(told: Told, pictures: Sequence[Pictures]) -> str:
    """Write the page.

    Whatever comes from files (names, reasons, notes) is escaped; the page's policy lets no other script run, and
    nothing be fetched.

    Parameters
    ----------
    told
        What the folder tells.
    pictures
        One a date.
    """
    seen = [share_of(date.seen_share, one) for date, one in zip(told.dates, pictures, strict=True)]
    areas = told.lakes[AREA_M2].to_numpy(), told.lakes[DATE].to_numpy()
    histogram = count_areas(*areas, len(told.dates))
    payload = build_payload(told, pictures, histogram)
    scripts = [_read(name) for name in _SCRIPTS]
    page = _environment().get_template("page.html").render(
        title=find_title(told),
        told=told,
        subtitle=_subtitle(told),
        tiles=_tiles(told, seen),
        charts=_charts(told, seen, histogram),
        tables=_tables(told, seen),
        notes=_notes(told),
        provenance=_provenance(told),
        payload=payload,
        data=htmlsafe_json_dumps(payload, separators=(",", ":"), allow_nan=False),
        styles=[Markup(_read(name)) for name in _STYLES],  # noqa: S704  (our own files)
        scripts=[Markup(text) for text in scripts],  # noqa: S704
        policy=_policy(scripts),
    )  # fmt: skip
    return str(page)


def find_title(told: Told) -> str:
    """Name the page: by the catalogue's title, else by what was mapped."""
    if told.about.get("title"):
        return str(told.about["title"])
    days = [date.day for date in told.dates]
    return f"Lakes of {days[0]}" if len(days) == 1 else f"Lakes of {days[0]} to {days[-1]}"


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipelines", _ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _read(name: str) -> str:
    text = files("pipelines").joinpath(_ASSETS, name).read_text(encoding="utf-8")
    return _SOURCE_MAP.sub("", text)


def _policy(scripts: list[str]) -> str:
    """Allow these scripts and no others, pictures of the page itself, and no request."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    parts = f"script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; {parts}"


def _subtitle(told: Told) -> str:
    frame = told.frame
    height, width = frame.shape
    size = f"{width * frame.pixel / 1000:,.4g} by {height * frame.pixel / 1000:,.4g} km"
    return f"{size}, {width:,} x {height:,} pixels of {frame.pixel:g} m, {frame.crs_name}"


def _tiles(told: Told, seen: Sequence[float | None]) -> list[tuple[str, str]]:
    """Give the key figures: a number and what it is."""
    areas = told.lakes.groupby(DATE)[AREA_M2].sum()
    tiles = []
    if not told.is_season:
        tiles.append((f"{len(told.lakes):,}", "lakes"))
        tiles.append((f"{tell_number(areas.sum() / 1e6)} km²", "true area of all lakes"))
        tiles.append((tell_percent(seen[0]), "of the scene was seen"))
    else:
        assert told.tracks is not None
        tiles.append((f"{told.tracks['track_id'].nunique():,}", f"lakes on {len(told.dates)} dates"))
        most = int(areas.idxmax()) if len(areas) else 0
        tiles.append((f"{tell_number(areas.get(most, 0) / 1e6)} km²", f"most on one date, {told.dates[most].day}"))
        drained = told.tracks["fate"].str.startswith("drained").sum()
        rapidly = told.tracks["fate"].eq("drained rapidly").sum()
        tiles.append((f"{drained:,}", f"drained, {rapidly:,} of them rapidly"))
    tiles.append((f"{len(told.dropped):,}", "candidates dropped, each with a reason"))
    if told.left_out:
        tiles.append((f"{len(told.left_out):,}", "scenes left out"))
    return tiles


def _charts(told: Told, seen: Sequence[float | None], histogram: Histogram) -> dict[str, Chart]:
    days = [date.day for date in told.dates]
    charts = {"areas": draw_histogram("areas", "Areas of lakes", histogram)}
    if len(days) == 1:
        return charts
    percent = [None if share is None else 100 * share for share in seen]
    charts["area"] = _area_chart(told, days, seen)
    charts |= _volume_charts(told, days)
    charts["seen"] = draw_course("seen", "What was seen", "% of the region", days, percent, most=100)
    if told.states is not None:
        counts = pd.crosstab(told.states[STATE], told.states[DATE]).reindex(columns=range(len(days)), fill_value=0)
        by_state = dict(zip(counts.index, counts.to_numpy(int).tolist(), strict=True))
        parts = {state: by_state[state] for state in _STATE_KINDS if state in by_state}
        charts["states"] = draw_stack("states", "States of the lakes on each date", "lakes", days, parts, _STATE_KINDS)
    return charts


def _area_chart(told: Told, days: list[str], seen: Sequence[float | None]) -> Chart:
    areas = told.lakes.groupby(DATE)[AREA_M2].sum().reindex(range(len(days)), fill_value=0.0) / 1e6
    values = [None if share == 0 else float(area) for area, share in zip(areas, seen, strict=True)]
    errors = np.full(len(days), np.nan)
    if told.totals is not None and "area_sd_m2" in told.totals:
        errors[told.totals[DATE]] = told.totals["area_sd_m2"].to_numpy(float) / 1e6
    ends = {"low": shorten(areas.to_numpy() - errors), "high": shorten(areas.to_numpy() + errors)}
    words = [None if share is None else f"{tell_percent(share)} seen" for share in seen]
    return draw_course("area", "Area of lakes, of what was seen", "km²", days, values, told=words, **ends)


def _volume_charts(told: Told, days: list[str]) -> dict[str, Chart]:
    """Draw the volume by the bed and by light, as far as they are known."""
    charts = {}
    for name, how in (("volume", "by the bed"), ("rt_volume", "by light")):
        if told.totals is None or not told.totals.get(f"{name}_m3", pd.Series(dtype=float)).notna().any():
            continue
        totals = told.totals.set_index(DATE).reindex(range(len(days)))
        known, lakes = (totals[column].fillna(0).astype(int) for column in (f"{name}_lakes", "lakes"))
        words = [f"known for {k} of {n} lakes" for k, n in zip(known, lakes, strict=True)]
        values = shorten(totals[f"{name}_m3"] / 1e6)
        title = f"Volume of lakes {how}, where it is known"
        charts[name] = draw_course(name, title, "10⁶ m³", days, values, told=words)
    return charts


def _tables(told: Told, seen: Sequence[float | None]) -> dict[str, tables.Table]:
    found = [
        tables.table_dates(told, seen),
        tables.table_reasons(told),
        report_run.table_stages(told),
        tables.table_scenes(told),
        tables.table_inputs(told),
        tables.table_models(told.dates),
        tables.table_versions(told),
        tables.table_left_out(told),
    ]
    if told.is_season:
        found += [tables.table_fates(told), tables.table_events(told)]
        found += [report_run.table_stages_by_date(told), report_run.table_prediction(told)]
    return {one.name: one for one in found if one.rows}


def _notes(told: Told) -> list[tuple[str, list[str]]]:
    """Give the notes of the run, and of each date those that not all have."""
    by_date = [[str(note) for note in date.manifest.get("notes", ())] for date in told.dates]
    common = [note for note in by_date[0] if all(note in notes for notes in by_date)] if by_date else []
    catalogue = [str(note) for note in told.manifest.get("season", {}).get("catalogue", {}).get("notes", ())]
    found = [("of all dates" if told.is_season else "of the run", [*catalogue, *common])]
    found += [(date.day, own) for date, notes in zip(told.dates, by_date, strict=True)
              if (own := [note for note in notes if note not in common])]  # fmt: skip
    return [(what, notes) for what, notes in found if notes]


def _provenance(told: Told) -> dict[str, Any]:
    """Give inputs and credits: those of the catalogue, else what follows from the scenes."""
    recipe, season = (told.manifest.get(name) or {} for name in ("recipe", "season"))
    named = []
    for what, name in _INPUTS:
        value = recipe.get(name)
        source = value.get("source") if isinstance(value, dict) else value
        named += [f"{what}: {one}" for one in (source if isinstance(source, list) else [source]) if one]
    inputs = [str(one) for one in told.about.get("inputs", named)]
    images = {
        date.day: Images(sensor=str((date.manifest.get("scene") or {}).get("sensor", "")))
        for date in told.dates
        if pd.notna(pd.to_datetime(date.day, errors="coerce"))
    }
    credit = Provenance(recipe_hash="", images=images, inputs=tuple(inputs)).credit_lines()
    return {
        "inputs": inputs,
        "credits": [str(one) for one in told.about.get("credits", credit)],
        "created": str(told.about.get("created", "")),
        "recipe_hash": str(told.about.get("recipe_hash", "")),
        "recipe": told.recipe,
        "cluster": report_run.list_facts(told.manifest.get("cluster") or season.get("cluster") or {}),
        "machine": report_run.list_facts(told.manifest.get("machine") or {}),
    }
