"""Ways out of the flats of chunked DEMs, as exact as on one array."""

from __future__ import annotations

from functools import partial
from heapq import heapify, heappop, heappush
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lakescale.chunks import Blocks, PackedBits, Stitch, map_blocks, map_tiles, read_again, stitch
from lakescale.depressions import as_dem_array, as_elevation, declared_nodata
from lakescale.kernels.components import find_parts, paint
from lakescale.kernels.flats import (
    FAR,
    FIRST,
    FLAT,
    find_flats,
    on_ring,
    raise_cells,
    ring_indices,
    spread,
    start_steps,
)
from lakescale.kernels.flood import Ring
from lakescale.regions import Ring as PartRing
from lakescale.regions import join_rings, like, ring_of
from lakescale.schema import InputError

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr
    from numpy.typing import NDArray

    from lakescale.chunks import Place
    from lakescale.kernels.components import Parts

_NODATA = ("wall", "outlet")
WAITING = (
    *(f"find-outlets-{step}" for step in ("keep", "summary", "pick")),
    "find-flats-edges",
    *(f"flat-steps-{step}" for step in ("keep", "summary", "pick")),
)
"""Names of the tasks of `drain_flats` whose results wait for others; see `lakescale.store.Stages`."""
_REACH_PX = 2
_EIGHT = 8


def flat_steps(filled: xr.DataArray, *, nodata: str = "wall") -> xr.DataArray:
    """Count the steps from each cell of a flat to the nearest cell of its elevation that water can leave.

    Water leaves a cell that has a lower one among its 8 neighbours, lies on the mosaic's edge, or touches an outlet. A
    flat is the cells of one elevation, joined over 8 neighbours, that do not leave by themselves; the filled lakes of
    `fill_tiled` are such. Every cell of k > 0 steps has a neighbour of its elevation with k - 1: drainage goes on
    there with no elevation changed (the gradient towards lower terrain of Barnes, Lehman and Mulla 2014), and whoever
    orders cells by elevation and then by steps finds no pit on the way out. Exact, whatever the chunks.

    Lazy. The DEM is read once, and with ``wall`` once more; one that is costly to make is written first. Between the
    two passes each chunk's flats wait as packed and compressed bits, and those on its ring go to the solving task, with
    4 bytes per border cell: it holds 70 kB for each 2048 chunk of ice, 240 kB where half of a chunk is one ragged flat.
    It unpacks one chunk at a time, walks from the ring cells to which a neighbour offered a shorter way, at some 45 ns
    a cell of the flats there, and comes back to a chunk as often as that happens. On filled ice that takes next to
    nothing; where nearly all is one flat with islands, such as the sea, a chunk is walked 2 to 4 times, which makes 0.3
    s for each 2048 chunk. A flat that winds through a seam a thousand times may be walked as often.

    Parameters
    ----------
    filled
        Integer or float ``(y, x)``, void where NaN or of a declared number; cast to float32 first. Infinite cells
        belong to no flat.
    nodata
        What voids are that are not joined to the mosaic's edge over 8 neighbours: ``wall`` or ``outlet``; the others
        are outlets. The one with which the DEM was filled.

    Returns
    -------
    xr.DataArray
        uint32 ``(y, x)``, the same chunks, named ``flat_steps``: 0 in voids, in cells that leave by themselves, and in
        flats that none of these can be reached from, such as on an island in an enclosed void.

    Raises
    ------
    InputError
        When the DEM is not ``(y, x)`` or not of numbers, or ``nodata`` is neither.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> heights = np.array([[9, 9, 9, 9, 9], [9, 4, 4, 4, 4], [9, 9, 9, 9, 9]], np.float32)
    >>> flat_steps(xr.DataArray(heights, dims=("y", "x")).chunk(y=2, x=1)).values[1]
    array([0, 3, 2, 1, 0], dtype=uint32)
    """
    if nodata not in _NODATA:
        raise InputError(f"nodata must be one of {', '.join(_NODATA)}, got {nodata!r}", "flat_steps")
    array, missing = as_dem_array(filled, "filled DEM"), declared_nodata(filled)
    flags = _flag_flats(array, missing, void_is_outlet=nodata == "outlet")
    steps = stitch(flags, steps_stitch()).to_array(np.uint32)
    return like(filled, steps).rename("flat_steps")


