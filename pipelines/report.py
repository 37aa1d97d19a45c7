"""The report of a run or a season: one page that a browser opens without a network."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lakescale.storage import fetched_folder, locate
from pipelines.report_page import render_page
from pipelines.report_pictures import make_pictures
from pipelines.report_read import read_told
from pipelines.run_folder import REPORT_FILE, publish

if TYPE_CHECKING:
    from lakescale.storage import Location

_LOG = logging.getLogger(f"lakescale.{__name__}")

_IMAGES_BYTES = 6_000_000
"""Of the images of all dates, as files."""


def write_report(folder: str | Location, out: str | Location | None = None) -> Location:
    """Write the page that shows a run or a season: map, charts, tables, where all comes from.

    It is made of what lies in the folder alone, and written whole or not at all.

    Parameters
    ----------
    folder
        Of a finished run of `lakescale map`, of a season, or of a date of a season; a run may lie in an object store.
    out
        The file to write, ``report.html`` in the folder by default.

    Raises
    ------
    InputError
        When the folder holds no finished run, or a file in it is damaged.
    RunError
        When the page cannot be written.
    """
    folder = locate(folder)
    target = folder / REPORT_FILE if out is None else locate(out)
    with fetched_folder(folder) as here:
        told = read_told(here)
        share = _IMAGES_BYTES // max(1, len(told.dates))
        pictures = [make_pictures(date, told.frame, most_bytes=share) for date in told.dates]
    page = render_page(told, pictures)
    publish(target, lambda path: path.write_text(page, encoding="utf-8"))
    _LOG.debug("report of %d characters in %s", len(page), target)
    return target


def try_report(folder: Location) -> list[str]:
    """Write the report of a run that is finished, whatever happens to the report.

    Returns
    -------
    list of str
        A note where there is no report, and why.
    """
    try:
        write_report(folder)
    except Exception as error:  # noqa: BLE001  (the lakes are there: no fault of a page may take them away)
        note = f"warning: there is no report: {error}; the lakes are written; try again: lakescale report {folder}"
        _LOG.warning("%s", note)
        return [note]
    return []
