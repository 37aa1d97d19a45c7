"""Basins as water sees them: the bed in a window round each, where it fills to, and how full it is on a day."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import ndimage

from lakescale.kernels.noise import draw, smooth_step
from lakescale.kernels.terrain import (
    HEIGHT,
    ID,
    LEVEL,
    LUCK,
    RADIUS,
    REACH,
    SHORT,
    U,
    V,
    fill_from,
    lay_basins,
    make_heights,
)

if TYPE_CHECKING:
    import datetime as dt

    from numpy.typing import NDArray

    from lakescale.kernels.terrain import Land

FATES = ("drains fast", "drains slowly", "freezes", "stays", "buried", "stays empty")
"""What may become of a basin's water in a year."""
_FATE_SHARES = (0.16, 0.28, 0.36, 0.10, 0.05, 0.05)
OPEN, PARTLY_LIDDED, LIDDED = "open", "partly lidded", "lidded"
"""Values of ``state``."""
_LID_FROM, _LID_WHOLE = 0.04, 0.97
_LEAST_FRACTION = 0.05
_WINDOWS = 384
_MARGIN_PX = 2
_YEARS = 70_000


@dataclass(frozen=True, eq=False)
class Basin:
    """A basin with the bed in its window, all at the region's resolution."""

    row: int
    """Row of the window's first pixel, from the anchor."""
    col: int
    record: NDArray[np.float64]
    """Columns of `lakescale.kernels.terrain`."""
    bed: NDArray[np.float32]
    """``(y, x)`` m."""
    joins: NDArray[np.float32]
    """``(y, x)`` m: the level at which the basin's water reaches a pixel, infinite where it spills first."""
    pit: float
    """Lowest height, m."""
    spill: float
    """Level at which water runs out of the basin's domain, m."""

    @property
    def id(self) -> int:
        """The basin's id, the same on all dates and in all windows of a land."""
        return int(self.record[ID])

    def water(self, level: float) -> NDArray[np.bool_]:
        """Tell the pixels under water; they are connected (8 neighbours)."""
        return self.joins < np.float32(level)

    def lake(self, level: float) -> NDArray[np.bool_]:
        """Tell the pixels of the lake: its water and the islands in it."""
        return ndimage.binary_fill_holes(self.water(level))

    def crop(
        self, row: int, col: int, shape: tuple[int, int]
    ) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
        """Find the pixels shared with a block: as slices of the block and of the window; None where there are none."""
        top, left = max(row, self.row), max(col, self.col)
        bottom = min(row + shape[0], self.row + self.bed.shape[0])
        right = min(col + shape[1], self.col + self.bed.shape[1])
        if top >= bottom or left >= right:
            return None
        of_block = slice(top - row, bottom - row), slice(left - col, right - col)
        return of_block, (slice(top - self.row, bottom - self.row), slice(left - self.col, right - self.col))


class Filling(NamedTuple):
    """A basin on a day."""

    level: float
    """Of its water, m; not above the spill level."""
    lid: float
    """Share (0..1) of the water that ice covers, as planned; what the pixels show is close to it."""
    fate: str
    """One of `FATES`, of that year."""
    holds_lake: bool
    """False where it is empty, or its water lies under snow."""

    @property
    def is_snowed_over(self) -> bool:
        """Whether ice and snow cover all of the lake."""
        return self.lid >= _LID_WHOLE

    @property
    def state(self) -> str:
        """``open``, ``partly lidded`` or ``lidded``."""
        if self.is_snowed_over:
            return LIDDED
        return PARTLY_LIDDED if self.lid > _LID_FROM else OPEN


def find_basins(corner: tuple[int, int], shape: tuple[int, int], step: float, land: Land) -> list[Basin]:
    """Find the basins (no nunataks) whose domains touch a block of the region's pixels."""
    rows = basin_records(corner, shape, step, land)
    return [open_basin(tuple(row), step, land) for row in rows if row[LEVEL] > 0]


