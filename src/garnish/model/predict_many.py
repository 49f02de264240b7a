"""Prediction of many pictures: read ahead, in passes of several where sizes allow, decoded beside the next pass.

Shape letters: n pictures, C channels of a raw output, H W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from garnish.decodings.prediction import Prediction
from garnish.model.given_picture import picture_pixels
from garnish.model.model import Model
from garnish.model.predict import check_numbers, made_of, raw_outputs
from garnish.predicting.overlapping import Failure, PictureWork, overlapped, without_failures
from garnish.predicting.picture_sources import PictureSource, picture_sources
from garnish.tasks.task import Task

#: Bytes of raw outputs (float32) of one pass, and the most pictures of one, where the caller does not say how many.
_PASS_BYTES, _PASS_PICTURES = 2**28, 8


def predict_many(
    model: Model,
    pictures: object,
    tasks: Sequence[str] | None = None,
    *,
    every: int = 1,
    batch: int | None = None,
    probabilities: bool = False,
    failures: list[Failure] | None = None,
) -> Iterator[Prediction[Tensor, Task]]:
    """Predict pictures one after the other, in their order; reading, passes and decoding overlap.

    Results are made a few ahead of who takes them, so what is done with each (writing, say) overlaps as well.

    Args:
        model: the model; its tasks are those of now, whatever is added and removed later.
        pictures: a file, a folder (all below it), a pattern (``"in/**/*.jpg"``), a video; what
            :meth:`Model.predict` takes; arrays or tensors of four axes; or an iterable of any of these. Eight pictures
            are read ahead at most, so a generator is asked for no more than that.
        tasks: names; None: all.
        every: of a video, each so-manieth frame.
        batch: neighbours of one size that go through a pass together. None: one by one on a CPU, where more are no
            faster; else up to 8, of outputs of at most 256 MiB. Numbers may differ in their last digits between sizes
            of passes.
        probabilities: as for :func:`garnish.model.predict.predict`.
        failures: gets the pictures that cannot be read, or have outputs that are not finite, and the iteration goes on;
            None: the first is raised.

    Raises:
        OptionError: an unknown task. DataError: pictures that cannot be read. GarnishError: tensors or outputs of the
            model that are not finite.
    """
    work = picture_work(model, tasks, batch=batch, probabilities=probabilities)
    return without_failures(overlapped(picture_sources(pictures, every=every), work, lambda made: made), failures)


def picture_work(
    model: Model, tasks: Sequence[str] | None, *, batch: int | None, probabilities: bool
) -> PictureWork[dict[str, Tensor], Prediction[Tensor, Task]]:
    """What a model does with pictures; see :func:`predict_many`."""
    served = model.served
    named = list(served.tasks) if tasks is None else list(tasks)
    for task in named:
        served.owner(task)  # an unknown one is refused before anything is read
    check_numbers(model, named, served, "predict_many")
    channels = sum(served.tasks[task].channels for task in named)

    def passes(shape: tuple[int, ...]) -> int:
        if batch is not None:
            return batch
        if model.device.type == "cpu":
            return 1
        return max(1, min(_PASS_PICTURES, _PASS_BYTES // (4 * channels * shape[0] * shape[1])))

    def finish(source: PictureSource, pixels: np.ndarray, raw: dict[str, Tensor], row: int) -> Prediction[Tensor, Task]:
        where, file = source.where, source.file
        return made_of(model, pixels, raw, row, served, source.name, where, file, probabilities=probabilities)

    return PictureWork(
        read=lambda source: source.pixels(picture_pixels),  # type: ignore[arg-type]
        run=lambda pictures: raw_outputs(model, np.stack(pictures), tasks, served),
        finish=finish,
        batch=passes,
    )
