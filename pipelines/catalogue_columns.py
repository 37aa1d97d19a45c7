"""What stands in the tables of a season's catalogue: each column with type, unit, meaning, and when it is null.

The tables are built by this list (`conform`), and `docs/data_dictionary.md` is printed from it (`render_dictionary`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from lakescale.schema import AREA_3857_M2, AREA_M2, LAKE_ID, LAKE_TIME, SEEN_SHARE
from lakescale.series.rules import (
    EMPTY,
    FATE,
    FATES,
    LID_SHARE,
    LIDDED,
    NOT_OUTLINED,
    NOT_SEEN,
    NOT_TOLD,
    PARTLY_SEEN,
    SEASON,
    SNOW,
    STATE,
    TRACK_ID,
    WATER,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

STATES = (WATER, LIDDED, SNOW, EMPTY, PARTLY_SEEN, NOT_SEEN, NOT_TOLD, NOT_OUTLINED)
"""Values of ``state``; the places are the numbers in NetCDF and Zarr."""

WHOLE, COUNT, TRUTH, NUMBER, TEXT, WHEN = "int64", "Int64", "boolean", "float64", "str", "datetime64[ms]"
"""Types: whole numbers without nulls and with them, truth values with nulls, floats, text, times in UTC."""
_TYPE_NAMES = {WHOLE: "integer", COUNT: "integer", TRUTH: "boolean", NUMBER: "float64", TEXT: "text", WHEN: "time"}
_NEVER = "never"
_NO_EVIDENCE = "the lakes came without it"
_NOT_TOLD = "not told by the run"


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    name: str
    kind: str
    """A pandas dtype."""
    unit: str
    """In the words of UDUNITS; empty for what has none."""
    meaning: str
    null: str = _NEVER
    """When a value is missing."""


@dataclass(frozen=True)
class Flag:
    """One bit of ``quality_flag``."""

    name: str
    bit: int
    meaning: str


QUALITY = (
    Flag("edge_not_seen", 1, "not all that is round the lake was seen: the outline may end where sight ends"),
    Flag("basin_not_seen", 2, "less of the track's basin was seen than the rule min_seen asks for"),
    Flag("lidded", 4, "the state is lidded: the open water is a part of the lake"),
    Flag("in_parts", 8, "the track has several outlines on this date (cloud cuts lakes)"),
    Flag("uncertain_area", 16, "the standard deviation of the area is more than half of the area"),
    Flag("several_days", 32, "the pictures of this date span more than one day"),
    Flag("cloud_not_assessed", 64, "whether there was cloud is not known"),
)
"""Bits of ``quality_flag``, which is their sum; 0: nothing to object to."""

_TIMES = (
    Column("time_start", WHEN, "UTC", "first day of the date's pictures"),
    Column("time_end", WHEN, "UTC", "last day of the date's pictures"),
)
_TIME = Column(LAKE_TIME, WHEN, "UTC", "the date, as it was tracked")
_TRACK = Column(TRACK_ID, WHOLE, "", "the lake as it persists over dates and seasons")
_SEASON = Column(SEASON, WHOLE, "", "the melt season: the year in which it ends")
_AREA_SD = "perimeter times position_error_m; errors of several outlines are taken as independent"
_BASIN = (
    Column("basin_seen_share", NUMBER, "1", "share of the track's basin that was seen"),
    Column("basin_lid_share", NUMBER, "1", "share of the track's basin under ice or snow that may hide water"),
)
_VERIFIED = Column("verified", TRUTH, "", "for manual verification; the software leaves it empty", "until verified")

_DEM, _RT = "no DEM was asked, or not known", "no reflectance was asked, or not known"
VOLUMES = (
    Column("level_m", NUMBER, "m", "elevation of the surface along the outline, in the DEM's datum", _DEM),
    Column("level_low_m", NUMBER, "m", "lower end of its interval, from errors of outline and DEM", _DEM),
    Column("level_high_m", NUMBER, "m", "upper end of it", _DEM),
    Column("volume_m3", NUMBER, "m3", "volume between that level and the DEM, within the outline", _DEM),
    Column("volume_low_m3", NUMBER, "m3", "the same at level_low_m", _DEM),
    Column("volume_high_m3", NUMBER, "m3", "the same at level_high_m; voids as deep as the deepest place", _DEM),
    Column("depth_mean_m", NUMBER, "m", "mean depth against the DEM", _DEM),
    Column("depth_max_m", NUMBER, "m", "greatest depth against the DEM", _DEM),
    Column("void_share", NUMBER, "1", "share of the lake without elevation", _DEM),
    Column("flat_share", NUMBER, "1", "largest share of it that is level: the DEM shows water there", _DEM),
    Column("dem_date", TEXT, "", "when the DEM was imaged: a day, first/last day, or unknown", "no DEM was asked"),
    Column("volume_reason", TEXT, "", "known, or why volume_m3 is not", "no DEM was asked"),
    Column("rt_volume_m3", NUMBER, "m3", "volume of what was seen, by radiative transfer (Sneed and Hamilton)", _RT),
    Column("rt_depth_mean_m", NUMBER, "m", "mean depth of what was seen", _RT),
    Column("rt_depth_max_m", NUMBER, "m", "greatest depth of what was seen", _RT),
    Column("rt_censored_share", NUMBER, "1", "share of what was seen as dark as deep water: in no depth", _RT),
    Column("rt_saturated_share", NUMBER, "1", "share of it that is that dark or, in red, deeper than 4 m", _RT),
    Column("rt_seen_share", NUMBER, "1", "share of the lake that was seen, under no lid", _RT),
    Column("rt_a_d", NUMBER, "1", "A_d: reflectance of the lake's floor", _RT),
    Column("rt_r_inf", NUMBER, "1", "R_inf: reflectance of optically deep water", _RT),
    Column("rt_g", NUMBER, "m-1", "g: how much water dims the light on its way down and up", _RT),
    Column("rt_band", TEXT, "", "band of the depths", "no reflectance was asked"),
    Column("rt_product_level", TEXT, "", "processing level of the reflectance", "no reflectance was asked"),
    Column("rt_reason", TEXT, "", "known, or why rt_volume_m3 is not", "no reflectance was asked"),
)
"""Volumes and depths, by the names of `lakescale.evidence.volumes` and `lakescale.evidence.water_depth`."""
SUMMED_VOLUMES = ("volume_m3", "rt_volume_m3")

CARRIED = (
    Column(SEEN_SHARE, NUMBER, "1", "share of the lake's surroundings that was seen", _NO_EVIDENCE),
    Column(LID_SHARE, NUMBER, "1", "share of the outline under a lid of ice", _NO_EVIDENCE),
    Column("elevation_datum", TEXT, "", "what level_m is above", _NO_EVIDENCE),
    Column("drainage_basin", TEXT, "", "name of the ice sheet's drainage basin", _NO_EVIDENCE),
    Column("floating", TRUTH, "", "true where the ice floats (a shelf), false where it is grounded", _NO_EVIDENCE),
)
"""Columns that the tracked lakes may bring along."""

LAKES = (
    _TIME,
    _TRACK,
    Column(LAKE_ID, WHOLE, "", "the outline within its date"),
    _SEASON,
    *_TIMES,
    Column("scene_ids", TEXT, "", "scenes of the date, separated by '; '", _NOT_TOLD),
    Column("sensor", TEXT, "", "satellite and instrument", _NOT_TOLD),
    Column("product_level", TEXT, "", "processing level of the scenes (L1C, L2A, RGB)", _NOT_TOLD),
    Column("processing_baseline", TEXT, "", "processing baseline of the scenes", _NOT_TOLD),
    Column("cloud", TEXT, "", "rule by which cloud was found", "cloud was not assessed, or " + _NOT_TOLD),
    Column(AREA_M2, NUMBER, "m2", "true area of the outline, in an equal-area projection"),
    Column("area_sd_m2", NUMBER, "m2", "standard deviation of the area: perimeter_m times position_error_m"),
    Column(AREA_3857_M2, NUMBER, "m2", "area in EPSG:3857 (as the Cup of 2023 counts), far too large near the poles"),
    Column("perimeter_m", NUMBER, "m", "geodesic length of the outline, with its islands; along edges of pixels"),
    Column("centroid_lon", NUMBER, "degrees_east", "longitude of the centroid, WGS84"),
    Column("centroid_lat", NUMBER, "degrees_north", "latitude of the centroid, WGS84"),
    Column(STATE, TEXT, "", f"state of the track on this date: {', '.join(STATES)}"),
    *_BASIN,
    Column("parts", WHOLE, "", "outlines that the track has on this date"),
    Column(FATE, TEXT, "", "what became of the track in this season, see seasons"),
    Column("quality_flag", WHOLE, "", "sum of bits, see below"),
    *CARRIED,
    *VOLUMES,
    _VERIFIED,
)

DAILY = (
    _TRACK,
    _TIME,
    _SEASON,
    *_TIMES,
    Column(STATE, TEXT, "", f"{', '.join(STATES)}"),
    Column(AREA_M2, NUMBER, "m2", "true area of the track's outlines", "it has none of its own on this date"),
    Column("area_sd_m2", NUMBER, "m2", f"standard deviation of area_m2: {_AREA_SD}", "area_m2 is null"),
    Column("parts", WHOLE, "", "outlines of its own"),
    Column(LAKE_ID, COUNT, "", "its largest outline", "it has none of its own"),
    Column("in_track", COUNT, "", "the track whose lake covers it", "it has an outline of its own, or is not covered"),
    Column("whole", TRUTH, "", "whether a lake was seen there with all that is round it"),
    *_BASIN,
    Column("least_water", NUMBER, "1", "share of its basin that holds open water for sure"),
    Column("most_water", NUMBER, "1", "share of its basin that may hold water"),
    Column(SUMMED_VOLUMES[0], NUMBER, "m3", "volume between level and DEM", "unknown for one of its outlines, or none"),
    Column(
        SUMMED_VOLUMES[1], NUMBER, "m3", "volume from radiative transfer", "unknown for one of its outlines, or none"
    ),
)

_LAST = "no drainage was seen in this season"
SEASONS = (
    _TRACK,
    _SEASON,
    Column("first_water", WHEN, "UTC", "first date with water: its own lake, or another's that covers it"),
    Column("last_water", WHEN, "UTC", "last date with water"),
    Column("dates_with_water", WHOLE, "", "dates on which it had a lake of its own"),
    Column("max_area_m2", NUMBER, "m2", "true area of its lake on the date on which that was largest"),
    Column("max_area_sd_m2", NUMBER, "m2", f"its standard deviation: {_AREA_SD}"),
    Column("max_time", WHEN, "UTC", "that date"),
    Column("extent_m2", NUMBER, "m2", "true area of all outlines of the season united: the geometry of the row"),
    Column(FATE, TEXT, "", f"{'; '.join(FATES)}"),
    Column("reason", TEXT, "", "the fate in a sentence"),
    Column("drained_after", WHEN, "UTC", "last date on which it was seen full before its last drainage", _LAST),
    Column("drained_before", WHEN, "UTC", "first date on which it was seen empty after that", _LAST),
    Column("lost_share", NUMBER, "1", "share of the water's area that it lost then, at least", _LAST),
    Column("rapid_drainage", TRUTH, "", "whether it drained rapidly at any time of the season", "not known"),
    Column("centroid_lon", NUMBER, "degrees_east", "longitude of the extent's centroid, WGS84"),
    Column("centroid_lat", NUMBER, "degrees_north", "latitude of the extent's centroid, WGS84"),
    _VERIFIED,
)

EVENTS = (
    _TRACK,
    _SEASON,
    Column("event", TEXT, "", "filled, drained, refilled, frozen over, snowed over"),
    Column("after", WHEN, "UTC", "it happened after this date", "nothing is known from before"),
    Column("before", WHEN, "UTC", "it happened before this date, or on it"),
    Column("lost_share", NUMBER, "1", "share of the water's area lost, at least", "the event is no drainage"),
    Column("speed", TEXT, "", "rapid, slow, unknown", "the event is no drainage"),
    Column("lon", NUMBER, "degrees_east", "longitude of a point in the basin, WGS84"),
    Column("lat", NUMBER, "degrees_north", "latitude of that point, WGS84"),
)

LINKS = (
    _TIME,
    Column("link", TEXT, "", "split: child parted from parent; merge: the lake of child covers parent"),
    Column("parent", WHOLE, "", "track"),
    Column("child", WHOLE, "", "track"),
)

_UNSEEN = "seen_m2 is null or 0"
_NOT_ABSORBED = ", without those whose ground went over to another"
TOTALS = (
    _TIME,
    _SEASON,
    *_TIMES,
    Column("lakes", WHOLE, "", "outlines on this date"),
    Column(AREA_M2, NUMBER, "m2", "sum of their true areas, of what was seen", "nothing was seen (seen_m2 is 0)"),
    Column("area_sd_m2", NUMBER, "m2", f"its standard deviation: {_AREA_SD}", "area_m2 is null"),
    Column("region_m2", NUMBER, "m2", "true area of the region", _NOT_TOLD),
    Column("seen_m2", NUMBER, "m2", "true area of the region that was seen", _NOT_TOLD),
    Column("seen_region_share", NUMBER, "1", "seen_m2 / region_m2", "one of them is null"),
    Column("lake_share_of_seen", NUMBER, "1", "area_m2 / seen_m2", _UNSEEN),
    Column("basins_m2", NUMBER, "m2", "true area of the basins of all tracks" + _NOT_ABSORBED),
    Column("basins_seen_m2", NUMBER, "m2", "what was seen of them"),
    *(Column(f"tracks_{s.replace(' ', '_')}", WHOLE, "", f"tracks in the state {s!r}{_NOT_ABSORBED}") for s in STATES),
    *(
        column
        for name in SUMMED_VOLUMES
        for column in (
            Column(name, NUMBER, "m3", "sum over the outlines for which it is known", "known for none"),
            Column(f"{name.removesuffix('_m3')}_lakes", WHOLE, "", f"outlines for which {name} is known"),
        )
    ),
)

TABLES = {"lakes": LAKES, "states": DAILY, "seasons": SEASONS, "events": EVENTS, "links": LINKS, "totals": TOTALS}
"""Columns by table."""
_ABOUT = {
    "lakes": "One row an outline and date, by time, then lake. GeoParquet `lakes/date=YYYY-MM-DD/part-0.parquet` and "
    "the layer `lakes` of the GeoPackage, with the outline as `geometry`; `lakes.csv` without it. In GeoParquet `date` "
    "is the name of the folder, the UTC day of `time`.",
    "states": "One row a track and date, with or without a lake: `states.csv`, and the variables of `catalogue.nc` and "
    "`catalogue.zarr`.",
    "seasons": "One row a track and season in which it had a lake of its own: `seasons.csv`, and the layer `seasons` "
    "with all outlines of the season united.",
    "events": "`events.csv`, and the layer `events` with a point in the track's basin. What happened lies between two "
    "dates.",
    "links": "The graph of tracks that split and merge: `links.csv`.",
    "totals": "One row a date, lakes or not: `totals.csv`. What was not seen is in no denominator.",
}
_HEAD = """# Data dictionary of a season's catalogue

