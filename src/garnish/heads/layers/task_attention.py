"""Multi-head attention between the tokens of several tasks, per pixel or over a whole grid, as DeMT uses it.

Shape letters: B pictures, N pixels, Q query tokens, K key tokens, C channels, d channels of one head.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.engine.open_sizes import averaged, ordered


@final
class TaskAttention(nn.Module):
    """Multi-head attention (output projection included), then a linear layer and a LayerNorm; no residual.

    The key has no bias: it would add the same number to all scores of a query, which the softmax cancels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.mix = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        # as in torch's module: query, key and value are initialised as one matrix, biases as zero
        for layer in (self.query, self.key, self.value):
            nn.init.uniform_(layer.weight, -((1.5 / channels) ** 0.5), (1.5 / channels) ** 0.5)
        for layer in (self.query, self.value, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Attention over a grid: queries (B, Q, C), keys (B, K, C) → (B, Q, C); scores are never stored whole."""
        q, k, v = (self._by_head(x) for x in (self.query(queries), self.key(keys), self.value(keys)))
        return self._finish(F.scaled_dot_product_attention(q, k, v))

    def at_each_pixel(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Attention within each pixel: queries (B, N, Q, C), keys (B, N, K, C) of the same pixels → (B, N, Q, C)."""
        q = self._by_head(self.query(queries)) * self._per_head(queries) ** -0.5
        if queries.shape[-2] >= keys.shape[-2]:
            k, v = self._by_head(self.key(keys)), self._by_head(self.value(keys))
            # not torch's attention, whose kernels cannot take tens of thousands of tiny problems at once
            return self._finish((q @ k.transpose(-2, -1)).softmax(-1) @ v)
        # Fewer queries than keys: the key's weight is applied to the query, (q Wk) · x instead of q · (Wk x), and the
        # value's after the sum over keys. Equal up to rounding, 2.4 times less work for one query and four keys.
        own = torch.einsum("bnhqd,hdc->bnhqc", q, self._of_heads(self.key.weight))
        shares = torch.einsum("bnhqc,bnkc->bnhqk", own, keys).softmax(-1)
        seen = torch.einsum("bnhqk,bnkc->bnhqc", shares, keys)
        values = torch.einsum("bnhqc,hdc->bnhqd", seen, self._of_heads(self.value.weight))
        return self._finish(ordered(values) + self.value.bias.view(self.heads, 1, -1))

    def _per_head(self, x: Tensor) -> int:
        return int(x.shape[-1]) // self.heads

    def _by_head(self, x: Tensor) -> Tensor:
        """(…, tokens, C) → (…, heads, tokens, d)."""
        return x.view(*x.shape[:-1], self.heads, -1).transpose(-3, -2)

    def _of_heads(self, weight: Tensor) -> Tensor:
        """(C, C) → (heads, d, C)."""
        return weight.view(self.heads, -1, weight.shape[1])

    def _finish(self, x: Tensor) -> Tensor:
        joined = x.transpose(-3, -2).flatten(-2)
        out: Tensor = self.norm(self.mix(self.out(joined)))
        return out


class _ContiguousGradient(torch.autograd.Function):
    """The identity, which makes the gradient contiguous.

    The gradients of maps that come from tokens have other strides. For a single picture, torch's batch norm on a CPU
    then confuses the layouts and computes wrong gradients (2.14; a test checks for the right ones).
    """

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad.contiguous()


def tokens_of(maps: Tensor, reduction: int = 1) -> Tensor:
    """(B, C, H, W) → (B, tokens, C), contiguous; averaged over squares of side ``reduction``, smaller at far edges."""
    maps = _ContiguousGradient.apply(maps)
    if reduction > 1:
        maps = averaged(maps, reduction)
    # contiguous, as for other layouts torch's order of summation depends on whether the weight is trained
    return maps.flatten(2).transpose(1, 2).contiguous()


def maps_of(tokens: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Tokens back to a map: (B, H·W, C) → (B, C, H, W), contiguous."""
    return tokens.transpose(1, 2).reshape(*tokens.shape[::2], *size).contiguous()
