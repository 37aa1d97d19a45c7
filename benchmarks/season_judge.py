"""What a season of `season_scenes` says, beside the truth: identity, drainages, fates, volumes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from benchmarks.season_scenes import day_of_year

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.season_scenes import TrueSeason

_SHARED, _FULL, _RAPID_DAYS, _RIM_M = 0.2, 0.85, 4, 40.0
_LEAST_M2 = 30_000.0
"""Of a smaller lake less than four fifths may be lost for sure, since 5000 m2 may be there unmapped."""
_DAY = pd.Timedelta(days=1)


class Told(NamedTuple):
    """What a run tells."""

    lakes: gpd.GeoDataFrame
    """With ``name``, that of the true lake with which each shares most; 0 where it lies on none."""
    events: pd.DataFrame
    fates: pd.DataFrame
    not_seen: dict[str, Any]
    """Union of what was not seen, by day."""


def read_run(run: Path, truth: dict[str, gpd.GeoDataFrame]) -> Told:
    """Read a season's tables and name its lakes by the truth."""
    lakes = gpd.read_parquet(run / "lakes.parquet")
    names = np.zeros(len(lakes), np.int64)
    for day, true in truth.items():
        rows = np.flatnonzero(lakes.time == pd.Timestamp(day))
        names[rows] = _name(lakes.geometry.to_numpy()[rows], true)
    lakes = lakes.assign(name=names)
    name_of = _track_names(lakes)
    events, fates = (pd.read_parquet(run / f"{table}.parquet") for table in ("events", "catalogue"))
    hidden = {
        day: shapely.union_all(gpd.read_parquet(run / "dates" / day / "not_seen.parquet").geometry) for day in truth
    }
    events, fates = (table.assign(name=table.track_id.map(name_of).fillna(0).astype(int)) for table in (events, fates))
    return Told(lakes, events, fates, hidden)


def _name(shapes: np.ndarray, true: gpd.GeoDataFrame) -> np.ndarray:
    outlines = true.geometry.to_numpy()
    own, other = shapely.STRtree(outlines).query(shapes, predicate="intersects")
    area = shapely.area(shapely.intersection(shapes[own], outlines[other]))
    order = np.argsort(area, kind="stable")
    order = order[area[order] >= _SHARED * shapely.area(shapes[own[order]])]
    names = np.zeros(len(shapes), np.int64)
    names[own[order]] = true.lake_id.to_numpy()[other[order]]
    return names


def _track_names(lakes: gpd.GeoDataFrame) -> pd.Series[int]:
    """Name each track by the true lake that most of its lakes lie on."""
    named = lakes[lakes.name != 0]
    return named.groupby("track_id").name.agg(lambda names: names.value_counts().index[0])


def judge(run: Path, season: TrueSeason, truth: dict[str, gpd.GeoDataFrame], least_m: float = 0.0) -> dict[str, Any]:
    """Compare; figures by name.

    Which lake is which is asked of water that is at least ``least_m`` deep: two bowls whose neck is too shallow to be
    seen are two lakes, and stay those that they were.
    """
    told = read_run(run, truth)
    visible = read_run(run, {day: season.lakes(day, least_m) for day in truth}).lakes
    named = visible[visible.name != 0]
    precision, recall = count_pairs(named.name, named.track_id)
    return {
        "dates": len(truth),
        "true lakes of 5000 m2": len({n for t in truth.values() for n in t.lake_id[t.area_m2 >= 5000]}),
        "mapped outlines": len(told.lakes),
        "mapped outlines on no true lake": int((told.lakes.name == 0).sum()),
        "outlines beyond the first of one true lake on a date": int(named.duplicated(["time", "name"]).sum()),
        "tracks": told.lakes.track_id.nunique(),
        "splits and merges of tracks": len(pd.read_parquet(run / "links.parquet")),
        "identity: precision": precision,
        "identity: recall": recall,
        **_judge_drainages(told, season, truth),
        **_judge_volumes(told, truth),
        **_judge_fates(told, season),
    }


