"""Logs as JSON, one line an event, of this process and of the workers that it starts."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from contextvars import ContextVar
from typing import Any, TextIO

from lakescale.schema import without_secrets

EVENT = "event"
"""Attribute of a record that is more than its message: a dict with ``event``, what happened, and its figures."""
_HAVE_THEIR_OWN = "distributed", "distributed.client", "distributed.gc", "bokeh", "tornado", "tornado.application"
"""Loggers to which Dask, when it is imported first, gives handlers of their own."""
PLACE: ContextVar[str] = ContextVar("place", default="")
"""Names of the stages that run, the outermost first, as in ``dates/seen``."""


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: ``time`` (UTC), ``level``, ``event``, ``message``, ``logger``, ``stage``.

    ``event`` is what the record says of itself, see `EVENT`, and else ``message``, ``warning`` or ``error``, by its
    level. A traceback stands under ``traceback``. URLs are told without users, passwords and
    queries.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, without its end."""
        level = record.levelno
        kind = "error" if level >= logging.ERROR else "warning" if level >= logging.WARNING else "message"
        told: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            EVENT: kind,
            "message": record.getMessage(),
            "logger": record.name,
        }
        if place := PLACE.get():
            told["stage"] = place
        told |= getattr(record, EVENT, {})
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        told = {name: without_secrets(value) if isinstance(value, str) else value for name, value in told.items()}
        return json.dumps(told, default=str)


class Stderr(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at the time: bars put what is written above themselves."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Standard error."""
        return sys.stderr


def is_json() -> bool:
    """Tell whether this process logs as JSON."""
    return any(isinstance(one.formatter, JsonLines) for one in logging.getLogger().handlers)


def log_as_json(level: int) -> None:
    """Have this process log as JSON on stderr, from a level on; warnings of Python and of Dask's loggers, too."""
    handler = Stderr()
    handler.setFormatter(JsonLines())
    handler.setLevel(level)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(capture=True)
    for name in _HAVE_THEIR_OWN:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
