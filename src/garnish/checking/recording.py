"""Recording the peak number of bytes of tensors that are alive in a piece of torch code.

Works with real and fake tensors (:class:`torch._subclasses.fake_tensor.FakeTensorMode`), which have shapes
but no values and take almost no time or memory; both give the same figures.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from torch import Tensor, UntypedStorage
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@final
class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks the storages of all tensors that are created inside its ``with`` block.

    Args:
        present: tensors that exist at the start; their storages count from then on.

    Attributes:
        start_bytes: of distinct storages that existed at the start.
        alive_bytes: of distinct storages alive now, including those that existed at the start.
        peak_bytes: most bytes alive at any moment, including those that existed at the start.
    """

    def __init__(self, present: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive_bytes = self.peak_bytes = 0
        self._known: dict[int, weakref.ref[UntypedStorage]] = {}
        self.add(present)
        self.start_bytes = self.alive_bytes

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were made outside the ``with`` block from now on."""
        for tensor in tensors:
            self._note(tensor)
        self.peak_bytes = max(self.peak_bytes, self.alive_bytes)

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation and record its outputs."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    self._note(leaf)
            self.peak_bytes = max(self.peak_bytes, self.alive_bytes)
        return out

    def _note(self, tensor: Tensor) -> None:
        """Count the storage of a tensor from now until it is freed."""
        storage = tensor.untyped_storage()
        key = id(storage)  # one Python object per storage, as long as either lives
        known = self._known.get(key)
        if known is not None and known() is storage:
            return
        size = storage.nbytes()
        self.alive_bytes += size

        def freed(_: object) -> None:
            self.alive_bytes -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
