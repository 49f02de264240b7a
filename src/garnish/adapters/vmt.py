"""VMT-Adapter and VMT-Adapter-Lite: one shared adapter per block, and per task a scale and shift of the feature maps.

A reconstruction, as no code is public, of Xin, Du, Wang, Lin, Yan, AAAI 2024 (arXiv 2312.08733).
Shape letters: R rows, H W map, d width of the stage, m = d/ρ.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.adapters.layers.bottleneck_layers import Activation, ParallelAdapter, activate, narrow_width
from garnish.adapters.places import require, width_at
from garnish.checking.bounds import Dropout, Factor, Reduction
from garnish.engine.adapter import Adapter, Method, Plan, check_factor
from garnish.engine.context import ForwardContext
from garnish.engine.trunk import Trunk


@dataclass(frozen=True, kw_only=True)
class _VMT(Method):
    """Base of both: the sites, and the adapters of each task.

    Attributes:
        reduction: ρ = d/m.
        scale: s, factor of the shared update.
        activation: σ.
        dropout: on the hidden vector.
    """

    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"reduction": (16.0, 8.0, 4.0)}

    reduction: Reduction = 4.0
    scale: Factor = 0.1
    activation: Activation = "gelu"
    dropout: Dropout = 0.0

    def __post_init__(self) -> None:
        check_factor(f"{type(self).__name__}.scale", self.scale)

    def plan(self, backbone: Trunk) -> Plan:
        """A shared adapter parallel to every MLP branch, and per task a scale and shift of every feature map."""
        label = type(self).__name__
        sites = [s for s in backbone.sites() if s.kind == "branch" and s.place == "mlp"]
        require(sites, label, backbone, "MLP branches")

        def own() -> dict[str, Adapter]:
            return {f"features.{i}": TaskScale(f.channels) for i, f in enumerate(backbone.features)}

        shared: dict[str, Adapter] = {}
        for site in sites:
            width = width_at(backbone, site)
            shared[site.name] = self._shared(width, narrow_width(label, width, self.reduction, None, site))
        return Plan(shared, own=own)

    @abstractmethod
    def _shared(self, width: int, narrow: int) -> Adapter:
        """The adapter parallel to one branch, with width d and bottleneck m."""


@final
@dataclass(frozen=True, kw_only=True)
class VMTAdapter(_VMT):
    """Shared ``h + branch(h) + s·(U σ(D h + b_D) + b_U)``; per task ``f_t = γ_t ⊙ f + β_t`` at the feature maps only.

    Our reconstruction of VMT-Adapter: the abstract says that tasks share knowledge, that each has light modules of
    its own, and that cost is nearly constant in the number of tasks; the rest is inferred. The tasks' modules sit at
    the stages' ends, as a decoder reads nothing else; in every block they would have no effect. D is
    Kaiming-uniform, U zero, γ one, β zero: the identity at the start. On Swin-T with ρ = 4 and four tasks 1,095,312
    parameters by our count; we do not know the published one.

    Attributes:
        reduction: ρ = d/m.
        scale: s, factor of the shared update.
        activation: σ.
        dropout: on the hidden vector.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.VMTAdapter(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        100097
    """

    def _shared(self, width: int, narrow: int) -> Adapter:
        return ParallelAdapter(width, narrow, self.activation, self.dropout, self.scale)


@final
@dataclass(frozen=True, kw_only=True)
class VMTAdapterLite(_VMT):
    """``h + branch(h) + s·(g ⊙ Dᵀ σ(D h + b_D) + b_U)``: down and up share D; per task ``f_t = γ_t ⊙ f + β_t``.

    Our reconstruction of VMT-Adapter-Lite: the paper says that down and up share parameters; that one is the other's
    transpose, and the gate g (one per channel), are our reading. A tied U cannot be zero at the start, so g is: the
    identity. On Swin-T with ρ = 4 and four tasks 560,592 parameters.

    Attributes:
        reduction: ρ = d/m.
        scale: s, factor of the shared update.
        activation: σ.
        dropout: on the hidden vector.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.VMTAdapterLite(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        52993
    """

    def _shared(self, width: int, narrow: int) -> Adapter:
        return TiedAdapter(width, narrow, self.activation, self.dropout, self.scale)


@final
class TiedAdapter(Adapter):
    """``y + s·(g ⊙ Dᵀ σ(D x + b_D) + b_U)``, parallel to the wrapped branch with input x and output y."""

    def __init__(self, width: int, bottleneck: int, activation: Activation, dropout: float, scale: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.gate = nn.Parameter(torch.zeros(width))
        self.up_bias = nn.Parameter(torch.zeros(width))
        self.activation: Activation = activation
        self.dropout = dropout
        self.scale = scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.down.bias)

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Stream (…, d) and branch output (…, d) → (…, d)."""
        hidden = activate(self.down(x), self.activation)
        hidden = F.dropout(hidden, self.dropout, self.training)
        return y + self.scale * (self.gate * F.linear(hidden, self.down.weight.t()) + self.up_bias)


@final
class TaskScale(Adapter):
    """``γ ⊙ f + β`` on a feature map f."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Scale and shift the map y, (R, d, H, W) → (R, d, H, W)."""
        # One pass over y, also when vmapped over tasks; channels last like the stream, as mixed strides add guards to
        # an exported graph.
        return torch.addcmul(self.shift, y.permute(0, 2, 3, 1), self.scale).permute(0, 3, 1, 2)
