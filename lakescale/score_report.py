"""Picture of a score: where lakes are true, false and missed; and precision against recall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import shapely
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.path import Path as Outline

from lakescale.schema import IMAGE, REGION_NUM
from lakescale.scoring import FP, IGNORED, TP, VERDICT

if TYPE_CHECKING:
    from pathlib import Path

    import geopandas as gpd
    from numpy.typing import NDArray

    from lakescale.pixel_scoring import PixelScore
    from lakescale.scoring import Score

_MOST_MAPS = 12
_LAYOUTS = ((1, 1, 7.5), (2, 2, 6.0), (4, 2, 5.4), (_MOST_MAPS + 1, 4, 4.2))
"""Up to so many panels: columns, and the side of a panel in inches."""
_COLORS = {"true": "#009e73", "false": "#d55e00", "missed": "#0072b2", "ignored": "#8c8c8c"}
"""Of Okabe and Ito (2008): told apart by those who see no red or green."""
_MISSED = "missed"
_LABELS = {"true": "true positive", "false": "false positive", "missed": "missed reference", "ignored": "not counted"}
_KM = 1000
_EDGE_PT = 1.3
"""Outlines are as wide on every map, so that no lake is too small to be seen."""


class _Map(NamedTuple):
    title: str
    shapes: dict[str, NDArray[Any]]
    """Polygons of each color."""


def draw_score(path: Path, score: Score, *, pixels: PixelScore | None = None) -> None:
    """Draw a map for each image and region, and the curve of the pixels, and write a PNG.

    Parameters
    ----------
    path
        The PNG to write.
    score
        Of lakes. Where it has more than 12 groups, those with the most polygons are drawn.
    pixels
        Adds a panel: precision against recall at every threshold.
    """
    maps = _choose_maps(score)
    panels = len(maps) + (pixels is not None)
    columns, size = next((columns, size) for most, columns, size in _LAYOUTS if panels <= most)
    rows = -(-panels // columns)
    figure = Figure(figsize=(max(columns * size, 7.5), rows * size + 1.2), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for one, panel in zip(maps, axes, strict=False):
        _draw_map(panel, one)
    if pixels is not None:
        _draw_curve(axes[len(maps)], pixels)
    for unused in axes[panels:]:
        unused.set_axis_off()
    left_out = len(score.groups) - len(maps)
    told = f"{score}\n{left_out} smaller groups are not drawn" if left_out > 0 else str(score)
    figure.suptitle(told, fontsize=13)
    used = [kind for kind in _COLORS if any(len(one.shapes[kind]) for one in maps)]
    handles = [
        Patch(facecolor=_fill(kind), edgecolor=_COLORS[kind], lw=_edge_pt(kind), label=_LABELS[kind]) for kind in used
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=11)
    figure.savefig(path, format="png")


def _choose_maps(score: Score) -> list[_Map]:
    """Take the largest groups, in their order."""
    matches, missed = score.matches, score.missed
    if matches.crs is not None and len(missed):
        missed = missed.to_crs(matches.crs)
    if score.groups.index.nlevels == 1:
        return [_make_map("all lakes", matches, missed)]
    size = score.groups[["tp", "fp", "fn"]].sum(axis=1)
    largest = size.nlargest(_MOST_MAPS, keep="first").index
    names: list[Any] = [name for name in score.groups.index if name in largest]
    return [
        _make_map(
            f"{name[0]}, region {name[1]}\n{_told(score.groups.loc[[name]])}", _of(matches, name), _of(missed, name)
        )
        for name in names
    ]


def _of(frame: gpd.GeoDataFrame, name: tuple[Any, Any]) -> gpd.GeoDataFrame:
    """Take the rows of a group; a name that is missing is a name too."""
    is_image, is_region = (
        frame[column].isna() if pd.isna(value) else frame[column].eq(value)
        for column, value in zip((IMAGE, REGION_NUM), name, strict=True)
    )
    return frame[is_image & is_region]


def _told(group: pd.DataFrame) -> str:
    row = next(group.itertuples(index=False))
    return f"f1 {row.f1:.3f} ({row.tp} tp, {row.fp} fp, {row.fn} fn)"


def _make_map(title: str, matches: gpd.GeoDataFrame, missed: gpd.GeoDataFrame) -> _Map:
    verdict, shapes = matches[VERDICT].to_numpy(), matches.geometry.to_numpy()
    by_kind = {"true": TP, "false": FP, "ignored": IGNORED}
    found = {kind: shapes[verdict == value] for kind, value in by_kind.items()}
    return _Map(title, {**found, _MISSED: missed.geometry.to_numpy()})


def _draw_map(axes: Any, one: _Map) -> None:
    everything = np.concatenate(list(one.shapes.values()))
    everything = everything[~shapely.is_empty(everything)]
    axes.set(aspect="equal", xticks=[], yticks=[], facecolor="#f4f6f8")
    axes.set_title(one.title, fontsize=8 if "\n" in one.title else 11)
    if not len(everything):
        return
    left, bottom, right, top = shapely.total_bounds(everything)
    half = 0.58 * max(right - left, top - bottom)
    middle = (left + right) / 2, (bottom + top) / 2
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - 1.06 * half, middle[1] + 0.94 * half))
    for kind in (_MISSED, "ignored", "true", "false"):
        outlines = [_outline(part) for part in shapely.get_parts(one.shapes[kind]) if not part.is_empty]
        style: Any = {"facecolors": [_fill(kind)], "edgecolors": [_COLORS[kind]], "linewidths": _edge_pt(kind)}
        axes.add_collection(PathCollection(outlines, transform=axes.transData, **style))
    _draw_scale(axes, half)


def _outline(polygon: shapely.Polygon) -> Outline:
    return Outline.make_compound_path(
        *(Outline(np.asarray(ring.coords)) for ring in [polygon.exterior, *polygon.interiors])
    )


def _fill(kind: str) -> tuple[str, float]:
    """Fill what was submitted; the reference under it is an outline."""
    return (_COLORS[kind], 0.0 if kind == _MISSED else 0.45)


def _edge_pt(kind: str) -> float:
    """Outline what is missed twice as wide: it shows as a rim where a small lake lies on it."""
    return 2 * _EDGE_PT if kind == _MISSED else _EDGE_PT


def _draw_scale(axes: Any, half: float) -> None:
    """Draw a bar of a round length."""
    power = 10.0 ** np.floor(np.log10(half / 2))
    length = next(step * power for step in (5, 2, 1) if step * power <= half / 2 or step == 1)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = left + 0.04 * (right - left), bottom + 0.04 * (top - bottom)
    axes.plot([x, x + length], [y, y], color="#222222", lw=2.5, solid_capstyle="butt")
    label = f"{length / _KM:g} km" if length >= _KM else f"{length:g} m"
    axes.annotate(label, (x, y), xytext=(0, 4), textcoords="offset points", fontsize=8, color="#222222")


def _draw_curve(axes: Any, pixels: PixelScore) -> None:
    """Draw precision against recall, where there is a pixel above the threshold."""
    curve = pixels.curve[pixels.curve.tp + pixels.curve.fp > 0]
    for level in (0.2, 0.4, 0.6, 0.8):  # where f1 is the same
        recall = np.geomspace(level / (2 - level), 1, 100)
        axes.plot(recall, level * recall / (2 * recall - level), color="#c8ccd0", lw=0.8, zorder=1)
        axes.annotate(f"f1 {level}", (1, level / (2 - level)), xytext=(-2, 3), textcoords="offset points", fontsize=8,
                      color="#8a8f94", ha="right")  # fmt: skip
    axes.plot(curve.recall, curve.precision, color="#333333", lw=1.8, zorder=2)
    points = ((pixels.threshold, "o", "#333333"), (pixels.best_threshold, "*", _COLORS["false"]))
    for (threshold, marker, color), name in zip(points, ("asked", "best f1"), strict=True):
        if len(curve):
            at = int((curve.threshold - threshold).abs().to_numpy().argmin())
            place, label = (curve.recall.iloc[at], curve.precision.iloc[at]), f"{name}: above {threshold:.3g}"
            axes.plot(*place, marker, ms=10, color=color, ls="", label=label, zorder=3)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall of pixels", ylabel="precision of pixels", aspect="equal")
    axes.set_title(f"pixels: average precision {pixels.average_precision:.3f}, iou {pixels.iou:.3f}", fontsize=11)
    if len(curve):
        axes.legend(loc="lower left", fontsize=9, frameon=False)
