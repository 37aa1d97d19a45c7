"""The folder of a season: one run at a time, one grid for good, scenes that are left out, and the manifest."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import shutil
import socket
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from affine import Affine
from odc.geo.geobox import GeoBox

from lakescale.grid import Grid
from lakescale.schema import InputError, RunError, without_secrets
from lakescale.storage import is_running
from lakescale.store import same_grid
from pipelines.run_folder import MANIFEST, QUARANTINE, RECIPE, REPORT_FILE, RunFolder, publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lakescale.stages import Journal
    from pipelines.season_recipe import SeasonRecipe
    from pipelines.season_scenes import SeasonScene

SINKS, CATALOGUE = "sinks.zarr", "catalogue.json"
"""Of a season's folder: the sinks, what the catalogue is made of."""
_LOCK, _GRID, _KIND, _UNFINISHED = ".lock", "grid", "season", ".partial."
_FINISHED, _PARTIAL, _FAILED = "finished", "partial", "failed"


@dataclass(frozen=True)
class LeftOut:
    """A scene that could not be mapped."""

    date: str
    scene: str
    reason: str
    may_pass: bool
    """Whether the fault may pass: the next run then tries it again; else only when its fingerprint is another one."""
    fingerprint: str
    """Of its files, and of the options of the run."""


