"""Which chunks of a store are finished: commit markers, written after the data."""

from __future__ import annotations

import os
import shutil
import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lakescale.schema import InputError
from lakescale.store.codec import CHECKSUM_BYTES, pack, unpack
from lakescale.store.files import write_whole, writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lakescale.chunks import Chunks, Place

_FOLDER, _EMPTY = "commits", "empty"
Index = tuple[int, ...]


class Member(NamedTuple):
    """An array of a commit."""

    name: str
    dtype: str
    sizes: tuple[int, ...] = ()
    """Of the axes that only this array has, between the leading index and y, x."""


@dataclass(frozen=True)
class Commits:
    """Arrays of one store that are committed together.

    An *index* names a commit: the leading index they share (the date of a cube), then row and column of the chunk. An
    array may have more axes between (bands): their chunks are one wide and belong to the same commit.
    """

    root: str
    arrays: tuple[Member, ...]
    shape: tuple[int, int]
    chunk: tuple[int, int]
    """Height and width of a chunk."""

    @property
    def chunks(self) -> Chunks:
        """Chunks along y and x, as dask has them."""
        rows, cols = (
            tuple(min(side, size - start) for start in range(0, size, side))
            for size, side in zip(self.shape, self.chunk, strict=True)
        )
        return rows, cols

    def indices(self, *leading: int) -> list[Index]:
        """List the commits of a leading index, in raster order."""
        rows, cols = (range(len(axis)) for axis in self.chunks)
        return [(*leading, i, j) for i, j in product(rows, cols)]

    def marker(self, index: Index) -> Path:
        """Where the marker of a commit lies."""
        return Path(self.root, self.arrays[0].name, _FOLDER, *map(str, index))

    def files(self, index: Index) -> dict[tuple[str, Index], str]:
        """Files of the chunks of a commit, relative to the store; by the array's name and the index it has alone."""
        return {
            (name, inner): "/".join([name, "c", *map(str, (*index[:-2], *inner, *index[-2:]))])
            for name, _, sizes in self.arrays
            for inner in np.ndindex(*sizes)
        }

    def count(self, *leading: int) -> int:
        """Count the markers of a leading index, without looking into them."""
        folder = self.marker((*leading, 0, 0)).parents[1]
        rows = [row for row in folder.iterdir() if row.is_dir()] if folder.is_dir() else []
        return sum(entry.name.isdigit() for row in rows for entry in os.scandir(row))

    def unfinished(self, *leading: int) -> list[Index]:
        """List the commits that are not there, or whose files are not as long as they were."""
        return [index for index in self.indices(*leading) if not self.is_finished(index)]

    def is_finished(self, index: Index) -> bool:
        """Tell whether a marker is there and whole, and its files have the size it tells."""
        try:
            told = self.read_marker(index)
        except InputError:
            return False
        return all(_size(Path(self.root, file)) == line.split()[0] for file, line in told.items())

    def is_cut_short(self, *leading: int) -> bool:
        """Tell whether a writer was killed: some markers are not there, and nothing is damaged."""
        there = [index for index in self.indices(*leading) if self.marker(index).exists()]
        return len(there) < len(self.indices(*leading)) and all(self.is_finished(index) for index in there)

    def last_written_ns(self, *leading: int) -> int:
        """Tell when the youngest marker was written; 0 where there is none."""
        markers = (self.marker(index) for index in self.indices(*leading))
        return max((marker.stat().st_mtime_ns for marker in markers if marker.exists()), default=0)

    def forget(self, *leading: int) -> None:
        """Take away the markers of a leading index: all of it is to be written again."""
        shutil.rmtree(self.marker((*leading, 0, 0)).parents[1], ignore_errors=True)

    def sweep(self) -> None:
        """Take away what killed writers, Zarr's among them, left in the store under names of their own."""
        for left_over in Path(self.root).rglob("*.partial"):
            left_over.unlink(missing_ok=True)

    def write(self, leading: Index, block: tuple[int, int], _: Place, pixels: Sequence[NDArray[Any]]) -> int:
        """Write the chunks of one commit, then its marker; a commit that is finished is left as it is.

        To bear a kill, each file is written under another name first; to bear two writers, with the same bytes.

        Parameters
        ----------
        leading
            The index that the arrays share.
        block
            Row and column of the chunk.
        pixels
            Of each array, ``(..., y, x)`` with the axes that it has alone.

        Returns
        -------
        int
            Bytes of pixels written; 0 where the commit was finished.

        Raises
        ------
        RunError
            When the disk takes no more.
        """
        index = (*leading, *block)
        if self.is_finished(index):
            return 0
        lines = []
        with writing(self.marker(index)):
            given = {array.name: values for array, values in zip(self.arrays, pixels, strict=True)}
            for (name, inner), file in self.files(index).items():
                packed, path = pack(given[name][inner], self.chunk), Path(self.root, file)
                if packed is None:
                    path.unlink(missing_ok=True)
                else:
                    write_whole(path, packed)
                lines.append(f"{file} {_line(packed)}\n")
            write_whole(self.marker(index), _sealed("".join(lines)).encode("ascii"))
        return sum(values.nbytes for values in pixels)

    def read_marker(self, index: Index) -> dict[str, str]:
        """Read what a marker tells of each file: size and checksum, or ``empty``.

        Raises
        ------
        InputError
            When there is no marker, or it is damaged.
        """
        path, text = self.marker(index), ""
        try:
            text = path.read_bytes().decode("ascii", "replace")
        except OSError:
            what = "a chunk is not finished"
        else:
            body, end, _ = text.rpartition("crc32 ")
            lines = dict(line.split(" ", 1) for line in body.splitlines() if " " in line)
            if end and text == _sealed(body) and list(lines) == list(self.files(index).values()):
                return lines
            what = "the commit marker of a chunk is damaged"
        raise InputError(f"{what}: {_where(self.arrays[0].name, index)}", str(path), "")

    def read(self, name: str, index: Index, inner: Index, told: dict[str, str]) -> NDArray[Any] | None:
        """Read one whole chunk as ``(y, x)``, checked against its marker; None where it is empty.

        Raises
        ------
        InputError
            When the chunk's file is not what was written.
        """
        file = self.files(index)[name, inner]
        path = Path(self.root, file)
        stored = path.read_bytes() if path.exists() else None
        problem = _difference(_line(stored), told[file])
        if not problem and stored is None:
            return None
        dtype = next(array.dtype for array in self.arrays if array.name == name)
        pixels = None if problem or stored is None else unpack(stored, self.chunk, dtype)
        if pixels is None:
            what = problem or "its bytes do not fit their checksum"
            raise InputError(f"a damaged chunk, {what}: {_where(name, index, inner)}", str(path), "")
        return pixels


def _sealed(body: str) -> str:
    """Close a marker with the checksum of its own text."""
    return f"{body}crc32 {zlib.crc32(body.encode('ascii', 'replace')):08x}\n"


def _line(stored: bytes | None) -> str:
    """Size of a chunk's file and its checksum, the last bytes; ``empty`` where there is no file."""
    return _EMPTY if stored is None else f"{len(stored)} {stored[-CHECKSUM_BYTES:].hex()}"


def _size(path: Path) -> str:
    return str(path.stat().st_size) if path.exists() else _EMPTY


def _difference(there: str, told: str) -> str:
    """Say what is wrong with a file; empty where nothing is."""
    if there == told:
        return ""
    if there == _EMPTY:
        return "its file is missing"
    if told == _EMPTY:
        return "it was written as empty and now has a file"
    sizes = [text.partition(" ")[0] for text in (there, told)]
    if sizes[0] != sizes[1]:
        return f"its file has {sizes[0]} bytes of {sizes[1]}"
    return "its checksum is not the one that was written"


def _where(name: str, index: Index, inner: Index = ()) -> str:
    return f"chunk {(*index[:-2], *inner, *index[-2:])} of {name!r}"
