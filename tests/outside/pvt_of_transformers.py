"""An architecture of transformers that is not ours: PVT v2, whose trunks are the family beside this file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, final

from torch import Tensor

from garnish.backbones.transformers.config_fields import Channels, Gelu, Nought, read_config
from garnish.backbones.transformers.transformers_model import Architecture, TransformersModel
from garnish.checking.plain_data import Json, Within

_ONLY = "as pvt_v2_b0 has"
_DIMS, _DEPTHS = Within(_ONLY, lambda dims: dims == (32, 64, 160, 256)), Within(_ONLY, lambda d: d == (2, 2, 2, 2))


@final
@dataclass(frozen=True, kw_only=True)
class _Config:
    num_channels: Channels = 3
    hidden_sizes: Annotated[tuple[int, ...], _DIMS] = (32, 64, 160, 256)
    depths: Annotated[tuple[int, ...], _DEPTHS] = (2, 2, 2, 2)
    hidden_act: Gelu = "gelu"
    hidden_dropout_prob: Nought = 0.0


@final
class PvtV2Model(TransformersModel):
    """The smallest PVT v2 alone: enough to see that a configuration finds a class of another package."""

    model_type = "pvt_v2"
    family = "PVTv2"

    @classmethod
    def architecture(cls, config: Mapping[str, Json], where: str) -> Architecture:
        """Of one size."""
        read_config(config, _Config, where)
        return Architecture("pvt_v2_b0", {})

    @classmethod
    def tensors(cls, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Left to a longer example."""
        return None

    @classmethod
    def taps(cls, modules: Sequence[str]) -> list[str]:
        """The norm of each stage."""
        return [name for name in modules if re.fullmatch(r"(?:.*\.)?encoder\.layers\.\d\.layer_norm", name)]
