"""Scores of files: what is read, what is written, what is refused."""

from __future__ import annotations

import doctest
import hashlib
import json
import re
import struct

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal

import pipelines.evaluate
from lakescale import InputError, RunError, score
from lakescale.storage import files as storage_files
from pipelines.evaluate import format_score
from pipelines.vector_files import read_polygons

FIGURES = ["tp", "fp", "fn", "precision", "recall", "f1"]


def evaluate(*paths, **options):
    return pipelines.evaluate.evaluate(*paths, **options).score


def frame(*boxes, crs=3413, **columns):
    return gpd.GeoDataFrame(columns, geometry=[shapely.box(*box) for box in boxes], crs=crs)


def lakes_and_reference(**columns):
    """One that fits, one too large, one alone; one missed."""
    lakes = frame((0, 0, 10, 10), (20, 0, 40, 10), (90, 0, 99, 10))
    reference = frame((0, 0, 10, 9), (20, 0, 30, 10), (50, 0, 60, 10))
    return lakes.assign(**columns), reference.assign(**columns)


@pytest.fixture
def files(tmp_path):
    """Two GeoPackages, grouped."""
    lakes, reference = lakes_and_reference(image="a.tif", region_num=[1, 1, 2])
    lakes.assign(lake_id=[7, 8, 9]).to_file(tmp_path / "lakes.gpkg")
    reference.to_file(tmp_path / "reference.gpkg")
    return tmp_path / "lakes.gpkg", tmp_path / "reference.gpkg"


def assert_same_score(one, two):
    assert one.to_dict() == two.to_dict()
    pd.testing.assert_frame_equal(one.groups, two.groups)
    assert_geodataframe_equal(one.matches, two.matches)
    assert_geodataframe_equal(one.missed, two.missed, check_dtype=False)


# -- reading


@pytest.mark.parametrize("rules", ["strict", "seed"])
@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "shp", "geojson"])
def test_the_score_of_files_is_that_of_their_frames(tmp_path, suffix, rules):
    lakes, reference = lakes_and_reference(image="a.tif", region_num=[1, 1, 2])
    for name, polygons in (("lakes", lakes), ("reference", reference)):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "parquet":
            polygons.to_parquet(path)
        else:
            polygons.to_file(path, engine="pyogrio")
    found = evaluate(*(tmp_path / f"{name}.{suffix}" for name in ("lakes", "reference")), rules=rules)
    assert (found.rules, found.tp, found.fp, found.fn) == (rules, 1, 2, 2)
    assert found.groups.index.tolist() == [("a.tif", 1), ("a.tif", 2)]
    expected = score(lakes, reference, rules=rules)
    assert found.to_dict() == expected.to_dict()
    assert found.matches.reason.tolist() == expected.matches.reason.tolist()


def test_the_folder_of_a_run_means_its_lakes(tmp_path, files):
    lakes = gpd.read_file(files[0])
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"the run has no lakes \[.*RUN\]. Finish it first"):
        evaluate(tmp_path / "RUN", files[1])
    lakes.set_index(pd.Index([5, 3, 1])).to_parquet(tmp_path / "RUN" / "lakes.parquet")
    assert_same_score(evaluate(tmp_path / "RUN", files[1]), evaluate(*files))


def test_layers_are_chosen_by_name_or_where_only_one_can_be_meant(tmp_path, files):
    lakes, reference = lakes_and_reference()
    many = tmp_path / "many.gpkg"
    points = gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=3413)
    points.to_file(many, layer="points")
    reference.to_file(many, layer="mapped")
    assert len(read_polygons(many)) == 3  # the only one of polygons
    lakes[:1].to_file(many, layer="dropped")
    with pytest.raises(InputError) as caught:
        evaluate(many, files[1])
    assert str(caught.value) == (
        f"the lakes are one of 3 layers: points, mapped, dropped [{many}]. Choose one with --lakes-layer"
    )
    with pytest.raises(InputError, match="Choose one with --reference-layer"):
        evaluate(files[0], many)
    assert len(read_polygons(many, layer="mapped")) == 3
    lakes[:2].to_file(many, layer="lakes")
    assert len(read_polygons(many)) == 2
    found = evaluate(many, many, lakes_layer="dropped", reference_layer="mapped")
    assert (found.tp, found.fp, found.fn) == (1, 0, 2)


