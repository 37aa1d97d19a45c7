"""`evidence.zarr` of a run: its layers, what a killed run leaves and the next one goes on from, whose folder it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import zarr
from cube_killer import tree
from map_scenes import as_set, recipe, rgb_with_lakes, write_scene
from test_map_models import TINY, save
from test_map_sources import slope_with_bowl, write_dem

import lakescale as ls
from lakescale.evidence.model_source import drop_models
from lakescale.models import ModelSpec
from lakescale.schema import InputError, RunError
from lakescale.stages import Journal
from lakescale.store import Commits, open_layer
from pipelines import evidence_store
from pipelines import map_lakes as mapping
from pipelines.map_lakes import map_lakes

HERE = Path(__file__).parent
STORE, PARTIAL = "evidence.zarr", "evidence.partial.zarr"
CHUNKS = 4  # of 200 x 200 pixels in chunks of 128
LAYERS = ("seen", "color", "sink_depth", "sink", "probability_net")


@pytest.fixture(autouse=True)
def _no_models_left():
    yield
    drop_models()


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    spec = ModelSpec("unet", "resnet18", window=64, threshold=0.5, options=TINY)
    return save(tmp_path_factory.mktemp("models") / "net.safetensors", spec)


@pytest.fixture
def asked(small_scene, net, tmp_path):
    """A recipe with all kinds of layers, for any folder."""
    dem = write_dem(tmp_path / "dem.tif", slope_with_bowl(slice(15, 65), slice(15, 65)))

    def ask(out, **options):
        of_models = {"models": [f"net={net}"], "models__stride": 64, "models__gate": True}
        return recipe(
            small_scene,
            tmp_path / out,
            **{"dem__source": str(dem), "dem__margin_m": 0, "scene__chunks": 128, **of_models, **options},
        )

    return ask


def names(store):
    return set(zarr.open_group(store, mode="r").array_keys()) - {"y", "x", "spatial_ref"}


def answer(result):
    return as_set(result.lakes), as_set(result.candidates), {k: as_set(v) for k, v in result.of_models.items()}


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def files(folder):
    """What lies in a run, without what says when it was made and what that took."""
    dated = "manifest.json", "lakes.gpkg", "report.html"
    return {name: data for name, data in tree(folder).items() if name not in dated}


class Writer:
    """Counts chunks as they are written, and ends the run instead of writing some one."""

    def __init__(self, monkeypatch, *, error=None, after=None):
        self.written = []
        really_write = Commits.write

        def write(commits, *arguments):  # tasks know it by this name
            if after is not None and len(self.written) >= after:
                raise error
            self.written.append(commits.arrays[0].name)
            return really_write(commits, *arguments)

        monkeypatch.setattr(Commits, "write", write)


# -- the layers


def test_layers_of_8_bit_rgb_with_a_dem_and_a_model_are_what_the_functions_give(asked, net, tmp_path):
    result = map_lakes(asked("RUN"))
    store, scene = tmp_path / "RUN" / STORE, ls.open_scene(tmp_path / "S2_small_20190723.tif")
    assert names(store) == set(LAYERS)
    color, seen = ls.color_mask(scene), ls.seen_mask(scene)
    np.testing.assert_array_equal(open_layer(store, "color"), color)
    np.testing.assert_array_equal(open_layer(store, "seen"), seen)
    depth = ls.sink_depth(ls.open_dem(tmp_path / "dem.tif")).values
    assert 3.9 < depth.max() < 4.1
    stored = open_layer(store, "sink_depth")
    np.testing.assert_array_equal(stored, depth)
    np.testing.assert_array_equal(open_layer(store, "sink"), depth > np.float32(0.5))
    gate = color | (open_layer(store, "sink") > 0)
    direct = ls.lake_probability(scene, net, window=64, stride=64, gate=gate).values
    probability = open_layer(store, "probability_net")
    np.testing.assert_allclose(probability, direct, atol=1e-5)
    np.testing.assert_array_equal(np.isnan(probability), ~seen.values)
    types = {name: str(open_layer(store, name).dtype) for name in LAYERS}
    assert types == {
        **dict.fromkeys(("seen", "color", "sink"), "bool"),
        **dict.fromkeys(("sink_depth", "probability_net"), "float32"),
    }
    assert stored.odc.geobox == scene.odc.geobox
    assert stored.data.chunks[0] == (128, 72)
    assert manifest(tmp_path / "RUN")["evidence"] == {"layers": list(LAYERS), "chunks_written": 5 * CHUNKS}
    assert result.lakes.sink_share.tolist() == [1.0, 0.0]


def test_layers_of_reflectance(tmp_path):
    rgb = rgb_with_lakes().astype(np.float32) / 255
    rgb[:, :, 190:] = np.nan
    scene = write_scene(tmp_path / "S_20190723.tif", rgb, nodata=np.nan, names=["red", "green", "blue"])
    map_lakes(recipe(scene, tmp_path / "RUN", scene__chunks=128, index_threshold=0.3))
    store = tmp_path / "RUN" / STORE
    assert names(store) == {"seen", "index", "water_index"}
    with np.errstate(invalid="ignore"):
        expected = (rgb[2] - rgb[0]) / (rgb[2] + rgb[0])
    np.testing.assert_allclose(open_layer(store, "water_index"), expected, rtol=1e-6)
    np.testing.assert_array_equal(open_layer(store, "index"), expected > 0.3)
    np.testing.assert_array_equal(open_layer(store, "seen"), ~np.isnan(rgb[0]))


def test_without_evidence_the_lakes_are_the_same(asked, tmp_path):
    plain = map_lakes(asked("PLAIN", write_evidence=False))
    assert answer(plain) == answer(map_lakes(asked("RUN")))
    assert not (tmp_path / "PLAIN" / STORE).exists()
    assert "evidence" not in manifest(tmp_path / "PLAIN")


# -- a run that ends too early


@pytest.mark.parametrize("after", [CHUNKS + 1, 3 * CHUNKS, 4 * CHUNKS + 2])
def test_a_run_that_was_cut_short_goes_on_and_computes_no_finished_chunk_again(asked, tmp_path, monkeypatch, after):
    out = tmp_path / "RUN"
    expected = answer(map_lakes(asked("PEACE")))
    with monkeypatch.context() as patch:
        Writer(patch, error=RunError("the disk is full"), after=after)
        with pytest.raises(RunError, match="the disk is full"):
            map_lakes(asked("RUN"))
    assert {path.name for path in out.iterdir()} == {"manifest.json", "recipe.yaml", PARTIAL}
    assert manifest(out)["state"] == "failed"
    left = len(list((out / PARTIAL).glob("*/commits/*/*")))
    assert left >= after - 2
    with pytest.raises(InputError, match="holds another run"):
        map_lakes(asked("RUN", index_threshold=0.3))
    writer = Writer(monkeypatch)
    assert answer(map_lakes(asked("RUN"))) == expected
    assert len(writer.written) == 5 * CHUNKS - left
    assert manifest(out)["evidence"]["chunks_written"] == 5 * CHUNKS - left
    assert not (out / PARTIAL).exists()
    assert {k: v for k, v in files(out).items() if "/c/" in k} == {
        k: v for k, v in files(tmp_path / "PEACE").items() if "/c/" in k
    }


def test_a_run_that_ends_after_its_evidence_writes_none_again(asked, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RunError("no memory")

    expected = answer(map_lakes(asked("PEACE")))
    with monkeypatch.context() as patch:
        patch.setattr(mapping, "compute_products", fail)
        with pytest.raises(RunError, match="no memory"):
            map_lakes(asked("RUN"))
    writer = Writer(monkeypatch)
    assert answer(map_lakes(asked("RUN"))) == expected
    assert writer.written == []


COMMAND = """
import sys
from pathlib import Path
from pipelines.map_lakes import map_lakes
from pipelines.recipe import read_recipe
if __name__ == "__main__":
    map_lakes(read_recipe(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(asked, tmp_path):
    expected = answer(map_lakes(asked("PEACE")))
    wanted, out = asked("RUN", cluster__kind="local", cluster__workers=1), tmp_path / "RUN"
    (tmp_path / "recipe.yaml").write_text(wanted.to_yaml())
    (tmp_path / "run.py").write_text(COMMAND)
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "recipe.yaml")],
        start_new_session=True, stderr=subprocess.DEVNULL, env=environment, cwd=HERE.parent,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while not (out / PARTIAL / "probability_net" / "commits").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(20)
    assert manifest(out)["state"] == "running"
    left = len([path for path in (out / PARTIAL).glob("*/commits/*/*") if path.name.isdigit()])
    assert left >= 4 * CHUNKS
    assert answer(map_lakes(asked("RUN"))) == expected
    assert manifest(out)["evidence"]["chunks_written"] == 5 * CHUNKS - left


