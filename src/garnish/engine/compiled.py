"""A trunk run through ``torch.compile``: one graph serves every mix of tasks whose owners share a pass."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from garnish.engine.context import Rows
from garnish.engine.maps import TaskMaps
from garnish.engine.owner import Owner
from garnish.engine.shared_passes import Pass
from garnish.engine.trunk import Trunk


@final
class CompiledTrunk:
    """Runs passes of an adapted trunk through ``torch.compile``; not a module, as the model already holds the trunk.

    Attributes:
        options: keyword arguments of ``torch.compile``.
    """

    def __init__(self, trunk: Trunk, options: dict[str, Any]) -> None:
        self.trunk = trunk
        self.options = options
        self._by_text = _ByText(trunk)
        self._runs: dict[str, Callable[..., tuple[Tensor, ...]]] = {}

    def __call__(self, images: Tensor, step: Pass) -> tuple[Tensor | TaskMaps, ...]:
        """Feature maps of one pass, as :meth:`garnish.backbones.backbone.Backbone.forward` gives them."""
        tables: tuple[Tensor | None, ...] = (None, None)
        if step.rows is not None:
            tables = (step.rows.images, step.rows.owners)
            for rows in (step.rows.images, step.rows.owners):
                torch._dynamo.maybe_mark_dynamic(rows, 0)
        # the owner's own modules are synchronised here, as this cannot be traced within the graph
        step.present[0].root.catch_up(self.trunk.body)
        try:
            maps = self._run_of(" ".join(str(owner.number) for owner in step.present))(images, *tables)
        except Exception:
            if all(str(owner.number) in self.trunk.owners for owner in step.present):
                raise
            # an owner was removed meanwhile and the graph cannot look it up; finish the pass uncompiled
            return self.trunk(images, step.present, step.rows)  # type: ignore[no-any-return]
        return maps

    def _run_of(self, present: str) -> Callable[..., tuple[Tensor, ...]]:
        """The compiled pass of these owners, which share no count of graphs with others."""
        if present not in self._runs:
            known = [text for text in self._runs if all(number in self.trunk.owners for number in text.split())]
            pass_of = with_own_code(_pass_of(self._by_text, present))
            made = torch.compile(pass_of, fullgraph=True, **self.options)
            self._runs = {text: self._runs[text] for text in known} | {present: made}
        return self._runs[present]


def compile_module(module: nn.Module, options: dict[str, Any]) -> None:
    """Compile a module in place, as ``module.compile`` does, with a count of graphs of its own."""
    module._compiled_call_impl = torch.compile(with_own_code(_call_of(module)), **options)


def with_own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with a code object of its own.

    torch keeps graphs by code object, and makes no more than a number for each (``recompile_limit``, 8): the heads of a
    model, and models one after the other, would use up each other's, and graphs of models that are gone would stay.
    """
    assert isinstance(function, types.FunctionType)
    code, more = function.__code__.replace(), (function.__name__, function.__defaults__, function.__closure__)
    return types.FunctionType(code, function.__globals__, *more)


def _pass_of(by_text: _ByText, present: str) -> Callable[..., Any]:
    def run(images: Tensor, row_images: Tensor | None, row_owners: Tensor | None) -> Any:
        return by_text(images, row_images, row_owners, present)

    return run


def _call_of(module: nn.Module) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        return module._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

    return run


@final
class _ByText(nn.Module):
    """The trunk with owners given as text, a constant of the graph; integers would be traced as variables."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(
        self, images: Tensor, row_images: Tensor | None, row_owners: Tensor | None, present: str
    ) -> tuple[Tensor | TaskMaps, ...]:
        """Feature maps of one pass; ``present`` holds the owners' numbers separated by spaces."""
        owners: list[Owner] = [self.trunk.owners[number] for number in present.split()]  # type: ignore[misc]
        if row_images is None or row_owners is None:
            return self.trunk(images, tuple(owners))  # type: ignore[no-any-return]
        # tell the compiler that both sizes are the same number: one is divided by the other later
        torch._check(row_images.shape[0] == row_owners.shape[0])
        rows = Rows(row_images, row_owners, tuple(owners), None)
        return self.trunk(images, tuple(owners), rows)  # type: ignore[no-any-return]