def test_heights_do_not_matter(tmp_path):
    lakes, reference = lakes_and_reference()
    high = lakes.set_geometry(shapely.force_3d(lakes.geometry.values, 700), crs=lakes.crs)
    high.to_file(tmp_path / "high.gpkg")
    reference.to_file(tmp_path / "reference.gpkg")
    read = read_polygons(tmp_path / "high.gpkg")
    assert not read.has_z.any()
    assert read.crs == lakes.crs
    assert_same_score(evaluate(tmp_path / "high.gpkg", tmp_path / "reference.gpkg"), score(lakes, reference))


def test_lakes_in_another_crs(tmp_path, files):
    lakes = gpd.read_file(files[0])
    moved = lakes.set_geometry(lakes.translate(-190_000, -2_500_000))
    reference = gpd.read_file(files[1])
    reference.set_geometry(reference.translate(-190_000, -2_500_000)).to_parquet(tmp_path / "reference.parquet")
    moved.to_crs(4326).to_file(tmp_path / "degrees.geojson")
    assert evaluate(tmp_path / "degrees.geojson", tmp_path / "reference.parquet").tp == 1
    assert evaluate(tmp_path / "reference.parquet", tmp_path / "degrees.geojson").matches.crs == "EPSG:6931"


@pytest.mark.parametrize("columns", [{}, {"image": "a.tif", "region_num": [1, 1, 2]}])
@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "geojson"])
def test_empty_files_score_zero(tmp_path, suffix, columns):
    lakes, _ = lakes_and_reference(**columns)
    some, none, out = tmp_path / "some.parquet", tmp_path / f"none.{suffix}", tmp_path / "out"
    lakes.to_parquet(some)
    empty = lakes[["geometry"]][:0]
    if suffix == "parquet":
        empty.to_parquet(none)
    else:
        empty.to_file(none, geometry_type="Polygon")
    assert (evaluate(none, some, out=out).fn, evaluate(some, none, out=out).fp) == (3, 3)
    assert evaluate(none, some).groups.fn.tolist() == ([2, 1] if columns else [3])
    both = evaluate(none, none, out=out)
    assert both.to_dict() == {"rules": "strict", **dict.fromkeys(FIGURES, 0)}
    assert "all   0   0   0      0.000   0.000  0.000" in format_score(both)
    assert json.loads((out / "score.json").read_text())["files"]["lakes"]["polygons"] == 0
    assert len(gpd.read_file(out / "matches.gpkg", layer="matches")) == 0


# -- groups


@pytest.mark.parametrize("keyless", ["lakes", "reference"])
@pytest.mark.parametrize("lacking", [["image", "region_num"], ["region_num"]])
def test_group_columns_in_one_file_only_are_refused_unless_all_is_one_group(tmp_path, files, keyless, lacking):
    paths = dict(zip(("lakes", "reference"), files, strict=True))
    bare = tmp_path / "bare.gpkg"
    gpd.read_file(paths[keyless]).drop(columns=lacking).to_file(bare)
    paths[keyless] = bare
    with pytest.raises(InputError, match="image and region_num, which not both files have") as caught:
        evaluate(*paths.values())
    assert caught.value.item == str(bare)
    assert "--as-one-group" in caught.value.mend
    found = evaluate(*paths.values(), as_one_group=True)
    assert found.groups.index.tolist() == ["all"]
    assert (found.tp, found.fp, found.fn) == (1, 2, 2)


def test_as_one_group_leaves_groups_out(tmp_path):
    lakes, reference = (
        frame((0, 0, 10, 10), image="a", region_num=[1]),
        frame((0, 0, 10, 10), image="b", region_num=[1]),
    )
    for name, polygons in (("lakes", lakes), ("reference", reference)):
        polygons.to_file(tmp_path / f"{name}.gpkg")
    paths = tmp_path / "lakes.gpkg", tmp_path / "reference.gpkg"
    assert evaluate(*paths).tp == 0
    assert evaluate(*paths, as_one_group=True).tp == 1


def test_files_without_group_columns_are_one_group(tmp_path):
    lakes, reference = lakes_and_reference()
    lakes.to_parquet(tmp_path / "lakes.parquet")
    reference.to_parquet(tmp_path / "reference.parquet")
    assert_same_score(evaluate(tmp_path / "lakes.parquet", tmp_path / "reference.parquet"), score(lakes, reference))


