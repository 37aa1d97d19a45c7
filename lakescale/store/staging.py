"""Arrays computed in stages, what waits between them in files: for bounded memory, and to go on after a kill."""

from __future__ import annotations

import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakescale.bars import one_bar
from lakescale.chunks import run_in_stages
from lakescale.cluster import compute, describe
from lakescale.schema import InputError
from lakescale.stages import current_stage
from lakescale.storage import write_whole
from lakescale.store.files import writing
from lakescale.store.plain import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager

    import dask.array as da
    from distributed import Client

    from lakescale.stages import Stage

_MOST_TASKS, _TASKS_A_WORKER = 1024, 64
_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Stages:
    """How to compute in stages; see `lakescale.chunks.run_in_stages`."""

    folder: Path
    """On a disk that the workers see too, for one request alone: whoever ends the run removes it."""
    waiting: tuple[str, ...]
    """Names of the tasks whose results wait there for others."""
    most: int | None = None
    """Tasks of a graph; by default 1024, or 64 a worker where there are more than 16."""


def compute_in_stages(
    array: da.Array,
    stages: Stages | None,
    *,
    client: Client | None = None,
    progress: bool = False,
    description: str = "",
    pixels: int = 0,
) -> None:
    """Compute an array of tasks that are there for what they do, such as `lakescale.chunks.sink` makes.

    Parameters
    ----------
    array
        What to compute.
    stages
        How to cut its graph into stages; None computes it in one.
    client, progress, description, pixels
        As for `lakescale.cluster.compute`.

    Raises
    ------
    InputError
        When a file in the folder is damaged.
    RunError
        As `lakescale.cluster.compute`, and when the disk takes no more.
    """
    if stages is None:
        compute(array, client=client, progress=progress, description=description, pixels=pixels)
        return
    files = _Files(str(stages.folder.absolute() / "results"))
    workers = 1 if client is None else describe(client)["threads"]
    most = stages.most or max(_MOST_TASKS, _TASKS_A_WORKER * int(workers))
    total, stage = 0, current_stage()
    if stage is not None:
        stage.pixels += pixels
    with _bar(stage, description, pixels, progress=progress) as draw:
        for batch, left in run_in_stages(array, stages.waiting, files, most=most):
            total = max(total, left)
            compute(
                batch, client=client, progress=False if draw is None else partial(_draw, draw, total, left, batch.size)
            )


def _bar(
    stage: Stage | None, description: str, pixels: int, *, progress: bool
) -> AbstractContextManager[Callable[[int, int], None] | None]:
    if stage is not None:
        return nullcontext(stage.pace(pixels=pixels, description=description))
    return one_bar(description, pixels) if progress else nullcontext()


def _draw(draw: Callable[[int, int], None], total: int, left: int, batch: int, done: int, tasks: int) -> None:
    """Draw how many results there are, those of the batch in hand by the share of its tasks that are done."""
    draw(total - left + batch * done // max(tasks, 1), total)


@dataclass(frozen=True)
class _Files:
    """A shelf of files, a checksum at the end of each; to read one runs nothing."""

    folder: str

    def path(self, key: Any) -> Path:
        """Where a result lies."""
        name, *index = key
        return Path(self.folder, name, ".".join(map(str, index)))

    def put(self, key: Any, result: Any) -> None:
        """Write a result, whole or not at all."""
        data = pack(result)
        with writing(self.path(key)):
            write_whole(self.path(key), data + zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little"))

    def take(self, key: Any) -> Any:
        """Read a result, if it is what was written."""
        stored = memoryview(self.path(key).read_bytes())
        data, told = stored[:-_CHECKSUM_BYTES], stored[-_CHECKSUM_BYTES:]
        if zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little") != told:
            mend = f"remove {Path(self.folder).parent}, and run it again"
            raise InputError("a damaged file: its bytes do not fit their checksum", str(self.path(key)), mend)
        return unpack(data)

    def has(self, key: Any) -> bool:
        """Tell whether a result was written."""
        return self.path(key).exists()

    def keep_only(self, keys: Collection[Any]) -> None:
        """Remove all other files, those of killed writers among them."""
        kept = {self.path(key) for key in keys}
        for file in Path(self.folder).glob("*/*"):
            if file not in kept:
                file.unlink()
