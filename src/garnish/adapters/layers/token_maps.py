"""Converting the stream to a map and back, for adapters that convolve it; prefix tokens are split off and put back.

Shape letters: R rows, N tokens, P prefix tokens (class, register and prompt tokens), H W grid, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from garnish.engine.context import ForwardContext
from garnish.engine.open_sizes import ordered


def to_map(x: Tensor, ctx: ForwardContext) -> tuple[Tensor | None, Tensor]:
    """(R, P + H·W, C) or (R, H, W, C) → the prefix tokens (R, P, C), or None without any, and the map (R, C, H, W)."""
    prefix = x[:, : ctx.num_prefix] if x.ndim == 3 and ctx.num_prefix else None
    return prefix, ordered(ctx.to_map(x))


def from_map(prefix: Tensor | None, on_map: Tensor, num_dims: int) -> Tensor:
    """Inverse of :func:`to_map`: a stream of ``num_dims`` dimensions, 3 for tokens and 4 for channels-last maps."""
    if num_dims == 4:
        return on_map.permute(0, 2, 3, 1)
    tokens = on_map.flatten(2).transpose(1, 2)
    return tokens if prefix is None else torch.cat([prefix, tokens], dim=1)
