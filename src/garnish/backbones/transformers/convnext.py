"""transformers' ConvNeXts: ``ConvNextModel``, ``ConvNextV2Model`` and ``DINOv3ConvNextModel``."""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

from torch import Tensor

from garnish.backbones.architecture import Depths, Epsilon, Rate, Stride, Widths
from garnish.backbones.transformers.config_fields import ACTIVATIONS, Activation, Channels, read_config
from garnish.backbones.transformers.nearest_name import nearest_name
from garnish.backbones.transformers.renaming import Rules, part_of, renamed
from garnish.backbones.transformers.transformers_model import Architecture, TransformersModel
from garnish.checking.plain_data import Json, Within, reals

_COMMON = {"patch_size": 4, "act_layer": "gelu", "norm_eps": 1e-6, "drop_path_rate": 0.0}
_TINY, _DEEP = [3, 3, 9, 3], [3, 3, 27, 3]
_SIZES: dict[str, dict[str, Json]] = {
    "tiny": {**_COMMON, "dims": [96, 192, 384, 768], "depths": _TINY},
    "small": {**_COMMON, "dims": [96, 192, 384, 768], "depths": _DEEP},
    "base": {**_COMMON, "dims": [128, 256, 512, 1024], "depths": _DEEP},
    "large": {**_COMMON, "dims": [192, 384, 768, 1536], "depths": _DEEP},
}
_V1 = {f"convnext_{name}": options for name, options in _SIZES.items()}
_V1["convnext_xlarge"] = {**_COMMON, "dims": [256, 512, 1024, 2048], "depths": _DEEP}
_V2 = {f"convnextv2_{name}": options for name, options in _SIZES.items()}
_V2["convnextv2_nano"] = {**_COMMON, "dims": [80, 160, 320, 640], "depths": [2, 2, 8, 2]}
_V2["convnextv2_huge"] = {**_COMMON, "dims": [352, 704, 1408, 2816], "depths": _DEEP}

_BLOCK, _OURS = r"encoder\.stages\.(\d+)\.layers\.(\d+)", r"stages.\1.blocks.\2"
_RULES: Rules = {
    r"embeddings\.patch_embeddings": "stem.0",
    r"embeddings\.layernorm": "stem.1",
    r"encoder\.stages\.(\d+)\.downsampling_layer\.(\d)": r"stages.\1.downsample.\2",
    rf"{_BLOCK}\.dwconv": rf"{_OURS}.conv_dw",
    rf"{_BLOCK}\.layernorm": rf"{_OURS}.norm",
    rf"{_BLOCK}\.pwconv(\d)": rf"{_OURS}.mlp.fc\3",
    rf"{_BLOCK}\.layer_scale_parameter": rf"{_OURS}.gamma",
    rf"{_BLOCK}\.grn\.weight": rf"{_OURS}.mlp.grn.weight",
    rf"{_BLOCK}\.grn\.bias": rf"{_OURS}.mlp.grn.bias",
    "layernorm": "head.norm",
    "classifier": None,
}
_BLOCK_3 = r"(?:model\.)?stages\.(\d+)\.layers\.(\d+)"
_RULES_3: Rules = {
    r"(?:model\.)?stages\.0\.downsample_layers\.(\d)": r"stem.\1",
    r"(?:model\.)?stages\.(\d+)\.downsample_layers\.(\d)": r"stages.\1.downsample.\2",
    rf"{_BLOCK_3}\.depthwise_conv": rf"{_OURS}.conv_dw",
    rf"{_BLOCK_3}\.layer_norm": rf"{_OURS}.norm",
    rf"{_BLOCK_3}\.pointwise_conv(\d)": rf"{_OURS}.mlp.fc\3",
    rf"{_BLOCK_3}\.gamma": rf"{_OURS}.gamma",
    "layer_norm": "head.norm",
}
_Scaled = Annotated[float, reals(0, 1000, above=True)]


