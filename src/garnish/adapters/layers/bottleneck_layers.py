"""Bottleneck adapter layers, serial and parallel, and the checks of their options.

Shape letters: R rows, N tokens (or H W map), d width of the stage, m bottleneck.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.engine.adapter import Adapter
from garnish.engine.context import ForwardContext
from garnish.engine.sites import Site
from garnish.errors import SiteError

Activation = Literal["gelu", "relu", "silu"]


class SerialAdapter(Adapter):
    """``y + U σ(D y + b_D) + b_U`` on the output y of the wrapped module."""

    def __init__(self, width: int, bottleneck: int, activation: Activation, dropout: float, *, up_std: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.activation: Activation = activation
        self.dropout = dropout
        nn.init.normal_(self.down.weight, std=0.01)
        nn.init.normal_(self.up.weight, std=up_std)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Add the bottleneck of the output y: (…, d) → (…, d)."""
        hidden = activate(self.down(y), self.activation)
        hidden = F.dropout(hidden, self.dropout, self.training)
        out: Tensor = y + self.up(hidden)
        return out


class ParallelAdapter(Adapter):
    """``y + s·(U σ(D x + b_D) + b_U)``, parallel to the wrapped branch with input x and output y."""

    def __init__(
        self, width: int, bottleneck: int, activation: Activation, dropout: float, scale: float | Literal["learnable"]
    ) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        self.activation: Activation = activation
        self.dropout = dropout
        self.scale: float | nn.Parameter = nn.Parameter(torch.ones(())) if scale == "learnable" else float(scale)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.bias)

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Stream x (…, d) and branch output y (…, d) → (…, d)."""
        hidden = activate(self.down(x), self.activation)
        hidden = F.dropout(hidden, self.dropout, self.training)
        out: Tensor = y + self.scale * self.up(hidden)
        return out


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Apply the named activation; the shape stays."""
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x) if activation == "gelu" else F.silu(x)


def narrow_width(label: str, width: int, reduction: float, bottleneck: int | None, site: Site) -> int:
    """Bottleneck m of a stage of this width; raises :class:`SiteError` if it would be below 1."""
    narrow = bottleneck if bottleneck is not None else int(width / reduction)
    if narrow < 1:
        raise SiteError(
            f"{label} at {site.name}: width {width} / reduction {reduction} is below 1; use {width} or less"
        )
    return narrow
