"""A cluster for this machine's GPUs and CPUs, which runs in a terminal of its own until it is stopped."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from dask.system import CPU_COUNT

from lakescale.cluster import FREE_PORT, LOOPBACK, describe, open_workers
from lakescale.placement import GPU
from lakescale.schema import InputError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable by which CUDA is told its devices."""
ANSWER_S = 60
"""Seconds to wait for ``nvidia-smi``, which is slow where the driver does not stay loaded."""


class ClusterPlan(NamedTuple):
    """What to start."""

    cpu_workers: int
    gpus: tuple[str, ...]
    """As CUDA knows them: numbers or UUIDs; one worker for each."""

    def workers(self) -> dict[str, dict[str, Any]]:
        """Give each worker its options: which GPU it sees, if any, and that it has one."""
        hidden = {f"cpu-{i}": {"env": {VISIBLE: ""}} for i in range(self.cpu_workers)}
        seen = {
            f"gpu-{i}": {"env": {VISIBLE: gpu}, "resources": {GPU: 1}, **_near(gpu)} for i, gpu in enumerate(self.gpus)
        }
        return hidden | seen


def start_cluster(
    plan: ClusterPlan,
    *,
    memory_limit: str | None = None,
    dashboard: str = FREE_PORT,
    host: str = LOOPBACK,
    scheduler_file: Path | None = None,
    tell: Callable[[str], None] = print,
) -> None:
    """Start a cluster, tell how to reach it, and keep it until Ctrl-C.

    Parameters
    ----------
    plan
        By `plan_cluster`.
    memory_limit, dashboard, host, scheduler_file
        As for `lakescale.cluster.open_workers`.
    tell
        Called with each line that a user should read.

    Raises
    ------
    InputError
        An option that cannot be used.
    RunError
        A cluster that does not start.
    """
    with open_workers(
        plan.workers(), memory_limit=memory_limit, dashboard=dashboard, host=host, scheduler_file=scheduler_file
    ) as client:
        address, found = client.scheduler.address, describe(client)
        tell(f"scheduler: {address}")
        tell(f"dashboard: {found['dashboard'] or 'none'}")
        memory = int(found["memory_limit_bytes"]) / int(found["workers"]) / 2**30
        tell(f"workers: {plan.cpu_workers} for CPUs, {len(plan.gpus)} for GPUs, {memory:.1f} GiB each")
        tell(f"give the other commands --cluster {address}; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def plan_cluster(
    workers: int | None = None, gpus: int | None = None, *, find: Callable[[], Sequence[str]] | None = None
) -> ClusterPlan:
    """Plan a worker for each GPU, and workers for the CPUs that are left.

    Parameters
    ----------
    workers
        CPU workers; by default one for each CPU that no GPU worker takes, at least one.
    gpus
        GPUs to use, the first ones; by default all.
    find
        Finds the GPUs; by default `find_gpus`. Not called where ``gpus`` is 0.

    Raises
    ------
    InputError
        For more GPUs than there are, negative numbers, or no worker at all.
    """
    for name, number in (("workers", workers), ("gpus", gpus)):
        if number is not None and number < 0:
            raise InputError(f"there are no {number} {name}", f"--{name} {number}", "give 0 or more")
    found = [] if gpus == 0 else (find or find_gpus)()
    if gpus is not None and gpus > len(found):
        raise InputError(f"this machine has {len(found)} GPUs", f"--gpus {gpus}", f"give at most {len(found)}")
    used = tuple(found[:gpus])
    count = max(CPU_COUNT - len(used), 1) if workers is None else workers
    if not count and not used:
        raise InputError("a cluster needs a worker", f"--workers {workers}", "give --workers 1 or more, or --gpus")
    return ClusterPlan(count, used)


def find_gpus() -> list[str]:
    """List the GPUs that this process may use, without loading CUDA.

    Returns
    -------
    list[str]
        What `VISIBLE` names, where it is set (batch schedulers set it), else the UUIDs that ``nvidia-smi`` tells; none
        where there is no ``nvidia-smi``.

    Raises
    ------
    RunError
        When ``nvidia-smi`` fails.
    """
    if VISIBLE in os.environ:
        return _visible(os.environ[VISIBLE].split(","))
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    asked = [command, "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=ANSWER_S)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stdout", None) or error).strip()
        raise RunError(f"nvidia-smi does not tell the GPUs: {said}", command, "give --gpus 0 for none") from error
    return [line.strip() for line in told.stdout.splitlines() if line.strip()]


def _near(gpu: str) -> dict[str, Any]:
    """Keep a GPU's worker on the CPUs that are wired to it, where dask-cuda is installed, which knows them."""
    if importlib.util.find_spec("dask_cuda") is None:
        return {}
    plugins, utils = (importlib.import_module(f"dask_cuda.{name}") for name in ("plugins", "utils"))
    return {"plugins": [plugins.CPUAffinity(utils.get_cpu_affinity(gpu))]}


def _visible(names: Iterable[str]) -> list[str]:
    """Take devices as CUDA does, which stops at the first that is none."""
    found: list[str] = []
    for name in (name.strip() for name in names):
        if not name or name.startswith("-") or name == "NoDevFiles":
            break
        found.append(name)
    return found
