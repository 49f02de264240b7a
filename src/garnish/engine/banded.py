"""The first layer of a trunk with filters for further bands: y = layer(planes 0 … 2) + conv(the other planes, E).

E, (D, E, k, k), is one trained tensor of an owner's. What the owner's adapters do at this layer lies inside: they see
three planes, as the layer does. So a trunk, its weights and every method meet other bands nowhere else.

Shape letters: I images, R rows, D channels of the first layer, E bands beside red, green and blue, k kernel size.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from garnish.engine.blocks import Wrapper, bare
from garnish.engine.context import Binding, ForwardContext, Whose
from garnish.engine.sites import Site
from garnish.engine.stacks import run_layer
from garnish.engine.trunk import Trunk
from garnish.errors import SiteError
from garnish.files.band_names import RED_GREEN_BLUE
from garnish.pictures.given_bands import GivenBands

#: Planes that a pretrained first layer takes.
PLANES = len(RED_GREEN_BLUE)


@final
class OtherBands(nn.Module):
    """An owner's filters of the first layer for the bands beside red, green and blue.

    Attributes:
        weight: (D, E, k, k).
        site: of the first layer.
    """

    def __init__(self, site: Site, weight: Tensor) -> None:
        super().__init__()
        self.site = site
        self.weight = nn.Parameter(weight)

    @classmethod
    def of(cls, trunk: Trunk, given: GivenBands) -> OtherBands | None:
        """New filters for a trunk; None: there are no other bands.

        With ``extra="mean"`` each is the mean w̄ of the layer's three filters, times max(3 - P, 1) / E where P of red,
        green and blue are among the bands: together they weigh what the missing planes would, or one plane.

        Raises:
            SiteError: the trunk's first layer is not a convolution of three planes.
        """
        count = len(given.bands.others)
        if not count:
            return None
        site, layer = first_layer(trunk)
        like = layer.weight.detach()
        if given.extra == "zero":
            return cls(site, like.new_zeros(like.shape[0], count, *like.shape[2:]))
        there = sum(place is not None for place in given.bands.rgb)
        weight = like.mean(1, keepdim=True) * (max(PLANES - there, 1) / count)
        return cls(site, weight.expand(-1, count, -1, -1).clone())


def first_layer(trunk: Trunk) -> tuple[Site, nn.Conv2d]:
    """The convolution that reads pictures, without wrappers; raises :class:`SiteError` where it is another layer."""
    site, module = next((pair for pair in trunk.sites_with_modules() if pair[0].kind == "layer"), (None, None))
    layer = None if module is None else bare(module)
    if site is None or not isinstance(layer, nn.Conv2d) or (layer.in_channels, layer.groups) != (PLANES, 1):
        found = "nowhere" if site is None else site.name
        raise SiteError(
            f"bands: the first plain layer of {trunk.name} is {found}, no convolution of red, green and blue that"
            " filters of other bands can be added to; give those three alone, or take another backbone"
        )
    return site, layer


@final
class Banded(Wrapper):
    """Around the first layer and all its adapters; a pass of three planes runs through it as if it were not there.

    Args:
        layer: the first layer, or the outermost wrapper of adapters.
        binding: gives the context of the pass, and so whose filters act.
    """

    def __init__(self, layer: nn.Module, binding: Binding) -> None:
        super().__init__()
        self.layer = layer
        self.binding = binding

    def forward(self, x: Tensor) -> Tensor:
        """(R, 3 + E, H, W) → (R, D, H', W'); all owners of a pass have the same bands."""
        if x.shape[1] == PLANES:
            return self.layer(x)  # type: ignore[no-any-return]
        ctx = self.binding.current()
        y: Tensor = self.layer(x[:, :PLANES])
        added = self._added(x[:, PLANES:], ctx)
        if y.shape[0] != added.shape[0]:  # task streams begin at this layer, behind the images' own rows
            assert ctx.streams is not None
            added = torch.cat([added, ctx.streams.take(added, ctx.num_images)])
        return y + added

    def _added(self, others: Tensor, ctx: ForwardContext) -> Tensor:
        """What the filters of each row's owner make of its other bands."""
        if ctx.rows is None:
            return self._run(others, ctx.owner)
        roots = [owner.root for owner in ctx.rows.present]
        if len(set(roots)) == 1:
            return self._run(others, roots[0])
        if ctx.rows.counts is not None:
            return torch.cat([self._run(part, own) for part, own in zip(ctx.rows.split(others), roots, strict=True)])
        added = self._run(others, roots[0])  # compiled: no shape may depend on how many rows an owner has
        for position, own in enumerate(roots[1:], start=1):
            mine = (ctx.rows.owners == position).view(-1, 1, 1, 1)
            added = torch.where(mine, self._run(others, own), added)
        return added

    def _run(self, others: Tensor, owner: Whose) -> Tensor:
        assert owner is not None and owner.root.others is not None, "a pass of other bands has an owner with filters"
        return run_layer(bare(self.layer), others, owner.root.others.weight, None)
