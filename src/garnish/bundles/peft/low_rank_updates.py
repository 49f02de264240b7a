"""Operations on low-rank updates: split by rows, joined over rows, added, reduced to a layer's largest rank.

Each operation is exact: the layer computes the same up to rounding.
Shape letters: o output width, i input width, r rank, kh kw kernel, g groups of a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

#: see :class:`LowRank`
Shares = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """A layer's update ``W + s·B A``, or with a magnitude ``m ⊙ (W + s·B A) / ‖W + s·B A‖`` (DoRA).

    Attributes:
        a: (r, i) or (r, i, kh, kw).
        b: (o, r).
        alpha: α; s is α/r, or α/√r with ``rs``.
        rs: rank-stabilised scale.
        magnitude: (o,), or None.
        shares: of an update that was joined of equal shares of the rows, the ranks (from, up to) of each; None: it had
            none. Else empty.
    """

    a: Tensor
    b: Tensor
    alpha: float
    rs: bool
    magnitude: Tensor | None = None
    shares: Shares = ()

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.a.shape[0]

    @property
    def scale(self) -> float:
        """The scale s."""
        return self.alpha / (math.sqrt(self.rank) if self.rs else self.rank)

    def update(self) -> Tensor:
        """The product ``s·B A``, flattened to (o, i·kh·kw)."""
        return self.scale * (self.b @ self.a.flatten(1))


def split(whole: LowRank, parts: int) -> list[LowRank]:
    """Split an update into equal shares of the rows: all share A, each gets its rows of B and m."""
    magnitudes = [None] * parts if whole.magnitude is None else whole.magnitude.chunk(parts)
    return [
        LowRank(a=whole.a, b=b, alpha=whole.alpha, rs=whole.rs, magnitude=m)
        for b, m in zip(whole.b.chunk(parts), magnitudes, strict=True)
    ]


def shares_of(whole: LowRank, parts: int) -> list[LowRank | None]:
    """:func:`split`, without what has no effect: shares that are zero (None), and ranks that a share does not use.

    Where all of B is zero, which says nothing, ``whole.shares`` says what was joined. Of DoRA everything stays, for a
    magnitude may act alone.
    """
    found = split(whole, parts)
    if parts == 1 or whole.magnitude is not None:
        return list(found)
    if not whole.shares and not whole.b.any():
        return list(found)
    made: list[LowRank | None] = []
    for share, span in zip(found, whole.shares or [None] * parts, strict=True):
        used = share.b.any(dim=0)
        if span is not None:
            used[slice(*span)] = True
        made.append(_of_ranks(share, used) if used.any() else None)
    return made


def _of_ranks(update: LowRank, used: Tensor) -> LowRank:
    """An update with some of its ranks, (r,) of flags, of the same scale."""
    if used.all():
        return update
    rank = int(used.sum())
    alpha = update.scale * (math.sqrt(rank) if update.rs else rank)
    return LowRank(a=update.a[used], b=update.b[:, used], alpha=alpha, rs=update.rs)


def stacked_rows(parts: Sequence[LowRank | None], weight: Tensor) -> LowRank:
    """Join the updates of equal shares of a layer's rows into one; None leaves a share unchanged.

    If all parts have the same A and scale, A is kept and the rows of B are concatenated. Else the A are stacked
    (rank Σr) and B is block-diagonal.

    Args:
        parts: in the order of the rows, at least one not None.
        weight: the layer's weight, (o, …): its row norms are DoRA's magnitude of unchanged shares.
    """
    present = [part for part in parts if part is not None]
    first, rows = present[0], weight.shape[0] // len(parts)
    dora = first.magnitude is not None
    assert all((part.magnitude is not None) == dora and part.rs == first.rs for part in present)
    alike = all(part.a.shape == first.a.shape and torch.equal(part.a, first.a) for part in present)
    if alike and all(part.alpha == first.alpha for part in present):
        a, alpha = first.a, first.alpha
        b = torch.cat([first.b.new_zeros(rows, first.rank) if part is None else part.b for part in parts])
        shares: Shares = tuple(None if part is None else (0, first.rank) for part in parts)
    else:
        a = torch.cat([part.a for part in present])
        alpha, factors = _common_scale(present)
        blocks = iter(part.b * factor for part, factor in zip(present, factors, strict=True))
        columns = [first.b.new_zeros(rows, 0) if part is None else next(blocks) for part in parts]
        b = torch.block_diag(*columns)  # type: ignore[no-untyped-call]
        ends = list(accumulate(0 if part is None else part.rank for part in parts))
        shares = tuple(None if p is None else (end - p.rank, end) for p, end in zip(parts, ends, strict=True))
    magnitude = None
    if dora:
        norms = weight.detach().flatten(1).norm(dim=1).chunk(len(parts))
        own = [norm if part is None else part.magnitude for part, norm in zip(parts, norms, strict=True)]
        magnitude = torch.cat([m.to(norms[0]) for m in own if m is not None])
    return LowRank(a=a, b=b, alpha=alpha, rs=first.rs, magnitude=magnitude, shares=shares)


def add(terms: Sequence[LowRank]) -> LowRank:
    """The sum of several updates of one layer, of rank Σr; only for updates without magnitude."""
    if len(terms) == 1:
        return terms[0]
    assert all(term.magnitude is None for term in terms)
    if len({term.rs for term in terms}) > 1:
        terms = [plain_scale(term) for term in terms]
    alpha, factors = _common_scale(terms)
    b = torch.cat([term.b * factor for term, factor in zip(terms, factors, strict=True)], dim=1)
    return LowRank(a=torch.cat([term.a for term in terms]), b=b, alpha=alpha, rs=terms[0].rs)


def plain_scale(update: LowRank) -> LowRank:
    """The same update with its scale as α/r."""
    if not update.rs:
        return update
    alpha = update.scale * update.rank
    return replace(update, alpha=alpha, rs=False)


def within_rank(update: LowRank) -> LowRank:
    """The same update with a rank of at most the smaller side of the layer, which is enough for any update."""
    outputs, inputs = update.b.shape[0], update.a[0].numel()
    most = min(outputs, inputs)
    if update.rank <= most:
        return update
    product = update.update()
    eye = torch.eye(most, dtype=product.dtype, device=product.device)
    a, b = (product, eye) if outputs < inputs else (eye, product)
    alpha = math.sqrt(most) if update.rs else float(most)
    shape = (most, *update.a.shape[1:])
    return LowRank(a=a.reshape(shape), b=b, alpha=alpha, rs=update.rs, magnitude=update.magnitude)


def over_all_channels(a: Tensor, groups: int) -> Tensor:
    """A of a grouped convolution as PEFT stores it, over all channels: (r, i/g, kh, kw) → (r, i, kh, kw)."""
    blocks = a.reshape(groups, -1, *a.shape[1:])
    wide = a.new_zeros(groups, blocks.shape[1], groups, *a.shape[1:])
    for group in range(groups):
        wide[group, :, group] = blocks[group]
    return wide.flatten(2, 3).flatten(0, 1)


def over_own_channels(a: Tensor, groups: int) -> Tensor | None:
    """The inverse of :func:`over_all_channels`; None if a group reads channels of another."""
    blocks = a.reshape(groups, a.shape[0] // groups, groups, -1, *a.shape[2:])
    own = torch.stack([blocks[group, :, group] for group in range(groups)]).flatten(0, 1)
    return own if torch.equal(over_all_channels(own, groups), a) else None


def _common_scale(terms: Sequence[LowRank]) -> tuple[float, list[float]]:
    """α of the stacked update, and the factor of each B that makes all scales equal."""
    scale, rank = next((term.scale for term in terms if term.scale), 1.0), sum(term.rank for term in terms)
    alpha = scale * (math.sqrt(rank) if terms[0].rs else rank)
    return alpha, [term.scale / scale for term in terms]
