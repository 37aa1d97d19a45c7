"""The report of a run or a season: one page that a browser opens without a network."""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.report_page import render_page
from pipelines.report_pictures import make_pictures
from pipelines.report_read import read_told
from pipelines.run_folder import REPORT_FILE, publish

_LOG = logging.getLogger(f"lakescale.{__name__}")

_IMAGES_BYTES = 6_000_000
"""Of the images of all dates, as files."""


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page that shows a run or a season: map, charts, tables, where all comes from.

    It is made of what lies in the folder alone, and written whole or not at all.

    Parameters
    ----------
    folder
        Of a finished run of `lakescale map`, of a season, or of a date of a season.
    out
        The file to write, ``report.html`` in the folder by default.

    Raises
    ------
    InputError
        When the folder holds no finished run, or a file in it is damaged.
    RunError
        When the page cannot be written.
    """
    folder = Path(folder)
    target = folder / REPORT_FILE if out is None else Path(out)
    told = read_told(folder)
    share = _IMAGES_BYTES // max(1, len(told.dates))
    pictures = [make_pictures(date, told.frame, most_bytes=share) for date in told.dates]
    page = render_page(told, pictures)
    publish(target, lambda path: path.write_text(page, encoding="utf-8"))
    _LOG.debug("report of %d bytes in %s", target.stat().st_size, target)
    return target


def try_report(folder: Path) -> list[str]:
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
