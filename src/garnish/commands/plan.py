"""``garnish plan``: list methods, sizes and placements that fit a budget."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from garnish.checking.plain_data import Json
from garnish.commands.parser import Parser, positive_int, sides, some_names
from garnish.errors import OptionError, plural
from garnish.output import say

if TYPE_CHECKING:
    from garnish.planning.budget import Budget
    from garnish.planning.counting import Setting
    from garnish.planning.survey import Survey, SurveyRow

N = TypeVar("N", int, float)

_EPILOG = """\
Nothing is trained, and no weights are read. Parameters, bytes and MACs are exact. Memory of a training step is
predicted from its operations: parameters, batch, gradients, optimizer state and activations, plus a fifth for free
gaps that malloc keeps, plus the memory of this process for Python and its libraries. What does not fit into --memory
is tried with train.memory least, too, and marked with ~ where only that fits. Time is measured: each step that
fits into the free memory is run here a few times with random weights, alternating with a step of heads only. Several
budgets must all hold. Without --memory and --step-time only as many steps are predicted as --predictions says; without
--step-time only as many are timed.

examples:
  garnish plan vit_small_patch14_dinov2 --tasks seg=Semantic,depth=Depth --tasks.seg.classes 19 --budget 1%
  garnish plan swin_tiny_patch4_window7_224 --tasks seg=Semantic --tasks.seg.classes 19 --bytes 500k --step-time 1.5x
  garnish plan mit_b2 --tasks seg=Semantic --tasks.seg.classes 11 --memory 8GB --batch-size 8 --methods LoRA,SideTuning
