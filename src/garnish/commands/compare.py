"""``garnish compare``: train methods and references under one budget, measure them, and write a report."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from garnish.commands.parser import Parser, allows_loggers, names, positive_int
from garnish.errors import GarnishError, OptionError
from garnish.output import say

if TYPE_CHECKING:
    from garnish.comparing.compare import Recruits
    from garnish.comparing.compare_options import CompareOptions
    from garnish.comparing.report.results import Results
    from garnish.recipes.recipe import Recipe

#: Sections of a recipe that can be set from here; the arms take the place of ``adapter``.
_SECTIONS = ("backbone", "head", "tasks", "data", "train")
_EPILOG = """\
Every arm has the same steps, decoder, data and augmentation, and the same search over learning rates on the split val,
or else on a part of the training pictures; the split test is only read after a rate has been chosen. The other seeds
are trained at that rate. Arms are methods, with options in brackets, and + between methods that are combined.

Runs are stored in OUT/.store under their content: the same command continues where it was stopped, and one with one
more arm, seed or rate runs only that. A recipe can have all of this in a section compare: {adapters: [...], ...}.

examples:
  garnish compare --config recipes/camvid.yaml --adapters "LoRA,LoRA(rank=2),AdaptFormer" --seeds 3 --out report
  garnish compare --config recipes/scenes.yaml --adapters LoRA --rates 1e-3,3e-3 --references frozen,single --out report
  garnish compare --config recipes/camvid.yaml --adapters VMTAdapter --controls extras,random --out report --dry-run
