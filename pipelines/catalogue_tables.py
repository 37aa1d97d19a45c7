"""From tracks to the tables of a catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from lakescale.polygons import areas_3857_m2, areas_m2
from lakescale.schema import AREA_3857_M2, AREA_M2, LAKE_ID, LAKE_TIME, InputError
from lakescale.series.rules import (
    DRAINED,
    FATE,
    LID_SHARE,
    LIDDED,
    MERGED,
    RAPID,
    SEASON,
    SPEED_UNKNOWN,
    STATE,
    TRACK_ID,
    UNKNOWN,
)
from pipelines.catalogue_columns import (
    CARRIED,
    DAILY,
    EVENTS,
    LAKES,
    LINKS,
    QUALITY,
    SEASONS,
    STATES,
    SUMMED_VOLUMES,
    TOTALS,
    VOLUMES,
    Column,
    conform,
)
from pipelines.catalogue_places import centroids_lonlat, perimeters_m, points_in, to_lonlat
from pipelines.catalogue_provenance import Images, Provenance

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lakescale.series import TrackRules, Tracks

_KEY = [LAKE_TIME, LAKE_ID]
_DAY = [TRACK_ID, LAKE_TIME]
_SPAN = ["time_start", "time_end"]
_UNCERTAIN = 0.5


class Tables(NamedTuple):
    """The tables of a catalogue, in the columns of `catalogue_columns.TABLES`; frames in the CRS of the grid."""

    lakes: gpd.GeoDataFrame
    states: pd.DataFrame
    seasons: gpd.GeoDataFrame
    events: gpd.GeoDataFrame
    links: pd.DataFrame
    totals: pd.DataFrame


def build_tables(
    tracks: Tracks, crs: Any, provenance: Provenance, volumes: pd.DataFrame | None, position_error_m: float
) -> Tables:
    """Build all tables.

    Parameters
    ----------
    tracks
        The season.
    crs
        CRS of the lakes.
    provenance
        Images by date, which may hold dates on which no lake was known yet.
    volumes
        ``time``, ``lake_id``, and columns of `catalogue_columns.VOLUMES`; lakes may be missing. None: those of the
        lakes themselves.
    position_error_m
        Standard deviation of the outline's position, m.

    Raises
    ------
    InputError
        Volumes of no lake, of one lake twice, or without any of the columns; images of a date that was not tracked;
        no dates.
    """
    dates = _list_dates(tracks, provenance)
    lakes = _measure(tracks, crs, position_error_m)
    lakes = _add_volumes(lakes, volumes)
    daily = _by_day(tracks, lakes)
    lakes = _judge(lakes, daily, tracks, dates)
    seasons = _by_season(tracks, crs, daily)
    return Tables(
        lakes=_frame(lakes.sort_values([LAKE_TIME, LAKE_ID]), LAKES, crs),
        states=conform(daily, DAILY),
        seasons=_frame(seasons, SEASONS, crs),
        events=_locate_events(tracks, crs),
        links=conform(tracks.links, LINKS),
        totals=conform(_by_date(dates, lakes, daily, tracks, provenance), TOTALS),
    )


def _frame(rows: pd.DataFrame, columns: Iterable[Column], crs: Any) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(conform(rows, columns, keep=["geometry"]), geometry="geometry", crs=crs)


def _list_dates(tracks: Tracks, provenance: Provenance) -> pd.DataFrame:
    """List all dates with season, first and last day, and images; tracks know none from before the first lake."""
    known = tracks.states.drop_duplicates(LAKE_TIME)[[LAKE_TIME, "first_day", "last_day"]]
    known = known.rename(columns={"first_day": "time_start", "last_day": "time_end"})
    images = dict(provenance.dated)
    early = sorted(set(images) - set(known[LAKE_TIME]))
    if len(known) and early and early[-1] > known[LAKE_TIME].min():
        late = max(time for time in early if time > known[LAKE_TIME].min())
        raise InputError("images of a date that was not tracked", late.isoformat(), "track all dates, or leave it out")
    first = pd.DataFrame(dict.fromkeys((LAKE_TIME, *_SPAN), pd.Series(early, dtype="datetime64[ms]")))
    dates = pd.concat([first, known]) if len(known) else first
    if not len(dates):
        raise InputError("a catalogue without any date", "tracks", "name the dates in Provenance.images")
    dates = dates.astype(dict.fromkeys((LAKE_TIME, *_SPAN), "datetime64[ms]")).sort_values(LAKE_TIME, ignore_index=True)
    of_date = [images.get(time, Images()) for time in dates[LAKE_TIME]]
    told = pd.DataFrame(
        {
            SEASON: [tracks.rules.season(time) for time in dates[LAKE_TIME]],
            "scene_ids": ["; ".join(i.scene_ids) or None for i in of_date],
            "sensor": [i.sensor or None for i in of_date],
            "product_level": [i.product_level or None for i in of_date],
            "processing_baseline": [i.baseline or None for i in of_date],
            "cloud": [i.cloud or None for i in of_date],
            "seen_m2": np.array([np.nan if i.seen_m2 is None else i.seen_m2 for i in of_date], float),
        }
    )
    return pd.concat([dates, told], axis=1)


def _measure(tracks: Tracks, crs: Any, position_error_m: float) -> pd.DataFrame:
    """Measure all outlines."""
    shapes = gpd.GeoSeries(tracks.lakes.geometry.to_numpy(), crs=crs)
    rows = pd.DataFrame(tracks.lakes.drop(columns=tracks.lakes.active_geometry_name)).reset_index(drop=True)
    if not len(rows):
        rows = rows.reindex(columns=[*_KEY, TRACK_ID, AREA_M2])
        rows = rows.astype({LAKE_TIME: "datetime64[ms]", LAKE_ID: "int64", TRACK_ID: "int64", AREA_M2: "float64"})
    centre, length = centroids_lonlat(shapes.to_numpy(), crs), perimeters_m(shapes.to_numpy(), crs)
    measured: dict[str, Any] = {
        AREA_3857_M2: areas_3857_m2(shapes) if len(shapes) else np.empty(0),
        "perimeter_m": length,
        "area_sd_m2": length * position_error_m,
        "centroid_lon": centre.lon,
        "centroid_lat": centre.lat,
        "geometry": shapes.array,
        "parts": rows.groupby(_DAY)[LAKE_ID].transform("size"),
    }
    brought = [column.name for column in (*CARRIED, *VOLUMES) if column.name in rows]
    return rows[[*_KEY, TRACK_ID, AREA_M2, *brought]].assign(**measured)


def _add_volumes(lakes: pd.DataFrame, volumes: pd.DataFrame | None) -> pd.DataFrame:
    """Add volumes to the lakes, in place of those that they came with."""
    names = [column.name for column in VOLUMES]
    if volumes is None:
        return conform(lakes, VOLUMES, keep=[str(name) for name in lakes if name not in names])
    mend = f"give {', '.join(_KEY)} and any of {', '.join(names)}"
    if missing := [name for name in _KEY if name not in volumes]:
        raise InputError(f"volumes without {missing[0]}", "volumes", mend)
    if not any(name in volumes for name in names):
        raise InputError("volumes without any volume or depth", f"columns {', '.join(map(str, volumes))}", mend)
    keyed = pd.DataFrame(volumes).astype({LAKE_TIME: "datetime64[ms]", LAKE_ID: "int64"})
    twice, stray = keyed.duplicated(_KEY), ~keyed.set_index(_KEY).index.isin(lakes.set_index(_KEY).index)
    for where, what in ((twice, "two volumes of one lake"), (stray, "a volume of a lake that is none")):
        if np.any(where):
            row = keyed.iloc[int(np.argmax(where))]
            raise InputError(what, f"{row[LAKE_TIME]}, lake {row[LAKE_ID]}", "give one row a lake of the tracks")
    bare = lakes.drop(columns=[name for name in names if name in lakes])
    return bare.merge(conform(keyed, VOLUMES, keep=_KEY), on=_KEY, how="left")


def _by_day(tracks: Tracks, lakes: pd.DataFrame) -> pd.DataFrame:
    """Add what was measured on outlines to the states."""
    sums = lakes.assign(variance=lakes["area_sd_m2"] ** 2).groupby(_DAY)
    outlines = pd.DataFrame(
        {
            "area_sd_m2": np.sqrt(sums["variance"].sum()),
            **{name: sums[name].sum(min_count=1).where(sums[name].count() == sums.size()) for name in SUMMED_VOLUMES},
        }
    )
    names = {
        "first_day": "time_start", "last_day": "time_end", "seen_share": "basin_seen_share",
        LID_SHARE: "basin_lid_share", "lakes": "parts",
    }  # fmt: skip
    return tracks.states.rename(columns=names).merge(outlines.reset_index(), on=_DAY, how="left")


def _judge(lakes: pd.DataFrame, daily: pd.DataFrame, tracks: Tracks, dates: pd.DataFrame) -> pd.DataFrame:
    """Add date, state, fate and quality to the outlines."""
    of_date = dates.drop(columns="seen_m2")
    of_track = daily[[*_DAY, STATE, "whole", "basin_seen_share", "basin_lid_share"]]
    fates = pd.DataFrame(tracks.summary[[TRACK_ID, SEASON, FATE]])
    judged = lakes.merge(of_date, on=LAKE_TIME, how="left").merge(of_track, on=_DAY, how="left")
    judged = judged.merge(fates, on=[TRACK_ID, SEASON], how="left")
    return judged.assign(quality_flag=_flag(judged, tracks.rules))


def _flag(rows: pd.DataFrame, rules: TrackRules) -> Any:
    holds = {
        "edge_not_seen": ~rows["whole"].astype(bool),
        "basin_not_seen": rows["basin_seen_share"] < rules.min_seen,
        "lidded": rows[STATE] == LIDDED,
        "in_parts": rows["parts"] > 1,
        "uncertain_area": rows["area_sd_m2"] > _UNCERTAIN * rows[AREA_M2],
        "several_days": rows["time_start"] < rows["time_end"],
        "cloud_not_assessed": rows["cloud"].isna(),
    }
    return sum(holds[flag.name].to_numpy(np.int64) * flag.bit for flag in QUALITY)


def _by_season(tracks: Tracks, crs: Any, daily: pd.DataFrame) -> pd.DataFrame:
    """Add to each track's season what its dates tell."""
    summary = pd.DataFrame(tracks.summary).rename(columns={tracks.summary.active_geometry_name: "geometry"})
    centre = centroids_lonlat(tracks.summary.geometry.to_numpy(), crs)
    own = daily[daily["parts"] > 0]
    count = own.groupby([TRACK_ID, SEASON]).size().rename("dates_with_water").reset_index()
    largest = own[[TRACK_ID, LAKE_TIME, "area_sd_m2"]].set_axis([TRACK_ID, "max_time", "max_area_sd_m2"], axis=1)
    rows = summary.merge(count, on=[TRACK_ID, SEASON], how="left").merge(largest, on=[TRACK_ID, "max_time"], how="left")
    return rows.assign(centroid_lon=centre.lon, centroid_lat=centre.lat, rapid_drainage=_tell_rapid(tracks, summary))


