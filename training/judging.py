"""A model judged by lakes: outlines of its probability on whole images against what is true there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from lakescale.chunks import Place
from lakescale.cluster import compute
from lakescale.evidence.model import lake_probability
from lakescale.grid import Grid
from lakescale.polygons import polygonize
from lakescale.regions import fill_holes
from lakescale.scene import seen_mask
from lakescale.schema import IMAGE, X, Y
from lakescale.scoring import score
from training.annotations import IGNORED, LAKE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import geopandas as gpd
    from distributed import Client
    from numpy.typing import NDArray

    from training.annotations import Annotations
    from training.images import Image


@dataclass(frozen=True)
class Judged:
    """One image, where it may be judged: what is seen, not ignored, and in a window of the side that judges."""

    name: str
    grid: Grid
    truth: NDArray[np.bool_]
    """Lakes ``(y, x)``."""
    judged: NDArray[np.bool_]
    """Where an answer counts ``(y, x)``."""

    @classmethod
    def of(cls, image: Image, annotations: Annotations, windows: pd.DataFrame, client: Client | None = None) -> Judged:
        """Read the truth of an image, and what of it the windows cover and was seen."""
        scene = image.open()
        grid = Grid.of(scene)
        flags = annotations.of(image.name, grid).flags(Place(0, 0, *grid.shape))
        (seen,) = compute(seen_mask(scene).transpose(Y, X), client=client)
        within = np.zeros(grid.shape, bool)
        for row, col, side in windows.loc[windows[IMAGE] == image.name, ["row", "col", "window"]].to_numpy().tolist():
            within[row : row + side, col : col + side] = True
        judged = within & np.asarray(seen, bool) & (flags != IGNORED)
        return cls(image.name, grid, (flags == LAKE) & judged, judged)

    def outline(self, mask: NDArray[np.bool_], min_area_m2: float) -> gpd.GeoDataFrame:
        """Outline what of a mask counts, holes filled."""
        whole = fill_holes(self.wrap(mask)).values & self.judged
        (frame,) = compute(polygonize(self.wrap(whole), min_area_m2=min_area_m2))
        return frame[["geometry"]]

    def wrap(self, values: NDArray[Any]) -> xr.DataArray:
        """Put values on the image's grid, lazily."""
        return xr.DataArray(da.from_array(values, chunks=-1), dims=(Y, X), coords=self.grid.coords())


def predict(image: Image, checkpoint: Path, *, window: int, client: Client | None = None) -> NDArray[np.float32]:
    """Probabilities of lake of a whole image, ``(y, x)``, windows half over each other."""
    lazy = lake_probability(image.open(), checkpoint, window=window, stride=max(1, window // 2))
    (found,) = compute(lazy, client=client, description=image.name)
    return np.asarray(found)


def score_masks(images: Iterable[Judged], masks: Mapping[str, NDArray[np.bool_]], min_area_m2: float) -> dict[str, Any]:
    """Score masks by lakes (strict rules) and by pixels.

    Returns
    -------
    dict
        ``f1``, ``precision``, ``recall``, ``tp``, ``fp``, ``fn`` of lakes; ``pixel_iou``.
    """
    tp, fp, fn, both, either = (0,) * 5
    for one in images:
        mask = masks[one.name] & one.judged
        result = score(one.outline(mask, min_area_m2), one.outline(one.truth, min_area_m2), rules="strict")
        tp, fp, fn = tp + result.tp, fp + result.fp, fn + result.fn
        both, either = both + int((mask & one.truth).sum()), either + int((mask | one.truth).sum())
    rates = {"f1": _share(2 * tp, 2 * tp + fp + fn), "precision": _share(tp, tp + fp), "recall": _share(tp, tp + fn)}
    return rates | {"tp": tp, "fp": fp, "fn": fn, "pixel_iou": _share(both, either)}


def choose_threshold(
    images: list[Judged],
    probability: Mapping[str, NDArray[np.float32]],
    candidates: Iterable[float],
    min_area_m2: float,
) -> tuple[float, pd.DataFrame]:
    """Choose the threshold with the best strict F1 of lakes; in a draw, that of the best pixels, then the lowest.

    Returns
    -------
    threshold, table
        The table has a row for each candidate: ``threshold`` and the figures of `score_masks`.
    """
    rows = []
    for threshold in sorted(candidates):
        masks = {name: above(raster, threshold) for name, raster in probability.items()}
        rows.append({"threshold": float(threshold)} | score_masks(images, masks, min_area_m2))
    best = max(rows, key=lambda row: (row["f1"], row["pixel_iou"], -row["threshold"]))
    return best["threshold"], pd.DataFrame(rows)


def _share(part: int, whole: int) -> float:
    return part / max(whole, 1)


def above(raster: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Tell where a probability is above a threshold; not where it is NaN."""
    with np.errstate(invalid="ignore"):
        return raster > np.float32(threshold)
