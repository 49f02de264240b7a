"""Plain vision transformers: timm's ViT family (ViT, DeiT III, DINO, DINOv2, SigLIP, CLIP trunks).

Dosovitskiy et al., ICLR 2021; Oquab et al., DINOv2, TMLR 2024.
Shape letters: I pictures, N tokens, H W grid, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.vision_transformer import Block, checkpoint_filter_fn

from garnish.backbones.plain import NUM_TAPS, PlainStem, split_stages
from garnish.backbones.timm_models import TimmTrunk, create_timm
from garnish.engine.blocks import Branch, FeatureInfo, Residual
from garnish.errors import OptionError


class ViT(TimmTrunk):
    """A plain transformer as four stages of equal depth, all of one stride."""

    timm_module = "vision_transformer"

    @classmethod
    def create(cls, name: str, weights: str | bool | None, options: Mapping[str, Any]) -> ViT:
        """Build ``name``; ``options`` are timm's constructor arguments (``embed_dim``, ``depth``, ``num_heads``, …)."""
        vit, licence, source = create_timm(name, weights, options, {"dynamic_img_size": True}, checkpoint_filter_fn)
        for block in vit.blocks:
            if type(block) is not Block:
                raise OptionError(f"{name}: blocks of type {type(block).__name__} are not supported; use a plain ViT")
        patch = vit.patch_embed.patch_size
        if patch[0] != patch[1]:
            raise OptionError(f"{name}: patches of {patch[0]}x{patch[1]} pixels are not square; use a square patch")
        blocks = [
            {
                "attn": Residual(Branch(b.norm1, b.attn, b.ls1, b.drop_path1)),
                "mlp": Residual(Branch(b.norm2, b.mlp, b.ls2, b.drop_path2)),
            }
            for b in vit.blocks
        ]
        backbone = cls.assemble(
            vit,
            name=name,
            options=options,
            stem=PlainStem(vit, rope=None),
            stages=split_stages(blocks, name),
            features=[FeatureInfo(vit.embed_dim, patch[0])] * NUM_TAPS,
            multiple=patch[0],
            num_prefix=vit.num_prefix_tokens,
            licence=licence,
            weights_source=source,
        )
        backbone.most_prompts = 4 * vit.patch_embed.num_patches
        return backbone