# -- writing


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_score_json_says_what_was_scored_and_found(tmp_path, files):
    result = evaluate(*files, rules="seed", out=tmp_path / "out" / "deep", reference_layer="reference")
    told = json.loads((tmp_path / "out" / "deep" / "score.json").read_text())
    assert list(told) == [
        "rules", *FIGURES, "reasons", "crs", "areas", "pixels", "mended", "outside", "notes", "groups", "files",
        "lakescale",
    ]  # fmt: skip
    assert {name: told[name] for name in ("rules", *FIGURES)} == result.to_dict()
    assert told["reasons"] == {
        "tp": {"fits": 1}, "fp": {"area out of 50-160 %": 1, "overlaps no reference": 1}, "ignored": {},
    }  # fmt: skip
    assert told["crs"] == "EPSG:3413"
    assert [[group[name] for name in ("image", "region_num", *FIGURES[:3])] for group in told["groups"]] == [
        ["a.tif", 1, 1, 1, 1],
        ["a.tif", 2, 0, 1, 1],
    ]
    assert set(told["groups"][0]) == {"image", "region_num", *FIGURES, "areas"}
    assert told["areas"] == pytest.approx({
        "lakes_m2": 390, "reference_m2": 290, "shared_m2": 190, "precision": 190 / 390, "recall": 190 / 290,
        "f1": 380 / 680, "iou": 190 / 490,
    })  # fmt: skip
    assert [group["areas"]["lakes_m2"] for group in told["groups"]] == [300, 90]
    assert (told["pixels"], told["mended"], told["outside"], told["notes"]) == (
        None, {"lakes": 0, "reference": 0}, 0, [],
    )  # fmt: skip
    assert told["files"] == {
        "lakes": {"path": str(files[0]), "layer": None, "polygons": 3, "sha256": {"lakes.gpkg": sha256(files[0])}},
        "reference": {
            "path": str(files[1]), "layer": "reference", "polygons": 3, "sha256": {"reference.gpkg": sha256(files[1])},
        },
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "out" / "deep").iterdir()} == {"score.json", "matches.gpkg"}


def test_one_group_and_missing_names_are_json_too(tmp_path):
    lakes, reference = lakes_and_reference()
    lakes.to_file(tmp_path / "lakes.shp")
    reference.assign(image=None).to_parquet(tmp_path / "reference.parquet")
    evaluate(tmp_path / "lakes.shp", tmp_path / "reference.parquet", out=tmp_path / "s.json", as_one_group=True)
    told = json.loads((tmp_path / "s.json").read_text())
    assert [(group["group"], group["tp"]) for group in told["groups"]] == [("all", 1)]
    parts = {f"lakes.{suffix}" for suffix in ("shp", "shx", "dbf", "prj", "cpg")}
    assert told["files"]["lakes"]["sha256"] == {part: sha256(tmp_path / part) for part in parts}
    assert (tmp_path / "s-matches.gpkg").exists()
    lakes.assign(image=[None, None, "a"], region_num=[1, 1, np.nan]).to_parquet(tmp_path / "lakes.parquet")
    evaluate(tmp_path / "lakes.parquet", tmp_path / "lakes.parquet", out=tmp_path / "s.json")
    told = json.loads((tmp_path / "s.json").read_text())
    assert [(group["image"], group["region_num"]) for group in told["groups"]] == [("a", None), (None, 1)]
    assert told["files"]["reference"]["sha256"] == {"lakes.parquet": sha256(tmp_path / "lakes.parquet")}


def test_matches_come_back_as_they_were(tmp_path, files):
    result = evaluate(*files, out=tmp_path / "out")
    written = tmp_path / "out" / "matches.gpkg"
    assert pyogrio.list_layers(written).tolist() == [["matches", "MultiPolygon"], ["missed", "MultiPolygon"]]
    matches, missed = (gpd.read_file(written, layer=layer) for layer in ("matches", "missed"))
    assert matches.lake.tolist() == result.matches.index.tolist()
    assert matches.lake_id.tolist() == [7, 8, 9]
    same = [column for column in result.matches if column not in ("reference", "geometry")]
    pd.testing.assert_frame_equal(
        pd.DataFrame(matches[same]), pd.DataFrame(result.matches[same]), check_dtype=False, check_index_type=False
    )
    assert matches.reference.fillna(-1).tolist() == result.matches.reference.fillna(-1).tolist() == [0, 1, -1]
    assert matches.geom_equals(result.matches.geometry).all()
    assert missed.reference.tolist() == result.missed.index.tolist()
    assert missed.geom_equals(result.missed.reset_index(drop=True).geometry).all()
    assert missed.image.tolist() == ["a.tif", "a.tif"]
    assert matches.crs == missed.crs == result.matches.crs


