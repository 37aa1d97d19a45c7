"""Evidence of a run as layers: laid out one after the other, written to `evidence.zarr`, read back from there."""

from __future__ import annotations

import logging
import math
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.base import tokenize

from lakescale import __version__
from lakescale.evidence.color import water_index
from lakescale.scene import seen_mask
from lakescale.schema import INDEX, SEEN, SINK, SINK_DEPTH, WATER_INDEX, InputError, X, Y
from lakescale.storage import is_link, remove
from lakescale.store import (
    is_store,
    locked,
    make_store,
    open_array,
    open_layer,
    open_store,
    remove_layer,
    remove_store,
    same_grid,
    stored_grid,
    write_layer,
)
from pipelines.run_folder import EVIDENCE, partial_name
from pipelines.run_models import find_gate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lakescale.grid import Grid
    from lakescale.stages import Journal
    from lakescale.storage import Location
    from pipelines.recipe import MapRecipe
    from pipelines.run_models import RunModel
    from pipelines.sources import Sources

    Layers = dict[str, xr.DataArray]

_LOG = logging.getLogger(f"lakescale.{__name__}")

_KIND, _REQUEST, _FINGERPRINT = "layers", "request", "fingerprint"


def lay_evidence(
    sources: Sources,
    masks: Layers,
    models: Sequence[RunModel],
    recipe: MapRecipe,
    keep: Callable[[str, xr.DataArray], xr.DataArray] = lambda _, raster: raster,
) -> Layers:
    """Lay out the layers of evidence, as far as the scene allows.

    Parameters
    ----------
    sources, recipe
        Of the run.
    masks
        Bool ``(y, x)``, of water: ``color``, ``index``.
    models
        Of the run.
    keep
        ``keep(name, raster)`` gives what later layers and outlines are made of: the lazy raster as it is, or read
        from where it was written.

    Returns
    -------
    dict
        Rasters ``(y, x)`` by the name of their layer.
    """
    scene, layers = sources.scene, {SEEN: keep(SEEN, seen_mask(sources.scene))}
    for name, mask in masks.items():
        layers[name] = keep(name, mask)
    if INDEX in masks:
        layers[WATER_INDEX] = keep(WATER_INDEX, water_index(scene))
    if sources.sink_depth is not None and recipe.dem is not None:
        layers[SINK_DEPTH] = keep(SINK_DEPTH, sources.sink_depth)
        layers[SINK] = keep(SINK, layers[SINK_DEPTH] > np.float32(recipe.dem.min_depth_m))
    for model in models:
        layers[model.layer] = keep(model.layer, model.probability(scene, find_gate(layers)))
    return layers


