"""Scripts beside the package (benchmarks, tools) import only what there is: nothing runs them in the fast suite."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix() for top in ("benchmarks", "tools") for path in (ROOT / top).rglob("*.py")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_script_imports_of_garnish_exists(script):
    missing = []
    tree = ast.parse((ROOT / script).read_text())
    # an older tree's name may be tried where the new one is not there
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        for h in node.handlers
        for inner in ast.walk(h)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "garnish":
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):
                    try:
                        importlib.import_module(f"{node.module}.{name.name}")
                    except ImportError as error:
                        missing.append(f"line {node.lineno}: {error}")
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "garnish":
                    importlib.import_module(name.name)
    assert not missing, f"{script}: {missing}"
