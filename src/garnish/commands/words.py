"""Resolving command-line arguments: bundles, tasks, data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.checking.plain_data import Json
from garnish.commands.parser import names
from garnish.errors import OptionError
from garnish.hub.address import is_hub

if TYPE_CHECKING:
    from garnish.data.dataset import Dataset
    from garnish.model.model import Model
    from garnish.tasks.task import Task


def load_bundles(text: str, weights: str | None, device: str) -> Model:
    """Load the model of ``BUNDLE``, of several joined (``BUNDLE,BUNDLE``), or of a finished model's name."""
    import torch

    from garnish.bundles.bundle_json import read_bundle_json
    from garnish.bundles.named_models import names_finished, open_model
    from garnish.checking.device import usable_device

    paths = bundle_paths(text)
    for path in () if names_finished(paths) else paths:
        read_bundle_json(path)  # before anything large is read
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return open_model(paths, weights, device=usable_device(device, "--device"))


def bundle_paths(text: str) -> list[str]:
    """Split ``a,b`` into folders; an existing folder with a comma in its name is not split.

    ``hub:user/name`` among them is fetched, and its folder in the cache given.
    """
    words = [text] if Path(text).exists() else names(text) or [text]
    if not any(map(is_hub, words)):
        return words
    from garnish.bundles.given_bundle import given_bundle

    return [os.fspath(given_bundle(word)) for word in words]


def given_tasks(overrides: Mapping[str, Json]) -> dict[str, Task]:
    """``tasks: "seg=Semantic,depth=Depth"`` and ``tasks.seg.classes: 19`` → the tasks by name."""
    from garnish.recipes.overrides import set_dotted
    from garnish.registry import build

    plain: dict[str, Json] = {"tasks": {}}
    listed = overrides.get("tasks")
    for part in str(listed or "").split(","):
        name, _, task = part.strip().partition("=")
        if name and not task:
            raise OptionError(f"--tasks: {part!r}; write NAME=TASK, e.g. seg=Semantic,depth=Depth")
        if name in plain["tasks"]:
            raise OptionError(f"--tasks: {name} is named twice; give every task its own name")
        if name:
            plain["tasks"][name] = {"name": task}
    for key in sorted(set(overrides) - {"tasks"}):
        value = overrides[key]
        set_dotted(plain, key, {"name": value} if key.count(".") == 1 else value)
    for name, entry in plain["tasks"].items():
        if "name" not in entry:
            raise OptionError(f"--tasks.{name}: which task? write --tasks {name}=Semantic, or another")
    return {
        name: build("tasks", entry["name"], {k: v for k, v in entry.items() if k != "name"}, where=f"--tasks.{name}")
        for name, entry in plain["tasks"].items()
    }


def open_given(overrides: Mapping[str, Json], split: str, verb: str) -> Dataset:
    """The data of ``--data DATA``, with ``--data.key value`` applied."""
    from garnish.data.sources import open_data
    from garnish.recipes.recipe import read_recipe

    data = read_recipe(None, overrides).plain.get("data")
    if data is None:
        raise OptionError(f"{verb}: --data is missing; give a data description (YAML), a folder, or scenes")
    return open_data(data, split)
