"""Which chunks of a store are finished: commit markers, written after the data."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lakescale.schema import InputError
from lakescale.storage import Location, list_files, locate, read_each, remove, size_of, write_each, write_whole
from lakescale.store.codec import CHECKSUM_BYTES, pack, unpack
from lakescale.store.files import writing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    """Path or URL of the store."""
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

    @property
    def place(self) -> Location:
        """The store."""
        return locate(self.root)

    def marker(self, index: Index) -> str:
        """Where the marker of a commit lies, relative to the store."""
        return "/".join([self.arrays[0].name, _FOLDER, *map(str, index)])

    def files(self, index: Index) -> dict[tuple[str, Index], str]:
        """Files of the chunks of a commit, relative to the store; by the array's name and the index it has alone."""
        return {
            (name, inner): "/".join([name, "c", *map(str, (*index[:-2], *inner, *index[-2:]))])
            for name, _, sizes in self.arrays
            for inner in np.ndindex(*sizes)
        }

    def count(self, *leading: int) -> int:
        """Count the markers of a leading index, without looking into them."""
        return len(self._list_markers(leading))

    def unfinished(self, *leading: int) -> list[Index]:
        """List the commits that are not there, or whose files are not as long as they were."""
        return [index for index, is_whole in self._judge(leading).items() if not is_whole]

    def is_cut_short(self, *leading: int) -> bool:
        """Tell whether a writer was killed: some markers are not there, and nothing is damaged."""
        judged = self._judge(leading).values()
        return None in judged and False not in judged

    def last_written_ns(self, *leading: int) -> int:
        """Tell when the youngest marker was written; 0 where there is none."""
        return max(self._list_markers(leading).values(), default=0)

    def forget(self, *leading: int) -> None:
        """Take away the markers of a leading index: all of it is to be written again."""
        remove(self.place / self.marker(leading))

    def sweep(self) -> None:
        """Take away what killed writers, Zarr's among them, left on a disk under names of their own."""
        if isinstance(self.place, Path):
            for left_over in self.place.rglob("*.partial"):
                left_over.unlink(missing_ok=True)

    def _list_markers(self, leading: Index) -> dict[str, int]:
        """List the markers of a leading index, and when they were written."""
        found = list_files(self.place, self.marker(leading))
        return {name: told.changed_ns for name, told in found.items() if PurePosixPath(name).name.isdigit()}

    def _judge(self, leading: Index) -> dict[Index, bool | None]:
        """Tell of each commit whether its marker is whole and its files have the size it tells; None of no marker."""
        indices = self.indices(*leading)
        markers = list(read_each(self.place, [self.marker(index) for index in indices]))
        if not any(markers):
            return dict.fromkeys(indices)
        sizes: dict[str, str] = {}
        for name, *_ in self.arrays:
            found = list_files(self.place, "/".join([name, "c", *map(str, leading)]))
            sizes |= {file: str(told.size) for file, told in found.items()}
        return {
            index: None if marker is None else self._fits(index, marker, sizes)
            for index, marker in zip(indices, markers, strict=True)
        }

    def _fits(self, index: Index, marker: bytes, sizes: dict[str, str]) -> bool:
        told = self._parse(index, marker)
        return bool(told) and all(sizes.get(file, _EMPTY) == line.split()[0] for file, line in told.items())

    def _is_finished(self, index: Index) -> bool:
        """Tell the same of one commit."""
        (marker,) = read_each(self.place, [self.marker(index)])
        if marker is None:
            return False
        sizes = {file: size_of(self.place / file) for file in self.files(index).values()}
        return self._fits(index, marker, {file: str(size) for file, size in sizes.items() if size is not None})

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
        index, lines = (*leading, *block), []
        if self._is_finished(index):
            return 0
        given = {array.name: values for array, values in zip(self.arrays, pixels, strict=True)}

        def packed() -> Iterator[tuple[str, bytes | None]]:
            for (name, inner), file in self.files(index).items():
                data = pack(given[name][inner], self.chunk)
                lines.append(f"{file} {_line(data)}\n")
                yield file, data

        with writing(self.place / self.marker(index)):
            write_each(self.place, packed())
            write_whole(self.place / self.marker(index), _sealed("".join(lines)).encode("ascii"))
        return sum(values.nbytes for values in pixels)

    def read_marker(self, index: Index) -> dict[str, str]:
        """Read what a marker tells of each file: size and checksum, or ``empty``.

        Raises
        ------
        InputError
            When there is no marker, or it is damaged.
        """
        (marker,) = read_each(self.place, [self.marker(index)])
        told = {} if marker is None else self._parse(index, marker)
        if told:
            return told
        what = "a chunk is not finished" if marker is None else "the commit marker of a chunk is damaged"
        raise InputError(f"{what}: {_where(self.arrays[0].name, index)}", str(self.place / self.marker(index)), "")

    def read(
        self, name: str, index: Index, inner: Sequence[Index], told: dict[str, str]
    ) -> Iterator[NDArray[Any] | None]:
        """Read whole chunks of one commit as ``(y, x)``, checked against its marker; None where one is empty.

        Raises
        ------
        InputError
            When a chunk's file is not what was written.
        """
        dtype = next(array.dtype for array in self.arrays if array.name == name)
        of_index = self.files(index)
        files = [of_index[name, one] for one in inner]
        for one, file, stored in zip(inner, files, read_each(self.place, files), strict=True):
            problem = _difference(_line(stored), told[file])
            chunk = None if problem or stored is None else unpack(stored, self.chunk, dtype)
            if problem or (chunk is None and stored is not None):
                what = problem or "its bytes do not fit their checksum"
                raise InputError(f"a damaged chunk, {what}: {_where(name, index, one)}", str(self.place / file), "")
            yield chunk

    def _parse(self, index: Index, marker: bytes) -> dict[str, str]:
        """Read the lines of a marker; empty where it is damaged."""
        text = marker.decode("ascii", "replace")
        body, end, _ = text.rpartition("crc32 ")
        lines = dict(line.split(" ", 1) for line in body.splitlines() if " " in line)
        is_whole = end and text == _sealed(body) and list(lines) == list(self.files(index).values())
        return lines if is_whole else {}


def _sealed(body: str) -> str:
    """Close a marker with the checksum of its own text."""
    return f"{body}crc32 {zlib.crc32(body.encode('ascii', 'replace')):08x}\n"


def _line(stored: bytes | None) -> str:
    """Size of a chunk's file and its checksum, the last bytes; ``empty`` where there is no file."""
    return _EMPTY if stored is None else f"{len(stored)} {stored[-CHECKSUM_BYTES:].hex()}"


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
