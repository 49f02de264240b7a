"""Compiled passes of a model that is used as it is in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

from garnish.model.model import Model


@final
class CompiledPasses:
    """The trunk and heads of a model through ``torch.compile``, within :meth:`used` only.

    Elsewhere the model runs plain: evaluation then measures what a bundle of it will run, and its pictures, of any size
    and number, ask for no further graphs. Like a model's mode, for one thread.

    Args:
        model: not compiled; left as it is until :meth:`used`.
        options: keyword arguments of ``torch.compile``.
    """

    def __init__(self, model: Model, **options: Any) -> None:
        assert not model.is_compiled
        self.model = model
        model.compile(**options)
        self._trunk = model._compiled
        self._heads: list[tuple[Any, Callable[..., Any] | None]] = [
            (module, module._compiled_call_impl) for _, module in model.decoders.each()
        ]
        self._set_aside()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Run the compiled passes in a ``with`` block; the model is as it was afterwards."""
        self.model._compiled = self._trunk
        for module, compiled in self._heads:
            module._compiled_call_impl = compiled
        try:
            yield
        finally:
            self._set_aside()

    def _set_aside(self) -> None:
        self.model._compiled = None
        for module, _ in self._heads:
            module._compiled_call_impl = None
