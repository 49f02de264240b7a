"""What is asked of a graph about pictures: how they are run, decoded and kept.

Shape letters: C channels of a raw output, H W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from garnish.decodings.decoding import Decoding
from garnish.decodings.prediction import Prediction
from garnish.errors import DataError, GarnishError
from garnish.files.given_pictures import PlainPicture, pixels_of
from garnish.output import logger
from garnish.pictures.bands import Bands
from garnish.pictures.given_picture import empty_pixels, in_colour, stored_numbers
from garnish.predicting.ground import ground_of
from garnish.predicting.overlapping import PictureWork, TakenPicture
from garnish.tiles.blending import FinishedMaps, FinishedRaws
from garnish.tiles.passes import Runner, WholeMaps, planes_reader, run_windows
from garnish.tiles.tiling import Tiling

_log = logger(__name__)


@final
class GraphOutcome(NamedTuple):
    """What runs gave of a picture.

    Attributes:
        raws: task → raw output (C, H, W) float32, finite.
        maps: task → decoded map, where raw outputs were not kept.
    """

    raws: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]


@final
@dataclass(frozen=True)
class AskedGraph:
    """What is asked.

    Attributes:
        bands: of the pictures.
        kind: dtype of the numbers that the graph takes.
        runner: which picture, for messages → what runs a window of it.
        decodings: of the tasks that are predicted.
        known: of all tasks of the bundle.
        tiling: how pictures are run.
        step: stride of windows' places, in pixels.
        probabilities: whether those of classes are kept.
    """

    bands: Bands
    kind: str
    runner: Callable[[str], Runner]
    decodings: Mapping[str, Decoding]
    known: Mapping[str, Decoding]
    tiling: Tiling
    step: int
    probabilities: bool

    def read(self, picture: PlainPicture, which: str, file: Path | None) -> TakenPicture:
        """A picture as people and the graph see it; raises DataError if it cannot be read."""
        if self.bands.is_rgb:
            pixels = pixels_of(picture)
            return TakenPicture(pixels, pixels.transpose(2, 0, 1), ground_of(file))
        stored, bands = stored_numbers(picture, self.bands, which)
        values = bands.values(stored, which)
        if self.kind != "float32" and stored.dtype != np.dtype(self.kind):
            raise DataError(
                f"{which}: holds {stored.dtype}, and this graph takes {self.kind}; export it with --input float"
            )
        if self.kind != "float32" and bands != self.bands:
            raise DataError(
                f"{which}: says that {bands.nodata:g} is no data, which this graph does not know; export it with"
                " --input float"
            )
        given = values if self.kind == "float32" else stored.transpose(2, 0, 1)
        return TakenPicture(in_colour(values, self.bands), given, ground_of(file), empty_pixels(values))

    def run(self, picture: TakenPicture, which: str) -> GraphOutcome | GarnishError:
        """What runs give of a picture, or why there is nothing."""
        size = (picture.given.shape[1], picture.given.shape[2])
        plan, run, flip = self.tiling.plan(size, self.step), self.runner(which), self.tiling.flip
        try:
            if plan.count == 1 and not flip:
                return GraphOutcome(run(np.ascontiguousarray(picture.given)), {})
            if plan.count > 1:
                _log.info("%s: %s", which, plan)
            kind = FinishedRaws if self.probabilities else FinishedMaps
            whole = WholeMaps(plan.size[0])
            tasks = {task: (decoding, kind(decoding)) for task, decoding in self.decodings.items()}
            run_windows(plan, planes_reader(picture.given), run, tasks, whole, flip=flip)
            return GraphOutcome(whole.maps, {}) if self.probabilities else GraphOutcome({}, whole.maps)
        except GarnishError as error:
            return error

    def finish(
        self, picture: TakenPicture, outcome: GraphOutcome | GarnishError, name: str, file: Path | None
    ) -> Prediction[np.ndarray, Decoding]:
        """The prediction of a picture; raises why there is none."""
        if isinstance(outcome, GarnishError):
            raise outcome
        maps = outcome.maps or {task: self.decodings[task].decode(raw) for task, raw in outcome.raws.items()}
        maps = {task: self.decodings[task].blanked(decoded, picture.empty) for task, decoded in maps.items()}
        kept = {}
        if self.probabilities:
            having = {task: by for task, by in self.decodings.items() if by.are_shares}
            kept = {task: by.values(outcome.raws[task]) for task, by in having.items()}
        return Prediction(picture.shown, maps, dict(self.known), name, kept, file, picture.place)

    def work(self) -> PictureWork[GraphOutcome | GarnishError, Prediction[np.ndarray, Decoding]]:
        """The same for many pictures, one in a run: on a CPU more are no faster."""
        return PictureWork(
            read=lambda source: self.read(source.picture(), source.where, source.file),  # type: ignore[arg-type]
            run=lambda sources, pictures: [self.run(pictures[0], sources[0].where)],
            finish=lambda source, picture, outcome: self.finish(picture, outcome, source.name, source.file),
            batch=lambda shape: 1,
        )
