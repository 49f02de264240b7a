"""A tensor that a training pass keeps for its backward pass, or how it is made again there."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor


@final
@dataclass(eq=False, slots=True)
class MadeBy:
    """How a tensor was made.

    Attributes:
        function: what made it.
        args, kwargs: of the call, with :class:`Held` for tensors, also inside tuples.
        sources: all of these.
        work: bytes that are written to make it of what is kept.
        uses: how often it is still to be asked for.
        made: the tensor, made again, while anybody has it.
    """

    function: Callable[..., Tensor]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    sources: Sequence[Held]
    work: int
    uses: int = 0
    made: weakref.ref[Tensor] | None = None


@final
@dataclass(eq=False, slots=True)
class Held:
    """A tensor that is kept, or how it is made again.

    Attributes:
        tensor: itself, or None.
        key: number of its storage.
        version, writes: of the tensor, and how often its storage had been written to, when it was kept. (Autograd's
            own check of this is lost to hooks; the version of an operation's output is not its own there.)
        always: it is a parameter, which is kept whatever the pass keeps.
        made_by: how it is made again, or None.
        view: size, strides and offset of what is wanted within what is made.
    """

    tensor: Tensor | None
    key: int
    version: int = 0
    writes: int = 0
    always: bool = False
    made_by: MadeBy | None = None
    view: tuple[Any, Any, Any] | None = None


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to; 0 for one of ``torch.inference_mode``, which does not count."""
    return 0 if tensor.is_inference() else tensor._version
