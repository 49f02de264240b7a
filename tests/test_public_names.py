"""What users write stays: names of ``import garnish as gn`` with their arguments, verbs with their options, files.

``tests/public_names.yaml`` was recorded from the tree before the rooms. What is added is added there too; what is
taken away breaks scripts of users.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
from pathlib import Path

import pytest
import yaml

import garnish as gn
from garnish import registry
from garnish.cli import VERBS

RECORDED = yaml.safe_load(Path(__file__).with_name("public_names.yaml").read_text("utf-8"))


def arguments(of: object) -> list[str]:
    return list(inspect.signature(of).parameters)


def fields(cls: type) -> list[str]:
    return sorted(field.name for field in dataclasses.fields(cls) if field.init)


def functions() -> dict[str, list[str]]:
    return {name: arguments(getattr(gn, name)) for name in gn.__all__ if name != "__version__"}


def options() -> dict[str, dict[str, list[str]]]:
    kinds = [
        kind
        for kind in registry.KINDS
        if kind not in ("backbones", "readers", "foreign", "annotations", "checks", "transformers")
    ]
    found = {kind: registry.classes(kind) for kind in kinds}
    ours = {k: {n: c for n, c in known.items() if c.__module__.startswith("garnish.")} for k, known in found.items()}
    return {kind: {name: fields(cls) for name, cls in known.items()} for kind, known in ours.items()}


def verbs() -> dict[str, list[str]]:
    found = {}
    for verb in VERBS:
        actions = importlib.import_module(f"garnish.commands.{verb}").parser()._actions
        found[verb] = sorted(word for action in actions for word in (action.option_strings or [action.dest]))
    return found


def sorted_by_name(of: dict[str, list[str]]) -> dict[str, list[str]]:
    """Arguments by name are in no order."""
    return {name: sorted(names) for name, names in of.items()}


def test_functions_take_what_they_took():
    assert sorted_by_name(functions()) == sorted_by_name(RECORDED["functions"])


def test_methods_heads_and_tasks_take_what_they_took():
    assert options() == RECORDED["options"]


def test_each_can_be_had_from_the_package():
    for kind in ("adapters", "heads", "tasks", "balancing"):
        for name in RECORDED["options"][kind]:
            assert getattr(gn, name).__name__ == name
    with pytest.raises(AttributeError, match="garnish has no 'LoRa'; did you mean 'LoRA'"):
        gn.LoRa  # noqa: B018


def test_verbs_take_what_they_took():
    assert verbs() == RECORDED["verbs"]


def test_a_model_can_do_what_it_could():
    assert {n for n in dir(gn.Model) if not n.startswith("_")} >= set(RECORDED["model"])


def test_a_bundle_is_the_files_it_was(tmp_path):
    model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=2), {"seg": gn.Semantic(classes=3)})
    model.save(tmp_path / "bundle")
    assert sorted(file.name for file in (tmp_path / "bundle").iterdir()) == RECORDED["bundle"]["files"]
    described = json.loads((tmp_path / "bundle" / "bundle.json").read_text("utf-8"))
    assert sorted(described) == RECORDED["bundle"]["keys"]


def test_entry_points_have_the_names_they_had():
    assert set(registry.KINDS) >= set(RECORDED["entry points"])
