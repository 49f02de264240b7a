"""Evaluation: the metrics of a model on a set of pictures, accumulated batch by batch.

Shape letters: B pictures of a batch, H W pixels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from lightning.fabric import Fabric
from rich.progress import track
from torch import Tensor

from garnish.checking.arguments import checked
from garnish.checking.bounds import BatchSize, Count
from garnish.checking.finite import not_finite
from garnish.data.dataset import Batch, Dataset, Sample
from garnish.data.subset import chosen
from garnish.errors import DataError, GarnishError, OptionError, shown, suggest
from garnish.files.path_text import given_path
from garnish.model.evaluation_mode import evaluating
from garnish.model.input_size import InputSize, SizeRule, input_size
from garnish.model.model import Model
from garnish.model.predict import acting, tell_odd_scale
from garnish.model.windowed import decodings_of, windowed_outputs
from garnish.output import console, logger
from garnish.pictures.band_agreement import bands_differ
from garnish.tasks.agreement import difference, notes
from garnish.tasks.task import Task
from garnish.tiles.tiling import Overlap, Tile, Tiling
from garnish.training.feature_cache import CachedPictures, Resized
from garnish.training.odd_outputs import OddOutputs
from garnish.training.read_ahead import batches_by_size, read_ahead
from garnish.training.task_details import Evaluated, TaskDetails, gathered_details, write_details

_log = logger(__name__)

Metrics = dict[str, dict[str, float]]


@checked
def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    batch_size: BatchSize = 1,
    size: SizeRule = None,
    tasks: Sequence[str] | None = None,
    tile: Tile | None = None,
    overlap: Overlap | None = None,
    limit: Count | None = None,
    thresholds_on: Dataset | None = None,
    progress: bool = False,
    fabric: Fabric | None = None,
    out: str | Path | None = None,
) -> Metrics:
    """Every metric of every task that the pictures have labels for.

    Args:
        model: left unchanged, training mode included.
        dataset: labels may be partial: each task is measured on the pictures labelled for it.
        batch_size: pictures per batch; only pictures of equal size are batched.
        size: (height, width) that pictures and labels are resized to first; "train": as training scaled them, aspect
            kept and nothing cropped (their own size where the model's bundle does not say); "own" or None: their own.
        tasks: which tasks; None: all that the model and the data share.
        tile: run pictures in overlapping windows of this side, as ``predict`` does, "auto" as there; None: each whole.
        overlap: pixels that windows share; None: 3/32 of a window, in whole strides of the trunk.
        limit: largest number of pictures, evenly spaced over the set; None: all.
        thresholds_on: other pictures, usually the validation set, on which tasks with thresholds (saliency) choose
            them first; their metrics then include ``…_at_chosen_threshold``, next to those whose thresholds are
            chosen on the measured pictures themselves.
        progress: draw a progress bar on standard error.
        fabric: processes that share the work, each of which gets the metrics of all pictures; None: this one alone.
        out: folder for what the tasks tell beside their metrics (classes, confusion matrix, errors by distance, …) as
            CSV and pictures; made if it is missing, files of the same names are replaced. None: nothing is written.

    Returns:
        Task → metric → value (NaN where nothing was seen); the units are those of the task's ``metric``.

    Raises:
        OptionError: an unknown task, or ``thresholds_on`` without a task that has thresholds. DataError: no picture,
        no common task, labels of another kind, or class names or order unlike the model's (see
        :func:`garnish.match_classes`). GarnishError: a tensor of the model, or an output, that is not finite.
        BundleError: ``out`` cannot be written.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> metrics = gn.evaluate(model, gn.Scenes(1, size=32, tasks=("depth",)))
        >>> metrics["depth"]["rmse"] > 0
        True
    """
    names = shared_tasks(model, dataset, tasks)
    if not len(dataset):
        raise DataError(f"{dataset.name}: no pictures; check its folders and split")
    if held := not_finite(acting(model, names)):  # attention on a CPU may still give finite outputs
        raise GarnishError(f"evaluate: the model's {held}; train it again, or take a model that was saved before")
    for line in told_of(model, dataset, names, training=False):
        _log.warning(line)
    measured = dict(model.tasks)
    tiling = None if tile is None and overlap is None else Tiling(tile=tile, overlap=overlap)
    if tiling is not None:
        decodings_of({name: measured[name] for name in names})
        if model.backbone.sees_all:
            _log.warning(
                f"{dataset.name}: a pixel of {model.backbone.name} may see all of what is run at once, in windows"
                " less than in whole pictures: metrics may differ, least where it was trained at the windows' size"
            )
    if thresholds_on is not None and not any(measured[n].thresholds for n in names):
        raise OptionError(f"evaluate: thresholds_on: none of {', '.join(names)} has thresholds to choose; leave it out")
    if thresholds_on is not None and (choosing := [n for n in names if measured[n].thresholds]):
        first = evaluate(
            model,
            thresholds_on,
            batch_size=batch_size,
            size=size,
            tasks=choosing,
            tile=tile,
            overlap=overlap,
            progress=progress,
            fabric=fabric,
        )
        measured |= {name: measured[name].with_thresholds(first[name]) for name in choosing}
    found = evaluate_parts(
        model,
        dataset,
        [chosen(len(dataset), limit)],
        batch_size=batch_size,
        size=input_size(size, model.served, names),
        tasks={name: measured[name] for name in names},
        tiling=tiling,
        progress=progress,
        fabric=fabric,
        detailed=out is not None,
    )
    if out is not None and (fabric is None or fabric.is_global_zero):
        write_details(given_path(out, "out"), found.details.found)
    return found.metrics[0]


def evaluate_parts(  # noqa: D417 (other arguments: see evaluate)
    model: Model,
    dataset: Dataset,
    parts: Sequence[Sequence[int]],
    *,
    batch_size: int,
    size: tuple[int, int] | InputSize | None,
    tasks: Mapping[str, Task] | None = None,
    tiling: Tiling | None = None,
    progress: bool = False,
    fabric: Fabric | None = None,
    kept: CachedPictures | None = None,
    odd: OddOutputs | None = None,
    detailed: bool = False,
    after_each: Callable[[list[int], Batch, Mapping[str, Tensor]], bool] | None = None,
) -> Evaluated:
    """Metrics on the first part of the pictures, on the first two parts together, and so on, in one pass over them.

    Args:
        model: as for :func:`evaluate`, like all arguments that are not listed here.
        parts: indices of pictures, all different.
        tasks: the tasks to measure, known to both, with the options for measuring; None: all, with the model's options.
        kept: the same pictures at the same size, with their cached trunk features; None: read the pictures.
        odd: records tasks with outputs that are not finite, whose metrics are then all NaN; None: raise instead.
        detailed: gather what the tasks tell beside their metrics, in all processes.
        after_each: called after each batch with what :func:`outputs` yielded of it; False: this part ends here.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric is not None else (0, 1)
    tasks = tasks or {name: model.tasks[name] for name in shared_tasks(model, dataset)}
    metrics = {name: task.metric_with_details() if detailed else task.metric() for name, task in tasks.items()}
    for metric in metrics.values():
        metric.distributed_available_fn = lambda: world > 1
        metric.compute_with_cache = False  # a rank without pictures in a part must still exchange totals
        if model.device.type == "cuda":
            metric.to(model.device)
    found = []
    noted = odd or OddOutputs(model, fabric)
    with evaluating(model):
        for part in parts:
            with torch.inference_mode():
                for pictures, batch, out in outputs(
                    model,
                    dataset,
                    part[rank::world],
                    metrics,
                    batch_size=batch_size,
                    size=size,
                    tiling=tiling,
                    progress=progress and rank == 0,
                    kept=kept,
                    odd=noted if odd is not None or world > 1 else None,
                ):
                    for name, raw in out.items():
                        metrics[name].update(raw, batch.targets[name])
                    if after_each is not None and not after_each(pictures, batch, out):
                        break
            noted.exchange(list(tasks))
            if odd is None:
                noted.raise_first()
            with warnings.catch_warnings():
                # a rank or a set without labels of a task is not an error: its metrics are NaN
                warnings.filterwarnings("ignore", message=".*called before the ``update`` method.*")
                values = {name: {k: float(v) for k, v in m.compute().items()} for name, m in metrics.items()}
            found.append({n: dict.fromkeys(v, math.nan) if n in noted.tasks else v for n, v in values.items()})
    finite = {name: metric for name, metric in metrics.items() if name not in noted.tasks}
    return Evaluated(found, gathered_details(finite) if detailed else TaskDetails({}, {}))


