"""Lakes against a reference: true and false positives by a named set of rules, with the reason for each lake."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dask
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from lakescale.schema import IMAGE, REASON, REGION_NUM, InputError
from lakescale.score_input import fit
from lakescale.shown import Sheet, Shown

if TYPE_CHECKING:
    import dask_geopandas
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)

VERDICT, TP, FP, IGNORED = "verdict", "tp", "fp", "ignored"
"""Column of the matches, and its values."""

FITS, CLASH, ALONE = "fits", "overlaps another submitted lake", "overlaps no reference"
MISFIT, SECOND = "area out of 50-160 %", "second fit on a matched lake"
"""Values of ``reason`` in the matches."""

RULES = {"strict": (True, FP), "seed": (False, IGNORED)}
"""Whether a lake that overlaps another one is a false positive; the verdict on a second fit."""

_SHOWN = 20
"""Groups of a score that are shown."""
_KEYS, _FIGURES = [IMAGE, REGION_NUM], ["tp", "fp", "fn", "precision", "recall", "f1"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Score(Shown):
    """Counts, rates, and what became of each lake."""

    rules: str
    tp: int
    fp: int
    fn: int
    precision: float
    """TP / (TP + FP); like the other rates 0 where it would be 0/0."""
    recall: float
    """TP / (TP + FN)."""
    f1: float
    """2 TP / (2 TP + FP + FN)."""
    groups: pd.DataFrame = field(repr=False)
    """The six figures per (``image``, ``region_num``), which are the index; or in one row, ``all``."""
    matches: gpd.GeoDataFrame = field(repr=False)
    """One row per submitted lake, with its index, in its order, outlined in the CRS of the comparison:

    - ``image``, ``region_num``, where the score goes by them;
    - ``reference``, index of the reference with which it shares the greatest area, NA where it shares none;
    - ``lake_m2``, ``reference_m2`` (NaN without a reference), ``shared_m2`` and ``iou`` (0 without), in that CRS;
    - ``verdict`` (``tp``, ``fp``, ``ignored``) and ``reason``: ``fits``, or the first rule that it broke.
    """
    missed: gpd.GeoDataFrame = field(repr=False)
    """The rows of the reference without a match, as they came."""
    mended: dict[str, int] = field(repr=False)
    """How many invalid polygons of ``lakes`` and of ``reference`` were made valid first."""
    notes: tuple[str, ...] = field(repr=False)
    """What was done to the polygons before they were compared, in words; logged too."""

    def to_dict(self) -> dict[str, str | int | float]:
        """Give the name of the rules and the six figures, ready for JSON."""
        return {name: getattr(self, name) for name in ("rules", *_FIGURES)}

    def sheet(self) -> Sheet:
        """Give a row for each group, the first 20 where there are more, and one for all."""
        some = self.groups.head(_SHOWN) if len(self.groups) > 1 else self.groups.head(0)
        rows = [(_name(key), *_spell(row)) for key, row in some[_FIGURES].iterrows()]
        if len(self.groups) > _SHOWN:
            rows.append((f"{len(self.groups) - _SHOWN} more", *[""] * len(_FIGURES)))
        rows.append(("all", *_spell(self.to_dict())))
        return Sheet(f"{self.rules} rules", ("", *_FIGURES), rows)

    def __str__(self) -> str:
        rates = f"f1 {self.f1:.3f}, precision {self.precision:.3f}, recall {self.recall:.3f}"
        return f"{self.rules} rules: {rates} ({self.tp} tp, {self.fp} fp, {self.fn} fn)"


def _name(key: Any) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _spell(figures: Any) -> list[str]:
    return [f"{figures[name]:.0f}" if name in _FIGURES[:3] else f"{figures[name]:.3f}" for name in _FIGURES]


def score(
    lakes: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame,
    reference: gpd.GeoDataFrame | dask_geopandas.GeoDataFrame,
    *,
    rules: str = "strict",
) -> Score:
    """Score lakes against reference lakes, as the 12th ACM SIGSPATIAL Cup (2023) did.

    A lake meets only what has its ``image`` and ``region_num`` where both frames have both columns, else all (logged
    where a frame has one of them). Overlap means a shared area above zero. By ``strict``,

    1. a lake that overlaps another submitted lake is a false positive;
    2. one that overlaps no reference is a false positive;
    3. any other is tied to the reference with which it shares the greatest area (in a draw the first in row order), and
       fits when its own area is 50 to 160 % of that reference's, both included. The first lake in row order that fits
       a reference is its match, a true positive; any other is a false positive;
    4. a reference without a match is a false negative.

    ``seed`` counts as the seed project does: rule 1 is left out, and a second lake that fits a matched reference is
    neither a true nor a false positive. A figure means little without the name of its rules.

    Parameters
    ----------
    lakes, reference
        Polygons or MultiPolygons; dask-geopandas frames are computed, and their row order is that of the result.
        Lakes in another CRS are brought to the reference's, vertex by vertex; all areas are areas in that CRS, or where
        it is in degrees, in EASE-Grid 2.0 (equal-area) of its hemisphere. Heights (Z) do not matter. Invalid polygons
        are made valid, and counted; one without any area overlaps nothing. Labels of an index may repeat.
    rules
        ``strict`` or ``seed``.

    Returns
    -------
    Score
        The six figures, in all and per group; what became of each lake; the references missed.

    Raises
    ------
    InputError
        No such rules; ``region_num`` text in one frame and numbers in the other; a frame without geometries, or with a
        missing or other one than polygons; a CRS missing in one frame, or neither in metres nor in degrees; vertices
        without a place in the CRS of the comparison, or polygons that it tears (the antimeridian in EPSG:3857).

    Examples
    --------
    >>> import geopandas as gpd, shapely
    >>> reference = gpd.GeoDataFrame(geometry=shapely.box([0, 20], 0, [9, 29], 9), crs=3413)
    >>> lakes = gpd.GeoDataFrame(geometry=shapely.box([0, 20], 0, [9, 29], [9, 4]), crs=3413)
    >>> result = score(lakes, reference)
    >>> print(result)
    strict rules: f1 0.500, precision 0.500, recall 0.500 (1 tp, 1 fp, 1 fn)
    >>> result.matches.reason.tolist()
    ['fits', 'area out of 50-160 %']
    """
    if rules not in RULES:
        raise InputError(f"there are no scoring rules {rules!r}", "rules", f"choose one of {', '.join(RULES)}")
    lakes, reference = dask.compute(lakes, reference)
    outlines, references, crs, mended, notes = fit(lakes, reference)
    names, group, reference_group = group_rows(lakes, reference)
    forbids_clashes, second_fit = RULES[rules]

    tie = _tie(outlines, references, group, reference_group)
    clash = _clash(outlines, group) if forbids_clashes else np.zeros(len(lakes), bool)
    verdict, reason = _judge(tie, clash, second_fit)
    missed = ~np.isin(np.arange(len(reference)), tie["row"][verdict == TP])
    counted = (group[verdict == TP], group[verdict == FP], reference_group[missed])
    tp, fp, fn = (np.bincount(rows, minlength=len(names)) for rows in counted)

    # convert_dtypes: row -1 becomes NA without turning whole numbers into floats
    labels = pd.Series(reference.index.to_numpy()).convert_dtypes().reindex(tie.pop("row")).array
    columns = lakes[_KEYS] if names.nlevels > 1 else lakes[[]]
    matches = pd.DataFrame(columns).assign(reference=labels, **tie, **{VERDICT: verdict, REASON: reason})
    return Score(
        rules=rules,
        **{name: value.item() for name, value in _figures(tp.sum(), fp.sum(), fn.sum()).items()},
        groups=pd.DataFrame(_figures(tp, fp, fn), index=names),
        matches=gpd.GeoDataFrame(matches, geometry=outlines, crs=crs),
        missed=reference[missed],
        mended=mended,
        notes=notes,
    )


def group_rows(
    lakes: gpd.GeoDataFrame, reference: gpd.GeoDataFrame
) -> tuple[pd.Index[Any], NDArray[Any], NDArray[Any]]:
    """Name the groups, and give each lake's and each reference's place among the names."""
    has = [[key for key in _KEYS if key in frame.columns] for frame in (lakes, reference)]
    if has != [_KEYS, _KEYS]:
        if any(has):
            _LOG.warning("scored as one group: of %s, lakes have %s and the reference %s", _KEYS, *has)
        return pd.Index(["all"]), np.zeros(len(lakes), np.intp), np.zeros(len(reference), np.intp)
    keys = [pd.DataFrame(frame[_KEYS]).astype(object) for frame in (lakes, reference)]
    kinds = {pd.api.types.is_numeric_dtype(k[REGION_NUM].infer_objects()) for k in keys if len(k)}
    if len(kinds) > 1:
        raise InputError("region_num is text in one frame and a number in the other", "region_num", "use astype(int)")
    both = pd.concat(keys, ignore_index=True)
    code = both.groupby(_KEYS, dropna=False).ngroup().to_numpy()
    _, first = np.unique(code, return_index=True)
    names = pd.MultiIndex.from_frame(both.iloc[first].infer_objects())
    return names, code[: len(lakes)], code[len(lakes) :]


def _pairs(own: NDArray[Any], other: NDArray[Any], group: NDArray[Any], other_group: NDArray[Any]) -> NDArray[np.intp]:
    """Pairs of rows ``(2, pair)`` of one group that touch or overlap."""
    rows, other_rows = (pd.Series(g).groupby(g).indices for g in (group, other_group))
    found = [np.empty((2, 0), np.intp)]
    for code in rows.keys() & other_rows.keys():
        a, b = rows[code], other_rows[code]
        i, j = shapely.STRtree(other[b]).query(own[a], predicate="intersects")
        found.append(np.stack([a[i], b[j]]))
    return np.concatenate(found, axis=1)


def _clash(lakes: NDArray[Any], group: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which lakes overlap another one."""
    pairs = _pairs(lakes, lakes, group, group)
    own, other = pairs[:, pairs[0] < pairs[1]]
    shared = shapely.area(shapely.intersection(lakes[own], lakes[other])) > 0
    return np.isin(np.arange(len(lakes)), [own[shared], other[shared]])


