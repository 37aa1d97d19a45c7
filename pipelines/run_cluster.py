"""The cluster of a run: opened as its recipe says, looked at by its journal, and reported on where that is asked."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import performance_report

from lakescale.cluster import open_cluster
from lakescale.schema import LakescaleError
from pipelines.run_folder import DASK_REPORT, publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

    from lakescale.stages import Journal
    from lakescale.storage import Location
    from pipelines.recipe import ClusterRecipe

_LOG = logging.getLogger(f"lakescale.{__name__}")


class DaskReport:
    """Dask's performance report of a run: taken while its cluster is there, written when its folder is."""

    def __init__(self) -> None:
        self._page: str | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take it of what is computed within; of Dask's last 100,000 tasks, whoever asked for them."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, DASK_REPORT)
            report = performance_report(filename=str(file), mode="inline")  # with its scripts: it needs no network
            report.__enter__()
            try:
                yield
            finally:
                try:
                    report.__exit__(None, None, None)
                    self._page = file.read_text()
                except Exception as error:  # noqa: BLE001  (whatever a lost scheduler raises)
                    _LOG.warning("there is no report of Dask: %s", error)

    def write(self, target: Location) -> None:
        """Write it, where it was asked for and taken; no run fails for it."""
        page = self._page
        if page is not None:
            try:
                publish(target, lambda file: file.write_text(page))
            except LakescaleError as error:
                _LOG.warning("there is no report of Dask: %s", error)


@contextmanager
def open_run_cluster(asked: ClusterRecipe, journal: Journal, report: DaskReport) -> Iterator[Client]:
    """Open the cluster of a recipe for the length of a ``with`` block, and have a journal look at its processes."""
    with ExitStack() as opened:
        client = opened.enter_context(open_cluster(**asked.options))
        journal.connect(client)
        if asked.performance_report:
            opened.enter_context(report.taken())
        yield client