class SeasonFolder:
    """What is known of a season's folder, and what is written to it beside the dates."""

    def __init__(self, recipe: SeasonRecipe) -> None:
        self.path = recipe.out
        self._recipe = recipe
        self._run = RunFolder(recipe)
        self.left_out = _read_left_out(self.path / QUARANTINE)

    def refuse_others_work(self) -> None:
        """Refuse a folder that holds something else; nothing is changed.

        Raises
        ------
        InputError
            When it holds files that are no season.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError("the output is a file, not a folder", str(self.path), "give another out")
        earlier = self._run.earlier
        if self._contents() and (earlier is None or _KIND not in earlier):
            what = "the output folder holds files that are no season"
            raise InputError(what, str(self.path), "give another out")

    def clear(self) -> None:
        """Take the season in the folder away."""
        (self.path / MANIFEST).unlink(missing_ok=True)
        for one in self._contents():
            shutil.rmtree(one) if one.is_dir() else one.unlink(missing_ok=True)
        self._run, self.left_out = RunFolder(self._recipe), []

    def asks_again(self, name: str) -> bool:
        """Tell whether the recipe of the season in the folder has the same entry."""
        earlier = (self._run.earlier or {}).get("recipe", {})
        return name in earlier and earlier[name] == self._recipe.answer[name]

    def _contents(self) -> list[Path]:
        if not self.path.is_dir():
            return []
        return [one for one in self.path.iterdir() if one.name != _LOCK and _UNFINISHED not in one.name]

    def stored_grid(self) -> Grid | None:
        """Give the grid of the season in the folder; None where there is none yet."""
        told = (self._run.earlier or {}).get(_KIND, {}).get(_GRID)
        return Grid(GeoBox(tuple(told["shape"]), Affine(*told["transform"]), told["crs"])) if told else None

    def refuse_another_grid(self, grid: Grid) -> None:
        """Refuse a grid that is not that of the season in the folder.

        Raises
        ------
        InputError
            With both grids, and what to do.
        """
        stored = self.stored_grid()
        if stored is not None and not same_grid(stored, grid):
            what = f"the season in the folder has another grid: {describe_grid(stored)}, and not {describe_grid(grid)}"
            mend = "leave the grid out of the recipe, give another out, or --overwrite to begin anew"
            raise InputError(what, str(self.path), mend)

    def announce(self, grid: Grid, **facts: Any) -> None:
        """Say that a run is on, over which grid; the page of an earlier one goes."""
        (self.path / REPORT_FILE).unlink(missing_ok=True)
        self._tell({_KIND: facts | {_GRID: _as_told(grid)}})
        publish(self.path / RECIPE, lambda file: file.write_text(self._recipe.to_yaml()))

    def leave_out(self, scene: SeasonScene, reason: str, fingerprint: str, *, may_pass: bool) -> None:
        """Put a scene on the list of those that are left out."""
        self.readmit(scene)
        self.left_out.append(LeftOut(scene.day, scene.name, without_secrets(reason), may_pass, fingerprint))
        self.publish_json(QUARANTINE, [asdict(one) for one in self.left_out])

    def readmit(self, scene: SeasonScene) -> None:
        """Take a scene off the list."""
        self.left_out = [one for one in self.left_out if (one.date, one.scene) != (scene.day, scene.name)]

    def is_left_out(self, fingerprint: str) -> bool:
        """Tell whether a scene is known to be bad: its fault does not pass, and files and options are as they were."""
        return any(not one.may_pass and one.fingerprint == fingerprint for one in self.left_out)

    def finish(self, scenes: dict[str, list[SeasonScene]], journal: Journal, **facts: Any) -> None:
        """Write the list of scenes left out, those that are no longer asked for taken off, and the last manifest."""
        asked = {(scene.day, scene.name) for listed in scenes.values() for scene in listed}
        self.left_out = [one for one in self.left_out if (one.date, one.scene) in asked]
        self.publish_json(QUARANTINE, [asdict(one) for one in self.left_out])
        told = self._run.manifest[_KIND] | facts | {"left_out": len(self.left_out)}
        self._tell({"state": _PARTIAL if self.left_out else _FINISHED, _KIND: told, **journal.facts()})

    def fail(self, error: BaseException, journal: Journal) -> None:
        """Write down that the run failed, as far as the disk allows."""
        if _KIND in self._run.manifest:
            with suppress(RunError, InputError):
                said = without_secrets(str(error)) or type(error).__name__
                self._tell({"state": _FAILED, "error": said, **journal.facts()})

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a file of the folder; empty where there is none, or it is damaged."""
        try:
            return dict(json.loads((self.path / name).read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def _tell(self, facts: dict[str, Any]) -> None:
        self._run.manifest |= facts
        self.publish_json(MANIFEST, self._run.manifest)

    def publish_json(self, name: str, told: Any) -> None:
        """Write a file of the folder whole, or not at all."""
        publish(self.path / name, lambda file: file.write_text(json.dumps(told, indent=2, default=str) + "\n"))


def describe_grid(grid: Grid) -> str:
    """Say which grid it is."""
    bounds = ", ".join(f"{value:.6g}" for value in grid.bounds_xyxy)
    height, width = grid.shape
    return f"{height} x {width} pixels of {grid.pixel_size_m:g} m in {grid.crs.to_string()[:40]}, {bounds}"


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Keep a season's folder to one run; the lock of a run that died on this machine is taken over.

    Raises
    ------
    RunError
        When another run works there: with its host, pid and start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(handle, folder)
        try:
            yield
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _take(handle: int, folder: Path) -> None:
    holder, here = _read_holder(handle), socket.gethostname()
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_held = False
    except BlockingIOError:
        is_held = True
    except OSError:  # a file system without locks
        is_held = is_running(holder)
    is_elsewhere = holder.get("host", here) != here  # where a lock of this machine may not reach
    if is_held or is_elsewhere:
        who = f"host {holder.get('host', '?')}, pid {holder.get('pid', '?')}, since {holder.get('start', '?')}"
        mend = f"wait for it to end; if it is dead, delete {folder / _LOCK}" if is_elsewhere else "wait for it to end"
        raise RunError(f"another run works in this folder ({who})", str(folder), mend)
    told = {"host": here, "pid": os.getpid(), "start": dt.datetime.now(dt.UTC).isoformat(timespec="seconds")}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(told).encode(), 0)


def _read_holder(handle: int) -> dict[str, Any]:
    try:
        return dict(json.loads(os.pread(handle, 4096, 0)))
    except ValueError:
        return {}


def _read_left_out(path: Path) -> list[LeftOut]:
    try:
        return [LeftOut(**one) for one in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError):
        return []


def _as_told(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "transform": list(grid.transform)[:6], "crs": grid.crs.to_wkt()}
