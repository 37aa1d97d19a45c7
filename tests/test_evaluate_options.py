"""Scores of one image, by regions, and of a probability: what `lakescale score` makes of them."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from map_scenes import lakescale
from matplotlib.image import imread
from rasters import raster

from lakescale.pixel_scoring import score_pixels
from lakescale.schema import InputError
from lakescale.scoring import score
from lakescale.store import write_layer
from pipelines.evaluate import evaluate, format_score

UNIT = Affine(10, 0, 0, 0, -10, 400)


def frame(*boxes, crs=3413, **columns):
    return gpd.GeoDataFrame(columns, geometry=[shapely.box(*box) for box in boxes], crs=crs)


REGIONS = frame((0, 0, 200, 400), (200, 0, 400, 400), region_num=[2, 7])
REFERENCE = frame(
    (20, 20, 80, 80), (220, 20, 280, 80), (20, 220, 80, 280), image=["a.tif", "a.tif", "b.tif"], region_num=[2, 7, 2]
)
LAKES = frame((20, 20, 80, 90), (190, 20, 280, 80), (500, 0, 510, 10), (300, 300, 310, 310), lake_id=[1, 2, 3, 4])


@pytest.fixture
def files(tmp_path):
    """Lakes as a run leaves them, the reference and the regions as the Cup gave them."""
    LAKES.to_parquet(tmp_path / "lakes.parquet")
    REFERENCE.to_file(tmp_path / "reference.gpkg")
    REGIONS.to_file(tmp_path / "regions.gpkg")
    return {name: tmp_path / name for name in ("lakes.parquet", "reference.gpkg", "regions.gpkg")}


def probability():
    values = np.zeros((40, 40), np.float32)
    values[32:38, 2:8] = 0.9  # the first lake
    values[32:38, 22:25] = 0.4  # half of the second
    values[0, :] = np.nan
    return raster(values, 16, transform=UNIT, crs="EPSG:3413").rename("probability")


# -- image and regions


def test_lakes_of_a_run_get_image_and_region_and_those_outside_are_told(files, tmp_path):
    lakes, reference, regions = files.values()
    found = evaluate(lakes, reference, image="a.tif", regions=regions, out=tmp_path / "OUT")
    assert found.score.groups.index.tolist() == [("a.tif", 2), ("a.tif", 7)]
    assert (found.score.tp, found.score.fp, found.score.fn) == (2, 1, 0)
    assert found.score.matches.region_num.tolist() == [2, 7, 7]
    assert found.score.matches.geometry.tolist() == LAKES.geometry.drop(2).tolist()  # nothing is cut
    assert found.outside.lake_id.tolist() == [3]
    assert found.notes == ["lakes: 1 in no region, not scored"]
    told = json.loads((tmp_path / "OUT" / "score.json").read_text())
    assert (told["outside"], told["notes"]) == (1, found.notes)
    layers = pyogrio.list_layers(tmp_path / "OUT" / "matches.gpkg")[:, 0].tolist()
    assert layers == ["matches", "missed", "outside"]
    assert gpd.read_file(tmp_path / "OUT" / "matches.gpkg", layer="outside").lake.tolist() == [2]
    matches = gpd.read_file(tmp_path / "OUT" / "matches.gpkg", layer="matches")
    assert matches.lake_id.tolist() == [1, 2, 4]
    assert matches.lake.tolist() == [0, 1, 3]  # rows of the file


def test_lakes_with_a_region_keep_it(files, tmp_path):
    answer = LAKES.assign(image=["a.tif", "a.tif", "b.tif", "b.tif"], region_num=[7, 7, 2, 2])
    answer.to_file(tmp_path / "answer.gpkg")
    found = evaluate(tmp_path / "answer.gpkg", files["reference.gpkg"], regions=files["regions.gpkg"])
    assert (found.score.tp, len(found.outside), found.notes) == (1, 0, [])
    assert found.score.to_dict() == score(answer, REFERENCE).to_dict()
    alone = evaluate(tmp_path / "answer.gpkg", files["reference.gpkg"], image="b.tif")
    assert alone.score.groups.index.tolist() == [("b.tif", 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "c.tif"}, r"the reference has no image 'c.tif', only a.tif, b.tif \[image\].*--image"),
        ({"image": "a.tif", "as_one_group": True}, r"one group has neither image nor regions"),
        ({}, r"which not both files have \(lakes: neither.*--image and --regions"),
        ({"report": True, "image": "a.tif"}, r"a report needs a place \[report\]. Give --out"),
    ],
)
def test_what_cannot_be_grouped_is_refused(files, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(files["lakes.parquet"], files["reference.gpkg"], **options)


def test_regions_are_no_lakes(files, tmp_path):
    REGIONS.drop(columns="region_num").to_file(tmp_path / "bare.gpkg")
    with pytest.raises(InputError, match=r"regions need a column region_num \(geometry\) \[.*bare.gpkg\]"):
        evaluate(files["lakes.parquet"], files["reference.gpkg"], image="a.tif", regions=tmp_path / "bare.gpkg")


def test_the_cups_files_as_they_are(data_dir):
    theirs = data_dir / "vector" / "competitor_lake_polygons.gpkg"
    found = evaluate(theirs, theirs, rules="seed", regions=data_dir / "vector" / "lakes_regions.gpkg")
    assert (found.score.f1, len(found.score.groups), found.notes) == (1, 12, [])
    assert found.areas.iou.tolist() == pytest.approx([1] * 13)


# -- pixels


@pytest.mark.parametrize("kind", ["tif", "zarr", "run"])
def test_the_pixels_of_a_file_are_those_of_the_raster(files, tmp_path, kind):
    source = {"tif": tmp_path / "p.tif", "zarr": tmp_path / "p.zarr", "run": tmp_path / "RUN"}[kind]
    if kind == "tif":
        probability().rio.to_raster(source)
    else:
        source.mkdir(exist_ok=kind == "zarr")
        name = "probability_sam" if kind == "run" else "probability"
        write_layer(probability(), source / "evidence.zarr" if kind == "run" else source, name)
    lakes, reference, regions = files.values()
    options = {"image": "a.tif", "regions": regions, "probability": source, "threshold": 0.3, "cluster": "threads"}
    found = evaluate(lakes, reference, out=tmp_path / "OUT", **options)
    expected = score_pixels(probability(), REFERENCE[:2], threshold=0.3, within=REGIONS)
    assert found.pixels.to_dict() == expected.to_dict()
    assert (expected.tp, expected.fp, expected.fn, expected.not_seen) == (54, 0, 18, 40)
    assert json.loads((tmp_path / "OUT" / "score.json").read_text())["pixels"] == expected.to_dict()
    curve = pd.read_csv(tmp_path / "OUT" / "curve.csv")
    pd.testing.assert_frame_equal(curve, expected.curve)
    assert str(expected) in format_score(found.score, found.areas, found.pixels)


def test_a_store_of_several_probabilities_needs_a_name(files, tmp_path):
    store = tmp_path / "p.zarr"
    values = probability()
    write_layer(np.isfinite(values), store, "seen")
    options = {"image": "a.tif", "probability": store, "cluster": "threads"}
    reference = files["reference.gpkg"]
    with pytest.raises(InputError, match=r"0 layers of the store are probabilities: .*seen.*--probability-layer"):
        evaluate(reference, reference, **options)
    for name, raster_of in (("probability_one", values), ("probability_two", values * 0)):
        write_layer(raster_of, store, name)
    with pytest.raises(InputError, match=r"2 layers of the store are probabilities: probability_one, probability_two"):
        evaluate(reference, reference, **options)
    assert evaluate(reference, reference, probability_layer="probability_one", **options).pixels.tp == 36
    assert evaluate(reference, reference, probability_layer="probability_two", **options).pixels.tp == 0
    values.rio.to_raster(tmp_path / "p.tif")
    with pytest.raises(InputError, match="only a store has layers"):
        evaluate(reference, reference, probability_layer="x", **options | {"probability": tmp_path / "p.tif"})


def test_a_probability_is_of_one_image(files, tmp_path):
    probability().rio.to_raster(tmp_path / "p.tif")
    reference = files["reference.gpkg"]
    with pytest.raises(InputError, match=r"of one image, the reference has 2 \[.*p.tif\]. Choose one with --image"):
        evaluate(reference, reference, probability=tmp_path / "p.tif")
    with pytest.raises(InputError, match=r"gone\.tif"):
        evaluate(reference, reference, image="a.tif", probability=tmp_path / "gone.tif", cluster="threads")
    with rasterio.open(tmp_path / "p.tif") as stored:
        profile, pixels = stored.profile, stored.read()
    with rasterio.open(tmp_path / "bytes.tif", "w", **profile | {"dtype": "uint8", "nodata": 255}) as written:
        written.write(np.nan_to_num(pixels * 200).astype(np.uint8))
    with pytest.raises(InputError, match=r"must lie in 0..1, found 0 to 180 \[probability\]. Divide"):
        evaluate(reference, reference, image="a.tif", probability=tmp_path / "bytes.tif", cluster="threads")


# -- files and the command


def test_the_command_prints_a_table_and_writes_a_report(files, tmp_path):
    probability().rio.to_raster(tmp_path / "p.tif")
    lakes, reference, regions = files.values()
    options = "--image", "a.tif", "--regions", regions, "--probability", tmp_path / "p.tif", "--cluster", "threads"
    done = lakescale("score", lakes, reference, *options, "--report", "--out", tmp_path / "OUT")
    assert done.returncode == 0, done.stderr
    best = "average precision 0.750, best f1 0.857 above 0.400"
    assert done.stdout.splitlines() == [
        "strict rules",
        "image  region_num  tp  fp  fn  precision  recall     f1  area iou",
        "a.tif           2   1   0   0      1.000   1.000  1.000     0.857",
        "a.tif           7   1   1   0      0.500   1.000  0.667     0.655",
        "all                 2   1   0      0.667   1.000  0.800     0.742",
        "false positives",
        "  1  overlaps no reference",
        f"pixels above 0.5: f1 0.667, precision 1.000, recall 0.500, iou 0.500; {best}",
        "lakes: 1 in no region, not scored",
        f"written to {tmp_path / 'OUT'}",
    ]
    assert "in no region" not in done.stderr
    assert {path.name for path in (tmp_path / "OUT").iterdir()} == {
        "score.json", "matches.gpkg", "curve.csv", "score.png",
    }  # fmt: skip
    assert imread(tmp_path / "OUT" / "score.png").shape[2] == 4
    again = lakescale("score", lakes, reference, "--as-one-group", "--out", tmp_path / "OUT")
    assert again.returncode == 0, again.stderr
    assert {path.name for path in (tmp_path / "OUT").iterdir()} == {"score.json", "matches.gpkg"}  # none is of another


def test_pictures_and_curves_of_others_are_not_replaced(files, tmp_path):
    reference = files["reference.gpkg"]
    for name in ("score.png", "curve.csv"):
        out = tmp_path / name.split(".")[0]
        out.mkdir()
        (out / name).write_text("mine")
        with pytest.raises(InputError, match=rf"a file that is no score \[.*{name}\]"):
            evaluate(reference, reference, out=out, report=True)
        assert (out / name).read_text() == "mine"
    named = evaluate(reference, reference, out=tmp_path / "NAME.json", report=True)
    assert named.score.f1 == 1
    assert {path.name for path in tmp_path.glob("NAME*")} == {"NAME.json", "NAME-matches.gpkg", "NAME.png"}