def _tie(
    lakes: NDArray[Any], reference: NDArray[Any], group: NDArray[Any], reference_group: NDArray[Any]
) -> dict[str, Any]:
    """Tie each lake to the row with which it shares the greatest area, -1 where it shares none; with their areas."""
    own, other = _pairs(lakes, reference, group, reference_group)
    shared = shapely.area(shapely.intersection(lakes[own], reference[other]))
    best = np.lexsort((other, -shared, own))
    best = best[shared[best] > 0]
    tied, first = np.unique(own[best], return_index=True)
    row, shared_m2, reference_m2 = np.full(len(lakes), -1), np.zeros(len(lakes)), np.full(len(lakes), np.nan)
    row[tied], shared_m2[tied] = other[best][first], shared[best][first]
    reference_m2[tied] = shapely.area(reference[row[tied]])
    lake_m2 = shapely.area(lakes)
    iou = np.nan_to_num(shared_m2 / (lake_m2 + reference_m2 - shared_m2))
    return {"row": row, "lake_m2": lake_m2, "reference_m2": reference_m2, "shared_m2": shared_m2, "iou": iou}


def _judge(tie: dict[str, Any], clash: NDArray[np.bool_], second_fit: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give each lake's verdict and reason."""
    # times 5 and 8, since 1.6 is no binary number: 160 % is within
    fits = ~clash & (2 * tie["lake_m2"] >= tie["reference_m2"]) & (5 * tie["lake_m2"] <= 8 * tie["reference_m2"])
    second = pd.Series(tie["row"]).where(fits).duplicated().to_numpy() & fits
    verdict = np.select([second, fits], [second_fit, TP], FP)
    reason = np.select([clash, tie["row"] < 0, ~fits, second], [CLASH, ALONE, MISFIT, SECOND], FITS)
    return verdict.astype(object), reason.astype(object)


def _figures(tp: Any, fp: Any, fn: Any) -> dict[str, Any]:
    """Give the six figures of counts, numbers or arrays."""
    parts, wholes = np.array([tp, tp, 2 * tp]), np.array([tp + fp, tp + fn, 2 * tp + fp + fn])
    return dict(zip(_FIGURES, [tp, fp, fn, *(parts / np.maximum(wholes, 1))], strict=True))
