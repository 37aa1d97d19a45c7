"""A run on disk: claimed once, every file written whole or not at all, the manifest last."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
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
_PACKAGES = ("dask", "distributed", "xarray", "geopandas", "shapely", "rasterio", "numpy", "numba")


class RunFolder:
    """The folder of one run. Files appear in it under their names only when they are complete."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def claim(cls, recipe: MapRecipe, *, overwrite: bool = False) -> RunFolder:
        """Make the folder, or take it over from a run of the same recipe.

        Raises
        ------
        InputError
            When it holds another run, or files that are no run.
        RunError
            When it cannot be written.
        """
        path = recipe.out
        _refuse_others_work(path, recipe, overwrite=overwrite)
        folder = cls(path, {"state": "running", "versions": _versions(), "recipe": recipe.answer})
        with folder._writing(path):
            path.mkdir(parents=True, exist_ok=True)
            for left_over in (*path.glob(f"*{_PARTIAL}"), *(path / name for name in _products(path))):
                left_over.unlink(missing_ok=True)
        folder.publish(RECIPE, lambda file: file.write_text(recipe.to_yaml()))
        folder._write_manifest()
        return folder

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
        target = self.path / name
        partial = target.with_name(f"{target.stem}{_PARTIAL}{target.suffix}")
        with self._writing(target):
            try:
                write(partial)
                _sync(partial)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        return target

    def finish(self, **facts: Any) -> None:
        """Write the manifest of a finished run."""
        self.manifest |= {**facts, "state": "finished"}
        self._write_manifest()

    def fail(self, error: BaseException) -> None:
        """Write down that the run failed, as far as the disk allows."""
        self.manifest |= {"state": "failed", "error": str(error) or type(error).__name__}
        try:
            self._write_manifest()
        except RunError:
            (self.path / MANIFEST).unlink(missing_ok=True)  # better no manifest than one that says it runs

    def _write_manifest(self) -> None:
        self.publish(MANIFEST, lambda file: file.write_text(json.dumps(self.manifest, indent=2, default=str) + "\n"))

    @contextmanager
    def _writing(self, target: Path) -> Iterator[None]:
        problem = ""
        try:
            yield
        except LakescaleError:
            raise
        except OSError as error:
            problem = error.strerror or str(error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                problem = "no space left on the disk"
        except Exception as error:  # noqa: BLE001  (GDAL and Arrow have their own errors for a disk that refuses)
            problem = str(error) or type(error).__name__
        if problem:
            free = _free_bytes(self.path)
            raise RunError(
                f"cannot write: {problem} ({free / 1e6:.0f} MB free)", str(target), "make room, or give another --out"
            )


def _refuse_others_work(path: Path, recipe: MapRecipe, *, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise InputError("the output is a file, not a folder", str(path), "give another --out")
    if not path.exists() or not any(path.iterdir()):
        return
    manifest = path / MANIFEST
    mend = "give another --out, or --overwrite to replace it"
    if not manifest.exists():
        if not (path / RECIPE).exists():
            raise InputError("the output folder holds files that are no run", str(path), "give another --out")
        return
    try:
        earlier = json.loads(manifest.read_text()).get("recipe")
    except (OSError, ValueError):
        earlier = None
    if earlier != recipe.answer and not overwrite:
        changed = sorted(k for k, v in recipe.answer.items() if not isinstance(earlier, dict) or earlier.get(k) != v)
        raise InputError(f"the output folder holds another run (it differs in {', '.join(changed)})", str(path), mend)


def _products(path: Path) -> list[str]:
    """Files of an earlier run in the folder; the manifest goes first, so that a kill leaves no finished-looking run."""
    names = [MANIFEST, "lakes.parquet", "candidates.parquet", "lakes.gpkg", "quicklook.png", RECIPE]
    return [name for name in names if (path / name).exists()]


def _sync(path: Path) -> None:
    """Have the disk take the bytes before the name: a full disk may show only here."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _free_bytes(path: Path) -> int:
    existing = next(p for p in (path, *path.absolute().parents) if p.exists())
    return shutil.disk_usage(existing).free


def _versions() -> dict[str, str]:
    return {
        "lakescale": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
