"""transformers' DINOv3 (``DINOv3ViTModel``): rotary positions, register tokens, layer scale, perhaps gated MLPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, final

from torch import Tensor

from garnish.backbones.architecture import Depth, Epsilon, Flag, Heads, Rate, Tokens, Width
from garnish.backbones.transformers.config_fields import (
    Absent,
    Channels,
    Nought,
    Present,
    Square,
    mlp_ratio,
    read_config,
    side,
)
from garnish.backbones.transformers.nearest_name import nearest_name
from garnish.backbones.transformers.plain_taps import plain_taps
from garnish.backbones.transformers.renaming import QKV, Rules, attention, part_of, renamed
from garnish.backbones.transformers.transformers_model import Architecture, TransformersModel
from garnish.checking.plain_data import Json, reals
from garnish.errors import OptionError

_COMMON = {
    "patch_size": 16, "depth": 12, "mlp_ratio": 4.0, "num_reg_tokens": 4, "rope_temperature": 100.0,
    "layer_norm_eps": 1e-5, "attn_drop_rate": 0.0, "swiglu_mlp": False, "swiglu_align_to": 0,
}  # fmt: skip
_GATED = {**_COMMON, "swiglu_mlp": True, "swiglu_align_to": 8}
_SIZES: dict[str, dict[str, Json]] = {
    "small": {**_COMMON, "embed_dim": 384, "num_heads": 6},
    "small_plus": {**_GATED, "embed_dim": 384, "num_heads": 6},
    "base": {**_COMMON, "embed_dim": 768, "num_heads": 12},
    "large": {**_COMMON, "embed_dim": 1024, "num_heads": 16, "depth": 24},
    "huge_plus": {**_GATED, "embed_dim": 1280, "num_heads": 20, "depth": 32},
}
_NAMES = {
    f"vit_{size}_patch16_dinov3{'_qkvb' * bias}": {**options, "qkv_bias": bias}
    for size, options in _SIZES.items()
    for bias in (True, False)
}
_BLOCK, _OURS = r"(?:model\.)?layer\.(\d+)", r"blocks.\1"
_RULES: Rules = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.register_tokens": "reg_token",
    r"embeddings\.patch_embeddings": "patch_embed.proj",
    r"embeddings\.mask_token": None,  # of training
    r"rope_embeddings": None,  # frequencies, which the configuration gives
    rf"{_BLOCK}\.attention\.([qv])_proj\.bias": rf"{_OURS}.attn.\2_bias",
    **attention(_BLOCK, r"attention", _OURS),
    rf"{_BLOCK}\.(norm[12])": rf"{_OURS}.\2",
    rf"{_BLOCK}\.layer_scale([12])\.lambda1": rf"{_OURS}.gamma_\2",
    rf"{_BLOCK}\.mlp\.gate_proj": rf"{_OURS}.mlp.fc1_g",
    rf"{_BLOCK}\.mlp\.up_proj": rf"{_OURS}.mlp.fc1",
    rf"{_BLOCK}\.mlp\.down_proj": rf"{_OURS}.mlp.fc2",
}


@final
@dataclass(frozen=True, kw_only=True)
class _Config:
    patch_size: Square = 16
    hidden_size: Width = 384
    intermediate_size: Width = 1536
    num_hidden_layers: Depth = 12
    num_attention_heads: Heads = 6
    hidden_act: Literal["gelu", "gelu_python", "silu", "swish"] = "gelu"
    attention_dropout: Rate = 0.0
    layer_norm_eps: Epsilon = 1e-5
    rope_theta: Annotated[float, reals(1, 1e9)] = 100.0
    rope_scaling: None = None
    num_channels: Channels = 3
    query_bias: Flag = True
    key_bias: Absent = False
    value_bias: Flag = True
    proj_bias: Present = True
    mlp_bias: Present = True
    drop_path_rate: Nought = 0.0
    use_gated_mlp: Flag = False
    num_register_tokens: Tokens = 0


@final
class DINOv3ViTModel(TransformersModel):
    """DINOv3. Its random shifts and scales of positions in training are left out: a frozen trunk's maps stay the same.

    With a gated MLP transformers' activation is the gate's; both libraries have silu there in all released models.
    """

    model_type = "dinov3_vit"
    family = "Eva"

    @classmethod
    def architecture(cls, config: Mapping[str, Json], where: str) -> Architecture:
        """As timm's DINOv3 of the nearest size, with MLPs of the same kind."""
        said = read_config(config, _Config, where)
        if said.query_bias != said.value_bias:
            raise OptionError(f"{where}: query_bias and value_bias differ; DINOv3 trunks have both or none")
        if (said.hidden_act in ("silu", "swish")) != said.use_gated_mlp:
            raise OptionError(
                f"{where}: hidden_act {said.hidden_act} with use_gated_mlp {str(said.use_gated_mlp).lower()}; "
                "DINOv3 trunks have silu in gated MLPs and gelu in others"
            )
        wanted = {
            "patch_size": side(said.patch_size),
            "embed_dim": said.hidden_size,
            "depth": said.num_hidden_layers,
            "num_heads": said.num_attention_heads,
            "mlp_ratio": mlp_ratio(said.intermediate_size, said.hidden_size, where),
            "qkv_bias": said.query_bias,
            "num_reg_tokens": said.num_register_tokens,
            "rope_temperature": said.rope_theta,
            "layer_norm_eps": said.layer_norm_eps,
            "attn_drop_rate": said.attention_dropout,
            "swiglu_mlp": said.use_gated_mlp,
            # what the hidden width is rounded up to; with 0 timm has both halves of a gated MLP in one layer
            "swiglu_align_to": 1 if said.use_gated_mlp and said.intermediate_size % 8 else None,
        }
        return nearest_name({n: o for n, o in _NAMES.items() if o["swiglu_mlp"] == said.use_gated_mlp}, wanted)

    @classmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Weights of queries, keys and values become one layer; their biases stay apart, and keys have none."""
        part = part_of(held, "embeddings.patch_embeddings.weight")
        if part is None or not any(".layer_scale1." in name for name in part):
            return None
        found = renamed(part, _RULES, [QKV])
        for gate in [name for name in found if ".mlp.fc1_g." in name]:
            plain = gate.replace(".fc1_g.", ".fc1.")
            if plain in found:
                found[plain.replace(".fc1.", ".fc1_x.")] = found.pop(plain)
        if "reg_token" in found and not found["reg_token"].shape[1]:
            del found["reg_token"]  # transformers keeps an empty tensor
        return found

    @classmethod
    def taps(cls, modules: Sequence[str]) -> list[str]:
        """Blocks at equal distances."""
        return plain_taps(modules, _BLOCK)
