"""Scenes to a cube on disk, chunk by chunk; what was killed goes on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import numpy as np
import xarray as xr
from dask.base import tokenize

from lakescale.chunks import sink
from lakescale.cluster import compute
from lakescale.cube.layout import KIND, SCENE, Layout, bands_of, day_of, since_1970
from lakescale.grid import Grid
from lakescale.scene.on_grid import bring_to_grid
from lakescale.scene.seen import seen_mask
from lakescale.schema import BAND, SEEN, TIME, InputError, X, Y
from lakescale.store import OWN, as_json, describe, is_store, locked, open_store, same_grid, writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import zarr
    from distributed import Client

_DTYPES = ("uint8", "float32")


@dataclass(frozen=True)
class Written:
    """What a call of `write_cube` or `write_layer` did."""

    store: Path
    chunks_written: int
    """Along y and x, of all dates; a chunk has all bands."""
    chunks_skipped: int
    """Those that were finished before."""
    pixel_bytes: int
    """Of what was written, before compression."""
    dates: tuple[str, ...] = ()
    """The dates handed over, as ``2019-07-23``, in order."""


class _Placed(NamedTuple):
    """A scene on the grid and in the chunks of the cube."""

    scene: xr.DataArray
    fingerprint: str
    """Of where its pixels come from."""


def write_cube(
    scenes: xr.DataArray | Sequence[xr.DataArray],
    store: str | Path,
    *,
    grid: Any = None,
    chunks: int | None = None,
    overwrite: bool = False,
    resampling: str = "auto",
    client: Client | None = None,
    progress: bool = False,
) -> Written:
    """Write scenes of one or many dates to a cube on disk; run it again after a kill, and it goes on.

    Chunks are written by the workers that compute them: pixels, what was seen, then a marker that says finished. Dates
    may be added by later calls; of a date that is there already, only unfinished chunks are written. A worker holds a
    few chunks, whatever the size of the scene.

    Parameters
    ----------
    scenes
        One or more ``(band, y, x)`` with a scalar coordinate ``time``, as `lakescale.open_scene` gives them: uint8, or
        float32 with NaN where not seen. A date is a day. All have the same bands, in any order. Of a date that is
        there already the source must be the same: the files (path, size, time of change), options and chunks.
    store
        A folder on a local file system, such as ``cube.zarr``.
    grid
        A `lakescale.Grid` or a GeoBox; by default the store's, and for a new store the first scene's. Scenes on
        other grids are brought to it.
    chunks
        Side of a chunk in pixels; by default the store's, and 2048 for a new store.
    overwrite
        Whether dates that are there already are written anew. Other dates stay.
    resampling
        For scenes on other grids: ``auto``, or as in `lakescale.regrid`.
    client
        Where to compute; by default as in Dask.
    progress
        Draw a bar on stderr.

    Raises
    ------
    InputError
        For scenes that do not fit each other or the store: another grid, bands, type or source of a date.
    RunError
        When the disk takes no more, or another process writes to the store.
    """
    root = Path(store)
    by_day = _sort_by_day([scenes] if isinstance(scenes, xr.DataArray) else list(scenes))
    target = grid if grid is None or isinstance(grid, Grid) else Grid(grid)
    if not is_store(root):
        first = next(iter(by_day.values()))
        Layout.of(first, target, chunks).make(root)
    layout = Layout.read(open_store(root, KIND))
    layout.check(root, target, chunks)
    with dask.config.set({"array.rechunk.method": "tasks"}):  # else names would depend on whether a client is there
        placed = {day: _place(scene, layout, root, resampling) for day, scene in by_day.items()}
    with locked(root):
        slots = _claim_dates(root, layout, placed, overwrite=overwrite)
        done = [
            _write_date(root, layout, scene, slots[day], client=client, progress=progress)
            for day, (scene, _) in placed.items()
        ]
    written, skipped, size = (sum(column) for column in zip(*done, strict=True))
    return Written(root, written, skipped, size, tuple(placed))


def _sort_by_day(scenes: list[xr.DataArray]) -> dict[str, xr.DataArray]:
    """Sort scenes by date; refuse what is no scene of one date, and two of one date."""
    if not scenes:
        raise InputError("no scenes", "", "pass at least one")
    by_day: dict[str, xr.DataArray] = {}
    for scene in scenes:
        item = str(scene.attrs.get("source", scene.name))
        if scene.dims != (BAND, Y, X):
            raise InputError(
                f"a scene has the dims (band, y, x), this one {scene.dims}", item, "pass one for each date"
            )
        if TIME not in scene.coords:
            raise InputError("a scene without a date", item, "open it with date='YYYY-MM-DD'")
        if str(scene.dtype) not in _DTYPES:
            raise InputError(f"a scene of type {scene.dtype}", item, "a cube holds uint8 or float32: scene.astype(...)")
        day = day_of(scene)
        if day in by_day:
            both = f"{by_day[day].attrs.get('source', '')}, {item}"
            raise InputError(f"two scenes of {day}", both, "pass one scene for each date")
        by_day[day] = scene
    first = next(iter(by_day.values()))
    for day, scene in by_day.items():
        _refuse_others(scene, day, bands_of(first), str(first.dtype), "the first scene")
    return dict(sorted(by_day.items()))


def _refuse_others(scene: xr.DataArray, day: str, bands: tuple[str, ...], dtype: str, whose: str) -> None:
    item = f"{day}: {scene.attrs.get('source', scene.name)}"
    if set(bands_of(scene)) != set(bands) or len(bands_of(scene)) != len(bands):
        what = f"a scene with the bands {', '.join(bands_of(scene))}; {whose} has {', '.join(bands)}"
        raise InputError(what, item, "choose the same bands of all: open_scene(..., bands=[...]), or another store")
    if str(scene.dtype) != dtype:
        what = f"a scene of type {scene.dtype}; {whose} has {dtype}"
        raise InputError(what, item, "keep 8-bit RGB and reflectance in stores of their own")


def _place(scene: xr.DataArray, layout: Layout, root: Path, resampling: str) -> _Placed:
    """Bring a scene to the bands, the grid and the chunks of the cube."""
    day = day_of(scene)
    _refuse_others(scene, day, layout.bands, layout.dtype, f"the store {root.name}")
    known = scene.attrs.get("nodata_values")
    fingerprint = tokenize(scene.data, scene.coords[SEEN].data if SEEN in scene.coords else None, known, resampling)
    if bands_of(scene) != layout.bands:
        scene = _reorder(scene, layout.bands)
    if not same_grid(Grid.of(scene), layout.grid):
        scene = bring_to_grid(scene, layout.grid, resampling=resampling, chunks=max(layout.chunk))
    height, width = layout.chunk
    return _Placed(scene.chunk({BAND: -1, Y: height, X: width}), fingerprint)


def _reorder(scene: xr.DataArray, bands: tuple[str, ...]) -> xr.DataArray:
    """Put bands into the store's order, and what ``attrs`` list of each band."""
    order = [bands_of(scene).index(band) for band in bands]
    listed = {name: [scene.attrs[name][k] for k in order] for name in ("scale", "offset") if _is_list(scene, name)}
    return scene.isel({BAND: order}).assign_attrs(listed)


