"""What a request asks of a picture, and what it gets: the types between HTTP and the service."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from garnish.decodings.decoding import Decoding
from garnish.decodings.prediction import Prediction


@final
@dataclass(eq=False)
class Ticket:
    """One request on its way.

    Attributes:
        deadline: on :func:`time.monotonic`; afterwards nothing of it is begun.
        gone: set when who asked has gone; what is queued is dropped then.
        timings: milliseconds of ``decode``, ``queue``, ``forward`` (windows: their sums) and ``encode``.
    """

    deadline: float
    gone: threading.Event = field(default_factory=threading.Event)
    timings: dict[str, float] = field(default_factory=dict)

    @classmethod
    def within(cls, seconds: float) -> Ticket:
        """A request that has this long."""
        return cls(time.monotonic() + seconds)


@final
@dataclass(frozen=True, eq=False)
class Asking:
    """What is asked of one picture.

    Attributes:
        bundles: names; empty: the only one that is served.
        tasks: ``seg`` of every bundle that has it, ``street/seg`` of one; empty: all.
        confidence: keep, of classes, the probability of the one chosen.
    """

    bundles: Sequence[str] = ()
    tasks: Sequence[str] = ()
    confidence: bool = False


@final
@dataclass(frozen=True, eq=False)
class Answer:
    """What a picture got.

    Attributes:
        predictions: bundle → its maps, in the order asked.
        confidence: (bundle, task) → (H, W) float32, the probability of the class chosen; of classes, if asked.
        kinds: bundle → task → name of its kind.
    """

    predictions: Mapping[str, Prediction[np.ndarray, Decoding]]
    confidence: Mapping[tuple[str, str], np.ndarray]
    kinds: Mapping[str, Mapping[str, str]]
