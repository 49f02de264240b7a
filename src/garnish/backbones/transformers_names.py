"""The architectures of transformers that are known: of a configuration, and of weights in transformers' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from garnish import registry
from garnish.checking.plain_data import Json
from garnish.errors import OptionError, shown

if TYPE_CHECKING:
    from garnish.backbones.timm_models import StateFilter
    from garnish.backbones.transformers.transformers_model import TransformersModel


def transformers_model(config: Mapping[str, Json], where: str) -> type[TransformersModel]:
    """The architecture that a configuration is of.

    Args:
        config: content of a ``config.json``.
        where: the file, for messages.

    Raises:
        OptionError: its ``model_type`` is none that is known.
    """
    kind = config.get("model_type")
    known = {cls.model_type: cls for cls in _all()}
    if not isinstance(kind, str) or kind not in known:
        raise OptionError(
            f"{where}: has the model_type {shown(kind, 60)}; known of transformers: {', '.join(sorted(known))}; give a "
            "model of one of these"
        )
    return known[kind]


def in_own_names(family: str, held: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Tensors by the names of a family, if they are named by an architecture of transformers whose trunks it builds."""
    for cls in _all():
        if cls.family == family and (found := cls.tensors(held)) is not None:
            return found
    return None


def translating(family: str, convert: StateFilter) -> StateFilter:
    """The family's conversion of checkpoints, also of those in transformers' names."""

    def dialects(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        found = in_own_names(family, state)
        return convert(state if found is None else found, model)

    return dialects


def _all() -> list[type[TransformersModel]]:
    return list(registry.classes("transformers").values())
