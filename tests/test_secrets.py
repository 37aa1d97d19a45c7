"""Keys and passwords are in nothing that a run writes or prints: not in its files, its errors or its logs."""

from __future__ import annotations

import json

import pytest
from map_scenes import lakescale, rgb_with_lakes, run_here, write_scene
from s3_server import KEY, SECRET
from s3fs import S3FileSystem
from season_scenes import write_recipe
from test_season_stac import make_items

from lakescale import storage
from lakescale.storage import locate

WORD = "hidden-word-of-a-user"


@pytest.fixture
def signed_item(tmp_path, bucket):
    """A STAC item whose asset is named by a signed URL, as mirrors of Sentinel-2 hand them out; and its signature."""
    scene = write_scene(tmp_path / "S2_small_20190723.tif", rgb_with_lakes())
    storage.write_whole(locate(f"{bucket}/in/{scene.name}"), scene.read_bytes())
    url = S3FileSystem(use_listings_cache=False).sign(f"{bucket.removeprefix('s3://')}/in/{scene.name}")
    signature = url.partition("ignature=")[2].partition("&")[0]
    assert len(signature) > 20

    def write(href):
        bands = [{"name": name} for name in ("red", "green", "blue")]
        item = {
            "type": "Feature", "id": "S2_x", "properties": {"datetime": "2019-07-23T00:00:00Z"},
            "assets": {"image": {"href": href, "eo:bands": bands}},
        }  # fmt: skip
        path = tmp_path / "item.json"
        path.write_text(json.dumps(item))
        return path

    return write, url, signature


def everything(bucket, *told):
    """All that was written to the bucket, and printed."""
    root = locate(bucket)
    written = {name: (root / name).read_bytes() for name in storage.list_files(root) if not name.startswith("in/")}
    printed = {f"printed {k}": f"{one.stdout}\n{one.stderr}".encode() for k, one in enumerate(told)}
    return written | printed


def find(words, texts):
    return [(name, word) for name, text in texts.items() for word in words if word.encode() in text]


def test_a_run_keeps_its_keys_to_itself(signed_item, bucket, tmp_path):
    write, url, signature = signed_item
    options = ["--fuse", "none", "--chunks", "128", "--workers", "1"]
    told = lakescale("--debug", "map", "--scene", write(url), "--out", f"{bucket}/RUN", *options)
    assert told.returncode == 0, told.stderr
    texts = everything(bucket, told)
    assert {"RUN/manifest.json", "RUN/recipe.yaml", "RUN/report.html", "RUN/lakes.gpkg"} <= set(texts)
    assert find((SECRET, KEY, signature), texts) == []
    assert b"S2_small_20190723.tif" in texts["RUN/manifest.json"]


def test_a_run_that_fails_keeps_them_too(signed_item, bucket, monkeypatch, capfd):
    write, url, signature = signed_item
    gone = write(url.replace("S2_small_20190723", "S2_gone_20190723"))
    options = ["--fuse", "none", "--cluster", "threads", "--dashboard", "none"]
    failed = lakescale("--debug", "map", "--scene", gone, "--out", f"{bucket}/RUN", *options)
    codes = [failed.returncode, run_here(monkeypatch, "map", "--scene", gone, "--out", f"{bucket}/RUN", *options)]
    damaged = storage.locate(f"{bucket}/in/S2_small_20190723.tif")
    storage.write_whole(damaged, damaged.read_bytes()[:-6000])
    codes.append(run_here(monkeypatch, "map", "--scene", write(url), "--out", f"{bucket}/RUN", *options))
    by_password = url.replace("http://", f"http://me:{WORD}@").replace("S2_small", "S2_gone")
    codes.append(run_here(monkeypatch, "map", "--scene", write(by_password), "--out", f"{bucket}/RUN", *options))
    told = capfd.readouterr()
    assert codes == [1, 2, 2, 2], failed.stderr + told.err
    texts = everything(bucket, failed) | {"printed here": f"{told.out}{told.err}".encode()}
    assert find((SECRET, KEY, signature, WORD), texts) == []
    assert b"S2_gone_20190723.tif" in texts["printed 0"]
    assert texts["printed here"].count(b"S2_gone_20190723.tif") >= 2
    assert b"S2_small_20190723.tif" in texts["printed here"]


def test_a_season_keeps_them_too(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAKESCALE_CACHE", str(tmp_path / "cache"))
    (item,) = make_items(tmp_path)[:1]
    for asset in item.assets.values():
        asset.href = f"file://{asset.href}?X-Amz-Credential=me&X-Amz-Signature={WORD}"
    (tmp_path / "item.json").write_text(json.dumps(item.to_dict(include_self_link=False)))
    values = {"scenes": {"source": ["item.json"], "chunks": 96}, "out": "RUN", "evidence": "index"}
    path = write_recipe(tmp_path, values | {"cluster": {"kind": "threads", "workers": 1, "dashboard": "none"}})
    assert run_here(monkeypatch, "season", path) == 0
    told = capfd.readouterr()
    written = {str(file): file.read_bytes() for file in (tmp_path / "RUN").rglob("*") if file.is_file()}
    assert any(name.endswith("report.html") for name in written)
    assert any(b"S2A_T22WEV_20190701_0_L1C_B02.tif" in text for text in written.values())
    assert find([WORD], written | {"printed": f"{told.out}{told.err}".encode()}) == []


@pytest.mark.parametrize(
    "option", ["--scene", "--dem", "--ice", "--aoi", "--exclude", "--like", "--cup-regions", "--model", "--out"]
)
def test_a_recipe_takes_no_url_with_a_secret(option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for url in (f"https://me:{WORD}@127.0.0.1:9/x.tif", f"https://127.0.0.1:9/x.tif?X-Amz-Signature={WORD}"):
        given = {"--scene": "a_20190723.tif", "--out": "RUN", option: url}
        assert run_here(monkeypatch, "map", *(word for pair in given.items() for word in pair)) == 2
        told = capsys.readouterr()
        assert "holds a user, a password or a query [" in told.err, told.err
        assert "https://127.0.0.1:9/x.tif" in told.err
        assert WORD not in told.err + told.out
    assert list(tmp_path.iterdir()) == []


def test_other_recipes_take_none_either(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    url = f"https://127.0.0.1:9/x.tif?sig={WORD}"
    (tmp_path / "season.yaml").write_text(f"scenes: ['{url}']\nout: RUN\n")
    (tmp_path / "search.yaml").write_text(f"scenes: {{stac: {{url: '{url}'}}}}\nout: RUN\n")
    for command in (
        ["ingest", "--scene", url, "--out", "cube.zarr"],
        ["sinks", url, "x.tif"],
        ["season", "season.yaml"],
        ["season", "search.yaml"],
    ):
        assert run_here(monkeypatch, *command) == 2
        told = capsys.readouterr()
        assert "holds a user, a password or a query" in told.err, told.err
        assert WORD not in told.err + told.out
