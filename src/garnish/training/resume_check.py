"""Checks that a resumed run has the options, model and data that it was started with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from garnish.data.dataset import Dataset
from garnish.data.identity import changed_aspect, identity
from garnish.errors import OptionError, one_line
from garnish.model.model import Model
from garnish.registry import SpecFacts, describe, plain
from garnish.tasks.task import Task
from garnish.training.memory_plan import MemoryPlan
from garnish.training.saved_facts import Aspects, Checkpoint, RunFacts
from garnish.training.train_options import FREE_ON_RESUME, TrainOptions


def run_facts(
    options: TrainOptions,
    model: Model,
    data: Mapping[str, Dataset | None],
    total: int,
    batch_size: int,
    world: int,
    plan: MemoryPlan | None = None,
) -> RunFacts:
    """The facts of a run that must not change when it is resumed; ``data``: purpose → data set."""
    facts: RunFacts = {
        "options": plain({k: v for k, v in dataclasses.asdict(options).items() if k not in FREE_ON_RESUME}),
        "cached": options.cache is not None,
        "total_steps": total,
        "batch_size": batch_size,
        "world": world,
        "fingerprint": model.backbone.fingerprint(),
        "drop_path": model.backbone.drop_path,
        "tasks": {name: _described(task) for name, task in model.tasks.items()},
        "methods": {owner.name: [describe(m) for m in owner.methods] for owner in model.owners if owner.parent is None},
        "heads": {name: describe(head) for name, head in model.decoders.options.items()},
        "data": {name: None if part is None else identity(part) for name, part in data.items()},
    }
    if plan is not None:
        facts["levels"] = list(plan.levels)
    return facts


def check_facts(saved: Checkpoint, now: RunFacts, where: str) -> str:
    """Raise OptionError if a resumed run differs from its start, naming the first difference.

    Returns:
        A line about what could not be compared; empty if all could.
    """
    for name, value in now["options"].items():
        if (old := saved["options"].get(name)) != value:
            raise OptionError(
                f"{where}: was started with train.{name} = {_shown(old)}, not {value}; resume with the same options, or"
                " start over"
            )
    if "tasks" in saved:  # older checkpoints do not say
        _check_tasks(saved["tasks"], now["tasks"], where)
    for owner, methods in saved.get("methods", {}).items():
        own = now["methods"].get(owner, [])
        several = max(len(methods), len(own)) > 1
        for number in range(max(len(methods), len(own))):
            before, after = (specs[number] if number < len(specs) else None for specs in (methods, own))
            _check_spec(before, after, f"adapter.{number}" if several else "adapter", where)
    for task, head in saved.get("heads", {}).items():
        _check_spec(head, now["heads"].get(task), f"head.{task}", where)
    _check_data(saved.get("data", now["data"]), now["data"], where)
    if saved["world"] != now["world"]:
        raise OptionError(
            f"{where}: was started with {saved['world']} processes, not {now['world']}, and a step takes pictures for"
            f" each; start {saved['world']} again (torchrun --nnodes without a range waits for them), or start over"
        )
    for name, what in (
        ("fingerprint", "another backbone (its weights differ)"),
        ("drop_path", f"backbone.drop_path = {saved.get('drop_path', 0.0)}, not {now['drop_path']}"),
        ("cached", "train.cache" if saved.get("cached") else "train.cache unset"),
        ("total_steps", f"{saved['total_steps']} steps in all, not {now['total_steps']} (has the data changed?)"),
    ):
        if saved.get(name, False) != now.get(name):
            raise OptionError(f"{where}: was started with {what}; resume with the same, or start over")
    if "data" in saved:
        return ""
    state = saved["state"]
    kept = state.best_step is not None and not state.best_on_some
    rounding = "; what storing does to its best metrics is measured only if a later step is better" if kept else ""
    return f"{where}: an earlier version wrote it without facts about its data; check that they are the same{rounding}"


def _check_data(saved: Mapping[str, Aspects], now: Mapping[str, Aspects], where: str) -> None:
    """Raise OptionError if the pictures or labels are not those that the run was started with."""
    for name, after in now.items():
        before = saved.get(name)
        if before is None and after is None:
            continue
        if before is None or after is None:
            what = f"without {name} data" if before is None else f"with {name} data, and there are none now"
        elif aspect := changed_aspect(before, after):
            what = f"with other {name} data ({aspect})"
        else:
            continue
        raise OptionError(
            f"{where}: was started {what}; give those that it was started with (--data, or `train` and `val`"
            " of fit), or start over"
        )


def _described(task: Task) -> SpecFacts:
    """Class and options of a task, without those that do not affect results."""
    told = describe(task)
    kept = {name: value for name, value in told["options"].items() if task.roles.get(name) != "work"}
    return {"name": told["name"], "options": kept}


def _check_tasks(saved: Mapping[str, SpecFacts], now: Mapping[str, SpecFacts], where: str) -> None:
    """Raise OptionError if a task's class, class names or other options differ from the start of the run."""
    if set(saved) != set(now):
        raise OptionError(
            f"{where}: was started with the tasks {_shown(list(saved))}, not {', '.join(now)}; resume with the same,"
            " or start over"
        )
    for task, before in saved.items():
        _check_spec(before, now[task], f"tasks.{task}", where)


def _check_spec(before: SpecFacts | None, after: SpecFacts | None, at: str, where: str) -> None:
    """Raise OptionError if a class or an option differs; options that an old checkpoint lacks are skipped."""
    names = [None if spec is None else spec["name"] for spec in (before, after)]
    if before is None or after is None or names[0] != names[1]:
        raise OptionError(
            f"{where}: was started with {at} = {_shown(names[0])}, not {names[1]}; resume with the same recipe, or"
            " start over"
        )
    for name, value in after["options"].items():
        if (old := before["options"].get(name, value)) != value:
            raise OptionError(
                f"{where}: was started with {at}.{name} = {_shown(old)}, not {_shown(value)}; resume with the same data"
                " description and recipe, or start over"
            )


def _shown(value: object) -> str:
    """A value of a file, which may be of any length."""
    return one_line(", ".join(map(str, value[:100])) if isinstance(value, list) else str(value)[:200], 120)
