"""What a run must share with the one that it resumes, and the refusal where it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from garnish.errors import OptionError, one_line
from garnish.lookup import describe, plain
from garnish.model import Model
from garnish.tasks.task import Task
from garnish.training.options import FREE_ON_RESUME, TrainOptions


def facts_of(options: TrainOptions, model: Model, total: int, batch_size: int, world: int) -> dict[str, Any]:
    """What a run must share with the one that it resumes."""
    return {
        "options": plain({k: v for k, v in dataclasses.asdict(options).items() if k not in FREE_ON_RESUME}),
        "cached": options.cache is not None,  # which changes roundings; its folder may be another
        "total_steps": total,
        "batch_size": batch_size,
        "world": world,
        "fingerprint": model.backbone.fingerprint(),
        "tasks": {name: _described(task) for name, task in model.tasks.items()},
    }


def check_facts(saved: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raise OptionError where a run would not go on as it began, naming the first thing that differs."""
    for name, value in now["options"].items():
        if saved["options"].get(name) != value:
            raise OptionError(
                f"{where}: was started with train.{name} = {saved['options'].get(name)}, not {value}; resume with"
                " the same options, or train anew"
            )
    _check_tasks(saved.get("tasks", now["tasks"]), now["tasks"], where)  # older checkpoints do not say
    for name, what in (
        ("fingerprint", "another backbone (its weights differ)"),
        ("cached", "train.cache" if saved.get("cached") else "train.cache unset"),
        ("world", f"{saved['world']} processes, not {now['world']}"),
        ("total_steps", f"{saved['total_steps']} steps in all, not {now['total_steps']} (has the data changed?)"),
    ):
        if saved.get(name, False) != now[name]:
            raise OptionError(f"{where}: was started with {what}; resume with the same, or train anew")


def _described(task: Task) -> dict[str, Any]:
    """Class and options of a task, but for those that change no number."""
    told = describe(task)
    kept = {name: value for name, value in told["options"].items() if task.roles.get(name) != "work"}
    return {**told, "options": kept}


def _check_tasks(saved: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raise OptionError where a task's class, class names or another option is not what the run was started with."""
    if set(saved) != set(now):
        raise OptionError(
            f"{where}: was started with the tasks {', '.join(saved)}, not {', '.join(now)}; resume with the same, or"
            " train anew"
        )
    for task, before in saved.items():
        after = now[task]
        if before["name"] != after["name"]:
            raise OptionError(f"{where}: was started with {task} = {before['name']}, not {after['name']}")
        for name, value in after["options"].items():
            old = before["options"].get(name, value)  # a checkpoint may be older than an option
            if old != value:
                raise OptionError(
                    f"{where}: was started with tasks.{task}.{name} = {_shown(old)}, not {_shown(value)}; resume with"
                    " the same data description and recipe, or train anew"
                )


def _shown(value: Any) -> str:
    return one_line(", ".join(map(str, value)) if isinstance(value, list) else value, 120)
