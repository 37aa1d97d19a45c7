"""`lakescale map --model`: probabilities and polygons of checkpoints, what the manifest tells, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from map_scenes import FILES, as_set, lakescale, recipe, rgb_with_lakes, write_areas, write_scene
from rasterio.features import rasterize

import lakescale as ls
from lakescale.evidence.model_source import drop_models
from lakescale.models import ModelSpec, build_network, describe_checkpoint, load_model, save_checkpoint
from lakescale.models.sam import SamSize, sam_spec
from lakescale.schema import KEPT, InputError
from lakescale.store import open_layer
from pipelines import model_speed
from pipelines.map_lakes import map_lakes, plan
from pipelines.model_speed import seconds_of_windows
from pipelines.recipe import read_recipe
from pipelines.run_models import open_models

TINY = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
ALL_SHAPES = {
    "rules__gap_m": 0,
    "rules__min_area_m2": 0,
    "rules__neck_px": 0,
    "rules__max_elongation": 0,
    "rules__fill_holes": False,
}


@pytest.fixture(autouse=True)
def _no_models_left():
    yield
    drop_models()


def save(path, spec, std=None):
    """Save random weights, scaled so that a network's logits lie on both sides of zero."""
    torch.manual_seed(5)
    module = build_network(spec).module.eval()
    if std:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=std)
    else:
        head = module.segmentation_head[0]
        torch.nn.init.normal_(head.weight)
        with torch.no_grad():
            mean, deviation = (torch.tensor(one)[:, None, None] for one in (spec.mean, spec.std))
            logits = module(
                (torch.from_numpy(rgb_with_lakes()[:3, :192, :192] / 255.0).float() - mean)[None] / deviation
            )
            head.weight.div_(logits.std())
            head.bias.fill_(-float(logits.median() / logits.std()))
    save_checkpoint(path, module.state_dict(), spec)
    return path


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    """A U-Net with random weights whose answers lie on both sides of its threshold."""
    spec = ModelSpec("unet", "resnet18", window=64, threshold=0.4, options=TINY)
    return save(tmp_path_factory.mktemp("models") / "unet_r18.safetensors", spec)


@pytest.fixture(scope="module")
def sam(tmp_path_factory):
    size = SamSize(
        embed_dim=16, depth=1, n_heads=2, global_blocks=(0,), image_size=64, patch_size=16, attention_window=3,
        prompt_dim=16, mask_channels=4, decoder_mlp_dim=16,
    )  # fmt: skip
    return save(tmp_path_factory.mktemp("models") / "meta.safetensors", sam_spec(size), std=0.3)


def run(scene, out, *models, **options):
    overwrite = options.pop("overwrite", False)
    return map_lakes(recipe(scene, out, models=[str(one) for one in models], **options), overwrite=overwrite)


def burnt(frame, shape=(200, 200)):
    transform = rasterio.transform.from_origin(600_000, 7_430_000, 10, 10)
    return rasterize(frame.geometry, shape, transform=transform) > 0 if len(frame) else np.zeros(shape, bool)


def window_by_window(model, bands, window, stride):
    """Blend in floats what the model says of each window of the whole array."""
    starts = [*range(0, bands.shape[1] - window, stride), bands.shape[1] - window]
    line = np.sin(np.pi * np.arange(window) / (window - 1)) ** 2
    weight = np.maximum(1, np.round(65535 * np.outer(line, line)))
    above, below = np.zeros((2, *bands.shape[1:]))
    for row in starts:
        for col in starts:
            place = slice(row, row + window), slice(col, col + window)
            if bands[:, *place].any():
                above[place] += weight * model.predict(bands[None, :, *place].astype(np.float32))[0]
                below[place] += weight
    return np.where(bands.any(axis=0), above / np.maximum(below, 1), np.nan)


