"""One writer a store: on a disk by the system's lock, in an object store by an object that only one can make.

An object store knows no lock that goes with its process. So there the holder rewrites the lock every few seconds. One
that does not change for a minute is that of a run that died, and is taken over: at once where it ran on this machine.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lakescale.schema import LakescaleError, RunError
from lakescale.storage.files import write_whole
from lakescale.storage.remote import Location, Remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BEAT_S, LEASE_S = 10.0, 60.0
"""How often a holder says that it lives; how long a lock stands that says nothing."""
_LOG = logging.getLogger(__name__)
_BUSY, _WAIT = "another process is writing to the store", "wait for it to end"


@contextmanager
def locked(root: Location) -> Iterator[None]:
    """Keep other processes from writing to a store.

    Raises
    ------
    RunError
        When another process has it; at the end, when another one has taken it over, since this one stood still.
    """
    with _leased(root) if isinstance(root, Remote) else _flocked(root):
        yield


@contextmanager
def _flocked(root: Path) -> Iterator[None]:
    handle = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(_BUSY, str(root), _WAIT) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def _leased(root: Remote) -> Iterator[None]:
    lock = root.with_name(f"{root.name}.lock")
    holder = _Holder(lock)
    holder.take()
    beating = threading.Thread(target=holder.beat, name="lakescale-lock", daemon=True)
    beating.start()
    try:
        yield
    finally:
        holder.ended.set()
        beating.join()
        holder.release()
    if holder.is_lost:
        raise RunError(
            "another process took over the lock of the store", str(root), "see that only one run writes to it"
        )


def is_running(holder: Mapping[str, Any]) -> bool:
    """Tell whether there is a process of this machine with a holder's ``pid``, whoever owns it."""
    try:
        os.kill(int(holder["pid"]), 0)
    except (KeyError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


class _Holder:
    """Holds a lock that is an object."""

    def __init__(self, lock: Remote) -> None:
        self.lock, self.ended, self.is_lost = lock, threading.Event(), False
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self._told = {"token": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "since": now}
        self._beats = 0

    def take(self) -> None:
        """Make the lock; wait for one that may be a dead run's."""
        while not (self.lock.create(self._text()) or self._is_own()):  # own: made, but the answer was lost
            there = self._read()
            if there and self._stands_still(there) and self._read() == there:
                _LOG.warning("%s: taken over from a run that died (%s)", self.lock, _who(there))
                self.lock.unlink(missing_ok=True)
        if self.lock.create(self._text()):
            _LOG.warning("%s: this storage cannot tell writers apart: see that only one run writes there", self.lock)

    def _stands_still(self, there: bytes) -> bool:
        """Watch a lock: raise where its holder lives, tell whether it does not, False where it let go."""
        if _is_dead(there):
            return True
        _LOG.info("%s: held by %s; waiting to see whether it lives", self.lock, _who(there))
        until = time.monotonic() + LEASE_S
        while time.monotonic() < until:
            time.sleep(BEAT_S / 4)
            now = self._read()
            if not now:
                return False
            if now != there:
                raise RunError(f"{_BUSY} ({_who(now)})", str(self.lock), _WAIT)
        return True

    def beat(self) -> None:
        """Rewrite the lock until the block ends, as long as it is this process's."""
        while not self.ended.wait(BEAT_S) and not self.is_lost:
            with suppress(LakescaleError):  # a beat may be missed
                self.is_lost = not self._is_own()
                if not self.is_lost:
                    self._beats += 1
                    write_whole(self.lock, self._text())

    def release(self) -> None:
        """Delete the lock, if it is still this process's."""
        with suppress(LakescaleError):
            if self._is_own():
                self.lock.unlink(missing_ok=True)

    def _is_own(self) -> bool:
        return _parse(self._read()).get("token") == self._told["token"]

    def _read(self) -> bytes:
        try:
            return self.lock.read_bytes()
        except FileNotFoundError:
            return b""

    def _text(self) -> bytes:
        return json.dumps(self._told | {"beats": self._beats}).encode()


def _parse(text: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        return {}


def _who(text: bytes) -> str:
    told = _parse(text)
    return ", ".join(f"{name} {told.get(name, '?')}" for name in ("host", "pid", "since"))


def _is_dead(text: bytes) -> bool:
    """Tell whether the holder ran on this machine, and runs no more."""
    told = _parse(text)
    return told.get("host") == socket.gethostname() and not is_running(told)
