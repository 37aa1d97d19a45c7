"""Our checkpoints: one safetensors file, whose header carries the spec as JSON. Nothing in it can run.

The header is readable without torch, so that a graph is planned in a process that never loads it.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import safetensors

from lakescale.models.fetching import local_copy
from lakescale.models.spec import ModelSpec, spec_from_dict
from lakescale.schema import InputError
from lakescale.storage import local_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch

FORMAT = "lakescale-model"
VERSION = 1
_KEY = "lakescale"


class CheckpointInfo(NamedTuple):
    """What a checkpoint's header tells."""

    spec: ModelSpec
    output_stride: int
    """Sides of windows must be multiples of this, pixels."""
    hash: str
    """SHA-256 of the weights and of all in the spec that can change an answer."""
    n_weights: int
    """Numbers that the weights hold, buffers included."""
    n_bytes: int
    """Size of the file."""


def describe_checkpoint(path: str | Path) -> CheckpointInfo:
    """Read the header of one of our checkpoints; neither weights nor torch are loaded.

    Parameters
    ----------
    path
        A file that `save_checkpoint` or `convert_checkpoint` wrote, or the URL of one, which is copied to the user's
        cache first (see `lakescale.models.fetching.local_copy`).

    Raises
    ------
    InputError
        When there is no such file, it is damaged or cut off, it is of another format, or a URL cannot be read.
    """
    path = local_copy(path)
    with _opened(path, "np") as file:
        said = file.metadata() or {}
        sizes = [_product(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 - no mapping
    if _KEY not in said:
        raise InputError(
            "the file holds tensors, but is no checkpoint of lakescale", str(path), "run: lakescale model convert"
        )
    header = _parse(said[_KEY], path)
    return CheckpointInfo(
        spec_from_dict(header.get("spec"), str(path)),
        int(header["output_stride"]),
        str(header["hash"]),
        sum(sizes),
        path.stat().st_size,
    )


def read_checkpoint(path: str | Path) -> tuple[CheckpointInfo, dict[str, torch.Tensor]]:
    """Read one of our checkpoints with its weights, and compare these to their hash.

    Raises
    ------
    InputError
        As `describe_checkpoint`; and when the weights are not those that were saved.
    """
    info = describe_checkpoint(path)
    weights = read_tensors(path)
    if hash_model(weights, info.spec) != info.hash:
        raise InputError("the weights are not those that were saved (their hash differs)", str(path), _FETCH)
    return info, weights


def read_tensors(path: str | Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises
    ------
    InputError
        When there is no such file, or it is damaged.
    """
    with _opened(local_copy(path), "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def write_checkpoint(path: str | Path, weights: Mapping[str, torch.Tensor], spec: ModelSpec, output_stride: int) -> str:
    """Write weights and spec to one file, under its name only when it is whole; returns the hash.

    `network.save_checkpoint` is for users: it checks that the weights fit the spec.
    """
    from safetensors.torch import save_file  # noqa: PLC0415 - loads torch

    path = local_path(path, "a checkpoint that is written")
    if not path.parent.is_dir():
        raise InputError("there is no such folder", str(path.parent), "make it first")
    told = hash_model(weights, spec)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "spec": spec.to_dict(),
        "output_stride": output_stride,
        "hash": told,
    }
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    try:
        partial.touch()
        mode = partial.stat().st_mode  # as files are made here; safetensors lets nobody else read its own
        save_file(tensors, partial, metadata={"format": "pt", _KEY: json.dumps(header, allow_nan=False)})
        partial.chmod(mode)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return told


def hash_model(weights: Mapping[str, torch.Tensor], spec: ModelSpec) -> str:
    """SHA-256 of names, types, shapes and bytes of the weights, and of the spec's `identity`."""
    import torch  # noqa: PLC0415 - heavy

    total = hashlib.sha256(json.dumps(spec.identity(), sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


# -- what can be wrong with a file

_FETCH = "fetch or save it again"


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    if not path.is_file():
        raise InputError("there is no such checkpoint", str(path), "mend the path")
    wrong = ""
    try:
        with safetensors.safe_open(path, framework=framework) as file:
            yield file
    except safetensors.SafetensorError as error:
        wrong = str(error)
    if wrong:
        raise InputError(f"the file is no whole safetensors file ({wrong})", str(path), f"{_FETCH}; {_OTHERS}")


_OTHERS = "files of others (.pth, .bin) go through: lakescale model convert"


def _parse(text: str, path: Path) -> dict[str, Any]:
    header: Any = None
    try:
        header = json.loads(text)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError("the checkpoint's header is damaged", str(path), _FETCH)
    if header.get("version") != VERSION:
        raise InputError(
            f"the checkpoint has version {header.get('version')} of the format, this lakescale reads {VERSION}",
            str(path),
            "update lakescale, or save the model again",
        )
    stride = header.get("output_stride")
    if not isinstance(stride, int) or stride < 1 or not isinstance(header.get("hash"), str):
        raise InputError("the checkpoint's header is damaged", str(path), _FETCH)
    return header


def _product(shape: list[int]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
