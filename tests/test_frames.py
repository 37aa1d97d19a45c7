"""A large frame in one file: the same rows as from memory, whatever the partitions."""

import json

import dask_geopandas
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from lakescale.store import frames
from lakescale.store.frames import write_frame


def frame_of(count, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 1000, (2, count))
    shapes = shapely.box(x, y, x + 3, y + 4)
    several = rng.random(count) < 0.3
    shapes[several] = [shapely.MultiPolygon([shape, shapely.box(-9, -9, -8, -8)]) for shape in shapes[several]]
    parent = pd.array(rng.integers(0, 9, count), "Int64")
    parent[rng.random(count) < 0.5] = pd.NA
    columns = {"sink_id": rng.permutation(count) + 1, "parent": parent, "depth_m": rng.random(count).astype("float32")}
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=3413)


def expected(frame):
    return frame.sort_values("sink_id", ignore_index=True)


@pytest.mark.parametrize(("count", "partitions"), [(1, 1), (57, 1), (57, 4), (1000, 40)])
def test_the_file_holds_the_rows_in_order(tmp_path, count, partitions, monkeypatch):
    monkeypatch.setattr(frames, "_ROWS", 64)
    monkeypatch.setattr(frames, "_PARTS", 7)
    frame = frame_of(count)
    path = tmp_path / "sinks.parquet"
    cut = dask_geopandas.from_geopandas(frame, npartitions=partitions)
    assert write_frame(cut, path, order_by="sink_id") == count
    back = gpd.read_parquet(path)
    pd.testing.assert_frame_equal(back, expected(frame))
    assert back.crs == frame.crs
    assert pq.ParquetFile(path).num_row_groups == -(-count // 64)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sinks.parquet"]


def test_the_file_tells_of_itself_what_geopandas_tells(tmp_path):
    frame = frame_of(200, seed=3)
    write_frame(dask_geopandas.from_geopandas(frame, npartitions=9), tmp_path / "ours.parquet", order_by="sink_id")
    expected(frame).to_parquet(tmp_path / "theirs.parquet", index=False)
    ours, theirs = (pq.read_schema(tmp_path / f"{name}.parquet") for name in ("ours", "theirs"))
    assert ours.equals(theirs)
    ours, theirs = (json.loads(schema.metadata[b"geo"])["columns"]["geometry"] for schema in (ours, theirs))
    assert ours == theirs


def test_partitions_without_rows_leave_no_trace(tmp_path):
    frame = frame_of(40)
    cut = dask_geopandas.from_geopandas(frame, npartitions=5)
    few = cut[cut.sink_id < 3]
    assert write_frame(few, tmp_path / "few.parquet", order_by="sink_id") == 2
    pd.testing.assert_frame_equal(gpd.read_parquet(tmp_path / "few.parquet"), expected(frame)[:2])
    none = cut[cut.sink_id < 0]
    assert write_frame(none, tmp_path / "none.parquet", order_by="sink_id") == 0
    back = gpd.read_parquet(tmp_path / "none.parquet")
    assert len(back) == 0
    pd.testing.assert_series_equal(back.dtypes, frame.dtypes)
    assert back.crs == frame.crs
