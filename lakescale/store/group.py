"""The group of a store: its grid, what it tells of itself, and its arrays before they have chunks."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from zarr.codecs import Crc32cCodec
from zarr.storage import FsspecStore, MemoryStore

from lakescale.grid import Grid
from lakescale.schema import InputError, LakescaleError, X, Y
from lakescale.storage import Location, Remote, build_tree, is_link, list_files, remove
from lakescale.storage.remote import options_of
from lakescale.storage.trouble import reaching
from lakescale.store.codec import FILLS, codecs
from lakescale.store.files import writing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

OWN, SPATIAL_REF = "lakescale", "spatial_ref"
"""Attribute of the group that holds what is ours; the variable of the CRS."""
FORMAT = 2
_SEALS = "lakescale_crc32c"
"""Attribute of the group: checksums of `OWN` and of what `SPATIAL_REF` tells, since Zarr has none of metadata."""
_MEND = "bring the file back from a copy, or delete the store and write it again"
_SAME_PX = 1e-3
_ABOUT = "zarr.json"


@dataclass(frozen=True)
class Raster:
    """An array of a store, before it has chunks."""

    leading: dict[str, int]
    """Names and sizes of the axes before y and x; chunks are one wide there."""
    chunk: tuple[int, int]
    dtype: str
    attrs: dict[str, Any]

    def add_to(self, group: zarr.Group, name: str) -> None:
        """Make the array, with the grid of its group."""
        kind = np.dtype(self.dtype)
        shape = group[Y].shape + group[X].shape  # type: ignore[union-attr]
        group.create_array(
            name,
            shape=(*self.leading.values(), *shape),
            chunks=(*(1 for _ in self.leading), *self.chunk),
            dtype=kind,
            fill_value=FILLS[kind.name],
            compressors=codecs(kind),
            dimension_names=[*self.leading, Y, X],
            attributes={"grid_mapping": SPATIAL_REF, **self.attrs},
        )


def make_store(root: Location, grid: Grid, told: dict[str, Any], build: Callable[[zarr.Group], None]) -> None:
    """Make a store with its grid and what ``build`` adds, all of it or nothing; `describe` reads ``told`` back.

    Raises
    ------
    InputError
        When something else is there.
    RunError
        When it cannot be written.
    """
    contents: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(contents), zarr_format=3, attributes={"Conventions": "CF-1.11"})
    for name, coord in grid.coords().items():
        add_values(group, str(name), coord.to_numpy(), [str(dim) for dim in coord.dims], coord.attrs)
    build(group)
    tell(group, {"format": FORMAT, **told})
    if _is_in_the_way(root, contents):
        raise InputError("there is something else, no store of lakescale", str(root), "give another path")
    with writing(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        build_tree(root, {name: data.to_bytes() for name, data in contents.items()}, last=_ABOUT)


def open_store(root: Location, kind: str, *, mode: str = "r") -> zarr.Group:
    """Open the group of a store.

    Raises
    ------
    InputError
        When there is none, or of another kind.
    """
    problem, item, mend = "there is no such store", root, "check the path; `lakescale ingest` writes cubes"
    try:
        with reaching(root) if isinstance(root, Remote) else nullcontext():
            opened: Any = {"mode": mode, "zarr_format": 3, "use_consolidated": False}
            group = zarr.open_group(_as_zarr_takes_it(root, is_read=mode == "r"), **opened)
        told = describe(group)
        is_damaged = told["format"] == FORMAT and not _is_sealed(group, OWN, told)
        if told["kind"] == kind and told["format"] == FORMAT and not is_damaged:
            return group
        problem = f"the store holds no {kind} of format {FORMAT}"
        if is_damaged:
            problem, item, mend = "what the store tells of itself does not fit its checksum", root / _ABOUT, _MEND
    except FileNotFoundError:
        pass
    except LakescaleError:
        raise
    except Exception as error:  # noqa: BLE001  (Zarr has many errors for what is no group)
        problem = f"it is no store of lakescale: {str(error) or type(error).__name__}"
    raise InputError(problem, str(item), mend)


def open_array(group: zarr.Group, name: str) -> Any:
    """Open an array of a store; raise `InputError` where it is not there or damaged."""
    problem = "it is not there"
    try:
        array = group[name]
        if isinstance(array, zarr.Array):
            return array
    except Exception as error:  # noqa: BLE001  (as above)
        problem = str(error) or type(error).__name__
    mend = "write the store again, with overwrite where it is asked for"
    raise InputError(f"the array {name!r} of the store cannot be opened: {problem}", root_of(group), mend)


def is_store(root: Location) -> bool:
    """Tell whether a Zarr group lies there, of whatever kind."""
    return (root / _ABOUT).is_file()


def remove_store(root: Location) -> None:
    """Take a store away; what a kill leaves of it is no store. Of a link the link goes alone."""
    if not is_link(root) and is_store(root):
        (root / _ABOUT).unlink(missing_ok=True)
    remove(root)


def remove_layer(root: Location, name: str) -> None:
    """Take a layer away: its markers first, since none may outlive its chunk. Of a link the link goes alone."""
    if not is_link(root / name):
        remove(root / name / "commits")
    remove(root / name)


def describe(group: zarr.Group) -> dict[str, Any]:
    """Read what the store tells of itself."""
    told: Any = group.attrs[OWN]
    return dict(told)


def tell(group: zarr.Group, told: dict[str, Any]) -> None:
    """Write what a store tells of itself, with checksums of it and of the grid's CRS and transform."""
    seals = {OWN: _checksum(told), SPATIAL_REF: _checksum(dict(group[SPATIAL_REF].attrs))}
    group.update_attributes({OWN: told, _SEALS: seals})


