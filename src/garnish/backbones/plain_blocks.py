"""Base of the plain (single-stride) transformers: their stem, and the split of their blocks into four stages.

Shape letters: I pictures, N tokens, H W grid, C channels.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from garnish.backbones.architecture import (
    Depth,
    Epsilon,
    Flag,
    Heads,
    Mean,
    Patch,
    Rate,
    Ratio,
    Scale,
    Size,
    Std,
    Width,
)
from garnish.backbones.open_positions import resampled, rotary
from garnish.backbones.timm_models import TimmModule, TimmTrunk, noise_picture
from garnish.backbones.timm_reading import as_read, dropouts_of, is_there, rates_of, same_sides
from garnish.checking.plain_data import Json
from garnish.engine.blocks import FeatureInfo, Stage
from garnish.errors import OptionError

#: A plain trunk is read at this many depths, equally spaced (DINOv2 and DPT read blocks 3, 6, 9, 12 of 12).
NUM_TAPS = 4


@dataclass(frozen=True, kw_only=True)
class PlainOptions(ABC):  # noqa: B024 (fields alone)
    """What the plain families take alike; what is None is as the name says.

    Attributes:
        img_size: side of the pictures, or (height, width), that the position embedding is made for, pixels; pictures
            of other sizes are taken as well, for it is resampled.
        patch_size: side of a patch, pixels.
        embed_dim: channels, a multiple of ``num_heads``.
        depth: number of blocks, 4 at least.
        num_heads: attention heads.
        mlp_ratio: hidden width of an MLP, divided by the channels.
        qkv_bias: whether queries, keys and values have a bias.
        qk_norm: whether queries and keys are normalised.
        init_values: start of the layer scale.
        class_token: whether there is a class token.
        no_embed_class: whether class and register tokens go without position.
        dynamic_img_pad: whether pictures are padded to whole patches; garnish pads them itself.
        attn_drop_rate: dropout of attention weights in training.
        proj_drop_rate: dropout behind attention and MLP in training.
        drop_path_rate: stochastic depth of the last block in training, growing linearly from 0 at the first.
        drop_rate, pos_drop_rate, patch_drop_rate: dropouts of the classifier and in front of the blocks, which a
            dense trunk does not run; taken since older bundles may have them.
        layer_norm_eps: epsilon of all norms.
        pos_antialias: whether learnt positions are resampled with antialiasing, as timm does; transformers does not.
        mean, std: what red, green and blue in [0, 1] are normalised by.
    """

    img_size: Size | None = None
    patch_size: Patch | None = None
    embed_dim: Width | None = None
    depth: Depth | None = None
    num_heads: Heads | None = None
    mlp_ratio: Ratio | None = None
    qkv_bias: Flag | None = None
    qk_norm: Flag | None = None
    init_values: Scale | None = None
    class_token: Flag | None = None
    no_embed_class: Flag | None = None
    dynamic_img_pad: Flag | None = None
    attn_drop_rate: Rate | None = None
    proj_drop_rate: Rate | None = None
    drop_path_rate: Rate | None = None
    drop_rate: Rate | None = None
    pos_drop_rate: Rate | None = None
    patch_drop_rate: Rate | None = None
    layer_norm_eps: Epsilon | None = None
    pos_antialias: Flag | None = None
    mean: Mean | None = None
    std: Std | None = None


def tap_ends(depth: int) -> list[int]:
    """Behind how many of a plain trunk's blocks its maps are read."""
    return [round(depth * (i + 1) / NUM_TAPS) for i in range(NUM_TAPS)]


def split_stages(blocks: Sequence[Mapping[str, nn.Module]], name: str) -> list[Stage]:
    """Split a plain trunk's blocks into ``NUM_TAPS`` stages; a feature map is read at the end of each."""
    if len(blocks) < NUM_TAPS:
        raise OptionError(f"{name}: {len(blocks)} blocks are fewer than the {NUM_TAPS} feature maps; use depth >= 4")
    ends = tap_ends(len(blocks))
    return [
        Stage(nn.Identity(), blocks[start:end], nn.Identity()) for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]


