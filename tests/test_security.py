"""Nothing read from a file runs, and nothing named in one leads a write out of the folder of a run."""

from __future__ import annotations

import ast
import json
import os
import pickle
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import shapely
from map_scenes import recipe, rgb_with_lakes, run_here, write_scene
from rasters import raster
from season_scenes import read, write_recipe
from test_season_stac import make_items

import lakescale as ls
from lakescale.grid import Grid
from lakescale.models.foreign import read_foreign
from lakescale.schema import InputError
from lakescale.series import track
from lakescale.store import remove_layer, remove_store
from pipelines.catalogue import Provenance, write_catalogue
from pipelines.map_lakes import map_lakes
from pipelines.run_folder import publish
from pipelines.run_models import _refuse_name
from pipelines.season_dates import _take_over
from pipelines.season_scenes import list_scenes

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("lakescale", "pipelines", "training") for path in sorted((ROOT / folder).rglob("*.py"))]

# -- what would run code


RUNS_CODE = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
    *(f"{module}.{name}" for module in ("pickle", "cloudpickle", "dill", "marshal") for name in ("load", "loads")),
    "pickle.Unpickler", "shelve.open", "joblib.load", "pandas.read_pickle", "tempfile.mktemp",
}  # fmt: skip
NEEDS = {"torch.load": ("weights_only", True), "trainer.fit": ("weights_only", True)}
MUST_NOT = {"numpy.load": ("allow_pickle", True), "shell": ("shell", True)}


def find_code_runners(text):
    """Name the calls of a source that could run what a file holds, whatever their modules are called there."""
    tree, known = ast.parse(text), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {
                name.asname or name.name.partition(".")[0]: name.name if name.asname else name.name.partition(".")[0]
                for name in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            known |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    return [
        f"line {node.lineno}: {bad}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        if (bad := judge(node, known))
    ]


def judge(call, known):
    name = ast.unparse(call.func)
    first, dot, rest = name.partition(".")
    name = f"{known.get(first, first)}{dot}{rest}"
    options = {one.arg: one.value for one in call.keywords}

    def says(option, value):
        return isinstance(options.get(option), ast.Constant) and options[option].value is value

    if name in RUNS_CODE:
        return name
    if name in NEEDS and not says(*NEEDS[name]):
        return f"{name} without {NEEDS[name][0]}"
    if "allow_pickle" in options and not says("allow_pickle", False):
        return f"{name} with allow_pickle"
    return f"{name} with a shell" if "shell" in options and not says("shell", False) else ""


def test_no_source_runs_what_a_file_holds():
    assert len(SOURCES) > 200
    found = {str(path.relative_to(ROOT)): find_code_runners(path.read_text()) for path in SOURCES}
    assert {name: calls for name, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import yaml\nyaml.load(text)",
        "from yaml import unsafe_load as read\nread(text)",
        "import pickle as p\np.loads(b'')",
        "import pandas as pd\npd.read_pickle('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "trainer.fit(learner, ckpt_path='x')",
        "import subprocess as s\ns.run('ls', shell=True)",
        "def f():\n    from os import system\n    system('ls')",
        "eval('1')",
    ],
)
def test_the_check_of_sources_finds(text):
    assert len(find_code_runners(text)) == 1


def test_the_check_of_sources_lets_safe_calls_pass():
    safe = "import yaml, torch, re\nyaml.safe_load(t)\ntorch.load(x, weights_only=True)\nre.compile(x)\nmodel.eval()"
    assert find_code_runners(safe) == []


