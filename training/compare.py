"""A trained model beside color thresholds and the water index, on images that no training has looked at."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd

from lakescale.cluster import compute
from lakescale.evidence.color import color_mask, index_mask
from lakescale.models import describe_checkpoint
from lakescale.regions import fill_holes
from lakescale.rules import PolygonRules, close_gaps
from lakescale.schema import COLOR, GREEN, IMAGE, INDEX, InputError
from training.annotations import Annotations
from training.judging import Judged, above, predict, score_masks
from training.material import TEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from training.images import Image
    from training.material import Material
    from training.train_recipe import TrainRecipe

MODEL, ALL, LIDS = "model", "all lakes", "lakes with lids"
_MARGIN_M = 50.0
"""Round lakes that are left out; what is found there is left out, too."""
SMALL_M2 = 2000.0
"""The smallest ponds that are drawn on real scenes; all lakes are scored from this size, too."""
MAPPED_GAP_M = PolygonRules().gap_m
"""Gaps that maps close by default; all methods are scored with them closed, too."""


@dataclass(frozen=True)
class _Answers:
    """What each method finds on one image."""

    image: Image
    group: str
    masks: dict[str, NDArray[np.bool_]]


def compare(recipe: TrainRecipe, material: Material, sides: dict[str, pd.DataFrame], checkpoint: Path) -> pd.DataFrame:
    """Score a checkpoint, the color mask and the water index on the images of the test side.

    Parameters
    ----------
    recipe, material, sides
        Of the training, see `training.train.prepare`.
    checkpoint
        Is used with its own threshold and window.

    Returns
    -------
    pandas.DataFrame
        Rows by ``group`` (of synthetic images; ``drawn`` for the others), ``lakes`` (``all lakes``, ``lakes with
        lids``), ``min_area_m2`` (the recipe's; of all lakes also `SMALL_M2`), ``gap_m`` (0, and what maps close by
        default) and ``method`` (``model``, ``color`` where there is 8-bit RGB, ``index``), with ``picture`` (``uint8``,
        ``float32``), ``images`` and the figures of `training.judging.score_masks`. Masks have their holes filled.

    Raises
    ------
    InputError
        When the recipe has no test side.
    """
    rows = sides[TEST]
    names = set(rows[IMAGE])
    if not names:
        raise InputError("the recipe holds no images back", "split.test", "name some")
    groups = sorted((one.name for one in recipe.data.synthetic), key=len, reverse=True)
    answers = [_answer(image, checkpoint, groups) for image in material.images if image.name in names]
    least, table = recipe.threshold.min_area_m2, []
    asked = [(ALL, material.annotations, least), (ALL, material.annotations, SMALL_M2)]
    if any(_is_lidded(material.annotations.lakes[one.image.name]).any() for one in answers):
        asked.append((LIDS, _only_lids(material.annotations), least))
    for lakes, drawn, area in asked:
        judged = {one.image.name: Judged.of(one.image, drawn, rows) for one in answers}
        for (key, some), gap_m in product(_by_group(answers), (0.0, MAPPED_GAP_M)):
            told = {"group": key[0], "lakes": lakes, "min_area_m2": area, "gap_m": gap_m, "picture": key[1]}
            table += [
                told | {"method": method, "images": len(some)} | figures
                for method, figures in _score(some, judged, area, gap_m)
            ]
    return pd.DataFrame(table)


def _answer(image: Image, checkpoint: Path, groups: list[str]) -> _Answers:
    spec, scene = describe_checkpoint(checkpoint).spec, image.open()
    lazy = {INDEX: index_mask(scene)}
    if scene.dtype == np.uint8 and GREEN in scene["band"].values:
        lazy[COLOR] = color_mask(scene)
    (masks,) = compute({name: fill_holes(mask).data for name, mask in lazy.items()})
    found = above(predict(image, checkpoint, window=spec.window), spec.threshold)
    group = next((name for name in groups if image.name.startswith(f"{name}-")), "drawn")
    return _Answers(
        image, f"{group} {scene.dtype}", {MODEL: found} | {name: np.asarray(m) for name, m in masks.items()}
    )


def _by_group(answers: list[_Answers]) -> Iterator[tuple[tuple[str, str], list[_Answers]]]:
    for group in sorted({one.group for one in answers}):
        name, picture = group.rsplit(" ", 1)
        yield (name, picture), [one for one in answers if one.group == group]


def _score(
    answers: list[_Answers], judged: dict[str, Judged], min_area_m2: float, gap_m: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    for method in answers[0].masks:
        masks = {one.image.name: one.masks[method] for one in answers}
        closed = {name: close_gaps(judged[name].wrap(mask), gap_m).values for name, mask in masks.items()}
        yield method, score_masks([judged[name] for name in closed], closed, min_area_m2)


def _only_lids(annotations: Annotations) -> Annotations:
    """Take lakes with lids alone; the others, and a margin round them, are ignored."""
    lakes, ignore = dict(annotations.lakes), dict(annotations.ignore or {})
    for name, frame in lakes.items():
        lid = _is_lidded(frame)
        others = frame.loc[~lid, ["geometry"]]
        others = others.assign(geometry=others.buffer(_MARGIN_M).difference(frame[lid].union_all()))
        others = others[~others.is_empty]
        parts = [part[["geometry"]] for part in (others, ignore.get(name)) if part is not None and len(part)]
        lakes[name] = frame[lid]
        if parts:
            ignore[name] = gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs=frame.crs)
    return Annotations(lakes, ignore)


def _is_lidded(frame: gpd.GeoDataFrame) -> pd.Series[bool]:
    """Tell lakes with ice on part of them, as far as the frame says so."""
    kind, state = (frame.get(name, pd.Series("", frame.index)) for name in ("kind", "state"))
    return (kind == "lid") | (state == "partly lidded")
