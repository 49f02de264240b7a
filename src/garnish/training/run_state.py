"""The state of a run, and saving and restoring it as a checkpoint, from which a run resumes bit-exactly.

A checkpoint holds the trained tensors, the optimizer state and a few numbers. Sample order, augmentation, dropout and
learning rate are functions of (seed, step), so nothing else is needed.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import math
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NotRequired, TypedDict, final

import torch
from lightning.fabric import Fabric
from torch import Tensor

from garnish.bundles.checkpoint import Number, flatten, load_state, save_state, unflatten
from garnish.checking.finite import not_finite
from garnish.checking.plain_data import Json, Reading, read_as
from garnish.errors import BundleError, OptionError, showable, shown
from garnish.files.atomic import write_file, writing
from garnish.files.strict_yaml import write_yaml
from garnish.registry import SpecFacts, plain
from garnish.training.run_folder import EARLIER, LAST, STATE, check_run, new_folder, working_in
from garnish.training.step import TrainingStep

Metrics = dict[str, dict[str, float]]


class Evaluation(TypedDict):
    """One evaluation of a run; metrics are task → metric → value."""

    step: int
    score: float
    metrics: Metrics


@final
@dataclass
class RunState:
    """The part of a run's state that is not tensors.

    Attributes:
        step: optimizer steps done.
        history: every evaluation.
        best_step, best_score: of the best evaluation so far; None: none yet.
        best_on_some: its metrics on the pictures on which the effect of storing a bundle is measured.
        stopped: "" while steps are left, "finished", or "early" (patience).
        seconds: spent in training and evaluation, over all sessions.
    """

    step: int = 0
    history: list[Evaluation] = field(default_factory=list)
    best_step: int | None = None
    best_score: float | None = None
    best_on_some: Metrics = field(default_factory=dict)
    stopped: str = ""
    seconds: float = 0.0

    def metrics_of(self, step: int | None) -> Metrics:
        """Metrics of the evaluation at ``step``; empty if there is none."""
        return next((entry["metrics"] for entry in self.history if entry["step"] == step), {})


class RunFacts(TypedDict):
    """The facts of a run that must not change on resuming; checkpoints of earlier versions lack some."""

    options: dict[str, Json]
    cached: NotRequired[bool]  # caching changes rounding; its folder may differ
    total_steps: int
    batch_size: int
    world: int
    fingerprint: str
    drop_path: NotRequired[float]
    tasks: NotRequired[dict[str, SpecFacts]]
    methods: NotRequired[dict[str, list[SpecFacts]]]
    heads: NotRequired[dict[str, SpecFacts]]
    data: NotRequired[dict[str, Json]]  # by purpose


class Checkpoint(RunFacts):
    """The JSON facts of a checkpoint: those of the run, its state, and the numbers of scaler and optimizer."""

    state: RunState
    scaler: dict[str, Json]
    optimizer: dict[str, dict[str, Number]]


_READING = Reading(error=BundleError, unknown="unknown key {place}", missing="has no {place}; give another folder")


def taken(out: str | Path, recipe: Mapping[str, Json], held: ExitStack, fabric: Fabric) -> Path:
    """Create the folder of a new run on the first rank, lock it until ``held`` is closed, and write ``args.yaml``."""
    folder = ""
    if fabric.is_global_zero:
        recipe_for_bundle(recipe)  # refused before anything is made
        made = new_folder(Path(out))
        held.enter_context(working_in(made))
        write_args(made, recipe)
        folder = str(made)
    return Path(fabric.broadcast(folder) if fabric.world_size > 1 else folder)


def resumed(folder: Path, held: ExitStack, fabric: Fabric) -> tuple[dict[str, Tensor], Checkpoint, str]:
    """Lock the folder of a run until ``held`` is closed, and load its checkpoint as :func:`load_run` does."""
    check_run(folder)
    if fabric.is_global_zero:
        held.enter_context(working_in(folder))
    found = load_run(folder)
    if found[2] and fabric.is_global_zero:
        set_aside(folder)
    return found


def write_args(folder: Path, recipe: Mapping[str, Json]) -> None:
    """Write ``args.yaml``: the recipe that the run was started with.

    ``base``, the folder of its relative paths, is written relative to the run's folder, so that a run that is moved
    together with its data still finds them.
    """
    if "base" in recipe:
        start = Path(recipe["base"]).resolve()
        with contextlib.suppress(ValueError):  # no relative path to another drive
            start = Path(os.path.relpath(start, folder.resolve()))
        recipe = {"base": start.as_posix(), **without_base(recipe)}
    _write(folder / "args.yaml", write_yaml(plain(recipe)))


def without_base(recipe: Mapping[str, Json]) -> dict[str, Json]:
    """A recipe as bundles store it: without ``base``, which would reveal a folder of this machine."""
    return {name: section for name, section in recipe.items() if name != "base"}


def recipe_for_bundle(recipe: Mapping[str, Json]) -> Json:
    """A recipe as a bundle's JSON stores it: without ``base``, and NaN and infinities as text, which reads back.

    Raises:
        OptionError: a value that is not a number, text, a truth value, a list or a mapping; names it.
    """
    return _json_of(plain(without_base(recipe)), "recipe")


def _json_of(value: Json, at: str) -> Json:
    if isinstance(value, Mapping):
        return {name: _json_of(entry, f"{at}.{name}") for name, entry in value.items()}
    if isinstance(value, list):
        return [_json_of(entry, f"{at}[{number}]") for number, entry in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise OptionError(f"{at}: {shown(value)} cannot be stored; give a number, text, a list or a mapping")


def write_results(folder: Path, history: list[Evaluation]) -> None:
    """Write ``results.csv``: a row per evaluation, a column per metric."""
    rows: list[dict[str, float]] = [
        {"step": e["step"], "score": e["score"]}
        | {f"{task}.{name}": value for task, values in e["metrics"].items() for name, value in values.items()}
        for e in history
    ]
    columns = ["step", "score", *sorted({name for row in rows for name in row} - {"step", "score"})]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writerow({name: showable(name) for name in columns})  # classes of strangers are among them
    for row in rows:
        table.writerow({k: v if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()})
    _write(folder / "results.csv", text.getvalue())


def save_run(folder: Path, state: RunState, step: TrainingStep, facts: RunFacts) -> None:
    """Write or replace ``FOLDER/last/state.safetensors``; the previous state is kept next to it.

    Args:
        folder: of the run.
        state: see :class:`RunState`.
        step: its trained tensors, buffers, and the state of its optimizer and scaler are saved.
        facts: what must be the same when the run is resumed: see :func:`check_facts`.
    """
    moments, numbers = _optimizer_state(step)
    changed = {"scaler": step.precision.state_dict(), "state": dataclasses.asdict(state), "optimizer": numbers}
    save_state(folder / STATE, _kept(step) | moments, {**facts, **changed}, keep=EARLIER.name)


def load_run(folder: Path) -> tuple[dict[str, Tensor], Checkpoint, str]:
    """Read what :func:`save_run` wrote, with a line if the last state is damaged and the previous one is used, else "".

    Raises:
        BundleError: no checkpoint, both are damaged, or one with values that are not finite.
    """
    check_run(folder)
    last, earlier, line = folder / STATE, folder / EARLIER, ""
    try:
        tensors, found = load_state(last)
    except BundleError as error:
        try:
            tensors, found = load_state(earlier)
        except BundleError:
            raise error from None
        line = str(error).rpartition(";")[0]
    facts: Checkpoint = read_as(found, Checkpoint, "", replace(_READING, file=f"{earlier if line else last}: "))
    if line:
        line += f"; going on from the state before, of step {facts['state'].step} ({earlier})"
    if odd := not_finite(tensors):
        raise BundleError(f"{last}: {odd}; the run had diverged: train again at a lower lr")
    return tensors, facts, line


def set_aside(folder: Path) -> None:
    """Rename a damaged last state, so that the next save does not keep it as the previous state."""
    if (folder / STATE).exists():
        with writing(f"{folder / STATE}:", ", then resume"):
            (folder / STATE).replace(folder / LAST / "damaged.safetensors")


def odd_in_run(step: TrainingStep) -> str:
    """A line on tensors of a checkpoint (see :func:`save_run`) that are not finite; empty if all are finite."""
    return not_finite(step.trained | step.buffers() | _optimizer_state(step)[0])


def restore(tensors: Mapping[str, Tensor], facts: Checkpoint, step: TrainingStep, where: str) -> RunState:
    """Restore a checkpoint; if it does not fit, nothing is changed.

    Raises:
        BundleError: a missing or unused tensor, or one of another shape.
    """
    targets = _kept(step)
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
    for name, entries in unflatten(moments, facts["optimizer"]).items():
        parameter = step.trained[name]
        # the fused step keeps its counter on the parameter's device, the other one on the CPU
        fused = step.optimizer.param_groups[0]["fused"]
        step.optimizer.state[parameter] = {
            k: v.to(parameter.device) if isinstance(v, Tensor) and (v.ndim or fused) else v for k, v in entries.items()
        }
    step.precision.load_state_dict(facts["scaler"])
    return facts["state"]


def _kept(step: TrainingStep) -> dict[str, Tensor]:
    """Trained tensors and buffers by their names in a checkpoint."""
    kept = step.trained | step.buffers()
    return {f"{'extra' if name.startswith('balance.') else 'model'}/{name}": tensor for name, tensor in kept.items()}


def _optimizer_state(step: TrainingStep) -> tuple[dict[str, Tensor], dict[str, dict[str, Number]]]:
    """The optimizer's tensors by their names in a checkpoint, and its numbers."""
    state = step.optimizer.state
    moments, numbers = flatten({name: state[p] for name, p in step.trained.items() if p in state})
    return {f"optimizer/{name}": tensor for name, tensor in moments.items()}, numbers


def _write(file: Path, text: str) -> None:
    with writing(f"{file}:", ", then resume"):
        write_file(file, text.encode())