def drain_flats(filled: xr.DataArray, *, nodata: str = "wall") -> xr.DataArray:
    """Raise the cells of flats, by as many floats as they are steps away from the way out.

    Every raised cell then has a strictly lower neighbour. A float more is 6e-5 m between 512 and 1024 m, and twice that
    between 1024 and 2048 m; at 0 m it is a subnormal number, which not all software tells from 0. As with every
    epsilon fill, a cell of a wide flat may so rise to or above a neighbour that was higher by no more floats than its
    steps: that neighbour may have lost its only way down, and is a pit then. What must not fail goes by `flat_steps`.

    Lazy; exact whatever the chunks. The DEM is read once more than by `flat_steps`, which see for the cost.

    Parameters
    ----------
    filled, nodata
        See `flat_steps`.

    Returns
    -------
    xr.DataArray
        float32 ``(y, x)``, m, the same chunks; cells of 0 steps and voids as they were (voids are NaN).

    Raises
    ------
    InputError
        As `flat_steps`.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> heights = np.array([[9, 9, 9, 9, 9], [9, 4, 4, 4, 4], [9, 9, 9, 9, 9]], np.float32)
    >>> raised = drain_flats(xr.DataArray(heights, dims=("y", "x"))).values[1]
    >>> (np.diff(raised[1:]) < 0).all(), (raised[1:] - 4) / np.spacing(np.float32(4))
    (np.True_, array([3., 2., 1., 0.], dtype=float32))
    """
    steps = flat_steps(filled, nodata=nodata)
    array = read_again(as_dem_array(filled, "filled DEM"), steps.data.name)
    raised = map_tiles(
        _raise, array, steps.data, depth=0, name="drain-flats", dtype=np.float32,
        options={"missing": declared_nodata(filled)},
    )  # fmt: skip
    return like(filled, raised)


def _raise(block: NDArray[Any], steps: NDArray[np.uint32], *, missing: tuple[float, ...] = ()) -> NDArray[np.float32]:
    return raise_cells(as_elevation(block, missing), steps)


# -- which cells lie in flats


def _flag_flats(array: da.Array, missing: tuple[float, ...], *, void_is_outlet: bool) -> da.Array:
    options = {"missing": missing}
    if void_is_outlet:
        return map_tiles(flag_flats, array, depth=_REACH_PX, name="find-flats", dtype=np.uint8, options=options)
    voids = map_blocks(Blocks.of(array), "find-voids", partial(_find_voids, missing=missing))
    outlets = stitch(voids, outlets_stitch()).to_array(bool)
    again = read_again(array, outlets.name)
    return map_tiles(flag_flats, again, outlets, depth=_REACH_PX, name="find-flats", dtype=np.uint8, options=options)


def flag_flats(
    block: NDArray[Any], is_outlet: NDArray[np.bool_] | None = None, *, missing: tuple[float, ...] = ()
) -> NDArray[np.uint8]:
    """Flag the flats of a block of elevation with a halo of 2 cells, all voids being outlets if not told which.

    See `lakescale.kernels.flats.find_flats`.
    """
    elevation = as_elevation(block, missing)
    return find_flats(elevation, np.isnan(elevation) if is_outlet is None else is_outlet)


def _find_voids(block: NDArray[Any], *, missing: tuple[float, ...] = ()) -> NDArray[np.bool_]:
    return np.isnan(as_elevation(block, missing))


# -- which voids are joined to the mosaic's edge (`regions.fill_holes` asks the same over 4 neighbours)


def outlets_stitch() -> Stitch:
    """Keep the voids of bool blocks that are joined to the mosaic's edge over 8 neighbours."""
    return Stitch("find-outlets", _summarize_voids, _solve_voids, _apply_voids, keep=PackedBits.of)


def _void_parts(kept: PackedBits) -> Parts:
    return find_parts(kept.unpack(), connectivity=_EIGHT)


def _summarize_voids(kept: PackedBits) -> PartRing:
    return ring_of(_void_parts(kept))


def _solve_voids(rings: list[list[PartRing]], _places: list[list[Place]]) -> list[list[NDArray[np.bool_]]]:
    """Tell of each ring part whether it is joined to the mosaic's edge."""
    group, span = join_rings(rings, corners=True)
    is_outlet = np.zeros(len(group), bool)
    edge = [(0, j, "top") for j in range(len(rings[0]))] + [(-1, j, "bottom") for j in range(len(rings[0]))]
    edge += [(i, 0, "left") for i in range(len(rings))] + [(i, -1, "right") for i in range(len(rings))]
    for i, j, side in edge:
        line = getattr(rings[i][j], side)
        is_outlet[group[span[i][j]][line[line > 0] - 1]] = True
    return [[is_outlet[group[s]] for s in row] for row in span]


