"""Tracks against sets of cells and plain loops, against the truth of made-up seasons, and case by case."""

from __future__ import annotations

import doctest

import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from plain_tracking import (
    CELL_M,
    CRS,
    DATES,
    Season,
    box_cells,
    count_pairs,
    frame_of,
    hidden_seasons,
    lattice_days,
    observe,
    outline,
    plain_track,
)

import lakescale.series.tracking
from lakescale.schema import InputError
from lakescale.series import TrackRules, find_basins, track
from lakescale.synthetic import Scenery, make_region
from lakescale.synthetic.basins import fill_basin

LAKE, HALF, REST, NONE = box_cells(0, 0, 8, 10), box_cells(0, 0, 8, 5), box_cells(0, 0, 4, 3), frozenset()
ALL_RULES = TrackRules(frost_from=None)


def dated(*days, month=7, **columns):
    """Frames by day of the month."""
    return {f"2019-{month:02d}-{day:02d}": frame_of([x for x in lakes if x], **columns) for day, *lakes in days}


def polygons(*cells):
    return gpd.GeoDataFrame(geometry=[outline(c) for c in cells if c], crs=CRS)


def clear(lakes, **hidden):
    """Evidence for each date: nothing, but what is named by day."""
    return {date: polygons(*hidden.get(f"day{int(date[-2:])}", ())) for date in lakes}


def fate_of(tracks, track_id=1):
    row = tracks.summary.set_index("track_id").loc[track_id]
    return row["fate"], str(row["drained_after"])[:10], str(row["drained_before"])[:10]


def states_of(tracks, track_id=1):
    return tracks.states[tracks.states.track_id == track_id].state.tolist()


def links_of(tracks):
    return [(str(row.time)[8:10], row.link, row.parent, row.child) for row in tracks.links.itertuples()]


# -- identity


@given(days=lattice_days())
def test_ids_links_and_ground_equal_a_plain_loop_over_sets_of_cells(days):
    times = pd.date_range("2019-07-01", periods=len(days))
    tracks = track({time: frame_of(lakes) for time, lakes in zip(times, days, strict=True)})
    names, links, ground = plain_track(days)
    found = tracks.lakes.groupby("time").track_id.agg(list).reindex(times)
    assert [[] if not isinstance(ids, list) else ids for ids in found] == names
    for time, expected in zip(times, links, strict=True):
        rows = tracks.links[tracks.links.time == time]
        assert set(zip(rows["link"], rows.parent, rows.child, strict=True)) == expected
        assert len(rows) == len(expected)
    for shape, cells in zip(tracks.basins.geometry, ground, strict=True):
        assert shapely.area(shapely.symmetric_difference(shape, outline(cells))) < 1e-6


@settings(max_examples=20)
@given(days=lattice_days(), seed=st.integers(0, 99), parts=st.integers(1, 3))
def test_neither_rows_nor_partitions_nor_the_order_of_dates_matter(days, seed, parts):
    times = pd.date_range("2019-07-01", periods=len(days))
    by_date = {time: frame_of(lakes) for time, lakes in zip(times, days, strict=True)}
    one = track(by_date)
    rows = pd.concat([frame.assign(time=time) for time, frame in by_date.items()])
    mixed = rows.sample(frac=1, random_state=seed).reset_index(drop=True)
    lazy = dask_geopandas.from_geopandas(mixed, npartitions=parts) if len(mixed) else mixed
    other = track(lazy, dates=times[::-1])
    for name in ("states", "events", "links", "summary", "basins"):
        assert_frame_equal(pd.DataFrame(getattr(one, name)), pd.DataFrame(getattr(other, name)))
    keys = ["time", "lake_id", "track_id"]
    assert_frame_equal(
        pd.DataFrame(one.lakes[keys]).sort_values(keys, ignore_index=True),
        pd.DataFrame(other.lakes[keys]).sort_values(keys, ignore_index=True),
    )