"""
#: Number of steps to predict, and to time, if no budget needs them.
_PREDICTIONS = 16


def parser() -> Parser:
    """The argument parser of this command."""
    made = Parser(
        "garnish plan",
        "garnish plan BACKBONE --tasks NAME=TASK,… [--budget 1%] [--bytes 500k] [--memory 8GB] [--step-time 1.5x] "
        "[options]",
        "List which methods, sizes and placements fit a budget, what they cost, and recommend one.",
        _EPILOG,
        sections=("head", "tasks"),
    )
    made.usage = str(made.usage).replace("%", "%%")
    made.add_argument("backbone", metavar="BACKBONE", help="a name that methods lists")
    shown = made.add_argument_group("what to learn (also --tasks.TASK.KEY, --head.KEY)")
    shown.add_argument("--tasks", metavar="NAME=TASK,…", help="tasks by name")
    shown.add_argument("--head", metavar="NAME", help="decoder of every task (LinearHead)")
    bounds = made.add_argument_group("budget")
    bounds.add_argument("--budget", metavar="N%", help="trained encoder parameters, of the backbone's own")
    bounds.add_argument("--bytes", metavar="SIZE", help="of a bundle's weights: 500k, 1.5MB")
    bounds.add_argument("--memory", metavar="SIZE", help="of a training step: 8GB, 2GiB")
    bounds.add_argument("--step-time", metavar="Nx", help="of a training step, over that of heads only: 1.5x")
    made.add_argument("--batch-size", type=positive_int, default=4, metavar="N", help="pictures of a step (4)")
    made.add_argument("--size", type=sides, metavar="H,W", help="of the pictures (about 224,224)")
    made.add_argument("--methods", type=some_names, metavar="NAME,NAME", help="methods to try (all)")
    made.add_argument(
        "--predictions",
        type=positive_int,
        metavar="N",
        help=f"steps to predict if no budget needs them ({_PREDICTIONS})",
    )
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def run(words: Sequence[str]) -> int:
    """Run this command; returns the exit code."""
    given, overrides = parser().read(words)
    budget = budget_of(given)
    if not overrides.get("tasks") and not any(key.startswith("tasks.") for key in overrides):
        raise OptionError("plan: --tasks is missing; name what is to be learnt, e.g. --tasks seg=Semantic,depth=Depth")
    if given.predictions is not None and budget.needs_a_step:
        raise OptionError(
            "plan: --memory and --step-time predict every step, so --predictions does not apply; leave it out"
        )
    from garnish.planning.survey import survey

    setting = setting_of(given, overrides)
    found = survey(
        setting,
        budget,
        given.methods,
        most=given.predictions or _PREDICTIONS,
        say=functools.partial(say, stderr=True),
    )
    if given.json:
        from garnish.commands.printing import print_json

        print_json(facts_of(found, setting, given.backbone))
    else:
        _print(found, setting, given.backbone)
    return 0


def budget_of(given: argparse.Namespace) -> Budget:
    """The budget of the command line; raises :class:`OptionError` naming the option that is wrong."""
    from garnish.planning import budget

    def read(option: str, how: Callable[[str], N]) -> N | None:
        text = getattr(given, option.replace("-", "_"))
        try:
            return None if text is None else how(text)
        except OptionError as error:
            raise OptionError(f"plan: --{option}: {error}") from None

    return budget.Budget(
        share=read("budget", budget.share),
        bundle_bytes=read("bytes", budget.size),
        memory_bytes=read("memory", budget.memory),
        step_ratio=read("step-time", budget.ratio),
    )


def setting_of(given: argparse.Namespace, overrides: Mapping[str, Json]) -> Setting:
    """Backbone, tasks, heads and batch of the command line."""
    from garnish.commands.words import given_tasks
    from garnish.planning.counting import Setting
    from garnish.planning.shaped_trunk import ShapedTrunk
    from garnish.recipes.recipe import read_recipe

    tasks = given_tasks({k: v for k, v in overrides.items() if k.split(".")[0] == "tasks"})
    head = read_recipe(None, {k: v for k, v in overrides.items() if k.split(".")[0] == "head"}).head
    trunk = ShapedTrunk(given.backbone)
    side = -(-224 // trunk.multiple) * trunk.multiple
    return Setting(trunk, tasks, head, given.batch_size, given.size or (side, side))


def facts_of(found: Survey, setting: Setting, backbone: str) -> dict[str, Json]:
    """The whole plan as JSON-serialisable facts."""
    from garnish.registry import describe

    choice = found.recommendation.choice
    return {
        "backbone": backbone,
        "tasks": {name: describe(task) for name, task in setting.tasks.items()},
        "batch_size": setting.batch_size,
        "size": list(setting.size),
        "fits": [_row_facts(row) for row in found.rows],
        "recommended": None if choice is None else str(choice.candidate),
        "method": None if choice is None else describe(choice.candidate.method),
        "reason": found.recommendation.reason,
        "left_out": found.left_out,
        "refused": {refused.name: refused.reason for refused in found.refused},
        "heads_only": {"memory_bytes": found.heads_only.memory_bytes, "step_seconds": found.heads_only.step_seconds},
        "baseline_bytes": found.baseline_bytes,
    }


def _row_facts(row: SurveyRow) -> dict[str, Json]:
    from garnish.registry import describe

    counted, step = row.counted, row.predicted
    exact = ("encoder_total", "encoder_trainable", "share", "decoder_trainable", "bundle_bytes")
    of_step = ("macs", "tensor_bytes", "memory_bytes", "memory", "step_seconds", "step_ratio")
    return {
        "name": str(counted.candidate),
        "method": describe(counted.candidate.method),
        "placement": counted.candidate.placement or None,
        "sharing": counted.candidate.sharing or None,
        **{name: getattr(counted, name) for name in exact},
        **{name: None if step is None else getattr(step, name) for name in of_step},
    }


def _print(found: Survey, setting: Setting, backbone: str) -> None:
    from garnish.commands.printing import print_table

    choice = found.recommendation.choice
    rows = [_cells(row, found, is_choice=row.counted is choice) for row in found.rows]
    heads = f"{found.rows[0].counted.decoder_trainable:,} in heads" if found.rows else "heads"
    height, width = setting.size
    say(f"{backbone}: {', '.join(setting.tasks)}; {plural(setting.batch_size, 'picture')} of {height}x{width} a step")
    if rows:
        columns = ["method", "where", "shared", "encoder", "%", "bundle kB", "GMACs", "memory GB", "step s", "× heads"]
        print_table(columns, rows)
    say(f"also trained: {heads}; memory holds {found.baseline_bytes / 1e9:.2f} GB of Python and its libraries")
    if least := [row for row in found.rows if row.predicted is not None and row.predicted.memory == "least"]:
        say(
            "~: fits only with train.memory least, where every block runs again in the backward pass, or memory_gb,"
            f" which chooses block by block ({plural(len(least), 'row')})"
        )
    if found.unpredicted:
        say(f"{found.unpredicted} rows without a predicted step: raise --predictions, or choose with --methods")
    if found.untimed:
        say(
            f"{plural(found.untimed, 'row')} without a step's time: memory is short, or no --step-time asks for so many"
        )
    if found.left_out:
        say(f"{len(found.left_out)} candidates break the budget (--json says which and why)")
        if choice is None:
            name, why = next(iter(found.left_out.items()))
            say(f"the first of them: {name}: {why}")
    for refused in found.refused:
        say(f"does not fit the backbone: {refused.reason}")
    if choice is None:
        say(f"recommended: none; {found.recommendation.reason}")
    else:
        say(f"recommended: {choice.candidate}: {found.recommendation.reason}")


def _cells(row: SurveyRow, found: Survey, *, is_choice: bool) -> list[str]:
    counted, step = row.counted, row.predicted
    size = " ".join(f"{option}={value:g}" for option, value in counted.candidate.size.items())
    exact = [
        f"{'* ' if is_choice else ''}{counted.candidate.name} {size}".strip(),
        counted.candidate.placement,
        counted.candidate.sharing,
        f"{counted.encoder_trainable:,}",
        f"{100 * counted.share:.3g}",
        f"{counted.bundle_bytes / 1e3:,.0f}",
    ]
    if step is None:
        return [*exact, "", "", "", ""]
    memory = (step.memory_bytes + found.baseline_bytes) / 1e9
    times = ["" if time is None else f"{time:.2f}" for time in (step.step_seconds, step.step_ratio)]
    again = "~" if step.memory == "least" else ""
    return [*exact, f"{step.macs / 1e9:.2f}", f"{again}{memory:.2f}", *times]
