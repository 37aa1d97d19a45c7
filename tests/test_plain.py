"""Plain values written as bytes: they come back as they were, and nothing that a file names is run."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lakescale.chunks.plan import Place
from lakescale.store.plain import pack, unpack

PART = np.dtype([("row", "<i8"), ("spill", "<f4"), ("draw", "?")])
numbers = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
words = st.text(max_size=5) | st.binary(max_size=5) | st.sampled_from([PART, np.dtype("?"), np.dtype(">f4")])
arrays = hnp.arrays(
    st.sampled_from([np.dtype(kind) for kind in ("?", "u1", "<i8", ">i4", "<f4", "<f8", "U3")] + [PART]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
places = st.builds(Place, *[st.integers(0, 9)] * 4)
values = st.recursive(
    numbers | words | arrays | places,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.tuples(st.integers(), st.integers()), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, tuple | list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, dict):
        same(list(one.items()), list(other.items()))
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    else:
        assert one == other


@given(value=values)
def test_what_is_read_is_what_was_written(value):
    same(unpack(pack(value)), value)


def test_scalars_and_frames_come_back():
    shapes = [shapely.box(0, 0, 1, 1 / 3), shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)])]
    frame = gpd.GeoDataFrame(
        {"id": np.array([3, 1]), "name": ["a", None], "depth_m": np.float32([0.1, np.nan])},
        geometry=shapes, crs=3413, index=[7, 2],
    )  # fmt: skip
    for one in (frame, frame.iloc[:0]):
        back, scalar, double, nan = unpack(pack((one, np.float32(0.1), np.float64(0.1), float("nan"))))
        pd.testing.assert_frame_equal(back, one)
        assert back.crs == one.crs
        assert (type(scalar), scalar) == (np.float32, np.float32(0.1))
        assert (type(double), double) == (np.float64, 0.1)
        assert np.isnan(nan)


class Stranger(NamedTuple):
    """A named tuple, and not one of ours."""

    value: Any


@pytest.mark.parametrize(
    "named",
    [
        ["os", "system"], ["builtins", "tuple"], ["lakescale.store.plain", "import_module"],
        ["lakescale.schema", "LakescaleError"], ["lakescalex", "y"], ["lakescale.chunks.plan", "nothing"],
    ],
)  # fmt: skip
def test_nothing_but_our_named_tuples_is_made(named):
    told = json.dumps({"value": {"named": [*named, "true"]}, "sizes": []}).encode()
    with pytest.raises(ValueError, match="is no named tuple of lakescale's"):
        unpack(len(told).to_bytes(8, "little") + told)
    with pytest.raises(ValueError, match="is no named tuple of lakescale's"):
        unpack(pack(Stranger(1)))


@pytest.mark.parametrize("value", [{"a": object()}, object(), {1}, np.array([object()])])
def test_nothing_but_plain_values_is_written(value):
    with pytest.raises((TypeError, ValueError)):
        pack(value)
