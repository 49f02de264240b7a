"""``garnish peft``: exchange low-rank adapters with Hugging Face PEFT."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.checking.plain_data import Json
from garnish.commands.parser import Parser, some_names
from garnish.errors import OptionError
from garnish.output import say

if TYPE_CHECKING:
    from garnish.model.model import Model

_EPILOG = """\
Export writes LoRA, rsLoRA or DoRA of a bundle with the module names of timm, transformers 4.57 or transformers 5, so
that PEFT can load them onto those models; tasks and heads go to separate files. Import recognises the names by
itself; a folder that export wrote has its backbone, tasks and heads, any other needs --backbone and --tasks.

examples:
  garnish peft export runs/camvid/best --out adapter --dialect transformers5
  garnish peft export runs/camvid/best --out adapter --dialect transformers4 --decode-head seg
  garnish peft import adapter --out bundle
  garnish peft import lora-vit --out bundle --backbone vit_base_patch16_224 --backbone.weights vit.safetensors
      --tasks seg=Semantic --tasks.seg.classes 19 --leave-out classifier
"""
#: Options of one direction only: attribute → option string.
_EXPORT = {"dialect": "--dialect", "task": "--task", "prefix": "--prefix", "decode_head": "--decode-head"}
_EXPORT |= {"base_model": "--base-model"}
_IMPORT = {"leave_out": "--leave-out"}


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish peft",
        "garnish peft export BUNDLE --out DIR [options] | garnish peft import DIR --out BUNDLE [options]",
        "Exchange low-rank adapters with Hugging Face PEFT.",
        _EPILOG,
        sections=("backbone", "head", "tasks"),
    )
    made.add_argument("way", choices=("export", "import"), help="to PEFT's format, or from it")
    made.add_argument(
        "source", metavar="BUNDLE|DIR", help="a bundle's folder, or hub:user/name; a folder with adapter_config.json"
    )
    made.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    made.add_argument("--weights", metavar="FILE", help="the backbone's weights, if they have moved")
    made.add_argument("--json", action="store_true", help="print JSON: what was written")
    out = made.add_argument_group("export")
    out.add_argument("--dialect", metavar="NAME", help="timm, transformers4 or transformers5 (default: timm)")
    out.add_argument("--task", metavar="TASK", help="a task of the owner to export, if there are several")
    out.add_argument("--prefix", metavar="NAME", help="name of the trunk in the model that PEFT wraps, e.g. vit")
    out.add_argument(
        "--decode-head", metavar="TASK", help="write this task's SegFormerHead as transformers' decode_head"
    )
    out.add_argument("--base-model", metavar="ID", help="Hub id of the backbone, for the configuration and the card")
    into = made.add_argument_group("import (also --backbone.KEY, --head.KEY, --tasks.TASK.KEY)")
    into.add_argument("--backbone", metavar="NAME", help="the adapter's backbone, with --backbone.weights")
    into.add_argument("--tasks", metavar="NAME=TASK,…", help="tasks by name")
    into.add_argument("--head", metavar="NAME", help="decoder of every task")
    into.add_argument("--leave-out", metavar="NAME,…", type=some_names, help="modules to ignore, e.g. classifier")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, overrides = parser().read(words)
    for attribute, option in (_IMPORT if given.way == "export" else _EXPORT).items():
        if getattr(given, attribute) is not None:
            raise OptionError(f"peft: {option} does not apply to {given.way}; leave it out")
    if given.way == "export" and overrides:
        raise OptionError(f"peft: --{next(iter(overrides))} does not apply to export; leave it out")
    model = _exported(given) if given.way == "export" else _imported(given, overrides)
    owners = [owner for owner in model.owners if given.task in (None, *owner.tasks)]
    tasks = [task for owner in owners for task in owner.tasks]
    methods = sorted({str(method) for owner in owners for method in owner.methods})
    written = sorted(file.name for file in Path(given.out).iterdir() if file.is_file())
    if given.json:
        from garnish.commands.printing import print_json

        print_json({"out": given.out, "files": written, "tasks": tasks, "methods": methods})
    else:
        say(f"{given.out}: {', '.join(written)}")
        say(f"tasks: {', '.join(tasks)}; methods: {'; '.join(methods)}")
    return 0


def _exported(given: argparse.Namespace) -> Model:
    from garnish.bundles.peft.exporting import export_peft
    from garnish.commands.words import load_bundles

    model = load_bundles(given.source, given.weights, "cpu")
    options = {key: value for key in _EXPORT if (value := getattr(given, key)) is not None}
    export_peft(model, given.out, **options)
    return model


def _imported(given: argparse.Namespace, overrides: Mapping[str, Json]) -> Model:
    from garnish.bundles.peft.importing import import_peft
    from garnish.commands.words import given_tasks
    from garnish.recipes.recipe import read_recipe

    asked = {k: v for k, v in overrides.items() if k.split(".")[0] == "tasks"}
    recipe = read_recipe(None, {k: v for k, v in overrides.items() if k not in asked})
    choice = recipe.backbone
    trunk = None if choice is None else choice.build()
    if trunk is not None and trunk.weights_source == "random":
        raise OptionError(
            f"peft: --backbone {trunk.name} without weights is random, so a bundle could not be loaded again; "
            "set --backbone.weights to a file or a Hub id, or true for the published ones"
        )
    model = import_peft(
        given.source,
        backbone=trunk,
        weights=given.weights,
        tasks=given_tasks(asked) if asked else None,
        head=recipe.head,
        leave_out=given.leave_out or (),
    )
    model.save(given.out, dtype="float32")
    return model
