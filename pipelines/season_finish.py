"""The end of a season: all dates to tracks, and the tables of the catalogue. Further outputs join here."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd

from lakescale import __version__
from lakescale.schema import LAKE_ID, InputError
from lakescale.series import find_basins, track
from pipelines.run_folder import NOT_SEEN_FILE, publish
from pipelines.season_catalogue import find_region, has_products, write_products
from pipelines.season_covers import find_covers
from pipelines.season_dates import LAKES
from pipelines.season_depths import DEPTHS
from pipelines.season_folder import CATALOGUE
from pipelines.season_ground import OF_THE_CATALOGUE, digest, state_of
from pipelines.season_places import open_ice_sheet, place_lakes
from pipelines.season_tables import NOTES, read_table, read_told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from distributed import Client

    from lakescale.series import Tracks
    from lakescale.stages import Journal
    from pipelines.season_dates import MappedDate
    from pipelines.season_folder import SeasonFolder
    from pipelines.season_ground import Ground
    from pipelines.season_recipe import SeasonRecipe

TABLES = {
    LAKES: "lakes", "tracks.parquet": "states", "events.parquet": "events", "links.parquet": "links",
    "catalogue.parquet": "summary",
}  # fmt: skip
"""Files of a season and what of `lakescale.series.Tracks` they hold."""


def finish_season(
    folder: SeasonFolder, ground: Ground, dates: Sequence[MappedDate], client: Client, journal: Journal
) -> dict[str, Any]:
    """Track the lakes of all dates and write the catalogue, unless it is there and of the same.

    Lakes are tracked twice: first by themselves, which tells the ground of each track; then with the ice and snow that
    this ground shows. Here all outputs of a season join: each takes the tracks and writes to the folder before
    `CATALOGUE`, which says that all is whole.

    Parameters
    ----------
    folder
        Of the season.
    ground
        What the dates share.
    dates
        All that were mapped, at least one, in the order of time.
    client
        Of the cluster on which lids are looked for.
    journal
        Of the season; tracks, lids and catalogue are stages.

    Returns
    -------
    dict
        ``lakes`` (of all dates), ``tracks``, ``events``: their numbers; ``notes``; ``is_kept``: whether nothing had to
        be done.

    Raises
    ------
    InputError
        When a table of a date is damaged.
    RunError
        When it cannot be written.
    """
    recipe = ground.recipe
    rules = recipe.track_rules
    spans = {one.day: (one.day, max(scene.last_day or one.day for scene in one.scenes)) for one in dates}
    made_of = [(one.fingerprint, spans[one.day]) for one in dates]
    token = digest([__version__, made_of, asdict(rules), _of_catalogue(recipe)])
    told = folder.read_json(CATALOGUE)
    is_there = has_products(folder) and all((folder.path / name).exists() for name in TABLES)
    if told.get("fingerprint") == token and is_there:
        journal.keep("catalogue")
        return told | {"is_kept": True}
    (folder.path / CATALOGUE).unlink(missing_ok=True)
    not_seen = {one.day: read_table(one.folder / NOT_SEEN_FILE).geometry for one in dates}
    tracks = _track(dates, not_seen, spans, ground, client, journal)
    with journal.stage("catalogue"):
        write_tables(tracks, folder.path)
        write_products(tracks, folder, ground, dates, not_seen, token)
    facts = {
        "fingerprint": token,
        "dates": len(dates),
        "lakes": len(tracks.lakes),
        "tracks": len(tracks.basins),
        "events": len(tracks.events),
        "notes": list(tracks.notes),
    }
    folder.publish_json(CATALOGUE, facts)
    return facts | {"is_kept": False}


def _track(
    dates: Sequence[MappedDate],
    not_seen: dict[str, gpd.GeoSeries],
    spans: dict[str, tuple[str, str]],
    ground: Ground,
    client: Client,
    journal: Journal,
) -> Tracks:
    """Find the ground of lakes, what lies on it or shows there, and tell from these what became of the lakes."""
    rules, beside = ground.recipe.track_rules, dict[str, Any]()
    with journal.stage("tracks"):
        lakes, notes = gather_lakes(dates, ground)
        hidden = add_beyond(not_seen, ground)
        basins = find_basins(lakes, not_seen=hidden, rules=rules, dates=spans) if ground.recipe.lids else None
    if basins is not None:
        with journal.stage("lids"):
            covers = find_covers(dates, lakes, basins, ground, client)
            beside = {"lids": covers.lids, "snow": covers.snow, "wet": covers.wet}
            lakes = covers.lakes
            notes += covers.notes
    with journal.stage("tracks"):
        tracks = track(lakes, not_seen=hidden, rules=rules, dates=spans, **beside)
    return replace(tracks, notes=(*tracks.notes, *notes))


def gather_lakes(dates: Sequence[MappedDate], ground: Ground) -> tuple[dict[str, gpd.GeoDataFrame], list[str]]:
    """Put the lakes of each date together with what they hold and where they lie, and say what was not told of them."""
    ice_sheet, lakes, notes = open_ice_sheet(ground.recipe, ground.grid), {}, []
    for date in dates:
        bare, depths = read_table(date.folder / LAKES), read_told(date.folder / DEPTHS)
        held = bare.merge(depths, on=LAKE_ID, how="left", validate="one_to_one")
        lakes[date.day] = place_lakes(gpd.GeoDataFrame(held, geometry="geometry", crs=bare.crs), ice_sheet)
        notes += [f"{date.day}: {note}" for note in depths.attrs[NOTES]]
    return lakes, notes


def _of_catalogue(recipe: SeasonRecipe) -> Any:
    """List the options on which the catalogue alone depends, and the files that they name."""
    asked = recipe.ice_sheet
    files = [state_of(source) for source in (asked.basins, asked.grounded) if source]
    return [recipe.model_dump(mode="json", include=set(OF_THE_CATALOGUE)), files]


def add_beyond(not_seen: Mapping[str, gpd.GeoSeries], ground: Ground) -> dict[str, gpd.GeoSeries]:
    """Add to what each date did not see what none of them looks at."""
    beyond = find_beyond(ground, ground.recipe.track_rules.rim_m)
    return {
        day: gpd.GeoSeries(pd.concat([one, beyond.set_crs(one.crs, allow_override=True)]))
        for day, one in not_seen.items()
    }


def find_beyond(ground: Ground, rim_m: float) -> gpd.GeoSeries:
    """Outline what no date looks at: beyond the area of interest, and a rim beyond the grid."""
    extent = ground.grid.geobox.extent.geom
    wide = extent.buffer(2 * rim_m + ground.grid.pixel_size_m, join_style="mitre")
    return gpd.GeoSeries([wide - find_region(ground).iloc[0]], crs=ground.grid.crs)


def write_tables(tracks: Tracks, folder: Path) -> None:
    """Write lakes with their tracks, states, events, links and the season's summary with fates."""
    for name, table in TABLES.items():
        frame = getattr(tracks, table).reset_index(drop=True)
        publish(folder / name, frame.to_parquet)


def require_dates(dates: Sequence[MappedDate], folder: SeasonFolder) -> None:
    """Refuse a season of which no date could be mapped."""
    if not dates:
        reasons = "; ".join(sorted({one.reason for one in folder.left_out})[:3])
        raise InputError(f"no date could be mapped: {reasons}", str(folder.path), "see quarantine.json there")
