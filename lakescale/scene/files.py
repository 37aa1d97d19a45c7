"""Raster files: what their headers say, and the one grid that files of a scene share."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from lakescale.grid import Grid
from lakescale.scene.names import ALPHA, baseline_of_tags
from lakescale.scene.pixels import DATASET_MASK
from lakescale.schema import InputError, LakescaleError
from lakescale.storage import open_raster, require_there

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator, Sequence

    from affine import Affine

    from lakescale.scene.names import Asset

_LOG = logging.getLogger(__name__)
_SAME_ORIGIN_PX = 1e-3


@dataclass(frozen=True)
class File:
    """What a raster's header says."""

    asset: Asset
    shape: tuple[int, int]
    dtypes: tuple[str, ...]
    crs: Any
    transform: Affine
    """From pixel to map coordinates."""
    descriptions: tuple[str, ...]
    colors: tuple[str, ...]
    """GDAL's color interpretation of each band."""
    scale_offsets: tuple[tuple[float, float], ...]
    nodata: float | None
    baseline: str
    """Sentinel-2 processing baseline, from the name or the tags; empty where unknown."""
    mask: int | None
    """The alpha band (from 1), `DATASET_MASK`, or None where every pixel with data counts."""
    bands: tuple[str, ...] = ()
    """Names of ``indexes``; empty as long as nobody has found them."""
    block: tuple[int, int] = (1, 1)
    """Height and width of the blocks it is stored in (tiles or strips), the largest of any band."""

    @property
    def path(self) -> str:
        """Path or URL."""
        return self.asset.path

    @property
    def name(self) -> str:
        """Name of the file, without its folders."""
        return self.asset.name

    @property
    def indexes(self) -> tuple[int, ...]:
        """Bands (from 1) without alpha."""
        return tuple(index for index in range(1, len(self.dtypes) + 1) if index != self.mask)

    @property
    def is_placed(self) -> bool:
        """Whether it says where on the map it lies."""
        return self.crs is not None and not self.transform.is_identity


def listed(files: Iterable[File]) -> str:
    """Names of files, each once."""
    return ", ".join(dict.fromkeys(file.name for file in files))


def open_headers(assets: list[Asset], day: dt.date | None, bands: Sequence[str] | None) -> tuple[list[File], list[str]]:
    """Open the files that can belong to the scene; beside them, the names of those without a place on the map."""
    files = [_open_header(asset) for asset in _leave_unopened(assets, day, set(bands or ()))]
    unplaced = [file.name for file in files if not file.is_placed]
    if len(unplaced) == len(files):
        raise InputError(
            "a raster without a CRS or without a place on the map", files[0].path,
            f"if you know them, write them into it: gdal_edit.py -a_srs EPSG:... -a_ullr ... {files[0].path}",
        )  # fmt: skip
    if unplaced:
        _LOG.warning("skipped, since they have no CRS: %s", ", ".join(unplaced))
    return [file for file in files if file.is_placed], unplaced


def one_grid(files: Sequence[File]) -> Grid:
    """Build the grid that all files share; raise `InputError` where they differ in it."""
    first = files[0]
    for other in files[1:]:
        for what, here, there in _grid_differences(first, other):
            raise InputError(
                f"files of different {what}: {here} and {there}", listed([first, other]),
                "choose bands of one grid with bands=[...], or bring the files to one grid with gdalwarp",
            )  # fmt: skip
    if first.transform.b or first.transform.d:
        raise InputError("a rotated grid", first.path, f"turn it north up: gdalwarp {first.name} north_up.tif")
    return Grid(GeoBox(first.shape, first.transform, first.crs.to_wkt()))


def largest_block(blocks: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Find the height of the highest and the width of the widest block."""
    heights, widths = zip(*blocks, strict=True)
    return max(heights), max(widths)


def _leave_unopened(assets: list[Asset], day: dt.date | None, bands: set[str]) -> list[Asset]:
    """Leave out assets of other dates and, of STAC items, other bands: opening may be a request to a server."""
    if day is not None:
        assets = [asset for asset in assets if asset.day == day] or assets
    if bands and all(len(asset.bands) == 1 for asset in assets):
        assets = [asset for asset in assets if asset.bands[0] in bands] or assets
    return assets


def _open_header(asset: Asset) -> File:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # told by an error that names the file
            with open_raster(asset.path) as raster:
                return _read_header(asset, raster)
    except LakescaleError:
        raise
    except (RasterioError, OSError, ValueError) as error:
        failure = str(error)
    require_there(asset.path)
    mend = "copy it again from its source, or leave it out"
    raise InputError(f"cannot be opened as a raster: {failure}", asset.path, mend)


def _read_header(asset: Asset, raster: Any) -> File:
    return File(
        asset=asset,
        shape=raster.shape,
        dtypes=raster.dtypes,
        crs=raster.crs,
        transform=raster.transform,
        descriptions=tuple(text or "" for text in raster.descriptions),
        colors=tuple(color.name for color in raster.colorinterp),
        scale_offsets=tuple(zip(raster.scales, raster.offsets, strict=True)),
        nodata=asset.nodata if raster.nodata is None else raster.nodata,
        baseline=asset.product.baseline or baseline_of_tags(raster.tags()),
        mask=_mask_index(raster),
        block=largest_block(raster.block_shapes),
    )


def _mask_index(raster: Any) -> int | None:
    colors = [color.name for color in raster.colorinterp]
    if len(colors) > 1 and ALPHA in colors:
        return colors.index(ALPHA) + 1
    flags = raster.mask_flag_enums[0]
    return DATASET_MASK if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags else None


def _grid_differences(one: File, other: File) -> Iterator[tuple[str, str, str]]:
    """Tell what differs between two grids, and its two values."""
    a, b, c, d, e, f = one.transform[:6]
    a2, b2, c2, d2, e2, f2 = other.transform[:6]
    if one.crs != other.crs:
        yield "CRS", one.crs.to_string(), other.crs.to_string()
    if not np.allclose((a, b, d, e), (a2, b2, d2, e2), rtol=1e-9, atol=0):
        yield "resolution", f"{a:g} x {e:g}", f"{a2:g} x {e2:g}"
    if one.shape != other.shape:
        yield "shape", str(one.shape), str(other.shape)
    if max(abs(c - c2), abs(f - f2)) > abs(a) * _SAME_ORIGIN_PX:
        yield "origin", f"({c:.10g}, {f:.10g})", f"({c2:.10g}, {f2:.10g})"
