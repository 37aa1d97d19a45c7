"""Lakes on ice, made up pixel by pixel: the same for any chunks, since every pixel follows from where it lies.

Square cells tile the plane without end; each draws its own lakes from a generator seeded by its row and column. A
larger scene has more of the same lakes.
"""

from __future__ import annotations

import os
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import dask.array as da
import numpy as np
import rasterio
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.windows import Window

from lakescale.chunks import plan_blocks
from lakescale.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = int(os.environ.get("LAKESCALE_BENCH_SIZE", "8192"))
"""Side of the scenes, in pixels."""
CHUNK = min(2048, max(64, SIZE // 4))
"""Side of a chunk: 2048 pixels, less where a small scene would have too few."""
CRS, TRANSFORM = "EPSG:3413", Affine(10, 0, -200_000, 0, -10, -2_000_000)

ICE, WATER, LID = 0, 1, 2
"""What a pixel of `draw_lakes` is; a lid is ice that floats in a lake."""

_CELL_PX, _LAKES_A_CELL = 512, 12
_RADIUS_PX, _PARETO = (4, 150), 2.0
_LID_SHARE, _LID_RADIUS, _LID_LEAST_PX = 0.3, (0.3, 0.6), 12
_WOBBLE, _SHORE_PX = 0.12, 1.5
_STRIP_ROWS = 64


class _Lake(NamedTuple):
    row: float
    col: float
    radius_px: float
    lid_px: float
    phases: NDArray[np.float64]

    @property
    def reach_px(self) -> int:
        return int(self.radius_px * (1 + len(self.phases) * _WOBBLE)) + 2


def draw_lakes(row: int, col: int, height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Draw one block: uint8 ``(height, width)`` of `ICE`, `WATER` (2 % of a large scene) and `LID`."""
    out = np.zeros((height, width), np.uint8)
    cells = (
        range(start // _CELL_PX - 1, (start + n - 1) // _CELL_PX + 2) for start, n in ((row, height), (col, width))
    )
    for lake in (lake for cell in product(*cells) for lake in _lakes_of(cell, seed)):
        r0, r1 = (int(np.clip(lake.row + s * lake.reach_px - row, 0, height)) for s in (-1, 1))
        c0, c1 = (int(np.clip(lake.col + s * lake.reach_px - col, 0, width)) for s in (-1, 1))
        if r0 < r1 and c0 < c1:
            _paint(out[r0:r1, c0:c1], lake, row + r0, col + c0, seed)
    return out


def paint_rgb(lakes: NDArray[np.uint8], row: int, col: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Color a block of `draw_lakes`: uint8 ``(3, y, x)``, bright ice and blue water, five to six bits of noise."""
    rgb = np.empty((3, *lakes.shape), np.uint8)
    for r in range(0, len(lakes), _STRIP_ROWS):  # strips keep the noise, four bytes a pixel and step, small
        strip = lakes[r : r + _STRIP_ROWS]
        noise = _noise(row + r, col, *strip.shape, seed)
        for band, (ice, water) in enumerate(((200, 20), (205, 90), (215, 160))):
            bits = (noise >> np.uint32(8 * band)).astype(np.uint8)
            rgb[band, r : r + _STRIP_ROWS] = np.where(strip == WATER, water + (bits & 63), ice + (bits & 31))
    return rgb


def lazy_rgb(size: int, *, chunk: int = CHUNK) -> xr.DataArray:
    """Make a scene whose chunks are drawn where they are needed: uint8 ``(band, y, x)``, no file behind it."""
    axis = da.core.normalize_chunks((chunk,), shape=(size,))[0]
    data = da.map_blocks(_rgb_block, chunks=((3,), axis, axis), dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    coords = {**grid_of(size).coords(), "band": ["red", "green", "blue"]}
    return xr.DataArray(data, dims=("band", "y", "x"), coords=coords)


def write_rgb(path: Path, size: int) -> NDArray[np.uint8]:
    """Write a scene as a tiled, uncompressed GeoTIFF of three bands, and give its pixels: ``(y, x, 3)``, contiguous."""
    pixels = np.empty((size, size, 3), np.uint8)
    tile = min(512, size // 16 * 16)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 3, "height": size, "width": size, "photometric": "RGB"}
    layout = {"tiled": True, "blockxsize": tile, "blockysize": tile, "interleave": "pixel"}
    with rasterio.open(path, "w", crs=CRS, transform=TRANSFORM, **profile, **layout) as file:
        for place in _places(size):
            rgb = paint_rgb(draw_lakes(*place), place[0], place[1])
            file.write(rgb, window=Window(place[1], place[0], place[3], place[2]))
            pixels[_slices(place)] = rgb.transpose(1, 2, 0)
    return pixels


def write_mask(path: Path, size: int) -> NDArray[np.bool_]:
    """Write the water of a scene, lids left out, as a Zarr array of bool; give its pixels."""
    pixels = np.empty((size, size), bool)
    stored = zarr.create_array(path, shape=pixels.shape, chunks=(CHUNK, CHUNK), dtype=bool)
    for place in _places(size):
        pixels[_slices(place)] = draw_lakes(*place) == WATER
        stored[_slices(place)] = pixels[_slices(place)]
    return pixels


def open_mask(path: Path) -> xr.DataArray:
    """Open what `write_mask` wrote, lazily, in its chunks."""
    data = da.from_zarr(path)
    return xr.DataArray(data, dims=("y", "x"), coords=grid_of(len(data)).coords(), name="water")


def _lakes_of(cell: tuple[int, int], seed: int) -> Iterator[_Lake]:
    rng = np.random.default_rng([seed, *(index % 2**32 for index in cell)])
    for _ in range(_LAKES_A_CELL):
        row, col = (index * _CELL_PX + rng.uniform(0, _CELL_PX) for index in cell)
        radius_px = min(_RADIUS_PX[0] * (1 + rng.pareto(_PARETO)), _RADIUS_PX[1])
        has_lid = rng.random() < _LID_SHARE and radius_px > _LID_LEAST_PX
        lid_px = radius_px * rng.uniform(*_LID_RADIUS) * has_lid
        yield _Lake(row, col, radius_px, lid_px, rng.uniform(0, 2 * np.pi, 3))


def _paint(out: NDArray[np.uint8], lake: _Lake, row: int, col: int, seed: int) -> None:
    height, width = out.shape
    down, right = np.ogrid[
        row - lake.row : row - lake.row + height - 0.5, col - lake.col : col - lake.col + width - 0.5
    ]
    angle = np.arctan2(down, right)
    wobble = sum(np.cos((k + 2) * angle + phase) for k, phase in enumerate(lake.phases))
    shore = (_noise(row, col, height, width, seed) & np.uint32(255)) * (_SHORE_PX / 255)
    distance = np.hypot(down, right) + shore - _WOBBLE * lake.radius_px * wobble
    out[distance < lake.radius_px] = WATER
    out[distance < lake.lid_px] = LID


def _noise(row: int, col: int, height: int, width: int, seed: int) -> NDArray[np.uint32]:
    """Hash the place of each pixel into 32 bits."""
    rows = np.arange(row, row + height, dtype=np.uint32)[:, None] * np.uint32(0x9E3779B1)
    cols = np.arange(col, col + width, dtype=np.uint32)[None, :] * np.uint32(0x85EBCA77)
    bits = (rows + np.uint32(seed)) ^ cols
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        bits ^= bits >> np.uint32(shift)
        bits *= np.uint32(factor)
    return bits ^ (bits >> np.uint32(15))


def _rgb_block(block_info: dict[None, dict[str, list[tuple[int, int]]]]) -> NDArray[np.uint8]:
    _, (row, row_end), (col, col_end) = block_info[None]["array-location"]
    return paint_rgb(draw_lakes(row, col, row_end - row, col_end - col), row, col)


def grid_of(size: int) -> Grid:
    """Lay a square of 10 m pixels."""
    return Grid(GeoBox((size, size), TRANSFORM, CRS))


def _places(size: int) -> Iterator[tuple[int, int, int, int]]:
    axis = da.core.normalize_chunks((CHUNK,), shape=(size,))[0]
    return (tuple(place) for row in plan_blocks((axis, axis)) for place in row)


def _slices(place: tuple[int, int, int, int]) -> tuple[slice, slice]:
    row, col, height, width = place
    return slice(row, row + height), slice(col, col + width)
