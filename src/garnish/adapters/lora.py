"""LoRA (Hu et al., ICLR 2022), with rsLoRA (Kalajdzievski, 2023) and DoRA (Liu et al., ICML 2024) as options.

Shape letters: o output width, i input width, r rank, kh kw kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from garnish.adapters.layers.low_rank import low_rank
from garnish.checking.bounds import Dropout, Factor, Names, Narrow
from garnish.engine.adapter import Method, Plan, check_factor, select_layers
from garnish.engine.sites import Site
from garnish.engine.trunk import Trunk
from garnish.errors import OptionError

#: timm's names of squeeze-and-excitation modules
_GATES = {"se", "se_module"}


@dataclass(frozen=True, kw_only=True)
class LoRA(Method):
    """``y = W x + b + s·B A dropout(x)``, A Kaiming-uniform (a = √5), B zero: the identity at the start.

    Attributes:
        rank: r, width of the low-rank update.
        alpha: α; the scale s is α/r, or α/√r with ``rs``.
        dropout: probability, on the input x of the low-rank path.
        rs: rank-stabilised scale α/√r (rsLoRA, eq. 4).
        dora: learn direction and magnitude separately (DoRA, eq. 5): ``W' = m ⊙ (W + sBA) / ‖W + sBA‖`` with one m per
            output, the norm a constant in the backward pass. Compiled mixed batches then hold one full weight per row.
        layers: layers to adapt, by role (``qkv``), place and role (``attn.qkv``) or site name; empty: every linear
            layer in the blocks or, if there are none (a CNN), every ungrouped convolution there outside
            squeeze-and-excitation gates. A grouped convolution needs a rank that is a multiple of its groups.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.LoRA(rank=4), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        71169
    """

    elsewhere: ClassVar[Mapping[str, str]] = {
        "r": "PEFT's r is rank= here: LoRA(rank=8, alpha=16.0)",
        "lora_alpha": "PEFT's lora_alpha is alpha= here: LoRA(rank=8, alpha=16.0)",
        "lora_dropout": "PEFT's lora_dropout is dropout= here",
        "use_rslora": "PEFT's use_rslora is rs= here",
        "use_dora": "PEFT's use_dora is dora= here",
        "target_modules": "PEFT's target_modules are layers= here: layers=('qkv',)",
    }
    grid: ClassVar[Mapping[str, tuple[int, ...]]] = {"rank": (1, 2, 4, 8, 16, 32)}

    rank: Narrow = 8
    alpha: Factor = 16.0
    dropout: Dropout = 0.0
    rs: bool = False
    dora: bool = False
    layers: Names = ()

    def __post_init__(self) -> None:
        check_factor("LoRA.alpha", self.alpha)
        if self.dora and self.dropout:
            raise OptionError(
                "LoRA.dora: DoRA rewrites the weight, so dropout on the low-rank path is not defined; use 0"
            )

    def plan(self, backbone: Trunk) -> Plan:
        """An adapter at every chosen linear layer or convolution."""
        chosen = select_layers(backbone, self.layers, (nn.Linear,), "LoRA") or _ungrouped(backbone)
        scale = self.alpha / (math.sqrt(self.rank) if self.rs else self.rank)
        return Plan(
            {
                site.name: low_rank(f"LoRA at {site.name}", layer, self.rank, scale, self.dropout, dora=self.dora)
                for site, layer in chosen
            }
        )


def _ungrouped(backbone: Trunk) -> list[tuple[Site, nn.Module]]:
    convolutions = select_layers(backbone, (), (nn.Conv2d,), "LoRA")
    return [(s, m) for s, m in convolutions if m.groups == 1 and not _GATES & set(s.name.split("."))]