@settings(max_examples=20)
@given(days=lattice_days(most=5), cut=st.integers(1, 4))
def test_later_dates_change_no_id_whether_appended_or_continued(days, cut):
    times = [pd.Timestamp("2019-12-30") + pd.Timedelta(days=k) for k in range(len(days))]  # over the year's end
    by_date = {time: frame_of(lakes) for time, lakes in zip(times, days, strict=True)}
    early, late = (
        {t: f for t, f in by_date.items() if (t < times[0] + pd.Timedelta(days=cut)) == first}
        for first in (True, False)
    )
    whole, start = track(by_date), track(early)
    assert whole.lakes.track_id.tolist()[: len(start.lakes)] == start.lakes.track_id.tolist()
    if late:
        continued = track(late, previous=start)
        assert continued.lakes.track_id.tolist() == whole.lakes.track_id.tolist()
        assert_frame_equal(continued.links, whole.links)
        assert_frame_equal(pd.DataFrame(continued.basins), pd.DataFrame(whole.basins))


def test_a_lake_that_shrank_was_hidden_and_moved_about_its_basin_keeps_its_id():
    far_end = box_cells(0, 8, 2, 2)
    lakes = dated((1, LAKE), (5, REST), (9,), (13, far_end), (17, LAKE))
    tracks = track(lakes, not_seen=clear(lakes, day9=[LAKE]))
    assert tracks.lakes.track_id.tolist() == [1, 1, 1, 1]
    assert states_of(tracks) == ["water", "water", "not seen", "water", "water"]
    np.testing.assert_allclose(tracks.states.area_m2, np.array([80, 12, np.nan, 4, 80]) * CELL_M**2)


def test_lakes_that_merge_and_part_get_back_their_names():
    west, east, both = box_cells(0, 0, 4, 4), box_cells(0, 6, 4, 3), box_cells(0, 0, 4, 9)
    tracks = track(dated((1, west, east), (3, both), (5, both), (7, east, west)))
    assert tracks.lakes.track_id.tolist() == [1, 2, 1, 1, 2, 1]
    assert links_of(tracks) == [("03", "merge", 2, 1), ("07", "split", 1, 2)]
    second = tracks.states[tracks.states.track_id == 2]
    assert second.in_track.fillna(0).tolist() == [0, 1, 1, 0]
    assert second.state.tolist() == ["water"] * 4


def test_a_part_that_splits_off_is_a_track_with_its_parent():
    west, east = box_cells(0, 0, 4, 4), box_cells(0, 6, 4, 3)
    tracks = track(dated((1, box_cells(0, 0, 4, 9)), (3, west, east), (5, east)))
    assert tracks.lakes.track_id.tolist() == [1, 1, 2, 2]
    assert links_of(tracks) == [("03", "split", 1, 2)]
    assert tracks.basins.geometry.area.tolist() == [24 * CELL_M**2, 12 * CELL_M**2]


def test_who_merges_for_good_has_the_fate_merged():
    west, east, both = box_cells(0, 0, 4, 4), box_cells(0, 6, 4, 3), box_cells(0, 0, 4, 9)
    tracks = track(dated((1, west, east), (3, both), (5,), month=6))
    assert fate_of(tracks, 2)[0] == "merged"
    assert tracks.summary.reason[1] == "its water was part of track 1 when last seen"
    assert fate_of(tracks) == ("drained rapidly", "2019-06-03", "2019-06-05")


def test_a_lake_cut_in_two_by_cloud_is_one_lake():
    band, parts = box_cells(-2, 4, 12, 2), (box_cells(0, 0, 8, 4), box_cells(0, 6, 8, 4))
    lakes = dated((1, LAKE), (3, *parts))
    tracks = track(lakes, not_seen=clear(lakes, day3=[band]))
    assert tracks.lakes.track_id.tolist() == [1, 1, 1]
    assert tracks.states.lakes.tolist() == [1, 2]
    assert tracks.links.empty
    assert track(lakes).links["link"].tolist() == ["split"]  # without the cloud they are two


def test_parts_that_cloud_made_go_over_to_the_lake_when_it_is_seen_whole():
    band, parts = box_cells(-2, 4, 12, 2), (box_cells(0, 0, 8, 4), box_cells(0, 6, 8, 4))
    lakes = dated((1, *parts), (3, LAKE), (5, REST), (7,))
    tracks = track(lakes, not_seen=clear(lakes, day1=[band]))
    assert tracks.lakes.track_id.tolist() == [1, 2, 1, 1]
    assert tracks.basins.absorbed.tolist() == [False, True]
    assert tracks.basins.geometry[0].equals(outline(LAKE))
    assert set(tracks.events[tracks.events.event == "drained"].track_id) == {1}
    assert fate_of(tracks, 2)[0] == "merged"


