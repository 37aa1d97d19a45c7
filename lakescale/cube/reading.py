"""A cube on disk as a lazy array whose chunks are checked as they are read."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from dask.base import tokenize

from lakescale.cube.layout import KIND, SCENE, Layout, since_1970
from lakescale.schema import BAND, SEEN, TIME, InputError, X, Y
from lakescale.storage import locate
from lakescale.store import StoredArray, describe, lazy_array, open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    import zarr

    from lakescale.storage import Location
    from lakescale.store import Commits


def open_cube(store: str | Location, *, bands: Sequence[str] | None = None, chunks: int | None = None) -> xr.DataArray:
    """Open a cube as a lazy array; every chunk is checked against its checksum and its marker as it is read.

    Parameters
    ----------
    store
        What `write_cube` wrote.
    bands
        Names of the bands wanted, in the order wanted; by default all.
    chunks
        Side of a chunk in pixels; by default the store's. A chunk has one date and all bands.

    Returns
    -------
    xr.DataArray
        ``(time, band, y, x)``, sorted by time, with coordinates ``band`` (names), ``y``, ``x``, ``spatial_ref``,
        ``time`` and ``seen`` (bool ``(time, y, x)``), and those ``attrs`` of the scenes on which all dates agree. One
        date of it, ``cube.isel(time=0)``, is a scene for all functions that take one.

    Raises
    ------
    InputError
        When there is no cube, or chunks of it are not written. A chunk that turns out damaged raises it when computed.
    """
    root = locate(store)
    group = open_store(root, KIND)
    layout, dates = Layout.read(group), describe(group)["dates"]
    commits = layout.commits(root)
    _refuse_unfinished(root, group, commits, dates)
    slots = tuple(sorted(range(len(dates)), key=lambda slot: dates[slot]["date"]))
    days = tuple(dates[slot]["date"] for slot in slots)
    picked = _pick_bands(layout, bands, root)
    mend = f"write this date again: write_cube(..., {root.name!r}, overwrite=True), or lakescale ingest --overwrite"
    read = partial(StoredArray, commits, labels=days, mend=mend)
    token = tokenize(str(root.resolve()), layout.bands, picked, [dates[slot]["fingerprint"] for slot in slots], chunks)
    pixels = lazy_array(read(SCENE, (slots,), (picked,), np.dtype(layout.dtype)), chunks, f"read-cube-{token}")
    seen = lazy_array(read(SEEN, (slots,), (), np.dtype(bool)), chunks, f"read-seen-{token}")
    coords = layout.grid.coords() | {
        TIME: np.array(days, "datetime64[ns]"),
        BAND: [layout.bands[k] for k in picked],
        SEEN: ((TIME, Y, X), seen),
    }
    attrs = _agreed([dates[slot]["attrs"] for slot in slots])
    return xr.DataArray(pixels, dims=(TIME, BAND, Y, X), coords=coords, name=SCENE, attrs=attrs)


def _refuse_unfinished(root: Location, group: zarr.Group, commits: Commits, dates: list[dict[str, Any]]) -> None:
    """Raise where chunks are missing, or the list of dates is not that of the arrays."""
    mend = "run write_cube (or lakescale ingest) again with the same scenes: it goes on where it ended"
    if not dates:
        raise InputError("the cube holds no dates yet", str(root), mend)
    days, problem = [entry["date"] for entry in dates], ""
    try:
        stored: Any = [group[TIME], group[SCENE], group[SEEN]]
        is_whole = len({len(days), *(array.shape[0] for array in stored)}) == 1
        is_whole = is_whole and bool(np.array_equal(stored[0][...], since_1970(days)))
    except Exception as error:  # noqa: BLE001  (Zarr has many errors for what is damaged)
        is_whole, problem = False, f": {error}"
    if not is_whole:
        raise InputError(f"the dates of the cube are not written to their end{problem}", str(root), mend)
    total = len(commits.indices())
    missing = {day: total - commits.count(slot) for slot, day in enumerate(days)}
    if lacking := {day: count for day, count in missing.items() if count}:
        listed = ", ".join(f"{day}: {count} of {total} chunks missing" for day, count in sorted(lacking.items()))
        raise InputError(f"the cube is not finished ({listed})", str(root), mend)


def _pick_bands(layout: Layout, bands: Sequence[str] | None, root: Location) -> tuple[int, ...]:
    wanted = layout.bands if bands is None else tuple(bands)
    missing = [band for band in wanted if band not in layout.bands]
    if missing or not wanted or isinstance(bands, str) or len(set(wanted)) < len(wanted):
        what = f"no band {', '.join(missing) or bands!r}"
        raise InputError(what, str(root), f"choose among bands, each once: {', '.join(layout.bands)}")
    return tuple(layout.bands.index(band) for band in wanted)


def _agreed(told: list[dict[str, Any]]) -> dict[str, Any]:
    """Keep the attributes on which all dates agree."""
    return {key: value for key, value in told[0].items() if all(one.get(key) == value for one in told)}
