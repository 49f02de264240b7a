"""The learning rate over the steps of a run: a linear warm-up, then cosine, polynomial or no decay."""

from __future__ import annotations

import math

from garnish.training.train_options import TrainOptions

#: Exponent of the polynomial decay, as DeepLab has it (Chen et al., 2017).
_POLY_POWER = 0.9


def rate_factor(options: TrainOptions, step: int, total: int) -> float:
    """Learning rate at ``step`` (from 0) of ``total``, relative to its peak: a pure function, so that runs resume."""
    warmup = min(total // 20, 500) if options.warmup is None else options.warmup
    if step < warmup:
        return (step + 1) / warmup
    share = (step - warmup) / max(total - warmup, 1)
    if options.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    return (1 - share) ** _POLY_POWER if options.schedule == "poly" else 1.0
