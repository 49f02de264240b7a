"""The certificate of an export: the file is run against the model, on pictures and sizes that were not its example.

Shape letters: N pictures, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NotRequired, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from garnish.checking.finite import is_finite
from garnish.data.dataset import Dataset
from garnish.engine.trunk import Trunk
from garnish.errors import GarnishError, OptionError
from garnish.exporting.agreement import Agreement, TaskAgreement
from garnish.exporting.graph import least_side
from garnish.exporting.picture_input import without_data
from garnish.exporting.running import Runner
from garnish.heads.head import is_plain
from garnish.model.model import Model
from garnish.runtime.manifest import Precision
from garnish.training.evaluate import Metrics, outputs, shared_tasks

#: Largest difference of raw outputs, over the largest magnitude of the model's, up to which a float32 file is written.
LIMIT = 1e-4
#: The same of an fp16 file, for tasks without labels; eleven bits of a weight are 5e-4 of it.
LIMIT_HALF = 0.02
#: Precision → least share of equal labels.
EQUAL: Mapping[Precision, float] = {"fp32": 0.999, "fp16": 0.995}
#: Largest loss of mean IoU of an int8 file, where pictures with labels are given.
MOST_LOST = 0.005


class DataAgreement(TypedDict):
    """The user's pictures: how many, and the metrics of the model and of the exported file."""

    name: str
    pictures: int
    tasks: dict[str, TaskAgreement]
    before: Metrics
    after: Metrics


class Certificate(TypedDict):
    """How far an exported file is from the model, on which pictures."""

    sizes: list[list[int]]  # pictures, height, width
    tasks: dict[str, TaskAgreement]
    data: NotRequired[DataAgreement]


def sizes_to_try(trunk: Trunk) -> list[tuple[int, int, int]]:
    """(pictures, height, width): odd and even, one picture and three, and strips.

    Strips are both longer and shorter than what most position tables and windows are made for, and cost little.
    """
    least = least_side(trunk)
    sides = [(1, least, 50), (3, 97, 131), (1, 224, 160), (2, 64, 64), (3, 45, 111), (1, 320, 288), (1, 41, 801)]
    return [(n, max(h, least), max(w, least)) for n, h, w in (*sides, (1, 801, 41))]


def small_sizes(trunk: Trunk) -> list[tuple[int, int, int]]:
    """Sizes at which a side of some map is 1, which a graph was not traced for: each way in which that can be."""
    step = trunk.multiple
    sides = (1, step + 1, 3 * step) if is_plain(trunk.features) else (1, 3 * step)
    return [(1, h, w) for h in sides for w in sides if (h, w) != (sides[-1], sides[-1])]


def compared(
    model: Model, run: Runner, tasks: Sequence[str], sizes: Iterable[tuple[int, int, int]], dtype: torch.dtype
) -> Certificate:
    """Compare an exported file with the model on made pictures of some sizes.

    Args:
        model: of :func:`garnish.exporting.deployed.plain_copy`.
        run: the exported file.
        tasks: the tasks of its outputs, in their order.
        sizes: (N, H, W) each.
        dtype: of the pictures that it takes: uint8, uint16 or float32.
    """
    found = {task: Agreement(model.tasks[task]) for task in tasks}
    tried = []
    for seed, (count, height, width) in enumerate(sizes):
        images = pictures_for(model, tasks, (count, height, width), seed, dtype)
        with torch.inference_mode():
            want = model(images, tasks)
        got = _run(run, images)
        for task, out in zip(tasks, got, strict=True):
            if not is_finite(want[task]):
                raise GarnishError(
                    f"export: the model's own output of task {task!r} is not finite on made pictures of"
                    f" {width}x{height}; train it again"
                )
            found[task].add(want[task], out)
        tried.append([count, height, width])
    return {"sizes": tried, "tasks": {task: one.facts for task, one in found.items()}}


def holds_for(
    model: Model, run: Runner, tasks: Sequence[str], sizes: Iterable[tuple[int, int, int]], dtype: torch.dtype
) -> bool:
    """Whether a float32 file runs at these sizes and is within the limits there; see :func:`compared`."""
    try:
        return not list(beyond(compared(model, run, tasks, sizes, dtype), "fp32"))
    except GarnishError:  # it fails there
        return False


