"""Words for what a disk refuses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lakescale.schema import LakescaleError, RunError
from lakescale.storage import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lakescale.storage import Location


@contextmanager
def writing(target: Location) -> Iterator[None]:
    """Say of a disk that refuses what it refused."""
    problem = ""
    try:
        yield
    except LakescaleError:
        raise
    except OSError as error:
        problem = refusal(error)
    if problem:
        # raised out here, so that it can be pickled
        raise RunError(f"cannot write: {problem}", str(target), "make room, or mend the path, and run it again")
