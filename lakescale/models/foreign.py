"""State dicts that others wrote, read without running code from them."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lakescale.models.checkpoint import read_tensors
from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which trainers keep the state dict beside epochs and optimizers."""

_PARALLEL = "module."
"""Prefix that `torch.nn.DataParallel` gives to every name."""


def read_foreign(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict: safetensors, or what `torch.save` wrote, with its wrappings taken off.

    Pickles are read with ``weights_only=True``: nothing in them is called but what builds tensors and plain numbers.

    Raises
    ------
    InputError
        When there is no such file, it is damaged, it would run code, or it holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("there is no such file of weights", str(path), "mend the path")
    if path.suffix == ".safetensors":
        return read_tensors(path)
    said = _unpickle(path)
    for key in _WRAPPERS:
        if isinstance(said, dict) and isinstance(said.get(key), dict):
            said = said[key]
    if not isinstance(said, dict) or not said or not all(isinstance(each, torch.Tensor) for each in said.values()):
        raise InputError("the file holds no state dict", str(path), "save model.state_dict() with torch.save")
    if all(str(name).startswith(_PARALLEL) for name in said):
        said = {name.removeprefix(_PARALLEL): each for name, each in said.items()}
    return dict(said)


def _unpickle(path: Path) -> Any:
    refused, wrong = "", ""
    try:
        with torch.serialization.safe_globals(_numbers()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = _named(str(error))
        wrong = "torch finds no tensors in it"
        if refused.endswith(".") or (refused and _ends_with(path, refused.rpartition(".")[2])):
            refused = ""  # the file is cut off before that name, or in the middle of it
    except Exception as error:  # noqa: BLE001 - of a damaged file the unpickler can make anything
        wrong = str(error) or type(error).__name__
    if refused:
        raise InputError(
            f"the file would run code when it is read: its pickle calls {refused}",
            str(path),
            "take one that holds tensors only (safetensors, or torch.save of a state dict)",
        )
    raise InputError(
        f"the file is damaged, cut off, or no file of weights ({wrong.strip().splitlines()[0]})",
        str(path),
        "fetch it again",
    )


def _named(message: str) -> str:
    """Read off torch's refusal what a pickle calls; empty where it refused for another reason."""
    found = re.search(r"(?:GLOBAL|global|function|class) ['`]?([\w.]+\.[\w.]+)", message)
    return found.group(1) if found and "nsupported" in message else ""


def _ends_with(path: Path, name: str) -> bool:
    with path.open("rb") as file:
        file.seek(-min(len(name) + 1, path.stat().st_size), os.SEEK_END)
        return name.encode() in file.read()  # the unpickler drops the last sign, which it takes for the line's end


def _numbers() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Numbers of numpy, which trainers keep beside the weights (the best score so far); building one runs no code."""
    scalar: Any = np.float64(0).__reduce__()[0]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32)),
    ]
