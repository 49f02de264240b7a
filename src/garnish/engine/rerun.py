"""A part of a training pass that keeps its input alone and runs again when the backward pass reaches it.

While it runs again, what is cheap is not kept either (:mod:`garnish.engine.remaking`), so that the most that is alive
is one block's share of a lean pass. It is done by autograd's saved-tensor hooks: the first time, a number is kept in
place of each tensor; the second time, the tensor of that number is handed over. Unlike with a backward pass of its own
inside the backward pass, ``torch.autograd.grad``, hooks of gradients and DDP see nothing of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor

from garnish.engine.pass_state import Autocast, Draws
from garnish.engine.remaking import Held, Remaking

S = TypeVar("S")
T = TypeVar("T")


@final
class _Later:
    """What autograd keeps in place of a tensor: its number among all that the part keeps."""

    __slots__ = ("__weakref__", "again", "held", "part")

    def __init__(self, part: Rerun[Any, Any]) -> None:
        self.part = part
        self.held: Held | None = None
        self.again: Remaking | None = None


@final
class Rerun(Generic[S, T]):
    """One part of a pass.

    Args:
        run: the part; it is called again with the same values.
        given: its input, kept until the backward pass is over.
        detached: the same input for the second time: tensors cut off from the graph, but requiring a gradient likewise.
        device: whose random generator it may draw from.
    """

    def __init__(self, run: Callable[[S], T], given: S, detached: Callable[[S], S], device: torch.device) -> None:
        self._run, self._given = run, detached(given)
        self._first = given
        self._laters: list[weakref.ref[_Later]] = []
        self._draws, self._autocast = Draws.now(device), Autocast.now()

    def __call__(self) -> T:
        """Run it for the first time."""
        given = self._first
        del self._first
        with _Counting(self):
            return self._run(given)

    def keep(self) -> _Later:
        """The next tensor is to be kept."""
        later = _Later(self)
        self._laters.append(weakref.ref(later))
        return later

    def again(self) -> None:
        """Run it once more, and hand over what it keeps to those that still want it."""
        filling = _Filling(self._laters)
        with torch.enable_grad(), self._autocast.again(), self._draws.again(), filling:
            self._run(self._given)
        if filling.number != len(self._laters):
            raise RuntimeError(
                f"a block kept {len(self._laters)} tensors for the backward pass, and {filling.number} when it ran"
                " again: it is not the same each time; use memory lean or fast"
            )


@final
class _Counting(Remaking):
    """The first time: nothing is kept but a number."""

    def __init__(self, part: Rerun[Any, Any]) -> None:
        super().__init__()
        self._part = part

    def note(
        self, out: object, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Nothing: what is kept is decided when the part runs again."""

    def pack(self, tensor: Tensor) -> object:
        """A number."""
        return self._part.keep()

    def unpack(self, held: Any) -> Tensor:
        """The tensor, after the part has run again."""
        if held.again is None:
            held.part.again()
        return held.again.unpack(held.held)  # type: ignore[no-any-return]


@final
class _Filling(Remaking):
    """The second time: what is kept goes to those who hold its number."""

    def __init__(self, laters: list[weakref.ref[_Later]]) -> None:
        super().__init__()
        self.number = 0
        self._laters = laters

    def pack(self, tensor: Tensor) -> object:
        """What is kept in place of a tensor."""
        held = super().pack(tensor)
        later = self._laters[self.number]() if self.number < len(self._laters) else None
        self.number += 1
        if later is not None:
            assert isinstance(held, Held)
            later.held, later.again = held, self
        return held
