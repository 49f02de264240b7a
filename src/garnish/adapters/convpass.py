"""Convpass: a convolutional bottleneck parallel to attention and MLP (Jie & Deng, 2022, arXiv 2207.07039).

Shape letters: R rows, N tokens, P prefix tokens, H W grid, d width of the stage, m bottleneck.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.adapters.layers.token_maps import from_map, to_map
from garnish.adapters.places import require, width_at
from garnish.checking.bounds import Channels, Dropout, Factor
from garnish.engine.adapter import Adapter, Method, Plan, check_factor
from garnish.engine.context import ForwardContext
from garnish.engine.trunk import Trunk

Start = Literal["identity", "xavier"]


@final
@dataclass(frozen=True, kw_only=True)
class Convpass(Method):
    """Parallel to attention and MLP of every block: ``x + f(LN x) + s·P(LN x)``, up zero: the identity at the start.

    ``P = up ∘ dropout ∘ q ∘ conv3×3 ∘ q ∘ down`` with ``q(x) = x·sigmoid(1.702 x)`` and a dense convolution m → m with
    bias, on the whole map (on Swin neither shifted nor cut into windows). Each class, register or prompt token is
    convolved as a separate 1×1 map, as the released ViT code does with the class token: only the centre tap acts on
    it. The released code applies the block's drop-path to P too; here P is never dropped, and the trunk's branch
    only if ``garnish.backbone`` is given a ``drop_path``.

    Attributes:
        bottleneck: m, the same in every stage.
        scale: s, factor of the update; the paper searches 0.01, 0.1, 1, 10, 100.
        dropout: on the convolved hidden vector.
        init: the convolution starts as the "identity" (zero but for the centre tap; ViT) or "xavier" (Swin).

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.Convpass(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        45825
    """

    grid: ClassVar[Mapping[str, tuple[int, ...]]] = {"bottleneck": (4, 8, 16)}

    bottleneck: Channels = 8
    scale: Factor = 1.0
    dropout: Dropout = 0.1
    init: Start = "identity"

    def __post_init__(self) -> None:
        check_factor("Convpass.scale", self.scale)

    def plan(self, backbone: Trunk) -> Plan:
        """An adapter parallel to every residual branch."""
        sites = [s for s in backbone.sites() if s.kind == "beside"]
        require(sites, "Convpass", backbone, "residual branches with a norm")
        return Plan({s.name: ConvpassAdapter(width_at(backbone, s), self) for s in sites})


@final
class ConvpassAdapter(Adapter):
    """``y + s·P(x)``, x the output of the branch's norm and y that of the branch."""

    convolves = True

    def __init__(self, width: int, options: Convpass) -> None:
        super().__init__()
        narrow = options.bottleneck
        self.down = nn.Linear(width, narrow)
        self.conv = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.up = nn.Linear(narrow, width)
        self.scale = options.scale
        self.dropout = options.dropout
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.up.weight)
        if options.init == "xavier":
            nn.init.xavier_uniform_(self.conv.weight)
        else:
            nn.init.dirac_(self.conv.weight)
        for layer in (self.down, self.conv, self.up):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Normalised stream and branch output, (R, P + H·W, d) or (R, H, W, d) both → the same shape."""
        prefix, on_map = to_map(_quick_gelu(self.down(x)), ctx)
        on_map = self.conv(on_map)
        if prefix is not None:
            prefix = F.linear(prefix, self.conv.weight[:, :, 1, 1], self.conv.bias)
        hidden = _quick_gelu(from_map(prefix, on_map, x.ndim))
        hidden = F.dropout(hidden, self.dropout, self.training)
        out: Tensor = y + self.scale * self.up(hidden)
        return out


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)
