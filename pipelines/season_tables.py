"""Tables of a date in a season's folder: written whole, known by what they were made of, read with care."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geopandas as gpd
import pandas as pd

from lakescale.schema import InputError
from pipelines.run_folder import publish

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOLD, NOTES = "fingerprint", "notes"
"""Attributes of a table: of all that it was made of; what is to be known of it."""


def is_told(path: Path, token: str) -> bool:
    """Tell whether a table is there and was made of the same."""
    try:
        return bool(pd.read_parquet(path, columns=[]).attrs.get(TOLD) == token)
    except (OSError, ValueError):
        return False


def write_told(table: pd.DataFrame, path: Path, token: str, notes: list[str]) -> None:
    """Write a table, with what it was made of.

    Raises
    ------
    RunError
        When the disk refuses.
    """
    table.attrs = {TOLD: token, NOTES: notes}
    publish(path, table.to_parquet)


def read_table(path: Path) -> gpd.GeoDataFrame:
    """Read a table of a date.

    Raises
    ------
    InputError
        When it is damaged.
    """
    return _read(path, gpd.read_parquet, f"delete {path.parent} and run the season again: it maps this date anew")


def read_told(path: Path) -> pd.DataFrame:
    """Read a table of `write_told`, its attributes too.

    Raises
    ------
    InputError
        When it is damaged.
    """
    return _read(path, pd.read_parquet, f"delete {path} and run the season again")


def _read(path: Path, read: Callable[[Path], Any], mend: str) -> Any:
    problem = ""
    try:
        return read(path)
    except Exception as error:  # noqa: BLE001  (Arrow and GEOS have their own for what is damaged)
        problem = str(error).splitlines()[0]
    raise InputError(f"a table of a date is damaged: {problem}", str(path), mend)
