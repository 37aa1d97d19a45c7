"""Large frames to one GeoParquet file, in order, and never whole in memory."""

from __future__ import annotations

import json
import mmap
import uuid
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from dask.base import tokenize

from lakescale.chunks import from_frame, sink_parts
from lakescale.storage import Remote, aside, locate, remove
from lakescale.storage.trouble import reaching
from lakescale.store.files import writing
from lakescale.store.staging import compute_in_stages

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dask_geopandas
    import geopandas as gpd
    from distributed import Client
    from numpy.typing import NDArray

    from lakescale.storage import Location
    from lakescale.store.staging import Stages

_ROWS, _BYTES = 10_000, 32_000_000
"""Of a row group, at most."""
_PARTS = 256
_TOLD, _BOUNDS, _KINDS = b"lakescale", "bounds", "kinds"
_POLYGON, _MULTIPOLYGON = 3, 6
_NAMES = {1: "Polygon", 2: "MultiPolygon"}


def write_frame(
    frame: dask_geopandas.GeoDataFrame,
    path: Path,
    *,
    order_by: str,
    parts: Location | None = None,
    stages: Stages | None = None,
    client: Client | None = None,
    progress: bool = False,
    description: str = "",
) -> int:
    """Write a frame of polygons as one GeoParquet file, in the order of a column.

    Workers write their partitions beside the file, as Arrow files, which take the room of all rows once more; this
    process maps these and copies at most 10,000 rows or 32 MB of outlines at a time. What is read back equals
    ``frame.compute().sort_values(order_by, ignore_index=True)``.

    Parameters
    ----------
    frame
        Polygons and MultiPolygons; its index is not written.
    path
        On a disk of this process.
    order_by
        A column of numbers, no two equal.
    parts
        The folder beside it, which the workers must see: on a disk, or in an object store, from which this process
        takes each part to its own disk; see `parts_of`. Of no use with stages, which have a folder.
    stages
        How to compute it in stages; it then goes on after a kill. None computes it in one graph.
    client, progress, description
        As for `lakescale.cluster.compute`.

    Returns
    -------
    int
        Rows written.
    """
    graph, keys = from_frame(frame)
    count = min(len(keys), _PARTS)
    numbers = np.array_split(np.arange(len(keys)), count)
    kept = parts_of(path) if parts is None else parts
    with _folder(kept) if stages is None else _kept_folder(stages.folder, keys) as folder:
        left = [k for k in range(count) if not _file(folder, k).exists()]
        if left:
            groups = [[keys[n] for n in numbers[k]] for k in left]
            written = sink_parts(partial(_write_part, str(folder)), graph, groups, numbers=left, name="write-frame")
            compute_in_stages(written, stages, client=client, progress=progress, description=description)
        here = folder if isinstance(folder, Path) else path.parent
        empty = here / "empty.parquet"
        frame._meta.to_parquet(empty, index=False)  # noqa: SLF001  (dask's name for the empty frame)
        return _merge(
            [_brought_here(_file(folder, k), here) for k in range(count)], pq.read_schema(empty), path, order_by
        )


def parts_of(path: Location) -> Location:
    """Name the folder beside a file in which workers put its parts."""
    return path.absolute().with_name(f"{path.name}.parts")


@contextmanager
def _folder(folder: Location) -> Iterator[Location]:
    """Make a folder; what a killed run left in it goes first."""
    remove(folder)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def _brought_here(file: Location, folder: Path) -> Path:
    """Give a path that can be mapped to memory: of a part in an object store that of a copy."""
    if isinstance(file, Remote):
        target = folder / file.name
        with reaching(file):
            file.files.get_file(file.key, str(target))
        return target
    return file


@contextmanager
def _kept_folder(stages: Path, keys: list[Any]) -> Iterator[Path]:
    """Make a folder that outlives a kill, for these partitions alone."""
    folder = stages.absolute() / f"parts-{tokenize(keys)}"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


# -- parts


def _file(folder: str | Location, number: int) -> Location:
    return locate(folder) / f"{number}.arrow"


