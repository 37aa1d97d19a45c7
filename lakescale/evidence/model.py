"""Evidence from a model: probabilities of windows that overlap, blended to one raster."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from lakescale.chunks import WindowPlan, map_tiles, on_dask, overlap_add
from lakescale.evidence.model_source import ModelSource, calling, checkpoint_source, takes_boxes, title, wanted_bands
from lakescale.evidence.model_windows import GATE, GATED, MASKS, SEEN, UNSEEN, Job, mark_windows, run_windows
from lakescale.kernels.blend import WEIGHTS, count_planes, mean_probability
from lakescale.scene import seen_mask
from lakescale.schema import BAND, PROBABILITY, InputError, X, Y

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

PROMPTS = "window", "evidence"


def lake_probability(  # noqa: PLR0913 - keyword-only options
    scene: xr.DataArray,
    model: str | Path | ModelSource | Callable[[NDArray[np.float32]], Any],
    *,
    window: int = 1024,
    stride: int = 512,
    weights: str = "hann",
    batch: int = 8,
    gate: xr.DataArray | None = None,
    augment: bool = False,
    prompts: str = "window",
    evidence: xr.DataArray | Sequence[xr.DataArray] | None = None,
    least_score: float = 0.0,
) -> xr.DataArray:
    """Run a model over all windows of a scene, each once, and blend their probabilities. Lazy.

    Windows start at pixel (0, 0), every ``stride`` pixels, the last one shifted inwards; a scene smaller than a window
    is padded with zeros. A pixel's probability is the weighted mean of all windows that cover it and were run, each
    kept to 1/65535; its sums are integers, so it does not depend on the chunks. Windows without a seen pixel are not
    run. One thread of a process at a time calls the model. Beside the pixels and what the model takes, a task holds
    8 bytes (16 where more than 128 windows may cover a pixel) for each pixel of its chunk and of what its windows
    overflow; and as much waits for each pixel by which they overflow the row of chunks that is being run. The scene is
    read twice, the second time for the windows that reach it from above: store one that is dear first.

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
        Windows in one call, at most. Our own models take them one after the other on a CPU, which is faster there.
    gate
        Bool ``(y, x)`` on the scene's grid, such as evidence of color or sinks: windows without any True are not run
        either. Seen pixels that no window was run for get 0.
    augment
        Average the model's answers to each window turned and mirrored in all 8 ways.
    prompts
        ``window``: the model is asked about each window as a whole. ``evidence``: SAM is asked about each region of
        ``evidence`` in a window, by the box round it, and the highest mask counts; the window is encoded once, and not
        at all without regions: it is 0 then. For checkpoints of SAM, and objects with a method ``predict_boxes(windows,
        boxes, *, least_score) -> (probabilities, scores)`` as that of `lakescale.models.LoadedSam`.
    evidence
        Masks that prompt, five at most, such as those of color, index and sinks: bool ``(y, x)`` on the scene's grid.
        Regions are 8-connected within the window and cut by it; those of fewer than 10 pixels there are left out.
    least_score
        Masks whose intersection over union is lower, as SAM predicts it (0..1), are left out.

    Returns
    -------
    xr.DataArray
        float32 ``(y, x)``, 0..1, NaN where not seen; named ``probability``, in the scene's chunks.

    Raises
    ------
    InputError
        When a band that the model wants is missing or holds other values, the window is not a multiple of the model's
        output stride, an option cannot be used, the checkpoint cannot be read, the gate or evidence is not bool or has
        another shape, or evidence shall prompt a model that takes no boxes; while computing, when the model answers in
        another shape, NaN or beyond 0..1.
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
    masks = _as_masks(source, prompts, evidence, least_score)
    bands = _stack(scene)
    framed_bands = _planes(scene, source)
    _refuse_misfits(scene, source, plan)
    flags = _flags(scene, bands.chunks[-2:], gate, masks)
    name = f"model{_label(source)}"
    framed = _frame(bands, flags, framed_bands, f"{name}-frame")
    key = tokenize(source) if isinstance(source, ModelSource) else ""
    planes = count_planes((-(-plan.window // plan.stride) + 1) ** 2)  # one more, the last window is shifted inwards
    job = Job(source, key, plan.window, weights, int(batch), bool(augment), planes, len(masks), float(least_score))
    run = partial(run_windows, job=job)
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
    run = partial(mark_windows, window=plan.window)
    fates = overlap_add(flags[np.newaxis], plan, run, _first_plane, name="windows", dtype=np.uint8)
    rows, cols = (len(plan.starts(size)) for size in flags.shape)
    counts = {name: ((), (fates == fate).sum()) for name, fate in (("unseen", UNSEEN), ("gated", GATED))}
    return xr.Dataset({"windows": rows * cols, **counts})


# -- what is asked for


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


def _as_masks(
    source: Any, prompts: str, evidence: xr.DataArray | Sequence[xr.DataArray] | None, least_score: float
) -> list[xr.DataArray]:
    """List the masks that prompt: none where the model is asked about whole windows."""
    masks = [evidence] if isinstance(evidence, xr.DataArray) else list(evidence or ())
    if prompts not in PROMPTS:
        raise InputError(f"there are no prompts {prompts!r}", "prompts", f"choose {' or '.join(PROMPTS)}")
    if isinstance(least_score, bool) or not isinstance(least_score, int | float) or not 0 <= least_score <= 1:
        what = f"least_score must be a number from 0 to 1, got {least_score!r}"
        raise InputError(what, "least_score", "give 0 to take every mask")
    if prompts == "window":
        if masks or least_score:
            what = "whole windows are asked about without evidence and least_score"
            raise InputError(what, "prompts='window'", "give prompts='evidence' too, or leave these out")
        return []
    if not 1 <= len(masks) <= len(MASKS):
        what = f"one to {len(MASKS)} masks can prompt, not {len(masks)}"
        raise InputError(what, "evidence", "give evidence=[color, index, sink], or unite some with |")
    if not takes_boxes(source):
        mend = "take a checkpoint of SAM, or prompts='window'"
        raise InputError("the model takes no boxes, so that no evidence can prompt it", title(source), mend)
    return masks


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


def _stack(scene: xr.DataArray) -> da.Array:
    if set(scene.dims) != {BAND, Y, X}:
        what = f"a scene needs the dims ('band', 'y', 'x'), got {scene.dims}"
        raise InputError(what, _name(scene), "take one date: cube.isel(time=0)")
    return on_dask(scene.transpose(BAND, Y, X))


def _flags(scene: xr.DataArray, chunks: Any, gate: xr.DataArray | None, masks: Sequence[xr.DataArray] = ()) -> da.Array:
    """Lay out what is seen, what the gate lets through and what prompts, as flags in uint8 ``(y, x)``."""
    layers = {SEEN: on_dask(seen_mask(scene).transpose(Y, X)).rechunk(chunks)}
    if gate is not None:
        layers[GATE] = _mask(gate, scene, "gate")
    layers |= {bit: _mask(mask, scene, "evidence") for bit, mask in zip(MASKS, masks, strict=False)}
    bits = {"bits": tuple(layers), "always": np.uint8(0) if gate is not None else GATE}
    return map_tiles(_flag, *layers.values(), depth=0, name="model-flags", dtype=np.uint8, options=bits)


def _flag(*layers: NDArray[np.bool_], bits: tuple[np.uint8, ...], always: np.uint8) -> NDArray[np.uint8]:
    flags = np.full(layers[0].shape, always)
    for layer, bit in zip(layers, bits, strict=True):
        flags |= layer.view(np.uint8) * bit
    return flags


def _mask(mask: xr.DataArray, scene: xr.DataArray, role: str) -> da.Array:
    shape = scene.sizes[Y], scene.sizes[X]
    if set(mask.dims) != {Y, X} or (mask.sizes[Y], mask.sizes[X]) != shape:
        what = f"the {role} has {dict(mask.sizes)} pixels, the scene {shape}"
        raise InputError(what, str(mask.name or role), "make it on the scene's grid")
    if mask.dtype != bool:
        what = f"the {role} must be bool, got {mask.dtype}"
        raise InputError(what, str(mask.name or role), "compare it with a threshold first")
    return on_dask(mask.transpose(Y, X))


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
    seen = (flags & SEEN) > 0
    for k, plane in enumerate(planes):
        with np.errstate(over="ignore"):
            band = bands[plane].astype(as_type, copy=False)
        np.copyto(framed[k], band, where=seen & np.isfinite(band))
    framed[-1] = flags
    return framed


def _first_plane(sums: NDArray[np.int64]) -> NDArray[np.uint8]:
    return sums[0].astype(np.uint8)


def _hide(probability: NDArray[np.float32], flags: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.where((flags & SEEN) > 0, probability, np.float32(np.nan))


def _like(scene: xr.DataArray, data: da.Array) -> xr.DataArray:
    coords = {k: v for k, v in scene.coords.items() if BAND not in v.dims and k not in {BAND, "seen"}}
    return xr.DataArray(data, dims=(Y, X), coords=coords)


def _name(scene: xr.DataArray) -> str:
    return str(scene.attrs.get("source") or scene.name or "scene")
