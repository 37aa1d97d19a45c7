"""Where models come from, and the ones that this process has loaded."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from lakescale.schema import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

MODELS_KEPT = 2
"""Models that a process keeps loaded: a run takes SAM and DeepLabv3+."""


@dataclass(frozen=True)
class ModelSource:
    """Where each worker finds a model for itself: its weights never travel in the graph."""

    path: str
    """Of the checkpoint, as the workers see it."""
    load: Callable[[str], Any]
    """``load(path)``, called once in each worker. What it returns has a method ``predict(windows)``, or is called
    itself, as `lake_probability` says. Its ``spec.bands`` and ``hash``, where it has these, must be those below."""
    bands: tuple[str, ...] | None = None
    """Bands that the model wants, in its order; None for all of the scene's."""
    values: str = ""
    """What the scene must hold: ``uint8``, ``reflectance``, or anything where empty."""
    output_stride: int = 1
    """Windows must be multiples of this, in pixels."""
    hash: str = ""
    """Tells the model from others; empty where it is not known."""
    boxes: bool = False
    """What ``load`` returns has a method ``predict_boxes`` too, as that of `lakescale.models.LoadedSam`."""


def checkpoint_source(path: str | Path, **options: Any) -> ModelSource:
    """Take a model from one of our checkpoints, of which only the header is read here.

    Parameters
    ----------
    path
        Of the checkpoint; the workers must find it there too. Or its URL, from which each machine copies it once.
    options
        Of `lakescale.models.load_model`, such as ``device`` and ``precision``.

    Raises
    ------
    InputError
        When there is no such file, it is damaged, or of another format.
    """
    from lakescale.models.checkpoint import describe_checkpoint  # noqa: PLC0415  (safetensors)
    from lakescale.models.spec import SAM  # noqa: PLC0415

    info = describe_checkpoint(path)
    spec, load = info.spec, partial(_load_checkpoint, **options)
    boxes = spec.architecture == SAM
    return ModelSource(str(path), load, spec.bands, spec.values, info.output_stride, info.hash, boxes)


def loaded_model(source: ModelSource, key: str) -> Any:
    """Give the model of this key, loaded where this process has not got it yet. For the holder of `ONE_AT_A_TIME`.

    Raises
    ------
    InputError
        When the model wants other bands than the source says, or is another one.
    """
    if key not in _LOADED:
        while len(_LOADED) >= MODELS_KEPT:
            del _LOADED[next(iter(_LOADED))]
            _free_gpu()
        log.info("loading the model %s", source.path)
        model = source.load(source.path)
        _refuse_another(model, source)
        _LOADED[key] = model
    model = _LOADED[key] = _LOADED.pop(key)  # the last used comes last
    return model


def drop_models() -> int:
    """Drop the models that this process has loaded; returns how many. On a cluster: ``client.run(drop_models)``."""
    with ONE_AT_A_TIME:
        dropped = len(_LOADED)
        _LOADED.clear()
        _free_gpu()
    return dropped


ONE_AT_A_TIME = threading.Lock()
"""Held by the thread that loads or runs a model: torch then has the cores of the others, and memory holds one batch."""


def wanted_bands(model: Any) -> tuple[str, ...] | None:
    """Bands that a model wants, in its order; None where it does not say."""
    if isinstance(model, ModelSource):
        return model.bands
    bands = getattr(getattr(model, "spec", None), "bands", None)
    return None if bands is None else tuple(bands)


def calling(model: Any) -> Any:
    """Give what to call with windows: the method ``predict``, or the model itself."""
    return getattr(model, "predict", model)


def takes_boxes(model: Any) -> bool:
    """Tell whether a model can be asked box by box."""
    return model.boxes if isinstance(model, ModelSource) else hasattr(model, "predict_boxes")


def title(model: Any) -> str:
    """Name a model in errors."""
    return model.path if isinstance(model, ModelSource) else getattr(model, "__name__", type(model).__name__)


def give_torch_threads() -> None:
    """Let torch have as many threads as this worker has, so that the workers of a machine do not fight.

    Called in every thread that runs a model, since to torch the number is the calling thread's own.
    """
    from distributed import get_worker  # noqa: PLC0415  (heavy)

    torch = sys.modules.get("torch")
    if torch is None:
        return
    try:
        threads = get_worker().state.nthreads
    except ValueError:  # no worker: torch has the machine
        return
    torch.set_num_threads(threads)


_LOADED: dict[str, Any] = {}


def _load_checkpoint(path: str, **options: Any) -> Any:
    from lakescale.models import load_model  # noqa: PLC0415  (torch)

    return load_model(path, **options)


def _free_gpu() -> None:
    """Hand back what torch keeps of a GPU's memory without using it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _refuse_another(model: Any, source: ModelSource) -> None:
    bands, given = wanted_bands(model), source.bands
    if bands is not None and bands != given:
        what = f"the model wants the bands {', '.join(bands)}, it would be given {', '.join(given or ['all'])}"
        raise InputError(what, source.path, "give ModelSource the bands of its checkpoint")
    if source.boxes and not takes_boxes(model):
        raise InputError("the model takes no boxes, other than its source says", source.path, "leave boxes=True out")
    if source.hash and getattr(model, "hash", source.hash) != source.hash:
        raise InputError("the checkpoint is another one than when the run was planned", source.path, "start again")
