"""Where tasks run: those of models on workers with a GPU, where the scheduler lists any."""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from dask.blockwise import fuse_roots, optimize_blockwise
from dask.callbacks import Callback
from dask.core import flatten
from dask.highlevelgraph import HighLevelGraph
from dask.utils import key_split
from distributed import Client
from distributed.diagnostics.progressbar import ProgressBar

from lakescale.schema import RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Scheduler

GPU = "GPU"
"""The resource that a worker with a GPU has: 1, so that it runs one model task at a time."""
CHECK_S, GONE_S = 5.0, 60.0
"""Seconds between looks at the scheduler, and for which model tasks wait for a GPU worker that has gone.

A nanny starts its worker again within this time.
"""

_MODEL_TASK = re.compile(r"model(-[a-z]+)?-run-")
_NONE: dict[str, int] = {}
_ONE_GPU = {GPU: 1}


def has_gpus(client: Client) -> bool:
    """Say whether the scheduler lists a worker with the resource ``GPU``."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(worker["resources"].get(GPU, 0) >= 1 for worker in workers)


def needed_resources(key: Any) -> dict[str, int]:
    """Give what a task needs, by its key: a GPU, if it runs a model.

    The scheduler asks this of every key of a graph: a frame's graph and a mixed one lose what their layers say.
    """
    name = key[0] if isinstance(key, tuple) else key
    return _ONE_GPU if isinstance(name, str) and _MODEL_TASK.match(name) else _NONE


def unfused(graph: Any, keys: Any, **_: Any) -> HighLevelGraph:
    """Optimize arrays as Dask does, up to its last step, the fusion that drops names and annotations."""
    wanted = set(flatten([keys]))
    if not isinstance(graph, HighLevelGraph):
        graph = HighLevelGraph.from_collections(id(graph), graph)
    return fuse_roots(optimize_blockwise(graph, keys=wanted), keys=wanted).cull(wanted)


def by_optimizer(found: list[Any]) -> list[int]:
    """Order collections as Dask groups them; it hands back the results of a mixed call in that order."""
    ranks: dict[Any, int] = {}
    return sorted(range(len(found)), key=lambda i: ranks.setdefault(found[i].__dask_optimize__, len(ranks)))


@contextmanager
def placing(get: Any, draw: Callable[[int, int], None] | None) -> Iterator[Any]:
    """Make a scheduler's ``get`` place the tasks of models, and call ``draw(done, total)`` as tasks finish."""
    client = getattr(get, "__self__", None)
    if isinstance(client, Client):
        resources = needed_resources if has_gpus(client) else None
        yield partial(_watched_get, client, draw, resources) if draw or resources else get
        return

    def count(*args: Any) -> None:
        done, *left = (len(args[3][state]) for state in ("finished", "ready", "waiting", "running"))
        if draw:
            draw(done, done + sum(left))

    with Callback(posttask=count) if draw else nullcontext():
        yield get


def _watched_get(client: Client, draw: Callable[[int, int], None] | None, resources: Any, *graph_keys: Any) -> Any:
    packed = client.get(*graph_keys, sync=False, resources=resources)
    futures = list(flatten([packed]))
    try:
        with _drawing(client, futures, draw) if draw else nullcontext():
            return _gather_placed(client, packed) if resources else client.gather(packed)
    finally:
        for future in futures:
            future.release()


@contextmanager
def _drawing(client: Client, futures: list[Any], draw: Callable[[int, int], None]) -> Iterator[None]:
    watch = ProgressBar(futures, client.scheduler.address)
    watch._draw_bar = lambda **now: draw(now["all"] - now["remaining"], now["all"])  # noqa: SLF001 - its one hook
    watching = asyncio.run_coroutine_threadsafe(watch.listen(), client.loop.asyncio_loop)
    try:
        yield
    finally:
        with suppress(Exception):  # the last step of the bar; a lost bar is no lost run
            watching.result(timeout=1)
        watching.cancel()


def _gather_placed(client: Client, packed: Any) -> Any:
    """Await futures as ``client.gather`` does, but not for ever if model tasks have no worker any more.

    Raises
    ------
    RunError
        When a model task waited `GONE_S` seconds without a single GPU worker on the scheduler.
    """
    return client.sync(_gather, client, packed)


async def _gather(client: Client, packed: Any) -> Any:
    gathering = asyncio.ensure_future(client.gather(packed, asynchronous=True))
    try:
        while not (await asyncio.wait({gathering}, timeout=CHECK_S))[0]:
            key, waited_s = await client.run_on_scheduler(_longest_waiting)
            if waited_s > GONE_S:
                what = f"{key_split(key)} waits for a worker with a GPU, and for {waited_s:.0f} s there has been none"
                raise RunError(what, str(key), "start the GPU workers again, then the run; or run it without any")
        return gathering.result()
    finally:
        gathering.cancel()


def _longest_waiting(dask_scheduler: Scheduler) -> tuple[Any, float]:
    """Find the task that waits for a GPU worker where there is none, and how long it has; runs on the scheduler."""
    if not dask_scheduler.resources.get(GPU):  # of workers that are there, also of paused ones
        for task, since in dask_scheduler.unrunnable.items():  # the oldest comes first
            if GPU in (task.resource_restrictions or {}):
                return task.key, monotonic() - since
    return None, 0.0
