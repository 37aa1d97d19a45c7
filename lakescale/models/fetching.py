"""Checkpoints from afar: a URL's file is copied once to the user's cache, and read from there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import platformdirs

from lakescale.models.shipped import SHIPPED, shipped_checkpoint
from lakescale.schema import InputError
from lakescale.storage import Remote, bare_url, locate, version_of
from lakescale.storage.trouble import reaching

CACHE = "LAKESCALE_CACHE"
"""Names the environment variable with the folder of copies; without it they go to the user's cache."""


def local_copy(source: str | Path) -> Path:
    """Give a path that can be read here: the path itself, or that of a copy of what a URL names.

    A copy belongs to the URL and to what the server tells of the file (its entity tag, or size and time): another
    file under the same URL is fetched anew. Processes that fetch at the same time do not disturb each other.

    Parameters
    ----------
    source
        A path, or a URL that fsspec reads: ``https://``, and ``s3://`` or ``gs://`` where s3fs or gcsfs is installed.
        Or ``shipped``, the checkpoint that comes with lakescale.

    Raises
    ------
    InputError
        When the URL cannot be read. It is named without user, password and query.
    RunError
        When its server does not answer.
    """
    if str(source) == SHIPPED:
        return shipped_checkpoint()
    place = locate(source)
    if not isinstance(place, Remote):
        return place
    try:
        return _fetch(place)
    except FileNotFoundError:
        pass
    raise InputError("cannot fetch the checkpoint: there is no such file", str(place), "mend the URL")


def _fetch(place: Remote) -> Path:
    mark = hashlib.sha256(f"{bare_url(place.url)} {version_of(place.url)}".encode()).hexdigest()[:16]
    target = _cache() / f"{mark}-{place.name}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            with reaching(place):
                place.files.get_file(place.key, str(partial))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return target


def _cache() -> Path:
    given = os.environ.get(CACHE)
    return (Path(given) if given else Path(platformdirs.user_cache_dir("lakescale"))) / "checkpoints"