"""


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish compare",
        "garnish compare --config RECIPE --adapters A,B,… --out REPORT [options] [--SECTION[.KEY] VALUE …]",
        "Train methods and references under one budget, measure them, and write a report.",
        _EPILOG,
        sections=_SECTIONS,
    )
    made.add_argument("--config", metavar="RECIPE", help="YAML file; see recipes/")
    made.add_argument("--adapters", metavar="A,B,…", help="methods, e.g. LoRA,LoRA(rank=2),LoRA+NormTuning")
    made.add_argument("--seeds", type=positive_int, metavar="N", help="runs at the chosen rate (default: 3)")
    made.add_argument("--out", metavar="FOLDER", help="folder of the report: index.html, results.json, results.csv")
    made.add_argument("--rates", type=_numbers, metavar="R,R", help="of adapters (default: 3e-4,1e-3,3e-3,1e-2)")
    made.add_argument(
        "--reference-rates", type=_numbers, metavar="R,R", help="of whole trunks (default: 1e-5,3e-5,1e-4,3e-4)"
    )
    made.add_argument(
        "--widen", type=int, metavar="N", help="extra rates while the best is the smallest or the largest (default: 2)"
    )
    made.add_argument(
        "--references", type=names, metavar="NAME,…", help="of frozen,single,multi,scratch (default: all)"
    )
    made.add_argument("--controls", type=names, metavar="NAME,…", help="of extras,random (default: none)")
    made.add_argument("--jobs", type=positive_int, metavar="N", help="runs in parallel, in processes (default: 1)")
    made.add_argument(
        "--on", metavar="CLUSTER", help="run on Ray: ray for this machine, ray://HOST:PORT, ray:auto (docs/sweeps.md)"
    )
    made.add_argument("--cpus", type=positive_int, metavar="N", help="with --on: CPUs and threads of each run")
    made.add_argument("--gpus", type=_share, metavar="N", help="with --on: GPUs of each run, 0.5 for half of one")
    made.add_argument("--held-out-every", type=positive_int, metavar="N", help="without a split val (default: 5)")
    made.add_argument("--store", metavar="DIR", help="folder of the runs (default: OUT/.store)")
    made.add_argument(
        "--no-pictures",
        dest="pictures",
        action="store_const",
        const=False,
        help="leave pictures of the test set out of the report",
    )
    made.add_argument("--title", metavar="TEXT", help="of the report")
    made.add_argument("--data-licence", metavar="TEXT", help="the pictures' licence, as the report states it")
    allows_loggers(made)
    made.add_argument("--retry-failed", action="store_true", help="run failed runs again")
    made.add_argument("--dry-run", action="store_true", help="list the runs and which are done, and stop")
    made.add_argument("--json", action="store_true", help="print results.json")
    made.add_argument("--quiet", action="store_true", help="lines instead of the live table")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, overrides = parser().read(words)
    from garnish.recipes.recipe import read_recipe

    if given.config is None and not any(key.split(".")[0] == "data" for key in overrides):
        raise OptionError("compare: no recipe; give --config RECIPE (recipes/ has some)")
    recipe = read_recipe(given.config, overrides, given.allow_logger)
    from garnish.commands.printing import print_json, print_table
    from garnish.comparing.compare import compare, preview
    from garnish.comparing.compare_options import CompareOptions, read_options
    from garnish.comparing.conditions import Conditions
    from garnish.comparing.typed_json import as_json

    known = {field.name for field in dataclasses.fields(CompareOptions)}
    own = {name: value for name, value in vars(given).items() if name in known and value is not None}
    options = read_options(recipe.plain.get("compare"), own)
    recruits = None
    if given.on is not None:
        recruits = _on_cluster(given, options, recipe)
    elif given.cpus is not None or given.gpus is not None:
        raise OptionError("compare: --cpus and --gpus are of runs on a cluster; give --on too, or leave them out")
    conditions = Conditions(recipe, options)
    told = functools.partial(say, stderr=not given.dry_run)
    preview(conditions, told, every=given.dry_run)
    if given.dry_run:
        return 0
    command = shlex.join(["garnish", "compare", *words])
    results = compare(conditions, command=command, retry=given.retry_failed, quiet=given.quiet, recruits=recruits)
    if given.json:
        print_json(as_json(results))
    else:
        print_table(*table(results))
        say(f"report: {conditions.out / 'index.html'}")
    failed = [arm for arm in results.arms if arm.status == "failed"]
    if failed and len(failed) == len(results.arms):
        raise GarnishError(f"compare: every arm failed, the first because: {failed[0].reason}")
    return 0


def _on_cluster(given: argparse.Namespace, options: CompareOptions, recipe: Recipe) -> Recruits:
    """What makes the crew of ``--on``; ``--jobs`` bounds it where it is given, here or in the recipe."""
    from garnish.cluster.connecting import ray_address
    from garnish.cluster.recruiting import on_ray

    ray_address(given.on)
    section = recipe.plain.get("compare")
    told = given.jobs is not None or (isinstance(section, Mapping) and "jobs" in section)
    return on_ray(given.on, jobs=options.jobs if told else None, cpus=given.cpus, gpus=given.gpus)


def table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the printed table: arm, rate, headline metrics, Δm, parameters, step time."""
    tasks = results.tasks
    columns = [
        "arm",
        "rate",
        *(f"{task} {about.headline}" for task, about in tasks.items()),
        "Δm %",
        "encoder",
        "step",
    ]
    rows = []
    for arm in results.arms:
        if arm.status == "failed":
            rows.append([arm.name, "failed", *[""] * (len(columns) - 2)])
            continue
        spreads = [arm.metrics.get(task, {}).get(about.headline) for task, about in tasks.items()]
        rows.append(
            [
                arm.name,
                "by task" if arm.rate is None and arm.by_task is not None else _number(arm.rate),
                *(_number(None if spread is None else spread.mean) for spread in spreads),
                "–" if arm.delta is None else f"{arm.delta:+.2f}",
                "–" if arm.encoder_trainable is None else f"{arm.encoder_trainable:,}",
                "–" if arm.step_ratio is None else f"{arm.step_ratio:.2f}×",
            ]
        )
    return columns, rows


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 64 or (value > 1 and value % 1):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GPUs; write 0, 1, 2, or 0.5 for half of one")
    return value


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in names(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers; write e.g. 3e-4,1e-3") from None
