"""The report of a comparison: what stands in it is what stands in results.json, and nothing else."""

from __future__ import annotations

import csv
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import combinations, pairwise

import pytest
from PIL import Image

from comparison_example import example
from garnish.comparing.report.page import WIDE, write_page
from garnish.comparing.report.pareto import COSTS, lay_out
from garnish.comparing.report.pareto_svg import pareto_svg
from garnish.comparing.report.results import read_results
from garnish.comparing.report.small_multiples import curve_panels, gap_panel, search_panels, void_everywhere
from garnish.comparing.report.spreadsheet import csv_text
from garnish.comparing.report.verdict import verdict
from garnish.reporting import number_format as figures
from garnish.reporting.svg import text_width

HOSTILE = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"'&\u2028"


class Reader(HTMLParser):
    """Elements of a page with their attributes, texts of scripts, figures with their places."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.texts, self._script = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._script = self._script and tag != "script"

    def handle_data(self, data):
        if self._script:
            self.scripts[-1] += data
        else:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def figures(self):
        return [(a["data-path"], json.loads(a["data-value"])) for _, a in self.elements if "data-path" in a]


def resolve(results, pointer):
    """RFC 6901, written anew; None where a step is missing."""
    at = results
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(at, list):
            at = at[int(step)]
        elif isinstance(at, dict) and at.get(step) is not None:
            at = at[step]
        else:
            return None
    return at


def read(results, folder):
    return Reader(write_page(read_results(results), folder).read_text("utf-8"))


ONE = {"tasks": ("seg",), "arms": ["LoRA r=4", "BitFit", "Mona", "frozen", "full, one model a task"]}


@pytest.mark.parametrize("given", [{}, ONE], ids=["four tasks", "one task"])
def test_every_figure_is_the_one_in_the_results(given, tmp_path):
    results = example(**given)
    shown = read(results, tmp_path).figures()
    assert all(resolve(results, place) == value for place, value in shown)
    places = {place for place, _ in shown}
    for number, arm in enumerate(results["arms"]):
        expected = [
            f"/arms/{number}/{key}" for key in ("encoder_trainable", "decoder_trainable", "bundle_bytes", "macs")
        ]
        expected += [f"/arms/{number}/{key}" for key in ("bytes_for_backward", "step_seconds", "wall_seconds")]
        expected += [f"/arms/{number}/delta_m/mean"]
        expected += [f"/arms/{number}/metrics/{t}/{a['headline']}/mean" for t, a in results["tasks"].items()]
        expected += [f"/arms/{number}/gap/{task}/mean" for task in results["tasks"]]
        if arm["status"] == "done":
            expected += [f"/arms/{number}/delta_m/interval/{end}" for end in (0, 1)]
            expected += [f"/arms/{number}/step_ratio"]
        assert set(expected) <= places


def test_the_page_carries_the_results_and_asks_nothing_of_others(tmp_path):
    results = example()
    page = read(results, tmp_path)
    assert json.loads(page.scripts[1]) == results
    for tag, attributes in page.elements:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for key in ("src", "href", "action", "srcset", "data"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (tag, attributes[key][:60])
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert (
        policy.startswith("default-src 'none'") and "unsafe-inline'; script" in policy and policy.count("sha256-") == 2
    )


def test_names_of_users_are_text(tmp_path):
    results = example(tasks=("seg",))
    plain = read(results, tmp_path).elements
    text = json.dumps(results)
    for name in ("CamVid, five methods and their references", "LoRA r=4", "pedestrian", "Mona", "extras alone"):
        text = text.replace(f'"{name}"', json.dumps(name + HOSTILE))
    text = text.replace('"seg"', json.dumps("seg" + HOSTILE)).replace("diverged: ", json.dumps(HOSTILE)[1:-1])
    hostile = json.loads(text)
    hostile["notes"].append(HOSTILE)
    hostile["command"] += HOSTILE
    page = read(hostile, tmp_path)
    assert json.loads(page.scripts[1]) == hostile and len(page.scripts) == 3
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [a for _, a in page.elements if any(key.startswith("on") for key in a)]
    drawn = ("line", "path", "text", "title", "svg", "circle", "rect", "li")  # labels may find other places
    count = [sum(t == tag for t, _ in plain) for tag in ("script", "td", "th", "figure", "style", "link", "section")]
    again = [
        sum(t == tag for t, _ in page.elements) for tag in ("script", "td", "th", "figure", "style", "link", "section")
    ]
    assert count == again and {t for t, _ in page.elements} <= {t for t, _ in plain} | set(drawn)
    assert page.text.count("alert(2)") > 10
    assert all(resolve(hostile, place) == value for place, value in page.figures())


def test_marks_reasons_and_void_cells_are_said(tmp_path):
    text = read(example(), tmp_path).text
    for words in (
        "failed: diverged: the loss was not finite at step 40",
        "unfinished: stopped after 2 of 6 runs",
        "rate at the edge of the grid",
        "budget short",
        "void for every arm: full is no better than frozen",
        "random trunk",
        "CamVid: research and teaching only",
        "This report carries no pictures.",
        "Pictures are left out: the data's licence asks for it.",
    ):
        assert words in text, words


def test_the_difference_to_full_fine_tuning_is_said(tmp_path):
    results = example()
    results["arms"][0]["difference"]["depth"] = {"mean": 0.0123, "interval": [-0.004, 0.03]}
    titles = [a.get("title") for _, a in read(results, tmp_path).elements]
    assert "+0.012 (−0.004 to +0.030) against full fine-tuning" in titles


def test_sheets_are_embedded_and_nothing_outside_the_folder_is_read(tmp_path):
    folder = tmp_path / "report"
    (folder / "sheets").mkdir(parents=True)
    Image.new("RGB", (4, 3), (9, 80, 40)).save(folder / "sheets" / "a.png")
    Image.new("RGB", (4, 3)).save(tmp_path / "secret.png")
    results = example()
    cells = {
        "picture": "sheets/a.png",
        "target": "sheets/none.png",
        "LoRA r=4": "../secret.png",
        "BitFit": "index.html",
    }
    sheet = {"kind": "worst", "task": "seg", "picture": "a<b>", "values": {"LoRA r=4": 0.125}, "cells": cells}
    page = read(results | {"sheets": [sheet]}, folder)
    pictures = [a["src"] for tag, a in page.elements if tag == "img"]
    assert len(pictures) == 1 and pictures[0].startswith("data:image/png;base64,")
    assert "Among the worst: seg a<b>" in page.text and "LoRA r=4 0.125" in page.text
    for place in ("sheets/none.png", "../secret.png", "index.html"):
        assert f"{place} is missing" in page.text


def test_the_csv_holds_every_arm_in_full():
    results = example()
    rows = list(csv.DictReader(csv_text(read_results(results)).splitlines()))
    assert [row["name"] for row in rows] == [arm["name"] for arm in results["arms"]]
    for row, arm in zip(rows, results["arms"], strict=True):
        assert row["status"] == arm["status"] and json.loads(row["methods"]) == arm["methods"]
        assert float(row["bundle_bytes"]) == arm["bundle_bytes"]
        if arm["status"] != "done":
            assert row["delta_m"] == row["seg.miou.mean"] == row["step_seconds"] == ""
            continue
        assert float(row["delta_m"]) == arm["delta_m"]["mean"]
        assert [float(row["delta_m_low"]), float(row["delta_m_high"])] == arm["delta_m"]["interval"]
        assert float(row["depth.rmse.most"]) == arm["metrics"]["depth"]["rmse"]["most"]
        if arm["role"] == "adapter":
            assert float(row["seg.gap"]) == arm["gap"]["seg"]["mean"]
            assert row["edges.gap"] == "" and row["edges.gap_void"] == "full is no better than frozen"


@pytest.mark.parametrize("cost", range(4))
@pytest.mark.parametrize("size", [*WIDE, (380, 360)])
def test_labels_do_not_collide_and_the_front_is_the_front(cost, size):
    results = example()
    plot = lay_out(read_results(results), COSTS[cost], *size)
    boxes = [label.box for label in plot.labels]
    assert not [
        (a, b) for a, b in combinations(boxes, 2) if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]
    named = {label.point.name for label in plot.labels}
    assert len(named) == len(plot.points) if size[0] > 700 else len(named) >= len(plot.points) - 2
    for label in plot.labels:
        left, top, right, bottom = label.box
        assert left >= 0 and right <= size[0] and top >= 0 and bottom <= size[1]
        for p in plot.points:
            assert not (left < p.x + 4 and right > p.x - 4 and top < p.y + 4 and bottom > p.y - 4), (label, p)
    arms = [a for a in results["arms"] if a["status"] == "done"]
    key = COSTS[cost].key
    best = {
        a["name"]
        for a in arms
        if not any(b[key] <= a[key] and b["delta_m"]["mean"] >= a["delta_m"]["mean"] and b is not a for b in arms)
    }
    assert {p.name for p in plot.points if not p.dominated} == best
    corners = {(p.x, p.y) for p in plot.points if not p.dominated and not p.below}
    assert corners <= set(plot.front)
    assert all(b[0] >= a[0] and b[1] <= a[1] for a, b in zip(plot.front, plot.front[1:], strict=False))


def test_a_cost_of_zero_and_arms_far_below_have_their_places():
    plot = lay_out(read_results(example()), COSTS[0], 820, 440)
    at = {p.name: p for p in plot.points}
    assert at["frozen"].x == plot.zero < min(p.x for n, p in at.items() if n != "frozen")
    assert {p.name for p in plot.points if p.below} == {"from scratch", "LoRA r=16, random trunk"}
    assert {label.point.label for label in plot.labels} >= {"from scratch  −48.9 ↓"}
    ticks = plot.across.ticks(7)
    assert [round(plot.across.at(t), 6) for t in ticks] == sorted(round(plot.across.at(t), 6) for t in ticks)


def test_the_frozen_trunk_is_drawn_to_scale():
    results = example()
    for arm in results["arms"]:
        if arm["delta_m"] is not None:  # all within a point, heads only five below, a random trunk far below
            place = {"frozen": -5.0, "single": 0.0}.get(arm["role"], -0.5)
            arm["delta_m"]["mean"] = -50.0 if arm["trunk"] == "random" else place
    plot = lay_out(read_results(results), COSTS[0], 820, 440)
    assert all(p.below == (p.delta == -50) for p in plot.points)
    at = {p.delta: p.y for p in plot.points}
    assert (at[-5.0] - at[0.0]) / (at[-0.5] - at[0.0]) == pytest.approx(10)


def test_nothing_to_draw_is_left_out(tmp_path):
    results = example(tasks=("seg",), arms=["Mona", "Convpass"])
    assert (
        lay_out(read_results(results), COSTS[0], 820, 440) is None and gap_panel(read_results(results), "seg") is None
    )
    assert curve_panels(read_results(results)) == []
    page = read(results, tmp_path)
    assert "No adapter has a result yet." in page.text and "What it buys" not in page.text


def test_the_pareto_picture_alone():
    plot = lay_out(read_results(example()), COSTS[0], 820, 440)
    assert plot is not None
    drawn = ET.fromstring(str(pareto_svg(plot)))
    words = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"LoRA r=4", "AdaptFormer", "Trained encoder parameters", "Δm, %"} <= words


def changed(mean, interval, **single):
    """LoRA with a given Δm, one worse adapter, frozen and the reference."""
    results = example(tasks=("seg",), arms=["LoRA r=4", "BitFit", "frozen", "full, one model a task"])
    for arm in results["arms"]:
        if arm["name"] == "LoRA r=4":
            arm["delta_m"] |= {"mean": mean, "interval": interval}
        if arm["role"] == "single":
            arm |= single
    return results


@pytest.mark.parametrize(
    ("mean", "interval", "words"),
    [
        (-1.24, [-2.0, -0.4], "Every adapter loses to full fine-tuning. LoRA r=4 comes closest: Δm −1.2 %"),
        (
            0.1,
            [-0.8, 1.0],
            "LoRA r=4 cannot be told apart from full fine-tuning: Δm +0.1 %, 95 % interval −0.8 to +1.0",
        ),
        (2.0, [0.5, 3.0], "LoRA r=4 beats full fine-tuning of one model a task: Δm +2.0 %"),
        (2.0, None, "LoRA r=4 comes first with Δm +2.0 %"),
    ],
)
def test_the_verdict_follows_the_figures(mean, interval, words):
    found = verdict(read_results(changed(mean, interval)))
    assert found.line.startswith(words) and "trains 147\u00a0k encoder parameters" in found.line


def test_the_verdict_says_what_is_lost_and_what_is_doubtful():
    results = changed(-1.0, [-2.0, -0.1], flat=False, rate_at_edge=True)
    for arm in results["arms"]:
        if arm["role"] == "adapter":
            arm["difference"]["seg"] = {"mean": -0.02, "interval": [-0.03, -0.01]}
    remarks = " ".join(verdict(read_results(results)).remarks)
    assert "seg: all 2 adapters lose (best −0.020 miou)" in remarks
    assert "its budget was short and its rate lies at the edge of the grid" in remarks
    assert "Most Δm per trained parameter: BitFit" in remarks  # 11 points with 39 k against 17 with 147 k
    results["arms"] = [arm for arm in results["arms"] if arm["role"] != "single"]
    for arm in results["arms"]:
        arm["delta_m"] = None
    assert verdict(read_results(results)).line == "Δm cannot be stated: full fine-tuning has no result."


def test_panels_share_a_scale_and_say_what_is_wrong():
    results = example()
    panels = {(p.name, p.task): p for p in search_panels(read_results(results))}
    assert panels["LoRA r=16", None].note == "1 of 4 rates without a score"
    assert panels["BitFit", None].note == "edge of the grid"
    assert panels["Mona", None].svg is None
    assert panels["from scratch", None].note == "scale of its own"
    assert {task for name, task in panels if name == "full, one model a task"} == set(results["tasks"])
    assert {p.name for p in curve_panels(read_results(results))} == {
        a["name"] for a in results["arms"] if a["status"] == "done"
    }
    assert (
        void_everywhere(read_results(results), "edges") == "full is no better than frozen"
        and void_everywhere(read_results(results), "seg") is None
    )


def test_labels_of_many_rates_stand_apart():
    results = example()
    arm = next(a for a in results["arms"] if a["name"] == "LoRA r=16")
    first = arm["search"][0]
    arm["search"] = [first | {"rate": r} for r in (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)]
    arm["rate"] = 3e-6
    (panel,) = (p for p in search_panels(read_results(results)) if p.name == "LoRA r=16")
    drawn = re.findall(r'<text x="([\d.]+)"[^>]*text-anchor="middle" class="tick">([^<]+)<', str(panel.svg))
    told = {label: float(x) for x, label in drawn}
    assert "3e−6" in told and "0.03" in told and 3 < len(told) < 10
    places = sorted((x, label) for label, x in told.items())
    for (x, one), (y, other) in pairwise(places):
        assert y - x > (text_width(one, 11.5) + text_width(other, 11.5)) / 2


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (figures.count_text, 0, "0"),
        (figures.count_text, 999, "999"),
        (figures.count_text, 147_456, "147\u00a0k"),
        (figures.count_text, 22_869_664, "22.9\u00a0M"),
        (figures.bytes_text, 1_512_000, "1.51\u00a0MB"),
        (figures.metric_text, -0.0123, "−0.012"),
        (figures.metric_text, 19.44, "19.44"),
        (figures.signed_text, -0.04, "0.0"),
        (figures.signed_text, -1.25, "−1.2"),
        (figures.seconds_text, 0.0412, "41.2\u00a0ms"),
        (figures.seconds_text, 724, "12\u00a0min"),
        (figures.seconds_text, 3599.6, "1\u00a0h"),
        (figures.seconds_text, 15734.2, "4\u00a0h\u00a022\u00a0min"),
        (figures.rate_text, 3e-4, "3e−4"),
        (figures.rate_text, 0.01, "0.01"),
        (figures.percent_text, 0.873, "87"),
        (figures.giga_text, 5.21e9, "5.21"),
    ],
)
def test_figures_as_people_read_them(show, value, text):
    assert show(value) == text


def test_the_verdict_does_without_counts_that_could_not_be_made():
    results = example()
    for arm in results["arms"]:
        arm["encoder_trainable"] = None
    line = verdict(read_results(results)).line
    assert "Δm" in line and "parameters" not in line and line.endswith(".")
