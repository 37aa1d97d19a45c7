"""The dates of a season, one by one: what is finished stays, what may pass is tried again, the rest is left out."""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import CancelledError, KilledWorker

from lakescale.cluster import compute
from lakescale.schema import InputError, LakescaleError, RunError
from lakescale.storage import DISK_FULL, is_link, move, remove
from lakescale.store import open_store
from pipelines.map_lakes import Prepared, map_lakes
from pipelines.run_folder import DATES, EVIDENCE, MANIFEST, NOT_SEEN_FILE, RunFolder, partial_name
from pipelines.season_depths import DEPTHS, depths_token, write_depths
from pipelines.season_folder import SINKS
from pipelines.season_ground import STORED, Ground, write_sinks
from pipelines.season_scenes import mosaic, place_one
from pipelines.season_tables import is_told, read_table

if TYPE_CHECKING:
    from distributed import Client

    from lakescale.storage import Location
    from pipelines.recipe import MapRecipe
    from pipelines.season_folder import SeasonFolder
    from pipelines.season_scenes import Placed, SeasonScene

_LOG = logging.getLogger(f"lakescale.{__name__}")

LAKES, FACTS = "lakes.parquet", "of_season"
"""A date's lakes; what its manifest tells for the season."""
_CHUNK = re.compile(r"(?P<store>.+\.zarr)/(?P<layer>\w+)/(?:c|commits)/(?P<row>\d+)/(?P<col>\d+)")
_PAUSE_S, _WORKERS_S = 1.0, 60
LEAST_CLOUD = "least cloud"
_RASTER = 2
"""Dimensions of a layer."""


@dataclass(frozen=True)
class MappedDate:
    """A date that has lakes, or none for sure."""

    day: str
    folder: Path
    fingerprint: str
    is_kept: bool
    """Whether it was finished before this run."""
    scenes: tuple[SeasonScene, ...]
    """Those that were used."""
    chunks_written: int = 0
    """Of evidence, by this run."""
    bytes_written: int = 0
    """In these, before compression."""
    seconds: float = 0.0


