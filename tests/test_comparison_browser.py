"""The report in a browser: it draws without errors or requests, equals the JSON, sorts, is dark and light."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from comparison_example import example
from garnish.comparing.report.page import write_page
from garnish.comparing.report.results import read_results
from garnish.comparing.report.spreadsheet import csv_text

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        found = next((path for name in NAMES if (path := shutil.which(name))), play.chromium.executable_path)
        if not Path(found).is_file():
            pytest.skip("no Chromium here")
        started = play.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    results = example()
    return results, write_page(read_results(results), tmp_path_factory.mktemp("report")).as_uri()


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

    def arms(self, body="adapters"):
        return self.page.locator(f"tbody.{body} tr.arm .arm-name").all_inner_texts()


RESOLVE = """results => [...document.querySelectorAll("[data-path]")].map(cell => {
  const steps = cell.dataset.path.split("/").slice(1).map(s => s.replaceAll("~1", "/").replaceAll("~0", "~"));
  const value = steps.reduce((at, step) => at?.[step], results) ?? null;
  return [cell.dataset.path, JSON.parse(cell.dataset.value), value];
})"""


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (375, "light"), (375, "dark")])
def test_the_page_draws_without_errors_or_requests(browser, report, width, scheme):
    _, uri = report
    with Watched(browser, uri, width, scheme) as opened:
        assert opened.troubles == [] and opened.asked_for() == [uri]
        assert opened.page.evaluate("document.documentElement.scrollWidth") == width  # only tables scroll sideways
        shown = opened.page.locator(".pareto:visible").count()
        assert shown == 4  # one of the widths of the first, and three more
        red = int(opened.background().removeprefix("rgb(").split(",")[0])
        assert red > 240 if scheme == "light" else red < 40
        ink = opened.page.evaluate("getComputedStyle(document.querySelector('.chart .name')).fill")
        assert (int(ink.removeprefix("rgb(").split(",")[0]) < 60) == (scheme == "light")


def test_the_table_equals_the_json(browser, report):
    results, uri = report
    with Watched(browser, uri) as opened:
        figures = opened.page.evaluate(RESOLVE, results)
        assert len(figures) > 300 and all(shown == value for _, shown, value in figures)
        kept = json.loads(opened.page.locator("#results").text_content())
        assert kept == results
        for link, content in (("JSON", None), ("CSV", csv_text(read_results(results)))):
            with opened.page.expect_download() as download:
                opened.page.get_by_role("link", name=link, exact=True).click()
            text = Path(download.value.path()).read_text("utf-8")
            assert json.loads(text) == results if content is None else text == content
        assert opened.troubles == []


def test_headings_sort_within_their_group(browser, report):
    results, uri = report
    adapters = [arm for arm in results["arms"] if arm["role"] == "adapter"]
    known = [arm for arm in adapters if arm["delta_m"]]
    with Watched(browser, uri) as opened:
        before = opened.arms("references")
        heading = opened.page.locator("th[data-column='5'] button")
        assert heading.inner_text().startswith("mean")
        heading.click()
        falling = [arm["name"] for arm in sorted(known, key=lambda arm: -arm["delta_m"]["mean"])]
        assert opened.arms() == [*falling, "Mona", "Convpass"]  # without a figure: last, whichever way
        assert opened.page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        heading.click()
        assert opened.arms() == [*falling[::-1], "Mona", "Convpass"]
        opened.page.locator("th[data-column='10'] button").click()
        assert opened.arms() == [arm["name"] for arm in sorted(adapters, key=lambda arm: arm["encoder_trainable"])]
        opened.page.locator("th[data-column='0'] button").click()
        assert opened.arms()[0] == "AdaptFormer" and opened.arms().index("LoRA r=4") < opened.arms().index("LoRA r=16")
        assert sorted(opened.arms("references")) == sorted(before) and opened.troubles == []


def test_the_theme_turns_and_is_remembered(browser, report):
    _, uri = report
    with Watched(browser, uri, scheme="light") as opened:
        light = opened.background()
        opened.page.locator("#theme").click()
        dark = opened.background()
        assert dark != light and opened.page.locator("#theme").inner_text() == "Light"
        opened.page.reload()
        assert opened.background() == dark
        opened.page.locator("#theme").click()
        assert opened.background() == light and opened.troubles == []


def test_hostile_names_run_nothing(browser, tmp_path):
    results = example(tasks=("seg",))
    hostile = (
        "</script></title></style><img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    )
    results["title"] += hostile
    results["notes"].append(hostile)
    for arm in results["arms"]:
        arm["name"] += hostile
    with Watched(browser, write_page(read_results(results), tmp_path).as_uri()) as opened:
        opened.page.locator("th[data-column='0'] button").click()
        assert opened.page.title() == results["title"] and opened.page.locator("img").count() == 0
        assert opened.troubles == [] and len(opened.asked_for()) == 1
