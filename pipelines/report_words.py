"""Numbers of a report in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

UNKNOWN = "not known"
_DIGITS, _DIGITS_OF_ERROR = 3, 2
_LEAST_PERCENT = 0.1
_BYTES = "B", "kB", "MB", "GB", "TB"
_LABELS = {
    "seconds": "time, s",
    "task_seconds": "time of all tasks, s",
    "transfer_seconds": "moving between workers, s",
    "spill_seconds": "to disk and back, s",
    "bytes_read": "read",
    "bytes_written": "written",
    "bytes_moved": "moved between workers",
    "bytes_spilled": "moved to disk",
    "peak_memory_mb": "most memory of a worker",
    "driver_memory_mb": "most memory of the main process",
    "memory_limit_bytes": "memory of all workers, at most",
}


def tell_number(value: float, places: int | None = None) -> str:
    """Give three digits that count, without an exponent; or so many places.

    >>> tell_number(0.012345), tell_number(1234.5), tell_number(3.0), tell_number(3.0, 2)
    ('0.0123', '1,234', '3', '3.00')
    """
    if places is not None:
        return f"{value:,.{places}f}"
    if value == 0:
        return "0"
    text = f"{value:,.{_places(value, _DIGITS)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def tell_with_error(value: float, error: float | None) -> str:
    """Tell a value to the last digit that its standard deviation leaves sure, of two.

    >>> tell_with_error(0.629, 0.07891), tell_with_error(0.629, None), tell_with_error(1234.0, 56.7)
    ('0.629 ± 0.079', '0.629', '1,234 ± 57')
    """
    if error is None or not np.isfinite(error) or error <= 0:
        return tell_number(value)
    places = _places(error, _DIGITS_OF_ERROR)
    return f"{tell_number(value, places)} ± {tell_number(error, places)}"


def tell_percent(share: Any, unknown: str = UNKNOWN) -> str:
    """Tell a share in percent; what is little is no 0.0.

    >>> tell_percent(0.1234), tell_percent(0.0001234), tell_percent(0), tell_percent(None)
    ('12.3 %', '0.012 %', '0.0 %', 'not known')
    """
    if share is None or pd.isna(share):
        return unknown
    percent = 100 * float(share)
    return f"{percent:.2g} %" if 0 < percent < _LEAST_PERCENT else f"{percent:.1f} %"


def tell_fact(name: str, value: Any) -> str:
    """Tell what a manifest says of something, by what it is called; nothing where it is not known.

    >>> tell_fact("bytes_read", 3_210_000), tell_fact("peak_memory_mb", 1512.3), tell_fact("tasks", 1234)
    ('3.21 MB', '1.51 GB', '1,234')
    """
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if "bytes" in name or name.endswith("_mb"):
        return spell_bytes(value * (1e6 if name.endswith("_mb") else 1))
    return f"{value:,}" if isinstance(value, int) else tell_number(value)


def spell_bytes(number: float) -> str:
    """Tell bytes, in powers of 1000.

    >>> spell_bytes(12_345_678), spell_bytes(999)
    ('12.3 MB', '999 B')
    """
    power = min(len(_BYTES) - 1, max(0, int(np.floor(np.log10(max(number, 1)) / 3 + 1e-9))))
    return f"{tell_number(number / 1000**power)} {_BYTES[power]}"


def label(name: str) -> str:
    """Say what a fact of a manifest is called.

    >>> label("bytes_read"), label("chunks_written")
    ('read', 'chunks written')
    """
    return _LABELS.get(name, name.replace("_", " "))


def _places(value: float, digits: int) -> int:
    """Places after the point, for so many digits that count."""
    return max(0, digits - 1 - int(np.floor(np.log10(abs(value)))))
