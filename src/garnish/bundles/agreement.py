"""A bundle's description against the model that it describes: what readers without garnish go by must be so."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from garnish.backbones.backbone import Backbone
from garnish.backbones.weights import is_non_commercial
from garnish.bundles.bundle_json import INPUT, BundleFacts, Preprocessing
from garnish.bundles.tensors import TUNED_AS
from garnish.errors import BundleError, shown
from garnish.tasks.task import Task


def preprocessing_of(trunk: Backbone) -> Preprocessing:
    """How pictures become the trunk's input."""
    return {"input": INPUT, "mean": list(trunk.mean), "std": list(trunk.std), "multiple": trunk.multiple}


def parameters_of(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """The numbers of parameters trained in the encoder and in decoders, of tensors by stored name."""
    named = {id(t): (name, t) for name, t in tensors.items() if isinstance(t, nn.Parameter)}  # each once, if tied
    heads = sum(t.numel() for name, t in named.values() if name.startswith("heads."))
    return sum(t.numel() for _, t in named.values()) - heads, heads


def check_described(facts: BundleFacts, trunk: Backbone, tasks: Mapping[str, Task], where: str) -> None:
    """Raise unless facts are those of a trunk and of the tasks made for it.

    Args:
        facts: the description.
        trunk: the bundle's backbone.
        tasks: what was built by the description, by its names.
        where: its place, for messages.

    Raises:
        BundleError: another preprocessing, other channels, labels or colours of a task, differences stored as values
            or the reverse, or a licence that is non-commercial and said not to be.
    """
    own = preprocessing_of(trunk)
    for key in ("input", "mean", "std", "multiple"):
        _check(where, f"preprocessing.{key}", facts["preprocessing"][key], own[key], f"of {trunk.name}")
    _check(where, "tuned_as", facts["tuned_as"], TUNED_AS[facts["dtype"]], f"that goes with dtype {facts['dtype']}")
    stated = facts["backbone"]
    meant = "by its backbone.licence"
    _check(where, "backbone.non_commercial", stated["non_commercial"], is_non_commercial(stated["licence"]), meant)
    for name, task in tasks.items():
        told, legend = facts["tasks"][name], task.legend()
        if task.channels != told["channels"]:
            raise BundleError(
                f"{where}: task {name!r} has {task.channels} channels by its options and {told['channels']} as stored;"
                " save the bundle again"
            )
        _check(where, f"tasks.{name}.labels", told["labels"], list(legend), "by its options")
        colours = {label: list(colour) for label, colour in legend.items()}
        _check(where, f"tasks.{name}.palette", told["palette"], colours, "by its options")


def check_sizes(facts: BundleFacts, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise :class:`BundleError` unless the described numbers of parameters are those of these tensors."""
    encoder, decoder = parameters_of(tensors)
    _check(where, "sizes.encoder_parameters", facts["sizes"]["encoder_parameters"], encoder, "counted")
    _check(where, "sizes.decoder_parameters", facts["sizes"]["decoder_parameters"], decoder, "counted")


def _check(where: str, key: str, told: object, own: object, whose: str) -> None:
    if told != own:
        raise BundleError(
            f"{where}: {key} is {shown(told, 80)}, not the {shown(own, 80)} {whose}; it is damaged, or was changed by"
            " hand: get or save the bundle again"
        )
