"""Our checkpoints: what they carry, and files and weights that must be refused."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

from lakescale.models import (
    ModelSpec,
    build_network,
    describe_checkpoint,
    load_model,
    save_checkpoint,
)
from lakescale.models.checkpoint import write_checkpoint
from lakescale.schema import InputError

SPEC = ModelSpec(
    "unet",
    "resnet18",
    bands=("blue", "nir"),
    values="reflectance",
    scale=(1.0, 1.0),
    mean=(0.2, 0.3),
    std=(0.1, 0.2),
    window=64,
    threshold=0.4,
    options={"encoder_depth": 3, "decoder_channels": [16, 8, 8], "classes": 2},
    training={"epochs": 3, "seed": 7},
    metrics={"f1": 0.5},
)


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(1)
    return build_network(SPEC).module.state_dict()


@pytest.fixture(scope="module")
def saved(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "unet.safetensors"
    save_checkpoint(path, weights, SPEC)
    return path


def changed(weights, **names):
    return {**{k: v for k, v in weights.items() if k not in names}, **{k: v for k, v in names.items() if v is not None}}


# -- our own format


def test_what_is_saved_is_told_and_loaded(saved, weights):
    info = describe_checkpoint(saved)
    model = load_model(saved)
    assert info.spec == SPEC == model.spec
    assert info.output_stride == 8
    assert info.n_bytes == saved.stat().st_size
    assert info.n_weights == sum(each.numel() for each in weights.values())
    assert info.hash == model.hash
    again = model.network.module.state_dict()
    assert again.keys() == weights.keys()
    assert all(again[name].equal(weights[name]) for name in weights)


def test_others_can_read_the_file(saved, weights):
    read = safetensors.numpy.load_file(saved)
    assert {name: array.shape for name, array in read.items()} == {k: tuple(v.shape) for k, v in weights.items()}
    data = saved.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    told = json.loads(header["lakescale"])
    assert told["format"] == "lakescale-model"
    assert told["version"] == 1
    assert told["spec"]["bands"] == ["blue", "nir"]
    assert told["spec"]["metrics"] == {"f1": 0.5}


def test_the_hash_follows_answers_only(weights, tmp_path):
    def hash_of(spec, tensors=weights):
        return save_checkpoint(tmp_path / "m.safetensors", tensors, spec)

    first = hash_of(SPEC)
    assert hash_of(replace(SPEC, metrics={"f1": 0.9}, training={})) == first
    assert hash_of(replace(SPEC, threshold=0.6)) != first
    assert hash_of(replace(SPEC, mean=(0.2, 0.31))) != first
    bias = weights["segmentation_head.0.bias"]
    assert hash_of(SPEC, changed(weights, **{"segmentation_head.0.bias": bias + 1e-6})) != first
    assert hash_of(SPEC, dict(reversed(weights.items()))) == first


def test_a_failed_write_leaves_what_was_there(saved, weights, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    path.write_bytes(saved.read_bytes())

    def fail(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, weights, SPEC)
    assert [each.name for each in tmp_path.iterdir()] == ["m.safetensors"]
    assert path.read_bytes() == saved.read_bytes()


def test_headers_are_read_without_torch(saved):
    program = (
        "import sys, lakescale; from lakescale.models import describe_checkpoint;"
        "print(describe_checkpoint(sys.argv[1]).spec.title, sorted({'torch', 'segment_anything'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, saved], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "unet-resnet18 []"


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"bands": ()}, "needs bands"),
        ({"bands": ("nir", "nir")}, "needs bands"),
        ({"mean": (0.1,)}, "mean has 1 numbers for 2 bands"),
        ({"std": (0.1, 0.0)}, "std of a band is 0.0"),
        ({"scale": (1.0, float("nan"))}, "scale of a band is nan"),
        ({"values": "dn"}, "values='dn' is unknown"),
        ({"window": 0}, "a window of 0"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"metrics": {"f1": float("nan")}}, "metrics holds what JSON has not"),
        ({"options": {"classes": np.int64(1)}}, "options holds what JSON has not"),
    ],
)
def test_specs_are_checked(mistake, words):
    with pytest.raises(InputError, match=words):
        replace(SPEC, **mistake)


# -- files and weights that are refused


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint of few bytes: what is refused before a network is built needs no network."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    write_checkpoint(path, {"w": torch.arange(64.0), "n": torch.tensor(3)}, SPEC, 8)
    return path


@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused(small, tmp_path_factory, share):
    data = small.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "cut.safetensors"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="no whole safetensors file"):
        load_model(path)


@given(place=st.integers(1, 64 * 4 + 8), bit=st.integers(0, 7))
def test_flipped_bits_of_weights_are_refused(small, tmp_path_factory, place, bit):
    data = bytearray(small.read_bytes())
    data[-place] ^= 1 << bit
    path = tmp_path_factory.mktemp("flipped") / "flipped.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match="hash differs"):
        load_model(path)


def rewritten(path, target, change):
    """The same file with another header of ours."""
    with safetensors.safe_open(path, "np") as file:
        header = json.loads(file.metadata()["lakescale"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.numpy.save_file(arrays, target, metadata={"lakescale": change(header)})
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: "{", "header is damaged"),
        (lambda header: json.dumps({**header, "format": "else"}), "header is damaged"),
        (lambda header: json.dumps({**header, "hash": None}), "header is damaged"),
        (lambda header: json.dumps({**header, "version": 2}), "has version 2 of the format"),
        (lambda header: json.dumps({**header, "spec": {**header["spec"], "tta": 4}}), r"other fields.*tta"),
        (lambda header: json.dumps({**header, "spec": {**header["spec"], "window": "64"}}), "window is '64'"),
        (lambda header: json.dumps({**header, "spec": {**header["spec"], "bands": [1, 2]}}), "bands are"),
        (lambda header: json.dumps({**header, "spec": {**header["spec"], "threshold": 0.7}}), "hash differs"),
    ],
)
def test_other_headers_are_refused(small, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        load_model(rewritten(small, tmp_path / "other.safetensors", change))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such checkpoint"):
        load_model(tmp_path / "none.safetensors")
    path = tmp_path / "model.pth"
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(InputError, match="lakescale model convert"):
        load_model(path)
    safetensors.numpy.save_file({"w": np.ones(2)}, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="no checkpoint of lakescale"):
        load_model(tmp_path / "bare.safetensors")


@pytest.mark.parametrize("broken", ["missing", "unexpected", "bands", "shape", "encoder"])
def test_weights_that_do_not_fit_are_refused_saving_and_loading(weights, tmp_path, broken):
    head = "segmentation_head.0.weight"
    spec, tensors, words = {
        "missing": (SPEC, changed(weights, **{head: None}), rf"1 missing \({head}\)"),
        "unexpected": (SPEC, {**weights, "extra.weight": torch.ones(1)}, r"1 unexpected \(extra.weight\)"),
        "bands": (
            replace(SPEC, bands=("red",), scale=(1.0,), mean=(0.0,), std=(1.0,)),
            weights,
            r"weights take 2 bands, the spec names 1 \(red\)",
        ),
        "shape": (SPEC, changed(weights, **{head: torch.ones(2, 8, 1, 1)}), rf"1 weights have other shapes \({head}"),
        "encoder": (replace(SPEC, encoder="resnet50"), weights, "names of the weights do not fit"),
    }[broken]
    path = tmp_path / "m.safetensors"
    with pytest.raises(InputError, match=words):
        save_checkpoint(path, tensors, spec)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="no such folder"):
        write_checkpoint(tmp_path / "none" / "m.safetensors", tensors, spec, 8)
    write_checkpoint(path, tensors, spec, 8)
    with pytest.raises(InputError, match=words) as caught:
        load_model(path)
    assert caught.value.item == str(path)


def test_a_window_beside_the_output_stride_is_refused(weights, tmp_path):
    with pytest.raises(
        InputError, match=r"60 x 60 pixels is no multiple of the model's output stride of 8.*window of 64"
    ):
        save_checkpoint(tmp_path / "m.safetensors", weights, replace(SPEC, window=60))
