"""Dask clusters: opening one, computing on it, describing it."""

from __future__ import annotations

import logging
import signal
import warnings
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dask
from dask.system import CPU_COUNT
from dask.utils import key_split, parse_bytes
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster, Status, Worker, WorkerPlugin
from distributed.scheduler import KilledWorker
from distributed.worker_memory import parse_memory_limit

from lakescale.bars import one_bar
from lakescale.logs import is_json, log_as_json
from lakescale.placement import by_optimizer, placing, unfused
from lakescale.schema import InputError, RunError
from lakescale.stages import current_stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
FREE_PORT = f"{LOOPBACK}:0"
CONNECT_S, WORKERS_S = 20, 30
"""Seconds to wait for a scheduler to answer, and for its first worker."""
CLOSING = logging.Filter(__name__)
"""Passes none of the records of distributed."""


@contextmanager
def open_cluster(
    kind: str = "local",
    *,
    workers: int | None = None,
    memory_limit: str | int | None = None,
    dashboard: str = FREE_PORT,
) -> Iterator[Client]:
    """Open a Dask cluster, or connect to one, for the length of a ``with`` block.

    Parameters
    ----------
    kind
        ``local``: processes of one thread each; ``threads``: threads of this process; or the address of a
        running scheduler, ``tcp://host:port`` or ``tls://host:port``, to which the other options do not apply.
    workers
        How many processes, or threads; by default one per CPU.
    memory_limit
        Memory of each worker, in bytes or as ``"4 GiB"``; by default an equal share of the machine's.
    dashboard
        Where to serve the dashboard, ``host:port``: port 0 is any free one, no host is loopback; empty or
        ``none`` for no dashboard, and no profile of the workers.

    Yields
    ------
    distributed.Client
        Dask's default client inside the block; ``dashboard_link`` is empty where there is no dashboard.

    Raises
    ------
    InputError
        An option that cannot be used, or a scheduler that does not answer.
    RunError
        A scheduler without workers, or a cluster that does not start.

    Examples
    --------
    >>> with open_cluster("threads", workers=1, dashboard="none") as client:
    ...     client.submit(sum, [1, 2]).result()
    3
    """
    with ExitStack() as opened:
        opened.callback(_hush, on=False)  # runs last
        if kind in ("local", "threads"):
            client = _start(opened, kind, workers, memory_limit, dashboard)
        elif kind.startswith(("tcp://", "tls://")):
            if workers is not None or memory_limit is not None or dashboard != FREE_PORT:
                mend = "leave out --workers, --memory-limit and the dashboard"
                raise InputError("workers, memory and dashboard belong to the running cluster", kind, mend)
            client = _connect(opened, kind)
        else:
            raise InputError("there is no such kind of cluster", kind, "give local, threads or tcp://host:port")
        opened.callback(_hush, on=True)  # runs first
        if link := describe(client)["dashboard"]:
            log.info("Dask dashboard: %s", link)
        yield client


@contextmanager
def open_workers(
    workers: Mapping[str, Mapping[str, Any]],
    *,
    memory_limit: str | int | None = None,
    dashboard: str = FREE_PORT,
    host: str = LOOPBACK,
    scheduler_file: Path | None = None,
) -> Iterator[Client]:
    """Start a cluster of unlike workers for others to connect to, for the length of a ``with`` block.

    Parameters
    ----------
    workers
        A process of one thread for each name, with its options for `distributed.Nanny`: ``resources``, ``env``.
    memory_limit, dashboard
        As for `open_cluster`.
    host
        Address on which the scheduler and the workers listen. Dask asks for no password: whoever reaches it runs code.
    scheduler_file
        Where the scheduler writes its address, as JSON; removed when the process ends.

    Yields
    ------
    distributed.Client
        Of the cluster, whose workers are all there.

    Raises
    ------
    InputError
        An option that cannot be used.
    RunError
        A cluster that does not start.
    """
    with ExitStack() as opened:
        opened.callback(_hush, on=False)  # runs last
        make = partial(_unlike_workers, workers, memory_limit, host, scheduler_file)
        client = _launch(opened, make, dashboard, host)
        client.register_plugin(_Quiet())
        opened.callback(_hush, on=True)  # runs first
        client.wait_for_workers(len(workers))
        yield client


