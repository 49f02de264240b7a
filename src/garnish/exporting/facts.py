"""What manifests of exports say of a model: its trunk, how its tasks are decoded, and the versions that wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from garnish import __version__
from garnish.backbones.weights import is_non_commercial
from garnish.bundles.specs import backbone_facts
from garnish.errors import OptionError
from garnish.files.regular import read_regular
from garnish.model.model import Model
from garnish.registry import SpecFacts, describe
from garnish.runtime.graph import MOST_GRAPH
from garnish.runtime.manifest import ADAPTER, ExportedTrunk, bundle_names
from garnish.tasks.task import Task


def decoding_of(name: str, task: Task) -> SpecFacts:
    """How the runtime decodes the raw output of the task of this name.

    Raises:
        OptionError: the task names no decoding.
    """
    decoding = task.decoding
    if decoding is None:
        kind = type(task).__name__
        raise OptionError(
            f"export: task {name!r} ({kind}) names no decoding, without which no runtime can read its map"
        )
    return describe(decoding)


def trunk_facts(model: Model) -> ExportedTrunk:
    """The trunk of a model, and whether its weights are non-commercial."""
    facts = backbone_facts(model.backbone)
    return cast(ExportedTrunk, {**facts, "non_commercial": is_non_commercial(facts["licence"])})


def versions(to: str) -> dict[str, str]:
    """Package → its version, of those that write an export ``to`` "onnx" or "torch"."""
    packages = ["torch", "timm", *(["onnx", "onnxscript", "onnxruntime"] if to == "onnx" else [])]
    return {"garnish": __version__, **{name: version(name) for name in packages}}


def manifest_bytes(facts: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest."""
    return f"{json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode()


def bundle_files_of(folder: Path) -> dict[str, bytes]:
    """File name → bytes of the bundles that lie beside a graph, two files each."""
    files = [folder / f"{name}{ending}" for name in bundle_names(folder) for ending in (".json", ADAPTER)]
    return {file.name: read_regular(file, MOST_GRAPH) for file in files}
