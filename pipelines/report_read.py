"""What a run or a season tells of itself, read from its folder: for the report."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd
from pyproj import CRS
from pyproj.exceptions import CRSError

from lakescale.schema import AREA_M2, KEPT, LAKE_TIME, REASON, InputError
from lakescale.series.rules import FATE, SEASON, STATE, TRACK_ID
from pipelines.run_folder import CANDIDATES_FILE, DATES, LAKES_FILE, MANIFEST, QUARANTINE, RECIPE

if TYPE_CHECKING:
    from pathlib import Path

DATE = "date"
"""Column: which date of the report a row is of, from 0."""
WHY = "fate_reason"
"""Column: the fate of a lake's track in a sentence."""
_FINISHED, _PARTIAL = "finished", "partial"
_UNDATED, _ISO = "no date told", "%Y-%m-%d"
_DAY = re.compile(r"\bdate (\d{4}-\d{2}-\d{2})")
_PRODUCTS = "catalogue"


@dataclass(frozen=True)
class Frame:
    """The grid that a page draws on, with its rows and columns along the axes of its CRS."""

    crs: CRS | None
    left: float
    bottom: float
    right: float
    top: float
    shape: tuple[int, int]

    @property
    def pixel(self) -> float:
        """Side of a pixel, in units of the CRS."""
        return (self.right - self.left) / self.shape[1]

    @property
    def crs_name(self) -> str:
        """Name of the CRS with its code, where it has one."""
        if self.crs is None:
            return "no CRS told"
        code = self.crs.to_authority()
        return f"{self.crs.name} ({':'.join(code)})" if code else self.crs.name


@dataclass(frozen=True, eq=False, kw_only=True)
class DateTold:
    """A date: its folder, and what its manifest says."""

    day: str
    folder: Path
    manifest: dict[str, Any]
    season: int | None = None
    """The melt season, where dates were tracked."""

    @property
    def seen_share(self) -> float | None:
        """Share (0..1) of the grid that was seen; None where the run does not tell."""
        return self.manifest.get("seen_share")


@dataclass(frozen=True, eq=False, kw_only=True)
class Told:
    """All that a folder tells."""

    folder: Path
    is_season: bool
    manifest: dict[str, Any]
    recipe: str
    """YAML."""
    frame: Frame
    dates: tuple[DateTold, ...]
    lakes: gpd.GeoDataFrame = field(repr=False)
    """Of all dates, with `DATE`; of a season with state, fate and `WHY`, too."""
    dropped: gpd.GeoDataFrame = field(repr=False)
    """Candidates that are no lakes, with `DATE`."""
    tracks: gpd.GeoDataFrame | None = field(default=None, repr=False)
    """One row a track and season; None for a single run."""
    states: pd.DataFrame | None = field(default=None, repr=False)
    """One row a track and date, with `DATE`."""
    events: pd.DataFrame | None = field(default=None, repr=False)
    totals: pd.DataFrame | None = field(default=None, repr=False)
    """One row a date, with `DATE`, as of the catalogue's ``totals``."""
    left_out: tuple[dict[str, Any], ...] = ()
    about: dict[str, Any] = field(default_factory=dict)
    """The catalogue's ``provenance.json``."""


def read_told(folder: Path) -> Told:
    """Read the folder of a finished run, or of a season.

    Raises
    ------
    InputError
        When it holds neither, or the run is not finished, or a file is damaged.
    """
    manifest = _read_json(folder / MANIFEST)
    if not isinstance(manifest.get("versions"), dict):
        raise InputError("the folder holds no run", str(folder), "give the --out of lakescale map or lakescale season")
    is_season = "season" in manifest
    state, command = manifest.get("state"), "season" if is_season else "map"
    if state not in (_FINISHED, _PARTIAL):
        why = f": {manifest['error']}" if manifest.get("error") else ""
        raise InputError(f"the run is not finished, its state is {state}{why}", str(folder), f"lakescale {command}")
    try:
        return _read_season(folder, manifest) if is_season else _read_run(folder, manifest)
    except (KeyError, ValueError, TypeError, OSError, CRSError) as error:
        damaged = f"{type(error).__name__}: {error}".splitlines()[0]
    raise InputError(f"the run cannot be read: {damaged}", str(folder), f"run it again: lakescale {command}")


def _read_run(folder: Path, manifest: dict[str, Any]) -> Told:
    lakes, grid = gpd.read_parquet(folder / LAKES_FILE), manifest["grid"]
    left, bottom, right, top = grid["bounds"]
    frame = Frame(CRS.from_user_input(grid["crs"]), left, bottom, right, top, tuple(grid["shape"]))
    date = DateTold(day=_find_day(manifest, lakes), folder=folder, manifest=manifest)
    return Told(
        folder=folder,
        is_season=False,
        manifest=manifest,
        recipe=_read_text(folder / RECIPE),
        frame=frame,
        dates=(date,),
        lakes=lakes.assign(**{DATE: 0}),
        dropped=_read_dropped([date], lakes),
    )


