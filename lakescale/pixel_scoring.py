"""A probability of lake against reference lakes, pixel by pixel, at every threshold; and areas that frames share."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr

from lakescale.areas import area_mask
from lakescale.chunks import on_dask
from lakescale.cluster import compute
from lakescale.grid import Grid
from lakescale.schema import InputError, X, Y
from lakescale.score_input import bring, fit, require_polygons
from lakescale.scoring import group_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

STEPS = 2**16
"""Thresholds are whole multiples of 1 / 65536: a pixel falls into a bin exactly, so that sums are exact."""

_NOT_SEEN = STEPS + 1
_BINS = STEPS + 2
_DEFAULT_THRESHOLDS = 256


@dataclass(frozen=True, eq=False, kw_only=True)
class PixelScore:
    """Counts of pixels and rates; at one threshold, and along all of them. A pixel is lake where it lies above."""

    threshold: float
    tp: int
    fp: int
    fn: int
    tn: int
    not_seen: int
    """Pixels without a probability; they are in no other count."""
    not_seen_lake: int
    """Those of them that the reference calls lake."""
    precision: float
    """TP / (TP + FP); like the other rates 0 where it would be 0/0."""
    recall: float
    f1: float
    iou: float
    """TP / (TP + FP + FN)."""
    average_precision: float
    """Precision at each of the 65536 thresholds, weighted with the recall that is gained there."""
    best_threshold: float
    """The one of all 65536 with the greatest F1, and the highest of these."""
    best_f1: float
    curve: pd.DataFrame = field(repr=False)
    """A row a threshold, ascending: ``threshold``, ``tp``, ``fp``, ``fn``, ``tn``, ``precision``, ``recall``, ``f1``,
    ``iou``."""

    def to_dict(self) -> dict[str, int | float]:
        """Give all but the curve, ready for JSON."""
        return {name: value for name, value in vars(self).items() if name != "curve"}

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {getattr(self, name):.3f}" for name in ("f1", "precision", "recall", "iou"))
        best = f"average precision {self.average_precision:.3f}, best f1 {self.best_f1:.3f} above"
        return f"pixels above {self.threshold:.3g}: {rates}; {best} {self.best_threshold:.3f}"


def score_pixels(
    probability: xr.DataArray,
    reference: gpd.GeoDataFrame | xr.DataArray,
    *,
    threshold: float = 0.5,
    thresholds: Sequence[float] | None = None,
    within: gpd.GeoDataFrame | None = None,
    client: Client | None = None,
    progress: bool = False,
) -> PixelScore:
    """Score the probability of lake of each pixel against reference lakes.

    A pixel is lake where its probability is above the threshold, and reference where its centre lies inside a polygon.
    Counts are int64 and do not depend on the chunks; memory is that of `count_pixels`.

    Parameters
    ----------
    probability
        ``(y, x)``: float 0..1, NaN where not seen; or a bool mask, of which every pixel was seen.
    reference
        Polygons in any CRS, or a bool mask on the grid of the probability.
    threshold
        Where the figures are taken.
    thresholds
        Of the curve; 0, 1/256, ... 255/256 by default. All are rounded to whole multiples of 1 / 65536.
    within
        Polygons outside of which no pixel counts, such as the Cup's regions; by default all count.
    client, progress
        As in `lakescale.cluster.compute`.

    Returns
    -------
    PixelScore
        Counts and rates at the threshold, the curve, the average precision, the best threshold.

    Raises
    ------
    InputError
        A raster with other dims or type, on another grid, or with numbers outside 0..1 (raised when computed);
        polygons that cannot be used, see `lakescale.score`; a threshold outside 0..1.
    """
    steps = _steps_of([threshold])[0]
    along = _steps_of(thresholds if thresholds is not None else np.arange(_DEFAULT_THRESHOLDS) / _DEFAULT_THRESHOLDS)
    lazy = count_pixels(probability, reference, within=within)
    counts = np.asarray(compute(lazy, client=client, progress=progress, description="pixels to counts")[0])
    return summarize_counts(counts, steps, along)


def count_pixels(
    probability: xr.DataArray, reference: gpd.GeoDataFrame | xr.DataArray, *, within: gpd.GeoDataFrame | None = None
) -> da.Array:
    """Count pixels by bin of their probability, apart for lakes of the reference and the rest.

    Lazy. A chunk makes 1 MB of counts, which are added up in a tree.

    Returns
    -------
    dask.array.Array
        int64 ``(2, 65538)``: not lake, lake; bin ``ceil(65536 p)`` of the probability p, and last the pixels not seen.
    """
    name = str(probability.name or "probability")
    if probability.dims != (Y, X) or probability.dtype.kind not in "fb":
        what = f"a probability has the dims ('y', 'x') and floats or bool, this has {probability.dims}"
        raise InputError(f"{what}, {probability.dtype}", name, "choose a band, or divide by its largest value")
    grid = Grid.of(probability)
    pixels = on_dask(probability)
    truth = _truth(reference, grid, pixels.chunks)
    masks = [] if within is None else [_drawn(within, grid, pixels.chunks, "score-within")]
    counts = da.map_blocks(
        partial(_count, item=name),
        *(pixels, truth, *masks),
        new_axis=[2, 3],
        chunks=((1,) * pixels.numblocks[0], (1,) * pixels.numblocks[1], (2,), (_BINS,)),
        dtype=np.int64,
        meta=np.empty((0,) * 4, np.int64),
        token="score-pixels",  # noqa: S106  (a name)
    )
    return counts.sum(axis=(0, 1), split_every=4)


def summarize_counts(counts: NDArray[np.int64], steps: int, along: NDArray[np.int64]) -> PixelScore:
    """Make figures of counts.

    Parameters
    ----------
    counts
        As of `count_pixels`.
    steps
        Threshold, in units of 1 / 65536.
    along
        Thresholds of the curve, likewise.
    """
    seen = counts[:, : STEPS + 1]
    above = seen[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]  # [:, k]: above k / 65536
    every = _rates(above, seen.sum(axis=1), np.arange(STEPS))
    gained = -np.diff(every["recall"].to_numpy(), append=0.0)
    best = STEPS - 1 - int(every["f1"].to_numpy()[::-1].argmax())
    at: dict[str, Any] = {str(name): every[name].iloc[steps].item() for name in every}
    return PixelScore(
        **at,
        not_seen=int(counts[:, _NOT_SEEN].sum()),
        not_seen_lake=int(counts[1, _NOT_SEEN]),
        average_precision=float((gained * every["precision"]).sum()),
        best_threshold=best / STEPS,
        best_f1=every["f1"].iloc[best].item(),
        curve=every.iloc[along].reset_index(drop=True),
    )


def score_areas(lakes: gpd.GeoDataFrame, reference: gpd.GeoDataFrame) -> pd.DataFrame:
    """Compare the areas that two frames of polygons cover, as if pixels were infinitely small.

    Parameters
    ----------
    lakes, reference
        Frames and groups as of `lakescale.score`; what overlaps within a frame counts once.

    Returns
    -------
    pandas.DataFrame
        A row a group as in `lakescale.scoring.Score.groups`, and a last one, ``all``: ``lakes_m2``, ``reference_m2``,
        ``shared_m2`` (areas of the unions, and of what both cover, in the CRS of the comparison), ``precision``,
        ``recall``, ``f1``, ``iou`` (0 where 0/0).

    Examples
    --------
    >>> reference = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 2, 2)], crs=3413)
    >>> lakes = gpd.GeoDataFrame(geometry=shapely.box([0, 1], 0, 3, [2, 1]), crs=3413)
    >>> score_areas(lakes, reference).iou.round(3).tolist()
    [0.667]
    """
    outlines = fit(lakes, reference)
    names, group, reference_group = group_rows(lakes, reference)
    own_rows, other_rows = (_split_rows(codes, len(names)) for codes in (group, reference_group))
    found = [
        _covered(outlines.lakes[own], outlines.reference[other])
        for own, other in zip(own_rows, other_rows, strict=True)
    ]
    areas = np.array(found).reshape(-1, 3)
    if names.nlevels > 1:
        areas, names = np.vstack([areas, areas.sum(axis=0)]), names.append(pd.MultiIndex.from_tuples([("all", "")]))
    own, other, shared = areas.T
    columns = {"lakes_m2": own, "reference_m2": other, "shared_m2": shared}
    return pd.DataFrame(columns | _divide(shared, own - shared, other - shared), index=names)


def _split_rows(group: NDArray[Any], count: int) -> list[NDArray[np.intp]]:
    """List the rows of each group."""
    order = np.argsort(group, kind="stable")
    return np.split(order, np.searchsorted(group[order], np.arange(1, count)))[:count]


def _covered(lakes: NDArray[Any], reference: NDArray[Any]) -> list[float]:
    """Areas of both unions, and of what they share."""
    own, other = _apart(lakes), _apart(reference)
    i, j = shapely.STRtree(other).query(own, predicate="intersects")
    parts = own, other, shapely.intersection(own[i], other[j])
    own_m2, other_m2, shared_m2 = (float(shapely.area(part).sum()) for part in parts)
    return [own_m2, other_m2, min(shared_m2, own_m2, other_m2)]  # rounded sums: no share is above 1


def _steps_of(thresholds: Any) -> NDArray[np.int64]:
    """Round thresholds to whole steps, the last of them below 1."""
    asked = np.atleast_1d(np.asarray(thresholds, float))
    if not asked.size or not ((asked >= 0) & (asked <= 1)).all():
        raise InputError(f"thresholds must lie in 0..1, got {asked.tolist()[:5]}", "thresholds", "for example 0.5")
    return np.unique(np.minimum(np.rint(asked * STEPS).astype(np.int64), STEPS - 1))


def _truth(reference: gpd.GeoDataFrame | xr.DataArray, grid: Grid, chunks: Any) -> da.Array:
    if not isinstance(reference, xr.DataArray):
        return _drawn(reference, grid, chunks, "score-reference")
    if reference.dims != (Y, X) or reference.dtype != bool or Grid.of(reference).geobox != grid.geobox:
        what = f"the reference must be a bool mask (y, x) on the grid of the probability, got {reference.dtype}"
        raise InputError(
            f"{what} {reference.shape}", "reference", "bring it there with lakescale.regrid, or draw polygons"
        )
    return da.asarray(reference.data).rechunk(chunks)


def _drawn(areas: gpd.GeoDataFrame, grid: Grid, chunks: Any, name: str) -> da.Array:
    """Draw polygons of any CRS: pixel centres inside."""
    what = name.removeprefix("score-")
    require_polygons(areas, what)
    if areas.crs is None and len(areas):
        raise InputError("the polygons have no CRS", what, f"set it, for example {what}.set_crs(3857)")
    outlines, _, notes = bring(areas, grid.crs, what)
    for note in notes:
        _LOG.warning("%s", note)
    return area_mask(gpd.GeoDataFrame(geometry=outlines, crs=grid.crs), grid, chunks=chunks, name=name).data


def _count(
    probability: NDArray[Any], truth: NDArray[np.bool_], within: NDArray[np.bool_] | None = None, *, item: str
) -> NDArray[np.int64]:
    """Count the pixels of one block."""
    pixels, is_lake = (probability, truth) if within is None else (probability[within], truth[within])
    seen = ~np.isnan(pixels) if pixels.dtype.kind == "f" else np.ones(pixels.shape, bool)
    values = pixels[seen]
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        what = f"a probability must lie in 0..1, found {values.min():g} to {values.max():g}"
        raise InputError(what, item, "divide it by its largest value")
    bins = np.full(pixels.shape, _NOT_SEEN, np.int64)
    bins[seen] = np.ceil(values * np.float32(STEPS))  # a power of two: nothing is rounded
    bins += is_lake * np.int64(_BINS)
    return np.bincount(bins.ravel(), minlength=2 * _BINS).reshape(1, 1, 2, _BINS)


def _rates(above: NDArray[np.int64], seen: NDArray[np.int64], steps: NDArray[np.int64]) -> pd.DataFrame:
    """Lay out counts and rates for each threshold."""
    fp, tp = above
    counts = {"tp": tp, "fp": fp, "fn": seen[1] - tp, "tn": seen[0] - fp}
    return pd.DataFrame({"threshold": steps / STEPS, **counts, **_divide(tp, fp, counts["fn"])})


def _divide(tp: NDArray[Any], fp: NDArray[Any], fn: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    wholes = {
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "f1": (2 * tp, 2 * tp + fp + fn),
        "iou": (tp, tp + fp + fn),
    }
    return {name: part / np.where(whole > 0, whole, 1) for name, (part, whole) in wholes.items()}


def _apart(shapes: NDArray[Any]) -> NDArray[Any]:
    """Unite what overlaps; the rest stays as it is (uniting everything takes far longer)."""
    i, j = shapely.STRtree(shapes).query(shapes, predicate="intersects")
    meets = np.zeros(len(shapes), bool)
    meets[i[i != j]] = True
    return np.concatenate([shapes[~meets], shapely.get_parts(shapely.union_all(shapes[meets]))])
