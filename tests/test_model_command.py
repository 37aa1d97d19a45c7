"""`lakescale model`: what it says of a checkpoint, what it converts, what it refuses."""

import sys

import pytest
import torch
from test_foreign_models import tiny_sam  # noqa: F401  (a fixture)

from lakescale.models import ModelSpec, build_network, describe_checkpoint, save_checkpoint
from pipelines import cli

SPEC = ModelSpec("unet", "resnet18", window=64, threshold=0.4, metrics={"f1": 0.5})


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["lakescale", "model", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_info_tells_what_a_checkpoint_holds(tmp_path, monkeypatch, capsys):
    path = tmp_path / "unet.safetensors"
    told = save_checkpoint(path, build_network(SPEC).module.state_dict(), SPEC)
    assert run(monkeypatch, "info", path) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["architecture"] == "unet"
    assert lines["window"] == "64"
    assert lines["threshold"] == "0.4"
    assert lines["metrics"] == "{'f1': 0.5}"
    assert lines["output_stride"] == "32"
    assert lines["bytes"] == str(path.stat().st_size)
    assert lines["hash"] == told


def test_convert_writes_a_checkpoint_once(tiny_sam, tmp_path, monkeypatch, capsys):  # noqa: F811
    source, target = tmp_path / "sam_vit_t.pth", tmp_path / "sam.safetensors"
    torch.save(tiny_sam.state_dict(), source)
    assert run(monkeypatch, "convert", source, target) == 0
    assert capsys.readouterr().out == f"written: {target}, hash {describe_checkpoint(target).hash}\n"
    assert run(monkeypatch, "convert", source, target) == 2
    assert str(target) in capsys.readouterr().err
    assert run(monkeypatch, "convert", source, target, "--overwrite") == 0


def test_what_is_no_checkpoint_is_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "notes.safetensors"
    path.write_text("nothing of the kind")
    assert run(monkeypatch, "info", path) == 2
    assert str(path) in capsys.readouterr().err