def compute(
    *collections: Any,
    client: Client | None = None,
    progress: bool | Callable[[int, int], None] = False,
    description: str = "",
    pixels: int = 0,
) -> tuple[Any, ...]:
    """Compute Dask collections of any kinds together, as ``dask.compute`` does, without fusing their tasks.

    Unfused tasks keep their names and annotations, and so their placement; ``dask.compute`` loses them. Tasks of models
    run on workers with the resource ``GPU`` where the scheduler lists any as the call begins, and else on any worker.

    Parameters
    ----------
    *collections
        Arrays, xarray objects, frames, delayed objects, and containers of these; they share one graph.
    client
        Where to compute; by default where ``dask.compute`` would: the current client, else this process.
    progress
        Draw a bar of finished tasks on stderr, if that is a terminal; or call this with the finished tasks and all.
    description
        The words beside the bar.
    pixels
        How many are worked on, for the figures of the stage that runs, see `lakescale.stages`.

    Returns
    -------
    tuple
        One result for each argument.

    Raises
    ------
    RunError
        Workers died while running a task, or the GPU workers have gone while tasks of models waited for one. What a
        task raises itself is raised here unchanged.
    """
    get = dask.base.get_scheduler(scheduler=client)
    found, repack = dask.base.unpack_collections(*collections)
    stage = current_stage()
    # The optimizer travels with the graph; "optimization.fuse.active" would not reach a scheduler elsewhere.
    with dask.config.set(array_optimize=unfused), warnings.catch_warnings(), ExitStack() as drawn:
        warnings.filterwarnings("ignore", message="Computing mixed collections", category=UserWarning)
        warnings.filterwarnings("ignore", message="Sending large graph", category=UserWarning)  # of many small tasks
        if callable(progress):
            draw: Callable[[int, int], None] | None = progress
        elif stage is not None:
            draw = stage.pace(pixels=pixels, description=description)
        else:
            draw = drawn.enter_context(one_bar(description, pixels)) if progress else None
        get = drawn.enter_context(placing(get, draw))
        if stage is not None:
            drawn.enter_context(dask.annotate(span=stage.span))
        order = by_optimizer(found)
        try:
            results = dask.compute(*(found[i] for i in order), traverse=False, scheduler=get)
        except KilledWorker as error:
            deaths = error.allowed_failures + 1
            what = f"{deaths} worker(s) died while running {key_split(error.task)}, most likely out of memory"
            mend = "give each worker more --memory-limit, or use fewer workers or smaller chunks"
            raise RunError(what, str(error.task), mend) from error
    if stage is not None:
        stage.pixels += pixels
    placed = dict(zip(order, results, strict=True))
    return tuple(repack([placed[i] for i in range(len(found))]))


def describe(client: Client) -> dict[str, int | str]:
    """Count what a cluster has: ``workers``, ``threads``, ``memory_limit_bytes`` of all workers, ``dashboard``.

    A memory limit of 0 means no limit, an empty dashboard no dashboard.
    """
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    link = ""
    with suppress(KeyError):  # raised where a scheduler serves no page
        link = client.dashboard_link or ""
    return {
        "workers": len(found),
        "threads": sum(worker["nthreads"] for worker in found),
        "memory_limit_bytes": sum(worker["memory_limit"] or 0 for worker in found),
        "dashboard": link,
    }


def _worker_environment() -> dict[str, Any]:
    """Let workers keep freed blocks for the next ones.

    Dask has them hand every freed block back to the kernel, which then clears each page of the next one: the kernels of
    this package took 2 to 8 times as long. What a worker keeps is bounded by the trim threshold.
    """
    return {
        **dask.config.get("distributed.nanny.pre-spawn-environ", {}),
        "MALLOC_TRIM_THRESHOLD_": 64 * 2**20,
        "MALLOC_MMAP_THRESHOLD_": 8 * 2**20,
    }


def _start(opened: ExitStack, kind: str, workers: int | None, memory_limit: str | int | None, dashboard: str) -> Client:
    """Start a cluster on this machine that listens on loopback only."""
    number, processes = CPU_COUNT if workers is None else workers, kind == "local"
    if number < 1:
        raise InputError("a cluster needs a worker", f"workers={workers}", "give --workers 1 or more")

    def make(page: str) -> LocalCluster:
        return LocalCluster(
            n_workers=number if processes else 1,
            threads_per_worker=1 if processes else number,
            processes=processes,
            host=LOOPBACK if processes else None,
            dashboard_address=page or FREE_PORT,  # None would serve bare pages on port 8787
            scheduler_kwargs={"dashboard": bool(page)},
            worker_dashboard_address=None if processes else FREE_PORT,  # None: a thread's is on every interface
            **({} if memory_limit is None else {"memory_limit": _bytes(memory_limit)}),
        )

    client = _launch(opened, make, dashboard, kind)
    if processes:
        client.register_plugin(_Quiet())
    return client


