"""Swin and a plain ViT written out from their papers as functions of named tensors: no module of timm or the package.

Swin: Liu et al., ICCV 2021. ViT: Dosovitskiy et al., ICLR 2021. Windows are visited one by one, so that no order of
windows in a batch can be mistaken. Shape letters: R rows, H W map, N tokens, p prompts, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

#: (site, what enters, what leaves) → what leaves with adapters; at each of the package's sites
Edit = Callable[[str, Tensor, Tensor], Tensor]


def untouched(site: str, x: Tensor, y: Tensor) -> Tensor:
    return y


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps) * weight + bias


def affine(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x Wᵀ + b`` over the last axis."""
    y = torch.einsum("oi,...i->...o", weight, x)
    return y if bias is None else y + bias


def attend(qkv: Tensor, heads: int, bias: Tensor | float = 0.0) -> Tensor:
    """(R, N, 3C) → (R, N, C): softmax(q kᵀ/√c + bias) v, ``bias`` (heads, N, N)."""
    rows, tokens, width = qkv.shape
    q, k, v = qkv.reshape(rows, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    scores = torch.einsum("rhnc,rhmc->rhnm", q, k) / math.sqrt(q.shape[-1]) + bias
    weights = torch.exp(scores - scores.amax(-1, keepdim=True))
    weights = weights / weights.sum(-1, keepdim=True)
    return torch.einsum("rhnm,rhmc->rnhc", weights, v).reshape(rows, tokens, width // 3)


@dataclass
class Trunk:
    """What both trunks share.

    Attributes:
        t: canonical name → tensor.
        edit: what adapters do at each site.
        eps: of every layer norm.
    """

    t: Mapping[str, Tensor]
    edit: Edit = untouched
    eps: float = 1e-5

    def linear(self, name: str, x: Tensor) -> Tensor:
        return self.edit(name, x, affine(x, self.t[f"{name}.weight"], self.t.get(f"{name}.bias")))

    def norm(self, name: str, x: Tensor) -> Tensor:
        return self.edit(name, x, layer_norm(x, self.t[f"{name}.weight"], self.t[f"{name}.bias"], self.eps))

    def patches(self, pixels: Tensor, side: int) -> Tensor:
        """(R, 3, H, W) → (R, H/side, W/side, C)."""
        weight, bias = self.t["stem.patch_embed.proj.weight"], self.t["stem.patch_embed.proj.bias"]
        blocks = pixels.unfold(2, side, side).unfold(3, side, side)  # (R, 3, H/side, W/side, side, side)
        y = torch.einsum("ocij,rchwij->rohw", weight, blocks) + bias[:, None, None]
        return self.edit("stem.patch_embed.proj", pixels, y).permute(0, 2, 3, 1)

    def residual(self, name: str, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        """``x + layer(norm(x))`` with its sublayer, beside, branch and residual sites."""
        normed = self.norm(f"{name}.norm", x)
        y = self.edit(f"{name}.sublayer", normed, layer(normed))
        y = self.edit(f"{name}.beside", normed, y)
        y = self.edit(f"{name}.branch", x, y)
        return self.edit(name, x, x + y)

    def mlp(self, at: str, x: Tensor) -> Tensor:
        return self.linear(f"{at}.fc2", gelu(self.linear(f"{at}.fc1", x)))

    def feature(self, stage: int, x: Tensor) -> Tensor:
        """(R, H, W, C) → the map (R, C, H, W) of a stage."""
        x = x.permute(0, 3, 1, 2)
        return self.edit(f"features.{stage}", x, x)


#: of the tiny Swin in tests/tiny.py
DEPTHS, HEADS, WINDOW, SHIFT = (2, 2, 2, 2), (1, 2, 2, 4), 7, 3


def position_bias(table: Tensor) -> Tensor:
    """(13², heads) → (heads, 49, 49): the entry of each pair's offset."""
    at = [(i, j) for i in range(WINDOW) for j in range(WINDOW)]
    reach = WINDOW - 1
    index = [[(a - c + reach) * (2 * WINDOW - 1) + (b - d + reach) for c, d in at] for a, b in at]
    return table[torch.tensor(index)].permute(2, 0, 1)


class SwinTrunk(Trunk):
    """Shifted windows; every map is padded to whole windows after its norm, then rolled, then masked.

    So do section 3.2 of the paper (figure 4: what was rolled in is apart) and its code for segmentation, where maps
    have any size. A side of one window is not shifted.
    """

    def attention(
        self, at: str, x: Tensor, heads: int, shift: int, prompts: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attention before its projection: map (R, H, W, C) and prompts (R, p, C) in and out, normed.

        Prompts stand before the tokens of every window, without position or mask; their copies are averaged.
        """
        rows, height, width, _ = x.shape
        down, right = (shift if side > WINDOW else 0 for side in (height, width))
        tall, wide = (-(-side // WINDOW) * WINDOW for side in (height, width))
        x = torch.nn.functional.pad(x, (0, 0, 0, wide - width, 0, tall - height))
        x = torch.roll(x, (-down, -right), (1, 2))
        bias = position_bias(self.t[f"{at}.relative_position_bias_table"])
        strips, copies = [], []
        for top in range(0, tall, WINDOW):
            strip = []
            for left in range(0, wide, WINDOW):
                window = x[:, top : top + WINDOW, left : left + WINDOW].reshape(rows, WINDOW**2, -1)
                # tokens that the roll brought from the other border do not see the rest
                came = [
                    (top + i >= tall - down, left + j >= wide - right) for i in range(WINDOW) for j in range(WINDOW)
                ]
                mask = torch.tensor([[0.0 if a == b else -100.0 for b in came] for a in came], dtype=x.dtype)
                scores = bias + mask
                if prompts is not None:
                    window = torch.cat([prompts, window], 1)
                    scores = torch.nn.functional.pad(scores, (prompts.shape[1], 0, prompts.shape[1], 0))
                out = attend(self.linear(f"{at}.qkv", window), heads, scores)
                if prompts is not None:
                    copies.append(out[:, : prompts.shape[1]])
                    out = out[:, prompts.shape[1] :]
                strip.append(out.reshape(rows, WINDOW, WINDOW, -1))
            strips.append(torch.cat(strip, 2))
        x = torch.roll(torch.cat(strips, 1), (down, right), (1, 2))[:, :height, :width]
        return x, sum(copies) / len(copies) if copies else None

    def block(self, name: str, x: Tensor, heads: int, shift: int) -> Tensor:
        def attention(normed: Tensor) -> Tensor:
            return self.linear(f"{name}.attn.proj", self.attention(f"{name}.attn", normed, heads, shift)[0])

        x = self.residual(f"{name}.attn", x, attention)
        return self.residual(f"{name}.mlp", x, lambda normed: self.mlp(f"{name}.mlp", normed))

    def stem(self, pixels: Tensor) -> Tensor:
        return self.norm("stem.patch_embed.norm", self.patches(pixels, 4))

    def merge(self, stage: int, x: Tensor) -> Tensor:
        """(R, H, W, C) → (R, H/2, W/2, 2C): four neighbours side by side, down the columns first."""
        four = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        return self.merge_channels(stage, four)

    def merge_channels(self, stage: int, x: Tensor) -> Tensor:
        """Norm and reduction of the merging into ``stage``, (…, 4C) → (…, 2C)."""
        return self.linear(f"stages.{stage}.enter.reduction", self.norm(f"stages.{stage}.enter.norm", x))

    def maps(self, pixels: Tensor) -> list[Tensor]:
        x, maps = self.stem(pixels), []
        for s, depth in enumerate(DEPTHS):
            x = self.merge(s, x) if s else x
            for b in range(depth):
                x = self.block(f"stages.{s}.blocks.{b}", x, HEADS[s], SHIFT * (b % 2))
            maps.append(self.feature(s, x))
        return maps


class ViTTrunk(Trunk):
    """Four blocks of three heads, read after each; one class token; pictures of 64 pixels."""

    HEADS = 3

    def stem(self, pixels: Tensor) -> Tensor:
        """(R, 3, 64, 64) → (R, 1 + 16, C)."""
        x = self.patches(pixels, 16).flatten(1, 2)
        return torch.cat([self.t["stem.cls_token"].expand(x.shape[0], -1, -1), x], 1) + self.t["stem.pos_embed"]

    def block(self, name: str, x: Tensor) -> Tensor:
        def attention(normed: Tensor) -> Tensor:
            return self.linear(f"{name}.attn.proj", attend(self.linear(f"{name}.attn.qkv", normed), self.HEADS))

        x = self.residual(f"{name}.attn", x, attention)
        return self.residual(f"{name}.mlp", x, lambda normed: self.mlp(f"{name}.mlp", normed))

    def map_of(self, stage: int, x: Tensor) -> Tensor:
        """The last 16 tokens as a map."""
        return self.feature(stage, x[:, -16:].reshape(x.shape[0], 4, 4, -1))

    def maps(self, pixels: Tensor) -> list[Tensor]:
        x, maps = self.stem(pixels), []
        for s in range(4):
            x = self.block(f"stages.{s}.blocks.0", x)
            maps.append(self.map_of(s, x))
        return maps
