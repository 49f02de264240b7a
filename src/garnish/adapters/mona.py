"""Mona: a bottleneck with depthwise convolutions of three sizes after each residual (Yin et al., CVPR 2025).

Shape letters: R rows, N tokens, P prefix tokens, H W grid, d width of the stage, m bottleneck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.adapters.layers.token_maps import from_map, to_map
from garnish.adapters.places import require, width_at
from garnish.checking.bounds import Channels, Dropout
from garnish.engine.adapter import Adapter, Method, Plan
from garnish.engine.context import ForwardContext
from garnish.engine.trunk import Trunk

#: initial γ, so small that the adapter reads almost the bare stream at first
_GAMMA = 1e-6


@final
@dataclass(frozen=True, kw_only=True)
class Mona(Method):
    """On the stream after every residual: ``x + U dropout(GELU(c(D u)))`` with ``u = γ ⊙ LN(x) + γ_x ⊙ x``.

    c acts on the map: ``v + (dw3(v) + dw5(v) + dw7(v))/3``, then ``v + conv1×1(v)``. Starts near the identity, not at
    it: γ = 1e-6, γ_x = 1, D and U truncated normal (0.02), their biases 0, convolutions torch's own, as published. The
    class, register and prompt tokens of a plain ViT, for which nothing was published, skip all of c.

    Published on ADE20K with the trunk's drop-path at 0.2: ``drop_path`` of ``garnish.backbone``, by default 0.

    Attributes:
        bottleneck: m, the same in every stage.
        dropout: on the hidden vector.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Mona(bottleneck=8), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        56833
    """

    grid: ClassVar[Mapping[str, tuple[int, ...]]] = {"bottleneck": (16, 32, 64)}

    bottleneck: Channels = 64
    dropout: Dropout = 0.1

    def plan(self, backbone: Trunk) -> Plan:
        """An adapter after every residual: two per block, or one if a block has one branch (ConvNeXt)."""
        sites = [s for s in backbone.sites() if s.kind == "residual"]
        require(sites, "Mona", backbone, "residuals")
        return Plan({s.name: MonaAdapter(width_at(backbone, s), self.bottleneck, self.dropout) for s in sites})


@final
class MonaAdapter(Adapter):
    """The Mona layer after one residual; 133 d + 9,728 parameters at m = 64."""

    convolves = True

    def __init__(self, width: int, bottleneck: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gamma = nn.Parameter(torch.full((width,), _GAMMA))
        self.gamma_x = nn.Parameter(torch.ones(width))
        self.down = nn.Linear(width, bottleneck)
        self.conv3 = nn.Conv2d(bottleneck, bottleneck, 3, padding=1, groups=bottleneck)
        self.conv5 = nn.Conv2d(bottleneck, bottleneck, 5, padding=2, groups=bottleneck)
        self.conv7 = nn.Conv2d(bottleneck, bottleneck, 7, padding=3, groups=bottleneck)
        self.conv1 = nn.Conv2d(bottleneck, bottleneck, 1)
        self.up = nn.Linear(bottleneck, width)
        self.dropout = dropout
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=0.02)  # cut at ±2, which is 100 σ, by the authors: never reached
            nn.init.zeros_(layer.bias)

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Stream y after the residual, (R, P + H·W, d) or (R, H, W, d) → the same shape."""
        prefix, v = to_map(self.down(torch.addcmul(self.gamma_x * y, self.gamma, self.norm(y))), ctx)
        v = v + (self.conv3(v) + self.conv5(v) + self.conv7(v)) / 3
        v = v + self.conv1(v)
        hidden = F.gelu(from_map(prefix, v, y.ndim))
        hidden = F.dropout(hidden, self.dropout, self.training)
        out: Tensor = y + self.up(hidden)
        return out
