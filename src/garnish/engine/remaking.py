"""What a training pass keeps for its backward pass: what is cheap to make is not kept but made again there.

In a pass through frozen layers, most of what autograd keeps can be had from the rest at little cost: the output of a
norm from its input, which the norm keeps itself; that of an activation likewise; what was scaled, shifted, added or
copied. :class:`Remaking` notes how the outputs of such functions were made. When autograd is to keep one of them, it is
left out if all that it was made of is kept anyway, and made again, by the same function from the same values, when the
backward pass asks for it. So gradients are those of a pass that keeps everything, bit by bit, and no adapter need know.

It stands where Python calls torch's functions (a mode of ``torch.overrides``) and where autograd keeps a tensor (its
saved-tensor hooks); both are those of one thread. Compiled passes do not come here: their partitioner decides the same.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from torch import Tensor, UntypedStorage, nn
from torch.overrides import TorchFunctionMode

from garnish.engine.cheap import CAST, FEW_TERMS, PRODUCTS, how_to_run, written_to
from garnish.engine.held import Held, MadeBy, version_of
from garnish.engine.memory import is_transformed, may_remake
from garnish.engine.pass_state import Autocast
from garnish.engine.sparing import draw_kept, drop, frozen_batch_norm, frozen_convolution, masked

#: Functions that stand in for torch's own where these keep too much.
SPARING: Mapping[str, Callable[..., Tensor | None]] = {
    "conv1d": frozen_convolution,
    "conv2d": frozen_convolution,
    "conv3d": frozen_convolution,
    "batch_norm": frozen_batch_norm,
}
#: Bytes written to make a tensor again, over its own, up to which it is cheap.
MOST_WORK = 3.2
#: A source that is kept for nothing else is kept for what is at least so many times larger.
MUCH_LARGER = 4
#: Tensors made again that stay at hand for whoever needs them next.
AT_HAND = 3


def remaking(memory: object) -> AbstractContextManager[object]:
    """A context in which a part of a training pass keeps little, unless ``memory`` is "fast" or nothing is gained."""
    return Remaking() if memory != "fast" and may_remake() else nullcontext()


def note_made(out: Tensor, function: Callable[..., Tensor], *args: object) -> None:
    """Tell the pass that runs here, if it keeps little, that ``function(*args)`` makes ``out`` at little cost."""
    if (mode := _running()) is not None and out.requires_grad:
        mode.note(out, function, args)


def keep_for_many(tensor: Tensor) -> None:
    """Tell the pass that runs here, if it keeps little, to make what is made of ``tensor`` of it again.

    As several tensors are made of it, it is kept in place of all of them, if any of them is asked for.
    """
    if (mode := _running()) is not None:
        mode.keep(tensor)


def _running() -> Remaking | None:
    mode = torch.overrides._get_current_function_mode()  # type: ignore[no-untyped-call]
    return mode if isinstance(mode, Remaking) else None


#: What autograd keeps in place of a tensor, and the tensor again.
Hooks = tuple[Callable[[Tensor], object], Callable[[Any], Tensor]]


@final
class Remaking(TorchFunctionMode):
    """Context of one training pass: see the module's description.

    Args:
        hooks: what is called in place of :meth:`pack` and :meth:`unpack`.
        notes: whether it is noted how tensors are made; else functions stand in for torch's own and that is all.
    """

    def __init__(self, hooks: Hooks | None = None, *, notes: bool = True) -> None:
        super().__init__()
        self._hooks, self._notes = hooks or (self.pack, self.unpack), notes
        self._known: dict[int, tuple[weakref.ref[UntypedStorage], MadeBy]] = {}
        self._kept: dict[int, weakref.ref[UntypedStorage]] = {}
        self._writes: dict[int, int] = {}
        self._at_hand: OrderedDict[int, Tensor] = OrderedDict()
        self._autocast = Autocast.now()

    def __enter__(self) -> Remaking:
        torch._C._autograd._push_saved_tensors_default_hooks(*self._hooks)
        del self._hooks  # which refer to this object
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)  # type: ignore[no-untyped-call]
        self._known.clear()
        torch._C._autograd._pop_saved_tensors_default_hooks()

    # ---- what is called ---------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one function of torch; note how its output was made, if it is cheap."""
        name = getattr(func, "__name__", "")
        how = how_to_run(name)
        kwargs = kwargs or {}
        if how == "write" or (kwargs and (kwargs.get("inplace") or kwargs.get("out") is not None)):
            self._write(written_to(args, kwargs))  # before, as it may keep what it has written
            return func(*args, **kwargs)
        if how == "plain" or not args:  # all by name, in any order: kept as torch keeps it
            return func(*args, **kwargs)
        if how == "cheap":
            out = func(*args, **kwargs)
            if isinstance(out, Tensor) and out.requires_grad and not out._is_view() and out is not args[0]:
                self._note(out, func, args, kwargs)
            return out
        if name in CAST and (kind := self._autocast.of(args[0])) is not None:
            args = self.__torch_function__(Tensor.to, types, (args[0], kind)), *args[1:]
        if name in SPARING and not is_transformed() and (out := SPARING[name](func, *args, **kwargs)) is not None:
            return out
        if name == "dropout" and not is_transformed():
            return self._dropout(func, *args, **kwargs)
        out = func(*args, **kwargs)
        if name in PRODUCTS and args[0].shape[-1] <= FEW_TERMS and out.requires_grad:
            self._note(out, func, args, kwargs)
        return out

    def _dropout(self, func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or not 0 < p < 1 or inplace or not x.requires_grad:
            return func(x, p, training, inplace)  # type: ignore[no-any-return]
        kept = draw_kept(x, p)
        out = drop(x, kept, 1 - p)
        self._note(out, masked, (x, kept, 1 - p), {})
        return out

    def note(self, out: Tensor, function: Callable[..., Tensor], args: tuple[Any, ...]) -> None:
        """See :func:`note_made`."""
        with torch._C.DisableTorchFunction():
            self._note(out, function, args, {})

    def keep(self, tensor: Tensor) -> None:
        """See :func:`keep_for_many`."""
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            key = storage._cdata
            if self._notes and key not in self._known:
                self._keep(key, storage)

    def _keep(self, key: int, storage: UntypedStorage) -> None:
        kept = self._kept
        if key not in kept:
            kept[key] = weakref.ref(storage, lambda _: kept.pop(key, None))

    def _note(
        self, out: Tensor, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Note how a tensor was made, unless it is a view of another."""
        storage = out.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        known = self._known
        if not self._notes or key in known or key in self._kept or size != out.nbytes or is_transformed():
            return
        sources: list[Held] = []
        given = self._holding(args, sources)
        named = dict(zip(kwargs, self._holding(tuple(kwargs.values()), sources), strict=True)) if kwargs else kwargs
        work = size
        for held in sources:
            if held.made_by is not None:
                work += held.made_by.work
            elif held.key == key:
                return
        known[key] = (
            weakref.ref(storage, lambda _: known.pop(key, None)),
            MadeBy(function, given, named, sources, work),
        )

    def _holding(self, given: tuple[Any, ...], sources: list[Held]) -> tuple[object, ...]:
        """Arguments with what is held in place of tensors, which are added to ``sources``."""
        found: list[object] = []
        for one in given:
            if isinstance(one, Tensor):
                held = self._hold(one)
                sources.append(held)
                found.append(held)
            else:
                found.append(self._holding(tuple(one), sources) if isinstance(one, tuple | list) else one)
        return tuple(found)

    def _write(self, given: object) -> None:
        if isinstance(given, Tensor):
            key = given.untyped_storage()._cdata
            self._known.pop(key, None)
            self._writes[key] = self._writes.get(key, 0) + 1
        elif isinstance(given, tuple | list):
            for one in given:
                self._write(one)

    # ---- what is kept -----------------------------------------------------------------------------------------------

    def _hold(self, tensor: Tensor) -> Held:
        key = tensor.untyped_storage()._cdata
        found = None if key in self._kept else self._known.get(key)
        if found is None:
            return Held(
                tensor.detach(), key, version_of(tensor), self._writes.get(key, 0), isinstance(tensor, nn.Parameter)
            )
        found[1].uses += 1
        return Held(None, key, made_by=found[1], view=(tensor.shape, tensor.stride(), tensor.storage_offset()))

    def pack(self, tensor: Tensor) -> Held:
        """What autograd keeps in place of ``tensor``."""
        if type(tensor) is nn.Parameter:  # is there anyway, and whoever writes to it counts its version up
            return Held(tensor, 0, version_of(tensor))
        with torch._C.DisableTorchFunction():  # autograd asks in the middle of functions of others, with the mode on
            return self._packed(tensor)

    def _packed(self, tensor: Tensor) -> Held:
        storage = tensor.untyped_storage()
        key = storage._cdata
        found = None if key in self._kept else self._known.get(key)
        if found is not None and self._is_had(found[1], storage.nbytes()):
            found[1].uses += 1
            return Held(None, key, made_by=found[1], view=(tensor.shape, tensor.stride(), tensor.storage_offset()))
        self._known.pop(key, None)  # and with it what the tensor was made of
        self._keep(key, storage)
        # without its graph, which would hold it in turn, so that neither would be freed if no backward pass comes
        return Held(tensor.detach(), key, version_of(tensor), self._writes.get(key, 0))

    def _is_had(self, made_by: MadeBy, size: int) -> bool:
        """Whether all that a tensor of ``size`` bytes is made of is kept anyway, or much smaller than it."""
        if made_by.work > MOST_WORK * size:
            return False
        for held in made_by.sources:
            tensor = held.tensor
            if tensor is None:
                assert held.made_by is not None
                if not self._is_had(held.made_by, size):
                    return False
            elif held.key in self._kept or held.always:
                continue
            elif tensor.untyped_storage().nbytes() * MUCH_LARGER > size:
                return False
        return True

    # ---- what is made again -----------------------------------------------------------------------------------------

    def unpack(self, held: Any) -> Tensor:
        """The tensor that autograd kept."""
        if held.made_by is None:
            return self._made(held)
        with torch.no_grad(), self._autocast.again():
            return self._made(held)

    def _made(self, held: Held) -> Tensor:
        made_by = held.made_by
        if made_by is None:
            assert held.tensor is not None
            if version_of(held.tensor) != held.version or self._writes.get(held.key, 0) != held.writes:
                raise RuntimeError(
                    f"a tensor of shape {tuple(held.tensor.shape)} that the backward pass needs was written to in place"
                    " after it was kept; write to a copy, or call backward before"
                )
            return held.tensor
        out = None if made_by.made is None else made_by.made()
        if out is None:
            kwargs = made_by.kwargs
            if kwargs:
                kwargs = dict(zip(kwargs, self._given(tuple(kwargs.values())), strict=True))
            out = made_by.function(*self._given(made_by.args), **kwargs)
            made_by.made = weakref.ref(out)
        made_by.uses -= 1
        self._at_hand.pop(id(made_by), None)
        if made_by.uses > 0:
            self._at_hand[id(made_by)] = out
            if len(self._at_hand) > AT_HAND:
                self._at_hand.popitem(last=False)
        assert held.view is not None
        size, stride, offset = held.view
        return out if (out.shape, out.stride(), 0) == held.view else out.as_strided(size, stride, offset)

    def _given(self, args: tuple[object, ...]) -> tuple[Any, ...]:
        return tuple(
            self._made(one) if isinstance(one, Held) else self._given(one) if isinstance(one, tuple) else one
            for one in args
        )
