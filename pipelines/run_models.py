"""The models of a run: what their checkpoints tell, their probabilities, and how many windows are run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale import __version__
from lakescale.evidence.model import count_windows, lake_probability
from lakescale.evidence.model_source import ModelSource, checkpoint_source
from lakescale.models import describe_checkpoint
from lakescale.models.shipped import SHIPPED, SHIPPED_PIXELS_M, shipped_checkpoint
from lakescale.models.spec import SAM
from lakescale.polygons import true_pixel_m
from lakescale.schema import COLOR, DEM, ICE, INDEX, PROBABILITY, SEEN, SINK, InputError
from lakescale.storage import name_of

if TYPE_CHECKING:
    import xarray as xr

    from lakescale.grid import Grid
    from lakescale.models import CheckpointInfo
    from pipelines.recipe import MapRecipe, ModelRecipe

_NAMES = {SAM: "sam", "deeplabv3plus": "deeplab"}
"""Names of models by their architecture."""
_TAKEN = (COLOR, INDEX, SINK, SEEN, DEM, ICE)
"""Names of other evidence, which has columns of its own."""


@dataclass(frozen=True)
class RunModel:
    """A model of a run, with nothing left open."""

    name: str
    source: ModelSource
    threshold: float
    gated: bool
    windows: dict[str, Any]
    """``window`` and ``stride``, pixels."""
    options: dict[str, Any]
    """Further ones of `lake_probability`."""

    @property
    def layer(self) -> str:
        """Name of its layer of evidence."""
        return f"{PROBABILITY}_{self.name}"

    def probability(self, scene: xr.DataArray, gate: xr.DataArray | None) -> xr.DataArray:
        """Probability of lake, float32 ``(y, x)`` (lazy)."""
        return lake_probability(scene, self.source, gate=self._gate(gate), **self.windows, **self.options)

    def count(self, scene: xr.DataArray, gate: xr.DataArray | None) -> xr.Dataset:
        """Count the windows, in all and those that are not run (lazy)."""
        return count_windows(scene, gate=self._gate(gate), **self.windows)

    def mask(self, probability: xr.DataArray, region: xr.DataArray | None) -> xr.DataArray:
        """Tell lake from what is none or was not seen: bool ``(y, x)`` (lazy)."""
        mask = probability > np.float32(self.threshold)
        return mask if region is None else mask & region

    def facts(self, counts: xr.Dataset) -> dict[str, Any]:
        """Say of it what a manifest tells."""
        about = {"source": self.source.path, "hash": self.source.hash, "threshold": self.threshold}
        return about | self.windows | {"counts": {str(name): int(count) for name, count in counts.items()}}

    def notes(self, grid: Grid) -> list[str]:
        """Say what is to be known of it before its answers are believed."""
        if self.source.path != SHIPPED:
            return []
        notes = [f"model {self.name}: it comes with lakescale {__version__}, hash {self.source.hash[:12]}"]
        size_m, (least, most) = true_pixel_m(grid), SHIPPED_PIXELS_M
        if not least <= size_m <= most:
            what = f"it has learned from pixels of {least:g} to {most:g} m, these have {size_m:.3g} m"
            notes.append(f"warning: model {self.name}: {what}; bring the scene to --resolution 10, or train one")
        return notes

    def _gate(self, gate: xr.DataArray | None) -> xr.DataArray | None:
        if not self.gated:
            return None
        if gate is None:
            what = "there is no evidence of color, index or sinks to gate the model's windows by"
            raise InputError(what, self.source.path, "leave out --model-gate, or give a --dem")
        return gate


def open_models(recipe: MapRecipe) -> tuple[MapRecipe, list[RunModel]]:
    """Read the checkpoints' headers, and fill in what the recipe leaves open.

    Raises
    ------
    InputError
        When a checkpoint cannot be read or is another one than the recipe says, or names are not unique.
    """
    told = [describe_checkpoint(one.source) for one in recipe.models]
    settled = tuple(_settle(one, info) for one, info in zip(recipe.models, told, strict=True))
    names = [str(one.name) for one in settled]
    for one in settled:
        _refuse_name(str(one.name), names, one.source)
    return recipe.model_copy(update={"models": settled}), [_open(one) for one in settled]


def find_gate(layers: dict[str, xr.DataArray]) -> xr.DataArray | None:
    """Unite the evidence that may open a window to a model; None where there is none."""
    masks = [layers[name] for name in (COLOR, INDEX, SINK) if name in layers]
    if not masks:
        return None
    gate = masks[0]
    for mask in masks[1:]:
        gate = gate | mask
    return gate


def _settle(asked: ModelRecipe, info: CheckpointInfo) -> ModelRecipe:
    if asked.hash not in (None, info.hash):
        what = f"the checkpoint is another one (hash {info.hash[:12]}) than the recipe says ({str(asked.hash)[:12]})"
        raise InputError(what, asked.source, "give the one that the recipe is for, or leave its hash out")
    window = asked.window or info.spec.window
    return asked.model_copy(
        update={
            "name": asked.name or _NAMES.get(info.spec.architecture, _stem(asked.source)),
            "threshold": asked.threshold or float(info.spec.threshold),
            "window": window,
            "stride": asked.stride or max(1, window // 2),
            "hash": info.hash,
        }
    )


def _stem(source: str) -> str:
    return Path(name_of(str(shipped_checkpoint()) if source == SHIPPED else source)).stem


def _open(asked: ModelRecipe) -> RunModel:
    values = asked.model_dump(exclude={"hash"})
    return RunModel(
        values["name"],
        checkpoint_source(asked.source, device=asked.device, precision=asked.precision),
        values["threshold"],
        asked.gate,
        {name: values[name] for name in ("window", "stride")},
        {name: values[name] for name in ("weights", "batch", "augment")},
    )


def _refuse_name(name: str, names: list[str], source: str) -> None:
    problem = ""
    if not name.isidentifier():
        problem = f"no name for a model: {name!r}"
    elif name in _TAKEN:
        problem = f"other evidence is named {name!r}"
    elif names.count(name) > 1:
        problem = f"two models are named {name!r}"
    if problem:
        raise InputError(problem, source, "name it with letters, digits and _: --model NAME=PATH")
