"""A model over the windows of a picture: what :mod:`garnish.tiles` runs, and what it needs to know.

Shape letters: I pictures, C bands or channels of an output, H W pixels of the picture, h w of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from garnish.decodings.decoding import Decoding
from garnish.errors import OptionError
from garnish.model.model import Model
from garnish.model.served import Served
from garnish.tasks.task import Task
from garnish.tiles.blending import FinishedMaps, FinishedRaws, Finishing
from garnish.tiles.passes import Reader, Runner, WholeMaps, planes_reader, run_windows
from garnish.tiles.plan import TilePlan
from garnish.tiles.tiling import Tiling

#: Looks at the raw outputs of a window before they are decoded, and raises where they are not finite.
Look = Callable[[Mapping[str, Tensor]], None]


def window_runner(model: Model, tasks: Sequence[str], served: Served, look: Look) -> Runner:
    """What runs one window (C, h, w) in one pass for all tasks; call it in evaluation and inference mode."""

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        raw = model(torch.from_numpy(pixels)[None].to(model.device), list(tasks), served=served)
        look(raw)
        return {task: raw.pop(task)[0].float().cpu().numpy() for task in list(raw)}

    return run


def decodings_of(tasks: Mapping[str, Task]) -> dict[str, Decoding]:
    """What the outputs of tasks mean, which windows and mirrored passes are averaged by.

    Raises:
        OptionError: a task that decodes its outputs by itself, so that nothing says what a mean of them is.
    """
    found = {}
    for name, task in tasks.items():
        if task.decoding is None:
            raise OptionError(
                f"tile: task {name!r} ({type(task).__name__}) has no decoding, so nothing says how its outputs are"
                " averaged; predict it whole (tile=None, --tile none, without flip), or name other tasks"
            )
        found[name] = task.decoding
    return found


def windowed_maps(
    plan: TilePlan, read: Reader, run: Runner, decodings: Mapping[str, Decoding], *, flip: bool
) -> dict[str, np.ndarray]:
    """The decoded map of each task, whole."""
    return _windowed(plan, read, run, {task: (by, FinishedMaps(by)) for task, by in decodings.items()}, flip)


def windowed_raws(
    plan: TilePlan, read: Reader, run: Runner, decodings: Mapping[str, Decoding], *, flip: bool
) -> dict[str, np.ndarray]:
    """A raw output (C, H, W) float32 of each task, whole, that has the mean values of all windows."""
    return _windowed(plan, read, run, {task: (by, FinishedRaws(by)) for task, by in decodings.items()}, flip)


def _windowed(
    plan: TilePlan, read: Reader, run: Runner, tasks: Mapping[str, tuple[Decoding, Finishing]], flip: bool
) -> dict[str, np.ndarray]:
    found = WholeMaps(plan.size[0])
    run_windows(plan, read, run, tasks, found, flip=flip)
    return found.maps


def windowed_outputs(
    model: Model, images: Tensor, wanted: Sequence[Sequence[str]], tiling: Tiling, served: Served | None = None
) -> dict[str, Tensor]:
    """Raw outputs as :meth:`Model.forward` gives them, of pictures that are run in windows; for metrics.

    Args:
        model: in evaluation mode, in inference mode.
        images: (I, C, H, W).
        wanted: the tasks of each picture.
        tiling: how they are run.
        served: as for :meth:`Model.forward`.

    Returns:
        Task → (n, C, H, W) float32 for the n pictures that asked for it. What is not finite stays so.
    """
    served = served or model.served
    decodings = decodings_of({task: served.tasks[task] for task in dict.fromkeys(t for row in wanted for t in row)})
    found: dict[str, list[Tensor]] = {}
    plan = tiling.plan((images.shape[-2], images.shape[-1]), model.backbone.multiple)
    for image, names in zip(images.cpu().numpy(), wanted, strict=True):
        if not names:
            continue
        run = window_runner(model, names, served, lambda raw: None)
        by = {task: decodings[task] for task in names}
        with np.errstate(invalid="ignore"):  # the caller looks for what is not finite
            raws = windowed_raws(plan, planes_reader(image), run, by, flip=tiling.flip)
        for task, raw in raws.items():
            found.setdefault(task, []).append(torch.from_numpy(raw))
    return {task: torch.stack(rows).to(model.device) for task, rows in found.items()}
