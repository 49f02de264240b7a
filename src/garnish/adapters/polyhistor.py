"""Polyhistor-Lite: one hyper-network generates the adapters of all tasks and layers, scaled to each stage's width.

Liu, Ma, Tian, He, Kira, NeurIPS 2022 (arXiv 2210.03265), sections 3.2 and 3.3.
Shape letters: d width of a stage, d_1 of the first, m = d/ρ, s = d/d_1 width multiple, h hidden width, q rank.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.adapters.layers.bottleneck_layers import ParallelAdapter, activate, narrow_width
from garnish.adapters.places import require, width_at
from garnish.checking.bounds import Channels, Factor, Reduction
from garnish.checking.plain_data import integers
from garnish.engine.adapter import Adapter, Method, Plan, check_factor
from garnish.engine.context import ForwardContext
from garnish.engine.trunk import Trunk
from garnish.errors import SiteError


@final
@dataclass(frozen=True, kw_only=True)
class PolyhistorLite(Method):
    """Per task ``h + branch(h) + c·(U σ(D h + b_D) + b_U)``, ``D = Σ_i K_i ⊗ T_i``, i = 1 … s, and likewise U, b.

    Templates T_i have the first stage's size. One hyper-network, shared by all tasks and layers, generates them as
    products of two factors of rank q, from an embedding of the task and s embeddings of the layer; the kernels K_i
    (s × s, one set per layer) scale them to the stage's width. σ is GELU; the hyper-network has a ReLU inside. The left
    factor of U is zero at the start: the identity. A task adapts the trunk from its first block, so each task needs a
    pass, as published; the paper's heads have a norm for each map (``SegFormerHead(norm=True)``). The ranks, ρ and
    embedding sizes behind the published 0.41 M are not known: sizes here are ours, 383,408 on Swin-T with four tasks.

    Attributes:
        reduction: ρ = d/m.
        rank: q, of the templates.
        embedding: length of the embeddings of tasks and of layers.
        hidden: h, width of the hyper-network.
        scale: c, factor of the update.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.PolyhistorLite(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        198457
    """

    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"reduction": (16.0, 8.0, 4.0)}

    reduction: Reduction = 4.0
    rank: Annotated[int, integers(1, 1_024)] = 4
    embedding: Channels = 64
    hidden: Channels = 256
    scale: Factor = 1.0

    def __post_init__(self) -> None:
        check_factor("PolyhistorLite.scale", self.scale)

    def plan(self, backbone: Trunk) -> Plan:
        """One shared hyper-network; per task an embedding and a generated adapter parallel to every MLP branch."""
        sites = [s for s in backbone.sites() if s.kind == "branch" and s.place == "mlp"]
        require(sites, "PolyhistorLite", backbone, "MLP branches")
        widths = [width_at(backbone, site) for site in sites]
        narrow = narrow_width("PolyhistorLite", widths[0], self.reduction, None, sites[0])
        for site, width in zip(sites, widths, strict=True):
            if width % widths[0]:
                raise SiteError(
                    f"PolyhistorLite at {site.name}: width {width} is no multiple of the first stage's {widths[0]}; "
                    "use another method on this backbone"
                )
        net = HyperNetwork(widths[0], narrow, [w // widths[0] for w in widths], self)

        def own() -> dict[str, Adapter]:
            task = nn.Parameter(torch.randn(self.embedding))
            return {
                site.name: Written(net, number, task, widths[number], narrow, self.scale, keeps_task=number == 0)
                for number, site in enumerate(sites)
            }

        return Plan(shared=net, own=own, routing="rows")


@final
class HyperNetwork(nn.Module):
    """Embeddings of a task and of a layer → that layer's down- and up-projection with their biases."""

    def __init__(self, width: int, narrow: int, multiples: list[int], options: PolyhistorLite) -> None:
        super().__init__()
        self.width, self.narrow, self.rank = width, narrow, options.rank
        hidden, rank = options.hidden, options.rank
        self.layers = nn.ParameterList(nn.Parameter(torch.randn(s, options.embedding)) for s in multiples)
        self.inner = nn.Sequential(
            nn.Linear(2 * options.embedding, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.LayerNorm(hidden)
        )
        self.down_left = nn.Linear(hidden, narrow * rank)
        self.down_right = nn.Linear(hidden, rank * width)
        self.down_bias = nn.Linear(hidden, narrow)
        self.up_left = nn.Linear(hidden, width * rank)
        self.up_right = nn.Linear(hidden, rank * narrow)
        self.up_bias = nn.Linear(hidden, width)
        self.down_kernels = nn.ParameterList(nn.Parameter(torch.randn(s, s, s)) for s in multiples)
        self.up_kernels = nn.ParameterList(nn.Parameter(torch.randn(s, s, s)) for s in multiples)
        self.down_bias_kernels = nn.ParameterList(nn.Parameter(torch.randn(s, s, 1)) for s in multiples)
        self.up_bias_kernels = nn.ParameterList(nn.Parameter(torch.randn(s, s, 1)) for s in multiples)
        # the last norm's output has variance 1, so left factors get variance 1/q, right ones standard deviation 0.02
        for made, std in (
            *((left, 1 / math.sqrt(hidden * rank)) for left in (self.down_left,)),
            *((right, 0.02 / math.sqrt(hidden)) for right in (self.down_right, self.up_right, self.down_bias)),
            *((zero, 0.0) for zero in (self.up_left, self.up_bias)),
        ):
            nn.init.normal_(made.weight, std=std)
            nn.init.zeros_(made.bias)

    def forward(self, number: int, task: Tensor) -> dict[str, Tensor]:
        """Weights of the adapter at the ``number``-th layer: D (m, d), b_D (m,), U (d, m), b_U (d,)."""
        layer = self.layers[number]
        code = self.inner(torch.cat([task.expand(layer.shape[0], -1), layer], 1))  # (s, h)
        down = _product(self.down_left(code), self.down_right(code), self.narrow, self.width)
        up = _product(self.up_left(code), self.up_right(code), self.width, self.narrow)
        return {
            "down.weight": _scaled(self.down_kernels[number], down),
            "down.bias": _scaled(self.down_bias_kernels[number], self.down_bias(code)[..., None])[:, 0],
            "up.weight": _scaled(self.up_kernels[number], up),
            "up.bias": _scaled(self.up_bias_kernels[number], self.up_bias(code)[..., None])[:, 0],
        }


def _product(left: Tensor, right: Tensor, rows: int, columns: int) -> Tensor:
    """Factors (s, rows·q) and (s, q·columns) → templates (s, rows, columns)."""
    return left.reshape(left.shape[0], rows, -1) @ right.reshape(right.shape[0], -1, columns)


def _scaled(kernels: Tensor, templates: Tensor) -> Tensor:
    """``Σ_i K_i ⊗ T_i``: (s, a, b) and (s, c, e) → (a·c, b·e)."""
    return torch.einsum("iab,ice->acbe", kernels, templates).flatten(2, 3).flatten(0, 1)


@final
class Written(Adapter):
    """The adapter that the hyper-network generates for one task at one layer; the first one holds the embedding."""

    def __init__(
        self,
        net: HyperNetwork,
        number: int,
        task: nn.Parameter,
        width: int,
        narrow: int,
        scale: float,
        *,
        keeps_task: bool,
    ) -> None:
        super().__init__()
        self.number = number
        self.scale = scale
        if keeps_task:
            self.task = task
        # in tuples, so that neither is registered here again: the owner holds the one, the first layer the other
        self._net = (net,)
        self._task = (task,)
        multiple = width // net.width
        self._form = (ParallelAdapter(width, multiple * narrow, "gelu", 0.0, scale),)

    def for_row(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """A plain parallel adapter, and the weights generated for it."""
        return self._form[0], self._net[0](self.number, self._task[0])

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Stream (…, d) and branch output (…, d) → (…, d)."""
        made = self._net[0](self.number, self._task[0])
        hidden = activate(F.linear(x, made["down.weight"], made["down.bias"]), "gelu")
        return y + self.scale * F.linear(hidden, made["up.weight"], made["up.bias"])
