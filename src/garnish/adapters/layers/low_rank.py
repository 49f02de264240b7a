"""The low-rank update of a linear layer or convolution, shared by the LoRA-type methods, and the check of its rank.

Shape letters: o output width, i input width, r rank, kh kw kernel, g groups of a convolution.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from garnish.adapters.layers.low_rank_product import low_rank_product, low_rank_sum, pays
from garnish.backbones.convolution import Geometry
from garnish.engine.adapter import Adapter
from garnish.engine.context import ForwardContext
from garnish.engine.memory import is_transformed
from garnish.errors import SiteError, showable


def low_rank(
    where: str, layer: nn.Module, rank: int, scale: float, dropout: float, *, dora: bool = False
) -> LoRAAdapter:
    """A new low-rank update of ``layer``, the identity at the start.

    Warns if the update of a grouped convolution has more parameters than the convolution, as for every depthwise one.

    Raises:
        SiteError: the rank is above the layer's smaller side, or not a multiple of a convolution's groups; the message
            begins with ``where``.
    """
    groups = check_rank(where, layer, rank)
    update = LoRAAdapter(layer, rank, scale, dropout, dora)
    size = sum(p.numel() for p in update.parameters())
    own = layer.weight.numel()  # type: ignore[operator]
    if groups > 1 and size > own:
        warnings.warn(
            showable(f"{where}: the update holds {size} parameters, the convolution of {groups} groups itself {own}"),
            stacklevel=2,
        )
    return update


def check_rank(where: str, layer: nn.Module, rank: int) -> int:
    """Check that an update of this rank fits a layer; returns the number of groups of the layer.

    Raises:
        SiteError: as :func:`low_rank`.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    most = min(weight.shape[0], groups * weight[0].numel())
    if rank > most:
        raise SiteError(f"{where}: rank {rank} exceeds the layer's {most}; use rank {most} or less")
    if rank % groups:
        nearest = min(most, max(1, round(rank / groups)) * groups)
        raise SiteError(f"{where}: rank {rank} is no multiple of the convolution's {groups} groups; use rank {nearest}")
    return groups


class LoRAAdapter(Adapter):
    """A low-rank update of one linear layer or convolution.

    For a convolution of g groups A is (r, i/g, kh, kw) and B (o, r/g), both with g groups: each group has an update of
    rank r/g, and the sum is again such a convolution. PEFT's A reads the channels of all groups, so its update cannot
    be merged; ours equals one of PEFT's with zeros between the groups.
    """

    def __init__(self, layer: nn.Module, rank: int, scale: float, dropout: float, dora: bool) -> None:
        super().__init__()
        weight = layer.weight
        assert isinstance(weight, Tensor)
        self.lora_a = nn.Parameter(weight.new_empty(rank, *weight.shape[1:]))
        self.conv = Geometry.of(layer) if isinstance(layer, nn.Conv2d) else None
        self.groups = 1 if self.conv is None else self.conv.groups
        self.lora_b = nn.Parameter(weight.new_zeros(weight.shape[0], rank // self.groups))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scale = scale
        self.dropout = dropout
        self.in_weight_space = dora
        self.convolves = self.conv is not None
        self.magnitude = nn.Parameter(weight.detach().flatten(1).norm(dim=1)) if dora else None
        #: ranks (from, up to) of each share of the rows, of an update that was read as several; None: it had none
        self.shares: tuple[tuple[int, int] | None, ...] = ()

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """Add the low-rank path: (…, i) and (…, o) → (…, o), or maps (R, i, H, W) and (R, o, H', W')."""
        return self._added(self._dropped(x), y, ctx)

    def add_to(self, x: Tensor, y: Tensor) -> bool:
        """The low-rank path is added within the product, in one pass over y."""
        if self.conv is not None:
            return False
        held, hidden = y.view(-1, y.shape[-1]), F.linear(self._dropped(x), self.lora_a).flatten(0, -2)
        torch.addmm(held, hidden, (self.scale * self.lora_b).t(), out=held)
        return True

    def at_once(self, x: Tensor, layer: nn.Module) -> Tensor | None:
        """One product with ``W + sBA``, for many rows of a linear layer without dropout: (…, i) → (…, o)."""
        # not in evaluation, whose outputs are to be the same with gradients as without
        if not self.training or self.dropout or type(layer) is not nn.Linear or layer.weight.requires_grad:
            return None
        if (layer.bias is not None and layer.bias.requires_grad) or not pays(x, layer):
            return None
        return low_rank_product(x, layer, self.lora_a, self.lora_b, self.scale)

    def fork(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> tuple[Tensor, Tensor]:
        """:meth:`after`, and x after dropout: the shared update and those of all tasks use one dropout mask."""
        x = self._dropped(x)
        return self._added(x, y, ctx), x

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)

    def _added(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        if ctx.lean and self.training and self.conv is None and not is_transformed():
            return low_rank_sum(x, y, self.lora_a, self.lora_b, self.scale)
        up = self.scale * self.lora_b
        if self.conv is not None:
            return y + F.conv2d(self.conv.run(x, self.lora_a), up[:, :, None, None], groups=self.groups)
        hidden = F.linear(x, self.lora_a)
        # addmm adds the update within the matrix product, in one pass over y
        return torch.addmm(y.flatten(0, -2), hidden.flatten(0, -2), up.t()).view_as(y)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """``W + sBA`` (group by group), or DoRA's rescaled weight; the bias is unchanged."""
        b = self.lora_b.reshape(self.groups, -1, self.lora_b.shape[1])
        a = self.lora_a.reshape(self.groups, b.shape[2], -1)
        update = self.scale * (b @ a).reshape(weight.shape)
        changed = weight + update
        if self.magnitude is None:
            return changed, bias
        factor = self.magnitude / changed.detach().flatten(1).norm(dim=1)
        return changed * factor.view(-1, *[1] * (weight.ndim - 1)), bias
