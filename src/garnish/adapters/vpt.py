"""Visual prompt tuning, shallow and deep, on plain transformers and inside Swin's windows.

Jia et al., ECCV 2022.
Shape letters: R rows, p prompts, N tokens, H W map, d width of the stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.adapters.places import patch_embed, width_at
from garnish.checking.bounds import Dropout
from garnish.checking.plain_data import integers
from garnish.engine.adapter import Adapter, Method, Plan
from garnish.engine.blocks import bare
from garnish.engine.context import ForwardContext
from garnish.engine.trunk import Trunk
from garnish.errors import SiteError


@final
@dataclass(frozen=True, kw_only=True)
class VPT(Method):
    """p trained tokens after the class token; deep: every block has its own, which replace those of the block before.

    In Swin they join every window: attention runs over p + w² tokens, position bias and shift mask are zero for
    prompts, and a prompt's outputs are averaged over the windows; shallow prompts pass patch merging as four copies. In
    SwinV2 the position bias, which lies between 0 and 16, is 8 for prompts. The released code orders prompts by window
    but windows by picture, which mixes pictures from the second block on; here a picture's windows get its own.
    Prompts take part in the softmax from the first step, so the method does not start at the identity. Heads never see
    prompts. Each owner needs a pass of its own.

    Attributes:
        prompts: p (5 by default in the released code; 50 in Polyhistor's tables).
        deep: a set of prompts for every block; else one set, inserted before the first block and kept.
        dropout: on prompts as they are inserted.

    Example:
        >>> trunk = gn.backbone("vit_tiny_patch16_224", options={"depth": 4})
        >>> model = gn.adapt(trunk, gn.VPT(prompts=4), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 2,305
        5377
    """

    grid: ClassVar[Mapping[str, tuple[int, ...]]] = {"prompts": (5, 10, 50)}

    prompts: Annotated[int, integers(1, 4_096)] = 50
    deep: bool = True
    dropout: Dropout = 0.0

    def plan(self, backbone: Trunk) -> Plan:
        """A set of prompts before the first block, or before every block.

        All are uniform in ±√(6 / (3·patch² + d)) with d of the first stage, as in the released code for Swin.
        """
        if not backbone.most_prompts:
            raise SiteError(f"VPT: the attention of {backbone.name} takes no prompt tokens; use a plain ViT or a Swin")
        if self.prompts > backbone.most_prompts:
            raise SiteError(
                f"VPT.prompts: {self.prompts} are more than four times what {backbone.name} attends to; "
                f"use {backbone.most_prompts} or less"
            )
        modules = {s.name: bare(m) for s, m in backbone.sites_with_modules()}
        patch = math.prod(modules[patch_embed(backbone)[0].name].kernel_size)
        sites = [s for s in backbone.sites() if s.kind == "residual" and s.place == "attn"]
        chosen = sites if self.deep else sites[:1]
        bound = math.sqrt(6 / (3 * patch + width_at(backbone, sites[0])))
        return Plan(
            {
                site.name: Prompts(self.prompts, width_at(backbone, site), bound, self.dropout, enters=site == sites[0])
                for site in chosen
            },
            prompts=self.prompts,
        )


@final
class Prompts(Adapter):
    """One set of prompts, (p, d), inserted before a block."""

    def __init__(self, count: int, width: int, bound: float, dropout: float, *, enters: bool) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.empty(count, width).uniform_(-bound, bound))
        self.dropout = dropout
        self.enters = enters

    def before(self, x: Tensor, ctx: ForwardContext) -> Tensor:
        """(R, prefix + N, d) tokens or (R, H, W, d) maps → (R, prefix + p + N, d); ``ctx.num_prefix`` counts p."""
        count = self.prompts.shape[0]
        own = self.prompts.expand(x.shape[0], -1, -1)
        own = F.dropout(own, self.dropout, self.training)
        if x.ndim == 4:
            x = x.flatten(1, 2)
        prefix = ctx.num_prefix - count
        return torch.cat([x[:, :prefix], own, x[:, prefix if self.enters else ctx.num_prefix :]], 1)
