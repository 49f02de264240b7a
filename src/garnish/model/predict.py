"""Prediction: run a model on one picture and decode its outputs.

Shape letters: n pictures, C channels of a raw output, H W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from garnish.checking.finite import all_finite, is_finite, not_finite, odd_rows, why_odd
from garnish.decodings.prediction import Prediction
from garnish.errors import GarnishError
from garnish.model.decoders import Decoder
from garnish.model.evaluation_mode import evaluating
from garnish.model.given_picture import Picture, picture_pixels
from garnish.model.model import Model
from garnish.model.served import Served
from garnish.tasks.task import Task


def acting(model: Model, tasks: Sequence[str] | None, served: Served | None = None) -> dict[str, Tensor]:
    """:meth:`Model.all_tensors` without the heads and adapters that only other tasks use.

    Args:
        model: the model.
        tasks: names; unknown ones are ignored; None: all.
        served: as for :meth:`garnish.model.model.Model.forward`.
    """
    served = served or model.served
    found = model.backbone.frozen_tensors() | dict(model.named_buffers(recurse=False))
    for part in served.parts(served.tasks if tasks is None else tasks):
        found.update(part.tensors())
    return found


def predict(
    model: Model, picture: Picture, tasks: Sequence[str] | None = None, *, probabilities: bool = False
) -> Prediction[Tensor, Task]:
    """Run a model on one picture at its own size; :func:`garnish.model.predict_many.predict_many` takes several.

    Args:
        model: the model.
        picture: a file, a PIL image, a (3, H, W) uint8 tensor, or a numpy (H, W, 3) or grey (H, W) uint8.
        tasks: names; None: all.
        probabilities: keep those of classes, for :meth:`Prediction.probabilities`: a float32 a class and pixel.

    Raises:
        DataError: a picture that cannot be read. OptionError: an unknown task.
        GarnishError: an output that is not finite, which decoding would turn into a map of some class; or a tensor of
            the model that is not, since attention on a CPU can still give finite outputs then.
    """
    pixels = picture_pixels(picture)
    name = Path(picture).stem if isinstance(picture, str | Path) else "picture"
    which = picture if isinstance(picture, str | Path) else name
    served = model.served  # read once: other threads may add and remove tasks meanwhile
    check_numbers(model, tasks, served, str(which))
    raw = raw_outputs(model, pixels[None], tasks, served)
    source = Path(picture) if isinstance(picture, str | Path) else None
    return made_of(model, pixels, raw, 0, served, name, str(which), source, probabilities=probabilities)


def check_numbers(model: Model, tasks: Sequence[str] | None, served: Served, which: str) -> None:
    """Raise GarnishError where a tensor of the model is not finite, since attention can give finite outputs even then.

    Args:
        model: the model.
        tasks: those that are predicted; None: all.
        served: as for :meth:`garnish.model.model.Model.forward`.
        which: picture, for the message.
    """
    parts = served.parts(served.tasks if tasks is None else tasks)
    modules = [part.module if isinstance(part, Decoder) else part for part in parts]
    known = all(map(is_finite, model.buffers(recurse=False)))  # mean and std of the input
    known = known and all(map(all_finite, (model.backbone.body, *modules)))
    held = "" if known else not_finite(acting(model, tasks, served))
    if held:
        raise GarnishError(f"{which}: the model's {held}; train it again, or take a model that was saved before")


def raw_outputs(model: Model, pictures: np.ndarray, tasks: Sequence[str] | None, served: Served) -> dict[str, Tensor]:
    """Raw outputs of (n, H, W, 3) uint8 pictures: task → (n, C, H, W)."""
    images = torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).to(model.device)
    with evaluating(model), torch.inference_mode():
        found: dict[str, Tensor] = model(images, tasks, served=served)
    return found


def made_of(
    model: Model,
    pixels: np.ndarray,
    raw: Mapping[str, Tensor],
    row: int,
    served: Served,
    name: str,
    which: str,
    source: Path | None,
    *,
    probabilities: bool,
) -> Prediction[Tensor, Task]:
    """The prediction of one row of raw outputs (n, C, H, W); raises GarnishError for one that is not finite."""
    own = {task: out[row : row + 1] for task, out in raw.items()}
    for task in odd_rows(own):
        raise GarnishError(f"{which}: the output of task {task!r} is not finite, {why_odd(model.all_tensors())}")
    kept: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        maps = {task: served.tasks[task].decode(out.float())[0].cpu() for task, out in own.items()}
        for task, out in own.items() if probabilities else ():
            decoding = served.tasks[task].decoding
            if decoding is not None and decoding.are_shares:
                kept[task] = decoding.values(out[0].float().cpu().numpy())
    return Prediction(pixels, maps, dict(served.tasks), name, kept, source)
