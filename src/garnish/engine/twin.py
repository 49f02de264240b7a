"""The copy of the trunk's modules for an owner that tunes backbone parameters; the trunk itself stays bit-identical.

The copied module tree shares every tensor with the trunk except the tuned ones. So no weights are swapped when a pass
begins, and concurrent passes do not interfere.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, final

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from garnish.engine.sites import slots_of
from garnish.engine.units import Body

#: Endings of the attribute names of torch's hook tables.
_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")


class TunedSet(nn.Module):
    """One owner's tuned values of some parameters of the backbone.

    Attributes:
        names: canonical names of the parameters.
        values: their values, in that order.
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
    """A copy of a trunk's modules that holds one owner's tuned values.

    Args:
        source: the trunk's modules, with the current wrappers.
        tuned: the owner's values.

    Attributes:
        body: the copied modules, which the owner's passes run through.
    """

    def __init__(self, source: Body, tuned: TunedSet) -> None:
        memo = _shared(source)
        self.body: Body = copy.deepcopy(source, memo)
        #: (the trunk's module, its copy)
        self._pairs = [(module, memo[id(module)]) for module in source.modules()]
        names = {name: str(position) for position, name in enumerate(tuned.names)}
        own = {(id(m), leaf): names[name] for _, name, m, leaf in slots_of(self.body) if name in names}
        #: per tensor of the copy: source table and name, then target table and name
        self._links: list[tuple[Mapping[str, Tensor | None], str, dict[str, Tensor | None], str]] = []
        for module, copied in self._pairs:
            for leaf in module._parameters:
                held = own.get((id(copied), leaf))
                found = (module._parameters, leaf) if held is None else (tuned.values._parameters, held)
                self._links.append((*found, copied._parameters, leaf))
            self._links.extend((module._buffers, leaf, copied._buffers, leaf) for leaf in module._buffers)
        #: the children of each of the trunk's modules at the time of the copy
        self._shape = [(module._modules, tuple(module._modules.values())) for module, _ in self._pairs]
        self.catch_up()

    def __getstate__(self) -> dict[str, object]:
        """State for copying and pickling, rid of temporary tensors of ``functional_call``, which cannot be copied."""
        self.catch_up()
        return vars(self)

    @property
    def is_stale(self) -> bool:
        """Whether the trunk's modules have changed since the copy (new sites were wrapped)."""
        return any(tuple(table.values()) != children for table, children in self._shape)

    def catch_up(self) -> None:
        """Update the copy to the current tensors of the trunk and the tuned values, and to the kind of backward hooks.

        Tensors replaced since (a checkpoint with ``assign=True``, ``functional_call``, a move to another device)
        take effect in the next pass. Other attributes stay as they were when the copy was made.
        """
        for source, name, target, leaf in self._links:
            if target[leaf] is not source[name]:
                target[leaf] = source[name]
        for module, copied in self._pairs:
            if copied._is_full_backward_hook is not module._is_full_backward_hook:
                copied._is_full_backward_hook = module._is_full_backward_hook

    def train(self, mode: bool) -> None:
        """Set training or evaluation mode, except for batch norms, whose statistics are the trunk's and frozen."""
        for _, copied in self._pairs:
            copied.training = mode and not isinstance(copied, _BatchNorm)

    def follow(self, other: Twin | None = None) -> None:
        """Take over the modes, training or evaluation, of the trunk's modules or of an earlier copy."""
        earlier = {} if other is None else {id(module): copied.training for module, copied in other._pairs}
        for module, copied in self._pairs:
            copied.training = earlier.get(id(module), module.training)


def _shared(source: Body) -> dict[int, Any]:
    """The memo for ``copy.deepcopy``, id → object, of everything that the copy shares instead of copying.

    That is all tensors, the context binding and the hook tables, so that a hook set on a module of the trunk fires
    whichever owner's pass runs.
    """
    shared: list[object] = [source.binding]
    for module in source.modules():
        shared += (tensor for tensor in (*module._parameters.values(), *module._buffers.values()) if tensor is not None)
        shared += (value for name, value in vars(module).items() if name.endswith(_HOOKS) and isinstance(value, dict))
    return {id(kept): kept for kept in shared}
