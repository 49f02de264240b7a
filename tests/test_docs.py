"""The pages that are made from the code say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from garnish.data.source import SceneOptions
from garnish.data.transforms import Augment
from garnish.training.options import TrainOptions

ROOT = Path(__file__).parents[1]


def load_tool():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    for path, text in load_tool().pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date; run make docs"


def test_text_around_the_generated_part_is_kept():
    tool = load_tool()
    page = tool.methods_page(f"mine\n{tool.BEGIN}what was{tool.END}also mine\n")
    assert page.startswith(f"mine\n{tool.BEGIN}") and page.endswith(f"{tool.END}also mine\n") and "what was" not in page
    assert "### LoRA" in page and "| `rank` | `8` | r, width of the low-rank update. |" in page


def test_every_option_has_a_meaning():
    methods = importlib.import_module("garnish.commands.methods")
    found = [entry for kind in ("adapters", "heads", "tasks") for entry in methods.entries(kind)]
    for entry in [*found, *map(methods.entry_of, (TrainOptions, Augment, SceneOptions))]:
        assert entry.summary, entry.name
        for option in entry.options:
            assert option.meaning, f"{entry.name}.{option.name} stands in no Attributes section"
