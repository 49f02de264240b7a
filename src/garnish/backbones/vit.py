"""Plain vision transformers: timm's ViT family (ViT, DeiT III, DINO, DINOv2, SigLIP, CLIP trunks).

Dosovitskiy et al., ICLR 2021; Oquab et al., DINOv2, TMLR 2024.
Shape letters: I pictures, N tokens, H W grid, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from timm.models.vision_transformer import Block, checkpoint_filter_fn

from garnish.backbones.architecture import Activation, Flag, Norm, Tokens, read_architecture
from garnish.backbones.backbone import Small
from garnish.backbones.given_weights import Weights
from garnish.backbones.plain_blocks import Plain, PlainOptions
from garnish.backbones.timm_models import TimmModule, create_timm
from garnish.backbones.timm_reading import activation_of, as_read, is_there, norm_of, ratio_of
from garnish.backbones.transformers_names import translating
from garnish.checking.plain_data import Json
from garnish.engine.blocks import Branch, Residual
from garnish.errors import OptionError


@final
@dataclass(frozen=True, kw_only=True)
class ViTOptions(PlainOptions):
    """The architecture of a ViT; what is None is as the name says.

    Attributes:
        reg_tokens: number of register tokens.
        pos_embed: learnt positions, or none.
        pre_norm: whether a norm stands before the blocks.
        proj_bias: whether attention's and the MLP's last layers have a bias.
        scale_attn_norm: whether a norm stands before attention's last layer.
        scale_mlp_norm: whether one stands inside the MLP.
        global_pool: what the classifier would pool, which decides whether a class token is needed; a trunk has none.
        final_norm, fc_norm, pool_include_prefix: norms behind the blocks and what is pooled, likewise.
        act_layer: activation.
        norm_layer: norm of the blocks.
        embed_norm_layer: norm behind the patch embedding.
    """

    reg_tokens: Tokens | None = None
    pos_embed: Literal["learn", "none", ""] | None = None
    pre_norm: Flag | None = None
    proj_bias: Flag | None = None
    scale_attn_norm: Flag | None = None
    scale_mlp_norm: Flag | None = None
    global_pool: Literal["", "avg", "avgmax", "max", "token", "map", "prr"] | None = None
    final_norm: Flag | None = None
    fc_norm: Flag | None = None
    pool_include_prefix: Flag | None = None
    act_layer: Activation | None = None
    norm_layer: Norm | None = None
    embed_norm_layer: Norm | None = None


_DIALECTS = translating("ViT", checkpoint_filter_fn)


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
    def options_of(cls, model: TimmModule) -> dict[str, Json]:
        """What a ``VisionTransformer`` of timm's says of how it was built."""
        attn, mlp = model.blocks[0].attn, model.blocks[0].mlp
        return super().options_of(model) | as_read(
            mlp_ratio=ratio_of(mlp.fc1.out_features, model.embed_dim),
            qkv_bias=attn.qkv.bias is not None,
            init_values=1.0 if is_there(model.blocks[0].ls1) else 0.0,  # where it started no longer matters
            reg_tokens=model.num_reg_tokens,
            pos_embed="none" if model.pos_embed is None else "learn",
            pre_norm=is_there(model.norm_pre),
            proj_bias=attn.proj.bias is not None,
            scale_attn_norm=is_there(attn.norm),
            scale_mlp_norm=is_there(mlp.norm),
            act_layer=activation_of(mlp),
            norm_layer=norm_of(model.blocks[0].norm1),
        )

    @classmethod
    def create(cls, name: str, weights: Weights, options: Mapping[str, object]) -> ViT:
        """Build ``name``; ``options``: fields of :class:`ViTOptions`."""
        arch = read_architecture(name, options, ViTOptions)
        vit, licence, source = create_timm(name, weights, arch, {"dynamic_img_size": True}, _DIALECTS)
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
        return cls.of_blocks(
            vit, blocks, None, arch, name=name, options=options, licence=licence, weights_source=source
        )