class EvidenceStore:
    """Layers of a run on disk, each written once, and read back.

    They are written beside the ``evidence.zarr`` that is there, and take its place when the run has its lakes
    (`RunFolder.claim`), so that a run that fails leaves an earlier one whole. After a kill the next run goes on.
    """

    def __init__(
        self,
        folder: Location,
        planned: Layers,
        grid: Grid,
        journal: Journal,
        *,
        reuse: bool,
        adopt: bool = False,
    ) -> None:
        """Look for what is there.

        Parameters
        ----------
        folder
            Of the run.
        planned
            The lazy rasters of all layers, none of them read back: they tell whether what is there is the same.
        grid, journal
            Of the run; each layer is a stage of its own.
        reuse
            Whether the layers of a finished run may serve again.
        adopt
            Whether they may also where only some of them are the same.
        """
        self._requests = {name: tokenize(raster.data, __version__) for name, raster in planned.items()}
        self._chunks = next(iter(planned.values())).chunks
        self._journal, self.chunks_written = journal, 0
        finished = folder / EVIDENCE
        self._is_finished = reuse and self._holds_all(finished, grid)
        self.path = finished if self._is_finished else finished.with_name(partial_name(EVIDENCE))
        if not self._is_finished:
            self._clear(grid)
        if adopt and reuse and not self._is_finished and is_store(finished):
            self._adopt(finished, grid)

    def keep(self, name: str, raster: xr.DataArray) -> xr.DataArray:
        """Write what is not there yet of a layer, and read it back (lazy)."""
        if self._is_finished:
            self._journal.keep(name)
        else:
            with self._journal.stage(name) as stage:
                stage.counts["chunks_written"] = written = self._write(name, raster)
            self.chunks_written += written
        read = open_layer(self.path, name)
        return read.chunk(dict(zip((Y, X), self._chunks, strict=True))) if self._chunks else read

    def _write(self, name: str, raster: xr.DataArray) -> int:
        self._drop_another(name, raster)
        raster = raster.assign_attrs({_REQUEST: self._requests[name]})
        side = max(max(axis) for axis in self._chunks or ((1,),))
        return write_layer(raster, self.path, name, chunks=side)

    def drop_if_empty(self) -> None:
        """Take it away where not one chunk was finished: there is nothing to go on from."""
        if not self._is_finished and not any(self.path.glob("*/commits/*/*")):
            remove_store(self.path)

    def facts(self) -> dict[str, Any]:
        """Say of it what a manifest tells."""
        return {"layers": list(self._requests), "chunks_written": self.chunks_written}

    def _holds_all(self, store: Location, grid: Grid) -> bool:
        """Tell whether a finished run's layers are these, and no others."""
        try:
            group = open_store(store, _KIND)
            requests = {name: open_layer(store, name).attrs.get(_REQUEST) for name in _layers(store)}
            return requests == self._requests and same_grid(stored_grid(group), grid)
        except InputError:
            return False

    def _clear(self, grid: Grid) -> None:
        """Take away what a killed run left that is of no use to this one, and a link, which leads elsewhere."""
        if is_link(self.path):
            remove(self.path)
        if not self.path.exists():
            return
        try:
            group = open_store(self.path, _KIND)
            is_usable = same_grid(stored_grid(group), grid)
        except InputError:
            is_usable = False
        with locked(self.path):
            if not is_usable:
                remove_store(self.path)
                return
            for left_over in self.path.glob(partial_name("*.layer")):
                remove(left_over)
            for name in _layers(self.path) - set(self._requests):
                remove_layer(self.path, name)

    def _adopt(self, finished: Location, grid: Grid) -> None:
        """Take over the layers of a finished run that are the same, by links to their chunks."""
        try:
            group = open_store(finished, _KIND)
            if not same_grid(stored_grid(group), grid):
                return
        except InputError:
            return
        if not (isinstance(self.path, Path) and isinstance(finished, Path)):
            return  # an object store has no links
        if not is_store(self.path):
            make_store(self.path, grid, {"kind": _KIND}, lambda _: None)
        for name in sorted(_layers(finished) & set(self._requests)):
            is_same = _request_of(open_array(group, name).attrs) == self._requests[name]
            if is_same and not (self.path / name).exists():
                _LOG.info("%s: taken over", name)
                partial = self.path / partial_name(f"{name}.layer")
                shutil.copytree(finished / name, partial, copy_function=_link)
                partial.replace(self.path / name)

    def _drop_another(self, name: str, raster: xr.DataArray) -> None:
        """Take a layer away that was made of something else, such as a scene that changed since."""
        if not is_store(self.path):
            return
        group = open_store(self.path, _KIND)
        if name not in _layers(self.path):
            return
        told = open_array(group, name).attrs
        if (told[_FINGERPRINT], _request_of(told)) != (tokenize(raster.data), self._requests[name]):
            _LOG.info("%s: written anew, it was made of something else", name)
            with locked(self.path):
                remove_layer(self.path, name)


class PlannedStore:
    """Counts what writing layers would take, in place of an `EvidenceStore`."""

    def __init__(self) -> None:
        self.layers: list[str] = []
        self.tasks = self.n_bytes = 0

    def keep(self, name: str, raster: xr.DataArray) -> xr.DataArray:
        """Count a layer, and give something in its place that one task a chunk would read."""
        self.layers.append(name)
        self.tasks += len(dict(raster.data.dask)) + math.prod(map(len, raster.chunks or ()))
        self.n_bytes += raster.nbytes
        return xr.zeros_like(raster)


def _request_of(told: Any) -> Any:
    return told["told"].get(_REQUEST)


def _link(source: str, target: str) -> None:
    """Link a chunk or its marker, which are replaced and never changed; copy the rest."""
    if source.endswith(".json"):
        shutil.copy2(source, target)
    else:
        os.link(source, target)


def _layers(store: Location) -> set[str]:
    """Name the layers; Zarr, asked for them, would warn of one that a kill left without its first file."""
    return {about.parent.name for about in store.glob("*/zarr.json")} - {Y, X, "spatial_ref"}