@pytest.mark.parametrize("command", [["map", "--recipe"], ["season"], ["samples"], ["train"]], ids=" ".join)
def test_a_recipe_runs_nothing(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("out: RUN\nscene: !!python/object/apply:os.mkdir [ran]\n")
    assert run_here(monkeypatch, *command, "recipe.yaml") == 2
    assert "the recipe cannot be read: could not determine a constructor" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


class Runs:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_weights_of_others_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights.pth").write_bytes(pickle.dumps({"state_dict": Runs()}, protocol=2))
    with pytest.raises(InputError, match="would run code"):
        read_foreign("weights.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


# -- names that lead elsewhere

LEADING = ("../x", "a/b", "/tmp/x", "..", "x\0y")


@pytest.mark.parametrize("name", LEADING)
def test_a_name_leads_nowhere(name, tmp_path):
    with pytest.raises(InputError, match="no name for a layer"):
        ls.write_layer(raster(np.ones((32, 32), np.uint8), 16), tmp_path / "x.zarr", name)
    with pytest.raises(InputError, match="no name for a model"):
        _refuse_name(name, [name], "m.safetensors")
    with pytest.raises(InputError, match="not a date"):
        read(write_recipe(tmp_path, {"scenes": ["a.tif"], "out": "RUN", "dates": {"a.tif": name.replace("\0", "")}}))
    with pytest.raises(InputError, match="not a date"):
        map_lakes(recipe(write_scene(tmp_path / "s.tif", rgb_with_lakes(32)), tmp_path / "RUN", scene__date=name))
    assert {path.name for path in tmp_path.iterdir()} <= {"season.yaml", "recipe.yaml", "s.tif"}


def test_the_id_of_an_item_that_is_found_leads_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("LAKESCALE_CACHE", str(tmp_path / "a/cache"))
    (item,) = make_items(tmp_path)[:1]
    item.id = "../../../../20190701_stolen"
    catalogue = pystac.Catalog("root", "made up")
    (tmp_path / "stac").mkdir()
    (tmp_path / "stac/item.json").write_text(json.dumps(item.to_dict(include_self_link=False)))
    told = catalogue.to_dict(include_self_link=False)
    told["links"] = [{"rel": "item", "href": "./item.json"}]
    (tmp_path / "stac/catalog.json").write_text(json.dumps(told))
    search = {"stac": {"url": str(tmp_path / "stac/catalog.json")}}
    (listed,) = list_scenes(read(write_recipe(tmp_path, {"scenes": search, "out": "RUN"}))).values()
    kept = Path(listed[0].files[0])
    assert kept.resolve().is_relative_to(tmp_path / "a/cache/stac")
    assert "stolen" in kept.name
    assert kept.parent.stat().st_mode & 0o077 == 0, "links may be signed"
    assert [path for path in tmp_path.rglob("*stolen*") if not path.is_relative_to(tmp_path / "a/cache/stac")] == []


def test_the_title_of_a_season_and_names_of_its_scenes_lead_nowhere(tmp_path):
    lake = gpd.GeoDataFrame({"lake_id": [1]}, geometry=[shapely.box(600_000, 7_429_700, 600_300, 7_430_000)], crs=32622)
    grid = Grid.of(ls.open_scene(write_scene(tmp_path / "S2_20190701.tif", rgb_with_lakes(64)), chunks=64))
    day, inside = "2019-07-01", tmp_path / "inside"
    provenance = Provenance(recipe_hash="../../x", creator="../../x", inputs=("../../x",))
    inside.mkdir()
    write_catalogue(
        track({day: lake}, dates={day: (day, day)}),
        inside / "out",
        grid=grid,
        title="../../../x",
        provenance=provenance,
    )
    assert {path.name for path in tmp_path.iterdir()} == {"S2_20190701.tif", "inside"}
    assert [path.name for path in inside.iterdir()] == ["out"]
    assert all(".." not in str(path.relative_to(inside)) for path in inside.rglob("*"))


# -- a folder that somebody else may write to


@pytest.fixture
def run(small_scene, tmp_path):
    """Map the small scene; where it lies, and a function that maps it anew by other rules."""
    out = tmp_path / "at/RUN"
    options = {"scene__chunks": 200, "fuse": "none", "report": False}
    map_lakes(recipe(small_scene, out, **options))

    def anew():
        map_lakes(
            recipe(small_scene, out, **options, rules__min_area_m2=9000, scene__date="2019-07-24"), overwrite=True
        )

    return out, anew


@pytest.mark.parametrize("name", ["evidence.zarr", "evidence.partial.zarr", "lakes.parquet", "lakes.partial.parquet"])
def test_a_link_in_the_folder_of_a_run_is_refused(name, small_scene, tmp_path):
    kept, out = tmp_path / "kept", tmp_path / "RUN"
    kept.mkdir()
    out.mkdir()
    (kept / "zarr.json").write_text("kept")
    (out / name).symlink_to(kept if name.endswith("zarr") else kept / "zarr.json")
    with pytest.raises(InputError, match=rf"holds a link, which may lead out of it \[.*/{name}\]"):
        map_lakes(recipe(small_scene, out), overwrite=True)
    assert (kept / "zarr.json").read_text() == "kept"
    assert list(out.iterdir()) == [out / name]


def test_links_are_not_followed_where_things_are_taken_away_or_written(tmp_path):
    kept = tmp_path / "kept"
    (kept / "layer/commits").mkdir(parents=True)
    files = [kept / name for name in ("zarr.json", "layer/zarr.json", "layer/commits/0")]
    for file in files:
        file.write_text("kept")
    store, one = tmp_path / "x.zarr", tmp_path / "one.txt"
    store.symlink_to(kept)
    remove_store(store)
    assert not store.is_symlink()
    store.mkdir()
    (store / "layer").symlink_to(kept / "layer")
    remove_layer(store, "layer")
    assert list(store.iterdir()) == []
    for name in ("one.txt", "one.partial.txt"):
        (tmp_path / name).symlink_to(files[0])
    publish(one, lambda path: path.write_text("new"))
    assert one.read_text() == "new"
    assert not one.is_symlink()
    assert {file.read_text() for file in files} == {"kept"}


def test_the_manifest_of_an_earlier_run_leads_nowhere(run, tmp_path):
    out, anew = run
    told = json.loads((out / "manifest.json").read_text())
    told["recipe"]["models"] = [{"name": "x/../../../kept"}, {"name": 3}, {}]
    (out / "manifest.json").write_text(json.dumps(told))
    (out / "candidates_x").mkdir()
    kept = tmp_path / "kept.parquet"
    kept.write_text("kept")
    assert (out / "candidates_x/../../../kept.parquet").exists()
    anew()
    assert kept.read_text() == "kept"


def test_the_folder_of_a_date_that_is_a_link_is_refused(small_scene, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("kept")
    (tmp_path / "2019-07-23").symlink_to(tmp_path / "kept")
    with pytest.raises(InputError, match="the folder of a date is a link"):
        _take_over(recipe(small_scene, tmp_path / "2019-07-23"))
    assert (tmp_path / "kept/file").read_text() == "kept"
