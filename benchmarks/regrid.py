"""`regrid` beside `rasterio.warp.reproject`: elevations from polar stereographic to UTM, bilinear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.warp import reproject

import lakescale as ls
from benchmarks import scenes
from benchmarks.races import TIMEOUT_S, Race, race
from lakescale.grid import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

NODATA = -9999.0
TARGET_CRS, PIXEL_M = "EPSG:32622", 10
THREADS = 2
_TOLERANCE_M, _LEAST_SHARE = 0.05, 0.999
_STRIP_ROWS = 512


class Regrid:
    """Two threads each, pixels in memory, from a grid in EPSG:3413 to one of the same size in UTM 22N.

    ``voids`` says whether 2 % of the elevations are missing, by a declared nodata that both respect; else neither is
    told of any. The peer is faster with more memory to warp in than GDAL's default of 64 MB. Ours runs on dask's
    threaded scheduler, in chunks; building the graph is timed.
    """

    params = (["declared nodata", "none"], [64, 1000])
    param_names = ("voids", "warp_memory_of_peer_mb")
    timeout = TIMEOUT_S

    def setup(self, voids: str, memory_mb: int) -> None:
        """Make the elevations, and both grids."""
        self.nodata, self.memory_mb = NODATA if voids == "declared nodata" else None, memory_mb
        self.heights = make_heights(scenes.SIZE, voids=self.nodata is not None)
        self.source = Grid(GeoBox(self.heights.shape, scenes.TRANSFORM, scenes.CRS))
        self.target = Grid(target_geobox(scenes.SIZE))

    def teardown(self, *_: Any) -> None:
        del self.heights

    def race(self, *_: Any) -> Race:
        """Time both."""
        found: dict[str, NDArray[np.float32]] = {}

        def ours() -> tuple[int, ...]:
            found["ours"] = self.ours()
            return found["ours"].shape

        def peer() -> tuple[int, ...]:
            found["peer"] = self.peer()
            return found["peer"].shape

        times = race(ours, peer)
        compare(found["ours"], found["peer"])
        return times

    def track_ratio(self, *_: Any) -> float:
        """Return how many times as fast ours is; the target is 1."""
        return self.race().ratio

    track_ratio.unit = "x"

    def ours(self) -> NDArray[np.float32]:
        """Regrid in chunks."""
        data = da.from_array(self.heights, chunks=scenes.CHUNK, name=False)
        attrs = {} if self.nodata is None else {"_FillValue": self.nodata}
        raster = xr.DataArray(data, dims=("y", "x"), coords=self.source.coords(), attrs=attrs)
        with dask.config.set(scheduler="threads", num_workers=THREADS):
            return ls.regrid(raster, self.target, chunks=scenes.CHUNK).to_numpy()

    def peer(self) -> NDArray[np.float32]:
        """Reproject the whole array, in GDAL's threads; NaN where nothing is seen, as in ours."""
        result = np.empty(self.target.shape, np.float32)
        told: dict[str, Any] = {"src_nodata": self.nodata, "dst_nodata": np.nan}  # GDAL writes the NaN
        if self.nodata is None:
            result[:], told = np.nan, {}
        reproject(
            self.heights,
            result,
            src_transform=self.source.transform,
            src_crs=scenes.CRS,
            dst_transform=self.target.transform,
            dst_crs=TARGET_CRS,
            resampling=Resampling.bilinear,
            num_threads=THREADS,
            warp_mem_limit=self.memory_mb,
            init_dest_nodata=self.nodata is not None,
            **told,
        )
        return result


def make_heights(size: int, *, voids: bool) -> NDArray[np.float32]:
    """Make an ice surface: float32 ``(size, size)`` m, slopes of a few percent; voids where the scenes have lakes."""
    heights = np.empty((size, size), np.float32)
    cols = np.arange(size, dtype=np.float32)
    for row in range(0, size, _STRIP_ROWS):
        rows = np.arange(row, min(row + _STRIP_ROWS, size), dtype=np.float32)[:, None]
        strip = heights[row : row + _STRIP_ROWS]
        strip[:] = 1200 + 0.1 * cols + 0.05 * rows
        strip += 8 * np.sin(rows / 97) * np.cos(cols / 131)
        strip += 2 * np.sin((rows + 2 * cols) / 53)
        if voids:
            strip[scenes.draw_lakes(row, 0, *strip.shape) == scenes.WATER] = NODATA
    return heights


def target_geobox(size: int) -> GeoBox:
    """Lay a grid of the same size and pixel over the middle of the source."""
    middle = scenes.TRANSFORM @ (size / 2, size / 2)
    x, y = Transformer.from_crs(scenes.CRS, TARGET_CRS, always_xy=True).transform(*middle)
    left, top = (PIXEL_M * round(at / PIXEL_M) for at in (x - size / 2 * PIXEL_M, y + size / 2 * PIXEL_M))
    return GeoBox((size, size), Affine(PIXEL_M, 0, left, 0, -PIXEL_M, top), TARGET_CRS)


def compare(ours: NDArray[np.float32], peer: NDArray[np.float32]) -> None:
    """See that both did one task; GDAL's source coordinates are within 1/8 pixel, ours within 0.01.

    Raises
    ------
    RuntimeError
        When fewer than 99.9 % of the pixels agree on being seen, or those that both saw differ by 0.05 m or more.
    """
    seen = ~np.isnan(ours)
    alike = np.mean(seen == ~np.isnan(peer))
    both = seen & ~np.isnan(peer)
    close = np.mean(np.abs(ours[both] - peer[both]) < _TOLERANCE_M) if both.any() else 0
    if min(alike, close) < _LEAST_SHARE:
        raise RuntimeError(f"{alike:.2%} of the pixels agree on being seen, {close:.2%} of those on their height")
