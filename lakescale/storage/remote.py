"""A URL of a storage, with as much of `pathlib.Path` as is needed; and what takes either."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lakescale.schema import InputError
from lakescale.storage.trouble import code_of, reaching
from lakescale.storage.urls import bare_url, is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_ONLY = ("http://", "https://")
_S3 = ("s3", "s3a")
_THERE = ("PreconditionFailed", "ConditionalRequestConflict")
"""S3's codes where another one was first."""


@dataclass(frozen=True, order=True)
class Remote:
    """A file or folder by its URL. Each question goes to the storage: nothing that it told is kept.

    Errors of the storage are ours (`InputError`, `RunError`), but for `FileNotFoundError` of what is not there.
    """

    url: str
    """Without a slash at its end."""

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"Remote({bare_url(self.url)!r})"

    def __truediv__(self, other: object) -> Remote:
        return Remote(f"{self.url}/{other}")

    @property
    def name(self) -> str:
        """Last part of its path; that of a bucket is its own."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """Name without its ending."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """Ending of its name."""
        return self._pure.suffix

    @property
    def parent(self) -> Remote:
        """Folder it lies in."""
        return Remote(self.url.rpartition("/")[0]) if urlsplit(self.url).path else self

    @property
    def _pure(self) -> PurePosixPath:
        told = urlsplit(self.url)
        return PurePosixPath(f"/{told.netloc}{told.path}")

    def with_name(self, name: str) -> Remote:
        """Name what lies beside it."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> Remote:
        """Name what lies beside it with another ending."""
        return self.with_name(f"{self.stem}{suffix}")

    def absolute(self) -> Remote:
        """Give itself."""
        return self

    def resolve(self) -> Remote:
        """Give itself: it leads nowhere else."""
        return self

    @property
    def files(self) -> Any:
        """The file system of fsspec that reads and writes it."""
        return self._found[0]

    @property
    def key(self) -> str:
        """What the file system calls it."""
        return self._found[1]

    @property
    def _found(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs  # noqa: PLC0415  (heavy)
        from fsspec.registry import known_implementations, registry  # noqa: PLC0415

        scheme = self.url.partition("://")[0]
        if scheme not in known_implementations and scheme not in registry:
            raise InputError("there is no such kind of storage", str(self), "give a path, or a URL: s3://BUCKET/KEY")
        with reaching(self):
            files, key = url_to_fs(self.url, **options_of(self.url))
            return files, str(key)

    def told(self) -> dict[str, Any] | None:
        """Ask the storage what it is: ``type``, ``size`` and what its server tells; None where there is nothing."""
        try:
            with reaching(self):
                return dict(self.files.info(self.key))
        except FileNotFoundError:
            return None

    def exists(self) -> bool:
        """Tell whether there is such a file, or files below it."""
        return self.told() is not None

    def is_file(self) -> bool:
        """Tell whether there is such a file."""
        return (self.told() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        """Tell whether there are files below it."""
        return (self.told() or {}).get("type") == "directory"

    def iterdir(self) -> Iterator[Remote]:
        """List what lies right below it."""
        try:
            with reaching(self):
                found = self.files.ls(self.key, detail=False)
        except FileNotFoundError:
            return
        yield from sorted(self._named(key) for key in found if key.rstrip("/") != self.key.rstrip("/"))

    def glob(self, pattern: str) -> list[Remote]:
        """List what lies below it and fits a pattern; ``**`` takes any number of folders."""
        return (self / pattern).matches()

    def matches(self) -> list[Remote]:
        """List what fits it, where its own URL is a pattern."""
        if self.url.startswith(READ_ONLY):
            raise InputError("a web server does not list its files", str(self), "give the URL of each file")
        with reaching(self):
            found = self.files.glob(self.key)
        if not found:
            self._require_bucket()
        return sorted(self._named(key) for key in found)

    def _require_bucket(self) -> None:
        """Raise where the bucket is not there: patterns and folders are then empty, too."""
        with suppress(FileNotFoundError), reaching(self):
            self.files.ls(self.key.partition("/")[0])

    def read_bytes(self) -> bytes:
        """Read all of it; raise `FileNotFoundError` where it is not there."""
        with reaching(self):
            return bytes(self.files.cat_file(self.key))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read all of it as text."""
        return self.read_bytes().decode(encoding)

    def create(self, data: bytes) -> bool:
        """Write it where there is nothing, by a request that can do no else; tell whether it did."""
        with reaching(self):
            try:
                self.files.pipe_file(self.key, data, mode="create")
            except OSError as error:
                if isinstance(error, FileExistsError) or code_of(error) in _THERE:
                    return False
                if error.errno != errno.ENOSYS:
                    raise
                self.files.pipe_file(self.key, data)  # a storage that knows no such request
            return True

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Delete the file."""
        try:
            with reaching(self):
                self.files.rm_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: folders are there with their files."""

    def _named(self, key: str) -> Remote:
        """Give the URL of what the file system calls ``key``."""
        return Remote(key if is_url(key) else f"{self.url.partition('://')[0]}://{key.strip('/')}")


Location = Path | Remote
"""Where something lies."""


def locate(source: str | Path | Remote) -> Location:
    """Take a path or a URL for what it is.

    Parameters
    ----------
    source
        A path, ``file://...``, or a URL that fsspec knows: ``s3://bucket/key``, ``gs://``, ``az://``, ``https://``,
        ``memory://``.

    Raises
    ------
    InputError
        For a URL that names no file, or holds a user or a password.
    """
    if isinstance(source, Remote) or not is_url(source):
        return source if isinstance(source, Remote) else Path(source)
    url, told = str(source).rstrip("/"), urlsplit(str(source))
    if told.scheme == "file":
        return Path(told.path)
    if "@" in told.netloc and told.scheme not in ("http", "https", "abfs", "abfss"):
        mend = "leave them out: the environment holds them (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_PROFILE)"
        raise InputError("a URL holds a user or a password", url, mend)
    if not told.netloc or ".." in told.path.split("/"):
        raise InputError("a URL names no file", url, "give it as s3://BUCKET/KEY")
    return Remote(url)


def options_of(url: str) -> dict[str, Any]:
    """Give what a file system is told beside fsspec's configuration: to keep no listings."""
    unsigned = os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "1", "ON")
    return {"use_listings_cache": False} | ({"anon": True} if unsigned and url.partition("://")[0] in _S3 else {})
