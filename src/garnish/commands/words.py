"""Resolving command-line arguments: bundles, tasks, data, output folders, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.checking.plain_data import Json
from garnish.commands.parser import names
from garnish.errors import DataError, OptionError
from garnish.output import logger

_log = logger(__name__)

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
    """Split ``a,b`` into folders; an existing folder with a comma in its name is not split."""
    return [text] if Path(text).exists() else names(text) or [text]


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


def folder_to_write(out: str) -> None:
    """Raise OptionError if the output folder, or a parent of it, is a file."""
    taken = next((p for p in (Path(out), *Path(out).parents) if p.exists()), None)
    if taken is not None and not taken.is_dir():
        raise OptionError(f"--out {out}: {taken} is a file; choose a folder")


def picture_files(given: Iterable[str]) -> dict[str, Path]:
    """Name (of the maps to write) → file, for given pictures and all pictures in given folders.

    Raises:
        DataError: a path that does not exist, a folder without pictures.
    """
    from garnish.files.pictures import PICTURE_SUFFIXES, is_picture_file

    files: list[Path] = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            held = sorted(p for p in path.iterdir() if is_picture_file(p))
            others = {p.suffix for p in path.iterdir() if p.is_file() and not p.name.startswith(".")}
            others = {ending for ending in others if ending.lower() not in PICTURE_SUFFIXES}
            if others:
                _log.info("%s: files that end in %s are no pictures and were left out", path, ", ".join(sorted(others)))
            if not held:
                raise DataError(f"{path}: holds no picture ({', '.join(PICTURE_SUFFIXES)}); give another folder")
            files += held
        elif path.is_file():
            files.append(path)
        else:
            raise DataError(f"{path}: no such picture; check the path")
    files = list(dict.fromkeys(files))
    found: dict[str, Path] = {}
    for file in files:
        name, number = file.stem, 2
        while name in found:
            name, number = f"{file.stem}_{number}", number + 1
        found[name] = file
    return found
