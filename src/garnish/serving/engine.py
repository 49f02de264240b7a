"""``Engine``: what computes the raw outputs of rows; each row is a picture with the bundles and tasks asked of it.

Shape letters: B bands, C channels of a raw output, H W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from garnish.checking.plain_data import Json
from garnish.decodings.decoding import Decoding
from garnish.errors import GarnishError
from garnish.pictures.band_statistics import BandStatistics
from garnish.pictures.bands import Bands


@final
@dataclass(frozen=True, eq=False)
class Loaded:
    """A bundle in memory. It stays whole while anybody holds it, also after its name stands for another.

    Attributes:
        name: as requests call it.
        decodings: task → what its raw output means, in the bundle's order.
        kinds: task → name of its kind ("Semantic").
        bands: of the pictures that it takes.
        sha256: of its weights.
        nbytes: memory that it takes beside the trunk.
        handle: the engine's own.
        told: more facts of it, for people.
        statistics: of its training pictures; None: not known, or ordinary ones.
    """

    name: str
    decodings: Mapping[str, Decoding]
    kinds: Mapping[str, str]
    bands: Bands
    sha256: str
    nbytes: int
    handle: Any
    told: Mapping[str, Json] = field(default_factory=dict)
    statistics: BandStatistics | None = None


@final
@dataclass(frozen=True, eq=False)
class Row:
    """One picture, or one window of a large one, and what is asked of it.

    Attributes:
        picture: (B, H, W): uint8 of RGB, else as the engine's pictures of these bands are.
        asked: (bundle, its tasks), each bundle once; all of them take pictures of one kind of bands.
    """

    picture: np.ndarray
    asked: tuple[tuple[Loaded, tuple[str, ...]], ...]

    @property
    def key(self) -> Hashable:
        """Rows of one key may go through a pass together."""
        return self.picture.shape, self.picture.dtype.str, self.asked[0][0].bands


#: Of one row: (name of a bundle, task) → its raw output (C, H, W) float32, finite; or why there is none.
Outcome = Mapping[tuple[str, str], np.ndarray] | GarnishError


class Engine(ABC):
    """One trunk. :meth:`run` is called by one thread at a time, :meth:`load` and :meth:`unload` by any, meanwhile too.

    Attributes:
        step: windows of large pictures begin at multiples of this many pixels.
        trunk: the facts of the backbone that bundles must have been trained on, for people.
        batch: rows of a pass that are best on its device, where nobody says another number. On a CPU four pictures of
            224² or 256² take 0.75 to 0.9 of the processor time that they take alone, and more gain nothing.
        pixels: that they may have together; larger rows go alone. On a CPU passes of 512² are no faster with several.
    """

    step: int
    batch: int = 4
    pixels: int = 2**18
    trunk: Mapping[str, Json]

    @abstractmethod
    def load(self, name: str, folder: Path) -> Loaded:
        """Read a bundle.

        Raises:
            BundleError: it is damaged, of another trunk, or a task of it has no decoding; nothing has changed then.
        """

    @abstractmethod
    def check(self, folder: Path) -> None:
        """Raise BundleError where a bundle's description alone says that :meth:`load` would refuse it.

        Asked of every folder that is found, so it must be cheap.
        """

    @abstractmethod
    def unload(self, loaded: Loaded) -> None:
        """Give a bundle's memory back; nobody uses it any more."""

    @abstractmethod
    def run(self, rows: Sequence[Row]) -> list[Outcome]:
        """The outcome of each row, all of one key. What is wrong with one row is its outcome, not an error of all.

        Raises:
            Exception: anything; the pass as a whole failed. The batcher then runs each row by itself, so that only
                those fail which fail alone.
        """