class PlainStem(nn.Module):
    """Patch embedding, class and register tokens, position embedding resampled to the grid, optional rotary table."""

    def __init__(self, trunk: TimmModule, rope: nn.Module | None, *, antialias: bool) -> None:
        super().__init__()
        self.patch_embed = trunk.patch_embed
        self.cls_token = trunk.cls_token
        self.reg_token = trunk.reg_token
        self.pos_embed = trunk.pos_embed
        self.norm_pre = trunk.norm_pre
        self.rope: TimmModule = rope
        self.tokens_have_positions = not trunk.no_embed_class
        self.num_prefix = trunk.num_prefix_tokens
        self.antialias = antialias

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int], dict[str, Tensor | None]]:
        """(I, 3, H, W) → (I, prefix + N, C), the grid, and ``rope``: the rotary table of this grid, or None."""
        x = self.patch_embed(images)  # (I, H, W, C)
        grid = (x.shape[1], x.shape[2])
        x = x.flatten(1, 2)
        prefix = [t.expand(x.shape[0], -1, -1) for t in (self.cls_token, self.reg_token) if t is not None]
        positions = self.pos_embed
        if positions is not None:
            old, prefix_positions = self.patch_embed.grid_size, self.num_prefix if self.tokens_have_positions else 0
            if torch.compiler.is_exporting():
                positions = resampled(positions, old, grid, prefix_positions, antialias=self.antialias)
            else:
                positions = resample_abs_pos_embed(
                    positions,
                    new_size=list(grid),
                    old_size=list(old),
                    num_prefix_tokens=prefix_positions,
                    antialias=self.antialias,
                )
        if positions is not None and not self.tokens_have_positions:
            x = x + positions
        if prefix:
            x = torch.cat([*prefix, x], dim=1)
        if positions is not None and self.tokens_have_positions:
            x = x + positions
        rope = None
        if self.rope is not None:
            rope = rotary(self.rope, grid) if torch.compiler.is_exporting() else self.rope.get_embed(shape=grid)
        return self.norm_pre(x), grid, {"rope": rope}


class Plain(TimmTrunk):
    """A plain transformer built from timm's modules."""

    least_blocks = NUM_TAPS

    @classmethod
    def options_of(cls, model: TimmModule) -> dict[str, Json]:
        """What ViT and Eva say alike of how they were built."""
        embed, block = model.patch_embed, model.blocks[0]
        return as_read(
            img_size=embed.img_size and same_sides(embed.img_size),
            patch_size=same_sides(embed.patch_size),
            embed_dim=model.embed_dim,
            depth=len(model.blocks),
            num_heads=block.attn.num_heads,
            qk_norm=is_there(block.attn.q_norm),
            class_token=model.cls_token is not None,
            no_embed_class=bool(model.no_embed_class),
            # a trunk pools nothing, but timm builds no model that would pool a token that is not there
            global_pool="avg" if model.cls_token is None else None,
            **dropouts_of(block.attn),
            **rates_of(model),
        )

    def maps_of(self, model: TimmModule) -> tuple[Tensor, Sequence[Tensor]]:
        """Of a picture of 3 x 5 patches, for which the model's positions are resampled by timm."""
        images = noise_picture(3 * self.multiple, 5 * self.multiple)
        model.set_input_size(images.shape[-2:])
        ends = [end - 1 for end in tap_ends(len(model.blocks))]
        return images, model.forward_intermediates(images, indices=ends, norm=False, intermediates_only=True)

    @classmethod
    def of_blocks(
        cls,
        trunk: TimmModule,
        blocks: Sequence[Mapping[str, nn.Module]],
        rope: nn.Module | None,
        arch: PlainOptions,
        *,
        name: str,
        **facts: Any,
    ) -> Self:
        """A trunk with these blocks; for ``facts`` see :meth:`TimmTrunk.assemble`."""
        stride = trunk.patch_embed.patch_size[0]
        if arch.layer_norm_eps is not None:
            for module in trunk.modules():
                if hasattr(module, "eps"):
                    module.eps = arch.layer_norm_eps
        backbone = cls.assemble(
            trunk,
            name=name,
            stem=PlainStem(trunk, rope, antialias=arch.pos_antialias is not False),
            stages=split_stages(blocks, name),
            features=[FeatureInfo(trunk.embed_dim, stride)] * NUM_TAPS,
            multiple=stride,
            num_prefix=trunk.num_prefix_tokens,
            **facts,
        )
        backbone.most_prompts = 4 * trunk.patch_embed.num_patches
        return backbone
