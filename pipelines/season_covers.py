"""Ice and snow on lakes: what the ground of all lakes of a season shows on each date; polygons that may hide water."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from lakescale import __version__
from lakescale.cluster import compute
from lakescale.evidence.lids import LID, OPEN, SNOW, assess_lids
from lakescale.schema import LAKE_ID, InputError
from lakescale.series.rules import LID_SHARE, TRACK_ID
from pipelines.run_folder import OF_SEASON
from pipelines.season_dates import prepare_date
from pipelines.season_ground import digest
from pipelines.season_tables import NOTES, is_told, read_told, write_told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from distributed import Client

    from pipelines.season_dates import MappedDate
    from pipelines.season_ground import Ground

COVERS = OF_SEASON[1]
"""File of a date: what the ground of each track shows, and of each lake the share under a lid."""
_COVER, _OPEN, _DEEP = "cover", "open_share", "deep_share"
_WET = 0.5
"""Ground of which so much looks like water deeper than slush is not empty, though no lake was outlined there."""
_NOTE = "lids: told by how ground looks beside the ice round it; grey ice without a gap looks like dry floor"


class Covers(NamedTuple):
    """What hides water, or shows it without an outline, by day; a day that could not be assessed is in none."""

    lids: dict[str, gpd.GeoSeries]
    snow: dict[str, gpd.GeoSeries]
    wet: dict[str, gpd.GeoSeries]
    lakes: dict[str, gpd.GeoDataFrame]
    """The lakes of all days, those that could be assessed with ``lid_share``."""
    notes: list[str]


def find_covers(
    dates: Sequence[MappedDate],
    lakes: Mapping[str, gpd.GeoDataFrame],
    basins: gpd.GeoDataFrame,
    ground: Ground,
    client: Client,
) -> Covers:
    """Look at the ground of all tracks on all dates, as far as it is not done, and say what may hide water there.

    Parameters
    ----------
    dates, lakes
        Of the season, the lakes by day.
    basins
        Ground of each track, `lakescale.series.Tracks.basins`.
    ground
        What the dates share.
    client
        Of the cluster.
    """
    covers = Covers({}, {}, {}, {}, [])
    shapes = basins.loc[~basins["absorbed"].to_numpy(bool), [TRACK_ID, "geometry"]].reset_index(drop=True)
    drawn = digest([shapely.to_wkb(shapes.geometry.to_numpy(), hex=True).tolist(), shapes[TRACK_ID].tolist()])
    for date in dates:
        path, token = date.folder / COVERS, digest([__version__, date.fingerprint, drawn])
        if not is_told(path, token):
            table, notes = _look(date, lakes[date.day], shapes, ground, client)
            write_told(table, path, token, notes)
        _add(covers, date.day, read_told(path), lakes[date.day], shapes)
    return covers


def ask_lids(scene: xr.DataArray, *ground: gpd.GeoDataFrame) -> list[Any]:
    """Ask what ground shows (lazy)."""
    return [assess_lids(scene, one) for one in ground]


def _look(
    date: MappedDate, lakes: gpd.GeoDataFrame, shapes: gpd.GeoDataFrame, ground: Ground, client: Client
) -> tuple[pd.DataFrame, list[str]]:
    """Look at the ground of tracks and at lakes on one date."""
    scene = prepare_date(ground, list(date.scenes), client).sources.scene
    try:
        asked = ask_lids(scene, shapes, lakes[[LAKE_ID, "geometry"]])
    except InputError as error:
        return pd.DataFrame({TRACK_ID: [], LAKE_ID: []}, dtype="int64"), [f"lids: not assessed: {error}"]
    found = compute(*asked, client=client, description="lids")
    tables = [pd.DataFrame(frame.drop(columns="geometry")) for frame in found]
    both = pd.concat(tables, ignore_index=True)
    return both.astype({TRACK_ID: "Int64", LAKE_ID: "Int64"}), [_NOTE]


def _add(covers: Covers, day: str, told: pd.DataFrame, lakes: gpd.GeoDataFrame, shapes: gpd.GeoDataFrame) -> None:
    """Take up what the ground shows on one day: that of tracks without the lakes that lie on it."""
    covers.notes.extend(note for note in told.attrs[NOTES] if note not in covers.notes)
    covers.lakes[day] = lakes
    if _COVER not in told:
        return
    of_track, of_lake = told[told[TRACK_ID].notna()], told[told[LAKE_ID].notna()]
    looks = of_track.set_index(TRACK_ID).reindex(shapes[TRACK_ID])
    is_wet = (looks[_COVER] == OPEN) & (looks[_OPEN] * looks[_DEEP] >= _WET)
    for where, by_day in (
        (looks[_COVER] == LID, covers.lids),
        (looks[_COVER] == SNOW, covers.snow),
        (is_wet, covers.wet),
    ):
        by_day[day] = gpd.GeoSeries(_without(shapes.geometry.to_numpy()[where], lakes), crs=lakes.crs)
    share = (1 - of_lake.set_index(LAKE_ID)[_OPEN]).reindex(lakes[LAKE_ID]).to_numpy(float)
    covers.lakes[day] = lakes.assign(**{LID_SHARE: np.nan_to_num(share)})


def _without(shapes: Any, lakes: gpd.GeoDataFrame) -> Any:
    """Cut lakes out of ground."""
    left, water = np.array(shapes, object), lakes.geometry.to_numpy()
    own, other = shapely.STRtree(water).query(left, predicate="intersects")
    for place, lying in pd.Series(other).groupby(own):
        left[place] = shapely.difference(left[place], shapely.union_all(water[lying]))
    return left[~shapely.is_empty(left)]
