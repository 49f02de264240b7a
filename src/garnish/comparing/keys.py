"""Keys of runs, measurements and costs in the store: digests of everything that determines their numbers.

Options that do not affect results are left out, so that changing them reruns nothing. A run's key does not contain its
arm, so that arms, seeds and rates can be added and removed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from garnish.registry import options_of
from garnish.training.train_options import FREE_ON_RESUME, TrainOptions

#: To be increased when results change for the same key.
FORMAT = 1
#: Training options that do not affect results: those that may change when a run is resumed.
_WITHOUT_EFFECT = FREE_ON_RESUME - {"devices", "strategy", "compile"}
#: Options later than stores that are kept: at their default they are not in the key, so that such stores stay valid.
_LATER = {"compile": False, "memory": None, "memory_gb": None}


def key_of(content: Mapping[str, object]) -> str:
    """SHA-256 of the content as canonical JSON, in hexadecimal digits."""
    text = json.dumps({"format": FORMAT, **content}, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def training_content(options: TrainOptions) -> dict[str, object]:
    """The training options that affect results."""
    return {name: value for name, value in _set_options(options).items() if name not in _WITHOUT_EFFECT}


def step_content(options: TrainOptions) -> dict[str, object]:
    """The training options that affect the cost of one step."""
    kept = ("batch_size", "precision", "accelerator", "checkpointing", "augment", "balance", "eval_size", "clip")
    return {name: value for name, value in _set_options(options).items() if name in (*kept, "memory", "memory_gb")}


def _set_options(options: TrainOptions) -> dict[str, object]:
    return {n: value for n, value in options_of(options).items() if n not in _LATER or value != _LATER[n]}
