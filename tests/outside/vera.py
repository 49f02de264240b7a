"""VeRA: two random projections for all layers, two learned vectors for each (Kopiczko et al., ICLR 2024).

Shape letters: i, o input and output width of a layer, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.engine.adapter import Adapter, Method, Plan, check_factor, select_layers
from garnish.engine.context import ForwardContext
from garnish.engine.trunk import Trunk
from garnish.errors import OptionError


@final
@dataclass(frozen=True, kw_only=True)
class VeRA(Method):
    """``y = W x + b ⊙ B (d ⊙ A x)``: A and B are drawn once for all layers, d and b are each layer's own (eq. 2).

    Attributes:
        rank: r, rows of A; larger than LoRA's, for each costs one number a layer.
        start: of every entry of d (the paper's 0.1); b starts at 0, so the method at the identity.
        layers: roles, places and roles, or site names to adapt; empty: every linear layer in the blocks.
    """

    grid: ClassVar[Mapping[str, tuple[int, ...]]] = {"rank": (64, 256)}

    rank: int = 64
    start: float = 0.1
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise OptionError(f"VeRA.rank: {self.rank} is below 1; use 1 or more")
        check_factor("VeRA.start", self.start)

    def plan(self, backbone: Trunk) -> Plan:
        """Vectors at every chosen linear layer; each reads the corner of A and B that has its widths."""
        chosen = select_layers(backbone, self.layers, (nn.Linear,), "VeRA", only=(nn.Linear,))
        shapes = {site.name: layer.get_parameter("weight").shape for site, layer in chosen}
        both = Projections(self.rank, *map(max, zip(*shapes.values(), strict=True))) if shapes else None
        return Plan({name: VeRAAdapter(both, o, self.start) for name, (o, _) in shapes.items() if both}, shared=both)


@final
class Projections(nn.Module):
    """A (r, i) and B (o, r) for the widest layer, uniform as in Kaiming's rule; buffers: stored, never trained."""

    def __init__(self, rank: int, outputs: int, inputs: int) -> None:
        super().__init__()
        self.a = nn.Buffer(nn.init.kaiming_uniform_(torch.empty(rank, inputs)))
        self.b = nn.Buffer(nn.init.kaiming_uniform_(torch.empty(outputs, rank)))


@final
class VeRAAdapter(Adapter):
    """The vectors d (r) and b (o) of one layer."""

    def __init__(self, both: Projections, outputs: int, start: float) -> None:
        super().__init__()
        self._both = (both,)  # in a tuple, so that it is not registered, moved and stored once a layer
        self.d = nn.Parameter(torch.full((both.a.shape[0],), start))
        self.b = nn.Parameter(torch.zeros(outputs))

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """(…, i) and (…, o) → (…, o)."""
        down, up = self._both[0].a[:, : x.shape[-1]], self._both[0].b[: y.shape[-1]]
        return y + self.b * F.linear(self.d * F.linear(x, down), up)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``W + diag(b) B diag(d) A``."""
        down, up = self._both[0].a[:, : weight.shape[1]], self._both[0].b[: weight.shape[0]]
        return weight + self.b[:, None] * (up * self.d) @ down, bias
