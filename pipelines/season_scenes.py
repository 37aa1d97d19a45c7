"""The scenes of a season: which files are one scene, which scenes one date; a date's scenes as one on the grid."""

from __future__ import annotations

import filecmp
import logging
import re
from calendar import monthrange
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lakescale.grid import Grid
from lakescale.scene import bring_to_grid, seen_mask
from lakescale.scene.names import band_of
from lakescale.scene.on_grid import overlap
from lakescale.scene.opening import find_assets
from lakescale.schema import BAND, SEEN, InputError, LakescaleError
from lakescale.storage import version_of
from pipelines.season_stac import digest_of_item, find_items
from pipelines.sources import hide_cloud, open_date

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import xarray as xr

    from lakescale.scene.names import Asset
    from pipelines.season_recipe import SeasonRecipe

_LOG = logging.getLogger(f"lakescale.{__name__}")

_ITEMS = (".json", ".geojson")
_BAND_PART = re.compile(
    r"(?<![A-Za-z0-9])(B\d{1,2}A?|SCL|coastal|blue|green|red(edge\d*)?|nir\d*|cirrus|swir\d*)(?![A-Za-z0-9])"
    r"|_\d+m(?=[._]|$)",
    re.IGNORECASE,
)
"""What tells the bands of one image apart: band, and resolution."""
_RESOLUTION_FOLDER = re.compile(r"/R\d+m$")
"""Of Sentinel-2's products."""


@dataclass(frozen=True)
class SeasonScene:
    """One scene of a season: an image of one date, of one file or of one for each band."""

    day: str
    files: tuple[str, ...]
    """Paths or URLs; or one STAC item."""
    assets: tuple[str, ...] = ()
    """Paths or URLs of the files that a STAC item names."""
    last_day: str = ""
    """Of a mosaic of several days."""

    @property
    def name(self) -> str:
        """Name of its first file."""
        return Path(self.files[0]).name

    @property
    def state(self) -> list[tuple[Any, ...]]:
        """Tell whether it is still the same: files by path, size and time, or what a server says; items by words."""
        if not _is_item(self.files[0]):
            return [(file, *_version(file)) for file in self.files]
        told = self.name, digest_of_item(Path(self.files[0]))
        return [told, *((asset, *_version(asset)) for asset in self.assets if "://" not in asset)]

    @property
    def is_remote(self) -> bool:
        """Whether it is read over a network."""
        return any("://" in file or file.startswith("/vsi") for file in (*self.files, *self.assets))

    def is_meant_by(self, item: str) -> bool:
        """Tell whether an error's item names one of its files."""
        return any(Path(file).name in item for file in (*self.files, *self.assets))


def list_scenes(recipe: SeasonRecipe) -> dict[str, list[SeasonScene]]:
    """List the scenes of a season by date, in the order of time.

    Bands of one image in files of their own are one scene; every other file is one, and so is a STAC item.

    Raises
    ------
    InputError
        Where a scene has no date, is given twice, or there are none.
    """
    groups: dict[tuple[tuple[str, str], str], list[str]] = defaultdict(list)
    named: dict[str, tuple[str, ...]] = {}
    found = [] if recipe.scene.stac is None else find_items(recipe.scene.stac, recipe.aoi)
    for source in (*recipe.scene.source, *found):
        assets = find_assets(source)
        if _is_item(source):
            groups[_days_of(assets[0], recipe), source].append(source)
            named[source] = tuple(asset.path for asset in assets)
            continue
        for asset in assets:
            groups[_days_of(asset, recipe), _image_of(asset)].append(asset.path)
    _refuse_twice((days[0], file) for (days, _), files in groups.items() for file in files)
    _refuse_strange(recipe, {days[0] for days, _ in groups}, [file for files in groups.values() for file in files])
    by_day: dict[str, list[SeasonScene]] = defaultdict(list)
    for ((day, last), _), files in groups.items():
        by_day[day].append(SeasonScene(day, tuple(sorted(files)), named.get(files[0], ()), last))
    listed = list(by_day)
    if listed != sorted(listed):
        _LOG.info("dates are put in order: %s", ", ".join(sorted(listed)))
    return {day: sorted(by_day[day], key=lambda scene: scene.files) for day in sorted(by_day)}


def open_one(scene: SeasonScene, recipe: SeasonRecipe) -> tuple[xr.DataArray, tuple[xr.DataArray, ...], list[str]]:
    """Open a scene on its own grid, what lies beside it, and say what was read."""
    return open_date(recipe.scene.of_files(scene.files, scene.day))


class Placed(NamedTuple):
    """A scene on the season's grid (lazy)."""

    scene: xr.DataArray
    notes: list[str]
    clouded: xr.DataArray | None
    """Share of it that cloud hides; None where cloud was not assessed."""