def add_values(
    group: zarr.Group, name: str, values: NDArray[Any], dims: list[str], attrs: dict[str, Any], *, chunk: int = 0
) -> None:
    """Add a small array, a coordinate, with a checksum, in one chunk (or in such as let it grow)."""
    array = group.create_array(
        name, shape=values.shape, chunks=tuple(chunk or size for size in values.shape), dtype=values.dtype,
        compressors=[Crc32cCodec()], dimension_names=dims, attributes=dict(attrs),
        config={"write_empty_chunks": True},
    )  # fmt: skip
    array[...] = values


def stored_grid(group: zarr.Group) -> Grid:
    """Read the grid of a store.

    Raises
    ------
    InputError
        When its coordinates are damaged.
    """
    problem, root = "", root_of(group)
    try:
        told = dict(group[SPATIAL_REF].attrs)
        centres = {dim: np.asarray(group[dim][...]) for dim in (Y, X)}  # type: ignore[index]
        transform = Affine.from_gdal(*(float(part) for part in str(told["GeoTransform"]).split()))
        grid = Grid(GeoBox((len(centres[Y]), len(centres[X])), transform, str(told["crs_wkt"])))
        is_sealed = _is_sealed(group, SPATIAL_REF, told)
        if is_sealed and all(np.array_equal(grid.coords()[dim].to_numpy(), centres[dim]) for dim in (Y, X)):
            return grid
        problem = "they do not fit each other"
        if not is_sealed:
            problem, root = "CRS and GeoTransform do not fit their checksum", f"{root}/{SPATIAL_REF}/{_ABOUT}"
    except Exception as error:  # noqa: BLE001  (as for `open_store`)
        problem = str(error) or type(error).__name__
    raise InputError(f"the coordinates of the store are damaged: {problem}", root, _MEND)


def root_of(group: zarr.Group) -> str:
    """Tell the path or URL of a group."""
    store = group.store_path.store
    if isinstance(store, FsspecStore):
        return str(store.fs.unstrip_protocol(store.path))
    return str(group.store_path).removeprefix("file://")


def same_grid(one: Grid, other: Grid) -> bool:
    """Tell whether two grids have the same pixels, to a thousandth of one."""
    if one.shape != other.shape or one.crs != other.crs:
        return False
    (a, b, c, d, e, f), (a2, b2, c2, d2, e2, f2) = one.transform[:6], (~other.transform)[:6]
    for row, col in product((0, one.shape[0]), (0, one.shape[1])):
        x, y = a * col + b * row + c, d * col + e * row + f
        if max(abs(a2 * x + b2 * y + c2 - col), abs(d2 * x + e2 * y + f2 - row)) > _SAME_PX:
            return False
    return True


def check_chunks(side: Any) -> int:
    """Refuse what is no side of a chunk."""
    if not isinstance(side, int) or isinstance(side, bool) or side < 1:
        mend = "for example chunks=2048 (--chunks 2048)"
        raise InputError("chunks= must be a whole number of pixels", repr(side), mend)
    return side


def as_json(attrs: Any) -> dict[str, Any]:
    """Turn attributes into what JSON holds: numpy's numbers into Python's, what else is no JSON into text."""
    return dict(json.loads(json.dumps(dict(attrs), default=lambda value: getattr(value, "tolist", value.__str__)())))


def _as_zarr_takes_it(root: Location, *, is_read: bool) -> Any:
    if isinstance(root, Remote):
        return FsspecStore.from_url(root.url, storage_options=options_of(root.url), read_only=is_read)
    return root


def _is_in_the_way(root: Location, contents: dict[str, Any]) -> bool:
    """Tell whether something else lies there than what a killed `make_store` leaves in an object store."""
    if isinstance(root, Remote):
        there = list_files(root)
        return _ABOUT in there or not there.keys() <= contents.keys() or root.is_file()
    return root.exists() and (not root.is_dir() or any(root.iterdir()))


def _is_sealed(group: zarr.Group, name: str, told: Any) -> bool:
    seals: Any = group.attrs.get(_SEALS, {})
    return bool(seals.get(name) == _checksum(told))


def _checksum(told: Any) -> str:
    """Sum up JSON, whatever the order of its keys and its spaces."""
    return f"{google_crc32c.value(json.dumps(told, sort_keys=True).encode()):08x}"
