"""Drawings that are made where they are read: sources for `dask.array.from_array`, any window of any chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import dask.array as da
import numpy as np
from dask.base import tokenize

from lakescale.chunks import split_key
from lakescale.kernels.landscape import BLUE, GREEN, RED
from lakescale.kernels.noise import draw, fractal
from lakescale.kernels.terrain import LUCK, Land, make_heights
from lakescale.schema import InputError
from lakescale.synthetic.basins import Basin, fill_basin
from lakescale.synthetic.scenery import Block, Scenery, paint_block, see

if TYPE_CHECKING:
    import datetime as dt

    from numpy.typing import NDArray

_BRIGHTEST = np.float32(0.85)
"""Reflectance at which 8-bit values end."""
_HELD_SHARE, _VOID_SHARE = 0.45, 0.35
"""Share of basins that a DEM holds with water; share of these that are void."""
_VOIDS = 60_000


@dataclass(frozen=True)
class Drawing:
    """A raster that is made on demand from where its pixels lie."""

    block: Block
    """All of it."""
    planes: ClassVar[int] = 0
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(band, y, x)``, or ``(y, x)`` where there is one plane."""
        return (self.planes, *self.block.shape) if self.planes else self.block.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        (*planes, rows, cols), picks = zip(*map(split_key, key, self.shape), strict=True)
        part = self.block._replace(
            row=self.block.row + rows.start, col=self.block.col + cols.start, height=len(rows), width=len(cols)
        )
        if not (part.height and part.width):
            return np.empty([len(drawn) for drawn in (*planes, rows, cols)], self.dtype)[picks]
        made = self.draw(part)
        return (made[planes[0].start : planes[0].stop] if planes else made)[picks]

    def draw(self, part: Block) -> NDArray[Any]:
        """Make a part."""
        raise NotImplementedError


def lazy(drawing: Drawing, chunks: Any, name: str) -> da.Array:
    """Make a dask array of a drawing, all its planes in one chunk."""
    planes = (drawing.planes,) if drawing.planes else ()
    try:
        yx = da.core.normalize_chunks(chunks, drawing.block.shape, dtype=drawing.dtype)
    except (TypeError, ValueError) as error:
        raise InputError(f"chunks that make no sense: {error}", repr(chunks), "for example chunks=2048") from error
    return da.from_array(
        drawing,
        chunks=(*planes, *yx),
        name=f"synthetic-{name}-{tokenize(drawing, yx)}",
        asarray=False,
        lock=False,
        inline_array=True,
        meta=np.empty((0,) * drawing.ndim, drawing.dtype),
    )


@dataclass(frozen=True)
class Picture(Drawing):
    """The scene of a day."""

    day: dt.date
    land: Land
    scenery: Scenery
    kind: str

    @property
    def planes(self) -> int:  # type: ignore[override]
        """Six of reflectance, or three of 8-bit RGB."""
        return 6 if self.kind == "reflectance" else 3

    @property
    def dtype(self) -> np.dtype[Any]:  # type: ignore[override]
        """float32 or uint8."""
        return np.dtype(np.float32 if self.kind == "reflectance" else np.uint8)

    def draw(self, part: Block) -> NDArray[Any]:
        """Make reflectance, or stretch it to 1..255 with 0 where not seen."""
        planes, classes = paint_block(part, self.day, self.land, self.scenery)
        if self.kind == "reflectance":
            return planes
        out = np.empty((3, *part.shape), np.uint8)
        for k, plane in enumerate((RED, GREEN, BLUE)):
            bright = np.minimum(planes[plane] / _BRIGHTEST, np.float32(1))
            out[k] = np.where(classes > 0, np.rint(1 + 254 * bright), 0).astype(np.uint8)
        return out


@dataclass(frozen=True)
class Classes(Drawing):
    """The classes of a day's pixels."""

    day: dt.date
    land: Land
    scenery: Scenery
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.uint8)

    def draw(self, part: Block) -> NDArray[Any]:
        """Paint and keep the classes."""
        return paint_block(part, self.day, self.land, self.scenery)[1]


@dataclass(frozen=True)
class Seen(Drawing):
    """What the swath of a day holds."""

    day: dt.date
    land: Land
    scenery: Scenery
    dtype: ClassVar[np.dtype[Any]] = np.dtype(bool)

    def draw(self, part: Block) -> NDArray[Any]:
        """Tell the pixels outside gaps."""
        return see(part, self.day, self.land, self.scenery)


@dataclass(frozen=True)
class Labels(Drawing):
    """The true lakes of a day."""

    day: dt.date
    land: Land
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.int32)

    def draw(self, part: Block) -> NDArray[Any]:
        """Write the id of each lake on its pixels."""
        out = np.zeros(part.shape, np.int32)
        for basin in part.basins(self.land):
            filling = fill_basin(basin, self.day, self.land)
            shared = basin.crop(part.row, part.col, part.shape)
            if shared is not None and filling.holds_lake:
                out[shared[0]][basin.lake(filling.level)[shared[1]]] = basin.id
        return out


@dataclass(frozen=True)
class Heights(Drawing):
    """A DEM."""

    land: Land
    surface: str
    basin_step: float
    """Resolution at which basins are flooded, m: the region's."""

    def draw(self, part: Block) -> NDArray[Any]:
        """Make the bed in strips, then what water and clouds left on it."""
        out = np.empty(part.shape, np.float32)
        records = part.records(self.land)
        for strip in part.strips():
            rows = slice(strip.row - part.row, strip.row - part.row + strip.height)
            out[rows], _ = make_heights(strip.corner, strip.shape, strip.step, self.land, records)
            if self.surface == "arcticdem":
                seed = self.land.seed + _VOIDS
                out[rows][fractal(strip.corner, strip.shape, strip.step, 2200.0, 3, 0.5, seed) > 1.02] = np.nan  # noqa: PLR2004
        if self.surface == "arcticdem":
            for basin in self._native(part).basins(self.land):
                self._add_water(out, part, basin)
        return out

    def _native(self, part: Block) -> Block:
        ratio = part.step / self.basin_step
        top, left = (int(np.floor(first * ratio)) for first in (part.row, part.col))
        height, width = (int(np.ceil(n * ratio)) + 1 for n in part.shape)
        return Block(top, left, height, width, self.basin_step)

    def _add_water(self, out: NDArray[np.float32], part: Block, basin: Basin) -> None:
        """Lay the water that a basin held when it was imaged, or the void in its place; nearest pixel of the basin."""
        luck = int(basin.record[LUCK])
        if draw(luck, 40, 1) >= _HELD_SHARE:
            return
        level = basin.pit + (0.3 + 0.65 * draw(luck, 41, 1)) * (basin.spill - basin.pit)
        is_void = draw(luck, 42, 1) < _VOID_SHARE
        lake = basin.lake(level) if is_void else basin.water(level)
        ratio = part.step / self.basin_step
        spots = []
        for first, n, start, size in zip(part[:2], part.shape, (basin.row, basin.col), basin.bed.shape, strict=True):
            nearest = np.floor((np.arange(n) + first + 0.5) * ratio).astype(np.int64) - start
            spots.append((np.flatnonzero((nearest >= 0) & (nearest < size)), nearest))
        (rows, row_of), (cols, col_of) = spots
        wet = lake[np.ix_(row_of[rows], col_of[cols])]
        at = np.ix_(rows, cols)
        out[at] = np.where(wet & ~np.isnan(out[at]), np.float32(np.nan if is_void else level), out[at])
