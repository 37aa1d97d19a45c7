"""Images whose bands lie on several grids, as Sentinel-2's do: the finest makes the scene, the others go beside it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from lakescale.grid import Grid
from lakescale.scene.bands import name_bands
from lakescale.scene.files import open_headers
from lakescale.scene.names import SCL, band_of, parse_day
from lakescale.scene.on_grid import bring_to_grid
from lakescale.scene.opening import add_provenance, find_assets, find_day, open_files
from lakescale.schema import BAND, BLUE, RED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

    from lakescale.scene.files import File

TELL_CLOUD = ("swir1", "cirrus", SCL)
"""Bands that tell cloud from ice."""
_IMAGE, _NUMBERS, _PICTURE, _SOME, _UNKNOWN = range(5)
"""What a group of files is to the scene, best first."""


class SceneParts(NamedTuple):
    """A scene, and what lies beside it on other grids."""

    scene: xr.DataArray
    """``(band, y, x)``, as `lakescale.open_scene` gives it: the bands of the finest grid."""
    beside: tuple[xr.DataArray, ...]
    """Bands that the scene has not, ``(band, y, x)`` each, brought to its grid."""


def open_parts(
    source: Any,
    *,
    bands: Sequence[str] | None = None,
    date: Any = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | str | None = None,
    chunks: int = 2048,
    beside: Sequence[str] = TELL_CLOUD,
) -> SceneParts:
    """Open an image of one date whose bands may lie on several grids.

    Where all bands lie on one grid this is `lakescale.open_scene`. Else the finest grid with red and blue makes the
    scene, and the bands of ``beside`` that only other grids have are brought to it (classes by nearest, others
    bilinear). An image of several bands makes the scene by itself, but an 8-bit picture beside red and blue is left
    out, as are files without a known band; of a band on two grids the finer one is taken.

    Parameters
    ----------
    source, bands, date, scale, offset, nodata, chunks
        As in `lakescale.open_scene`; ``bands`` are those wanted of the scene.
    beside
        Bands wanted from other grids, where there are such.

    Raises
    ------
    InputError
        As `lakescale.open_scene` does, of any of its parts.
    """
    day = None if date is None else parse_day(date)
    files, unplaced = open_headers(find_assets(source), day, [*bands, *beside] if bands else None)
    day, day_source = find_day(files, day)
    (first, *others), left_out = group_files(files)
    numbers = {"scale": scale, "offset": offset, "nodata": nodata}
    wanted = bands if bands is None or not others else _present(first, bands)
    scene = open_files(first, day, bands=wanted, chunks=chunks, numbers=numbers)
    parts = [
        open_files(group, day, bands=chosen, chunks=chunks, numbers=numbers)
        for group, chosen in _choose_beside([first, *others], beside, {str(name) for name in scene[BAND].values})
    ]
    placed = tuple(bring_to_grid(part, Grid.of(scene), chunks=scene.data.chunks[-2:]) for part in parts)
    return SceneParts(add_provenance(scene, day, date_source=day_source, skipped=unplaced + left_out), placed)


def group_files(files: list[File]) -> tuple[list[list[File]], list[str]]:
    """Group files by grid: what makes the scene first; and name those left out.

    The scene comes of single bands with red and blue, of the finest grid that has both; an image of many bands goes
    before them unless it is an 8-bit picture of what the bands hold as numbers. Groups without a known band, such as
    a panchromatic one, are left out where there are others.
    """

    def kind(file: File) -> tuple[Any, ...]:
        return len(file.indexes) == 1, file.crs.to_wkt(), file.transform[:6], file.shape

    if sum(len(file.indexes) > 1 for file in files) > 1:
        return [files], []  # of two images `open_files` tells what is wrong
    groups = [list(group) for _, group in groupby(sorted(files, key=kind), key=kind)]
    groups.sort(key=lambda group: (_rank(group), _pixel_area(group[0])))
    used = [group for group in groups if _rank(group) < _UNKNOWN] or groups
    if _rank(used[0]) == _NUMBERS:
        used = [group for group in used if len(group[0].indexes) == 1]
    return used, [file.name for group in groups if group not in used for file in group]


def _rank(group: list[File]) -> int:
    told = {band for file in group for band in _told_bands(file)}
    if len(group[0].indexes) > 1:
        return _PICTURE if set(group[0].dtypes) == {"uint8"} else _IMAGE
    if {RED, BLUE} <= told:
        return _NUMBERS
    return _SOME if any(told) else _UNKNOWN


def _pixel_area(file: File) -> float:
    a, b, _, d, e, _ = file.transform[:6]
    return float(abs(a * e - b * d))


def _present(group: list[File], bands: Sequence[str] | None) -> list[str] | None:
    """Leave out bands that other groups may have; all of them stay where the files do not say what they hold."""
    named, _ = name_bands(group, bands)
    there = {band for file in named for band in file.bands}
    return [band for band in bands or () if band in there] or None


def _choose_beside(
    groups: list[list[File]], wanted: Sequence[str], have: set[str]
) -> Iterator[tuple[list[File], list[str]]]:
    """Choose the bands to take from each group; classes apart from numbers, which are resampled otherwise."""
    for group in groups:
        known = {band for file in group for band in _told_bands(file)}
        new = [band for band in wanted if band in known - have]
        for chosen in ([band for band in new if band == SCL], [band for band in new if band != SCL]):
            if chosen:
                yield group, chosen
        have = have | set(new)


def _told_bands(file: File) -> list[str | None]:
    """List the bands that STAC, the name or the descriptions of a file tell."""
    family = file.asset.product.family
    names = [file.name] if len(file.indexes) == 1 else []
    return [*file.asset.bands, *(band_of(text, family) for text in (*names, *file.descriptions))]
