"""The page of ``garnish check``: it shows what was counted and found, holds all of itself; names stay text."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import yaml
from PIL import Image

from garnish.cli import main
from garnish.doctor.diagnosis import SplitFacts
from garnish.doctor.examine import examine
from garnish.doctor.fault import Fault
from garnish.doctor.opened_splits import open_splits
from garnish.doctor.page import check_page as tested
from garnish.doctor.page.check_page import check_page
from garnish.doctor.page.histogram_panels import histogram_panels, histogram_svg
from garnish.doctor.page.page_room import PageRoom
from garnish.targets.distances import Distances
from garnish.targets.unit_vectors import UnitVectors

SIZE = (12, 16)
EVIL = "<script>alert(1)<_script> &amp; \"'`b`\u202e"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four training pictures, one of an evil name, two of validation; ids, depth, normals; two ids are too large."""
    root, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(3)
    for split, names in (("train", ["a0", "a1", "a2", EVIL]), ("val", ["b0", "b1"])):
        for kind in ("rgb", "seg", "depth", "normals"):
            (root / split / kind).mkdir(parents=True)
        for name in names:
            colours = rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(colours).save(root / split / "rgb" / f"{name}.png")
            ids = np.repeat([0, 1], 6).astype(np.uint8)[:, None].repeat(SIZE[1], 1)
            ids[0, 0] = 9 if name in (EVIL, "a2") else 0
            Image.fromarray(ids).save(root / split / "seg" / f"{name}.png")
            np.save(root / split / "depth" / f"{name}.npy", rng.uniform(1, 8, SIZE).astype(np.float32))
            normals = rng.normal(size=(*SIZE, 3))
            normals[..., 2] = -np.abs(normals[..., 2]) - 0.1
            normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
            np.save(root / split / "normals" / f"{name}.npy", normals.astype(np.float32))
    described = {
        "path": ".",
        "images": "{split}/rgb/*.png",
        "tasks": {
            "seg": {"task": "Semantic", "labels": "{split}/seg/{name}.png", "classes": ["sky", "<b>road</b>", "none"]},
            "depth": {"task": "Depth", "labels": "{split}/depth/{name}.npy"},
            "normals": {"task": "Normals", "labels": "{split}/normals/{name}.npy"},
        },
    }
    (root / "data.yaml").write_text(yaml.safe_dump(described))
    return root


def escaped(name):
    return name.replace("\u202e", "\\u202e")


