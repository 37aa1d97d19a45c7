"""How long models take for a window on a core of this machine."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lakescale.evidence.model_source import ModelSource
    from pipelines.run_models import RunModel

_LOG = logging.getLogger(f"lakescale.{__name__}")
_TURNS = 8
"""Of a window whose answers are averaged over turns and reflections."""
_BANDS = 3
"""Of a model that takes a scene's bands as they are."""
_WATCHED_S = 1.0
_MOST_PROCESSES = 4
"""Side by side for the measuring; each takes some 500 MB."""


def seconds_of_windows(models: Sequence[RunModel], workers: int) -> dict[str, float]:
    """Run each model on windows of noise, and tell by its name the seconds a window takes all workers together.

    Parameters
    ----------
    models
        Of a run. 0 seconds are told of one that cannot be run here.
    workers
        Processes that run models side by side, which slow each other; 0 for this process, whose threads take turns.
    """
    if not models:
        return {}
    try:
        found = [_together(partial(_measure, one.source, one.windows["window"]), workers) for one in models]
    except Exception as error:  # noqa: BLE001  (whatever is wrong with it is told when it is run)
        _LOG.info("the speed of models cannot be measured: %s", error)
        return dict.fromkeys((one.name for one in models), 0.0)
    turns = (_TURNS if one.options["augment"] else 1 for one in models)
    return {one.name: seconds * times for one, seconds, times in zip(models, found, turns, strict=True)}


def _together(measure: partial[float], workers: int) -> float:
    if not workers:
        return measure(threads=0)
    processes = min(workers, _MOST_PROCESSES)
    with ProcessPoolExecutor(processes, get_context("spawn")) as others:
        asked = [others.submit(measure, threads=1) for _ in range(processes)]
        return mean(one.result() for one in asked) / workers


def _measure(source: ModelSource, window: int, *, threads: int) -> float:
    """Tell the seconds that a window takes, the first apart; on as many threads as now with 0."""
    import torch  # noqa: PLC0415  (takes seconds and 300 MB)

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        model = source.load(source.path)
        windows = np.random.default_rng(0).random((1, len(source.bands or range(_BANDS)), window, window), np.float32)
        model.predict(windows)
        start, count, took = time.perf_counter(), 0, 0.0
        while took < _WATCHED_S:
            model.predict(windows)
            count, took = count + 1, time.perf_counter() - start
    finally:
        torch.set_num_threads(before)
    return took / count
