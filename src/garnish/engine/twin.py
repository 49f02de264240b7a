"""The modules of an owner that trains parameters of the backbone in place; the trunk's stay as they are, bit-identical.

They are a copy of the trunk's module tree that shares every tensor with it but the tuned ones. So nothing is exchanged
when a pass begins, and passes of several threads do not meet.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, final

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from garnish.engine.sites import slots_of
from garnish.engine.units import Body

#: How torch calls the tables of a module's hooks.
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")


class TunedSet(nn.Module):
    """One owner's own values of some parameters of the backbone.

    Attributes:
        names: canonical ones.
        values: in that order.
    """

    def __init__(self, names: tuple[str, ...], values: list[nn.Parameter]) -> None:
        super().__init__()
        self.names = names
        self.values = nn.ParameterList(values)

    def __len__(self) -> int:
        return len(self.names)

    def items(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(canonical name, value) pairs."""
        yield from zip(self.names, self.values, strict=True)


@final
class Twin:
    """The copy of one trunk's modules in which an owner's values stand.

    Args:
        source: the trunk's modules, with wrappers where adapters sit now.
        tuned: the owner's values.

    Attributes:
        body: what the owner's passes run through.
    """

    def __init__(self, source: Body, tuned: TunedSet) -> None:
        memo = _shared(source)
        self.body: Body = copy.deepcopy(source, memo)
        #: (the trunk's module, its copy)
        self._pairs = [(module, memo[id(module)]) for module in source.modules()]
        names = {name: str(position) for position, name in enumerate(tuned.names)}
        own = {(id(m), leaf): names[name] for _, name, m, leaf in slots_of(self.body) if name in names}
        #: of each tensor of the copy: the table and the name under which it is found, those under which it is put
        self._links: list[tuple[dict[str, Any], str, dict[str, Any], str]] = []
        for module, copied in self._pairs:
            for leaf in module._parameters:
                held = own.get((id(copied), leaf))
                found = (module._parameters, leaf) if held is None else (tuned.values._parameters, held)
                self._links.append((*found, copied._parameters, leaf))
            self._links.extend((module._buffers, leaf, copied._buffers, leaf) for leaf in module._buffers)
        #: the children of each of the trunk's modules, as they were copied
        self._shape = [(module._modules, tuple(module._modules.values())) for module, _ in self._pairs]
        self.catch_up()

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: without tensors that ``functional_call`` had put in place, which cannot be copied."""
        self.catch_up()
        return vars(self)

    @property
    def is_stale(self) -> bool:
        """Whether the trunk has other modules by now: somebody adapted new sites."""
        return any(tuple(table.values()) != children for table, children in self._shape)

    def catch_up(self) -> None:
        """Hold the tensors that the trunk and the tuned values hold now, and hooks.

        Whoever gives a module other tensors (a checkpoint with ``assign=True``, ``functional_call``, a move to another
        device) finds them in the next pass. Other attributes are those of when the copy was made.
        """
        for source, name, target, leaf in self._links:
            if target[leaf] is not source[name]:
                target[leaf] = source[name]
        for module, copied in self._pairs:
            if copied._is_full_backward_hook is not module._is_full_backward_hook:
                copied._is_full_backward_hook = module._is_full_backward_hook

    def train(self, mode: bool) -> None:
        """Training or evaluation mode for all but batch norms: they share their statistics with the trunk, frozen."""
        for _, copied in self._pairs:
            copied.training = mode and not isinstance(copied, _BatchNorm)

    def follow(self, other: Twin | None = None) -> None:
        """Take the modes, training or evaluation, that the trunk's modules have now, or those of an earlier copy."""
        earlier = {} if other is None else {id(module): copied.training for module, copied in other._pairs}
        for module, copied in self._pairs:
            copied.training = earlier.get(id(module), module.training)


def _shared(source: Body) -> dict[int, Any]:
    """What the copy takes over as it is, by id, as ``copy.deepcopy`` keeps what it has copied.

    That is all tensors, the cell of the context, and the tables of hooks, so that a hook that is set on a module of the
    trunk fires whichever owner's pass runs.
    """
    shared: list[object] = [source.binding]
    for module in source.modules():
        shared += (tensor for tensor in (*module._parameters.values(), *module._buffers.values()) if tensor is not None)
        shared += (value for name, value in vars(module).items() if name.endswith(_HOOKS) and isinstance(value, dict))
    return {id(kept): kept for kept in shared}
