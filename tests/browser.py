"""A headless Chromium that opens pages from disk, and writes down what they ask for and complain of."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

NAMES = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextmanager
def chromium():
    """Start the browser; skips where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"there is no browser: none of {', '.join(NAMES)} (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install '.[test]'")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser, path, **options):
    """Open a page; at the end it has asked for nothing but itself, and complained of nothing.

    Unless ``options`` say otherwise nothing glides away from under a click.
    """
    usual = {"viewport": {"width": 1280, "height": 1000}, "reduced_motion": "reduce"}
    context = browser.new_context(**{**usual, **options})
    page = context.new_page()
    page.set_default_timeout(60_000)
    asked, told = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: told.append(f"error: {error}"))
    try:
        page.goto(path.as_uri())
        yield page
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert told == []
    finally:
        context.close()
