"""Building a trunk of a model that somebody has built, with the reader of the library that it is of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch._dynamo import OptimizedModule

from garnish.backbones.backbone import Backbone
from garnish.backbones.held_model import HeldModel
from garnish.backbones.named_trunk import named_trunk
from garnish.backbones.object_copy import hooked
from garnish.backbones.timm_objects import read_timm
from garnish.backbones.transformers_objects import read_transformers
from garnish.checking.plain_data import Json
from garnish.engine.drop_path import RATES
from garnish.errors import OptionError, WeightsError, one_line, plural, showable

#: Of a model and the options that come with it, what a trunk is built of; None: a model of another library.
Reader = Callable[[nn.Module, Mapping[str, Json]], HeldModel | None]
#: Parts of PEFT's layers, which it puts into the model itself.
_OF_PEFT = {"base_layer", "lora_A", "lora_B", "original_module"}
#: in the order in which they are asked
READERS: tuple[Reader, ...] = (read_timm, read_transformers)


def trunk_of(
    model: nn.Module, weights: str | bool | None, options: Mapping[str, Json], drop_path: float = 0.0
) -> Backbone:
    """The trunk that computes what a model computes, with copies of its tensors, on its device.

    Neither the model nor torch's random state is changed.

    Args:
        model: of timm or transformers.
        weights: a file or a Hub id where its tensors are found again, True for the published ones; None: nowhere.
        options: of the architecture, where they cannot be read off the model.
        drop_path: rate of stochastic depth that will be set; then that of the model is not taken over.

    Raises:
        OptionError: a model that no family builds, or whose maps the trunk does not give.
        WeightsError: tensors that do not fit, or ``weights`` that hold others than the model has.
    """
    if weights is False:
        raise OptionError("backbone: a model has weights, and weights=False asks for random ones; leave it out")
    model = _unwrapped(model)
    device = _device(model)
    with torch.random.fork_rng(devices=[]):
        held = _read(model, options)
        left = set(RATES) - options.keys() if drop_path else set()
        kept = {option: value for option, value in held.options.items() if option not in left}
        built = named_trunk(held.name, held.weights, kept)
        held.check(built)
        built.held_modules = frozenset(name for name, _ in model.named_modules())
        built.to(device)
        if weights is not None:
            _find_again(built, weights)
    return built


def _unwrapped(model: nn.Module) -> nn.Module:
    """What ``torch.compile`` or data parallelism wraps; warns of that, and of hooks."""
    wrapped = model
    while isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | OptimizedModule):
        model = model._orig_mod if isinstance(model, OptimizedModule) else model.module
    if model is not wrapped:
        told = f"backbone: the model inside {type(wrapped).__name__} is taken, without it"
        warnings.warn(showable(told), stacklevel=4)
    if names := hooked(model):
        count, first = plural(len(names), "module"), names[0] or "the model"
        told = f"backbone: {count} of the model with hooks (first: {first}); they are not taken over"
        warnings.warn(showable(told), stacklevel=4)
    return model


def _device(model: nn.Module) -> torch.device:
    devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise OptionError(f"backbone: the model lies on several devices ({names}); move it to one: model.to('cpu')")
    if torch.device("meta") in devices:
        raise OptionError("backbone: the model is on the device 'meta', so it has no values; load its weights first")
    return devices.pop() if devices else torch.device("cpu")


def _read(model: nn.Module, options: Mapping[str, Json]) -> HeldModel:
    kind = type(model)
    if kind.__module__.startswith("peft."):
        raise OptionError(
            f"backbone: the model is wrapped in PEFT's {kind.__name__}; give model.merge_and_unload(), which has its "
            "adapters merged, or model.unload(), which is without them, and gn.import_peft for its folder"
        )
    if inside := next((name for name, _ in model.named_modules() if _OF_PEFT & set(name.split("."))), None):
        raise OptionError(
            f"backbone: PEFT changed this {kind.__name__} in place ({one_line(inside.rpartition('.')[0], 80)}); load "
            "it again, or give model.unload() of the model that get_peft_model returned (its merge_and_unload(): with "
            "the adapters merged)"
        )
    for reader in READERS:
        held = reader(model, options)
        if held is not None:
            return held
    raise OptionError(
        f"backbone: {kind.__name__} of {kind.__module__} is no model of timm's or transformers'; give one, a name, or "
        "write a family (docs/add-a-backbone.md)"
    )


def _find_again(built: Backbone, weights: str | bool) -> None:
    """Note where the trunk's weights are found again, once they are read from there and are the same."""
    other = named_trunk(built.name, weights, built.options)
    if other.fingerprint() != built.fingerprint():
        mine, theirs = built.frozen_tensors(), other.frozen_tensors()
        first = next(n for n, t in mine.items() if not torch.equal(t.cpu(), theirs[n].cpu()))
        raise WeightsError(
            f"{built.name}: the model and its weights {other.weights_source} differ (first in "
            f"{built.source_names.get(first, first)}); name the file that the model was made of, or leave weights= out"
        )
    built.weights_source, built.licence = other.weights_source, other.licence
