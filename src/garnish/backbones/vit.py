"""Plain vision transformers: timm's ViT family (ViT, DeiT III, DINO, DINOv2, SigLIP, CLIP trunks).

Dosovitskiy et al., ICLR 2021; Oquab et al., DINOv2, TMLR 2024.
Shape letters: I pictures, N tokens, H W grid, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from timm.models.vision_transformer import Block, checkpoint_filter_fn

from garnish.backbones.backbone import Small
from garnish.backbones.plain_blocks import Plain
from garnish.backbones.timm_models import create_timm
from garnish.engine.blocks import Branch, Residual
from garnish.errors import OptionError


class ViT(Plain):
    """A plain vision transformer, split into four stages of equal depth and one stride."""

    timm_module = "vision_transformer"
    small: ClassVar[Small] = {
        "vit": ("vit_tiny_patch16_224", {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3}),
        "dinov2": (
            "vit_small_patch14_dinov2",
            {"img_size": 56, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0},
        ),
    }

    @classmethod
    def create(cls, name: str, weights: str | bool | None, options: Mapping[str, object]) -> ViT:
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
        return cls.of_blocks(vit, blocks, None, name=name, options=options, licence=licence, weights_source=source)
