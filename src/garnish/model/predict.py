"""Prediction: run a model on one picture and decode its outputs.

Shape letters: H W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from garnish.checking.finite import all_finite, is_finite, not_finite, odd_rows, why_odd
from garnish.decodings.prediction import Prediction
from garnish.errors import GarnishError
from garnish.model.decoders import Decoder
from garnish.model.evaluation_mode import evaluating
from garnish.model.given_picture import Picture, picture_pixels, picture_values
from garnish.model.input_size import SizeRule, input_size, resized_outputs, resized_pictures
from garnish.model.model import Model
from garnish.model.served import Served
from garnish.pictures.given_picture import in_colour
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
    model: Model, picture: Picture, tasks: Sequence[str] | None = None, *, size: SizeRule = None
) -> Prediction[Tensor, Task]:
    """Run a model on one picture; call it once for each picture. Maps have the picture's own size.

    Args:
        model: the model.
        picture: see :data:`garnish.model.given_picture.Picture`.
        tasks: names; None: all.
        size: at which the model sees it: (height, width); "train": as training scaled pictures, aspect kept and nothing
            cropped (its own size where the model's bundle does not say); "own" or None: its own. Raw outputs are
            brought back to the picture's own size before they are decoded.

    Raises:
        DataError: a picture that cannot be read, or becomes too large. OptionError: an unknown task, or "train" for
            tasks that were trained at different sizes.
        GarnishError: an output that is not finite, which decoding would turn into a map of some class; or a tensor of
            the model that is not, since attention on a CPU can still give finite outputs then.
    """
    name = Path(picture).stem if isinstance(picture, str | Path) else "picture"
    which = picture if isinstance(picture, str | Path) else name
    served = model.served  # read once: other threads may add and remove tasks meanwhile
    bands = served.bands_of(task for task in served.tasks if tasks is None or task in tasks)
    values = None if bands.is_rgb else picture_values(picture, bands, str(which))
    pixels = picture_pixels(picture) if values is None else in_colour(values, bands)
    parts = served.parts(served.tasks if tasks is None else tasks)
    modules = [part.module if isinstance(part, Decoder) else part for part in parts]
    known = all(map(is_finite, model.buffers(recurse=False)))  # mean and std of the input
    known = known and all(map(all_finite, (model.backbone.body, *modules)))
    held = "" if known else not_finite(acting(model, tasks, served))
    if held:
        raise GarnishError(f"{which}: the model's {held}; train it again, or take a model that was saved before")
    given = torch.from_numpy(pixels.copy()).permute(2, 0, 1) if values is None else torch.from_numpy(values.copy())
    images = given[None].to(model.device)
    own = (pixels.shape[0], pixels.shape[1])
    seen = input_size(size, served, tasks).of(own, f"{which}: size: train")
    with evaluating(model), torch.inference_mode():
        raw = model(resized_pictures(images, seen), tasks, served=served)
        for task in odd_rows(raw):
            raise GarnishError(f"{which}: the output of task {task!r} is not finite, {why_odd(model.all_tensors())}")
        maps = {t: served.tasks[t].decode(resized_outputs(out, own).float())[0].cpu() for t, out in raw.items()}
    return Prediction(pixels, maps, dict(served.tasks), name)
