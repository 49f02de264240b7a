"""What a piece of torch code does, operation by operation: which ones it calls, and how many bytes are alive.

Works with real tensors and with fake ones (:class:`torch._subclasses.fake_tensor.FakeTensorMode`), which have shapes
but no values and take neither time nor memory; both give the same record.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

#: Operations that do nothing: questions about a fake tensor, which a real one answers itself, and marks for profilers.
_NO_WORK = frozenset({"prim", "profiler"})

#: Bytes touched since then, beyond which a tensor has left the nearest caches (a core's own are 1 to 2 MiB).
NEAR_BYTES = 2**20


@final
@dataclass(frozen=True)
class Shaped:
    """What time depends on in a tensor.

    Attributes:
        shape: its size.
        stride: in entries; 0 where an axis is expanded.
        dtype: of its entries.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def entries(self) -> int:
        """Entries of storage from the first to the last that is addressed."""
        if 0 in self.shape:
            return 0
        return 1 + sum((length - 1) * step for length, step in zip(self.shape, self.stride, strict=True))


@final
@dataclass(frozen=True)
class Listed:
    """A list of arguments, as something that can be a key."""

    entries: tuple[Any, ...]


@final
@dataclass(frozen=True)
class Call:
    """One kind of call: an operation and its arguments, tensors by shape, stride and type.

    Attributes:
        op: an overload of ``torch.ops.aten``.
        args: positional arguments; lists as :class:`Listed`.
        kwargs: keyword arguments, by name.
        far: most of what it reads was last touched so long ago that it has left the processor's nearest caches.
    """

    op: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    far: bool


@final
@dataclass(eq=False)
class Record:
    """What was recorded.

    Attributes:
        calls: how often each kind of call was made; those that only look at memory in another way are left out.
        views: number of calls that were left out.
        flops: floating-point operations of matrix products and convolutions (two a multiply-accumulate).
        start_bytes: of distinct storages that were there at the start.
        peak_bytes: most bytes alive at any moment, those of the start included.
    """

    calls: Counter[Call] = field(default_factory=Counter)
    views: int = 0
    flops: int = 0
    start_bytes: int = 0
    peak_bytes: int = 0

    @property
    def number(self) -> int:
        """Of calls, views included."""
        return self.views + self.calls.total()


@final
class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records all that runs inside its ``with`` block.

    Args:
        present: tensors that are there at the start; their storages count from then on.
    """

    def __init__(self, present: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.record = Record()
        self._alive = 0
        self._known: dict[int, weakref.ref[Any]] = {}
        self._clock = 0  # bytes touched so far
        self._touched: dict[int, int] = {}
        for tensor in present:
            self._note(tensor)
        self._clock += NEAR_BYTES
        self.record.start_bytes = self.record.peak_bytes = self._alive

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation and note it."""
        out = func(*args, **(kwargs or {}))
        record = self.record
        if func.namespace in _NO_WORK:
            return out
        if func.is_view:
            record.views += 1
            return out
        far = self._read([leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)])
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        record.peak_bytes = max(record.peak_bytes, self._alive)
        named = tuple((name, frozen(value)) for name, value in sorted((kwargs or {}).items()))
        record.calls[Call(func, tuple(map(frozen, args)), named, far)] += 1
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            record.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out

    def _read(self, tensors: list[Tensor]) -> bool:
        """Note that tensors are touched; whether most of their bytes were last touched long ago."""
        near = far = 0
        for tensor in tensors:
            size, key = tensor.numel() * tensor.element_size(), id(tensor.untyped_storage())
            if self._clock - self._touched.get(key, -NEAR_BYTES) < NEAR_BYTES:
                near += size
            else:
                far += size
        self._clock += near + far
        for tensor in tensors:
            self._touched[id(tensor.untyped_storage())] = self._clock
        return far > near

    def _note(self, tensor: Tensor) -> None:
        """Count the storage of a tensor from now until it is freed."""
        storage = tensor.untyped_storage()
        key = id(storage)  # one Python object a storage, for as long as either lives
        known = self._known.get(key)
        if known is not None and known() is storage:
            return
        size = storage.nbytes()
        self._alive += size
        self._clock += size
        self._touched[key] = self._clock

        def freed(_: object) -> None:
            self._alive -= size
            del self._known[key], self._touched[key]

        self._known[key] = weakref.ref(storage, freed)


def frozen(value: Any) -> Any:
    """An argument as something that can be a key: tensors as :class:`Shaped`, lists as :class:`Listed`."""
    if isinstance(value, Tensor):
        return Shaped(tuple(value.shape), tuple(value.stride()), value.dtype)
    if isinstance(value, list | tuple):
        return Listed(tuple(map(frozen, value)))
    return value
