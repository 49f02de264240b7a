"""``garnish info``: parameters, bytes, MACs and licence of a bundle or backbone."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from garnish.checking.plain_data import Json
from garnish.commands.parser import Parser, sides
from garnish.errors import OptionError, WeightsError
from garnish.output import say

if TYPE_CHECKING:
    from garnish.tasks.task import Task

_EPILOG = """\
For a bundle, its files are read and their digests checked, and its model is built without the backbone's weights. For a
backbone, the model of --adapter, --head and --tasks is built; the defaults are Frozen, LinearHead and one task of 21
classes.

examples:
  garnish info runs/replica/best
  garnish info hub:user/name
  garnish info vit_small_patch14_dinov2 --adapter LoRA --adapter.rank 8 --json
  garnish info mit_b2 --adapter LoRA --head SegFormerHead --tasks seg=Semantic,depth=Depth --tasks.seg.classes 19
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish info",
        "garnish info BUNDLE|BACKBONE [--adapter NAME] [--head NAME] [--tasks NAME=TASK,…] [--json] [options]",
        "Count parameters, bytes and multiply-accumulates, and state the licence of the backbone's weights.",
        _EPILOG,
        sections=("adapter", "head", "tasks"),
    )
    made.add_argument(
        "target",
        metavar="BUNDLE|BACKBONE",
        help="a bundle's folder or hub:user/name; a name that methods lists, or hf-hub:owner/name",
    )
    shown = made.add_argument_group("of a backbone (also --adapter.KEY, --head.KEY, --tasks.TASK.KEY)")
    shown.add_argument("--adapter", metavar="NAME", help="method, or several: NAME,NAME")
    shown.add_argument("--head", metavar="NAME", help="decoder of every task")
    shown.add_argument("--tasks", metavar="NAME=TASK,…", help="tasks by name")
    shown.add_argument(
        "--weights", metavar="FILE", help="file or Hub id, or true: the published ones (for the licence)"
    )
    made.add_argument(
        "--size", type=sides, metavar="H,W", help="picture that operations are counted for (about 224,224)"
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, overrides = parser().read(words)
    named = given.target.startswith(("hf-hub:", "hf_hub:"))  # without that, a mistyped path would be asked for there
    is_bundle = not named and (Path(given.target).exists() or "/" in given.target or "," in given.target)
    if is_bundle and (overrides or given.weights):
        extra = f"--{next(iter(overrides), 'weights')}"
        raise OptionError(f"info: {given.target} is a bundle, so {extra} does not apply; leave it out")
    facts = of_bundle(given.target, given.size) if is_bundle else of_backbone(given, overrides)
    if given.json:
        from garnish.commands.printing import print_json

        print_json(facts)
    else:
        _print(facts)
    return 0


def of_bundle(target: str, at: tuple[int, int] | None) -> dict[str, Json]:
    """The facts of :meth:`garnish.model.model.Model.report` and of ``bundle.json`` for one bundle or several."""
    from garnish.bundles.bundle_json import bundle_folder, read_bundle_json
    from garnish.bundles.licences_told import binding, licences_together, licences_told
    from garnish.bundles.origin import origin_of
    from garnish.bundles.skeleton import skeleton
    from garnish.bundles.tensors import kinds_of, weights_of
    from garnish.commands.words import bundle_paths

    paths = bundle_paths(target)
    described = [read_bundle_json(path) for path in paths]
    first = described[0]["backbone"]
    for path, facts in zip(paths, described, strict=True):
        if facts["backbone"]["fingerprint"] != first["fingerprint"]:
            name = facts["backbone"]["name"]
            raise OptionError(f"{path}: belongs to another backbone ({name}) than {paths[0]} ({first['name']})")
    for path, facts in zip(paths, described, strict=True):
        kinds_of(bundle_folder(path), facts)  # before anything is built
    model, stated = skeleton(paths, described), licences_together(map(licences_told, described))
    # this checks their digests, as whenever a bundle is read
    weights_bytes = sum(len(weights_of(bundle_folder(p), f)) for p, f in zip(paths, described, strict=True))
    return model.report(at) | {
        "backbone_licence": first["licence"],
        "backbone_non_commercial": first["non_commercial"],
        "backbone_weights": first["weights_source"],
        "backbone_fingerprint": first["fingerprint"],
        "bundle_licence": stated.bundle,
        "data_licence": stated.data,
        "non_commercial": list(dict.fromkeys(name for facts in described for name in binding(facts))),
        "bundle_bytes": weights_bytes,
        "hub": [origin_of(path, facts) for path, facts in zip(paths, described, strict=True)],
        "tasks": {name: entry for facts in described for name, entry in facts["tasks"].items()},
        "metrics": {name: values for facts in described for name, values in facts["metrics"].items()},
        "versions": described[0]["versions"],
    }


def of_backbone(given: argparse.Namespace, overrides: Mapping[str, Json]) -> dict[str, Json]:
    """The facts of :meth:`garnish.model.model.Model.report` for a backbone with given methods, heads and tasks."""
    from garnish.backbones.build import backbone
    from garnish.backbones.weights import is_non_commercial
    from garnish.model.model import adapt
    from garnish.recipes.recipe import read_recipe

    if not any(key == "adapter" for key in overrides):
        if any(key.startswith("adapter.") for key in overrides):
            raise OptionError("info: options of an adapter, but no --adapter NAME; name the method")
        overrides = {"adapter": "Frozen", **overrides}
    recipe = read_recipe(None, {k: v for k, v in overrides.items() if k.split(".")[0] != "tasks"})
    tasks = _tasks({k: v for k, v in overrides.items() if k.split(".")[0] == "tasks"})
    methods, head = recipe.methods, recipe.head
    weights = True if given.weights == "true" else given.weights
    try:
        trunk = backbone(given.target, weights)
    except OptionError as error:
        unknown = str(error).startswith("unknown backbone")
        raise OptionError(f"{error}; there is no bundle of that name either" if unknown else str(error)) from None
    except WeightsError as error:
        raise WeightsError(f"--weights: {error}") from None
    licence, source = trunk.licence, trunk.weights_source
    model = adapt(trunk, methods, tasks, head)
    from garnish.registry import describe

    return model.report(given.size) | {
        "backbone_non_commercial": is_non_commercial(licence),
        "backbone_weights": source,
        "tasks": {name: describe(task) for name, task in tasks.items()},
    }


def _tasks(overrides: Mapping[str, Json]) -> dict[str, Task]:
    """The tasks of the command line, or one of 21 classes."""
    from garnish.commands.words import given_tasks

    return given_tasks(overrides or {"tasks": "seg=Semantic", "tasks.seg.classes": 21})


#: Of a bundle, what it states beside the licence of the backbone's weights.
_LICENCES = (("licence of the bundle", "bundle_licence"), ("licence of its pictures", "data_licence"))


def _print(facts: Mapping[str, Json]) -> None:
    from garnish.commands.printing import metric_rows, print_table, warning_of

    height, width = facts["macs_size"]
    hint = (
        "; for that of weights: --weights true or FILE"
        if facts["backbone_weights"] == "random" and "versions" not in facts
        else ""
    )
    rows = [
        ["backbone", f"{facts['backbone']}, weights: {facts['backbone_weights']}"],
        ["licence of its weights", str(facts["backbone_licence"]) + hint],
        *([name, str(facts[key] or "not stated")] for name, key in _LICENCES if key in facts),
        ["parameters of the encoder", f"{facts['encoder_total']:,}"],
        ["  trained", f"{facts['encoder_trainable']:,}"],
        ["  trained in heads", f"{facts['decoder_trainable']:,}"],
        ["bytes of a bundle", f"{facts['bundle_bytes']:,}"],
        [
            "operations",
            f"{facts['macs'] / 1e9:.3g} GMAC at {height}x{width}, {facts['macs_encoder'] / 1e9:.3g} encoder",
        ],
    ]
    rows += [["from", str(address)] for address in facts.get("hub", ()) if address is not None]
    rows += [[f"adapters of {owner}", ", ".join(map(_spec, methods))] for owner, methods in facts["owners"].items()]
    for owner, told in facts["bands"].items():
        filters = "" if told["filters"] is None else f"; others than red, green and blue by {_shape(told['filters'])}"
        rows.append([f"bands of {owner}", f"{', '.join(told['names'])}{filters}"])
    rows += [[f"task {name}", _spec(task)] for name, task in facts["tasks"].items()]
    print_table(["", ""], rows)
    if facts.get("metrics"):
        values = {
            task: {name: float("nan") if value is None else value for name, value in found.items()}
            for task, found in facts["metrics"].items()
        }
        print_table(["task", "metric", "value"], metric_rows(values, {}))
    if facts.get("non_commercial"):
        say(warning_of(facts["non_commercial"]))
    elif facts["backbone_non_commercial"]:
        say("warning: the backbone's weights are non-commercial, and so is what is trained on them")


def _spec(told: Mapping[str, Json]) -> str:
    return f"{told['name']}({', '.join(f'{k}={v}' for k, v in told['options'].items())})"


def _shape(sides: Sequence[int]) -> str:
    return f"one trained tensor of {'x'.join(map(str, sides))}"
