"""Whole files, and trees of them: on a disk by another name and a rename, in an object store by one request each."""

from __future__ import annotations

import datetime as dt
import errno
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lakescale.schema import InputError, LakescaleError
from lakescale.storage.remote import READ_ONLY, Location, Remote, locate
from lakescale.storage.trouble import reaching
from lakescale.storage.urls import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PARTIAL = ".partial"
_PROBE = "probe.partial"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors of a disk that takes no more."""
_MARKS = ("ETag", "etag", "Content-MD5", "Digest", "Last-Modified", "LastModified", "updated", "mtime", "created")
"""What fsspec's file systems (HTTP, S3, GCS, files) tell of a file that changes when it changes."""
_TIMES = ("LastModified", "mtime", "last_modified", "updated", "created")
_WAITING_BYTES = 64e6
_SHAPEFILE_PARTS = (".shx", ".dbf", ".prj", ".cpg")


class Told(NamedTuple):
    """What is known of a file without reading it."""

    size: int
    changed_ns: int
    """When it was written, in nanoseconds since 1970; 0 where the storage does not tell."""


def write_whole(path: Location, data: bytes) -> None:
    """Write a file, all of it or nothing."""
    if isinstance(path, Remote):
        with reaching(path):
            path.files.pipe_file(path.key, data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_each(root: Location, contents: Iterable[tuple[str, bytes | None]]) -> None:
    """Write files below a folder, each whole or not at all, and delete those without content; in any order.

    An object store takes many at once; no more than 64 MB wait for it.
    """
    if not isinstance(root, Remote):
        for name, data in contents:
            if data is None:
                (root / name).unlink(missing_ok=True)
            else:
                write_whole(root / name, data)
        return
    waiting: dict[str, bytes] = {}
    for name, data in contents:
        if data is None:
            (root / name).unlink(missing_ok=True)
            continue
        waiting[f"{root.key}/{name}"] = data
        if sum(map(len, waiting.values())) > _WAITING_BYTES:
            _pipe(root, waiting)
    _pipe(root, waiting)


def read_each(root: Location, names: Sequence[str]) -> Iterator[bytes | None]:
    """Read files below a folder, one after the other, or from an object store at once; None of what is not there."""
    if not isinstance(root, Remote):
        for name in names:
            yield (root / name).read_bytes() if (root / name).exists() else None
        return
    keys = [f"{root.key}/{name}" for name in names]
    with reaching(root):
        found = root.files.cat_ranges(keys, None, None, on_error="return") if keys else []
        for one in found:
            if isinstance(one, Exception) and not isinstance(one, FileNotFoundError):
                raise one
    while found:
        one = found.pop(0)
        yield None if isinstance(one, Exception) else bytes(one)


def list_files(root: Location, below: str = "") -> dict[str, Told]:
    """List all files below a root, or below one of its folders, by their path from the root.

    What goes while they are listed, since a run is on there, is left out; so is a link that leads nowhere.
    """
    folder = root / below if below else root
    before = f"{below}/" if below else ""
    if isinstance(folder, Remote):
        with reaching(folder, absent=False):
            start = folder.key.rstrip("/") + "/"
            found = folder.files.find(folder.key, detail=True)
        return {before + key.removeprefix(start): _tell(one) for key, one in found.items() if key.startswith(start)}
    told: dict[str, Told] = {}
    for path in (Path(place, name) for place, _, names in os.walk(folder) for name in names):
        with suppress(FileNotFoundError):
            at = path.stat()
            told[before + path.relative_to(folder).as_posix()] = Told(at.st_size, at.st_mtime_ns)
    return told


def is_link(path: Location) -> bool:
    """Tell whether it is a symbolic link, which leads out of its folder; an object store has none."""
    return isinstance(path, Path) and path.is_symlink()


def remove(target: Location) -> None:
    """Delete a file, or a folder with all that lies below it; of a link the link alone; nothing where there is none."""
    if isinstance(target, Remote):
        _delete(target, list_files(target))
        target.unlink(missing_ok=True)
    elif target.is_dir() and not is_link(target):
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def move(source: Location, target: Location, *, last: str) -> None:
    """Give a folder the name of another, which goes: by a rename, or by copies that the storage makes.

    Parameters
    ----------
    source, target
        Both of this machine, or both of one storage. Nothing lies at the target.
    last
        The file below that tells readers that all is there: copied after the others, and deleted first. After a kill
        the source is whole, or the target is.
    """
    if not (isinstance(source, Remote) and isinstance(target, Remote)):
        source.replace(target)  # type: ignore[union-attr,arg-type]
        return
    names = sorted(list_files(source), key=lambda name: (name == last, name))
    for some in (names[:-1], names[-1:]):
        with reaching(target):
            source.files.copy([f"{source.key}/{name}" for name in some], [f"{target.key}/{name}" for name in some])
    (source / last).unlink(missing_ok=True)
    _delete(source, names[:-1])


def build_tree(root: Location, contents: Mapping[str, bytes], *, last: str) -> None:
    """Write a folder of files, all of it or nothing: by a rename, or with the file last that tells of it."""
    if isinstance(root, Remote):
        write_each(root, [(name, data) for name, data in contents.items() if name != last])
        write_whole(root / last, contents[last])
        return
    partial = root.with_name(f"{root.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    for name, data in contents.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(data)
    partial.replace(root)


@contextmanager
def aside(target: Location, step: str = "") -> Iterator[Path]:
    """Give a path of this machine to write a file to, which gets its name when the block ends without an error.

    On a disk that path lies beside the target, as ``NAME.partial.EXT``. For an object store it lies in the folder of
    temporary files (``TMPDIR``), and is uploaded.
    """
    if isinstance(target, Remote):
        with tempfile.TemporaryDirectory(prefix="lakescale-") as folder:
            path = Path(folder, target.name)
            yield path
            with reaching(target):
                target.files.put_file(str(path), target.key)
        return
    partial = target.with_name(f"{target.stem}{step}{PARTIAL}{target.suffix}")
    partial.unlink(missing_ok=True)  # a link of that name would lead elsewhere
    try:
        yield partial
        sync(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the disk take the bytes before the name: a full disk may show only here."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def fetched(source: str | Location) -> Iterator[str]:
    """Give a path of this machine to read a file from: its own, or that of a copy for as long as the block lasts.

    Of a Shapefile the files that belong to it come along. What GDAL names (``/vsi...``) stays as it is.
    """
    if not is_url(source) or str(source).startswith("/vsi"):
        yield str(source)
        return
    place = locate(source)
    if not isinstance(place, Remote):
        yield str(place)
        return
    with tempfile.TemporaryDirectory(prefix="lakescale-") as folder:
        beside = _SHAPEFILE_PARTS if place.suffix.lower() == ".shp" else ()
        for ending in ("", *beside):
            one = place.with_suffix(ending) if ending else place
            with reaching(one, absent=bool(ending)):
                _copy_here(one, Path(folder, one.name), needed=not ending)
        yield str(Path(folder, place.name))


def size_of(path: Location) -> int | None:
    """Tell the size of a file; None where there is none."""
    if isinstance(path, Remote):
        told = path.told()
        return None if told is None else _tell(told).size
    return path.stat().st_size if path.exists() else None


@contextmanager
def fetched_folder(source: Location) -> Iterator[Path]:
    """Give a folder of this machine with the files that lie right below one, for as long as the block lasts."""
    if not isinstance(source, Remote):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="lakescale-") as folder:
        for one in source.iterdir():
            if one.is_file():
                with reaching(one):
                    one.files.get_file(one.key, str(Path(folder, one.name)))
        yield Path(folder)


def changed_ns(path: Location) -> int:
    """Tell when a file was written, in nanoseconds since 1970; 0 where there is none."""
    if isinstance(path, Remote):
        return _tell(path.told() or {}).changed_ns
    return path.stat().st_mtime_ns if path.exists() else 0


def version_of(source: str | Path) -> tuple[int, int | str]:
    """Tell a file from an earlier one of its name: by its size and time, or by what its server says of it.

    Zeros where nothing is known: of what is not there, of what GDAL names (``/vsi...``), of a web server that does not
    answer that question.
    """
    if not is_url(source):
        try:
            stat = Path(source).stat()
        except OSError:
            return 0, 0
        return stat.st_size, stat.st_mtime_ns
    place = locate(source)
    if not isinstance(place, Remote):
        return version_of(place)
    try:
        told = place.told() or {}
    except LakescaleError:
        if not place.url.startswith(READ_ONLY):
            raise
        told = {}
    return int(told.get("size") or 0), " ".join(f"{name}={told[name]}" for name in _MARKS if told.get(name))


def refusal(error: OSError) -> str:
    """Say in words what a disk refused."""
    return "no space left on the disk" if error.errno in DISK_FULL else error.strerror or str(error)


def require_there(source: str) -> None:
    """Say why a URL that GDAL cannot open cannot be: nothing is there, or the storage refuses.

    Raises
    ------
    InputError, RunError
        As `reaching` has them; nothing is raised where a file is there, of paths, and of what GDAL names (``/vsi...``).
    """
    if is_url(source) and not source.startswith("/vsi"):
        place = locate(source)
        if isinstance(place, Remote) and place.told() is None:
            with reaching(place, absent=False):
                place.files.ls(place.parent.key)  # a missing bucket is told
            raise InputError("there is no such file", str(place), "check the URL")


def require_writable(folder: Location) -> None:
    """Make a folder; of an object store, see that something can be written there.

    Raises
    ------
    InputError
        When the bucket is missing, or credentials do not allow it.
    RunError
        When the storage does not answer.
    """
    if not isinstance(folder, Remote):
        folder.mkdir(parents=True, exist_ok=True)
        return
    if folder.url.startswith(READ_ONLY):
        raise InputError("a web server can only be read", str(folder), "write to a path, or to s3://, gs:// or az://")
    write_whole(folder / _PROBE, b"")
    (folder / _PROBE).unlink(missing_ok=True)


def _tell(told: Mapping[str, Any]) -> Told:
    """Read what a file system of fsspec says of a file; each has its own word for the time."""
    time: Any = next((told[name] for name in _TIMES if told.get(name)), 0)
    if isinstance(time, str):
        time = dt.datetime.fromisoformat(time)
    if isinstance(time, dt.datetime):
        time = (time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp()
    return Told(int(told.get("size") or 0), int(time * 1e9))


def _pipe(root: Remote, waiting: dict[str, bytes]) -> None:
    """Write objects at the same time, and forget them."""
    with reaching(root):
        root.files.pipe(waiting)
    waiting.clear()


def _copy_here(source: Remote, path: Path, *, needed: bool) -> None:
    try:
        source.files.get_file(source.key, str(path))
    except FileNotFoundError:
        if needed:
            raise
        path.unlink(missing_ok=True)


def _delete(root: Remote, names: Iterable[str]) -> None:
    keys: list[Any] = [f"{root.key}/{name}" for name in names]
    if keys:
        with reaching(root):
            root.files.rm(keys)
