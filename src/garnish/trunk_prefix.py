"""Where the passes of a model may start: the part of its trunk that no adapter changes, and states kept from there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from garnish.backbones.loop import end_of
from garnish.backbones.prefix import TrunkState, first_change, resting_units, run_prefix, second_block
from garnish.errors import OptionError

if TYPE_CHECKING:
    from garnish.model import Model


@dataclass(frozen=True)
class Prefix:
    """The part of a trunk that some tasks leave as it is.

    Attributes:
        unit: where it ends: the unit that comes next.
        beside: side networks read what lies in it.
        name: what comes next, in words.
    """

    unit: int
    beside: bool
    name: str


def prefix_of(model: Model, tasks: Collection[str]) -> Prefix:
    """The prefix that the owners of some tasks share.

    Raises:
        OptionError: saying in one line what changes the trunk too early, or else why nothing can be kept.
    """
    trunk = model.backbone
    owners = _owners(model, tasks)
    if model.is_compiled:
        raise OptionError("a compiled trunk always starts at its stem; use the model uncompiled")
    if trunk.drop_path:
        raise OptionError(f"drop_path {trunk.drop_path} of the trunk acts in training, differently at every pass")
    drops = sorted(owners & trunk.tuned.drops)
    if drops:
        raise OptionError(f"{_methods(model, drops[0])} lets the trunk's own dropout act, which differs at every pass")
    change = first_change(trunk, owners)
    beside = bool(owners & trunk.sides)
    if change is None:
        return Prefix(end_of(trunk), beside, "the feature maps")
    what = f"{_methods(model, change.owner)} changes {change.name}"
    if beside:
        raise OptionError(f"{what}, and a side network of other tasks reads the whole trunk; train them apart")
    unit = max(unit for unit in resting_units(trunk) if unit <= change.unit)
    if unit < second_block(trunk):
        raise OptionError(f"{what}, which lies before the trunk's second block, so next to nothing could be kept")
    return Prefix(unit, beside, change.name)


def begin(model: Model, images: Tensor, prefix: Prefix) -> TrunkState:
    """What the bare trunk makes of pictures, (I, 3, H, W) as a model takes them, up to the end of a prefix."""
    size = (images.shape[-2], images.shape[-1])
    with torch.no_grad():
        return run_prefix(model.backbone, model.prepare(images), size, prefix.unit, beside=prefix.beside)


def check_start(model: Model, images: Tensor, start: TrunkState, present: Sequence[int]) -> None:
    """Raise :class:`OptionError` where a pass of some owners cannot go on from a kept state of these pictures."""
    trunk = model.backbone
    size = (images.shape[-2], images.shape[-1])
    if model.is_compiled:
        raise OptionError("start: a compiled trunk always starts at its stem; use the model uncompiled")
    if trunk.drop_path and model.training:
        raise OptionError(f"start: drop_path {trunk.drop_path} acts on the whole trunk in training; leave start out")
    if len(start) != images.shape[0] or start.size != size:
        kept = f"{len(start)} pictures of {start.size[0]}x{start.size[1]}"
        raise OptionError(f"start: kept of {kept}, not of {images.shape[0]} of {size[0]}x{size[1]}; keep it anew")
    owners = {*present, *(trunk.parents[part] for part in present if part in trunk.parents)}
    change = first_change(trunk, owners, below=start.unit)
    if change is not None:
        raise OptionError(f"start: {_methods(model, change.owner)} changes {change.name}, which lies before it")
    if start.by_stage is None and not trunk.sides.isdisjoint(owners):
        raise OptionError("start: holds nothing that a side network reads; keep it with beside=True")


def _owners(model: Model, tasks: Collection[str]) -> set[int]:
    """Owners that act for some tasks, and those of which they are parts."""
    needed = set(model.decoders.needed(tasks))
    return {number for number, owner in enumerate(model.owners) if needed.intersection(owner.tasks)}


def _methods(model: Model, owner: int) -> str:
    return " + ".join(type(method).__name__ for method in model.owners[owner].methods)
