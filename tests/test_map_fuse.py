"""`lakescale map --fuse`: the lakes of a run are those of `lakescale.fuse`, and no candidate is lost on the way."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from typing import ClassVar

import dask.array as da
import geopandas as gpd
import numpy as np
import pytest
import shapely
from map_scenes import FILES, as_set, recipe, rgb_with_lakes, write_areas, write_scene
from test_map_sources import slope_with_bowl, write_dem

import lakescale as ls
from lakescale.evidence.model_source import ModelSource
from lakescale.fusion import PRESETS, Lakescale, Seed
from lakescale.grid import Grid
from lakescale.schema import KEPT, InputError, RunError
from lakescale.store import open_layer
from pipelines import fuse_lakes
from pipelines import map_lakes as mapping
from pipelines.fuse_lakes import MIN_RANKED_INDEX
from pipelines.map_lakes import map_lakes, plan
from pipelines.run_models import RunModel

STORE = "evidence.zarr"

SAM = {
    (20, 60, 20, 60): (KEPT, ""),  # on the first lake, and in the bowl
    (20, 60, 62, 70): ("another polygon keeps its sink", "sam"),
    (100, 160, 100, 160): (KEPT, ""),  # on the second lake
    (80, 90, 20, 30): ("overlaps neither sink nor color", ""),
    (188, 194, 5, 100): ("stream", ""),
    (5, 9, 100, 104): ("smaller than the least area", ""),
}
DEEPLAB = {
    (25, 55, 25, 55): ("replaced by a model of higher precedence", "sam"),
    (165, 185, 20, 120): (KEPT, "color"),  # as large as the stream of color
    (120, 130, 20, 30): ("fits no sink or color polygon that it overlaps", ""),
    (140, 160, 20, 50): (KEPT, "color"),  # the third lake
}
"""Rows and columns (from, to) that a model calls lake; what becomes of each, and by what."""


class Drawn(RunModel):
    """A model that finds what was drawn for it."""

    boxes: ClassVar = {}

    def probability(self, scene, gate):
        like = ls.seen_mask(scene)
        values = np.full(like.shape, 0.05, np.float32)
        for top, bottom, left, right in self.boxes[self.name]:
            values[top:bottom, left:right] = 0.9
        return like.copy(data=da.from_array(values, chunks=like.chunks)).rename("probability")


def open_drawn(asked):
    made = [
        Drawn(one.name, ModelSource(one.source, str), 0.5, False, {"window": 64, "stride": 64}, {})
        for one in asked.models
    ]
    return asked, made


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def models(patched):
    """Models of a recipe find what was drawn."""

    def draw(**boxes):
        patched.setattr(Drawn, "boxes", boxes)
        return [f"{name}={name}.safetensors" for name in boxes]

    patched.setattr(mapping, "open_models", open_drawn)
    return draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fused")


@pytest.fixture(scope="module")
def bowl(folder):
    return str(write_dem(folder / "dem.tif", slope_with_bowl(slice(15, 65), slice(15, 65))))


@pytest.fixture(scope="module")
def asked(folder, bowl, models):
    """A recipe with two models, a sink and color, for any folder."""
    rgb = rgb_with_lakes()
    rgb[:, 140:160, 20:50] = np.array([20, 100, 200])[:, None, None]
    scene = write_scene(folder / "S2_small_20190723.tif", rgb)

    def ask(out, **options):
        drawn = models(sam=SAM, deeplab=DEEPLAB) if "models" not in options else options.pop("models")
        own = {"rules__gap_m": 0, "dem__source": bowl, "dem__margin_m": 0}
        options = {"models": drawn, "fuse": "seed", **own, **options}
        return recipe(scene, out, **options)

    return ask


@pytest.fixture(scope="module")
def world(asked, folder):
    """A run with the defaults."""
    return map_lakes(asked(folder / "RUN"))


def box(top, bottom, left, right):
    return shapely.box(600_000 + 10 * left, 7_430_000 - 10 * bottom, 600_000 + 10 * right, 7_430_000 - 10 * top)


def fates(candidates):
    """What became of each box, and by what."""
    found = {}
    for row in candidates.itertuples():
        left, low, right, high = row.geometry.bounds
        places = (7_430_000 - high, 7_430_000 - low, left - 600_000, right - 600_000)
        found[tuple(round(place / 10) for place in places)] = (row.reason, row.by)
    return found


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def outlines(store, layer):
    return ls.polygonize(open_layer(store, layer)).compute().sort_values("label")


# -- what becomes of each candidate


def test_every_candidate_meets_the_fate_that_the_five_steps_have_for_it(world):
    result, candidates = world, gpd.read_parquet(world.out / "candidates.parquet")
    assert fates(candidates[candidates.evidence == "sam"]) == SAM
    assert fates(candidates[candidates.evidence == "deeplab"]) == DEEPLAB
    expected = [(20, 60, 20, 60), (100, 160, 100, 160), (140, 160, 20, 50), (165, 185, 20, 120)]
    for lake, place in zip(result.lakes.geometry, expected, strict=True):
        assert lake.equals(box(*place))
    assert result.lakes.evidence.tolist() == ["sam", "sam", "deeplab", "deeplab"]
    assert result.lakes.lake_id.tolist() == [1, 2, 3, 4]
    assert result.lakes.area_m2.tolist() == pytest.approx([160_000, 360_000, 60_000, 200_000], rel=0.01)
    assert result.lakes.color_share.between(0.5, 1).all()
    assert result.lakes.sink_share.tolist() == [1, 0, 0, 0]
    kept = candidates[candidates.reason == KEPT]
    assert kept.lake_id.tolist() == [1, 2, 3, 4]
    assert candidates.lake_id.notna().sum() == 4
    assert kept.by_row.tolist()[2:] == [2, 3]  # of the color polygons, in raster order
    assert {path.name for path in world.out.iterdir()} == FILES | {
        "candidates_sam.parquet", "candidates_deeplab.parquet",
    }  # fmt: skip


def test_no_candidate_is_lost(world):
    result = world
    files = {name: gpd.read_parquet(world.out / f"candidates_{name}.parquet") for name in ("sam", "deeplab")}
    assert [len(frame) for frame in files.values()] == [len(SAM), len(DEEPLAB)]
    told = manifest(world.out)
    assert sum(told["candidates"].values()) == len(result.candidates) == len(SAM) + len(DEEPLAB)
    assert told["fusion"]["preset"] == "seed"
    for name, wanted in (("sam", SAM), ("deeplab", DEEPLAB)):
        reasons = [reason for reason, _ in wanted.values()]
        assert told["fusion"]["candidates"][name] == {reason: reasons.count(reason) for reason in reasons}
    assert told["lakes"] == 4
    assert any(
        note.startswith("fused by seed: lakes 2 of sam, 2 of deeplab; sinks 1, color 4") for note in told["notes"]
    )
    for row in result.candidates[result.candidates.by.isin(files)].itertuples():  # rows are those of the files
        winner = files[row.by].iloc[row.by_row]
        assert winner.geometry.equals(box(20, 60, 20, 60))
        assert files[row.evidence].iloc[row.row].geometry.equals(row.geometry)


def fuse_by_hand(run, preset, ice, *, names=("sam", "deeplab"), whole=False, **options):
    """Fuse what lies in the folder of a run: candidates that were kept, or the whole of them."""
    frames = {name: gpd.read_parquet(run / f"candidates_{name}.parquet") for name in names}
    return ls.fuse(
        {name: frame if whole else frame[frame.reason == KEPT] for name, frame in frames.items()},
        sinks=options.pop("sinks") if "sinks" in options else outlines(run / STORE, "sink"),
        color=outlines(run / STORE, "color"),
        ice=gpd.read_file(ice),
        preset=preset,
        return_reasons=True,
        **options,
    )


def assert_lakes_are(result, lakes):
    assert [lake.wkb for lake in result.lakes.geometry] == [lake.wkb for lake in lakes.geometry]
    assert result.lakes.evidence.tolist() == lakes.model.tolist()
    assert result.lakes.lake_id.tolist() == lakes.lake_id.tolist()


@pytest.fixture
def ice(tmp_path):
    return write_areas(tmp_path / "ice.gpkg", (599_000, 7_428_000, 601_300, 7_431_000))


def test_lakes_are_those_of_fuse_by_hand_on_the_files_of_the_run(asked, ice, tmp_path):
    result = map_lakes(asked(tmp_path / "RUN", ice=str(ice), rules__min_area_m2=0))
    lakes, reasons = fuse_by_hand(tmp_path / "RUN", "seed", ice)
    assert_lakes_are(result, lakes)
    fused = result.candidates[result.candidates.reason != "stream"]
    assert fused.reason.tolist() == reasons.reason.tolist()
    assert fused.by.tolist() == reasons.by.tolist()
    assert fused.lake_id.tolist() == reasons.lake_id.tolist()
    of_color = (reasons.by == "color").to_numpy()
    assert fused.by_row[of_color].tolist() == reasons.by_row[of_color].tolist()


def test_a_preset_of_rasters_and_reasons_is_given_both(asked, models, ice, tmp_path):
    """Models, then the index, whose word on 8-bit RGB needs that of a model; and sinks within sinks."""
    drawn = models(sam=SAM, deeplab=[(25, 55, 25, 55)])
    result = map_lakes(asked(tmp_path / "RUN", ice=str(ice), fuse="lakescale", models=drawn))
    layers = ("seen", "color", "index", "probability_sam", "probability_deeplab")
    evidence = {name: open_layer(tmp_path / "RUN" / STORE, name) for name in layers}
    dem = ls.regrid(ls.open_dem(asked(tmp_path).dem.source[0]), Grid.of(evidence["seen"]), resampling="bilinear")
    sinks = ls.sink_regions(dem, min_depth_m=0.5, min_area_m2=2000, levels=None).compute().sort_values("sink_id")
    options = {"names": ("sam", "deeplab", "index"), "sinks": sinks, "whole": True, "evidence": evidence}
    ranked = Lakescale(min_index_probability=MIN_RANKED_INDEX)
    lakes, reasons = fuse_by_hand(tmp_path / "RUN", ranked, ice, **options)
    assert_lakes_are(result, lakes)
    for column in ("reason", "by", "by_row", "lake_id"):
        assert result.candidates[column].tolist() == reasons[column].tolist()
    improbable = result.candidates.reason == "too improbable by the models"
    assert {"stream", KEPT, "merged into another polygon"} <= set(result.candidates.reason)
    assert set(result.candidates.evidence[improbable]) == {"index"}
    told = manifest(result.out)
    assert told["fusion"]["preset"] == "lakescale"
    assert told["fusion"]["options"] == asdict(ranked)
    assert sum(told["candidates"].values()) == len(SAM) + 1 + len(result.of_models["index"])


def test_ice_and_excludes_still_decide(asked, tmp_path):
    left = write_areas(tmp_path / "left.gpkg", (599_000, 7_428_000, 600_900, 7_431_000))
    dot = write_areas(tmp_path / "dot.gpkg", (600_300, 7_429_700, 600_310, 7_429_710))
    found = fates(map_lakes(asked(tmp_path / "RUN", ice=str(left), exclude=str(dot))).candidates)
    assert found[100, 160, 100, 160] == ("not on the ice", "")
    assert found[20, 60, 20, 60] == found[25, 55, 25, 55] == ("overlaps an excluded area", "")
    assert found[20, 60, 62, 70] == (KEPT, "")  # nothing keeps its sink any more


def test_the_same_in_any_chunks(world, asked, tmp_path):
    """A seam cuts the second lake's color, and not the third's."""
    cut = map_lakes(asked(tmp_path / "CUT", scene__chunks=128))
    assert as_set(cut.lakes) == as_set(world.lakes)
    assert as_set(cut.candidates) == as_set(world.candidates)


# -- what a preset cuts


FIRST = (20, 45, 20, 45)


def test_what_comes_back_as_a_whole_is_judged_as_a_whole(asked, models, tmp_path):
    """The second polygon loses the bowl to the first, and fits the color of the second lake."""
    second = (63, 120, 63, 120)
    whole = map_lakes(asked(tmp_path / "RUN", models=models(sam=[FIRST, second])))
    assert fates(whole.candidates) == {FIRST: (KEPT, ""), second: (KEPT, "color")}
    assert whole.lakes.area_m2.max() == pytest.approx(324_900, rel=0.01)


@pytest.mark.parametrize(
    ("second", "fate", "size"),
    [((63, 120, 63, 120), "smaller than the least area", None), ((50, 107, 50, 107), KEPT, 22_500)],
)
def test_what_a_preset_cuts_is_judged_by_its_own_shape(asked, models, tmp_path, monkeypatch, second, fate, size):
    monkeypatch.setitem(PRESETS, "seed", partial(Seed, clip_revived=True))
    cut = map_lakes(asked(tmp_path / "RUN", models=models(sam=[FIRST, second])))
    assert fates(cut.candidates)[second][0] == fate
    areas = cut.lakes.area_m2.tolist()
    assert areas[1:] == ([] if size is None else [pytest.approx(size, rel=0.01)])
    assert cut.candidates.lake_id.isna().tolist() == [False, size is None]
    assert sum(manifest(cut.out)["candidates"].values()) == 2


def test_what_a_preset_cuts_is_judged_by_its_own_place(asked, models, tmp_path, monkeypatch):
    """What comes back is united with the bowl, which reaches into an excluded area."""

    class United(Seed):
        def judge(self, tables):
            verdict = super().judge(tables)
            verdict.shape = np.array([None, box(15, 65, 15, 65)], object)
            return verdict

    second, dot = (63, 120, 63, 120), write_areas(tmp_path / "dot.gpkg", (600_200, 7_429_400, 600_210, 7_429_410))
    monkeypatch.setitem(PRESETS, "seed", United)
    found = map_lakes(asked(tmp_path / "RUN", models=models(sam=[FIRST, second]), exclude=str(dot)))
    assert fates(found.candidates) == {FIRST: (KEPT, ""), second: ("overlaps an excluded area", "")}
    assert len(found.lakes) == 1


# -- the water index


def test_the_index_is_fused_where_there_is_no_model(small_scene, bowl, tmp_path):
    options = {"evidence": "index", "dem__source": bowl, "dem__margin_m": 0, "fuse": "seed"}
    result = map_lakes(recipe(small_scene, tmp_path / "RUN", **options))
    assert result.lakes.evidence.tolist() == ["index"]
    assert result.candidates.reason.value_counts().to_dict() == {
        KEPT: 1, "overlaps neither sink nor color": 1, "stream": 1,
    }  # fmt: skip
    assert (tmp_path / "RUN/candidates_index.parquet").is_file()
    plain = map_lakes(recipe(small_scene, tmp_path / "RUN", **options | {"fuse": "none"}), overwrite=True)
    assert len(plain.lakes) == 2
    assert "evidence" not in plain.lakes
    assert not (tmp_path / "RUN/candidates_index.parquet").exists()


def test_the_index_comes_after_the_models(tmp_path, models, bowl):
    rgb = rgb_with_lakes().astype(np.float32) / 255
    rgb[:, :, 190:] = np.nan
    scene = write_scene(tmp_path / "S_20190723.tif", rgb, nodata=np.nan, names=["red", "green", "blue"])
    drawn = models(sam=[(20, 30, 20, 60)])
    options = {"fuse": "seed", "dem__source": bowl, "dem__margin_m": 0}
    result = map_lakes(recipe(scene, tmp_path / "RUN", models=drawn, **options))
    assert list(result.of_models) == ["sam", "index"]
    found = fates(result.candidates[result.candidates.evidence == "index"])
    assert found[20, 60, 20, 60] == ("replaced by a model of higher precedence", "sam")
    assert result.lakes.evidence.tolist() == ["sam"]
    assert plan(recipe(scene, tmp_path / "PLAN", models=drawn, **options))["fused"] == "sam, index, by seed"
    two = models(sam=[(20, 30, 20, 60)], deeplab=[(100, 110, 20, 60)])
    with pytest.raises(InputError, match=r"seed fuses at most 2 .* there are 3: sam, deeplab, index.*--evidence model"):
        map_lakes(recipe(scene, tmp_path / "TWO", models=two, **options))
    assert not (tmp_path / "TWO").exists()
    without = map_lakes(recipe(scene, tmp_path / "TWO", models=two, evidence="model", **options))
    assert list(without.of_models) == ["sam", "deeplab"]


def test_a_scene_without_lakes_is_fused_to_none(tmp_path, models):
    scene = write_scene(tmp_path / "void_20190723.tif", np.zeros((3, 100, 100), np.uint8))
    result = map_lakes(recipe(scene, tmp_path / "RUN", models=models(sam=[]), fuse="seed", scene__chunks=64))
    assert len(result.lakes) == len(result.candidates) == 0
    stored = gpd.read_parquet(tmp_path / "RUN/lakes.parquet")
    assert list(stored.columns) == list(result.lakes.columns)
    assert stored.crs.to_epsg() == 32622
    told = manifest(tmp_path / "RUN")["fusion"]
    assert told == {"preset": "seed", "options": asdict(Seed()), "candidates": {"sam": {}}}


# -- what is refused, and what a run that fails leaves


def test_bad_recipes_are_refused_before_anything_is_computed(small_scene, asked, tmp_path, never_compute, monkeypatch):
    with pytest.raises(InputError, match=r"there is nothing to fuse.*--model, or --evidence index"):
        map_lakes(recipe(small_scene, tmp_path / "RUN", fuse="seed"))
    with pytest.raises(InputError, match=r"recipe: fuse.*--fuse"):
        asked(tmp_path / "RUN", fuse="best")
    monkeypatch.delitem(PRESETS, "seed")
    with pytest.raises(InputError, match="there is no fusion 'seed'"):
        map_lakes(asked(tmp_path / "RUN"))
    assert not (tmp_path / "RUN").exists()


def test_another_fusion_is_another_run_and_one_that_fails_goes_on(asked, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RunError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(fuse_lakes, "fuse", fail)
        with pytest.raises(RunError, match="no memory"):
            map_lakes(asked(tmp_path / "RUN"))
    assert manifest(tmp_path / "RUN")["state"] == "failed"
    assert len(map_lakes(asked(tmp_path / "RUN")).lakes) == 4
    assert manifest(tmp_path / "RUN")["evidence"]["chunks_written"] == 0
    with pytest.raises(InputError, match=r"another run \(it differs in fuse\)"):
        map_lakes(asked(tmp_path / "RUN", fuse=None))
