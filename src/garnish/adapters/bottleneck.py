"""Bottleneck adapters at their three places: Houlsby, Pfeiffer, AdaptFormer.

Houlsby et al., ICML 2019; Pfeiffer et al., EACL 2021; Chen et al., AdaptFormer, NeurIPS 2022.
Shape letters: R rows, N tokens (or H W map), d width of the stage, m bottleneck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.adapters.adapter import Adapter, Method, Plan
from garnish.backbones.backbone import Backbone
from garnish.backbones.sites import Site
from garnish.context import ForwardContext
from garnish.errors import OptionError, SiteError

Activation = Literal["gelu", "relu", "silu"]


@dataclass(frozen=True, kw_only=True)
class Houlsby(Method):
    """Two adapters a block, on what attention and MLP put out, inside the residual: ``z + U σ(D z + b_D) + b_U``.

    Starts near the identity, not at it: weights N(0, 0.01²), biases zero, as published.

    Attributes:
        reduction: ρ = d/m; the bottleneck of a stage of width d is d/ρ.
        bottleneck: m, the same in every stage; used instead of ``reduction`` where given.
        activation: σ.
        dropout: on the hidden vector.
    """

    reduction: float = 16.0
    bottleneck: int | None = None
    activation: Activation = "gelu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check(type(self).__name__, self.reduction, self.bottleneck, self.dropout)

    def plan(self, backbone: Backbone) -> Plan:
        """An adapter on every attention and MLP output."""
        sites = [s for s in backbone.sites() if s.kind == "sublayer"]
        return _serial_plan(self, backbone, sites, up_std=0.01)


@dataclass(frozen=True, kw_only=True)
class Pfeiffer(Method):
    """One adapter a block, on what the MLP puts out, inside drop-path and residual; the identity at the start.

    U is zero and D N(0, 0.01²): a widespread code zeroes both, after which neither ever learns.

    Attributes:
        reduction: ρ = d/m.
        bottleneck: m, the same in every stage; used instead of ``reduction`` where given.
        activation: σ.
        dropout: on the hidden vector.
    """

    reduction: float = 8.0
    bottleneck: int | None = None
    activation: Activation = "gelu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check(type(self).__name__, self.reduction, self.bottleneck, self.dropout)

    def plan(self, backbone: Backbone) -> Plan:
        """An adapter on every MLP output."""
        sites = [s for s in backbone.sites() if s.kind == "sublayer" and s.place == "mlp"]
        return _serial_plan(self, backbone, sites, up_std=0.0)


@dataclass(frozen=True, kw_only=True)
class AdaptFormer(Method):
    """One adapter a block, parallel to the MLP's branch: ``h + branch(h) + s·(U σ(D h + b_D) + b_U)``, U zero.

    It reads the stream before the norm and stands outside the branch's drop-path.

    Attributes:
        bottleneck: m, the same in every stage.
        scale: s; "learnable" makes it a trained scalar that starts at 1.
        activation: σ.
        dropout: on the hidden vector.
    """

    bottleneck: int = 64
    scale: float | Literal["learnable"] = 0.1
    activation: Activation = "relu"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _check(type(self).__name__, 1.0, self.bottleneck, self.dropout)

    def plan(self, backbone: Backbone) -> Plan:
        """An adapter beside every MLP branch."""
        sites = [s for s in backbone.sites() if s.kind == "branch" and s.place == "mlp"]
        return Plan(
            {
                s.name: ParallelAdapter(_width(backbone, s), self.bottleneck, self.activation, self.dropout, self.scale)
                for s in sites
            }
        )


class SerialAdapter(Adapter):
    """``y + U σ(D y + b_D) + b_U`` on the wrapped module's output."""

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
        """(…, d) → (…, d)."""
        hidden = _activate(self.down(y), self.activation)
        if self.dropout and self.training:
            hidden = F.dropout(hidden, self.dropout)
        out: Tensor = y + self.up(hidden)
        return out


class ParallelAdapter(Adapter):
    """``y + s·(U σ(D x + b_D) + b_U)`` beside the wrapped branch."""

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
        """Stream (…, d) and branch output (…, d) → (…, d)."""
        hidden = _activate(self.down(x), self.activation)
        if self.dropout and self.training:
            hidden = F.dropout(hidden, self.dropout)
        out: Tensor = y + self.scale * self.up(hidden)
        return out


def _serial_plan(method: Houlsby | Pfeiffer, backbone: Backbone, sites: list[Site], *, up_std: float) -> Plan:
    adapters = {}
    for site in sites:
        width = _width(backbone, site)
        narrow = _narrow(width, method, site)
        adapters[site.name] = SerialAdapter(width, narrow, method.activation, method.dropout, up_std=up_std)
    return Plan(adapters)


def _activate(x: Tensor, activation: Activation) -> Tensor:
    if activation == "relu":
        return F.relu(x)
    return F.gelu(x) if activation == "gelu" else F.silu(x)


def _width(backbone: Backbone, site: Site) -> int:
    return backbone.features[site.stage].channels


def _narrow(width: int, method: Houlsby | Pfeiffer, site: Site) -> int:
    narrow = method.bottleneck if method.bottleneck is not None else int(width / method.reduction)
    if narrow < 1:
        label = type(method).__name__
        raise SiteError(
            f"{label} at {site.name}: width {width} / reduction {method.reduction} is below 1; use {width} or less"
        )
    return narrow


def _check(label: str, reduction: float, bottleneck: int | None, dropout: float) -> None:
    if reduction <= 0:
        raise OptionError(f"{label}.reduction: {reduction} is not positive")
    if bottleneck is not None and bottleneck < 1:
        raise OptionError(f"{label}.bottleneck: {bottleneck} is below 1")
    if not 0 <= dropout < 1:
        raise OptionError(f"{label}.dropout: {dropout} is outside [0, 1)")