def place_one(scene: SeasonScene, recipe: SeasonRecipe, grid: Grid) -> Placed:
    """Open a scene, hide its cloud, and bring it to the season's grid (lazy).

    Raises
    ------
    InputError
        When it cannot be opened, or does not meet the grid: with both extents.
    """
    opened, beside, notes = open_one(scene, recipe)
    own = Grid.of(opened)
    if not overlap(own, grid):
        there, here = (_extent(one) for one in (own, grid))
        what = f"the scene misses the season's grid: it covers {there}, the grid {here}"
        raise InputError(what, scene.name, "leave it out, or give it a season of its own")
    rule = recipe.cloud_of(scene.day, scene.files)
    clear, cloud = hide_cloud(opened, beside, rule, margin_m=recipe.cloud_margin_m)
    clouded = None if clear is opened else 1 - seen_mask(clear).sum() / seen_mask(opened).sum()
    placed = bring_to_grid(clear, grid, chunks=recipe.scene.chunks)
    if "resampling" in placed.attrs:
        notes.append(f"scene: brought to the season's grid by {placed.attrs['resampling']}")
    return Placed(placed, [*notes, cloud], clouded)


def mosaic(scenes: Sequence[xr.DataArray]) -> xr.DataArray:
    """Join scenes on one grid: of each pixel the first that saw it (lazy).

    Parameters
    ----------
    scenes
        ``(band, y, x)``, of one type, at least one. Bands that one of them lacks are left out.

    Returns
    -------
    xr.DataArray
        ``(band, y, x)`` with the attributes of the first, and a coordinate ``seen``.

    Raises
    ------
    InputError
        When types differ, or no band is in all of them.
    """
    first, *others = scenes
    if not others:
        return first
    names = ", ".join(str(scene.attrs.get("source", "scene")) for scene in scenes)
    bands = [name for name in first[BAND].values if all(name in scene[BAND].values for scene in others)]
    for scene in others:
        if scene.dtype != first.dtype:
            what = f"a scene of type {scene.dtype} beside one of {first.dtype}"
            mend = "keep 8-bit RGB and reflectance in seasons of their own"
            raise InputError(what, str(scene.attrs.get("source", names)), mend)
    if not bands:
        raise InputError("scenes of one date have no band in common", names, "choose among them with bands")
    joined, seen = _plain(first, bands), seen_mask(first)
    for scene in others:
        also = seen_mask(scene)
        joined = joined.where(seen | ~also, _plain(scene, bands))
        seen = seen | also
    seen.attrs = {}
    return joined.assign_coords({SEEN: seen}).assign_attrs(first.attrs | {"source": names})


def _plain(scene: xr.DataArray, bands: list[Any]) -> xr.DataArray:
    return scene.drop_vars(SEEN, errors="ignore").sel({BAND: bands})


def _days_of(asset: Asset, recipe: SeasonRecipe) -> tuple[str, str]:
    """Tell the first and last day of a file: by the recipe, by its name."""
    if told := recipe.date_of(asset.name):
        return told
    if asset.day is None:
        mend = f'name it in the recipe: dates: {{"{asset.name}": 2019-07-23}}'
        raise InputError("no date can be read from the name of a scene", asset.path, mend)
    first = asset.day.isoformat()
    span = re.search(rf"{first}_(\d\d)(?!\d)", asset.name)
    is_span = span is not None and int(first[-2:]) < int(span[1]) <= monthrange(asset.day.year, asset.day.month)[1]
    return first, f"{first[:-2]}{span[1]}" if span is not None and is_span else first


def _image_of(asset: Asset) -> str:
    """Name the image that a file belongs to: alike for the bands of one."""
    if band_of(asset.name, asset.product.family) is None:
        return asset.path
    folder = str(Path(asset.path).parent)
    return f"{_RESOLUTION_FOLDER.sub('', folder)}/{_BAND_PART.sub('', asset.name)}"


def _is_item(source: str) -> bool:
    return Path(source).suffix.lower() in _ITEMS


def _refuse_twice(files: Iterable[tuple[str, str]]) -> None:
    """Refuse a file that is listed twice, or that is a copy of another one under the same name."""
    by_name: dict[tuple[str, int], str] = {}
    for day, file in files:
        key = Path(file).name, Path(file).stat().st_size if Path(file).exists() else 0
        other = by_name.get(key)
        if other is not None and (other == file or (Path(file).exists() and filecmp.cmp(file, other, shallow=False))):
            item = file if other == file else f"{other}, {file}"
            raise InputError(f"the same scene of {day} is given twice", item, "give each scene once")
        by_name[key] = file


def _refuse_strange(recipe: SeasonRecipe, days: set[str], files: Iterable[str]) -> None:
    """Refuse rules on cloud for a date or a file that is none of the season's."""
    if strange := set(recipe.clouds) - days - {Path(file).name for file in files}:
        mend = f"dates are {', '.join(sorted(days))}; files go by their names"
        raise InputError(f"a rule on cloud for {min(strange)!r}, which is no scene", "recipe: clouds", mend)


def _version(file: str) -> tuple[int, int | str]:
    try:
        return version_of(file)
    except LakescaleError:  # it is told when the scene is opened
        return 0, 0


def _extent(grid: Grid) -> str:
    bounds = ", ".join(f"{value:.6g}" for value in grid.bounds_xyxy)
    return f"{bounds} (x, y, x, y) of {grid.crs.to_string()[:40]}"
