"""The report in a browser: it draws without errors or requests, equals the JSON, sorts, is dark and light."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from browsing import Watched, chromium
from comparison_example import example
from garnish.comparing.report.page import write_page
from garnish.comparing.report.results import read_results
from garnish.comparing.report.spreadsheet import csv_text


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    results = example()
    return results, write_page(read_results(results), tmp_path_factory.mktemp("report")).as_uri()


def arms(opened, body="adapters"):
    return opened.page.locator(f"tbody.{body} tr.arm .arm-name").all_inner_texts()


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
        before = arms(opened, "references")
        heading = opened.page.locator("th[data-column='5'] button")
        assert heading.inner_text().startswith("mean")
        heading.click()
        falling = [arm["name"] for arm in sorted(known, key=lambda arm: -arm["delta_m"]["mean"])]
        assert arms(opened) == [*falling, "Mona", "Convpass"]  # without a figure: last, whichever way
        assert opened.page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        heading.click()
        assert arms(opened) == [*falling[::-1], "Mona", "Convpass"]
        opened.page.locator("th[data-column='10'] button").click()
        assert arms(opened) == [arm["name"] for arm in sorted(adapters, key=lambda arm: arm["encoder_trainable"])]
        opened.page.locator("th[data-column='0'] button").click()
        assert arms(opened)[0] == "AdaptFormer" and arms(opened).index("LoRA r=4") < arms(opened).index("LoRA r=16")
        assert sorted(arms(opened, "references")) == sorted(before) and opened.troubles == []


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
