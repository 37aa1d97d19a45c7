"""All that a recipe learns from: images, what was drawn of them, their windows, and who judges."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd

from lakescale.evidence.model import lake_probability
from lakescale.models import describe_checkpoint
from lakescale.schema import IMAGE, REGION_NUM, InputError
from training.annotations import Annotations
from training.folds import FOLD, assign_folds, require_disjoint, split_fold
from training.images import Image, list_images
from training.kinds import LEFT_OUT, POSITIVE, SampleRules
from training.labels import read_annotations
from training.made_up import list_made_up, split_labels
from training.mining import mine_hard_negatives
from training.samples import find_samples
from training.train_recipe import DRAWN

if TYPE_CHECKING:
    from distributed import Client

    from training.train_recipe import DataRecipe, MineRecipe, SplitRecipe

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_TILE = re.compile(r"(?:^|_T?)(\d{2}[C-X][A-Z]{2})(?=_)")
"""MGRS tile in the name of a Sentinel-2 scene."""


@dataclass(frozen=True)
class Material:
    """Images with their annotations."""

    images: list[Image]
    annotations: Annotations
    places: dict[str, str]
    """By the image's name, the ground that it shows."""

    def find_samples(self, recipe: DataRecipe, folder: Path, client: Client | None = None) -> pd.DataFrame:
        """Find the windows, see `training.samples.find_samples`; mine them where the recipe says so."""
        rules = SampleRules(**recipe.samples.model_dump())
        hard = None if recipe.hard is None else _read_table(recipe.hard)
        index = find_samples(self.images, self.annotations, folder, rules=rules, hard=hard, client=client)
        return index if recipe.mine is None else self._mine(index, recipe.mine, client)

    def _mine(self, index: pd.DataFrame, asked: MineRecipe, client: Client | None) -> pd.DataFrame:
        checkpoint = Path(os.path.expandvars(asked.model))
        spec = describe_checkpoint(checkpoint).spec
        stride = max(1, spec.window // 2)
        probability = {
            image.name: lake_probability(image.open(), checkpoint, window=spec.window, stride=stride)
            for image in self.images
        }
        mined = mine_hard_negatives(
            index,
            probability,
            self.annotations,
            threshold=spec.threshold,
            least_share=asked.least_share,
            client=client,
        )
        return mined[index.columns.tolist()]


def gather(recipe: DataRecipe, folder: Path, client: Client | None = None) -> Material:
    """Gather the images of a recipe; synthetic ones are written to the folder, as far as they are not there.

    Raises
    ------
    InputError
        When a source matches nothing, or annotations cannot be read, name no image or miss theirs.
    """
    images = list_images(_expand(recipe.sources)) if recipe.sources else []
    lakes, ignore, regions = _read_drawn(recipe, images)
    places = {image.name: place_of(image) for image in images}
    for land in list_made_up(recipe.synthetic):
        for image, labels in land.write(folder, client):
            images.append(image)
            lakes[image.name], ignore[image.name] = split_labels(labels)
            places[image.name] = land.place
    annotations = Annotations(lakes, ignore, regions)
    annotations.require_images(places)
    return Material(list_images(images), annotations, places)


def place_of(image: Image) -> str:
    """Name the ground of an image: the MGRS tile in its name, else its path, which all dates of a cube share."""
    found = _TILE.search(Path(image.path).name)
    return f"tile {found[1]}" if found else image.path


def split(index: pd.DataFrame, recipe: SplitRecipe, places: dict[str, str]) -> dict[str, pd.DataFrame]:
    """Split windows into those to learn from, those that choose, and those that are never looked at.

    Returns
    -------
    dict
        Rows of the index by ``train``, ``validation`` and ``test``; windows left out are in none.

    Raises
    ------
    InputError
        When a pattern matches no image, a place or a pixel is on two sides, a fold cannot be dealt, or a side has no
        positives.
    """
    if recipe.validation:
        sides = _split_by_name(index, recipe, places)
    else:
        dealt = assign_folds(index, by=recipe.by, folds=recipe.folds, block_px=recipe.block_px)
        train, validation = split_fold(dealt, recipe.fold)
        sides = {TRAIN: train, VALIDATION: validation, TEST: dealt.iloc[:0]}
    for side in (TRAIN, VALIDATION):
        if not (sides[side]["kind"] == POSITIVE).any():
            what = f"no window with a lake among the {len(sides[side])} of {side}"
            raise InputError(what, "split", "choose other images or folds, or check the annotations")
    require_apart(sides)
    return sides


def require_apart(sides: dict[str, pd.DataFrame]) -> None:
    """Raise `InputError` where windows of two sides share a pixel of an image."""
    marked = [rows.assign(**{FOLD: k}) for k, rows in enumerate(sides.values())]
    require_disjoint(pd.concat(marked, ignore_index=True))


def _split_by_name(index: pd.DataFrame, recipe: SplitRecipe, places: dict[str, str]) -> dict[str, pd.DataFrame]:
    side_of: dict[str, str] = {}
    for side, patterns in ((VALIDATION, recipe.validation), (TEST, recipe.test)):
        for pattern in patterns:
            matched = [name for name in places if fnmatchcase(name, pattern)]
            if not matched:
                what, mend = f"no image is named like {pattern!r}", f"the images are {', '.join(list(places)[:5])}, ..."
                raise InputError(what, f"split.{side}", mend)
            side_of |= dict.fromkeys(matched, side)
    sides_at: dict[str, dict[str, str]] = {}
    for name, place in places.items():
        sides_at.setdefault(place, {})[side_of.get(name, TRAIN)] = name
    for place, there in sides_at.items():
        if len(there) > 1:
            told = ", ".join(f"{name} ({side})" for side, name in there.items())
            raise InputError(f"two sides look at one place: {told}", place, "put all its images on one side of split")
    used = index[index["kind"] != LEFT_OUT]
    sides = used[IMAGE].map({name: side_of.get(name, TRAIN) for name in places})
    return {side: used[sides == side] for side in (TRAIN, VALIDATION, TEST)}


def _expand(sources: tuple[str, ...]) -> list[Path]:
    paths = []
    for source in sources:
        pattern = os.path.expandvars(source)
        if "$" in pattern:
            raise InputError("a variable of the environment is not set", source, "set it, or write out the path")
        found = sorted(glob(pattern)) or ([pattern] if Path(pattern).exists() else [])  # noqa: PTH207  (any path)
        if not found:
            raise InputError("no scene or cube matches", pattern, "mend data.sources")
        paths += [Path(one) for one in found]
    return paths


def _read_drawn(recipe: DataRecipe, images: list[Image]) -> tuple[dict[str, Any], dict[str, Any], Any]:
    names = [image.name for image in images]
    regions = None if recipe.regions is None else _read_vector(recipe.regions)
    if regions is not None and REGION_NUM not in regions:
        raise InputError(f"no column {REGION_NUM!r}", str(recipe.regions), "number the regions")
    if recipe.lakes == DRAWN:
        drawn = read_annotations([image.path for image in images])
        return dict(drawn.lakes), dict(drawn.ignore or {}), regions
    files = (recipe.lakes, recipe.ignore)
    lakes, ignore = ({} if file is None else _by_image(_read_vector(file), names, file) for file in files)
    return lakes, ignore, regions


def _by_image(frame: gpd.GeoDataFrame, names: list[str], item: str) -> dict[str, Any]:
    if IMAGE not in frame:
        if len(names) == 1:
            return {names[0]: frame}
        mend = f"add a column {IMAGE!r}: {', '.join(names[:5])}"
        raise InputError(f"the polygons do not say which of {len(names)} images they are of", item, mend)
    return {str(name): rows for name, rows in frame.groupby(IMAGE)}


def _read_vector(path: str) -> gpd.GeoDataFrame:
    file, wrong = Path(os.path.expandvars(path)), ""
    try:
        return gpd.read_parquet(file) if file.suffix == ".parquet" else gpd.read_file(file)
    except Exception as error:  # noqa: BLE001  (GDAL and pyarrow raise what they like)
        wrong = str(error).partition("\n")[0]
    raise InputError(f"the polygons cannot be read: {wrong}", str(file), "give a vector file such as a GeoPackage")


def _read_table(path: str) -> pd.DataFrame:
    file, wrong = Path(os.path.expandvars(path)), ""
    try:
        return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except (OSError, ValueError) as error:
        wrong = str(error).partition("\n")[0]
    raise InputError(f"the list of windows cannot be read: {wrong}", str(file), "give a CSV or Parquet file")
