"""Files and folders of a catalogue: all written aside first, then each put in its place, whole."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakescale.storage import locked
from pipelines.run_folder import writing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAGING = "catalogue.partial"
_OLD = ".old.partial"


@contextmanager
def staged(folder: Path, *, first: str) -> Iterator[Path]:
    """Give a folder to write products in; at the end they go, one by one, to the folder that is meant.

    While products are written, nothing changes under their names. A product that is a folder replaces the earlier one
    wholly. What a killed run left is mended or taken away first.

    Parameters
    ----------
    folder
        Where the products are to be.
    first
        Name of the product that gets its place before the others: it tells whose they are.

    Raises
    ------
    InputError
        When the folder cannot be written.
    RunError
        When another process writes there, or the disk refuses; the earlier products are whole then.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder), writing(folder):
        _recover(folder)
        staging = folder / STAGING
        try:
            staging.mkdir()
            yield staging
            _sync(staging)
            for product in sorted(staging.iterdir(), key=lambda path: (path.name != first, path.name)):
                put(product, folder / product.name)
            _sync_folder(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def put(product: Path, target: Path) -> None:
    """Give a file or a folder its name, in place of what has it now."""
    if not target.is_dir():
        product.replace(target)
        return
    old = target.with_name(f"{target.name}{_OLD}")
    target.rename(old)  # no system call of POSIX puts one folder in place of another
    try:
        product.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Give folders their names back that a killed run had put aside, and take away what it had not finished."""
    for old in folder.glob(f"*{_OLD}"):
        target = old.with_name(old.name.removesuffix(_OLD))
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)
    shutil.rmtree(folder / STAGING, ignore_errors=True)


def _sync(root: Path) -> None:
    """Have the disk take all bytes before the names."""
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