def test_the_model_s_probability_and_its_polygons_are_those_of_a_plain_loop(small_scene, unet, tmp_path):
    result = run(small_scene, tmp_path / "RUN", f"net={unet}", **ALL_SHAPES)
    expected = window_by_window(load_model(unet), rgb_with_lakes(), 64, 32)
    stored = open_layer(tmp_path / "RUN/evidence.zarr", "probability_net").values
    np.testing.assert_allclose(stored, expected, atol=3e-5)
    mask = stored >= np.float32(0.4)
    assert 1000 < mask.sum() < 35_000
    candidates = gpd.read_parquet(tmp_path / "RUN/candidates_net.parquet")
    np.testing.assert_array_equal(burnt(candidates), mask)
    assert set(candidates.evidence) == {"net"}
    assert set(candidates.reason) == {KEPT}
    assert as_set(candidates) == as_set(result.of_models["net"])


def test_a_model_changes_no_lakes_unless_they_are_to_come_from_it(small_scene, unet, sam, tmp_path):
    without = run(small_scene, tmp_path / "WITHOUT")
    beside = run(small_scene, tmp_path / "RUN", f"net={unet}", sam)
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == FILES | {
        "candidates_net.parquet",
        "candidates_sam.parquet",
    }
    assert as_set(beside.candidates) == as_set(without.candidates)
    assert as_set(beside.lakes.drop(columns=["net_share", "sam_share"])) == as_set(without.lakes)
    assert beside.lakes.color_share.tolist() == without.lakes.color_share.tolist()
    from_it = run(small_scene, tmp_path / "MODEL", f"net={unet}", sam, evidence="model")
    assert as_set(from_it.candidates) == as_set(beside.of_models["net"].drop(columns="evidence"))
    assert as_set(from_it.candidates) != as_set(without.candidates)
    assert len(from_it.lakes) == (from_it.candidates.reason == KEPT).sum() > 0
    assert {"color_share", "net_share", "sam_share"} <= set(from_it.lakes)


def test_the_share_under_a_model_is_that_of_its_mask(small_scene, unet, tmp_path):
    lakes = run(small_scene, tmp_path / "RUN", f"net={unet}").lakes
    mask = open_layer(tmp_path / "RUN/evidence.zarr", "probability_net").values >= np.float32(0.4)
    pixels = [burnt(lakes.iloc[[k]]) for k in range(len(lakes))]
    expected = [mask[lake].mean() for lake in pixels]
    assert lakes.net_share.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_polygons_of_a_model_are_the_same_in_any_chunks(small_scene, unet, tmp_path):
    """One window in a call: torch's answers move in the last digits with the number of windows it is given."""
    found = [
        run(
            small_scene, tmp_path / str(side), f"net={unet}", models__batch=1, scene__chunks=side, rules__gap_m=0
        ).of_models["net"]
        for side in (83, 128)
    ]
    assert as_set(found[0]) == as_set(found[1])
    assert len(found[0]) > 5


def test_the_manifest_and_the_notes_tell_what_was_run(tmp_path, unet):
    rgb = rgb_with_lakes()
    rgb[:, :80, 90:] = 0
    scene = write_scene(tmp_path / "S2_20190723.tif", rgb)
    result = run(scene, tmp_path / "RUN", f"net={unet}", models__gate=True, models__stride=48, models__threshold=0.3)
    manifest = json.loads((tmp_path / "RUN/manifest.json").read_text())
    starts = [0, 48, 96, 136]
    water = open_layer(tmp_path / "RUN/evidence.zarr", "color").values
    places = [(slice(r, r + 64), slice(c, c + 64)) for r in starts for c in starts]
    unseen = sum(not rgb[:, *place].any() for place in places)
    gated = sum(bool(rgb[:, *place].any()) and not water[place].any() for place in places)
    assert unseen > 0
    assert gated > 0
    assert manifest["models"]["net"] == {
        "source": str(unet), "hash": describe_checkpoint(unet).hash, "threshold": 0.3, "window": 64, "stride": 48,
        "counts": {"windows": 16, "unseen": unseen, "gated": gated},
    }  # fmt: skip
    (note,) = [note for note in result.notes if note.startswith("model net")]
    assert f"16 windows, {unseen} without a seen pixel, {gated} without other evidence" in note
    model = manifest["recipe"]["models"][0]
    assert (model["name"], model["window"], model["threshold"]) == ("net", 64, 0.3)
    stored = open_layer(tmp_path / "RUN/evidence.zarr", "probability_net").values
    direct = ls.lake_probability(
        ls.open_scene(scene), unet, window=64, stride=48, gate=ls.color_mask(ls.open_scene(scene))
    )
    np.testing.assert_allclose(stored, direct.values, atol=1e-5)
    again = read_recipe(tmp_path / "RUN/recipe.yaml")
    assert as_set(map_lakes(again).of_models["net"]) == as_set(result.of_models["net"])


