"""Facts about a module's tensors that are found again only where one of them was written or replaced since."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, final
from weakref import WeakKeyDictionary, ref

from torch import Tensor, nn

T = TypeVar("T")


@final
@dataclass(frozen=True)
class _Seen:
    """A tensor as it was when it was read: itself, where its values lie, and how often they had been written."""

    tensor: ref[Tensor]
    place: int
    version: int

    def holds(self, tensor: Tensor) -> bool:
        same = self.tensor() is tensor and not tensor.is_inference()
        return same and self.place == tensor.data_ptr() and self.version == tensor._version


#: Module → fact → its tensors when they were last read, and what was found.
_KNOWN: WeakKeyDictionary[nn.Module, dict[str, tuple[list[_Seen], Any]]] = WeakKeyDictionary()


def remembered(module: nn.Module, fact: str, find: Callable[[], T]) -> T:
    """What ``find`` gives; it is called again only where a tensor of the module was written or replaced since.

    A write that autograd does not count (through ``.data``, or by another library into the same memory) is not seen.

    Args:
        module: all that ``find`` looks at are its parameters and buffers.
        fact: what is found, by a name.
        find: reads them.
    """
    own = [*module.parameters(), *module.buffers()]
    seen, found = _KNOWN.get(module, {}).get(fact, ([], None))
    if own and len(seen) == len(own) and all(was.holds(t) for was, t in zip(seen, own, strict=True)):
        return found  # type: ignore[no-any-return]
    found = find()
    if not any(t.is_inference() or t.is_meta for t in own):  # of those nothing counts the writes
        _KNOWN.setdefault(module, {})[fact] = [_Seen(ref(t), t.data_ptr(), t._version) for t in own], found
    return found
