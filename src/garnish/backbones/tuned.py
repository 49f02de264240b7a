"""Backbone parameters that some owner trains in place; the trunk's own values stay where they are, bit-identical.

An owner that tunes anything runs through modules of its own: a copy of the trunk's module tree that shares every tensor
with it but the tuned ones. So nothing is exchanged when a pass begins, and passes of several threads do not meet.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from garnish.backbones.blocks import Stage
from garnish.backbones.walk import slots_of_trunk
from garnish.errors import SiteError, suggest

if TYPE_CHECKING:
    from garnish.backbones.backbone import Backbone


class Parts(NamedTuple):
    """The modules that a pass runs through.

    Attributes:
        stem: from pictures to the stream.
        stages: in forward order.
        taps: one for each feature map.
    """

    stem: nn.Module
    stages: tuple[Stage, ...]
    taps: nn.ModuleList


class TunedSet(nn.Module):
    """One owner's own values of some parameters."""

    def __init__(self, names: tuple[str, ...], values: list[nn.Parameter]) -> None:
        super().__init__()
        self.names = names
        self.values = nn.ParameterList(values)

    def items(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(canonical name, value) pairs."""
        yield from zip(self.names, self.values, strict=True)


class Tuned(nn.Module):
    """Which owner tunes what, and the modules that its passes run through.

    Tuned values cannot differ by row within one pass, so an owner that has any runs in a pass of its own.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        # a module attribute would register the backbone inside itself
        self._backbone = [backbone]
        self.owned = nn.ModuleDict()
        self.drops: set[int] = set()
        # not registered: all that trains in them is registered in ``owned``, the rest in the trunk
        self._parts: dict[int, Parts] = {}
        self._twins: dict[int, list[tuple[nn.Module, nn.Module]]] = {}

    def add(self, owner: int, names: tuple[str, ...], label: str, drops: bool) -> None:
        """Let ``owner`` tune the named parameters, starting from the frozen values."""
        if drops:
            self.drops.add(owner)
        if not names:
            return
        slots = {name: (module, leaf) for name, module, leaf in self._backbone[0].named_slots()}
        for name in names:
            if name not in slots or slots[name][1] not in slots[name][0]._parameters:
                raise SiteError(f"{label}: {self._backbone[0].name} has no parameter {name!r}{suggest(name, slots)}")
        former = dict(self.of(owner))
        for name in names:
            module, leaf = slots[name]
            parameter = module._parameters[leaf]
            assert parameter is not None
            former.setdefault(name, nn.Parameter(parameter.detach().clone()))
        self.owned[str(owner)] = TunedSet(tuple(former), list(former.values()))

    def of(self, owner: int) -> Iterator[tuple[str, nn.Parameter]]:
        """(canonical name, tuned value) of one owner."""
        if str(owner) in self.owned:
            tuned = self.owned[str(owner)]
            assert isinstance(tuned, TunedSet)
            yield from tuned.items()

    def owners(self) -> frozenset[int]:
        """Owners that tune anything, each of which needs a pass of its own."""
        return frozenset(int(o) for o in self.owned)

    def parts(self, owner: int) -> Parts:
        """The modules that a pass of this owner runs through: the trunk's, or those with its values in place."""
        if owner in self._parts:
            return self._parts[owner]
        trunk = self._backbone[0]
        return Parts(trunk.stem, trunk.stages, trunk.taps)

    def lay_out(self, owner: int) -> None:
        """Make an owner's modules, as the trunk's stand now; nothing where it tunes none of them."""
        if str(owner) not in self.owned:
            return
        trunk = self._backbone[0]
        memo = _shared_by(trunk)
        parts: Parts = copy.deepcopy(Parts(trunk.stem, trunk.stages, trunk.taps), memo)
        self._parts[owner] = parts
        self._twins[owner] = [(module, memo[id(module)]) for module in _modules_of(trunk) if id(module) in memo]
        self._put_values(owner)

    def rejoin(self) -> None:
        """Let all owners' modules share the trunk's tensors again, after these were moved or converted."""
        for owner, pairs in self._twins.items():
            for module, twin in pairs:
                twin._parameters.update(module._parameters)
                twin._buffers.update(module._buffers)
            self._put_values(owner)

    def _put_values(self, owner: int) -> None:
        slots = {name: (module, leaf) for name, module, leaf in slots_of_trunk(*self._parts[owner][:2])}
        for name, value in self.of(owner):
            module, leaf = slots[name]
            module._parameters[leaf] = value

    def follow(self, owner: int) -> None:
        """Bring an owner's modules into the modes, training or evaluation, that the trunk's have now."""
        for module, twin in self._twins.get(owner, ()):
            twin.training = module.training

    def settle(self, owner: int) -> None:
        """Make one owner's values the frozen ones and forget all others (for merging a copy)."""
        slots = {name: (module, leaf) for name, module, leaf in self._backbone[0].named_slots()}
        for name, value in self.of(owner):
            module, leaf = slots[name]
            module._parameters[leaf] = nn.Parameter(value.detach().clone(), requires_grad=False)
        self.owned = nn.ModuleDict()
        self._parts.clear()
        self._twins.clear()


def _modules_of(trunk: Backbone) -> Iterator[nn.Module]:
    for part in (trunk.stem, *trunk.stages, trunk.taps):
        yield from part.modules()


def _shared_by(trunk: Backbone) -> dict[int, Any]:
    """What a copy of the trunk's modules takes over as it is, by id, as ``copy.deepcopy`` keeps what it has copied.

    That is all tensors, the adapters, the cell of the context, and the tables of hooks, so that a hook that is set on a
    module of the trunk fires whichever owner's pass runs.
    """
    shared: list[object] = [trunk.binding]
    for module in _modules_of(trunk):
        shared += (tensor for tensor in (*module._parameters.values(), *module._buffers.values()) if tensor is not None)
        shared += (value for name, value in vars(module).items() if name.endswith(_HOOKS) and isinstance(value, dict))
        if getattr(type(module), "is_wrapper", False):
            shared.append(module.owned)
    return {id(kept): kept for kept in shared}


#: How torch calls the tables of a module's hooks.
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")
