"""What layers a store has, and how far each of them is; no pixels are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakescale.schema import X, Y
from lakescale.store.commits import Commits, Member
from lakescale.store.group import SPATIAL_REF, describe, open_array, stored_grid
from lakescale.store.layers import KIND

if TYPE_CHECKING:
    from collections.abc import Iterable

    import zarr

    from lakescale.grid import Grid
    from lakescale.storage import Location

_ABOUT = "/zarr.json"


@dataclass(frozen=True)
class LayerState:
    """One layer of a store."""

    name: str
    dtype: str
    chunk: tuple[int, int]
    """Pixels."""
    chunks: int
    chunks_left: int
    """That are not written yet."""
    attrs: dict[str, Any]
    """It was written with."""


def list_layers(root: Location, group: zarr.Group, files: Iterable[str]) -> list[LayerState]:
    """List the layers of an open store, in the order of their names.

    Parameters
    ----------
    root, group
        Of the store.
    files
        All files of the store, by their path in it.
    """
    if describe(group)["kind"] != KIND:
        return []
    names = {file.removesuffix(_ABOUT) for file in files if file.endswith(_ABOUT)} - {Y, X, SPATIAL_REF}
    return [_look(root, group, name, stored_grid(group)) for name in sorted(names)]


def _look(root: Location, group: zarr.Group, name: str, grid: Grid) -> LayerState:
    array = open_array(group, name)
    kind, chunk = str(array.dtype), tuple(array.chunks)
    commits = Commits(str(root.absolute()), (Member(name, kind),), grid.shape, chunk)
    total = len(commits.indices())
    return LayerState(name, kind, chunk, total, total - commits.count(), dict(array.attrs.get("told", {})))