# -- states


def test_states_one_by_one():
    early = dated((1, LAKE), (2, LAKE), (3, HALF), (4,), (5,), (6,), (7,), (8,), (9,), (10, LAKE))
    lid = {date: polygons() for date in early} | {
        "2019-07-02": polygons(box_cells(0, 0, 8, 6)),
        "2019-07-08": polygons(LAKE),
        "2019-07-09": polygons(LAKE),
    }
    not_seen = clear(early, day3=[box_cells(0, 5, 8, 9)], day5=[HALF], day6=[LAKE], day7=[box_cells(0, 0, 1, 8)])
    tracks = track(
        early, not_seen=not_seen, lids=lid, snow={"2019-07-09": polygons(LAKE)}, rules=TrackRules(min_area_m2=0)
    )
    expected = [
        "water",
        "lidded",
        "partly seen",
        "empty",
        "partly seen",
        "not seen",
        "empty",
        "lidded",
        "snow",
        "water",
    ]
    assert states_of(tracks) == expected
    rows = tracks.states.set_index(tracks.states.time.dt.day)
    assert rows.seen_share[[3, 5, 6, 7]].tolist() == [0.5, 0.5, 0, 0.9]
    assert rows.least_water[[1, 2, 3, 4]].tolist() == [1, 0.4, 0.5, 0]
    assert rows.most_water[[1, 2, 3, 4, 5, 6, 7, 8]].tolist() == [1, 1, 1, 0, 0.5, 1, 0.1, 1]
    assert rows.lid_share[[1, 2, 8, 9]].tolist() == [0, 0.6, 1, 1]
    assert rows.whole.tolist() == [True, True] + [False] * 7 + [True]


def test_columns_of_lakes_tell_what_was_seen_and_what_is_under_a_lid():
    frame = pd.concat(dated((1, LAKE)).values()).assign(time=pd.Timestamp("2019-07-01"))
    assert states_of(track(frame.assign(seen_share=0.9))) == ["partly seen"]
    tracks = track(frame.assign(lid_share=0.6))
    assert states_of(tracks) == ["lidded"]
    assert tracks.states[["least_water", "most_water", "lid_share"]].iloc[0].tolist() == [0.4, 1, 0.6]


def test_dry_or_lidded_is_not_told_apart_late_in_the_season_unless_lids_were_assessed():
    lakes = {"2019-08-12": frame_of([LAKE]), "2019-08-14": frame_of([]), "2019-08-16": frame_of([])}
    assert states_of(track(lakes)) == ["water", "empty", "dry or lidded"]
    lakes.pop("2019-08-14")
    assert fate_of(track(lakes)) == ("unknown", "NaT", "NaT")
    reason = "water when last seen, 2019-08-12; later no water was seen, but a lid may hide it"
    assert track(lakes).summary.reason[0] == reason
    assert fate_of(track(lakes, lids=dict.fromkeys(lakes, polygons())))[0] == "drained rapidly"
    assert fate_of(track(lakes, rules=ALL_RULES))[0] == "drained rapidly"


def test_ground_that_looks_like_water_is_not_empty_where_no_lake_was_outlined():
    lakes = dated((1, LAKE), (3,), (7,))
    assert fate_of(track(lakes)) == ("drained rapidly", "2019-07-01", "2019-07-03")
    tracks = track(lakes, wet={"2019-07-03": polygons(LAKE)})
    assert states_of(tracks) == ["water", "not outlined", "empty"]
    assert tracks.states.most_water.tolist()[:2] == [1, 1]
    assert fate_of(tracks) == ("drained, speed unknown", "2019-07-01", "2019-07-07")
    tracks = track(lakes, wet={day: polygons(LAKE) for day in ("2019-07-03", "2019-07-07")})
    reason = "water when last seen, 2019-07-01; later its ground looked like water, but no lake was outlined"
    assert (fate_of(tracks)[0], tracks.summary.reason[0]) == ("unknown", reason)
    some = polygons(box_cells(0, 0, 8, 3))  # less than half of the ground
    assert states_of(track(lakes, wet={"2019-07-03": some})) == ["water", "empty", "empty"]


