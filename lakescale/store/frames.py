"""Large frames to one GeoParquet file, in order, and never whole in memory."""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from lakescale.cluster import compute

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dask_geopandas
    import geopandas as gpd
    from distributed import Client
    from numpy.typing import NDArray

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
        On a disk that the workers see too.
    order_by
        A column of numbers, no two equal.
    client, progress, description
        As for `lakescale.cluster.compute`.

    Returns
    -------
    int
        Rows written.
    """
    meta = frame._meta  # noqa: SLF001  (dask's name for the empty frame)
    fewer = frame if frame.npartitions <= _PARTS else frame.repartition(npartitions=_PARTS)
    with _folder(path) as folder:
        written = fewer.map_partitions(_write_part, str(folder), meta=_tell("", meta).iloc[:0])
        (told,) = compute(written, client=client, progress=progress, description=description)
        meta.to_parquet(folder / "empty.parquet", index=False)
        return _merge(told, pq.read_schema(folder / "empty.parquet"), path, order_by)


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Make a folder beside a file; what a killed run left in it goes first."""
    folder = path.absolute().with_name(f"{path.name}.parts")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_part(part: gpd.GeoDataFrame, folder: str) -> pd.DataFrame:
    """Write a partition under a name of its own: a task may run twice, and only the one that is told of counts."""
    if not len(part):
        return _tell("", part).iloc[:0]
    file = str(Path(folder, f"{uuid.uuid4().hex}.arrow"))
    table = pa.table(part.to_arrow(index=False, geometry_encoding="WKB"))
    with pa.OSFile(file, "wb") as out, pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return _tell(file, part)


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
