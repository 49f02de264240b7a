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
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from garnish.bundles.checkpoint import Number, SavedState, flatten, open_state, save_state, unflatten
from garnish.checking.finite import not_finite
from garnish.checking.plain_data import Json
from garnish.errors import BundleError, OptionError, one_line, showable, shown
from garnish.files.atomic import write_file, writing
from garnish.files.safetensors_header import MOST_HEADER
from garnish.files.strict_yaml import write_yaml
from garnish.registry import plain
from garnish.training.run_folder import EARLIER, LAST, STATE, check_run
from garnish.training.saved_facts import Checkpoint, Evaluation, RunFacts, RunState, checkpoint_of
from garnish.training.step import TrainingStep

#: Prefix of the optimizer's tensors, and what AdamW keeps for a parameter.
_MOMENTS = "optimizer/"
_ENTRIES = ("step", "exp_avg", "exp_avg_sq")


@final
@dataclass(frozen=True)
class Saved:
    """A checkpoint: its file, whose tensors are not read yet, its facts, and a line if it is not the last one."""

    file: SavedState
    facts: Checkpoint
    line: str


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


def load_run(folder: Path, step: TrainingStep) -> Saved:
    """Open what :func:`save_run` wrote, of the last state, or of the previous one if that is damaged.

    Args:
        folder: of the run.
        step: what it trains bounds the size of the file.

    Raises:
        BundleError: no checkpoint, or both are damaged.
    """
    check_run(folder)
    last, earlier, line = folder / STATE, folder / EARLIER, ""
    # a value and two moments, and as much again, for it may be of a larger model, which the facts then say
    most = 2 * MOST_HEADER + 6 * sum(tensor.nbytes for tensor in _kept(step).values())
    try:
        state = open_state(last, most)
    except BundleError as error:
        try:
            state = open_state(earlier, most)
        except BundleError:
            raise error from None
        line = str(error).rpartition(";")[0]
    facts = checkpoint_of(state.facts, str(state.file))
    if line:
        line += f"; going on from the state before, of step {facts['state'].step} ({earlier})"
    return Saved(state, facts, line)


def set_aside(folder: Path) -> None:
    """Rename a damaged last state, so that the next save does not keep it as the previous state."""
    if (folder / STATE).exists():
        with writing(f"{folder / STATE}:", ", then resume"):
            (folder / STATE).replace(folder / LAST / "damaged.safetensors")


def odd_in_run(step: TrainingStep) -> str:
    """A line on tensors of a checkpoint (see :func:`save_run`) that are not finite; empty if all are finite."""
    return not_finite(step.trained | step.buffers() | _optimizer_state(step)[0])


def restore(saved: Saved, step: TrainingStep, where: str, *, again: bool = True) -> RunState:
    """Restore a checkpoint; if it does not fit, nothing is changed.

    Args:
        saved: the checkpoint.
        step: what it is restored to.
        where: the folder, for messages.
        again: somebody resumes the run, and wants more of it where a callback had ended it.

    Raises:
        BundleError: a missing or unused tensor, one of another shape or dtype (found before any is read), values that
            are not finite or that no optimizer has.
    """
    facts, kept = saved.facts, _kept(step)
    targets = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in kept.items()}
    wanted = targets | _moments_of(facts["optimizer"], step.trained, saved.file.file)
    shapes = saved.file.shapes
    odd = sorted(wanted.keys() ^ shapes.keys()) + [n for n in wanted if n in shapes and wanted[n] != shapes[n]]
    if odd:
        raise BundleError(
            f"{where}: {shown(odd[0], 200)} ({len(odd)} such) is missing, unused or of another shape; resume with the"
            " same model"
        )
    scaler = step.precision.state_dict()
    if line := _odd_scaler(facts["scaler"], scaler):
        raise BundleError(f"{saved.file.file}: {line}; resume from another or start again")
    tensors = saved.file.tensors()
    if line := not_finite(tensors):
        raise BundleError(f"{saved.file.file}: {line}; the run had diverged: train again at a lower lr")
    for name, tensor in tensors.items():
        most = {"step": facts["state"].step, "exp_avg_sq": math.inf}.get(name.rpartition("/")[2])
        if name.startswith(_MOMENTS) and most is not None and not bool(((tensor >= 0) & (tensor <= most)).all()):
            raise BundleError(f"{saved.file.file}: {name} holds what no optimizer does; resume from another")
    with torch.no_grad():
        for name, target in kept.items():
            target.copy_(tensors[name])
    # the fused step keeps its counter on the parameter's device, the other one on the CPU
    fused = step.optimizer.param_groups[0]["fused"]
    moments = {n.removeprefix(_MOMENTS): t for n, t in tensors.items() if n.startswith(_MOMENTS)}
    for name, entries in unflatten(moments, facts["optimizer"]).items():
        parameter = step.trained[name]
        step.optimizer.state[parameter] = {
            k: v.to(parameter.device) if isinstance(v, Tensor) and (v.ndim or fused) else v for k, v in entries.items()
        }
    step.precision.load_state_dict(dict(facts["scaler"]))
    state = facts["state"]
    if again and state.stopped == "callback":
        state.stopped = ""
    return state


def _moments_of(
    named: Mapping[str, object], trained: Mapping[str, Tensor], file: Path
) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Name in a checkpoint → dtype and shape of what AdamW keeps for the named parameters: nothing but tensors."""
    found: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name, numbers in named.items():
        if name not in trained or numbers:
            raise BundleError(
                f"{file}: optimizer.{one_line(name, 200)} is not of the optimizer of this model; resume with the same"
                " model"
            )
        like = trained[name]
        own = {"step": (torch.float32, ()), **dict.fromkeys(_ENTRIES[1:], (like.dtype, tuple(like.shape)))}
        found |= {f"{_MOMENTS}{name}/{entry}": of for entry, of in own.items()}
    return found


def _odd_scaler(saved: Mapping[str, float], now: Mapping[str, float]) -> str:
    """What a scaler of float16 does not have; empty if there is nothing."""
    for name in sorted(saved.keys() ^ now.keys()):
        return f"scaler.{one_line(name, 60)} is {'unknown' if name in saved else 'missing'}"
    for name, value in saved.items():
        if type(value) is not type(now[name]) or value < 0 or (value == 0 and not name.startswith("_")):
            return f"scaler.{name} is {shown(value)}"
    return ""


def _kept(step: TrainingStep) -> dict[str, Tensor]:
    """Trained tensors and buffers by their names in a checkpoint."""
    kept = step.trained | step.buffers()
    return {f"{'extra' if name.startswith('balance.') else 'model'}/{name}": tensor for name, tensor in kept.items()}


def _optimizer_state(step: TrainingStep) -> tuple[dict[str, Tensor], dict[str, dict[str, Number]]]:
    """The optimizer's tensors by their names in a checkpoint, and its numbers."""
    state = step.optimizer.state
    moments, numbers = flatten({name: state[p] for name, p in step.trained.items() if p in state})
    return {f"{_MOMENTS}{name}": tensor for name, tensor in moments.items()}, numbers


def _write(file: Path, text: str) -> None:
    with writing(f"{file}:", ", then resume"):
        write_file(file, text.encode())
