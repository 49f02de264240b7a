"""Prediction: run a model on one picture and decode its outputs.

Shape letters: C bands or channels of an output, H W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from garnish.checking.finite import all_finite, is_finite, not_finite, odd_rows, why_odd
from garnish.decodings.prediction import Prediction
from garnish.engine.shared_passes import Wanted
from garnish.errors import GarnishError
from garnish.model.decoders import Decoder
from garnish.model.evaluation_mode import evaluating
from garnish.model.given_picture import Picture, picture_pixels, picture_values
from garnish.model.input_size import InputSize, SizeRule, input_size, resized_outputs, resized_pictures
from garnish.model.model import Model
from garnish.model.served import Served
from garnish.model.windowed import Look, decodings_of, window_runner, windowed_maps, windowed_raws
from garnish.output import logger
from garnish.pictures.bands import Bands
from garnish.pictures.given_picture import empty_pixels, in_colour
from garnish.pictures.odd_scale import odd_scale
from garnish.predicting.ground import ground_of
from garnish.predicting.overlapping import TakenPicture
from garnish.tasks.task import Task
from garnish.tiles.passes import planes_reader
from garnish.tiles.tiling import Overlap, Tile, Tiling

_log = logger(__name__)


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
    probabilities: bool = False,
) -> Prediction[Tensor, Task]:
    """Run a model on one picture, whose size maps have; :func:`garnish.model.predict_many.predict_many` takes several.

    Args:
        model: the model.
        picture: a file, a PIL image, an array or a tensor.
        tasks: names; None: all.
        tile: side of overlapping windows that it is run in; "auto": 1024 for pictures of more than 2048·2048 pixels;
            None: always one pass.
        overlap: pixels that windows share; None: 3/32 of a window, in whole strides of the trunk.
        flip: average with a pass of the mirrored picture.
        probabilities: keep those of classes, for :meth:`Prediction.probabilities`: a float32 a class and pixel.
        size: at which the model sees it: (height, width); "train": as training scaled pictures, aspect kept and nothing
            cropped (its own size where the model's bundle does not say); "own" or None: its own. Raw outputs are
            brought back to the picture's own size before they are decoded. Windows are those of this size.

    Raises:
        DataError: a picture that cannot be read. OptionError: an unknown task; windows or a mirrored pass of a task
            that has no decoding; an overlap as wide as the windows.
        GarnishError: an output that is not finite, which decoding would turn into a map of some class; or a tensor of
            the model that is not, since attention on a CPU can still give finite outputs then.
    """
    tiling = Tiling(tile=tile, overlap=overlap, flip=flip)
    file = Path(picture) if isinstance(picture, str | Path) else None
    name = "picture" if file is None else file.stem
    which = name if file is None else str(picture)
    asked = asked_of(model, tasks, tiling, size, probabilities=probabilities)
    taken = asked.read(picture, which, file)
    check_finite(model, tasks, asked.served, which)
    return asked.finish(taken, asked.run([taken], [which])[0], name, which, file)


@final
class _WindowedMaps(NamedTuple):
    """What the windows of a picture gave: its decoded maps, and probabilities where those are kept."""

    maps: dict[str, Tensor]
    kept: dict[str, np.ndarray]


#: What a pass gave of a picture: task → raw output (1, C, H, W); or what windows gave; or why there is nothing.
Outcome = dict[str, Tensor] | _WindowedMaps | GarnishError


def _windowed_maps(decoded: Mapping[str, np.ndarray], kept: dict[str, np.ndarray]) -> _WindowedMaps:
    return _WindowedMaps({task: torch.from_numpy(array) for task, array in decoded.items()}, kept)


@final
@dataclass(frozen=True)
class Asked:
    """What is asked of a model about pictures.

    Attributes:
        model: the model.
        served: its tasks when it was asked; other threads may add and remove tasks meanwhile.
        tasks: names; None: all.
        bands: of their pictures.
        size: at which the model sees them.
        tiling: how pictures are run.
        probabilities: whether those of classes are kept.
    """

    model: Model
    served: Served
    tasks: Sequence[str] | None
    bands: Bands
    size: InputSize
    tiling: Tiling
    probabilities: bool

    def read(self, picture: Picture, which: str, file: Path | None) -> TakenPicture:
        """A picture as people and the model see it; ``file`` says where it lies on the ground.

        Raises:
            DataError: it cannot be read.
        """
        if self.bands.is_rgb:
            pixels = picture_pixels(picture)
            return TakenPicture(pixels, pixels.transpose(2, 0, 1), ground_of(file))
        values, dtype = picture_values(picture, self.bands, which)
        tell_odd_scale(values, self.served, self.tasks, which, dtype)
        return TakenPicture(in_colour(values, self.bands), values, ground_of(file), empty_pixels(values), dtype)

    def run(self, pictures: Sequence[TakenPicture], which: Sequence[str]) -> list[Outcome]:
        """What one pass gives of each picture, all of one size; those that are run in windows take passes of their own.

        Args:
            pictures: what was read.
            which: each is, for messages.

        Returns:
            Of each: task → raw output (1, C, H, W); or its decoded maps and probabilities; or why it has none.
        """
        try:
            seen = self._seen(pictures[0], which[0])
        except GarnishError as error:
            return [error for _ in pictures]
        if self._in_windows(seen):
            return [self._windowed(picture, seen, name) for picture, name in zip(pictures, which, strict=True)]
        images = torch.from_numpy(np.stack([picture.given for picture in pictures])).to(self.model.device)
        with evaluating(self.model), torch.inference_mode():
            raw = self.model(resized_pictures(images, seen), self.tasks, served=self.served)
        return [{task: out[row : row + 1] for task, out in raw.items()} for row in range(len(pictures))]

    def finish(
        self, picture: TakenPicture, outcome: Outcome, name: str, which: str, file: Path | None
    ) -> Prediction[Tensor, Task]:
        """The prediction of a picture.

        Args:
            picture: what was read.
            outcome: of :meth:`run`.
            name: of the prediction.
            which: picture, for messages.
            file: that it was read from.

        Raises:
            OptionError, GarnishError: as :func:`predict`.
        """
        if isinstance(outcome, GarnishError):
            raise outcome
        if isinstance(outcome, _WindowedMaps):
            maps, kept = outcome.maps, outcome.kept
        else:
            looking(self.model, which)(outcome)
            own = (picture.given.shape[1], picture.given.shape[2])
            with torch.inference_mode():
                raws = {task: resized_outputs(out, own).float() for task, out in outcome.items()}
                maps = {task: self.served.tasks[task].decode(raw)[0].cpu() for task, raw in raws.items()}
                asked = raws if self.probabilities else {}
                kept = self._kept({task: raw[0].cpu().numpy() for task, raw in asked.items()})
        maps = {task: self._blanked(task, decoded, picture.empty) for task, decoded in maps.items()}
        return Prediction(picture.shown, maps, dict(self.served.tasks), name, kept, file, picture.place)

    def _blanked(self, task: str, decoded: Tensor, empty: np.ndarray | None) -> Tensor:
        """A map with "nothing is known" where the picture has no data; as it is where no decoding says how."""
        by = self.served.tasks[task].decoding
        return decoded if empty is None or by is None else torch.from_numpy(by.blanked(decoded.numpy(), empty))

    def _seen(self, picture: TakenPicture, which: str) -> tuple[int, int]:
        return self.size.of((picture.given.shape[1], picture.given.shape[2]), f"{which}: size: train")

    def _in_windows(self, seen: tuple[int, int]) -> bool:
        return self.tiling.flip or self.tiling.plan(seen, self.model.backbone.multiple).count > 1

    def _windowed(self, picture: TakenPicture, seen: tuple[int, int], which: str) -> _WindowedMaps | GarnishError:
        """Maps of a picture of which the model sees windows, at the size (h, w) that it sees."""
        own = (picture.given.shape[1], picture.given.shape[2])
        given = picture.given
        if seen != own:
            given = resized_pictures(torch.from_numpy(np.ascontiguousarray(given))[None], seen)[0].numpy()
        read, flip = planes_reader(given), self.tiling.flip
        plan = self.tiling.plan(seen, self.model.backbone.multiple)
        if plan.count > 1:
            _log.info("%s: %s", which, plan)
        try:
            names = Wanted.of(self.tasks, 1, self.served.tasks).tasks
            decodings = decodings_of({name: self.served.tasks[name] for name in names})
            with evaluating(self.model), torch.inference_mode():
                run = window_runner(self.model, names, self.served, looking(self.model, which))
                if not self.probabilities and seen == own:
                    return _windowed_maps(windowed_maps(plan, read, run, decodings, flip=flip), {})
                raws = windowed_raws(plan, read, run, decodings, flip=flip)
                raws = {
                    task: resized_outputs(torch.from_numpy(raw)[None], own)[0].numpy() for task, raw in raws.items()
                }
        except GarnishError as error:
            return error
        kept = self._kept(raws) if self.probabilities else {}
        return _windowed_maps({task: decodings[task].decode(raw) for task, raw in raws.items()}, kept)

    def _kept(self, raws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The probabilities of raw outputs (C, H, W), of tasks that have such."""
        found = {task: self.served.tasks[task].decoding for task in raws}
        return {task: by.values(raws[task]) for task, by in found.items() if by is not None and by.are_shares}


def tell_odd_scale(
    values: np.ndarray, served: Served, tasks: Iterable[str] | None, which: str, dtype: np.dtype | None = None
) -> None:
    """Warn, once in a process, of a picture (C, H, W) whose numbers are on another scale than those of training.

    Args:
        values: as models take them.
        served: knows what was counted over the training pictures.
        tasks: that are asked for, of one kind of bands; None: all.
        which: picture, for messages.
        dtype: of its numbers as they are stored; None: it is not known.
    """
    for given in dict.fromkeys(served.owner_of[task].given for task in (served.tasks if tasks is None else tasks)):
        if line := odd_scale(values, given.bands, given.statistics, which, dtype):
            _log.warning(line)


def asked_of(
    model: Model, tasks: Sequence[str] | None, tiling: Tiling, size: SizeRule, *, probabilities: bool
) -> Asked:
    """What is asked of a model as it is now; raises OptionError for tasks of different bands, or trained sizes."""
    served = model.served
    bands = served.bands_of(task for task in served.tasks if tasks is None or task in tasks)
    return Asked(model, served, tasks, bands, input_size(size, served, tasks), tiling, probabilities)


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
