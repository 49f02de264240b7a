"""Weights that transformers wrote are refused where what lies beside them describes another computation."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import torch

from garnish.backbones.backbone import Backbone
from garnish.backbones.families import family
from garnish.backbones.hub_files import HUB_CONFIG, HUB_PICTURES
from garnish.backbones.preprocessor import other_colours
from garnish.backbones.segformer.config import segformer_config
from garnish.backbones.transformers_names import transformers_model
from garnish.backbones.weights import open_weights
from garnish.checking.plain_data import Json
from garnish.errors import OptionError, WeightsError, one_line, shown

#: Attributes of modules that change what is computed and show in no tensor. How learnt positions are resampled is not
#: among them: at their own size both ways give the same, and otherwise the name says which.
_HIDDEN = ("num_heads", "eps", "temperature", "size", "full_shift", "approximate")
#: what an activation is called in all families
_ACTIVATION = "act"


def check_config_beside(backbone: Backbone, weights: str) -> None:
    """Compare a trunk with ``config.json`` and ``preprocessor_config.json`` beside weights in transformers' names.

    Args:
        backbone: as it was built, with these weights.
        weights: a file, a folder or a Hub id.

    Raises:
        WeightsError: that describes another computation on the same tensors, or other colours, or cannot be read.
    """
    held = open_weights(weights)
    assert held.file is not None
    config = segformer_config(held.file)
    if "model_type" not in config or family(backbone.name) is not type(backbone):
        return
    where = str(Path(held.file).parent / HUB_CONFIG)
    try:
        cls = transformers_model(config, where)
        if cls.family != type(backbone).__name__ or cls.tensors(held.shapes) is None:
            return
        name, options = cls.architecture(config, where)
        with torch.device("meta"):
            described = type(backbone).create(name, False, options)
        colours = other_colours(backbone, held.file)
    except OptionError as error:
        raise WeightsError(f"{backbone.name}: {error}") from None
    if (found := _difference(backbone, described)) is not None:
        what, ours, theirs = found
        raise WeightsError(
            f"{backbone.name}: weights {weights}: by their {HUB_CONFIG} {what} is {shown(theirs, 40)}, not "
            f"{shown(ours, 40)}; give options={shown(_needed(backbone, options), 150)}"
        )

    if colours:
        raise WeightsError(
            f"{backbone.name}: weights {weights}: by their {HUB_PICTURES} pictures have another mean or std than "
            f"by the name; give options={shown(colours, 150)}"
        )


def check_sizes_beside(name: str, weights: str, options: Mapping[str, Json]) -> None:
    """Compare a trunk with ``config.json`` beside weights in transformers' names, which did not fit.

    Args:
        name: of the trunk.
        weights: a file, a folder or a Hub id.
        options: of the trunk.

    Raises:
        WeightsError: the tensors are those of another name or of other options, which the line says.
    """
    with contextlib.suppress(OptionError, OSError):
        held = open_weights(weights)
        assert held.file is not None
        config = segformer_config(held.file)
        if "model_type" not in config:
            return
        where = str(Path(held.file).parent / HUB_CONFIG)
        cls = transformers_model(config, where)
        if cls.tensors(held.shapes) is None:
            return
        found, own = cls.architecture(config, where)
        own.pop("pos_antialias", None)  # changes no tensor
        if found == name and all(options.get(option) == value for option, value in own.items()):
            return
        given = f", options={shown(own, 220)}" if own else ""
        raise WeightsError(
            f"{name}: weights {one_line(weights, 80)}: by their {HUB_CONFIG} they are of another architecture; give "
            f"gn.backbone({found!r}, {shown(weights, 80)}{given})"
        )


def _needed(backbone: Backbone, options: Mapping[str, Json]) -> dict[str, Json]:
    """Options of a configuration that a trunk does not have."""
    differ = {option: value for option, value in options.items() if backbone.options.get(option) != value}
    differ.pop("pos_antialias", None)  # see above
    return differ


def _difference(one: Backbone, other: Backbone) -> tuple[str, object, object] | None:
    """What differs in the first module that both have and that computes otherwise, and both values."""
    theirs = dict(other.named_modules())
    for name, module in one.named_modules():
        if (counterpart := theirs.get(name)) is None:
            continue
        if name.rpartition(".")[2] == _ACTIVATION and type(module) is not type(counterpart):
            return "the activation", type(module).__name__, type(counterpart).__name__
        for key in _HIDDEN:
            mine, their = getattr(module, key, None), getattr(counterpart, key, None)
            if mine != their and mine is not None and their is not None:
                return key, mine, their
    return None
