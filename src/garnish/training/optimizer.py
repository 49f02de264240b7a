"""AdamW for a model, its rates over a run, and the seeds of a step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from garnish.model.parameter_groups import parameter_groups
from garnish.training.train_options import TrainOptions


def make_optimizer(parameters: Mapping[str, nn.Parameter], options: TrainOptions) -> AdamW:
    """AdamW over the groups of :func:`garnish.model.parameter_groups.parameter_groups`.

    Args:
        parameters: by stored name; those of heads start with ``heads.``.
        options: rates and decay.
    """
    found = parameter_groups(parameters, lr=options.lr, head_lr=options.head_lr, weight_decay=options.weight_decay)
    groups = [{**group, "peak": group["lr"]} for group in found]
    on = {p.device.type for p in parameters.values()}
    # The fused step unscales float16 gradients itself, which excludes clipping them.
    fused = on <= {"cpu", "cuda"} and options.precision != "16-mixed"
    return AdamW(groups, fused=fused)


def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Learning rate of each group: ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]


def odd_gradient(parameters: Mapping[str, nn.Parameter]) -> str:
    """Name of the first tensor whose gradient is not finite; else the largest, whose square overflows in the norm."""
    grads = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    largest = max(grads, key=lambda name: float(grads[name].abs().max()))
    return next((name for name, grad in grads.items() if not bool(grad.isfinite().all())), largest)


def seed_step(seed: int, step: int, micro: int, rank: int) -> None:
    """Seed torch's generators for one forward pass, so that dropout is a pure function of these numbers."""
    state = np.random.SeedSequence((seed, step, micro, rank), spawn_key=(2,)).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]) >> 1)
