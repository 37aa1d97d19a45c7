"""`polygon_evidence` beside one call of `exactextract.exact_extract` over the whole raster in memory."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from odc.geo.geobox import GeoBox

from benchmarks import scenes
from benchmarks.races import TIMEOUT_S, Race, race
from benchmarks.regrid import NODATA, make_heights
from lakescale.evidence.zonal import polygon_evidence
from lakescale.grid import Grid
from lakescale.polygons import to_map

POLYGONS = max(50, round(20_000 * (scenes.SIZE / 8192) ** 2))
THREADS = 2
_RADIUS_PX, _PARETO, _VERTICES = 3.0, 2.0, 48
_TOLERANCE_M = 0.01


class Zonal:
    """Means, maxima and the share with data of elevations within polygons; 20,000 polygons at 8192 x 8192.

    ``rasters`` is how many rasters on one grid are asked at once, all of them with voids. Ours runs on dask's threaded
    scheduler with two threads, in chunks; building the graph is timed. The peer has one thread.
    """

    params = (1, 6)
    param_names = ("rasters",)
    timeout = TIMEOUT_S

    def setup(self, rasters: int) -> None:
        """Make the elevations and the polygons."""
        heights = make_heights(scenes.SIZE, voids=True)
        heights[heights == NODATA] = np.nan
        self.layers = {f"z{k}": heights + np.float32(k) for k in range(rasters)}
        self.grid = Grid(GeoBox(heights.shape, scenes.TRANSFORM, scenes.CRS))
        self.frame = make_polygons(scenes.SIZE, POLYGONS)

    def teardown(self, *_: Any) -> None:
        del self.layers, self.frame

    def race(self, *_: Any) -> Race:
        """Time both."""
        found: dict[str, Any] = {}

        def ours() -> int:
            found["ours"] = self.ours()
            return len(found["ours"])

        def peer() -> int:
            found["peer"] = self.peer()
            return len(found["peer"])

        times = race(ours, peer)
        for name in self.layers:
            prefix = f"{name}_" if len(self.layers) > 1 else ""
            compare(found["ours"], found["peer"], name, prefix)
        return times

    def track_ratio(self, *_: Any) -> float:
        """Return how many times as fast ours is; the target is 1."""
        return self.race().ratio

    track_ratio.unit = "x"

    def ours(self) -> gpd.GeoDataFrame:
        """Ask chunk by chunk."""
        rasters = {
            name: xr.DataArray(
                da.from_array(pixels, chunks=scenes.CHUNK, name=False), dims=("y", "x"), coords=self.grid.coords()
            )
            for name, pixels in self.layers.items()
        }
        with dask.config.set(scheduler="threads", num_workers=THREADS):
            return polygon_evidence(self.frame, rasters).compute()

    def peer(self) -> Any:
        """Ask for the whole rasters in one call."""
        bounds = self.grid.bounds_xyxy
        rasters = [NumPyRasterSource(pixels, *bounds, name=name) for name, pixels in self.layers.items()]
        return exact_extract(rasters, self.frame, ["mean", "max", "count"], output="pandas")


def make_polygons(size: int, count: int) -> gpd.GeoDataFrame:
    """Make ragged polygons of 3 pixels radius and more, with a Pareto tail, within a grid of ``size`` squared."""
    rng = np.random.default_rng(11)
    radius = np.minimum(_RADIUS_PX * (1 + rng.pareto(_PARETO, count)), size / 8)
    centre = rng.uniform(1.3 * radius[:, None], size - 1.3 * radius[:, None], (count, 2))
    angle = np.linspace(0, 2 * np.pi, _VERTICES, endpoint=False)
    reach = radius[:, None] * rng.uniform(0.7, 1.3, (count, _VERTICES))
    ring = centre[:, None] + reach[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    polygons = to_map(shapely.polygons(ring), scenes.TRANSFORM)
    return gpd.GeoDataFrame(geometry=gpd.GeoSeries(polygons, crs=scenes.CRS), crs=scenes.CRS)


def compare(ours: gpd.GeoDataFrame, peer: Any, name: str, prefix: str) -> None:
    """See that both did one task: ours counts coverage in 2**-16 pixel.

    Raises
    ------
    RuntimeError
        When a maximum differs, a mean by 0.01 m, or the part with data by a thousandth of the polygon.
    """
    mean, largest, count = (peer[f"{prefix}{statistic}"].to_numpy(float) for statistic in ("mean", "max", "count"))
    share = count * abs(scenes.TRANSFORM.determinant) / ours.area.to_numpy()
    is_same = {
        "mean": np.allclose(ours[f"{name}_mean"], mean, rtol=0, atol=_TOLERANCE_M, equal_nan=True),
        "max": np.array_equal(ours[f"{name}_max"], largest.astype(np.float32), equal_nan=True),
        "share": np.allclose(ours[f"{name}_data_share"], share, rtol=0, atol=1e-3),
    }
    if not all(is_same.values()):
        raise RuntimeError(f"ours and the peer's differ for {name}: {is_same}")
