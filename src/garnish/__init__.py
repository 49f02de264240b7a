"""garnish: teach one frozen vision backbone several dense tasks by training small adapters and heads.

Beside the functions and classes that are listed here, the package has every adapter, head, task and way of balancing
under its name: ``garnish.LoRA(rank=8)``. ``dir(garnish)`` lists all of them, ``garnish methods`` says what they are.

The public names are loaded when first used, so that ``import garnish`` and ``garnish --help`` do not import torch.
Type checkers, editors and ``dir`` read them in ``__init__.pyi``, which is generated (tools/typed_exports.py).
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from garnish.moved import say_where

__version__ = "0.1.0"
_HERE = Path(__file__).parent

#: public function or class → module that defines it; methods, heads, tasks are found by :mod:`garnish.registry`
_PUBLIC = {
    "adapt": "garnish.model.model",
    "Model": "garnish.model.model",
    "backbone": "garnish.backbones.build",
    "finished": "garnish.model.finished",
    "Head": "garnish.heads.head",
    "fit": "garnish.training.fit",
    "Augment": "garnish.data.augment",
    "Callback": "garnish.training.callback",
    "StopTraining": "garnish.training.callback",
    "losses": "garnish.training.task_losses",
    "evaluate": "garnish.training.evaluate",
    "folder": "garnish.data.folder",
    "dataset": "garnish.data.held.opening",
    "Scenes": "garnish.data.scenes.scenes",
    "join": "garnish.data.joined",
    "collate": "garnish.data.dataset",
    "match_classes": "garnish.data.matched_classes",
    "check": "garnish.data.check",
    "Bands": "garnish.pictures.bands",
    "BandStatistics": "garnish.pictures.band_statistics",
    "band_statistics": "garnish.data.measured_bands",
    "load": "garnish.bundles.bundle",
    "save": "garnish.bundles.bundle",
    "merge": "garnish.bundles.merge",
    "export": "garnish.exporting.export",
    "push": "garnish.sharing.push",
    "pull": "garnish.sharing.pull",
    "export_peft": "garnish.bundles.peft.exporting",
    "import_peft": "garnish.bundles.peft.importing",
    "show_versions": "garnish.reporting.versions",
}

#: kinds of which each class is a name of the package
_KINDS = ("adapters", "heads", "tasks", "balancing")

# for ``help`` and ``from garnish import *``; the methods are left out, whose names are short and might hide others
__all__ = ["__version__", *_PUBLIC]

say_where()


def __dir__() -> list[str]:
    """What can be written behind ``garnish.``; asked for by every completion, so without a look into the modules."""
    stub = _HERE / "__init__.pyi"  # garnish-runtime has none, and none of these names
    if not stub.is_file():
        return ["__version__"]
    points = importlib.import_module("importlib.metadata").entry_points()
    theirs = [name for kind in _KINDS for name in points.select(group=f"garnish.{kind}").names]
    return sorted({*__all__, *theirs, *re.findall(r"^from .* import \w+ as (\w+)$", stub.read_text("utf-8"), re.M)})


def __getattr__(name: str) -> Any:
    whole = (_HERE / "model").is_dir()  # garnish-runtime installs what needs no torch
    if name in _PUBLIC and whole:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    # of a module ``from garnish import NAME`` asks here first, and is then imported
    if name.startswith("_") or (_HERE / name).is_dir() or (_HERE / f"{name}.py").is_file():
        raise AttributeError(name)
    if not whole:
        told = (
            f"garnish.{name} is not in garnish-runtime, which is what is installed; "
            "pip uninstall garnish-runtime, then install garnish"
        )
        raise importlib.import_module("garnish.errors").MissingExtraError(told)
    registry = importlib.import_module("garnish.registry")
    for kind in _KINDS:
        found = registry.classes(kind)
        if name in found:
            return found[name]
    known = [*_PUBLIC, *(name for kind in _KINDS for name in registry.classes(kind))]
    errors = importlib.import_module("garnish.errors")
    raise AttributeError(f"garnish has no {name!r}{errors.suggest(name, known)}")
