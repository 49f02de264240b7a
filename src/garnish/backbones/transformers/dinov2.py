"""transformers' DINOv2 (``Dinov2Model``), without and with register tokens (``Dinov2WithRegistersModel``)."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from garnish.backbones.architecture import Depth, Epsilon, Flag, Heads, Rate, Ratio, Tokens, Width
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
from garnish.backbones.transformers.renaming import QKV, Rules, Stacked, attention, part_of, renamed
from garnish.backbones.transformers.transformers_model import Architecture, TransformersModel
from garnish.checking.plain_data import Json

_COMMON = {
    "img_size": 518, "patch_size": 14, "depth": 12, "mlp_ratio": 4.0, "qkv_bias": True, "act_layer": "gelu",
    "layer_norm_eps": 1e-6, "attn_drop_rate": 0.0,
}  # fmt: skip
#: size → its options; the giant has gated MLPs, and so their activation
_SIZES: dict[str, dict[str, Json]] = {
    "small": {**_COMMON, "embed_dim": 384, "num_heads": 6},
    "base": {**_COMMON, "embed_dim": 768, "num_heads": 12},
    "large": {**_COMMON, "embed_dim": 1024, "num_heads": 16, "depth": 24},
    "giant": {**_COMMON, "embed_dim": 1536, "num_heads": 24, "depth": 40, "mlp_ratio": 8192 / 1536, "act_layer": None},
}
_BLOCK, _OURS = r"encoder\.layer\.(\d+)", r"blocks.\1"
_RULES: Rules = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.register_tokens": "reg_token",
    r"embeddings\.position_embeddings": "pos_embed",
    r"embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"embeddings\.mask_token": None,  # of training
    **attention(_BLOCK, r"attention\.attention", _OURS),
    rf"{_BLOCK}\.(norm[12])": rf"{_OURS}.\2",
    rf"{_BLOCK}\.layer_scale([12])\.lambda1": rf"{_OURS}.ls\2.gamma",
    rf"{_BLOCK}\.mlp\.weights_in": rf"{_OURS}.mlp.fc1",
    rf"{_BLOCK}\.mlp\.(?:weights_out|down_proj)": rf"{_OURS}.mlp.fc2",
    rf"{_BLOCK}\.mlp\.(fc[12]|gate_proj|up_proj)": rf"{_OURS}.mlp.\2",
    "layernorm": "norm",
    "classifier": None,
}
#: transformers 5 has a gated MLP's first layer in two
_GATED = Stacked(("gate_proj", "up_proj"), "fc1")


@dataclass(frozen=True, kw_only=True)
class _Fields(ABC):  # noqa: B024 (fields alone)
    hidden_size: Width = 768
    num_hidden_layers: Depth = 12
    num_attention_heads: Heads = 12
    mlp_ratio: Ratio = 4
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: Nought = 0.0
    attention_probs_dropout_prob: Rate = 0.0
    layer_norm_eps: Epsilon = 1e-6
    image_size: Square = 224
    patch_size: Square = 14
    num_channels: Channels = 3
    qkv_bias: Flag = True
    drop_path_rate: Nought = 0.0
    use_swiglu_ffn: Flag = False


@final
@dataclass(frozen=True, kw_only=True)
class _Config(_Fields):
    pass


@final
@dataclass(frozen=True, kw_only=True)
class _RegistersConfig(_Fields):
    patch_size: Square = 16
    num_register_tokens: Tokens = 4


class _Dinov2(TransformersModel, ABC):
    """What both have alike: a class token, learnt positions, layer scale, perhaps gated MLPs."""

    family = "ViT"

    @classmethod
    def taps(cls, modules: Sequence[str]) -> list[str]:
        """Blocks at equal distances."""
        return plain_taps(modules, _BLOCK)


@final
class Dinov2Model(_Dinov2):
    """DINOv2 without register tokens; its positions are resampled without antialiasing."""

    model_type = "dinov2"

    @classmethod
    def architecture(cls, config: Mapping[str, Json], where: str) -> Architecture:
        """As timm's DINOv2 of the nearest size, with MLPs of the same kind."""
        return _nearest(
            read_config(config, _Config, where), "vit_{}_patch14_dinov2", {"pos_antialias": (True, False)}, where
        )

    @classmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Queries, keys and values become one layer, and so do the two of a gated MLP."""
        part = _part(held)
        if part is None or "embeddings.register_tokens" in part:
            return None
        return renamed(part, _RULES, [QKV, _GATED])


@final
class Dinov2WithRegistersModel(_Dinov2):
    """DINOv2 with register tokens, which have no positions; those of patches are resampled with antialiasing."""

    model_type = "dinov2_with_registers"

    @classmethod
    def architecture(cls, config: Mapping[str, Json], where: str) -> Architecture:
        """As timm's DINOv2 with four register tokens of the nearest size, with MLPs of the same kind."""
        said = read_config(config, _RegistersConfig, where)
        more = {"reg_tokens": (4, said.num_register_tokens)}
        return _nearest(said, "vit_{}_patch14_reg4_dinov2", more, where)

    @classmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """As without registers; the class token's position, which timm does not have here, is added to the token."""
        part = _part(held)
        if part is None or "embeddings.register_tokens" not in part:
            return None
        found = renamed(part, _RULES, [QKV, _GATED])
        positions, token = found.get("pos_embed"), found.get("cls_token")
        if positions is not None and token is not None and positions.shape[2:] == token.shape[2:]:
            found["cls_token"], found["pos_embed"] = token + positions[:, :1], positions[:, 1:]
        return found


def _part(held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    part = part_of(held, "embeddings.position_embeddings")
    return part if part and any(".layer_scale1." in name for name in part) else None


def _nearest(said: _Fields, names: str, more: Mapping[str, tuple[Json, Json]], where: str) -> Architecture:
    """``names``: with a place for the size; ``more``: option → (as these names say, as wanted)."""
    hidden = int(said.hidden_size * said.mlp_ratio)
    if said.use_swiglu_ffn:  # two thirds, rounded up to eights, of which timm counts both halves
        hidden = 2 * ((int(hidden * 2 / 3) + 7) // 8 * 8)
    wanted = {
        "img_size": side(said.image_size),
        "patch_size": side(said.patch_size),
        "embed_dim": said.hidden_size,
        "depth": said.num_hidden_layers,
        "num_heads": said.num_attention_heads,
        "mlp_ratio": mlp_ratio(hidden, said.hidden_size, where),
        "qkv_bias": said.qkv_bias,
        "act_layer": None if said.use_swiglu_ffn else ACTIVATIONS[said.hidden_act],
        "layer_norm_eps": said.layer_norm_eps,
        "attn_drop_rate": said.attention_probs_dropout_prob,
        **{option: value for option, (_, value) in more.items()},
    }
    own = {option: value for option, (value, _) in more.items()}
    gated = {size: options for size, options in _SIZES.items() if (size == "giant") == said.use_swiglu_ffn}
    return nearest_name({names.format(size): {**options, **own} for size, options in gated.items()}, wanted)