@dataclass
class DateMapper:
    """Maps dates, and keeps the season's folder informed."""

    folder: SeasonFolder
    planned: Ground
    """As it was before its sinks were written."""
    ground: Ground
    client: Client
    _mended: set[str] = field(default_factory=set)
    _alone: Any = field(default_factory=threading.RLock)
    """Held while what all dates share is changed."""

    @classmethod
    def start(cls, folder: SeasonFolder, planned: Ground, client: Client) -> DateMapper:
        """Write the season's sinks, and be ready for its dates."""
        try:
            ground = write_sinks(planned, folder.path / SINKS)
        except Exception as error:
            require_cluster(client, error)
            raise
        return cls(folder, planned, ground, client)

    def map_date(self, scenes: list[SeasonScene]) -> MappedDate | None:
        """Map a date of the scenes that can be used; None where there are none.

        Raises
        ------
        InputError
            When something else than a scene cannot be used.
        RunError
            When the cluster is lost, or the disk takes no more.
        """
        left = [scene for scene in scenes if not self.folder.is_left_out(self.ground.fingerprint([scene]))]
        tries = 0
        while left:
            ground = self.ground
            try:
                return self._map(left)
            except Exception as error:
                require_cluster(self.client, error)
                with self._alone:
                    is_mended = self._mend(error, ground)
                if is_mended:
                    continue
                culprit = _find_culprit(error, left)
                may_pass = _may_pass(error, culprit)
                if culprit is None and not may_pass:
                    raise
                if may_pass and tries < self.ground.recipe.retries:
                    tries += 1
                    _LOG.warning("%s: tried again, since the fault may pass: %s", left[0].day, error)
                    time.sleep(_PAUSE_S)
                    continue
                for scene in [culprit] if culprit else list(left):
                    self._leave_out(scene, str(error), may_pass=may_pass)
                    left.remove(scene)
        return None

    def _map(self, scenes: list[SeasonScene]) -> MappedDate:
        day, fingerprint = scenes[0].day, self.ground.fingerprint(scenes)
        out = self.folder.path / DATES / day
        if is_finished(out, fingerprint):
            return self._readmit(MappedDate(day, out, fingerprint, is_kept=True, scenes=tuple(scenes)))
        start = time.perf_counter()
        recipe = self.ground.recipe.of_date(day, [file for scene in scenes for file in scene.files], out)
        facts = {FACTS: {"fingerprint": fingerprint, "scenes": [scene.name for scene in scenes]}}
        prepared = prepare_date(self.ground, scenes, self.client, facts)
        again = _take_over(recipe).is_same
        result = map_lakes(recipe, overwrite=not again, prepared=prepared)
        written, seconds = read_manifest(out)["evidence"]["chunks_written"], time.perf_counter() - start
        _LOG.info("%s: %d lakes, %d chunks of evidence written, %.1f s", day, len(result.lakes), written, seconds)
        sizes = written, bytes_of(out / EVIDENCE, written), seconds
        return self._readmit(MappedDate(day, out, fingerprint, False, tuple(scenes), *sizes))

    def _readmit(self, mapped: MappedDate) -> MappedDate:
        """Measure what the lakes of a date hold, unless that is done, and have its scenes count as good."""
        token = depths_token(self.ground.recipe, mapped.fingerprint)
        if not is_told(mapped.folder / DEPTHS, token):
            sources = prepare_date(self.ground, list(mapped.scenes), self.client).sources
            lakes = read_table(mapped.folder / LAKES)
            write_depths(mapped.folder / DEPTHS, lakes, sources, self.ground.recipe, token, self.client)
        with self._alone:
            for scene in mapped.scenes:
                self.folder.readmit(scene)
        return mapped

    def _leave_out(self, scene: SeasonScene, reason: str, *, may_pass: bool) -> None:
        passing = "may pass" if may_pass else "does not pass"
        _LOG.warning("%s: %s is left out, the fault %s: %s", scene.day, scene.name, passing, reason)
        with self._alone:
            self.folder.leave_out(scene, reason, self.ground.fingerprint([scene]), may_pass=may_pass)

    def _mend(self, error: Exception, tried_on: Ground) -> bool:
        """Have a damaged chunk of the season's stores computed again; False where there is none, or it was before.

        Where dates go side by side another one may have had it computed since this one was tried.
        """
        item = error.item if isinstance(error, InputError) else ""
        if item in self._mended:
            return self.ground is not tried_on
        if not forget_chunk(item, self.folder.path):
            return False
        self._mended.add(item)
        _LOG.warning("a damaged chunk is computed again: %s", item)
        if f"/{SINKS}/" in item:
            self.ground = write_sinks(self.planned, self.folder.path / SINKS)
        return True


def _take_over(recipe: MapRecipe) -> RunFolder:
    """Look at the folder of a date; where its manifest is lost keep its evidence alone."""
    found, out = RunFolder(recipe), recipe.out
    if is_link(out):
        raise InputError("the folder of a date is a link", str(out), "take the link away: what it leads to is not ours")
    if found.earlier is None and out.is_dir():
        partial = out / partial_name(EVIDENCE)
        if (out / EVIDENCE).exists() and not partial.exists():
            move(out / EVIDENCE, partial, last="zarr.json")
        there: list[Location] = [*out.iterdir()]
        for one in there:
            if one != partial:
                remove(one)
    return found


def prepare_date(
    ground: Ground, scenes: list[SeasonScene], client: Client | None = None, facts: dict[str, Any] | None = None
) -> Prepared:
    """Open the scenes of a date and lay them on the season's ground (lazy).

    Raises
    ------
    InputError
        When one of them cannot be used; its item names that one.
    """
    placed = []
    for scene in scenes:
        problem: InputError | None = None
        try:
            one = place_one(scene, ground.recipe, ground.grid)
        except InputError as error:
            problem = error
        if problem is not None:
            item = problem.item if scene.is_meant_by(problem.item) else f"{scene.name}: {problem.item}"
            raise InputError(problem.what, item, problem.mend)
        placed.append(one)
    notes = [note if len(scenes) == 1 else f"{scene.name}: {note}" for scene, one in zip(scenes, placed, strict=True)
             for note in one.notes]  # fmt: skip
    if len(placed) > 1 and ground.recipe.mosaic == LEAST_CLOUD and client is not None:
        placed, order = clearest_first(placed, scenes, client)
        notes.append(order)
    stored = STORED if ground.sources.sink_depth is not None else frozenset()
    return Prepared(ground.with_scene(mosaic([one.scene for one in placed]), notes), client, stored, facts or {})