class Parsed(HTMLParser):
    """Elements with their attributes, texts of scripts, and all text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.scripts, self.text, self.inside = [], [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if self.inside[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.inside[-1:] != ["style"]:
            self.text += data

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def html(root, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "check.html"
    assert main(["check", str(root), "--page", str(file), "--jobs", "1"]) == 1
    return file.read_text("utf-8")


def test_the_page_runs_its_one_script_and_asks_nobody(html):
    page = Parsed(html)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.scripts]
    assert len(digests) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["script-src"] == f"'sha256-{digests[0]}'"
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    for _, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith(("data:", "#"))
    assert not re.search(r"url\(|@import", html)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)


def test_strangers_names_are_text(html):
    page = Parsed(html)
    assert "alert(1)" not in "".join(page.scripts)
    assert EVIL[:30] in page.text and "<b>road</b>" in page.text
    assert "\u202e" not in html, "a mark that turns the direction of text is escaped"
    assert page.all("b") == [{}] * html.count("<b>")


def test_shares_and_counts_are_those_of_the_files(html, root):
    page = Parsed(html)
    ids = [np.asarray(Image.open(root / "val" / "seg" / f"b{n}.png")) for n in (0, 1)]
    share = np.mean([i == 1 for i in ids])
    rows = re.findall(r"&lt;b&gt;road&lt;/b&gt;</th>(.*?)</tr>", html)
    assert len(rows) == 1 and rows[0].count(f"{100 * share:.2f}&nbsp;%") == 2
    assert "none</span>" in re.findall(r"none</th>(.*?)</tr>", html)[0], "a class that never occurs says so"
    assert "4 labels" in page.text and "2 labels" in page.text and "16×12" in page.text


def test_pictures_are_small_data_urls_of_what_is_there(html, root):
    page = Parsed(html)
    urls = {image["alt"]: image["src"] for image in page.all("img")}
    kind, data = urls["picture of b0"].removeprefix("data:image/").split(";base64,")
    shown = np.asarray(Image.open(BytesIO(base64.b64decode(data))), np.float64)
    stored = np.asarray(Image.open(root / "val" / "rgb" / "b0.png"), np.float64)
    assert kind == "jpeg" and shown.shape == stored.shape
    assert abs(shown.mean() - stored.mean()) < 8
    kind, data = urls["seg of b0"].removeprefix("data:image/").split(";base64,")
    painted = np.asarray(Image.open(BytesIO(base64.b64decode(data))).convert("RGB"))
    assert (painted[:6] == painted[0, 0]).all() and (painted[6:] == painted[-1, -1]).all()
    assert not (painted[0, 0] == painted[-1, -1]).all()
    colours = re.findall(r"background:(#[0-9a-f]{6})", html)
    assert "#{:02x}{:02x}{:02x}".format(*painted[0, 0]) in colours, "chips have the colours of the painted labels"


def test_the_label_that_a_finding_is_about_is_shown(html):
    finding = html[html.index("label ids 9") :]
    pair = finding[finding.index('class="pair"') : finding.index("</article>")]
    (image, label) = Parsed(pair).all("img")[:2]
    assert (image["alt"], label["alt"]) in [(f"picture of {name}", f"seg of {name}") for name in ("a2", escaped(EVIL))]


def test_levels_are_filtered_without_a_script(html):
    page = Parsed(html)
    radios = [i for i in page.all("input") if i["type"] == "radio"]
    labels = {label["for"] for label in page.all("label")}
    assert {r["id"] for r in radios} == labels
    assert sum("checked" in r for r in radios) == (1 if radios else 0)
    for radio in radios[1:]:
        assert f"#{radio['id']}:checked ~ .groups > :not(.{radio['id'].removeprefix('level-')})" in html


def test_the_page_is_bounded_whatever_was_found(root, monkeypatch):
    monkeypatch.setattr(tested, "_PICTURES", 30_000)
    diagnosis = examine(root, jobs=1)
    opened = open_splits(root)
    many = tuple(
        Fault(
            check=f"check{number % 7}",
            level=("error", "warning", "hint")[number % 3],
            message=f"{'x' * 300}: wrong",
            remedy="mend it",
            tasks=("seg", "depth", "normals"),
            files=tuple(f"/data/{'long' * 20}/{k}.png" for k in range(400)),
            names=("a0", "a1", "a2", EVIL),
        )
        for number in range(3000)
    )
    made = check_page(dataclasses.replace(diagnosis, faults=many), opened.sets, source="set")
    assert len(made.encode()) < 5_000_000
    told = re.findall(r"and ([0-9]+) more (?:error|warning|hint)s of", made)
    assert sum(map(int, told)) + made.count('<article class="card">') == 3000
    assert "no room for more pictures" in made and "--json lists all" in made
    findings = made[made.index('id="findings"') : made.index('id="splits"')]
    assert 20_000 < sum(map(len, re.findall('src="(data:[^"]*)"', findings))) <= 30_000


def test_room_is_taken_once():
    room = PageRoom(10)
    assert room.take(6) and not room.take(5) and room.take(4) and not room.take(1)
    assert room.refused == 2


def test_histograms_count_what_numpy_counts():
    metres = np.random.default_rng(0).lognormal(1, 1, (1, 5000))
    metres[0, :7] = 0.001
    found = Distances.quantities(metres)["distance"]
    assert found.counts.tolist() == np.histogram(metres, found.edges)[0].tolist()
    assert (found.below, found.above) == (int((metres < 0.01).sum()), int((metres > 1e4).sum())) and found.unit == "m"
    vectors = np.random.default_rng(1).normal(size=(3, 999))
    vectors /= np.linalg.norm(vectors, axis=0)
    for name, along in zip("xyz", vectors, strict=True):
        one = UnitVectors.quantities(vectors)[name]
        assert one.counts.tolist() == np.histogram(along, one.edges)[0].tolist() and one.counts.sum() == 999


def test_a_drawn_bin_is_as_high_as_its_share():
    one = Distances.quantities(np.array([[1.02] * 3 + [5.0]]))["distance"]
    svg = str(histogram_svg({"train": one}, "depth: distance in m"))
    heights = {round(160 - float(y), 1) for y in re.findall(r"[ML]?[\d.]+ ([\d.]+)", re.search(r'd="(.*?)"', svg)[1])}
    assert heights == {0.0, 148.0, 49.3}, "three quarters are as high as the drawing, one quarter a third of that"
    assert "1\u00a0m" in svg and "5\u00a0m" in svg


def test_kinds_without_quantities_have_no_panel(root):
    diagnosis = examine(root, jobs=1)
    panels = histogram_panels(diagnosis)
    assert {task: [p.quantity for p in found] for task, found in panels.items()} == {
        "depth": ["distance"],
        "normals": ["x", "y", "z"],
    }
    assert panels["depth"][0].splits == ("train", "val")
    empty = dataclasses.replace(diagnosis, splits={"train": SplitFacts(pictures=0)})
    assert histogram_panels(empty) == {}
