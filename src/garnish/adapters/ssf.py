"""SSF: scale and shift the outputs of layers and norms (Lian et al., NeurIPS 2022).

Shape letters: R rows, H W map, C channels of a layer's output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from garnish.adapters.places import patch_embed, require
from garnish.engine.adapter import Adapter, Method, Plan
from garnish.engine.blocks import bare
from garnish.engine.context import ForwardContext
from garnish.engine.open_sizes import ordered
from garnish.engine.sites import Site
from garnish.engine.trunk import Trunk

_STD = 0.02


@final
@dataclass(frozen=True, kw_only=True)
class SSF(Method):
    """``y = γ ⊙ z + β`` after each layer and norm, one γ and β per channel of z; can be merged into the trunk.

    Starts near the identity, not at it: γ ~ N(1, 0.02²), β ~ N(0, 0.02²), as in the released code.

    Places: the patch embedding's convolution; every norm (of the patch embedding, of both branches, of patch merging,
    at a stage's end); every linear layer and convolution in the blocks (Swin and ViT: qkv, proj, fc1, fc2; MiT also
    its reductions of keys and values and its depthwise convolutions). Left out are the reductions between stages,
    networks that compute a position bias, and norms that do more than normalise (an activation in the same module, a
    skip around it), where nothing could be merged. The published places include the trunk's final norm, which trunks
    here do not have. Where attention adds its bias after the layer (DINOv3), γ and β act before that bias.

    Example:
        >>> model = gn.adapt(gn.backbone("garnish_b0"), gn.SSF(), {"depth": gn.Depth()})
        >>> sum(tensor.numel() for tensor in model.trained_parameters().values())  # with the head's 1,537
        36417
    """

    def plan(self, backbone: Trunk) -> Plan:
        """A scale and shift at every place."""
        embedding = {s.name for s in patch_embed(backbone)}

        def wanted(site: Site, module: nn.Module) -> bool:
            if site.kind == "norm":
                return _only_norms(module)
            return site.kind == "layer" and (site.block >= 0 or site.name in embedding)

        adapters = {s.name: SSFAdapter(bare(m)) for s, m in backbone.sites_with_modules() if wanted(s, bare(m))}
        require(adapters, "SSF", backbone, "layers or norms")
        return Plan(adapters)


@final
class SSFAdapter(Adapter):
    """γ and β of one layer or norm."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        weight = layer.weight
        assert isinstance(weight, Tensor)
        self.scale = nn.Parameter(torch.empty(weight.shape[0]))
        self.shift = nn.Parameter(torch.empty(weight.shape[0]))
        nn.init.normal_(self.scale, mean=1.0, std=_STD)
        nn.init.normal_(self.shift, std=_STD)
        self.channels_first = _channels_first(layer)

    def after(self, x: Tensor, y: Tensor, ctx: ForwardContext) -> Tensor:
        """(…, C) → (…, C), or maps (R, C, H, W) → (R, C, H, W)."""
        # one pass over y, also where it is made again in the backward pass
        if self.channels_first:
            return torch.addcmul(self.shift[:, None, None], ordered(y), self.scale[:, None, None])
        return torch.addcmul(self.shift, y, self.scale)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """``diag(γ) W`` and ``γ ⊙ b + β``, for layers and norms; a layer without bias gets the bias β."""
        scaled = self.scale.view(-1, *[1] * (weight.ndim - 1)) * weight
        return scaled, self.shift if bias is None else self.scale * bias + self.shift


def _only_norms(norm: nn.Module) -> bool:
    """Whether a norm ends with its own weight and bias, so that γ and β can be merged into them."""
    # a batch norm with an activation is one module in timm; ConvNeXtV2's global response norm adds its input
    plain = all(isinstance(child, nn.Identity) for child in norm.children())
    return plain and not isinstance(norm, GlobalResponseNorm) and isinstance(norm.weight, Tensor)


def _channels_first(layer: nn.Module) -> bool:
    """Whether a layer or norm returns (R, C, H, W): convolutions, and the norms made for them."""
    # timm's channels-first norms derive from torch's channels-last ones and differ only in name
    return isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.GroupNorm) or "2d" in type(layer).__name__
