"""What a run finds at each memory level, held against ``fast``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import garnish as gn
import tiny
from garnish.model.model import Model
from memory_cases import differences, gradients, mixed, nothing_left_behind

Found = dict[str, Tensor | None]
LEVELS = ("lean", "least")
METHODS = {"LoRA": gn.LoRA(rank=2), "DoRA": gn.LoRA(rank=2, dora=True), "SSF": gn.SSF()}


def pictures() -> Tensor:
    return tiny.pictures().double()


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def compare(model: Model, run: Callable[[], Found], levels: tuple[object, ...] | None = None) -> None:
    """What ``run`` finds at each level is what it finds at ``fast``, and nothing is left behind."""
    found = []
    for level in ("fast", *(levels or (*LEVELS, mixed(model)))):
        model.backbone.memory = level
        model.zero_grad(set_to_none=True)
        torch.manual_seed(7)
        with nothing_left_behind():
            found.append(run())
        assert found[0]
    for other in found[1:]:
        assert differences(other, found[0], 1e-9) == {}


def loss(model: Model, x: Tensor | None = None) -> Tensor:
    return tiny.one_loss(model(pictures() if x is None else x))


def backward(model: Model, total: Tensor) -> Found:
    total.backward()
    return gradients(model)
