"""`lakescale demo`: the whole job from files on a made-up region, scored against its truth."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from map_scenes import FILES, lakescale
from matplotlib.image import imread
from test_map_default import NAME

import lakescale as ls
from lakescale.schema import InputError
from pipelines.demo import DATES, run_demo

FIGURES = ("tp", "fp", "fn", "precision", "recall", "f1")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "DEMO"
    return out, list(run_demo(out, size=640, seed=3, cluster="threads"))


def test_the_scores_are_those_of_the_files_on_disk(demo):
    out, _ = demo
    scores = json.loads((out / "score.json").read_text())
    assert list(scores) == ["color", "index", "lakes"]
    for one in scores.values():
        assert one["rules"] == "strict"
        assert one["tp"] + one["fn"] == sum(day["tp"] + day["fn"] for day in one["dates"].values())
        assert one["f1"] == pytest.approx(2 * one["tp"] / (2 * one["tp"] + one["fp"] + one["fn"]))
    for day in DATES:
        truth = gpd.read_file(out / "input" / f"truth_{day}.gpkg")
        truth = truth[(truth.state != "lidded") & (truth.area_m2 >= 5000)]
        hidden = truth[truth.clear_share < 0.5]
        lakes = gpd.read_parquet(out / day / "lakes.parquet")
        covered = lakes.geometry.apply(lambda lake, hidden=hidden: hidden.intersection(lake).area.sum() / lake.area)
        counted = lakes[covered <= 0.5]
        result = ls.score(counted.reset_index(drop=True), truth.drop(hidden.index).reset_index(drop=True))
        assert {key: getattr(result, key) for key in FIGURES} == pytest.approx(scores["lakes"]["dates"][day])
    assert scores["lakes"]["tp"] > 0


def test_a_lake_map_is_better_than_one_kind_of_evidence(demo):
    scores = json.loads((demo[0] / "score.json").read_text())
    assert scores["lakes"]["f1"] > max(scores["color"]["f1"], scores["index"]["f1"])


def test_what_went_in_is_what_a_user_would_have(demo):
    out, _ = demo
    assert {path.name for path in out.iterdir()} >= {*DATES, "input", "score.json", "quicklook.png"}
    for day in DATES:
        fused = {"candidates_index.parquet", f"candidates_{NAME}.parquet"}
        assert {path.name for path in (out / day).iterdir()} == FILES | fused
        notes = json.loads((out / day / "manifest.json").read_text())["notes"]
        assert any("Moussavi" in note for note in notes)
        assert any("dem_synthetic.tif" in note for note in notes)
    image = next((out / "input").glob("S2_MSIL1C_20190708*"))
    region = ls.make_region(640, seed=3)
    expected = region.scene(DATES[0]).compute()
    stored = ls.open_scene(image)
    assert set(stored.band.values) == set(expected.band.values)
    np.testing.assert_allclose(stored.sel(band=expected.band), expected, atol=0.6e-4)
    with rasterio.open(out / "input" / "dem_synthetic.tif") as dem:
        assert dem.bounds.left < expected.x.min() - 4000
        assert np.isnan(dem.read(1)).any(), "an ArcticDEM has voids"


def test_the_picture_shows_two_dates(demo):
    picture = imread(demo[0] / "quicklook.png")
    height, width = picture.shape[:2]
    assert 1.5 < width / height < 2.5
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 1000


def test_the_table_says_what_the_json_says(demo):
    out, lines = demo
    scores = json.loads((out / "score.json").read_text())
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split()[0] in scores}
    for name, one in scores.items():
        assert [float(cell) for cell in rows[name]] == pytest.approx([one[key] for key in FIGURES], abs=6e-4)


def test_another_demo_or_others_files_are_not_overwritten(demo, tmp_path):
    out, _ = demo
    with pytest.raises(InputError, match="another demo"):
        list(run_demo(out, size=640, seed=4, cluster="threads"))
    (tmp_path / "thesis.txt").write_text("mine")
    done = lakescale("demo", "--out", tmp_path)
    assert done.returncode == 2
    assert "no demo" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_demo_that_is_refused_claims_nothing(tmp_path):
    with pytest.raises(InputError, match="seed"):
        list(run_demo(tmp_path / "DEMO", size=256, seed=-1, cluster="threads"))
    assert not (tmp_path / "DEMO").exists()


def test_a_demo_killed_early_is_begun_anew_and_shows_no_earlier_scores(tmp_path):
    out = tmp_path / "DEMO"
    out.mkdir()
    (out / "made_by_lakescale_demo.json").write_text("")
    (out / "score.json").write_text("{}")
    with pytest.raises(InputError, match="another demo"):
        list(run_demo(out, size=256, seed=3, cluster="threads"))
    begun = run_demo(out, size=256, seed=3, cluster="threads", overwrite=True)
    next(begun)
    begun.close()
    assert not (out / "score.json").exists()
    assert json.loads((out / "made_by_lakescale_demo.json").read_text()) == {"size": 256, "seed": 3}


def test_a_dry_run_makes_nothing(tmp_path):
    done = lakescale("demo", "--out", tmp_path / "DEMO", "--dry-run")
    assert "2048 x 2048 pixels" in done.stdout
    assert not (tmp_path / "DEMO").exists()
