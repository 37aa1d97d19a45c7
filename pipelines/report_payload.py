"""What a report's map and table show, as plain JSON: dates with pictures, outlines, columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
from pyproj import CRS, Transformer

from lakescale.schema import AREA_M2, REASON
from lakescale.series.rules import SEASON, STATE, TRACK_ID
from pipelines.report_columns import shorten, tabulate
from pipelines.report_read import DATE
from pipelines.report_shapes import STEPS, draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd
    from numpy.typing import NDArray

    from pipelines.report_charts import Histogram
    from pipelines.report_pictures import Picture, Pictures
    from pipelines.report_read import Frame, Told

_LAKES_BYTES, _DROPPED_BYTES, _TRACKS_BYTES = 3_000_000, 1_500_000, 1_000_000
_MOST_LAKES = 15_000
_A_DEGREE_NORTH = 0.01


def build_payload(told: Told, pictures: Sequence[Pictures], histogram: Histogram) -> dict[str, Any]:
    """Put together what the page's scripts read.

    Returns
    -------
    dict
        ``frame``, ``dates``, ``lakes``, ``dropped``, ``tracks`` (None for a single run), ``histogram``. Each set of
        outlines tells with ``count`` how many there are, and with ``tolerance_px`` how far they were simplified.
    """
    frame = told.frame
    lakes = told.lakes.iloc[np.sort(np.argsort(-told.lakes[AREA_M2].to_numpy(), kind="stable")[:_MOST_LAKES])]
    return {
        "frame": _describe(frame),
        "dates": [
            {
                "day": date.day,
                "season": date.season,
                "image": _place(picture.image, frame),
                "what": picture.what,
                "not_seen": _place(picture.not_seen, frame),
                "seen_share": share_of(date.seen_share, picture),
            }
            for date, picture in zip(told.dates, pictures, strict=True)
        ],
        "lakes": _layer(lakes, frame, _LAKES_BYTES, count=len(told.lakes)),
        "dropped": _layer(told.dropped, frame, _DROPPED_BYTES, names=(AREA_M2, REASON, "evidence")),
        "tracks": None if told.tracks is None else _tracks(told),
        "histogram": {"counts": histogram.counts.tolist()},
    }


def share_of(told: float | None, picture: Pictures) -> float | None:
    """Give the share (0..1) that was seen: as the run tells, else as its picture shows."""
    return picture.seen_share if told is None else told


def _describe(frame: Frame) -> dict[str, Any]:
    height, width = frame.shape
    return {
        "width": width,
        "height": height,
        "pixel": frame.pixel,
        "left": frame.left,
        "top": frame.top,
        "steps": STEPS,
        "crs": frame.crs_name,
        "north_deg": _find_north(frame),
    }


def _find_north(frame: Frame) -> float:
    """Tell by how many degrees, clockwise, north is turned from up at the middle of the grid."""
    if frame.crs is None:
        return 0.0
    x, y = (frame.left + frame.right) / 2, (frame.bottom + frame.top) / 2
    to_lonlat = Transformer.from_crs(frame.crs, CRS(4326), always_xy=True)
    lon, lat = to_lonlat.transform(x, y)
    east, north = to_lonlat.transform(lon, lat + _A_DEGREE_NORTH, direction="INVERSE")
    return round(float(np.degrees(np.arctan2(east - x, north - y))), 1)


def _place(picture: Picture | None, frame: Frame) -> dict[str, Any] | None:
    """Give a picture with its bounds in pixels, y down: left, top, right, bottom."""
    if picture is None:
        return None
    left, bottom, right, top = picture.bounds
    x, y = np.array([left, right]) - frame.left, frame.top - np.array([top, bottom])
    bounds = np.round(np.array([x[0], y[0], x[1], y[1]]) / frame.pixel, 3).tolist()
    return {"uri": picture.uri, "bounds": bounds}


def _layer(
    rows: gpd.GeoDataFrame, frame: Frame, most_bytes: int, *, names: Any = None, count: int | None = None
) -> dict[str, Any]:
    """Give outlines with their columns; those that are not drawn go."""
    drawn = draw(rows.geometry.to_numpy(), frame, most_bytes=most_bytes)
    kept = rows.iloc[drawn.rows]
    return {
        "count": len(rows) if count is None else count,
        "tolerance_px": drawn.tolerance_px,
        "outlines": drawn.outlines,
        "date": kept[DATE].astype(int).tolist(),
        "columns": tabulate(_with_centres(kept, frame) if names is None else kept, names),
    }


def _with_centres(rows: gpd.GeoDataFrame, frame: Frame) -> gpd.GeoDataFrame:
    """Add where lakes are, WGS84."""
    if frame.crs is None or not len(rows):
        return rows
    middle = shapely.point_on_surface(rows.geometry.to_numpy())
    to_lonlat = Transformer.from_crs(frame.crs, CRS(4326), always_xy=True)
    lon, lat = to_lonlat.transform(shapely.get_x(middle), shapely.get_y(middle))
    return rows.assign(longitude=_degrees(lon), latitude=_degrees(lat))


def _degrees(values: Any) -> list[str]:
    return [f"{value:.5f}°" for value in values]


def _tracks(told: Told) -> dict[str, Any]:
    """Give the outlines of the season's lakes, with state and area on each of its dates."""
    assert told.tracks is not None
    assert told.states is not None
    tracks = told.tracks
    drawn = draw(tracks.geometry.to_numpy(), told.frame, most_bytes=_TRACKS_BYTES)
    kept = tracks.iloc[drawn.rows].reset_index(drop=True)
    seasons = told.states[SEASON].to_numpy()
    dates = {int(one): np.unique(told.states[DATE].to_numpy()[seasons == one]).tolist() for one in np.unique(seasons)}
    codes, words = pd.factorize(told.states[STATE])
    states = _by_date(told.states.assign(code=codes), "code", kept, dates)
    areas = _by_date(told.states, AREA_M2, kept, dates)
    return {
        "count": len(tracks),
        "tolerance_px": drawn.tolerance_px,
        "outlines": drawn.outlines,
        "id": kept[TRACK_ID].astype(int).tolist(),
        "season": kept[SEASON].astype(int).tolist(),
        "columns": tabulate(kept),
        "dates": dates,
        "words": [str(word) for word in words],
        "states": [shorten(row) for row in states],
        "areas": [shorten(row) for row in areas],
    }


def _by_date(
    states: pd.DataFrame, column: str, tracks: gpd.GeoDataFrame, dates: dict[int, list[int]]
) -> list[NDArray[np.float64]]:
    """Give of each track a value on each date of its season."""
    values = states.set_index([TRACK_ID, DATE])[column].unstack().reindex(index=tracks[TRACK_ID])  # noqa: PD010
    return [
        values.iloc[k].reindex(dates[int(season)]).to_numpy(float) for k, season in enumerate(tracks[SEASON].to_numpy())
    ]
