"""The adapter and head tensors of a model by names without tasks, and putting others in their places.

A graph that takes them as inputs serves bundles whose tasks have other names, so owners and heads are numbered:
``adapters.0.stages.0.blocks.0.attn.qkv.0.lora_a``, ``heads.1.norms.0.weight``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from garnish.engine.owner import Owner
from garnish.errors import OptionError
from garnish.model.decoders import Decoder
from garnish.model.model import Model

#: Where a module keeps a value: its table of parameters, of buffers, or its attributes; and the name there.
_Place = tuple[dict[str, Any], str]


@final
@dataclass(frozen=True, eq=False)
class Slot:
    """A tensor of an adapter or a head, or a number that an adapter computes with, and where the model has it.

    Attributes:
        name: without the names of tasks.
        places: where it is read from; several if modules share it.
        value: what is there: float32; (1,) for a number, as files of adapters know no shape ().
        is_scalar: what is there is a tensor of shape ().
    """

    name: str
    places: tuple[_Place, ...]
    value: Tensor
    is_scalar: bool = False


def own_slots(model: Model) -> list[Slot]:
    """All slots of a model: adapters, tuned parameters, side networks, shared modules, heads, with their buffers.

    Raises:
        OptionError: a tensor that is not of floats (its values could decide what a graph computes).
    """
    at: dict[int, list[_Place]] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for leaf, tensor in table.items():
                at.setdefault(id(tensor), []).append((table, leaf))
    found = []
    for name, tensor in named_tensors(model.owners, list(dict.fromkeys(model.served.decoders.values()))).items():
        if tensor.dtype == torch.int64 and tensor.ndim == 0:  # a batch norm's count of steps, which nothing reads
            continue
        if not tensor.is_floating_point():
            raise OptionError(f"export: {name} holds {tensor.dtype}, which cannot be an input; use adapters='merged'")
        value = tensor.detach()
        found.append(Slot(name, tuple(at[id(tensor)]), value.reshape(1) if value.ndim == 0 else value, value.ndim == 0))
    return [*found, *_numbers(model.owners)]


def named_tensors(owners: Sequence[Owner], decoders: Iterable[Decoder]) -> dict[str, Tensor]:
    """Name without tasks → tensor, of owners (parts count as owners) and decoders in their order."""
    found: dict[str, Tensor] = {}
    for number, owner in enumerate(owners):
        for name, tensor in owner.tensors().items():
            kind, rest = name.split(".", 1)
            assert rest.startswith(f"{owner.name}."), "an owner's tensors are stored under its name"
            found[f"{kind}.{number}.{rest[len(owner.name) + 1 :]}"] = tensor
    for number, decoder in enumerate(decoders):
        own = {f"task_{task}": f"task_{place}" for place, task in enumerate(decoder.tasks)}
        for leaf, tensor in decoder.module.state_dict(keep_vars=True).items():
            found[f"heads.{number}.{'.'.join(own.get(part, part) for part in leaf.split('.'))}"] = tensor
    return found


def _numbers(owners: Sequence[Owner]) -> Iterator[Slot]:
    """Floats that adapters hold as attributes, such as the scale of a low-rank update, which bundles differ in.

    Not the rates of dropout, which does nothing in a graph, and not what torch's own modules hold.
    """
    for number, owner in enumerate(owners):
        for place, adapter in owner.placed():
            for inside, module in adapter.named_modules():
                if type(module).__module__.split(".")[0] == "torch":
                    continue
                for leaf, value in sorted(vars(module).items()):
                    if type(value) is float and not leaf.startswith("_") and "drop" not in leaf:
                        where = ".".join(["adapters", str(number), place.site.name, str(place.level), inside, leaf])
                        name = where.replace("..", ".")
                        yield Slot(name, ((vars(module), leaf),), torch.tensor([value], dtype=torch.float32))


@contextmanager
def put(slots: Sequence[Slot], tensors: Sequence[Tensor]) -> Iterator[None]:
    """Let these tensors stand in the places of slots for a while."""
    former = [[table[leaf] for table, leaf in slot.places] for slot in slots]
    try:
        for slot, tensor in zip(slots, tensors, strict=True):
            for table, leaf in slot.places:
                table[leaf] = tensor.reshape(()) if slot.is_scalar else tensor
        yield
    finally:
        for slot, values in zip(slots, former, strict=True):
            for (table, leaf), value in zip(slot.places, values, strict=True):
                table[leaf] = value


@final
class Fed(nn.Module):
    """A module of pictures whose adapter and head tensors are inputs, too.

    Args:
        deployed: (N, 3, H, W) → tensors.
        model: the model inside it.
        slots: of the model; tensors are given in their order.
    """

    def __init__(self, deployed: nn.Module, model: Model, slots: Sequence[Slot]) -> None:
        super().__init__()
        self.deployed = deployed
        self._model = (model,)  # in a tuple: it is registered inside ``deployed``
        self._slots = tuple(slots)

    def forward(self, image: Tensor, own: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """(N, 3, H, W) pictures and a tensor a slot → what ``deployed`` returns with these."""
        (model,) = self._model
        with put(self._slots, own):
            catch_up(model)
            found: tuple[Tensor, ...] = self.deployed(image)
        catch_up(model)
        return found


def catch_up(model: Model) -> None:
    """Let copies of the trunk's modules that hold tuned values see the tensors that are there now."""
    for owner in model.owners:
        owner.catch_up(model.backbone.body)
