"""What a local disk has to promise: whole files, one writer, and words for what it refuses."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakescale.schema import LakescaleError, RunError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other processes from writing to a store; the lock goes with the process that holds it."""
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError("another process is writing to the store", str(root), "wait for it to end") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Say of a disk that refuses what it refused."""
    problem = ""
    try:
        yield
    except LakescaleError:
        raise
    except OSError as error:
        problem = "no space left on the disk" if error.errno in _FULL else error.strerror or str(error)
    if problem:
        # raised out here, so that it can be pickled
        raise RunError(f"cannot write: {problem}", str(target), "make room, or mend the path, and run it again")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name, then give it its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
