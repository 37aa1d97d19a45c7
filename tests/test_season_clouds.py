"""Cloud in a season: rules by date and by file, the margin, the least clouded scene first."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
from map_scenes import write_scene
from season_scenes import change, read, write_recipe

from lakescale.schema import InputError
from pipelines.season import map_season

SIZE = 64
LAKE = (slice(10, 34), slice(10, 40))
DAYS = ("2019-07-01", "2019-07-04")


def write_bands(path, *, lake, cloud):
    """Numbers of blue, red and B11: rough ice, perhaps a lake, cloud in some columns."""
    numbers = np.random.default_rng(0).integers(4500, 5500, (3, SIZE, SIZE))
    numbers[2] = 300
    if lake:
        numbers[:, *LAKE] = np.array([3000, 800, 40])[:, None, None]
    numbers[2, :, cloud] = 3000
    return write_scene(path, numbers.astype(np.uint16), names=["B02", "B04", "B11"])


@pytest.fixture
def season(tmp_path, monkeypatch):
    """Two scenes of the first date, the first by name with more cloud and without the lake; one of the second."""
    monkeypatch.chdir(tmp_path)
    a, b = (tmp_path / f"S2A_MSIL2A_20190701_{tile}.tif" for tile in "ab")
    write_bands(a, lake=False, cloud=slice(44, SIZE))
    write_bands(b, lake=True, cloud=slice(60, SIZE))
    write_bands(tmp_path / "S2A_MSIL2A_20190704_a.tif", lake=True, cloud=slice(50, SIZE))
    return write_recipe(tmp_path, {
        "scenes": {"source": ["S2A_*.tif"], "chunks": 32}, "out": "RUN", "evidence": "index", "cloud_margin_m": 0,
        "cluster": {"kind": "threads", "workers": 1, "dashboard": "none"}, "report": False, "lids": False,
    })  # fmt: skip


def told(path, day):
    folder = path.parent / "RUN/dates" / day
    seen = 1 - gpd.read_parquet(folder / "not_seen.parquet").area.sum() / (SIZE * 10) ** 2
    return (
        json.loads((folder / "manifest.json").read_text())["notes"],
        len(gpd.read_parquet(folder / "lakes.parquet")),
        seen,
    )


def test_the_least_clouded_scene_comes_first_where_it_is_asked_for(season):
    map_season(read(season))
    assert told(season, DAYS[0])[1] == 0
    done = map_season(read(change(season, mosaic="least cloud")))
    assert [one.is_kept for one in done.dates] == [False, True], "a date of one scene is left alone"
    notes, lakes, seen = told(season, DAYS[0])
    assert lakes == 1
    assert seen == pytest.approx(60 / SIZE)
    order = "S2A_MSIL2A_20190701_b.tif (6.2% cloud), S2A_MSIL2A_20190701_a.tif (31.2% cloud)"
    assert f"mosaic: the least cloud first: {order}" in notes
    map_season(read(change(season, cloud="none")))
    assert any(note.startswith("mosaic: in the order of names") for note in told(season, DAYS[0])[0])


def test_rules_go_by_date_and_by_file_and_redo_that_date_alone(season):
    map_season(read(season))
    assert told(season, DAYS[1])[2] == pytest.approx(50 / SIZE)
    done = map_season(read(change(season, clouds={DAYS[1]: "none"})))
    assert [one.is_kept for one in done.dates] == [True, False]
    notes, _, seen = told(season, DAYS[1])
    assert seen == 1
    assert "cloud not assessed, as asked: clouded pixels count as seen" in notes
    provenance = json.loads((season.parent / "RUN/catalogue/provenance.json").read_text())["images"]
    assert [one["cloud"] for one in provenance.values()] == ["B11 > 0.14 (Williamson et al. 2018)", ""]
    done = map_season(read(change(season, clouds={"S2A_MSIL2A_20190701_a.tif": "none"})))
    assert [one.is_kept for one in done.dates] == [False, False]
    assert told(season, DAYS[0])[2] == 1


def test_a_margin_widens_what_was_not_seen(season):
    map_season(read(change(season, cloud_margin_m=60)))
    assert told(season, DAYS[1])[2] == pytest.approx(44 / SIZE)


def test_by_default_there_is_a_margin_in_a_season(tmp_path):
    assert read(write_recipe(tmp_path, {"scenes": "a.tif", "out": "RUN"})).cloud_margin_m == 300


def test_a_rule_for_no_scene_and_one_that_cannot_be_used_are_told(season):
    with pytest.raises(InputError, match="rule on cloud for '2019-08-01', which is no scene"):
        map_season(read(change(season, clouds={"2019-08-01": "none"})))
    with pytest.raises(InputError, match="clouds"):
        read(change(season, clouds={DAYS[0]: "fmask"}))
    done = map_season(read(change(season, clouds={DAYS[1]: "s2cloudless"})))
    (one,) = done.left_out
    assert "the cloud rule 's2cloudless' cannot be used: the scene has no coastal" in one.reason
