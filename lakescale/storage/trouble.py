"""What storage libraries raise, in our words: what is wrong, where, and what mends it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakescale.schema import InputError, LakescaleError, RunError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""Extras of the package by the scheme that needs them."""
_KEYS = (
    "see that the environment has the right credentials (AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), "
    "and that they allow it: docs/cloud.md"
)
_ADDRESS = "see the network and the endpoint (AWS_ENDPOINT_URL), and run it again: it goes on"
_LIBRARIES = frozenset({"aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs"})
_NOT_YOURS = frozenset({"CredentialsNotSupported", "InvalidToken", "TokenRefreshRequired", "UnauthorizedAccess"})


@contextmanager
def reaching(item: object, *, absent: bool = True) -> Iterator[None]:
    """Turn what the library of a storage raises into ours.

    Parameters
    ----------
    item
        What is read or written.
    absent
        Whether `FileNotFoundError` passes, as of a path; but for a bucket that is not there.

    Errors that are not of a storage pass, too.

    Raises
    ------
    InputError
        Where credentials or the bucket are wrong, or a library is missing.
    RunError
        Where the storage does not answer, or refuses.
    """
    told: LakescaleError | None = None
    try:
        yield
    except (LakescaleError, FileExistsError):
        raise
    except FileNotFoundError as error:
        if absent and not _lacks_bucket(error):
            raise
        told = _of_absence(error, str(item))
    except Exception as error:
        if not _is_of_storage(error):
            raise
        told = _in_our_words(error, str(item))
    if told is not None:
        raise told  # out here: a cause or context of theirs does not survive pickling from a worker


def _is_of_storage(error: Exception) -> bool:
    return isinstance(error, OSError | ImportError | NotImplementedError) or (
        type(error).__module__.partition(".")[0] in _LIBRARIES
    )


def _of_absence(error: FileNotFoundError, item: str) -> LakescaleError:
    if _lacks_bucket(error):
        return InputError("there is no such bucket", item, "make it first, or mend the URL; see AWS_ENDPOINT_URL, too")
    return InputError("there is no such file", item, "check the URL")


def _in_our_words(error: Exception, item: str) -> LakescaleError:
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ImportError):
        scheme = item.partition("://")[0]
        extra = f"pip install 'lakescale[{EXTRAS[scheme]}]'" if scheme in EXTRAS else "install what it names"
        return InputError(f"{scheme}:// needs a library that is not installed: {said}", item, extra)
    if (
        isinstance(error, PermissionError)
        or code_of(error) in _NOT_YOURS
        or "credential" in type(error).__name__.lower()
    ):
        return InputError(f"access is refused: {said}", item, _KEYS)
    if isinstance(error, NotImplementedError):
        return InputError(f"it can only be read: {said}", item, "write to a path, or to s3://, gs:// or az://")
    return RunError(f"the storage does not answer as it should: {said}", item, _ADDRESS)


def _lacks_bucket(error: BaseException) -> bool:
    said = str(error).lower()
    return code_of(error) == "NoSuchBucket" or ("bucket" in said and "exist" in said)


def code_of(error: BaseException) -> str:
    """Read the code of S3's answer; empty where it is none."""
    answer = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    return str(answer.get("Error", {}).get("Code", "")) if isinstance(answer, dict) else ""
