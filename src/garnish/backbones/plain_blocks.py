"""Base of the plain (single-stride) transformers: their stem, and the split of their blocks into four stages.

Shape letters: I pictures, N tokens, H W grid, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from garnish.backbones.timm_models import TimmModule, TimmTrunk
from garnish.engine.blocks import FeatureInfo, Stage
from garnish.errors import OptionError

#: A plain trunk is read at this many depths, equally spaced (DINOv2 and DPT read blocks 3, 6, 9, 12 of 12).
NUM_TAPS = 4


def split_stages(blocks: Sequence[Mapping[str, nn.Module]], name: str) -> list[Stage]:
    """Split a plain trunk's blocks into ``NUM_TAPS`` stages; a feature map is read at the end of each."""
    if len(blocks) < NUM_TAPS:
        raise OptionError(f"{name}: {len(blocks)} blocks are fewer than the {NUM_TAPS} feature maps; use depth >= 4")
    ends = [round(len(blocks) * (i + 1) / NUM_TAPS) for i in range(NUM_TAPS)]
    return [
        Stage(nn.Identity(), blocks[start:end], nn.Identity()) for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


class PlainStem(nn.Module):
    """Patch embedding, class and register tokens, position embedding resampled to the grid, optional rotary table."""

    def __init__(self, trunk: TimmModule, rope: nn.Module | None) -> None:
        super().__init__()
        self.patch_embed = trunk.patch_embed
        self.cls_token = trunk.cls_token
        self.reg_token = trunk.reg_token
        self.pos_embed = trunk.pos_embed
        self.norm_pre = trunk.norm_pre
        self.rope: TimmModule = rope
        self.tokens_have_positions = not trunk.no_embed_class
        self.num_prefix = trunk.num_prefix_tokens

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Tensor | None]]:
        """(I, 3, H, W) → (I, prefix + N, C), the grid, and ``rope``: the rotary table of this grid, or None."""
        x = self.patch_embed(images)  # (I, H, W, C)
        grid = (x.shape[1], x.shape[2])
        x = x.flatten(1, 2)
        prefix = [t.expand(x.shape[0], -1, -1) for t in (self.cls_token, self.reg_token) if t is not None]
        positions = self.pos_embed
        if positions is not None:
            positions = resample_abs_pos_embed(
                positions,
                new_size=list(grid),
                old_size=list(self.patch_embed.grid_size),
                num_prefix_tokens=self.num_prefix if self.tokens_have_positions else 0,
            )
        if positions is not None and not self.tokens_have_positions:
            x = x + positions
        if prefix:
            x = torch.cat([*prefix, x], dim=1)
        if positions is not None and self.tokens_have_positions:
            x = x + positions
        rope = None if self.rope is None else self.rope.get_embed(shape=grid)
        return self.norm_pre(x), grid, {"rope": rope}


class Plain(TimmTrunk):
    """A plain transformer built from timm's modules."""

    @classmethod
    def of_blocks(
        cls,
        trunk: TimmModule,
        blocks: Sequence[Mapping[str, nn.Module]],
        rope: nn.Module | None,
        *,
        name: str,
        **facts: Any,
    ) -> Self:
        """A trunk with these blocks; for ``facts`` see :meth:`TimmTrunk.assemble`."""
        stride = trunk.patch_embed.patch_size[0]
        backbone = cls.assemble(
            trunk,
            name=name,
            stem=PlainStem(trunk, rope),
            stages=split_stages(blocks, name),
            features=[FeatureInfo(trunk.embed_dim, stride)] * NUM_TAPS,
            multiple=stride,
            num_prefix=trunk.num_prefix_tokens,
            **facts,
        )
        backbone.most_prompts = 4 * trunk.patch_embed.num_patches
        return backbone
