"""A run on disk: claimed once, every file written whole or not at all, the manifest last."""

from __future__ import annotations

import errno
import json
import os
import platform
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lakescale import __version__
from lakescale.schema import InputError, LakescaleError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipelines.recipe import MapRecipe

MANIFEST, RECIPE = "manifest.json", "recipe.yaml"
_PARTIAL = ".partial"
_PRODUCTS = ("lakes.parquet", "candidates.parquet", "lakes.gpkg", "quicklook.png")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EISDIR)
_PACKAGES = ("dask", "distributed", "xarray", "geopandas", "shapely", "rasterio", "numpy", "numba")


class RunFolder:
    """The folder of one run. Files appear in it under their names only when they are complete."""

    def __init__(self, recipe: MapRecipe) -> None:
        self.path = recipe.out
        self.recipe = recipe
        self.manifest: dict[str, Any] = {"state": "running", "versions": _versions(), "recipe": recipe.answer}
        self.claimed = False

    @classmethod
    def check(cls, recipe: MapRecipe, *, overwrite: bool = False) -> RunFolder:
        """Look whether the folder may be used; make it where there is none. What it holds stays as it is.

        Raises
        ------
        InputError
            When it holds another run, or files that are no run, or cannot be made.
        """
        _refuse_others_work(recipe, overwrite=overwrite)
        folder = cls(recipe)
        with writing(recipe.out):
            recipe.out.mkdir(parents=True, exist_ok=True)
        return folder

    def claim(self) -> None:
        """Take the folder: say that a run is on, and take away what an earlier one left.

        Called when there is something to write, so that a run that fails before leaves the earlier one whole.
        """
        self.claimed = True
        self._write_manifest()
        with writing(self.path):
            for left_over in (*self.path.glob(f"*{_PARTIAL}*"), *(self.path / name for name in _PRODUCTS)):
                left_over.unlink(missing_ok=True)
        self.publish(RECIPE, lambda file: file.write_text(self.recipe.to_yaml()))

    def publish(self, name: str, write: Callable[[Path], Any]) -> Path:
        """Write a file under another name, then give it its own.

        Parameters
        ----------
        name
            Name in the folder.
        write
            Called with the path to write to.

        Raises
        ------
        RunError
            When it cannot be written; nothing is left of it then.
        """
        return publish(self.path / name, write)

    def finish(self, **facts: Any) -> None:
        """Write the manifest of a finished run."""
        self.manifest |= {**facts, "state": "finished"}
        self._write_manifest()

    def fail(self, error: BaseException) -> None:
        """Write down that the run failed, as far as the disk allows; a finished run of before stays finished."""
        if not self.claimed and (isinstance(error, InputError) or (self.path / MANIFEST).exists()):
            return
        self.manifest |= {"state": "failed", "error": str(error) or type(error).__name__}
        try:
            self._write_manifest()
        except RunError:
            (self.path / MANIFEST).unlink(missing_ok=True)  # better no manifest than one that says it runs

    def _write_manifest(self) -> None:
        self.publish(MANIFEST, lambda file: file.write_text(json.dumps(self.manifest, indent=2, default=str) + "\n"))


def publish(target: Path, write: Callable[[Path], Any]) -> Path:
    """Write a file under another name, then give it its own; nothing is left of it where that fails.

    Raises
    ------
    RunError
        When it cannot be written.
    """
    partial = target.with_name(f"{target.stem}{_PARTIAL}{target.suffix}")
    with writing(target):
        try:
            write(partial)
            _sync(partial)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn what a disk refuses, by whoever's error, into ours."""
    problem = ""
    try:
        yield
    except LakescaleError:
        raise
    except OSError as error:
        problem = "no space left on the disk" if error.errno in _FULL else error.strerror or str(error)
        if error.errno in _NOT_ALLOWED:
            raise InputError(f"cannot write there: {problem}", str(target), "give another --out") from None
    except Exception as error:  # noqa: BLE001  (GDAL and Arrow have their own errors for a disk that refuses)
        problem = str(error) or type(error).__name__
    if problem:
        raise RunError(f"cannot write: {problem}", str(target), "make room on the disk, or give another --out")


def _refuse_others_work(recipe: MapRecipe, *, overwrite: bool) -> None:
    path = recipe.out
    if path.exists() and not path.is_dir():
        raise InputError("the output is a file, not a folder", str(path), "give another --out")
    if not path.exists() or all(_PARTIAL in inside.name for inside in path.iterdir()):
        return
    earlier = _read_manifest(path / MANIFEST)
    if earlier is None:
        raise InputError("the output folder holds files that are no run", str(path), "give another --out")
    changed = _changes(earlier, recipe.answer)
    if changed and not overwrite:
        what = f"the output folder holds another run (it differs in {', '.join(changed)})"
        raise InputError(what, str(path), "give another --out, or --overwrite to replace it")


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """Read the recipe's answer in a manifest of ours; None where it is none."""
    try:
        manifest = json.loads(path.read_text())
        return dict(manifest["recipe"]) if "lakescale" in manifest["versions"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _changes(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name what differs; as text, since NaN is no NaN."""
    keys = sorted({*earlier, *now})
    return [key for key in keys if json.dumps(earlier.get(key)) != json.dumps(now.get(key))]


def _sync(path: Path) -> None:
    """Have the disk take the bytes before the name: a full disk may show only here."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _versions() -> dict[str, str]:
    return {
        "lakescale": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
