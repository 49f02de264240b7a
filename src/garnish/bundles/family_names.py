"""A trunk's tensors under the names of the family's own checkpoints, so that other libraries can load them."""

from __future__ import annotations

from collections.abc import Mapping

import timm
from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.backbones.given_weights import GIVEN
from garnish.backbones.mit import BUNDLED, MiT
from garnish.backbones.name_prefixes import without_prefix
from garnish.backbones.segformer import dialects
from garnish.backbones.timm_models import whole_timm
from garnish.backbones.weights import read_weights
from garnish.errors import WeightsError


def own_name(backbone: Backbone) -> str:
    """The backbone name to load a weights file under; the name of the bundled weights accepts no file."""
    return "mit_b0" if backbone.name == BUNDLED else backbone.name


def own_names(backbone: Backbone, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors renamed as in the family's checkpoints: timm's, or for MiT the dialect with the same norm epsilons."""
    if isinstance(backbone, MiT):
        return dialects.write(dict(tensors), _dialect(backbone), prefix="")
    return {backbone.source_names[name]: tensor.detach().contiguous() for name, tensor in tensors.items()}


def carried_over(backbone: Backbone) -> dict[str, Tensor]:
    """Tensors of the original weights outside the trunk: timm's final norm, classifier, layers after the last map.

    Empty if there are no original weights (random, bundled), they can no longer be read, or timm does not have the
    model. Tensors whose name or shape differs from timm's model are left out.
    """
    if backbone.weights_source in ("random", "bundled", GIVEN) or not timm.is_model(backbone.name):
        return {}
    try:
        held, _ = read_weights(backbone.weights_source)
    except WeightsError:
        return {}
    whole = whole_timm(backbone.name, backbone.options)
    known = set(backbone.source_names.values())
    held, _ = without_prefix(held, list(backbone.source_names.values()), backbone.weights_source)  # told on loading
    beside = {name: tensor for name, tensor in whole.state_dict().items() if name not in known and name in held}
    return {name: held[name].contiguous() for name, tensor in beside.items() if held[name].shape == tensor.shape}


def _dialect(backbone: MiT) -> str:
    """The dialect whose reader sets the norm epsilons that the trunk has; else NVlabs' (options give them then)."""
    norm: nn.LayerNorm = backbone.stages[0].leave  # type: ignore[assignment]
    embed: nn.LayerNorm = backbone.stages[0].enter.norm  # type: ignore[assignment]
    for dialect in (dialects.NVLABS, dialects.TRANSFORMERS_4, dialects.GARNISH):
        if (dialect.norm_eps, dialect.embed_norm_eps) == (norm.eps, embed.eps):
            return dialect.name
    return dialects.NVLABS.name
