"""Hard negatives by the mistakes of a trained model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lakescale.chunks import on_dask
from lakescale.cluster import compute
from lakescale.grid import Grid
from lakescale.schema import IMAGE, InputError, X, Y
from lakescale.store import same_grid
from training.annotations import IGNORED, LAKE
from training.cells import Layout, sum_windows
from training.images import Image
from training.kinds import HARD, LEFT_OUT, MINED, NEAR_DUPLICATE, NEGATIVE

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    import xarray as xr
    from distributed import Client
    from numpy.typing import NDArray

    from training.annotations import Annotations

_COLUMNS = ("judged_px", "wrong_px")


def mine_hard_negatives(
    index: pd.DataFrame,
    probability: Mapping[str, xr.DataArray],
    annotations: Annotations,
    *,
    threshold: float = 0.5,
    least_share: float = 0.01,
    client: Client | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Call negatives hard in which a model sees lakes; those left out as near-duplicates come back so, too.

    Parameters
    ----------
    index
        Of `training.samples.find_samples`, or some of its rows.
    probability
        By the image's name, what `lakescale.lake_probability` gives for it: float32 ``(y, x)``, 0..1, NaN where not
        seen. Images without one stay as they are.
    annotations
        Those of the index.
    threshold
        From which probability on a pixel is taken for a lake.
    least_share
        A negative is hard where the model is wrong on more than this share of its pixels, of those that have a
        probability and are not ignored.
    client, progress
        As in `lakescale.cluster.compute`.

    Returns
    -------
    pandas.DataFrame
        The index with columns ``judged_px`` and ``wrong_px`` (0 where an image has no probability; in windows with
        lakes, missed pixels are wrong, too), and new kinds and reasons.

    Raises
    ------
    InputError
        For a probability of an image that is not in the index, or on another grid; a threshold or share beyond 0..1.
    """
    for name, value in (("threshold", threshold), ("least_share", least_share)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} must lie in 0..1, got {value!r}", name)
    mined = index.assign(**dict.fromkeys(_COLUMNS, 0))
    if lost := sorted(set(probability) - set(index[IMAGE])):
        raise InputError("a probability of an image that is not in the index", lost[0], "find its samples first")
    for name, raster in probability.items():
        rows = mined.index[mined[IMAGE] == name]
        lazy, layout = _count_mistakes(mined.loc[rows], raster, annotations, threshold)
        (parts,) = compute(lazy, client=client, progress=progress, description=name)
        sums = parts.to_numpy().reshape(len(layout.corners), -1, len(_COLUMNS)).sum(axis=1)
        of_corner = dict(zip(map(tuple, layout.corners.tolist()), sums, strict=True))
        corners = mined.loc[rows, ["row", "col"]].to_numpy().tolist()
        mined.loc[rows, list(_COLUMNS)] = np.array([of_corner[row, col] for row, col in corners])
    negative = (mined["kind"] == NEGATIVE) | ((mined["kind"] == LEFT_OUT) & (mined["reason"] == NEAR_DUPLICATE))
    mined.loc[negative & (mined["wrong_px"] > least_share * mined["judged_px"]), ["kind", "reason"]] = HARD, MINED
    return mined


def _count_mistakes(
    windows: pd.DataFrame, probability: xr.DataArray, annotations: Annotations, threshold: float
) -> tuple[Any, Layout]:
    """Count, lazily, what was judged and what was wrong in the windows of one image."""
    name = str(windows[IMAGE].iloc[0])
    grid = Grid.of(Image(name, *windows[["path", "date"]].iloc[0]).open())
    if probability.dims != (Y, X) or not same_grid(Grid.of(probability), grid):
        what = f"the probability {dict(probability.sizes)} is not on the grid of its image, {grid.shape}"
        raise InputError(what, name, "make it from that image with lakescale.lake_probability")
    sides = windows["window"].unique()
    if len(sides) > 1:
        raise InputError(f"windows of {len(sides)} sizes in one image", name, "mine them one after the other")
    rows, cols = (tuple(np.unique(windows[along]).tolist()) for along in ("row", "col"))
    layout = Layout(grid.shape, int(sides[0]), (rows, cols))
    data = on_dask(probability)
    flags = annotations.of(name, grid).lazy_flags(data.chunks)
    planes = partial(_planes, threshold=threshold)
    return sum_windows(planes, data, flags, layout=layout, columns=_COLUMNS, name="mistakes"), layout


def _planes(probability: NDArray[np.float32], flags: NDArray[np.uint8], *, threshold: float) -> list[NDArray[np.bool_]]:
    judged = np.isfinite(probability) & (flags != IGNORED)
    with np.errstate(invalid="ignore"):
        wrong = judged & ((probability >= threshold) != (flags == LAKE))
    return [judged, wrong]
