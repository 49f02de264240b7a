"""transformers' ViT (``ViTModel``, ``ViTForImageClassification``): Google's, DINO's, and what is trained from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from garnish.backbones.architecture import Depth, Epsilon, Flag, Heads, Rate, Width
from garnish.backbones.transformers.config_fields import (
    ACTIVATIONS,
    Activation,
    Channels,
    Nought,
    Square,
    mlp_ratio,
    read_config,
    side,
)
from garnish.backbones.transformers.nearest_name import nearest_name
from garnish.backbones.transformers.plain_taps import plain_taps
from garnish.backbones.transformers.renaming import QKV, Rules, attention, part_of, renamed
from garnish.backbones.transformers.transformers_model import Architecture, TransformersModel
from garnish.checking.plain_data import Json

_COMMON = {
    "img_size": 224, "patch_size": 16, "depth": 12, "mlp_ratio": 4.0, "qkv_bias": True, "act_layer": "gelu",
    "layer_norm_eps": 1e-6, "pos_antialias": True, "attn_drop_rate": 0.0,
}  # fmt: skip
_NAMES: dict[str, dict[str, Json]] = {
    "vit_base_patch16_224": {**_COMMON, "embed_dim": 768, "num_heads": 12},
    "vit_base_patch16_384": {**_COMMON, "embed_dim": 768, "num_heads": 12, "img_size": 384},
    "vit_base_patch32_224": {**_COMMON, "embed_dim": 768, "num_heads": 12, "patch_size": 32},
    "vit_base_patch8_224": {**_COMMON, "embed_dim": 768, "num_heads": 12, "patch_size": 8},
    "vit_tiny_patch16_224": {**_COMMON, "embed_dim": 192, "num_heads": 3},
    "vit_small_patch16_224": {**_COMMON, "embed_dim": 384, "num_heads": 6},
    "vit_small_patch8_224": {**_COMMON, "embed_dim": 384, "num_heads": 6, "patch_size": 8},
    "vit_large_patch16_224": {**_COMMON, "embed_dim": 1024, "num_heads": 16, "depth": 24},
    "vit_huge_patch14_224": {**_COMMON, "embed_dim": 1280, "num_heads": 16, "depth": 32, "patch_size": 14},
}
_BLOCK, _OURS = r"(?:encoder\.layer|layers)\.(\d+)", r"blocks.\1"
_RULES: Rules = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"embeddings\.mask_token": None,  # of training
    **attention(_BLOCK, r"attention\.attention", _OURS),
    rf"{_BLOCK}\.layernorm_before": rf"{_OURS}.norm1",
    rf"{_BLOCK}\.layernorm_after": rf"{_OURS}.norm2",
    rf"{_BLOCK}\.(?:intermediate\.dense|mlp\.fc1)": rf"{_OURS}.mlp.fc1",
    rf"{_BLOCK}\.(?:output\.dense|mlp\.fc2)": rf"{_OURS}.mlp.fc2",
    "layernorm": "norm",
    "pooler": None,
    "classifier": None,
}


@final
@dataclass(frozen=True, kw_only=True)
class _Config:
    hidden_size: Width = 768
    num_hidden_layers: Depth = 12
    num_attention_heads: Heads = 12
    intermediate_size: Width = 3072
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Nought = 0.0
    attention_probs_dropout_prob: Rate = 0.0
    layer_norm_eps: Epsilon = 1e-12
    image_size: Square = 224
    patch_size: Square = 16
    num_channels: Channels = 3
    qkv_bias: Flag = True


@final
class ViTModel(TransformersModel):
    """A ViT with a class token and learnt positions, which transformers resamples without antialiasing."""

    model_type = "vit"
    family = "ViT"

    @classmethod
    def architecture(cls, config: Mapping[str, Json], where: str) -> Architecture:
        """As timm's ViT of the nearest sizes."""
        said = read_config(config, _Config, where)
        wanted = {
            "img_size": side(said.image_size),
            "patch_size": side(said.patch_size),
            "embed_dim": said.hidden_size,
            "depth": said.num_hidden_layers,
            "num_heads": said.num_attention_heads,
            "mlp_ratio": mlp_ratio(said.intermediate_size, said.hidden_size, where),
            "qkv_bias": said.qkv_bias,
            "act_layer": ACTIVATIONS[said.hidden_act],
            "layer_norm_eps": said.layer_norm_eps,
            "pos_antialias": False,
            "attn_drop_rate": said.attention_probs_dropout_prob,
        }
        return nearest_name(_NAMES, wanted)

    @classmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Queries, keys and values become one layer."""
        part = part_of(held, "embeddings.patch_embeddings.projection.weight")
        if part is None or not any(".layernorm_before." in name for name in part):
            return None
        if any(".blocks." in name for name in part):  # a Swin's
            return None
        return renamed(part, _RULES, [QKV])

    @classmethod
    def taps(cls, modules: Sequence[str]) -> list[str]:
        """Blocks at equal distances."""
        return plain_taps(modules, _BLOCK)
