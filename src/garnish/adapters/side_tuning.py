"""Ladder side tuning: a small network beside the trunk, which runs without gradients.

Sung, Cho, Bansal, LST, NeurIPS 2022 (section 3).
Shape letters: I images, H W map, d width of a stage, w = d/ρ width of the side network there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.checking.plain_data import reals
from garnish.engine.adapter import Method, Plan
from garnish.engine.blocks import Whole
from garnish.engine.open_sizes import ordered
from garnish.engine.trunk import Trunk
from garnish.errors import SiteError

#: Temperature of the gates, as published.
_TEMPERATURE = 0.1


@final
@dataclass(frozen=True, kw_only=True)
class SideTuning(Method):
    """``s_l = block_l(μ_l s + (1 − μ_l) P_l x_l)``, ``μ_l = σ(α_l / 0.1)``; a map is ``f + U s`` at each stage's end.

    x_l is the trunk's stream after its l-th block, P_l maps d to w = d/ρ, α starts at 0 and U at zero: the
    identity. The trunk keeps no activations for the backward pass; one pass of it serves any number of side networks.

    As in the paper: the width, one side block per block, and the gates. Different here: side blocks are a
    depthwise 3×3 convolution and an MLP (the paper's are narrow copies of the trunk's layers, initialised with pruned
    weights, which fits one family only); strided convolutions connect the stages; and the trunk's own maps are added
    at the end, so that heads start with the maps of the frozen trunk. The released code's norm after the last side
    block is left out. Beside a CNN there is one side block per stage.

    Attributes:
        reduction: ρ = d/w.
        mlp_ratio: hidden width of a side block's MLP, divided by w.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.SideTuning(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        56009
    """

    grid: ClassVar[Mapping[str, tuple[float, ...]]] = {"reduction": (16.0, 8.0, 4.0)}

    reduction: Annotated[float, reals(1, 65_536)] = 8.0
    mlp_ratio: Annotated[float, reals(0, 64, above=True)] = 2.0

    def plan(self, backbone: Trunk) -> Plan:
        """One side network, no adapter."""
        if backbone.merged:
            raise SiteError(f'SideTuning: {backbone.name} is read after merging; build it with taps="stage"')
        widths = []
        for index, feature in enumerate(backbone.features):
            width = int(feature.channels / self.reduction)
            if width < 1:
                raise SiteError(
                    f"SideTuning at stages.{index}: width {feature.channels} / reduction {self.reduction} is below 1; "
                    f"use {feature.channels} or less"
                )
            widths.append(width)
        return Plan(side=Ladder(backbone, widths, self.mlp_ratio))


@final
class Ladder(nn.Module):
    """The side network of one owner."""

    def __init__(self, backbone: Trunk, widths: Sequence[int], mlp_ratio: float) -> None:
        super().__init__()
        features = backbone.features
        # opaque stages (CNNs) change width inside a block: there the ladder has one side block per stage, at its end
        self.opaque = any(
            isinstance(b, Whole) for stage in backbone.stages for block in stage.blocks for b in block.values()
        )
        self.start = nn.Linear(features[0].channels, widths[0])
        self.downs = nn.ModuleList()
        self.gates = nn.ModuleList()
        self.blocks = nn.ModuleList()
        self.ups = nn.ModuleList()
        for index, (stage, feature, width) in enumerate(zip(backbone.stages, features, widths, strict=True)):
            if index:
                ratio = round(feature.stride / features[index - 1].stride)
                self.downs.append(nn.Conv2d(widths[index - 1], width, ratio, stride=ratio))
            count = 1 if self.opaque else len(stage.blocks)
            self.gates.append(nn.ModuleList(Gate(feature.channels, width) for _ in range(count)))
            self.blocks.append(nn.ModuleList(SideBlock(width, mlp_ratio) for _ in range(count)))
            up = nn.Linear(width, feature.channels)
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)
            self.ups.append(up)

    def forward(self, states: Sequence[Sequence[Tensor]], maps: Sequence[Tensor]) -> list[Tensor]:
        """Compute feature maps from the maps of one pass of the trunk.

        Args:
            states: for each stage the stream (I, d, H, W) after its entrance and after each of its blocks.
            maps: the trunk's feature maps (I, d, H, W).

        Returns:
            Feature maps of the same shapes.
        """
        s = self.start(ordered(states[0][-1 if self.opaque else 0].permute(0, 2, 3, 1)))
        done = []
        for index, (stage, own) in enumerate(zip(states, maps, strict=True)):
            if index:
                s = self._down(s, index, stage[-1])
            gates, blocks = self.gates[index], self.blocks[index]
            assert isinstance(gates, nn.ModuleList) and isinstance(blocks, nn.ModuleList)
            for gate, block, x in zip(gates, blocks, stage[-len(gates) :], strict=True):
                s = block(gate(s, ordered(x.permute(0, 2, 3, 1))))
            done.append(ordered(own) + ordered(self.ups[index](s).permute(0, 3, 1, 2)))
        return done

    def _down(self, s: Tensor, index: int, like: Tensor) -> Tensor:
        """Strided convolution to the next stage's grid and width: (I, H, W, w) → (I, H', W', w')."""
        conv = self.downs[index - 1]
        assert isinstance(conv, nn.Conv2d)
        ratio = conv.stride[0]
        pad_high = like.shape[2] * ratio - s.shape[1]
        pad_wide = like.shape[3] * ratio - s.shape[2]
        out: Tensor = conv(ordered(F.pad(s, (0, 0, 0, pad_wide, 0, pad_high)).permute(0, 3, 1, 2)))
        return ordered(out.permute(0, 2, 3, 1))


@final
class Gate(nn.Module):
    """Learned mix of side stream s and trunk stream x: ``μ s + (1 − μ) P x`` with ``μ = σ(α / 0.1)``."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))
        self.project = nn.Linear(width, narrow)

    def forward(self, s: Tensor, x: Tensor) -> Tensor:
        """(I, H, W, w) and the trunk's (I, H, W, d) → (I, H, W, w)."""
        share = torch.sigmoid(self.alpha / _TEMPERATURE)
        mixed: Tensor = share * s + (1 - share) * self.project(x)
        return mixed


@final
class SideBlock(nn.Module):
    """``s + conv(norm s)``, then ``s + MLP(norm s)``, at the side network's width."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = max(1, int(width * mlp_ratio))
        self.norm1 = nn.LayerNorm(width)
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, s: Tensor) -> Tensor:
        """Run the block on the side stream: (I, H, W, w) → (I, H, W, w)."""
        s = s + ordered(self.mix(ordered(self.norm1(s).permute(0, 3, 1, 2))).permute(0, 2, 3, 1))
        out: Tensor = s + self.fc2(F.gelu(self.fc1(self.norm2(s))))
        return out
