"""Options that several commands share, each declared once, and how a command logs."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer

from lakescale.logs import EVENT, Stderr, log_as_json
from lakescale.schema import without_secrets

TEXT, JSON = "text", "json"
_SIGNERS = ("aiobotocore", "boto3", "botocore", "fsspec", "rasterio", "s3fs", "urllib3")
"""Libraries that log, for debugging, what they sign and with what."""
_RAISED_ANYWAY = {
    "distributed.worker": ("Compute Failed",),
    "rasterio._env": ("CPLE_AppDefined in HTTP response code",),
}
"""Beginnings of such messages, by their logger."""


def choose_format(chosen: str | None) -> str | None:
    """Log as JSON from now on, where that is asked for.

    Raises
    ------
    typer.BadParameter
        For another format.
    """
    if chosen not in (None, TEXT, JSON):
        raise typer.BadParameter(f"{chosen!r} is neither {TEXT} nor {JSON}")
    if chosen == JSON:
        _clear()
        log_as_json(logging.INFO)
        for handler in logging.getLogger().handlers:
            _quieten(handler)
    return chosen


def log_as_text(*, show_all: bool) -> None:
    """Log what lakescale says, and warnings of others, as plain lines on stderr; or all there is."""
    handler = Stderr()
    handler.setFormatter(_WithoutSecrets("%(message)s"))
    handler.addFilter(_in_words)
    _clear()
    logging.getLogger().addHandler(handler)
    _quieten(handler)
    _log_all(show_all)


class _WithoutSecrets(logging.Formatter):
    """Leaves out of what is logged what URLs hold of users, passwords and queries; of tracebacks, too."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def _log_all(asked: bool) -> bool:
    """Log everything from now on, where that is asked for."""
    if asked:
        logging.getLogger().setLevel(logging.DEBUG)
        for name in _SIGNERS:
            logging.getLogger(name).setLevel(logging.INFO)
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.DEBUG)
            handler.filters = [one for one in handler.filters if one not in (_worth_telling, _no_dump, _in_words)]
    return asked


def _clear() -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.setLevel(logging.INFO)


def _quieten(handler: logging.Handler) -> None:
    handler.addFilter(_worth_telling)
    handler.addFilter(_no_dump)


def _no_dump(record: logging.LogRecord) -> bool:
    """Drop what a worker, or GDAL of a server, logs of an error that is raised anyway."""
    return not record.getMessage().startswith(_RAISED_ANYWAY.get(record.name, ("\0",)))


def _in_words(record: logging.LogRecord) -> bool:
    """Drop what is told to machines."""
    return not hasattr(record, EVENT)


def _worth_telling(record: logging.LogRecord) -> bool:
    """Let through what lakescale says, and warnings of others (distributed logs every connection)."""
    return record.levelno >= logging.WARNING or record.name.startswith("lakescale")


Debug = Annotated[bool, typer.Option("--debug", callback=_log_all, help="Show tracebacks and debug logs.")]
LogFormat = Annotated[
    str | None,
    typer.Option("--log-format", callback=choose_format, is_eager=True, help="text, or json: a line an event [text]."),
]
PerformanceReport = Annotated[
    bool, typer.Option("--performance-report", help="Write Dask's report of all tasks, dask-report.html, too.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")]

Cluster = Annotated[str | None, typer.Option(help="local, threads, or a scheduler's address [local].")]
Workers = Annotated[int | None, typer.Option(min=1, help="Number of workers [one a core].")]
MemoryLimit = Annotated[str | None, typer.Option(help="Memory of one worker, such as 4GiB.")]
Dashboard = Annotated[str | None, typer.Option(help="Address of the dashboard [127.0.0.1:0]; none for off.")]

DemNodata = Annotated[float | None, typer.Option(help="Value that means no elevation.")]
Bands = Annotated[str | None, typer.Option(help="Names of the bands, in order: red,green,blue.")]
Scale = Annotated[float | None, typer.Option(help="Reflectance = number * scale + offset.")]
Offset = Annotated[float | None, typer.Option(help="See --scale.")]
Nodata = Annotated[str | None, typer.Option(help="Value that means no data, or 'cup'.")]
Chunks = Annotated[int | None, typer.Option(help="Side of a chunk, pixels [2048].")]


def cluster_options(values: dict[str, Any]) -> dict[str, Any]:
    """Sort the options of a cluster as a recipe takes them."""
    named = {name: values[name] for name in ("workers", "memory_limit", "dashboard")}
    named |= {"kind": values["cluster"], "performance_report": values["performance_report"] or None}
    return {f"cluster__{name}": value for name, value in named.items()}


def show(told: dict[str, Any]) -> None:
    """Print what a dry run tells."""
    for name, value in told.items():
        typer.echo(f"{name}: {value}")


def read_names(text: str | None) -> list[str] | None:
    """Read names from a list with commas."""
    return [name.strip() for name in text.split(",")] if text else None


def number_or_word(text: str | None) -> Any:
    """Read a number, or leave a word as it is."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return text
