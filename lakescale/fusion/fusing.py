"""Candidates of several models, sinks, color and ice to lakes, with a reason for every polygon."""

from __future__ import annotations

import logging
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely

from lakescale.chunks import to_frame
from lakescale.chunks.pairing import Meeting, Pairing, Source, pair_blocks, pair_on_threads, pair_serial
from lakescale.fusion.inputs import DATES, Input, Inputs, check_inputs
from lakescale.fusion.judging import Answer, Judge, is_first_piece
from lakescale.fusion.pairs import pair_parts
from lakescale.fusion.parts import EXACT, LATER, MODELS, Part
from lakescale.fusion.preset import Lakescale
from lakescale.fusion.reading import read_part
from lakescale.fusion.results import MODEL, ROW, Results
from lakescale.fusion.seed import Seed
from lakescale.schema import LAKE_ID, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from lakescale.fusion.parts import Meet, Preset

_LOG = logging.getLogger(__name__)

PRESETS: dict[str, Callable[[], Preset]] = {"lakescale": Lakescale, "seed": Seed}
"""Methods of fusion, by name."""

_ROWS_A_PART = 25_000
_ROWS_FOR_THREADS = 1000
"""Below, threads take longer to start than to work."""


def fuse(
    models: Mapping[str, Any],
    *,
    sinks: Any,
    color: Any,
    ice: Any,
    evidence: Any = None,
    preset: str | Preset = "lakescale",
    return_reasons: bool = False,
    partitions: int | None = None,
) -> Any:
    """Fuse the polygons of models with sinks, color and ice to lakes.

    Polygons meet where they are equal in the columns ``image``, ``time`` and ``region_num`` that both frames have.
    Overlap means a shared area above zero; sums are taken in row order; areas are those in the CRS of the first model
    with rows, to which the other frames are brought, vertex by vertex. A frame without rows says that there is nothing
    of its kind, None that nothing is known of it: what that leaves unjudged is logged.

    Invalid rings are made valid, Z is dropped, and both are counted (logged, and told in the column ``mended``).

    Parameters
    ----------
    models
        Frames of polygons in order of precedence, ``{"sam": ..., "deeplab": ...}``; geopandas or dask-geopandas.
    sinks, color, ice
        Frames of polygons, or None.
    evidence
        Rasters of evidence by name, for presets that judge by them: ``probability_NAME``, ``color``, ``index``, ``ice``
        and ``seen``, as in a run's ``evidence.zarr``; `lakescale` measures the models' polygons on them.
    preset
        ``lakescale`` (see `Lakescale`), ``seed`` (see `Seed`), or a method with its options, such as
        ``Seed(pool_dates=True)``.
    return_reasons
        Whether to give the reasons too.
    partitions
        Into how many parts frames in memory are cut, by default one for 25,000 rows; along a Hilbert curve, to be
        worked on by the threads of this process, where all are in memory. No answer depends on it.

    Returns
    -------
    lakes
        ``lake_id`` (from 1, by model and row), the columns of ``image``, ``time`` and ``region_num`` that the models
        have, ``model``, ``row`` (in that model's frame), geometry. Of dask frames a lazy dask frame, a partition for
        each partition of the models. Partitions meet by their ``spatial_partitions``, else each meets all (which costs
        little up to about 50 partitions); `spatial_shuffle` makes meetings few, but also changes the row order. Models
        wait in memory until all pairs are judged; the task that judges holds about 100 bytes a polygon and 100 a pair,
        and for `lakescale` the outlines of models and sinks. Of a polygon that was cut there may be several lakes.
    reasons
        With ``return_reasons``: a row for every polygon of every model, in order: the same columns, ``reason`` (one of
        ``REASONS``), ``by`` and ``by_row`` (frame and row of the polygon that decided, if one did), ``lake_id`` (if
        kept), ``mended``, and the polygon as it was judged.

    Raises
    ------
    InputError
        No such preset; frames that cannot be compared: a CRS that is missing or not in metres, a column that is
        missing, polygons that have no place in the CRS or cross the antimeridian there.

    Examples
    --------
    >>> import geopandas as gpd, shapely
    >>> at = lambda *x: gpd.GeoDataFrame(geometry=shapely.box(x, 0, np.add(x, 9), 9), crs=3413)
    >>> color = at(5, 10, 15).dissolve()
    >>> frames = {"sinks": at(0), "color": color, "ice": None}
    >>> lakes, reasons = fuse({"sam": at(0, 5, 40)}, **frames, preset="seed", return_reasons=True)
    >>> reasons.reason.tolist()
    ['another polygon keeps its sink', 'kept', 'overlaps neither sink nor color']
    >>> lakes, reasons = fuse({"sam": at(0, 5, 40)}, **frames, return_reasons=True)
    >>> reasons.reason.tolist()
    ['kept', 'merged into another polygon', 'too little agrees with it']
    """
    chosen = _find_preset(preset)
    if evidence is not None and isinstance(models, dict):
        models = chosen.measure(models, evidence)
    inputs = check_inputs(models, {"sinks": sinks, "color": color, "ice": ice}, chosen)
    for sentence in chosen.explain(inputs.missing):
        _LOG.warning("fuse: %s", sentence)
    run = _build if any(item.lazy for item in inputs.frames) else _run
    lakes, reasons = run(inputs, chosen, partitions)
    return (lakes, reasons) if return_reasons else lakes