def _tell_rapid(tracks: Tracks, summary: pd.DataFrame) -> Any:
    """Tell whether a track ever drained rapidly in a season; null where it may have."""
    drained = tracks.events[tracks.events["event"] == DRAINED]
    keys = pd.MultiIndex.from_frame(summary[[TRACK_ID, SEASON]])
    rapid, unknown = (
        keys.isin(pd.MultiIndex.from_frame(drained.loc[drained["speed"] == speed, [TRACK_ID, SEASON]]))
        for speed in (RAPID, SPEED_UNKNOWN)
    )
    open_end = unknown | summary[FATE].isin([UNKNOWN, MERGED]).to_numpy()
    return pd.Series(pd.arrays.BooleanArray(rapid, open_end & ~rapid), summary.index)


def _locate_events(tracks: Tracks, crs: Any) -> gpd.GeoDataFrame:
    """Give each event a point in its track's basin."""
    place = pd.Index(tracks.basins[TRACK_ID]).get_indexer(tracks.events[TRACK_ID])
    points = points_in(tracks.basins.geometry.to_numpy())[place]
    lon, lat = to_lonlat(shapely.get_coordinates(points), crs)
    speed = tracks.events["speed"].where(tracks.events["speed"] != "")
    return _frame(tracks.events.assign(speed=speed, lon=lon, lat=lat, geometry=points), EVENTS, crs)