def basin_records(corner: tuple[float, float], shape: tuple[int, int], step: float, land: Land) -> NDArray[np.float64]:
    """List basins and nunataks whose domains touch a block, ``(n, columns)``; one pixel more on every side counts."""
    top, left = (corner[0] - 1) * step, (corner[1] - 1) * step
    return lay_basins(left, top, left + (shape[1] + 2) * step, top + (shape[0] + 2) * step, land)


@lru_cache(maxsize=_WINDOWS)
def open_basin(record: tuple[float, ...], step: float, land: Land) -> Basin:
    """Make a basin's window and let water rise in it.

    Costs about a microsecond per pixel under water, and 9 bytes per pixel of the window while it is kept: a process
    keeps the last 384 windows, mostly of 30 to 100 pixels a side (350 at most at 10 m a pixel).
    """
    basin = np.array(record)
    reach = basin[REACH]
    row, col = floor((basin[V] - reach) / step) - _MARGIN_PX, floor((basin[U] - reach) / step) - _MARGIN_PX
    shape = tuple(ceil(2 * reach / step) + 2 * _MARGIN_PX + 1 for _ in range(2))
    bed, _ = make_heights((float(row), float(col)), shape, step, land, basin[None])
    far = np.hypot(
        (np.arange(shape[0]) + row + 0.5)[:, None] * step - basin[V],
        (np.arange(shape[1]) + col + 0.5) * step - basin[U],
    )
    start = np.where(far <= max(0.5 * basin[SHORT], 1.5 * step), bed, np.inf)
    for _ in range(2):  # the lowest cell near the centre may lie above the lowest that its water reaches
        joins, spill = fill_from(bed, *np.unravel_index(np.argmin(start), shape), far < reach - step)
        start = np.where(joins < spill, bed, np.inf)
    joins[joins >= spill] = np.inf
    pit = float(np.where(joins < spill, bed, spill).min())
    return Basin(row, col, basin, bed, joins, pit, float(spill))


def fill_basin(basin: Basin, day: dt.date, land: Land) -> Filling:
    """Say how full a basin is on a day, and how much of its lake ice covers."""
    luck = [draw(int(basin.record[LUCK]), k, land.seed + _YEARS + day.year) for k in range(8)]
    fate = FATES[min(int(np.searchsorted(np.cumsum(_FATE_SHARES), luck[0], side="right")), len(FATES) - 1)]
    doy = day.timetuple().tm_yday
    start = 148.0 + 11.0 * (basin.record[HEIGHT] - 700.0) / 500.0 + 10.0 * luck[1]
    length = 16.0 + 14.0 * luck[2]
    full = (
        smooth_step(start, start + length, float(doy)) * (0.72 + 0.28 * luck[3]) * _left(fate, doy, start, length, luck)
    )
    full = min(full, 0.995) if fate != "stays empty" else 0.0
    level = basin.pit + full * (basin.spill - basin.pit)
    holds = full >= _LEAST_FRACTION and fate != "buried" and bool(basin.water(level).any())
    return Filling(level, _lid(fate, doy, start, luck, float(basin.record[RADIUS])), fate, holds)


def _left(fate: str, doy: int, start: float, length: float, luck: list[float]) -> float:
    """Share of its water that a draining lake has left."""
    if fate == "drains fast":
        return float(doy < start + length + 32.0 * luck[4])
    if fate == "drains slowly":
        return max(0.0, 1.0 - max(0.0, doy - start - length - 8.0 * luck[4]) / (40.0 + 30.0 * luck[5]))
    return 1.0


def _lid(fate: str, doy: int, start: float, luck: list[float], radius: float) -> float:
    """Share under ice: of winter, melting from the shore inwards, and of autumn."""
    thaw = 14.0 + 46.0 * luck[6]
    winter = min(0.9, max(0.0, 1.0 - (doy - start - 8.0) / thaw)) if radius > 120.0 * (0.7 + luck[7]) else 0.0
    freeze = (204.0 if fate == "freezes" else 232.0) + 22.0 * luck[5]
    return max(winter, smooth_step(freeze, freeze + 20.0, float(doy)))


def depth_of(basin: Basin, level: float) -> NDArray[Any]:
    """Depth of the water, float32 m; 0 outside it."""
    return np.where(basin.water(level), np.float32(level) - basin.bed, np.float32(0))
