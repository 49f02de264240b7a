"""The facts of one forward pass, handed to every adapter and never looked up elsewhere.

Shape letters: I images, R rows of the stream, k entries a row owns (windows), N tokens, H W token grid, C channels.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

#: An :class:`garnish.engine.owner.Owner`, or None for nobody: what is said here does not look into it.
Whose = Any

#: Devices on which residuals run owner by owner: a frozen layer gains little from more rows there, and what all rows
#: need at once is memory that malloc gets afresh from the kernel each time (docs/benchmarks.md, "One pass").
APART_ON = ("cpu",)

#: Bytes of one owner's part of the stream from which residuals do so; smaller ones share the reading of the weights.
APART_FROM = 2**19


def joined(parts: Iterable[Tensor], num_rows: int) -> Tensor:
    """``torch.cat`` of parts that have ``num_rows`` together, made one by one; without gradients, none is kept."""
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
    """Which image and which owner each row belongs to; the rows of one owner lie together.

    Attributes:
        images: (R,) int64, index of the row's image in the pass.
        owners: (R,) int64, position of the row's owner in ``present``, ascending.
        present: the owners that rows of this pass may belong to, in the order in which they were added.
        counts: rows of each owner of ``present``; None in a compiled pass, whose shapes must not depend on the mix.
    """

    images: Tensor
    owners: Tensor
    present: tuple[Whose, ...]
    counts: tuple[int, ...] | None

    @classmethod
    def whole(cls, num_images: int, present: tuple[Whose, ...], device: torch.device) -> Rows:
        """A row of each owner for every image; of any number of images, one of a graph (a ``SymInt``) too."""
        images = torch.arange(num_images, device=device)
        if len(present) > 1:
            owners = torch.arange(len(present), device=device)[:, None].expand(-1, num_images).reshape(-1)
            return cls(images.repeat(len(present)), owners, present, (num_images,) * len(present))
        return cls(images, torch.zeros_like(images), present, (num_images,))

    def take(self, x: Tensor, num_images: int) -> Tensor:
        """(I·k, …) → (R·k, …): the entries of each row's image; windows folded into I stay together."""
        if self.counts == (num_images,):  # images of an owner are distinct and ascending: these are all of them
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
        """The rows of each owner of ``present`` for themselves; asserts that ``counts`` are known."""
        return [self] if len(self.present) == 1 else [self.at(position) for position in range(len(self.present))]

    def at(self, position: int) -> Rows:
        """The rows of one owner of ``present`` for themselves; asserts that ``counts`` are known."""
        span = self.span(position)
        images = self.images[span]
        return Rows(images, torch.zeros_like(images), (self.present[position],), (span.stop - span.start,))

    def span(self, position: int) -> slice:
        """Where the rows of one owner of ``present`` lie; asserts that ``counts`` are known."""
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
        rows: None while every row is one image and all rows belong to ``owner``; the row table after the fork.
        owner: the owner whose adapters act on every row when ``rows`` is None.
        streams: rows that run beside the images' own from somewhere in a stage to its feature map, one for each
            (image, task) that is wanted; then x holds the ``num_images`` rows of the images first, these after them.
        num_images: rows of the images' own where ``streams`` are given.
        part: which rows x holds: "all"; where streams run one at a time, first the "images"' own, then those of each
            "stream".
        ends: streams end here, so modules at which tasks own adapters hand out the streams' rows alone.
    """

    grid: tuple[int, int]
    num_prefix: int = 0
    rows: Rows | None = None
    owner: Whose = None
    streams: Rows | None = None
    num_images: int = 0
    part: Literal["all", "images", "stream"] = "all"
    ends: bool = False

    def is_apart(self, x: Tensor) -> bool:
        """Whether a residual runs the rows of x owner by owner: see :data:`APART_ON`."""
        if self.part != "all" or x.device.type not in APART_ON or torch.compiler.is_compiling():
            return False
        if self.streams is not None:  # begun before this residual, or its branch begins them
            return self.streams.counts is not None and x.shape[0] > self.num_images
        if self.rows is None or self.rows.counts is None or len(self.rows.present) < 2:
            return False
        return x.numel() * x.element_size() >= APART_FROM * len(self.rows.present)

    def apart(self, x: Tensor) -> Iterator[tuple[Tensor, ForwardContext]]:
        """The rows of each owner with a context of their own; the images' own come before those of streams."""
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
        """``x + added`` where streams begin in the branch that ``added`` comes from: (I, …) and (I + R, …)."""
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


#: By place, what a module gave for the images' own rows of one call of a residual, whose streams run after them.
Kept = dict[str, Tensor]


class _Here(threading.local):
    """Of each thread its own: Dynamo traces this, a ContextVar it refuses.

    The attributes are set as a thread first comes by, so that graphs, which ask whether they are there, serve all
    threads.
    """

    def __init__(self) -> None:
        self.context: ForwardContext | None = None
        self.kept: Kept = {}


class Binding:
    """The cell through which the block loop hands the context to the adapters of one model.

    One cell belongs to one backbone and is copied with it, empty. Each thread has a context of its own in it, so passes
    of several threads do not see each other's. The loop binds inside the checkpointed function, so that recomputation
    in the backward pass sees the context of its own forward pass, in whichever thread it runs.
    """

    def __init__(self) -> None:
        self._here = _Here()

    @property
    def context(self) -> ForwardContext | None:
        """The context bound by this thread; None where no pass of its is under way."""
        return self._here.context

    @property
    def kept(self) -> Kept:
        """What is bound beside the context; written where its ``part`` is "images", read where it is "stream"."""
        return self._here.kept

    def current(self) -> ForwardContext:
        """The bound context; asserts that a pass is under way."""
        ctx = self.context
        assert ctx is not None, "an adapted layer was called outside its backbone's forward pass"
        return ctx

    def bound(self, ctx: ForwardContext, kept: Kept | None = None) -> Bound:
        """Bind ``ctx`` for a ``with`` block; ``kept`` goes with the parts of one residual."""
        return Bound(self, ctx, kept)

    def bind(self, ctx: ForwardContext | None, kept: Kept) -> None:
        """Put a context in place for this thread; for :class:`Bound` alone."""
        self._here.context = ctx
        self._here.kept = kept

    def __reduce__(self) -> tuple[type[Binding], tuple[()]]:
        return Binding, ()


class Bound:
    """Binds a context for the length of a ``with`` block; the former one comes back, also after an exception."""

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
