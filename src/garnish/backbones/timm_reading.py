"""Reading options of an architecture off models of timm's: what their modules say of how they were built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

from timm.layers import get_act_layer, get_norm_layer
from torch import nn

from garnish.backbones.architecture import Activation, MapNorm, Norm
from garnish.backbones.timm_models import TimmModule
from garnish.checking.plain_data import Json


def as_read(**options: Json) -> dict[str, Json]:
    """Options as a bundle keeps them, lists for tuples; without those that are None: nothing can be said of them."""
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in options.items() if value is not None
    }


def is_there(module: nn.Module | None) -> bool:
    """Whether a model has a part, for which timm puts an identity or nothing otherwise."""
    return module is not None and not isinstance(module, nn.Identity)


def ratio_of(hidden: int, channels: int) -> float:
    """The ratio from whose product with the channels a constructor makes ``hidden`` by rounding down."""
    ratio = hidden / channels
    return ratio if int(channels * ratio) == hidden else math.nextafter(ratio, math.inf)


def same_sides(sides: Sequence[int]) -> Json:
    """One number for a square."""
    return sides[0] if len(set(sides)) == 1 else list(sides)


def windows_of(windows: Sequence[tuple[int, int]]) -> Json:
    """Windows, one a stage, as the option has them; None for what it cannot say."""
    if len(set(windows)) == 1:
        return same_sides(windows[0])
    return [high for high, _ in windows] if all(high == wide for high, wide in windows) and len(windows) > 2 else None


def activation_of(model: nn.Module) -> str | None:
    """The name of the first activation in a model."""
    kinds = {get_act_layer(name): name for name in reversed(get_args(Activation))}
    return next((kinds[type(module)] for module in model.modules() if type(module) in kinds), None)


def norm_of(norm: nn.Module) -> str | None:
    """The name of a norm of tokens or maps."""
    names = [*get_args(Norm), *get_args(MapNorm)]
    return next((name for name in names if get_norm_layer(name) is type(norm)), None)


def rates_of(model: TimmModule) -> dict[str, Json]:
    """Stochastic depth of the last block that has any: the largest of a model."""
    rates = [getattr(module, "drop_prob", None) for module in model.modules()]
    return {"drop_path_rate": round(max((float(rate) for rate in rates if rate), default=0.0), 6)}


def dropouts_of(attn: TimmModule) -> dict[str, Json]:
    """Dropouts of an attention layer."""
    return {f"{part}_rate": _rate(getattr(attn, part)) for part in ("attn_drop", "proj_drop")}


def _rate(dropout: nn.Module) -> float:
    return float(getattr(dropout, "p", 0.0))