def test_wet_ground_says_nothing_of_a_basin_that_holds_a_lake_or_was_not_seen():
    lakes = dated((1, LAKE), (3, HALF), (7,))
    wet = {day: polygons(LAKE) for day in lakes}
    assert_frame_equal(track(lakes).states.iloc[:2], track(lakes, wet=wet).states.iloc[:2])
    hidden = clear(lakes, day7=[LAKE])
    assert states_of(track(lakes, not_seen=hidden, wet=wet))[-1] == "not seen"


# -- fates and brackets


@pytest.mark.parametrize(("gap", "fate"), [(4, "drained rapidly"), (5, "drained, speed unknown")])
def test_a_loss_within_four_days_is_rapid(gap, fate):
    tracks = track(dated((1, HALF), (3, LAKE), (3 + gap,), (3 + gap + 9,)))
    assert fate_of(tracks) == (fate, "2019-07-03", f"2019-07-{3 + gap:02d}")


def test_cloud_between_full_and_empty_widens_the_bracket_and_nothing_is_rapid():
    lakes = dated((1, LAKE), (3,), (7,))
    assert fate_of(track(lakes)) == ("drained rapidly", "2019-07-01", "2019-07-03")
    for hidden in (LAKE, box_cells(0, 0, 8, 3)):  # wholly, or more of it than a drained lake may keep
        tracks = track(lakes, not_seen=clear(lakes, day3=[hidden]))
        assert fate_of(tracks) == ("drained, speed unknown", "2019-07-01", "2019-07-07")
    tracks = track(lakes, not_seen=clear(lakes, day3=[LAKE], day7=[LAKE]))
    assert fate_of(tracks) == ("unknown", "NaT", "NaT")
    assert tracks.events.event.tolist() == ["filled"]


def test_a_lake_never_seen_whole_is_not_known_to_have_drained():
    lakes = dated((1, HALF), (3,))
    tracks = track(lakes, not_seen=clear(lakes, day1=[box_cells(0, 5, 8, 5)]))
    assert fate_of(tracks)[0] == "unknown"
    assert fate_of(track(lakes))[0] == "drained rapidly"


def test_dates_that_span_days_widen_brackets():
    lakes = dated((5, LAKE), (8,))
    spans = {"2019-07-05": ("2019-07-04", "2019-07-06"), "2019-07-08": ("2019-07-08", "2019-07-09")}
    assert fate_of(track(lakes)) == ("drained rapidly", "2019-07-05", "2019-07-08")
    assert fate_of(track(lakes, dates=spans)) == ("drained, speed unknown", "2019-07-04", "2019-07-09")


def test_a_lake_below_what_is_mapped_is_not_taken_for_drained():
    lakes = dated((1, box_cells(0, 0, 1, 2)), (3,))  # 20,000 m2, of which 4,900 may be left
    assert fate_of(track(lakes))[0] == "unknown"
    assert states_of(track(lakes)) == ["water", "empty"]
    tracks = track(lakes, rules=TrackRules(min_area_m2=900.0))
    assert fate_of(tracks)[0] == "drained rapidly"
    assert 0.94 < tracks.summary.lost_share[0] < 0.97


def test_slow_is_what_was_seen_on_its_way_for_longer():
    steps = [(1, LAKE), (6, box_cells(0, 0, 8, 7)), (9, HALF), (12, box_cells(0, 0, 8, 3)), (20,)]
    assert fate_of(track(dated(*steps))) == ("drained slowly", "2019-07-01", "2019-07-20")
    once = track(dated(steps[0], steps[2], steps[4]))  # may have been on its way by chance
    assert fate_of(once) == ("drained, speed unknown", "2019-07-01", "2019-07-20")


@pytest.mark.parametrize(("cells", "drained"), [(16, True), (17, False)])
def test_four_fifths_must_be_lost(cells, drained):
    rest = frozenset(sorted(LAKE)[:cells])
    events = track(dated((1, LAKE), (3, rest))).events
    assert (events.event == "drained").any() == drained
    assert not drained or events.lost_share.max() == pytest.approx(0.8)