def _by_date(
    dates: pd.DataFrame, lakes: pd.DataFrame, daily: pd.DataFrame, tracks: Tracks, provenance: Provenance
) -> pd.DataFrame:
    """Sum up each date."""
    time = dates[LAKE_TIME]
    by_time = lakes.assign(variance=lakes["area_sd_m2"] ** 2).groupby(LAKE_TIME)

    def over(series: Any, empty: float = 0) -> Any:
        return series.reindex(time).fillna(empty).to_numpy()

    nothing = dates["seen_m2"] == 0
    area = pd.Series(over(by_time[AREA_M2].sum())).mask(nothing)
    columns: dict[str, Any] = {
        "lakes": over(by_time.size()).astype(np.int64),
        AREA_M2: area,
        "area_sd_m2": pd.Series(over(np.sqrt(by_time["variance"].sum()))).mask(nothing),
        "region_m2": np.nan if provenance.region_m2 is None else provenance.region_m2,
        "lake_share_of_seen": area / dates["seen_m2"].mask(nothing),
    }
    columns["seen_region_share"] = dates["seen_m2"] / columns["region_m2"]
    columns |= _basin_sums(tracks, daily, time)
    for name in SUMMED_VOLUMES:
        columns[name] = by_time[name].sum(min_count=1).reindex(time).to_numpy(float)
        columns[f"{name.removesuffix('_m3')}_lakes"] = over(by_time[name].count()).astype(np.int64)
    return dates.assign(**columns)


def _basin_sums(tracks: Tracks, daily: pd.DataFrame, time: pd.Series[Any]) -> dict[str, Any]:
    """Count tracks by state, and sum their basins, date by date; what went over to another track is there already."""
    own = tracks.basins[~tracks.basins["absorbed"].to_numpy(bool)]
    area = pd.Series(areas_m2(own.geometry) if len(own) else np.empty(0), own[TRACK_ID].to_numpy(np.int64))
    rows = daily[daily[TRACK_ID].isin(area.index)]
    basin = area.loc[rows[TRACK_ID]].to_numpy()
    sums: dict[str, Any] = {"basins_m2": basin, "basins_seen_m2": basin * rows["basin_seen_share"].to_numpy()}
    sums |= {f"tracks_{state.replace(' ', '_')}": (rows[STATE] == state).to_numpy(np.int64) for state in STATES}
    table = pd.DataFrame(sums).groupby(rows[LAKE_TIME].to_numpy()).sum().reindex(time).fillna(0)
    return {name: table[name].to_numpy() for name in sums}
