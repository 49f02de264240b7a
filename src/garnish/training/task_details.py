"""What the tasks of an evaluation tell beside their metrics: gathered_details from all processes, written, and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, final

from torch import Tensor
from torchmetrics import Metric

from garnish.bundles.checkpoint import open_state, save_state
from garnish.drawing.map_files import picture_bytes
from garnish.errors import BundleError
from garnish.files.atomic import write_file, writing
from garnish.reporting.detail import Detail
from garnish.tasks.metrics.totals import Totals
from garnish.tasks.task import Task

#: The totals of the best step, in the folder of its details, from which a resumed run has them again.
TOTALS = "totals.safetensors"


@final
class TaskDetails(NamedTuple):
    """By task, its details, and the totals that they were read from; both lack tasks that tell nothing."""

    found: dict[str, tuple[Detail, ...]]
    totals: dict[str, dict[str, Tensor]]


@final
class Evaluated(NamedTuple):
    """An evaluation: task → metric → value on each part of its pictures, and the details of all of them."""

    metrics: list[dict[str, dict[str, float]]]
    details: TaskDetails


def gathered_details(metrics: Mapping[str, Metric]) -> TaskDetails:
    """The details of metrics that have seen an evaluation; all processes call it, and get those of all pictures."""
    found, totals = {}, {}
    for name, metric in metrics.items():
        if not isinstance(metric, Totals):
            continue
        with metric.sync_context(dist_sync_fn=metric.dist_sync_fn):
            if details := metric.details():
                found[name] = details
                totals[name] = {state: tensor.detach().cpu() for state, tensor in _states(metric).items()}
    return TaskDetails(found, totals)


def write_details(folder: Path, details: Mapping[str, Sequence[Detail]]) -> list[Path]:
    """Write ``TASK_NAME.csv``, and ``TASK_NAME.png`` where a detail has a picture; returns the files.

    Raises:
        BundleError: they cannot be written.
    """
    files: list[Path] = []
    with writing(f"{folder}:", " or choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        for task, found in details.items():
            for detail in found:
                files.append(folder / f"{task}_{detail.name}.csv")
                write_file(files[-1], detail.csv().encode(), synced=False)
                if (picture := detail.picture()) is not None:
                    files.append(folder / f"{task}_{detail.name}.png")
                    write_file(files[-1], picture_bytes(picture, "PNG"), synced=False)
    return files


def keep_details(folder: Path, details: TaskDetails, step: int) -> None:
    """Write the details of an evaluation at ``step``, and what :func:`kept_details` needs.

    Raises:
        BundleError: they cannot be written.
    """
    write_details(folder, details.found)
    tensors = {f"{task}/{name}": tensor for task, states in details.totals.items() for name, tensor in states.items()}
    save_state(folder / TOTALS, tensors, {"step": step})


def kept_details(folder: Path, tasks: Mapping[str, Task], step: int | None) -> dict[str, tuple[Detail, ...]]:
    """The details that :func:`keep_details` wrote of an evaluation at ``step``; empty if there are none that fit.

    Args:
        folder: in which they are.
        tasks: of the run.
        step: of the evaluation; None: there was none.
    """
    if step is None or not (folder / TOTALS).is_file():
        return {}
    metrics = {name: metric for name, task in tasks.items() if isinstance(metric := task.metric_with_details(), Totals)}
    shapes = {
        f"{task}/{name}": (zero.dtype, tuple(zero.shape))
        for task, metric in metrics.items()
        for name, zero in _states(metric).items()
    }
    # twice the bytes of its tensors are room enough for names and facts
    most = 2 * sum(zero.nbytes for metric in metrics.values() for zero in _states(metric).values()) + 2**20
    try:
        saved = open_state(folder / TOTALS, most)
        if saved.facts != {"step": step} or any(shapes.get(name) != kind for name, kind in saved.shapes.items()):
            return {}
        tensors = saved.tensors()
    except BundleError:  # it is only what the page shows; the next best step writes it anew
        return {}
    found = {}
    for task, metric in metrics.items():
        states = {name: tensors.get(f"{task}/{name}") for name in _states(metric)}
        if all(isinstance(state, Tensor) for state in states.values()):
            for name, state in states.items():
                setattr(metric, name, state)
            if details := metric.details():
                found[task] = details
    return found


def _states(metric: Totals) -> dict[str, Tensor]:
    return {name: state for name, state in metric.metric_state.items() if isinstance(state, Tensor)}
