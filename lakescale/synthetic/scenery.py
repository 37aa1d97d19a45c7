"""Pictures of a block of synthetic land on a day: basins, streams and weather put together, then painted in strips."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lakescale.kernels import landscape
from lakescale.kernels.noise import draw, fractal, smooth_step
from lakescale.kernels.terrain import LUCK, RADIUS, Land, U, V, draw_line, make_heights, trace_stream
from lakescale.schema import InputError
from lakescale.synthetic.basins import Basin, Filling, basin_records, depth_of, fill_basin, find_basins

if TYPE_CHECKING:
    import datetime as dt

    from numpy.typing import NDArray

_STRIP = 128
_STREAM_CELL_M, _STREAM_CELLS, _STREAM_STEP_M, _STREAM_STEPS = 1700.0, 3, 12.0, 420
_STREAM_TILES = 512
_STREAM_HALF_M, _STREAM_GROWTH_M = 3.0, 9.0
_CLOUD_HEIGHT_M = 1700.0
_SUN_U, _SUN_V = 0.34, 0.94
_CLOUD_SPREAD, _CIRRUS_SPREAD = 0.47, 0.45
"""Standard deviations of the fields whose highest parts are cloud and cirrus."""
_SWATH_M, _GAP_M, _STRIPE_M = 47_000.0, 2600.0, 1400.0
_BRIGHT, _DUST, _SNOW, _SLUSH, _BROKEN, _BEND_U, _BEND_V, _STREAMS = (40_000 + 500 * k for k in range(8))
_CLOUDS, _CIRRUS, _SWATH = (50_000 + 500 * k for k in range(3))


@dataclass(frozen=True, kw_only=True)
class Scenery:
    """What a synthetic region holds."""

    lake_density: float = 1.0
    """Factor on the number of basins, 0 to about 1.6."""
    margin_km: float = 0.0
    """How far the ice margin is moved away to the west; 30 leaves only ice in a region of up to 40 km."""
    nunataks: float = 1.0
    """Factor on the number of nunataks near the margin."""
    snow: float = 0.0
    """Added to the fields whose highest parts are snow and slush: 0.3 is early summer, -0.3 bare ice."""
    cloud_share: float = 0.08
    """Share of the land under cloud, on the mean of all dates."""
    cirrus_share: float = 0.06
    """The same for thin cirrus."""
    swath_gaps: bool = True
    """Whether slanted strips between swaths are not seen."""
    striped: bool = False
    """Whether every 1400 m a stripe is not seen, as on Landsat 7 since 2003."""

    def __post_init__(self) -> None:
        """Refuse shares outside 0..1 and factors below 0."""
        for name, highest in (("lake_density", 10.0), ("nunataks", 10.0), ("cloud_share", 1.0), ("cirrus_share", 1.0)):
            if not 0 <= getattr(self, name) <= highest:
                raise InputError(f"{name} must lie in 0 to {highest:g}, got {getattr(self, name)!r}", "Scenery")

    def land(self, seed: int) -> Land:
        """Take what the kernels need."""
        return Land(seed * 1_000_003 + 17, self.margin_km * 1000.0, self.lake_density, self.nunataks)


class Block(NamedTuple):
    """A block of the region's pixels."""

    row: int
    """Row of its first pixel, from the anchor."""
    col: int
    height: int
    width: int
    step: float
    """Metres a pixel."""

    @property
    def corner(self) -> tuple[float, float]:
        """First row and column, as the kernels want them."""
        return float(self.row), float(self.col)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    def strips(self) -> list[Block]:
        """Cut into strips, so that fields of floats take little memory."""
        ends = range(0, self.height, _STRIP)
        return [self._replace(row=self.row + i, height=min(_STRIP, self.height - i)) for i in ends]

    def basins(self, land: Land) -> list[Basin]:
        """List the basins that reach the block."""
        return find_basins((self.row, self.col), self.shape, self.step, land)

    def records(self, land: Land) -> NDArray[np.float64]:
        """List basins and nunataks that reach the block, as the kernels want them."""
        return basin_records(self.corner, self.shape, self.step, land)

    def heights(self, land: Land) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Make the dry bed, and the distance inside the ice margin (below 0 on rock), m."""
        return make_heights(self.corner, self.shape, self.step, land, self.records(land))

    def field(
        self, longest_m: float, octaves: int, gain: float, seed: int, stretch: float = 1.0
    ) -> NDArray[np.float32]:
        """Make a fractal field."""
        return fractal(self.corner, self.shape, self.step, longest_m, octaves, gain, seed, stretch)


def paint_block(block: Block, day: dt.date, land: Land, scenery: Scenery) -> tuple[NDArray[Any], NDArray[Any]]:
    """Paint a block on a day.

    Returns
    -------
    reflectance, classes
        float32 ``(6, y, x)``: blue, green, red, nir, swir1, cirrus, NaN where not seen; uint8 ``(y, x)``.
    """
    planes, classes = np.empty((6, *block.shape), np.float32), np.empty(block.shape, np.uint8)
    depth, codes = lay_water(block, day, land)
    streams = lay_streams(block, day, land)
    for strip in block.strips():
        rows = slice(strip.row - block.row, strip.row - block.row + strip.height)
        sunward, off = _light(strip, land)
        seed = land.seed
        high = np.float32(scenery.snow) + np.minimum((off - 22_000.0) / np.float32(60_000.0), np.float32(0.15))
        ground = (
            sunward,
            off,
            strip.field(3500.0, 7, 0.62, seed + _BRIGHT),
            strip.field(7000.0, 4, 0.55, seed + _DUST) - high,
            strip.field(1500.0, 6, 0.6, seed + _SNOW, 2.2) + high,
            strip.field(2600.0, 6, 0.62, seed + _SLUSH, 1.6) + np.float32(0.3) * high,
            strip.field(3800.0, 2, 0.5, seed + _BROKEN),
            strip.field(2800.0, 2, 0.5, seed + _BEND_U),
            strip.field(2800.0, 2, 0.5, seed + _BEND_V),
            depth[rows],
            streams[rows],
            codes[rows],
        )
        weather = make_weather(strip, day, land, scenery)
        planes[:, rows], classes[rows] = landscape.paint(strip.corner, strip.step, seed, ground, weather)
    return planes, classes


def _light(strip: Block, land: Land) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    framed = Block(strip.row - 1, strip.col - 1, strip.height + 2, strip.width + 2, strip.step)
    heights, off = framed.heights(land)
    return landscape.shade(heights, strip.step), np.ascontiguousarray(off[1:-1, 1:-1])


# -- water


def lay_water(block: Block, day: dt.date, land: Land) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Make the depth of lakes (m, 0 outside) and what basins make of each pixel (codes of `lakescale.kernels`)."""
    depth, codes = np.zeros(block.shape, np.float32), np.zeros(block.shape, np.uint8)
    for basin in block.basins(land):
        filling = fill_basin(basin, day, land)
        shared = basin.crop(block.row, block.col, block.shape)
        if shared is None or filling.fate in ("buried", "stays empty"):
            continue
        of_block, of_window = shared
        water, look = draw_lake(basin, filling, block.step)
        here = look[of_window] > 0
        depth[of_block][here] = water[of_window][here]
        codes[of_block][here] = look[of_window][here]
    return depth, codes


