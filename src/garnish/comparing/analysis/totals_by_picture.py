"""Evaluation that keeps each picture's totals, so that metrics of any selection of pictures can be computed later.

Shape letters: P pictures.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, cast, final

import torch
from torch import Tensor
from torchmetrics import Metric

from garnish.bundles.checkpoint import open_state, save_state
from garnish.checking.plain_data import Reading, read_as
from garnish.data.dataset import Dataset
from garnish.errors import BundleError, DataError, OptionError
from garnish.model.evaluation_mode import evaluating
from garnish.model.model import Model
from garnish.tasks.metrics.totals import Totals
from garnish.tasks.task import Task
from garnish.training.evaluate import Metrics, outputs, shared_tasks

_FORMAT = 1


@final
@dataclass(frozen=True, eq=False)
class PictureTotals:
    """Each picture's contribution to the totals of one task's metric.

    Attributes:
        pictures: P names, of the whole data set in its order, labelled for the task or not.
        states: by the name of the metric's total (:mod:`garnish.tasks.metrics.totals`), (P, …) on the CPU, in the
            total's dtype; 0 for pictures without a label of the task.
    """

    pictures: tuple[str, ...]
    states: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, state in self.states.items():
            assert len(state) == len(self.pictures), f"{name}: {len(state)} rows for {len(self.pictures)} pictures"


def evaluate_by_picture(
    model: Model,
    dataset: Dataset,
    *,
    tasks: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    batch_size: int = 1,
    progress: bool = False,
) -> tuple[Metrics, dict[str, PictureTotals | None]]:
    """The metrics of :func:`~garnish.training.evaluate.evaluate`, and each picture's totals.

    Args:
        model: left unchanged, training mode included.
        dataset: all its pictures are measured; labels may be partial.
        tasks: which tasks; None: all that the model and the data share.
        size: (height, width) that pictures and labels are resized to first; None: their own size.
        batch_size: pictures per batch, all of one size.
        progress: draw a progress bar on standard error.

    Returns:
        Task → metric → value, and task → totals by picture. The latter is None for a task whose metric is not based on
        additive totals (a third party's): its pictures cannot be resampled, so there is no interval.

    Raises:
        OptionError: an unknown task, a batch size below 1. DataError: no picture, no task in common, or labels of
        another kind.
    """
    names = shared_tasks(model, dataset, tasks)
    if batch_size < 1:
        raise OptionError(f"evaluate_by_picture: batch_size {batch_size}; set 1 or more")
    if not len(dataset):
        raise DataError(f"{dataset.name}: no pictures; check its folders and split")
    metrics = {name: model.tasks[name].metric() for name in names}
    rows: dict[str, dict[str, Tensor]] = {}
    for name, metric in metrics.items():
        if model.device.type == "cuda":
            metric.to(model.device)
        if isinstance(metric, Totals):
            rows[name] = {state: torch.stack([zero.cpu()] * len(dataset)) for state, zero in _states(metric).items()}
    pictures = [""] * len(dataset)
    with evaluating(model), torch.inference_mode():
        for indices, batch, out in outputs(
            model, dataset, range(len(dataset)), metrics, batch_size=batch_size, size=size, progress=progress
        ):
            for index, picture in zip(indices, batch.names, strict=True):
                pictures[index] = picture
            for name, raw in out.items():
                if name not in rows:
                    metrics[name].update(raw, batch.targets[name])
                    continue
                for k, row in enumerate(batch.where[name]):
                    metrics[name].reset()
                    metrics[name].update(raw[k : k + 1], batch.targets[name][k : k + 1])
                    for state, value in _states(metrics[name]).items():
                        rows[name][state][indices[row]] = value.cpu()
    totals = {name: PictureTotals(tuple(pictures), rows[name]) if name in rows else None for name in names}
    found: Metrics = {}
    for name, kept in totals.items():
        if kept is not None:
            found[name] = metrics_of(model.tasks[name], kept)
        else:
            found[name] = {key: float(value) for key, value in metrics[name].compute().items()}
    return found, totals


def metrics_of(task: Task, totals: PictureTotals, counts: Tensor | None = None) -> dict[str, float]:
    """The metrics of a selection of pictures, as if the task's metric had seen only those.

    Args:
        task: the task of the totals.
        totals: of P pictures.
        counts: (P,) int64, how often each picture counts; None: once each.

    Returns:
        Every metric by name; NaN where nothing was seen. With all counts 1 it is bit-equal to the metric
        updated picture by picture.
    """
    states = {}
    for name, state in totals.states.items():
        taken = state if counts is None else state * counts.reshape(-1, *(1,) * (state.ndim - 1)).to(state.dtype)
        # Summed one after the other, as updates are: another order would round differently.
        states[name] = taken.cumsum(0)[-1]
    return {name: float(value) for name, value in computed(metric_of(task), states).items()}


def metric_of(task: Task) -> Totals:
    """A new metric of the task, on the CPU."""
    metric = task.metric()
    assert isinstance(metric, Totals), "totals by picture are of a metric made of totals"
    return metric


def computed(metric: Totals, states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values of a metric with its totals set to ``states``."""
    for name, state in states.items():
        setattr(metric, name, state)
    # The class's own function: the instance's also syncs processes, and warns if there was no update.
    values: dict[str, Tensor] = type(metric).compute(metric)
    return values


def save_totals(path: str | os.PathLike[str], totals: Mapping[str, PictureTotals | None]) -> Path:
    """Write the totals of all tasks of one model to one file, including tasks without totals (None).

    Raises:
        BundleError: no space; the previous file is untouched then.
    """
    tensors = {f"{task}/{state}": t for task, kept in totals.items() if kept for state, t in kept.states.items()}
    facts = {
        "format": _FORMAT,
        # A list, as the file would sort a mapping by name.
        "tasks": [
            {"name": task} | ({"pictures": kept.pictures, "states": list(kept.states)} if kept else {})
            for task, kept in totals.items()
        ],
    }
    return save_state(path, tensors, facts)


class _TaskFacts(TypedDict):
    """A task in the file; one whose metric is not made of totals has its name alone."""

    name: str
    pictures: NotRequired[list[str]]
    states: NotRequired[list[str]]


class _Facts(TypedDict):
    format: Literal[1]
    tasks: list[_TaskFacts]


_READING = Reading(error=BundleError, unknown="unknown key {place}", missing="has no {place}; measure again")


def load_totals(
    path: str | os.PathLike[str], tasks: Mapping[str, Task] | None = None, num_pictures: int | None = None
) -> dict[str, PictureTotals | None]:
    """The inverse of :func:`save_totals`.

    Args:
        path: the file.
        tasks: of which it must be, each with the totals of its metric; None: any, with any totals.
        num_pictures: of how many pictures each task must be; None: any.

    Raises:
        BundleError: no such file, a damaged one, or one with other contents, which is found before a tensor is read.
    """
    saved = open_state(path)
    if saved.facts.get("format") != _FORMAT:
        raise BundleError(f"{path}: holds no totals by picture of format {_FORMAT}; measure again")
    facts: _Facts = read_as(saved.facts, _Facts, "", replace(_READING, file=f"{path}: "))
    rows = {
        f"{of['name']}/{state}": len(of.get("pictures", ())) for of in facts["tasks"] for state in of.get("states", ())
    }
    fits = rows.keys() == saved.shapes.keys() and all(saved.shapes[name][1][:1] == (rows[name],) for name in rows)
    if tasks is not None:
        others = {of["name"] for of in facts["tasks"]} != set(tasks) or set(rows.values()) - {num_pictures}
        fits = fits and not others and saved.shapes == _shapes(tasks, num_pictures or 0)
    if not fits:
        raise BundleError(f"{path}: holds totals of other tasks, metrics or pictures; measure again")
    tensors = saved.tensors()
    found: dict[str, PictureTotals | None] = {}
    for of in facts["tasks"]:
        states = {state: tensors[f"{of['name']}/{state}"] for state in of.get("states", ())}
        found[of["name"]] = PictureTotals(tuple(of.get("pictures", ())), states) if states else None
    return found


def _shapes(tasks: Mapping[str, Task], num_pictures: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Name in a file → dtype and shape of the totals of these tasks."""
    metrics = {name: metric for name, task in tasks.items() if isinstance(metric := task.metric(), Totals)}
    return {
        f"{name}/{state}": (zero.dtype, (num_pictures, *zero.shape))
        for name, metric in metrics.items()
        for state, zero in _states(metric).items()
    }


def _states(metric: Metric) -> dict[str, Tensor]:
    """Every total by name."""
    states = metric.metric_state
    assert all(isinstance(state, Tensor) for state in states.values()), "totals are tensors"
    return cast(dict[str, Tensor], states)
