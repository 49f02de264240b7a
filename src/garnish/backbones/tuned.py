"""Backbone parameters that some owner trains in place; the trunk's own values stay where they are, bit-identical.

An owner that tunes anything runs through modules of its own: a copy of the trunk's module tree that shares every tensor
with it but the tuned ones. So nothing is exchanged when a pass begins, and passes of several threads do not meet.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
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


#: A tensor of an owner's module: the table and the name under which it is found, those under which it is put.
_Link = tuple[dict[str, Any], str, dict[str, Any], str]


@dataclass(frozen=True, eq=False)
class _Twins:
    """The modules of one owner, and what they have in common with the trunk's.

    Attributes:
        parts: what passes run through.
        pairs: (the trunk's module, the owner's).
        tensors: where each tensor is taken from, and put.
        shape: the children of each of the trunk's modules, as they were copied.
    """

    parts: Parts
    pairs: list[tuple[nn.Module, nn.Module]]
    tensors: list[_Link]
    shape: list[tuple[dict[str, nn.Module | None], tuple[nn.Module | None, ...]]]


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
        self._twins: dict[int, _Twins] = {}

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
        if owner in self._twins:
            if not torch.compiler.is_compiling():
                self.catch_up(owner)
            return self._twins[owner].parts
        trunk = self._backbone[0]
        return Parts(trunk.stem, trunk.stages, trunk.taps)

    def lay_out(self, owner: int) -> None:
        """Make an owner's modules, as the trunk's stand now; nothing where it tunes none of them."""
        if str(owner) not in self.owned:
            return
        trunk = self._backbone[0]
        tuned = self.owned[str(owner)]
        assert isinstance(tuned, TunedSet)
        memo = _shared_by(trunk)
        parts: Parts = copy.deepcopy(Parts(trunk.stem, trunk.stages, trunk.taps), memo)
        pairs = [(module, memo[id(module)]) for module in _modules_of(trunk) if id(module) in memo]
        slots = {name: (module, leaf) for name, module, leaf in slots_of_trunk(parts.stem, parts.stages)}
        own = {(id(slots[n][0]), slots[n][1]): str(k) for k, n in enumerate(tuned.names)}
        tensors: list[_Link] = []
        for module, twin in pairs:
            for name in module._parameters:
                held = own.get((id(twin), name))
                source = (module._parameters, name) if held is None else (tuned.values._parameters, held)
                tensors.append((*source, twin._parameters, name))
            tensors.extend((module._buffers, name, twin._buffers, name) for name in module._buffers)
        shape = [(module._modules, tuple(module._modules.values())) for module, _ in pairs if module._modules]
        if owner in self._twins:  # laid out before: dropout of its own may be acting
            modes = {id(module): twin.training for module, twin in self._twins[owner].pairs}
            for module, twin in pairs:
                twin.training = modes.get(id(module), twin.training)
        self._twins[owner] = _Twins(parts, pairs, tensors, shape)
        self.catch_up(owner)

    def catch_up(self, owner: int) -> None:
        """Let an owner's modules hold the tensors that the trunk and its tuned values hold now.

        Whoever gives a module other tensors (a checkpoint with ``assign=True``, ``functional_call``, a move to another
        device) or other modules finds them in the next pass; so do hooks. Other attributes are those of when the owner
        was added.
        """
        twins = self._twins[owner]
        if any(tuple(table.values()) != children for table, children in twins.shape):
            self.lay_out(owner)
            return
        for source, name, target, leaf in twins.tensors:
            if target[leaf] is not source[name]:
                target[leaf] = source[name]
        for module, twin in twins.pairs:
            if twin._is_full_backward_hook is not module._is_full_backward_hook:
                twin._is_full_backward_hook = module._is_full_backward_hook

    def catch_up_all(self) -> None:
        """:meth:`catch_up` for every owner that tunes anything."""
        for owner in self._twins:
            self.catch_up(owner)

    def follow(self, owner: int) -> None:
        """Bring an owner's modules into the modes, training or evaluation, that the trunk's have now."""
        if owner in self._twins:
            for module, twin in self._twins[owner].pairs:
                twin.training = module.training

    def settle(self, owner: int) -> None:
        """Make one owner's values the frozen ones and forget all others (for merging a copy)."""
        slots = {name: (module, leaf) for name, module, leaf in self._backbone[0].named_slots()}
        for name, value in self.of(owner):
            module, leaf = slots[name]
            module._parameters[leaf] = nn.Parameter(value.detach().clone(), requires_grad=False)
        self.owned = nn.ModuleDict()
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
