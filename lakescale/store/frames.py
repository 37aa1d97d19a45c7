"""Large frames to one GeoParquet file, in order, and never whole in memory."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from lakescale.cluster import compute
from lakescale.storage import Remote, aside, locate, remove
from lakescale.storage.trouble import reaching

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dask_geopandas
    import geopandas as gpd
    from distributed import Client
    from numpy.typing import NDArray

    from lakescale.storage import Location

_ROWS = 10_000
"""Of a row group: outlines of 2,000 vertices take 300 MB then."""
_PARTS = 256
_FILE, _BOUNDS, _KINDS = "file", ["minx", "miny", "maxx", "maxy"], "kinds"
_POLYGON, _MULTIPOLYGON = 3, 6
_NAMES = {1: "Polygon", 2: "MultiPolygon"}


def write_frame(
    frame: dask_geopandas.GeoDataFrame,
    path: Path,
    *,
    order_by: str,
    parts: Location | None = None,
    client: Client | None = None,
    progress: bool = False,
    description: str = "",
) -> int:
    """Write a frame of polygons as one GeoParquet file, in the order of a column.

    Workers write their partitions beside the file, as Arrow files, which take the room of all rows once more; this
    process maps these and copies 10,000 rows at a time. What is read back equals
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
        takes each part to its own disk; see `parts_of`.
    client, progress, description
        As for `lakescale.cluster.compute`.

    Returns
    -------
    int
        Rows written.
    """
    meta = frame._meta  # noqa: SLF001  (dask's name for the empty frame)
    fewer = frame if frame.npartitions <= _PARTS else frame.repartition(npartitions=_PARTS)
    with _folder(parts_of(path) if parts is None else parts) as folder:
        here = folder if isinstance(folder, Path) else path.parent
        written = fewer.map_partitions(_write_part, str(folder), meta=_tell("", meta).iloc[:0])
        (told,) = compute(written, client=client, progress=progress, description=description)
        meta.to_parquet(empty := here / "empty.parquet", index=False)
        told = told.assign(**{_FILE: [_brought_here(file, here) for file in told[_FILE]]})
        return _merge(told, pq.read_schema(empty), path, order_by)


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


def _brought_here(file: str, folder: Path) -> str:
    """Give a path that can be mapped to memory: of a part in an object store that of a copy."""
    place = locate(file)
    if isinstance(place, Remote):
        target = folder / place.name
        with reaching(place):
            place.files.get_file(place.key, str(target))
        return str(target)
    return file


def _write_part(part: gpd.GeoDataFrame, folder: str) -> pd.DataFrame:
    """Write a partition under a name of its own: a task may run twice, and only the one that is told of counts."""
    if not len(part):
        return _tell("", part).iloc[:0]
    file = locate(folder) / f"{uuid.uuid4().hex}.arrow"
    table = pa.table(part.to_arrow(index=False, geometry_encoding="WKB"))
    with (
        aside(file) if isinstance(file, Remote) else nullcontext(file) as path,
        pa.OSFile(str(path), "wb") as out,
        pa.ipc.new_file(out, table.schema) as writer,
    ):
        writer.write_table(table)
    return _tell(str(file), part)


def _tell(file: str, part: gpd.GeoDataFrame) -> pd.DataFrame:
    kinds = shapely.get_type_id(part.geometry.values)
    flags = int((kinds == _POLYGON).any()) + 2 * int((kinds == _MULTIPOLYGON).any())
    bounds = dict(zip(_BOUNDS, map(float, part.total_bounds), strict=True))
    return pd.DataFrame({_FILE: pd.array([file], "string[pyarrow]"), **bounds, _KINDS: flags})


def _merge(told: pd.DataFrame, schema: pa.Schema, path: Path, order_by: str) -> int:
    schema = _describe(schema, told)
    tables = [pa.ipc.open_file(pa.memory_map(file)).read_all().cast(_plain(schema)) for file in told[_FILE]]
    rows = pa.concat_tables(tables) if tables else schema.empty_table()
    order: NDArray[np.int64] = np.argsort(rows[order_by].to_numpy(), kind="stable")
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        for start in range(0, len(order), _ROWS):
            some = rows.take(order[start : start + _ROWS])
            writer.write_table(some.replace_schema_metadata(schema.metadata))
    return len(order)


def _plain(schema: pa.Schema) -> pa.Schema:
    return schema.remove_metadata()


def _describe(schema: pa.Schema, told: pd.DataFrame) -> pa.Schema:
    """Tell the file's bounds and kinds of geometry, as GeoParquet wants them."""
    geo: dict[str, Any] = json.loads(schema.metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    if len(told):
        low, high = told[_BOUNDS[:2]].min().tolist(), told[_BOUNDS[2:]].max().tolist()
        column["bbox"] = low + high
        flags = int(np.bitwise_or.reduce(told[_KINDS].to_numpy(int)))
        column["geometry_types"] = sorted(name for flag, name in _NAMES.items() if flags & flag)
    return schema.with_metadata({**schema.metadata, b"geo": json.dumps(geo).encode()})
