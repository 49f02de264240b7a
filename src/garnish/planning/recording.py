"""How many bytes of tensors a piece of torch code keeps alive at once.

Works with real tensors and with fake ones (:class:`torch._subclasses.fake_tensor.FakeTensorMode`), which have shapes
but no values and take neither time nor memory; both give the same figures.
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
    """Follows the storages of all tensors that are made inside its ``with`` block.

    Args:
        present: tensors that are there at the start; their storages count from then on.

    Attributes:
        start_bytes: of distinct storages that were there at the start.
        peak_bytes: most bytes alive at any moment, those of the start included.
    """

    def __init__(self, present: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive = 0
        self._known: dict[int, weakref.ref[UntypedStorage]] = {}
        for tensor in present:
            self._note(tensor)
        self.start_bytes = self.peak_bytes = self._alive

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run one operation and note what came out."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    self._note(leaf)
            self.peak_bytes = max(self.peak_bytes, self._alive)
        return out

    def _note(self, tensor: Tensor) -> None:
        """Count the storage of a tensor from now until it is freed."""
        storage = tensor.untyped_storage()
        key = id(storage)  # one Python object a storage, for as long as either lives
        known = self._known.get(key)
        if known is not None and known() is storage:
            return
        size = storage.nbytes()
        self._alive += size

        def freed(_: object) -> None:
            self._alive -= size
            del self._known[key]

        self._known[key] = weakref.ref(storage, freed)
