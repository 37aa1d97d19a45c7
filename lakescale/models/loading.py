"""Checkpoints into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lakescale.models.checkpoint import read_checkpoint
from lakescale.models.loaded import PRECISIONS, LoadedModel
from lakescale.models.network import build_network, load_weights
from lakescale.models.prompting import LoadedSam
from lakescale.models.sam import SamNetwork
from lakescale.schema import InputError

if TYPE_CHECKING:
    from pathlib import Path


def load_model(path: str | Path, device: str = "cpu", precision: str | None = None) -> LoadedModel:
    """Load a checkpoint, ready to predict.

    Parameters
    ----------
    path
        A file that `save_checkpoint` or `convert_checkpoint` wrote.
    device
        ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` is CUDA where there is one.
    precision
        ``float32`` (None is the same), or on CUDA ``bf16`` or ``fp16``, by autocast: the weights stay float32.

    Returns
    -------
    LoadedModel
        A `LoadedSam` where the checkpoint is one of SAM.

    Raises
    ------
    InputError
        When the file is no whole checkpoint, its weights are not of the network that it names, or there is no such
        device or precision.
    """
    place = _device(device)
    _check_precision(precision, place)
    info, weights = read_checkpoint(path)
    network = build_network(info.spec)
    load_weights(network, weights, info.spec, str(path))
    kind = LoadedSam if isinstance(network, SamNetwork) else LoadedModel
    return kind(network, info, place, precision or "float32")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wrong = ""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        wrong = str(error).partition("\n")[0]
    if wrong or device.type not in {"cpu", "cuda"}:
        raise InputError(f"there is no device {name!r} {wrong}".rstrip(), f"device={name}", "take cpu, cuda or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"this machine has {torch.cuda.device_count()} CUDA devices", f"device={name}", "take cpu or auto"
        )
    return device


def _check_precision(precision: str | None, device: torch.device) -> None:
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is unknown", str(device), f"take one of {', '.join(PRECISIONS)}")
    if precision in {"bf16", "fp16"} and device.type != "cuda":
        raise InputError(f"precision={precision!r} is for CUDA", str(device), "leave precision out, or device='cuda'")
