"""How much of each pixel polygons cover, the same whatever the block it is asked with."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import shapely
from exactextract import exact_extract
from exactextract.feature import Feature, FeatureSource
from exactextract.raster import NumPyRasterSource
from exactextract.writer import Writer

from lakescale.chunks import Place
from lakescale.polygons import to_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from affine import Affine
    from numpy.typing import NDArray

COVER_UNIT = 2.0**-16
"""Coverage is counted in whole multiples of this share of a pixel: such sums do not depend on their order."""
WINDOW_PX = 512
"""Larger polygons are covered window by window; no polygon is asked for more pixels than such a window at once."""
_BATCH_PX = 2**21
_BOX_VERTICES = 5


class Covered(NamedTuple):
    """Pixels that polygons cover, those of one polygon together."""

    polygon: NDArray[np.int64]
    """Index of the polygon, ascending."""
    row: NDArray[np.int64]
    """Within the block."""
    col: NDArray[np.int64]
    units: NDArray[np.int64]
    """Covered part, in units of `COVER_UNIT`; at least 1."""


def cover(polygons: NDArray[Any], place: Place, shape: tuple[int, int]) -> Iterator[Covered]:
    """Tell which pixels of a block polygons cover, and how much of each.

    exactextract is asked with windows of the whole grid, never with the block, so a pixel's coverage follows from the
    polygon and the grid alone. (It was the same bit for bit with any of 49 windows for 7.6 million pixels, but that is
    no promise of its makers.)

    Parameters
    ----------
    polygons
        In pixel coordinates ``(col, row)`` of the grid, by `to_covering_pixels`.
    place
        Where the block lies.
    shape
        Rows and columns of the grid.
    """
    left, top, right, bottom = shapely.bounds(polygons).T
    is_large = np.maximum(right - left, bottom - top) > WINDOW_PX
    area = np.minimum((right - left + 2) * (bottom - top + 2), WINDOW_PX**2)
    for batch in _batches(np.flatnonzero(~is_large), area):
        yield _cover_window(polygons, batch, Place(0, 0, *shape), place)
    if not is_large.any():
        return
    for window in _windows(place, shape):
        meets = (left < window.col + window.width) & (right > window.col)
        meets &= (top < window.row + window.height) & (bottom > window.row)
        for batch in _batches(np.flatnonzero(is_large & meets), area):
            yield _cover_window(polygons, batch, window, place)


def to_covering_pixels(geometry: NDArray[Any], transform: Affine) -> NDArray[Any]:
    """Take polygons to pixel coordinates, so that exactextract can be asked about them.

    exactextract 0.3 crashes where a hole of four corners touches its window from outside: such a hole gets a vertex
    more, in the middle of an edge.
    """
    polygons = to_pixels(geometry, transform)
    parts, owner = shapely.get_parts(polygons, return_index=True)
    parts, owner = parts[~shapely.is_empty(parts)], owner[~shapely.is_empty(parts)]
    rings, part = shapely.get_rings(parts, return_index=True)
    is_box = (shapely.get_num_coordinates(rings) == _BOX_VERTICES) & (np.diff(part, prepend=-1) == 0)
    if not is_box.any():
        return polygons
    rings[is_box] = shapely.segmentize(rings[is_box], 0.24 * shapely.length(rings[is_box]))
    lakes, lake = np.unique(owner, return_inverse=True)
    polygons[lakes] = shapely.multipolygons(shapely.polygons(rings, indices=part), indices=lake)
    return polygons


def _batches(which: NDArray[np.int64], area: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """Part polygons so that few pixels are held at once: those of many polygons may overlap."""
    if len(which):
        batch = np.cumsum(area[which]) // _BATCH_PX
        yield from np.split(which, np.flatnonzero(np.diff(batch)) + 1)


def _windows(place: Place, shape: tuple[int, int]) -> Iterator[Place]:
    """List the windows of the grid that a block meets."""
    starts = (
        range(first - first % WINDOW_PX, first + size, WINDOW_PX)
        for first, size in zip(place[:2], place[2:], strict=True)
    )
    for row, col in product(*starts):
        yield Place(row, col, min(WINDOW_PX, shape[0] - row), min(WINDOW_PX, shape[1] - col))


def _cover_window(polygons: NDArray[Any], which: NDArray[np.int64], window: Place, place: Place) -> Covered:
    upwards = shapely.transform(polygons[which], lambda xy: xy * (1, -1))  # its rows go down as y goes up
    no_pixels = np.broadcast_to(np.zeros(1, np.uint8), (window.height, window.width))  # takes no memory
    box = (window.col, -(window.row + window.height), window.col + window.width, -window.row)
    writer = _Writer()
    exact_extract(NumPyRasterSource(no_pixels, *box), _Polygons(upwards), ["cell_id", "coverage"], output=writer)
    count = [len(cells) for cells in writer.cells]
    cell = np.concatenate([*writer.cells, np.empty(0, np.int64)])
    share = np.concatenate([*writer.shares, np.empty(0)])
    row = cell // window.width + (window.row - place.row)
    col = cell % window.width + (window.col - place.col)
    kept = (row >= 0) & (row < place.height) & (col >= 0) & (col < place.width) & (share > 0)
    units = np.maximum(np.rint(share[kept] / COVER_UNIT).astype(np.int64), 1)
    return Covered(np.repeat(which, count)[kept], row[kept], col[kept], units)


# -- exactextract's own formats of polygons and answers take as long as its work


class _Polygon(Feature):
    def __init__(self, wkb: bytes | None = None) -> None:
        super().__init__()
        self.wkb = wkb
        self.found: dict[str, Any] = {}

    def geometry(self) -> bytes | None:
        return self.wkb

    def set_geometry(self, wkb: bytes) -> None:
        self.wkb = wkb

    def set_geometry_format(self) -> str:
        return "wkb"

    def set(self, name: str, value: Any) -> None:
        self.found[name] = value

    def get(self, name: str) -> Any:
        return self.found[name]

    def fields(self) -> list[str]:
        return list(self.found)


class _Polygons(FeatureSource):
    def __init__(self, polygons: NDArray[Any]) -> None:
        super().__init__()
        self.polygons = polygons

    def count(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[_Polygon]:
        return map(_Polygon, shapely.to_wkb(self.polygons))

    def srs_wkt(self) -> None:
        return None


class _Writer(Writer):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[NDArray[np.int64]] = []
        self.shares: list[NDArray[np.float64]] = []

    def add_operation(self, operation: Any) -> None:
        pass

    def write(self, feature: Any) -> None:
        answer = _Polygon()
        feature.copy_to(answer)
        self.cells.append(answer.found.get("cell_id", _NO_CELLS))
        self.shares.append(answer.found.get("coverage", _NO_SHARES))

    def features(self) -> None:
        return None


_NO_CELLS, _NO_SHARES = np.empty(0, np.int64), np.empty(0)
