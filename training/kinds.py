"""Kinds of windows: positive, negative, hard negative, or left out, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely

from lakescale.schema import InputError
from training.pictures import thin_alike

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from training.annotations import Marks

POSITIVE, NEGATIVE, HARD, LEFT_OUT = "positive", "negative", "hard", "left out"
NOT_SEEN, IGNORED, NO_REGION = "not seen", "ignored", "in no region"
BAD_ANNOTATION, NEAR_DUPLICATE = "bad annotation", "near-duplicate"
"""Reasons to leave a window out."""
COLORFUL, LISTED, MINED = "colorful", "listed", "mined"
"""Reasons to call a negative hard."""


@dataclass(frozen=True)
class SampleRules:
    """Which windows there are, and what makes them what they are."""

    window: int = 1024
    stride: int = 512
    least_seen_share: float = 0.01
    """Of a window's pixels within the image, that must be seen, and seen outside what is ignored."""
    least_vertices: int = 5
    """Corners of an outline; those with fewer are bad annotations, and windows that they meet are left out."""
    colorful: float = 3.7
    """Negatives above this colorfulness are hard: the seed's number, for the 8-bit mosaics of the Cup."""
    thin: float | None = 2.0
    """Negatives whose thumbnail differs by less, on the mean, from that of one kept before it that overlaps it are
    left out: levels of 255 over 8 x 8 parts and all colors, 0 where not seen. None keeps all."""


def sort_kinds(
    windows: pd.DataFrame,
    thumbnails: NDArray[np.float64],
    marks: Marks,
    rules: SampleRules,
    listed: NDArray[np.int64],
    item: str,
) -> pd.DataFrame:
    """Give each window of an image its region, kind and reason.

    The first that applies: not seen, ignored, in no region, bad annotation; positive; listed, colorful; near-duplicate;
    negative.

    Parameters
    ----------
    windows, thumbnails
        As `training.counting.Counted.finish` makes them.
    marks
        The image's annotations.
    rules
        The thresholds.
    listed
        Row and column of hard negatives, ``(n, 2)``.
    item
        The image, for messages.
    """
    table = windows.copy()
    bad = _Bad(marks, rules.least_vertices)
    table.insert(3, "region_num", _regions(table, marks))
    enough = rules.least_seen_share * table["inside_px"]
    is_listed = _find_listed(table, listed, item)
    choices = [
        (table["seen_px"] < enough, LEFT_OUT, NOT_SEEN),
        (table["seen_px"] - table["ignored_px"] < enough, LEFT_OUT, IGNORED),
        (table["region_num"] < 0, LEFT_OUT, NO_REGION),
        (bad.meets(table), LEFT_OUT, BAD_ANNOTATION),
        (table["lake_px"] > 0, POSITIVE, ""),
        (is_listed, HARD, LISTED),
        (table["colorfulness"] > rules.colorful, HARD, COLORFUL),
    ]
    conditions = [np.asarray(condition, bool) for condition, _, _ in choices]
    table["kind"] = np.select(conditions, [kind for _, kind, _ in choices], NEGATIVE)
    table["reason"] = np.select(conditions, [reason for _, _, reason in choices], "")
    if rules.thin is not None:
        plain = np.flatnonzero(table["kind"] == NEGATIVE)
        corners = table[["row", "col"]].to_numpy()[plain]
        kept = thin_alike(corners, thumbnails[plain], window=rules.window, least_difference=rules.thin)
        table.loc[plain[~kept], ["kind", "reason"]] = LEFT_OUT, NEAR_DUPLICATE
    return table


class _Bad:
    """Outlines with too few corners to be a lake's shore."""

    def __init__(self, marks: Marks, least_vertices: int) -> None:
        shapes = marks.lakes.shapes[marks.vertices < least_vertices]
        self.outlines = type(marks.lakes)(shapes)

    def meets(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        row, col, side = (table[name].to_numpy() for name in ("row", "col", "window"))
        return self.outlines.meets(shapely.box(col, row, col + side, row + side))


def _regions(table: pd.DataFrame, marks: Marks) -> NDArray[np.int64]:
    """Tell the region at the centre of each window."""
    if marks.regions is None or marks.region_nums is None:
        return np.zeros(len(table), np.int64)
    half_y, half_x = (np.minimum(table["window"].to_numpy(), size) / 2 for size in marks.shape)
    found = marks.regions.first_at(shapely.points(table["col"] + half_x, table["row"] + half_y))
    return np.where(found >= 0, marks.region_nums[found], -1)


def _find_listed(table: pd.DataFrame, listed: NDArray[np.int64], item: str) -> NDArray[np.bool_]:
    number = {corner: k for k, corner in enumerate(zip(table["row"], table["col"], strict=True))}
    marked = np.zeros(len(table), bool)
    for row, col in listed.tolist():
        where, k = f"{item}, row {row}, col {col}", number.get((row, col))
        if k is None:
            raise InputError("there is no such window to be a hard negative", where, "give a window's first pixel")
        if table["lake_px"].iloc[k] > 0:
            raise InputError("a hard negative that holds a lake", where, "take it off the list")
        marked[k] = True
    return marked