def compared_on(model: Model, run: Runner, tasks: Sequence[str], dataset: Dataset, dtype: torch.dtype) -> DataAgreement:
    """Compare them on labelled pictures, and measure both; see :func:`compared`."""
    if dtype != torch.float32 and not model.served.bands_of(tasks).is_rgb:
        raise OptionError(
            f"export: data: its pictures are values, and the graph takes {str(dtype).removeprefix('torch.')} as files"
            " hold them; use input float, or leave data out"
        )
    names = shared_tasks(model, dataset, [task for task in tasks if task in dataset.tasks] or None)
    found = {task: Agreement(model.tasks[task]) for task in names}
    before, after = ({task: model.tasks[task].metric() for task in names} for _ in range(2))
    with torch.inference_mode():
        for _, batch, want in outputs(model, dataset, range(len(dataset)), names, batch_size=1, size=None):
            images = batch.images if dtype == torch.float32 else (batch.images * 255).round().to(dtype)
            got = dict(zip(tasks, _run(run, images), strict=True))
            for task, out in want.items():
                other = got[task][batch.where[task]]
                found[task].add(out, other)
                before[task].update(out, batch.targets[task])
                after[task].update(other, batch.targets[task])
    measured = [
        {task: {name: float(value) for name, value in metric.compute().items()} for task, metric in metrics.items()}
        for metrics in (before, after)
    ]
    return {
        "name": dataset.name,
        "pictures": len(dataset),
        "tasks": {task: one.facts for task, one in found.items()},
        "before": measured[0],
        "after": measured[1],
    }


def beyond(certificate: Certificate, precision: Precision) -> Iterator[str]:
    """What exceeds a limit, one line each; nothing: the file may be written."""
    parts = [certificate["tasks"], *([certificate["data"]["tasks"]] if "data" in certificate else [])]
    for task, facts in (pair for part in parts for pair in part.items()):
        if not math.isfinite(facts["relative"]):
            yield f"the outputs of {task!r} are not finite, or not of the model's size"
        elif precision == "fp32" and facts["relative"] > LIMIT:
            yield f"{task!r} differs by {facts['relative']:.2g} of its largest value, more than {LIMIT:.0e}"
        elif precision == "fp16" and facts["equal_labels"] is None and facts["relative"] > LIMIT_HALF:
            yield f"{task!r} differs by {facts['relative']:.2g} of its largest value, more than {LIMIT_HALF:g}"
        equal, least = facts["equal_labels"], EQUAL.get(precision, 0.0)
        if equal is not None and equal < least:
            yield f"{task!r} has {equal:.3%} equal labels, fewer than {least:.1%}"
    if precision == "int8" and "data" in certificate:
        before, after = certificate["data"]["before"], certificate["data"]["after"]
        for task, metrics in before.items():
            lost = metrics.get("miou", math.nan) - after[task].get("miou", math.nan)
            if lost > MOST_LOST:
                yield f"{task!r} loses {100 * lost:.2f} points of mean IoU, more than {100 * MOST_LOST:g}"


def pictures_for(
    model: Model, tasks: Sequence[str], size: tuple[int, int, int], seed: int, dtype: torch.dtype
) -> Tensor:
    """(N, C, H, W) of ``size`` (N, H, W): :func:`pictures` of the bands that some tasks take."""
    bands = model.served.bands_of(tasks)
    return without_data(pictures(*size, seed, dtype, channels=len(bands.names)), bands)


def pictures(count: int, height: int, width: int, seed: int, dtype: torch.dtype, *, channels: int = 3) -> Tensor:
    """(N, C, H, W) made pictures with structure at several scales, uint8 or uint16, or float32 in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    scales = [torch.rand(count, channels, cells, cells, generator=generator) for cells in (3, 12, 48)]
    coarse = [F.interpolate(s, size=(height, width), mode="bilinear", align_corners=False) for s in scales]
    found = (torch.stack(coarse).sum(0) + torch.rand(count, channels, height, width, generator=generator)) / 4
    return found if dtype == torch.float32 else (found * torch.iinfo(dtype).max).round().to(dtype)


def _run(run: Runner, images: Tensor) -> tuple[Tensor, ...]:
    try:
        return run(images)
    except Exception as error:  # onnxruntime and a program's guards raise errors of their own
        size = "x".join(map(str, images.shape))
        raise GarnishError(
            f"export: the exported file fails on pictures of {size} ({error}); nothing was written"
        ) from error
