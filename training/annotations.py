"""What was drawn of images: lakes, areas to ignore, regions; checked, and brought to an image's pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import shapely
from dask.base import tokenize

from lakescale.chunks import Place
from lakescale.schema import IMAGE, REGION_NUM, InputError
from training.outlines import Outlines, to_outlines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lakescale.chunks import Chunks
    from lakescale.grid import Grid

LAKE, IGNORED = 1, 2
"""Flags of `Marks.flags`."""

Polygons: TypeAlias = "gpd.GeoDataFrame | Mapping[str, gpd.GeoDataFrame]"


@dataclass(frozen=True)
class Marks:
    """The annotations of one image, in its pixels."""

    shape: tuple[int, int]
    """Of the image."""
    lakes: Outlines
    ignore: Outlines
    vertices: NDArray[np.int64]
    """How many corners each lake's outline has; of several parts, the one with the fewest."""
    regions: Outlines | None = None
    region_nums: NDArray[np.int64] | None = None

    def flags(self, place: Place) -> NDArray[np.uint8]:
        """Mark the pixels of a place: uint8, flags `LAKE` and `IGNORED`; what is ignored is no lake."""
        flags = self.lakes.mask(place).view(np.uint8)
        if len(self.ignore.shapes):
            flags[self.ignore.mask(place)] = IGNORED
        return flags

    def lazy_flags(self, chunks: Chunks) -> da.Array:
        """Mark all pixels of the image, lazily."""
        geometry = [shapely.to_wkb(one.shapes).tolist() for one in (self.lakes, self.ignore)]
        marks = dask.delayed(self, name=f"annotations-{tokenize(geometry)}")
        return da.map_blocks(
            _flag_block, marks=marks, chunks=chunks, token="annotations", dtype=np.uint8,  # noqa: S106  (tasks' name)
            meta=np.empty((0, 0), np.uint8),
        )  # fmt: skip


@dataclass(frozen=True)
class Annotations:
    """Polygons of any number of images.

    Each is a frame in any one CRS, whose column ``image`` says which image a polygon is of (not needed where there is
    one image only), or a frame for each image's name.
    """

    lakes: Polygons
    ignore: Polygons | None = None
    """Areas to learn nothing from, such as what may or may not be a lake."""
    regions: gpd.GeoDataFrame | None = None
    """Regions with a column ``region_num``, the same for all images; what lies in none is left out."""

    def require_images(self, names: Iterable[str]) -> None:
        """Raise `InputError` where annotations name no image, or one that is not there."""
        there = list(names)
        for what, polygons in (("lakes", self.lakes), ("ignore", self.ignore)):
            if polygons is None or _is_of_the_only_image(polygons, there):
                continue
            if isinstance(polygons, gpd.GeoDataFrame) and IMAGE not in polygons:
                mend = f"add a column {IMAGE!r}: {', '.join(there[:5])}"
                raise InputError(f"the annotations do not say which of {len(there)} images they are of", what, mend)
            named = polygons[IMAGE].unique() if isinstance(polygons, gpd.GeoDataFrame) else list(polygons)
            if lost := [str(name) for name in named if name not in there]:
                mend = f"name one of: {', '.join(there[:5])}; or name the image: Image(name, path, date)"
                raise InputError(f"annotations of an image that is not there: {', '.join(lost[:5])}", what, mend)

    def of(self, name: str, grid: Grid) -> Marks:
        """Bring the annotations of one image to its pixels.

        Raises
        ------
        InputError
            For polygons that cannot be used, or miss the image; see `to_outlines`.
        """
        lakes, ignore = (_of_image(polygons, name) for polygons in (self.lakes, self.ignore))
        marks = Marks(
            grid.shape,
            Outlines(np.empty(0, object)) if lakes is None else to_outlines(lakes, grid, f"lakes of {name}"),
            Outlines(np.empty(0, object)) if ignore is None else to_outlines(ignore, grid, f"ignore of {name}"),
            np.empty(0, np.int64) if lakes is None else _count_vertices(lakes.geometry.to_numpy()),
        )
        if self.regions is None:
            return marks
        if REGION_NUM not in self.regions:
            raise InputError(f"no column {REGION_NUM!r}", "regions", "number the regions")
        numbers = self.regions[REGION_NUM].to_numpy(np.int64)
        return replace(marks, regions=to_outlines(self.regions, grid, "regions"), region_nums=numbers)


def _is_of_the_only_image(polygons: Polygons, there: list[str]) -> bool:
    return isinstance(polygons, gpd.GeoDataFrame) and IMAGE not in polygons and len(there) == 1


def _of_image(polygons: Polygons | None, name: str) -> gpd.GeoDataFrame | None:
    if polygons is None or isinstance(polygons, Mapping):
        found = polygons and polygons.get(name)
    else:
        found = polygons[polygons[IMAGE] == name] if IMAGE in polygons else polygons
    return found if found is not None and len(found) else None


def _count_vertices(shapes: NDArray[Any]) -> NDArray[np.int64]:
    """Count the corners of each polygon's outer ring; the closing one is no further corner."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    counts = np.full(len(shapes), np.iinfo(np.int64).max)
    np.minimum.at(counts, owner, shapely.get_num_points(shapely.get_exterior_ring(parts)) - 1)
    return counts


def _flag_block(*, marks: Marks, block_info: Any = None) -> NDArray[np.uint8]:
    (top, bottom), (left, right) = block_info[None]["array-location"]
    return marks.flags(Place(top, left, bottom - top, right - left))
