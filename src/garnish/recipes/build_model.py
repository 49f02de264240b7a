"""Building the model of a recipe: a backbone with adapters and heads, or new tasks added to the model of bundles."""

from __future__ import annotations

from typing import TypedDict

import torch

from garnish.backbones.backbone import Backbone
from garnish.bundles.named_models import open_model
from garnish.data.dataset import Dataset
from garnish.data.measured_bands import band_statistics
from garnish.engine.drop_path import set_drop_path
from garnish.model.model import Model, adapt
from garnish.pictures.band_statistics import BandStatistics
from garnish.pictures.bands import Bands
from garnish.pictures.given_bands import Extra
from garnish.recipes.backbone_choice import BackboneChoice
from garnish.recipes.recipe import Recipe
from garnish.registry import plain


def build_model(recipe: Recipe, data: Dataset, *, trunk: Backbone | None = None) -> Model:
    """The model to train, initialised from the seed of the section ``train``; tasks of ``onto`` are kept frozen.

    Args:
        recipe: what to build.
        data: the training pictures, for their tasks and bands, which are counted unless they are 8-bit RGB.
        trunk: adapted instead of the recipe's backbone; it may have random weights, but then its bundles can only be
            opened with the same trunk. Ignored if the recipe has ``onto``.

    Raises:
        OptionError: an invalid name or option, or parts that do not fit together; the message names the recipe.
    """
    choice, methods, head, tasks = recipe.backbone, recipe.methods, recipe.head, recipe.tasks_of(data)
    if not recipe.onto and choice is None:
        raise recipe.fault("backbone", "none given; name one, e.g. backbone: mit_b0")
    seen = _bands(recipe, data)
    torch.manual_seed(recipe.options.seed)
    if not recipe.onto:
        assert choice is not None
        own = trunk is None
        trunk = choice.build() if trunk is None else trunk
        if own and trunk.weights_source == "random":  # a bundle names its backbone's weights, random ones have no name
            raise recipe.fault(
                "backbone",
                f"{choice.name} without weights is random, so a bundle could not be "
                "loaded again; set backbone.weights to a file or a Hub id, or true for the published ones",
            )
        return adapt(trunk, methods, tasks, head, **seen)
    weights = None if choice is None or not isinstance(choice.weights, str) else choice.weights
    model = open_model(recipe.onto, weights, options=None if choice is None else choice.options)
    if choice is not None:
        _check_same_trunk(recipe, choice, model.backbone)
        set_drop_path(model.backbone, choice.drop_path)
    model.add(methods, tasks, head, freeze_others=True, **seen)
    return model


class _Seen(TypedDict, total=False):
    """What ``adapt`` and ``Model.add`` take of bands."""

    bands: Bands
    statistics: BandStatistics
    extra: Extra


def _bands(recipe: Recipe, data: Dataset) -> _Seen:
    """What a model is told of the bands of its training pictures, which are counted here; nothing of 8-bit RGB."""
    if recipe.trunk is not None and not data.bands.others:
        raise recipe.fault("trunk", f"{data.name} has no band beside red, green and blue; leave the section out")
    if data.bands.is_rgb:
        return {}
    extra = "zero" if recipe.trunk is None else recipe.trunk.extra
    return {"bands": data.bands, "statistics": band_statistics(data), "extra": extra}


def _check_same_trunk(recipe: Recipe, choice: BackboneChoice, trunk: Backbone) -> None:
    """Raise OptionError if the section ``backbone`` contradicts the bundle's trunk."""
    bundles = ", ".join(recipe.onto)
    if choice.name != trunk.name:
        raise recipe.fault(
            "backbone",
            f"{choice.name}, but {bundles} has {trunk.name}; leave the section out, or name the bundle's",
        )
    for option, wanted, found in (
        ("taps", choice.taps if choice.taps != "stage" else trunk.taps_at, trunk.taps_at),
        ("options", plain(dict(choice.options)) or plain(dict(trunk.options)), plain(dict(trunk.options))),
    ):
        if wanted != found:
            raise recipe.fault(
                f"backbone.{option}",
                f"{wanted}, but {bundles} has {found}; leave it out, tasks are added to that trunk",
            )
