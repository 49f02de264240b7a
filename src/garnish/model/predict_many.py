"""Prediction of many pictures: read ahead, in passes of several where sizes allow, decoded beside the next pass.

Shape letters: n pictures, C channels of a raw output, H W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from garnish.checking.arguments import checked
from garnish.decodings.prediction import Prediction
from garnish.model.input_size import SizeRule
from garnish.model.model import Model
from garnish.model.predict import Outcome, asked_of, check_finite
from garnish.predicting.overlapping import Every, Failure, PassSize, PictureWork, overlapped, without_failures
from garnish.predicting.picture_sources import picture_sources
from garnish.tasks.task import Task
from garnish.tiles.tiling import Overlap, Tile, Tiling

#: Bytes of raw outputs (float32) of one pass, and the most pictures of one, where the caller does not say how many.
_PASS_BYTES, _PASS_PICTURES = 2**28, 8


@checked
def predict_many(
    model: Model,
    pictures: object,
    tasks: Sequence[str] | None = None,
    *,
    every: Every = 1,
    batch: PassSize | None = None,
    probabilities: bool = False,
    tile: Tile | None = "auto",
    overlap: Overlap | None = None,
    flip: bool = False,
    size: SizeRule = None,
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
        tile: likewise.
        overlap: likewise.
        flip: likewise.
        size: likewise.
        failures: gets the pictures that cannot be read, or have outputs that are not finite, and the iteration goes on;
            None: the first is raised.

    Raises:
        OptionError: an unknown task. DataError: pictures that cannot be read. GarnishError: tensors or outputs of the
            model that are not finite.
    """
    tiling = Tiling(tile=tile, overlap=overlap, flip=flip)
    work = picture_work(model, tasks, batch=batch, probabilities=probabilities, tiling=tiling, size=size)
    return without_failures(overlapped(picture_sources(pictures, every=every), work, lambda made: made), failures)


def picture_work(
    model: Model,
    tasks: Sequence[str] | None,
    *,
    batch: int | None,
    probabilities: bool,
    tiling: Tiling,
    size: SizeRule = None,
) -> PictureWork[Outcome, Prediction[Tensor, Task]]:
    """What a model does with pictures; see :func:`predict_many`."""
    served = model.served
    named = list(served.tasks) if tasks is None else list(tasks)
    for task in named:
        served.owner(task)  # an unknown one is refused before anything is read
    check_finite(model, named, served, "predict_many")
    asked = asked_of(model, tasks, tiling, size, probabilities=probabilities)
    channels = sum(served.tasks[task].channels for task in named)

    def passes(shape: tuple[int, ...]) -> int:
        if batch is not None:
            return batch
        if model.device.type == "cpu":
            return 1
        return max(1, min(_PASS_PICTURES, _PASS_BYTES // (4 * channels * shape[1] * shape[2])))

    return PictureWork(
        read=lambda source: asked.read(source.picture(), source.where, source.file),  # type: ignore[arg-type]
        run=lambda sources, pictures: asked.run(pictures, [source.where for source in sources]),
        finish=lambda source, picture, outcome: asked.finish(picture, outcome, source.name, source.where, source.file),
        batch=passes,
    )
