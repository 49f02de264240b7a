"""transformers' SegFormer (``SegformerModel``, and the encoder of ``SegformerForSemanticSegmentation``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, final

from torch import Tensor

from garnish.backbones.architecture import Rate, Ratio
from garnish.backbones.segformer import dialects
from garnish.backbones.segformer.mit_options import PUBLISHED, SIZES, STRIDES
from garnish.backbones.transformers.config_fields import Channels, Gelu, Nought, Present, read_config
from garnish.backbones.transformers.nearest_name import nearest_name
from garnish.backbones.transformers.transformers_model import Architecture, TransformersModel
from garnish.checking.plain_data import Json, Within, integers
from garnish.errors import WeightsError

_Four = Annotated[tuple[int, int, int, int], Within("4 whole numbers, one a stage")]
_NAMES: dict[str, dict[str, Json]] = {
    name: {
        "embed_dims": list(dims), "depths": list(depths), "num_heads": [1, 2, 5, 8], "sr_ratios": [8, 4, 2, 1],
        "mlp_ratio": 4.0, "drop_path": 0.1,
    }
    for name, (dims, depths) in SIZES.items()
    if name in PUBLISHED and name.startswith("mit")
}  # fmt: skip
#: transformers gives its norms torch's epsilon, whatever ``layer_norm_eps`` says
_EPS = dialects.TRANSFORMERS_5.norm_eps


def _only(values: tuple[int, ...]) -> Within:
    return Within(f"{list(values)}, as MiT has", lambda said: tuple(said) == values)


@final
@dataclass(frozen=True, kw_only=True)
class _Config:
    num_channels: Channels = 3
    num_encoder_blocks: Annotated[int, integers(4, 4)] = 4
    depths: _Four = (2, 2, 2, 2)
    sr_ratios: _Four = (8, 4, 2, 1)
    hidden_sizes: _Four = (32, 64, 160, 256)
    patch_sizes: Annotated[tuple[int, int, int, int], _only((7, 3, 3, 3))] = (7, 3, 3, 3)
    strides: Annotated[tuple[int, int, int, int], _only((4, 2, 2, 2))] = (4, 2, 2, 2)
    num_attention_heads: _Four = (1, 2, 5, 8)
    mlp_ratios: Annotated[
        tuple[Ratio, Ratio, Ratio, Ratio], Within("4 numbers that are the same", lambda said: len({*said}) == 1)
    ] = (4, 4, 4, 4)
    hidden_act: Gelu = "gelu"
    hidden_dropout_prob: Nought = 0.0
    attention_probs_dropout_prob: Nought = 0.0
    drop_path_rate: Rate = 0.1
    reshape_last_stage: Present = True


@final
class SegformerModel(TransformersModel):
    """The encoder of a SegFormer, whose maps are read behind the norm of each stage."""

    model_type = "segformer"
    family = "MiT"

    @classmethod
    def architecture(cls, config: Mapping[str, Json], where: str) -> Architecture:
        """As the MiT of the nearest sizes."""
        said = read_config(config, _Config, where)
        wanted = {
            "embed_dims": list(said.hidden_sizes),
            "depths": list(said.depths),
            "num_heads": list(said.num_attention_heads),
            "sr_ratios": list(said.sr_ratios),
            "mlp_ratio": said.mlp_ratios[0],
            "drop_path": said.drop_path_rate,
            "norm_eps": _EPS,
            "embed_norm_eps": _EPS,
        }
        return nearest_name(_NAMES, wanted)

    @classmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """As they are: the family reads transformers' names itself."""
        try:
            dialect, _ = dialects.encoder_dialect(held, cls.model_type)
        except WeightsError:
            return None
        return dict(held) if dialect in (dialects.TRANSFORMERS_4, dialects.TRANSFORMERS_5) else None

    @classmethod
    def taps(cls, modules: Sequence[str]) -> list[str]:
        """The norm of each stage."""
        stage = r"(?:.*\.)?(?:stages\.\d\.layer_norm|encoder\.layer_norm\.\d)"
        return [name for name in modules if re.fullmatch(stage, name)]

    @classmethod
    def side_of_check(cls, config: Mapping[str, Json]) -> int:
        """A multiple of all strides, times the reductions of keys."""
        return 4 * STRIDES[-1]
