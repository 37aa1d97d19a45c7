"""A run on disk: claimed once, every file written whole or not at all, the manifest last."""

from __future__ import annotations

import errno
import json
import os
import platform
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lakescale import __version__
from lakescale.schema import InputError, LakescaleError, RunError, without_secrets
from lakescale.storage import aside, move, refusal, remove, require_writable
from lakescale.store import remove_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lakescale.storage import Location
    from pipelines.recipe import MapRecipe

MANIFEST, RECIPE, EVIDENCE = "manifest.json", "recipe.yaml", "evidence.zarr"
LAKES_FILE, CANDIDATES_FILE = "lakes.parquet", "candidates.parquet"
OVERVIEW_FILE, REPORT_FILE = "overview.webp", "report.html"
"""The image by itself; the page that shows it all."""
DASK_REPORT = "dask-report.html"
"""Dask's report of all tasks, where it is asked for."""
DATES, QUARANTINE = "dates", "quarantine.json"
"""Of a season: a run for each date, the scenes that are left out."""
_PARTIAL = ".partial"
NOT_SEEN_FILE = "not_seen.parquet"
"""What a date of a season did not see, polygons."""
OF_SEASON = ("depths.parquet", "covers.parquet")
"""What a season adds to the run of a date: what its lakes hold, and what the ground of lakes shows."""
_PRODUCTS = (
    REPORT_FILE, NOT_SEEN_FILE, *OF_SEASON, LAKES_FILE, CANDIDATES_FILE, "candidates_index.parquet", "lakes.gpkg",
    "lake_polygons_test.gpkg", "quicklook.png", OVERVIEW_FILE, DASK_REPORT,
)  # fmt: skip
_FINISHED, _FAILED = "finished", "failed"
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EISDIR)
_PACKAGES = ("dask", "distributed", "xarray", "geopandas", "shapely", "rasterio", "numpy", "numba")


class RunFolder:
    """The folder of one run. Files appear in it under their names only when they are complete."""

    def __init__(self, recipe: MapRecipe) -> None:
        self.path = recipe.out
        self.recipe = recipe
        self.manifest: dict[str, Any] = {"state": "running", **describe_software(), "recipe": recipe.answer}
        self.earlier = _read_manifest(recipe.out / MANIFEST)
        self.announced = self.claimed = False

    @classmethod
    def check(cls, recipe: MapRecipe, *, overwrite: bool = False) -> RunFolder:
        """Look whether the folder may be used; make it where there is none. What it holds stays as it is.

        Raises
        ------
        InputError
            When it holds another run, or files that are no run, or cannot be made.
        """
        folder = cls(recipe)
        folder._refuse_others_work(overwrite=overwrite)
        with writing(recipe.out):
            require_writable(recipe.out)
        return folder

    @property
    def is_same(self) -> bool:
        """Whether the folder holds a run of this recipe."""
        return self.earlier is not None and not _changes(self.earlier["recipe"], self.recipe.answer)

    def announce(self) -> None:
        """Say that a run is on, before it has lakes: evidence that it leaves when it is killed is this recipe's.

        A finished run keeps its manifest until there are new lakes.
        """
        if self.earlier is None or self.earlier.get("state") != _FINISHED:
            self.announced = True
            self._write_manifest()
            self._take_away()
            self.publish(RECIPE, lambda file: file.write_text(self.recipe.to_yaml()))

    def claim(self, evidence: Location | None = None) -> None:
        """Take the folder: say that a run is on, and take away what an earlier one left.

        Called when there is something to write, so that a run that fails before leaves the earlier one whole.

        Parameters
        ----------
        evidence
            The store in the folder that holds this run's evidence, and gets its name; None where it has none.
        """
        self.claimed = True
        self._write_manifest()
        self._take_away()
        with writing(self.path):
            for left_over in (*self.path.glob(f"*{_PARTIAL}*"), self.path / EVIDENCE):
                if left_over != evidence:
                    (remove_store if left_over.suffix == ".zarr" else remove)(left_over)
            if evidence not in (None, self.path / EVIDENCE):
                move(evidence, self.path / EVIDENCE, last="zarr.json")
        self.publish(RECIPE, lambda file: file.write_text(self.recipe.to_yaml()))

    def publish(self, name: str, write: Callable[[Path], Any]) -> Location:
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
        self.manifest |= {**facts, "state": _FINISHED}
        self._write_manifest()

    def fail(self, error: BaseException, **facts: Any) -> bool:
        """Write down that the run failed, as far as the disk allows; a finished run of before stays finished.

        Returns
        -------
        bool
            Whether the folder is this run's now.
        """
        if not self.claimed and isinstance(error, InputError) and self.earlier is None:
            self._withdraw()
            return False
        if not (self.claimed or self.announced) and (isinstance(error, InputError) or self.earlier is not None):
            return False
        self.manifest |= {**facts, "state": _FAILED, "error": without_secrets(str(error)) or type(error).__name__}
        try:
            self._write_manifest()
        except LakescaleError:
            with suppress(LakescaleError):
                (self.path / MANIFEST).unlink(missing_ok=True)  # better no manifest than one that says it runs
        return True

    def _withdraw(self) -> None:
        """Leave a folder that held no run to any recipe."""
        if self.announced:
            for name in (MANIFEST, RECIPE):
                (self.path / name).unlink(missing_ok=True)

    def _take_away(self) -> None:
        """Take away an earlier run's lakes and what goes with them."""
        models = self.earlier["recipe"].get("models", ()) if self.earlier else ()
        with writing(self.path):
            names = [str(model.get("name")) for model in models]
            for name in (*_PRODUCTS, *(candidates_of(name) for name in names if name.isidentifier())):
                remove(self.path / name)

    def _refuse_others_work(self, *, overwrite: bool) -> None:
        path = self.path
        if path.exists() and not path.is_dir():
            raise InputError("the output is a file, not a folder", str(path), "give another --out")
        inside: list[Location] = [*path.iterdir()] if path.exists() else []
        for one in inside:
            if isinstance(one, Path) and one.is_symlink():
                what = "the output folder holds a link, which may lead out of it"
                raise InputError(what, str(one), "delete it, or give an --out on the disk that it leads to")
        if all(_PARTIAL in one.name for one in inside):
            return
        if self.earlier is None:
            raise InputError("the output folder holds files that are no run", str(path), "give another --out")
        changed = _changes(self.earlier["recipe"], self.recipe.answer)
        if changed and not overwrite:
            what = f"the output folder holds another run (it differs in {', '.join(changed)})"
            raise InputError(what, str(path), "give another --out, or --overwrite to replace it")

    def _write_manifest(self) -> None:
        self.publish(MANIFEST, lambda file: file.write_text(json.dumps(self.manifest, indent=2, default=str) + "\n"))


