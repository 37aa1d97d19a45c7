"""Single rasters in a store, such as elevations and evidence: written and read with the same markers and checks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import xarray as xr
import zarr
from dask.base import tokenize

from lakescale.chunks import sink
from lakescale.grid import Grid
from lakescale.schema import InputError, X, Y
from lakescale.storage import locate, locked
from lakescale.store.codec import FILLS
from lakescale.store.commits import Commits, Member
from lakescale.store.files import writing
from lakescale.store.group import (
    Raster,
    as_json,
    check_chunks,
    is_store,
    make_store,
    open_array,
    open_store,
    same_grid,
    stored_grid,
)
from lakescale.store.reader import StoredArray, lazy_array
from lakescale.store.staging import compute_in_stages

if TYPE_CHECKING:
    from distributed import Client

    from lakescale.storage import Location
    from lakescale.store.staging import Stages

KIND = "layers"
"""What the store calls itself."""
_SOURCE = "fingerprint"
_SIDE = 2048


def write_layer(
    raster: xr.DataArray,
    store: str | Location,
    name: str,
    *,
    chunks: int | None = None,
    overwrite: bool = False,
    stages: Stages | None = None,
    client: Client | None = None,
    progress: bool = False,
) -> int:
    """Write one raster into a store of layers; run it again after a kill, and it goes on.

    Parameters
    ----------
    raster
        ``(y, x)``: float32 (NaN = no data), bool, uint8 or int32, on the grid of the store.
    store
        A folder, such as ``dem.zarr``, or its URL in an object store; made where there is none.
    name
        Name of the layer.
    chunks
        Side of a chunk in pixels; by default the layer's, and 2048 for a new one.
    overwrite
        Whether a layer of that name is written anew, from whatever source; after a kill it goes on.
    stages
        How to compute it in stages, what waits between them in files; None computes it in one graph.
    client, progress
        As in `lakescale.write_cube`.

    Returns
    -------
    int
        Chunks written; those that were finished before do not count.

    Raises
    ------
    InputError
        For another grid than the store's, another source than the layer's, or a raster that cannot be a layer.
    RunError
        When the disk takes no more, or another process writes to the store.
    """
    root, item = locate(store), f"{store}: {name}"
    if raster.dims != (Y, X) or str(raster.dtype) not in FILLS:
        what = f"a layer has the dims (y, x) and one of {', '.join(FILLS)}; this has {raster.dims}, {raster.dtype}"
        raise InputError(what, item, "choose a band, or change the type with .astype")
    if not name.isidentifier() or name in (Y, X, "spatial_ref"):
        raise InputError(f"no name for a layer: {name!r}", str(root), "give letters, digits and _")
    grid = Grid.of(raster)
    if not is_store(root):
        make_store(root, grid, {"kind": KIND}, lambda _: None)
    if not same_grid(grid, stored_grid(open_store(root, KIND))):
        raise InputError("the store has another grid", item, "bring the raster to it with regrid, or another store")
    with locked(root):
        commits = _claim(root, name, raster, chunks, overwrite=overwrite)
        left = [(i, j) for i, j in commits.unfinished()]
        if left:
            with dask.config.set({"array.rechunk.method": "tasks"}):
                placed = raster.chunk({Y: commits.chunk[0], X: commits.chunk[1]})
            tasks = sink(partial(commits.write, ()), placed.data, blocks=left, name=f"write-{name}")
            share = len(left) / len(commits.indices())
            told: dict[str, Any] = {"description": name, "pixels": round(raster.size * share)}
            compute_in_stages(tasks, stages, client=client, progress=progress, **told)
    return len(left)


def open_layer(store: str | Location, name: str, *, chunks: int | None = None) -> xr.DataArray:
    """Open a layer as a lazy array; every chunk is checked against its checksum and its marker as it is read.

    Parameters
    ----------
    store, name
        As given to `write_layer`.
    chunks
        Side of a chunk in pixels; by default the store's.

    Returns
    -------
    xr.DataArray
        ``(y, x)`` with coordinates ``y``, ``x``, ``spatial_ref`` and the ``attrs`` it was written with.

    Raises
    ------
    InputError
        When there is no such layer, or chunks of it are not written. A damaged chunk raises it when computed.
    """
    root = locate(store)
    group = open_store(root, KIND)
    if name not in group:
        there = ", ".join(sorted(set(group.array_keys()) - {Y, X, "spatial_ref"})) or "none"
        raise InputError(f"no layer {name!r}", str(root), f"its layers: {there}")
    array = open_array(group, name)
    grid = stored_grid(group)
    commits = Commits(str(root.absolute()), (Member(name, str(array.dtype)),), grid.shape, tuple(array.chunks))
    missing = len(commits.indices()) - commits.count()
    if missing:
        what = f"the layer is not finished ({missing} of {len(commits.indices())} chunks missing)"
        raise InputError(what, f"{root}: {name}", "write it again: it goes on where it ended")
    mend = f"write the layer again: write_layer(..., {root.name!r}, {name!r}, overwrite=True), or with --overwrite"
    reader = StoredArray(commits, name, (), (), np.dtype(array.dtype), mend=mend)
    attrs = dict(array.attrs["told"])
    token = tokenize(str(root.resolve()), name, array.attrs[_SOURCE], chunks)
    data = lazy_array(reader, chunks, f"read-{name}-{token}")
    return xr.DataArray(data, dims=(Y, X), coords=grid.coords(), name=name, attrs=attrs)


def _claim(root: Location, name: str, raster: xr.DataArray, chunks: int | None, *, overwrite: bool) -> Commits:
    """Make the array of a layer, or see that it is the one to go on with."""
    group, source = open_store(root, KIND, mode="r+"), tokenize(raster.data)
    told = {_SOURCE: source, "told": as_json(raster.attrs)}
    shape, stored = stored_grid(group).shape, group.get(name)
    side = check_chunks(_SIDE if chunks is None else chunks)
    chunk: Any = (min(side, shape[0]), min(side, shape[1]))
    if isinstance(stored, zarr.Array) and chunks is None:
        chunk = stored.chunks
    commits = Commits(str(root.absolute()), (Member(name, str(raster.dtype)),), shape, tuple(chunk))
    with writing(root):
        commits.sweep()
        if not isinstance(stored, zarr.Array):
            Raster({}, commits.chunk, str(raster.dtype), told).add_to(group, name)
            return commits
        if stored.chunks != commits.chunk or stored.dtype != raster.dtype:
            what = f"the layer has chunks of {stored.chunks} and type {stored.dtype}"
            raise InputError(what, f"{root}: {name}", "give the same, or another name or store")
        if stored.attrs[_SOURCE] != source and not overwrite:
            what = "the layer holds a raster from another source, or computed with other options"
            raise InputError(
                what, f"{root}: {name}", "replace it with overwrite=True (--overwrite), or give another name"
            )
        if overwrite:
            if stored.attrs[_SOURCE] != source or not commits.is_cut_short():
                commits.forget()
            stored.update_attributes(told)
    return commits
