"""Scenes to a cube on disk, chunk by chunk; what was killed goes on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import numpy as np

from lakescale.chunks import sink
from lakescale.cluster import compute
from lakescale.cube.layout import KIND, SCENE, Layout, day_of, since_1970
from lakescale.cube.scenes import check_grid, place, refuse_misses, sort_by_day
from lakescale.scene.seen import seen_mask
from lakescale.schema import SEEN, TIME, InputError, X, Y
from lakescale.storage import locate
from lakescale.store import as_json, describe, is_store, locked, open_store, tell, writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    import zarr
    from distributed import Client

    from lakescale.cube.scenes import Placed
    from lakescale.storage import Location


@dataclass(frozen=True)
class Written:
    """What a call of `write_cube` or `write_layer` did."""

    store: Location
    chunks_written: int
    """Along y and x, of all dates; a chunk has all bands."""
    chunks_skipped: int
    """Those that were finished before."""
    pixel_bytes: int
    """Of what was written, before compression."""
    dates: tuple[str, ...] = ()
    """The dates handed over, as ``2019-07-23``, in order."""


def write_cube(
    scenes: xr.DataArray | Sequence[xr.DataArray],
    store: str | Location,
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
        there already the source must be the same: the files (path, size, time of change), bands, and the options and
        chunks that it was opened with.
    store
        A folder, such as ``cube.zarr``, or its URL in an object store (``s3://bucket/cube.zarr``).
    grid
        A `lakescale.Grid` or a GeoBox; by default the store's, and for a new store the first scene's. Scenes on
        other grids are brought to it.
    chunks
        Side of a chunk in pixels; by default the store's, and 2048 for a new store.
    overwrite
        Whether dates that are there already are written anew. Other dates stay. After a kill it goes on.
    resampling
        For scenes on other grids: ``auto``, or as in `lakescale.regrid`.
    client
        Where to compute; by default as in Dask.
    progress
        Draw a bar on stderr.

    Raises
    ------
    InputError
        For scenes that do not fit each other or the store: other bands or another type, source of a date or place
        on the map; for another ``grid`` or other ``chunks`` than the store's.
    RunError
        When the disk takes no more, or another process writes to the store.
    """
    root = locate(store)
    by_day, target = sort_by_day(scenes), check_grid(grid)
    if not is_store(root):
        new = Layout.of(next(iter(by_day.values())), target, chunks)
        refuse_misses(by_day.values(), new.grid)
        new.make(root)
    layout = Layout.read(open_store(root, KIND))
    layout.check(root, target, chunks)
    refuse_misses(by_day.values(), layout.grid)
    with dask.config.set({"array.rechunk.method": "tasks"}):  # else names would depend on whether a client is there
        placed = {day: place(scene, layout, root, resampling) for day, scene in by_day.items()}
    with locked(root):
        slots = _claim_dates(root, layout, placed, overwrite=overwrite)
        done = [
            _write_date(root, layout, scene, slots[day], client=client, progress=progress)
            for day, (scene, _) in placed.items()
        ]
    written, skipped, size = (sum(column) for column in zip(*done, strict=True))
    return Written(root, written, skipped, size, tuple(placed))


def _claim_dates(root: Location, layout: Layout, placed: dict[str, Placed], *, overwrite: bool) -> dict[str, int]:
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
            f"the store holds {', '.join(others)} from another source or place, or with other bands, chunks or options",
            str(root),
            "replace the date with overwrite=True (--overwrite), or give another store",
        )  # fmt: skip
    with writing(root):
        commits.sweep()
        for day, (scene, fingerprint) in placed.items():
            entry = {"date": day, "fingerprint": fingerprint, "attrs": as_json(scene.attrs)}
            if day not in slots:
                slots[day] = len(dates)
                dates.append(entry)
            elif overwrite:
                if day in others or not commits.is_cut_short(slots[day]):
                    commits.forget(slots[day])
                dates[slots[day]] = entry
        if dates != told["dates"]:
            tell(group, told | {"dates": dates})
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
    root: Location, layout: Layout, scene: xr.DataArray, slot: int, *, client: Client | None, progress: bool
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
    pixels = round(seen.size * len(left) / total)
    about = f"cube {day_of(scene)}"
    (sizes,) = compute(tasks, client=client, progress=progress, description=about, pixels=pixels)
    return len(left), total - len(left), int(sizes.sum())
