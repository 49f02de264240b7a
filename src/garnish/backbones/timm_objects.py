"""Models of timm's that somebody has built, as trunks are built from them."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from garnish import registry
from garnish.backbones.architecture import UNBUILDABLE
from garnish.backbones.backbone import Backbone
from garnish.backbones.buildable import check_buildable
from garnish.backbones.families import find_family
from garnish.backbones.given_weights import GIVEN, GivenWeights
from garnish.backbones.held_model import HeldModel
from garnish.backbones.object_copy import copied
from garnish.backbones.timm_facts import colours, tagged
from garnish.backbones.timm_models import TimmTrunk, whole_timm
from garnish.backbones.timm_twins import check_same_modules, whole_of
from garnish.checking.plain_data import Json
from garnish.errors import OptionError, one_line, plural, showable

#: Licence of weights that were a model in memory, whatever its configuration says: it may have been trained on.
LICENCE = "not stated (given as a model)"
#: How far maps may be from the model's own, as a part of their largest value.
_FAR = 1e-5
#: what families with several resolutions call their stages
_STAGES = ("stages", "layers")


def read_timm(model: nn.Module, options: Mapping[str, Json]) -> HeldModel | None:
    """What a trunk is built of that computes what ``model`` does; None: it is none of timm's.

    Args:
        model: whole, without its classifier, or of timm's ``features_only``.
        options: what the caller says of its architecture, before what is read off it.

    Raises:
        OptionError: a model without a name or a family, or one that is not as timm builds it.
    """
    facts = _facts(model)
    if not timm.is_model(str(facts.get("architecture", ""))):
        if not any(kind.__module__.startswith("timm.") for kind in type(model).__mro__):
            return None
        raise OptionError(_nameless(model))
    name = str(facts["architecture"])
    cls, known = find_family(name)
    if cls is None or not issubclass(cls, TimmTrunk):
        raise OptionError(_without_family(type(model), name, known))
    named = tagged(name, facts)
    _check_bands(model, named)
    by_name = whole_timm(named, {})
    whole, read = whole_of(copied(model), named, by_name)
    state = whole.state_dict().items()
    tensors = {key: tensor for key, tensor in state if isinstance(tensor, Tensor) and not tensor.is_meta}
    _check_dtypes(named, tensors)
    if not cls.chooses_levels and (levels := read.pop("out_indices", None)):
        _tell_levels(cls, named, whole, levels)
    told = {**colours(named, facts), **read, **_differing(cls, named, whole, by_name), **options}
    if (few := _too_few(cls, named, whole)) is None and told:
        check_buildable(cls, named, told)
    check_same_modules(whole, whole_timm(named, told) if told else by_name, named)
    if few is not None:
        raise OptionError(few)

    def check(built: Backbone) -> None:
        assert isinstance(built, TimmTrunk)
        with torch.no_grad():
            pictures, theirs = built.maps_of(whole)
            _check_maps(named, built(pictures), theirs)

    weights = GivenWeights(tensors=tensors, source=GIVEN, licence=LICENCE)
    return HeldModel(name=named, options=told, weights=weights, check=check)


def _facts(model: nn.Module) -> Mapping[str, Any]:
    """Timm's configuration of a model, of weights that it may have been built with; empty if there is none."""
    found = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    facts = found if isinstance(found, Mapping) else vars(found) if hasattr(found, "__dict__") else {}
    inner = getattr(model, "model", None)  # of a wrapper that has none of its own
    return facts if facts or not isinstance(inner, nn.Module) else _facts(inner)


def _check_bands(model: nn.Module, name: str) -> None:
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and (bands := first.in_channels * (first.groups == 1)) not in (0, 3):
        raise OptionError(
            f"backbone: this {name} takes {plural(bands, 'band')} (in_chans), and trunks take red, green and blue; "
            "give the model of three bands, and say which bands pictures have in gn.adapt(…, bands=) (docs/pictures.md)"
        )


