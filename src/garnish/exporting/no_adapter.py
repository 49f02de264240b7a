"""Values of a graph's adapter inputs that mean "no adapter": with them it computes what the bare trunk does.

What is not given to the graph has these. Adapters of zeros change nothing for most methods; for others, what a new
adapter starts from, without the noise around 0 and 1 that it may start with. It is tried on the model, not assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from garnish.bundles.specs import Specs
from garnish.exporting.slots import Slot, catch_up, named_tensors, put
from garnish.model.model import Model

#: "zeros", "start": see :mod:`garnish.exporting.no_adapter`. "none": there are no such values, so every input must be
#: given; those of the traced bundle stand in.
Default = Literal["zeros", "start", "none"]
#: Largest difference of a feature map, over its largest value, that rounding explains.
_ROUNDING = 1e-6


def no_adapter(model: Model, slots: Sequence[Slot], example: Tensor) -> tuple[list[Tensor], Default]:
    """The value of each slot that means "no adapter", and of which kind it is; heads give zeros.

    Args:
        model: of :func:`garnish.exporting.deployed.plain_copy`.
        slots: of that model.
        example: (N, 3, H, W) pictures to try it on.
    """
    start = _start(model)
    kinds: tuple[Default, ...] = ("zeros", "start")
    for kind in kinds:
        values = [_value(slot, kind, start) for slot in slots]
        if _is_bare(model, slots, values, example):
            return values, kind
    return [slot.value for slot in slots], "none"


def _value(slot: Slot, kind: Default, start: Mapping[str, Tensor]) -> Tensor:
    if slot.name.startswith("heads."):
        return torch.zeros_like(slot.value)
    if slot.name not in start:  # a number that an adapter computes with
        return slot.value
    if kind == "zeros" and not slot.name.startswith("tuned."):
        return torch.zeros_like(slot.value)
    begun = start[slot.name].reshape(slot.value.shape)
    return begun if slot.name.startswith("tuned.") else begun.round()


def _start(model: Model) -> dict[str, Tensor]:
    """What new owners of these methods start from: adapters as made, tuned parameters as the trunk has them."""
    specs = Specs.of(model, list(model.tasks))
    with torch.random.fork_rng(devices=[]):
        made = Model(model.backbone).build(specs.owners, specs.tasks, specs.heads, specs.groups)
    named = named_tensors(list(made.members()), [])
    return {name: tensor.detach() for name, tensor in named.items()}


@torch.no_grad()
def _is_bare(model: Model, slots: Sequence[Slot], values: Sequence[Tensor], example: Tensor) -> bool:
    """Whether feature maps of every task are those of the bare trunk with these values."""
    prepared = model.prepare(example)
    bare = model.backbone(prepared, ())
    with put(slots, values):
        catch_up(model)
        found = [model.backbone(prepared, (owner,)) for owner in dict.fromkeys(model.served.owner_of.values())]
    catch_up(model)
    return all(
        a.shape == b.shape and bool((a - b).abs().max() <= _ROUNDING * b.abs().max())
        for maps in found
        for a, b in zip(maps, bare, strict=True)
    )