def test_columns_of_any_kind_are_written(tmp_path):
    lakes, reference = lakes_and_reference(image="a.tif", region_num=[1, 1, 2])
    lakes = lakes.astype({"image": "category"}).rename_geometry("outline")
    lakes.to_parquet(tmp_path / "lakes.parquet")
    reference.assign(fid=1, told=[{"a": 1}] * 3).rename_geometry("outline").to_parquet(tmp_path / "reference.parquet")
    result = evaluate(tmp_path / "lakes.parquet", tmp_path / "reference.parquet", out=tmp_path / "out")
    assert result.tp == 1
    assert gpd.read_file(tmp_path / "out" / "matches.gpkg", layer="missed").image.tolist() == ["a.tif", "a.tif"]


def test_an_earlier_score_is_replaced_and_other_files_are_not(tmp_path, files):
    out = tmp_path / "out"
    evaluate(*files, out=out)
    evaluate(*files, rules="seed", out=out)
    assert json.loads((out / "score.json").read_text())["rules"] == "seed"
    (out / "score.json").write_text('{"tp": 1}')
    with pytest.raises(InputError, match=r"there is a file that is no score \[.*score.json\]. Give another --out"):
        evaluate(*files, out=out)
    assert (out / "score.json").read_text() == '{"tp": 1}'
    (out / "score.json").unlink()
    files[0].replace(out / "matches.gpkg")
    with pytest.raises(InputError, match=r"no score \[.*matches.gpkg\]"):
        evaluate(files[1], files[1], out=out)
    with pytest.raises(InputError, match="the score would replace what is scored"):
        evaluate(out / "matches.gpkg", files[1], out=out)
    assert len(gpd.read_file(out / "matches.gpkg")) == 3


@pytest.mark.parametrize("name", ["score.json", "matches.gpkg"])
def test_a_full_disk_leaves_no_partial_file_and_no_score(tmp_path, files, monkeypatch, name):
    out, sync = tmp_path / "out", storage_files.sync
    evaluate(*files, out=out)

    def full(path):
        if path.name.split(".")[0] == name.split(".")[0]:
            raise OSError(28, "No space left on device")
        sync(path)

    monkeypatch.setattr("lakescale.storage.files.sync", full)
    with pytest.raises(RunError, match="no space left on the disk") as caught:
        evaluate(*files, rules="seed", out=out)
    assert name in caught.value.item
    assert not list(out.glob("*partial*"))
    assert not (out / "score.json").exists()
    monkeypatch.undo()
    assert evaluate(*files, rules="seed", out=out).rules == "seed"
    assert {path.name for path in out.iterdir()} == {"score.json", "matches.gpkg"}


def test_a_folder_that_cannot_be_made_is_named(tmp_path, files):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write there: .*\[.*file/out\]. Give another --out"):
        evaluate(*files, out=tmp_path / "file" / "out")


# -- text


def test_the_table_lines_up(tmp_path, files):
    assert format_score(evaluate(*files)).splitlines() == [
        "strict rules",
        "image  region_num  tp  fp  fn  precision  recall     f1",
        "a.tif           1   1   1   1      0.500   0.500  0.500",
        "a.tif           2   0   1   1      0.000   0.000  0.000",
        "all                 1   2   2      0.333   0.333  0.333",
        "false positives",
        "  1  area out of 50-160 %",
        "  1  overlaps no reference",
    ]
    assert doctest.testmod(pipelines.evaluate).failed == 0


def test_the_table_counts_what_the_seed_ignores():
    reference, lakes = frame((0, 0, 10, 10)), frame((0, 0, 10, 5), (0, 5, 10, 10), *[(50, 0, 60, 10)] * 10)
    assert format_score(score(lakes, reference, rules="seed")).splitlines() == [
        "seed rules",
        "     tp  fp  fn  precision  recall     f1",
        "all   1  10   0      0.091   1.000  0.167",
        "false positives",
        "  10  overlaps no reference",
        "neither true nor false",
        "  1  second fit on a matched lake",
    ]


# -- bad input


