"""The facts of one forward pass, handed to every adapter and never looked up elsewhere.

Shape letters: I images, R rows of the stream, k entries a row owns (windows), N tokens, H W token grid, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: An owner's number that no owner has: the bare trunk.
NOBODY = -1


@dataclass(frozen=True, eq=False)
class Rows:
    """Which image and which owner each row belongs to; the rows of one owner lie together.

    Attributes:
        images: (R,) int64, index of the row's image in the pass.
        owners: (R,) int64, position of the row's owner in ``present``, ascending.
        present: the owners that rows of this pass may belong to, by number.
        counts: rows of each owner of ``present``; None in a compiled pass, whose shapes must not depend on the mix.
    """

    images: Tensor
    owners: Tensor
    present: tuple[int, ...]
    counts: tuple[int, ...] | None

    @classmethod
    def whole(cls, num_images: int, owner: int, device: torch.device) -> Rows:
        """One row an image, all of one owner."""
        images = torch.arange(num_images, device=device)
        return cls(images, torch.zeros_like(images), (owner,), (num_images,))

    def take(self, x: Tensor, num_images: int) -> Tensor:
        """(I·k, …) → (R·k, …): the entries of each row's image; windows folded into I stay together."""
        split = x.reshape(num_images, x.shape[0] // num_images, *x.shape[1:])
        return split.index_select(0, self.images).flatten(0, 1)

    def split(self, x: Tensor) -> list[Tensor]:
        """(R·k, …) → the part of each owner of ``present``; asserts that ``counts`` are known."""
        assert self.counts is not None
        entries = x.shape[0] // max(sum(self.counts), 1)
        return list(torch.split(x, [count * entries for count in self.counts]))


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
    """

    grid: tuple[int, int]
    num_prefix: int = 0
    rows: Rows | None = None
    owner: int = 0
    streams: Rows | None = None
    num_images: int = 0

    def by_row(self, x: Tensor) -> Tensor:
        """View (R·k, …) as (R, k, …): windows folded into the batch stay with their row."""
        assert self.rows is not None
        num_rows = self.rows.owners.shape[0]
        return x.reshape(num_rows, x.shape[0] // num_rows, *x.shape[1:])

    def widen(self, x: Tensor) -> Tensor:
        """The images' own rows (I·k, …), followed by those of the task streams: (I·k + R·k, …)."""
        assert self.streams is not None
        return torch.cat([x, self.streams.take(x, self.num_images)])

    def to_map(self, x: Tensor) -> Tensor:
        """The stream as a map (R, C, H, W): tokens (R, prefix + H·W, C) or channels-last maps (R, H, W, C)."""
        if x.ndim == 4:
            return x.permute(0, 3, 1, 2)
        height, width = self.grid
        tokens = x[:, self.num_prefix :]
        return tokens.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)


class Binding:
    """The cell through which the block loop hands the context to the adapters of one model.

    One cell belongs to one backbone and is copied with it. The loop binds inside the checkpointed function, so that
    recomputation in the backward pass sees the context of its own forward pass. ``on_owner`` is told the owner of
    each pass before it runs (tuned parameters are put in place there, for the same reason).
    """

    def __init__(self) -> None:
        self.context: ForwardContext | None = None
        self.on_owner: Callable[[int], None] | None = None

    def current(self) -> ForwardContext:
        """The bound context; asserts that a pass is under way."""
        assert self.context is not None, "an adapted layer was called outside its backbone's forward pass"
        return self.context

    def bound(self, ctx: ForwardContext) -> Bound:
        """Bind ``ctx`` for a ``with`` block."""
        return Bound(self, ctx)


class Bound:
    """Binds a context for the length of a ``with`` block; the former one comes back, also after an exception."""

    def __init__(self, binding: Binding, ctx: ForwardContext) -> None:
        self.binding = binding
        self.ctx = ctx
        self.former: ForwardContext | None = None

    def __enter__(self) -> None:
        self.former = self.binding.context
        self.binding.context = self.ctx
        if self.binding.on_owner is not None:
            self.binding.on_owner(self.ctx.owner)

    def __exit__(self, *exc: object) -> None:
        self.binding.context = self.former