def test_a_lake_that_comes_back_at_the_next_sight_did_not_drain_rapidly():
    doubted = track(dated((1, LAKE), (3,), (8, HALF), (15, LAKE)))
    assert doubted.events[["event", "speed"]].values.tolist() == [
        ["filled", ""],
        ["drained", "unknown"],
        ["refilled", ""],
    ]
    assert doubted.events[doubted.events.event == "refilled"].before.dt.day.tolist() == [8]
    confirmed = track(dated((1, LAKE), (3,), (5,), (15, LAKE)))
    assert confirmed.events.speed.tolist() == ["", "rapid", ""]
    assert fate_of(confirmed) == ("refilled", "2019-07-01", "2019-07-03")
    again = track(dated((1, LAKE), (3,), (5,), (15, LAKE), (25,)))
    assert fate_of(again) == ("drained, speed unknown", "2019-07-15", "2019-07-25")
    assert again.events.event.tolist() == ["filled", "drained", "refilled", "drained"]


def test_lids_and_snow_are_no_drainage():
    lakes = dated((1,), (3, LAKE), (5, LAKE), (7,), (9,), month=8)
    lids = clear(lakes, day7=[LAKE], day9=[LAKE])
    frozen = track(lakes, lids=lids)
    assert fate_of(frozen) == ("frozen over", "NaT", "NaT")
    assert frozen.events[["event", "after", "before"]].astype(str).values.tolist() == [
        ["filled", "2019-08-01", "2019-08-03"],
        ["frozen over", "2019-08-05", "2019-08-07"],
    ]
    buried = track(lakes, lids=lids, snow={"2019-08-09": polygons(LAKE)})
    assert fate_of(buried)[0] == "buried"
    assert buried.events.event.tolist() == ["filled", "frozen over", "snowed over"]
    assert buried.summary.reason[0] == "snow over it when last seen, 2019-08-09"
    assert fate_of(track(lakes))[0] == "drained rapidly"


def test_ice_on_a_drained_basin_does_not_undo_the_drainage():
    lakes = dated((1, LAKE), (3,), (20,))
    assert fate_of(track(lakes, lids=clear(lakes, day20=[LAKE])))[0] == "drained rapidly"