def _unlike_workers(
    workers: Mapping[str, Mapping[str, Any]],
    memory_limit: str | int | None,
    host: str,
    scheduler_file: Path | None,
    page: str,
) -> SpecCluster:
    limit = parse_memory_limit("auto", 1, len(workers), logger=log) if memory_limit is None else _bytes(memory_limit)
    shared = {"host": host, "nthreads": 1, "memory_limit": limit, "dashboard": False, "silence_logs": logging.WARNING}
    scheduler = {
        "host": host, "port": 0, "dashboard": bool(page), "dashboard_address": page or FREE_PORT,
        "scheduler_file": None if scheduler_file is None else str(scheduler_file),
    }  # fmt: skip
    return SpecCluster(
        scheduler={"cls": Scheduler, "options": scheduler},
        workers={name: {"cls": Nanny, "options": {**shared, **options}} for name, options in workers.items()},
        silence_logs=logging.WARNING,
    )


def _launch(opened: ExitStack, make: Callable[[str], SpecCluster], dashboard: str, item: str) -> Client:
    """Start what ``make(page)`` makes, with the environment that workers need and the dashboard's link."""
    page, link = _dashboard(dashboard)
    opened.enter_context(dask.config.set({"distributed.dashboard.link": link}))
    opened.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ": _worker_environment()}))
    if not page:  # nobody will look at what takes a worker 30 MB and more
        opened.enter_context(dask.config.set({"distributed.worker.profile.enabled": False}))
    try:
        cluster = make(page)
    except RuntimeError as error:
        mend = 'see the log above; a script must open it under `if __name__ == "__main__":`'
        raise RunError("the cluster did not start", item, mend) from error
    return opened.enter_context(Client(opened.enter_context(cluster)))


def _connect(opened: ExitStack, address: str) -> Client:
    """Connect to a scheduler that someone else started, and await its first worker."""
    try:
        _host_port(address)
        client = opened.enter_context(Client(address, timeout=CONNECT_S))
    except (OSError, TypeError, ValueError) as error:  # TypeError: tls:// without certificates
        mend = "start one with `dask scheduler`; tls:// needs distributed.comm.tls in Dask's configuration"
        raise InputError(f"no scheduler answers: {error}", address, mend) from error
    try:
        client.wait_for_workers(1, timeout=WORKERS_S)
    except TimeoutError as error:
        what = f"the scheduler has no worker after {WORKERS_S} s"
        raise RunError(what, address, f"start one with `dask worker {address}`") from error
    return client


def _host_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    if parts.port is None:
        raise ValueError("the port is missing")
    return parts.hostname or LOOPBACK, parts.port


def _dashboard(address: str) -> tuple[str, str]:
    """Where to listen, and the template of the link; both empty for no dashboard."""
    if address in ("", "none"):
        return "", ""
    try:
        host, port = _host_port(f"//{address}" if ":" in address else f"//:{address}")
    except ValueError as error:
        raise InputError("the dashboard's address cannot be read", address, "give host:port, or none") from error
    # Dask would name the host that the scheduler has, which for threads is not the page's.
    seen = LOOPBACK if host == "0.0.0.0" else host  # noqa: S104
    return f"{host}:{port}", dask.config.get("distributed.dashboard.link").replace("{host}", seen)


def _bytes(memory_limit: str | int) -> int:
    try:
        number = parse_bytes(memory_limit)
    except ValueError:
        number = 0
    if number < 1:
        raise InputError("the memory limit is not a size", str(memory_limit), "give --memory-limit as 4GiB")
    return int(number)


class _Quiet(WorkerPlugin):
    """Keeps a worker process from logging what its own closing cuts off, and errors that are raised anyway.

    It logs as JSON where this process does.

    Ctrl-C goes to the workers of a terminal's command, too; it is the command that ends them.
    """

    name = "lakescale-quiet"

    def __init__(self) -> None:
        self._as_json = is_json()

    def setup(self, worker: Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._as_json:
            log_as_json(logging.WARNING)

        def wanted(record: logging.LogRecord) -> bool:
            closing = worker.status in (Status.closing, Status.closed)
            return not closing and not str(record.msg).startswith("Compute Failed")

        for handler in (*logging.getLogger("distributed").handlers, *logging.getLogger().handlers):
            handler.addFilter(wanted)


def _hush(*, on: bool) -> None:
    for handler in logging.getLogger("distributed").handlers:
        (handler.addFilter if on else handler.removeFilter)(CLOSING)
