"""What a run, a measurement and a cost are named by: a digest of everything that their numbers follow from.

An option that changes no number is left out, so that it reruns nothing; nothing is in a run's key that only says which
arm it belongs to, so that arms, seeds and rates can be added and taken away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from garnish.registry import options_of
from garnish.training.train_options import FREE_ON_RESUME, TrainOptions

#: To be raised when numbers come out otherwise than before for the same key.
FORMAT = 1
#: Options of training that change no number, beside those that a resumed run may set anew.
_WITHOUT_EFFECT = frozenset({*FREE_ON_RESUME, "memory_gb"}) - {"devices", "strategy"}


def key_of(content: Mapping[str, object]) -> str:
    """SHA-256 of the content as canonical JSON, in hexadecimal digits."""
    text = json.dumps({"format": FORMAT, **content}, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def training_content(options: TrainOptions) -> dict[str, object]:
    """The options of training that numbers follow from."""
    return {name: value for name, value in options_of(options).items() if name not in _WITHOUT_EFFECT}


def step_content(options: TrainOptions) -> dict[str, object]:
    """The options of training that the cost of one step follows from."""
    kept = ("batch_size", "precision", "accelerator", "checkpointing", "augment", "balance", "eval_size", "clip")
    return {name: value for name, value in options_of(options).items() if name in kept}
