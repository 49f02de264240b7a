"""Prediction: run a model on one picture and decode its outputs.

Shape letters: H W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from garnish.checking.finite import all_finite, is_finite, not_finite, odd_rows, why_odd
from garnish.decodings.prediction import Prediction
from garnish.engine.shared_passes import Wanted
from garnish.errors import GarnishError
from garnish.model.decoders import Decoder
from garnish.model.evaluation_mode import evaluating
from garnish.model.given_picture import Picture, picture_pixels, picture_values
from garnish.model.input_size import SizeRule, input_size, resized_outputs, resized_pictures
from garnish.model.model import Model
from garnish.model.served import Served
from garnish.model.windowed import Look, decodings_of, window_runner, windowed_maps, windowed_outputs
from garnish.pictures.given_picture import in_colour
from garnish.tasks.task import Task
from garnish.tiles.passes import planes_reader
from garnish.tiles.tiling import Overlap, Tile, Tiling


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
    model: Model,
    picture: Picture,
    tasks: Sequence[str] | None = None,
    *,
    size: SizeRule = None,
    tile: Tile | None = "auto",
    overlap: Overlap | None = None,
    flip: bool = False,
) -> Prediction[Tensor, Task]:
    """Run a model on one picture; call it once for each picture. Maps have the picture's own size.

    Args:
        model: the model.
        picture: see :data:`garnish.model.given_picture.Picture`.
        tasks: names; None: all.
        size: at which the model sees it: (height, width); "train": as training scaled pictures, aspect kept and nothing
            cropped (its own size where the model's bundle does not say); "own" or None: its own. Raw outputs are
            brought back to the picture's own size before they are decoded.
        tile: side of overlapping windows that it is run in; "auto": 1024 for pictures of more than 2048·2048 pixels;
            None: always one pass.
        overlap: pixels that windows share; None: 3/32 of a window, in whole strides of the trunk.
        flip: average with a pass of the mirrored picture.

    Raises:
        DataError: a picture that cannot be read, or becomes too large. OptionError: an unknown task, or "train" for
            tasks that were trained at different sizes; windows or a mirrored pass of a task that has no decoding; an
            overlap as wide as the windows.
        GarnishError: an output that is not finite, which decoding would turn into a map of some class; or a tensor of
            the model that is not, since attention on a CPU can still give finite outputs then.
    """
    tiling = Tiling(tile=tile, overlap=overlap, flip=flip)
    name = Path(picture).stem if isinstance(picture, str | Path) else "picture"
    which = str(picture) if isinstance(picture, str | Path) else name
    served = model.served  # read once: other threads may add and remove tasks meanwhile
    bands = served.bands_of(task for task in served.tasks if tasks is None or task in tasks)
    values = None if bands.is_rgb else picture_values(picture, bands, which)
    pixels = picture_pixels(picture) if values is None else in_colour(values, bands)
    check_finite(model, tasks, served, which)
    own = (pixels.shape[0], pixels.shape[1])
    seen = input_size(size, served, tasks).of(own, f"{which}: size: train")
    plan, look = tiling.plan(seen, model.backbone.multiple), looking(model, which)
    with evaluating(model), torch.inference_mode():
        if seen == own and (plan.count > 1 or flip):
            decodings = decodings_of({name: served.tasks[name] for name in Wanted.of(tasks, 1, served.tasks).tasks})
            run = window_runner(model, tuple(decodings), served, look)
            planes = pixels.transpose(2, 0, 1) if values is None else values
            found = windowed_maps(plan, planes_reader(planes), run, decodings, flip=flip)
            return Prediction(pixels, {t: torch.from_numpy(m) for t, m in found.items()}, dict(served.tasks), name)
        given = torch.from_numpy(pixels.copy()).permute(2, 0, 1) if values is None else torch.from_numpy(values.copy())
        images = resized_pictures(given[None].to(model.device), seen)
        if plan.count > 1 or flip:
            raw = windowed_outputs(model, images, [Wanted.of(tasks, 1, served.tasks).tasks], tiling, served)
        else:
            raw = model(images, tasks, served=served)
        look(raw)
        maps = {t: served.tasks[t].decode(resized_outputs(out, own).float())[0].cpu() for t, out in raw.items()}
    return Prediction(pixels, maps, dict(served.tasks), name)


def check_finite(model: Model, tasks: Sequence[str] | None, served: Served, which: str) -> None:
    """Raise GarnishError, naming ``which`` picture, where a tensor that some tasks use is not finite.

    Raises:
        OptionError: an unknown task.
    """
    parts = served.parts(served.tasks if tasks is None else tasks)
    modules = [part.module if isinstance(part, Decoder) else part for part in parts]
    known = all(map(is_finite, model.buffers(recurse=False)))  # mean and std of the input
    known = known and all(map(all_finite, (model.backbone.body, *modules)))
    held = "" if known else not_finite(acting(model, tasks, served))
    if held:
        raise GarnishError(f"{which}: the model's {held}; train it again, or take a model that was saved before")


def looking(model: Model, which: str) -> Look:
    """What raises GarnishError for an output that is not finite, naming ``which`` picture."""

    def look(raw: Mapping[str, Tensor]) -> None:
        for task in odd_rows(raw):
            raise GarnishError(f"{which}: the output of task {task!r} is not finite, {why_odd(model.all_tensors())}")

    return look
