"""Evidence from a model: probabilities of windows that overlap, blended to one raster."""

from __future__ import annotations

import re
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from lakescale.chunks import WindowPlan, map_tiles, overlap_add
from lakescale.evidence.model_source import (
    ONE_AT_A_TIME,
    ModelSource,
    calling,
    checkpoint_source,
    give_torch_threads,
    loaded_model,
    title,
    wanted_bands,
)
from lakescale.kernels.blend import WEIGHTS, add_windows, count_planes, mean_probability, window_weights
from lakescale.scene import seen_mask
from lakescale.schema import BAND, PROBABILITY, InputError, X, Y

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Corners = list[tuple[int, int]]


def lake_probability(
    scene: xr.DataArray,
    model: str | Path | ModelSource | Callable[[NDArray[np.float32]], Any],
    *,
    window: int = 1024,
    stride: int = 512,
    weights: str = "hann",
    batch: int = 8,
    gate: xr.DataArray | None = None,
    augment: bool = False,
) -> xr.DataArray:
    """Run a model over all windows of a scene, each once, and blend their probabilities. Lazy.

    Windows start at pixel (0, 0), every ``stride`` pixels, the last one shifted inwards; a scene smaller than a window
    is padded with zeros. A pixel's probability is the weighted mean of all windows that cover it and were run, each
    kept to 1/65535; its sums are integers, so it does not depend on the chunks. Windows without a seen pixel are not
    run. One thread of a process at a time calls the model. Beside the pixels and what the model takes, a task holds
    8 bytes (16 where more than 128 windows may cover a pixel) for each pixel of its chunk and of what its windows
    overflow.

    Parameters
    ----------
    scene
        ``(band, y, x)``, named bands of numbers.
    model
        A checkpoint's path, a `ModelSource` (by `checkpoint_source`, for a device and precision), or any callable from
        float32 ``(n, band, y, x)``, values as in the scene and 0 where not seen or NaN, to probabilities
        ``(n, y, x)``, 0..1; an object with a method ``predict`` is called by that. A callable gets all bands, or those
        of its ``spec.bands``. It travels with every task: weights belong into a checkpoint.
    window
        Side of the windows, in pixels.
    stride
        Pixels from one window to the next, at most ``window``.
    weights
        ``hann``: pixels count less towards their window's border; ``flat``: all the same.
    batch
        Windows in one call, at most.
    gate
        Bool ``(y, x)`` on the scene's grid, such as evidence of color or sinks: windows without any True are not run
        either. Seen pixels that no window was run for get 0.
    augment
        Average the model's answers to each window turned and mirrored in all 8 ways.

    Returns
    -------
    xr.DataArray
        float32 ``(y, x)``, 0..1, NaN where not seen; named ``probability``, in the scene's chunks.

    Raises
    ------
    InputError
        When a band that the model wants is missing or holds other values, the window is not a multiple of the model's
        output stride, an option cannot be used, the checkpoint cannot be read, or the gate is not bool or has another
        shape; while computing, when the model answers in another shape, NaN or beyond 0..1.
    RunError
        While computing, when a checkpoint's model has not the memory for a single window, or gives NaN.

    Examples
    --------
    >>> scene = xr.DataArray(np.full((1, 3, 4), 0.25, "float32"), {"band": ["red"]}, ("band", "y", "x"))
    >>> lake_probability(scene, lambda windows: windows[:, 0], window=2, stride=1).values[0].round(4).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    plan = _window_plan(window, stride)
    if weights not in WEIGHTS:
        raise InputError(f"there are no weights {weights!r}", "weights", f"choose {' or '.join(WEIGHTS)}")
    _require_whole(batch=batch)
    source = _as_source(model)
    bands = _stack(scene)
    framed_bands = _planes(scene, source)
    _refuse_misfits(scene, source, plan)
    flags = _flags(scene, bands.chunks[-2:], gate)
    name = f"model{_label(source)}"
    framed = _frame(bands, flags, framed_bands, f"{name}-frame")
    key = tokenize(source) if isinstance(source, ModelSource) else ""
    planes = count_planes((-(-plan.window // plan.stride) + 1) ** 2)  # one more, the last window is shifted inwards
    job = _Job(source, key, plan.window, weights, int(batch), bool(augment), planes)
    run = partial(_run_windows, job=job)
    blended = overlap_add(framed, plan, run, mean_probability, name=name, dtype=np.float32)
    probability = map_tiles(_hide, blended, flags, depth=0, name=f"{name}-probability", dtype=np.float32)
    return _like(scene, probability).rename(PROBABILITY)


def count_windows(
    scene: xr.DataArray, *, window: int = 1024, stride: int = 512, gate: xr.DataArray | None = None
) -> xr.Dataset:
    """Count the windows of `lake_probability` with these options, and those of them that are not run. Lazy.

    Parameters
    ----------
    scene, window, stride, gate
        As for `lake_probability`.

    Returns
    -------
    xr.Dataset
        Whole numbers: ``windows``, all of them; ``unseen``, those without a seen pixel; ``gated``, those with seen
        pixels but without any True of the gate.
    """
    plan = _window_plan(window, stride)
    flags = _flags(scene, _stack(scene).chunks[-2:], gate)
    run = partial(_mark_windows, window=plan.window)
    fates = overlap_add(flags[np.newaxis], plan, run, _first_plane, name="model-windows", dtype=np.uint8)
    rows, cols = (len(plan.starts(size)) for size in flags.shape)
    counts = {name: ((), (fates == fate).sum()) for name, fate in (("unseen", _UNSEEN), ("gated", _GATED))}
    return xr.Dataset({"windows": rows * cols, **counts})


# -- what is asked for


class _Job(NamedTuple):
    """What a task must know to run its windows."""

    model: Any
    key: str
    """Tells loaded models apart; made once, since what a task unpickles may hash otherwise."""
    window: int
    weights: str
    batch: int
    augment: bool
    planes: int
    """Of the sums."""


def _window_plan(window: int, stride: int) -> WindowPlan:
    _require_whole(window=window, stride=stride)
    if stride > window:
        what = f"a stride of {stride} px leaves pixels between windows of {window} px"
        raise InputError(what, "stride", "give a stride of at most the window")
    return WindowPlan(int(window), int(stride))


def _require_whole(**options: int) -> None:
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name} must be a whole number of at least 1, got {value!r}", name)


def _as_source(model: Any) -> Any:
    if isinstance(model, str | Path):
        return checkpoint_source(model)
    if not isinstance(model, ModelSource) and not callable(calling(model)):
        what = f"a model is a checkpoint's path or a callable, not {type(model).__name__}"
        raise InputError(what, "model", "give a path, or a function of windows")
    return model


def _label(source: Any) -> str:
    """Name tasks by the checkpoint, so that Dask's dashboard shows all of the name.

    It drops what follows a word with other signs than letters, and words of eight letters that could begin a hash.
    """
    letters = re.sub("[^a-z]", "", Path(source.path).stem.lower()) if isinstance(source, ModelSource) else ""
    word = letters[:7] if len(letters) == 8 else letters  # noqa: PLR2004
    return f"-{word}" if word else ""


def _planes(scene: xr.DataArray, source: Any) -> tuple[int, ...]:
    names = [str(band) for band in scene[BAND].values] if BAND in scene.coords else []
    wanted = wanted_bands(source)
    if wanted is None:
        return tuple(range(scene.sizes[BAND]))
    lacking = [band for band in wanted if band not in names]
    if lacking:
        raise InputError(
            f"the model wants {', '.join(wanted)}; the scene has no {' and no '.join(lacking)}, "
            f"only {', '.join(names) or 'unnamed bands'}",
            _name(scene),
            "name its bands with open_scene(..., bands=[...]), or take another model",
        )
    return tuple(names.index(band) for band in wanted)


def _refuse_misfits(scene: xr.DataArray, source: Any, plan: WindowPlan) -> None:
    if not isinstance(source, ModelSource):
        return
    if plan.window % source.output_stride:
        what = f"the model takes windows of a multiple of {source.output_stride} px, not of {plan.window} px"
        raise InputError(what, source.path, "give another window")
    fits = {"uint8": scene.dtype == np.uint8, "reflectance": scene.dtype.kind == "f"}
    if not fits.get(source.values, True):
        what = f"the model {source.path} is for {source.values}, this scene is {scene.dtype}"
        raise InputError(what, _name(scene), "take a model for such scenes")


# -- rasters


_SEEN, _GATE = np.uint8(1), np.uint8(2)
_RUN, _UNSEEN, _GATED = range(3)
"""Fates of a window."""


def _stack(scene: xr.DataArray) -> da.Array:
    if set(scene.dims) != {BAND, Y, X}:
        what = f"a scene needs the dims ('band', 'y', 'x'), got {scene.dims}"
        raise InputError(what, _name(scene), "take one date: cube.isel(time=0)")
    return _raster(scene.transpose(BAND, Y, X))


def _flags(scene: xr.DataArray, chunks: Any, gate: xr.DataArray | None) -> da.Array:
    """Lay out what is seen and what the gate lets through, as flags in uint8 ``(y, x)``."""
    layers = [_raster(seen_mask(scene).transpose(Y, X)).rechunk(chunks)]
    if gate is not None:
        shape = scene.sizes[Y], scene.sizes[X]
        if set(gate.dims) != {Y, X} or (gate.sizes[Y], gate.sizes[X]) != shape:
            what = f"the gate has {dict(gate.sizes)} pixels, the scene {shape}"
            raise InputError(what, str(gate.name or "gate"), "make it on the scene's grid")
        if gate.dtype != bool:
            what = f"the gate must be bool, got {gate.dtype}"
            raise InputError(what, str(gate.name or "gate"), "compare it with a threshold first")
        layers.append(_raster(gate.transpose(Y, X)))
    return map_tiles(_flag, *layers, depth=0, name="model-flags", dtype=np.uint8)


def _flag(seen: NDArray[np.bool_], gate: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    return np.where(seen, _SEEN, np.uint8(0)) | (_GATE if gate is None else np.where(gate, _GATE, np.uint8(0)))


def _frame(bands: da.Array, flags: da.Array, planes: tuple[int, ...], name: str) -> da.Array:
    """Lay the flags under the bands, so that they reach the windows in one piece."""
    small = bands.dtype.kind in "iu" and bands.dtype.itemsize <= 2  # noqa: PLR2004  (exact in float32)
    dtype = bands.dtype if small else np.dtype(np.float32)
    return da.map_blocks(
        _frame_block, bands.rechunk({0: -1}), flags, planes=planes, as_type=dtype,
        chunks=((len(planes) + 1,), *flags.chunks), token=name, dtype=dtype, meta=np.empty((0, 0, 0), dtype),
    )  # fmt: skip


def _frame_block(
    bands: NDArray[Any], flags: NDArray[np.uint8], *, planes: tuple[int, ...], as_type: np.dtype[Any]
) -> NDArray[Any]:
    framed = np.zeros((len(planes) + 1, *flags.shape), as_type)
    seen = (flags & _SEEN) > 0
    for k, plane in enumerate(planes):
        with np.errstate(over="ignore"):
            band = bands[plane].astype(as_type, copy=False)
        np.copyto(framed[k], band, where=seen & np.isfinite(band))
    framed[-1] = flags
    return framed


def _hide(probability: NDArray[np.float32], flags: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.where((flags & _SEEN) > 0, probability, np.float32(np.nan))


def _raster(array: xr.DataArray) -> da.Array:
    return array.data if isinstance(array.data, da.Array) else da.from_array(array.data, chunks=-1)


def _like(scene: xr.DataArray, data: da.Array) -> xr.DataArray:
    coords = {k: v for k, v in scene.coords.items() if BAND not in v.dims and k not in {BAND, "seen"}}
    return xr.DataArray(data, dims=(Y, X), coords=coords)


def _name(scene: xr.DataArray) -> str:
    return str(scene.attrs.get("source") or scene.name or "scene")


# -- windows


def _fate(flags: NDArray[Any], corner: tuple[int, int], window: int) -> int:
    row, col = corner
    found = int(np.bitwise_or.reduce(flags[row : row + window, col : col + window], axis=None))
    if not found & _SEEN:
        return _UNSEEN
    return _RUN if found & _GATE else _GATED


def _mark_windows(patch: NDArray[np.uint8], corners: Corners, *, window: int) -> NDArray[np.int64]:
    fates = np.zeros((1, *patch.shape[-2:]), np.int64)
    for corner in corners:
        fates[0, *corner] = _fate(patch[0], corner, window)
    return fates


def _first_plane(sums: NDArray[np.int64]) -> NDArray[np.uint8]:
    return sums[0].astype(np.uint8)


def _run_windows(patch: NDArray[Any], corners: Corners, *, job: _Job) -> NDArray[np.int64]:
    flags = patch[-1].astype(np.uint8)
    sums = np.zeros((job.planes, *flags.shape), np.int64)
    corners = [corner for corner in corners if _fate(flags, corner, job.window) == _RUN]
    weights = window_weights(job.window, job.weights)
    for start in range(0, len(corners), job.batch):
        part = corners[start : start + job.batch]
        places = [(slice(r, r + job.window), slice(c, c + job.window)) for r, c in part]
        windows = np.stack([patch[:-1, *place] for place in places], dtype=np.float32)
        add_windows(sums, _answer(windows, job), np.array(part, np.int64), weights)
    return sums


def _answer(windows: NDArray[np.float32], job: _Job) -> NDArray[np.float32]:
    with ONE_AT_A_TIME:
        model = loaded_model(job.model, job.key) if isinstance(job.model, ModelSource) else job.model
        give_torch_threads()
        predict = partial(_predict, calling(model), name=title(job.model))
        return _predict_turned(predict, windows) if job.augment else predict(windows)


def _predict_turned(
    predict: Callable[[NDArray[np.float32]], NDArray[np.float32]], windows: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Average the answers to windows turned and mirrored in all 8 ways."""
    total = np.zeros((len(windows), *windows.shape[-2:]), np.float32)
    for turns, step in product(range(4), (1, -1)):
        answer = predict(np.array(np.rot90(windows, turns, (-2, -1))[..., ::step], order="C"))
        total += np.rot90(answer[..., ::step], -turns, (-2, -1))
    total /= 8
    return total


_SLACK = 1e-5
"""How far beyond 0..1 an answer may lie: less than a step of the fixed point, which interpolating may add."""


def _predict(call: Any, windows: NDArray[np.float32], *, name: str) -> NDArray[np.float32]:
    shape = len(windows), *windows.shape[-2:]
    answer = np.array(call(windows))  # a copy: a model may use its memory again
    if answer.shape != shape:
        what = f"the model answered {answer.shape} to windows {windows.shape}"
        raise InputError(what, name, f"it must answer (n, y, x), here {shape}")
    answer = answer.astype(np.float32, copy=False)
    low, high = float(answer.min()), float(answer.max())
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # NaN too
        what = f"the model answered values from {low:g} to {high:g}, which are no probabilities"
        raise InputError(what, name, "it must answer 0..1 and no NaN: end it with a sigmoid or softmax")
    return np.clip(answer, 0, 1, out=answer) if low < 0 or high > 1 else answer
