"""The README does what it says: its quick start runs, its links lead somewhere, its commands parse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from garnish.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_quick_start_runs_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (quick_start,) = code_blocks("python")
    names: dict[str, object] = {}
    exec(compile(quick_start, "README.md", "exec"), names)  # the block as it stands
    assert (tmp_path / "my-tasks" / "bundle.json").exists()
    assert (tmp_path / "runs" / "first" / "best" / "weights.safetensors").exists()
    assert (tmp_path / "maps.png").stat().st_size > 1000
    assert (tmp_path / "exported" / "model.onnx").exists()
    assert set(names["maps"].maps) == set(names["train"].tasks)


def test_links_lead_to_files_of_the_repository():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    for target in targets:
        assert not target.startswith("http") and (ROOT / target).exists(), target


@pytest.mark.parametrize("line", [x for x in README.splitlines() if x.startswith("garnish ")])
def test_commands_name_real_verbs_and_recipes(line, capsys):
    words = line.split("#")[0].split()
    with pytest.raises(SystemExit) as left:
        main([words[1], "--help"])
    assert left.value.code == 0
    assert words[1] in capsys.readouterr().out
    for word in words:
        if word.startswith("recipes/"):
            assert (ROOT / word).exists(), word


def test_no_placeholder_is_left():
    assert "RESULTS" not in README


def test_figures_quoted_of_the_comparisons_stand_in_their_tables():
    tables = (ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"\*Where adapters lose, and why\.\*(.*?)\n## ", README, flags=re.DOTALL)
    figures = re.findall(r"[−+]?\d+\.\d+", said)
    assert len(figures) > 5
    for figure in figures:
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", tables), figure
