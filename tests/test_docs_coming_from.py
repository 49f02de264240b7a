"""docs/coming-from.md: our blocks run; what stands in our column, and in those of PEFT and Lightning, exists."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import garnish as gn
from garnish.backbones.backbone import Backbone
from garnish.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text("utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.splitlines() if line.startswith("| ")]
OURS = [span for row in ROWS for span in re.findall(r"`([^`]+)`", row[1])]


def section(title: str) -> list[list[str]]:
    text = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return [row for row in ROWS if " | ".join(row) in text]


def keywords(text: str) -> list[str]:
    """``a=1, b=2`` in code spans → a, b; what a dots-only value hides is still a keyword."""
    spans = " ".join(re.findall(r"`([^`]+)`", text))
    return re.findall(r"\b(\w+)=", spans)


def test_our_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        exec(compile(block, "docs/coming-from.md", "exec"), names)
    assert list(names["outlines"].tasks) and (tmp_path / "adapter" / "adapter_config.json").is_file()
    assert set(names["maps"].maps) == set(names["train"].tasks) and (tmp_path / "merged").is_dir()


@pytest.mark.parametrize("span", [span for span in OURS if span.startswith(("gn.", "model."))])
def test_our_calls_take_what_they_are_given(span):
    call = ast.parse(span.replace("…", "..."), mode="eval").body
    if isinstance(call, ast.Attribute):
        assert hasattr(gn, call.attr)
        return
    for node in ast.walk(call):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = gn if ast.unparse(node.func.value) == "gn" else gn.Model
            of_trunk = owner is gn.Model and node.func.attr == "backbone"  # an object, which is called
            signature = inspect.signature(Backbone.forward if of_trunk else getattr(owner, node.func.attr))
            given = [key.arg for key in node.keywords]
            assert set(given) <= set(signature.parameters) or node.func.attr == "save", f"{span}: {given}"


def test_options_of_fit_and_of_lora_exist():
    known = set(inspect.signature(gn.fit).parameters)
    for row in section("Lightning")[1:]:
        assert set(keywords(row[1])) <= known, row
    assert {"rs", "dora", "layers"} <= set(inspect.signature(gn.LoRA).parameters)


@pytest.mark.parametrize("span", [span for span in OURS if span.startswith("garnish ")])
def test_our_commands_are_verbs_with_their_options(span, capsys):
    words = span.split()
    with pytest.raises(SystemExit) as left:
        main([words[1], "--help"])
    shown = capsys.readouterr().out
    assert left.value.code == 0 and all(word in shown for word in words if word.startswith("--"))


@pytest.mark.reference
def test_their_options_exist():
    from lightning.pytorch import Trainer
    from peft import LoraConfig, PeftModel

    rows = section("PEFT")
    assert set(keywords(" ".join(row[0] for row in rows))) <= set(inspect.signature(LoraConfig).parameters)
    for name in ("save_pretrained", "from_pretrained", "print_trainable_parameters"):
        assert hasattr(PeftModel, name) and name in PAGE
    asked = set(keywords(" ".join(row[0] for row in section("Lightning"))))
    known = set(inspect.signature(Trainer.__init__).parameters) | set(inspect.signature(Trainer.fit).parameters)
    assert asked - {"patience"} <= known