def publish(target: Location, write: Callable[[Path], Any]) -> Location:
    """Write a file aside, then give it its name; nothing is left of it where that fails.

    Raises
    ------
    RunError
        When it cannot be written.
    """
    with writing(target), aside(target) as partial:
        write(partial)
    return target


@contextmanager
def writing(target: Location) -> Iterator[None]:
    """Turn what a disk refuses, by whoever's error, into ours."""
    problem = ""
    try:
        yield
    except LakescaleError:
        raise
    except OSError as error:
        problem = refusal(error)
        if error.errno in _NOT_ALLOWED:
            raise InputError(f"cannot write there: {problem}", str(target), "give another --out") from None
    except Exception as error:  # noqa: BLE001  (GDAL and Arrow have their own errors for a disk that refuses)
        problem = str(error) or type(error).__name__
    if problem:
        raise RunError(f"cannot write: {problem}", str(target), "make room on the disk, or give another --out")


def ingest_manifest(store: Any) -> Any:
    """Name the file that tells how a cube was written, by the last ingest that wrote to it."""
    return store.with_name(f"{store.stem}.ingest.json")


def candidates_of(model: str) -> str:
    """Name the file of a model's candidates."""
    return f"candidates_{model}.parquet"


def partial_name(name: str) -> str:
    """Name what is not whole yet."""
    return "{0}{2}.{1}".format(*name.rsplit(".", 1), _PARTIAL)


def _read_manifest(path: Location) -> dict[str, Any] | None:
    """Read a manifest of ours, with its recipe's answer; None where it is none."""
    try:
        manifest = dict(json.loads(path.read_text()))
        return manifest | {"recipe": dict(manifest["recipe"])} if "lakescale" in manifest["versions"] else None
    except LakescaleError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _changes(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name what differs; as text, since NaN is no NaN."""
    keys = sorted({*earlier, *now})
    return [key for key in keys if json.dumps(earlier.get(key)) != json.dumps(now.get(key))]


def describe_software() -> dict[str, Any]:
    """Tell versions and machine, as a manifest does."""
    versions = {
        "lakescale": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
    memory = psutil.virtual_memory().total
    machine = {"system": platform.platform(), "cpus": os.cpu_count(), "memory_gb": round(memory / 1e9, 1)}
    return {"versions": versions, "machine": machine}