def _too_few(cls: type[TimmTrunk], name: str, whole: nn.Module) -> str | None:
    """What is wrong with a model of fewer blocks than its family reads maps of; None: nothing."""
    blocks = getattr(whole, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or len(blocks) >= cls.least_blocks:
        return None
    return (
        f"backbone: this {name} has {plural(len(blocks), 'block')}, and a plain trunk needs {cls.least_blocks}, one "
        f"for each of its maps; give a model of depth {cls.least_blocks} or more"
    )


def _tell_levels(cls: type[TimmTrunk], name: str, whole: Any, levels: Json) -> None:
    """Warn of levels of ``features_only`` that a trunk cannot leave out.

    Raises:
        OptionError: stages behind the last level are not in the model.
    """
    assert isinstance(levels, list)
    stages = [part for key, part in whole.named_children() if key in _STAGES]
    if any(tensor.is_meta for part in stages for tensor in part.parameters()):
        raise OptionError(
            f"backbone: this {name} of features_only has no stages behind level {levels[-1]} (out_indices), and a "
            f"{cls.__name__} reads all of them; give the whole model, or one with the last level among out_indices"
        )
    depth = f" of {len(whole.blocks)} blocks" if cls.least_blocks > 1 else ""
    told = (
        f"backbone: this {name} of features_only gives maps at out_indices {tuple(levels)}; a {cls.__name__} "
        f"trunk{depth} has no such choice and gives those of its four stages"
    )
    warnings.warn(showable(told), stacklevel=7)


def _nameless(model: nn.Module) -> str:
    kinds = [kind for kind in type(model).__mro__ if kind.__module__.startswith("timm.")]
    if type(model) is not kinds[0]:
        return (
            f"backbone: {type(model).__name__} is derived from timm's {kinds[0].__name__}, and what it changes cannot "
            f"be seen; load its state_dict into a {kinds[0].__name__} of the same options and give that, with a "
            "pretrained_cfg (docs/models.md)"
        )
    module = type(model).__module__.rpartition(".")[2]
    known: Mapping[str, Any] = registry.classes("backbones")
    families = [cls for cls in known.values() if getattr(cls, "timm_module", None) == module]
    example = next(iter(families[0].small.values()))[0] if families else "resnet50"
    return (
        f"backbone: this {type(model).__name__} has no pretrained_cfg, which says its name and how pictures are "
        f"normalised; set model.pretrained_cfg = {{'architecture': {example!r}, 'mean': (0.5, 0.5, 0.5), 'std': (0.5, "
        "0.5, 0.5)}, with its own values, or build it with timm.create_model"
    )


def _without_family(kind: type, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.3)
    families = {cls.__name__: example for example in near if (cls := find_family(example)[0]) is not None}
    nearest = ", ".join(f"{family} ({example})" for family, example in families.items())
    return (
        f"backbone: no family builds {name} ({kind.__name__} of {kind.__module__}); nearest: {nearest or 'none'}; use "
        "one of those, or write a family, which is one file (docs/add-a-backbone.md)"
    )


def _differing(cls: type[TimmTrunk], name: str, whole: nn.Module, by_name: nn.Module) -> dict[str, Json]:
    """The options in which a model differs from that of its name."""
    usual = cls.options_of(by_name)
    try:
        read = cls.options_of(whole)
    except UNBUILDABLE as error:
        raise OptionError(
            f"backbone: this {name} is not as timm builds it ({one_line(error, 120)}); give it as it was before it was "
            "wrapped, quantised or rebuilt"
        ) from None
    return {key: value for key, value in read.items() if value != usual.get(key)}


def _check_dtypes(name: str, tensors: Mapping[str, Tensor]) -> None:
    for key, tensor in tensors.items():
        if tensor.dtype != torch.float32 and (tensor.is_floating_point() or tensor.is_complex()):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise OptionError(
                f"backbone: {key} of this {name} is {kind}, and trunks are float32; give model.float() or a copy of "
                "it, and train and predict in half precision by garnish's own precision=bf16"
            )


def _check_maps(name: str, ours: Sequence[Any], theirs: Sequence[Tensor]) -> None:
    for number, (mine, own) in enumerate(zip(ours, theirs, strict=True)):
        apart = float((mine - own).abs().max() / own.abs().max()) if mine.shape == own.shape else float("inf")
        if not apart <= _FAR:
            same = mine.shape == own.shape
            told = f"by {apart:.1e} of its largest value" if same else f"in shape {tuple(own.shape)}"
            raise OptionError(
                f"backbone: map {number} of this {name} differs {told} from what timm's {name} gives with its tensors: "
                "what no tensor shows was changed (an activation, an epsilon, positions); state it in options={…}, "
                "whose names are in docs/methods.md, or build the model without it"
            )