def _apply_voids(kept: PackedBits, ring_is_outlet: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts = _void_parts(kept)
    is_outlet = np.zeros(parts.n_parts, bool)
    is_outlet[ring_of(parts).parts] = ring_is_outlet
    return paint(parts, is_outlet, np.zeros(kept.shape, bool))


# -- how far the cells of flats are


class _Summary(NamedTuple):
    flats: PackedBits
    """The cells of those flats that touch the block's ring."""
    ring: Ring
    """uint32: steps within the block; `FAR` where there is no way, 0 outside of flats."""


def steps_stitch() -> Stitch:
    """Count the steps in blocks of flags; see `flat_steps`."""
    return Stitch("flat-steps", _summarize, _solve, _apply, keep=PackedBits.of)


def _summarize(kept: PackedBits) -> _Summary:
    flags = kept.unpack()
    is_flat = on_ring((flags & FLAT) > 0)
    framed = start_steps(is_flat, (flags & FIRST) > 0)
    spread(framed, np.flatnonzero(framed == 1))
    return _Summary(PackedBits.of(is_flat), Ring.of(framed[1:-1, 1:-1]))


def _solve(summaries: list[list[_Summary]], _places: list[list[Place]]) -> list[list[Ring]]:
    """Walk on from block to block, the nearest first, until no neighbour knows of a shorter way."""
    rings = [[s.ring for s in row] for row in summaries]
    rows, cols = len(rings), len(rings[0])
    asked = ((_nearest(rings, i, j), i, j) for i, j in product(range(rows), range(cols)))
    queue = [waiting for waiting in asked if waiting[0] < FAR]
    heapify(queue)
    while queue:
        _, i, j = heappop(queue)
        if _nearest(rings, i, j) == FAR:
            continue  # done, with an earlier one
        rings[i][j] = _walk(summaries[i][j].flats, rings[i][j], _shorter(rings, i, j))
        for k, m in product(range(max(i - 1, 0), min(i + 2, rows)), range(max(j - 1, 0), min(j + 2, cols))):
            steps = _nearest(rings, k, m)
            if steps < FAR:
                heappush(queue, (steps, k, m))
    return rings


def _walk(flats: PackedBits, ring: Ring, shorter: Ring) -> Ring:
    """Lower the steps on a ring to those by way of some of its cells."""
    framed = start_steps(flats.unpack())
    starts = []
    for index, steps, fewer in zip(ring_indices(framed.shape), ring, shorter, strict=True):
        framed.flat[index] = np.minimum(framed.flat[index], np.minimum(steps, fewer))
        starts.append(index[fewer < FAR])
    spread(framed, np.concatenate(starts))
    return Ring.of(framed[1:-1, 1:-1])


def _apply(kept: PackedBits, ring: Ring) -> NDArray[np.uint32]:
    flags = kept.unpack()
    framed = start_steps((flags & FLAT) > 0, (flags & FIRST) > 0)
    for index, steps in zip(ring_indices(framed.shape), ring, strict=True):
        framed.flat[index] = steps
    spread(framed, np.flatnonzero((framed > 0) & (framed < FAR)))
    steps = framed[1:-1, 1:-1]
    return np.where(steps == FAR, np.uint32(0), steps)


# -- rings that face each other


def _nearest(rings: list[list[Ring]], i: int, j: int) -> int:
    """Give the fewest steps by which a ring cell can be reached sooner from the blocks around, `FAR` for none."""
    return int(min(line.min() for line in _shorter(rings, i, j)))


def _shorter(rings: list[list[Ring]], i: int, j: int) -> Ring:
    """Give the steps of a block's ring cells by way of the blocks around where these are fewer, `FAR` elsewhere."""
    lines = (_fewer(line, around) for line, around in zip(rings[i][j], _around(rings, i, j), strict=True))
    return Ring(*lines)


def _fewer(line: NDArray[np.uint32], around: NDArray[np.uint32]) -> NDArray[np.uint32]:
    known = np.where(around == 0, np.uint32(FAR), around)
    nearest = np.minimum(np.minimum(known[:-2], known[1:-1]), known[2:])
    steps = nearest + (nearest < FAR)
    return np.where(steps < line, steps, np.uint32(FAR)).astype(np.uint32)


def _around(rings: list[list[Ring]], i: int, j: int) -> Ring:
    """Put together the cells around a block, a corner more than the block's own line at either end."""
    own = rings[i][j]
    height, width = len(own.left), len(own.top)

    def line(y: int, x: int, side: str, length: int) -> NDArray[np.uint32]:
        inside = 0 <= i + y < len(rings) and 0 <= j + x < len(rings[0])
        return getattr(rings[i + y][j + x], side) if inside else np.zeros(length, np.uint32)

    top_left, top_right = line(-1, -1, "bottom", 1)[-1:], line(-1, 1, "bottom", 1)[:1]
    bottom_left, bottom_right = line(1, -1, "top", 1)[-1:], line(1, 1, "top", 1)[:1]
    return Ring(
        np.concatenate([top_left, line(-1, 0, "bottom", width), top_right]),
        np.concatenate([bottom_left, line(1, 0, "top", width), bottom_right]),
        np.concatenate([top_left, line(0, -1, "right", height), bottom_left]),
        np.concatenate([top_right, line(0, 1, "left", height), bottom_right]),
    )