def clearest_first(placed: list[Placed], scenes: list[SeasonScene], client: Client) -> tuple[list[Placed], str]:
    """Put the scenes of a date with less cloud before those with more; as they are where it was not assessed."""
    if any(one.clouded is None for one in placed):
        return placed, "mosaic: in the order of names, since cloud was not assessed in all scenes"
    shares = [float(share) for share in compute(*[one.clouded for one in placed], client=client, description="cloud")]
    order = sorted(range(len(placed)), key=lambda k: shares[k])
    told = ", ".join(f"{scenes[k].name} ({shares[k]:.1%} cloud)" for k in order)
    return [placed[k] for k in order], f"mosaic: the least cloud first: {told}"


def is_finished(out: Path, fingerprint: str) -> bool:
    """Tell whether a date was mapped from the same, to its end."""
    told = read_manifest(out)
    is_same = told.get("state") == "finished" and told.get(FACTS, {}).get("fingerprint") == fingerprint
    return is_same and all((out / name).exists() for name in (LAKES, NOT_SEEN_FILE))


def read_manifest(out: Path) -> dict[str, Any]:
    """Read the manifest of a date; empty where there is none."""
    try:
        return dict(json.loads((out / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def forget_chunk(item: str, folder: Path) -> bool:
    """Take away the marker of a damaged chunk of one of a season's stores, so that it is computed again.

    Parameters
    ----------
    item
        Of the error that told of it: the chunk's file, or its marker.
    folder
        Of the season.

    Returns
    -------
    bool
        Whether it was such a chunk.
    """
    match = _CHUNK.fullmatch(item)
    if match is None or not Path(item).is_relative_to(folder.absolute()):
        return False
    store = Path(match["store"])
    marker = store / match["layer"] / "commits" / match["row"] / match["col"]
    if not marker.exists():
        return False
    marker.unlink()
    if store.name == EVIDENCE:  # go on from there, as after a kill
        partial = store.with_name(partial_name(EVIDENCE))
        shutil.rmtree(partial, ignore_errors=True)
        store.replace(partial)
    return True


def bytes_of(store: Path, chunks: int) -> int:
    """Tell the bytes of pixels in some chunks of a store, by the mean of all its layers."""
    if not chunks:
        return 0
    layers = [array for _, array in open_store(store, "layers").arrays() if array.ndim == _RASTER]
    total = sum(array.nchunks for array in layers)
    return chunks * sum(array.nbytes for array in layers) // total


def require_cluster(client: Client, error: BaseException) -> None:
    """Raise where it is the cluster that failed, and not a scene.

    Raises
    ------
    RunError
        When the scheduler is lost, or no worker comes back.
    """
    address = str(getattr(client.scheduler, "address", ""))
    lost = client.status != "running" or isinstance(error, CancelledError)
    if not lost and isinstance(error.__cause__, KilledWorker):
        try:
            client.wait_for_workers(1, timeout=_WORKERS_S)
        except TimeoutError:
            mend = f"start some and run it again: it goes on (dask worker {address})"
            raise RunError(f"no worker came back after {_WORKERS_S} s", address, mend) from error
    if lost:
        mend = "start it again and run the season again: it goes on where it was"
        raise RunError("the scheduler is lost", address, mend) from error


def _find_culprit(error: Exception, scenes: list[SeasonScene]) -> SeasonScene | None:
    item = error.item if isinstance(error, InputError) else ""
    return next((scene for scene in scenes if scene.is_meant_by(item)), None)


def _may_pass(error: Exception, scene: SeasonScene | None) -> bool:
    """Tell whether a fault may pass: a worker died, a disk or a server did not answer."""
    if isinstance(error, LakescaleError):
        return isinstance(error.__cause__, KilledWorker) or (scene is not None and scene.is_remote)
    return isinstance(error, OSError) and error.errno not in DISK_FULL
