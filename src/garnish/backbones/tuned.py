"""Backbone parameters that some owner trains in place; the frozen values are kept and stay bit-identical."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from garnish.errors import SiteError, suggest

if TYPE_CHECKING:
    from garnish.backbones.backbone import Backbone


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
    """Which owner tunes what, and whose values stand in the backbone's modules at present.

    Tuned values cannot differ by row within one pass, so an owner that has any runs in a pass of its own. Putting them
    in place is an exchange of pointers, done as the pass is bound; so gradients reach them without arithmetic.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        # a module attribute would register the backbone inside itself
        self._backbone = [backbone]
        self.owned = nn.ModuleDict()
        self.frozen_names: list[str] = []
        self.frozen = nn.ParameterList()
        self.installed: int | None = None
        self.drops: set[int] = set()

    def add(self, owner: int, names: tuple[str, ...], label: str, drops: bool) -> None:
        """Let ``owner`` tune the named parameters, starting from the frozen values."""
        if drops:
            self.drops.add(owner)
        if not names:
            return
        self.switch(None)
        slots = {name: (module, leaf) for name, module, leaf in self._backbone[0].named_slots()}
        for name in names:
            if name not in slots or slots[name][1] not in slots[name][0]._parameters:
                raise SiteError(f"{label}: {self._backbone[0].name} has no parameter {name!r}{suggest(name, slots)}")
        former = dict(self.of(owner))
        for name in names:
            module, leaf = slots[name]
            parameter = module._parameters[leaf]
            assert parameter is not None
            if name not in self.frozen_names:
                self.frozen_names.append(name)
                self.frozen.append(parameter)
            former.setdefault(name, nn.Parameter(parameter.detach().clone()))
        self.owned[str(owner)] = TunedSet(tuple(former), list(former.values()))
        self._backbone[0].binding.on_owner = self.switch

    def of(self, owner: int) -> Iterator[tuple[str, nn.Parameter]]:
        """(canonical name, tuned value) of one owner."""
        if str(owner) in self.owned:
            tuned = self.owned[str(owner)]
            assert isinstance(tuned, TunedSet)
            yield from tuned.items()

    def owners(self) -> frozenset[int]:
        """Owners that tune anything, each of which needs a pass of its own."""
        return frozenset(int(o) for o in self.owned)

    def frozen_values(self) -> dict[str, Tensor]:
        """Frozen value of each parameter that some owner tunes."""
        return dict(zip(self.frozen_names, self.frozen, strict=True))

    def switch(self, owner: int | None) -> None:
        """Put one owner's values in place (None, or an owner without any: the frozen ones)."""
        wanted = owner if owner is not None and str(owner) in self.owned else None
        if wanted == self.installed:
            return
        slots = {name: (module, leaf) for name, module, leaf in self._backbone[0].named_slots()}
        for name, value in self.frozen_values().items():
            module, leaf = slots[name]
            module._parameters[leaf] = value  # type: ignore[assignment]
        if wanted is not None:
            for name, value in self.of(wanted):
                module, leaf = slots[name]
                module._parameters[leaf] = value
        self.installed = wanted

    def settle(self, owner: int) -> None:
        """Make one owner's values the frozen ones and forget all others (for merging a copy)."""
        backbone = self._backbone[0]
        slots = {name: (module, leaf) for name, module, leaf in backbone.named_slots()}
        self.switch(None)
        with torch.no_grad():
            for name, value in self.of(owner):
                module, leaf = slots[name]
                module._parameters[leaf] = nn.Parameter(value.detach().clone(), requires_grad=False)
        self.owned = nn.ModuleDict()
        self.frozen_names, self.frozen = [], nn.ParameterList()
        backbone.binding.on_owner = None