@given(season=hidden_seasons())
@settings(max_examples=50)
def test_what_was_not_seen_never_makes_a_drainage(season):
    days, basins, _, _ = season
    lakes, not_seen, lids = observe(season)
    tracks = track(lakes, not_seen=not_seen, lids=lids, rules=ALL_RULES)
    place = {time: k for k, time in enumerate(lakes)}
    for event in tracks.events[tracks.events.event == "drained"].itertuples():
        x = tracks.lakes[tracks.lakes.track_id == event.track_id].geometry.iloc[0].bounds[0]
        water = [len(cells) for cells in basins[int(x // (20 * CELL_M))]]
        after, before = place[event.after], place[event.before]
        assert water[before] <= 0.5 * water[after]
        assert (event.speed == "rapid") <= (days[before] - days[after] <= 4)


# -- seasons


def test_a_track_crosses_seasons():
    lakes = {
        "2018-07-01": frame_of([LAKE]), "2018-07-03": frame_of([]),
        "2019-07-01": frame_of([HALF]), "2019-07-09": frame_of([]),
    }  # fmt: skip
    tracks = track(lakes)
    assert tracks.lakes.track_id.tolist() == [1, 1]
    assert tracks.summary[["season", "fate"]].values.tolist() == [
        [2018, "drained rapidly"],
        [2019, "drained, speed unknown"],
    ]
    assert tracks.summary.max_area_m2.tolist() == [80 * CELL_M**2, 40 * CELL_M**2]
    years = list(lakes.items())
    later = track(dict(years[2:]), previous=track(dict(years[:2])))
    for name in ("states", "events", "links", "summary", "basins", "lakes"):
        assert_frame_equal(pd.DataFrame(getattr(later, name)), pd.DataFrame(getattr(tracks, name)))


def test_an_antarctic_season_crosses_the_new_year():
    lakes = {"2019-12-30": frame_of([LAKE]), "2020-01-02": frame_of([])}
    south = track(lakes, rules=TrackRules.preset("antarctica"))
    assert south.summary[["season", "fate"]].values.tolist() == [[2020, "drained rapidly"]]
    assert track(lakes, rules=ALL_RULES).summary.fate.tolist() == ["unknown"]  # two seasons
    assert TrackRules.preset("antarctica").is_frosty(pd.Timestamp("2020-03-01"))
    assert not TrackRules.preset("antarctica").is_frosty(pd.Timestamp("2019-12-01"))


def test_the_summary_tells_days_of_water_and_the_largest_extent():
    tracks = track(dated((1,), (3, HALF), (5, LAKE), (7, HALF)))
    row = tracks.summary.iloc[0]
    assert [str(row[name])[:10] for name in ("first_water", "last_water", "max_time")] == [
        "2019-07-03",
        "2019-07-07",
        "2019-07-05",
    ]
    assert row.max_area_m2 == 80 * CELL_M**2
    assert row.geometry.equals(outline(LAKE))
    assert row.extent_m2 == pytest.approx(80 * CELL_M**2, rel=0.1)  # true, while max_area_m2 is as it was given
    assert row.reason == "water when last seen, 2019-07-07"


def test_true_areas_are_computed_where_they_are_not_given():
    lakes = {date: frame.drop(columns="area_m2") for date, frame in dated((1, LAKE)).items()}
    area = track(lakes).lakes.area_m2[0]
    geod = gpd.GeoSeries([outline(LAKE)], crs=CRS).segmentize(50).to_crs(6931).area[0]
    assert area == pytest.approx(geod, rel=1e-6)
    assert abs(area / (80 * CELL_M**2) - 1) > 0.01


def test_a_catalogue_without_lakes():
    tracks = track({"2019-07-01": frame_of([]), "2019-07-09": frame_of([])})
    for name in ("lakes", "states", "events", "links", "summary", "basins"):
        assert len(getattr(tracks, name)) == 0
    full = track(dated((1, LAKE), (3,)))
    for name in ("states", "events", "links", "summary", "basins"):
        assert_frame_equal(
            pd.DataFrame(getattr(tracks, name)), pd.DataFrame(getattr(full, name)).iloc[:0], check_index_type=False
        )
    assert len(track(dated((12, LAKE)), previous=tracks).summary) == 1


# -- rules


@pytest.mark.parametrize(
    ("change", "fate"),
    [
        ({"lost_share": 0.5}, "drained, speed unknown"),
        ({"lost_share": 0.5, "rapid_days": 8}, "drained rapidly"),
        ({"lost_share": 0.5, "refill_share": 0.1}, "refilled"),
        ({}, "unknown"),
    ],
)
def test_rules_on_losses_change_fates(change, fate):
    lakes = dated((1, LAKE), (8, box_cells(0, 0, 8, 4)), (12, HALF))
    assert fate_of(track(lakes, rules=TrackRules(**change)))[0] == fate


@pytest.mark.parametrize(
    ("change", "states"),
    [
        ({}, ["water", "lidded", "partly seen", "partly seen", "partly seen"]),
        ({"lid_share": 0.7}, ["water", "water", "partly seen", "partly seen", "partly seen"]),
        ({"min_seen": 0.8}, ["water", "lidded", "partly seen", "empty", "partly seen"]),
        ({"min_seen": 0.5, "min_rim_seen": 0.1}, ["water", "lidded", "water", "empty", "partly seen"]),
        ({"least_seen": 0.25}, ["water", "lidded", "partly seen", "partly seen", "not seen"]),
        ({"rim_m": 300.0}, ["partly seen", "lidded", "partly seen", "partly seen", "partly seen"]),
    ],
)
def test_rules_on_sight_change_states(change, states):
    lakes = dated((1, LAKE), (2, LAKE), (3, HALF), (4,), (5,))
    lids = clear(lakes, day2=[box_cells(0, 0, 8, 6)])
    near = box_cells(0, 12, 8, 8)
    hidden = clear(
        lakes, day1=[near], day3=[box_cells(0, 5, 8, 5)], day4=[box_cells(0, 0, 8, 2)], day5=[box_cells(0, 0, 8, 8)]
    )
    assert states_of(track(lakes, not_seen=hidden, lids=lids, rules=TrackRules(**change))) == states


def test_rules_on_overlap_and_fullness_change_answers():
    shifted = box_cells(0, 7, 8, 10)
    assert track(dated((1, LAKE), (3, shifted))).lakes.track_id.tolist() == [1, 1]
    assert track(dated((1, LAKE), (3, shifted)), rules=TrackRules(min_overlap=0.4)).lakes.track_id.tolist() == [1, 2]
    lakes = dated((1, LAKE), (3, box_cells(0, 0, 8, 7)), (6,))
    assert fate_of(track(lakes)) == ("drained, speed unknown", "2019-07-01", "2019-07-06")
    assert fate_of(track(lakes, rules=TrackRules(full_share=0.7))) == ("drained rapidly", "2019-07-03", "2019-07-06")


@pytest.mark.parametrize(
    "wrong",
    [{"min_overlap": 0}, {"lost_share": 1.2}, {"rapid_days": 0}, {"rim_m": np.inf}, {"frost_from": (13, 1)},
     {"season_from": None}, {"min_seen": True}, {"min_area_m2": -1.0}],
)  # fmt: skip
def test_rules_that_mean_nothing_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrackRules(**wrong)


def test_there_is_no_other_preset():
    with pytest.raises(InputError, match="greenland"):
        TrackRules.preset("alps")


# -- bad input


def refused(lakes, match, **options):
    with pytest.raises(InputError, match=match):
        track(lakes, **options)


def test_the_same_date_twice_is_refused():
    frame = frame_of([LAKE])
    refused({"2019-07-01": frame, pd.Timestamp("2019-07-01"): frame}, "the same date twice.*2019-07-01")
    row = frame.assign(time=pd.Timestamp("2019-07-01"))
    refused(pd.concat([row, row]), "a lake is there twice.*lake 1")
    refused(pd.concat([row, row.assign(lake_id=2)]), "lie on each other.*lakes 1 and 2|lakes 2 and 1")
    refused(row, "the same date twice", dates=["2019-07-01", "2019-07-01"])


def test_dates_that_are_not_later_are_refused():
    first = track(dated((5, LAKE)))
    for day in (4, 5):
        refused(dated((day, LAKE)), "not after those of the previous.*2019-07-05", previous=first)
    refused({"2019-07-02": frame_of([LAKE]).assign(time=pd.Timestamp("2019-07-01"))}, "of another date")
    refused(dated((1, LAKE)), "ends before it begins", dates={"2019-07-01": ("2019-07-02", "2019-07-01")})
    refused({"soon": frame_of([LAKE])}, "dates that cannot be read")
    refused(frame_of([LAKE]).assign(time=pd.NaT), "a date is missing")
    refused(frame_of([LAKE]).assign(time=pd.Timestamp("2019-07-01", tz="UTC")), "without a zone")


def test_lakes_that_cannot_be_tracked_are_refused():
    lake = frame_of([LAKE])
    when = pd.Timestamp("2019-07-01")
    refused(lake, "without dates")
    refused({}, "no dates")
    refused(lake.iloc[:0].assign(time=when), "no dates")
    refused({when: lake.drop(columns="lake_id")}, "without ids")
    refused({when: lake.assign(lake_id=0.5)}, "without ids")
    refused({when: lake.to_crs(4326)}, "needs metres")
    refused({when: lake.set_crs(None, allow_override=True)}, "needs metres")
    refused({when: lake, "2019-07-02": lake.to_crs(6931)}, "different CRSs")
    refused({when: lake.assign(seen_share=1.5)}, "outside 0 to 1")
    refused({when: lake.assign(area_m2=np.nan)}, "true area")
    refused({when: lake.set_geometry([shapely.Point(0, 0)], crs=CRS)}, "only polygons.*Point")
    refused({when: lake.set_geometry([shapely.Polygon()], crs=CRS)}, "without any area")
    refused({when: pd.DataFrame(lake)}, "no polygons")
    refused({when: lake.assign(track_id=1)}, "track ids already")
    previous = track({when: lake})
    refused({"2019-07-02": lake.to_crs(6931)}, "another CRS", previous=previous)
    refused({"2019-07-02": lake}, "other rules", previous=previous, rules=ALL_RULES)


def test_evidence_that_does_not_fit_is_refused():
    lakes = dated((1, LAKE), (3,))
    refused(lakes, "not told what was not seen.*2019-07-03", not_seen={"2019-07-01": polygons()})
    refused(lakes, "not mapped.*lids, 2019-07-02", lids={"2019-07-02": polygons()})
    refused(lakes, "not mapped.*wet, 2019-07-02", wet={"2019-07-02": polygons()})
    refused(lakes, "another CRS than the lakes", lids={"2019-07-01": polygons(LAKE).to_crs(6931)})


def test_invalid_outlines_are_mended_and_told():
    bow = shapely.Polygon([(0, 0), (400, 400), (400, 0), (0, 400)])
    tracks = track({"2019-07-01": gpd.GeoDataFrame({"lake_id": [1]}, geometry=[bow], crs=CRS)})
    assert tracks.notes[0] == "1 invalid outline made valid"
    assert tracks.states.least_water.tolist() == [1]


# -- whole seasons with a truth


@pytest.mark.parametrize("seed", [0, 1])
def test_a_season_of_hundreds_of_lakes_under_clouds(seed):
    season = Season(seed)
    tracks = track(season.lakes, not_seen=season.not_seen, lids=season.lids)
    names = np.concatenate([season.truth[time] for time in DATES])
    precision, recall = count_pairs(names, tracks.lakes.track_id)
    assert precision >= 0.98
    assert recall >= 0.98

    truth = dict(zip(tracks.lakes.track_id, names, strict=True))
    drained = tracks.events[tracks.events.event == "drained"].assign(name=lambda rows: rows.track_id.map(truth))
    assert (drained.name >= 0).all()  # second pools never drain
    kind = drained.name.map(lambda name: season.basins[name].kind)
    assert set(kind) == {"rapid", "slow", "refills"}
    gone = drained.name.map(lambda name: season.basins[name].gone)
    sudden = kind != "slow"
    assert ((drained.after <= gone) & (gone <= drained.before))[sudden].all()

    rapid, sure = set(drained.name[drained.speed == "rapid"]), season.sure_drainages(4)
    assert len(sure) >= 15
    assert len(rapid & sure) >= 0.95 * len(sure)
    assert all(season.basins[name].kind in ("rapid", "refills") for name in rapid)
    assert "drained slowly" not in set(tracks.summary.fate[tracks.summary.track_id.isin(drained.track_id[sudden])])


def test_lakes_of_a_synthetic_region_under_its_clouds():
    region = make_region(1536, scenery=Scenery(margin_km=30, lake_density=1.5))
    days = [f"2019-{day}" for day in ("06-19", "06-29", "07-03", "07-09", "07-12", "07-16", "07-20", "08-24")]
    lakes, names, not_seen, lids = {}, [], {}, {}
    rng = np.random.default_rng(5)
    bounds = region.grid.bounds_xyxy
    for day in days:
        spots = shapely.points(rng.uniform(bounds[:2], bounds[2:], (8, 2)))
        sky = shapely.union_all(shapely.buffer(spots, rng.uniform(200, 1200, 8)))
        true = region.lakes(day)
        true = true[true.area_m2 >= 5000]
        left = true.geometry.difference(sky)
        iced = (true.state == "lidded").to_numpy()
        parts, of = shapely.get_parts(left[~iced].to_numpy(), return_index=True)
        large = shapely.area(parts) >= 5000
        names += true.lake_id.to_numpy()[~iced][of[large]].tolist()
        lakes[day] = gpd.GeoDataFrame({"lake_id": np.arange(large.sum())}, geometry=parts[large], crs=region.grid.crs)
        not_seen[day] = gpd.GeoDataFrame(geometry=[sky], crs=region.grid.crs)
        lids[day] = left[iced & ~left.is_empty]
    tracks = track(lakes, not_seen=not_seen, lids=lids)
    assert_frame_equal(pd.DataFrame(find_basins(lakes, not_seen=not_seen)), pd.DataFrame(tracks.basins))
    precision, recall = count_pairs(names, tracks.lakes.track_id)
    assert min(precision, recall) >= 0.98

    basins = {basin.id: basin for basin in region._block.basins(region.land)}
    truth = dict(zip(tracks.lakes.track_id, names, strict=True))
    drained = tracks.events[tracks.events.event == "drained"]
    assert len(drained) >= 5
    for event in drained.itertuples():
        basin = basins[truth[event.track_id]]
        fills = [fill_basin(basin, day, region.land) for day in (event.after, event.before)]
        before, rest = (basin.lake(fill.level).sum() * fill.holds_lake for fill in (fills[0], fills[-1]))
        assert fills[0].fate in ("drains fast", "drains slowly")
        assert rest <= 0.3 * before
        assert fills[0].fate == "drains fast" or event.speed != "rapid"
    assert set(drained.speed) == {"rapid", "slow", "unknown"}


def test_the_example_runs():
    assert doctest.testmod(lakescale.series.tracking).failed == 0
