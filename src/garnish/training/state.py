"""The state of a run: its folder, and the checkpoint from which it goes on as if nothing had happened.

A checkpoint holds what is trained, its optimizer state and a few numbers. Sample order, augmentation, dropout and
learning rate are functions of (seed, step), so nothing else is needed.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from garnish.bundles.atomic import write_file, writing
from garnish.bundles.checkpoint import flatten, load_state, save_state, unflatten
from garnish.errors import BundleError, OptionError, one_line
from garnish.finite import not_finite
from garnish.lookup import describe, plain
from garnish.model import Model
from garnish.strict_yaml import write_yaml
from garnish.tasks.task import Task
from garnish.training.options import FREE_ON_RESUME, TrainOptions

_FILE = Path("last") / "state.safetensors"

Metrics = dict[str, dict[str, float]]


@final
@dataclass
class RunState:
    """What changes as a run goes on, beside the tensors.

    Attributes:
        step: optimizer steps done.
        history: one entry an evaluation: ``step``, ``score`` and ``metrics``.
        best_step, best_score: of the best evaluation so far; None: none yet.
        best_on_some: its metrics on the pictures that the effect of storing a bundle is measured on.
        stopped: "" while steps are left, "finished", or "early" (patience).
        seconds: spent in training and evaluation, over all sittings.
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_step: int | None = None
    best_score: float | None = None
    best_on_some: Metrics = field(default_factory=dict)
    stopped: str = ""
    seconds: float = 0.0

    def metrics_of(self, step: int | None) -> Metrics:
        """Metrics of the evaluation at ``step``; empty where there is none."""
        found: Metrics = next((entry["metrics"] for entry in self.history if entry["step"] == step), {})
        return found


def new_folder(wanted: Path) -> Path:
    """Create ``wanted``, or ``wanted-2``, ``wanted-3``, … where that exists and is not empty.

    Raises:
        OptionError: a place where no folder can be made.
    """
    number = 1
    while True:
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if folder.is_dir() and not any(folder.iterdir()):
                return folder
            number += 1
        except OSError as error:
            raise OptionError(f"out: {folder} cannot be made ({error.strerror}); choose another folder") from None


def write_args(folder: Path, recipe: Mapping[str, Any]) -> None:
    """``args.yaml``: what the run was started with."""
    _write(folder / "args.yaml", write_yaml(plain(recipe)))


def write_results(folder: Path, history: list[dict[str, Any]]) -> None:
    """``results.csv``: a row an evaluation, a column a metric."""
    rows = [
        {"step": e["step"], "score": e["score"]}
        | {f"{task}.{name}": value for task, values in e["metrics"].items() for name, value in values.items()}
        for e in history
    ]
    columns = ["step", "score", *sorted({name for row in rows for name in row} - {"step", "score"})]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({k: v if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()})
    _write(folder / "results.csv", text.getvalue())


def save_run(
    folder: Path,
    state: RunState,
    model: Model,
    optimizer: Optimizer,
    extra: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> None:
    """Write or replace ``FOLDER/last/state.safetensors``.

    Args:
        folder: of the run.
        state: see :class:`RunState`.
        model: its trained tensors and their buffers are saved.
        optimizer: over ``model.trained_parameters()`` and ``extra``.
        extra: further tensors that are trained or kept (of the balance).
        facts: what must be the same when the run is resumed, and the scaler's state: see :func:`check_facts`.
    """
    tensors, numbers = flatten(_optimizer_state(optimizer, {**model.trained_parameters(), **extra}))
    kept = {f"model/{n}": t for n, t in trained_tensors(model).items()} | {f"extra/{n}": t for n, t in extra.items()}
    kept |= {f"optimizer/{n}": t for n, t in tensors.items()}
    save_state(folder / _FILE, kept, {**facts, "state": dataclasses.asdict(state), "optimizer": numbers})


def load_run(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What :func:`save_run` wrote.

    Raises:
        BundleError: no checkpoint there, a damaged one, or one that holds what is not finite.
    """
    if not (folder / _FILE).is_file():
        raise BundleError(f"{folder}: holds no checkpoint (last/state.safetensors); give the folder of a run")
    tensors, facts = load_state(folder / _FILE)
    if odd := not_finite(tensors):
        raise BundleError(f"{folder / _FILE}: {odd}; the run had diverged: train anew at a lower lr")
    return tensors, facts


def odd_in_run(model: Model, optimizer: Optimizer, extra: Mapping[str, Tensor]) -> str:
    """What is not finite of all that a checkpoint would hold (see :func:`save_run`); empty where nothing is."""
    moments, _ = flatten(_optimizer_state(optimizer, {**model.trained_parameters(), **extra}))
    return not_finite(trained_tensors(model) | dict(extra) | {f"optimizer/{n}": t for n, t in moments.items()})


def restore(
    tensors: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    model: Model,
    optimizer: Optimizer,
    extra: Mapping[str, Tensor],
    where: str,
) -> RunState:
    """Put a checkpoint back; nothing is changed where it does not fit.

    Raises:
        BundleError: a missing, unused or otherwise shaped tensor.
    """
    targets = {f"model/{n}": t for n, t in trained_tensors(model).items()} | {f"extra/{n}": t for n, t in extra.items()}
    found = {n: t for n, t in tensors.items() if not n.startswith("optimizer/")}
    odd = sorted(targets.keys() ^ found.keys()) + [
        n for n in targets if n in found and targets[n].shape != found[n].shape
    ]
    if odd:
        raise BundleError(
            f"{where}: {odd[0]} ({len(odd)} such) is missing, unused or of another shape; resume with the same model"
        )
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(found[name])
    moments = {n.removeprefix("optimizer/"): t for n, t in tensors.items() if n.startswith("optimizer/")}
    parameters = {n: t for n, t in {**model.trained_parameters(), **extra}.items() if isinstance(t, nn.Parameter)}
    for name, entries in unflatten(moments, facts["optimizer"]).items():
        parameter = parameters[name]
        # the fused step keeps its counter beside the parameter, the other one on the CPU
        fused = optimizer.param_groups[0]["fused"]
        optimizer.state[parameter] = {
            k: v.to(parameter.device) if isinstance(v, Tensor) and (v.ndim or fused) else v for k, v in entries.items()
        }
    return RunState(**facts["state"])


def trained_tensors(model: Model) -> dict[str, Tensor]:
    """Trained parameters, and the buffers (running statistics) of heads and adapters, by stored name."""
    trained = model.trained_parameters()
    buffers = {n: t for n, t in model.own_tensors().items() if not isinstance(t, nn.Parameter)}
    return {**trained, **buffers}


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


def _optimizer_state(optimizer: Optimizer, named: Mapping[str, Tensor]) -> dict[str, Any]:
    return {name: optimizer.state[t] for name, t in named.items() if t in optimizer.state}


def _write(file: Path, text: str) -> None:
    with writing(f"{file}:", "free some space, then resume"):
        write_file(file, text.encode())
