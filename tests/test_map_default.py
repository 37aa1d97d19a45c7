"""What `lakescale map` does when it is told nothing but the scene: the model that ships, fused with all evidence."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pytest
import shapely
from map_scenes import FILES, rgb_with_lakes, write_areas, write_scene
from test_map_sources import slope_with_bowl, write_dem

import lakescale as ls
from lakescale.fusion import PRESETS
from lakescale.models import describe_checkpoint, shipped_checkpoint
from lakescale.schema import InputError
from pipelines.fuse_lakes import MIN_RANKED_INDEX, Fusion
from pipelines.map_lakes import map_lakes
from pipelines.recipe import read_recipe
from pipelines.season_recipe import SeasonRecipe

NAME = shipped_checkpoint().stem


def asked(scene, out, **options):
    """A recipe with the defaults, for threads."""
    options = {"cluster__kind": "threads", "cluster__dashboard": "none", **options}
    return read_recipe(None, scene__source=str(scene), out=out, **options)


def settled(**options):
    recipe = asked("a.tif", "RUN", **options)
    return [one.source for one in recipe.models], recipe.fuse


def test_what_is_left_out_of_a_recipe_is_settled_when_it_is_read(tmp_path):
    assert settled() == (["shipped"], "lakescale")
    assert settled(models="none") == ([], "lakescale")
    assert settled(models=["mine.safetensors"]) == (["mine.safetensors"], "lakescale")
    assert settled(fuse="none") == ([], None)
    assert settled(fuse="none", models="shipped") == (["shipped"], None)
    assert settled(fuse="seed") == (["shipped"], "seed")
    assert settled(evidence="index") == settled(evidence="color") == ([], None)
    assert settled(evidence="index", fuse="lakescale") == (["shipped"], "lakescale")
    assert settled(evidence="model") == (["shipped"], None)
    assert asked("a.tif", "RUN", models__threshold=0.7).models[0].threshold == 0.7
    with pytest.raises(InputError, match="--model-threshold is for models, and none is given"):
        asked("a.tif", "RUN", models="none", models__threshold=0.7)
    with pytest.raises(InputError, match="evidence of a model needs a model"):
        asked("a.tif", "RUN", models="none", evidence="model")
    written = tmp_path / "recipe.yaml"
    written.write_text(asked("a.tif", "RUN").to_yaml())
    assert read_recipe(written) == asked("a.tif", "RUN")
    written.write_text("scene: a.tif\nout: RUN\nmodels: []\nfuse: null\nevidence: auto\n")  # as it was written once
    assert (read_recipe(written).models, read_recipe(written).fuse) == ((), None)
    season = SeasonRecipe.model_validate({"scenes": "a.tif", "out": "RUN"})
    assert ([one.source for one in season.models], season.fuse) == (["shipped"], "lakescale")


def test_the_shipped_model_is_found_by_its_name_wherever_it_lies():
    assert describe_checkpoint("shipped").hash == describe_checkpoint(shipped_checkpoint()).hash


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """8-bit RGB with two lakes, the first in a bowl that reaches over the scene's edge."""
    folder = tmp_path_factory.mktemp("default")
    scene = write_scene(folder / "S2_small_20190723.tif", rgb_with_lakes())
    dem = write_dem(folder / "dem.tif", slope_with_bowl(slice(15, 65), slice(15, 65)))
    return scene, str(dem), folder, map_lakes(asked(scene, folder / "RUN", dem__source=str(dem), dem__margin_m=0))


def test_model_and_index_are_fused_with_color_and_sinks(world):
    scene, _, folder, result = world
    assert list(result.of_models) == [NAME, "index"]
    assert {path.name for path in (folder / "RUN").iterdir()} == FILES | {
        f"candidates_{NAME}.parquet", "candidates_index.parquet",
    }  # fmt: skip
    assert {f"{NAME}_share", "index_share", "color_share", "sink_share", "evidence"} <= set(result.lakes.columns)
    told = json.loads((folder / "RUN/manifest.json").read_text())
    assert told["fusion"]["preset"] == "lakescale"
    assert told["fusion"]["options"]["min_index_probability"] == MIN_RANKED_INDEX
    assert told["models"][NAME]["hash"] == describe_checkpoint(shipped_checkpoint()).hash
    assert told["models"][NAME]["source"] == "shipped"
    assert any(note.startswith(f"model {NAME}: it comes with lakescale") for note in result.notes)
    assert any("; sinks 1, color " in note for note in result.notes)
    assert not any("only a ranking" in note for note in result.notes)
    assert sum(told["candidates"].values()) == sum(map(len, result.of_models.values()))
    again = map_lakes(read_recipe(folder / "RUN/recipe.yaml", out=folder / "AGAIN"))
    assert again.lakes.geometry.to_wkb().tolist() == result.lakes.geometry.to_wkb().tolist()
    assert ls.open_scene(scene).shape == (3, 200, 200)


def test_the_index_of_reflectance_needs_less_of_a_models_word_than_that_of_8_bit_colors():
    rules = asked("a.tif", "RUN").polygon_rules
    least = [Fusion("lakescale", ("index",), rules, ranks).method.min_index_probability for ranks in (False, True)]
    assert least == [ls.Lakescale().min_index_probability, MIN_RANKED_INDEX]
    assert least[0] < least[1]
    assert Fusion("seed", ("index",), rules, ranks_water=True).method == PRESETS["seed"]()


def test_no_sink_reaches_over_the_edge_of_what_is_looked_at(world, tmp_path):
    scene, dem, *_ = world
    left = write_areas(tmp_path / "left.gpkg", (600_000, 7_428_000, 600_450, 7_430_000))
    found = map_lakes(asked(scene, tmp_path / "RUN", dem__source=dem, dem__margin_m=0, aoi=str(left)))
    assert len(found.lakes)
    assert found.lakes.total_bounds[2] <= 600_450


def test_a_scene_of_other_pixels_is_told(tmp_path):
    scene = write_scene(tmp_path / "S2_coarse_20190723.tif", rgb_with_lakes(), resolution=100.0)
    notes = map_lakes(asked(scene, tmp_path / "RUN", write_evidence=False)).notes
    assert any(note.startswith(f"warning: model {NAME}: it has learned from pixels of 5 to 20 m") for note in notes)


def test_the_index_of_8_bit_colors_needs_a_model_beside_it(tmp_path):
    scene = write_scene(tmp_path / "S2_small_20190723.tif", rgb_with_lakes())
    with pytest.raises(InputError, match="there is nothing to fuse"):
        map_lakes(asked(scene, tmp_path / "RUN", models="none"))
    values = np.where(np.array([1, 1, 0])[:, None, None], rgb_with_lakes(), 0)[:2]  # red and green: nothing to look at
    blind = write_scene(tmp_path / "S2_blind_20190723.tif", values, names=["red", "green"])
    with pytest.raises(InputError, match="no evidence of water"):
        map_lakes(asked(blind, tmp_path / "RUN"))


def test_sinks_are_cut_at_the_grid_and_keep_their_levels(world):
    _, _, folder, _ = world
    lakes = gpd.read_parquet(folder / "RUN/lakes.parquet")
    assert shapely.box(600_000, 7_428_000, 602_000, 7_430_000).covers(lakes.union_all())
