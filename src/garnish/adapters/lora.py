"""LoRA (Hu et al., ICLR 2022), with rsLoRA (Kalajdzievski, 2023) and DoRA (Liu et al., ICML 2024) as options.

Shape letters: o output width, i input width, r rank, kh kw kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.adapters.adapter import Adapter, Method, Plan, select_layers
from garnish.backbones.backbone import Backbone
from garnish.context import ForwardContext
from garnish.errors import OptionError, SiteError


@dataclass(frozen=True, kw_only=True)
class LoRA(Method):
    """``y = W x + b + s·B A dropout(x)``, A Kaiming-uniform (a = √5), B zero: the identity at the start.

    Attributes:
        rank: r, width of the low-rank update.
        alpha: α; the scale s is α/r, or α/√r with ``rs``.
        dropout: probability of dropping entries of x on the low-rank path.
        rs: rank-stabilised scale α/√r (rsLoRA, eq. 4).
        dora: learn direction and magnitude apart (DoRA, eq. 5): ``W' = m ⊙ (W + sBA) / ‖W + sBA‖`` with one m per
            output, the norm a constant in the backward pass. Mixed batches then hold one full weight a row.
        layers: roles, places and roles, or site names to adapt; empty: every linear layer in the blocks.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    rs: bool = False
    dora: bool = False
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise OptionError(f"LoRA.rank: {self.rank} is below 1; use 1 or more")
        if not 0 <= self.dropout < 1:
            raise OptionError(f"LoRA.dropout: {self.dropout} is outside [0, 1)")
        if self.dora and self.dropout:
            raise OptionError(
                "LoRA.dora: DoRA rewrites the weight, so dropout on the low-rank path is not defined; use 0"
            )

    def plan(self, backbone: Backbone) -> Plan:
        """An adapter at every chosen linear layer or (ungrouped) convolution."""
        chosen = select_layers(backbone, self.layers, (nn.Linear,), "LoRA")
        return Plan({site.name: self._adapter(site.name, layer) for site, layer in chosen})

    def _adapter(self, name: str, layer: nn.Module) -> LoRAAdapter:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        if isinstance(layer, nn.Conv2d) and layer.groups != 1:
            raise SiteError(
                f"LoRA at {name}: a convolution of {layer.groups} groups is not supported; leave it out of layers"
            )
        most = min(weight.shape[0], weight[0].numel())
        if self.rank > most:
            raise SiteError(f"LoRA at {name}: rank {self.rank} exceeds the layer's {most}; use rank {most} or less")
        scale = self.alpha / (math.sqrt(self.rank) if self.rs else self.rank)
        return LoRAAdapter(layer, self.rank, scale, self.dropout, self.dora)


class LoRAAdapter(Adapter):
    """A low-rank update of one linear layer or convolution."""

    def __init__(self, layer: nn.Module, rank: int, scale: float, dropout: float, dora: bool) -> None:
        super().__init__()
        weight = layer.weight
        assert isinstance(weight, Tensor)
        self.lora_a = nn.Parameter(weight.new_empty(rank, *weight.shape[1:]))
        self.lora_b = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scale = scale
        self.dropout = dropout
        self.in_weight_space = dora
        self.magnitude = nn.Parameter(weight.detach().flatten(1).norm(dim=1)) if dora else None
        self.conv = (layer.stride, layer.padding, layer.dilation) if isinstance(layer, nn.Conv2d) else None

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Add the low-rank path: (…, i) and (…, o) → (…, o), or maps (R, i, H, W) and (R, o, H', W')."""
        if self.dropout and self.training:
            x = F.dropout(x, self.dropout)
        up = self.scale * self.lora_b
        if self.conv is not None:
            hidden = F.conv2d(x, self.lora_a, None, *self.conv)  # type: ignore[arg-type]
            return y + F.conv2d(hidden, up[:, :, None, None])
        hidden = F.linear(x, self.lora_a)
        # one pass over y: the update is added inside the product
        return torch.addmm(y.flatten(0, -2), hidden.flatten(0, -2), up.t()).view_as(y)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``W + sBA``, or DoRA's rescaled weight; the bias is untouched."""
        update = self.scale * (self.lora_b @ self.lora_a.flatten(1)).view_as(weight)
        changed = weight + update
        if self.magnitude is None:
            return changed, bias
        factor = self.magnitude / changed.detach().flatten(1).norm(dim=1)
        return changed * factor.view(-1, *[1] * (weight.ndim - 1)), bias
