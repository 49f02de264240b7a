"""A bound on the tensors that code of others makes: refused before they are allocated.

What a stranger's description asks for is built by methods, tasks and heads of ours and of third parties, which know
nothing of the file that is to fill the tensors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from garnish.errors import GarnishError

#: What a tensor counts for at least, bytes: making a small one takes as long as filling a page.
LEAST = 4096


def charge(elements: int, width: int = 4) -> int:
    """What a tensor of so many elements of ``width`` bytes counts for."""
    return max(LEAST, elements * width)


@final
class AllocationLimit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """In a ``with`` block, this thread makes no more tensors than counts for some bytes; all ever made are counted.

    Sizes are known before an operation runs: those of a constructor are its arguments, those of any other operation
    come from running it on the device "meta". Operations whose result depends on values (``nonzero``) are counted
    afterwards. Not seen is memory that is not of tensors, such as an array of NumPy.

    Args:
        most: bytes, as :func:`charge` has them.
        error: raised before an operation that goes beyond.
        more: called once where ``most`` are spent, for bytes that are allowed beside; counting them may take time.
    """

    def __init__(self, most: int, error: GarnishError, more: Callable[[], int] = int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left = most
        self._error = error
        self._more: Callable[[], int] | None = more

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        place = _place_of_size(func)
        if place is None:
            return func(*args, **given)
        asked = _asked(func, args, given, place)
        if asked is not None:
            self._spend(asked)
        made = func(*args, **given)
        if asked is None:
            self._spend(_bytes(made))
        return made

    def _spend(self, asked: int) -> None:
        self._left -= asked
        if self._left < 0 and self._more is not None:
            self._left += self._more()
            self._more = None
        if self._left < 0:
            raise self._error


@functools.cache
def _place_of_size(func: Any) -> int | None:
    """Where a constructor takes the size of its result; -1: nowhere; None: the operation makes no new memory."""
    schema = func._schema
    if schema.is_mutable or any(made.alias_info is not None for made in schema.returns):
        return None  # it writes into a tensor or looks at one
    names = [argument.name for argument in schema.arguments]
    return names.index("size") if "size" in names else -1


def _asked(func: Any, args: Sequence[Any], given: Mapping[str, Any], place: int) -> int | None:
    """What the result will count for; None where that depends on values."""
    size = args[place] if 0 <= place < len(args) else given.get("size") if place >= 0 else None
    if isinstance(size, list | tuple):
        dtype = given.get("dtype") or next((x.dtype for x in args if isinstance(x, Tensor)), torch.get_default_dtype())
        return charge(math.prod(size), dtype.itemsize)
    arguments = {argument.name for argument in func._schema.arguments}
    told = dict(given)
    if "device" in arguments:
        told["device"] = torch.device("meta")
    told |= {name: None for name in ("generator", "pin_memory") if name in given}
    try:
        there, told = tree_map_only(Tensor, _shape_of, (tuple(args), told))
        return _bytes(func(*there, **told))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return None


def _shape_of(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _bytes(made: object) -> int:
    return sum(charge(t.numel(), t.element_size()) for t in tree_leaves(made) if isinstance(t, Tensor))