def _write_part(folder: str, number: int, partitions: list[gpd.GeoDataFrame]) -> int:
    """Write partitions as one file, which has its name only when it is whole: a task may run twice."""
    some = [part for part in partitions if len(part)] or partitions[:1]
    rows = some[0] if len(some) == 1 else pd.concat(some, ignore_index=True)
    table = pa.table(rows.to_arrow(index=False, geometry_encoding="WKB"))
    table = table.replace_schema_metadata({_TOLD: json.dumps(_describe_part(rows))})
    file = _file(folder, number)
    with (
        writing(file),
        aside(file, f".{uuid.uuid4().hex}") as partial_file,
        pa.OSFile(str(partial_file), "wb") as out,
        pa.ipc.new_file(out, table.schema) as writer,
    ):
        writer.write_table(table)
    return len(rows)


def _describe_part(rows: gpd.GeoDataFrame) -> dict[str, Any]:
    kinds = shapely.get_type_id(rows.geometry.values)
    flags = int((kinds == _POLYGON).any()) + 2 * int((kinds == _MULTIPOLYGON).any())
    return {_KINDS: flags, _BOUNDS: [float(one) for one in rows.total_bounds] if len(rows) else None}


# -- the file


class _Part(NamedTuple):
    """A file of a part, as it is mapped: its pages can be given back to the system."""

    table: pa.Table
    told: dict[str, Any]
    pages: mmap.mmap

    @classmethod
    def of(cls, file: Path, schema: pa.Schema) -> _Part:
        with file.open("rb") as opened:
            pages = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        table = pa.ipc.open_file(pa.py_buffer(pages)).read_all()
        return cls(table.cast(schema), json.loads(table.schema.metadata[_TOLD]), pages)


def _merge(files: list[Path], schema: pa.Schema, path: Path, order_by: str) -> int:
    found = [_Part.of(file, schema.remove_metadata()) for file in files]
    parts = [part for part in found if part.table.num_rows]
    schema = _describe(schema, [part.told for part in parts])
    geometry = json.loads(schema.metadata[b"geo"])["primary_column"]
    none = [np.empty(0, np.int64)]
    values = np.concatenate([*none, *(part.table[order_by].to_numpy() for part in parts)])
    sizes = np.concatenate([*none, *(pc.binary_length(part.table[geometry]).to_numpy() for part in parts)])
    number = np.repeat(np.arange(len(parts)), [part.table.num_rows for part in parts])
    row = np.concatenate([*none, *(np.arange(part.table.num_rows) for part in parts)])
    order = np.argsort(values, kind="stable")
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        for group in _row_groups(sizes[order]):
            some = _take([part.table for part in parts], number[order[group]], row[order[group]])
            writer.write_table(some.replace_schema_metadata(schema.metadata))
            for part in parts:
                part.pages.madvise(mmap.MADV_DONTNEED)
    return len(order)


def _row_groups(sizes: NDArray[np.integer[Any]]) -> Iterator[slice]:
    """Part rows of so many bytes into groups."""
    after, start = np.cumsum(sizes, dtype=np.int64), 0
    while start < len(sizes):
        before = int(after[start - 1]) if start else 0
        stop = min(start + _ROWS, int(np.searchsorted(after, before + _BYTES, side="right")))
        yield slice(start, start := max(stop, start + 1))


def _take(tables: list[pa.Table], number: NDArray[np.int64], row: NDArray[np.int64]) -> pa.Table:
    """Take rows of many tables, in their order; `pyarrow.Table.take` would first copy all chunks into one."""
    pieces = [tables[n].take(row[number == n]) for n in np.unique(number)]
    return pa.concat_tables(pieces).combine_chunks().take(np.argsort(np.argsort(number, kind="stable")))


def _describe(schema: pa.Schema, told: list[dict[str, Any]]) -> pa.Schema:
    """Tell the file's bounds and kinds of geometry, as GeoParquet wants them."""
    geo: dict[str, Any] = json.loads(schema.metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    if told:
        bounds = np.array([one[_BOUNDS] for one in told])
        column["bbox"] = bounds[:, :2].min(axis=0).tolist() + bounds[:, 2:].max(axis=0).tolist()
        flags = int(np.bitwise_or.reduce([one[_KINDS] for one in told]))
        column["geometry_types"] = sorted(name for flag, name in _NAMES.items() if flags & flag)
    return schema.with_metadata({**schema.metadata, b"geo": json.dumps(geo).encode()})