def test_areas_decide_over_candidates_of_a_model_as_over_others(small_scene, unet, tmp_path):
    left = write_areas(tmp_path / "left.gpkg", (599_000, 7_429_000, 600_800, 7_431_000))
    everywhere = run(small_scene, tmp_path / "ALL", f"net={unet}", **ALL_SHAPES).of_models["net"]
    inside = run(small_scene, tmp_path / "AOI", f"net={unet}", aoi=str(left), **ALL_SHAPES).of_models["net"]
    expected = burnt(everywhere)
    expected[100:] = expected[:, 80:] = False
    np.testing.assert_array_equal(burnt(inside), expected)
    on_ice = run(small_scene, tmp_path / "ICE", f"net={unet}", ice=str(left), **ALL_SHAPES).of_models["net"]
    assert set(on_ice.reason) == {KEPT, "not on the ice"}


def test_models_are_named_by_what_they_are(small_scene, unet, sam, tmp_path):
    deeplab = ModelSpec("deeplabv3plus", "resnet18", window=64)
    path = save(tmp_path / "any-name.safetensors", deeplab)
    told = plan(recipe(small_scene, tmp_path / "RUN", models=[str(unet), str(sam), str(path)]))
    assert {name for name in told if name.startswith("windows of")} == {
        "windows of unet_r18", "windows of sam", "windows of deeplab",
    }  # fmt: skip


# -- the dry run


def test_the_dry_run_counts_layers_and_windows_and_computes_nothing(small_scene, unet, tmp_path, never_compute):
    common = {"scene__chunks": 64}
    without = plan(recipe(small_scene, tmp_path / "RUN", write_evidence=False, **common))
    beside = plan(recipe(small_scene, tmp_path / "RUN", **common))
    model = plan(recipe(small_scene, tmp_path / "RUN", models=[str(unet)], models__stride=48, **common))
    assert without["layers written"] == "none"
    assert beside["layers written"] == "seen, color"
    assert model["layers written"] == "seen, color, probability_unet_r18"
    assert model["windows of unet_r18"] == 16
    sizes = [one["bytes written, before compression"] for one in (without, beside, model)]
    assert sizes == [0, 2 * 200 * 200, (2 + 4) * 200 * 200]
    assert without["tasks"] < beside["tasks"] < model["tasks"]
    assert not (tmp_path / "RUN").exists()


# -- what is refused


def test_models_that_cannot_be_used_are_refused_before_anything_is_written(small_scene, unet, sam, tmp_path):
    (tmp_path / "notes.safetensors").write_text("nothing of the kind")
    nir = save(tmp_path / "nir.safetensors", ModelSpec("unet", "resnet18", bands=("nir", "red", "blue"), options=TINY))
    dn = ModelSpec("unet", "resnet18", values="reflectance", window=64, options=TINY)
    reflectance = save(tmp_path / "reflectance.safetensors", dn)
    for models, options, words in (
        ([tmp_path / "gone.safetensors"], {}, "no such checkpoint.*gone"),
        ([tmp_path / "notes.safetensors"], {}, "no whole safetensors file"),
        ([nir], {}, "the model wants nir, red, blue; the scene has no nir"),
        ([reflectance], {}, "is for reflectance, this scene is uint8"),
        ([unet], {"models__window": 60}, "multiple of 8 px"),
        ([unet], {"models__stride": 65}, "a stride of 65 px leaves pixels"),
        ([unet, unet], {}, "two models are named 'unet_r18'.*--model NAME=PATH"),
        ([f"color={unet}"], {}, "other evidence is named 'color'"),
        ([unet], {"models__hash": "0" * 64}, "the checkpoint is another one"),
        (
            [unet],
            {"models__gate": True, "evidence": "model", "scene__bands": ["r", "g", "b"]},
            "no evidence of color, index or sinks to gate",
        ),
    ):
        with pytest.raises(InputError, match=words):
            run(small_scene, tmp_path / "RUN", *models, **options)
    assert not (tmp_path / "RUN").exists()


