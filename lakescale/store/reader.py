"""Arrays of a store, read chunk by chunk and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from lakescale.chunks import Place, split_key
from lakescale.chunks.plan import shared_blocks
from lakescale.scene.pixels import plan_window
from lakescale.schema import InputError
from lakescale.store.codec import FILLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lakescale.store.commits import Commits, Index


@dataclass(frozen=True)
class StoredArray:
    """An array of a store, checked chunk by chunk as it is read, for `dask.array.from_array`.

    Its axes are those of the Zarr array, of which the leading ones may be picked and put in another order.
    """

    commits: Commits
    name: str
    shared: tuple[tuple[int, ...], ...]
    """Indices along the axes that all arrays of the commit share; of a cube, the places of its dates."""
    own: tuple[tuple[int, ...], ...]
    """Indices along the axes that this array has alone: bands."""
    dtype: np.dtype[Any]
    labels: tuple[str, ...] = ()
    """What the indices of the first shared axis are called in errors: dates."""
    mend: str = ""
    """What mends a damaged chunk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the picked axes, then y and x."""
        return (*(len(axis) for axis in (*self.shared, *self.own)), *self.commits.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        ranges, picks = zip(*map(split_key, key, self.shape), strict=True)
        out = np.empty(tuple(len(one) for one in ranges), self.dtype)
        window = Place(ranges[-2].start, ranges[-1].start, len(ranges[-2]), len(ranges[-1]))
        if out.size:
            for position in np.ndindex(*out.shape[: len(self.shared)]):
                self._fill(out[position], ranges, position, window)
        return out[picks]

    def _fill(self, out: NDArray[Any], ranges: Sequence[range], position: Index, window: Place) -> None:
        """Read all that lies at one leading index into its place."""
        count = len(self.shared)
        first = [one[k] for one, k in zip(ranges[:count], position, strict=True)]
        leading = tuple(axis[k] for axis, k in zip(self.shared, first, strict=True))
        own = [[axis[k] for k in one] for axis, one in zip(self.own, ranges[count:-2], strict=True)]
        label = self.labels[first[0]] if first and self.labels else ""
        for block, of_block, of_window in shared_blocks(window, self.commits.chunks):
            index = (*leading, *block)
            try:
                told = self.commits.read_marker(index)
                places = list(np.ndindex(*out.shape[:-2]))
                inner = [tuple(axis[k] for axis, k in zip(own, place, strict=True)) for place in places]
                for place, chunk in zip(places, self.commits.read(self.name, index, inner, told), strict=True):
                    out[(*place, *of_window)] = FILLS[self.dtype.name] if chunk is None else chunk[of_block]
            except InputError as error:
                what = f"{error.what}, {label}" if label else error.what
                raise InputError(what, error.item, self.mend) from None


def lazy_array(reader: StoredArray, chunks: int | None, name: str) -> Any:
    """Make a dask array that reads whole chunks of the store, cut to other chunks where such are wanted."""
    stored = reader.commits.chunk
    side = stored if chunks is None else (chunks, chunks)
    window = stored if chunks is None else plan_window(reader.commits.shape, stored, chunks, 1)
    leading = (*(1 for _ in reader.shared), *(len(axis) for axis in reader.own))
    array = da.from_array(
        reader, chunks=(*leading, *window), name=name, asarray=False, lock=False, inline_array=True,
        meta=np.empty((0,) * reader.ndim, reader.dtype),
    )  # fmt: skip
    return array if window == side else array.rechunk((*leading, *side), method="tasks")