@dataclass(frozen=True, kw_only=True)
class _Fields(ABC):  # noqa: B024 (fields alone)
    num_channels: Channels = 3
    patch_size: Stride = 4
    hidden_sizes: Widths = (96, 192, 384, 768)
    depths: Depths = (3, 3, 9, 3)
    hidden_act: Activation = "gelu"
    drop_path_rate: Rate = 0.0


@final
@dataclass(frozen=True, kw_only=True)
class _Config(_Fields):
    pass


@final
@dataclass(frozen=True, kw_only=True)
class _ScaledConfig(_Fields):
    layer_scale_init_value: _Scaled = 1e-6


@final
@dataclass(frozen=True, kw_only=True)
class _Dinov3Config(_Fields):
    layer_scale_init_value: _Scaled = 1e-6
    layer_norm_eps: Epsilon = 1e-6
    patch_size: Annotated[int, Within("4", lambda side: side == 4)] = 4  # type: ignore[assignment]


class _ConvNext(TransformersModel, ABC):
    """What all have alike. Only DINOv3's ``layer_norm_eps`` is about the trunk; elsewhere it is the final norm's."""

    family = "ConvNeXt"
    takes: ClassVar[type[_Fields]] = _ScaledConfig
    names: ClassVar[Mapping[str, Mapping[str, Json]]] = _V1

    @classmethod
    def architecture(cls, config: Mapping[str, Json], where: str) -> Architecture:
        """As timm's ConvNeXt of the nearest sizes."""
        said = read_config(config, cls.takes, where)
        wanted = {
            "patch_size": said.patch_size,
            "dims": list(said.hidden_sizes),
            "depths": list(said.depths),
            "act_layer": ACTIVATIONS[said.hidden_act],
            "norm_eps": said.layer_norm_eps if isinstance(said, _Dinov3Config) else 1e-6,
            "drop_path_rate": said.drop_path_rate,
        }
        return nearest_name(cls.names, wanted)

    @classmethod
    def taps(cls, modules: Sequence[str]) -> list[str]:
        """Stages."""
        return [name for name in modules if re.fullmatch(r"(?:.*\.)?stages\.\d+", name)]

    @classmethod
    def side_of_check(cls, config: Mapping[str, Json]) -> int:
        """Twice the last map's stride."""
        said = read_config(config, cls.takes, cls.model_type)
        side: int = said.patch_size * 2 ** len(said.depths)
        return side


@final
class ConvNextModel(_ConvNext):
    """A ConvNeXt of the first version; one without layer scale, which transformers can build, is refused."""

    model_type = "convnext"

    @classmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """By their names alone."""
        return _renamed(held, ".layer_scale_parameter")


@final
class ConvNextV2Model(_ConvNext):
    """A ConvNeXt of the second version, with a global response norm in place of layer scale."""

    model_type = "convnextv2"
    takes = _Config
    names = _V2

    @classmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The response norm's tensors lose the sides that are 1."""
        found = _renamed(held, ".grn.weight")
        return found and {name: t.flatten() if ".mlp.grn." in name else t for name, t in found.items()}


@final
class DINOv3ConvNextModel(_ConvNext):
    """A ConvNeXt that DINOv3 was distilled into."""

    model_type = "dinov3_convnext"
    takes = _Dinov3Config

    @classmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """By their names alone."""
        for anchor in ("model.stages.0.downsample_layers.0.weight", "stages.0.downsample_layers.0.weight"):
            part = part_of(held, anchor)
            if part is not None and any(".depthwise_conv." in name for name in part):
                return renamed(part, _RULES_3)
        return None


def _renamed(held: Mapping[str, Tensor], mark: str) -> dict[str, Tensor] | None:
    """``mark``: what a name of this version ends or goes on with."""
    part = part_of(held, "embeddings.patch_embeddings.weight")
    if part is None or not any(name.endswith(mark) for name in part):
        return None
    return renamed(part, _RULES)
