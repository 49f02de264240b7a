"""A trunk by its name, of any family, frozen."""

from __future__ import annotations

from collections.abc import Mapping

from garnish.backbones.backbone import Backbone
from garnish.backbones.buildable import check_buildable
from garnish.backbones.config_beside import check_config_beside, check_sizes_beside
from garnish.backbones.families import family
from garnish.backbones.given_weights import Weights
from garnish.checking.finite import not_finite
from garnish.checking.plain_data import Json
from garnish.errors import OptionError, WeightsError


def named_trunk(name: str, weights: Weights, options: Mapping[str, Json]) -> Backbone:
    """The trunk of a name in evaluation mode; none of its parameters requires a gradient.

    Args:
        name: of any family.
        weights: as for :func:`garnish.backbone`, or the tensors of a model.
        options: likewise.

    Raises:
        OptionError: an unknown name or option, options that do not go together or ask for more memory than there is.
        WeightsError: weights that cannot be read, do not fit or are not finite.
    """
    if isinstance(weights, str) and not weights.strip():
        raise OptionError(f"{name}: weights {weights!r} name no file; leave them out for random ones")
    cls = family(name)
    if options:
        check_buildable(cls, name, options)
    try:
        built = cls.create(name, weights, dict(options))
    except WeightsError:
        if isinstance(weights, str):
            check_sizes_beside(name, weights, options)  # which says what to give
        raise
    if isinstance(weights, str):
        check_config_beside(built, weights)
    named = {built.source_names.get(name, name): tensor for name, tensor in built.frozen_tensors().items()}
    if odd := not_finite(named):
        raise WeightsError(f"{name}: weights {built.weights_source}: {odd}; fetch or train them again")
    built.requires_grad_(False)
    built.eval()
    return built