def outputs(  # noqa: D417 (likewise)
    model: Model,
    dataset: Dataset,
    indices: Sequence[int],
    tasks: Container[str],
    *,
    batch_size: int,
    size: tuple[int, int] | InputSize | None,
    tiling: Tiling | None = None,
    progress: bool = False,
    kept: CachedPictures | None = None,
    odd: OddOutputs | None = None,
) -> Iterator[tuple[list[int], Batch, dict[str, Tensor]]]:
    """Outputs of the model with the labels, batch by batch.

    The caller sets the model's mode, and inference mode around the whole loop.

    Args:
        model: see :func:`evaluate`, like all arguments that are not listed here.
        indices: of the pictures to read.
        tasks: the tasks to run.
        kept: see :func:`evaluate_parts`.
        odd: records outputs that are not finite, which are then left out; None: raise instead.

    Raises:
        GarnishError: an output that is not finite, naming task and picture.

    Yields:
        The indices of a batch's pictures, which may be out of order if sizes differ; the batch on the model's device;
        and by task (K, C, H, W) float32, the raw output for the K pictures that have its labels.
    """
    read = Resized(dataset, size).sample if kept is None else kept.finder.find
    samples: Iterable[Sample] = read_ahead(partial(read, 0), indices)
    if kept is not None:
        samples = (kept.fill(0, index, s) for index, s in zip(indices, samples, strict=True))
    noted = odd or OddOutputs(model)
    if progress:
        shown = console(stderr=True)
        samples = track(samples, "evaluating", len(indices), console=shown, disable=not shown.is_terminal)
    for pictures, batch in batches_by_size(zip(indices, samples, strict=True), batch_size):
        wanted = [[t for t in row if t in tasks] for row in batch.tasks_of_rows()]
        if not dataset.bands.is_rgb:
            tell_odd_scale(batch.images[0].numpy(), model.served, wanted[0], batch.names[0])
        moved = batch.to(model.device)
        if tiling is None:
            out = {name: raw.float() for name, raw in model(moved.images, wanted, moved.start).items()}
        else:
            out = windowed_outputs(model, moved.images, wanted, tiling)
        out = noted.keep_finite(out, batch)
        if odd is None:
            noted.raise_first()
        yield pictures, moved, out


