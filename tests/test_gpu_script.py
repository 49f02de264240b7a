"""``benchmarks/gpu``: all of it but CUDA itself, on tiny trunks; time boxes; what the page says."""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tool(monkeypatch):
    """A module of the script by its name."""
    for folder in ("benchmarks/training", "benchmarks/gpu"):
        monkeypatch.syspath_prepend(ROOT / folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield importlib.import_module
    torch._dynamo.reset()


@pytest.fixture
def rows(tool):
    """What a part finds on the CPU, as from its process; of all its items, or those whose names hold some text."""

    def run(part, text=""):
        parts = tool("parts")
        listed = [(label, call) for label, call in parts.items_of(part, "cpu", True) if text in label]
        found = [json.loads(json.dumps(row)) for row in parts.done(iter(listed), time.monotonic() + 60, 1)]
        assert found[0] == {"items": [label for label, _ in listed]} and len(found) == 1 + len(listed) > 1
        assert not [row for row in found if "error" in row]
        return found

    return run


def found_of(**parts):
    """What the whole script found, with these parts' rows."""
    return {
        "command": "sh benchmarks/gpu.sh",
        "device": "cuda",
        "quick": False,
        "missing": ["peft is missing"],
        "machine": {
            "python": "3.12.3",
            "versions": {"torch": "2.11.0"},
            "name": "Some GPU",
            "memory": 2**33,
            "cuda": "13.0",
        },
        "parts": {name: {"rows": rows, "ended": "", "seconds": 1.0} for name, rows in parts.items()},
        "seconds": 4,
    }


def test_the_conformance_sample_holds_and_sees_what_is_wrong(tool, rows, monkeypatch):
    found = rows("conformance", "LoRA on dinov2")
    page, sample = tool("page"), tool("sample")
    (row,) = found[1:]
    assert row["over"] == [] and row["float64"]["mixed rows"] < 1e-10
    assert 0 < row["float32"]["merged"] < 1e-4 and row["float64"]["CPU"] == "is the CPU"
    text = page.text(found_of(conformance=found))
    assert "1 of 1 cases within their bounds" in text and "| LoRA on dinov2 | 0e+00 / 0e+00 |" in text
    assert not page.failed(found_of(conformance=found))

    # a merge that goes wrong by a millionth is seen in float64
    right = sample.merge_adapters

    def wrong(trunk, owner):
        made = right(trunk, owner)
        for tensor in made.frozen_tensors().values():
            tensor.mul_(1 + 1e-6)
        return made

    monkeypatch.setattr(sample, "merge_adapters", wrong)
    for other in ("start", "mixed_rows", "cpu"):
        monkeypatch.setattr(sample.Checks, other, lambda checks: 0.0)
    monkeypatch.setattr(sample.Checks, "gradients", lambda checks, level: "not made")
    found = rows("conformance", "LoRA on dinov2")
    assert [line.split(":")[0] for line in found[1]["over"]] == ["merged, float64"]
    assert page.failed(found_of(conformance=found))
    assert "**failed**: LoRA on dinov2: too far apart (merged, float64" in page.text(found_of(conformance=found))


def test_steps_of_all_arms(tool, rows):
    found = rows("eager", "bf16")
    row = found[1]
    assert {*row["arms"], *row["left_out"]} == {"fast", "lean", "least", "peft", "full"}
    assert row["arms"]["least"]["bytes"]["kept"] < 0.5 * row["arms"]["fast"]["bytes"]["kept"]
    assert row["arms"][row["reference"]]["over"] == 1
    text = tool("page").text(found_of(eager=found))
    assert "| ViT-S, bf16 autocast | fast | " in text and "over peft's" in text


def test_mixed_rows_are_those_of_each_owner(tool, rows):
    found = rows("mixed", "from the middle")
    assert all(row["apart"] <= 1e-5 and row["over"] == [] for row in found[1:] if "float32" in row["item"])
    assert [row["item"] for row in found[1:] if "trunk" in row["mixed_over"]] == [
        "from the middle, pass, float32",
        "from the middle, pass, bf16 autocast",
    ]
    assert "| from the middle, training step, float32 | " in tool("page").text(found_of(mixed=found))


@pytest.mark.compile
def test_compiled_steps(tool, rows):
    found = rows("compiled", "fast")
    assert found[1]["loss_apart"] < 1e-2 and found[1]["warm_up"] > 0
    assert "| fast, bf16 autocast | aot_eager | " in tool("page").text(found_of(compiled=found))


def test_an_item_that_fails_takes_no_other_with_it_and_what_is_late_is_not_begun(tool, monkeypatch):
    parts, page = tool("parts"), tool("page")
    now = [0.0]
    monkeypatch.setattr(parts, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def broken():
        raise ValueError("no such kernel\nmore")

    def slow():
        now[0] = 7.5
        return {}

    items = [("first", broken), ("second", lambda: {"left_out": "x"}), ("third", slow), ("fourth", dict)]
    found = list(parts.done(iter(items), until=10.0, least=3.0))
    assert [row.get("item") for row in found] == [None, "first", "second", "third"]
    assert found[1]["error"] == "ValueError: no such kernel" and found[3]["took"] == 7.5
    whole = found_of(compiled=found[:3])
    assert page.not_done(whole["parts"]["compiled"]) == ["third", "fourth"]
    text = page.text(whole)
    assert "**failed**: first: ValueError: no such kernel" in text
    assert "Not done for want of time: third; fourth." in text and page.failed(whole)
    assert "peft is missing" in text and "Some GPU, 8 GiB, CUDA 13.0" in text


def test_a_part_is_stopped_at_its_limit_and_keeps_what_it_said(tool):
    check = tool("check")
    said = "import sys, time; print('{\"item\": 1}', flush=True)"
    found = check.run_part([sys.executable, "-S", "-c", f"{said}; time.sleep(60)"], 2)
    assert found["rows"] == [{"item": 1}] and "stopped after its 2 s" in found["ended"] and found["seconds"] < 10
    found = check.run_part([sys.executable, "-c", f"{said}; sys.exit(3)"], 30)
    assert found["rows"] == [{"item": 1}] and "status 3" in found["ended"]
    assert tool("page").failed({"parts": {"eager": found}})
    assert not tool("page").failed({"parts": {"eager": {**found, "ended": ""}}})


def test_what_is_missing_or_old_is_told(tool, monkeypatch):
    check = tool("check")
    assert check.missing() == []
    real = check.metadata.version
    there = {"timm": "1.0.9", "torch": "2.11.0+cu130"}

    def version(name):
        if name == "scipy":
            raise check.metadata.PackageNotFoundError(name)
        return there.get(name) or real(name)

    monkeypatch.setattr(check.metadata, "version", version)
    assert check.missing() == ["timm is 1.0.9, older than 1.0.30", "scipy is missing"]


def test_the_script_runs_its_parts_and_without_a_device_nothing(tool, monkeypatch, capsys, tmp_path):
    check = tool("check")
    monkeypatch.setattr(check.torch.cuda, "is_available", lambda: False)
    assert check.main([]) == 1
    assert "nothing was run" in capsys.readouterr().err

    asked = []

    def part(command, seconds):
        asked.append((command[2], seconds))
        return {"rows": [{"items": ["x"]}], "ended": "was stopped after its 9 s", "seconds": 9.0}

    monkeypatch.setattr(check, "run_part", part)
    out = tmp_path / "page.md"
    given = ["--device", "cpu", "--quick", "--page", str(out), "--minutes", "2"]
    assert check.main(given) == 0
    assert [name for name, _ in asked] == list(check.BOXES)
    assert all(seconds <= 118 for _, seconds in asked)
    text = out.read_text("utf-8")
    assert "**A trial of the script**" in text and "Not done for want of time: x." in text
    assert sum(check.BOXES.values()) < 8 * 60


def test_the_page_is_of_a_run_or_says_that_there_was_none(tool):
    page = tool("page")
    kept = page.PAGE.read_text("utf-8")
    assert kept.startswith(page.HEAD) and page.WHAT in kept
    assert kept == page.text(None) or "Run on " in kept
    assert "**Not run**" in page.text(None)
