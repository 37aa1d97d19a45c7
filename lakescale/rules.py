"""What counts as a lake by its shape: least area, gaps and holes closed, streams out, narrow necks cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import dask.dataframe as dd
import numpy as np
import pandas as pd
import shapely

from lakescale.chunks import PackedBits, Stitch, map_tiles, on_dask, stitch
from lakescale.grid import Grid
from lakescale.kernels.color import open_rectangle
from lakescale.polygons import areas_3857_m2, areas_m2, polygonize, true_pixel_m
from lakescale.regions import fill_holes, label_regions, like
from lakescale.schema import AREA_3857_M2, AREA_M2, KEPT, REASON, InputError

if TYPE_CHECKING:
    import dask_geopandas
    import geopandas as gpd
    import xarray as xr
    from numpy.typing import NDArray

    from lakescale.chunks import Place

TOO_SMALL, STREAM, CUT_OFF = "smaller than the least area", "stream", "cut off as a stream or neck"
"""Reasons why a candidate is no lake."""


LAKE_PART, CUT_PART = 1, 2


@dataclass(frozen=True, kw_only=True)
class PolygonRules:
    """Rules on the shape of lakes. Every rule can be turned off."""

    min_area_m2: float = 5000.0
    """Least true area, in m2; 0 for none."""
    min_area_3857_m2: float = 0.0
    """Least area in EPSG:3857, in m2 (the Cup's measure); 0 for none."""
    gap_m: float = 80.0
    """What lies between water and is too narrow to hold a square of this side (true metres) counts as lake, before
    holes are filled: floes that leave a lake in pieces; 0 for off."""
    fill_holes: bool = True
    """Whether islands and lids inside a lake count as lake."""
    max_elongation: float = 10.0
    """A region whose minimum rotated rectangle is more than this many times as long as wide is a stream; 0 for off."""
    neck_px: int = 5
    """A part too narrow to hold a square of this many pixels may be cut; 0 for off."""
    neck_rule: Literal["bridges", "streams"] = "streams"
    """Which narrow parts are cut: those that join two wider parts, and streams (``bridges``); or those that are streams
    themselves (``streams``, the Cup's seed)."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("min_area_m2", "min_area_3857_m2", "gap_m", "max_elongation", "neck_px"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
                raise InputError(f"{name} must be a number that is not negative, got {value!r}", "rules")
        if self.neck_px != int(self.neck_px) or not isinstance(self.fill_holes, bool):
            raise InputError(
                "neck_px must be whole and fill_holes true or false", f"{self.neck_px!r}, {self.fill_holes!r}"
            )
        if 0 < self.max_elongation < 1:
            raise InputError(f"max_elongation must be 0 (off) or at least 1, got {self.max_elongation}", "rules")
        if self.neck_rule not in ("bridges", "streams"):
            raise InputError(f"neck_rule must be 'bridges' or 'streams', got {self.neck_rule!r}", "rules")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> PolygonRules:
        """Give the rules ``lakescale`` (the defaults) or ``cup`` (SIGSPATIAL Cup 2023), with changes.

        Raises
        ------
        InputError
            When there is no such preset.
        """
        if name not in PRESETS:
            raise InputError(f"no preset {name!r} of polygon rules", "preset", f"choose one of {', '.join(PRESETS)}")
        return replace(PRESETS[name], **changes)


PRESETS = {
    "lakescale": PolygonRules(),
    "cup": PolygonRules(
        min_area_m2=0.0, min_area_3857_m2=100_000.0, gap_m=0.0, max_elongation=10.0, neck_px=7, neck_rule="streams"
    ),
}
"""Named rules; ``cup``: 0.1 km2 in EPSG:3857, streams ten times as long as wide, 7 x 7 opening."""


def outline_candidates(
    mask: xr.DataArray, rules: PolygonRules, *, within: xr.DataArray | None = None
) -> dask_geopandas.GeoDataFrame:
    """Outline the regions of a mask and say of each whether it has the shape of a lake.

    Lazy, and the same set of rows for any chunks.

    Parameters
    ----------
    mask
        Bool ``(y, x)``, True on water.
    rules
        Rules on shape.
    within
        Bool ``(y, x)``: outside it nothing counts as lake that is no water.

    Returns
    -------
    dask_geopandas.GeoDataFrame
        As `polygonize`, with ``area_m2`` (true), ``area_3857_m2``, and ``reason``: ``kept``, or why not. Parts cut off
        are rows too.
    """
    whole = close_gaps(mask, rules.gap_m)
    whole = fill_holes(whole) if rules.fill_holes else whole
    if within is not None and whole is not mask:
        whole &= within | mask
    if rules.neck_px <= 1:
        return _judged(polygonize(whole), rules, fallen=None)
    parted = cut_necks(whole, rules)
    judged = _judged(polygonize(parted == LAKE_PART), rules, fallen=None)
    cut = _judged(polygonize(parted == CUT_PART), rules, fallen=CUT_OFF)
    both = dd.concat([judged, cut])
    both.spatial_partitions = pd.concat([judged.spatial_partitions, cut.spatial_partitions], ignore_index=True)
    return both


def close_gaps(mask: xr.DataArray, gap_m: float) -> xr.DataArray:
    """Close a mask where the gaps in it are narrow: a closing by a square. Lazy, and the same for any chunks.

    Parameters
    ----------
    mask
        Bool ``(y, x)``.
    gap_m
        Side of the square, true metres; rounded to pixels of the middle of the grid, of which one or none changes
        nothing.

    Returns
    -------
    xr.DataArray
        Bool ``(y, x)``: the mask, and what is not in it and too narrow to hold the square.
    """
    size_px = round(gap_m / true_pixel_m(Grid.of(mask))) if gap_m else 0
    if size_px <= 1:
        return mask
    close = partial(_close, size_px=size_px)
    return like(mask, map_tiles(close, on_dask(mask), depth=2 * size_px, name="gaps-close", dtype=bool))


def _close(mask: NDArray[np.bool_], *, size_px: int) -> NDArray[np.bool_]:
    framed = np.pad(~mask, size_px, constant_values=True)  # what lies beyond the edge may be land
    inside = slice(size_px, -size_px)
    return ~open_rectangle(framed, (size_px, size_px), centred=True)[inside, inside]


def elongation(geometry: NDArray[Any]) -> NDArray[np.float64]:
    """Length over width of the minimum rotated rectangle; infinite for a line."""
    corners = shapely.get_coordinates(shapely.oriented_envelope(geometry)).reshape(-1, 5, 2)
    sides = np.hypot(*np.moveaxis(np.diff(corners[:, :3], axis=1), -1, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        return sides.max(axis=1) / sides.min(axis=1)


def cut_necks(mask: xr.DataArray, rules: PolygonRules) -> xr.DataArray:
    """Cut narrow parts out of the regions of a mask, by ``neck_px`` and ``neck_rule``.

    What an opening by a square of ``neck_px`` removes falls into narrow parts (8-connected). A part goes when it is a
    stream by ``max_elongation``, or, by the rule ``bridges``, when it joins wider parts that nothing else joins in
    one piece. A part that borders no wider part stays: it is a narrow lake, not a neck. Lazy and exact on chunks; the
    solving task holds about 200 bytes a narrow part.

    Parameters
    ----------
    mask
        Bool ``(y, x)``.
    rules
        Rules on shape.

    Returns
    -------
    xr.DataArray
        uint8 ``(y, x)``: 0 outside the mask, 1 (``LAKE_PART``) in it, 2 (``CUT_PART``) where it was cut.
    """
    size = (rules.neck_px, rules.neck_px)
    wide = like(
        mask,
        map_tiles(
            partial(open_rectangle, size_yx=size, centred=True),
            mask.data,
            depth=2 * rules.neck_px,
            name="necks-open",
            dtype=bool,
        ),
    )
    narrow, body = label_regions(mask & ~wide), label_regions(wide)
    joined = map_tiles(_neighbours, narrow.data, body.data, depth=1, name="necks-join", dtype=_NECK)
    return like(mask, stitch(joined, neck_stitch(rules)).to_array(np.uint8))


_NECK = np.dtype([("narrow", np.int64), ("wide", bool), ("low", np.int64), ("high", np.int64)])
"""Per pixel: id of the narrow part, whether it is wide, lowest and highest id of wide parts beside it (0: none)."""


def _neighbours(narrow: NDArray[np.integer[Any]], body: NDArray[np.integer[Any]]) -> NDArray[Any]:
    out = np.zeros(narrow.shape, _NECK)
    out["narrow"], out["wide"] = narrow, body > 0
    rows, cols = np.nonzero(narrow)
    framed = np.pad(body.astype(np.int64), 1)
    around = np.stack([framed[rows + dy, cols + dx] for dy in range(3) for dx in range(3)])
    highest = np.iinfo(np.int64).max
    low = np.where(around > 0, around, highest).min(axis=0, initial=highest)
    out["low"][rows, cols] = np.where(low == highest, 0, low)
    out["high"][rows, cols] = around.max(axis=0, initial=0)
    return out


class _Necks(NamedTuple):
    """A block's mask, and its narrow pixels."""

    mask: PackedBits
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    pixels: NDArray[Any]


class _NeckTable(NamedTuple):
    """Narrow parts of a block: the wide parts next to them, and their convex hulls in block pixels."""

    id: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    hull: NDArray[Any]


def neck_stitch(rules: PolygonRules) -> Stitch:
    """Cut narrow parts out of blocks; see `cut_necks`."""
    return Stitch("necks-cut", _summarize_necks, partial(_solve_necks, rules=rules), _apply_necks, keep=_keep_necks)


def _keep_necks(block: NDArray[Any]) -> _Necks:
    rows, cols = np.nonzero(block["narrow"])
    return _Necks(PackedBits.of(block["wide"] | (block["narrow"] > 0)), rows, cols, block[rows, cols])


def _summarize_necks(kept: _Necks) -> _NeckTable:
    ids, part = np.unique(kept.pixels["narrow"], return_inverse=True)
    low, high = np.full(len(ids), np.iinfo(np.int64).max), np.zeros(len(ids), np.int64)
    np.minimum.at(low, part, np.where(kept.pixels["low"] > 0, kept.pixels["low"], low[part]))
    np.maximum.at(high, part, kept.pixels["high"])
    order = np.argsort(part, kind="stable")
    corners = np.stack([kept.cols, kept.rows], axis=1)[order, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    points = shapely.points(corners.reshape(-1, 2).astype(float))
    hull = shapely.convex_hull(shapely.multipoints(points, indices=np.repeat(part[order], 4))) if len(ids) else points
    return _NeckTable(ids, low, high, hull)


def _solve_necks(
    tables: list[list[_NeckTable]], places: list[list[Place]], *, rules: PolygonRules
) -> list[list[NDArray[np.int64]]]:
    """List for each block the narrow parts to cut."""
    flat = [(t, p) for rows in zip(tables, places, strict=True) for t, p in zip(*rows, strict=True)]
    every = np.concatenate([t.id for t, _ in flat])
    ids, part = np.unique(every, return_inverse=True)
    low, high = np.full(len(ids), np.iinfo(np.int64).max), np.zeros(len(ids), np.int64)
    np.minimum.at(low, part, np.concatenate([t.low for t, _ in flat]))
    np.maximum.at(high, part, np.concatenate([t.high for t, _ in flat]))
    hulls = np.concatenate([shapely.transform(t.hull, lambda xy, p=p: xy + np.array([p.col, p.row])) for t, p in flat])
    cut = np.zeros(len(ids), bool)
    if rules.max_elongation and len(ids):
        order = np.argsort(part, kind="stable")
        cut |= elongation(shapely.geometrycollections(hulls[order], indices=part[order])) > rules.max_elongation
    if rules.neck_rule == "bridges":
        cut |= low < high
    cut &= high > 0
    chosen = ids[cut]
    return [[chosen[np.isin(chosen, t.id, assume_unique=True)] for t in row] for row in tables]


def _apply_necks(kept: _Necks, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    parted = kept.mask.unpack().astype(np.uint8)  # LAKE_PART where True
    gone = np.isin(kept.pixels["narrow"], chosen)
    parted[kept.rows[gone], kept.cols[gone]] = CUT_PART
    return parted


def _judged(frame: Any, rules: PolygonRules, *, fallen: str | None) -> Any:
    bounds = frame.spatial_partitions
    judged = frame.map_partitions(judge_shapes, rules, fallen, meta=judge_shapes(frame._meta, rules, fallen))  # noqa: SLF001
    judged.spatial_partitions = bounds  # map_partitions drops them
    return judged


def judge_shapes(frame: gpd.GeoDataFrame, rules: PolygonRules, fallen: str | None) -> gpd.GeoDataFrame:
    """Add areas and the reason to a frame of outlines."""
    area, area_3857 = areas_m2(frame.geometry), areas_3857_m2(frame.geometry)
    reason = np.full(len(frame), fallen or KEPT, object)
    if fallen is None and len(frame):
        if rules.max_elongation:
            reason[elongation(frame.geometry.values) > rules.max_elongation] = STREAM
        reason[(area < rules.min_area_m2) | (area_3857 < rules.min_area_3857_m2)] = TOO_SMALL
    return frame.assign(**{AREA_M2: area, AREA_3857_M2: area_3857, REASON: reason.astype(str).astype(object)})
