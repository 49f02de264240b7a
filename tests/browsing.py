"""A headless Chromium, and pages in it whose errors, messages and requests are written down."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextlib.contextmanager
def chromium():
    """The browser; skips the test where playwright or Chromium is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as play:
        found = next((path for name in NAMES if (path := shutil.which(name))), play.chromium.executable_path)
        if not Path(found).is_file():
            pytest.skip("no Chromium here")
        started = play.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield started
        started.close()


class Watched:
    """A page whose errors, messages and requests are written down."""

    def __init__(self, browser, uri, width=1440, scheme="light"):
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.troubles, self.requests = [], []
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(uri)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def asked_for(self):
        return [url for url in self.requests if not url.startswith("data:")]

    def background(self):
        return self.page.evaluate("getComputedStyle(document.body).backgroundColor")
