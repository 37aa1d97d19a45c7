"""Cells of sinks, and the rows that are made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from lakescale.evidence.sink_areas import AREA_UNIT_M2, cell_areas
from lakescale.kernels.nesting import add_up, find_saddles, grow_tree, hold, link, prune
from lakescale.polygons import outline_parts, to_map
from lakescale.schema import AREA_M2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lakescale.evidence.sink_cells import Rules, SinkCells
    from lakescale.grid import Grid
    from lakescale.kernels.nesting import Tree

OUTERMOST = "outermost"
_TILE_PX = 2048
CAPACITY_UNIT_M3 = 2.0**-10
"""Volumes are added as whole multiples of this: such sums do not depend on their order."""


class _Nodes(NamedTuple):
    """Sinks of one level, numbered in raster order of their first cells (the outermost as in their table)."""

    cells: NDArray[np.int64] | slice
    """Which cells lie in them."""
    node: NDArray[np.int32]
    """Sink of each of these cells."""
    spill: NDArray[np.float32]
    outermost: NDArray[np.integer[Any]]
    """Index in the table."""
    parent: NDArray[np.int64]
    """Number in the level before."""
    pour_row: NDArray[np.integer[Any]]
    pour_col: NDArray[np.integer[Any]]


def make_rows(cells: SinkCells, rules: Rules) -> gpd.GeoDataFrame:
    """Make the rows of whole sinks: the outermost ones, then those of level 1, and so on.

    The ids of nested rows are not known here: ``sink_id`` and ``parent`` count the nested ones within their sink from
    1, by level and first cell, 0 is the sink itself, and the column ``outermost`` names it. See `number_rows`.
    """
    area = _cell_areas(cells, rules.grid)
    n_cells = np.bincount(cells.sink, minlength=len(cells.table))
    void_share = cells.table["voids"] / np.maximum(cells.table["voids"] + n_cells, 1)
    given, number = np.zeros((2, len(cells.table)), np.int64)
    frames = []
    for level, nodes in enumerate(_levels(cells, area, rules)):
        parent = number[nodes.parent] if level else np.full(len(nodes.spill), -1)
        if level:
            number = given[nodes.outermost] + _rank(nodes.outermost) + 1
            np.add.at(given, nodes.outermost, 1)
        head = {
            OUTERMOST: cells.table["id"][nodes.outermost],
            "sink_id": number.copy(),
            "level": np.full(len(number), level, np.int32),
            "parent": parent,
        }
        tail = {
            "merge_m": nodes.spill if level else np.full(len(number), np.nan, np.float32),
            "void_share": void_share[nodes.outermost],
        }
        columns = {**head, **_measure(cells, area, nodes, rules.grid), **tail}
        geometry = to_map(_outline(cells.row[nodes.cells], cells.col[nodes.cells], nodes), rules.grid.transform)
        frames.append(gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(geometry, crs=rules.grid.crs)))
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def count_nested(rows: gpd.GeoDataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """List the outermost sinks that hold nested ones, how many each holds, and the number of outermost sinks."""
    is_nested = rows["level"].to_numpy() > 0
    return (*np.unique(rows[OUTERMOST].to_numpy()[is_nested], return_counts=True), int((~is_nested).sum()))


def number_rows(rows: gpd.GeoDataFrame, first_id: NDArray[np.int64]) -> gpd.GeoDataFrame:
    """Give all rows their ids and their parents'.

    Parameters
    ----------
    rows
        As `make_rows` makes them.
    first_id
        Id of the first nested row of each sink that holds some, in the order of `count_nested`.
    """
    outermost, number, parent = (rows[name].to_numpy() for name in (OUTERMOST, "sink_id", "parent"))
    holders = np.unique(outermost[number > 0])
    first = np.append(first_id, 0)[np.searchsorted(holders, outermost)]
    out = rows.drop(columns=OUTERMOST)
    out["sink_id"] = np.where(number > 0, first + number - 1, outermost)
    ids = pd.array(np.where(parent > 0, first + parent - 1, outermost), "Int64")
    ids[parent < 0] = pd.NA
    out["parent"] = ids
    return out


# -- levels


def _levels(cells: SinkCells, area: NDArray[np.int64], rules: Rules) -> Iterator[_Nodes]:
    """List the sinks of each level; only the cells inside the level before are looked at again."""
    table = cells.table
    every, nobody = np.arange(len(table)), np.full(len(table), -1)
    yield _Nodes(slice(None), cells.sink, table["spill"], every, nobody, table["pour_row"], table["pour_col"])
    if rules.levels == 1 or not len(table):
        return
    tree = grow_tree(link(cells.row, cells.col), cells.elevation)
    kept = prune(tree, _are_large(tree, cells.elevation, area, rules), rules.levels)
    inside, number = np.arange(len(cells.row)), np.empty(len(tree.parent), np.int64)
    number[hold(kept, 0)[tree.node]] = cells.sink
    for level in range(1, int(kept.level.max()) + 1):
        holder = hold(kept, level)[tree.node[inside]]
        is_held = holder >= 0
        held = inside[is_held]
        named, first, node = _by_first_cell(holder[is_held])
        node_or_none = np.full(len(inside), -1, np.int32)
        node_or_none[is_held] = node
        links = link(cells.row[inside], cells.col[inside])
        saddle = inside[find_saddles(links, cells.elevation[inside], node_or_none, tree.merge[named])]
        outermost, parent = cells.sink[held[first]], number[kept.parent[named]]
        yield _Nodes(held, node, tree.merge[named], outermost, parent, cells.row[saddle], cells.col[saddle])
        inside, number[named] = held, np.arange(len(named))


def _are_large(tree: Tree, elevation: NDArray[np.float32], area: NDArray[np.int64], rules: Rules) -> NDArray[np.bool_]:
    pit, size = np.full(len(tree.parent), np.inf, np.float32), np.zeros(len(tree.parent), np.int64)
    np.minimum.at(pit, tree.node, elevation)
    np.add.at(size, tree.node, area)
    add_up(tree, pit, size)
    return rules.are_large(tree.merge - pit, size)


def _by_first_cell(
    holder: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Order nodes by their first cells; give them, the index of each one's first cell, and each cell's number."""
    named, first, dense = np.unique(holder, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return named[order], first[order], rank[dense]


def _rank(group: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Count, for each item, the earlier ones of its group."""
    order = np.argsort(group, kind="stable")
    position = np.arange(len(group))
    is_first = np.diff(group[order], prepend=-1) != 0
    rank = np.empty(len(group), np.int64)
    rank[order] = position - np.maximum.accumulate(np.where(is_first, position, 0))
    return rank


# -- columns


def _measure(cells: SinkCells, area: NDArray[np.int64], nodes: _Nodes, grid: Grid) -> dict[str, NDArray[Any]]:
    elevation, area, node, count = cells.elevation[nodes.cells], area[nodes.cells], nodes.node, len(nodes.spill)
    pit = np.full(count, np.inf, np.float32)
    np.minimum.at(pit, node, elevation)
    lowest = np.flatnonzero(elevation == pit[node])
    lowest = lowest[np.unique(node[lowest], return_index=True)[1]]
    pit_x, pit_y = _centres(grid, cells.row[nodes.cells][lowest], cells.col[nodes.cells][lowest])
    pour_x, pour_y = _centres(grid, nodes.pour_row, nodes.pour_col)
    total, volume = np.zeros((2, count), np.int64)
    np.add.at(total, node, area)
    depth = nodes.spill[node].astype(np.float64) - elevation
    np.add.at(volume, node, np.rint(depth * (area * (AREA_UNIT_M2 / CAPACITY_UNIT_M3))).astype(np.int64))
    return {
        "depth_m": nodes.spill - pit,
        "spill_m": nodes.spill,
        "pit_m": pit,
        AREA_M2: total * AREA_UNIT_M2,
        "capacity_m3": volume * CAPACITY_UNIT_M3,
        "pour_x": pour_x,
        "pour_y": pour_y,
        "pit_x": pit_x,
        "pit_y": pit_y,
    }


def _centres(
    grid: Grid, row: NDArray[np.integer[Any]], col: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b, c, d, e, f = grid.transform[:6]
    return a * (col + 0.5) + b * (row + 0.5) + c, d * (col + 0.5) + e * (row + 0.5) + f


def _cell_areas(cells: SinkCells, grid: Grid) -> NDArray[np.int64]:
    """Compute true areas in units of `AREA_UNIT_M2`."""
    area = np.empty(len(cells.row), np.int64)
    for at in _tiles(cells.row, cells.col):
        area[at] = cell_areas(grid, cells.row[at], cells.col[at])
    return area


def _tiles(row: NDArray[np.int32], col: NDArray[np.int32]) -> Iterator[Any]:
    """Part cells into tiles, so that no image outgrows one; whatever the tiles, the answer is the same."""
    if not len(row):
        return
    i, j = (row - row.min()) // _TILE_PX, (col - col.min()) // _TILE_PX
    across = int(j.max()) + 1
    if across == 1 and not i.any():
        yield slice(None)
        return
    tile = i.astype(np.int64) * across + j
    order = np.argsort(tile, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(tile[order])) + 1)


def _outline(row: NDArray[np.int32], col: NDArray[np.int32], nodes: _Nodes) -> NDArray[Any]:
    """Outline each sink along pixel edges, in pixel coordinates; 4-connected parts become one MultiPolygon."""
    polygons, values = [np.empty(0, object)], [np.empty(0, np.int64)]
    for at in _tiles(row, col):
        r, c = row[at], col[at]
        top, left = int(r.min()), int(c.min())
        image = np.zeros((int(r.max()) - top + 1, int(c.max()) - left + 1), np.int32)
        image[r - top, c - left] = nodes.node[at] + 1
        pieces, value = outline_parts(image)
        polygons.append(shapely.transform(pieces, lambda xy, offset=(left, top): xy + offset))
        values.append(value - 1)
    pieces, value = np.concatenate(polygons), np.concatenate(values)
    if len(polygons) > 2:  # noqa: PLR2004  (two tiles and the empty list)
        pieces, value = _dissolve(pieces, value)
    order = np.argsort(value, kind="stable")
    pieces, value = pieces[order], value[order]
    several = (np.bincount(value, minlength=len(nodes.spill)) > 1)[value]
    out = np.empty(len(nodes.spill), object)
    out[value[~several]] = pieces[~several]
    if several.any():
        named, indices = np.unique(value[several], return_inverse=True)
        out[named] = shapely.multipolygons(pieces[several], indices=indices)
    return shapely.normalize(out)


def _dissolve(pieces: NDArray[Any], value: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Unite the pieces of each sink and take out the vertices that the tiles left on straight edges."""
    order = np.argsort(value, kind="stable")
    named, first = np.unique(value[order], return_index=True)
    united = np.array([shapely.union_all(group) for group in np.split(pieces[order], first[1:])], object)
    # a normalised ring starts at a corner, so that no vertex on a straight edge hides at its ends
    straight = shapely.simplify(shapely.normalize(united), 0, preserve_topology=False)
    parts, index = shapely.get_parts(straight, return_index=True)
    return parts, named[index]