def test_bad_input_in_the_middle_leaves_the_folder_to_any_recipe(asked, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        Writer(patch, error=InputError("a damaged tile"), after=CHUNKS + 1)
        with pytest.raises(InputError, match="a damaged tile"):
            map_lakes(asked("RUN"))
    assert {path.name for path in (tmp_path / "RUN").iterdir()} == {PARTIAL}
    result = map_lakes(asked("RUN", models=[], models__stride=None, models__gate=None, dem__min_depth_m=2.0))
    assert result.of_models == {}
    assert names(tmp_path / "RUN" / STORE) == {"seen", "color", "sink_depth", "sink"}


# -- a run that is finished


def test_a_finished_run_stays_as_it_is(asked, tmp_path, monkeypatch):
    first = map_lakes(asked("RUN"))
    before, kept = tree(tmp_path / "RUN"), files(tmp_path / "RUN")
    with pytest.raises(InputError, match="holds another run"):
        map_lakes(asked("RUN", models__stride=32))
    assert tree(tmp_path / "RUN") == before
    with monkeypatch.context() as patch:
        Writer(patch, error=RunError("the disk is full"), after=CHUNKS + 1)
        with pytest.raises(RunError, match="the disk is full"):
            map_lakes(asked("RUN", models__stride=32), overwrite=True)
    changed = {name: data for name, data in tree(tmp_path / "RUN").items() if not name.startswith(PARTIAL)}
    assert changed == before
    writer = Writer(monkeypatch)
    assert answer(map_lakes(asked("RUN"))) == answer(first)
    assert writer.written == []
    assert files(tmp_path / "RUN") == kept


def test_other_rules_take_the_evidence_that_is_there_and_overwriting_the_same_run_makes_it_anew(
    asked, tmp_path, monkeypatch
):
    map_lakes(asked("RUN"))
    writer = Writer(monkeypatch)
    changed = map_lakes(asked("RUN", rules__min_area_m2=200_000, models__threshold=0.6), overwrite=True)
    assert writer.written == []
    assert len(changed.lakes) == 1
    map_lakes(asked("RUN", rules__min_area_m2=200_000, models__threshold=0.6), overwrite=True)
    assert len(writer.written) == 5 * CHUNKS


def test_a_scene_that_changed_has_evidence_of_its_own(small_scene, tmp_path):
    map_lakes(recipe(small_scene, tmp_path / "RUN"))
    rgb = rgb_with_lakes()
    rgb[:, 20:60, 20:60] = 220
    write_scene(small_scene, rgb)
    assert len(map_lakes(recipe(small_scene, tmp_path / "RUN")).lakes) == 1
    stored = open_layer(tmp_path / "RUN" / STORE, "color").values
    np.testing.assert_array_equal(stored, ls.color_mask(ls.open_scene(small_scene)))
    assert not stored[:65, :65].any()


def test_a_damaged_chunk_is_told_and_mended_by_overwriting(small_scene, tmp_path):
    out = tmp_path / "RUN"
    expected = answer(map_lakes(recipe(small_scene, out)))
    chunk = out / STORE / "color/c/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"damaged chunk.*--overwrite"):
        map_lakes(recipe(small_scene, out))
    assert gpd.read_parquet(out / "lakes.parquet").shape[0] == 2
    assert answer(map_lakes(recipe(small_scene, out), overwrite=True)) == expected


def test_two_runs_in_one_folder_do_not_write_to_the_same_store(small_scene, tmp_path):
    out = tmp_path / "RUN"

    def meanwhile(name, raster):
        kept = keep(store, name, raster)
        with evidence_store.locked(out / PARTIAL), pytest.raises(RunError, match="another process is writing"):
            keep(store, name, raster)
        return kept

    plain = mapping._Run.open(recipe(small_scene, out))
    out.mkdir()
    store = evidence_store.EvidenceStore(out, plain.lay_evidence(), plain.sources.grid, Journal(), reuse=True)
    keep = evidence_store.EvidenceStore.keep
    assert set(plain.lay_evidence(meanwhile)) == {"seen", "color"}
