"""DINOv3 and its relatives: timm's ``Eva`` (rotary positions, ``gamma_1`` as a bare parameter, separate qkv bias).

Siméoni et al., DINOv3, 2025. Shape letters: I pictures, N tokens, H W grid, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from timm.models.eva import EvaAttention, EvaBlock, checkpoint_filter_fn
from torch import Tensor, nn

from garnish.backbones.backbone import Small
from garnish.backbones.plain_blocks import Plain
from garnish.backbones.timm_models import create_timm
from garnish.engine.blocks import Branch, LayerScale, Residual
from garnish.errors import OptionError


class Eva(Plain):
    """A plain transformer with rotary position embedding, split into four stages of equal depth."""

    timm_module = "eva"
    small: ClassVar[Small] = {
        "dinov3": (
            "vit_small_patch16_dinov3",
            {"img_size": 64, "embed_dim": 48, "depth": 4, "num_heads": 3, "init_values": 1.0},
        )
    }

    @classmethod
    def create(cls, name: str, weights: str | bool | None, options: Mapping[str, object]) -> Eva:
        """Build ``name``; ``options`` are timm's constructor arguments (``embed_dim``, ``depth``, ``num_heads``, …)."""
        eva, licence, source = create_timm(name, weights, options, {"dynamic_img_size": True}, checkpoint_filter_fn)
        if eva.rope_mixed:
            raise OptionError(
                f"{name}: rotary positions that differ by depth are not supported; use a DINOv3 or EVA-02 ViT"
            )
        for block in eva.blocks:
            if type(block) is not EvaBlock:
                raise OptionError(f"{name}: blocks of type {type(block).__name__} are not supported; use a DINOv3 ViT")
            if isinstance(block.attn, EvaAttention):
                # otherwise the module reads qkv.weight directly, past an adapter, which would train nothing
                block.attn.qkv_bias_separate = True
        blocks = [
            {
                "attn": Residual(Branch(b.norm1, b.attn, _scale(b.gamma_1), b.drop_path1), takes=("rope",)),
                "mlp": Residual(Branch(b.norm2, b.mlp, _scale(b.gamma_2), b.drop_path2)),
            }
            for b in eva.blocks
        ]
        return cls.of_blocks(eva, blocks, eva.rope, name=name, options=options, licence=licence, weights_source=source)

    def prompted(self, extras: Mapping[str, Tensor | None], count: int) -> Mapping[str, Tensor | None]:
        """Extras with rotary entries for prompts, which have no position and are not rotated (sine 0, cosine 1)."""
        rope = extras["rope"]
        if rope is None:
            return extras
        sine, cosine = rope.new_zeros(count, rope.shape[1] // 2), rope.new_ones(count, rope.shape[1] // 2)
        return {**extras, "rope": torch.cat([torch.cat([sine, cosine], 1), rope])}


def _scale(gamma: nn.Parameter | None) -> nn.Module:
    return nn.Identity() if gamma is None else LayerScale(gamma)