def count_pairs(truth: Any, tracks: Any) -> tuple[float, float]:
    """Give precision and recall of pairs of lakes that are said to be the same."""
    both = pd.DataFrame({"truth": np.asarray(truth), "track": np.asarray(tracks)})
    said, true, right = (
        sum(n * (n - 1) // 2 for n in both.groupby(by).size()) for by in (["track"], ["truth"], ["truth", "track"])
    )
    return right / max(said, 1), right / max(true, 1)


def _judge_drainages(told: Told, season: TrueSeason, truth: dict[str, gpd.GeoDataFrame]) -> dict[str, Any]:
    drained = told.events[(told.events.event == "drained") & (told.events.name != 0)]
    bowls = {name: season.bowl_of(name) for name in set(drained.name)}
    gone = pd.to_datetime(drained.name.map({name: day_of_year(bowl.turned) for name, bowl in bowls.items()}))
    kind = drained.name.map({name: bowl.kind for name, bowl in bowls.items()})
    rapid, sudden = drained.speed == "rapid", kind.isin(["rapid", "refills"])
    inside = (drained.after < gone) & (gone <= drained.before)  # on its first day without water
    sure = _sure_drainages(told, season, truth)
    found = set(drained.name[rapid & inside])
    return {
        "drainages": len(drained),
        "drainages of lakes that freeze or stay": int(kind.isin(["freezes", "stays"]).sum()),
        "rapid drainages": int(rapid.sum()),
        "rapid drainages: precision": float((rapid & sudden).sum() / max(rapid.sum(), 1)),
        "rapid drainages that were seen for sure": len(sure),
        "rapid drainages: recall of these": len(sure & found) / max(len(sure), 1),
        "sudden drainages whose bracket holds the true day": float(inside[sudden].mean()),
    }


def _sure_drainages(told: Told, season: TrueSeason, truth: dict[str, gpd.GeoDataFrame]) -> set[int]:
    """Name lakes that were full and clear, and within four days gone and clear."""
    areas = pd.DataFrame({day: true.set_index("lake_id").area_m2 for day, true in truth.items()}).fillna(0)
    names = set()
    for name in (one for one in areas.index if season.bowl_of(one).kind == "rapid"):
        gone = day_of_year(season.bowl_of(name).turned)
        for before, after in pairwise(truth):
            if not pd.Timestamp(before) < gone <= pd.Timestamp(after):
                continue
            area = areas.loc[name, before]
            shape = truth[before].set_index("lake_id").geometry.get(name)
            is_full = area >= max(_LEAST_M2, _FULL * areas.loc[name].max())
            if not is_full or pd.Timestamp(after) - pd.Timestamp(before) > _RAPID_DAYS * _DAY:
                continue
            wide = shape.buffer(_RIM_M)
            is_clear = not any(wide.intersects(told.not_seen[day]) for day in (before, after))
            if is_clear and shapely.box(*season.region.grid.bounds_xyxy).contains(wide):
                names.add(name)
    return names


def _judge_volumes(told: Told, truth: dict[str, gpd.GeoDataFrame]) -> dict[str, Any]:
    """Compare volumes of lakes that were seen whole with the true ones, in true areas."""
    true = pd.concat([one.assign(time=pd.Timestamp(day)) for day, one in truth.items()])
    true = pd.DataFrame({
        "time": true.time, "name": true.lake_id, "true_m3": true.volume_m3, "lid": true.lid_share,
    })  # fmt: skip
    lakes = pd.DataFrame(told.lakes.drop(columns="geometry")).merge(true, on=["time", "name"])
    lakes = lakes[(lakes.seen_share > 0.99) & ~lakes.duplicated(["time", "name"], keep=False)]
    known = lakes[(lakes.volume_reason == "known")]
    bright = lakes[(lakes.rt_reason == "known") & (lakes.lid < 0.02) & (lakes.rt_saturated_share < 0.05)]
    off, rt_off = ((one / lakes.true_m3 - 1).abs() for one in (known.volume_m3, bright.rt_volume_m3))
    within = known.true_m3.between(known.volume_low_m3, known.volume_high_m3)
    return {
        "lakes seen whole": len(lakes),
        "volumes by the bed known": len(known),
        "volumes by the bed: median error": float(off.median()),
        "true volume within the interval": float(within.mean()),
        "volumes by reflectance known, open, not saturated": len(bright),
        "volumes by reflectance: median error": float(rt_off.median()),
    }


def _judge_fates(told: Told, season: TrueSeason) -> dict[str, Any]:
    true = told.fates.name[told.fates.name != 0].map(lambda name: season.bowl_of(name).kind)
    table = pd.crosstab(true, told.fates.fate[told.fates.name != 0])
    return {f"fate, truly {row}": ", ".join(f"{count} {name}" for name, count in table.loc[row].items() if count)
            for row in table.index}  # fmt: skip