def test_what_cannot_be_read_is_named(tmp_path, files):
    (tmp_path / "broken.gpkg").write_text("no database")
    (tmp_path / "broken.parquet").write_text("no table")
    (tmp_path / "empty").mkdir()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "table.parquet")
    pyogrio.write_dataframe(pd.DataFrame({"a": [1]}), tmp_path / "table.gpkg")
    gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=3413).to_file(tmp_path / "points.gpkg")
    for name, message in (
        ("gone.gpkg", "there is no such file for the lakes [{}]. Check the path"),
        ("broken.gpkg", "the lakes cannot be read: "),
        ("broken.parquet", "the lakes cannot be read: "),
        ("empty", "the lakes cannot be read: "),
        ("table.parquet", "the lakes cannot be read: "),
        ("table.gpkg", "the lakes have no geometries [{}]"),
        ("points.gpkg", "only polygons have an area, found Point [lakes, row 0"),
    ):
        with pytest.raises(InputError, match=re.escape(message.format(tmp_path / name))):
            evaluate(tmp_path / name, files[1], out=tmp_path / "out", as_one_group=True)
    with pytest.raises(InputError, match=r"there is no layer 'ponds', only lakes \[.*lakes.gpkg\].*--lakes-layer"):
        evaluate(*files, lakes_layer="ponds")
    gpd.read_file(files[0]).to_parquet(tmp_path / "lakes.parquet")
    with pytest.raises(InputError, match=r"a GeoParquet file has no layers.*Leave out --reference-layer"):
        evaluate(files[0], tmp_path / "lakes.parquet", reference_layer="lakes")
    with pytest.raises(InputError, match="no scoring rules 'cup'"):
        evaluate(*files, rules="cup")
    assert not (tmp_path / "out").exists()


def test_a_ring_that_is_not_closed_is_told_from_a_file_that_is_broken(tmp_path, files):
    corners = [(0, 0), (9, 0), (9, 9), (0, 9)]  # no constructor of shapely's makes such a ring
    ring = struct.pack("<BIII", 1, 3, 1, len(corners)) + b"".join(struct.pack("<dd", *corner) for corner in corners)
    pyogrio.raw.write(
        tmp_path / "open.gpkg", geometry=np.array([ring], object), field_data=[np.array([1])], fields=["a"],
        geometry_type="Polygon", crs="EPSG:3413", driver="GPKG",
    )  # fmt: skip
    with pytest.raises(InputError, match=r"a ring that is none: .*closed.*\[.*open.gpkg\].*on_invalid='fix'"):
        evaluate(tmp_path / "open.gpkg", files[1], as_one_group=True)
    gpd.read_file(tmp_path / "open.gpkg", on_invalid="fix").to_file(tmp_path / "closed.gpkg")
    assert evaluate(tmp_path / "closed.gpkg", files[1], as_one_group=True).matches.lake_m2.tolist() == [81]


# -- real data


@pytest.fixture(scope="module")
def competitor(data_dir):
    return data_dir / "vector" / "competitor_lake_polygons.gpkg"


@pytest.mark.parametrize("rules", ["strict", "seed"])
def test_a_competitor_against_a_perturbed_copy_in_another_format(competitor, tmp_path, rules):
    truth = gpd.read_file(competitor)
    rng = np.random.default_rng(5)
    kept = truth[rng.random(len(truth)) < 0.8]
    coordinates, owner = shapely.get_coordinates(kept.geometry.values, return_index=True)
    coordinates += rng.normal(0, 60, (len(kept), 2))[owner]
    moved = shapely.set_coordinates(kept.geometry.to_numpy().copy(), coordinates)
    grown = shapely.buffer(moved, rng.choice([-40, 0, 0, 60, 120], len(moved)))
    copy = kept.set_geometry(grown, crs=truth.crs)[~shapely.is_empty(grown)]
    copy.to_parquet(tmp_path / "copy.parquet")
    result = evaluate(tmp_path / "copy.parquet", competitor, rules=rules, out=tmp_path / "out")
    assert_same_score(result, score(copy.reset_index(drop=True), truth, rules=rules))
    assert 0.3 < result.f1 < 0.9
    told = json.loads((tmp_path / "out" / "score.json").read_text())
    assert told["files"]["reference"]["polygons"] == len(truth) == 2531
    assert sum(group["tp"] for group in told["groups"]) == told["tp"] == result.tp
    assert len(gpd.read_file(tmp_path / "out" / "matches.gpkg", layer="matches")) == len(copy)
    assert len(gpd.read_file(tmp_path / "out" / "matches.gpkg", layer="missed")) == result.fn
    assert len(format_score(result).splitlines()) >= len(result.groups) + 3
    assert evaluate(competitor, competitor, rules="seed").f1 == 1
