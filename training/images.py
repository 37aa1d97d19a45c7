"""Images to learn from: the dates of cubes, and scenes in files, each with the name that its annotations go by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakescale.cube import open_cube, read_dates
from lakescale.scene import open_scene
from lakescale.schema import BAND, TIME, InputError
from lakescale.store import is_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import xarray as xr

_CHUNK = 2048


@dataclass(frozen=True)
class Image:
    """One picture of the ground, on one grid, of one date."""

    name: str
    """What the column ``image`` of annotations calls it."""
    path: str
    """A cube, or a file or folder that `lakescale.open_scene` takes."""
    date: str = ""
    """Of a cube: which of its dates, ``2019-07-23``."""

    def open(self, *, bands: Sequence[str] | None = None, chunks: int | None = None) -> xr.DataArray:
        """Open it as a lazy ``(band, y, x)``, bands in the order wanted, in its own chunks unless others are given.

        Raises
        ------
        InputError
            When it cannot be opened, or has no such band.
        """
        if not self.date:
            scene = open_scene(self.path, chunks=chunks or _CHUNK)
            return scene if bands is None else _pick(scene, bands, self.name)
        cube = open_cube(self.path, bands=bands, chunks=chunks)
        days = cube[TIME].values.astype("datetime64[D]").astype(str).tolist()
        if self.date not in days:
            raise InputError(f"the cube has no {self.date}, only {', '.join(days)}", self.path, "choose one of these")
        return cube.isel({TIME: days.index(self.date)})


def list_images(sources: Iterable[str | Path | Image]) -> list[Image]:
    """List the images that sources hold: a cube has one for each date, ``STEM_DATE``; others go by their last name.

    Raises
    ------
    InputError
        When there is none, or two have one name.

    Examples
    --------
    >>> [image.name for image in list_images([Image("june", "cube.zarr", "2019-06-19"), "scenes/a.tif"])]
    ['june', 'a.tif']
    """
    if isinstance(sources, str | Path | Image):
        sources = [sources]
    images = [image for source in sources for image in _images_of(source)]
    if not images:
        raise InputError("no images", "", "give at least one cube or scene")
    names = [image.name for image in images]
    for image in images:
        if names.count(image.name) > 1:
            raise InputError("two images of one name", image.name, "name them yourself: Image(name, path, date)")
    return images


def _images_of(source: Any) -> list[Image]:
    if isinstance(source, Image):
        return [source]
    if not isinstance(source, str | Path):
        what = f"an image is a path, not {type(source).__name__}: workers open it by themselves"
        raise InputError(what, "sources", "write it with lakescale.write_cube first")
    path = Path(source)
    if is_store(path):
        return [Image(f"{path.stem}_{date}", str(source), date) for date in sorted(read_dates(path))]
    return [Image(path.name, str(source))]


def _pick(scene: xr.DataArray, bands: Sequence[str], name: str) -> xr.DataArray:
    there = [str(band) for band in scene[BAND].values]
    if lacking := [band for band in bands if band not in there]:
        what = f"the image has no {' and no '.join(lacking)}, only {', '.join(there)}"
        raise InputError(what, name, "choose among its bands")
    return scene.sel({BAND: list(bands)})