Printed from `pipelines/catalogue_columns.py`; a test compares the two. To print it anew:

    python -c "from pipelines.catalogue_columns import render_dictionary; print(render_dictionary(), end='')" \\
        > docs/data_dictionary.md

What is not known is null: an empty field in CSV, NULL in the GeoPackage, null in Parquet, the fill value in NetCDF and
Zarr. Null is never zero, and "not seen" is never "no lake". All areas are true areas, but `area_3857_m2`. Times are in
UTC, without a zone but in the GeoPackage. Outlines are in the CRS of the run's grid; in the GeoPackage in EPSG:3413 if
the grid's centre lies in or near Greenland. `provenance.json` tells versions, recipe, inputs, rules, both CRSs,
`position_error_m`, and whom to credit; the same stands in the metadata of Parquet, GeoPackage, NetCDF and Zarr.
`catalogue_id` is the same in all files of one writing.
"""


def conform(frame: pd.DataFrame, columns: Iterable[Column], keep: Iterable[str] = ()) -> pd.DataFrame:
    """Give a table the columns of a list, in their order and types; those that it lacks are null.

    Parameters
    ----------
    frame
        The table.
    columns
        What it is to hold.
    keep
        Columns that are kept as they are, behind the others.
    """
    made: dict[str, Any] = {}
    for column in columns:
        kind: Any = column.kind
        nothing = pd.Series([None] * len(frame), frame.index, object)
        made[column.name] = frame.get(column.name, nothing).astype(kind)
    return pd.DataFrame(made | {name: frame[name] for name in keep}, index=frame.index).reset_index(drop=True)


def render_dictionary() -> str:
    """Print the page `docs/data_dictionary.md`."""
    parts = [_HEAD]
    for name, columns in TABLES.items():
        parts.append(f"## {name}\n\n{_ABOUT[name]}\n")
        parts.append(_render_rows(("column", "type", "unit", "meaning", "null when"), map(_row_of, columns)))
        if name == "lakes":
            flags = ((str(flag.bit), f"`{flag.name}`", flag.meaning) for flag in QUALITY)
            parts.append("Bits of `quality_flag`:\n\n" + _render_rows(("bit", "name", "meaning"), flags))
    numbers = ", ".join(f"{number} {state.replace(' ', '_')}" for number, state in enumerate(STATES))
    parts.append(f"## NetCDF and Zarr\n\nDimensions `lake` (track_id) and `time`; `state`: {numbers}, fill value -1.\n")
    return "\n".join(parts)


def _row_of(column: Column) -> tuple[str, ...]:
    unit = column.unit if column.unit not in {"", "UTC"} else ""
    return f"`{column.name}`", _TYPE_NAMES[column.kind], unit, column.meaning, column.null


def _render_rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
