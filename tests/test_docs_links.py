"""Links and pictures of the pages lead to files and headings that exist; commands are real verbs with real options."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from garnish import registry
from garnish.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
EXPLAINED = ROOT / "docs" / "explained.md"


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Headings as code hosts name them: lower case, punctuation dropped, spaces to hyphens."""
    titles = re.findall(r"^#+ (.*)$", without_code(page.read_text("utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path, text: str) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else (page.parent / path).resolve()
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=[p.relative_to(ROOT).as_posix() for p in PAGES])
def test_links_and_pictures_exist(page):
    assert broken_links(page, page.read_text("utf-8")) == []


def test_broken_links_are_found():
    text = "[a](methods.md) ![b](images/none.png) [c](benchmarks.md#nowhere) [d](benchmarks.md#one-pass) [e](#glossary)"
    assert broken_links(EXPLAINED, text) == ["images/none.png", "benchmarks.md#nowhere"]


def test_every_picture_is_used_and_small():
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text("utf-8"))
        if not target.startswith("http")
    }
    for file in (ROOT / "docs" / "images").rglob("*.png"):
        assert file in linked, f"{file.relative_to(ROOT)} is on no page"
        assert file.stat().st_size < 300_000, file
        # opaque, or it cannot be read on the dark page of a code host
        assert Image.open(file).convert("RGBA").getextrema()[3][0] == 255, file


def test_the_explanation_names_what_exists():
    known = {name for kind in registry.KINDS for name in registry.classes(kind)}
    named = set(re.findall(r"`([A-Z]\w+)`", EXPLAINED.read_text("utf-8")))
    assert {"LoRA", "VPT", "SideTuning"} <= named <= known


def test_its_figures_are_the_measured_ones():
    """Those that its sentences quote, out of the tables that they are taken from."""
    text = " ".join(EXPLAINED.read_text("utf-8").split())
    trunks = json.loads((ROOT / "benchmarks" / "methods" / "results.json").read_text("utf-8"))["trunks"]
    vit, swin = trunks["ViT-S/16"]["methods"], trunks["Swin-T"]["methods"]
    mega = {name: row.get("bytes_for_backward", 0) / 1e6 for name, row in vit.items()}
    step = {name: row.get("step_ratio", 0) for name, row in vit.items()}
    # a slope and two averages a number, four bytes each
    kept = {name: 12 * vit[name]["trained"] / 1e6 for name in ("FullFineTuning", "LoRA")}
    for said in (
        f"{mega['SideTuning']:.0f} MB for backward where LoRA keeps {mega['LoRA']:.0f} (ViT-S/16)",
        f"{vit['NormTuning']['trained'] / 1e3:.0f} k and {vit['BitFit']['trained'] / 1e3:.0f} k numbers in a ViT-S/16",
        f"{swin['MTLoRA']['bytes_for_backward'] / 1e6:.0f} MB on Swin-T",
        f"from {swin['Frozen']['macs_1'] / 1e9:.1f} to {swin['VPT']['macs_1'] / 1e9:.1f} billion products",
        f"a step of LoRA takes {step['LoRA']:.1f} times as long as one of heads only, full fine-tuning"
        f" {step['FullFineTuning']:.1f} times, side tuning {step['SideTuning']:.2f}",
        f"{kept['FullFineTuning']:.0f} MB for full fine-tuning, {kept['LoRA']:.0f} MB for LoRA",
    ):
        assert said in text, said


@pytest.mark.parametrize("line", re.findall(r"^garnish .*$", EXPLAINED.read_text("utf-8"), flags=re.MULTILINE))
def test_commands_of_the_explanation(line, capsys):
    words = shlex.split(line, comments=True)
    with pytest.raises(SystemExit) as left:
        main([words[1], "--help"])
    assert left.value.code == 0 and f"garnish {words[1]}" in capsys.readouterr().out
    assert all((ROOT / word).exists() for word in words if word.startswith("recipes/"))
