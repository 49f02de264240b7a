"""What type checkers, editors and ``dir`` know of the package, whose names are found when a program runs."""

from __future__ import annotations

import inspect
import re
import rlcompleter
import subprocess
import sys
from pathlib import Path

import pytest

import garnish as gn
from garnish import registry

KINDS = ("adapters", "heads", "tasks", "balancing")
#: what others ship is taken as it is: of torch alone an analysis takes minutes
CONFIG = """\
[mypy]
strict = True
follow_imports = silent
[mypy-torch.*,torchvision.*,numpy.*,rich.*,lightning.*,matplotlib.*,PIL.*,huggingface_hub.*,safetensors.*,\
torchmetrics.*,timm.*,scipy.*,yaml.*,onnxruntime.*,tifffile.*,imagecodecs.*,rasterio.*,av.*,pyarrow.*,tensorboard.*,\
jinja2.*,filelock.*,starlette.*,transformers.*,datasets.*]
ignore_missing_imports = True
follow_imports = skip
"""
#: lines of a user, each with what mypy says of it
SCRIPT = [
    ("import garnish as gn", ""),
    ("reveal_type(gn.LoRA(rank=8))", 'Revealed type is "garnish.adapters.lora.LoRA"'),
    ("reveal_type(gn.Semantic(classes=3))", 'Revealed type is "garnish.tasks.semantic.Semantic"'),
    ('model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(), {"seg": gn.Semantic(classes=3)}, gn.LinearHead())', ""),
    ("reveal_type(model)", 'Revealed type is "garnish.model.model.Model"'),
    ("data = gn.Scenes(2)", ""),
    ("gn.fit(model, data, epochs=2, lr=1e-3, balance=gn.Uncertainty()).best_step", ""),
    ("reveal_type(gn.evaluate(model, data))", 'Revealed type is "dict[str, dict[str, float]]"'),
    ("gn.LoRA(rnk=8)", 'Unexpected keyword argument "rnk" for "LoRA"; did you mean "rank"?'),
    ('gn.LoRA(rank="8")', 'Argument "rank" to "LoRA" has incompatible type "str"; expected "int"'),
    ("gn.fit(model, data, steps=1, rate=1e-3)", 'Unexpected keyword argument "rate" for "fit"'),
    ('gn.fit(model, data, steps="1")', 'Argument "steps" to "fit" has incompatible type "str"; expected "int | None"'),
    ('gn.fit(model, data, steps=1, schedule="cosin")', 'Argument "schedule" to "fit" has incompatible type'),
    ("gn.Lora()", 'Module has no attribute "Lora"'),
    ("text: str = gn.__version__", ""),
]


def test_a_type_checker_knows_the_names_and_their_options(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "mypy.ini").write_text(CONFIG, "utf-8")
    (tmp_path / "mine.py").write_text("\n".join(line for line, _ in SCRIPT) + "\n", "utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "mine.py"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    said: dict[int, list[str]] = {}
    for number, text in re.findall(r"^mine\.py:(\d+): (?:error|note): (.*)$", told, re.M):
        said.setdefault(int(number), []).append(text)
    for number, (line, expected) in enumerate(SCRIPT, start=1):
        found = said.get(number, [])
        assert found[0].startswith(expected) if expected else not found, f"{line}: {found or told}"


def ours() -> set[str]:
    found = {name: cls for kind in KINDS for name, cls in registry.classes(kind).items()}
    return {name for name, cls in found.items() if cls.__module__.startswith("garnish.")}


def test_dir_lists_what_there_is_and_nothing_else():
    assert set(dir(gn)) >= ours() | set(gn.__all__)
    assert all(getattr(gn, name) is not None for name in dir(gn))


def test_completion_needs_no_torch():
    code = "import sys, garnish; dir(garnish); assert not {'torch', 'garnish.registry'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    found, state = set(), 0
    complete = rlcompleter.Completer({"gn": gn}).complete
    while (text := complete("gn.Lo", state)) is not None:
        found, state = found | {text}, state + 1
    assert found == {"gn.LoRA("}


def test_names_of_other_packages_are_listed(monkeypatch):
    import importlib.metadata as metadata

    point = metadata.EntryPoint("Theirs", "their.module:Theirs", "garnish.adapters")
    monkeypatch.setattr(metadata, "entry_points", lambda: metadata.EntryPoints([point]))
    assert "Theirs" in dir(gn)


def test_options_are_shown_by_help():
    signature = inspect.signature(gn.LoRA)
    assert signature.parameters["rank"].default == 8 and "args" not in signature.parameters
    assert set(inspect.signature(gn.fit).parameters) > {"lr", "steps", "out"}


def test_a_star_brings_functions_and_no_methods():
    names: dict[str, object] = {}
    exec("from garnish import *", names)
    assert {name for name in names if not name.startswith("__")} == set(gn.__all__) - {"__version__"}


def test_help_describes_the_public_functions():
    import pydoc

    page = pydoc.render_doc(gn, renderer=pydoc.plaintext)
    for name in ("adapt(", "fit(", "class Scenes(", "garnish.LoRA(rank=8)"):
        assert name in page, name


def test_the_stub_is_no_part_of_garnish_runtime():
    listed = (Path(__file__).parents[1] / "runtime" / "pyproject.toml").read_text("utf-8")
    assert "__init__.pyi" not in listed and '"../src/garnish/__init__.py"' in listed
