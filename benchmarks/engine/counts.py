"""How large the engine of a source tree is, and how tangled: files, lines, circles, what a picture passes.

    python benchmarks/engine/counts.py [TREE …]      # this tree when left out; each is counted in a process of its own

Circles are groups of modules that import each other, for types alone too; imports within functions do not count. What a
picture passes: files of garnish in which anything is called from reading a batch of a folder to its loss.
"""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import tempfile
import tokenize
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Files through which owners, rows and units meet, in earlier trees and in this one.
ENGINE = [
    "context",
    "owner",
    "rows",
    "model",
    "served",
    "compiled",
    "trunk_prefix",
    "model/model",
    "model/served",
    "model/unchanged_start",
    "backbones/backbone",
    "backbones/blocks",
    "backbones/sites",
    "backbones/walk",
    "backbones/taps",
    "backbones/loop",
    "backbones/prefix",
    "backbones/tuned",
    "backbones/drop_path",
    "adapters/adapter",
    "adapters/adapted",
    "adapters/per_task",
    "adapters/folding",
]


def engine_files(src: Path) -> list[Path]:
    """Those of :data:`ENGINE` that a tree has, and all of its room ``engine/``."""
    named = [src / f"{name}.py" for name in ENGINE]
    return [file for file in named if file.is_file()] + sorted(src.glob("engine/*.py"))


def lines(files: list[Path]) -> int:
    """Of all files together."""
    return sum(len(file.read_text("utf-8").splitlines()) for file in files)


def code_lines(files: list[Path]) -> int:
    """Lines with code: without blank ones, comments and docstrings."""
    count = 0
    for file in files:
        text = file.read_text("utf-8")
        held: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING):
                held.update(range(token.start[0], token.end[0] + 1))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                held.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
        count += len(held)
    return count


def imported(tree: ast.Module, known: set[str]) -> set[str]:
    """Modules of ours that a file imports outside of functions."""
    found: set[str] = set()

    def walk(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module:
                found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} & known)
            elif isinstance(node, ast.Import):
                found.update({alias.name for alias in node.names} & known)
            elif isinstance(node, ast.If | ast.Try):
                walk([*node.body, *node.orelse])

    walk(tree.body)
    return found


def circles(src: Path) -> list[list[str]]:
    """Groups of modules each of which leads to each other one."""
    files = {
        "garnish." + file.relative_to(src).as_posix().removesuffix(".py").replace("/", "."): file
        for file in src.rglob("*.py")
        if file.name != "__init__.py"
    }
    graph = {name: imported(ast.parse(file.read_text("utf-8")), set(files)) - {name} for name, file in files.items()}
    reached: dict[str, set[str]] = {}
    for name in graph:
        seen, waiting = set(), [name]
        while waiting:
            for other in graph[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        reached[name] = seen
    groups = {frozenset(o for o in reached[n] if n in reached[o]) for n in graph if n in reached[n]}
    return sorted(map(sorted, groups))


def forward_lines(src: Path) -> int:
    """Of the body of ``Model.forward``, without its docstring."""
    for node in ast.walk(ast.parse(next(src.rglob("model.py")).read_text("utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == "Model":
            forward = next(n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "forward")
            return (forward.body[-1].end_lineno or 0) - forward.body[1].lineno + 1
    raise AssertionError("there is no Model")


def tables_by_int(files: list[Path]) -> list[str]:
    """Attributes that are dictionaries or sets of owners' numbers."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
                kind = ast.unparse(node.annotation)
                if kind.startswith(("dict[int", "set[int", "frozenset[int")):
                    found.add(f"{file.stem}.{node.target.attr}")
    return sorted(found)


def passed_by_a_picture() -> list[str]:
    """Files of the garnish that is imported here, in which anything is called from a batch's files to its loss."""
    import torch

    import garnish as gn
    from garnish.data.loader import StepBatches

    src = Path(gn.__file__).parent
    with tempfile.TemporaryDirectory() as place:
        pictures(Path(place))
        data = gn.folder(place, "train")
        model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), data.tasks).train()
        batches = StepBatches(data, 2, seed=0, augment=None)
        seen: set[str] = set()

        def note(frame: Any, event: str, _: object) -> None:
            if event == "call":
                seen.add(frame.f_code.co_filename)

        def step() -> None:
            batch = batches.batch_at(0)
            outputs = model(batch.images, batch.tasks_of_rows())
            losses = [model.tasks[n].loss(model.tasks[n].sums(o, batch.targets[n])) for n, o in outputs.items()]
            torch.stack(losses).sum()

        sys.setprofile(note)
        try:
            step()
        finally:
            sys.setprofile(None)
    found = {Path(name).relative_to(src).as_posix() for name in seen if name.startswith(str(src))}
    return sorted(found)


def pictures(place: Path) -> None:
    """A folder of two pictures with labels, for both splits."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (place / kind / split).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
                place / "images" / split / f"{number}.png"
            )
            Image.fromarray(generator.integers(0, 3, (64, 64), dtype=np.uint8)).save(
                place / "labels" / split / f"{number}.png"
            )


def count(tree: Path) -> dict[str, Any]:
    """All counts of a tree, which is on the path."""
    src = tree / "src" / "garnish"
    files = engine_files(src)
    every = sorted(src.rglob("*.py"))
    return {
        "src": {"files": len(every), "lines": lines(every), "code": code_lines(every)},
        "engine": {"files": len(files), "lines": lines(files), "code": code_lines(files)},
        "circles": circles(src),
        "tables_by_int": tables_by_int(files),
        "forward_lines": forward_lines(src),
        "passed_by_a_picture": passed_by_a_picture(),
    }


def main() -> None:
    trees = [Path(word).resolve() for word in sys.argv[1:]] or [ROOT]
    if os.environ.get("GARNISH_TREE"):
        print(json.dumps(count(trees[0])))
        return
    for tree in trees:
        env = {**os.environ, "PYTHONPATH": str(tree / "src"), "GARNISH_TREE": "1"}
        done = subprocess.run(
            [sys.executable, __file__, str(tree)], env=env, check=True, capture_output=True, text=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        found["passed_by_a_picture"] = len(found["passed_by_a_picture"])
        print(json.dumps({"tree": tree.name, **found}, indent=1))


if __name__ == "__main__":
    main()