def test_options_of_models_without_a_model_are_refused(small_scene, tmp_path):
    with pytest.raises(InputError, match="--model-threshold is for models, and none is given"):
        recipe(small_scene, tmp_path / "RUN", models__threshold=0.5)
    with pytest.raises(InputError, match="evidence of a model needs a model"):
        recipe(small_scene, tmp_path / "RUN", evidence="model")
    with pytest.raises(InputError, match="--model-threshold"):
        recipe(small_scene, tmp_path / "RUN", models=["a.safetensors"], models__threshold=1.5)


def test_another_checkpoint_of_the_same_path_is_another_run(small_scene, unet, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(unet.read_bytes())
    run(small_scene, tmp_path / "RUN", path)
    save(path, ModelSpec("unet", "resnet18", window=64, threshold=0.5, options=TINY))
    with pytest.raises(InputError, match=r"another run \(it differs in models\)"):
        run(small_scene, tmp_path / "RUN", path)
    renamed = run(small_scene, tmp_path / "RUN", f"other={path}", overwrite=True)
    assert list(renamed.of_models) == ["other"]
    assert not (tmp_path / "RUN/candidates_net.parquet").exists()


def test_a_device_that_is_not_there_ends_the_run_and_leaves_the_folder_free(small_scene, unet, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(InputError, match="0 CUDA devices"):
        run(small_scene, tmp_path / "RUN", unet, models__device="cuda")
    assert {path.name for path in (tmp_path / "RUN").iterdir()} <= {"evidence.partial.zarr"}
    assert len(run(small_scene, tmp_path / "RUN", unet).lakes) == 2


@pytest.mark.slow
def test_the_command_runs_models_and_tells_of_them(small_scene, unet, sam, tmp_path):
    done = lakescale(
        "map", "--scene", small_scene, "--out", tmp_path / "RUN", "--model", f"net={unet}", "--model", sam,
        "--model-gate", "--model-device", "cpu", "--cluster", "local", "--workers", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "model net: 36 windows" in done.stdout
    assert done.stdout.endswith(
        "quicklook.png, candidates_net.parquet, candidates_sam.parquet, candidates_index.parquet, report.html\n"
    )
    assert len(gpd.read_parquet(tmp_path / "RUN/lakes.parquet")) == 2
    refused = lakescale("map", "--scene", small_scene, "--out", tmp_path / "RUN2", "--model", tmp_path / "gone")
    assert refused.returncode == 2
    assert "no such checkpoint" in refused.stderr


def test_the_speed_of_models_is_measured_here_and_side_by_side(unet, tmp_path, monkeypatch):
    _, models = open_models(recipe("a.tif", tmp_path / "RUN", models=[str(unet)]))
    for workers in (0, 2):
        assert seconds_of_windows(models, workers)["unet_r18"] > 0
    gone = replace(models[0], source=replace(models[0].source, path=str(tmp_path / "gone.safetensors")))
    assert seconds_of_windows([gone], 0) == {"unet_r18": 0}
    assert seconds_of_windows([], 2) == {}
    monkeypatch.setattr(model_speed, "_measure", lambda *_, threads: 0.5 + threads)
    turned = replace(models[0], options=models[0].options | {"augment": True})
    assert seconds_of_windows([turned], 0) == {"unet_r18": 8 * 0.5}
