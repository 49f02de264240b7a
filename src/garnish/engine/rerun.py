"""A part of a training pass that keeps its input alone and runs again when the backward pass reaches it.

While it runs again, what is cheap is not kept either (:mod:`garnish.engine.remaking`), so that the most that is alive
is one block's share of a lean pass. It is done by autograd's saved-tensor hooks: the first time, a number is kept in
place of each tensor; the second time, the tensor of that number is handed over. Unlike with a backward pass of its own
inside the backward pass, ``torch.autograd.grad``, hooks of gradients and DDP see nothing of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor

from garnish.engine.held import Held, version_of
from garnish.engine.pass_state import Autocast, Draws
from garnish.engine.remaking import Remaking

S = TypeVar("S")
T = TypeVar("T")


@final
class Unchanged:
    """The tensors that a pass reads, as they were when it began.

    Args:
        reads: lists them.
    """

    def __init__(self, reads: Callable[[], Iterable[Tensor]]) -> None:
        self._reads = reads
        self._before = [(tensor, version_of(tensor)) for tensor in reads()]

    def check(self) -> None:
        """Raise RuntimeError if others have taken their places, or if they were written to."""
        now = list(self._reads())
        pairs = zip(now, self._before, strict=False)
        if len(now) != len(self._before) or any(a is not b or version_of(a) != version for a, (b, version) in pairs):
            raise RuntimeError(
                "weights or running statistics were written to in place or replaced since the forward pass, so a block"
                " cannot run again as it did; call backward before, or use memory lean or fast"
            )


@final
class _Later:
    """What autograd keeps in place of a tensor: its number among all that the part keeps."""

    __slots__ = ("__weakref__", "held", "part", "remaking")

    def __init__(self, part: Rerun[Any, Any]) -> None:
        self.part = part
        self.held: Held | None = None
        self.remaking: Remaking | None = None


@final
class Rerun(Generic[S, T]):
    """One part of a pass.

    Args:
        run: the part; it is called again with the same values.
        given: its input, kept until the backward pass is over.
        detached: the same input for the second time: tensors cut off from the graph, but requiring a gradient likewise.
        device: whose random generator it may draw from.
        reads: the parameters and buffers that it may read.
    """

    def __init__(
        self,
        run: Callable[[S], T],
        given: S,
        detached: Callable[[S], S],
        device: torch.device,
        reads: Unchanged,
    ) -> None:
        self._run, self._given = run, detached(given)
        self._first = given
        self._laters: list[weakref.ref[_Later]] = []
        self._reads = reads
        self._draws, self._autocast = Draws.now(device), Autocast.now()

    def __call__(self) -> T:
        """Run it for the first time."""
        with Remaking((self._keep, _unpacked), notes=False):
            made = self._run(self._first)
        del self._first
        return made

    def _keep(self, _: Tensor) -> _Later:
        later = _Later(self)
        self._laters.append(weakref.ref(later))
        return later

    def again(self) -> None:
        """Run it once more, and hand over what it keeps to those that still want it."""
        if hasattr(self, "_first"):
            raise RuntimeError("a block takes gradients while it runs, so it cannot run again; use memory lean or fast")
        self._reads.check()
        wanted = iter(self._laters)
        number = 0

        def fill(tensor: Tensor) -> Held:
            nonlocal number
            number += 1
            held = remaking.pack(tensor)
            ref = next(wanted, None)
            later = None if ref is None else ref()
            if later is not None:
                later.held, later.remaking = held, remaking
            return held

        remaking = Remaking((fill, lambda held: remaking.unpack(held)))
        with torch.enable_grad(), self._autocast.again(), self._draws.again(), remaking:
            self._run(self._given)
        if number != len(self._laters):
            raise RuntimeError(
                f"a block kept {len(self._laters)} tensors for the backward pass, and {number} when it ran again: it is"
                " not the same each time; use memory lean or fast"
            )


def _unpacked(later: _Later) -> Tensor:
    if later.remaking is None:
        later.part.again()
    assert later.remaking is not None
    return later.remaking.unpack(later.held)
