"""Plain values to bytes and back: numbers, text, arrays, our named tuples, GeoDataFrames. To read them runs nothing."""

from __future__ import annotations

import json
from importlib import import_module
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_OURS = f"{__name__.partition('.')[0]}."
_SIZE_BYTES = 8
_TUPLE, _DICT, _NAMED, _DTYPE = "tuple", "dict", "named", "dtype"
_BYTES, _ARRAY, _SCALAR, _FRAME = "bytes", "array", "scalar", "frame"


def pack(value: Any) -> bytes:
    """Write a value as bytes.

    Parameters
    ----------
    value
        None, a bool, int, float, text or bytes; a numpy array, scalar or dtype without objects; a GeoDataFrame; a
        tuple, list, dict or one of lakescale's named tuples of such.

    Raises
    ------
    TypeError
        For anything else.
    """
    buffers: list[bytes] = []
    told = json.dumps({"value": _lay(value, buffers), "sizes": [len(one) for one in buffers]}).encode()
    return b"".join([len(told).to_bytes(_SIZE_BYTES, "little"), told, *buffers])


def unpack(data: bytes | memoryview) -> Any:
    """Read what `pack` wrote; arrays are copies.

    Raises
    ------
    ValueError
        When it names what is no named tuple of lakescale's.
    """
    view = memoryview(data)
    start = _SIZE_BYTES + int.from_bytes(view[:_SIZE_BYTES], "little")
    told = json.loads(bytes(view[_SIZE_BYTES:start]))
    ends = np.cumsum([start, *told["sizes"]]).tolist()
    return _raise(told["value"], [view[a:b] for a, b in pairwise(ends)])


def _lay(value: Any, buffers: list[bytes]) -> Any:
    """Turn a value into what JSON takes, its arrays and tables into buffers."""
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, np.generic)):
        return value  # numpy's float64 is a float, too
    if isinstance(value, np.dtype):
        return {_DTYPE: np.lib.format.dtype_to_descr(value)}
    if isinstance(value, tuple | list):
        listed, kind = [_lay(one, buffers) for one in value], type(value)
        return {kind.__name__: listed} if kind in (tuple, list) else {_NAMED: [kind.__module__, kind.__name__, *listed]}
    if type(value) is dict:
        return {_DICT: [[_lay(key, buffers), _lay(one, buffers)] for key, one in value.items()]}
    buffers.append(b"")
    number = len(buffers) - 1
    name, buffers[number] = _pour(value)
    return {name: number}


def _pour(value: Any) -> tuple[str, bytes]:
    """Write what is large as bytes; and name what it is."""
    if isinstance(value, bytes):
        return _BYTES, value
    buffer = BytesIO()
    if isinstance(value, np.ndarray | np.generic):
        np.lib.format.write_array(buffer, np.asanyarray(value), allow_pickle=False)
        return _ARRAY if isinstance(value, np.ndarray) else _SCALAR, buffer.getvalue()
    if isinstance(value, gpd.GeoDataFrame):
        value.to_parquet(buffer)
        return _FRAME, buffer.getvalue()
    raise TypeError(f"{type(value).__name__} is no plain value")


def _raise(told: Any, buffers: list[memoryview]) -> Any:
    if not isinstance(told, dict):
        return told
    ((kind, about),) = told.items()
    if kind in _FROM_BUFFER:
        return _FROM_BUFFER[kind](buffers[about])
    if kind == _DTYPE:
        return np.lib.format.descr_to_dtype([tuple(one) for one in about] if isinstance(about, list) else about)
    if kind == _DICT:
        return {_raise(key, buffers): _raise(one, buffers) for key, one in about}
    if kind == _NAMED:
        return _find_named(*about[:2])(*(_raise(one, buffers) for one in about[2:]))
    listed = [_raise(one, buffers) for one in about]
    return tuple(listed) if kind == _TUPLE else listed


def _read_array(buffer: memoryview) -> Any:
    return np.lib.format.read_array(BytesIO(buffer), allow_pickle=False)


_FROM_BUFFER: dict[str, Callable[[memoryview], Any]] = {
    _BYTES: bytes,
    _ARRAY: _read_array,
    _SCALAR: lambda buffer: _read_array(buffer)[()],
    _FRAME: lambda buffer: gpd.read_parquet(BytesIO(buffer)),
}


def _find_named(module: str, name: str) -> Any:
    """Find a named tuple of ours, and nothing else."""
    found = getattr(import_module(module), name, None) if module.startswith(_OURS) else None
    if not (isinstance(found, type) and issubclass(found, tuple) and hasattr(found, "_fields")):
        raise ValueError(f"{module}.{name} is no named tuple of lakescale's")
    return found
