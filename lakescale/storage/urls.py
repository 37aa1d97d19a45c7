"""URLs: what is one, and what of it may be written down."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from lakescale.schema import InputError

_LIKE_A_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_url(source: object) -> bool:
    """Tell whether a source names something by a URL."""
    return "://" in str(source)


def bare_url(url: str) -> str:
    """Leave out of a URL what may be secret: user, password, query and fragment."""
    told = urlsplit(url)
    return urlunsplit((told.scheme, told.netloc.rpartition("@")[2], told.path, "", ""))


def name_of(source: object) -> str:
    """Name the file of a path or URL, without its folders."""
    return PurePosixPath(urlsplit(str(source)).path if is_url(source) else str(source)).name


def has_magic(url: str) -> bool:
    """Tell whether a URL is a pattern; a question mark begins its query."""
    return any(sign in urlsplit(url).path for sign in "*[")


def refuse_secrets(source: object, what: str) -> None:
    """Refuse a URL with a user, a password or a query, where it would be written down.

    Parameters
    ----------
    source
        A path or URL; paths pass.
    what
        What it is, for messages: ``a checkpoint``.

    Raises
    ------
    InputError
        Without what may be secret.
    """
    if is_url(source) and str(source) != bare_url(str(source)):
        mend = "give the bare URL and let the environment hold what it asks for, or fetch the file and give its path"
        raise InputError(f"the URL of {what} holds a user, a password or a query", bare_url(str(source)), mend)


def local_path(path: str | Path, what: str) -> Path:
    """Take a path of this machine; refuse a URL, of which a folder ``s3:`` would be made.

    Parameters
    ----------
    path
        As the user gave it.
    what
        What cannot be elsewhere, for messages: ``the folder of a season``.

    Raises
    ------
    InputError
        For a URL, even one whose slashes a `Path` has joined.
    """
    if _LIKE_A_URL.match(str(path)):
        mend = "give a path of this machine, and copy what was written: aws s3 sync, gcloud storage rsync, azcopy"
        raise InputError(f"{what} cannot be in an object store", str(path).replace(":/", "://", 1), mend)
    return Path(path)
