"""The prefix of a model's trunk that no adapter changes, and the state after it, from which passes can continue."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from garnish.engine.owner import Owner
from garnish.engine.trunk_start import TrunkState, first_changer, run_prefix
from garnish.errors import OptionError
from garnish.model.model import Model


@dataclass(frozen=True)
class Prefix:
    """The first part of a trunk, which some tasks leave unchanged.

    Attributes:
        unit: index of the first unit after it.
        beside: side networks read activations from within it.
        name: what comes after it, in words.
        tasks: whose pictures it is run on.
    """

    unit: int
    beside: bool
    name: str
    tasks: tuple[str, ...]


def prefix_of(model: Model, tasks: Collection[str]) -> Prefix:
    """The longest prefix of the trunk that the owners of some tasks leave unchanged.

    Raises:
        OptionError: nothing can be cached; the message says what changes the trunk too early, or why else.
    """
    names = tuple(tasks)
    model.served.bands_of(names)
    trunk = model.backbone
    owners = [part for part in model.served.parts(tasks) if isinstance(part, Owner)]
    if model.is_compiled:
        raise OptionError("a compiled trunk always starts at its stem; use the model uncompiled")
    if trunk.drop_path:
        raise OptionError(f"drop_path {trunk.drop_path} of the trunk acts in training, differently at every pass")
    for owner in owners:
        if owner.drops:
            raise OptionError(f"{owner.made_by} lets the trunk's own dropout act, which differs at every pass")
    first = first_changer(owners)
    beside = any(owner.side is not None for owner in owners)
    if first is None or first.changes is None:
        return Prefix(len(trunk.units), beside, "the feature maps", names)
    at = trunk.units[first.changes].name
    what = f"{first.made_by} changes {at}"
    if beside:
        raise OptionError(f"{what}, and a side network of other tasks reads the whole trunk; train them apart")
    unit = trunk.body.rest_before(first.changes)
    if unit < trunk.body.second_block():
        raise OptionError(f"{what}, which lies before the trunk's second block, so next to nothing could be kept")
    return Prefix(unit, beside, at, names)


def begin(model: Model, images: Tensor, prefix: Prefix) -> TrunkState:
    """Run the bare trunk up to the end of a prefix, on pictures (I, C, H, W) as a model takes them."""
    size = (images.shape[-2], images.shape[-1])
    with torch.no_grad():
        return run_prefix(model.backbone, model.prepare(images, prefix.tasks), size, prefix.unit, beside=prefix.beside)
