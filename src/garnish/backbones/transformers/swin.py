"""transformers' Swin (``SwinModel``, ``SwinForImageClassification``, ``SwinBackbone``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, final

from torch import Tensor, nn

from garnish.backbones.architecture import Depths, Flag, Rate, Ratio, StageHeads, Width
from garnish.backbones.transformers.config_fields import (
    Absent,
    Channels,
    Gelu,
    Nought,
    Square,
    read_config,
    side,
)
from garnish.backbones.transformers.nearest_name import nearest_name
from garnish.backbones.transformers.renaming import QKV, Rules, attention, part_of, renamed
from garnish.backbones.transformers.transformers_model import Architecture, TransformersModel
from garnish.checking.plain_data import Json, Within, integers

_COMMON = {
    "img_size": 224, "patch_size": 4, "window_size": 7, "mlp_ratio": 4.0, "qkv_bias": True, "attn_drop_rate": 0.0,
    "drop_path_rate": 0.1,
}  # fmt: skip
_SMALL = {**_COMMON, "embed_dim": 96, "num_heads": [3, 6, 12, 24]}
_BASE = {**_COMMON, "embed_dim": 128, "num_heads": [4, 8, 16, 32], "depths": [2, 2, 18, 2]}
_LARGE = {**_COMMON, "embed_dim": 192, "num_heads": [6, 12, 24, 48], "depths": [2, 2, 18, 2]}
_WIDE = {"img_size": 384, "window_size": 12}
_NAMES: dict[str, dict[str, Json]] = {
    "swin_tiny_patch4_window7_224": {**_SMALL, "depths": [2, 2, 6, 2]},
    "swin_small_patch4_window7_224": {**_SMALL, "depths": [2, 2, 18, 2]},
    "swin_base_patch4_window7_224": _BASE,
    "swin_base_patch4_window12_384": {**_BASE, **_WIDE},
    "swin_large_patch4_window7_224": _LARGE,
    "swin_large_patch4_window12_384": {**_LARGE, **_WIDE},
}
_BLOCK, _OURS = r"encoder\.layers\.(\d+)\.blocks\.(\d+)", r"layers.\1.blocks.\2"


def _merging(match: re.Match[str]) -> str:
    """Merging belongs to the stage behind it in timm, in transformers to that before it."""
    return f"layers.{int(match[1]) + 1}.downsample"


_RULES: Rules = {
    r"embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"embeddings\.norm": "patch_embed.norm",
    r"embeddings\.mask_token": None,  # of training
    rf"{_BLOCK}\.attention\.(?:self|relative_position_bias)\.relative_position_index": None,  # a constant
    rf"{_BLOCK}\.attention\.(?:self|relative_position_bias)\.relative_position_bias_table": (
        rf"{_OURS}.attn.relative_position_bias_table"
    ),
    **attention(_BLOCK, r"attention\.self", _OURS),
    rf"{_BLOCK}\.layernorm_before": rf"{_OURS}.norm1",
    rf"{_BLOCK}\.layernorm_after": rf"{_OURS}.norm2",
    rf"{_BLOCK}\.(?:intermediate\.dense|mlp\.fc1)": rf"{_OURS}.mlp.fc1",
    rf"{_BLOCK}\.(?:output\.dense|mlp\.fc2)": rf"{_OURS}.mlp.fc2",
    r"encoder\.layers\.(\d+)\.downsample": _merging,
    r"(?:swin\.)?layernorm": "norm",  # SwinBackbone keeps it in its model, and writes the rest without
    "hidden_states_norms": None,  # of SwinBackbone, behind the maps
    "pooler": None,
    "classifier": None,
}


@final
@dataclass(frozen=True, kw_only=True)
class _Config:
    image_size: Square = 224
    patch_size: Square = 4
    num_channels: Channels = 3
    embed_dim: Width = 96
    depths: Depths = (2, 2, 6, 2)
    num_heads: StageHeads = (3, 6, 12, 24)
    window_size: Annotated[int, integers(1, 32)] = 7
    mlp_ratio: Ratio = 4.0
    qkv_bias: Flag = True
    hidden_dropout_prob: Nought = 0.0
    attention_probs_dropout_prob: Rate = 0.0
    drop_path_rate: Rate = 0.1
    hidden_act: Gelu = "gelu"
    use_absolute_embeddings: Absent = False
    layer_norm_eps: Annotated[float, Within("0.00001, as all norms of a Swin have", lambda eps: eps == 1e-5)] = 1e-5


@final
class SwinModel(TransformersModel):
    """A Swin of the first version.

    It computes the same wherever each map is larger than a window on both sides, or a square of one window. On smaller
    maps transformers fails; on a map whose one side is a window's it does not shift the other side either, and keeps
    that for later pictures.
    """

    model_type = "swin"
    family = "Swin"

    @classmethod
    def architecture(cls, config: Mapping[str, Json], where: str) -> Architecture:
        """As timm's Swin of the nearest sizes."""
        said = read_config(config, _Config, where)
        wanted = {
            "img_size": side(said.image_size),
            "patch_size": side(said.patch_size),
            "embed_dim": said.embed_dim,
            "depths": list(said.depths),
            "num_heads": list(said.num_heads),
            "window_size": said.window_size,
            "mlp_ratio": said.mlp_ratio,
            "qkv_bias": said.qkv_bias,
            "attn_drop_rate": said.attention_probs_dropout_prob,
            "drop_path_rate": said.drop_path_rate,
        }
        return nearest_name(_NAMES, wanted)

    @classmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Queries, keys and values become one layer."""
        part = part_of(held, "embeddings.patch_embeddings.projection.weight")
        if part is None or not any(name.endswith(".relative_position_bias_table") for name in part):
            return None
        return renamed(part, _RULES, [QKV])

    @classmethod
    def taps(cls, modules: Sequence[str]) -> list[str]:
        """The last block of each stage."""
        found: dict[str, str] = {}
        for name in modules:
            if (match := re.fullmatch(rf"(?:.*\.)?{_BLOCK}", name)) is not None:
                found[match[1]] = name
        return list(found.values())

    @classmethod
    def side_of_check(cls, config: Mapping[str, Json]) -> int:
        """So that the last map is larger than a window: smaller ones transformers treats in its own way."""
        said = read_config(config, _Config, cls.model_type)
        stride: int = side(said.patch_size) * 2 ** (len(said.depths) - 1)
        return stride * (said.window_size + 1)

    @classmethod
    def as_described(cls, copy: nn.Module, config: Mapping[str, Json]) -> nn.Module:
        """Without what a small picture leaves behind in transformers: windows that are no longer shifted."""
        said = read_config(config, _Config, cls.model_type)
        for name, module in copy.named_modules():
            if (match := re.fullmatch(rf"(?:.*\.)?{_BLOCK}", name)) is not None:
                odd = int(match[2]) % 2
                vars(module).update(window_size=said.window_size, shift_size=said.window_size // 2 if odd else 0)
        return copy
