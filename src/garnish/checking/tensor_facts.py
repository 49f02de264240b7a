"""A cache of facts about a module's tensors (fingerprint, finiteness), valid until one is written or replaced."""

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
    """A tensor at the time it was read: a weak reference, the address of its values, and its write counter."""

    tensor: ref[Tensor]
    place: int
    version: int

    def holds(self, tensor: Tensor) -> bool:
        same = self.tensor() is tensor and not tensor.is_inference()
        return same and self.place == tensor.data_ptr() and self.version == tensor._version


#: Module → fact → its tensors when they were last read, and the value of the fact.
_KNOWN: WeakKeyDictionary[nn.Module, dict[str, tuple[list[_Seen], Any]]] = WeakKeyDictionary()


def remembered(module: nn.Module, fact: str, find: Callable[[], T]) -> T:
    """The cached result of ``find``; it is called again only if a tensor of the module was written or replaced since.

    A write that autograd does not count (through ``.data``, or by another library into the same memory) is missed.

    Args:
        module: ``find`` may depend on its parameters and buffers only.
        fact: name of the fact.
        find: computes it.
    """
    own = [*module.parameters(), *module.buffers()]
    seen, found = _KNOWN.get(module, {}).get(fact, ([], None))
    if own and len(seen) == len(own) and all(was.holds(t) for was, t in zip(seen, own, strict=True)):
        return found  # type: ignore[no-any-return]
    found = find()
    if not any(t.is_inference() or t.is_meta for t in own):  # their writes are not counted
        _KNOWN.setdefault(module, {})[fact] = [_Seen(ref(t), t.data_ptr(), t._version) for t in own], found
    return found