def _is_list(scene: xr.DataArray, name: str) -> bool:
    return isinstance(scene.attrs.get(name), list)


def _claim_dates(root: Path, layout: Layout, placed: dict[str, _Placed], *, overwrite: bool) -> dict[str, int]:
    """Give each date its place along time; refuse those that are there from another source.

    The list of dates is written first, and the arrays are then brought to its length: what is killed between them is
    made good by the next call.
    """
    group = open_store(root, KIND, mode="r+")
    told, commits = describe(group), layout.commits(root)
    dates = list(told["dates"])
    slots = {entry["date"]: slot for slot, entry in enumerate(dates)}
    others = [day for day in placed if day in slots and dates[slots[day]]["fingerprint"] != placed[day].fingerprint]
    if others and not overwrite:
        raise InputError(
            f"the store holds {', '.join(others)} from another source, or opened with other chunks or options",
            str(root),
            "replace the date with overwrite=True, or give another store",
        )  # fmt: skip
    with writing(root):
        commits.sweep()
        for day, (scene, fingerprint) in placed.items():
            entry = {"date": day, "fingerprint": fingerprint, "attrs": as_json(scene.attrs)}
            if day not in slots:
                slots[day] = len(dates)
                dates.append(entry)
            elif overwrite:
                commits.forget(slots[day])
                dates[slots[day]] = entry
        if dates != told["dates"]:
            group.update_attributes({OWN: told | {"dates": dates}})
        _fit_arrays(group, [entry["date"] for entry in dates])
    return slots


def _fit_arrays(group: zarr.Group, days: list[str]) -> None:
    """Bring the arrays to the length of the list of dates."""
    for name in (SCENE, SEEN, TIME):
        array: Any = group[name]
        if array.shape[0] != len(days):
            array.resize((len(days), *array.shape[1:]))
        if name == TIME and not np.array_equal(array[...], since_1970(days)):
            array[...] = since_1970(days)


def _write_date(
    root: Path, layout: Layout, scene: xr.DataArray, slot: int, *, client: Client | None, progress: bool
) -> tuple[int, int, int]:
    """Write the unfinished chunks of one date; their number, that of finished ones, and bytes of pixels."""
    commits = layout.commits(root)
    left = [(i, j) for _, i, j in commits.unfinished(slot)]
    total = len(commits.indices(slot))
    if not left:
        return 0, total, 0
    height, width = layout.chunk
    seen = seen_mask(scene).chunk({Y: height, X: width})
    tasks = sink(partial(commits.write, (slot,)), scene.data, seen.data, blocks=left, name="write-cube")
    day = day_of(scene)
    (sizes,) = compute(tasks, client=client, progress=progress, description=f"cube {day}")
    return len(left), total - len(left), int(sizes.sum())
