"""What ``make release-check`` asks before a version is tagged."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from garnish import __version__

SPEC = importlib.util.spec_from_file_location("release_check", Path(__file__).parents[1] / "tools" / "release_check.py")
TOOL = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(TOOL)
wrong = TOOL.wrong


def tree(folder, *, project="1.2.0", cited="1.2.0", title="## 1.2.0, 2026-12-24"):
    (folder / "pyproject.toml").write_text(f'[project]\nversion = "{project}"\n', "utf-8")
    (folder / "CITATION.cff").write_text(f"cff-version: 1.2.0\nversion: {cited}\n", "utf-8")
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{title}\n", "utf-8")
    return folder


def test_what_agrees_is_let_through(tmp_path):
    assert wrong(tree(tmp_path), "1.2.0") == []


def test_each_difference_is_told(tmp_path):
    told = wrong(tree(tmp_path, project="1.1.0", cited="1.0.0", title="## Unreleased"), "1.2.0")
    assert [line.partition(":")[0] for line in told] == ["pyproject.toml", "CITATION.cff", "CHANGELOG.md"]


def test_here_one_version_stands_everywhere():
    assert not [line for line in wrong() if __version__ in line and not line.startswith("CHANGELOG")]
