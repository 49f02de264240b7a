"""The context of one forward pass (token grid, row table, owner), which the block loop hands to every adapter.

Shape letters: I images, R rows of the stream, k entries a row owns (windows), N tokens, H W token grid, C channels.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

#: An :class:`garnish.engine.owner.Owner`, or None for nobody; this file never looks inside it.
Whose = Any

#: Devices on which residuals run owner by owner: larger batches speed up a frozen layer little there, and malloc
#: requests the larger activations afresh from the kernel each time (docs/benchmarks.md, "One pass").
APART_ON = ("cpu",)

#: Bytes of one owner's part of the stream beyond which they do so; smaller parts gain by reading the weights once.
APART_FROM = 2**19


def joined(parts: Iterable[Tensor], num_rows: int) -> Tensor:
    """``torch.cat`` of parts made one by one, ``num_rows`` in all; without gradients, each is freed once copied."""
    if torch.is_grad_enabled():
        kept = list(parts)
        return kept[0] if len(kept) == 1 else torch.cat(kept)
    out: Tensor | None = None
    start = 0
    for part in parts:
        if part.shape[0] == num_rows:
            return part
        out = part.new_empty(num_rows, *part.shape[1:]) if out is None else out
        out[start : start + part.shape[0]] = part
        start += part.shape[0]
    assert out is not None and start == num_rows
    return out


@dataclass(frozen=True, eq=False)
class Rows:
    """Row table: which image and which owner each row belongs to; the rows of one owner are adjacent.

    Attributes:
        images: (R,) int64, index of the row's image in the pass.
        owners: (R,) int64, position of the row's owner in ``present``, ascending.
        present: the owners that rows of this pass may belong to, in the order in which they were added to the trunk.
        counts: rows of each owner of ``present``; None in a compiled pass, whose shapes must not depend on the mix.
    """

    images: Tensor
    owners: Tensor
    present: tuple[Whose, ...]
    counts: tuple[int, ...] | None

    @classmethod
    def whole(cls, num_images: int, present: tuple[Whose, ...], device: torch.device) -> Rows:
        """A row of each owner for every image; ``num_images`` may be symbolic (a ``SymInt`` of a graph)."""
        images = torch.arange(num_images, device=device)
        if len(present) > 1:
            owners = torch.arange(len(present), device=device)[:, None].expand(-1, num_images).reshape(-1)
            return cls(images.repeat(len(present)), owners, present, (num_images,) * len(present))
        return cls(images, torch.zeros_like(images), present, (num_images,))

    def take(self, x: Tensor, num_images: int) -> Tensor:
        """(I·k, …) → (R·k, …): the entries of each row's image; windows folded into I stay together."""
        if self.counts == (num_images,):  # an owner's images are distinct and ascending, so these are all images
            return x
        split = x.reshape(num_images, x.shape[0] // num_images, *x.shape[1:])
        return split.index_select(0, self.images).flatten(0, 1)

    def split(self, x: Tensor) -> list[Tensor]:
        """(R·k, …) → the part of each owner of ``present``; asserts that ``counts`` are known."""
        assert self.counts is not None
        if len(self.counts) == 1:
            return [x]
        entries = x.shape[0] // max(sum(self.counts), 1)
        return list(torch.split(x, [count * entries for count in self.counts]))

    def by_owner(self) -> list[Rows]:
        """One row table per owner of ``present``; asserts that ``counts`` are known."""
        return [self] if len(self.present) == 1 else [self.at(position) for position in range(len(self.present))]

    def at(self, position: int) -> Rows:
        """A row table of one owner of ``present`` only; asserts that ``counts`` are known."""
        span = self.span(position)
        images = self.images[span]
        return Rows(images, torch.zeros_like(images), (self.present[position],), (span.stop - span.start,))

    def span(self, position: int) -> slice:
        """The slice of rows of one owner of ``present``; asserts that ``counts`` are known."""
        assert self.counts is not None
        start = sum(self.counts[:position])
        return slice(start, start + self.counts[position])

    def is_every(self, num_images: int) -> bool:
        """Whether each owner of ``present`` has a row for every image."""
        return self.counts is not None and all(count == num_images for count in self.counts)


@dataclass(frozen=True, eq=False)
class ForwardContext:
    """Immutable facts of one forward pass at one point of the backbone.

    Attributes:
        grid: (H, W) of the token grid here.
        num_prefix: class, register and prompt tokens before the grid's tokens (0 where the stream is a map).
        rows: the row table after the fork; None before it, where each row is one image and belongs to ``owner``.
        owner: the owner whose adapters act on every row when ``rows`` is None.
        streams: table of task streams, rows that run beside the images' own from some site of a stage to its feature
            map, one for each (image, task) asked for; x then holds the ``num_images`` rows of the images, then these.
        num_images: number of the images' own rows if there are ``streams``.
        part: which rows x holds: "all" or, if streams run one at a time, first the images' own ("images"), then those
            of each stream ("stream").
        ends: streams end here, so a module with tasks' own adapters returns the streams' rows only.
        lean: the pass keeps less for its backward pass (:mod:`garnish.engine.memory`), so adapters may run in one
            product with their layer.
    """

    grid: tuple[int, int]
    num_prefix: int = 0
    rows: Rows | None = None
    owner: Whose = None
    streams: Rows | None = None
    num_images: int = 0
    part: Literal["all", "images", "stream"] = "all"
    ends: bool = False
    lean: bool = False

    def is_apart(self, x: Tensor) -> bool:
        """Whether a residual runs the rows of x owner by owner: see :data:`APART_ON` and :data:`APART_FROM`."""
        if self.part != "all" or x.device.type not in APART_ON or torch.compiler.is_compiling():
            return False
        if self.streams is not None:  # x holds streams' rows only if they began before this residual
            return self.streams.counts is not None and x.shape[0] > self.num_images
        if self.rows is None or self.rows.counts is None or len(self.rows.present) < 2:
            return False
        return x.numel() * x.element_size() > APART_FROM * len(self.rows.present)

    def apart(self, x: Tensor) -> Iterator[tuple[Tensor, ForwardContext]]:
        """The rows of each owner, each with its context; with streams, first the images' own, then each stream's."""
        if self.streams is None:
            assert self.rows is not None
            for part, owner in zip(self.rows.split(x), self.rows.present, strict=True):
                if part.shape[0]:
                    yield part, replace(self, rows=None, owner=owner)
            return
        yield x[: self.num_images], replace(self, part="images")
        for part, stream in zip(self.streams.split(x[self.num_images :]), self.streams.by_owner(), strict=True):
            if part.shape[0]:
                yield part, replace(self, part="stream", streams=stream)

    def by_row(self, x: Tensor) -> Tensor:
        """View (R·k, …) as (R, k, …): windows folded into the batch stay with their row."""
        assert self.rows is not None
        num_rows = self.rows.owners.shape[0]
        return x.reshape(num_rows, x.shape[0] // num_rows, *x.shape[1:])

    def add(self, x: Tensor, added: Tensor) -> Tensor:
        """``x + added`` if streams begin in the branch: (I, …) and (I + R, …) → (I + R, …)."""
        assert self.streams is not None
        if self.streams.is_every(self.num_images):
            return (x + added.view(-1, *x.shape)).flatten(0, 1)
        return torch.cat([x, self.streams.take(x, self.num_images)]) + added

    def to_map(self, x: Tensor) -> Tensor:
        """The stream as a map (R, C, H, W): tokens (R, prefix + H·W, C) or channels-last maps (R, H, W, C)."""
        if x.ndim == 4:
            return x.permute(0, 3, 1, 2)
        height, width = self.grid
        tokens = x[:, self.num_prefix :]
        return tokens.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)


#: Key of a wrapper → its output for the images' own rows of one residual, kept for the streams that run after them.
Kept = dict[str, Tensor]


class _Here(threading.local):
    """Thread-local state of a binding; Dynamo can trace this, but not a ContextVar.

    The attributes are set on a thread's first access, so that graphs, which guard on their presence, serve all
    threads.
    """

    def __init__(self) -> None:
        self.context: ForwardContext | None = None
        self.kept: Kept = {}


class Binding:
    """Holds the current context of each thread, through which the block loop hands it to the adapters of one backbone.

    Each backbone has one; a copy of the backbone gets an empty one. The context is per thread, so concurrent passes
    do not see each other's. The loop binds inside the checkpointed function, so that recomputation in the backward
    pass sees the context of its own forward pass, in whichever thread it runs.
    """

    def __init__(self) -> None:
        self._here = _Here()

    @property
    def context(self) -> ForwardContext | None:
        """The context bound by this thread; None if it is running no pass."""
        return self._here.context

    @property
    def kept(self) -> Kept:
        """Outputs bound with the context: written while its ``part`` is "images", read while it is "stream"."""
        return self._here.kept

    def current(self) -> ForwardContext:
        """The bound context; asserts that a pass is running."""
        ctx = self.context
        assert ctx is not None, "an adapted layer was called outside its backbone's forward pass"
        return ctx

    def bound(self, ctx: ForwardContext, kept: Kept | None = None) -> Bound:
        """Bind ``ctx`` for a ``with`` block; ``kept`` is shared by the parts of one residual."""
        return Bound(self, ctx, kept)

    def bind(self, ctx: ForwardContext | None, kept: Kept) -> None:
        """Set this thread's context; used by :class:`Bound` only."""
        self._here.context = ctx
        self._here.kept = kept

    def __reduce__(self) -> tuple[type[Binding], tuple[()]]:
        return Binding, ()


class Bound:
    """Context manager that binds a context and restores the former one, also after an exception."""

    def __init__(self, binding: Binding, ctx: ForwardContext, kept: Kept | None) -> None:
        self.binding = binding
        self.ctx = ctx
        self.kept = kept
        self.former: tuple[ForwardContext | None, Kept] = (None, {})

    def __enter__(self) -> None:
        self.former = self.binding.context, self.binding.kept
        self.binding.bind(self.ctx, {} if self.kept is None else self.kept)

    def __exit__(self, *exc: object) -> None:
        self.binding.bind(*self.former)
