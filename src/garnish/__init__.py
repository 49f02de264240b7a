"""garnish: teach one frozen vision backbone several dense tasks by training small adapters and heads.

The public names are loaded when first used, so that ``import garnish`` and ``garnish --help`` do not import torch.
"""

from __future__ import annotations

import importlib
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
    "fit": "garnish.training.fit",
    "evaluate": "garnish.training.evaluate",
    "folder": "garnish.data.folder",
    "Scenes": "garnish.data.scenes.scenes",
    "join": "garnish.data.joined",
    "match_classes": "garnish.data.matched_classes",
    "check": "garnish.data.check",
    "Bands": "garnish.pictures.bands",
    "BandStatistics": "garnish.pictures.band_statistics",
    "band_statistics": "garnish.data.measured_bands",
    "load": "garnish.bundles.bundle",
    "save": "garnish.bundles.bundle",
    "merge": "garnish.bundles.merge",
    "export": "garnish.exporting.export",
    "export_peft": "garnish.bundles.peft.exporting",
    "import_peft": "garnish.bundles.peft.importing",
}

__all__ = ["__version__", *_PUBLIC]

say_where()


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
    for kind in ("adapters", "heads", "tasks", "balancing"):
        found = registry.classes(kind)
        if name in found:
            return found[name]
    known = [*_PUBLIC, *(n for kind in ("adapters", "heads", "tasks", "balancing") for n in registry.classes(kind))]
    errors = importlib.import_module("garnish.errors")
    raise AttributeError(f"garnish has no {name!r}{errors.suggest(name, known)}")
