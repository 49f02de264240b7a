"""Our own files next to PEFT's in an exported folder: ``task.json``, ``heads.safetensors`` and a ``README.md``.

They hold the tasks, their heads and the backbone's fingerprint; PEFT ignores files that it does not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import timm
import torch
from safetensors.torch import save as to_bytes

from garnish import __version__
from garnish.backbones.weights import is_non_commercial
from garnish.bundles.bundle_json import FACTS, BackboneFacts, TaskName
from garnish.bundles.peft.tensor_file import TensorFile
from garnish.bundles.specs import Specs, backbone_facts
from garnish.checking.plain_data import read_as
from garnish.errors import BundleError, OptionError, one_line, shown
from garnish.files.strict_json import read_json
from garnish.model.model import Model
from garnish.registry import SpecFacts

FORMAT = 1
TASK, HEADS, README = "task.json", "heads.safetensors", "README.md"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LICENCES = {"apache-2.0", "apache 2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"}


class _Task(SpecFacts):
    head: SpecFacts


class _Facts(TypedDict):
    """``task.json`` of format 1."""

    format: int
    versions: dict[str, str]
    dialect: str  # of the module names
    prefix: str  # of the module names
    backbone: BackboneFacts
    tasks: dict[TaskName, _Task]  # in the model's order
    decode_head: str | None  # the task whose head PEFT's file holds


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """A validated ``task.json`` with its heads' tensors.

    Attributes:
        backbone: ``name``, ``options``, ``taps``, ``fingerprint``, ``licence`` and ``weights_source``.
        specs: its tasks and their heads.
        heads: the file of the heads' tensors, named ``heads.TASK.…``.
        decode_head: the task whose head is in PEFT's file as SegFormer's; None: no head is.
    """

    backbone: BackboneFacts
    specs: Specs
    heads: TensorFile
    decode_head: str | None


def sidecar_files(
    model: Model, tasks: Sequence[str], dialect: str, prefix: str, decode_head: str | None
) -> dict[str, bytes]:
    """The contents of ``task.json`` and ``heads.safetensors`` for some tasks of a model."""
    facts = {
        "format": FORMAT,
        "versions": {"garnish": __version__, "torch": str(torch.__version__), "timm": str(timm.__version__)},
        "dialect": dialect,
        "prefix": prefix,
        "decode_head": decode_head,
        "backbone": backbone_facts(model.backbone),
        "tasks": Specs.of(model, tasks).tasks_and_heads(),
    }
    tensors = {n: t.detach().cpu().contiguous() for task in tasks for n, t in model.head_tensors(task).items()}
    text = json.dumps(facts, indent=2)
    return {TASK: f"{text}\n".encode(), HEADS: to_bytes(tensors, metadata={"format": "pt"})}


def read_sidecar(folder: Path) -> Sidecar | None:
    """Read what :func:`sidecar_files` wrote, of the heads the header; None if the folder has no ``task.json``.

    Raises:
        BundleError: damaged, of another format, or with unknown names or options.
    """
    file = folder / TASK
    if not file.exists():
        return None
    found = read_json(file, "description", "write the folder again")
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise BundleError(f"{file}: is not of format {FORMAT}; move it away and pass tasks= and backbone=")
    missing = "{at} must have {known}; write the folder again"
    facts: _Facts = read_as(found, _Facts, "", replace(FACTS, file=f"{file}: ", missing=missing))
    tasks, decode_head = facts["tasks"], facts["decode_head"]
    if not tasks:
        raise BundleError(f"{file}: tasks: there are none; write the folder again")
    if decode_head is not None and decode_head not in tasks:
        raise BundleError(f"{file}: decode_head: {shown(decode_head, 40)} is none of the tasks")
    try:
        specs = Specs.read({"tasks": tasks}, str(file))
    except OptionError as error:
        raise BundleError(str(error)) from error
    heads = TensorFile.open(folder / HEADS)
    return Sidecar(backbone=facts["backbone"], specs=specs, heads=heads, decode_head=decode_head)


def base_model_of(model: Model, dialect: str) -> str | None:
    """The Hub id of a model's backbone in the dialect's library; None if not known."""
    trunk = model.backbone
    source = trunk.weights_source.removeprefix("hf-hub:")
    if _HUB_ID.fullmatch(source) and not Path(source).exists() and not source.startswith("."):
        return source
    return f"timm/{trunk.name}" if dialect == "timm" and trunk.weights_source != "random" else None


def readme(model: Model, tasks: Sequence[str], dialect: str, base_model: str | None) -> bytes:
    """The model card for the Hub: front matter and a short description."""
    trunk = model.backbone
    kinds = {task: type(model.tasks[task]).__name__ for task in tasks}
    pipelines = sorted({tag for task in tasks if (tag := model.tasks[task].pipeline_tag) is not None})
    tags = ["lora", "garnish", *(f"base_model:adapter:{m}" for m in [base_model] if m is not None), *pipelines[1:]]
    licence = trunk.licence.lower() if trunk.licence.lower() in _LICENCES else "other"
    lines = ["---", "library_name: peft", f"license: {licence.replace(' ', '-')}"]
    if licence == "other":
        lines += [f"license_name: {json.dumps(one_line(trunk.licence, 200))}"]
    if base_model is not None:
        lines += [f"base_model: {base_model if _HUB_ID.fullmatch(base_model) else json.dumps(base_model)}"]
    lines += [f"pipeline_tag: {name}" for name in pipelines[:1]]
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in tags), "---", ""]
    lines += [
        f"# Adapter of {_as_text(trunk.name)}: {', '.join(map(_as_text, tasks))}",
        "",
        f"Low-rank adapters in PEFT's format, module names of {_LIBRARIES[dialect]}. Tasks: "
        + ", ".join(f"{_as_text(task)} ({kind})" for task, kind in kinds.items())
        + ".",
        "",
        f"- `{TASK}` and `{HEADS}` hold the tasks and their heads, which PEFT leaves alone; garnish reads both.",
        f"- Fingerprint of the backbone: `{trunk.fingerprint()}`.",
        f"- Licence of the backbone's weights: {_as_text(trunk.licence)}"
        + (" (non-commercial)." if is_non_commercial(trunk.licence) else "."),
        "",
    ]
    return "\n".join(lines).encode()


def _as_text(text: str) -> str:
    """Text of a file in one line of Markdown that shows it as it is: no links, pictures, HTML or emphasis."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&$:])", r"\\\1", one_line(text, 200))


_LIBRARIES = {"timm": "timm", "transformers4": "transformers 4.57", "transformers5": "transformers 5"}