def draw_lake(basin: Basin, filling: Filling, step: float) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Make the depth and the codes of one basin's window."""
    look = np.zeros(basin.bed.shape, np.uint8)
    luck = int(basin.record[LUCK])
    if filling.level - basin.pit < 0.3 * (basin.spill - basin.pit) and filling.fate.startswith("drains"):
        look[basin.joins < basin.pit + 0.6 * (basin.spill - basin.pit)] = landscape.FLOOR
    elif draw(luck, 30, 1) < 0.4:  # noqa: PLR2004
        look[basin.joins < filling.level + 0.12 * (filling.level - basin.pit)] = landscape.SHORE
    if not filling.holds_lake:
        return np.zeros(basin.bed.shape, np.float32), look
    depth = depth_of(basin, filling.level)
    wet = depth > 0
    look[wet] = landscape.OPEN_WATER
    if filling.is_snowed_over:
        look[basin.lake(filling.level)] = landscape.SNOWED_LID
    elif filling.lid > 0:
        corner, radius = (float(basin.row), float(basin.col)), float(basin.record[RADIUS])
        centre = (float(basin.record[U]), float(basin.record[V]))
        field = landscape.lid_field(depth, corner, step, centre, radius, luck)
        edge = float(np.quantile(field[wet], 1.0 - filling.lid))
        look[wet] = landscape.cover_lake(field, corner, step, edge, radius, luck)[wet]
    return depth, look