def _find_preset(preset: str | Preset) -> Preset:
    if not isinstance(preset, str):
        return preset
    if preset not in PRESETS:
        raise InputError(f"there is no preset {preset!r}", "preset", f"choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]()


def _run(inputs: Inputs, preset: Preset, partitions: int | None) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Fuse frames in memory: small ones in a plain loop, others on threads."""
    if partitions is not None and partitions < 1:
        raise InputError(f"frames cannot be cut into {partitions} parts", "partitions", "give 1 or more")
    blocks: list[list[Part]] = []
    for item in inputs.frames:
        whole = read_part(item.frame, how=item.reading._replace(outlines=True), in_order=False)
        blocks.append(cut_part(whole, partitions or -(-len(whole.geometry) // _ROWS_A_PART)))
    flat = [part for parts in blocks for part in parts]
    bounds = [_bounds(part.geometry) for part in flat]
    how, meetings = _pairing(inputs, preset, preset.meets(), [len(parts) for parts in blocks], bounds)
    if max(len(part.geometry) for part in flat) < _ROWS_FOR_THREADS:
        results = pair_serial(flat, meetings, how)
    else:
        answers = sum(map(len, blocks[: len(inputs.models)]))
        results = pair_on_threads(flat, meetings, how, answers=answers)
    lakes, reasons = (pd.concat(frames, ignore_index=True) for frames in zip(*results, strict=True))
    rank = {item.name: k for k, item in enumerate(inputs.models)}
    order = np.lexsort((reasons[ROW], reasons[MODEL].map(rank)))
    return lakes.sort_values(LAKE_ID, ignore_index=True), reasons.iloc[order].reset_index(drop=True)


def _bounds(geometry: NDArray[Any]) -> NDArray[np.float64]:
    """Give the bounds of all, NaN of nothing."""
    bounds = shapely.bounds(geometry)
    low, high = (reduce(bounds, axis=0, initial=np.nan) for reduce in (np.fmin.reduce, np.fmax.reduce))
    return np.concatenate([low[:2], high[2:]])


def cut_part(part: Part, count: int) -> list[Part]:
    """Cut a part into several of equal size, along a Hilbert curve through the middles of its polygons.

    The pieces of a polygon stay together.
    """
    first = is_first_piece(part.told)
    count = min(count, int(first.sum()))
    if count <= 1:
        return [part]
    low_x, low_y, high_x, high_y = shapely.bounds(part.whole[first]).T
    middle = np.nan_to_num(np.stack([low_x + high_x, low_y + high_y], axis=1) / 2)
    along = gpd.GeoSeries(shapely.points(middle)).hilbert_distance()
    polygon = np.cumsum(first) - 1
    cuts = np.array_split(np.argsort(along.to_numpy(), kind="stable"), count)
    return [part.take(np.flatnonzero(np.isin(polygon, rows))) for rows in cuts]


def _build(inputs: Inputs, preset: Preset, partitions: int | None) -> tuple[Any, Any]:
    """Fuse dask frames lazily; frames in memory take part as a few partitions."""
    sources: list[list[Source]] = []
    bounds: list[Any] = []
    for item in inputs.frames:
        frame = item.frame if item.lazy else _to_dask(item, partitions)
        read = partial(read_part, how=item.reading, in_order=True)
        sources.append([Source(frame, key, read) for key in frame.__dask_keys__()])
        bounds += _known_bounds(frame, item, inputs.crs)
    at_once = [meet._replace(area=EXACT if meet.area == LATER else meet.area) for meet in preset.meets()]
    how, meetings = _pairing(inputs, preset, at_once, [len(parts) for parts in sources], bounds)
    flat = [source for parts in sources for source in parts]
    answers = sum(map(len, sources[: len(inputs.models)]))
    graph, (lakes, reasons) = pair_blocks(flat, meetings, how, answers=answers, results=2)
    metas = how.apply(*_nothing(inputs))
    return to_frame(graph, lakes, metas[0], "fuse-lakes"), to_frame(graph, reasons, metas[1], "fuse-reasons")


def _to_dask(item: Input, partitions: int | None) -> Any:
    count = partitions or -(-len(item.frame) // _ROWS_A_PART)
    return dask_geopandas.from_geopandas(item.frame, npartitions=max(1, min(count, len(item.frame))), sort=False)


def _known_bounds(frame: Any, item: Input, crs: Any) -> list[NDArray[np.float64] | None]:
    known = frame.spatial_partitions
    if known is None or item.frame.crs != crs or frame.npartitions != len(known):
        return [None] * frame.npartitions
    return list(shapely.bounds(np.asarray(known, object)))


def _pairing(
    inputs: Inputs, preset: Preset, meets: Sequence[Meet], counts: Sequence[int], bounds: Sequence[Any]
) -> tuple[Pairing, list[Meeting]]:
    """Say what is to be done with blocks, and which meet: those whose bounds do, or may."""
    numbers = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    blocks = dict(zip((item.name for item in inputs.frames), numbers, strict=True))
    names = tuple(item.name for item in inputs.models)
    meetings = [
        Meeting(int(k), int(other), meet)
        for meet in meets
        for rank, name in enumerate(names)
        for facing in (names[: rank + meet.same] if meet.other == MODELS else (meet.other,))
        for k in blocks[name]
        for other in blocks.get(facing, ())
        if (facing != name or other <= k) and _may_meet(bounds[k], bounds[other])
    ]
    judge = Judge(names, tuple(inputs.keys.columns), preset, tuple(meetings))
    meet = partial(pair_parts, dates=DATES)
    return Pairing("fuse", attrgetter("told"), meet, judge, Results(inputs.keys, inputs.crs)), meetings


def _may_meet(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> bool:
    if one is None or other is None:
        return True
    # of an empty part they are NaN, and nothing meets it
    return bool((one[:2] <= other[2:]).all() and (other[:2] <= one[2:]).all())


def _nothing(inputs: Inputs) -> tuple[Part, Answer]:
    """Make a part without polygons, whose results show their columns and types."""
    item = inputs.models[0].reading
    empty = gpd.GeoDataFrame(inputs.keys, geometry=gpd.GeoSeries([], crs=inputs.crs))
    part = read_part(empty, how=item._replace(keys=tuple(inputs.keys.columns), columns=()), in_order=True)
    none, text = np.empty(0, np.int64), np.empty(0, object)
    return part, Answer(none, text, text, none, none, none, None)