def shared_tasks(model: Model, dataset: Dataset, tasks: Sequence[str] | None = None) -> list[str]:
    """Names of the tasks that model and data share, in the model's order; only the requested ones if any are given.

    Raises:
        OptionError: a requested task that one of them lacks. DataError: no common task, other bands, labels of another
        kind, or other class names.
    """
    if tasks is not None and not tasks:
        raise OptionError("tasks is an empty list; name some, or leave it out for all")
    for name in tasks or ():
        for whose, known in (("the model", model.tasks), (dataset.name, dataset.tasks)):
            if name not in known:
                raise OptionError(f"{whose} has no task {shown(name)}{suggest(name, known)}")
    names = [name for name in model.tasks if name in dataset.tasks and (tasks is None or name in tasks)]
    if not names:
        raise DataError(
            f"{dataset.name}: labels are for {', '.join(dataset.tasks) or 'no task'}, the model's tasks are"
            f" {', '.join(model.tasks)}; give a task the same name in both"
        )
    for name in names:
        if differs := bands_differ(model.bands_of(name), dataset.bands, "the model", "the data"):
            raise DataError(f"{dataset.name}: task {name!r}: {differs}")
        if differs := difference(model.tasks[name], dataset.tasks[name]):
            raise DataError(f"{dataset.name}: task {name!r}: {differs}")
    return names


def told_of(model: Model, dataset: Dataset, names: Sequence[str], *, training: bool) -> list[str]:
    """Lines about accepted differences between a model's tasks and those of the data that a user should know of."""
    return [
        f"{dataset.name}: task {name!r}: {line}"
        for name in names
        for line in notes(model.tasks[name], dataset.tasks[name], training=training)
    ]
