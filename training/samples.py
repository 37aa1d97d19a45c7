"""Windows to learn from, straight from cubes and scenes: counted, sorted into kinds, kept as Parquet tables."""

from __future__ import annotations

import io
import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from dask.base import tokenize

from lakescale.cluster import compute
from lakescale.grid import Grid
from lakescale.schema import IMAGE, InputError
from lakescale.storage import write_whole
from lakescale.store import locked, writing
from training.counting import count_windows
from training.images import Image, list_images
from training.kinds import LEFT_OUT, POSITIVE, SampleRules, sort_kinds

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr
    from distributed import Client
    from numpy.typing import NDArray

    from training.annotations import Annotations, Marks

log = logging.getLogger(__name__)

_KEY = b"lakescale_samples"
_VERSION = 1


def find_samples(
    sources: Iterable[str | Path | Image],
    annotations: Annotations,
    folder: str | Path,
    *,
    rules: SampleRules | None = None,
    hard: pd.DataFrame | None = None,
    overwrite: bool = False,
    client: Client | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Lay windows over images, count what they hold, and tell positives from negatives.

    Windows lie as in `lakescale.lake_probability`. Pixels are counted on the cluster, chunk by chunk; each image ends
    in a table ``folder/NAME.parquet``, written whole. Run it again after a kill, and finished images are not computed.

    Parameters
    ----------
    sources
        Cubes (all their dates), scenes, or `Image`.
    annotations
        Lakes, areas to ignore, and regions.
    folder
        Where the tables are, one writer at a time.
    rules
        See `SampleRules`.
    hard
        Hard negatives of one's own: columns ``image``, ``row``, ``col`` of windows without a lake.
    overwrite
        Whether tables of other inputs or rules are replaced.
    client, progress
        As in `lakescale.cluster.compute`.

    Returns
    -------
    pandas.DataFrame
        One row a window: ``image``, ``path``, ``date``; ``row``, ``col`` (its first pixel), ``window`` (px);
        ``region_num`` (of the region at the window's centre; 0 without regions, -1 in none); ``inside_px``,
        ``seen_px``, and of the seen ones ``lake_px`` and ``ignored_px``; ``colorfulness`` (8-bit levels, NaN without
        red, green and blue); ``kind``: ``positive``, ``negative``, ``hard`` or ``left out``; ``reason``: of a hard one
        ``colorful``, ``listed`` or ``mined``, of one left out why, else empty.

    Raises
    ------
    InputError
        For annotations that cannot be used, name no image or miss theirs, images without a seen pixel, a listed window
        that is none or holds a lake, tables of other inputs, and where no window holds a lake.
    RunError
        When another process writes to the folder, or the disk takes no more.
    """
    images, rules, root = list_images(sources), rules or SampleRules(), Path(folder)
    names = [image.name for image in images]
    annotations.require_images(names)
    files = _files(root, names)
    _check_listed(hard, names)
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    tables = []
    with locked(root):
        for left_over in root.glob("*.partial"):
            left_over.unlink()
        for image in images:
            listed = _listed(hard, image.name)
            job = _Job(image, annotations, rules, listed, files[image.name])
            tables.append(job.finish(overwrite=overwrite, client=client, progress=progress))
    index = pd.concat(tables, ignore_index=True)
    if not (index["kind"] == POSITIVE).any():
        what = f"no window holds a lake: {_spell(index)}"
        raise InputError(what, str(folder), "check the annotations, or ask for smaller windows")
    log.info("%s: %s", folder, _spell(index))
    return index


def read_samples(folder: str | Path) -> pd.DataFrame:
    """Read the tables that `find_samples` wrote, by image; raise `InputError` where there are none."""
    files = sorted(Path(folder).glob("*.parquet"))
    if not files:
        raise InputError("no samples here", str(folder), "make them with lakescale samples")
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def count_kinds(index: pd.DataFrame) -> pd.DataFrame:
    """Count windows by image and region (rows) and by kind, those left out by reason (columns)."""
    fate = index["kind"].where(index["kind"] != LEFT_OUT, LEFT_OUT + ": " + index["reason"])
    return pd.crosstab([index[IMAGE], index["region_num"]], fate.rename("kind"))


@dataclass(frozen=True)
class _Job:
    """One image and all that its table follows from."""

    image: Image
    annotations: Annotations
    rules: SampleRules
    listed: NDArray[np.int64]
    file: Path

    def finish(self, *, overwrite: bool, client: Client | None, progress: bool) -> pd.DataFrame:
        """Read the table of the image, or make it."""
        scene = self.image.open()
        marks = self.annotations.of(self.image.name, Grid.of(scene))
        fingerprint = self._fingerprint(scene, marks)
        stored = _read_fingerprint(self.file)
        if stored == fingerprint:
            return pd.read_parquet(self.file)
        if stored and not overwrite:
            what = "the table of samples was made from other pixels, annotations or rules"
            raise InputError(
                what, str(self.file), "replace it with overwrite=True (--overwrite), or give another folder"
            )
        table = self._make(scene, marks, client, progress=progress)
        _write(self.file, table, fingerprint)
        return table

    def _make(self, scene: xr.DataArray, marks: Marks, client: Client | None, *, progress: bool) -> pd.DataFrame:
        rules = self.rules
        counted = count_windows(scene, marks, window=rules.window, stride=rules.stride)
        (parts,) = compute(counted.parts, client=client, progress=progress, description=self.image.name)
        windows, thumbnails = counted.finish(parts)
        if not windows["seen_px"].any():
            what = "no pixel of the image is seen: one band or more is NaN or nodata everywhere"
            raise InputError(what, self.image.name, "leave the image or that band out")
        table = sort_kinds(windows, thumbnails, marks, rules, self.listed, self.image.name)
        told = {IMAGE: self.image.name, "path": self.image.path, "date": self.image.date}
        return pd.concat([pd.DataFrame(told, index=table.index), table], axis=1)

    def _fingerprint(self, scene: xr.DataArray, marks: Marks) -> str:
        groups = [marks.lakes, marks.ignore, *([marks.regions] if marks.regions else [])]
        drawn = [shapely.to_wkb(group.shapes).tolist() for group in groups]
        numbers = None if marks.region_nums is None else marks.region_nums.tolist()
        pixels = tokenize(scene.data)
        told = [pixels, drawn, marks.vertices.tolist(), numbers, asdict(self.rules), self.listed.tolist()]
        return str(tokenize(_VERSION, asdict(self.image), *told))


def _files(root: Path, names: list[str]) -> dict[str, Path]:
    files = {name: root / f"{re.sub('[^A-Za-z0-9._-]', '_', name)}.parquet" for name in names}
    if len(set(files.values())) < len(files):
        raise InputError("names of images that make one file name", ", ".join(names), "name them: Image(name, path)")
    return files


def _check_listed(hard: pd.DataFrame | None, names: list[str]) -> None:
    if hard is None:
        return
    if lacking := [column for column in (IMAGE, "row", "col") if column not in hard]:
        raise InputError(f"no column {', '.join(lacking)}", "hard", "list windows by image, row and col")
    if lost := sorted(set(hard[IMAGE]) - set(names)):
        raise InputError(f"windows of an image that is not there: {lost[0]}", "hard", f"name one of: {names[0]}, ...")


def _listed(hard: pd.DataFrame | None, name: str) -> NDArray[np.int64]:
    if hard is None:
        return np.empty((0, 2), np.int64)
    return hard.loc[hard[IMAGE] == name, ["row", "col"]].to_numpy(np.int64)


def _read_fingerprint(file: Path) -> str:
    try:
        told = (pq.read_schema(file).metadata or {}).get(_KEY)
    except (OSError, pa.ArrowInvalid):
        return ""
    return str(json.loads(told)["fingerprint"]) if told else "unknown"


def _write(file: Path, table: pd.DataFrame, fingerprint: str) -> None:
    counts = count_kinds(table).sum().to_dict()
    told = {"fingerprint": fingerprint, "counts": {kind: int(count) for kind, count in counts.items()}}
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), _KEY: json.dumps(told)})
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer)
    with writing(file):
        write_whole(file, buffer.getvalue())


def _spell(index: pd.DataFrame) -> str:
    counts: dict[Any, int] = count_kinds(index).sum().to_dict()
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())