def lay_streams(block: Block, day: dt.date, land: Land) -> NDArray[np.float32]:
    """Draw the streams of a block: share of each pixel that they cover."""
    out = np.zeros(block.shape, np.float32)
    doy = day.timetuple().tm_yday
    flow = smooth_step(160.0, 190.0, float(doy)) * (1.0 - 0.7 * smooth_step(215.0, 245.0, float(doy)))
    if flow <= 0:
        return out
    reach, side = _STREAM_STEP_M * _STREAM_STEPS, _STREAM_CELL_M * _STREAM_CELLS
    spans = [
        range(int((first * block.step - reach) // side), int(((first + n) * block.step + reach) // side) + 1)
        for first, n in ((block.row, block.height), (block.col, block.width))
    ]
    for i, j in product(*spans):
        for path in trace_streams(i, j, land):
            draw_line(out, block.corner, block.step, path, _STREAM_HALF_M * flow, _STREAM_GROWTH_M * flow)
    return out


@lru_cache(maxsize=_STREAM_TILES)
def trace_streams(i: int, j: int, land: Land) -> tuple[NDArray[np.float64], ...]:
    """Trace the streams that start in a tile of 5.1 km, at most 9 of at most 5 km; about 3 ms."""
    side, reach = _STREAM_CELL_M * _STREAM_CELLS, _STREAM_STEP_M * _STREAM_STEPS
    size = int(side + 2 * reach)
    basins = basin_records((i * side - reach, j * side - reach), (size, size), 1.0, land)
    paths = []
    for a, b in product(range(_STREAM_CELLS), repeat=2):
        m, n = i * _STREAM_CELLS + a, j * _STREAM_CELLS + b
        seed = land.seed + _STREAMS
        if draw(m, n, seed) < 0.6:  # noqa: PLR2004
            v, u = (m + draw(m, n, seed + 1)) * _STREAM_CELL_M, (n + draw(m, n, seed + 2)) * _STREAM_CELL_M
            count = int(_STREAM_STEPS * (0.25 + 0.75 * draw(m, n, seed + 3)))
            paths.append(trace_stream(u, v, _STREAM_STEP_M, count, land, basins))
    return tuple(paths)


# -- weather


def make_weather(block: Block, day: dt.date, land: Land, scenery: Scenery) -> tuple[NDArray[Any], ...]:
    """Make opacity (0..1) of cloud, of its shadow and of cirrus, and tell what is seen."""
    up = round(_CLOUD_HEIGHT_M * _SUN_V / block.step), round(_CLOUD_HEIGHT_M * _SUN_U / block.step)
    cloud = _cloud(block, day, land, scenery.cloud_share)
    shadow = _cloud(block._replace(row=block.row + up[0], col=block.col + up[1]), day, land, scenery.cloud_share)
    seed = land.seed + _CIRRUS + day.toordinal()
    cirrus = _opacity(block.field(15_000.0, 3, 0.45, seed), scenery.cirrus_share, _CIRRUS_SPREAD)
    return cloud, shadow * (1 - cloud), np.float32(0.55) * cirrus, see(block, day, land, scenery)


def _cloud(block: Block, day: dt.date, land: Land, share: float) -> NDArray[np.float32]:
    if share <= 0:
        return np.zeros(block.shape, np.float32)
    return _opacity(block.field(9000.0, 6, 0.55, land.seed + _CLOUDS + 3 * day.toordinal()), share, _CLOUD_SPREAD)


def _opacity(field: NDArray[np.float32], share: float, spread: float) -> NDArray[np.float32]:
    """Make the highest part of a field opaque, with soft edges, so that about a share of it is."""
    if share <= 0:
        return np.zeros(field.shape, np.float32)
    low = spread * NormalDist().inv_cdf(1.0 - min(share, 0.999)) - 0.08
    return landscape.make_opaque(field, np.float32(low))


def see(block: Block, day: dt.date, land: Land, scenery: Scenery) -> NDArray[np.bool_]:
    """Tell the pixels that are seen: outside gaps between swaths (whose edges have steps), and stripes."""
    seen = np.ones(block.shape, bool)
    if scenery.swath_gaps:
        shift = _SWATH_M * draw(day.toordinal(), 0, land.seed + _SWATH)
        landscape.add_gaps(seen, block.corner, block.step, (1.0, 0.21), shift, 340.0, _SWATH_M, _GAP_M)
    if scenery.striped:
        landscape.add_gaps(seen, block.corner, block.step, (0.14, 1.0), 0.0, 0.0, _STRIPE_M, 0.12 * _STRIPE_M)
    return seen


def clear_share(basin: Basin, lake: NDArray[np.bool_], block: Block, day: dt.date, sky: tuple[Land, Scenery]) -> float:
    """Share of a lake's pixels that are seen and under no opaque cloud."""
    cloud, _, cirrus, seen = make_weather(block, day, *sky)
    clear = seen & (cloud <= landscape.OPAQUE) & (cirrus <= landscape.THICK_CIRRUS)
    shared = basin.crop(block.row, block.col, block.shape)
    assert shared is not None
    return float(clear[shared[0]][lake[shared[1]]].mean())
