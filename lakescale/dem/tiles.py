"""Which files hold elevation, and what their headers say."""

from __future__ import annotations

import logging
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from lakescale.scene.names import asset_of_path
from lakescale.scene.opening import find_assets
from lakescale.scene.pixels import DATASET_MASK
from lakescale.schema import InputError, LakescaleError
from lakescale.storage import has_magic, is_url, locate, open_raster, require_there, version_of
from lakescale.storage.remote import READ_ONLY

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from affine import Affine

    from lakescale.storage import Location

_LOG = logging.getLogger(__name__)

_IS_DEM = re.compile(r"_dem(_cog)?\.(tiff?|vrt)$", re.IGNORECASE)
_SUFFIXES = (".tif", ".tiff", ".vrt", ".img", ".jp2")
_HEADERS_AT_ONCE = 16
_LISTED = 3


@dataclass(frozen=True)
class Tile:
    """What a tile's header says, and where it lies."""

    path: str
    fingerprint: tuple[int, int | str]
    """Size and time of the file, or what its server says of it."""
    shape: tuple[int, int]
    crs: str
    """WKT; empty where the file has none."""
    transform: Affine
    block: tuple[int, int]
    """Height and width in which the file stores its pixels."""
    nodata: float | None
    scale: float
    offset: float
    mask: int | None
    """The band (from 1), or `DATASET_MASK`, that is 0 in voids."""
    bands: int
    """Without alpha."""
    day: dt.date | None

    @property
    def name(self) -> str:
        """Name of the file, without its folders."""
        return asset_of_path(self.path).name


def list_tiles(source: Any) -> tuple[list[str], list[str]]:
    """List the files that hold elevation, and the names of those that lie beside them and do not."""
    if isinstance(source, (list, tuple)):
        return list(dict.fromkeys(asset.path for asset in find_assets(source))), []
    if isinstance(source, (str, Path)):
        source = _inside(source)
    paths = list(dict.fromkeys(asset.path for asset in find_assets(source)))
    dems = [path for path in paths if _IS_DEM.search(path)]
    skipped = [asset_of_path(path).name for path in paths if path not in set(dems)] if dems else []
    if skipped:
        _LOG.info("open_dem: %d files beside the DEM are left out: %s", len(skipped), shortened(skipped))
    return dems or paths, skipped


def _inside(source: str | Path) -> str | Path:
    """Name the files of a folder, or those of its subfolders where it holds no raster itself; else the source."""
    folder = locate(source)
    is_file = folder.suffix.lower() in _SUFFIXES or str(source).startswith(("/vsi", *READ_ONLY))
    if is_file or (is_url(source) and has_magic(str(source))) or not folder.is_dir():
        return source
    inside: list[Location] = [*folder.iterdir()]
    own = any(one.suffix.lower() in _SUFFIXES for one in inside)
    return source if own or not any(one.is_dir() for one in inside) else str(folder / "**" / "*")


def read_headers(paths: Sequence[str]) -> list[Tile]:
    """Read the headers of many files, several at once."""
    with warnings.catch_warnings(), ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # told by an error that names the file
        tiles = list(pool.map(_read_header, paths))
    for tile in tiles:
        _refuse_unusable(tile)
    return tiles


def _read_header(path: str) -> Tile:
    try:
        with open_raster(path) as raster:
            return _tile(path, raster)
    except LakescaleError:
        raise
    except (RasterioError, OSError, ValueError) as error:
        failure = str(error)
    require_there(path)
    raise InputError(f"cannot be opened as a raster: {failure}", path, "copy it again from its source, or leave it out")


def _tile(path: str, raster: Any) -> Tile:
    alpha = raster.colorinterp.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in raster.colorinterp else None
    flags = raster.mask_flag_enums[0]
    masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    return Tile(
        path=path,
        fingerprint=version_of(path),
        shape=raster.shape,
        crs=raster.crs.to_wkt() if raster.crs else "",
        transform=raster.transform,
        block=raster.block_shapes[0],
        nodata=raster.nodata,
        scale=raster.scales[0],
        offset=raster.offsets[0],
        mask=alpha or (DATASET_MASK if masked else None),
        bands=raster.count - (alpha is not None),
        day=asset_of_path(path).day or _tagged_day(raster.tags()),
    )


def _tagged_day(tags: dict[str, str]) -> dt.date | None:
    """Day of the images that a DEM was made from, by its tags; when a file was written says nothing of it."""
    for key, value in tags.items():
        if re.search(r"acq\w*date", key, re.IGNORECASE):
            day = asset_of_path(value.replace("/", "-")).day
            if day is not None:
                return day
    return None


def _refuse_unusable(tile: Tile) -> None:
    if tile.bands != 1:
        mend = f"take the one with elevation: gdal_translate -b 1 {tile.name} one_band.tif"
        raise InputError(f"a DEM has one band, this file has {tile.bands}", tile.path, mend)
    if not tile.crs or tile.transform.is_identity:
        raise InputError(
            "a raster without a CRS or without a place on the map", tile.path,
            f"if you know them, write them into it: gdal_edit.py -a_srs EPSG:... -a_ullr ... {tile.path}",
        )  # fmt: skip
    if tile.transform.b or tile.transform.d:
        raise InputError("a rotated grid", tile.path, f"turn it north up: gdalwarp {tile.name} north_up.tif")


def shortened(names: Sequence[str]) -> str:
    """List the first names, and how many more there are."""
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
