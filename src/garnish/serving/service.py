"""``Service``: the bytes of a picture → its maps, as ``predict`` makes them; called by many threads at once.

Shape letters: C channels of a raw output, H W pixels of the picture.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, final

import numpy as np

from garnish.decodings.decoding import Decoding
from garnish.decodings.prediction import Prediction
from garnish.output import logger
from garnish.pictures.odd_scale import odd_scale
from garnish.predicting.overlapping import TakenPicture
from garnish.serving.asked import Answer, Asking, Ticket
from garnish.serving.batcher import Batcher
from garnish.serving.chosen import WithConfidence, has_confidence, parted
from garnish.serving.engine import Engine, Loaded, Row
from garnish.serving.given_bytes import NAME, picture_of
from garnish.serving.refusals import TooLarge
from garnish.serving.resolving import bundles_of, common_bands, tasks_by_bundle
from garnish.serving.waiting_rows import row_bytes
from garnish.serving.windows_ahead import WindowsAhead
from garnish.tiles.blending import FinishedMaps, Finishing
from garnish.tiles.passes import WholeMaps, planes_reader, run_windows
from garnish.tiles.plan import TilePlan
from garnish.tiles.tiling import Tile, Tiling

_log = logger(__name__)

#: Most bytes of one row's raw outputs, and of all maps of an answer.
_MOST_OUTPUTS, _MOST_MAPS = 2**31, 2**31
#: Windows of one picture that are queued beside those that a pass takes.
_AHEAD = 1


class UsableBundles(Protocol):
    """What the service needs of a store of bundles."""

    def names(self) -> tuple[str, ...]:
        """Of all bundles."""

    def using(self, names: Sequence[str]) -> AbstractContextManager[tuple[Loaded, ...]]:
        """These bundles in memory, for a ``with`` block; raises UnknownBundle, BundleError."""


@final
class Service:
    """One trunk, its bundles and its queue.

    Args:
        engine: says where windows begin.
        store: of the bundles.
        batcher: runs rows on the engine.
        megapixels: most million pixels of a picture.
        tile: side of the windows of large pictures; as ``predict`` takes it.
    """

    def __init__(
        self,
        engine: Engine,
        store: UsableBundles,
        batcher: Batcher,
        *,
        megapixels: float = 100.0,
        tile: Tile | None = "auto",
    ) -> None:
        self._engine, self._store, self._batcher = engine, store, batcher
        self.megapixels, self._tiling = megapixels, Tiling(tile=tile)

    def predict(self, data: bytes, asking: Asking, ticket: Ticket) -> Answer:
        """All maps that are asked of one picture, at its own size.

        Args:
            data: of a picture file.
            asking: which bundles and tasks.
            ticket: of the request; gets its timings.

        Raises:
            TooLarge: more pixels, or more of them in maps, than are taken. DataError: a picture that cannot be read.
            OptionError: a task that no bundle has, no bundle named where several are served, or bundles of different
                bands.
            UnknownBundle, BundleError: of the store. Busy: the queue is full, or the deadline passed.
            Abandoned: who asked has gone. GarnishError: an output that is not finite.
        """
        names = bundles_of(asking, self._store.names)
        with self._batcher.holding(ticket), self._store.using(names) as loaded:
            asked = tasks_by_bundle(asking, loaded)
            bands = common_bands([bundle for bundle, _ in asked])
            began = time.monotonic()
            picture = picture_of(data, bands, self.megapixels)
            for one in loaded:
                if line := odd_scale(picture.given, one.bands, one.statistics, f"{NAME} for {one.name}", picture.dtype):
                    _log.warning(line)
            ticket.timings["decode"] = (time.monotonic() - began) * 1000
            return self._answer(picture, asked, ticket, confidence=asking.confidence)

    def _answer(
        self,
        picture: TakenPicture,
        asked: tuple[tuple[Loaded, tuple[str, ...]], ...],
        ticket: Ticket,
        *,
        confidence: bool,
    ) -> Answer:
        size = (picture.given.shape[1], picture.given.shape[2])
        plan = self._tiling.plan(size, self._engine.step)
        decodings = {f"{one.name}/{task}": one.decodings[task] for one, tasks in asked for task in tasks}
        chosen = {key for key, by in decodings.items() if confidence and has_confidence(by)}
        finishing: dict[str, Finishing] = {
            key: WithConfidence(by) if key in chosen else FinishedMaps(by) for key, by in decodings.items()
        }
        _check_bytes(plan, decodings, finishing)
        found = WholeMaps(size[0])
        ahead = WindowsAhead(
            plan.windows,
            planes_reader(picture.given),
            lambda pixels: self._batcher.submit(Row(pixels, asked), ticket),
            lambda future: self._batcher.outcome(future, ticket),
            _AHEAD + self._batcher.batch,
        )
        try:
            tasks = {key: (by, finishing[key]) for key, by in decodings.items()}
            run_windows(plan, ahead.read, ahead.run, tasks, found)
        finally:
            ahead.close()
        maps, shares = found.maps, dict[tuple[str, str], np.ndarray]()
        predictions, kinds = {}, {}
        for one, names in asked:
            made = {}
            for task in names:
                decoded, by = maps.pop(key := f"{one.name}/{task}"), one.decodings[task]
                if key in chosen:
                    decoded, shares[one.name, task] = parted(decoded, picture.empty)
                made[task] = by.blanked(decoded, picture.empty)
            predictions[one.name] = Prediction(picture.shown, made, dict(one.decodings), place=picture.place)
            kinds[one.name] = {task: one.kinds[task] for task in names}
        return Answer(predictions, shares, kinds)


def _check_bytes(plan: TilePlan, decodings: Mapping[str, Decoding], finishing: Mapping[str, Finishing]) -> None:
    """Raise TooLarge where so many maps of a picture of this size would take more memory than an answer may."""
    height, width = plan.size
    window = (min(height, plan.tile), min(width, plan.tile))
    channels = sum(by.channels for by in decodings.values())
    outputs = row_bytes(channels, window)
    pixel = sum(
        finishing[key].of_raw(np.zeros((by.channels, 1, 1), np.float32)).nbytes for key, by in decodings.items()
    )
    for what, nbytes, most in (("outputs", outputs, _MOST_OUTPUTS), ("maps", pixel * height * width, _MOST_MAPS)):
        if nbytes > most:
            raise TooLarge(
                f"{len(decodings)} maps of {width}x{height} pixels take {nbytes / 2**30:.1f} GiB of {what}, more than"
                f" {most / 2**30:g}; ask for fewer tasks or bundles at a time, or send a smaller picture"
            )