def _read_season(folder: Path, manifest: dict[str, Any]) -> Told:
    lakes, states = gpd.read_parquet(folder / LAKES_FILE), pd.read_parquet(folder / "tracks.parquet")
    tracks = gpd.read_parquet(folder / "catalogue.parquet")
    totals = _read_totals(folder / _PRODUCTS / "totals.csv")
    days = sorted(str(day) for day in manifest["season"]["dates"] if (folder / DATES / str(day) / LAKES_FILE).exists())
    number = {day: k for k, day in enumerate(days)}
    seasons = {_day(time): int(season) for time, season in zip(states[LAKE_TIME], states[SEASON], strict=True)}
    dates = tuple(
        DateTold(
            day=day, folder=(at := folder / DATES / day), manifest=_read_json(at / MANIFEST), season=seasons.get(day)
        )
        for day in days
    )
    quarantine = _read_json(folder / QUARANTINE, list)
    return Told(
        folder=folder,
        is_season=True,
        manifest=manifest,
        recipe=_read_text(folder / RECIPE),
        frame=_frame_of(manifest["season"]["grid"]),
        dates=dates,
        lakes=_tell_fates(_numbered(lakes, number), states, tracks),
        dropped=_read_dropped(dates, lakes),
        tracks=tracks,
        states=_numbered(states, number),
        events=pd.read_parquet(folder / "events.parquet"),
        totals=None if totals is None else _numbered(totals, number),
        left_out=tuple(one for one in quarantine if isinstance(one, dict)),
        about=_read_json(folder / _PRODUCTS / "provenance.json"),
    )


def _read_date(folder: Path, season: int | None) -> DateTold:
    return DateTold(day=folder.name, folder=folder, manifest=_read_json(folder / MANIFEST), season=season)


def _frame_of(grid: dict[str, Any]) -> Frame:
    (height, width), (step, _, left, _, down, top) = grid["shape"], grid["transform"]
    return Frame(CRS.from_user_input(grid["crs"]), left, top + height * down, left + width * step, top, (height, width))


def _tell_fates(lakes: gpd.GeoDataFrame, states: pd.DataFrame, tracks: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Give each lake the state of its track on its date, and the fate of its season."""
    keys = [TRACK_ID, LAKE_TIME]
    told = lakes.merge(states[[*keys, STATE, SEASON]], on=keys, how="left")
    fates = pd.DataFrame(tracks[[TRACK_ID, SEASON, FATE, REASON]]).rename(columns={REASON: WHY})
    return told.merge(fates, on=[TRACK_ID, SEASON], how="left")


def _read_dropped(dates: list[DateTold] | tuple[DateTold, ...], like: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Read the candidates that are no lakes."""
    found = []
    for k, date in enumerate(dates):
        path = date.folder / CANDIDATES_FILE
        if path.exists():
            candidates = gpd.read_parquet(path)
            found.append(candidates[candidates[REASON] != KEPT].assign(**{DATE: k}))
    if not found:
        return gpd.GeoDataFrame({DATE: [], REASON: [], AREA_M2: []}, geometry=[], crs=like.crs)
    return pd.concat(found, ignore_index=True)


def _numbered(frame: Any, number: dict[str, int]) -> Any:
    """Say of each row which date it is of; rows of other dates go."""
    rows = pd.to_datetime(frame[LAKE_TIME]).dt.strftime(_ISO).map(number)
    return frame[rows.notna()].assign(**{DATE: rows.dropna().astype(int)}).reset_index(drop=True)


def _read_totals(path: Path) -> pd.DataFrame | None:
    return pd.read_csv(path, parse_dates=[LAKE_TIME]) if path.exists() else None


def _find_day(manifest: dict[str, Any], lakes: gpd.GeoDataFrame) -> str:
    """Find the date of a run: told, or that of its lakes, or in its notes."""
    if manifest.get(DATE):
        return str(manifest[DATE])
    if len(lakes):
        return _day(lakes[LAKE_TIME].iloc[0])
    noted = (_DAY.search(str(note)) for note in manifest.get("notes", ()))
    return next((match[1] for match in noted if match), _UNDATED)


def _day(time: Any) -> str:
    return pd.Timestamp(time).strftime(_ISO)


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _read_json(path: Path, kind: type[Any] = dict) -> Any:
    """Read a file of JSON; empty where there is none, or it is damaged."""
    try:
        return kind(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return kind()
