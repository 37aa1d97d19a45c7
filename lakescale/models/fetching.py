"""Checkpoints from afar: a URL's file is copied once to the user's cache, and read from there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import platformdirs

from lakescale.schema import InputError

CACHE = "LAKESCALE_CACHE"
"""Names the environment variable with the folder of copies; without it they go to the user's cache."""
_MARKS = ("ETag", "etag", "Content-MD5", "Digest", "Last-Modified", "LastModified", "updated", "mtime", "size")
"""What fsspec's file systems (HTTP, S3, GCS, files) tell of a file that changes when it changes."""


def local_copy(source: str | Path) -> Path:
    """Give a path that can be read here: the path itself, or that of a copy of what a URL names.

    A copy belongs to the URL and to what the server tells of the file (its entity tag, or size and time): another
    file under the same URL is fetched anew. Processes that fetch at the same time do not disturb each other.

    Parameters
    ----------
    source
        A path, or a URL that fsspec reads: ``https://``, and ``s3://`` or ``gs://`` where s3fs or gcsfs is installed.

    Raises
    ------
    InputError
        When the URL cannot be read. It is named without user, password and query.
    """
    if "://" not in str(source):
        return Path(source)
    problem = ""
    try:
        return _fetch(str(source))
    except (OSError, ImportError, ValueError) as error:
        problem = str(error).replace(str(source), "the URL").strip() or type(error).__name__
    # raised out here: errors of HTTP libraries cannot be pickled
    mend = "mend the URL, or fetch the file and give its path; s3:// and gs:// need s3fs and gcsfs"
    raise InputError(f"cannot fetch the checkpoint: {problem}", bare_url(str(source)), mend)


def bare_url(url: str) -> str:
    """Leave out of a URL what may be secret: user, password, query and fragment."""
    told = urlsplit(url)
    return urlunsplit((told.scheme, told.netloc.rpartition("@")[2], told.path, "", ""))


def _fetch(url: str) -> Path:
    from fsspec.core import url_to_fs  # noqa: PLC0415  (heavy)

    files, path = url_to_fs(url)
    mark = hashlib.sha256(f"{bare_url(url)} {_tell_version(files, path)}".encode()).hexdigest()[:16]
    name = Path(urlsplit(url).path).name
    target = _cache() / f"{mark}-{name}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            files.get_file(path, str(partial))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def _tell_version(files: Any, path: str) -> str:
    """Tell a remote file from an earlier one of its name, by what its server says of it."""
    said = files.info(path)
    return " ".join(f"{name}={said[name]}" for name in _MARKS if said.get(name))


def _cache() -> Path:
    given = os.environ.get(CACHE)
    return (Path(given) if given else Path(platformdirs.user_cache_dir("lakescale"))) / "checkpoints"
